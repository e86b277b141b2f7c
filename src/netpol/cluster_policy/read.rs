//! From the API's ClusterNetworkPolicy to ours, with every check that the API server makes by the schema of the kind.
//!
//! Selectors are checked as those of NetworkPolicy are, which is more than the schema does: no implementation can
//! select by what is refused here.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::Value;

use super::manifest as api;
use super::{
    Action, ClusterNetworkPolicy, ClusterPeer, ClusterPort, ClusterPorts, ClusterRule, PodScope,
    Priority, Tier,
};
use crate::netpol::field::Place;
use crate::netpol::meta::{self, NameForm};
use crate::netpol::name::PortName;
use crate::netpol::port::{Port, PortMatch, PortSpec, Protocol};
use crate::netpol::problem::{Problems, Quoted};
use crate::netpol::selector::Selector;

/// No list of the kind may have more items than this.
const MOST_ITEMS: usize = 25;

/// The longest name of a rule, in characters.
const LONGEST_NAME: usize = 100;

/// The longest address block, in characters.
const LONGEST_BLOCK: usize = 43;

impl ClusterNetworkPolicy {
    /// Reads the object; `raw` is the same one as JSON, to see what the types do not know.
    pub(in crate::netpol) fn read(
        object: &api::Manifest,
        raw: &Value,
        at: &Place<'_>,
        problems: &mut Problems,
    ) -> Self {
        let (meta, meta_at) = (&object.metadata, at.key("metadata"));
        let name = meta::read_name(meta, NameForm::Subdomain, &meta_at, problems);
        let labels = meta::read_labels(meta, &meta_at, problems);
        let at = at.key("spec");
        let absent = api::Spec::default();
        if object.spec.is_none() {
            problems.add(&at, "is missing");
        }
        let spec = object.spec.as_ref().unwrap_or(&absent);
        let is_there = object.spec.is_some();
        let tier = match spec.tier.as_deref() {
            Some("Admin") => Tier::Admin,
            Some("Baseline") => Tier::Baseline,
            Some(other) => {
                let reason = format!("{} is not Admin or Baseline", Quoted(other));
                problems.add(&at.key("tier"), reason);
                Tier::Admin
            }
            None => {
                missing(is_there, &at.key("tier"), problems);
                Tier::Admin
            }
        };
        if spec.priority.is_none() {
            missing(is_there, &at.key("priority"), problems);
        }
        let priority = Priority::new(spec.priority.unwrap_or_default()).unwrap_or_else(|| {
            let number = spec.priority.unwrap_or_default();
            let reason = format!("{number}: must be between 0 and 1000");
            problems.add(&at.key("priority"), reason);
            Priority(0)
        });
        let subject_at = at.key("subject");
        if spec.subject.is_none() {
            missing(is_there, &subject_at, problems);
        }
        let subject = spec.subject.as_ref().and_then(|subject| {
            let (namespaces, pods) = (subject.namespaces.as_ref(), subject.pods.as_ref());
            let count = [namespaces.is_some(), pods.is_some()];
            one_of(&count, "namespaces or pods", &subject_at, problems);
            scope(namespaces, pods, &subject_at, problems)
        });
        let raw = raw.get("spec").unwrap_or(&Value::Null);
        Self {
            name: name.into(),
            tier,
            priority,
            subject: subject.unwrap_or(PodScope {
                namespaces: Selector::everything(),
                pods: Selector::everything(),
            }),
            ingress: ingress(spec, raw, &at.key("ingress"), problems),
            egress: egress(spec, raw, &at.key("egress"), problems),
            labels,
            annotations: meta::read_annotations(meta),
            generation: meta.generation,
        }
    }
}

fn ingress(
    spec: &api::Spec,
    raw: &Value,
    at: &Place<'_>,
    problems: &mut Problems,
) -> Vec<ClusterRule> {
    let rules = spec.ingress.as_deref().unwrap_or_default();
    at_most(rules.len(), at, problems);
    let rules = rules.iter().enumerate().map(|(index, rule)| {
        let written = Written {
            name: rule.name.as_deref(),
            action: rule.action.as_deref(),
            peers: rule.from.as_deref(),
            protocols: rule.protocols.as_deref(),
        };
        let peer = |number: usize, peer: &api::Peer, at: &Place<'_>, problems: &mut _| {
            let unknown = unknown_peer(raw, "ingress", index, "from", number);
            ingress_peer(peer, unknown, at, problems)
        };
        written.read("from", peer, &at.index(index), problems)
    });
    rules.collect()
}

