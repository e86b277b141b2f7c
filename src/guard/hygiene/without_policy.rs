//! Pods that no policy isolates in a direction that the section `coverage` does not ask for: what it asks for it finds itself.

use super::level;
use crate::guard::coverage;
use crate::guard::engine::Level;
use crate::guard::finding::{Finding, Fix};
use crate::guard::guardrail::{ClusterNetworkPolicies, Guardrail};
use crate::guard::registry;
use crate::guard::review::Review;
use crate::netpol::snapshot::NamespaceState;
use crate::netpol::{Direction, FieldPath, Pod, Snapshot};

/// The directions in which nothing isolates some pods, a finding each.
pub(super) fn pods(
    review: &Review,
    pod: &Pod,
    guardrail: &Guardrail,
    snapshot: &Snapshot,
) -> Vec<(Level, Finding)> {
    let namespace = pod.namespace();
    // The policies of a namespace that was not read may be elsewhere.
    let is_known = snapshot
        .namespace(namespace)
        .is_some_and(|state| state.object().is_some() && !NamespaceState::is_terminating(state));
    // Whoever made the pods answers for them.
    let is_owned = pod
        .owner
        .as_ref()
        .is_some_and(|owner| snapshot.pod(owner).is_some());
    if !is_known || is_owned || !pod.is_held() {
        return Vec::new();
    }
    let section = guardrail.spec.coverage.as_ref();
    let covered = snapshot.pod_coverage(pod);
    let is_asked =
        |way: &Direction| section.is_some_and(|section| section.directions.contains(way));
    let is_open = |way: &Direction| {
        let is_ruled = section.is_some_and(|section| {
            section.cluster_network_policies == ClusterNetworkPolicies::Enforced
        }) && is_ruled(pod, *way, snapshot);
        !covered.covered(*way) && !is_ruled
    };
    let labels = FieldPath::of(pod.workload.kind.pod_at().iter().copied())
        .key("metadata")
        .key("labels");
    let ways = Direction::BOTH.into_iter();
    let ways = ways.filter(|way| !is_asked(way)).filter(is_open);
    let found = ways.map(|way| {
        let open = match way {
            Direction::Ingress => "whatever can reach the cluster's pods reaches them",
            Direction::Egress => "they reach whatever lets them in, and the world",
        };
        let message = format!("no policy isolates these pods for {way}: {open}");
        let fix = Fix {
            summary: format!("apply a policy that isolates them, such as a default-deny for {way}"),
            patch: None,
            manifest: Some(coverage::default_deny(snapshot, namespace, &[way])),
        };
        let check = &registry::WITHOUT_POLICY;
        let finding = Finding::of(
            check,
            review.object_ref(),
            labels.clone(),
            message,
            Some(fix),
        );
        (level(review), finding)
    });
    found.collect()
}

/// Whether a cluster network policy says anything of the flows of a pod in a direction.
fn is_ruled(pod: &Pod, direction: Direction, snapshot: &Snapshot) -> bool {
    let labels = snapshot.namespace_labels(pod.namespace());
    snapshot
        .cluster_policies()
        .any(|policy| !policy.rules(direction).is_empty() && policy.rules_pod(pod, &labels))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::guard::guardrail::{CoverageSection, GuardrailSpec, HygieneSection};
    use crate::guard::mode::Mode;
    use crate::guard::review::Origin;
    use crate::guard::testing::{Cluster, create, deployment, ids, namespace, policy};
    use crate::netpol::Direction;

    fn asking_for(directions: &[Direction]) -> GuardrailSpec {
        GuardrailSpec {
            mode: Mode::Enforce,
            coverage: Some(CoverageSection {
                directions: directions.iter().copied().collect(),
                ..CoverageSection::default()
            }),
            hygiene: Some(HygieneSection {
                mode: Some(Mode::Enforce),
                ..HygieneSection::default()
            }),
            ..GuardrailSpec::default()
        }
    }

    fn web() -> Value {
        deployment("web", &json!({"app": "web"}))
    }

    #[test]
    fn each_direction_is_found_once_by_coverage_or_here() {
        let there = [namespace("shop"), web()];
        let found = |directions: &[Direction]| {
            let decision = Cluster::under(&asking_for(directions), &there).check(&web());
            let ids = ids(&decision).into_iter().map(str::to_owned);
            ids.collect::<Vec<String>>()
        };
        assert_eq!(found(&[]), ["RF614", "RF614"]);
        assert_eq!(found(&[Direction::Ingress]), ["RF201", "RF614"]);
        assert_eq!(found(&Direction::BOTH), ["RF201"]);
    }

    #[test]
    fn any_policy_that_isolates_the_pods_is_one() {
        let only = |types: &Value| {
            let select = json!({"matchLabels": {"app": "web"}});
            policy("p", &json!({"podSelector": select, "policyTypes": types}))
        };
        let found = |types: &Value| {
            let there = [namespace("shop"), web(), only(types)];
            let decision = Cluster::under(&asking_for(&[]), &there).check(&web());
            let messages = decision
                .judged
                .iter()
                .map(|one| one.finding.message.clone());
            messages.collect::<Vec<String>>()
        };
        assert_eq!(found(&json!(["Ingress", "Egress"])), Vec::<String>::new());
        assert_eq!(
            found(&json!(["Ingress"])),
            [
                "no policy isolates these pods for egress: they reach whatever lets them in, and the world"
            ]
        );
        // The policies of a namespace that was not read may be elsewhere.
        let unread = Cluster::under(&asking_for(&[]), &[web()]);
        assert_eq!(ids(&unread.check(&web())), Vec::<&str>::new());
    }

    #[test]
    fn a_webhook_warns_of_it() {
        let cluster = Cluster::under(&asking_for(&[]), &[namespace("shop")]);
        let mut review = create(&web());
        review.origin = Origin::Admission;
        let decision = cluster.judge(&review);
        assert_eq!(ids(&decision), ["RF614", "RF614"]);
        assert!(decision.allowed());
    }
}
