//! Coverage by the Baseline tier, where a Guardrail says that it is enforced; by baselines that are to come; and lost by
//! another set of labels.

use serde_json::{Value, json};

use super::awaits_baseline;
use crate::guard::decide::Cut;
use crate::guard::engine::Budget;
use crate::guard::finding::Finding;
use crate::guard::guardrail::{
    ClusterNetworkPolicies, CoverageScope, CoverageSection, GuardrailSpec,
};
use crate::guard::testing::{
    Cluster, create, default_deny, delete, deployment, ids, namespace, now, policy, update,
};

fn web() -> Value {
    deployment("web", &json!({"app": "web"}))
}

/// A policy of the Baseline tier; what it denies comes after other rules.
fn baseline(name: &str, priority: u16, accepts: &Value) -> Value {
    let rules = |peers: &str, rest: Value| {
        let accepts = accepts[peers].as_array().cloned().unwrap_or_default();
        let deny = json!({"action": "Deny", peers: [rest]});
        Value::from([accepts, vec![deny]].concat())
    };
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name},
        "spec": {
            "tier": "Baseline", "priority": priority, "subject": {"namespaces": {}},
            "ingress": rules("from", json!({"namespaces": {}})),
            "egress": rules("to", json!({"networks": ["0.0.0.0/0", "::/0"]})),
        }
    })
}

fn deny() -> Value {
    baseline("deny", 100, &json!({}))
}

fn enforced(scope: CoverageScope) -> GuardrailSpec {
    GuardrailSpec {
        coverage: Some(CoverageSection {
            scope,
            cluster_network_policies: ClusterNetworkPolicies::Enforced,
            ..CoverageSection::default()
        }),
        ..GuardrailSpec::default()
    }
}

fn patched(mut value: Value, pointer: &str, new: Value) -> Value {
    *value.pointer_mut(pointer).expect("the field") = new;
    value
}

#[test]
fn a_baseline_deny_covers_only_where_it_is_said_to_be_enforced() {
    let objects = [namespace("shop"), deny()];
    assert_eq!(ids(&Cluster::of(&objects).create(&web())), ["RF201"]);
    for scope in [CoverageScope::Namespace, CoverageScope::Workload] {
        let cluster = Cluster::under(&enforced(scope), &objects);
        assert!(ids(&cluster.create(&web())).is_empty(), "{scope:?}");
    }
}

#[test]
fn the_one_baseline_admin_policy_covers_under_the_same_condition() {
    let rule = |rules: &str| json!([{"action": "Deny", rules: [{"namespaces": {}}]}]);
    let mut wide = json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": "BaselineAdminNetworkPolicy",
        "metadata": {"name": "default"},
        "spec": {
            "subject": {"namespaces": {}}, "ingress": rule("from"),
            "egress": [{"action": "Deny", "to": [{"networks": ["0.0.0.0/0", "::/0"]}]}],
        }
    });
    let missing = |spec: &GuardrailSpec, wide: &Value| {
        let cluster = Cluster::under(spec, &[namespace("shop"), wide.clone()]);
        let decision = cluster.create(&web());
        ids(&decision).first().map(ToString::to_string)
    };
    let enforced = enforced(CoverageScope::Namespace);
    assert_eq!(missing(&enforced, &wide), None);
    let objects = [namespace("shop"), wide.clone()];
    assert_eq!(ids(&Cluster::of(&objects).create(&web())), ["RF201"]);
    wide["spec"]["egress"] = rule("to");
    assert_eq!(missing(&enforced, &wide).as_deref(), Some("RF201"));
}

