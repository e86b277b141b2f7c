use serde_json::{Value, json};

use super::*;
use crate::guard::guardrail::{Guardrail, GuardrailSpec};
use crate::guard::review::Subject;

fn at() -> Timestamp {
    "2027-06-01T12:00:00Z".parse().expect("a moment")
}

fn policy(name: &str, annotations: &Value, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "shop", "annotations": annotations}, "spec": spec,
    })
}

fn register(objects: &[Value], spec: &GuardrailSpec) -> Register {
    let models = objects.iter().map(|object| {
        let subject = Subject::new(object.clone());
        subject.model().expect("a kind of the model").clone()
    });
    let snapshot: Snapshot = models.collect();
    let manifest = json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": "Guardrail", "metadata": {"name": "g"}, "spec": spec,
    });
    let guardrail = Guardrail::parse(&manifest).expect("valid");
    let exemption = Exemption::parse(&json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": "Exemption",
        "metadata": {"name": "wide", "namespace": "shop"},
        "spec": {
            "checks": ["RF301"], "objects": [{"kind": "NetworkPolicy", "name": "web*"}],
            "reason": "r", "owner": "o", "expires": "2027-07-01T00:00:00Z",
        },
    }));
    Register::of(
        &snapshot,
        &Guardrails::new(vec![guardrail]),
        &Exemptions::new(vec![exemption.expect("valid")]),
        &BTreeMap::new(),
        at(),
    )
}

fn web() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}}, "spec": {"containers": []},
    })
}

#[test]
fn a_policy_is_told_with_what_it_opens_and_who_answers_for_it() {
    let said = json!({
        "ringfence.dev/owner": " team-shop ", "ringfence.dev/purpose": "",
        "ringfence.dev/controls": "PCI DSS 1.3.1, SOC 2 CC6.6",
    });
    let register = register(
        &[
            web(),
            policy(
                "web",
                &said,
                &json!({
                    "podSelector": {"matchLabels": {"app": "web"}},
                    "ingress": [{"ports": [{"port": "http"}, {"protocol": "UDP"}]}],
                    "egress": [{"to": [
                        {"podSelector": {}},
                        {"namespaceSelector": {}, "podSelector": {"matchLabels": {"a": "b"}}},
                        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "data"}}},
                        {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
                    ], "ports": [{"port": 80, "endPort": 90}]}],
                }),
            ),
        ],
        &GuardrailSpec::built_in(),
    );
    let mut entry = serde_json::to_value(&register.policies[0]).expect("JSON");
    entry.as_object_mut().expect("an object").remove("location");
    insta::assert_json_snapshot!("entry", entry);
    assert_eq!((register.undocumented(), register.overdue()), (1, 0));
}

#[test]
fn a_day_of_review_is_good_until_it_is_over() {
    let review = |text: &str| Review::of(Some(text.to_owned()), at());
    assert_eq!(Review::of(None, at()), Review::Unsaid);
    assert_eq!(review("2027-06-01"), Review::Due("2027-06-01".to_owned()));
    assert_eq!(
        review("2027-05-31"),
        Review::Overdue("2027-05-31".to_owned())
    );
    assert_eq!(
        review("next year"),
        Review::Unreadable("next year".to_owned())
    );
    assert_eq!(
        review("2027-02-30"),
        Review::Unreadable("2027-02-30".to_owned())
    );
}

#[test]
fn the_annotations_are_those_that_the_guardrail_names() {
    let mut spec = GuardrailSpec::built_in();
    let section = spec.documentation.get_or_insert_default();
    section.owner.annotation = "example.com/team".to_owned();
    let said = json!({"example.com/team": "team-own", "ringfence.dev/owner": "nobody"});
    let register = register(&[policy("a", &said, &json!({"podSelector": {}}))], &spec);
    assert_eq!(register.policies[0].owner.as_deref(), Some("team-own"));
}

#[test]
fn policies_overlap_where_they_isolate_the_same_workloads_in_the_same_direction() {
    let from_all = json!([{"from": [{"podSelector": {}}]}]);
    let register = register(
        &[
            web(),
            policy(
                "deny",
                &json!({}),
                &json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
            ),
            policy(
                "web",
                &json!({}),
                &json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": from_all}),
            ),
            policy(
                "web-again",
                &json!({}),
                &json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": from_all}),
            ),
            policy(
                "out",
                &json!({}),
                &json!({"podSelector": {}, "policyTypes": ["Egress"]}),
            ),
            policy(
                "none",
                &json!({}),
                &json!({"podSelector": {"matchLabels": {"app": "gone"}}}),
            ),
        ],
        &GuardrailSpec::built_in(),
    );
    let overlaps: BTreeMap<&str, Vec<(&str, usize, usize)>> = register
        .policies
        .iter()
        .map(|entry| {
            let overlaps = entry.overlaps.iter();
            let overlaps = overlaps.map(|one| (one.policy.as_str(), one.workloads, one.same_rules));
            (entry.name.as_str(), overlaps.collect())
        })
        .collect();
    assert_eq!(overlaps["deny"], [("web", 1, 0), ("web-again", 1, 0)]);
    assert_eq!(overlaps["web"], [("deny", 1, 0), ("web-again", 1, 1)]);
    assert!(overlaps["out"].is_empty() && overlaps["none"].is_empty());
    let [covered] = register.namespaces.as_slice() else {
        panic!("one namespace")
    };
    assert_eq!(
        (
            covered.workloads,
            covered.open_to_ingress,
            covered.open_to_egress
        ),
        (1, 0, 0)
    );
    assert_eq!(
        (covered.ingress.as_slice(), covered.egress.as_slice()),
        (&["deny".to_owned()][..], &["out".to_owned()][..])
    );
}

