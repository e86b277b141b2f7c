//! The verdict on a flow: whether the policies of both ends let it pass, and which of them say so.
//!
//! Each end goes through the tiers (`verdict/tiers.rs`): the Admin tier of cluster network policies, network policies,
//! and for pods that none of these isolates in the direction, the Baseline tier. What nobody decides, passes.
//!
//! A connection needs the egress of its source and the ingress of its destination. Each of the two ends is judged by
//! itself: a pod that no policy isolates in that direction passes everything; an isolated one passes what at
//! least one rule of at least one of these policies allows. The order of policies never matters.
//! <https://kubernetes.io/docs/concepts/services-networking/network-policies/>
//!
//! **Addresses.** Only `ipBlock` peers look at addresses, and a flow is over IPv4 or over IPv6. A flow is tried over
//! each pair of addresses of one family that its ends have, and is allowed if one pair passes at *both* ends: IPv4
//! at one end and IPv6 at the other do not add up. [`Verdict::addresses`] says which pair it was. An end without a known
//! address (a template, a pod not started) is in a block only where every address of the family is.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use super::cluster_policy::Tier;
use super::coverage::Direction;
use super::field::FieldPath;
use super::flow::{Endpoint, Flow};
use super::name::PolicyRef;
use super::net::Family;
use super::pod::Pod;
use super::policy::{NamespaceScope, NetworkPolicy, Peer, Peers, Ports, Rule};
use super::port::{PortMatch, PortSpec};
use super::snapshot::{NamespaceState, Snapshot};
pub(super) use ends::End;
use ends::{Address, address_pairs, ends};
pub(super) use tiers::{Asked, Heard, Meant};
pub use tiers::{ClusterRuleRef, Ruled};

mod ends;
mod tiers;

/// What policies say about a flow, at each of its ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it may leave its source.
    pub egress: EndVerdict,
    /// Whether it may enter its destination.
    pub ingress: EndVerdict,
    /// The addresses of source and destination that it was judged by, as far as they are known.
    pub addresses: (Option<IpAddr>, Option<IpAddr>),
    /// The Accept rules that may be for this destination, by a domain name or as a node of unknown labels, or that have a
    /// peer of an unknown kind. They are not counted: what is not known never makes a flow pass.
    pub not_counted: Vec<ClusterRuleRef>,
}

/// What policies say at one end of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndVerdict {
    /// Passes: no policy isolates the pod in this direction.
    NotIsolated,
    /// Passes: policies do not hold this end, or not for this flow.
    NotHeld(NotHeld),
    /// Passes: policies isolate the pod, and a rule allows the flow.
    Allowed {
        /// The policies that isolate the pod in this direction.
        isolated_by: Vec<PolicyRef>,
        /// The first rule that allows it, in the order of the policies' names.
        by: RuleRef,
    },
    /// Does not pass: policies isolate the pod, and no rule allows the flow.
    Denied {
        /// The policies that isolate the pod in this direction.
        isolated_by: Vec<PolicyRef>,
    },
    /// Decided by a rule of a ClusterNetworkPolicy, which passes it or does not.
    Ruled(Ruled),
    /// Cannot be: the two ends have no addresses of the same family, or none of the one that was asked for.
    NoAddress,
}

/// Why policies do not hold an end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum NotHeld {
    /// It is outside of the cluster.
    External,
    /// It is a node itself.
    Node,
    /// It is a pod on the network of its node.
    HostNetwork,
    /// It is a pod that has finished.
    Finished,
    /// Both ends are the same pod, which cannot block itself.
    Itself,
    /// The other end is the node that the pod runs on, which is always allowed, regardless of addresses.
    OwnNode,
}

/// One rule of a policy, and which of its peers and ports matched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct RuleRef {
    /// The policy.
    pub policy: PolicyRef,
    /// Among which of its rules.
    pub direction: Direction,
    /// The position of the rule there.
    pub index: usize,
    /// The position of the peer in the rule; none where the rule is open to everyone.
    pub peer: Option<usize>,
    /// The position of the port in the rule; none where the rule is for all ports.
    pub port: Option<usize>,
}

// === impl Snapshot ===

impl Snapshot {
    /// Whether a flow may pass, and why.
    pub fn verdict(&self, flow: &Flow<'_>) -> Verdict {
        let mut first_denied = None;
        for (source, destination) in address_pairs(flow) {
            let verdict = self.verdict_over(flow, source, destination);
            if verdict.allowed() {
                return verdict;
            }
            first_denied.get_or_insert(verdict);
        }
        first_denied.unwrap_or(Verdict {
            egress: EndVerdict::NoAddress,
            ingress: EndVerdict::NoAddress,
            addresses: (None, None),
            not_counted: Vec::new(),
        })
    }

