//! One flow, step by step: which rules were asked at each end, what each said, and what would let it pass.
//!
//! The steps go through the tiers as the verdict does. A rule of a network policy is asked of [`Snapshot::verdict`] itself, in a
//! cluster where it is the only one; rules of cluster network policies are told by the verdict on its way. So an
//! explanation cannot tell another story than the verdict. What is proposed (`why/change.rs`) is tried out before.

use serde_json::Value;

use crate::netpol::cluster_policy::{Action, Closed, Place, Priority, Tier};
use crate::netpol::coverage::Direction;
use crate::netpol::field::FieldPath;
use crate::netpol::flow::{Endpoint, Flow};
use crate::netpol::name::{ClusterPolicyRef, PolicyRef};
use crate::netpol::net::Family;
use crate::netpol::object::{Object, ObjectKey};
use crate::netpol::pod::Pod;
use crate::netpol::policy::{Isolates, Isolation, NetworkPolicy, Peers, Ports, Rule};
use crate::netpol::snapshot::{NamespaceState, Snapshot};
use crate::netpol::verdict::{
    Asked, ClusterRuleRef, End, EndVerdict, Heard, NotHeld, Verdict, rule_field,
};

mod change;

/// Why a flow passes or does not.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// What the policies say.
    pub verdict: Verdict,
    /// What each rule at the source said.
    pub egress: Vec<Step>,
    /// What each rule at the destination said.
    pub ingress: Vec<Step>,
    /// What would let the flow pass, where policies deny it and one could: all of it, or nothing of it.
    pub changes: Vec<Change>,
}

/// One rule that was asked, and what it says of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The policy.
    pub policy: StepPolicy,
    /// Among which of its rules.
    pub direction: Direction,
    /// Where the rule stands there; none for a policy that isolates and has no rule at all.
    pub index: Option<usize>,
    /// Whether the other end is one of its peers, or may be.
    pub peer: bool,
    /// Whether it is for the port.
    pub port: bool,
    /// What follows from it.
    pub says: Says,
}

/// The policy of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepPolicy {
    /// A NetworkPolicy.
    Network(PolicyRef),
    /// A ClusterNetworkPolicy, or one of a kind that it has replaced.
    Cluster {
        /// Its kind and its name.
        policy: ClusterPolicyRef,
        /// Its tier, and its priority there.
        place: Place,
    },
}

/// What follows from a rule for a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// Nothing: the rule is not for it.
    Nothing,
    /// Nothing, although the rule may be for it: that cannot be known offline, and what is not known never opens.
    NotCounted,
    /// A rule of a NetworkPolicy lets it pass.
    Allows,
    /// A rule of a ClusterNetworkPolicy decides, or passes it on; with the reason where it is not known to match.
    Does(Action, Option<Closed>),
    /// A rule of a ClusterNetworkPolicy would do this, but one of equal priority is stricter.
    Outdone(Action),
}

/// A rule to add so that an end lets a flow pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// At which end.
    pub direction: Direction,
    /// The policy that it belongs to.
    pub policy: PolicyRef,
    /// Whether that policy is yet to be made.
    pub is_new: bool,
    /// Whether it isolates pods that no network policy isolates yet: all else that they need is then denied as well.
    pub isolates: bool,
    /// The rule alone, or the whole of a new policy.
    pub manifest: Value,
}

impl Snapshot {
    /// Why a flow passes or does not, and what would let it.
    pub fn explain(&self, flow: &Flow<'_>) -> Explanation {
        let verdict = self.verdict(flow);
        // The steps are those over the family of addresses that the verdict is about.
        let mut families = Family::BOTH.into_iter().map(|family| flow.over(family));
        let flow = if flow.family.is_some() {
            *flow
        } else {
            let alike = families.find(|flow| self.verdict(flow) == verdict);
            alike.unwrap_or(*flow)
        };
        Explanation {
            egress: self.steps(&flow, verdict.at(Direction::Egress), Direction::Egress),
            ingress: self.steps(&flow, verdict.at(Direction::Ingress), Direction::Ingress),
            changes: self.changes(&flow, &verdict),
            verdict,
        }
    }

    /// The rules that are asked at one end, tier by tier, as far as it goes.
    fn steps(&self, flow: &Flow<'_>, end: &EndVerdict, direction: Direction) -> Vec<Step> {
        let is_own_node = *end == EndVerdict::NotHeld(NotHeld::OwnNode);
        let is_held = !matches!(end, EndVerdict::NotHeld(_) | EndVerdict::NoAddress);
        let (true, Some(pod)) = (is_held || is_own_node, own(flow, direction).selectable()) else {
            return Vec::new();
        };
        let mut steps = Vec::new();
        let decides = self.tier(Tier::Admin, flow, pod, direction, &mut steps);
        if decides {
            return steps;
        }
        let isolating = self.isolating(pod, direction);
        if isolating.is_empty() {
            self.tier(Tier::Baseline, flow, pod, direction, &mut steps);
        } else if !is_own_node {
            steps.extend(self.network_steps(flow, &isolating, direction));
        }
        steps
    }

