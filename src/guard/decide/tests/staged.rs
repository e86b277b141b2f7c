//! A policy on trial is judged as what it is promoted to: told in stage `Shadow`, refused in stage `Canary`.

use super::*;

fn staged(stage: &str, spec: &Value) -> Value {
    let mut staged = json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": "StagedNetworkPolicy",
        "metadata": {"name": "default-deny", "namespace": "shop"}, "spec": spec,
    });
    staged["spec"]["stage"] = json!(stage);
    if stage == "Canary" {
        staged["spec"]["canary"] = json!({"percent": 10});
    }
    staged
}

/// Open to all the world.
fn open_spec() -> Value {
    json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]})
}

fn open(stage: &str) -> Value {
    staged(stage, &open_spec())
}

fn shop() -> Cluster {
    Cluster::of(&[namespace("shop"), web()])
}

/// The findings, each with its mode, its object and where it is.
fn told(decision: &Decision) -> Vec<String> {
    let told = decision.judged.iter().map(|judged| {
        let finding = &judged.finding;
        format!(
            "{} {} {} {}",
            judged.mode, finding.id, finding.object, finding.field
        )
    });
    told.collect()
}

/// What a NetworkPolicy of the same spec is refused for, as it is to be told of the policy on trial.
fn expected(mode: &str) -> Vec<String> {
    let refused = told(&shop().create(&policy("default-deny", &open_spec())));
    assert!(!refused.is_empty());
    let refused = refused.iter().map(|line| {
        assert!(line.starts_with("Enforce "), "{line}");
        line.replacen("Enforce", mode, 1)
            .replacen("NetworkPolicy", "StagedNetworkPolicy", 1)
    });
    refused.collect()
}

#[test]
fn in_shadow_it_is_told_what_promotion_would_be_refused_for() {
    let decision = shop().create(&open("Shadow"));
    assert!(decision.allowed());
    assert_eq!(told(&decision), expected("Warn"));
    // No mode of a Guardrail makes a refusal of it.
    assert_eq!(decision.would_deny().count(), 0);
    let message = &decision.judged[0].finding.message;
    assert!(message.starts_with("once promoted: "), "{message}");
}

#[test]
fn a_canary_is_refused_for_what_a_network_policy_is_refused_for() {
    let decision = shop().create(&open("Canary"));
    assert!(!decision.allowed());
    assert_eq!(told(&decision), expected("Enforce"));
    // What was only told in shadow was never in force.
    let began = shop().update(&open("Shadow"), &open("Canary"));
    assert_eq!(told(&began), told(&decision));
    // A larger share of the same is nothing new, and the way back is always open.
    let mut wider = open("Canary");
    wider["spec"]["canary"]["percent"] = json!(20);
    assert!(shop().update(&open("Canary"), &wider).allowed());
    assert!(shop().update(&open("Canary"), &open("Shadow")).allowed());
    assert!(shop().delete(&open("Canary")).judged.is_empty());
}

#[test]
fn one_that_would_take_the_cover_of_a_policy_of_its_name_away_is_refused() {
    let covered = Cluster::of(&[namespace("shop"), default_deny(), web()]);
    let weaker = json!({"podSelector": {}, "policyTypes": ["Ingress"]});
    let decision = covered.create(&staged("Canary", &weaker));
    assert!(ids(&decision).contains(&"RF202"), "{:?}", told(&decision));
    assert!(!decision.allowed());
    let decision = covered.create(&staged("Shadow", &weaker));
    assert!(ids(&decision).contains(&"RF202"), "{:?}", told(&decision));
    assert!(decision.allowed());
    let same = default_deny()["spec"].clone();
    assert!(covered.create(&staged("Canary", &same)).allowed());
}

#[test]
fn an_exemption_may_name_it_or_what_it_is_promoted_to() {
    for kind in ["NetworkPolicy", "StagedNetworkPolicy"] {
        let mut cluster = shop();
        let decision = cluster.create(&open("Canary"));
        let exemption = Exemption::parse(&json!({
            "apiVersion": "ringfence.dev/v1alpha1", "kind": "Exemption",
            "metadata": {"name": "open", "namespace": "shop"},
            "spec": {
                "guardrail": "test", "checks": ids(&decision),
                "objects": [{"kind": kind, "name": "default-deny"}],
                "reason": "it is a shop", "owner": "web", "expires": "2026-07-01T00:00:00Z",
            },
        }));
        cluster.exemptions = Exemptions::new(vec![exemption.unwrap()]);
        let decision = cluster.create(&open("Canary"));
        assert!(decision.allowed(), "{kind}: {:?}", told(&decision));
        assert_eq!(decision.exempted().count(), decision.judged.len());
    }
}

#[test]
fn one_that_is_not_understood_is_always_refused() {
    let bad = staged("Shadow", &json!({"policyTypes": ["Sideways"]}));
    let decision = Cluster::under(&GuardrailSpec::default(), &[]).create(&bad);
    assert!(!decision.allowed());
}