    fn verdict_over(&self, flow: &Flow<'_>, source: Address, destination: Address) -> Verdict {
        let (from, to) = ends(flow, source, destination);
        let mut not_counted = Vec::new();
        let mut tell = |asked: Asked| {
            if asked.heard == Heard::NotCounted {
                not_counted.push(asked.by);
            }
        };
        Verdict {
            egress: self.end_verdict(Direction::Egress, flow, from, to, &mut tell),
            ingress: self.end_verdict(Direction::Ingress, flow, to, from, &mut tell),
            addresses: (source.known, destination.known),
            not_counted,
        }
    }

    /// The verdict at one end, where `own` is that end and `other` the one that rules call the peer.
    fn end_verdict(
        &self,
        direction: Direction,
        flow: &Flow<'_>,
        own: End<'_>,
        other: End<'_>,
        tell: &mut dyn FnMut(Asked),
    ) -> EndVerdict {
        let pod = match own.endpoint {
            Endpoint::External(_) => return EndVerdict::NotHeld(NotHeld::External),
            Endpoint::Node { .. } => return EndVerdict::NotHeld(NotHeld::Node),
            Endpoint::Pod(pod) => pod,
        };
        if let Some(reason) = not_held(pod, other.endpoint) {
            return EndVerdict::NotHeld(reason);
        }
        let mut tier = |tier| self.ruled(tier, pod, direction, flow, other, tell);
        if let Some(ruled) = tier(Tier::Admin) {
            return EndVerdict::Ruled(ruled);
        }
        let is_own_node = pod.node.is_some() && other.endpoint.host() == pod.node.as_ref();
        let mut isolated_by = Vec::new();
        let mut allowed_by = None;
        let policies = self
            .namespace(pod.namespace())
            .into_iter()
            .flat_map(NamespaceState::policies_in_force);
        for policy in policies.filter(|policy| policy.isolates_pod(pod, direction)) {
            isolated_by.push(policy.reference());
            if allowed_by.is_none() && !is_own_node {
                allowed_by = self.allowing_rule(policy, direction, flow, other);
            }
        }
        // The exception for the own node is one of network policies; cluster network policies are read as they are.
        match (allowed_by, isolated_by.is_empty()) {
            (_, true) => match tier(Tier::Baseline) {
                Some(ruled) => EndVerdict::Ruled(ruled),
                None if is_own_node => EndVerdict::NotHeld(NotHeld::OwnNode),
                None => EndVerdict::NotIsolated,
            },
            (_, false) if is_own_node => EndVerdict::NotHeld(NotHeld::OwnNode),
            (Some(by), false) => EndVerdict::Allowed { isolated_by, by },
            (None, false) => EndVerdict::Denied { isolated_by },
        }
    }

    /// The first rule of a policy that allows a flow from or to `other`.
    fn allowing_rule(
        &self,
        policy: &NetworkPolicy,
        direction: Direction,
        flow: &Flow<'_>,
        other: End<'_>,
    ) -> Option<RuleRef> {
        let allows = |rule: &Rule| {
            let port = match &rule.ports {
                Ports::Any => None,
                Ports::Only(ports) => Some(ports.iter().position(|port| port.allows(flow))?),
            };
            let peer = match &rule.peers {
                Peers::Any => None,
                Peers::Only(peers) => Some(
                    peers
                        .iter()
                        .position(|peer| self.is_peer(peer, policy, other))?,
                ),
            };
            Some((peer, port))
        };
        policy
            .rules(direction)
            .iter()
            .enumerate()
            .find_map(|(index, rule)| {
                let (peer, port) = allows(rule)?;
                Some(RuleRef {
                    policy: policy.reference(),
                    direction,
                    index,
                    peer,
                    port,
                })
            })
    }

    fn is_peer(&self, peer: &Peer, policy: &NetworkPolicy, end: End<'_>) -> bool {
        match peer {
            Peer::Pods { namespaces, pods } => end.endpoint.selectable().is_some_and(|pod| {
                let in_scope = match namespaces {
                    NamespaceScope::Own => policy.namespace == *pod.namespace(),
                    NamespaceScope::Selected(selector) => {
                        selector.matches(&self.namespace_labels(pod.namespace()))
                    }
                };
                in_scope && pods.matches(&pod.labels)
            }),
            Peer::Block { cidr, except } => match end.address.known {
                Some(address) => {
                    cidr.contains(&address) && !except.iter().any(|block| block.contains(&address))
                }
                None => {
                    Family::of_block(cidr) == end.address.family
                        && cidr.prefix_len() == 0
                        && except.is_empty()
                }
            },
        }
    }
}

