//! Cluster network policies that rule nobody, and their peers that mean nobody.
//!
//! That nobody is there is said only where the whole cluster is known; what contradicts itself is found anywhere.

use super::neighbourhood::Neighbourhood;
use super::nothing::{is_contradiction, typo};
use super::{Flaw, Nothing, What, peers_field};
use crate::netpol::cluster_policy::{ClusterNetworkPolicy, ClusterPeer, PodScope};
use crate::netpol::coverage::Direction;
use crate::netpol::field::FieldPath;
use crate::netpol::snapshot::NamespaceState;

/// A policy that rules nobody.
pub(super) fn subject(
    near: Option<&Neighbourhood<'_>>,
    policy: &ClusterNetworkPolicy,
) -> Option<Flaw> {
    Some(Flaw {
        field: FieldPath::of(["spec", "subject"]),
        what: What::SelectsNothing(nobody(near, &policy.subject)?),
    })
}

/// The peers of its rules that mean nobody.
pub(super) fn peers(near: Option<&Neighbourhood<'_>>, policy: &ClusterNetworkPolicy) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    for direction in Direction::BOTH {
        for (index, rule) in policy.rules(direction).iter().enumerate() {
            for (number, peer) in rule.peers.iter().enumerate() {
                if let ClusterPeer::Pods(scope) = peer
                    && let Some(why) = nobody(near, scope)
                {
                    flaws.push(Flaw {
                        field: peers_field(direction, index).index(number),
                        what: What::PeerIsNobody(why),
                    });
                }
            }
        }
    }
    flaws
}

/// Why a scope means nobody, as far as that can be said.
fn nobody(near: Option<&Neighbourhood<'_>>, scope: &PodScope) -> Option<Nothing> {
    if is_contradiction(&scope.namespaces) || is_contradiction(&scope.pods) {
        return Some(Nothing::Contradiction);
    }
    let near = near.filter(|near| near.is_all() && near.is_whole_cluster())?;
    let all = || near.snapshot().namespaces();
    let mut meant = all()
        .filter(|state| scope.namespaces.matches(state.labels()))
        .peekable();
    if meant.peek().is_none() {
        let near = typo(&scope.namespaces, all().map(NamespaceState::labels));
        return Some(Nothing::NoNamespace { near });
    }
    // All pods of some namespaces are for whatever comes.
    if scope.pods.is_everything() {
        return None;
    }
    let pods: Vec<_> = meant.flat_map(NamespaceState::pods).collect();
    let mut matching = pods
        .iter()
        .filter(|pod| scope.pods.matches(&pod.labels) && !pod.is_finished())
        .peekable();
    if matching.peek().is_some() {
        return matching
            .all(|pod| pod.host_network)
            .then_some(Nothing::OnHost);
    }
    let held = pods.iter().filter(|pod| pod.is_held());
    let near = typo(&scope.pods, held.map(|pod| &pod.labels));
    Some(Nothing::NoPod { near })
}
