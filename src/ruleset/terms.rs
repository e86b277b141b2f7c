//! What the rules of policies ask, in terms that become sets: who is at the other end, and which ports.
//!
//! A [`Member`] selects addresses of pods or nodes, which come and go with them; [`Addresses`] stay as the policy has them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use super::addresses::Addresses;
use super::table::Element;
use crate::netpol::cluster_policy::Reading;
use crate::netpol::spans::{self, Span};
use crate::netpol::{
    Action, ClusterPeer, ClusterPort, ClusterPorts, ClusterRule, Family, NamespaceName,
    NamespaceScope, NetworkPolicy, Peer, Peers, Pod, Port, PortName, PortSpec, Ports, Protocol,
    Rule, Selector, Snapshot,
};

/// Who is selected by what changes with the cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Member {
    /// Pods of one namespace.
    PodsOf(NamespaceName, Selector),
    /// Pods of namespaces with some labels.
    PodsIn {
        /// Which namespaces.
        namespaces: Selector,
        /// Which of their pods.
        pods: Selector,
    },
    /// Pods with some addresses.
    PodsAt(Addresses),
    /// Every pod.
    Pods,
    /// Nodes with some labels.
    Nodes(Selector),
}

/// The members of one set: addresses, or addresses with the number of a named port there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PeerKey {
    pub(super) member: Member,
    pub(super) named: Option<(PortName, Protocol)>,
}

/// The peers of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Who {
    /// Everyone, inside and outside of the cluster.
    Anyone,
    /// One of these.
    Some(BTreeSet<Member>, Addresses),
}

/// The ports of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Where {
    /// All of every protocol, also of those that have no ports.
    Anywhere,
    /// These.
    Some {
        /// Numbers, sorted ranges by protocol.
        numbers: BTreeMap<Protocol, Vec<Span<u32>>>,
        /// Names that each destination has a number for.
        named: BTreeSet<(PortName, Protocol)>,
    },
}

/// One rule of a policy, as a packet is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Clause {
    pub(super) who: Who,
    pub(super) at: Where,
    pub(super) action: Action,
    /// Where it is written.
    pub(super) by: String,
}

// === impl Clause ===

impl Clause {
    /// A rule of a network policy.
    pub(super) fn of_rule(policy: &NetworkPolicy, rule: &Rule, by: String) -> Self {
        let who = match &rule.peers {
            Peers::Any => Who::Anyone,
            Peers::Only(peers) => {
                let (mut members, mut addresses) = (BTreeSet::new(), Addresses::default());
                for peer in peers {
                    match peer {
                        Peer::Pods { namespaces, pods } => {
                            members.insert(match namespaces {
                                NamespaceScope::Own => {
                                    Member::PodsOf(policy.namespace.clone(), pods.clone())
                                }
                                NamespaceScope::Selected(selector) => Member::PodsIn {
                                    namespaces: selector.clone(),
                                    pods: pods.clone(),
                                },
                            });
                        }
                        Peer::Block { cidr, except } => {
                            addresses.join(Addresses::of(cidr, except));
                        }
                    }
                }
                Who::Some(members, addresses)
            }
        };
        let at = match &rule.ports {
            Ports::Any => Where::Anywhere,
            Ports::Only(ports) => {
                let ports = ports.iter();
                Where::of(ports.map(|port| (port.protocol, port.port.clone())))
            }
        };
        Self {
            who,
            at,
            action: Action::Accept,
            by,
        }
    }