#[test]
fn only_what_denies_the_rest_to_all_pods_covers() {
    let missing = |wide: Value| {
        let cluster = Cluster::under(
            &enforced(CoverageScope::Namespace),
            &[namespace("shop"), wide],
        );
        let decision = cluster.create(&web());
        let judged = decision.judged.first();
        judged.map(|judged| judged.finding.message.clone())
    };
    let all = "namespace `shop` has no default-deny for ingress and egress";
    let egress = "namespace `shop` has no default-deny for egress";
    let accepts = json!({"from": [{"action": "Accept", "from": [{"namespaces": {"matchLabels": {"a": "b"}}}]}],
        "to": [{"action": "Accept", "to": [{"namespaces": {}}]}]});
    assert_eq!(missing(baseline("deny", 1, &accepts)), None);
    let open = json!({"to": [{"action": "Pass", "to": [{"networks": ["::/0", "0.0.0.0/0"]}]}]});
    assert_eq!(missing(baseline("deny", 1, &open)).as_deref(), Some(egress));
    let half = patched(deny(), "/spec/egress/0/to/0/networks", json!(["0.0.0.0/0"]));
    assert_eq!(missing(half).as_deref(), Some(egress));
    let admin = patched(deny(), "/spec/tier", json!("Admin"));
    assert_eq!(missing(admin).as_deref(), Some(all));
    let some =
        json!({"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}});
    assert_eq!(
        missing(patched(deny(), "/spec/subject", some)).as_deref(),
        Some(all)
    );
    let elsewhere = json!({"namespaces": {"matchLabels": {"team": "x"}}});
    assert_eq!(
        missing(patched(deny(), "/spec/subject", elsewhere)).as_deref(),
        Some(all)
    );
}

#[test]
fn taking_the_baseline_away_is_refused_and_names_the_namespaces() {
    let spec = enforced(CoverageScope::Namespace);
    let cluster = Cluster::under(&spec, &[namespace("shop"), deny(), web()]);
    let decision = cluster.delete(&deny());
    assert_eq!(
        decision.judged[0].finding.message,
        "deleting it would leave pods of namespace `shop` without default-deny for ingress and egress"
    );
    let narrower = patched(
        deny(),
        "/spec/subject/namespaces",
        json!({"matchLabels": {"a": "b"}}),
    );
    assert_eq!(ids(&cluster.update(&deny(), &narrower)), ["RF202"]);
    let accepting = json!({"from": [{"action": "Accept", "from": [{"namespaces": {}}]}]});
    assert_eq!(
        ids(&cluster.create(&baseline("open", 1, &accepting))),
        ["RF202"]
    );
    let labels = json!({"name": "shop", "labels": {"a": "b"}});
    let relabelled = patched(namespace("shop"), "/metadata", labels);
    assert!(ids(&cluster.update(&namespace("shop"), &relabelled)).is_empty());
    let others = json!({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]});
    let selective = patched(deny(), "/spec/subject/namespaces", others);
    let cluster = Cluster::under(&spec, &[namespace("shop"), selective, web()]);
    assert_eq!(
        ids(&cluster.update(&namespace("shop"), &relabelled)),
        ["RF202"]
    );

    // With a network policy in its place, or with nobody to cover, it may go; and where it never counted.
    let own = policy(
        "default-deny",
        &json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
    );
    let covered = Cluster::under(&spec, &[namespace("shop"), deny(), web(), own]);
    assert!(covered.delete(&deny()).allowed());
    assert!(
        Cluster::under(&spec, &[namespace("shop"), deny()])
            .delete(&deny())
            .allowed()
    );
    assert!(
        Cluster::of(&[namespace("shop"), deny(), web()])
            .delete(&deny())
            .allowed()
    );
}

#[test]
fn the_search_for_lost_cover_ends_with_the_budget() {
    let spec = enforced(CoverageScope::Workload);
    let cluster = Cluster::under(
        &spec,
        &[
            namespace("shop"),
            deny(),
            web(),
            deployment("api", &json!({"app": "api"})),
        ],
    );
    let budget = Budget {
        deadline: None,
        pods: 1,
    };
    let decision = crate::guard::decide::judge(&delete(&deny()), &cluster.context(), now(), budget);
    assert_eq!(decision.cut, Some(Cut::Pods(1)));
    let same = update(&deny(), &patched(deny(), "/spec/priority", json!(7)));
    assert!(cluster.judge(&same).allowed());
}

#[test]
fn wide_accepts_of_a_cluster_network_policy_are_judged_by_breadth() {
    let cluster = Cluster::of(&[namespace("shop")]);
    let wide = |egress: Value| {
        patched(
            deny(),
            "/spec/egress",
            json!([{"action": "Accept", "to": [egress]}]),
        )
    };
    let ids_of = |object: &Value| {
        let decision = cluster.judge(&create(object));
        let ids = decision
            .judged
            .iter()
            .map(|judged| judged.finding.id.clone());
        ids.map(|id| id.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        ids_of(&wide(json!({"networks": ["0.0.0.0/1", "128.0.0.0/1"]}))),
        ["RF302"]
    );
    assert_eq!(ids_of(&wide(json!({"namespaces": {}}))), ["RF304"]);
    assert!(ids_of(&wide(json!({"networks": ["192.0.2.0/24"]}))).is_empty());
    // What is denied is not opened.
    assert!(ids_of(&deny()).is_empty());
}

/// A cluster with a controller, of these objects.
fn controlled(objects: &[Value]) -> Cluster {
    let mut cluster = Cluster::of(objects);
    cluster.guardrails = cluster.guardrails.with_baselines_kept();
    cluster
}

fn pod(name: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": labels},
        "spec": {"containers": [{"name": "main", "image": "x"}]}, "status": {"phase": "Running"}
    })
}

