//! What is to be done so that every namespace has its baseline policies: data for the controller, the audit and for
//! decisions about workloads that come before them.
//!
//! How data passes through: [`of_namespace`] looks at one namespace of a [`Snapshot`], [`plan`] at all of them. What is
//! ours is known by name and labels, or by name in a namespace that is known to have been given its baseline (`kept`), unless
//! a GitOps tool keeps it by now; nothing else is ever touched. Planning after applying plans nothing.

use std::collections::BTreeSet;

use super::MANAGED_BY;
use super::wanted::{NAME, PART_OF, Wanted, wanted};
use crate::guard::gitops;
use crate::guard::guardrail::{Baselines, Existing, Guardrail, Guardrails, Section};
use crate::guard::mode::Mode;
use crate::netpol::snapshot::NamespaceState;
use crate::netpol::{
    Direction, Labels, NamespaceName, NetworkPolicy, Object, ObjectKey, Peers, Phase, Pod,
    PolicyName, Ports, Rule, Snapshot,
};

/// What is to be done in one namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The namespace.
    pub namespace: NamespaceName,
    /// How it stands with the baseline.
    pub standing: Standing,
    /// What is to be written, in this order.
    pub steps: Vec<Step>,
}

/// How a namespace stands with its baseline.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    /// It has it, or will once the steps are done.
    Kept,
    /// Other policies do all that it would do, and it is left away.
    Adopted,
    /// It does not have it, and these policies would be made.
    Held(Hold, Vec<Wanted>),
    /// No guardrail wants it any more.
    Leaving,
}

/// Why a namespace is not given its baseline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The section is in a milder mode than `Enforce`, and nothing is written.
    Mode(Mode),
    /// Pods run there, and the namespace was not promoted.
    RunningPods,
    /// A policy of that name is there that is not ours.
    NameTaken(PolicyName),
    /// Nobody wants ours any more, and pods would be left without isolation if it went.
    LastCover,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A policy is applied: it is missing, or differs from what is wanted.
    Apply {
        /// The policy.
        wanted: Wanted,
        /// Whether it was there before, or the namespace had it: somebody edited or deleted it.
        repair: bool,
    },
    /// A policy of ours is deleted.
    Remove(PolicyName),
}

impl Plan {
    /// The policies that a namespace is about to be given for the first time.
    pub fn to_make(&self) -> impl Iterator<Item = &Wanted> {
        self.steps.iter().filter_map(|step| match step {
            Step::Apply {
                wanted,
                repair: false,
            } => Some(wanted),
            Step::Apply { .. } | Step::Remove(_) => None,
        })
    }
}

/// What is to be done in all namespaces, those where there is nothing to tell left out. `kept` are the namespaces that are
/// known to have been given their baseline.
pub fn plan(
    snapshot: &Snapshot,
    guardrails: &Guardrails,
    kept: &BTreeSet<NamespaceName>,
) -> Vec<Plan> {
    let namespaces = snapshot.namespaces();
    namespaces
        .filter_map(|state| of_namespace(state, snapshot, guardrails, kept.contains(state.name())))
        .collect()
}

