//! Default-deny coverage: is a workload isolated, and would a change of a policy leave one uncovered.
//!
//! Coverage is a matter of what the policies select and isolate together, never of their names.

use serde_json::{Value, json};

use crate::guard::baseline::plan;
use crate::guard::decide::{Context, Cut};
use crate::guard::finding::{Finding, Fix};
use crate::guard::guardrail::{ClusterNetworkPolicies, CoverageScope, CoverageSection, Guardrails};
use crate::guard::mutate::gate;
use crate::guard::registry;
use crate::guard::review::{Operation, Review, Subject};
use crate::netpol::{
    Direction, FieldPath, NamespaceName, NamespaceState, NetworkPolicy, Object, Pod, Snapshot,
};

mod wide;

pub(super) use wide::last_wide_cover;

/// How many workloads a message names before it only counts.
const NAMED: usize = 3;

/// A workload in a namespace without default-deny.
///
/// A template counts as covered by the baseline that the controller will make: its pods are judged when they come. So does a
/// pod with the scheduling gate for it, which does not run before.
pub(super) fn workload(
    review: &Review,
    subject: &Subject,
    section: &CoverageSection,
    context: &Context<'_>,
    snapshot: &Snapshot,
) -> Option<Finding> {
    let Some(Object::Pod(pod) | Object::Workload(pod)) = subject.model() else {
        return None;
    };
    let namespace = &pod.workload.namespace;
    let field = match section.scope {
        CoverageScope::Namespace => FieldPath::of(["metadata", "namespace"]),
        CoverageScope::Workload => FieldPath::of(pod.workload.kind.pod_at().iter().copied())
            .key("metadata")
            .key("labels"),
    };
    let covered = match section.scope {
        CoverageScope::Namespace => of_namespace(section, snapshot, namespace),
        CoverageScope::Workload => of_pod(section, snapshot, pod),
    };
    let missing: Vec<Direction> = section
        .directions
        .iter()
        .copied()
        .filter(|direction| !covered.contains(direction))
        .collect();
    if missing.is_empty() {
        return None;
    }
    // As it is before the change: the pod itself is none that runs there already.
    let to_come = plan::to_come(namespace, context.snapshot, context.guardrails);
    let waits = missing.iter().all(|way| to_come.contains(way));
    if waits && (pod.is_template() || gate::is_gated(subject)) {
        return None;
    }
    let directions = in_words(&missing);
    let mut message = match section.scope {
        CoverageScope::Namespace => {
            format!("namespace `{namespace}` has no default-deny for {directions}")
        }
        CoverageScope::Workload => {
            format!("no policy of namespace `{namespace}` isolates these pods for {directions}")
        }
    };
    message.push_str(&passing(section, snapshot, pod, &missing));
    let fix = if waits {
        Fix::words(format!(
            "try again: the baseline policy of namespace `{namespace}` is being made"
        ))
    } else {
        Fix {
            summary: format!(
                "apply a default-deny NetworkPolicy in namespace `{namespace}` before it, or together with it"
            ),
            patch: None,
            manifest: Some(default_deny(context.snapshot, namespace, &missing)),
        }
    };
    Some(Finding::of(
        &registry::UNCOVERED,
        review.object_ref(),
        field,
        message,
        Some(fix),
    ))
}

/// Why a policy that whoever looks at the namespace sees does not count there.
fn passing(
    section: &CoverageSection,
    snapshot: &Snapshot,
    pod: &Pod,
    missing: &[Direction],
) -> String {
    let selects = |policy: &NetworkPolicy| match section.scope {
        CoverageScope::Namespace => policy.selector.is_everything(),
        CoverageScope::Workload => policy.selector.matches(&pod.labels),
    };
    let Some(state) = snapshot.namespace(pod.namespace()) else {
        return String::new();
    };
    let why = |policy: &NetworkPolicy| {
        if policy.terminating {
            Some("it is being deleted")
        } else {
            let gives_way = state.gives_way(policy);
            gives_way.then_some("a canary is in force in its place")
        }
    };
    let isolates = |policy: &&NetworkPolicy| {
        missing.iter().any(|way| policy.isolates(*way)) && selects(policy)
    };
    let found = state.policies().filter(isolates);
    let mut found = found.filter_map(|policy| Some((&policy.name, why(policy)?)));
    found.next().map_or_else(String::new, |(name, why)| {
        format!("; `{name}` does not count, since {why}")
    })
}

