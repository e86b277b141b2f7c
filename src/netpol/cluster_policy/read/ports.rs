//! To which ports a rule is.

use crate::netpol::cluster_policy::manifest::v1alpha1;
use crate::netpol::cluster_policy::{ClusterPort, manifest as api};
use crate::netpol::field::Place;
use crate::netpol::name::PortName;
use crate::netpol::port::{Port, PortMatch, PortSpec, Protocol};
use crate::netpol::problem::Problems;

use super::one_of;

/// An entry of a rule's ports.
pub(in crate::netpol) trait Entry {
    /// What the list of them is called.
    const LIST: &'static str;
    /// The field that has a name in place of a number.
    const NAME: &'static str;

    /// Reads it; none where it is not good.
    fn read(&self, at: &Place<'_>, problems: &mut Problems) -> Option<ClusterPort>;
}

impl Entry for api::Protocol {
    const LIST: &'static str = "protocols";
    const NAME: &'static str = "destinationNamedPort";

    fn read(&self, at: &Place<'_>, problems: &mut Problems) -> Option<ClusterPort> {
        let numbered = [
            ("tcp", Protocol::Tcp, &self.tcp),
            ("udp", Protocol::Udp, &self.udp),
            ("sctp", Protocol::Sctp, &self.sctp),
        ];
        let count = [
            self.tcp.is_some(),
            self.udp.is_some(),
            self.sctp.is_some(),
            self.destination_named_port.is_some(),
        ];
        let words = "tcp, udp, sctp or destinationNamedPort";
        one_of(&count, words, at, problems);
        if let Some(name) = &self.destination_named_port {
            return Some(ClusterPort::Named(PortName::from(name.as_str())));
        }
        let (key, protocol, numbers) =
            numbered.into_iter().find_map(|(key, protocol, numbers)| {
                numbers.as_ref().map(|numbers| (key, protocol, numbers))
            })?;
        let at = at.key(key);
        let at = at.key("destinationPort");
        let Some(port) = &numbers.destination_port else {
            problems.add(&at, "is missing");
            return None;
        };
        one_of(
            &[port.number.is_some(), port.range.is_some()],
            "number or range",
            &at,
            problems,
        );
        let spec = match (port.number, &port.range) {
            (Some(number), _) => PortSpec::Number(Port::read(number, &at.key("number"), problems)?),
            (None, Some(range)) => span(range.start, range.end, 1, &at.key("range"), problems)?,
            (None, None) => return None,
        };
        Some(ClusterPort::Numbered(PortMatch {
            protocol,
            port: spec,
        }))
    }
}

/// The schema of `v1alpha1` takes any text as a protocol and a range that ends before it begins. What its text rules out and nobody can
/// enforce is refused here all the same.
impl Entry for v1alpha1::Port {
    const LIST: &'static str = "ports";
    const NAME: &'static str = "namedPort";

    fn read(&self, at: &Place<'_>, problems: &mut Problems) -> Option<ClusterPort> {
        let count = [
            self.port_number.is_some(),
            self.named_port.is_some(),
            self.port_range.is_some(),
        ];
        one_of(&count, "portNumber, namedPort or portRange", at, problems);
        if let Some(name) = &self.named_port {
            return Some(ClusterPort::Named(PortName::from(name.as_str())));
        }
        let (protocol, port) = match (&self.port_number, &self.port_range) {
            (Some(number), _) => {
                let at = at.key("portNumber");
                let protocol = number.protocol.as_deref();
                let protocol = Protocol::read(protocol, &at.key("protocol"), problems);
                let at = at.key("port");
                let Some(port) = number.port else {
                    problems.add(&at, "is missing");
                    return None;
                };
                let port = Port::read(port, &at, problems);
                (protocol, port.map(PortSpec::Number))
            }
            (None, Some(range)) => {
                let at = at.key("portRange");
                let protocol = range.protocol.as_deref();
                let protocol = Protocol::read(protocol, &at.key("protocol"), problems);
                // The schema takes a range of one port, whatever the text says.
                let port = span(range.start, range.end, 0, &at, problems);
                (protocol, port)
            }
            (None, None) => return None,
        };
        Some(ClusterPort::Numbered(PortMatch {
            protocol: protocol?,
            port: port?,
        }))
    }
}

/// The numbers from `start` to `end`, which must be greater by `apart` at least.
fn span(
    start: Option<i32>,
    end: Option<i32>,
    apart: u16,
    at: &Place<'_>,
    problems: &mut Problems,
) -> Option<PortSpec> {
    let mut read = |number: Option<i32>, key: &str| {
        let Some(number) = number else {
            problems.add(&at.key(key), "is missing");
            return None;
        };
        Port::read(number, &at.key(key), problems)
    };
    let (start, end) = (read(start, "start"), read(end, "end"));
    let (start, end) = (start?, end?);
    if end.get() < start.get().saturating_add(apart) {
        let or_equal = if apart == 0 { "or equal to " } else { "" };
        let reason = format!("must be greater than {or_equal}the start {start}");
        problems.add(&at.key("end"), reason);
        return None;
    }
    Some(PortSpec::Range(start, end))
}
