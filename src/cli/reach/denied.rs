//! The connections that reachability rules among the manifests demand to be closed, to be drawn on the map.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::guard::reachability::{Expect, ReachabilityRule, Side, Who};
use crate::netpol::reach::Party;
use crate::netpol::{PortSet, Reachability};
use crate::report::reach::{Denied, DeniedEnd};

/// More than this are not drawn: the map would be red and nothing else.
const MOST: usize = 2000;

/// Every pair of workloads, or of a workload and a block outside, that a rule wants closed, with the ports of all rules
/// that say so; none where there are more than can be drawn.
pub(super) fn denied(rules: &[ReachabilityRule], reach: &Reachability) -> Option<Vec<Denied>> {
    let mut pairs: BTreeMap<(DeniedEnd, DeniedEnd), PortSet> = BTreeMap::new();
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
    let connections = pairs.map(|((from, to), ports)| Denied { from, to, ports });
    Some(connections.collect())
}

/// The workloads and blocks that the ends of a rule mean.
fn parties(ends: &[Who], reach: &Reachability) -> Vec<DeniedEnd> {
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
        Who::Outside { cidrs, except } => blocks(cidrs, except),
        Who::Pods { .. } => Vec::new(),
    });
    let workloads = roots.map(|root| DeniedEnd {
        party: Party::Workload(root.clone()),
        except: Vec::new(),
    });
    let mut parties: Vec<DeniedEnd> = workloads.chain(blocks).collect();
    parties.sort();
    parties.dedup();
    parties
}

/// The blocks of an end, each with what is left out of it; none of which nothing is left.
fn blocks(cidrs: &[IpNet], except: &[IpNet]) -> Vec<DeniedEnd> {
    let left = cidrs
        .iter()
        .filter(|block| !except.iter().any(|hole| hole.contains(*block)));
    let ends = left.map(|block| {
        let holes = except.iter().filter(|hole| block.contains(*hole)).copied();
        DeniedEnd {
            party: Party::Outside(*block),
            except: holes.collect(),
        }
    });
    ends.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_excepted_is_not_drawn_as_denied() {
        let net = |text: &str| text.parse::<IpNet>().expect("a block");
        let cidrs = [net("0.0.0.0/0"), net("10.1.0.0/16"), net("::/0")];
        let told: Vec<(String, usize)> = blocks(&cidrs, &[net("10.0.0.0/8"), net("192.0.2.0/24")])
            .iter()
            .map(|end| (end.party.to_string(), end.except.len()))
            .collect();
        assert_eq!(told, [("0.0.0.0/0".to_owned(), 2), ("::/0".to_owned(), 0)]);
    }
}