    /// A rule of a cluster network policy; none for one that matches nothing that can be known.
    pub(super) fn of_cluster_rule(rule: &ClusterRule, by: String) -> Option<Self> {
        match rule.reading() {
            Reading::AsWritten => {}
            Reading::Nothing(_) => return None,
            Reading::DenyAll(_) => {
                return Some(Self {
                    who: Who::Anyone,
                    at: Where::Anywhere,
                    action: Action::Deny,
                    by,
                });
            }
        }
        let (mut members, mut addresses) = (BTreeSet::new(), Addresses::default());
        for peer in &rule.peers {
            match peer {
                ClusterPeer::Pods(scope) => {
                    members.insert(Member::PodsIn {
                        namespaces: scope.namespaces.clone(),
                        pods: scope.pods.clone(),
                    });
                }
                ClusterPeer::Nodes(selector) => {
                    members.insert(Member::Nodes(selector.clone()));
                }
                ClusterPeer::Networks(blocks) => {
                    for block in blocks {
                        addresses.join(Addresses::of(block, &[]));
                    }
                }
                // Names are not resolved: what they accept is not counted. Unknown kinds were read above.
                ClusterPeer::DomainNames(_) | ClusterPeer::Unknown(_) => {}
            }
        }
        let at = match &rule.ports {
            ClusterPorts::Any => Where::Anywhere,
            ClusterPorts::Only(ports) => Where::of(ports.iter().flat_map(|port| match port {
                ClusterPort::Numbered(port) => vec![(port.protocol, port.port.clone())],
                ClusterPort::Named(name) => {
                    let of = |protocol| (protocol, PortSpec::Named(name.clone()));
                    Protocol::ALL.map(of).to_vec()
                }
            })),
        };
        Some(Self {
            who: Who::Some(members, addresses),
            at,
            action: rule.action,
            by,
        })
    }

    /// The same for one destination: its numbers in the place of names.
    #[must_use]
    pub(super) fn at_pod(mut self, pod: &Pod) -> Self {
        if let Where::Some { numbers, named } = &mut self.at {
            for (name, protocol) in std::mem::take(named) {
                let ports = pod.ports_named(&name, protocol).map(|port| {
                    let number = u32::from(port.get());
                    (number, number)
                });
                let ports: Vec<Span<u32>> = ports.collect();
                if !ports.is_empty() {
                    numbers.entry(protocol).or_default().extend(ports);
                }
            }
            for ranges in numbers.values_mut() {
                *ranges = spans::joined(std::mem::take(ranges));
            }
        }
        self
    }
}

// === impl Where ===

impl Where {
    fn of(ports: impl Iterator<Item = (Protocol, PortSpec)>) -> Self {
        let mut numbers: BTreeMap<Protocol, Vec<Span<u32>>> = BTreeMap::new();
        let mut named = BTreeSet::new();
        for (protocol, port) in ports {
            let span = match port {
                PortSpec::Any => ALL_PORTS,
                PortSpec::Number(port) => (port.get().into(), port.get().into()),
                PortSpec::Range(first, last) => (first.get().into(), last.get().into()),
                PortSpec::Named(name) => {
                    named.insert((name, protocol));
                    continue;
                }
            };
            numbers.entry(protocol).or_default().push(span);
        }
        for ranges in numbers.values_mut() {
            *ranges = spans::joined(std::mem::take(ranges));
        }
        Self::Some { numbers, named }
    }
}

/// Every port of a protocol; a packet to port 0 is one to any port.
pub(super) const ALL_PORTS: Span<u32> = (1, u16::MAX as u32);

// === impl Member ===

impl Member {
    /// Whether nodes are meant, not pods.
    pub(super) fn is_of_nodes(&self) -> bool {
        matches!(self, Self::Nodes(_))
    }

    /// Whether a pod at one of its addresses is meant.
    fn means(&self, pod: &Pod, address: IpAddr, snapshot: &Snapshot) -> bool {
        match self {
            Self::PodsOf(namespace, pods) => {
                namespace == pod.namespace() && pods.matches(&pod.labels)
            }
            Self::PodsIn { namespaces, pods } => {
                pods.matches(&pod.labels)
                    && (namespaces.is_everything()
                        || namespaces.matches(&snapshot.namespace_labels(pod.namespace())))
            }
            Self::PodsAt(addresses) => addresses.contains(address),
            Self::Pods => true,
            Self::Nodes(_) => false,
        }
    }

