//! The ways through what holds a group: which pods of other namespaces it may let pass at all, and at which ports.
//!
//! Many groups have the same doors, so an index by door tells at once at whose a pod may pass: whoever has no door for it
//! need not be asked. A door says at least what passes, never less; what exactly passes is for [`Group::reaches`] to say.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{EVERY_PORT, Group, Holding, Opened};
use crate::netpol::cluster_policy::{ClusterPeer, ClusterPort, ClusterPorts, PodScope};
use crate::netpol::coverage::Direction;
use crate::netpol::policy::{NamespaceScope, Peer, Peers, Ports};
use crate::netpol::port::{ContainerPort, PortMatch, PortSpec, Protocol};
use crate::netpol::reach::{PortRange, PortSet};

/// One way through.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Door {
    who: Who,
    ports: At,
}

/// Who may pass.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Who {
    Anyone,
    Pods(PodScope),
    Block(IpNet),
}

/// At which ports of the destination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum At {
    Any,
    Network(Vec<PortMatch>),
    Cluster(Vec<ClusterPort>),
}

/// The ports of a destination that have names: what a name may stand for.
#[derive(Clone, Copy, Debug)]
enum Named<'p> {
    These(&'p [ContainerPort]),
    Unknown,
}

impl Group {
    /// The ways to its pods, or from them, for pods of other namespaces.
    pub fn doors(&self, direction: Direction) -> BTreeSet<Door> {
        let holding = self.holding(direction);
        let mut doors = BTreeSet::new();
        let mut add = |who: Who, ports: At| doors.insert(Door { who, ports });
        if holding.policies.is_empty() {
            add(Who::Anyone, At::Any);
        }
        for rule in holding.rules() {
            let ports = At::of(&rule.ports);
            match &rule.peers {
                Peers::Any => {
                    add(Who::Anyone, ports);
                }
                Peers::Only(peers) => {
                    for who in peers.iter().filter_map(Who::of) {
                        add(who, ports.clone());
                    }
                }
            }
        }
        for (peer, ports) in holding.wide.accepted() {
            let ports = match ports {
                ClusterPorts::Any => At::Any,
                ClusterPorts::Only(ports) => At::Cluster(ports.clone()),
            };
            match peer {
                ClusterPeer::Pods(scope) => {
                    add(Who::Pods(scope.clone()), ports);
                }
                ClusterPeer::Networks(blocks) => {
                    for block in blocks {
                        add(Who::Block(*block), ports.clone());
                    }
                }
                // None of these is a pod, as far as can be told.
                ClusterPeer::Nodes(_) | ClusterPeer::DomainNames(_) | ClusterPeer::Unknown(_) => {}
            }
        }
        doors
    }

    /// The ports at which more may pass at one of its doors than before, whoever is at the other end.
    pub fn ports_opened(&self, direction: Direction, opened: &Opened<'_>) -> PortSet {
        match opened {
            Opened::Nobody => PortSet::none(),
            Opened::Everyone => EVERY_PORT.clone(),
            Opened::By(rules) => {
                let named = match direction {
                    Direction::Ingress => Named::These(self.ports()),
                    Direction::Egress => Named::Unknown,
                };
                let ports = rules
                    .iter()
                    .map(|(_, rule)| At::of(&rule.ports).most(named));
                ports.fold(PortSet::none(), |all, ports| all.or(&ports))
            }
        }
    }

    fn ports(&self) -> &[ContainerPort] {
        self.pods().first().map_or(&[], |pod| &pod.ports)
    }
}

impl Holding {
    fn rules(&self) -> impl Iterator<Item = &crate::netpol::policy::Rule> {
        let policies = self.policies.iter();
        policies.flat_map(|policy| policy.rules(self.direction))
    }
}

impl Door {
    /// Whether some pod of a group may pass it.
    pub fn is_for(&self, other: &Group) -> bool {
        match &self.who {
            Who::Anyone => true,
            Who::Pods(scope) => scope.includes(other.labels(), other.namespace_labels()),
            Who::Block(block) => other.pods().iter().any(|pod| {
                // A pod that has no address yet may get any.
                pod.ips.is_empty() && block.prefix_len() == 0
                    || pod.ips.iter().any(|address| block.contains(address))
            }),
        }
    }

    /// The ports at which pods of a group may pass, where this is a door in a direction.
    pub fn ports_for(&self, other: &Group, direction: Direction) -> PortSet {
        self.ports.most(match direction {
            Direction::Ingress => Named::Unknown,
            Direction::Egress => Named::These(other.ports()),
        })
    }
}

// === impl Who ===

impl Who {
    /// Whom a peer means in other namespaces than that of its policy; none where it means nobody there.
    fn of(peer: &Peer) -> Option<Self> {
        match peer {
            Peer::Pods {
                namespaces: NamespaceScope::Own,
                ..
            } => None,
            Peer::Pods {
                namespaces: NamespaceScope::Selected(namespaces),
                pods,
            } => Some(Self::Pods(PodScope {
                namespaces: namespaces.clone(),
                pods: pods.clone(),
            })),
            Peer::Block { cidr, .. } => Some(Self::Block(*cidr)),
        }
    }
}

// === impl At ===

impl At {
    fn of(ports: &Ports) -> Self {
        match ports {
            Ports::Any => Self::Any,
            Ports::Only(ports) => Self::Network(ports.clone()),
        }
    }

    /// All ports that it can be, whatever a name that is not known stands for.
    fn most(&self, named: Named<'_>) -> PortSet {
        match self {
            Self::Any => EVERY_PORT.clone(),
            Self::Network(ports) => {
                let ranges = ports.iter().flat_map(|port| match &port.port {
                    PortSpec::Named(name) => named.ranges(&[port.protocol], |own| {
                        own.protocol == port.protocol && own.name.as_ref() == Some(name)
                    }),
                    PortSpec::Any | PortSpec::Number(_) | PortSpec::Range(..) => {
                        PortRange::of(port).into_iter().collect()
                    }
                });
                ranges.collect()
            }
            Self::Cluster(ports) => {
                let ranges = ports.iter().flat_map(|port| match port {
                    ClusterPort::Named(name) => {
                        named.ranges(&Protocol::ALL, |own| own.name.as_ref() == Some(name))
                    }
                    ClusterPort::Numbered(port) => PortRange::of(port).into_iter().collect(),
                });
                ranges.collect()
            }
        }
    }
}

// === impl Named ===

impl Named<'_> {
    /// The ports of which something holds; every one of some protocols where they are not known.
    fn ranges(
        self,
        protocols: &[Protocol],
        holds: impl Fn(&ContainerPort) -> bool,
    ) -> Vec<PortRange> {
        match self {
            Self::These(ports) => {
                let ports = ports.iter().filter(|port| holds(port));
                ports.map(PortRange::of_container).collect()
            }
            Self::Unknown => {
                let protocols = protocols.iter();
                let whole = |protocol: &Protocol| PortRange {
                    protocol: *protocol,
                    first: 1,
                    last: u16::MAX,
                };
                protocols.map(whole).collect()
            }
        }
    }
}
