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
    Action, ClusterPeer, ClusterPort, ClusterPorts, ClusterRule, Family, Labels, NamespaceName,
    NamespaceScope, NamespaceState, NetworkPolicy, Node, Peer, Peers, Pod, PortName, PortSpec,
    Ports, Protocol, Rule, Selector, Snapshot,
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

/// Who is at an address: a pod, with the labels of its namespace, or else the nodes that have it.
#[derive(Clone, Debug)]
pub(super) enum Occupant<'s> {
    Pod(&'s Pod, Labels),
    Nodes(Vec<&'s Node>),
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
                let (mut members, mut blocks) = (BTreeSet::new(), Vec::new());
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
                            blocks.push(Addresses::of(cidr, except));
                        }
                    }
                }
                Who::Some(members, blocks.into_iter().collect())
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
        let (mut members, mut networks) = (BTreeSet::new(), Vec::new());
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
                    networks.extend(blocks.iter().map(|block| Addresses::of(block, &[])));
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
            who: Who::Some(members, networks.into_iter().collect()),
            at,
            action: rule.action,
            by,
        })
    }

    /// The same for packets to the pod's own node, at whatever address of it: nothing where they cannot be meant. No pods are
    /// there, and what may mean a node of unknown labels is decided on the side of denying.
    pub(super) fn at_own_node(mut self, node: Option<&Node>) -> Vec<Self> {
        if let Where::Some { numbers, named } = &mut self.at {
            named.clear();
            if numbers.is_empty() {
                return Vec::new();
            }
        }
        let Who::Some(members, networks) = &mut self.who else {
            return vec![self];
        };
        let members = std::mem::take(members);
        let has_networks = Family::BOTH.iter().any(|it| !networks.is_empty(*it));
        let mut nodes = members.iter().filter_map(Member::nodes).peekable();
        let may_mean = node.is_none() && nodes.peek().is_some();
        let means = |selector: &Selector| {
            node.map_or(selector.is_everything(), |it| selector.matches(&it.labels))
        };
        if nodes.any(means) {
            self.who = Who::Anyone;
            return vec![self];
        }
        let closed = (may_mean && self.action != Action::Accept).then(|| Self {
            who: Who::Anyone,
            action: Action::Deny,
            ..self.clone()
        });
        let written = has_networks.then_some(self);
        written.into_iter().chain(closed).collect()
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
    /// Which nodes are meant, where it is nodes, not pods.
    pub(super) fn nodes(&self) -> Option<&Selector> {
        match self {
            Self::Nodes(selector) => Some(selector),
            Self::PodsOf(..) | Self::PodsIn { .. } | Self::PodsAt(_) | Self::Pods => None,
        }
    }

    /// Whether who is at an address is meant.
    pub(super) fn means(&self, address: IpAddr, occupant: &Occupant<'_>) -> bool {
        match (self, occupant) {
            (Self::PodsOf(namespace, pods), Occupant::Pod(pod, _)) => {
                namespace == pod.namespace() && pods.matches(&pod.labels)
            }
            (Self::PodsIn { namespaces, pods }, Occupant::Pod(pod, labels)) => {
                pods.matches(&pod.labels) && namespaces.matches(labels)
            }
            (Self::PodsAt(addresses), Occupant::Pod(..)) => addresses.contains(address),
            (Self::Pods, Occupant::Pod(..)) => true,
            (Self::Nodes(selector), Occupant::Nodes(nodes)) => {
                nodes.iter().any(|node| selector.matches(&node.labels))
            }
            (Self::Nodes(_), Occupant::Pod(..)) | (_, Occupant::Nodes(_)) => false,
        }
    }

    /// Whether some pods of a namespace may be meant.
    pub(super) fn may_mean_of(&self, namespace: &NamespaceState) -> bool {
        match self {
            Self::PodsOf(name, _) => name == namespace.name(),
            Self::PodsIn { namespaces, .. } => namespaces.matches(namespace.labels()),
            Self::PodsAt(_) | Self::Pods => true,
            Self::Nodes(_) => false,
        }
    }

    /// Whether pods with some labels may be meant, of namespaces of which some are.
    pub(super) fn may_mean_with(&self, labels: &Labels) -> bool {
        match self {
            Self::PodsOf(_, pods) | Self::PodsIn { pods, .. } => pods.matches(labels),
            Self::PodsAt(_) | Self::Pods => true,
            Self::Nodes(_) => false,
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
    pub(super) fn elements_at(
        &self,
        address: IpAddr,
        occupant: &Occupant<'_>,
    ) -> BTreeSet<Element> {
        if self.member.means(address, occupant) {
            self.of_occupant(address, occupant.pod()).collect()
        } else {
            BTreeSet::new()
        }
    }

    /// What the address of a member is in the set.
    fn of_occupant<'a>(
        &'a self,
        address: IpAddr,
        pod: Option<&'a Pod>,
    ) -> impl Iterator<Item = Element> + 'a {
        let plain = self.named.is_none().then_some(Element::Address(address));
        let named = self.named.as_ref().zip(pod);
        let ports = named.into_iter().flat_map(move |((name, protocol), pod)| {
            let ports = pod.ports_named(name, *protocol);
            ports.map(move |port| Element::AddressPort(address, port))
        });
        plain.into_iter().chain(ports)
    }
}

// === impl Occupant ===

impl<'s> Occupant<'s> {
    /// Of several pods that claim an address, one is taken to have it, as everywhere.
    pub(super) fn of(address: IpAddr, snapshot: &'s Snapshot) -> Self {
        match snapshot.pod_at(address) {
            Some(pod) => Self::Pod(pod, snapshot.namespace_labels(pod.namespace())),
            None => Self::Nodes(snapshot.nodes_at(address).collect()),
        }
    }

    pub(super) fn pod(&self) -> Option<&'s Pod> {
        match self {
            Self::Pod(pod, _) => Some(pod),
            Self::Nodes(_) => None,
        }
    }
}
