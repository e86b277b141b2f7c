//! One record, whatever its format, before it is known whether anything in it is new.
//!
//! A file has far fewer ends than records. So a record is read into pieces of its own text ([`Line`]), and only an
//! [`End`] that was not met before in the block becomes an [`Actor`], with labels and names.

use std::net::IpAddr;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::netpol::labels::{Labels, key_problem, value_problem};
use crate::netpol::name::{dns_label_problem, dns_subdomain_problem};
use crate::netpol::net::parse_address;
use crate::netpol::replay::{Action, Actor, PodActor, Seen};
use crate::netpol::{NamespaceName, NodeName, ObjectName, Port, Protocol, WorkloadKind};

use super::hubble;

/// What a record says, in pieces of its text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    pub(super) from: End<'a>,
    pub(super) to: End<'a>,
    pub(super) protocol: Protocol,
    pub(super) port: Port,
    pub(super) action: Action,
    pub(super) seen: Seen,
    pub(super) flows: u64,
}

/// A record that was read.
#[derive(Clone, Copy, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "most are flows, and none is kept"
)]
pub(super) enum Read<'a> {
    /// A flow.
    Flow(Line<'a>),
    /// Something else.
    Skip(Skip),
}

/// Why a record is passed over: it is no flow that a NetworkPolicy speaks of, or one that is told of elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Skip {
    /// A packet of a reply: it belongs to the connection that it answers.
    Reply,
    /// A packet of which the record does not say whether it opens a connection or answers.
    UnknownDirection,
    /// A protocol without ports, such as ICMP.
    OtherProtocol,
    /// An agent tells that a policy on trial would let a flow pass, and tells beside it that it was denied.
    Repeated,
    /// A request of an application protocol; its connection is a record of its own.
    Request,
    /// Dropped, but not by a policy.
    OtherDrop,
    /// No verdict on a flow: an event of a socket or of tracing.
    NoVerdict,
    /// An event of the recorder itself.
    Event,
    /// The recorder tells that it lost events here.
    Lost,
}

/// One end of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum End<'a> {
    /// An endpoint of Hubble, as it stands there.
    Hubble(hubble::Raw<'a>),
    /// Of the other formats.
    Fields(Fields<'a>),
}

/// What a record says of an end; empty is what it does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Fields<'a> {
    pub(super) namespace: &'a str,
    pub(super) pod: &'a str,
    pub(super) kind: &'a str,
    pub(super) workload: &'a str,
    pub(super) labels: Pairs<'a>,
    pub(super) address: &'a str,
    pub(super) node: &'a str,
    /// Why the end cannot be known, where the record is of a kind that does not tell.
    pub(super) unknown: &'static str,
}

/// Labels as they stand in a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Pairs<'a> {
    /// The record does not say them.
    #[default]
    Unsaid,
    /// A JSON object of texts.
    Map(&'a str),
    /// A JSON list of `key=value`.
    List(&'a str),
    /// `key=value;key=value`.
    Text(&'a str),
}

// === impl Skip ===

impl Skip {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reply => "replies",
            Self::UnknownDirection => "packets that may be replies",
            Self::OtherProtocol => "of a protocol without ports, such as ICMP",
            Self::Repeated => "told of as denied too",
            Self::Request => "requests of application protocols",
            Self::OtherDrop => "dropped, but not by a policy",
            Self::NoVerdict => "without a verdict",
            Self::Event => "events of the recorder",
            Self::Lost => "notices of lost events",
        }
    }
}

// === impl End ===

impl End<'_> {
    /// Who it is; an error for a record that is broken.
    pub(super) fn actor(&self) -> Result<Actor, String> {
        match self {
            Self::Hubble(raw) => raw.actor(),
            Self::Fields(fields) => fields.actor(),
        }
    }
}

// === impl Fields ===

impl Fields<'_> {
    fn actor(&self) -> Result<Actor, String> {
        if !self.unknown.is_empty() {
            return Ok(Actor::Unknown(self.unknown.to_owned()));
        }
        let address = match self.address {
            "" => None,
            text => Some(address(text)?),
        };
        if !self.node.is_empty() {
            return Ok(Actor::Node {
                name: NodeName::from(self.node),
                address,
            });
        }
        if !self.namespace.is_empty() {
            let kind = match self.kind {
                "" => None,
                kind => Some(self::kind(kind)?),
            };
            return pod(Pod {
                namespace: self.namespace,
                namespace_labels: None,
                name: self.pod,
                workload: Some((kind, self.workload)).filter(|(_, name)| !name.is_empty()),
                labels: self.labels.read()?,
                address,
                node: None,
            });
        }
        if !self.pod.is_empty() || !self.workload.is_empty() {
            return Err("a pod or workload without its namespace".to_owned());
        }
        Ok(match address {
            Some(address) => Actor::Address(address),
            None => Actor::Unknown("the record names neither a pod nor an address".to_owned()),
        })
    }
}

