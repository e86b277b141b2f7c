//! The rules of the decision: coverage, breadth, modes, exemptions, what is left alone.

use serde_json::{Value, json};

use super::skip::{COLLECTORS, GARBAGE_COLLECTOR};
use super::*;
use crate::guard::exemption::Exemption;
use crate::guard::guardrail::{CoverageScope, CoverageSection, GuardrailSpec};
use crate::guard::review::Origin;
use crate::guard::testing::{
    BUDGET, Cluster, create, default_deny, delete, deployment, guardrail, ids, in_mode, namespace,
    now, policy, update,
};

mod staged;

fn web() -> Value {
    deployment("web", &json!({"app": "web"}))
}

fn egress(to: &Value) -> Value {
    policy(
        "out",
        &json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": to}),
    )
}

fn blocks(cidrs: &[&str]) -> Value {
    let to: Vec<Value> = cidrs
        .iter()
        .map(|cidr| json!({"ipBlock": {"cidr": cidr}}))
        .collect();
    egress(&json!([{"to": to}]))
}

#[test]
fn a_workload_in_a_namespace_without_default_deny_is_refused() {
    let cluster = Cluster::of(&[namespace("shop")]);
    let decision = cluster.create(&web());
    assert!(!decision.allowed());
    let finding = &decision.judged[0].finding;
    assert_eq!(finding.id.as_str(), "RF201");
    assert_eq!(
        finding.message,
        "namespace `shop` has no default-deny for ingress and egress"
    );
    let manifest = finding.fix.as_ref().unwrap().manifest.as_ref().unwrap();
    assert_eq!(
        manifest["spec"],
        json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})
    );
    // What is proposed is enough.
    assert!(
        Cluster::of(&[namespace("shop"), manifest.clone()])
            .create(&web())
            .allowed()
    );
}

#[test]
fn coverage_is_the_union_of_policies_whatever_their_names() {
    let ingress = policy("a", &json!({"podSelector": {}}));
    let both = policy("b", &json!({"podSelector": {}, "policyTypes": ["Egress"]}));
    assert_eq!(
        Cluster::of(&[ingress.clone(), both]).create(&web()).judged,
        vec![]
    );

    let decision = Cluster::of(&[ingress]).create(&web());
    assert_eq!(
        decision.judged[0].finding.message,
        "namespace `shop` has no default-deny for egress"
    );

    // The name alone is worth nothing, and neither is a policy that selects only some pods.
    let some = policy(
        "default-deny",
        &json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress", "Egress"]}),
    );
    assert_eq!(ids(&Cluster::of(&[some]).create(&web())), ["RF201"]);
}

#[test]
fn with_the_scope_of_workloads_a_policy_for_just_these_pods_is_enough() {
    let spec = GuardrailSpec {
        coverage: Some(CoverageSection {
            scope: CoverageScope::Workload,
            ..CoverageSection::default()
        }),
        ..GuardrailSpec::built_in()
    };
    let some = policy(
        "web",
        &json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress", "Egress"]}),
    );
    let cluster = Cluster::under(&spec, &[some]);
    assert!(cluster.create(&web()).allowed());
    let decision = cluster.create(&deployment("api", &json!({"app": "api"})));
    assert_eq!(
        decision.judged[0].finding.field.to_string(),
        "spec.template.metadata.labels"
    );
}

