//! What cluster network policies say at one end of a flow, tier by tier.
//!
//! The policies of a tier that have the pod as their subject are asked by priority; in each, the first rule that matches
//! counts. An Accept or a Deny decides; a Pass ends the tier.
//! <https://network-policy-api.sigs.k8s.io/api-overview/>
//!
//! What the API leaves open is decided on the side of denying:
//! - *Equal priorities.* "The implementation can apply any of the matching policies": of what they say, the strictest is
//!   taken, Deny before Pass before Accept, and the others are named.
//! - *Domain names* cannot be resolved here. An Accept to them matches nothing, and is told as not counted.
//! - *Nodes* are the addresses of the nodes that are known, and the pods on their network. Where the labels of a node are
//!   not known, a rule for nodes of some labels may mean it: an Accept is then not counted, a Deny or a Pass denies.

use std::fmt;

use serde::Serialize;

use super::{End, EndVerdict};
use crate::netpol::cluster_policy::{
    Action, Closed, ClusterNetworkPolicy, ClusterPeer, ClusterPort, ClusterPorts, ClusterRule,
    Place, Priority, Reading, Tier,
};
use crate::netpol::coverage::Direction;
use crate::netpol::field::FieldPath;
use crate::netpol::flow::{Endpoint, Flow};
use crate::netpol::name::ClusterPolicyRef;
use crate::netpol::net::Family;
use crate::netpol::node::Node;
use crate::netpol::pod::Pod;
use crate::netpol::selector::Selector;
use crate::netpol::snapshot::Snapshot;

/// What a rule of a ClusterNetworkPolicy decides at one end of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruled {
    /// Whether it lets the flow pass.
    pub accepts: bool,
    /// The rule.
    pub by: ClusterRuleRef,
    /// Why the rule counts although it is not known to match; none where it does match as it is written.
    pub closed: Option<Closed>,
    /// Rules of other policies of the same tier and priority that match too and say something else. Which of them a
    /// cluster follows is not defined; this one is the strictest.
    pub tied: Vec<ClusterRuleRef>,
}

/// One rule of a ClusterNetworkPolicy, and which of its peers and ports matched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ClusterRuleRef {
    /// The policy.
    pub policy: ClusterPolicyRef,
    /// Its tier.
    pub tier: Tier,
    /// Its priority.
    pub priority: Priority,
    /// Among which of its rules.
    pub direction: Direction,
    /// The position of the rule there.
    pub index: usize,
    /// The position of the peer in the rule; none where the rule fails closed as a whole.
    pub peer: Option<usize>,
    /// The position in `protocols`; none where the rule is for all ports.
    pub port: Option<usize>,
}

/// One rule that was asked about a flow, and what came of it.
#[derive(Clone, Debug)]
pub(in crate::netpol) struct Asked {
    pub(in crate::netpol) by: ClusterRuleRef,
    pub(in crate::netpol) heard: Heard,
}

/// What came of asking a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::netpol) enum Heard {
    /// It does not match.
    Nothing,
    /// It may match, for all that is known, and is not counted.
    NotCounted,
    /// It matches, and does this.
    Matches(Action, Option<Closed>),
}

/// A rule that matches.
struct Hit {
    by: ClusterRuleRef,
    action: Action,
    closed: Option<Closed>,
}

/// Whether a rule, or a part of it, means an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::netpol) enum Meant {
    Yes,
    /// It may, for all that is known.
    Perhaps,
    No,
}

impl Snapshot {
    /// The rules of cluster network policies of which nobody can say offline whom they mean, each with what is made of it.
    pub fn doubtful_rules(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        for policy in self.cluster_policies() {
            for direction in Direction::BOTH {
                for (index, rule) in policy.rules(direction).iter().enumerate() {
                    let is_name = |peer: &ClusterPeer| matches!(peer, ClusterPeer::DomainNames(_));
                    let made_of_it = match rule.reading() {
                        Reading::DenyAll(why) => format!("{why}: taken to deny everything"),
                        Reading::Nothing(why) => format!("{why}: taken to accept nothing"),
                        Reading::AsWritten if rule.peers.iter().any(is_name) => {
                            "domain names are not resolved: what they accept is not counted"
                                .to_owned()
                        }
                        Reading::AsWritten => continue,
                    };
                    let field = super::rule_field(direction, index, None);
                    doubts.push(format!("{} {field}: {made_of_it}", policy.reference));
                }
            }
        }
        doubts
    }

