//! Plans on small clusters by hand, and on random ones: applied until nothing is left to do, they never touch what is not
//! ours and never leave a pod without the isolation that it had.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::guard::guardrail::GuardrailSpec;
use crate::guard::review::Subject;
use crate::guard::testing::{guardrail, namespace, policy};

fn snapshot(objects: &[Value]) -> Snapshot {
    let models = objects.iter().map(|object| {
        let subject = Subject::new(object.clone());
        subject.model().expect("a kind of the model").clone()
    });
    models.collect()
}

#[allow(clippy::needless_pass_by_value, reason = "it is called with `json!`")]
fn section(baseline: Value) -> Guardrails {
    let spec: GuardrailSpec =
        serde_json::from_value(json!({"mode": "Enforce", "baseline": baseline})).expect("a spec");
    Guardrails::new(vec![guardrail("test", &spec)]).with_baselines_kept()
}

fn pod(phase: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "main", "image": "x"}]}, "status": {"phase": phase}
    })
}

fn of(snapshot: &Snapshot, guardrails: &Guardrails) -> Option<Plan> {
    plan(snapshot, guardrails, &BTreeSet::new())
        .into_iter()
        .next()
}

/// The cluster once a plan is carried out.
fn applied(snapshot: &Snapshot, plans: &[Plan]) -> Snapshot {
    let mut after = snapshot.clone();
    for plan in plans {
        for step in &plan.steps {
            match step {
                Step::Apply { wanted, .. } => {
                    after.insert(Object::NetworkPolicy(wanted.policy.clone()));
                }
                Step::Remove(name) => {
                    after.remove(&ObjectKey::NetworkPolicy(crate::netpol::PolicyRef::new(
                        plan.namespace.clone(),
                        name.clone(),
                    )));
                }
            }
        }
    }
    after
}

#[test]
fn a_new_namespace_gets_one_policy_with_all_that_is_asked_for() {
    let guardrails = section(json!({"ingressController": {"ports": ["http"]}}));
    let plan = of(&snapshot(&[namespace("shop")]), &guardrails).unwrap();
    assert_eq!(plan.standing, Standing::Kept);
    let [
        Step::Apply {
            wanted,
            repair: false,
        },
    ] = plan.steps.as_slice()
    else {
        panic!("{:?}", plan.steps)
    };
    insta::assert_yaml_snapshot!(wanted.manifest);
}

#[test]
fn a_namespace_in_which_pods_run_waits_for_its_promotion() {
    let cluster = snapshot(&[namespace("shop"), pod("Running")]);
    let waits = of(&cluster, &section(json!({}))).unwrap();
    assert!(
        matches!(&waits.standing, Standing::Held(Hold::RunningPods, wanted) if wanted.len() == 1)
    );
    assert!(waits.steps.is_empty());
    for promoted in [json!({"promoted": ["shop"]}), json!({"existing": "Apply"})] {
        assert_eq!(of(&cluster, &section(promoted)).unwrap().steps.len(), 1);
    }
    let starting = snapshot(&[namespace("shop"), pod("Pending")]);
    assert_eq!(of(&starting, &section(json!({}))).unwrap().steps.len(), 1);
}

#[test]
fn in_a_milder_mode_nothing_is_written_and_nothing_removed() {
    let cluster = snapshot(&[namespace("shop")]);
    for mode in ["Audit", "Warn"] {
        let plan = of(&cluster, &section(json!({"mode": mode}))).unwrap();
        assert!(matches!(plan.standing, Standing::Held(Hold::Mode(_), _)));
        assert!(plan.steps.is_empty());
    }
    let enforced = section(json!({}));
    let kept = applied(&cluster, &plan(&cluster, &enforced, &BTreeSet::new()));
    let plan = of(&kept, &section(json!({"mode": "Warn"}))).unwrap();
    assert_eq!((plan.standing, plan.steps), (Standing::Kept, vec![]));
}

#[test]
fn what_was_edited_or_deleted_is_made_again_even_without_its_labels() {
    let guardrails = section(json!({}));
    let cluster = snapshot(&[namespace("shop")]);
    let kept = BTreeSet::from([NamespaceName::from("shop")]);
    let good = applied(&cluster, &plan(&cluster, &guardrails, &kept))
        .with(Subject::new(pod("Running")).model().unwrap().clone());
    assert!(
        plan(&good, &guardrails, &kept)
            .iter()
            .all(|plan| plan.steps.is_empty())
    );

    let open = policy(
        NAME,
        &json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "egress": [{}]}),
    );
    let edited = good.with(Subject::new(open).model().unwrap().clone());
    let reference = good.policies().next().unwrap().reference();
    let deleted = good.without(&ObjectKey::NetworkPolicy(reference));
    for spoilt in [edited, deleted] {
        let plans = plan(&spoilt, &guardrails, &kept);
        assert!(matches!(
            plans[0].steps.as_slice(),
            [Step::Apply { repair: true, .. }]
        ));
        assert_eq!(applied(&spoilt, &plans), good);
    }
}

