//! The ports that the policies at one end of a flow let pass, all at once.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use super::tiers::Wide;
use crate::netpol::coverage::Direction;
use crate::netpol::labels::Labels;
use crate::netpol::name::NamespaceName;
use crate::netpol::net::Family;
use crate::netpol::pod::Pod;
use crate::netpol::policy::{NamespaceScope, NetworkPolicy, Peer, Peers, Ports, Rule};
use crate::netpol::port::{ContainerPort, PortSpec};
use crate::netpol::reach::{PortRange, PortSet};

/// What holds pods at one end of their flows: the policies that isolate them in a direction, and the cluster network
/// policies that rule them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    pub(super) direction: Direction,
    pub(super) policies: Vec<Arc<NetworkPolicy>>,
    pub(super) wide: Wide,
    asks_addresses: bool,
}

/// Who is at the other end, as rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Other<'a> {
    /// None outside of the cluster.
    pub(super) pod: Option<(&'a Pod, &'a Labels)>,
    pub(super) family: Family,
    /// None where it is not known.
    pub(super) address: Option<IpAddr>,
}

pub(super) static EVERY_PORT: LazyLock<PortSet> = LazyLock::new(PortSet::all);

// === impl Holding ===

impl Holding {
    pub(super) fn new(policies: Vec<Arc<NetworkPolicy>>, wide: Wide, direction: Direction) -> Self {
        let mut rules = policies.iter().flat_map(|policy| policy.rules(direction));
        let asks_addresses = rules.any(asks_addresses) || wide.asks_addresses();
        Self {
            direction,
            policies,
            wide,
            asks_addresses,
        }
    }

    /// The policies that isolate, by name; where there is none, everything passes that no cluster network policy denies.
    pub fn policies(&self) -> &[Arc<NetworkPolicy>] {
        &self.policies
    }

    /// Whether it depends on which addresses outside of the cluster are those of nodes.
    pub fn asks_nodes(&self) -> bool {
        self.wide.asks_nodes()
    }

    /// Whether it depends on the address of the other end.
    pub fn asks_addresses(&self) -> bool {
        self.asks_addresses
    }

    /// The blocks that its rules speak of, each with what is left out of it.
    pub fn blocks(&self) -> impl Iterator<Item = (ipnet::IpNet, &[ipnet::IpNet])> {
        let rules = self
            .policies
            .iter()
            .flat_map(|policy| policy.rules(self.direction));
        let peers = rules.flat_map(|rule| match &rule.peers {
            Peers::Any => &[][..],
            Peers::Only(peers) => peers,
        });
        let blocks = peers.filter_map(|peer| match peer {
            Peer::Block { cidr, except } => Some((*cidr, except.as_slice())),
            Peer::Pods { .. } => None,
        });
        blocks.chain(self.wide.blocks().map(|block| (block, &[][..])))
    }

    /// Whether two pods with addresses of the same families are in the same blocks.
    pub(super) fn is_alike(&self, one: &Pod, other: &Pod) -> bool {
        let is_in = |pod: &Pod, cidr: &ipnet::IpNet, except: &[ipnet::IpNet]| {
            pod.ips.iter().any(|address| {
                cidr.contains(address) && !except.iter().any(|block| block.contains(address))
            })
        };
        !self.asks_addresses
            || self
                .blocks()
                .all(|(cidr, except)| is_in(one, &cidr, except) == is_in(other, &cidr, except))
    }

    /// The ports of a destination at which flows with the other end pass here; `ports` are those that the
    /// destination's containers have names for.
    pub(super) fn passing(&self, other: &Other<'_>, ports: &[ContainerPort]) -> PortSet {
        if !self.wide.is_empty() {
            let network = (!self.policies.is_empty()).then(|| self.network(other, ports));
            return self.wide.passing(other, ports, network);
        }
        if self.policies.is_empty() {
            return EVERY_PORT.clone();
        }
        self.network(other, ports)
    }

    fn network(&self, other: &Other<'_>, ports: &[ContainerPort]) -> PortSet {
        let mut passing = PortSet::none();
        for policy in &self.policies {
            for rule in policy.rules(self.direction) {
                if other.is_among(&rule.peers, &policy.namespace) {
                    passing = passing.or(&ports_of(rule, ports));
                }
            }
        }
        passing
    }
}

fn asks_addresses(rule: &Rule) -> bool {
    match &rule.peers {
        Peers::Any => false,
        Peers::Only(peers) => peers.iter().any(is_block),
    }
}

/// Whether a peer means addresses.
pub(super) fn is_block(peer: &Peer) -> bool {
    matches!(peer, Peer::Block { .. })
}

/// The ports of a rule, names as the destination's containers have them.
pub(in crate::netpol) fn ports_of(rule: &Rule, named: &[ContainerPort]) -> PortSet {
    let Ports::Only(entries) = &rule.ports else {
        return EVERY_PORT.clone();
    };
    let mut ranges = Vec::with_capacity(entries.len());
    for entry in entries {
        ranges.extend(PortRange::of(entry));
        if let PortSpec::Named(name) = &entry.port {
            let own = named
                .iter()
                .filter(|port| port.protocol == entry.protocol && port.name.as_ref() == Some(name));
            ranges.extend(own.map(PortRange::of_container));
        }
    }
    ranges.into_iter().collect()
}

// === impl Other ===

impl<'a> Other<'a> {
    /// A pod that policies hold, with the labels of its namespace.
    pub(super) fn pod(
        pod: &'a Pod,
        namespace: &'a Labels,
        family: Family,
        address: Option<IpAddr>,
    ) -> Self {
        Self {
            pod: Some((pod, namespace)),
            family,
            address,
        }
    }

    /// An address outside of the cluster.
    pub(super) fn outside(address: IpAddr) -> Self {
        Self {
            pod: None,
            family: Family::of(address),
            address: Some(address),
        }
    }

    fn is_among(&self, peers: &Peers, own: &NamespaceName) -> bool {
        match peers {
            Peers::Any => true,
            Peers::Only(peers) => peers.iter().any(|peer| self.is(peer, own)),
        }
    }

    /// Whether a peer of a policy of the namespace `own` means it.
    pub(super) fn is(&self, peer: &Peer, own: &NamespaceName) -> bool {
        match peer {
            Peer::Pods { namespaces, pods } => self.pod.is_some_and(|(pod, labels)| {
                let in_scope = match namespaces {
                    NamespaceScope::Own => own == pod.namespace(),
                    NamespaceScope::Selected(selector) => selector.matches(labels),
                };
                in_scope && pods.matches(&pod.labels)
            }),
            Peer::Block { cidr, except } => match self.address {
                Some(address) => {
                    cidr.contains(&address) && !except.iter().any(|block| block.contains(&address))
                }
                None => {
                    Family::of_block(cidr) == self.family
                        && cidr.prefix_len() == 0
                        && except.is_empty()
                }
            },
        }
    }
}
