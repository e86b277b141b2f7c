//! The connections that reachability rules among the manifests demand to be closed, to be drawn on the map.

use std::collections::BTreeMap;

use crate::guard::reachability::{Expect, ReachabilityRule, Side, Who};
use crate::netpol::reach::{Connection, Party};
use crate::netpol::{PortSet, Reachability};

/// More than this are not drawn: the map would be red and nothing else.
const MOST: usize = 2000;

/// Every pair of workloads, or of a workload and a block outside, that a rule wants closed, with the ports of all rules
/// that say so; none where there are more than can be drawn.
pub(super) fn denied(rules: &[ReachabilityRule], reach: &Reachability) -> Option<Vec<Connection>> {
    let mut pairs: BTreeMap<(Party, Party), PortSet> = BTreeMap::new();
    let closed = rules.iter().filter(|rule| rule.spec.expect == Expect::Deny);
    for rule in closed {
        let to = parties(rule.end(Side::To), reach);
        for from in parties(rule.end(Side::From), reach) {
            for to in to.iter().filter(|to| **to != from) {
                let ports = pairs.entry((from.clone(), to.clone())).or_default();
                *ports = ports.or(&rule.ports);
                if pairs.len() > MOST {
                    return None;
                }
            }
        }
    }
    let pairs = pairs.into_iter();
    let connections = pairs.map(|((from, to), ports)| Connection { from, to, ports });
    Some(connections.collect())
}

/// The workloads and blocks that the ends of a rule mean.
fn parties(ends: &[Who], reach: &Reachability) -> Vec<Party> {
    let snapshot = reach.snapshot();
    let pods = snapshot.pods().filter(|pod| pod.is_held());
    let meant = pods.filter(|pod| {
        ends.iter().any(|end| match end {
            Who::Pods { namespaces, pods } => {
                pods.matches(&pod.labels)
                    && namespaces.matches(&snapshot.namespace_labels(pod.namespace()))
            }
            Who::Outside { .. } => false,
        })
    });
    let roots = meant.filter_map(|pod| reach.root(&pod.workload));
    let blocks = ends.iter().flat_map(|end| match end {
        Who::Outside { cidrs, .. } => cidrs.as_slice(),
        Who::Pods { .. } => &[],
    });
    let workloads = roots.map(|root| Party::Workload(root.clone()));
    let mut parties: Vec<Party> = workloads
        .chain(blocks.map(|block| Party::Outside(*block)))
        .collect();
    parties.sort();
    parties.dedup();
    parties
}
