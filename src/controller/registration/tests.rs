//! What is registered for which demand.

use super::*;
use crate::guard::engine::NoPolicies;
use crate::guard::exemption::Exemptions;
use crate::guard::guardrail::{Guardrail, Guardrails};
use crate::guard::reachability::{ReachabilityRule, ReachabilityRules};
use crate::guard::review::Subject;
use crate::netpol::Snapshot;
use serde_json::{Value, json};

fn options() -> Options {
    Options {
        target: Target::Service {
            namespace: "ringfence-system".into(),
            name: "ringfence-webhook".into(),
            port: 443,
        },
        left_out: ["ringfence-system".to_owned()].into(),
        mutate_workloads: false,
        timeout_seconds: 5,
    }
}

fn namespace(name: &str, stage: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"stage": stage}}})
}

fn guardrail(name: &str, selector: &Value, mut spec: Value) -> Guardrail {
    spec["namespaceSelector"] = selector.clone();
    Guardrail::parse(&json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": "Guardrail", "metadata": {"name": name}, "spec": spec
    }))
    .unwrap()
}

fn state(namespaces: &[Value], guardrails: Vec<Guardrail>, rules: Vec<ReachabilityRule>) -> State {
    let snapshot = namespaces
        .iter()
        .fold(Snapshot::default(), |snapshot, object| {
            snapshot.with(Subject::new(object.clone()).model().unwrap().clone())
        });
    State {
        reachability: ReachabilityRules::new(rules, &snapshot),
        snapshot,
        guardrails: Guardrails::new(guardrails),
        exemptions: Exemptions::default(),
        engine: std::sync::Arc::new(NoPolicies),
    }
}

fn entries(plan: &Plan) -> Vec<ValidatingWebhook> {
    let configuration = plan.validating.clone().unwrap();
    configuration.webhooks.unwrap()
}

/// Whether an entry is asked about a namespace, as an API server evaluates its selector.
fn meets(entry: &ValidatingWebhook, namespace: &str) -> bool {
    let selector = entry.namespace_selector.clone().unwrap();
    assert!(selector.match_labels.is_none());
    selector.match_expressions.unwrap().iter().all(|term| {
        assert_eq!(term.key, "kubernetes.io/metadata.name");
        let listed = term.values.clone().unwrap().contains(&namespace.to_owned());
        match term.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            other => panic!("{other}"),
        }
    })
}

#[test]
fn without_a_demand_there_is_nothing_at_all() {
    let demand = Demand::of(&state(&[namespace("shop", "prod")], Vec::new(), Vec::new()));
    assert_eq!(plan(&demand, &options(), b"pem", None), Plan::default());
}