#[test]
fn a_pod_on_the_host_network_is_not_said_to_be_uncovered() {
    let mut pod = web();
    pod["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
    assert_eq!(
        ids(&Cluster::of(&[namespace("shop")]).create(&pod)),
        Vec::<&str>::new()
    );
}

#[test]
fn system_namespaces_are_left_alone_by_the_built_in_guardrail() {
    let mut pod = web();
    pod["metadata"]["namespace"] = json!("kube-system");
    let decision = Cluster::of(&[]).create(&pod);
    assert_eq!((decision.allowed(), decision.strictest), (true, None));
}

#[test]
fn deleting_the_last_cover_is_refused_and_names_who_loses_it() {
    let cluster = Cluster::of(&[namespace("shop"), default_deny(), web()]);
    let decision = cluster.delete(&default_deny());
    assert!(!decision.allowed());
    assert_eq!(
        decision.judged[0].finding.message,
        "deleting it would leave Deployment web without isolation for ingress and egress"
    );
    // With another one beside it, or with nobody to cover, it may go.
    let second = policy(
        "second",
        &json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
    );
    assert!(
        Cluster::of(&[namespace("shop"), default_deny(), web(), second])
            .delete(&default_deny())
            .allowed()
    );
    assert!(
        Cluster::of(&[namespace("shop"), default_deny()])
            .delete(&default_deny())
            .allowed()
    );
}

#[test]
fn what_is_proposed_takes_no_other_policys_place() {
    let one_way =
        |name: &str, way: &str| policy(name, &json!({"podSelector": {}, "policyTypes": [way]}));
    let proposed = |decision: &Decision| {
        let fix = decision.judged[0].finding.fix.as_ref().unwrap();
        fix.manifest.clone().unwrap()
    };
    // What there is keeps its name, also where it is about to go, or has the name that the proposed one would like.
    for there in [
        vec![default_deny()],
        vec![
            one_way("default-deny", "Ingress"),
            one_way("default-deny-2", "Egress"),
        ],
        vec![
            one_way("default-deny-egress", "Ingress"),
            one_way("default-deny", "Egress"),
        ],
    ] {
        let mut objects = vec![namespace("shop"), web()];
        objects.extend(there.iter().cloned());
        let refused = Cluster::of(&objects).delete(&there[0]);
        assert!(!refused.allowed());
        objects.push(proposed(&refused));
        assert!(Cluster::of(&objects).delete(&there[0]).allowed());
    }
    // A workload that lacks one direction keeps the other.
    let mut objects = vec![namespace("shop"), one_way("default-deny", "Ingress")];
    objects.push(one_way("default-deny-egress", "Ingress"));
    let refused = Cluster::of(&objects).create(&web());
    assert_eq!(
        proposed(&refused)["metadata"]["name"],
        "default-deny-egress-2"
    );
    objects.push(proposed(&refused));
    assert!(Cluster::of(&objects).create(&web()).allowed());
}

#[test]
fn weakening_the_last_cover_is_refused_at_the_field_that_weakens() {
    let cluster = Cluster::of(&[namespace("shop"), default_deny(), web()]);
    let shorter = policy(
        "default-deny",
        &json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
    );
    let decision = cluster.update(&default_deny(), &shorter);
    assert_eq!(ids(&decision), ["RF202"]);
    assert_eq!(
        decision.judged[0].finding.field.to_string(),
        "spec.policyTypes"
    );

    let narrower = policy(
        "default-deny",
        &json!({"podSelector": {"matchLabels": {"app": "api"}}, "policyTypes": ["Ingress", "Egress"]}),
    );
    let decision = cluster.update(&default_deny(), &narrower);
    assert_eq!(
        decision.judged[0].finding.field.to_string(),
        "spec.podSelector"
    );
}

#[test]
fn a_namespace_on_its_way_out_lets_its_policies_go() {
    let leaving = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "shop"}, "status": {"phase": "Terminating"}
    });
    let decision = Cluster::of(&[leaving, default_deny(), web()]).delete(&default_deny());
    assert_eq!(decision.skipped, Some(Skip::Terminating));
}

#[test]
fn only_the_exact_users_of_the_collectors_may_delete_unasked() {
    let cluster = Cluster::of(&[namespace("shop"), default_deny(), web()]);
    let by = |username: &str| {
        let mut review = delete(&default_deny());
        review.user.username = username.to_owned();
        cluster.judge(&review)
    };
    for user in COLLECTORS {
        let skipped = (user != GARBAGE_COLLECTOR).then_some(Skip::Collector);
        assert_eq!(by(user).skipped, skipped, "{user}");
    }
    // Whoever may write a policy may give it an owner that is not there.
    assert_eq!(ids(&by(GARBAGE_COLLECTOR)), ["RF202"]);
    let mut review = delete(&web());
    review.user.username = GARBAGE_COLLECTOR.to_owned();
    assert_eq!(cluster.judge(&review).skipped, Some(Skip::Collector));
    for user in [
        "system:serviceaccount:kube-system-x:namespace-controller",
        "system:serviceaccount:kube-system:namespace-controller-x",
        "system:kube-controller-manager-x",
        "system:serviceaccount:kube-system:deployment-controller",
        "kubernetes-admin",
    ] {
        assert!(!by(user).allowed(), "{user}");
    }
    // They delete unasked; what they create is judged.
    let mut review = create(&web());
    review.user.username = COLLECTORS[0].to_owned();
    assert!(!Cluster::of(&[namespace("shop")]).judge(&review).allowed());
}

