//! The ports that rules ask for: numbers, and names that each destination has its own numbers for.

use std::collections::BTreeSet;

use crate::netpol::cluster_policy::{ClusterPort, ClusterPorts};
use crate::netpol::name::PortName;
use crate::netpol::policy::{Ports, Rule};
use crate::netpol::port::{PortSpec, Protocol};
use crate::netpol::reach::{PortRange, PortSet};

/// The ports of some rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wanted<'s> {
    pub(super) numbers: PortSet,
    names: BTreeSet<(&'s PortName, Protocol)>,
}

impl<'s> Wanted<'s> {
    /// Every port of every protocol.
    pub(super) fn all() -> Self {
        Self {
            numbers: PortSet::all(),
            names: BTreeSet::new(),
        }
    }

    /// What rules of network policies ask for, all together.
    pub(super) fn of(rules: impl IntoIterator<Item = &'s Rule>) -> Self {
        let mut ranges = Vec::new();
        let mut wanted = Self::default();
        for rule in rules {
            let Ports::Only(ports) = &rule.ports else {
                wanted.numbers = PortSet::all();
                continue;
            };
            for port in ports {
                ranges.extend(PortRange::of(port));
                if let PortSpec::Named(name) = &port.port {
                    wanted.names.insert((name, port.protocol));
                }
            }
        }
        wanted.numbers = wanted.numbers.or(&ranges.into_iter().collect());
        wanted
    }

    /// What a rule of a cluster network policy asks for; its names are of any protocol.
    pub(super) fn of_cluster(ports: &'s ClusterPorts) -> Self {
        let ClusterPorts::Only(ports) = ports else {
            return Self::all();
        };
        let mut wanted = Self::default();
        let mut ranges = Vec::new();
        for port in ports {
            match port {
                ClusterPort::Numbered(port) => ranges.extend(PortRange::of(port)),
                ClusterPort::Named(name) => wanted
                    .names
                    .extend(Protocol::ALL.map(|protocol| (name, protocol))),
            }
        }
        wanted.numbers = ranges.into_iter().collect();
        wanted
    }

    /// Whether some of these ports may be among the others.
    pub(super) fn meets(&self, other: &Wanted<'_>) -> bool {
        !self.numbers.and(&other.numbers).is_empty()
            || self
                .names
                .iter()
                .any(|name| other.names.contains(name) || other.has_all(name.1))
    }

    /// Whether none of these ports can be among the others, whatever number a name stands for.
    pub(super) fn is_apart(&self, other: &Wanted<'_>) -> bool {
        self.names.is_empty()
            && other.names.is_empty()
            && self.numbers.and(&other.numbers).is_empty()
    }

    /// Whether all of these ports are among the others.
    pub(super) fn is_within(&self, other: &Wanted<'_>) -> bool {
        self.numbers.and(&other.numbers) == self.numbers
            && self
                .names
                .iter()
                .all(|name| other.names.contains(name) || other.has_all(name.1))
    }

    /// Whether every port of a protocol is among the numbers.
    pub(super) fn has_all(&self, protocol: Protocol) -> bool {
        let all = PortRange {
            protocol,
            first: 1,
            last: u16::MAX,
        };
        self.numbers.ranges().any(|range| range == all)
    }
}

/// All of them together.
impl<'w, 's: 'w> FromIterator<&'w Wanted<'s>> for Wanted<'s> {
    fn from_iter<I: IntoIterator<Item = &'w Wanted<'s>>>(parts: I) -> Self {
        let (mut ranges, mut names) = (Vec::new(), BTreeSet::new());
        for part in parts {
            ranges.extend(part.numbers.ranges());
            names.extend(&part.names);
        }
        Self {
            numbers: ranges.into_iter().collect(),
            names,
        }
    }
}
