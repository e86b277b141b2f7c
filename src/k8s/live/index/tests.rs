use serde_json::{Value, json};

use super::super::object::Wire;
use super::*;
use crate::guard::decide::State;
use crate::guard::engine::NoPolicies;

fn item(kind: Kind, value: Value) -> Item {
    serde_json::from_value::<Wire>(value).unwrap().item(kind)
}

fn namespace(name: &str) -> Item {
    let value = json!({"metadata": {"name": name, "resourceVersion": "1", "managedFields": [{}]}});
    item(Kind::Namespace, value)
}

fn pod(name: &str, app: &str) -> Item {
    let value = json!({
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": app}},
        "spec": {"containers": [{"name": "main"}]}
    });
    item(Kind::Pod, value)
}

fn guardrail(mode: &str) -> Item {
    let value = json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": "Guardrail",
        "metadata": {"name": "all", "uid": "u", "generation": 3, "newInSomeRelease": true},
        "spec": {"mode": mode, "coverage": {}}, "status": {"conditions": []}
    });
    item(Kind::Guardrail, value)
}

fn state(index: &mut Index) -> State {
    index.state(Arc::new(NoPolicies))
}

fn pods(index: &mut Index) -> Vec<String> {
    let state = state(index);
    let pods = state.snapshot.pods();
    pods.map(|pod| pod.name().as_str().to_owned()).collect()
}

#[test]
fn what_is_told_again_and_says_the_same_does_not_matter() {
    let mut index = Index::default();
    for (matters, change) in [
        (true, Change::Apply(Box::new(pod("a", "web")))),
        (false, Change::Apply(Box::new(pod("a", "web")))),
        (true, Change::Apply(Box::new(pod("a", "db")))),
        (true, Change::Delete(pod("a", "db").key)),
        (false, Change::Delete(pod("a", "db").key)),
    ] {
        assert_eq!(index.take(Kind::Pod, change), matters);
    }
    for (matters, change) in [
        (true, Change::Apply(Box::new(guardrail("Audit")))),
        (false, Change::Apply(Box::new(guardrail("Audit")))),
        (true, Change::Apply(Box::new(guardrail("Enforce")))),
    ] {
        assert_eq!(index.take(Kind::Guardrail, change), matters);
    }
    assert_eq!(
        state(&mut index)
            .guardrails
            .iter()
            .next()
            .unwrap()
            .spec
            .mode,
        crate::guard::mode::Mode::Enforce
    );
    assert_eq!(index.undecodable_if_changed(), None);
}

#[test]
fn a_new_list_takes_away_what_it_does_not_have_and_of_its_own_kind_only() {
    let mut index = Index::default();
    index.take(Kind::Namespace, Change::Restart(vec![namespace("shop")]));
    index.take(
        Kind::Pod,
        Change::Restart(vec![pod("a", "web"), pod("b", "web")]),
    );
    assert_eq!(pods(&mut index), ["a", "b"]);

    assert!(!index.take(
        Kind::Pod,
        Change::Restart(vec![pod("b", "web"), pod("a", "web")])
    ));
    assert!(index.take(
        Kind::Pod,
        Change::Restart(vec![pod("b", "web"), pod("c", "web")])
    ));
    assert_eq!(pods(&mut index), ["b", "c"]);
    assert!(index.take(Kind::Pod, Change::Absent));
    assert_eq!(pods(&mut index), Vec::<String>::new());
    assert_eq!(state(&mut index).snapshot.namespaces().count(), 1);
}

#[test]
fn policies_of_the_whole_cluster_are_told_apart_by_their_kinds() {
    let mut index = Index::default();
    let deny = json!([{"action": "Deny", "from": [{"namespaces": {}}]}]);
    let metadata = json!({"name": "default"});
    let subject = json!({"namespaces": {}});
    for (kind, spec) in [
        (
            Kind::ClusterNetworkPolicy,
            json!({"tier": "Admin", "priority": 1, "subject": subject, "ingress": deny}),
        ),
        (
            Kind::AdminNetworkPolicy,
            json!({"priority": 1, "subject": subject, "ingress": deny}),
        ),
        (
            Kind::BaselineAdminNetworkPolicy,
            json!({"subject": subject, "ingress": deny}),
        ),
    ] {
        let value = json!({"metadata": metadata, "spec": spec});
        assert!(index.take(kind, Change::Restart(vec![item(kind, value)])));
    }
    let kinds = |index: &mut Index| -> Vec<&'static str> {
        let state = state(index);
        let policies = state.snapshot.cluster_policies();
        policies
            .map(|policy| policy.reference.kind.as_str())
            .collect()
    };
    let (cluster, admin, baseline) = (
        "ClusterNetworkPolicy",
        "AdminNetworkPolicy",
        "BaselineAdminNetworkPolicy",
    );
    assert_eq!(kinds(&mut index), [cluster, admin, baseline]);
    assert!(index.take(Kind::ClusterNetworkPolicy, Change::Absent));
    assert_eq!(kinds(&mut index), [admin, baseline]);
    let key = Key::new(None, "default");
    assert!(index.take(Kind::BaselineAdminNetworkPolicy, Change::Delete(key)));
    assert_eq!(kinds(&mut index), [admin]);
    assert!(index.take(Kind::AdminNetworkPolicy, Change::Restart(Vec::new())));
    assert_eq!(kinds(&mut index), Vec::<&str>::new());
}