#[test]
fn rules_without_peers_are_found_with_or_without_ports() {
    let policy =
        egress(&json!([{}, {"ports": [{"port": 443}]}, {"to": [], "ports": [{"port": 80}]}]));
    let decision = Cluster::of(&[]).create(&policy);
    let fields: Vec<String> = decision
        .judged
        .iter()
        .map(|judged| judged.finding.field.to_string())
        .collect();
    assert_eq!(ids(&decision), ["RF301", "RF301", "RF301"]);
    assert_eq!(
        fields,
        ["spec.egress[0]", "spec.egress[1]", "spec.egress[2]"]
    );
}

#[test]
fn the_world_is_found_whole_in_halves_and_in_pieces() {
    let found = |cidrs: &[&str]| {
        let decision = Cluster::of(&[]).create(&blocks(cidrs));
        decision
            .judged
            .iter()
            .map(|judged| {
                (
                    judged.finding.id.to_string(),
                    judged.finding.field.to_string(),
                )
            })
            .collect::<Vec<_>>()
    };
    let at = |index: usize| format!("spec.egress[0].to[{index}].ipBlock.cidr");
    assert_eq!(found(&["0.0.0.0/0"]), [("RF302".into(), at(0))]);
    assert_eq!(found(&["::/0"]), [("RF302".into(), at(0))]);
    assert_eq!(
        found(&["0.0.0.0/1", "128.0.0.0/1"]),
        [("RF302".into(), at(0))]
    );
    assert_eq!(
        found(&["0.0.0.0/0", "0.0.0.0/1"]),
        [("RF302".into(), at(0)), ("RF303".into(), at(1))]
    );
    assert_eq!(found(&["10.0.0.0/7"]), [("RF303".into(), at(0))]);
    assert_eq!(found(&["10.0.0.0/8"]), []);
    assert_eq!(
        found(&["10.0.0.0/8", "11.0.0.0/8"]),
        [("RF303".into(), at(0))]
    );
    let eighths: Vec<String> = (0..=255).map(|octet| format!("{octet}.0.0.0/8")).collect();
    let eighths: Vec<&str> = eighths.iter().map(String::as_str).collect();
    assert_eq!(found(&eighths), [("RF302".into(), at(0))]);
}