#[test]
fn policies_of_others_that_do_the_same_are_left_to_do_it() {
    let guardrails = section(json!({"monitoring": null}));
    let dns = json!([{
        "to": [{
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
            "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}
        }],
        "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]
    }]);
    let deny = policy(
        "deny",
        &json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
    );
    let allow = policy(
        "dns",
        &json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": dns}),
    );
    let both = snapshot(&[namespace("shop"), pod("Running"), deny.clone(), allow]);
    let plan = of(&both, &guardrails).unwrap();
    assert_eq!((plan.standing, plan.steps), (Standing::Adopted, vec![]));

    let without_dns = snapshot(&[namespace("shop"), deny]);
    assert_eq!(of(&without_dns, &guardrails).unwrap().steps.len(), 1);
}

#[test]
fn a_policy_of_that_name_which_is_not_ours_is_never_touched() {
    let theirs = policy(
        NAME,
        &json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
    );
    let cluster = snapshot(&[namespace("shop"), theirs]);
    let plan = of(&cluster, &section(json!({}))).unwrap();
    assert!(matches!(
        plan.standing,
        Standing::Held(Hold::NameTaken(_), _)
    ));
    assert!(plan.steps.is_empty());
}

#[test]
fn a_policy_of_that_name_that_a_gitops_tool_keeps_is_the_tools_whoever_made_it() {
    let guardrails = section(json!({"dns": null, "monitoring": null}));
    let kept = BTreeSet::from([NamespaceName::from("shop")]);
    let marks = [
        json!({"annotations": {"argocd.argoproj.io/tracking-id": "shop:networking.k8s.io/NetworkPolicy:shop/x"}}),
        json!({"labels": {"app.kubernetes.io/instance": "shop"}}),
        json!({"labels": {"kustomize.toolkit.fluxcd.io/name": "shop"}}),
    ];
    let taken = |mark: &Value, egress: Value| {
        let spec =
            json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "egress": egress});
        let mut taken = policy(NAME, &spec);
        // What was ours has our labels still.
        taken["metadata"]["labels"] = json!({MANAGED_BY: "ringfence", PART_OF: "baseline"});
        json_patch::merge(&mut taken["metadata"], mark);
        snapshot(&[namespace("shop"), taken])
    };
    let planned = |cluster: &Snapshot| plan(cluster, &guardrails, &kept).pop().unwrap();
    for mark in &marks {
        let open = taken(mark, json!([{}]));
        let plan = planned(&open);
        // It does all that the baseline would, and more.
        assert_eq!((plan.standing, plan.steps), (Standing::Adopted, vec![]));
        assert!(to_come(&"shop".into(), &open, &guardrails).is_empty());

        let mut half = policy(
            NAME,
            &json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
        );
        json_patch::merge(&mut half["metadata"], mark);
        let plan = planned(&snapshot(&[namespace("shop"), half]));
        assert_eq!(plan.steps, vec![]);
        assert!(matches!(
            plan.standing,
            Standing::Held(Hold::NameTaken(_), _)
        ));
    }
    let ours = planned(&taken(&json!({}), json!([{}])));
    assert!(matches!(
        ours.steps.as_slice(),
        [Step::Apply { repair: true, .. }]
    ));
}

#[test]
fn it_goes_only_when_nobody_wants_it_and_no_pod_needs_it() {
    let guardrails = section(json!({}));
    let cluster = snapshot(&[namespace("shop")]);
    let kept = applied(&cluster, &plan(&cluster, &guardrails, &BTreeSet::new()));
    let gone = Guardrails::default();
    let plan = of(&kept, &gone).unwrap();
    assert_eq!(plan.standing, Standing::Leaving);
    assert_eq!(plan.steps, [Step::Remove(NAME.into())]);

    let needed = kept.with(Subject::new(pod("Running")).model().unwrap().clone());
    let plan = of(&needed, &gone).unwrap();
    assert_eq!(plan.standing, Standing::Held(Hold::LastCover, vec![]));
    assert!(plan.steps.is_empty());
}