#[test]
fn a_template_may_come_before_the_baseline_and_a_pod_waits_for_it() {
    let new = controlled(&[namespace("shop")]);
    assert!(ids(&new.create(&web())).is_empty());
    let review = create(&pod("web", &json!({"app": "web"})));
    let decision = new.judge(&review);
    assert_eq!(ids(&decision), ["RF201"]);
    let finding = &decision.judged[0].finding;
    let fix = &finding.fix.as_ref().unwrap().summary;
    assert!(fix.starts_with("try again"), "{fix}");
    assert!(awaits_baseline(
        finding,
        &review,
        &new.snapshot,
        &new.guardrails
    ));

    // Where pods run already the baseline waits for a promotion, so nothing is to come.
    let running = controlled(&[namespace("shop"), pod("old", &json!({}))]);
    assert_eq!(ids(&running.create(&web())), ["RF201"]);
    let decision = running.judge(&review);
    let finding = &decision.judged[0].finding;
    assert!(!awaits_baseline(
        finding,
        &review,
        &running.snapshot,
        &running.guardrails
    ));

    // Nor is it where there is no controller.
    assert_eq!(
        ids(&Cluster::of(&[namespace("shop")]).create(&web())),
        ["RF201"]
    );
}

#[test]
fn labels_that_no_policy_selects_any_more_take_the_last_cover_away() {
    let both = json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress", "Egress"]});
    let cluster = Cluster::of(&[namespace("shop"), policy("web", &both)]);
    let old = pod("web", &json!({"app": "web"}));
    let renamed = patched(old.clone(), "/metadata/labels/app", json!("other"));
    let decision = cluster.update(&old, &renamed);
    assert_eq!(ids(&decision), ["RF202"]);
    assert_eq!(
        decision.judged[0].finding.field.to_string(),
        "metadata.labels"
    );
    let template = deployment("web", &json!({"app": "other"}));
    let decision = cluster.update(&web(), &template);
    assert_eq!(ids(&decision), ["RF202"]);
    assert_eq!(
        decision.judged[0].finding.field.to_string(),
        "spec.template.metadata.labels"
    );

    // A default-deny holds them whatever their labels are.
    let all = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
    let safe = Cluster::of(&[namespace("shop"), policy("web", &both), policy("all", &all)]);
    assert!(safe.update(&old, &renamed).allowed());
    // With the scope of workloads it is one finding as well.
    let spec = GuardrailSpec {
        coverage: Some(CoverageSection {
            scope: CoverageScope::Workload,
            ..CoverageSection::default()
        }),
        ..GuardrailSpec::default()
    };
    let cluster = Cluster::under(&spec, &[namespace("shop"), policy("web", &both)]);
    assert_eq!(cluster.update(&old, &renamed).judged.len(), 1);
}

