//! Breadth of a ClusterNetworkPolicy: what its Accept rules open, which no network policy can close again.

use ipnet::IpNet;

use super::{Block, Broad, all_namespaces, blocks, every_namespace, peer_list, rule_field};
use crate::guard::finding::ObjectRef;
use crate::guard::guardrail::{BreadthLimits, BreadthSection};
use crate::netpol::{Action, ClusterNetworkPolicy, ClusterPeer, Direction};

/// Everything that a policy accepts wider than allowed.
pub(super) fn policy(
    object: &ObjectRef,
    policy: &ClusterNetworkPolicy,
    section: &BreadthSection,
) -> Vec<Broad> {
    let mut findings = Vec::new();
    for (direction, limits) in [
        (Direction::Ingress, &section.ingress),
        (Direction::Egress, &section.egress),
    ] {
        let Some(limits) = limits else { continue };
        if !limits.all_namespaces {
            namespaces(object, policy, direction, &mut findings);
        }
        let own = blocks_of(policy, direction, limits);
        // Each policy of the cluster answers for itself.
        blocks(
            object,
            &own,
            direction,
            limits,
            |_: &[IpNet]| Vec::new(),
            &mut findings,
        );
    }
    findings
}

fn namespaces(
    object: &ObjectRef,
    policy: &ClusterNetworkPolicy,
    direction: Direction,
    findings: &mut Vec<Broad>,
) {
    for (index, rule) in policy.rules(direction).iter().enumerate() {
        if rule.action != Action::Accept {
            continue;
        }
        for (number, peer) in rule.peers.iter().enumerate() {
            if let ClusterPeer::Pods(scope) = peer
                && every_namespace(&scope.namespaces)
            {
                let field = rule_field(direction, index).key(peer_list(direction));
                let field = field.index(number);
                let scope = (&scope.namespaces, &scope.pods);
                findings.push(all_namespaces(object, direction, index, scope, field));
            }
        }
    }
}

/// The address blocks that are accepted, those left out that the guardrail allows.
fn blocks_of(
    policy: &ClusterNetworkPolicy,
    direction: Direction,
    limits: &BreadthLimits,
) -> Vec<Block> {
    let mut blocks = Vec::new();
    for (index, rule) in policy.rules(direction).iter().enumerate() {
        if rule.action != Action::Accept {
            continue;
        }
        for (number, peer) in rule.peers.iter().enumerate() {
            let ClusterPeer::Networks(networks) = peer else {
                continue;
            };
            for (position, net) in networks.iter().enumerate() {
                let mut allowed = limits.allowed_blocks.iter();
                if !allowed.any(|allowed| allowed.contains(net)) {
                    let field = rule_field(direction, index).key(peer_list(direction));
                    let field = field.index(number).key("networks").index(position);
                    blocks.push(Block { net: *net, field });
                }
            }
        }
    }
    blocks
}