fn egress(
    spec: &api::Spec,
    raw: &Value,
    at: &Place<'_>,
    problems: &mut Problems,
) -> Vec<ClusterRule> {
    let rules = spec.egress.as_deref().unwrap_or_default();
    at_most(rules.len(), at, problems);
    let rules = rules.iter().enumerate().map(|(index, rule)| {
        let written = Written {
            name: rule.name.as_deref(),
            action: rule.action.as_deref(),
            peers: rule.to.as_deref(),
            protocols: rule.protocols.as_deref(),
        };
        let peer = |number: usize, peer: &api::EgressPeer, at: &Place<'_>, problems: &mut _| {
            let unknown = unknown_peer(raw, "egress", index, "to", number);
            egress_peer(peer, unknown, at, problems)
        };
        let at = at.index(index);
        let rule = written.read("to", peer, &at, problems);
        nameless(&rule, &at, problems);
        rule
    });
    rules.collect()
}

/// A rule of either direction as it is written.
struct Written<'r, P> {
    name: Option<&'r str>,
    action: Option<&'r str>,
    peers: Option<&'r [P]>,
    protocols: Option<&'r [api::Protocol]>,
}

/// Only pods have names for their ports.
fn nameless(rule: &ClusterRule, at: &Place<'_>, problems: &mut Problems) {
    let has_no_names = |peer: &ClusterPeer| match peer {
        ClusterPeer::Nodes(_) | ClusterPeer::Networks(_) | ClusterPeer::DomainNames(_) => true,
        ClusterPeer::Pods(_) | ClusterPeer::Unknown(_) => false,
    };
    if !rule.peers.iter().any(has_no_names) {
        return;
    }
    let ClusterPorts::Only(ports) = &rule.ports else {
        return;
    };
    let named = |port: &ClusterPort| matches!(port, ClusterPort::Named(_));
    if let Some(index) = ports.iter().position(named) {
        problems.add(
            &at.key("protocols")
                .index(index)
                .key("destinationNamedPort"),
            "may not stand in a rule with networks, nodes or domainNames: these have no named ports",
        );
    }
}

fn ingress_peer(
    peer: &api::Peer,
    unknown: Option<Box<str>>,
    at: &Place<'_>,
    problems: &mut Problems,
) -> Option<ClusterPeer> {
    let count = [peer.namespaces.is_some(), peer.pods.is_some()];
    if let (false, Some(name)) = (count.contains(&true), unknown) {
        return Some(ClusterPeer::Unknown(name));
    }
    one_of(&count, "namespaces or pods", at, problems);
    scope(peer.namespaces.as_ref(), peer.pods.as_ref(), at, problems).map(ClusterPeer::Pods)
}

fn egress_peer(
    peer: &api::EgressPeer,
    unknown: Option<Box<str>>,
    at: &Place<'_>,
    problems: &mut Problems,
) -> Option<ClusterPeer> {
    let count = [
        peer.namespaces.is_some(),
        peer.pods.is_some(),
        peer.nodes.is_some(),
        peer.networks.is_some(),
        peer.domain_names.is_some(),
    ];
    if let (false, Some(name)) = (count.contains(&true), unknown) {
        return Some(ClusterPeer::Unknown(name));
    }
    let words = "namespaces, pods, nodes, networks or domainNames";
    one_of(&count, words, at, problems);
    if let Some(nodes) = &peer.nodes {
        let selector = Selector::read(nodes, &at.key("nodes"), problems);
        return Some(ClusterPeer::Nodes(selector));
    }
    if let Some(networks) = &peer.networks {
        let at = at.key("networks");
        set(networks, &at, problems);
        let read = |(index, text): (usize, &String)| {
            let read = block(text);
            if read.is_none() {
                let reason = format!(
                    "{}: must be an address block, such as 10.0.0.0/8 or fd00::/8",
                    Quoted(text)
                );
                problems.add(&at.index(index), reason);
            }
            read
        };
        let blocks = networks.iter().enumerate().filter_map(read);
        return Some(ClusterPeer::Networks(blocks.collect()));
    }
    if let Some(names) = &peer.domain_names {
        let at = at.key("domainNames");
        set(names, &at, problems);
        for (index, name) in names.iter().enumerate() {
            if !is_domain_name(name) {
                let reason = format!(
                    "{}: must be a domain name, such as example.com or *.example.com",
                    Quoted(name)
                );
                problems.add(&at.index(index), reason);
            }
        }
        let names = names.iter().map(|name| name.as_str().into());
        return Some(ClusterPeer::DomainNames(names.collect()));
    }
    scope(peer.namespaces.as_ref(), peer.pods.as_ref(), at, problems).map(ClusterPeer::Pods)
}