#[test]
fn policies_of_the_whole_cluster_are_told_in_their_order() {
    let policy = |name: &str, tier: &str, priority: u16| {
        json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": name, "annotations": {"ringfence.dev/owner": "team-net", "ringfence.dev/review-by": "2027-05-31"}},
            "spec": {"tier": tier, "priority": priority, "subject": {"namespaces": {}}, "egress": [
                {"action": "Deny", "to": [{"networks": ["192.0.2.0/24"]}]},
            ]},
        })
    };
    let objects = [
        policy("last", "Baseline", 1),
        policy("second", "Admin", 9),
        policy("first", "Admin", 2),
    ];
    let register = register(&objects, &GuardrailSpec::built_in());
    let told: Vec<(&str, &str)> = register
        .cluster
        .iter()
        .map(|entry| (entry.name.as_str(), entry.place.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("first", "Admin 2"),
            ("second", "Admin 9"),
            ("last", "Baseline 1")
        ]
    );
    assert_eq!(
        register.cluster[0].rules,
        ["Deny egress to 192.0.2.0/24, all ports"]
    );
    assert_eq!(register.cluster[0].subject, "all pods of every namespace");
    assert_eq!((register.overdue(), register.undocumented()), (3, 3));
}

#[test]
fn policies_of_the_whole_cluster_overlap_with_those_for_the_same_workloads() {
    let wide = |name: &str, annotation: &str, direction: &str| {
        json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": name, "annotations": {annotation: "team-net"}},
            "spec": {
                "tier": "Admin", "priority": 1,
                "subject": {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}},
                direction: [{"action": "Deny", "from": [{"namespaces": {}}]}]
            },
        })
    };
    let in_from = wide("in", "example.com/team", "ingress");
    let mut out = wide("out", "ringfence.dev/owner", "egress");
    out["spec"]["egress"] = json!([{"action": "Deny", "to": [{"namespaces": {}}]}]);
    let mut late = in_from.clone();
    late["metadata"]["name"] = json!("late");
    late["spec"]["priority"] = json!(2);
    let isolates = policy("deny", &json!({}), &json!({"podSelector": {}}));
    let other = policy(
        "other",
        &json!({}),
        &json!({"podSelector": {"matchLabels": {"app": "db"}}}),
    );
    let mut spec = GuardrailSpec::built_in();
    spec.documentation.as_mut().unwrap().owner.annotation = "example.com/team".to_owned();
    let register = register(&[web(), in_from, out, late, isolates, other], &spec);

    let overlap = |policy: &str, place: &str| ClusterOverlap {
        kind: ClusterPolicyKind::ClusterNetworkPolicy,
        policy: policy.to_owned(),
        place: place.to_owned(),
        workloads: 1,
    };
    let told: Vec<(&str, usize, &[ClusterOverlap], usize)> = register
        .cluster
        .iter()
        .map(|entry| {
            let overlaps = entry.overlaps.as_slice();
            let count = entry.network_policies;
            (entry.name.as_str(), entry.workloads, overlaps, count)
        })
        .collect();
    assert_eq!(
        told,
        [
            ("in", 1, &[overlap("late", "Admin 2")][..], 1),
            ("out", 1, &[], 0),
            ("late", 1, &[overlap("in", "Admin 1")], 1),
        ]
    );
    let ruled: Vec<(&str, &[ClusterOverlap])> = register
        .policies
        .iter()
        .map(|entry| (entry.name.as_str(), entry.ruled_by.as_slice()))
        .collect();
    assert_eq!(
        ruled,
        [
            (
                "deny",
                &[overlap("in", "Admin 1"), overlap("late", "Admin 2")][..]
            ),
            ("other", &[])
        ]
    );
    // The Guardrails of the namespaces that it may rule say where its owner is named.
    let owners: Vec<Option<&str>> = register
        .cluster
        .iter()
        .map(|entry| entry.owner.as_deref())
        .collect();
    assert_eq!(owners, [Some("team-net"), None, Some("team-net")]);
}
