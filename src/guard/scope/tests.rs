//! The table against what is found: each line of it can be the reason of a finding, and what is not in it never is.

use serde_json::{Value, json};

use super::*;
use crate::guard::guardrail::{ClusterNetworkPolicies, CoverageSection, GuardrailSpec, Unchanged};
use crate::guard::review::Review;
use crate::guard::testing::{
    Cluster, create, default_deny, delete, deployment, namespace, policy, update,
};
use crate::netpol::WorkloadKind;

/// Nothing is tolerated, and the tier of the whole cluster counts.
fn strict() -> GuardrailSpec {
    GuardrailSpec {
        unchanged: Unchanged::Judge,
        coverage: Some(CoverageSection {
            cluster_network_policies: ClusterNetworkPolicies::Enforced,
            ..CoverageSection::default()
        }),
        ..GuardrailSpec::built_in()
    }
}

fn is_registered(review: &Review, subresource: Option<&str>) -> bool {
    let resource = match subresource {
        Some(subresource) => format!("{}/{subresource}", review.resource),
        None => review.resource.clone(),
    };
    JUDGED.iter().any(|judged| {
        judged.group == review.kind_version.group
            && judged.version == review.kind_version.version
            && judged.resources.contains(&resource.as_str())
            && judged.operations.contains(&review.operation)
    })
}

fn workload(kind: WorkloadKind) -> Value {
    let pod = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": "x"}]}});
    let spec = match kind {
        WorkloadKind::Pod => pod["spec"].clone(),
        WorkloadKind::CronJob => {
            json!({"schedule": "@daily", "jobTemplate": {"spec": {"template": pod}}})
        }
        _ => json!({"selector": {"matchLabels": {"app": "web"}}, "template": pod}),
    };
    json!({
        "apiVersion": kind.api_version(), "kind": kind.as_str(),
        "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}}, "spec": spec
    })
}

fn baseline_tier() -> Value {
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "deny"},
        "spec": {
            "tier": "Baseline", "priority": 1, "subject": {"namespaces": {}},
            "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}],
            "egress": [{"action": "Deny", "to": [{"networks": ["0.0.0.0/0", "::/0"]}]}],
        }
    })
}

fn own(kind: &str) -> Value {
    json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": kind,
        "metadata": {"name": "x", "namespace": "shop"}, "spec": {"mistake": true}
    })
}

#[test]
fn every_workload_that_comes_or_changes_is_judged_and_registered() {
    let cluster = Cluster::under(&strict(), &[namespace("shop")]);
    for kind in WorkloadKind::ALL {
        let new = workload(kind);
        let mut changed = new.clone();
        changed["metadata"]["labels"]["more"] = json!("1");
        for review in [create(&new), update(&new, &changed)] {
            assert!(!cluster.judge(&review).allowed(), "{kind} is refused");
            assert!(
                is_registered(&review, None),
                "{kind} {:?}",
                review.operation
            );
        }
        let review = delete(&new);
        assert!(cluster.judge(&review).judged.is_empty());
        assert!(
            !is_registered(&review, None),
            "{kind} that goes harms nobody"
        );
    }
}

#[test]
fn of_the_subresources_those_are_registered_that_are_not_skipped() {
    let pod = workload(WorkloadKind::Pod);
    let mut other = pod.clone();
    other["spec"]["containers"][0]["image"] = json!("y");
    let cluster = Cluster::under(&strict(), &[namespace("shop")]);
    for subresource in [
        "binding",
        "ephemeralcontainers",
        "eviction",
        "exec",
        "resize",
        "scale",
        "status",
    ] {
        let mut review = update(&pod, &other);
        review.subresource = Some(subresource.to_owned());
        let skipped = cluster.judge(&review).skipped.is_some();
        assert_eq!(
            is_registered(&review, Some(subresource)),
            !skipped,
            "{subresource}"
        );
    }
}

