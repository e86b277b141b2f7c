//! Protocols and ports: those that a pod has, and those that a rule allows.

use std::fmt;
use std::num::NonZeroU16;

use serde::{Serialize, Serializer};

use super::field::Place;
use super::name::PortName;
use super::problem::{Problems, Quoted};

/// The protocols that NetworkPolicy speaks about.
///
/// <https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.36/#networkpolicyport-v1-networking-k8s-io>
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Protocol {
    /// What is meant where none is said.
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    /// User Datagram Protocol.
    #[serde(rename = "UDP")]
    Udp,
    /// Stream Control Transmission Protocol.
    #[serde(rename = "SCTP")]
    Sctp,
}

/// A port number, 1 to 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(NonZeroU16);

/// A text or number that is no port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a port number between 1 and 65535")]
pub struct PortError;

/// A port that a container says it listens on; only named ones change what a policy means.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ContainerPort {
    /// Its name, by which policies and services may call it.
    pub name: Option<PortName>,
    /// Its number in the pod.
    pub port: Port,
    /// Its protocol.
    pub protocol: Protocol,
}

/// One entry of a rule's `ports`: the flows of a protocol to some ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct PortMatch {
    /// The protocol; already TCP where none was said.
    pub protocol: Protocol,
    /// The ports of that protocol.
    pub port: PortSpec,
}

/// Which ports of a protocol are meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum PortSpec {
    /// Every port: no `port` was given.
    Any,
    /// This number.
    Number(Port),
    /// These numbers, both ends among them; the first is never greater than the last.
    Range(Port, Port),
    /// Whatever number a container of the destination pod gives to this name.
    Named(PortName),
}

impl Protocol {
    /// All of them.
    pub const ALL: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

    /// The name of it in the API: `TCP`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }

    /// The protocol of a name in the API, which are in capitals only.
    pub fn from_api(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|protocol| protocol.as_str() == name)
    }

    /// Reads the protocol of an object; TCP where it is absent.
    pub(super) fn read(
        name: Option<&str>,
        at: &Place<'_>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let Some(name) = name else {
            return Some(Self::default());
        };
        let protocol = Self::from_api(name);
        if protocol.is_none() {
            problems.add(at, format!("{} is not TCP, UDP or SCTP", Quoted(name)));
        }
        protocol
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Port {
    /// The port of a number; none for 0.
    pub fn new(number: u16) -> Option<Self> {
        NonZeroU16::new(number).map(Self)
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0.get()
    }

    /// The port of a number of the API, where any 32-bit number may stand.
    pub(super) fn from_api(number: i32) -> Result<Self, PortError> {
        u16::try_from(number)
            .ok()
            .and_then(Self::new)
            .ok_or(PortError)
    }

    /// Reads the port number of an object.
    pub(super) fn read(number: i32, at: &Place<'_>, problems: &mut Problems) -> Option<Self> {
        Self::from_api(number)
            .inspect_err(|reason| problems.add(at, format!("{number}: {reason}")))
            .ok()
    }
}

impl TryFrom<u16> for Port {
    type Error = PortError;

    fn try_from(number: u16) -> Result<Self, PortError> {
        Self::new(number).ok_or(PortError)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Serialize for Port {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(self.get())
    }
}

impl PortSpec {
    /// Whether a number is meant; none of a name, which each destination has a number for.
    pub fn has_number(&self, number: Port) -> Option<bool> {
        match self {
            Self::Any => Some(true),
            Self::Number(port) => Some(*port == number),
            Self::Range(first, last) => Some((*first..=*last).contains(&number)),
            Self::Named(_) => None,
        }
    }
}

impl fmt::Display for PortMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.port {
            PortSpec::Any => write!(f, "{} any port", self.protocol),
            PortSpec::Number(port) => write!(f, "{} {port}", self.protocol),
            PortSpec::Range(first, last) => write!(f, "{} {first}-{last}", self.protocol),
            PortSpec::Named(name) => write!(f, "{} {name}", self.protocol),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_never_zero() {
        assert_eq!(Port::new(0), None);
        assert_eq!(Port::new(65535).map(Port::get), Some(65535));
        for bad in [0, -1, 65536, i32::MAX] {
            assert_eq!(Port::from_api(bad), Err(PortError), "{bad}");
        }
    }

    #[test]
    fn protocols_are_known_by_their_capital_names_only() {
        assert_eq!(Protocol::from_api("SCTP"), Some(Protocol::Sctp));
        for bad in ["", "tcp", "ICMP"] {
            assert_eq!(Protocol::from_api(bad), None, "{bad}");
        }
    }
}
