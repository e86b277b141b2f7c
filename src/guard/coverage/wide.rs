//! A change of a ClusterNetworkPolicy, or of the labels by which one selects a namespace, that takes away a Baseline cover.
//!
//! It is asked only under a Guardrail that says that these policies are enforced. The namespaces that the old policy
//! could rule are looked at one by one, and their pods, until the budget is spent.

use super::{in_words, list, lost, lost_by_pod, of_namespace};
use crate::guard::decide::Cut;
use crate::guard::finding::{Finding, Fix};
use crate::guard::guardrail::{ClusterNetworkPolicies, CoverageScope, CoverageSection, Guardrail};
use crate::guard::registry;
use crate::guard::review::{Operation, Review, Subject};
use crate::netpol::snapshot::NamespaceState;
use crate::netpol::{Direction, FieldPath, Object, Snapshot};

/// The workloads or namespaces that a change leaves uncovered which were not so before.
pub(in crate::guard) fn last_wide_cover(
    review: &Review,
    guardrail: &Guardrail,
    section: &CoverageSection,
    before: &Snapshot,
    after: &Snapshot,
    pods: usize,
) -> Result<Option<Finding>, Cut> {
    if section.cluster_network_policies == ClusterNetworkPolicies::Ignored {
        return Ok(None);
    }
    let old = review.old_object.as_ref().and_then(Subject::model);
    let new = review.object.as_ref().and_then(Subject::model);
    // A new policy can take cover away as well: by an Accept before the deny.
    let concerned: Vec<&NamespaceState> = match (old, new) {
        (Some(Object::ClusterNetworkPolicy(policy)), new) => {
            let new = match new {
                Some(Object::ClusterNetworkPolicy(new)) => Some(new),
                _ => None,
            };
            let may_rule = |state: &&NamespaceState| {
                let labels = state.labels();
                policy.may_rule(labels) || new.is_some_and(|new| new.may_rule(labels))
            };
            before.namespaces().filter(may_rule).collect()
        }
        (None, Some(Object::ClusterNetworkPolicy(policy))) => before
            .namespaces()
            .filter(|state| policy.may_rule(state.labels()))
            .collect(),
        (Some(Object::Namespace(namespace)), Some(_)) => {
            before.namespace(&namespace.name).into_iter().collect()
        }
        _ => return Ok(None),
    };
    let (mut uncovered, mut directions) = (Vec::new(), Vec::new());
    let mut seen = 0_usize;
    for state in concerned {
        if state.is_terminating() || !guardrail.selects(state.labels()) {
            continue;
        }
        let mut ways: Vec<Direction> = Vec::new();
        let of_all = match section.scope {
            CoverageScope::Workload => Vec::new(),
            CoverageScope::Namespace => {
                let old = of_namespace(section, before, state.name());
                lost(section, &old, &of_namespace(section, after, state.name()))
            }
        };
        let mut has_pods = false;
        for pod in state.pods().filter(|pod| pod.is_held()) {
            seen = seen.saturating_add(1);
            if seen > pods {
                return Err(Cut::Pods(pods));
            }
            has_pods = true;
            ways.extend(lost_by_pod(section, before, after, pod));
        }
        if has_pods {
            ways.extend(of_all);
        }
        if !ways.is_empty() {
            uncovered.push(format!("namespace `{}`", state.name()));
            directions.extend(ways);
        }
    }
    if uncovered.is_empty() {
        return Ok(None);
    }
    directions.sort_unstable();
    directions.dedup();
    let act = if review.operation == Operation::Delete {
        "deleting it"
    } else {
        "this change"
    };
    let message = format!(
        "{act} would leave pods of {} without default-deny for {}",
        list(&uncovered),
        in_words(&directions)
    );
    let fix = Fix::words(
        "apply what denies the rest in its place first: another policy of the Baseline tier, or a default-deny NetworkPolicy \
         in each namespace",
    );
    Ok(Some(Finding::of(
        &registry::LAST_COVER,
        review.object_ref(),
        FieldPath::root(),
        message,
        Some(fix),
    )))
}
