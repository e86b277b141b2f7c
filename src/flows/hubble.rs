//! Records of Cilium Hubble: what `hubble observe -o jsonpb` prints and its exporter writes, a JSON object a line.
//!
//! The fields are those of the `Flow` message, <https://docs.cilium.io/en/stable/_api/v1/flow/README/>; it may stand in
//! `flow` of an export event. Labels are those that make up the identity, `k8s:key=value`; reserved identities are
//! `reserved:name`.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::line::{self, End, Line, Pod, Read, Skip, checked};
use crate::netpol::replay::{Action, Actor, Seen};
use crate::netpol::{NodeName, Protocol, WorkloadKind};

/// An endpoint as it stands in the record, with what else makes it what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Raw<'a> {
    endpoint: &'a str,
    address: &'a str,
    /// Where it was seen, if that is the node that one of the ends is itself.
    node: &'a str,
}

#[derive(Debug, Deserialize)]
struct Flow<'a> {
    #[serde(borrow, rename = "flow")]
    inner: Option<Box<Flow<'a>>>,
    lost_events: Option<IgnoredAny>,
    node_status: Option<IgnoredAny>,
    agent_event: Option<IgnoredAny>,
    debug_event: Option<IgnoredAny>,
    verdict: Option<&'a str>,
    drop_reason: Option<u32>,
    drop_reason_desc: Option<&'a str>,
    #[serde(rename = "IP")]
    ip: Option<Ip<'a>>,
    l4: Option<Layer4>,
    #[serde(borrow)]
    source: Option<&'a RawValue>,
    #[serde(borrow)]
    destination: Option<&'a RawValue>,
    #[serde(rename = "Type")]
    kind: Option<&'a str>,
    node_name: Option<&'a str>,
    reply: Option<bool>,
    is_reply: Option<bool>,
    event_type: Option<EventType>,
    traffic_direction: Option<&'a str>,
}

#[derive(Debug, Deserialize)]
struct Ip<'a> {
    source: Option<&'a str>,
    destination: Option<&'a str>,
}

#[derive(Debug, Deserialize)]
struct Layer4 {
    #[serde(rename = "TCP")]
    tcp: Option<Ports>,
    #[serde(rename = "UDP")]
    udp: Option<Ports>,
    #[serde(rename = "SCTP")]
    sctp: Option<Ports>,
}

#[derive(Debug, Deserialize)]
struct Ports {
    #[serde(default)]
    destination_port: u64,
    flags: Option<Flags>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Flags {
    #[serde(rename = "SYN")]
    syn: bool,
    #[serde(rename = "ACK")]
    ack: bool,
}

#[derive(Debug, Deserialize)]
struct EventType {
    #[serde(rename = "type", default)]
    kind: i32,
}

#[derive(Debug, Deserialize)]
struct Endpoint {
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    labels: Vec<String>,
    #[serde(default)]
    pod_name: String,
    #[serde(default)]
    workloads: Vec<Workload>,
}

#[derive(Debug, Deserialize)]
struct Workload {
    #[serde(default)]
    name: String,
    #[serde(default)]
    kind: String,
}

/// The event type of a packet at a trace point, which says nothing of a policy.
const TRACE: i32 = 4;
/// Drops by policy: `POLICY_DENIED` (no rule allows), `POLICY_DENY` (a rule denies).
const BY_POLICY: [u32; 2] = [133, 181];

/// Reads one record.
pub(super) fn read(text: &str) -> Result<Read<'_>, String> {
    let outer: Flow<'_> = serde_json::from_str(text).map_err(|error| line::wrong_json(&error))?;
    if outer.lost_events.is_some() {
        return Ok(Read::Skip(Skip::Lost));
    }
    if [outer.node_status, outer.agent_event, outer.debug_event]
        .iter()
        .any(Option::is_some)
    {
        return Ok(Read::Skip(Skip::Event));
    }
    let node = outer.node_name.unwrap_or_default();
    match outer.inner {
        Some(inner) => flow(&inner, node),
        None => flow(&outer, node),
    }
}