    /// What a tier decides at the end of `pod`; none where it leaves the flow to the next tier. Every rule that is asked on
    /// the way is told.
    pub(in crate::netpol) fn ruled(
        &self,
        tier: Tier,
        pod: &Pod,
        direction: Direction,
        flow: &Flow<'_>,
        other: End<'_>,
        tell: &mut dyn FnMut(Asked),
    ) -> Option<Ruled> {
        let mut policies = self.cluster_policies_of(tier).peekable();
        policies.peek()?;
        let namespace = self.namespace_labels(pod.namespace());
        let policies: Vec<&ClusterNetworkPolicy> = policies
            .filter(|policy| policy.rules_pod(pod, &namespace))
            .collect();
        for tied in policies.chunk_by(|one, next| one.priority == next.priority) {
            let mut hits: Vec<Hit> = tied
                .iter()
                .filter_map(|policy| self.hit(policy, direction, flow, other, tell))
                .collect();
            // Stable: of equal actions, the first name stays first.
            hits.sort_by_key(|hit| hit.action);
            let mut hits = hits.into_iter();
            let Some(first) = hits.next() else { continue };
            if first.action == Action::Pass {
                return None;
            }
            return Some(Ruled {
                accepts: first.action == Action::Accept,
                by: first.by,
                closed: first.closed,
                tied: hits
                    .filter(|hit| hit.action != first.action)
                    .map(|hit| hit.by)
                    .collect(),
            });
        }
        None
    }

    /// The first rule of a policy that matches a flow.
    fn hit(
        &self,
        policy: &ClusterNetworkPolicy,
        direction: Direction,
        flow: &Flow<'_>,
        other: End<'_>,
        tell: &mut dyn FnMut(Asked),
    ) -> Option<Hit> {
        for (index, rule) in policy.rules(direction).iter().enumerate() {
            let (heard, peer, port) = self.heard(rule, flow, other);
            let by = ClusterRuleRef {
                policy: policy.reference.clone(),
                tier: policy.tier,
                priority: policy.priority,
                direction,
                index,
                peer,
                port,
            };
            tell(Asked {
                by: by.clone(),
                heard,
            });
            if let Heard::Matches(action, closed) = heard {
                return Some(Hit { by, action, closed });
            }
        }
        None
    }

    /// What a rule says of a flow, and by which of its peers and ports.
    fn heard(
        &self,
        rule: &ClusterRule,
        flow: &Flow<'_>,
        other: End<'_>,
    ) -> (Heard, Option<usize>, Option<usize>) {
        match rule.reading() {
            Reading::Nothing(_) => return (Heard::NotCounted, None, None),
            Reading::DenyAll(why) => {
                return (Heard::Matches(Action::Deny, Some(why)), None, None);
            }
            Reading::AsWritten => {}
        }
        let port = rule.port_of(flow);
        if port.is_none() && !rule.is_for_all_ports() {
            return (Heard::Nothing, None, None);
        }
        let first = |meant| {
            let mut peers = rule.peers.iter();
            peers.position(|peer| self.is_meant_by(peer, other) == meant)
        };
        if let Some(peer) = first(Meant::Yes) {
            return (Heard::Matches(rule.action, None), Some(peer), port);
        }
        let Some(peer) = first(Meant::Perhaps) else {
            return (Heard::Nothing, None, port);
        };
        let heard = match rule.action {
            Action::Accept => Heard::NotCounted,
            Action::Deny | Action::Pass => Heard::Matches(Action::Deny, Some(Closed::UnknownNode)),
        };
        (heard, Some(peer), port)
    }

    /// Whether a rule means the other end, and whether it is for the port, each by itself.
    pub(in crate::netpol) fn parts_of(
        &self,
        rule: &ClusterRule,
        flow: &Flow<'_>,
        other: End<'_>,
    ) -> (bool, bool) {
        let mut peers = rule.peers.iter();
        (
            peers.any(|peer| self.is_meant_by(peer, other) != Meant::No),
            rule.port_of(flow).is_some() || rule.is_for_all_ports(),
        )
    }

    /// Whether a rule that is as it is written means an end by one of its peers.
    pub(in crate::netpol) fn is_meant(&self, rule: &ClusterRule, end: End<'_>) -> Meant {
        let peers = rule.peers.iter();
        peers.fold(Meant::No, |meant, peer| {
            match (meant, self.is_meant_by(peer, end)) {
                (Meant::Yes, _) | (_, Meant::Yes) => Meant::Yes,
                (Meant::Perhaps, _) | (_, Meant::Perhaps) => Meant::Perhaps,
                (Meant::No, Meant::No) => Meant::No,
            }
        })
    }

