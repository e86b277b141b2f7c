//! The rules of injection: who gets which allow, in which way, and that twice is once.

use serde_json::{Value, json};

use super::*;
use crate::guard::guardrail::{GuardrailSpec, ScrapePort};
use crate::guard::testing::{Cluster, default_deny, deployment, in_mode, policy};

fn patched(cluster: &Cluster, object: &Value) -> Value {
    let mutated = cluster.mutate(object);
    let mut changed = object.clone();
    json_patch::patch(&mut changed, &mutated.patch).unwrap();
    // Twice is once.
    assert_eq!(
        cluster.mutate(&changed).patch,
        Patch::default(),
        "the second time changes nothing"
    );
    changed
}

fn with_baseline(change: impl FnOnce(&mut BaselineSection)) -> Cluster {
    let mut spec = GuardrailSpec::built_in();
    change(spec.baseline.as_mut().unwrap());
    Cluster::under(&spec, &[])
}

fn quarantine() -> k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector {
    serde_json::from_value(json!({"matchLabels": {"quarantine": "true"}})).unwrap()
}

#[test]
fn a_policy_that_forgot_both_gets_both_and_keeps_its_own_rules() {
    let own = json!({"to": [{"podSelector": {"matchLabels": {"app": "api"}}}]});
    let before = policy(
        "web",
        &json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress", "Egress"], "egress": [own]}),
    );
    let after = patched(&Cluster::of(&[]), &before);
    assert_eq!(after["spec"]["egress"][0], own);
    assert_eq!(
        after["spec"]["egress"][1],
        json!({
            "to": [{
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
                "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}
            }],
            "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]
        })
    );
    assert_eq!(
        after["spec"]["ingress"],
        json!([{
            "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
            "ports": [{"protocol": "TCP", "port": 9090}]
        }])
    );
    assert_eq!(
        after["metadata"]["annotations"][INJECTED_ANNOTATION],
        "dns,monitoring"
    );
}

#[test]
fn a_direction_that_is_not_isolated_needs_no_allow() {
    let ingress_only = policy("p", &json!({"podSelector": {}}));
    let after = patched(&Cluster::of(&[]), &ingress_only);
    assert_eq!(
        after["metadata"]["annotations"][INJECTED_ANNOTATION],
        "monitoring"
    );
    assert!(after["spec"].get("egress").is_none());
}

