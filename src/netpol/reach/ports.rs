//! Sets of ports of all protocols, and how they are written.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::netpol::port::{ContainerPort, Port, PortMatch, PortSpec, Protocol};
use crate::netpol::spans::{self, Span};

/// The last port that there is.
const LAST: u32 = 0xffff;
/// How far the numbers of one protocol are from those of the next; port 0 of each stays unused, so that no span
/// reaches from one protocol into another.
const STRIDE: u32 = 0x1_0000;

/// A set of (protocol, port), in ranges; equal sets are equal values.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortSet(Arc<[Span<u32>]>);

/// A range of ports of one protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// The protocol.
    pub protocol: Protocol,
    /// The first port.
    pub first: u16,
    /// The last one.
    pub last: u16,
}

impl PortRange {
    /// The numbers that an entry of a rule has; none where it has a name, which each destination has numbers for.
    pub(in crate::netpol) fn of(entry: &PortMatch) -> Option<Self> {
        let (first, last) = match &entry.port {
            PortSpec::Any => (1, u16::MAX),
            PortSpec::Number(port) => (port.get(), port.get()),
            PortSpec::Range(first, last) => (first.get(), last.get()),
            PortSpec::Named(_) => return None,
        };
        Some(Self {
            protocol: entry.protocol,
            first,
            last,
        })
    }

    /// The one port of a container.
    pub(in crate::netpol) fn of_container(port: &ContainerPort) -> Self {
        Self {
            protocol: port.protocol,
            first: port.port.get(),
            last: port.port.get(),
        }
    }
}

impl PortSet {
    /// No port at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// Every port of every protocol.
    pub fn all() -> Self {
        Protocol::ALL
            .into_iter()
            .map(|protocol| PortRange {
                protocol,
                first: 1,
                last: u16::MAX,
            })
            .collect()
    }

    /// One port.
    pub fn one(protocol: Protocol, port: Port) -> Self {
        let port = port.get();
        [PortRange {
            protocol,
            first: port,
            last: port,
        }]
        .into_iter()
        .collect()
    }

    /// Whether there is no port in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every port of every protocol is in it.
    pub fn is_all(&self) -> bool {
        *self == Self::all()
    }

    /// Whether a port is in it.
    pub fn contains(&self, protocol: Protocol, port: Port) -> bool {
        spans::contains(
            &self.0,
            offset(protocol).saturating_add(u32::from(port.get())),
        )
    }

    /// What is in one of the two.
    #[must_use]
    pub fn or(&self, other: &PortSet) -> PortSet {
        if other.0.is_empty() || self.0 == other.0 {
            return self.clone();
        }
        if self.0.is_empty() {
            return other.clone();
        }
        Self(spans::joined(self.0.iter().chain(&*other.0).copied().collect()).into())
    }

    /// What is in both.
    #[must_use]
    pub fn and(&self, other: &PortSet) -> PortSet {
        if self.0 == other.0 {
            return self.clone();
        }
        Self(spans::common(&self.0, &other.0).into())
    }

    /// What is in this one and not in the other.
    #[must_use]
    pub fn without(&self, other: &PortSet) -> PortSet {
        if self.0.is_empty() || other.0.is_empty() {
            return self.clone();
        }
        Self(spans::less(&self.0, &other.0).into())
    }

    /// Its ranges, those of TCP first, then UDP, then SCTP.
    pub fn ranges(&self) -> impl Iterator<Item = PortRange> {
        self.0.iter().filter_map(|(first, last)| {
            let protocol = Protocol::ALL
                .into_iter()
                .rfind(|protocol| offset(*protocol) <= *first)?;
            Some(PortRange {
                protocol,
                first: u16::try_from(first & LAST).ok()?,
                last: u16::try_from(last & LAST).ok()?,
            })
        })
    }
}

impl FromIterator<PortRange> for PortSet {
    fn from_iter<I: IntoIterator<Item = PortRange>>(ranges: I) -> Self {
        let spans = ranges.into_iter().map(|range| {
            let at = |port: u16| offset(range.protocol).saturating_add(u32::from(port));
            (at(range.first.max(1)), at(range.last))
        });
        let spans = spans.filter(|(first, last)| first <= last).collect();
        Self(spans::joined(spans).into())
    }
}

impl PortRange {
    /// The ports as a text: `9000`, `80-90` or `all`.
    pub fn ports(&self) -> String {
        match (self.first, self.last) {
            (1, u16::MAX) => "all".to_owned(),
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol, self.ports())
    }
}

impl fmt::Display for PortSet {
    /// As in `TCP 80,443, UDP all`; `all ports` and `no port` where there is nothing to name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("no port");
        }
        if self.is_all() {
            return f.write_str("all ports");
        }
        let mut before = None;
        for range in self.ranges() {
            if before == Some(range.protocol) {
                write!(f, ",{}", range.ports())?;
            } else {
                let comma = if before.is_some() { ", " } else { "" };
                write!(f, "{comma}{range}")?;
            }
            before = Some(range.protocol);
        }
        Ok(())
    }
}

impl Serialize for PortRange {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut range = serializer.serialize_struct("PortRange", 2)?;
        range.serialize_field("protocol", &self.protocol)?;
        range.serialize_field("ports", &self.ports())?;
        range.end()
    }
}

impl Serialize for PortSet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.ranges())
    }
}

fn offset(protocol: Protocol) -> u32 {
    match protocol {
        Protocol::Tcp => 0,
        Protocol::Udp => STRIDE,
        Protocol::Sctp => STRIDE.saturating_mul(2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(protocol: Protocol, first: u16, last: u16) -> PortRange {
        PortRange {
            protocol,
            first,
            last,
        }
    }

    #[test]
    fn ports_of_one_protocol_never_run_into_the_next() {
        let ends: PortSet = [
            range(Protocol::Tcp, 65535, 65535),
            range(Protocol::Udp, 1, 1),
        ]
        .into_iter()
        .collect();
        assert_eq!(ends.to_string(), "TCP 65535, UDP 1");
        assert_eq!(PortSet::all().ranges().count(), 3);
    }

    #[test]
    fn a_set_is_written_in_merged_ranges() {
        let set: PortSet = [
            range(Protocol::Tcp, 443, 443),
            range(Protocol::Tcp, 80, 85),
            range(Protocol::Tcp, 86, 90),
            range(Protocol::Udp, 1, 65535),
        ]
        .into_iter()
        .collect();
        assert_eq!(set.to_string(), "TCP 80-90,443, UDP all");
        assert_eq!(
            serde_json::to_value(&set).expect("JSON"),
            serde_json::json!([
                {"protocol": "TCP", "ports": "80-90"},
                {"protocol": "TCP", "ports": "443"},
                {"protocol": "UDP", "ports": "all"},
            ])
        );
        assert_eq!(PortSet::all().to_string(), "all ports");
        assert_eq!(PortSet::none().to_string(), "no port");
    }

    #[test]
    fn sets_meet_and_join() {
        let low: PortSet = [range(Protocol::Tcp, 1, 1024)].into_iter().collect();
        let web: PortSet = [
            range(Protocol::Tcp, 80, 80),
            range(Protocol::Tcp, 8080, 8080),
        ]
        .into_iter()
        .collect();
        assert_eq!(low.and(&web).to_string(), "TCP 80");
        assert_eq!(low.or(&web).to_string(), "TCP 1-1024,8080");
        assert_eq!(PortSet::all().and(&web), web);
        assert_eq!(low.without(&web).to_string(), "TCP 1-79,81-1024");
        assert!(web.without(&PortSet::all()).is_empty());
        assert!(PortSet::all().or(&web).is_all());
    }
}