/// Why no policy of any kind holds a pod for flows from or to the other end, if none does.
fn not_held(pod: &Pod, other: Endpoint<'_>) -> Option<NotHeld> {
    if pod.is_finished() {
        return Some(NotHeld::Finished);
    }
    if pod.host_network {
        return Some(NotHeld::HostNetwork);
    }
    // Two pods of one template are two pods, although the template stands for both.
    if matches!(other, Endpoint::Pod(other) if !pod.is_template() && other.workload == pod.workload)
    {
        return Some(NotHeld::Itself);
    }
    None
}

// === impl PortMatch ===

impl PortMatch {
    /// Whether the protocol and the destination port of a flow are meant.
    fn allows(&self, flow: &Flow<'_>) -> bool {
        self.protocol == flow.protocol
            && match &self.port {
                // Names are those of the destination's containers: there are none outside of the cluster.
                PortSpec::Named(name) => flow.to.selectable().is_some_and(|pod| {
                    pod.ports_named(name, self.protocol)
                        .any(|port| port == flow.port)
                }),
                numbers => numbers.has_number(flow.port) == Some(true),
            }
    }
}

// === impl Verdict ===

impl Verdict {
    /// Whether the flow passes at both ends.
    pub fn allowed(&self) -> bool {
        self.egress.passes() && self.ingress.passes()
    }

    /// The verdict at the end that a direction belongs to.
    pub fn at(&self, direction: Direction) -> &EndVerdict {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.allowed() { "allowed" } else { "denied" };
        write!(
            f,
            "{word}; egress: {}; ingress: {}",
            self.egress, self.ingress
        )?;
        for rule in &self.not_counted {
            write!(
                f,
                "; not counted: {rule}, since nobody can say offline whether it is for this"
            )?;
        }
        Ok(())
    }
}

// === impl EndVerdict ===

impl EndVerdict {
    /// Whether the flow passes at this end.
    pub fn passes(&self) -> bool {
        match self {
            Self::NotIsolated | Self::NotHeld(_) | Self::Allowed { .. } => true,
            Self::Ruled(ruled) => ruled.accepts,
            Self::Denied { .. } | Self::NoAddress => false,
        }
    }

    /// The policies that isolate this end.
    pub fn isolated_by(&self) -> &[PolicyRef] {
        match self {
            Self::Allowed { isolated_by, .. } | Self::Denied { isolated_by } => isolated_by,
            Self::NotIsolated | Self::NotHeld(_) | Self::Ruled(_) | Self::NoAddress => &[],
        }
    }
}

impl fmt::Display for EndVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |policies: &[PolicyRef]| {
            let names: Vec<String> = policies.iter().map(ToString::to_string).collect();
            names.join(", ")
        };
        match self {
            Self::NotIsolated => f.write_str("passes, no policy isolates it"),
            Self::NotHeld(reason) => write!(f, "passes, {reason}"),
            Self::Allowed { isolated_by, by } => {
                write!(f, "passes by {by}, isolated by {}", list(isolated_by))
            }
            Self::Denied { isolated_by } => {
                write!(
                    f,
                    "does not pass, isolated by {} and allowed by no rule",
                    list(isolated_by)
                )
            }
            Self::Ruled(ruled) => ruled.fmt(f),
            Self::NoAddress => {
                f.write_str("does not pass, the two ends share no family of addresses")
            }
        }
    }
}

impl fmt::Display for NotHeld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::External => "it is outside of the cluster",
            Self::Node => "it is a node",
            Self::HostNetwork => "it is on the host network, where policies do not hold it",
            Self::Finished => "it has finished",
            Self::Itself => "a pod cannot block itself",
            Self::OwnNode => "flows with the pod's own node are always allowed",
        })
    }
}

// === impl RuleRef ===

impl RuleRef {
    /// Where the rule, or its peer that matched, stands in its policy.
    pub fn field(&self) -> FieldPath {
        rule_field(self.direction, self.index, self.peer)
    }
}

/// Where a rule, or a peer of it, stands in a policy of either kind.
pub(super) fn rule_field(direction: Direction, index: usize, peer: Option<usize>) -> FieldPath {
    let rule = FieldPath::of(["spec", direction.field()]).index(index);
    let peers = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    peer.map_or(rule.clone(), |peer| rule.key(peers).index(peer))
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.policy, self.field())
    }
}

#[cfg(test)]
mod tests;
