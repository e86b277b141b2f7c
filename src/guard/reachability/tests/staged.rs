//! Policies on trial: what a canary opens or closes is judged, and nothing that it closes is counted upon.

use super::*;

/// A policy on trial for the pods of the database.
fn canary(name: &str, ingress: &Value) -> Value {
    json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": "StagedNetworkPolicy",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "stage": "Canary", "canary": {"podSelector": {"matchLabels": {"app": "db"}}},
            "podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"], "ingress": ingress,
        },
    })
}

fn in_shadow(mut staged: Value) -> Value {
    staged["spec"]["stage"] = json!("Shadow");
    staged
}

fn demanded() -> Value {
    let mut demands = not_db("Enforce");
    demands["spec"]["expect"] = json!("Allow");
    demands
}

/// A shop in which everybody may reach everybody.
fn open_shop(objects: &[Value], rules: &[Value]) -> Cluster {
    let there = [
        namespace("shop"),
        deployment("web", &json!({"app": "web"})),
        deployment("db", &json!({"app": "db"})),
    ];
    of(&[&there, objects].concat(), rules)
}

#[test]
fn a_canary_that_closes_what_a_rule_demands_is_refused_and_in_shadow_it_is_told() {
    let cluster = open_shop(&[], &[demanded()]);
    let deny = canary("deny", &json!([]));
    let decision = cluster.create(&deny);
    assert!(!decision.allowed());
    assert_eq!(ids(&decision), ["RF702"]);
    assert_eq!(
        messages(&decision),
        [
            "closes Deployment shop/web → Deployment shop/db TCP 5432, which ReachabilityRule not-db demands; \
             ingress of Deployment shop/db is isolated by StagedNetworkPolicy shop/deny (canary), and no rule allows it"
        ]
    );
    let told = cluster.create(&in_shadow(deny.clone()));
    assert!(told.allowed());
    assert_eq!(ids(&told), ["RF702"]);
    assert!(messages(&told)[0].starts_with("once promoted: closes Deployment shop/web"));
    // Another pod is chosen: nothing of what is demanded closes yet.
    let mut other = deny.clone();
    other["spec"]["canary"]["podSelector"]["matchLabels"]["app"] = json!("web");
    assert!(cluster.create(&other).allowed());
    assert!(!cluster.update(&other, &deny).allowed());
    assert!(!cluster.update(&in_shadow(deny.clone()), &deny).allowed());
}

#[test]
fn a_canary_that_opens_what_a_rule_forbids_is_refused_at_its_peer() {
    let decision = shop(&[not_db("Enforce")])
        .create(&canary("opens", &json!([{"from": [{"podSelector": {}}]}])));
    assert!(!decision.allowed());
    assert_eq!(ids(&decision), ["RF701"]);
    let finding = &decision.judged[0].finding;
    assert_eq!(finding.field.to_string(), "spec.ingress[0].from[0]");
    assert!(
        finding
            .fix
            .as_ref()
            .and_then(|fix| fix.patch.as_ref())
            .is_some()
    );
}

#[test]
fn what_a_canary_closes_is_not_counted_upon() {
    let deny = canary("deny", &json!([]));
    let real = policy(
        "real",
        &json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"]}),
    );
    let cluster = open_shop(&[deny.clone(), real.clone()], &[not_db("Enforce")]);
    // With the canary it would stay closed.
    let decision = cluster.delete(&real);
    assert_eq!(ids(&decision), ["RF701"]);
    assert!(!decision.allowed());
    // A canary that ends, or shrinks, is never held up.
    let open = open_shop(std::slice::from_ref(&deny), &[not_db("Enforce")]);
    assert!(open.delete(&deny).judged.is_empty());
    assert!(open.update(&deny, &in_shadow(deny.clone())).allowed());
    let mut fewer = deny.clone();
    fewer["spec"]["canary"] = json!({"percent": 1});
    assert!(open.update(&deny, &fewer).allowed());
}

#[test]
fn what_a_canary_opens_counts_for_what_others_open() {
    let opens = canary("opens", &json!([{"from": [{"podSelector": {}}]}]));
    let shut = policy(
        "shut",
        &json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
    );
    let out = policy(
        "out",
        &json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"], "egress": [{}]}),
    );
    let without = open_shop(std::slice::from_ref(&shut), &[not_db("Enforce")]);
    assert!(without.create(&out).allowed(), "the database is closed");
    let with = open_shop(&[shut, opens], &[not_db("Enforce")]);
    assert_eq!(ids(&with.create(&out)), ["RF701"]);
}

#[test]
fn what_is_being_deleted_is_counted_upon_no_more_than_a_trial() {
    let closes = |name: &str| {
        let spec =
            json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"]});
        policy(name, &spec)
    };
    let (real, mut leaving) = (closes("real"), closes("leaving"));
    let rules = [not_db("Enforce")];
    let both = open_shop(&[real.clone(), leaving.clone()], &rules);
    assert!(both.delete(&real).allowed());
    leaving["metadata"]["deletionTimestamp"] = json!("2026-06-01T00:00:00Z");
    let kept = open_shop(&[real.clone(), leaving.clone()], &rules);
    assert_eq!(ids(&kept.delete(&real)), ["RF701"]);
    assert!(kept.delete(&leaving).allowed());
}

#[test]
fn the_cluster_without_what_may_go_is_carried_on_with_the_changes() {
    let deny = canary("deny", &json!([]));
    let mut cluster = open_shop(&[], &[not_db("Enforce")]);
    let model = |value: &Value| {
        let subject = crate::guard::review::Subject::new(value.clone());
        subject.model().expect("a kind of the model").clone()
    };
    let real = policy(
        "real",
        &json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"]}),
    );
    for value in [&deny, &real] {
        let object = model(value);
        let key = object.key();
        cluster.snapshot = cluster.snapshot.with(object);
        cluster.reachability = cluster.reachability.following(&cluster.snapshot, &[key]);
        let rules = cluster.reachability.iter().cloned().collect();
        assert_eq!(
            cluster.reachability,
            ReachabilityRules::new(rules, &cluster.snapshot)
        );
        assert!(cluster.reachability.lasting().is_some());
    }
    assert_eq!(ids(&cluster.delete(&real)), ["RF701"]);
    let object = model(&deny);
    cluster.snapshot = cluster.snapshot.without(&object.key());
    cluster.reachability = cluster
        .reachability
        .following(&cluster.snapshot, &[object.key()]);
    assert!(cluster.reachability.lasting().is_none());
}