/// Whether a finding of a pod goes away by itself once the controller has made the baseline of its namespace, so that it is
/// worth to look again before it is refused.
pub fn awaits_baseline(
    finding: &Finding,
    review: &Review,
    snapshot: &Snapshot,
    guardrails: &Guardrails,
) -> bool {
    let Some(Object::Pod(pod)) = review.object.as_ref().and_then(Subject::model) else {
        return false;
    };
    if finding.id.as_str() != registry::UNCOVERED.id {
        return false;
    }
    let namespace = pod.namespace();
    let to_come = plan::to_come(namespace, snapshot, guardrails);
    let labels = snapshot.namespace_labels(namespace);
    let mut sections = guardrails
        .selecting(&labels)
        .filter_map(|guardrail| guardrail.spec.coverage.as_ref());
    !to_come.is_empty()
        && sections.all(|section| {
            let covered = match section.scope {
                CoverageScope::Namespace => of_namespace(section, snapshot, namespace),
                CoverageScope::Workload => of_pod(section, snapshot, pod),
            };
            let mut asked = section.directions.iter();
            asked.all(|way| covered.contains(way) || to_come.contains(way))
        })
}

/// The directions in which every pod of a namespace is covered.
pub(super) fn of_namespace(
    section: &CoverageSection,
    snapshot: &Snapshot,
    namespace: &NamespaceName,
) -> Vec<Direction> {
    let coverage = snapshot.namespace_coverage(namespace);
    let counts = section.cluster_network_policies == ClusterNetworkPolicies::Enforced;
    let baseline = |direction| {
        snapshot
            .baseline_of_namespace(namespace, direction)
            .is_some()
    };
    let is_covered = |way: &Direction| coverage.covered(*way) || counts && baseline(*way);
    Direction::BOTH.into_iter().filter(is_covered).collect()
}

/// The directions in which a pod is covered.
pub(super) fn of_pod(section: &CoverageSection, snapshot: &Snapshot, pod: &Pod) -> Vec<Direction> {
    let coverage = snapshot.pod_coverage(pod);
    let counts = section.cluster_network_policies == ClusterNetworkPolicies::Enforced;
    let baseline = |direction| snapshot.baseline_of_pod(pod, direction).is_some();
    let is_covered = |way: &Direction| coverage.covered(*way) || counts && baseline(*way);
    Direction::BOTH.into_iter().filter(is_covered).collect()
}

/// Whether its pods are on the host network, where no policy holds them.
pub(super) fn out_of_reach(subject: &Subject) -> bool {
    matches!(subject.model(), Some(Object::Pod(pod) | Object::Workload(pod)) if pod.host_network)
}

/// A change of a policy that leaves workloads uncovered which were not so before.
pub(super) fn last_cover(
    review: &Review,
    section: &CoverageSection,
    before: &Snapshot,
    after: &Snapshot,
    pods: usize,
) -> Result<Option<Finding>, Cut> {
    let Some(Object::NetworkPolicy(old)) = review.old_object.as_ref().and_then(Subject::model)
    else {
        return Ok(None);
    };
    let namespace = &old.namespace;
    if before
        .namespace(namespace)
        .is_some_and(NamespaceState::is_terminating)
    {
        return Ok(None);
    }
    let lost_by_namespace: Vec<Direction> = match section.scope {
        CoverageScope::Workload => Vec::new(),
        CoverageScope::Namespace => {
            let was = of_namespace(section, before, namespace);
            let is = of_namespace(section, after, namespace);
            lost(section, &was, &is)
        }
    };
    let mut uncovered: Vec<String> = Vec::new();
    let mut directions = lost_by_namespace.clone();
    let mut any_workload = false;
    for (seen, pod) in before.pods_in(namespace).enumerate() {
        if seen >= pods {
            return Err(Cut::Pods(pods));
        }
        if !pod.is_held() {
            continue;
        }
        any_workload = true;
        if !old.selector.matches(&pod.labels) {
            continue;
        }
        let lost = lost_by_pod(section, before, after, pod);
        if !lost.is_empty() {
            uncovered.push(format!("{} {}", pod.workload.kind, pod.workload.name));
            directions.extend(lost);
        }
    }
    if uncovered.is_empty() && (lost_by_namespace.is_empty() || !any_workload) {
        return Ok(None);
    }
    directions.sort_unstable();
    directions.dedup();
    let act = if review.operation == Operation::Delete {
        "deleting it"
    } else {
        "this change"
    };
    let ways = in_words(&directions);
    let message = if uncovered.is_empty() {
        format!("{act} would leave namespace `{namespace}` without default-deny for {ways}")
    } else {
        format!(
            "{act} would leave {} without isolation for {ways}",
            list(&uncovered)
        )
    };
    let fix = Fix {
        summary: "apply a default-deny NetworkPolicy that takes its place first".to_owned(),
        patch: None,
        manifest: Some(default_deny(before, namespace, &directions)),
    };
    let field = weakened_field(old, review.object.as_ref());
    Ok(Some(Finding::of(
        &registry::LAST_COVER,
        review.object_ref(),
        field,
        message,
        Some(fix),
    )))
}

