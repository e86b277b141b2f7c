//! What cluster network policies let pass at one end, before and after network policies, all ports at once.
//!
//! The same order and the same decisions as those of `verdict/tiers.rs`, for one other end that is a pod with a network of
//! its own or an address outside.

use std::sync::Arc;

use ipnet::IpNet;

use super::passing::{EVERY_PORT, Other};
use crate::netpol::cluster_policy::{
    Action, ClusterNetworkPolicy, ClusterPeer, ClusterPort, ClusterPorts, ClusterRule, Reading,
    Tier,
};
use crate::netpol::coverage::Direction;
use crate::netpol::labels::Labels;
use crate::netpol::net::Family;
use crate::netpol::pod::Pod;
use crate::netpol::port::ContainerPort;
use crate::netpol::reach::{PortRange, PortSet, Said};
use crate::netpol::snapshot::{Nodes, Snapshot};

/// The cluster network policies that rule pods in a direction, in the order in which they are asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wide {
    direction: Option<Direction>,
    policies: Vec<Arc<ClusterNetworkPolicy>>,
    /// Those that are known, where a rule speaks of nodes.
    nodes: Nodes,
}

impl Wide {
    pub(super) fn of(
        snapshot: &Snapshot,
        pod: &Pod,
        namespace: &Labels,
        direction: Direction,
    ) -> Self {
        let rules_it = |policy: &&Arc<ClusterNetworkPolicy>| {
            !policy.rules(direction).is_empty() && policy.rules_pod(pod, namespace)
        };
        let policies = snapshot.shared_cluster_policies().filter(rules_it);
        let mut wide = Self {
            direction: Some(direction),
            policies: policies.cloned().collect(),
            ..Self::default()
        };
        if wide.asks_nodes() {
            wide.nodes = snapshot.shared_nodes().clone();
        }
        wide
    }

    pub(super) fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// Whether it is what it was, policy by policy.
    pub(super) fn is_same(&self, other: &Wide) -> bool {
        let pairs = self.policies.iter().zip(&other.policies);
        self.policies.len() == other.policies.len()
            && pairs
                .into_iter()
                .all(|(one, other)| Arc::ptr_eq(one, other) || one == other)
    }

    /// Whether pods depend on it only while no network policy isolates them.
    pub(super) fn has_baseline(&self) -> bool {
        self.policies
            .iter()
            .any(|policy| policy.tier == Tier::Baseline)
    }

    /// Whom rules accept before any network policy is asked, and at which ports.
    pub(super) fn accepted(&self) -> impl Iterator<Item = (&ClusterPeer, &ClusterPorts)> {
        let policies = self.policies.iter();
        let policies = policies.filter(|policy| policy.tier == Tier::Admin);
        let direction = self.direction;
        let rules = policies.flat_map(move |policy| {
            let rules = direction.map(|direction| policy.rules(direction));
            rules.into_iter().flatten()
        });
        let accepting = rules.filter(|rule| {
            rule.action == Action::Accept && matches!(rule.reading(), Reading::AsWritten)
        });
        accepting.flat_map(|rule| rule.peers.iter().map(|peer| (peer, &rule.ports)))
    }

    pub(super) fn asks_addresses(&self) -> bool {
        self.peers()
            .any(|peer| matches!(peer, ClusterPeer::Networks(_)))
    }

    /// Whether a rule speaks of nodes.
    pub(super) fn asks_nodes(&self) -> bool {
        self.peers()
            .any(|peer| matches!(peer, ClusterPeer::Nodes(_)))
    }

    /// The blocks that its rules speak of, and the addresses of nodes where they speak of these.
    pub(super) fn blocks(&self) -> impl Iterator<Item = IpNet> {
        let networks = self.peers().flat_map(|peer| match peer {
            ClusterPeer::Networks(blocks) => blocks.as_slice(),
            _ => &[],
        });
        let nodes = self.nodes.addresses().map(IpNet::from);
        networks.copied().chain(nodes)
    }

