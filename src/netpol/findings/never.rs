//! Parts of a policy that can match no flow: rules of a direction that it does not isolate, ports that nobody has.

use super::neighbourhood::{Kind, Neighbourhood};
use super::nothing::is_typo;
use super::{Flaw, Never, What, rule_field};
use crate::netpol::coverage::Direction;
use crate::netpol::field::FieldPath;
use crate::netpol::name::PortName;
use crate::netpol::policy::{NetworkPolicy, Peer, Peers, Ports, Rule};
use crate::netpol::port::{PortSpec, Protocol};

/// Rules of a direction that the policy leaves alone.
pub(super) fn without_effect(policy: &NetworkPolicy) -> Vec<Flaw> {
    let written = [
        (Direction::Ingress, &policy.ingress),
        (Direction::Egress, &policy.egress),
    ];
    written
        .into_iter()
        .filter(|(direction, rules)| !rules.is_empty() && !policy.isolates(*direction))
        .map(|(direction, _)| Flaw {
            field: FieldPath::of(["spec", direction.field()]),
            what: What::NeverMatches(Never::NotIsolated(direction)),
        })
        .collect()
}

/// Named ports of a rule that no destination has.
pub(super) fn ports(
    near: &Neighbourhood<'_>,
    policy: &NetworkPolicy,
    direction: Direction,
    index: usize,
    rule: &Rule,
) -> Vec<Flaw> {
    let Ports::Only(ports) = &rule.ports else {
        return Vec::new();
    };
    let mut named = ports
        .iter()
        .enumerate()
        .filter_map(|(position, port)| match &port.port {
            PortSpec::Named(name) => Some((position, name, port.protocol)),
            PortSpec::Any | PortSpec::Number(_) | PortSpec::Range(..) => None,
        })
        .peekable();
    if named.peek().is_none() {
        return Vec::new();
    }
    let field = |position: usize| {
        rule_field(direction, index)
            .key("ports")
            .index(position)
            .key("port")
    };
    if direction == Direction::Egress && is_outside(near, &rule.peers) {
        let flaw = |(position, name, _): (usize, &PortName, Protocol)| Flaw {
            field: field(position),
            what: What::NeverMatches(Never::NameOutside(name.to_string())),
        };
        return named.map(flaw).collect();
    }
    let destinations = match direction {
        Direction::Ingress => selected(near, policy),
        Direction::Egress => peers(near, policy, &rule.peers),
    };
    let Some(destinations) = destinations else {
        return Vec::new();
    };
    named
        .filter_map(|(position, name, protocol)| {
            Some(Flaw {
                field: field(position),
                what: What::NeverMatches(missing(&destinations, name, protocol)?),
            })
        })
        .collect()
}

/// Why none of some pods has a port; none where one has.
fn missing(destinations: &[&Kind<'_>], name: &PortName, protocol: Protocol) -> Option<Never> {
    let ports = || destinations.iter().flat_map(|kind| kind.ports);
    let mut of_name = ports().filter(|port| port.name.as_ref() == Some(name));
    let other_protocol = of_name.clone().next().map(|port| port.protocol);
    if of_name.any(|port| port.protocol == protocol) {
        return None;
    }
    let near = ports()
        .filter(|port| port.protocol == protocol)
        .filter_map(|port| port.name.as_ref())
        .filter(|other| is_typo(name.as_str(), other.as_str()))
        .min();
    Some(Never::NoSuchPort {
        name: name.to_string(),
        protocol,
        other_protocol,
        near: near.map(ToString::to_string),
    })
}

/// The pods that a policy holds, where these are all there are.
fn selected<'n, 's>(
    near: &'n Neighbourhood<'s>,
    policy: &'n NetworkPolicy,
) -> Option<Vec<&'n Kind<'s>>> {
    let crowd = near.crowd(&policy.namespace)?;
    let kinds: Vec<_> = near.held(policy).collect();
    let are_all = crowd.is_whole || !policy.selector.is_everything();
    (are_all && !kinds.is_empty()).then_some(kinds)
}

/// The pods that peers mean, where these are all there are.
fn peers<'n, 's>(
    near: &'n Neighbourhood<'s>,
    policy: &'n NetworkPolicy,
    peers: &'n Peers,
) -> Option<Vec<&'n Kind<'s>>> {
    let Peers::Only(peers) = peers else {
        return None;
    };
    let mut all = Vec::new();
    for peer in peers {
        let Peer::Pods { namespaces, pods } = peer else {
            return None;
        };
        let meant = near.meant(policy, namespaces)?;
        let before = all.len();
        for name in &meant.namespaces {
            let kinds = near.crowd(name).into_iter().flat_map(|crowd| &crowd.kinds);
            all.extend(kinds.filter(|kind| pods.matches(kind.labels)));
        }
        let are_all = meant.is_certain || meant.is_named && !pods.is_everything();
        if !are_all || all.len() == before && !meant.is_certain {
            return None;
        }
    }
    (!all.is_empty()).then_some(all)
}

/// Whether all peers are blocks of addresses that no pod is known to have.
fn is_outside(near: &Neighbourhood<'_>, peers: &Peers) -> bool {
    let Peers::Only(peers) = peers else {
        return false;
    };
    let mut blocks = Vec::new();
    for peer in peers {
        match peer {
            // A block that holds every address is meant for pods as well.
            Peer::Block { cidr, .. } if cidr.prefix_len() > 0 => blocks.push(cidr),
            Peer::Block { .. } | Peer::Pods { .. } => return false,
        }
    }
    let inside = |address: &std::net::IpAddr| blocks.iter().any(|block| block.contains(address));
    near.is_all() && !near.snapshot().pods().any(|pod| pod.ips.iter().any(inside))
}
