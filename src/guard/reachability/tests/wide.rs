//! Changes of policies of the whole cluster.

use super::*;

/// One rule for who comes from the pods of the shop to its database.
fn wide(name: &str, action: &str, port: u16) -> Value {
    let pods = |pods: Value| json!({"pods": {"namespaceSelector": {}, "podSelector": pods}});
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {"name": name},
        "spec": {
            "tier": "Admin", "priority": 10, "subject": pods(json!({"matchLabels": {"app": "db"}})),
            "ingress": [{
                "action": action,
                "from": [pods(json!({"matchLabels": {"app": "api"}})), pods(json!({"matchLabels": {"app": "web"}}))],
                "protocols": [{"tcp": {"destinationPort": {"number": port}}}]
            }]
        }
    })
}

fn with(mut cluster: Cluster, object: &Value) -> Cluster {
    let subject = crate::guard::review::Subject::new(object.clone());
    cluster.snapshot = cluster
        .snapshot
        .with(subject.model().expect("an object").clone());
    let rules = cluster.reachability.iter().cloned().collect();
    cluster.reachability = ReachabilityRules::new(rules, &cluster.snapshot);
    cluster
}

#[test]
fn one_that_opens_what_a_rule_forbids_is_refused_with_the_flow_and_the_peer() {
    let decision = shop(&[not_db("Enforce")]).create(&wide("opens", "Accept", 5432));
    assert!(!decision.allowed());
    assert_eq!(
        messages(&decision),
        [
            "opens Deployment shop/web → Deployment shop/db TCP 5432, which ReachabilityRule not-db forbids; let through by \
             ClusterNetworkPolicy opens spec.ingress[0].from[1]; no policy isolates Deployment shop/web for egress"
        ]
    );
    let finding = &decision.judged[0].finding;
    assert_eq!(finding.id.as_str(), "RF701");
    assert_eq!(finding.object.name, "opens");
    assert_eq!(finding.field.to_string(), "spec.ingress[0].from[1]");
}

#[test]
fn one_that_opens_another_port_or_what_is_open_already_is_not() {
    let cluster = shop(&[not_db("Enforce")]);
    assert!(
        cluster
            .create(&wide("opens", "Accept", 80))
            .judged
            .is_empty()
    );
    let old = wide("opens", "Accept", 5432);
    let open = with(cluster, &old);
    let mut sooner = old.clone();
    sooner["spec"]["priority"] = json!(5);
    assert!(open.update(&old, &sooner).judged.is_empty());
    let again = wide("again", "Accept", 5432);
    assert!(open.create(&again).judged.is_empty());
}

#[test]
fn a_deletion_and_an_update_that_open_are_seen() {
    let open = policy(
        "open",
        &json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]}),
    );
    let deny = wide("guard", "Deny", 5432);
    let cluster = with(with(shop(&[not_db("Enforce")]), &open), &deny);
    let decision = cluster.delete(&deny);
    assert_eq!(ids(&decision), ["RF701"]);
    assert_eq!(decision.judged[0].finding.field.to_string(), "");
    assert_eq!(
        ids(&cluster.update(&deny, &wide("guard", "Deny", 80))),
        ["RF701"]
    );
    assert_eq!(
        ids(&cluster.update(&deny, &wide("guard", "Pass", 5432))),
        ["RF701"]
    );
}

#[test]
fn one_that_closes_what_a_rule_demands_is_refused() {
    let mut demands = not_db("Enforce");
    demands["spec"]["expect"] = json!("Allow");
    let open = policy(
        "open",
        &json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]}),
    );
    let cluster = with(shop(&[demands]), &open);
    assert_eq!(
        ids(&cluster.create(&wide("guard", "Deny", 5432))),
        ["RF702"]
    );
    assert!(cluster.create(&wide("guard", "Deny", 80)).judged.is_empty());
}