    /// Adds the steps through one tier; whether it decides.
    fn tier(
        &self,
        tier: Tier,
        flow: &Flow<'_>,
        pod: &Pod,
        direction: Direction,
        steps: &mut Vec<Step>,
    ) -> bool {
        let Some(other) = End::other(flow, direction) else {
            return false;
        };
        let mut asked: Vec<Asked> = Vec::new();
        let mut tell = |one| asked.push(one);
        let ruled = self.ruled(tier, pod, direction, flow, other, &mut tell);
        // Of each priority, the strictest of what was said.
        let strictest = |priority: Priority| {
            let of_priority = asked.iter().filter(|one| one.by.priority == priority);
            let actions = of_priority.filter_map(|one| match one.heard {
                Heard::Matches(action, _) => Some(action),
                Heard::Nothing | Heard::NotCounted => None,
            });
            actions.min()
        };
        for Asked { by, heard } in &asked {
            let rule = self.cluster_policy(&by.policy);
            let rule = rule.and_then(|policy| policy.rules(direction).get(by.index));
            let (peer, port) = rule.map_or((false, false), |rule| self.parts_of(rule, flow, other));
            let says = match *heard {
                Heard::Nothing => Says::Nothing,
                Heard::NotCounted => Says::NotCounted,
                Heard::Matches(action, why) if strictest(by.priority) == Some(action) => {
                    Says::Does(action, why)
                }
                Heard::Matches(action, _) => Says::Outdone(action),
            };
            steps.push(Step {
                policy: StepPolicy::Cluster {
                    policy: by.policy.clone(),
                    place: by.place(),
                },
                direction,
                index: Some(by.index),
                peer,
                port,
                says,
            });
        }
        ruled.is_some()
    }

    fn network_steps(
        &self,
        flow: &Flow<'_>,
        isolating: &[&NetworkPolicy],
        direction: Direction,
    ) -> Vec<Step> {
        let alone = self.without_policies(flow);
        let mut steps = Vec::new();
        for policy in isolating {
            let mut step = |index, peer, port| {
                let allows = peer && port;
                steps.push(Step {
                    policy: StepPolicy::Network(policy.reference()),
                    direction,
                    index,
                    peer,
                    port,
                    says: if allows { Says::Allows } else { Says::Nothing },
                });
            };
            let rules = policy.rules(direction);
            if rules.is_empty() {
                step(None, false, false);
            }
            for (index, rule) in rules.iter().enumerate() {
                let says = |rule: Rule| {
                    let only = alone.with(Object::NetworkPolicy(of_one(policy, direction, rule)));
                    only.verdict(flow).at(direction).passes()
                };
                let peer = says(Rule {
                    peers: rule.peers.clone(),
                    ports: Ports::Any,
                });
                let port = says(Rule {
                    peers: Peers::Any,
                    ports: rule.ports.clone(),
                });
                step(Some(index), peer, port);
            }
        }
        steps
    }

    /// The same cluster without the policies at both ends of a flow.
    fn without_policies(&self, flow: &Flow<'_>) -> Snapshot {
        let mut without = self.clone();
        for policy in self.cluster_policies() {
            without.remove(&ObjectKey::ClusterNetworkPolicy(policy.reference.clone()));
        }
        for pod in [flow.from, flow.to]
            .into_iter()
            .filter_map(Endpoint::selectable)
        {
            let state = self.namespace(pod.namespace()).into_iter();
            for key in state.flat_map(NamespaceState::policy_keys) {
                without.remove(&key);
            }
        }
        without
    }

    fn isolating<'s>(&'s self, pod: &'s Pod, direction: Direction) -> Vec<&'s NetworkPolicy> {
        self.namespace(pod.namespace())
            .into_iter()
            .flat_map(NamespaceState::policies_in_force)
            .filter(|policy| policy.isolates_pod(pod, direction))
            .collect()
    }
}

impl Explanation {
    /// The rules of the Admin tier that deny the flow: no network policy can change that.
    pub fn blocked_by(&self) -> Vec<&ClusterRuleRef> {
        let ends = [&self.verdict.egress, &self.verdict.ingress].into_iter();
        let ruled = ends.filter_map(EndVerdict::ruled);
        let denied = ruled.filter(|ruled| !ruled.accepts && ruled.by.tier == Tier::Admin);
        denied.map(|ruled| &ruled.by).collect()
    }
}

impl Step {
    /// Whether it lets the flow pass.
    pub fn allows(&self) -> bool {
        matches!(self.says, Says::Allows | Says::Does(Action::Accept, _))
    }

    /// Where the rule stands in its policy.
    pub fn field(&self) -> Option<FieldPath> {
        let index = self.index?;
        Some(rule_field(self.direction, index, None))
    }
}

impl std::fmt::Display for StepPolicy {
    /// As in `shop/web`, and for a ClusterNetworkPolicy `deny-all (Admin tier, priority 10)`; the kinds that it has replaced
    /// are named.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Network(policy) => policy.fmt(f),
            Self::Cluster { policy, place } => write!(f, "{} ({place})", policy.short()),
        }
    }
}

/// The end that a direction belongs to.
fn own<'a>(flow: &Flow<'a>, direction: Direction) -> Endpoint<'a> {
    match direction {
        Direction::Ingress => flow.to,
        Direction::Egress => flow.from,
    }
}

fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::Ingress => Direction::Egress,
        Direction::Egress => Direction::Ingress,
    }
}

/// A policy that isolates in one direction and has one rule there.
fn of_one(policy: &NetworkPolicy, direction: Direction, rule: Rule) -> NetworkPolicy {
    let (mut ingress, mut egress) = (Vec::new(), Vec::new());
    let isolates = match direction {
        Direction::Ingress => {
            ingress.push(rule);
            Isolation {
                ingress: Isolates::Yes,
                egress: Isolates::No,
            }
        }
        Direction::Egress => {
            egress.push(rule);
            Isolation {
                ingress: Isolates::No,
                egress: Isolates::Yes,
            }
        }
    };
    NetworkPolicy {
        isolates,
        ingress,
        egress,
        ..policy.clone()
    }
}