    /// Whether a peer means an end.
    fn is_meant_by(&self, peer: &ClusterPeer, end: End<'_>) -> Meant {
        match peer {
            ClusterPeer::Pods(scope) => Meant::of(end.endpoint.selectable().is_some_and(|pod| {
                scope.includes(&pod.labels, &self.namespace_labels(pod.namespace()))
            })),
            ClusterPeer::Networks(blocks) => {
                Meant::of(blocks.iter().any(|block| match end.address.known {
                    Some(address) => block.contains(&address),
                    None => {
                        Family::of_block(block) == end.address.family && block.prefix_len() == 0
                    }
                }))
            }
            ClusterPeer::Nodes(selector) => self.is_node(selector, end),
            // Names are for what is outside; pods have better selectors, says the API.
            ClusterPeer::DomainNames(_) => match end.endpoint.selectable() {
                Some(_) => Meant::No,
                None => Meant::Perhaps,
            },
            ClusterPeer::Unknown(_) => Meant::No,
        }
    }

    fn is_node(&self, selector: &Selector, end: End<'_>) -> Meant {
        let name = match end.endpoint {
            Endpoint::External(_) => None,
            Endpoint::Node { name, .. } => Some(name),
            Endpoint::Pod(pod) if pod.host_network && !pod.is_finished() => pod.node.as_ref(),
            Endpoint::Pod(_) => return Meant::No,
        };
        if let Some(node) = name.and_then(|name| self.node(name)) {
            return Meant::of(selector.matches(&node.labels));
        }
        let at = end.address.known.into_iter();
        let mut at = at.flat_map(|address| self.nodes_at(address)).peekable();
        if at.peek().is_some() {
            return Meant::of(at.any(|node: &Node| selector.matches(&node.labels)));
        }
        match end.endpoint {
            Endpoint::External(_) => Meant::No,
            Endpoint::Pod(_) | Endpoint::Node { .. } => Meant::of_unknown_node(selector),
        }
    }
}

impl Meant {
    /// Where it is known.
    pub(in crate::netpol) fn of(is_meant: bool) -> Self {
        if is_meant { Self::Yes } else { Self::No }
    }

    /// Whether a selector means a node whose labels are not known.
    pub(in crate::netpol) fn of_unknown_node(selector: &Selector) -> Self {
        if selector.is_everything() {
            Self::Yes
        } else {
            Self::Perhaps
        }
    }
}

impl ClusterRule {
    /// The entry of `protocols` that means the port of a flow.
    fn port_of(&self, flow: &Flow<'_>) -> Option<usize> {
        match &self.ports {
            ClusterPorts::Any => None,
            ClusterPorts::Only(ports) => ports.iter().position(|port| port.is_of(flow)),
        }
    }

    fn is_for_all_ports(&self) -> bool {
        self.ports == ClusterPorts::Any
    }
}

impl ClusterPort {
    fn is_of(&self, flow: &Flow<'_>) -> bool {
        match self {
            Self::Numbered(port) => port.allows(flow),
            Self::Named(name) => flow.to.selectable().is_some_and(|pod| {
                pod.ports_named(name, flow.protocol)
                    .any(|port| port == flow.port)
            }),
        }
    }
}

impl ClusterRuleRef {
    /// Where the rule, or its peer that matched, stands in its policy.
    pub fn field(&self) -> FieldPath {
        super::rule_field(self.direction, self.index, self.peer)
    }

    /// Where its policy stands, in words.
    pub fn place(&self) -> Place {
        Place {
            kind: self.policy.kind,
            tier: self.tier,
            priority: self.priority,
        }
    }
}

impl EndVerdict {
    /// What a rule of a ClusterNetworkPolicy decided, where one did.
    pub fn ruled(&self) -> Option<&Ruled> {
        match self {
            Self::Ruled(ruled) => Some(ruled),
            Self::NotIsolated
            | Self::NotHeld(_)
            | Self::Allowed { .. }
            | Self::Denied { .. }
            | Self::NoAddress => None,
        }
    }
}

impl fmt::Display for ClusterRuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.policy, self.field())
    }
}

impl fmt::Display for Ruled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let says = if self.accepts {
            "passes, accepted"
        } else {
            "does not pass, denied"
        };
        write!(f, "{says} by {} ({})", self.by, self.by.place())?;
        if let Some(why) = self.closed {
            write!(f, ": {why}")?;
        }
        for other in &self.tied {
            write!(
                f,
                "; {other} has the same priority and says otherwise, and the strictest is taken"
            )?;
        }
        Ok(())
    }
}