    /// The ports at which flows with the other end pass; `network` is what network policies let pass, where any isolates.
    pub(super) fn passing(
        &self,
        other: &Other<'_>,
        named: &[ContainerPort],
        network: Option<PortSet>,
    ) -> PortSet {
        let mut said = Said::nothing(EVERY_PORT.clone());
        self.ask(Tier::Admin, other, named, &mut said);
        if let Some(network) = network {
            return said.with_network(&network);
        }
        said.next_tier();
        self.ask(Tier::Baseline, other, named, &mut said);
        said.in_the_end()
    }

    fn ask(&self, tier: Tier, other: &Other<'_>, named: &[ContainerPort], said: &mut Said) {
        let of_tier = self.policies.iter().filter(|policy| policy.tier == tier);
        let of_tier: Vec<_> = of_tier.collect();
        for tied in of_tier.chunk_by(|one, next| one.priority == next.priority) {
            let pieces = tied
                .iter()
                .flat_map(|policy| self.pieces(policy, other, named));
            let pieces: Vec<(Action, PortSet)> = pieces.collect();
            // Of equal priorities, the strictest counts.
            for action in Action::ALL {
                for (_, ports) in pieces.iter().filter(|(own, _)| *own == action) {
                    said.decide(action, ports);
                }
            }
        }
    }

    /// What one policy by itself says of which ports; none is in two of them.
    fn pieces(
        &self,
        policy: &ClusterNetworkPolicy,
        other: &Other<'_>,
        named: &[ContainerPort],
    ) -> Vec<(Action, PortSet)> {
        let mut pieces = Vec::new();
        let mut open = EVERY_PORT.clone();
        let rules = self.direction.map(|direction| policy.rules(direction));
        for rule in rules.into_iter().flatten() {
            let (action, ports) = match rule.reading() {
                Reading::DenyAll(_) => (Action::Deny, EVERY_PORT.clone()),
                Reading::AsWritten if self.means(rule, other) => {
                    (rule.action, ports_of(rule, named))
                }
                Reading::AsWritten | Reading::Nothing(_) => continue,
            };
            let taken = open.and(&ports);
            if !taken.is_empty() {
                open = open.without(&taken);
                pieces.push((action, taken));
            }
        }
        pieces
    }

    fn means(&self, rule: &ClusterRule, other: &Other<'_>) -> bool {
        rule.peers.iter().any(|peer| match (peer, other.pod) {
            (ClusterPeer::Pods(scope), Some((pod, namespace))) => {
                scope.includes(&pod.labels, namespace)
            }
            (ClusterPeer::Networks(blocks), _) => blocks.iter().any(|block| match other.address {
                Some(address) => block.contains(&address),
                None => Family::of_block(block) == other.family && block.prefix_len() == 0,
            }),
            (ClusterPeer::Nodes(selector), None) => {
                let nodes = other.address.map(|address| self.nodes.at(address));
                let mut nodes = nodes.into_iter().flatten();
                nodes.any(|node| selector.matches(&node.labels))
            }
            // Nobody can say offline what names stand for, and only Accept rules come here with them.
            (
                ClusterPeer::Pods(_)
                | ClusterPeer::Nodes(_)
                | ClusterPeer::DomainNames(_)
                | ClusterPeer::Unknown(_),
                _,
            ) => false,
        })
    }

    fn peers(&self) -> impl Iterator<Item = &ClusterPeer> {
        let direction = self.direction;
        let rules = self.policies.iter().flat_map(move |policy| {
            let rules = direction.map(|direction| policy.rules(direction));
            rules.into_iter().flatten()
        });
        rules.flat_map(|rule| &rule.peers)
    }
}

/// The ports of a rule, names as the destination's containers have them.
fn ports_of(rule: &ClusterRule, named: &[ContainerPort]) -> PortSet {
    let ClusterPorts::Only(ports) = &rule.ports else {
        return EVERY_PORT.clone();
    };
    let mut ranges = Vec::new();
    for port in ports {
        match port {
            ClusterPort::Numbered(port) => ranges.extend(PortRange::of(port)),
            ClusterPort::Named(name) => {
                let own = named.iter().filter(|port| port.name.as_ref() == Some(name));
                ranges.extend(own.map(PortRange::of_container));
            }
        }
    }
    ranges.into_iter().collect()
}
