//! What a change of the policies at one end can make of a flow: who at the other end may notice it at all.

use std::sync::Arc;

use super::passing::is_block;
use super::{Group, Holding, Other};
use crate::netpol::cluster_policy::{ClusterNetworkPolicy, ClusterPeer};
use crate::netpol::coverage::Direction;
use crate::netpol::name::NamespaceName;
use crate::netpol::net::Family;
use crate::netpol::pod::Pod;
use crate::netpol::policy::{Peer, Peers, Rule};

/// The other ends for which more may pass than before.
#[derive(Clone, Debug)]
pub enum Opened<'h> {
    /// Nobody: all that passes now has passed before.
    Nobody,
    /// Only those that one of these rules means.
    By(Vec<(&'h NamespaceName, &'h Rule)>),
    /// Whoever it is.
    Everyone,
}

impl Holding {
    /// For whom more may pass here than with other policies of the same pods.
    pub fn opened_since<'h>(&'h self, before: &Holding) -> Opened<'h> {
        if !self.wide.is_same(&before.wide) {
            return Opened::Everyone;
        }
        if before.policies.is_empty() {
            // What isolates them now also ends what the Baseline tier denied.
            let is_ended = !self.policies.is_empty() && self.wide.has_baseline();
            return if is_ended {
                Opened::Everyone
            } else {
                Opened::Nobody
            };
        }
        if self.policies.is_empty() {
            return Opened::Everyone;
        }
        let is_old = |rule: &Rule| {
            let mut policies = before.policies.iter();
            policies.any(|policy| policy.rules(self.direction).contains(rule))
        };
        let mut rules = Vec::new();
        for policy in &self.policies {
            // What is not changed is shared, most of the time.
            if before.policies.iter().any(|old| Arc::ptr_eq(old, policy)) {
                continue;
            }
            let new = policy.rules(self.direction).iter();
            rules.extend(
                new.filter(|rule| !is_old(rule))
                    .map(|rule| (&policy.namespace, rule)),
            );
        }
        if rules.is_empty() {
            Opened::Nobody
        } else {
            Opened::By(rules)
        }
    }
}

impl Opened<'_> {
    /// Whether there is nobody.
    pub fn is_nobody(&self) -> bool {
        matches!(self, Self::Nobody)
    }

    /// Whether pods of a group may be among them.
    pub fn may_be(&self, group: &Group) -> bool {
        match self {
            Self::Nobody => false,
            Self::Everyone => true,
            Self::By(rules) => rules
                .iter()
                .any(|(namespace, rule)| is_meant(group, rule, namespace)),
        }
    }
}

impl Group {
    /// Whether a cluster network policy rules its pods in a direction.
    pub fn is_ruled(&self, policy: &ClusterNetworkPolicy, direction: Direction) -> bool {
        let first = self.pods().first();
        !policy.rules(direction).is_empty()
            && first.is_some_and(|pod| policy.rules_pod(pod, self.namespace_labels()))
    }

    /// Whether its pods may be at the other end of what a cluster network policy says in a direction.
    pub fn may_be_peer(&self, policy: &ClusterNetworkPolicy, direction: Direction) -> bool {
        let mut peers = policy.rules(direction).iter().flat_map(|rule| &rule.peers);
        peers.any(|peer| match peer {
            ClusterPeer::Pods(scope) => scope.includes(self.labels(), self.namespace_labels()),
            // Addresses are asked for one by one, and what is not understood may close everything.
            ClusterPeer::Nodes(_)
            | ClusterPeer::Networks(_)
            | ClusterPeer::DomainNames(_)
            | ClusterPeer::Unknown(_) => true,
        })
    }
}

/// Whether a rule of a policy of a namespace means one of the pods of a group.
fn is_meant(group: &Group, rule: &Rule, namespace: &NamespaceName) -> bool {
    let Peers::Only(peers) = &rule.peers else {
        return true;
    };
    let (blocks, selections): (Vec<&Peer>, Vec<&Peer>) =
        peers.iter().partition(|peer| is_block(peer));
    let means = |peers: &[&Peer], pod: &Pod, family, address| {
        let other = Other::pod(pod, group.namespace_labels(), family, address);
        peers.iter().any(|peer| other.is(peer, namespace))
    };
    let mut pods = group.pods().iter();
    let first = pods.clone().next();
    first.is_some_and(|pod| means(&selections, pod, Family::V4, None))
        || !blocks.is_empty()
            && pods.any(|pod| {
                let mut families = Family::BOTH.into_iter();
                families.any(|family| {
                    let mut addresses = super::addresses(pod, family);
                    addresses.any(|address| means(&blocks, pod, family, address))
                })
            })
}