/// What is said of a pod, in texts.
pub(super) struct Pod<'a> {
    pub(super) namespace: &'a str,
    pub(super) namespace_labels: Option<Labels>,
    pub(super) name: &'a str,
    pub(super) workload: Option<(Option<WorkloadKind>, &'a str)>,
    pub(super) labels: Option<Labels>,
    pub(super) address: Option<IpAddr>,
    pub(super) node: Option<&'a str>,
}

/// A pod whose names are names.
pub(super) fn pod(said: Pod<'_>) -> Result<Actor, String> {
    let check = |name: &str, problem: Option<&str>| match problem {
        Some(problem) => Err(format!("{name:?}: {problem}")),
        None => Ok(()),
    };
    check(said.namespace, dns_label_problem(said.namespace))?;
    let names = [said.name, said.workload.map_or("", |(_, name)| name)];
    for name in names.into_iter().filter(|name| !name.is_empty()) {
        // Several pods of one template are `name-*`.
        let plain = name
            .strip_suffix("-*")
            .or(name.strip_suffix('*'))
            .unwrap_or(name);
        check(name, dns_subdomain_problem(plain))?;
    }
    Ok(Actor::Pod(PodActor {
        namespace: NamespaceName::from(said.namespace),
        namespace_labels: said.namespace_labels,
        name: Some(ObjectName::from(said.name)).filter(|name| !name.as_str().is_empty()),
        workload: said
            .workload
            .map(|(kind, name)| (kind, ObjectName::from(name))),
        labels: said.labels,
        address: said.address,
        node: said.node.map(NodeName::from),
    }))
}

/// What is wrong with a line of JSON, with its column: the number of the line is known elsewhere.
pub(super) fn wrong_json(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    format!("column {}: {what}", error.column())
}

/// Reads an address.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    parse_address(text).map_err(|error| format!("{text:?}: {error}"))
}

fn kind(text: &str) -> Result<WorkloadKind, String> {
    let known = WorkloadKind::ALL
        .into_iter()
        .find(|kind| kind.as_str() == text);
    known.ok_or_else(|| format!("{text:?} is no kind of workload, such as Deployment"))
}

/// Reads the name of a protocol, or its number; none for one that has no ports.
///
/// <https://www.iana.org/assignments/protocol-numbers/>
pub(super) fn protocol(text: &str) -> Result<Option<Protocol>, String> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" | "6" => Ok(Some(Protocol::Tcp)),
        "udp" | "17" => Ok(Some(Protocol::Udp)),
        "sctp" | "132" => Ok(Some(Protocol::Sctp)),
        "icmp" | "icmpv4" | "icmp6" | "icmpv6" => Ok(None),
        number if number.parse::<u8>().is_ok() => Ok(None),
        _ => Err(format!("{text:?} is no protocol, such as TCP")),
    }
}

/// Reads a port number.
pub(super) fn port(number: u64) -> Result<Port, String> {
    let port = u16::try_from(number).ok().and_then(Port::new);
    port.ok_or_else(|| format!("{number} is no port"))
}

// === impl Pairs ===

impl<'a> Pairs<'a> {
    /// The labels in a JSON value, which may be null.
    pub(super) fn map(raw: Option<&'a RawValue>) -> Self {
        present(raw).map_or(Self::Unsaid, Self::Map)
    }

    /// The labels, where they are said.
    pub(super) fn read(self) -> Result<Option<Labels>, String> {
        let wrong = |error: serde_json::Error| format!("labels: {}", wrong_json(&error));
        match self {
            Self::Unsaid => Ok(None),
            Self::Map(text) => {
                let map: std::collections::BTreeMap<String, String> =
                    serde_json::from_str(text).map_err(wrong)?;
                checked(
                    map.iter()
                        .map(|(key, value)| (key.as_str(), value.as_str())),
                )
                .map(Some)
            }
            Self::List(text) => {
                let list: Vec<String> = serde_json::from_str(text).map_err(wrong)?;
                pairs(list.iter().map(String::as_str)).map(Some)
            }
            Self::Text(text) => pairs(text.split(';')).map(Some),
        }
    }
}

/// The text of a JSON value that is there and not null.
pub(super) fn present(raw: Option<&RawValue>) -> Option<&str> {
    raw.map(RawValue::get).filter(|text| *text != "null")
}

fn pairs<'p>(list: impl Iterator<Item = &'p str>) -> Result<Labels, String> {
    let pairs = list.map(str::trim).filter(|pair| !pair.is_empty());
    let pairs: Result<Vec<(&str, &str)>, String> = pairs
        .map(|pair| {
            pair.split_once('=')
                .ok_or_else(|| format!("{pair:?} is no label: key=value"))
        })
        .collect();
    checked(pairs?.into_iter())
}

/// Labels that can be labels.
pub(super) fn checked<'p>(
    pairs: impl Iterator<Item = (&'p str, &'p str)>,
) -> Result<Labels, String> {
    let checked: Result<Vec<(&str, &str)>, String> = pairs
        .map(
            |(key, value)| match key_problem(key).or(value_problem(value)) {
                Some(problem) => Err(format!("{:?}: {problem}", format!("{key}={value}"))),
                None => Ok((key, value)),
            },
        )
        .collect();
    Ok(checked?.into_iter().collect())
}