/// What is to be done in one namespace; `None` where no guardrail has a baseline for it, and nothing of ours is there or was.
pub fn of_namespace(
    state: &NamespaceState,
    snapshot: &Snapshot,
    guardrails: &Guardrails,
    kept: bool,
) -> Option<Plan> {
    // A namespace that goes, or of which only the contents are known, is not written into.
    if state.is_terminating() || state.object().is_none() {
        return None;
    }
    let ours: Vec<&NetworkPolicy> = state
        .policies()
        .filter(|policy| is_ours(policy, kept))
        .collect();
    let sections: Vec<&Guardrail> = guardrails
        .selecting(state.labels())
        .filter(|guardrail| guardrail.spec.baseline.is_some())
        .collect();
    let enforcing: Vec<&Guardrail> = sections
        .iter()
        .copied()
        .filter(|guardrail| guardrail.mode_of(Section::Baseline) == Some(Mode::Enforce))
        .collect();
    let plan = |standing, steps| {
        Some(Plan {
            namespace: state.name().clone(),
            standing,
            steps,
        })
    };
    if enforcing.is_empty() {
        let mode = sections
            .iter()
            .filter_map(|guardrail| guardrail.mode_of(Section::Baseline));
        return match (mode.max(), ours.is_empty()) {
            // Whoever has its policies now: once it is asked for again, pods may run there.
            (None, true) if kept => plan(Standing::Leaving, Vec::new()),
            (None, true) => None,
            (None, false) => {
                let (standing, steps) = leave(state, snapshot, &ours);
                plan(standing, steps)
            }
            (Some(_), false) => plan(Standing::Kept, Vec::new()),
            (Some(mode), true) => {
                let wanted = wanted(state.name(), &sections);
                if wanted.is_empty() || covered_by_others(state, &wanted) {
                    return None;
                }
                plan(Standing::Held(Hold::Mode(mode), wanted), Vec::new())
            }
        };
    }
    let wanted = wanted(state.name(), &enforcing);
    if wanted.is_empty() && ours.is_empty() {
        return None;
    }
    let known = kept || !ours.is_empty();
    if ours.is_empty() && covered_by_others(state, &wanted) {
        return plan(Standing::Adopted, Vec::new());
    }
    let taken = |name: &PolicyName| {
        let mut policies = state.policies();
        policies.any(|policy| policy.name == *name && !ours.contains(&policy))
    };
    if let Some(taken) = wanted.iter().find(|wanted| taken(&wanted.policy.name)) {
        let hold = Hold::NameTaken(taken.policy.name.clone());
        return plan(Standing::Held(hold, wanted), Vec::new());
    }
    if !known && has_running_pods(state) && !is_promoted(state.name(), &enforcing) {
        return plan(Standing::Held(Hold::RunningPods, wanted), Vec::new());
    }
    let mut steps: Vec<Step> = Vec::new();
    let mut after = snapshot.clone();
    for wanted in &wanted {
        let there = ours.iter().find(|policy| policy.name == wanted.policy.name);
        if there.is_some_and(|there| is_same(there, &wanted.policy)) {
            continue;
        }
        after.insert(Object::NetworkPolicy(wanted.policy.clone()));
        steps.push(Step::Apply {
            wanted: wanted.clone(),
            repair: known,
        });
    }
    for policy in &ours {
        let is_wanted = wanted
            .iter()
            .any(|wanted| wanted.policy.name == policy.name);
        let without = after.without(&ObjectKey::NetworkPolicy(policy.reference()));
        if !is_wanted && !uncovers(state, &after, &without) {
            after = without;
            steps.push(Step::Remove(policy.name.clone()));
        }
    }
    plan(Standing::Kept, steps)
}

/// The directions in which the baseline will isolate every pod of a namespace once the controller has made it; none where
/// it will not, or where there is no controller. A namespace that is not known yet is new.
pub fn to_come(
    namespace: &NamespaceName,
    snapshot: &Snapshot,
    guardrails: &Guardrails,
) -> BTreeSet<Direction> {
    if guardrails.baselines() == Baselines::NotKept {
        return BTreeSet::new();
    }
    let labels = snapshot.namespace_labels(namespace);
    let enforcing: Vec<&Guardrail> = guardrails
        .selecting(&labels)
        .filter(|guardrail| guardrail.mode_of(Section::Baseline) == Some(Mode::Enforce))
        .collect();
    if enforcing.is_empty() {
        return BTreeSet::new();
    }
    if let Some(state) = snapshot.namespace(namespace) {
        let mut policies = state.policies().filter(|policy| is_named(&policy.name));
        let (is_ours, is_taken) = match policies.next() {
            Some(policy) => (is_ours(policy, false), !is_ours(policy, false)),
            None => (false, false),
        };
        let is_left = !is_ours && has_running_pods(state) && !is_promoted(namespace, &enforcing);
        if state.is_terminating() || is_taken || is_left {
            return BTreeSet::new();
        }
    }
    let sections = enforcing
        .iter()
        .filter_map(|guardrail| guardrail.spec.baseline.as_ref());
    sections
        .flat_map(|section| section.default_deny.iter().copied())
        .collect()
}

