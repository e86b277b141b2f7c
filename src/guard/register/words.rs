//! What rules open, in words that need no knowledge of the API.

use serde::Serialize;

use crate::netpol::cluster_policy::{
    ClusterPeer, ClusterPort, ClusterPorts, ClusterRule, PodScope,
};
use crate::netpol::{
    ClusterNetworkPolicy, Direction, NamespaceScope, NetworkPolicy, Operator, Peer, Peers,
    PortMatch, PortSpec, Ports, Rule, Selector,
};

/// What one rule opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Opens {
    /// `ingress` or `egress`.
    pub direction: &'static str,
    /// Who is at the other end, each in words.
    pub peers: Vec<String>,
    /// The ports, in words.
    pub ports: String,
}

/// What the rules of a policy open, those for ingress first.
pub(super) fn opens(policy: &NetworkPolicy) -> Vec<Opens> {
    let rules = Direction::BOTH.into_iter();
    let rules = rules.flat_map(|direction| {
        policy
            .rules(direction)
            .iter()
            .map(move |rule| (direction, rule))
    });
    rules
        .map(|(direction, rule)| Opens {
            direction: direction.field(),
            peers: peers(rule),
            ports: ports(rule),
        })
        .collect()
}

fn peers(rule: &Rule) -> Vec<String> {
    match &rule.peers {
        Peers::Any => vec!["everyone, inside and outside of the cluster".to_owned()],
        Peers::Only(peers) => peers.iter().map(peer).collect(),
    }
}

fn peer(peer: &Peer) -> String {
    match peer {
        Peer::Block { cidr, except } if except.is_empty() => cidr.to_string(),
        Peer::Block { cidr, except } => {
            let except: Vec<String> = except.iter().map(ToString::to_string).collect();
            format!("{cidr} except {}", except.join(", "))
        }
        Peer::Pods { namespaces, pods } => {
            let pods = if pods.is_everything() {
                "all pods".to_owned()
            } else {
                format!("pods {pods}")
            };
            format!("{pods} {}", scope(namespaces))
        }
    }
}

fn scope(namespaces: &NamespaceScope) -> String {
    match namespaces {
        NamespaceScope::Own => "of the same namespace".to_owned(),
        NamespaceScope::Selected(selector) if selector.is_everything() => {
            "of every namespace".to_owned()
        }
        NamespaceScope::Selected(selector) => match named(selector) {
            Some(names) => format!("of namespace {names}"),
            None => format!("of namespaces {selector}"),
        },
    }
}

/// The names, where a selector asks for nothing but these.
fn named(selector: &Selector) -> Option<String> {
    let [only] = selector.requirements() else {
        return None;
    };
    match only.operator() {
        Operator::In(names) if only.key() == "kubernetes.io/metadata.name" => {
            Some(names.join(" or "))
        }
        _ => None,
    }
}

fn ports(rule: &Rule) -> String {
    let Ports::Only(ports) = &rule.ports else {
        return "all ports".to_owned();
    };
    let ports = ports.iter().map(port_in_words);
    ports.collect::<Vec<String>>().join(", ")
}

fn port_in_words(port: &PortMatch) -> String {
    let protocol = port.protocol;
    match &port.port {
        PortSpec::Any => format!("{protocol} all"),
        PortSpec::Number(port) => format!("{protocol} {}", port.get()),
        PortSpec::Range(first, last) => format!("{protocol} {}-{}", first.get(), last.get()),
        PortSpec::Named(name) => format!("{protocol} {name}"),
    }
}

/// What the rules of a policy of the whole cluster do, in the order in which they are asked.
pub(super) fn cluster(policy: &ClusterNetworkPolicy) -> Vec<String> {
    let said = |direction: &str, side: &str, rules: &[ClusterRule]| {
        let rules = rules.iter().map(|rule| {
            let peers: Vec<String> = rule.peers.iter().map(cluster_peer).collect();
            format!(
                "{} {direction} {side} {}, {}",
                rule.action,
                peers.join(" or "),
                cluster_ports(&rule.ports)
            )
        });
        rules.collect::<Vec<String>>()
    };
    [
        said("ingress", "from", &policy.ingress),
        said("egress", "to", &policy.egress),
    ]
    .concat()
}

/// Pods of the whole cluster, by the labels of their namespaces and their own.
pub(super) fn pods_of(scope: &PodScope) -> String {
    peer(&Peer::Pods {
        namespaces: NamespaceScope::Selected(scope.namespaces.clone()),
        pods: scope.pods.clone(),
    })
}

fn cluster_peer(peer: &ClusterPeer) -> String {
    match peer {
        ClusterPeer::Pods(scope) => pods_of(scope),
        ClusterPeer::Nodes(selector) if selector.is_everything() => "all nodes".to_owned(),
        ClusterPeer::Nodes(selector) => format!("nodes {selector}"),
        ClusterPeer::Networks(blocks) => {
            let blocks: Vec<String> = blocks.iter().map(ToString::to_string).collect();
            blocks.join(" or ")
        }
        ClusterPeer::DomainNames(names) => names.join(" or "),
        ClusterPeer::Unknown(kind) => format!("a peer of an unknown kind, {kind}"),
    }
}

fn cluster_ports(ports: &ClusterPorts) -> String {
    let ClusterPorts::Only(ports) = ports else {
        return "all ports".to_owned();
    };
    let ports = ports.iter().map(|port| match port {
        ClusterPort::Numbered(port) => port_in_words(port),
        ClusterPort::Named(name) => format!("port {name}"),
    });
    ports.collect::<Vec<String>>().join(", ")
}