#[test]
fn a_namespace_that_is_left_without_a_policy_of_ours_waits_for_its_promotion_again() {
    let (nobody, kept) = (Guardrails::default(), BTreeSet::from(["shop".into()]));
    let cluster = snapshot(&[namespace("shop"), pod("Running")]);
    let left = plan(&cluster, &nobody, &kept).pop().unwrap();
    assert_eq!((left.standing, left.steps), (Standing::Leaving, vec![]));
    assert_eq!(plan(&cluster, &nobody, &BTreeSet::new()), vec![]);
    let asked_again = of(&cluster, &section(json!({}))).unwrap();
    assert!(matches!(
        asked_again.standing,
        Standing::Held(Hold::RunningPods, _)
    ));
}

#[test]
fn a_namespace_that_is_deleted_or_not_known_is_not_written_into() {
    let mut leaving = namespace("shop");
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let guardrails = section(json!({}));
    assert_eq!(of(&snapshot(&[leaving.clone()]), &guardrails), None);
    assert_eq!(of(&snapshot(&[pod("Running")]), &guardrails), None);
    assert!(to_come(&"shop".into(), &snapshot(&[leaving]), &guardrails).is_empty());
}

#[test]
fn pods_under_quarantine_get_the_deny_and_none_of_the_allows() {
    let guardrails =
        section(json!({"quarantine": {"matchLabels": {"quarantine": "yes", "hard": "yes"}}}));
    let cluster = snapshot(&[namespace("shop")]);
    let plans = plan(&cluster, &guardrails, &BTreeSet::new());
    let after = applied(&cluster, &plans);
    assert_eq!(after.policies().count(), 3);
    let held = Labels::from([("quarantine", "yes"), ("hard", "yes")]);
    let free = Labels::from([("hard", "yes")]);
    let rules = |labels: &Labels| {
        let policies = after
            .policies()
            .filter(|policy| policy.selector.matches(labels));
        policies
            .map(|policy| policy.ingress.len() + policy.egress.len())
            .sum::<usize>()
    };
    assert_eq!(rules(&held), 0);
    assert!(rules(&free) > 0);
    assert!(
        plan(&after, &guardrails, &BTreeSet::new())
            .iter()
            .all(|plan| plan.steps.is_empty())
    );
}

#[test]
fn what_is_to_come_is_what_the_plan_makes() {
    let shop = NamespaceName::from("shop");
    let new = snapshot(&[namespace("shop")]);
    let running = snapshot(&[namespace("shop"), pod("Running")]);
    let both: BTreeSet<Direction> = Direction::BOTH.into();
    let enforced = section(json!({}));
    assert_eq!(to_come(&shop, &new, &enforced), both);
    assert_eq!(to_come(&shop, &Snapshot::default(), &enforced), both);
    assert_eq!(
        to_come(&shop, &running, &section(json!({"promoted": ["shop"]}))),
        both
    );
    assert!(to_come(&shop, &running, &enforced).is_empty());
    assert!(to_come(&shop, &new, &section(json!({"mode": "Warn"}))).is_empty());
    let alone = Guardrails::new(enforced.iter().cloned().collect());
    assert!(to_come(&shop, &new, &alone).is_empty());
    let egress = section(json!({"defaultDeny": ["Egress"]}));
    assert_eq!(to_come(&shop, &new, &egress), [Direction::Egress].into());
}

const NAMESPACES: [&str; 4] = ["a", "b", "c", "d"];