    /// The addresses that may be meant, each perhaps more than once.
    fn candidates<'s>(&'s self, snapshot: &'s Snapshot) -> Box<dyn Iterator<Item = IpAddr> + 's> {
        fn ips<'s>(
            pods: impl Iterator<Item = &'s Pod> + 's,
        ) -> Box<dyn Iterator<Item = IpAddr> + 's> {
            Box::new(
                pods.filter(|pod| pod.is_held())
                    .flat_map(|pod| pod.ips.iter().copied()),
            )
        }
        match self {
            Self::PodsOf(namespace, pods) => ips(snapshot
                .pods_in(namespace)
                .filter(|pod| pods.matches(&pod.labels))),
            Self::PodsIn { namespaces, pods } => ips(snapshot
                .namespaces()
                .filter(|namespace| namespaces.matches(namespace.labels()))
                .flat_map(crate::netpol::NamespaceState::pods)
                .filter(|pod| pods.matches(&pod.labels))),
            Self::PodsAt(_) | Self::Pods => ips(snapshot.pods()),
            Self::Nodes(_) => Box::new(
                snapshot
                    .nodes()
                    .flat_map(|node| node.addresses.iter().copied()),
            ),
        }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pods = |f: &mut fmt::Formatter<'_>, pods: &Selector| {
            if pods.is_everything() {
                f.write_str("pods")
            } else {
                write!(f, "pods with {pods}")
            }
        };
        match self {
            Self::PodsOf(namespace, selector) => {
                pods(f, selector)?;
                write!(f, " of {namespace}")
            }
            Self::PodsIn {
                namespaces,
                pods: selector,
            } => {
                pods(f, selector)?;
                if namespaces.is_everything() {
                    f.write_str(" of all namespaces")
                } else {
                    write!(f, " of namespaces with {namespaces}")
                }
            }
            Self::PodsAt(_) => f.write_str("pods with addresses of the blocks"),
            Self::Pods => f.write_str("all pods"),
            Self::Nodes(selector) if selector.is_everything() => f.write_str("nodes"),
            Self::Nodes(selector) => write!(f, "nodes with {selector}"),
        }
    }
}

// === impl PeerKey ===

impl PeerKey {
    /// What an address is in the set: nothing, itself, or itself with each number of the named port.
    ///
    /// Of several pods that claim an address, one is taken to have it, as everywhere.
    pub(super) fn elements_at(&self, address: IpAddr, snapshot: &Snapshot) -> BTreeSet<Element> {
        let Some(pod) = snapshot.pod_at(address) else {
            let is_node = match &self.member {
                Member::Nodes(selector) => snapshot
                    .nodes_at(address)
                    .any(|node| selector.matches(&node.labels)),
                _ => false,
            };
            return is_node
                .then_some(Element::Address(address))
                .into_iter()
                .collect();
        };
        if !self.member.means(pod, address, snapshot) {
            return BTreeSet::new();
        }
        match &self.named {
            None => BTreeSet::from([Element::Address(address)]),
            Some((name, protocol)) => pod
                .ports_named(name, *protocol)
                .map(|port| Element::AddressPort(address, port))
                .collect(),
        }
    }

    /// All elements of one family.
    pub(super) fn elements(&self, family: Family, snapshot: &Snapshot) -> BTreeSet<Element> {
        let candidates = self.member.candidates(snapshot);
        let of_family = candidates.filter(|address| Family::of(*address) == family);
        of_family
            .flat_map(|address| self.elements_at(address, snapshot))
            .collect()
    }
}

/// The elements of a set that an address can have: the first and the last in order.
pub(super) fn elements_of(
    set: &BTreeSet<Element>,
    address: IpAddr,
) -> impl Iterator<Item = &Element> {
    let plain = set.get(&Element::Address(address));
    let lowest = Port::new(1).map(|port| Element::AddressPort(address, port));
    let highest = Port::new(u16::MAX).map(|port| Element::AddressPort(address, port));
    let ports = lowest.zip(highest);
    plain.into_iter().chain(
        ports
            .into_iter()
            .flat_map(|(first, last)| set.range(first..=last)),
    )
}