/// Another set of labels of a pod or template, by which the policies that isolate it select it no longer.
pub(super) fn last_cover_of_labels(
    review: &Review,
    section: &CoverageSection,
    before: &Snapshot,
    after: &Snapshot,
) -> Option<Finding> {
    let model = |subject: &Option<Subject>| match subject.as_ref().and_then(Subject::model) {
        Some(Object::Pod(pod) | Object::Workload(pod)) => Some(pod.clone()),
        _ => None,
    };
    let (old, new) = (model(&review.old_object)?, model(&review.object)?);
    if review.operation != Operation::Update || old.labels == new.labels || !new.is_held() {
        return None;
    }
    let ways = lost(
        section,
        &of_pod(section, before, &old),
        &of_pod(section, after, &new),
    );
    if ways.is_empty() {
        return None;
    }
    let words = in_words(&ways);
    let message = format!("with these labels no policy isolates the pods any more for {words}");
    let fix = Fix {
        summary: "apply a policy that selects the new labels first, or a default-deny for all pods"
            .to_owned(),
        patch: None,
        manifest: Some(default_deny(before, new.namespace(), &ways)),
    };
    let field = FieldPath::of(new.workload.kind.pod_at().iter().copied());
    let field = field.key("metadata").key("labels");
    let object = review.object_ref();
    Some(Finding::of(
        &registry::LAST_COVER,
        object,
        field,
        message,
        Some(fix),
    ))
}

pub(super) fn lost_by_pod(
    section: &CoverageSection,
    before: &Snapshot,
    after: &Snapshot,
    pod: &Pod,
) -> Vec<Direction> {
    let was = of_pod(section, before, pod);
    lost(section, &was, &of_pod(section, after, pod))
}

/// The directions that are asked for and were covered and are not any more.
pub(super) fn lost(
    section: &CoverageSection,
    was: &[Direction],
    is: &[Direction],
) -> Vec<Direction> {
    let asked = section.directions.iter().copied();
    asked
        .filter(|way| was.contains(way) && !is.contains(way))
        .collect()
}

/// The field whose change took the cover away; the whole object where it is deleted.
fn weakened_field(old: &NetworkPolicy, new: Option<&Subject>) -> FieldPath {
    match new.and_then(Subject::model) {
        Some(Object::NetworkPolicy(new)) if new.selector == old.selector => {
            FieldPath::of(["spec", "policyTypes"])
        }
        Some(Object::NetworkPolicy(_)) => FieldPath::of(["spec", "podSelector"]),
        _ => FieldPath::root(),
    }
}

/// The policy that denies everything in these directions: to apply, and to show what was meant.
///
/// Its name says the direction where it is one, and is none that another policy of the namespace has in the cluster as it is
/// before it is applied: in that one's place it would take away what that isolates.
pub fn default_deny(
    snapshot: &Snapshot,
    namespace: &NamespaceName,
    directions: &[Direction],
) -> Value {
    let wanted = match directions {
        [one] => format!("default-deny-{one}"),
        _ => "default-deny".to_owned(),
    };
    let name = snapshot.free_policy_name(namespace, &wanted);
    let types: Vec<&str> = directions
        .iter()
        .map(|direction| direction.policy_type())
        .collect();
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"podSelector": {}, "policyTypes": types}
    })
}

pub(super) fn in_words(directions: &[Direction]) -> String {
    let words: Vec<String> = directions.iter().map(ToString::to_string).collect();
    words.join(" and ")
}

pub(super) fn list(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(NAMED).map(String::as_str).collect();
    match names.len().checked_sub(NAMED) {
        None | Some(0) => shown.join(", "),
        Some(more) => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests;
