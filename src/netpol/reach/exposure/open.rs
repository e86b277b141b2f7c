//! Ports of which some are known by name only: a newcomer may give the name to any number.
//!
//! A name stands for a number that no rule speaks of, and numbers for ports without a name.

use std::collections::BTreeSet;
use std::fmt;

use crate::netpol::cluster_policy::{ClusterPort, ClusterPorts};
use crate::netpol::name::PortName;
use crate::netpol::policy::Ports;
use crate::netpol::port::{ContainerPort, PortMatch, PortSpec, Protocol};
use crate::netpol::reach::said::SetOfPorts;
use crate::netpol::reach::{PortRange, PortSet};

/// Ports, some by numbers that nobody knows yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpenPorts {
    /// Those whose numbers are known.
    pub ports: PortSet,
    /// The names that a newcomer may give to ports of its own.
    pub named: BTreeSet<(Protocol, PortName)>,
}

/// What the names of ports stand for.
#[derive(Clone, Debug)]
pub(super) enum Names<'n> {
    /// For what the containers of a pod say.
    Of(&'n [ContainerPort]),
    /// For whatever a newcomer calls so; these are the names that rules use.
    Anything(BTreeSet<(Protocol, PortName)>),
}

impl OpenPorts {
    /// Whether there is no port in it.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.named.is_empty()
    }

    pub(super) fn is_within(&self, other: &OpenPorts) -> bool {
        self.without(other).is_empty()
    }

    /// The same without names for what all numbers are open at.
    pub(super) fn in_short(mut self) -> OpenPorts {
        self.named
            .retain(|(protocol, _)| !has_all(&self.ports, *protocol));
        self
    }
}

impl SetOfPorts for OpenPorts {
    fn or(&self, other: &OpenPorts) -> OpenPorts {
        Self {
            ports: self.ports.or(&other.ports),
            named: &self.named | &other.named,
        }
    }

    fn and(&self, other: &OpenPorts) -> OpenPorts {
        Self {
            ports: self.ports.and(&other.ports),
            named: &self.named & &other.named,
        }
    }

    fn without(&self, other: &OpenPorts) -> OpenPorts {
        Self {
            ports: self.ports.without(&other.ports),
            named: self.named.difference(&other.named).cloned().collect(),
        }
    }
}

// === impl Names ===

impl Names<'_> {
    /// Every port.
    pub(super) fn everything(&self) -> OpenPorts {
        self.with_names(PortSet::all())
    }

    /// The ports of a rule of a network policy.
    pub(super) fn of(&self, ports: &Ports) -> OpenPorts {
        let Ports::Only(ports) = ports else {
            return self.everything();
        };
        let mut open = self.numbers(ports.iter());
        for port in ports {
            if let PortSpec::Named(name) = &port.port {
                open = open.or(&self.called(name, port.protocol));
            }
        }
        open
    }

    /// The ports of a rule of a cluster network policy.
    pub(super) fn of_cluster(&self, ports: &ClusterPorts) -> OpenPorts {
        let ClusterPorts::Only(ports) = ports else {
            return self.everything();
        };
        let mut open = self.numbers(ports.iter().filter_map(|port| match port {
            ClusterPort::Numbered(port) => Some(port),
            ClusterPort::Named(_) => None,
        }));
        for port in ports {
            if let ClusterPort::Named(name) = port {
                for protocol in Protocol::ALL {
                    open = open.or(&self.called(name, protocol));
                }
            }
        }
        open
    }

    fn numbers<'p>(&self, ports: impl Iterator<Item = &'p PortMatch>) -> OpenPorts {
        self.with_names(ports.filter_map(PortRange::of).collect())
    }

    fn called(&self, name: &PortName, protocol: Protocol) -> OpenPorts {
        let mut open = OpenPorts::default();
        match self {
            Self::Of(ports) => {
                let own = ports
                    .iter()
                    .filter(|port| port.protocol == protocol && port.name.as_ref() == Some(name));
                open.ports = own.map(PortRange::of_container).collect();
            }
            Self::Anything(_) => {
                open.named.insert((protocol, name.clone()));
            }
        }
        open
    }

    /// Numbers, with every name of the protocols of which they are all.
    fn with_names(&self, ports: PortSet) -> OpenPorts {
        let named = match self {
            Self::Of(_) => BTreeSet::new(),
            Self::Anything(names) => {
                let all = names.iter();
                let all = all.filter(|(protocol, _)| has_all(&ports, *protocol));
                all.cloned().collect()
            }
        };
        OpenPorts { ports, named }
    }
}

/// Whether every port of a protocol is in a set.
fn has_all(ports: &PortSet, protocol: Protocol) -> bool {
    let all = PortRange {
        protocol,
        first: 1,
        last: u16::MAX,
    };
    ports.ranges().any(|range| range == all)
}

impl fmt::Display for OpenPorts {
    /// As in `TCP 80, UDP 53 and what it calls TCP web`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.ports.is_empty() || self.named.is_empty() {
            self.ports.fmt(f)?;
        }
        let names = self.named.iter();
        let names: Vec<String> = names
            .map(|(protocol, name)| format!("{protocol} {name}"))
            .collect();
        if names.is_empty() {
            return Ok(());
        }
        let and = if self.ports.is_empty() { "" } else { " and " };
        write!(f, "{and}what it calls {}", names.join(", "))
    }
}