#[test]
fn a_namespace_does_not_get_out_of_a_guardrail_by_the_label_that_is_taken_away() {
    let spec: GuardrailSpec = serde_json::from_value(json!({
        "mode": "Enforce",
        "namespaceSelector": {"matchLabels": {"guarded": "yes"}},
        "coverage": {"clusterNetworkPolicies": "Enforced"}
    }))
    .unwrap();
    let mut shop = namespace("shop");
    shop["metadata"]["labels"] = json!({"guarded": "yes"});
    let wide = patched(
        deny(),
        "/spec/subject",
        json!({"namespaces": {"matchLabels": {"guarded": "yes"}}}),
    );
    let objects = [shop.clone(), wide, pod("web", &json!({"app": "web"}))];
    let cluster = Cluster::under(&spec, &objects);
    assert_eq!(ids(&cluster.update(&shop, &namespace("shop"))), ["RF202"]);
}

#[test]
fn a_namespace_that_ends_takes_its_policies_with_it_unasked() {
    let all = policy(
        "all",
        &json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
    );
    let objects = [
        namespace("shop"),
        all.clone(),
        pod("web", &json!({"app": "web"})),
    ];
    let cluster = Cluster::of(&objects);
    assert_eq!(ids(&cluster.delete(&all)), ["RF202"]);
    assert!(cluster.delete(&namespace("shop")).allowed());
    for user in [
        "system:kube-controller-manager",
        "system:serviceaccount:kube-system:namespace-controller",
    ] {
        let mut review = delete(&all);
        review.user.username = user.to_owned();
        assert!(cluster.judge(&review).allowed(), "{user}");
    }
    let ending = patched(
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "deletionTimestamp": null}}),
        "/metadata/deletionTimestamp",
        json!("2026-01-01T00:00:00Z"),
    );
    let cluster = Cluster::of(&[ending, all.clone(), pod("web", &json!({"app": "web"}))]);
    assert!(cluster.delete(&all).allowed());
}

#[test]
fn a_default_deny_that_does_not_count_is_named_with_the_reason() {
    let said = |objects: &[Value]| {
        let decision = Cluster::of(&[&[namespace("shop")], objects].concat()).create(&web());
        let message = |finding: &Finding| finding.message.clone();
        let judged = decision.judged.iter().map(|judged| &judged.finding);
        judged.map(message).collect::<Vec<_>>()
    };
    let none = "namespace `shop` has no default-deny for ingress and egress";
    assert_eq!(said(&[]), [none]);
    assert_eq!(said(&[default_deny()]), [""; 0]);
    let mut leaving = default_deny();
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    leaving["metadata"]["finalizers"] = json!(["example.com/wait"]);
    let leaves = format!("{none}; `default-deny` does not count, since it is being deleted");
    assert_eq!(said(&[leaving]), [leaves]);
    let canary = json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": "StagedNetworkPolicy",
        "metadata": {"name": "default-deny", "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": {"app": "other"}}, "policyTypes": ["Ingress"],
            "stage": "Canary", "canary": {"percent": 50}},
    });
    let tried =
        format!("{none}; `default-deny` does not count, since a canary is in force in its place");
    assert_eq!(said(&[default_deny(), canary]), [tried]);
    // One that isolates others is no reason.
    let other = json!({"podSelector": {"matchLabels": {"app": "other"}}, "policyTypes": ["Ingress", "Egress"]});
    let mut other = policy("other", &other);
    other["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(said(&[other]), [none]);
}