#[test]
fn halves_of_the_world_in_two_policies_are_found_too() {
    let half = |name: &str, cidr: &str| {
        policy(
            name,
            &json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cidr": cidr}}]}]}),
        )
    };
    let decision = Cluster::of(&[half("a", "10.0.0.0/8")]).create(&half("b", "11.0.0.0/8"));
    assert_eq!(ids(&decision), ["RF303"]);
    assert!(
        decision.judged[0]
            .finding
            .message
            .contains("together with policy a"),
        "{}",
        decision.judged[0].finding.message
    );
    // Policies that never hold the same pod do not add up.
    let other = policy(
        "a",
        &json!({"podSelector": {"matchLabels": {"app": "api"}}, "policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]}),
    );
    assert_eq!(
        ids(&Cluster::of(&[other]).create(&half("b", "11.0.0.0/8"))),
        Vec::<&str>::new()
    );
}

#[test]
fn all_namespaces_are_found_however_they_are_said() {
    let found = |peer: Value| {
        let decision = Cluster::of(&[]).create(&egress(&json!([{"to": [peer]}])));
        decision
            .judged
            .first()
            .map(|judged| (judged.finding.id.to_string(), judged.mode))
    };
    let everywhere =
        json!({"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "Exists"}]});
    let but_one = json!({"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["x"]}]});
    let refused = Some(("RF304".to_owned(), Mode::Enforce));
    let peers = json!([{"to": [{"namespaceSelector": but_one.clone()}]}]);
    let said = Cluster::of(&[]).create(&egress(&peers));
    assert_eq!(
        said.judged[0].finding.message,
        "egress rule 0 allows every pod of every namespace but x"
    );
    assert_eq!(found(json!({"namespaceSelector": {}})), refused);
    assert_eq!(
        found(json!({"namespaceSelector": {"matchLabels": {}}, "podSelector": {}})),
        refused
    );
    assert_eq!(found(json!({"namespaceSelector": everywhere})), refused);
    assert_eq!(found(json!({"namespaceSelector": but_one})), refused);
    // To leave some out is not to name any: whoever has no such label is meant.
    let unless = |operator: &str, values: Value| json!({"matchExpressions": [{"key": "zz", "operator": operator, "values": values}]});
    let unlabelled = unless("DoesNotExist", json!([]));
    assert_eq!(found(json!({"namespaceSelector": unlabelled})), refused);
    let other = unless("NotIn", json!(["a"]));
    assert_eq!(found(json!({"namespaceSelector": other})), refused);
    assert_eq!(
        found(json!({"namespaceSelector": {}, "podSelector": unlabelled})),
        refused
    );
    let mut of_a_team = other.clone();
    of_a_team["matchLabels"] = json!({"team": "a"});
    assert_eq!(found(json!({"namespaceSelector": of_a_team})), None);
    let labelled = unless("Exists", json!([]));
    assert_eq!(found(json!({"namespaceSelector": labelled})), None);
    // Named pods wherever they are: told, not refused.
    let named =
        json!({"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}});
    assert_eq!(found(named), Some(("RF304".to_owned(), Mode::Warn)));
    assert_eq!(
        found(json!({"namespaceSelector": {"matchLabels": {"team": "a"}}})),
        None
    );
}

#[test]
fn rules_of_a_direction_that_does_not_count_open_nothing_and_are_said_to_be_dead() {
    let ignored = policy(
        "p",
        &json!({"podSelector": {}, "policyTypes": ["Ingress"], "egress": [{}]}),
    );
    assert_eq!(ids(&Cluster::of(&[]).create(&ignored)), ["RF604"]);
}

#[test]
fn the_mode_decides_what_is_done_and_a_section_may_differ() {
    for (mode, allowed) in [
        (Mode::Audit, true),
        (Mode::Warn, true),
        (Mode::Enforce, false),
    ] {
        let decision = Cluster::under(&in_mode(mode), &[namespace("shop")]).create(&web());
        assert_eq!(
            (decision.allowed(), decision.judged[0].mode),
            (allowed, mode)
        );
    }
    let coverage = CoverageSection {
        mode: Some(Mode::Audit),
        ..CoverageSection::default()
    };
    let spec = GuardrailSpec {
        coverage: Some(coverage),
        ..GuardrailSpec::built_in()
    };
    assert!(
        Cluster::under(&spec, &[namespace("shop")])
            .create(&web())
            .allowed()
    );
}

#[test]
fn guardrails_add_up_and_one_violation_gives_one_finding_in_the_stricter_mode() {
    let mut cluster = Cluster::of(&[namespace("shop")]);
    cluster.guardrails = Guardrails::new(vec![
        guardrail("strict", &in_mode(Mode::Enforce)),
        guardrail("mild", &in_mode(Mode::Audit)),
    ]);
    let decision = cluster.create(&web());
    assert_eq!(ids(&decision), ["RF201"]);
    assert_eq!(
        (decision.judged[0].mode, decision.judged[0].guardrails.len()),
        (Mode::Enforce, 2)
    );
}

#[test]
fn an_exemption_lets_off_and_the_finding_is_kept() {
    let mut cluster = Cluster::of(&[namespace("shop")]);
    let exemption = json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": "Exemption", "metadata": {"name": "legacy", "namespace": "shop"},
        "spec": {"checks": ["RF201"], "objects": [{"kind": "Deployment", "name": "web"}], "reason": "r", "owner": "o", "expires": "2026-07-01T00:00:00Z"}
    });
    cluster.exemptions = Exemptions::new(vec![Exemption::parse(&exemption).unwrap()]);
    let decision = cluster.create(&web());
    assert!(decision.allowed());
    assert_eq!(
        decision.exempted().next().unwrap().exemption.as_deref(),
        Some("shop/legacy")
    );

    let later = "2026-07-01T00:00:00Z".parse().unwrap();
    assert!(!judge(&create(&web()), &cluster.context(), later, BUDGET).allowed());
    assert_eq!(
        ids(&judge(
            &create(&exemption),
            &cluster.context(),
            later,
            BUDGET
        )),
        ["RF601"]
    );
}

#[test]
fn what_was_wrong_before_is_not_held_against_a_harmless_update() {
    let cluster = Cluster::of(&[namespace("shop"), web()]);
    let mut newer = web();
    newer["spec"]["template"]["spec"]["containers"][0]["image"] = json!("y");
    assert_eq!(cluster.update(&web(), &newer).judged, vec![]);

    let old = blocks(&["0.0.0.0/0"]);
    let worse = blocks(&["0.0.0.0/0", "::/0"]);
    let decision = Cluster::of(std::slice::from_ref(&old)).update(&old, &worse);
    assert_eq!(decision.judged.len(), 1);
    assert!(decision.judged[0].finding.message.contains("::/0"));
    // Piece by piece neither, where the first piece was there.
    let old = blocks(&["8.0.0.0/8", "9.0.0.0/8"]);
    let worse = blocks(&["8.0.0.0/8", "9.0.0.0/8", "10.0.0.0/7"]);
    let cluster = Cluster::of(std::slice::from_ref(&old));
    assert!(!cluster.create(&old).allowed());
    let decision = cluster.update(&old, &worse);
    let found = decision.judged.iter().map(|it| &*it.finding.message);
    assert!(
        found
            .clone()
            .any(|text| text.starts_with("opens 8.0.0.0/6")),
        "{:?}",
        found.collect::<Vec<_>>()
    );
    let narrower = blocks(&["8.0.0.0/8", "9.0.0.0/8", "192.168.0.0/16"]);
    assert!(cluster.update(&old, &narrower).allowed());

    let spec = GuardrailSpec {
        unchanged: Unchanged::Judge,
        ..GuardrailSpec::built_in()
    };
    assert!(
        !Cluster::under(&spec, &[namespace("shop"), web()])
            .update(&web(), &newer)
            .allowed()
    );
}

#[test]
fn finalizers_and_leaving_objects_are_never_held_up() {
    let cluster = Cluster::under(
        &GuardrailSpec {
            unchanged: Unchanged::Judge,
            ..GuardrailSpec::built_in()
        },
        &[namespace("shop")],
    );
    let mut held = web();
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    held["metadata"]["resourceVersion"] = json!("1");
    assert_eq!(
        cluster.update(&held, &web()).skipped,
        Some(Skip::Insignificant)
    );

    let mut leaving = web();
    leaving["metadata"]["deletionTimestamp"] = json!("2026-06-01T00:00:00Z");
    held["metadata"]["deletionTimestamp"] = json!("2026-06-01T00:00:00Z");
    assert_eq!(
        cluster.update(&held, &leaving).skipped,
        Some(Skip::Insignificant)
    );
}

#[test]
fn what_somebodys_finalizer_keeps_is_judged_and_covers_nobody() {
    let mut leaving = policy(
        "leaving",
        &json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
    );
    leaving["metadata"]["deletionTimestamp"] = json!("2026-06-01T00:00:00Z");
    leaving["metadata"]["finalizers"] = json!(["example.com/hold"]);
    let mut opened = leaving.clone();
    opened["spec"]["ingress"] = json!([{}]);
    let objects = [namespace("shop"), leaving.clone(), default_deny(), web()];
    let cluster = Cluster::of(&objects);
    assert_eq!(ids(&cluster.update(&leaving, &opened)), ["RF301"]);
    assert_eq!(ids(&cluster.delete(&default_deny())), ["RF202"]);
    assert!(cluster.delete(&leaving).allowed());
    let decision = Cluster::of(&objects[..2]).create(&web());
    assert_eq!(ids(&decision), ["RF201"]);
}

#[test]
fn subresources_are_judged_only_where_they_change_what_is_judged() {
    let cluster = Cluster::of(&[namespace("shop")]);
    let with = |subresource: &str| {
        let mut review = update(&deployment("web", &json!({"app": "old"})), &web());
        review.subresource = Some(subresource.to_owned());
        cluster.judge(&review).skipped
    };
    assert_eq!(with("scale"), Some(Skip::Subresource));
    assert_eq!(with("status"), Some(Skip::Subresource));
    assert_eq!(with("ephemeralcontainers"), None);
    assert_eq!(with("resize"), None);
}

#[test]
fn a_static_pod_is_recorded_not_refused() {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "etcd", "namespace": "shop", "annotations": {"kubernetes.io/config.mirror": "x"}},
        "spec": {"containers": [{"name": "main", "image": "x"}]}
    });
    let decision = Cluster::of(&[namespace("shop")]).create(&pod);
    assert_eq!(
        (decision.allowed(), decision.judged[0].mode),
        (true, Mode::Audit)
    );
}

#[test]
fn a_bad_object_names_its_field_and_a_bad_guardrail_is_always_refused() {
    let bad = egress(&json!([{"to": [{"ipBlock": {"cidr": "10.0.0.0/33"}}]}]));
    let decision = Cluster::of(&[]).create(&bad);
    assert_eq!(
        decision.judged[0].finding.field.to_string(),
        "spec.egress[0].to[0].ipBlock.cidr"
    );

    let bad = json!({"apiVersion": "ringfence.dev/v1alpha1", "kind": "Guardrail", "metadata": {"name": "x"}, "spec": {"mod": "Audit"}});
    let decision = Cluster::under(&in_mode(Mode::Audit), &[]).create(&bad);
    assert!(!decision.allowed());
    assert!(
        decision.judged[0].finding.message.contains("mod"),
        "{}",
        decision.judged[0].finding.message
    );
}

#[test]
fn an_unknown_field_counts_in_a_manifest_and_not_at_admission() {
    let misspelt = egress(&json!([{"to": [{"podSelector": {}, "namespaceSelctor": {}}]}]));
    let mut review = create(&misspelt);
    assert_eq!(ids(&Cluster::of(&[]).judge(&review)), ["RF003"]);
    review.origin = Origin::Admission;
    assert_eq!(ids(&Cluster::of(&[]).judge(&review)), Vec::<&str>::new());
}

#[test]
fn more_pods_than_the_budget_allows_cut_the_judgement() {
    let cluster = Cluster::of(&[
        default_deny(),
        web(),
        deployment("api", &json!({"app": "api"})),
    ]);
    let budget = Budget { pods: 1, ..BUDGET };
    let decision = judge(&delete(&default_deny()), &cluster.context(), now(), budget);
    assert_eq!(decision.cut, Some(Cut::Pods(1)));
}

#[test]
fn opting_out_of_the_baseline_is_subject_to_the_guardrail() {
    let mut policy = default_deny();
    policy["metadata"]["annotations"] = json!({"ringfence.dev/inject": "disabled"});
    let decision = Cluster::of(&[]).create(&policy);
    assert_eq!(ids(&decision), ["RF505"]);
    let patch = decision.judged[0]
        .finding
        .fix
        .as_ref()
        .unwrap()
        .patch
        .as_ref()
        .unwrap();
    let mut mended = policy.clone();
    json_patch::patch(&mut mended, patch).unwrap();
    assert!(Cluster::of(&[]).create(&mended).allowed());
}

#[test]
fn an_old_violation_does_not_excuse_a_wider_one_in_its_place() {
    let narrow = |selector: Value, rules: Value| {
        policy(
            "out",
            &json!({"podSelector": selector, "policyTypes": ["Egress"], "egress": rules}),
        )
    };
    let old = narrow(
        json!({"matchLabels": {"app": "a"}}),
        json!([{"ports": [{"port": 443}]}]),
    );
    let cluster = Cluster::of(std::slice::from_ref(&old));
    let all_ports = narrow(json!({"matchLabels": {"app": "a"}}), json!([{}]));
    let all_pods = narrow(json!({}), json!([{"ports": [{"port": 443}]}]));
    assert_eq!(ids(&cluster.update(&old, &all_ports)), ["RF301"]);
    assert_eq!(ids(&cluster.update(&old, &all_pods)), ["RF301"]);
}

#[test]
fn a_rule_that_only_moves_is_no_new_violation() {
    let good = json!({"to": [{"podSelector": {}}]});
    let wide = json!({"ports": [{"port": 443}]});
    let old = egress(&json!([good, wide]));
    let new = egress(&json!([wide]));
    assert_eq!(
        Cluster::of(std::slice::from_ref(&old))
            .update(&old, &new)
            .judged,
        vec![]
    );
}

#[test]
fn leaving_the_host_network_is_no_new_violation() {
    let mut old = web();
    old["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
    let cluster = Cluster::of(&[namespace("shop"), old.clone()]);
    assert!(cluster.update(&old, &web()).allowed());
}

#[test]
fn what_adds_up_with_other_policies_is_found_beside_a_wide_block_of_ones_own() {
    let blocks = |name: &str, cidrs: &[&str]| {
        let to: Vec<Value> = cidrs
            .iter()
            .map(|cidr| json!({"ipBlock": {"cidr": cidr}}))
            .collect();
        policy(
            name,
            &json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": to}]}),
        )
    };
    let other = blocks("q", &["32.0.0.0/8"]);
    let decision = Cluster::of(&[other]).create(&blocks("p", &["10.0.0.0/7", "33.0.0.0/8"]));
    assert_eq!(ids(&decision), ["RF303", "RF303"]);
}