/// All of ours go together or none does: a default-deny that stays without its allows would cut DNS.
fn leave(
    state: &NamespaceState,
    snapshot: &Snapshot,
    ours: &[&NetworkPolicy],
) -> (Standing, Vec<Step>) {
    let mut after = snapshot.clone();
    for policy in ours {
        after.remove(&ObjectKey::NetworkPolicy(policy.reference()));
    }
    if uncovers(state, snapshot, &after) {
        return (Standing::Held(Hold::LastCover, Vec::new()), Vec::new());
    }
    let steps = ours.iter().map(|policy| Step::Remove(policy.name.clone()));
    (Standing::Leaving, steps.collect())
}

/// Whether a pod of the namespace is isolated in a direction before and not after.
fn uncovers(state: &NamespaceState, before: &Snapshot, after: &Snapshot) -> bool {
    let loses = |pod: &Pod| {
        let (old, new) = (before.pod_coverage(pod), after.pod_coverage(pod));
        let mut directions = Direction::BOTH.into_iter();
        directions.any(|way| old.covered(way) && !new.covered(way))
    };
    state.pods().any(loses)
}

/// Whether the policies of a namespace in which none is ours isolate all that ours would, and allow all that ours would.
fn covered_by_others(state: &NamespaceState, wanted: &[Wanted]) -> bool {
    let others = state.effective_policies();
    let others: Vec<&NetworkPolicy> = others.filter(|policy| !state.gives_way(policy)).collect();
    wanted.iter().all(|Wanted { policy, .. }| {
        Direction::BOTH.into_iter().all(|way| {
            let isolating = others.iter().filter(|other| {
                other.isolates(way)
                    && (other.selector.is_everything() || other.selector == policy.selector)
            });
            if !policy.isolates(way) {
                return true;
            }
            let isolated = isolating.clone().next().is_some();
            let mut rules = policy.rules(way).iter();
            isolated
                && rules.all(|rule| {
                    isolating
                        .clone()
                        .any(|other| allows(other.rules(way), rule))
                })
        })
    })
}

/// Whether one of the rules is this one, or allows everything.
fn allows(rules: &[Rule], rule: &Rule) -> bool {
    rules
        .iter()
        .any(|own| own == rule || matches!((&own.peers, &own.ports), (Peers::Any, Ports::Any)))
}

/// Whether a policy is what is wanted: what it means, and the labels by which it is known again.
fn is_same(there: &NetworkPolicy, wanted: &NetworkPolicy) -> bool {
    there.selector == wanted.selector
        && there.isolates == wanted.isolates
        && there.ingress == wanted.ingress
        && there.egress == wanted.egress
        && is_labelled(&there.labels)
}

fn is_named(name: &PolicyName) -> bool {
    let rest = name.as_str().strip_prefix(NAME);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether a policy is one that Ringfence has made and nobody else keeps. Of two that keep one object each would undo what the
/// other writes.
fn is_ours(policy: &NetworkPolicy, kept: bool) -> bool {
    let is_made = is_named(&policy.name) && (kept || is_labelled(&policy.labels));
    is_made && gitops::keeper_of_ours(policy).is_none()
}

fn is_labelled(labels: &Labels) -> bool {
    labels.get(MANAGED_BY) == Some("ringfence") && labels.get(PART_OF) == Some("baseline")
}

/// Whether pods run there that the policies would hold. One that has not started has no connection to be cut.
fn has_running_pods(state: &NamespaceState) -> bool {
    let runs = |pod: &Pod| !pod.is_template() && pod.is_held() && pod.phase != Phase::Pending;
    state.pods().any(runs)
}

fn is_promoted(namespace: &NamespaceName, enforcing: &[&Guardrail]) -> bool {
    enforcing
        .iter()
        .filter_map(|guardrail| guardrail.spec.baseline.as_ref())
        .any(|section| {
            section.existing == Existing::Apply || section.promoted.contains(namespace.as_str())
        })
}

#[cfg(test)]
mod tests;