#[test]
fn a_namespace_is_in_fail_when_any_section_that_selects_it_enforces() {
    let of_stage = |stage: &str| json!({"matchLabels": {"stage": stage}});
    let guardrails = vec![
        guardrail("audit", &json!({}), json!({"mode": "Audit", "labels": {}})),
        guardrail(
            "prod",
            &of_stage("prod"),
            json!({"mode": "Warn", "labels": {}, "coverage": {"mode": "Enforce"}}),
        ),
        guardrail(
            "test",
            &of_stage("test"),
            json!({"mode": "Enforce", "labels": {"mode": "Warn"}}),
        ),
    ];
    let rule = ReachabilityRule::parse(&json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": "ReachabilityRule", "metadata": {"name": "closed"},
        "spec": {
            "from": [{"namespaces": ["web"]}], "to": [{"namespaces": ["db"]}],
            "expect": "Deny", "mode": "Enforce"
        }
    }))
    .unwrap();
    let namespaces = [
        namespace("shop", "prod"),
        namespace("kube-system", "prod"),
        namespace("trial", "test"),
        namespace("web", "none"),
        namespace("db", "none"),
        namespace("other", "none"),
    ];
    let demand = Demand::of(&state(&namespaces, guardrails, vec![rule]));
    assert_eq!(
        demand
            .enforced
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>(),
        ["db", "kube-system", "shop", "web"],
        "a guardrail whose every section is milder than itself enforces nothing"
    );
    assert!(!demand.baseline);
    let plan = plan(&demand, &options(), b"pem", None);
    assert!(plan.mutating.is_none(), "nothing is added to anything");
    let entries = entries(&plan);
    let names: Vec<(&str, &str)> = entries
        .iter()
        .map(|entry| {
            (
                entry.name.as_str(),
                entry.failure_policy.as_deref().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        names,
        [
            ("fail.validate.ringfence.dev", "Fail"),
            ("ignore.validate.ringfence.dev", "Ignore"),
            ("cluster.validate.ringfence.dev", "Ignore"),
        ]
    );
    for (namespace, expected) in [
        ("shop", [true, false]),
        ("web", [true, false]),
        ("db", [true, false]),
        ("trial", [false, true]),
        ("other", [false, true]),
        ("not-known-yet", [false, true]),
        ("kube-system", [false, false]),
        ("kube-node-lease", [false, false]),
        ("kube-public", [false, false]),
        ("ringfence-system", [false, false]),
    ] {
        assert_eq!(
            [meets(&entries[0], namespace), meets(&entries[1], namespace)],
            expected,
            "{namespace}"
        );
    }
    assert_eq!(entries[0].rules, entries[1].rules);
}

#[test]
fn where_nothing_enforces_nothing_can_fail() {
    let audit = vec![guardrail(
        "all",
        &json!({}),
        json!({"mode": "Warn", "baseline": {}, "labels": {}}),
    )];
    let demand = Demand::of(&state(&[namespace("shop", "prod")], audit, Vec::new()));
    let plan = plan(&demand, &options(), b"pem", None);
    let policies = entries(&plan)
        .iter()
        .map(|entry| entry.failure_policy.clone().unwrap())
        .collect::<Vec<_>>();
    assert_eq!(policies, ["Ignore", "Ignore"]);
    assert!(plan.mutating.is_some(), "a baseline has allows to add");
}

#[test]
fn what_is_of_the_whole_cluster_never_fails_and_nothing_asks_about_the_clusters_own_life() {
    let demand = Demand {
        any: true,
        baseline: true,
        gates: true,
        enforced: ["shop".to_owned()].into(),
    };
    let mut options = options();
    options.mutate_workloads = true;
    let plan = plan(&demand, &options, b"pem", None);
    let entries = entries(&plan);
    let resources = |rules: &Option<Vec<RuleWithOperations>>| -> Vec<String> {
        let rules = rules.clone().unwrap();
        rules
            .into_iter()
            .flat_map(|rule| rule.resources.unwrap())
            .collect()
    };
    for entry in &entries {
        let of_cluster = entry.name.starts_with("cluster.");
        for resource in resources(&entry.rules) {
            let own = [
                "adminnetworkpolicies",
                "baselineadminnetworkpolicies",
                "clusternetworkpolicies",
                "exemptions",
                "guardrails",
                "nodes",
                "reachabilityrules",
            ]
            .contains(&resource.as_str());
            assert_eq!(own, of_cluster, "{resource}");
            for never in [
                "*",
                "lease",
                "event",
                "webhook",
                "certificatesigning",
                "scale",
                "status",
            ] {
                assert!(!resource.contains(never), "{resource}");
            }
        }
        assert_eq!(entry.side_effects, "None");
        assert_eq!(entry.match_policy.as_deref(), Some("Equivalent"));
        assert_eq!(entry.match_conditions.as_ref().unwrap().len(), 3);
    }
    let mutating = plan.mutating.unwrap().webhooks.unwrap();
    assert_eq!(mutating.len(), 1);
    assert_eq!(mutating[0].failure_policy.as_deref(), Some("Ignore"));
    let offered = resources(&mutating[0].rules);
    assert!(
        offered.contains(&"deployments".to_owned())
            && offered.contains(&"networkpolicies".to_owned())
    );
    assert!(!offered.iter().any(|resource| resource.contains('/')));
}

#[test]
fn a_list_that_would_not_fit_into_an_object_is_cut_and_said() {
    let demand = Demand {
        any: true,
        baseline: false,
        gates: false,
        enforced: (0..MOST_LISTED + 3).map(|n| format!("ns-{n:05}")).collect(),
    };
    let plan = plan(&demand, &options(), b"pem", None);
    assert_eq!(plan.unlisted, 3);
    let entries = entries(&plan);
    let last = format!("ns-{:05}", MOST_LISTED + 2);
    assert!(!meets(&entries[0], &last) && meets(&entries[1], &last));
}

#[test]
fn the_host_of_a_target_is_what_a_certificate_must_name() {
    for (url, host) in [
        ("https://127.0.0.1:8443", "127.0.0.1"),
        ("https://[::1]:8443/", "::1"),
        ("https://webhook.example/x", "webhook.example"),
    ] {
        assert_eq!(Target::Url(url.into()).host(), host);
    }
    assert_eq!(
        options().target.host(),
        "ringfence-webhook.ringfence-system.svc"
    );
}

#[test]
fn the_configurations_as_a_whole() {
    let demand = Demand {
        any: true,
        baseline: true,
        gates: true,
        enforced: ["pay".to_owned(), "shop".to_owned()].into(),
    };
    let owner = OwnerReference {
        api_version: "rbac.authorization.k8s.io/v1".into(),
        kind: "ClusterRole".into(),
        name: "ringfence-controller".into(),
        uid: "7".into(),
        ..OwnerReference::default()
    };
    let plan = plan(&demand, &options(), b"pem", Some(&owner));
    insta::assert_yaml_snapshot!("validating", plan.validating.unwrap());
    insta::assert_yaml_snapshot!("mutating", plan.mutating.unwrap());
}
