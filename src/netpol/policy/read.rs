//! From the API's NetworkPolicy to ours: the only place where "absent" and "empty" are told apart.

use ipnet::IpNet;
use k8s_openapi::api::networking::v1 as api;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Isolates, Isolation, NamespaceScope, NetworkPolicy, Peer, Peers, Ports, Rule};
use crate::netpol::field::Place;
use crate::netpol::meta::{self, NameForm};
use crate::netpol::name::{PortName, port_name_problem};
use crate::netpol::net::{Family, parse_block};
use crate::netpol::port::{Port, PortMatch, PortSpec, Protocol};
use crate::netpol::problem::{Problems, Quoted};
use crate::netpol::selector::Selector;
use crate::netpol::staged::Standing;

pub(super) fn policy(
    object: &api::NetworkPolicy,
    at: &Place<'_>,
    problems: &mut Problems,
) -> NetworkPolicy {
    let (meta, meta_at) = (&object.metadata, at.key("metadata"));
    let namespace = meta::read_namespace(meta, &meta_at, problems);
    let name = meta::read_name(meta, NameForm::Subdomain, &meta_at, problems).into();
    let labels = meta::read_labels(meta, &meta_at, problems);
    let annotations = meta::read_annotations(meta);

    // An absent spec is an empty one to the API server: it denies all ingress of the namespace.
    let absent = api::NetworkPolicySpec::default();
    let (spec, at) = (object.spec.as_ref().unwrap_or(&absent), at.key("spec"));
    let selector = match &spec.pod_selector {
        Some(selector) => Selector::read(selector, &at.key("podSelector"), problems),
        None => Selector::everything(),
    };

    let rules_at = at.key("ingress");
    let rules = spec.ingress.iter().flatten().enumerate();
    let ingress: Vec<Rule> = rules
        .map(|(index, rule)| {
            let at = rules_at.index(index);
            Rule {
                peers: peers(rule.from.as_deref(), &at.key("from"), problems),
                ports: ports(rule.ports.as_deref(), &at.key("ports"), problems),
            }
        })
        .collect();

    let rules_at = at.key("egress");
    let rules = spec.egress.iter().flatten().enumerate();
    let egress: Vec<Rule> = rules
        .map(|(index, rule)| {
            let at = rules_at.index(index);
            Rule {
                peers: peers(rule.to.as_deref(), &at.key("to"), problems),
                ports: ports(rule.ports.as_deref(), &at.key("ports"), problems),
            }
        })
        .collect();

    let types = spec.policy_types.as_deref().unwrap_or_default();
    let isolates = isolation(types, egress.len(), &at.key("policyTypes"), problems);
    NetworkPolicy {
        namespace,
        name,
        selector,
        isolates,
        ingress,
        egress,
        labels,
        annotations,
        generation: meta.generation,
        standing: Standing::InForce,
        terminating: meta.deletion_timestamp.is_some(),
    }
}

fn isolation(
    types: &[String],
    egress_rules: usize,
    at: &Place<'_>,
    problems: &mut Problems,
) -> Isolation {
    if types.is_empty() {
        return Isolation::by_rules(egress_rules);
    }
    if types.len() > 2 {
        problems.add(at, "may not list more than two types");
    }
    let mut isolation = Isolation {
        ingress: Isolates::No,
        egress: Isolates::No,
    };
    for (index, policy_type) in types.iter().enumerate() {
        match policy_type.as_str() {
            "Ingress" => isolation.ingress = Isolates::Yes,
            "Egress" => isolation.egress = Isolates::Yes,
            unknown => problems.add(
                &at.index(index),
                format!("{} is not Ingress or Egress", Quoted(unknown)),
            ),
        }
    }
    isolation
}

fn peers(
    peers: Option<&[api::NetworkPolicyPeer]>,
    at: &Place<'_>,
    problems: &mut Problems,
) -> Peers {
    let peers = peers.unwrap_or_default();
    if peers.is_empty() {
        return Peers::Any;
    }
    let read = peers
        .iter()
        .enumerate()
        .filter_map(|(index, one)| peer(one, &at.index(index), problems));
    Peers::Only(read.collect())
}

