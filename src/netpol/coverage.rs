//! Coverage: which policies isolate a pod, or all pods of a namespace, in each direction.
//!
//! A pod is covered in a direction when at least one policy isolates it there. Names of policies do not matter,
//! and neither does what the policies allow. A policy on trial never covers, also where it is in force: it may be gone
//! tomorrow. One in whose place another is tried covers whom that isolates as well. Where something enforces them, cluster network policies of the Baseline tier can do the same: `coverage/baseline.rs`.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::name::{NamespaceName, PolicyRef};
use super::pod::Pod;
use super::policy::NetworkPolicy;
use super::snapshot::Snapshot;
use super::staged::Choice;

mod baseline;

/// The two directions, as a pod sees them.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Direction {
    /// Flows to the pod.
    Ingress,
    /// Flows from the pod.
    Egress,
}

/// The policies that isolate, by direction and in the order of their names; none means not covered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// Those that isolate for ingress.
    pub ingress: Vec<PolicyRef>,
    /// Those that isolate for egress.
    pub egress: Vec<PolicyRef>,
}

impl Snapshot {
    /// The policies that isolate a pod, which need not be part of the snapshot.
    ///
    /// A pod on the host network or one that has finished is isolated by nothing, whatever selects its labels.
    pub fn pod_coverage(&self, pod: &Pod) -> Coverage {
        if !pod.is_held() {
            return Coverage::default();
        }
        self.coverage_by(
            pod.namespace(),
            |policy| policy.selector.matches(&pod.labels),
            |choice| match choice {
                // The pods of a template have no names yet, by which some of them may be chosen.
                Choice::Percent(_) => pod.is_template() || choice.chooses(pod),
                Choice::Pods(_) => choice.chooses(pod),
            },
        )
    }

    /// The policies that isolate every pod of a namespace, those to come as well: the ones that select all.
    pub fn namespace_coverage(&self, namespace: &NamespaceName) -> Coverage {
        self.coverage_by(
            namespace,
            |policy| policy.selector.is_everything(),
            |_| true,
        )
    }

    fn coverage_by(
        &self,
        namespace: &NamespaceName,
        selects: impl Fn(&NetworkPolicy) -> bool,
        may_choose: impl Fn(&Choice) -> bool,
    ) -> Coverage {
        let mut coverage = Coverage::default();
        let Some(state) = self.namespace(namespace) else {
            return coverage;
        };
        let isolates =
            |policy: &NetworkPolicy, direction| policy.isolates(direction) && selects(policy);
        for policy in state.effective_policies() {
            let tried = state.tried_in_place_of(policy);
            let tried = tried.filter(|(choice, _)| may_choose(choice));
            for direction in Direction::BOTH {
                if isolates(policy, direction)
                    && tried.is_none_or(|(_, other)| isolates(other, direction))
                {
                    coverage.list_mut(direction).push(policy.reference());
                }
            }
        }
        coverage
    }
}

impl Coverage {
    /// The policies that isolate in a direction.
    pub fn by(&self, direction: Direction) -> &[PolicyRef] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    /// Whether anything isolates in a direction.
    pub fn covered(&self, direction: Direction) -> bool {
        !self.by(direction).is_empty()
    }

    /// The directions in which nothing isolates.
    pub fn missing(&self) -> Vec<Direction> {
        Direction::BOTH
            .into_iter()
            .filter(|direction| !self.covered(*direction))
            .collect()
    }

    fn list_mut(&mut self, direction: Direction) -> &mut Vec<PolicyRef> {
        match direction {
            Direction::Ingress => &mut self.ingress,
            Direction::Egress => &mut self.egress,
        }
    }
}

impl Direction {
    /// Both of them.
    pub const BOTH: [Direction; 2] = [Direction::Ingress, Direction::Egress];

    /// The field of a policy's spec that holds the rules of this direction.
    pub fn field(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    /// Its name among `policyTypes`.
    pub fn policy_type(self) -> &'static str {
        match self {
            Self::Ingress => "Ingress",
            Self::Egress => "Egress",
        }
    }
}

impl fmt::Display for Direction {
    /// In lower case, as it stands in sentences.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.field())
    }
}