#[test]
fn what_takes_cover_away_is_judged_and_registered() {
    let covered = [
        namespace("shop"),
        default_deny(),
        deployment("web", &json!({"app": "web"})),
    ];
    let cluster = Cluster::under(&strict(), &covered);
    let open = policy("default-deny", &json!({"podSelector": {}, "ingress": [{}]}));
    for review in [
        create(&open),
        update(&default_deny(), &open),
        delete(&default_deny()),
    ] {
        assert!(!cluster.judge(&review).allowed(), "{:?}", review.operation);
        assert!(is_registered(&review, None), "{:?}", review.operation);
    }

    let mut narrow = baseline_tier();
    narrow["spec"]["subject"] = json!({"namespaces": {"matchLabels": {"tier": "held"}}});
    let mut held = namespace("shop");
    held["metadata"]["labels"] = json!({"tier": "held"});
    let web = deployment("web", &json!({"app": "web"}));
    let cluster = Cluster::under(&strict(), &[held.clone(), narrow.clone(), web.clone()]);
    let mut accept = narrow.clone();
    accept["metadata"]["name"] = json!("accept");
    accept["spec"]["priority"] = json!(0);
    accept["spec"]["ingress"][0]["action"] = json!("Accept");
    accept["spec"]["egress"][0]["action"] = json!("Accept");
    let mut without_egress = narrow.clone();
    without_egress["spec"]["egress"] = json!([]);
    for review in [
        update(&held, &namespace("shop")),
        update(&narrow, &without_egress),
        delete(&narrow),
        create(&accept),
    ] {
        let decision = cluster.judge(&review);
        assert!(
            !decision.allowed(),
            "{} {:?}",
            review.kind,
            review.operation
        );
        assert!(
            is_registered(&review, None),
            "{} {:?}",
            review.kind,
            review.operation
        );
    }
}

#[test]
fn own_kinds_with_a_mistake_are_judged_and_registered() {
    let cluster = Cluster::under(&strict(), &[]);
    for kind in ["Guardrail", "Exemption", "ReachabilityRule"] {
        let (bad, mut old) = (own(kind), own(kind));
        old["spec"] = json!({});
        for review in [create(&bad), update(&old, &bad)] {
            assert!(!cluster.judge(&review).allowed(), "{kind}");
            assert!(is_registered(&review, None), "{kind}");
        }
        assert!(!is_registered(&delete(&bad), None), "{kind} may always go");
    }
}

#[test]
fn policies_on_trial_are_judged_and_registered_until_they_go() {
    let staged = json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": "StagedNetworkPolicy",
        "metadata": {"name": "open", "namespace": "shop"},
        "spec": {"stage": "Canary", "canary": {"percent": 5}, "ingress": [{}]},
    });
    let mut shadow = staged.clone();
    shadow["spec"]["stage"] = json!("Shadow");
    let cluster = Cluster::under(&strict(), &[namespace("shop")]);
    for review in [create(&staged), update(&shadow, &staged)] {
        assert!(!cluster.judge(&review).allowed(), "{:?}", review.operation);
        assert!(is_registered(&review, None), "{:?}", review.operation);
    }
    assert!(cluster.delete(&staged).judged.is_empty());
    assert!(!is_registered(&delete(&staged), None));
}

#[test]
fn what_is_not_judged_is_not_registered() {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}
    });
    let cluster = Cluster::under(&strict(), &[namespace("shop")]);
    for review in [create(&service), delete(&service)] {
        assert!(cluster.judge(&review).judged.is_empty());
        assert!(!is_registered(&review, None), "{:?}", review.operation);
    }
    assert!(!is_registered(&delete(&namespace("shop")), None));
    for never in ["leases", "events", "secrets", "certificatesigningrequests"] {
        assert!(
            JUDGED
                .iter()
                .all(|judged| !judged.resources.contains(&never))
        );
    }
}

#[test]
fn only_namespaced_kinds_can_hold_up_a_request() {
    for judged in JUDGED {
        let is_staged = judged.resources == ["stagednetworkpolicies"];
        let own = (judged.group == GROUP && !is_staged)
            || judged.group == "policy.networking.k8s.io"
            || judged.resources == ["nodes"];
        assert_eq!(
            judged.place == Place::Cluster,
            own,
            "{:?}",
            judged.resources
        );
    }
}
