//! Findings of the whole: what is wrong with a policy, or a pod, only when it is seen among all others.
//!
//! A [`Neighbourhood`] is made once of a [`Snapshot`](super::Snapshot): the pods of each namespace, those that selectors cannot tell apart
//! as one. Each file below has one question to it and answers in [`Flaw`]s: a field and what is wrong there.
//! `guard` makes findings of them. Every flaw is exact for the pods that are there; what the snapshot may not know of
//! is never held to be absent: see [`Neighbourhood::of`] on which namespaces are taken to be known whole.

use std::collections::BTreeSet;

use super::cluster_policy::ClusterNetworkPolicy;
use super::coverage::Direction;
use super::field::FieldPath;
use super::name::{PolicyName, PolicyRef};
use super::policy::NetworkPolicy;
use super::port::{Port, Protocol};
use super::selector::Requirement;
use super::snapshot::{NamespaceState, Snapshot};
use super::workload::WorkloadRef;

mod everything;
mod neighbourhood;
mod never;
mod nothing;
mod one_sided;
mod redundant;
mod shadowed;
mod sprawl;
mod vocabulary;
mod wanted;
mod wide;

pub use everything::{Everything, Whole};
pub use neighbourhood::{Gaps, Neighbourhood, SYSTEM, looks_at};
pub use shadowed::Before;
pub use vocabulary::{Ask, Wild};

/// What is wrong with one field of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// The field.
    pub field: FieldPath,
    /// What is wrong there.
    pub what: What,
}

/// What may be wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The policy selects no pod.
    SelectsNothing(Nothing),
    /// A peer means nobody.
    PeerIsNobody(Nothing),
    /// A part of the policy can match no flow.
    NeverMatches(Never),
    /// A peer is allowed what the policies of the other end do not let pass, none of it.
    OneSided(OneSided),
    /// A rule adds nothing to those of these policies, whatever pods there are.
    RuleAddsNothing(BTreeSet<PolicyName>),
    /// The policy adds nothing to these others, whatever pods there are.
    PolicyAddsNothing(BTreeSet<PolicyName>),
    /// A rule never decides a flow: these take all that it speaks of before it is asked.
    RuleShadowed(BTreeSet<Before>),
    /// Rules open everything, piece by piece.
    OpensEverything(Vec<Everything>),
    /// The policy never decides a flow.
    PolicyShadowed(BTreeSet<Before>),
}

/// Why a selection is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nothing {
    /// Its requirements contradict each other: no object can meet them.
    Contradiction,
    /// The excepted blocks are all of the block.
    Excepted,
    /// Only pods on the host network, which policies neither hold nor see as pods.
    OnHost,
    /// No pod of the namespaces meant has such labels.
    NoPod {
        /// What probably was meant.
        near: Option<Near>,
    },
    /// No namespace has such labels.
    NoNamespace {
        /// What probably was meant.
        near: Option<Near>,
    },
}

/// One requirement of a selector that is nearly met by something that is there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Near {
    /// The requirement as it stands.
    pub asked: Requirement,
    /// The label that is there.
    pub there: (String, String),
}

/// Why a part of a policy can match nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Never {
    /// There are rules of a direction that `policyTypes` does not list.
    NotIsolated(Direction),
    /// No destination has a port of this name and protocol.
    NoSuchPort {
        /// The name.
        name: String,
        /// The protocol of the rule.
        protocol: Protocol,
        /// Another protocol, under which there is a port of the name.
        other_protocol: Option<Protocol>,
        /// A port name that probably was meant.
        near: Option<String>,
    },
    /// A port is called by name, and the peers are addresses that no pod has, which have no port names.
    NameOutside(String),
}

/// An allow of one end, and who denies it at the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneSided {
    /// The direction of the rule that allows.
    pub direction: Direction,
    /// One of the pods that could open a connection by it.
    pub from: WorkloadRef,
    /// To which pod.
    pub to: WorkloadRef,
    /// Over which protocol.
    pub protocol: Protocol,
    /// At which port.
    pub port: Port,
    /// The policies that isolate the other end.
    pub denied_by: Vec<PolicyRef>,
}

impl Neighbourhood<'_> {
    /// What is wrong with a policy of the snapshot, in the order of its fields. Policies of a namespace that is being
    /// deleted are left alone.
    pub fn flaws(&self, policy: &NetworkPolicy) -> Vec<Flaw> {
        let namespace = self.snapshot().namespace(&policy.namespace);
        if namespace.is_some_and(NamespaceState::is_terminating) {
            return Vec::new();
        }
        let mut flaws = never::without_effect(policy);
        if let Some(flaw) = nothing::selected(self, policy) {
            // What selects nothing says nothing about its rules.
            flaws.push(flaw);
            return flaws;
        }
        let redundant = self.redundant(&policy.namespace);
        if let Some(by) = redundant.policies.get(&policy.name) {
            // What adds nothing as a whole says nothing of its rules.
            flaws.push(Flaw {
                field: FieldPath::of(["spec"]),
                what: What::PolicyAddsNothing(by.clone()),
            });
            return flaws;
        }
        if let Some(by) = shadowed::policy(self.snapshot(), policy) {
            flaws.push(Flaw {
                field: FieldPath::of(["spec"]),
                what: What::PolicyShadowed(by),
            });
            return flaws;
        }
        for direction in Direction::BOTH {
            for (index, rule) in policy.rules(direction).iter().enumerate() {
                let at = (policy.name.clone(), direction, index);
                if let Some(by) = redundant.rules.get(&at) {
                    flaws.push(Flaw {
                        field: rule_field(direction, index),
                        what: What::RuleAddsNothing(by.clone()),
                    });
                    continue;
                }
                let nobody = nothing::peers(self, policy, direction, index, rule);
                let is_dead = nothing::all_peers(rule, &nobody);
                flaws.extend(nobody);
                if is_dead {
                    continue;
                }
                if let Some(by) = shadowed::rule(self.snapshot(), policy, direction, rule) {
                    flaws.push(Flaw {
                        field: rule_field(direction, index),
                        what: What::RuleShadowed(by),
                    });
                } else {
                    flaws.extend(never::ports(self, policy, direction, index, rule));
                    flaws.extend(one_sided::peers(self, policy, direction, index, rule));
                }
            }
        }
        flaws.extend(everything::policy(self, policy));
        flaws
    }
}

/// What is wrong with a cluster network policy of a snapshot among the others, in the order of its fields; `near` is all that
/// is there, where that is known.
pub fn cluster_flaws(
    snapshot: &Snapshot,
    near: Option<&Neighbourhood<'_>>,
    policy: &ClusterNetworkPolicy,
) -> Vec<Flaw> {
    if let Some(flaw) = wide::subject(near, policy) {
        return vec![flaw];
    }
    let mut flaws = shadowed::in_cluster_policy(snapshot, policy);
    let is_shadowed = |field: &FieldPath| flaws.iter().any(|flaw| field.starts_with(&flaw.field));
    let nobody = wide::peers(near, policy);
    let nobody: Vec<Flaw> = nobody
        .into_iter()
        .filter(|flaw| !is_shadowed(&flaw.field))
        .collect();
    flaws.extend(nobody);
    flaws.extend(everything::cluster_policy(policy));
    flaws
}

/// The field of a rule.
fn rule_field(direction: Direction, index: usize) -> FieldPath {
    FieldPath::of(["spec", direction.field()]).index(index)
}

/// The field of a rule's list of peers.
fn peers_field(direction: Direction, index: usize) -> FieldPath {
    let list = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    rule_field(direction, index).key(list)
}