/// The name of a field of a peer that the API does not have; what is null is as good as absent.
fn unknown_peer(
    raw: &Value,
    rules: &str,
    rule: usize,
    peers: &str,
    peer: usize,
) -> Option<Box<str>> {
    let peer = raw.get(rules)?.get(rule)?.get(peers)?.get(peer)?;
    // What only egress has is as unknown to ingress as what is to come.
    let known: &[&str] = match rules {
        "ingress" => &["namespaces", "pods"],
        _ => &["namespaces", "pods", "nodes", "networks", "domainNames"],
    };
    let mut fields = peer.as_object()?.iter();
    let unknown = fields.find(|(key, value)| !value.is_null() && !known.contains(&key.as_str()));
    unknown.map(|(key, _)| key.as_str().into())
}

impl<P> Written<'_, P> {
    /// Reads it; `list` is what its list of peers is called, and `peer` reads one of them by its position.
    fn read(
        &self,
        list: &str,
        peer: impl Fn(usize, &P, &Place<'_>, &mut Problems) -> Option<ClusterPeer>,
        at: &Place<'_>,
        problems: &mut Problems,
    ) -> ClusterRule {
        let peers_at = at.key(list);
        some(self.peers.map(<[_]>::len), &peers_at, problems);
        let peers = self.peers.unwrap_or_default().iter().enumerate();
        let peers = peers
            .filter_map(|(number, one)| peer(number, one, &peers_at.index(number), problems))
            .collect();
        let (name, action) = (self.name, self.action);
        if let Some(name) = name.filter(|name| name.chars().count() > LONGEST_NAME) {
            let reason = format!(
                "{}: may not be longer than {LONGEST_NAME} characters",
                Quoted(name)
            );
            problems.add(&at.key("name"), reason);
        }
        let read = Action::ALL
            .into_iter()
            .find(|known| Some(known.as_str()) == action);
        match (action, read) {
            (None, _) => problems.add(&at.key("action"), "is missing"),
            (Some(other), None) => {
                let reason = format!("{} is not Accept, Deny or Pass", Quoted(other));
                problems.add(&at.key("action"), reason);
            }
            (Some(_), Some(_)) => {}
        }
        ClusterRule {
            name: name.filter(|name| !name.is_empty()).map(Box::from),
            action: read.unwrap_or(Action::Deny),
            peers,
            ports: ports(self.protocols, &at.key("protocols"), problems),
        }
    }
}

fn ports(
    protocols: Option<&[api::Protocol]>,
    at: &Place<'_>,
    problems: &mut Problems,
) -> ClusterPorts {
    let Some(protocols) = protocols else {
        return ClusterPorts::Any;
    };
    some(Some(protocols.len()), at, problems);
    let read = protocols.iter().enumerate();
    let read = read.filter_map(|(index, protocol)| port(protocol, &at.index(index), problems));
    ClusterPorts::Only(read.collect())
}