#[test]
fn the_last_good_version_stays_in_force_until_the_object_is_gone() {
    let mut index = Index::default();
    index.take(
        Kind::Guardrail,
        Change::Apply(Box::new(guardrail("Enforce"))),
    );
    let bad = || guardrail("Sometimes");
    assert!(!index.take(Kind::Guardrail, Change::Apply(Box::new(bad()))));
    let told = index.undecodable_if_changed().unwrap();
    assert_eq!(told.len(), 1);
    assert!(
        told[0].earlier_in_force && told[0].reason.contains("mode"),
        "{told:?}"
    );
    assert!(!index.take(Kind::Guardrail, Change::Apply(Box::new(bad()))));
    assert_eq!(index.undecodable_if_changed(), None, "told once");
    assert_eq!(state(&mut index).guardrails.iter().count(), 1);

    // A list that has it, bad as it is, does not take it away.
    assert!(!index.take(Kind::Guardrail, Change::Restart(vec![bad()])));
    assert_eq!(state(&mut index).guardrails.iter().count(), 1);
    assert!(index.take(Kind::Guardrail, Change::Restart(Vec::new())));
    assert_eq!(state(&mut index).guardrails.iter().count(), 0);
    assert_eq!(index.undecodable_if_changed(), Some(Vec::new()));
}

#[test]
fn one_that_was_never_understood_is_forgotten_when_it_is_gone() {
    let mut index = Index::default();
    assert!(!index.take(
        Kind::Guardrail,
        Change::Apply(Box::new(guardrail("Sometimes")))
    ));
    assert!(!index.undecodable_if_changed().unwrap()[0].earlier_in_force);
    index.take(Kind::Guardrail, Change::Delete(guardrail("Audit").key));
    assert_eq!(index.undecodable_if_changed(), Some(Vec::new()));
}

#[test]
fn a_trial_that_nobody_understands_holds_nobody_but_where_it_is_or_was_a_canary() {
    let staged = |stage: &str, selector: Value| {
        let value = json!({
            "metadata": {"name": "web", "namespace": "shop", "generation": 1},
            "spec": {"stage": stage, "canary": {"percent": 10}, "podSelector": selector},
        });
        Change::Apply(Box::new(item(Kind::StagedNetworkPolicy, value)))
    };
    let bad = json!({"matchLabels": {"app": "no label"}});
    for (before, now, holds_nobody) in [
        (None, "Shadow", true),
        (None, "Canary", false),
        (Some("Shadow"), "Shadow", true),
        (Some("Canary"), "Shadow", false),
    ] {
        let mut index = Index::default();
        if let Some(before) = before {
            assert!(index.take(Kind::StagedNetworkPolicy, staged(before, json!({}))));
        }
        index.take(Kind::StagedNetworkPolicy, staged(now, bad.clone()));
        let told = index.undecodable_if_changed().unwrap();
        assert_eq!(told[0].earlier_in_force, before.is_some(), "{told:?}");
        assert_eq!(told[0].holds_nobody, holds_nobody, "{before:?} {now}");
    }
    // What is no trial is to hold whom it speaks of.
    let mut index = Index::default();
    let value = json!({
        "metadata": {"name": "web", "namespace": "shop"}, "spec": {"podSelector": bad},
    });
    let policy = item(Kind::NetworkPolicy, value);
    index.take(Kind::NetworkPolicy, Change::Apply(Box::new(policy)));
    assert!(!index.undecodable_if_changed().unwrap()[0].holds_nobody);
}