#[test]
fn dns_over_udp_alone_is_not_enough() {
    let udp = |protocols: &[&str]| {
        let ports: Vec<Value> = protocols
            .iter()
            .map(|protocol| json!({"protocol": protocol, "port": 53}))
            .collect();
        policy(
            "p",
            &json!({
                "podSelector": {}, "policyTypes": ["Egress"],
                "egress": [{"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}], "ports": ports}]
            }),
        )
    };
    assert_ne!(patched(&Cluster::of(&[]), &udp(&["UDP"])), udp(&["UDP"]));
    assert_eq!(
        patched(&Cluster::of(&[]), &udp(&["UDP", "TCP"])),
        udp(&["UDP", "TCP"])
    );
}

#[test]
fn what_another_policy_allows_the_same_pods_is_not_added_again() {
    let dns_for_all = policy(
        "allow-dns",
        &json!({
            "podSelector": {}, "policyTypes": ["Egress"],
            "egress": [{"to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}],
                        "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}]
        }),
    );
    let deny = policy(
        "web",
        &json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"]}),
    );
    assert_eq!(patched(&Cluster::of(&[dns_for_all]), &deny), deny);

    // A policy for other pods does not help these.
    let dns_for_api = policy(
        "allow-dns",
        &json!({
            "podSelector": {"matchLabels": {"app": "api"}}, "policyTypes": ["Egress"],
            "egress": [{"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}]
        }),
    );
    assert_ne!(patched(&Cluster::of(&[dns_for_api]), &deny), deny);
}

#[test]
fn the_pods_that_are_there_decide_whether_they_may_already() {
    // The policy asks for `app`, the allow for `tier`; the one workload has both.
    let by_tier = policy(
        "allow-dns",
        &json!({
            "podSelector": {"matchLabels": {"tier": "front"}}, "policyTypes": ["Egress"],
            "egress": [{"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}]
        }),
    );
    let web = deployment("web", &json!({"app": "web", "tier": "front"}));
    let deny = policy(
        "web",
        &json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"]}),
    );
    assert_eq!(patched(&Cluster::of(&[by_tier.clone(), web]), &deny), deny);
    assert_ne!(patched(&Cluster::of(&[by_tier]), &deny), deny);
}

#[test]
fn a_node_local_cache_and_other_ports_are_allowed_as_configured() {
    let cluster = with_baseline(|baseline| {
        let dns = baseline.dns.as_mut().unwrap();
        dns.ports = vec![5353];
        dns.node_local = vec![
            "169.254.20.10".parse().unwrap(),
            "fd00::10".parse().unwrap(),
        ];
    });
    let after = patched(&cluster, &default_deny());
    let rule = &after["spec"]["egress"][0];
    assert_eq!(
        rule["to"][1],
        json!({"ipBlock": {"cidr": "169.254.20.10/32"}})
    );
    assert_eq!(rule["to"][2], json!({"ipBlock": {"cidr": "fd00::10/128"}}));
    assert_eq!(rule["ports"][0], json!({"protocol": "UDP", "port": 5353}));
}

#[test]
fn peers_in_a_namespace_that_is_not_known_yet_are_allowed_once() {
    let labelled =
        |key: &str| serde_json::from_value(json!({"matchLabels": {key: "yes"}})).unwrap();
    let cluster = with_baseline(|baseline| {
        baseline.dns.as_mut().unwrap().namespace_selector = labelled("has-dns");
        baseline.monitoring.as_mut().unwrap().namespace_selector = labelled("has-prometheus");
    });
    let after = patched(&cluster, &default_deny());
    assert_eq!(after["spec"]["egress"].as_array().unwrap().len(), 1);
    assert_eq!(after["spec"]["ingress"].as_array().unwrap().len(), 1);
}

#[test]
fn an_allow_for_peers_that_cannot_be_is_added_once() {
    let nobody = json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]});
    let cluster = with_baseline(|baseline| {
        let dns = baseline.dns.as_mut().unwrap();
        dns.pod_selector = serde_json::from_value(nobody.clone()).unwrap();
        dns.namespace_selector = serde_json::from_value(nobody).unwrap();
    });
    patched(&cluster, &default_deny());
}

#[test]
fn named_scrape_ports_are_allowed_by_name() {
    let cluster = with_baseline(|baseline| {
        baseline.monitoring.as_mut().unwrap().ports =
            vec![ScrapePort::Name("metrics".into()), ScrapePort::Number(8080)];
    });
    let after = patched(&cluster, &default_deny());
    assert_eq!(
        after["spec"]["ingress"][0]["ports"],
        json!([{"protocol": "TCP", "port": "metrics"}, {"protocol": "TCP", "port": 8080}])
    );
}

#[test]
fn in_audit_and_warn_nothing_is_changed_and_it_is_said() {
    for mode in [Mode::Audit, Mode::Warn] {
        let mutated = Cluster::under(&in_mode(mode), &[]).mutate(&default_deny());
        assert_eq!(mutated.patch, Patch::default());
        assert_eq!(mutated.injections[0].way, Way::WouldAppend(mode));
    }
}

#[test]
fn what_a_gitops_tool_tracks_is_left_alone_and_the_policy_beside_it_is_enough() {
    let marks = [
        (
            "Argo CD",
            json!({"annotations": {"argocd.argoproj.io/tracking-id": "shop:networking.k8s.io/NetworkPolicy:shop/default-deny"}}),
        ),
        (
            "Argo CD",
            json!({"labels": {"argocd.argoproj.io/instance": "shop"}}),
        ),
        (
            "Flux",
            json!({"labels": {"kustomize.toolkit.fluxcd.io/name": "shop"}}),
        ),
        (
            "Flux",
            json!({"labels": {"helm.toolkit.fluxcd.io/name": "shop"}}),
        ),
        // With the label that charts have as well it is known by who writes.
        (
            "Argo CD",
            json!({
                "labels": {"app.kubernetes.io/instance": "shop"},
                "managedFields": [{"manager": "kubectl"}, {"manager": "argocd-controller"}]
            }),
        ),
    ];
    for (tool, metadata) in marks {
        let mut tracked = default_deny();
        json_patch::merge(&mut tracked["metadata"], &metadata);
        let mutated = Cluster::of(&[]).mutate(&tracked);
        assert_eq!(mutated.patch, Patch::default());
        let injection = &mutated.injections[0];
        assert_eq!(injection.way, Way::Beside(Reason::Tracked(tool)));
        assert_eq!(
            injection.beside[0]["metadata"]["name"],
            "ringfence-baseline-default-deny"
        );
        // With it in place there is nothing left to add, and it isolates no other pods.
        let with_it = Cluster::of(&[injection.beside[0].clone()]);
        assert_eq!(with_it.mutate(&tracked).injections, vec![]);
        // Asked to patch all the same, it is patched.
        let forced = with_baseline(|baseline| baseline.inject = Inject::Patch);
        assert_eq!(forced.mutate(&tracked).injections[0].way, Way::Appended);
    }
}

#[test]
fn the_policy_beside_selects_the_same_pods_and_isolates_nothing_more() {
    let cluster = with_baseline(|baseline| baseline.inject = Inject::Policy);
    let web = policy(
        "web",
        &json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"]}),
    );
    let beside = &cluster.mutate(&web).injections[0].beside[0];
    assert_eq!(
        beside["spec"]["podSelector"],
        json!({"matchLabels": {"app": "web"}})
    );
    assert_eq!(beside["spec"]["policyTypes"], json!(["Egress"]));
    assert!(beside["spec"].get("ingress").is_none());
}

#[test]
fn a_pod_under_quarantine_gets_no_allow_in_any_way() {
    let cluster = with_baseline(|baseline| baseline.quarantine = Some(quarantine()));
    // A policy for such pods is left as it is.
    let own = policy(
        "q",
        &json!({"podSelector": {"matchLabels": {"quarantine": "true"}}, "policyTypes": ["Ingress", "Egress"]}),
    );
    assert_eq!(cluster.mutate(&own).injections, vec![]);
    // One that may select such pods is not patched; the policy beside it leaves them out.
    let mutated = cluster.mutate(&default_deny());
    assert_eq!(mutated.patch, Patch::default());
    assert_eq!(mutated.injections[0].way, Way::Beside(Reason::Quarantine));
    assert_eq!(
        mutated.injections[0].beside[0]["spec"]["podSelector"],
        json!({"matchExpressions": [{"key": "quarantine", "operator": "NotIn", "values": ["true"]}]})
    );
    // One that cannot select such pods is patched.
    let apart = policy(
        "p",
        &json!({
            "podSelector": {"matchExpressions": [{"key": "quarantine", "operator": "DoesNotExist"}]}, "policyTypes": ["Egress"]
        }),
    );
    assert_eq!(cluster.mutate(&apart).injections[0].way, Way::Appended);
}

#[test]
fn opting_out_counts_where_the_guardrail_lets_it() {
    let mut asked = default_deny();
    asked["metadata"]["annotations"] = json!({INJECT_ANNOTATION: INJECT_DISABLED});
    let lets = with_baseline(|baseline| baseline.opt_out = OptOut::Allow);
    assert_eq!(lets.mutate(&asked).injections[0].way, Way::OptedOut);
    assert_eq!(
        Cluster::of(&[]).mutate(&asked).injections[0].way,
        Way::Appended
    );
}

#[test]
fn names_of_policies_beside_stay_within_bounds_and_apart() {
    let cluster = with_baseline(|baseline| baseline.inject = Inject::Policy);
    let name_of = |name: &str| {
        let policy = policy(name, &json!({"podSelector": {}, "policyTypes": ["Egress"]}));
        cluster.mutate(&policy).injections[0].beside[0]["metadata"]["name"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let long = "a".repeat(252);
    let (first, second) = (name_of(&format!("{long}b")), name_of(&format!("{long}c")));
    assert!(first.len() <= 253 && second.len() <= 253);
    assert_ne!(first, second);
}

#[test]
fn an_allow_for_a_namespace_that_is_not_there_yet_is_seen_once_it_is_in_the_policy() {
    let cluster = with_baseline(|baseline| {
        let monitoring = baseline.monitoring.as_mut().unwrap();
        monitoring.namespace_selector = serde_json::from_value(
            json!({"matchLabels": {"purpose": "monitoring", "stage": "prod"}}),
        )
        .unwrap();
    });
    // `patched` holds that the second time changes nothing.
    let after = patched(&cluster, &default_deny());
    assert_eq!(after["spec"]["ingress"].as_array().unwrap().len(), 1);
}

#[test]
fn the_quarantine_of_one_guardrail_holds_for_the_allows_of_another() {
    let mut cluster = with_baseline(|baseline| baseline.quarantine = Some(quarantine()));
    let mut both: Vec<Guardrail> = cluster.guardrails.iter().cloned().collect();
    both.push(crate::guard::testing::guardrail(
        "without",
        &GuardrailSpec::built_in(),
    ));
    cluster.guardrails = crate::guard::guardrail::Guardrails::new(both);
    let own = policy(
        "q",
        &json!({"podSelector": {"matchLabels": {"quarantine": "true"}}, "policyTypes": ["Ingress", "Egress"]}),
    );
    assert_eq!(cluster.mutate(&own).injections, vec![]);
    let mutated = cluster.mutate(&default_deny());
    assert_eq!(mutated.patch, Patch::default());
    assert!(
        mutated
            .injections
            .iter()
            .all(|injection| injection.way == Way::Beside(Reason::Quarantine))
    );
}
