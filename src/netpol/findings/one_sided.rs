//! Allows of one end only: a rule lets a policy's pods and its peers connect, and the other end's policies let none of it
//! pass. Said only where nothing of what the peer allows can pass: a wide allow beside narrow ones is a way of working.

use std::net::IpAddr;

use super::neighbourhood::{Kind, Neighbourhood};
use super::{Flaw, OneSided, What, peers_field};
use crate::netpol::Tier;
use crate::netpol::coverage::Direction;
use crate::netpol::groups::ports_of;
use crate::netpol::name::{NamespaceName, PolicyRef};
use crate::netpol::net::Family;
use crate::netpol::pod::Pod;
use crate::netpol::policy::{NamespaceScope, NetworkPolicy, Peer, Peers, Rule};
use crate::netpol::port::Port;
use crate::netpol::reach::PortSet;
use crate::netpol::snapshot::NamespaceState;

/// How many pairs of kinds of pods are looked at for one peer.
const PAIRS: usize = 4_096;

/// The peers of a rule of which the other end lets nothing pass.
pub(super) fn peers(
    near: &Neighbourhood<'_>,
    policy: &NetworkPolicy,
    direction: Direction,
    index: usize,
    rule: &Rule,
) -> Vec<Flaw> {
    let Peers::Only(peers) = &rule.peers else {
        return Vec::new();
    };
    // What a cluster's administrator accepts or denies goes before either end.
    let mut admin = near.snapshot().cluster_policies_of(Tier::Admin);
    if admin.next().is_some() {
        return Vec::new();
    }
    let mut flaws = Vec::new();
    for (position, peer) in peers.iter().enumerate() {
        if let Peer::Pods { namespaces, pods } = peer
            && let Some(meant) = near.meant(policy, namespaces)
            && meant.is_certain
        {
            let others = meant
                .namespaces
                .iter()
                .filter_map(|name| near.crowd(name))
                .flat_map(|crowd| &crowd.kinds)
                .filter(|other| pods.matches(other.labels));
            if let Some(found) = whole_peer(near, policy, direction, rule, others) {
                flaws.push(Flaw {
                    field: peers_field(direction, index).index(position),
                    what: What::OneSided(found),
                });
            }
        }
    }
    flaws
}

/// What denies all that one peer allows; none where something passes, or nothing is allowed to begin with.
fn whole_peer<'n, 's: 'n>(
    near: &'n Neighbourhood<'s>,
    policy: &'n NetworkPolicy,
    direction: Direction,
    rule: &Rule,
    others: impl Iterator<Item = &'n Kind<'s>>,
) -> Option<OneSided> {
    let mut example: Option<OneSided> = None;
    let mut left = PAIRS;
    for other in others {
        for own in near.held(policy) {
            left = left.checked_sub(1)?;
            let Some((one, two)) = pair(own, other) else {
                continue;
            };
            let (to, source, destination) = match direction {
                Direction::Ingress => (own, two, one),
                Direction::Egress => (other, one, two),
            };
            let ports = ports_of(rule, to.ports);
            let Some(first) = ports.ranges().next() else {
                continue;
            };
            let denied_by = denying(near, direction, own, other, to, &ports)?;
            if example.is_none() {
                example = Some(OneSided {
                    direction,
                    from: source.workload.clone(),
                    to: destination.workload.clone(),
                    protocol: first.protocol,
                    port: Port::new(first.first)?,
                    denied_by,
                });
            }
        }
    }
    example
}

/// The policies that deny the other end all of some ports; none where they may let one pass.
fn denying(
    near: &Neighbourhood<'_>,
    direction: Direction,
    own: &Kind<'_>,
    other: &Kind<'_>,
    to: &Kind<'_>,
    ports_asked: &PortSet,
) -> Option<Vec<PolicyRef>> {
    let opposite = match direction {
        Direction::Ingress => Direction::Egress,
        Direction::Egress => Direction::Ingress,
    };
    let pod = other.pods.first()?;
    let state = near.snapshot().namespace(pod.namespace())?;
    let mut denied_by = Vec::new();
    for policy in state.effective_policies() {
        if !policy.isolates(opposite) || !policy.selector.matches(other.labels) {
            continue;
        }
        let may_pass = policy.rules(opposite).iter().any(|rule| {
            !ports_of(rule, to.ports).and(ports_asked).is_empty()
                && may_be_peer(near, policy, rule, own)
        });
        if may_pass {
            return None;
        }
        denied_by.push(policy.reference());
    }
    (!denied_by.is_empty()).then_some(denied_by)
}

/// Whether pods of a kind may be among the peers of a rule; of an address that is not known anything may be true.
fn may_be_peer(
    near: &Neighbourhood<'_>,
    policy: &NetworkPolicy,
    rule: &Rule,
    kind: &Kind<'_>,
) -> bool {
    let Peers::Only(peers) = &rule.peers else {
        return true;
    };
    peers.iter().any(|peer| match peer {
        Peer::Pods { namespaces, pods } => {
            let is_in = |namespace: &NamespaceName| match namespaces {
                NamespaceScope::Own => policy.namespace == *namespace,
                NamespaceScope::Selected(selector) => near
                    .snapshot()
                    .namespace(namespace)
                    .map(NamespaceState::labels)
                    .is_some_and(|labels| selector.matches(labels)),
            };
            pods.matches(kind.labels) && kind.pods.first().is_some_and(|pod| is_in(pod.namespace()))
        }
        Peer::Block { cidr, except } => kind.pods.iter().any(|pod| {
            let holds = |address: &IpAddr| {
                cidr.contains(address) && !except.iter().any(|block| block.contains(address))
            };
            pod.ips.is_empty() || pod.ips.iter().any(holds)
        }),
    })
}

/// Two different pods of two kinds that can have a connection.
fn pair<'s>(own: &Kind<'s>, other: &Kind<'s>) -> Option<(&'s Pod, &'s Pod)> {
    let candidates = own
        .pods
        .iter()
        .flat_map(|one| other.pods.iter().map(move |two| (*one, *two)));
    let mut candidates = candidates.filter(|(one, two)| {
        (one.workload != two.workload || one.is_template()) && share_family(one, two)
    });
    candidates.next()
}

fn share_family(one: &Pod, two: &Pod) -> bool {
    let families = |pod: &Pod| -> Vec<Family> {
        if pod.ips.is_empty() {
            return Family::BOTH.to_vec();
        }
        pod.ips.iter().map(|address| Family::of(*address)).collect()
    };
    let others = families(two);
    families(one).iter().any(|family| others.contains(family))
}