fn flow<'a>(flow: &Flow<'a>, node: &'a str) -> Result<Read<'a>, String> {
    match flow.kind {
        Some("L7") => return Ok(Read::Skip(Skip::Request)),
        Some("SOCK") => return Ok(Read::Skip(Skip::NoVerdict)),
        _ => {}
    }
    let action = match flow.verdict {
        None => return Err("`verdict` is missing: no record of Hubble".to_owned()),
        // Audited flows pass although a policy would deny them, redirected ones by way of a proxy.
        Some("FORWARDED" | "REDIRECTED" | "AUDIT") => Action::Allowed,
        Some("DROPPED") => {
            let by_policy = match (flow.drop_reason_desc, flow.drop_reason) {
                (Some(reason), _) => matches!(reason, "POLICY_DENIED" | "POLICY_DENY"),
                (None, reason) => reason.is_some_and(|reason| BY_POLICY.contains(&reason)),
            };
            if !by_policy {
                return Ok(Read::Skip(Skip::OtherDrop));
            }
            Action::Denied
        }
        Some(_) => return Ok(Read::Skip(Skip::NoVerdict)),
    };
    let ports = flow.l4.as_ref().and_then(|l4| {
        let protocols = [
            (Protocol::Tcp, &l4.tcp),
            (Protocol::Udp, &l4.udp),
            (Protocol::Sctp, &l4.sctp),
        ];
        let mut said = protocols.into_iter();
        said.find_map(|(protocol, ports)| Some((protocol, ports.as_ref()?)))
    });
    let Some((protocol, ports)) = ports else {
        return Ok(Read::Skip(Skip::OtherProtocol));
    };
    let flags = ports.flags.as_ref();
    let opens = flags.is_some_and(|flags| flags.syn && !flags.ack);
    let answers = flags.is_some_and(|flags| flags.syn && flags.ack);
    match flow.is_reply.or(flow.reply.filter(|reply| *reply)) {
        Some(true) => return Ok(Read::Skip(Skip::Reply)),
        Some(false) => {}
        None if answers => return Ok(Read::Skip(Skip::Reply)),
        // Where nothing is said, a packet on its way may be either; one that a policy judged was the first.
        None => {
            let event = flow.event_type.as_ref();
            let is_trace = event.is_some_and(|event| event.kind == TRACE);
            if is_trace && !opens && action == Action::Allowed {
                return Ok(Read::Skip(Skip::UnknownDirection));
            }
        }
    }
    let Some(ip) = &flow.ip else {
        return Err("`IP` is missing".to_owned());
    };
    let node = flow.node_name.unwrap_or(node);
    let (source, destination) = (endpoint(flow.source), endpoint(flow.destination));
    let with_host = is_host(source) || is_host(destination);
    let end = |endpoint, address: Option<&'a str>| {
        End::Hubble(Raw {
            endpoint,
            address: address.unwrap_or_default(),
            node: if with_host { node } else { "" },
        })
    };
    Ok(Read::Flow(Line {
        from: end(source, ip.source),
        to: end(destination, ip.destination),
        protocol,
        port: line::port(ports.destination_port)?,
        action,
        seen: match flow.traffic_direction {
            Some("EGRESS") => Seen::AtSource,
            Some("INGRESS") => Seen::AtDestination,
            _ => Seen::Somewhere,
        },
        flows: 1,
    }))
}

fn endpoint(raw: Option<&RawValue>) -> &str {
    line::present(raw).unwrap_or_default()
}

/// Whether an endpoint is the node on which the flow was seen.
fn is_host(endpoint: &str) -> bool {
    static HOST: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("\"reserved:host\""));
    HOST.find(endpoint.as_bytes()).is_some()
}

// === impl Raw ===

impl Raw<'_> {
    /// All that it says.
    pub(super) fn parts(&self) -> [&str; 3] {
        [self.endpoint, self.address, self.node]
    }

    /// Who it is.
    pub(super) fn actor(&self) -> Result<Actor, String> {
        let address = match self.address {
            "" => None,
            text => Some(line::address(text)?),
        };
        let endpoint: Option<Endpoint> = match self.endpoint {
            "" => None,
            text => Some(serde_json::from_str(text).map_err(|error| format!("endpoint: {error}"))?),
        };
        let by_address = || match address {
            Some(address) => Actor::Address(address),
            None => Actor::Unknown("the record names neither a pod nor an address".to_owned()),
        };
        let Some(endpoint) = endpoint else {
            return Ok(by_address());
        };
        let reserved = endpoint.labels.iter();
        let reserved = reserved.filter_map(|label| label.strip_prefix("reserved:"));
        let reserved: Vec<&str> = reserved.collect();
        let is = |name: &str| reserved.contains(&name);
        if is("host") || is("remote-node") {
            let own = Some(self.node).filter(|node| is("host") && !node.is_empty());
            let name = own.unwrap_or(self.address);
            return Ok(match name {
                "" => Actor::Unknown("a node without name and address".to_owned()),
                name => Actor::Node {
                    name: NodeName::from(name),
                    address,
                },
            });
        }
        if !endpoint.namespace.is_empty() {
            let workload = endpoint
                .workloads
                .first()
                .filter(|workload| !workload.name.is_empty());
            let kind = |text: &str| {
                WorkloadKind::ALL
                    .into_iter()
                    .find(|kind| kind.as_str() == text)
            };
            return line::pod(Pod {
                namespace: &endpoint.namespace,
                namespace_labels: namespace_labels(&endpoint.labels)?,
                name: &endpoint.pod_name,
                workload: workload.map(|workload| (kind(&workload.kind), workload.name.as_str())),
                labels: Some(labels(&endpoint.labels)?),
                address,
                node: Some(self.node).filter(|node| !node.is_empty()),
            });
        }
        if reserved.is_empty()
            || is("world")
            || is("world-ipv4")
            || is("world-ipv6")
            || is("kube-apiserver")
        {
            return Ok(by_address());
        }
        Ok(Actor::Unknown(format!(
            "reserved identity {}",
            reserved.join(", ")
        )))
    }
}

/// The labels of the pod's namespace among those of its identity; none where there is not one of them.
fn namespace_labels(all: &[String]) -> Result<Option<crate::netpol::Labels>, String> {
    let own = all.iter().filter_map(|label| {
        let label = label.strip_prefix("k8s:io.cilium.k8s.namespace.labels.")?;
        Some(label.split_once('=').unwrap_or((label, "")))
    });
    let labels = checked(own)?;
    Ok((!labels.is_empty()).then_some(labels))
}

/// The labels of the pod among those of its identity.
fn labels(all: &[String]) -> Result<crate::netpol::Labels, String> {
    let own = all.iter().filter_map(|label| label.strip_prefix("k8s:"));
    // These say the namespace, its labels, the cluster and the account; the pod itself does not carry them.
    let own = own.filter(|label| {
        !label.starts_with("io.cilium.k8s.") && !label.starts_with("io.kubernetes.pod.namespace=")
    });
    checked(own.map(|label| label.split_once('=').unwrap_or((label, ""))))
}