fn peer(peer: &api::NetworkPolicyPeer, at: &Place<'_>, problems: &mut Problems) -> Option<Peer> {
    let namespaces = peer.namespace_selector.as_ref();
    let namespaces =
        namespaces.map(|selector| Selector::read(selector, &at.key("namespaceSelector"), problems));
    let pods = peer.pod_selector.as_ref();
    let pods = pods.map(|selector| Selector::read(selector, &at.key("podSelector"), problems));
    let block = peer.ip_block.as_ref();
    let block = block.map(|block| ip_block(block, &at.key("ipBlock"), problems));

    match (namespaces, pods, block) {
        (None, None, None) => {
            problems.add(
                at,
                "must have a podSelector, a namespaceSelector or an ipBlock",
            );
            None
        }
        (None, None, Some(block)) => block,
        (_, _, Some(_)) => {
            problems.add(
                at,
                "an ipBlock may not stand beside a podSelector or namespaceSelector",
            );
            None
        }
        (Some(namespaces), pods, None) => Some(Peer::Pods {
            namespaces: NamespaceScope::Selected(namespaces),
            pods: pods.unwrap_or_else(Selector::everything),
        }),
        (None, Some(pods), None) => Some(Peer::Pods {
            namespaces: NamespaceScope::Own,
            pods,
        }),
    }
}

fn ip_block(block: &api::IPBlock, at: &Place<'_>, problems: &mut Problems) -> Option<Peer> {
    let read = |text: &str, at: &Place<'_>, problems: &mut Problems| {
        parse_block(text)
            .inspect_err(|reason| problems.add(at, format!("{}: {reason}", Quoted(text))))
            .ok()
    };
    let cidr = read(&block.cidr, &at.key("cidr"), problems);
    let all_at = at.key("except");
    let mut except = Vec::new();
    for (index, text) in block.except.iter().flatten().enumerate() {
        let at = all_at.index(index);
        let (Some(one), Some(cidr)) = (read(text, &at, problems), cidr) else {
            continue;
        };
        if is_strictly_within(&one, &cidr) {
            except.push(one);
        } else {
            problems.add(
                &at,
                format!(
                    "{}: must be a smaller block within the cidr {cidr}",
                    Quoted(text)
                ),
            );
        }
    }
    Some(Peer::Block {
        cidr: cidr?,
        except,
    })
}

fn is_strictly_within(inner: &IpNet, outer: &IpNet) -> bool {
    Family::of_block(inner) == Family::of_block(outer)
        && outer.contains(inner)
        && outer.prefix_len() < inner.prefix_len()
}

fn ports(
    ports: Option<&[api::NetworkPolicyPort]>,
    at: &Place<'_>,
    problems: &mut Problems,
) -> Ports {
    let ports = ports.unwrap_or_default();
    if ports.is_empty() {
        return Ports::Any;
    }
    let read = ports
        .iter()
        .enumerate()
        .filter_map(|(index, port)| port_match(port, &at.index(index), problems));
    Ports::Only(read.collect())
}

fn port_match(
    port: &api::NetworkPolicyPort,
    at: &Place<'_>,
    problems: &mut Problems,
) -> Option<PortMatch> {
    // Absent means TCP; an empty text is not absent here, unlike in a container's ports.
    let protocol = Protocol::read(port.protocol.as_deref(), &at.key("protocol"), problems);
    let spec = port_spec(port, at, problems);
    Some(PortMatch {
        protocol: protocol?,
        port: spec?,
    })
}

fn port_spec(
    port: &api::NetworkPolicyPort,
    at: &Place<'_>,
    problems: &mut Problems,
) -> Option<PortSpec> {
    let (port_at, end_at) = (at.key("port"), at.key("endPort"));
    match (&port.port, port.end_port) {
        (None, None) => Some(PortSpec::Any),
        (None, Some(_)) => {
            problems.add(&end_at, "may not be given without a port");
            None
        }
        (Some(IntOrString::String(name)), end) => {
            problems.add_if(&port_at, name, port_name_problem(name));
            if end.is_some() {
                problems.add(&end_at, "may not be given with a named port");
            }
            Some(PortSpec::Named(PortName::from(name.as_str())))
        }
        (Some(IntOrString::Int(first)), None) => {
            Port::read(*first, &port_at, problems).map(PortSpec::Number)
        }
        (Some(IntOrString::Int(first)), Some(last)) => {
            let first = Port::read(*first, &port_at, problems);
            let last = Port::read(last, &end_at, problems);
            let (first, last) = (first?, last?);
            if last < first {
                problems.add(&end_at, format!("must not be less than the port {first}"));
                return None;
            }
            Some(PortSpec::Range(first, last))
        }
    }
}