fn port(entry: &api::Protocol, at: &Place<'_>, problems: &mut Problems) -> Option<ClusterPort> {
    let numbered = [
        ("tcp", Protocol::Tcp, &entry.tcp),
        ("udp", Protocol::Udp, &entry.udp),
        ("sctp", Protocol::Sctp, &entry.sctp),
    ];
    let count = [
        entry.tcp.is_some(),
        entry.udp.is_some(),
        entry.sctp.is_some(),
        entry.destination_named_port.is_some(),
    ];
    let words = "tcp, udp, sctp or destinationNamedPort";
    one_of(&count, words, at, problems);
    if let Some(name) = &entry.destination_named_port {
        return Some(ClusterPort::Named(PortName::from(name.as_str())));
    }
    let (key, protocol, numbers) = numbered.into_iter().find_map(|(key, protocol, numbers)| {
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
        (None, Some(range)) => span(range, &at.key("range"), problems)?,
        (None, None) => return None,
    };
    Some(ClusterPort::Numbered(PortMatch {
        protocol,
        port: spec,
    }))
}

fn span(range: &api::PortRange, at: &Place<'_>, problems: &mut Problems) -> Option<PortSpec> {
    let mut read = |number: Option<i32>, key: &str| {
        let Some(number) = number else {
            problems.add(&at.key(key), "is missing");
            return None;
        };
        Port::read(number, &at.key(key), problems)
    };
    let (start, end) = (read(range.start, "start"), read(range.end, "end"));
    let (start, end) = (start?, end?);
    if start >= end {
        let reason = format!("must be greater than the start {start}");
        problems.add(&at.key("end"), reason);
        return None;
    }
    Some(PortSpec::Range(start, end))
}

fn scope(
    namespaces: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
    pods: Option<&api::NamespacedPod>,
    at: &Place<'_>,
    problems: &mut Problems,
) -> Option<PodScope> {
    if let Some(namespaces) = namespaces {
        return Some(PodScope {
            namespaces: Selector::read(namespaces, &at.key("namespaces"), problems),
            pods: Selector::everything(),
        });
    }
    let (pods, at) = (pods?, at.key("pods"));
    let mut read = |selector: Option<&_>, key: &str| {
        let read = selector.map(|selector| Selector::read(selector, &at.key(key), problems));
        read.unwrap_or_else(|| {
            problems.add(&at.key(key), "is missing");
            Selector::everything()
        })
    };
    Some(PodScope {
        namespaces: read(pods.namespace_selector.as_ref(), "namespaceSelector"),
        pods: read(pods.pod_selector.as_ref(), "podSelector"),
    })
}

/// A block as `isCIDR` of the API server's validation takes it: no leading zeros, no IPv4 within IPv6, no zone. Bits right
/// of the prefix mean nothing.
fn block(text: &str) -> Option<IpNet> {
    let (address, prefix) = text
        .split_once('/')
        .filter(|_| text.len() <= LONGEST_BLOCK)?;
    let is_plain = prefix.bytes().all(|byte| byte.is_ascii_digit())
        && (prefix == "0" || !prefix.starts_with('0'));
    let prefix: u8 = prefix.parse().ok().filter(|_| is_plain)?;
    match address.parse().ok()? {
        std::net::IpAddr::V4(address) => {
            Some(IpNet::V4(Ipv4Net::new(address, prefix).ok()?.trunc()))
        }
        std::net::IpAddr::V6(address) => {
            let net = Ipv6Net::new(address, prefix).ok()?;
            (address.to_ipv4_mapped().is_none()).then_some(IpNet::V6(net.trunc()))
        }
    }
}

/// Whether a text has the form of the API's `DomainName`: two labels or more, perhaps `*.` before and a dot after them.
fn is_domain_name(text: &str) -> bool {
    let text = text.strip_prefix("*.").unwrap_or(text);
    let text = text.strip_suffix('.').unwrap_or(text);
    // The API's pattern has `A-z` for the first character, which is more than letters.
    let may_begin = |byte: u8| byte.is_ascii_alphanumeric() || b"[\\]^_`".contains(&byte);
    let is_label = |label: &str| match label.as_bytes() {
        [] => false,
        [only] => may_begin(*only),
        [first, middle @ .., last] => {
            let is_inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
            may_begin(*first) && middle.iter().all(is_inner) && last.is_ascii_alphanumeric()
        }
    };
    text.contains('.') && text.split('.').all(is_label)
}

/// A list that may neither be empty nor too long nor say a thing twice.
fn set(texts: &[String], at: &Place<'_>, problems: &mut Problems) {
    some(Some(texts.len()), at, problems);
    for (index, text) in texts.iter().enumerate() {
        if texts.iter().take(index).any(|earlier| earlier == text) {
            problems.add(
                &at.index(index),
                format!("{}: is there twice", Quoted(text)),
            );
        }
    }
}

fn some(count: Option<usize>, at: &Place<'_>, problems: &mut Problems) {
    match count {
        None => problems.add(at, "is missing"),
        Some(0) => problems.add(at, "must have at least one item"),
        Some(count) => at_most(count, at, problems),
    }
}

fn at_most(count: usize, at: &Place<'_>, problems: &mut Problems) {
    if count > MOST_ITEMS {
        let reason = format!("has {count} items, and may have {MOST_ITEMS} at most");
        problems.add(at, reason);
    }
}

fn one_of(set: &[bool], words: &str, at: &Place<'_>, problems: &mut Problems) {
    match set.iter().filter(|is_set| **is_set).count() {
        0 => problems.add(at, format!("must have {words}")),
        1 => {}
        _ => problems.add(at, format!("must have only one of {words}")),
    }
}

/// Notes that a field is missing, unless what it stands in is missing as a whole.
fn missing(is_there: bool, at: &Place<'_>, problems: &mut Problems) {
    if is_there {
        problems.add(at, "is missing");
    }
}