#[test]
fn the_pods_that_rules_speak_of_follow_each_publication() {
    let mut index = Index::default();
    let rule = json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": "ReachabilityRule", "metadata": {"name": "r"},
        "spec": {"expect": "Deny", "from": [{"podSelector": {}}], "to": [{"podSelector": {}}]}
    });
    index.take(
        Kind::ReachabilityRule,
        Change::Apply(Box::new(item(Kind::ReachabilityRule, rule))),
    );
    // The groups are asked for each time, as a request would, so that the next publication has some to follow from.
    let mut grouped = |change| {
        index.take(Kind::Pod, change);
        let state = state(&mut index);
        let made = ReachabilityRules::new(
            state.reachability.iter().cloned().collect(),
            &state.snapshot,
        );
        let labels = |rules: &ReachabilityRules| {
            let groups = rules.groups();
            let mut labels: Vec<String> = groups.map(|group| format!("{group:?}")).collect();
            labels.sort();
            labels
        };
        assert_eq!(labels(&state.reachability), labels(&made));
        labels(&made).len()
    };
    assert_eq!(grouped(Change::Apply(Box::new(pod("a", "web")))), 1);
    assert_eq!(grouped(Change::Apply(Box::new(pod("b", "db")))), 2);
    assert_eq!(grouped(Change::Apply(Box::new(pod("b", "web")))), 1);
    assert_eq!(grouped(Change::Restart(vec![pod("c", "db")])), 1);
    assert_eq!(grouped(Change::Delete(pod("c", "db").key)), 0);
}

#[test]
fn receipts_are_kept_without_what_they_name_and_go_with_their_node() {
    let mut index = Index::default();
    let receipt = |read_back: &str, policy: &str| {
        let value = json!({
            "metadata": {"name": "one", "uid": "u"}, "spec": {"node": "one"},
            "status": {"readBack": read_back, "digest": policy, "policies": [{"name": policy}], "newInSomeRelease": true}
        });
        item(Kind::NodeEnforcement, value)
    };
    let mut mattered = |change| index.take(Kind::NodeEnforcement, change);
    let first = "2026-06-01T00:00:00Z";
    assert!(mattered(Change::Restart(vec![receipt(first, "a")])));
    // Another policy is no other word on whether the node enforces.
    assert!(!mattered(Change::Restart(vec![receipt(first, "b")])));
    assert!(mattered(Change::Restart(vec![receipt(
        "2026-06-01T00:01:00Z",
        "b"
    )])));
    let known = |index: &mut Index| {
        let state = state(index);
        let confirmations = state.guardrails.confirmations().unwrap();
        confirmations
            .nodes()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(known(&mut index), ["one"]);
    assert_eq!(index.undecodable_if_changed(), None);
    index.take(Kind::NodeEnforcement, Change::Absent);
    assert!(known(&mut index).is_empty());
}

#[test]
fn how_an_object_stands_is_told_with_its_status_and_once() {
    let told = |mode: &str, generation: i64, word: &str| {
        let value = json!({
            "apiVersion": "ringfence.dev/v1alpha1", "kind": "Guardrail",
            "metadata": {"name": "all", "generation": generation}, "spec": {"mode": mode},
            "status": {"observedGeneration": 1, "conditions": [{
                "type": "Accepted", "status": word, "reason": "R", "message": "m",
                "lastTransitionTime": "2026-01-01T00:00:00Z"
            }]}
        });
        Change::Apply(Box::new(item(Kind::Guardrail, value)))
    };
    let mut index = Index::default();
    // (generation, the status of its condition, whether an earlier version of what is not understood is in force)
    let mut standings = |change: Change| {
        index.take(Kind::Guardrail, change);
        let all = index.undecodable_if_changed().map(|_| ());
        let standings = index.standings_if_changed();
        assert!(all.is_none() || standings.is_some());
        standings.map(|all| {
            let of = |standing: Standing| {
                let problem = standing.problem.map(|problem| problem.earlier_in_force);
                let words = standing.told.status.conditions.into_iter();
                let words: Vec<String> = words.map(|condition| condition.status).collect();
                (standing.told.generation, words.concat(), problem)
            };
            all.into_iter().map(of).collect::<Vec<_>>()
        })
    };
    let stands =
        |generation, word: &str, problem| Some(vec![(Some(generation), word.to_owned(), problem)]);
    assert_eq!(standings(told("Audit", 1, "")), stands(1, "", None));
    assert_eq!(standings(told("Audit", 1, "")), None);
    // Only what is said of it is another.
    assert_eq!(standings(told("Audit", 1, "True")), stands(1, "True", None));
    let bad = standings(told("Sometimes", 2, "True"));
    assert_eq!(bad, stands(2, "True", Some(true)));
    assert_eq!(
        standings(told("Warn", 3, "False")),
        stands(3, "False", None)
    );
    assert_eq!(standings(Change::Restart(Vec::new())), Some(Vec::new()));
}
