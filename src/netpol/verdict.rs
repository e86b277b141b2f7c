//! The verdict on a flow: whether the policies of both ends let it pass, and which of them say so.
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

use super::coverage::Direction;
use super::field::FieldPath;
use super::flow::{Endpoint, Flow};
use super::name::PolicyRef;
use super::net::Family;
use super::pod::Pod;
use super::policy::{NamespaceScope, NetworkPolicy, Peer, Peers, Ports, Rule};
use super::port::{PortMatch, PortSpec};
use super::snapshot::{NamespaceState, Snapshot};

/// What policies say about a flow, at each of its ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it may leave its source.
    pub egress: EndVerdict,
    /// Whether it may enter its destination.
    pub ingress: EndVerdict,
    /// The addresses of source and destination that it was judged by, as far as they are known.
    pub addresses: (Option<IpAddr>, Option<IpAddr>),
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

/// The address of one end as far as it is known.
#[derive(Clone, Copy, Debug)]
struct Address {
    family: Family,
    known: Option<IpAddr>,
}

/// One end of a flow and the address that it has in this flow.
#[derive(Clone, Copy, Debug)]
struct End<'a> {
    endpoint: Endpoint<'a>,
    address: Address,
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
        })
    }

    fn verdict_over(&self, flow: &Flow<'_>, source: Address, destination: Address) -> Verdict {
        let from = End {
            endpoint: flow.from,
            address: source,
        };
        let to = End {
            endpoint: flow.to,
            address: destination,
        };
        Verdict {
            egress: self.end_verdict(Direction::Egress, flow, from, to),
            ingress: self.end_verdict(Direction::Ingress, flow, to, from),
            addresses: (source.known, destination.known),
        }
    }

    /// The verdict at one end, where `own` is that end and `other` the one that rules call the peer.
    fn end_verdict(
        &self,
        direction: Direction,
        flow: &Flow<'_>,
        own: End<'_>,
        other: End<'_>,
    ) -> EndVerdict {
        let pod = match own.endpoint {
            Endpoint::External(_) => return EndVerdict::NotHeld(NotHeld::External),
            Endpoint::Node { .. } => return EndVerdict::NotHeld(NotHeld::Node),
            Endpoint::Pod(pod) => pod,
        };
        if let Some(reason) = not_held(pod, other.endpoint) {
            return EndVerdict::NotHeld(reason);
        }
        let mut isolated_by = Vec::new();
        let mut allowed_by = None;
        let policies = self
            .namespace(pod.namespace())
            .into_iter()
            .flat_map(NamespaceState::effective_policies);
        for policy in policies.filter(|policy| policy.isolates_pod(pod, direction)) {
            isolated_by.push(policy.reference());
            if allowed_by.is_none() {
                allowed_by = self.allowing_rule(policy, direction, flow, other);
            }
        }
        match (allowed_by, isolated_by.is_empty()) {
            (_, true) => EndVerdict::NotIsolated,
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

/// Why policies do not hold a pod for flows from or to the other end, if they do not.
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
    let is_own_node = pod.node.is_some() && other.host() == pod.node.as_ref();
    is_own_node.then_some(NotHeld::OwnNode)
}

/// The pairs of addresses that a flow can be over, those of the destination's first address first.
fn address_pairs(flow: &Flow<'_>) -> Vec<(Address, Address)> {
    let (sources, destinations) = (flow.from.addresses(), flow.to.addresses());
    let mut families: Vec<Family> = Vec::new();
    let known = destinations
        .iter()
        .chain(&sources)
        .map(|address| Family::of(*address));
    for family in known.chain(Family::BOTH) {
        if !families.contains(&family) && flow.family.is_none_or(|asked| asked == family) {
            families.push(family);
        }
    }
    let mut pairs = Vec::new();
    for family in families {
        for destination in Address::of(&destinations, family) {
            pairs.extend(
                Address::of(&sources, family)
                    .into_iter()
                    .map(|source| (source, destination)),
            );
        }
    }
    pairs
}

// === impl Address ===

impl Address {
    /// The addresses of one family, or the unknown one of an end of which no address is known at all.
    fn of(addresses: &[IpAddr], family: Family) -> Vec<Address> {
        if addresses.is_empty() {
            return vec![Address {
                family,
                known: None,
            }];
        }
        let of_family = addresses
            .iter()
            .filter(|address| Family::of(**address) == family);
        of_family
            .map(|address| Address {
                family,
                known: Some(*address),
            })
            .collect()
    }
}

// === impl PortMatch ===

impl PortMatch {
    /// Whether the protocol and the destination port of a flow are meant.
    fn allows(&self, flow: &Flow<'_>) -> bool {
        self.protocol == flow.protocol
            && match &self.port {
                PortSpec::Any => true,
                PortSpec::Number(port) => *port == flow.port,
                PortSpec::Range(first, last) => (*first..=*last).contains(&flow.port),
                // Names are those of the destination's containers: there are none outside of the cluster.
                PortSpec::Named(name) => flow.to.selectable().is_some_and(|pod| {
                    pod.ports_named(name, self.protocol)
                        .any(|port| port == flow.port)
                }),
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
        )
    }
}

// === impl EndVerdict ===

impl EndVerdict {
    /// Whether the flow passes at this end.
    pub fn passes(&self) -> bool {
        match self {
            Self::NotIsolated | Self::NotHeld(_) | Self::Allowed { .. } => true,
            Self::Denied { .. } | Self::NoAddress => false,
        }
    }

    /// The policies that isolate this end.
    pub fn isolated_by(&self) -> &[PolicyRef] {
        match self {
            Self::Allowed { isolated_by, .. } | Self::Denied { isolated_by } => isolated_by,
            Self::NotIsolated | Self::NotHeld(_) | Self::NoAddress => &[],
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
        let rule = FieldPath::of(["spec", self.direction.field()]).index(self.index);
        let peers = match self.direction {
            Direction::Ingress => "from",
            Direction::Egress => "to",
        };
        self.peer
            .map_or(rule.clone(), |peer| rule.key(peers).index(peer))
    }
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.policy, self.field())
    }
}

#[cfg(test)]
mod tests;