fn any_namespace() -> impl Strategy<Value = Value> {
    let state = (0..NAMESPACES.len(), any::<bool>(), 0..10_u8);
    state.prop_map(|(name, team, leaving)| {
        let mut object = namespace(NAMESPACES[name]);
        if team {
            object["metadata"]["labels"] = json!({"team": "x"});
        }
        if leaving == 0 {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        object
    })
}

fn any_pod() -> impl Strategy<Value = Value> {
    let state = (0..NAMESPACES.len(), 0..3_u8, any::<bool>());
    state.prop_map(|(name, number, runs)| {
        let mut object = pod(if runs { "Running" } else { "Pending" });
        object["metadata"]["namespace"] = json!(NAMESPACES[name]);
        object["metadata"]["name"] = json!(format!("pod-{number}"));
        object["metadata"]["labels"] = json!({"app": format!("app-{number}")});
        object
    })
}

fn any_policy() -> impl Strategy<Value = Value> {
    let names = prop::sample::select(vec![
        "deny",
        "allow",
        NAME,
        "ringfence-baseline.1",
        "ringfence-baseline-x",
    ]);
    let types = prop::sample::select(vec![
        json!(["Ingress"]),
        json!(["Egress"]),
        json!(["Ingress", "Egress"]),
    ]);
    let state = (
        0..NAMESPACES.len(),
        names,
        types,
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    );
    state.prop_map(|(namespace, name, types, all, labelled, open, tracked)| {
        let selector = if all {
            json!({})
        } else {
            json!({"matchLabels": {"app": "app-1"}})
        };
        let mut spec = json!({"podSelector": selector, "policyTypes": types});
        if open {
            spec["egress"] = json!([{}]);
        }
        let mut object = policy(name, &spec);
        object["metadata"]["namespace"] = json!(NAMESPACES[namespace]);
        if labelled {
            object["metadata"]["labels"] = json!({MANAGED_BY: "ringfence", PART_OF: "baseline"});
        }
        if tracked {
            let mark = json!({"annotations": {"argocd.argoproj.io/tracking-id": "x"}});
            json_patch::merge(&mut object["metadata"], &mark);
        }
        object
    })
}

fn any_guardrails() -> impl Strategy<Value = Guardrails> {
    let mode = prop::sample::select(vec!["Audit", "Warn", "Enforce", "Enforce", "Enforce"]);
    let extra = prop::sample::select(vec![
        json!({}),
        json!({"existing": "Apply"}),
        json!({"promoted": ["a", "b"]}),
        json!({"dns": null}),
        json!({"defaultDeny": ["Ingress"]}),
        json!({"defaultDeny": []}),
        json!({"quarantine": {"matchLabels": {"app": "app-2"}}}),
    ]);
    let one = (mode, extra, any::<bool>()).prop_map(|(mode, baseline, teams)| {
        let mut spec = json!({"mode": mode, "baseline": baseline});
        if teams {
            spec["namespaceSelector"] = json!({"matchLabels": {"team": "x"}});
        }
        serde_json::from_value::<GuardrailSpec>(spec).expect("a spec")
    });
    prop::collection::vec(one, 0..3).prop_map(|specs| {
        let named = specs.iter().enumerate();
        let guardrails = named.map(|(index, spec)| guardrail(&format!("g{index}"), spec));
        Guardrails::new(guardrails.collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn applying_a_plan_leaves_nothing_to_do_and_harms_nobody(
        namespaces in prop::collection::vec(any_namespace(), 0..5),
        pods in prop::collection::vec(any_pod(), 0..8),
        policies in prop::collection::vec(any_policy(), 0..8),
        guardrails in any_guardrails(),
        known in prop::collection::btree_set(0..NAMESPACES.len(), 0..4),
    ) {
        let kept: BTreeSet<NamespaceName> = known.into_iter().map(|at| NAMESPACES[at].into()).collect();
        let before = snapshot(&[namespaces, pods, policies].concat());
        let plans = plan(&before, &guardrails, &kept);
        let after = applied(&before, &plans);
        let steps: usize = plan(&after, &guardrails, &kept).iter().map(|plan| plan.steps.len()).sum();
        prop_assert_eq!(steps, 0);

        // What is not ours is as it was.
        let theirs = |snapshot: &Snapshot| -> Vec<NetworkPolicy> {
            let is_theirs = |policy: &&NetworkPolicy| {
                let is_unknown = !is_labelled(&policy.labels) && !kept.contains(&policy.namespace);
                !is_named(&policy.name) || is_unknown || gitops::keeper_of_ours(policy).is_some()
            };
            snapshot.policies().filter(is_theirs).cloned().collect()
        };
        prop_assert_eq!(theirs(&before), theirs(&after));

        for plan in &plans {
            let state = before.namespace(&plan.namespace).expect("it is planned for");
            prop_assert!(!state.is_terminating());
            // A plan for one namespace is the same whatever the others hold.
            let mut alone = Snapshot::default();
            alone.extend(state.object().cloned().map(Object::Namespace));
            alone.extend(state.pods().cloned().map(Object::Pod));
            alone.extend(state.policies().cloned().map(Object::NetworkPolicy));
            let same = of_namespace(
                alone.namespace(&plan.namespace).expect("it is there"),
                &alone,
                &guardrails,
                kept.contains(&plan.namespace),
            );
            prop_assert_eq!(same.as_ref(), Some(plan));
            let removes = plan.steps.iter().any(|step| matches!(step, Step::Remove(_)));
            let applies = plan.steps.iter().any(|step| matches!(step, Step::Apply { .. }));
            if removes && !applies {
                prop_assert!(!uncovers(state, &before, &after));
            }
        }
    }
}
