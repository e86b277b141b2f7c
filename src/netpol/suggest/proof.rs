//! What is proved of suggested policies, by asking the model: they are enough, and not more than enough.

use ipnet::IpNet;

use super::rules::{Other, PortList, Seen};
use super::units::Units;
use super::{Opened, Options, Side, Suggestion};
use crate::netpol::coverage::Direction;
use crate::netpol::object::Object;
use crate::netpol::pod::Pod;
use crate::netpol::reach::{Connection, Party, PortSet, Reachability};
use crate::netpol::replay::{Change, Observations, Replay, Who};
use crate::netpol::snapshot::Snapshot;
use crate::netpol::workload::{WorkloadKind, WorkloadRef};

/// Replays what was recorded under the policies.
pub(super) fn sufficient(
    observations: &Observations,
    tried: &Snapshot,
    options: &Options,
    suggestion: &mut Suggestion,
) {
    let replay = Replay::of(observations, tried, &options.cluster);
    suggestion.denied = replay.of_change(Change::NewlyDenied).cloned().collect();
    suggestion.flows = replay
        .flows(Change::StillAllowed)
        .saturating_add(replay.flows(Change::NewlyDenied));
    suggestion.unknown = replay.unknown;
}

/// The connections that the policies allow at one of their namespaces, and that were not seen.
pub(super) fn opened(tried: &Snapshot, units: &Units, seen: &Seen) -> Vec<Opened> {
    let (mut tried, mut known) = (tried.clone(), units.of_workloads());
    // Pods that only records know stand there as templates do: there may be several of each.
    for (number, unit) in units.iter() {
        for (index, pod) in unit.recorded.iter().enumerate() {
            let workload = WorkloadRef {
                kind: WorkloadKind::Deployment,
                namespace: unit.namespace.clone(),
                // No object can have such a name.
                name: format!("recorded/{number}/{index}").into(),
            };
            known.insert(workload.clone(), number);
            tried.insert(Object::Workload(Pod {
                workload,
                owner: None,
                ..pod.clone()
            }));
        }
    }
    let connections = Reachability::of(&tried).connections();
    let is_seen = |connection: &Connection| {
        let unit = |party: &Party| match party {
            Party::Workload(workload) => known.get(workload).copied(),
            Party::Outside(_) => None,
        };
        let held = |unit: Option<usize>| {
            unit.and_then(|number| units.get(number))
                .is_some_and(|unit| seen.namespaces.contains(&unit.namespace))
        };
        match (&connection.from, &connection.to) {
            (Party::Workload(_), Party::Workload(_)) => {
                let (Some(from), Some(to)) = (unit(&connection.from), unit(&connection.to)) else {
                    // Pods on the network of a node: no policy holds them.
                    return true;
                };
                let ends = [
                    (from, Direction::Egress, to),
                    (to, Direction::Ingress, from),
                ];
                let mut ends = ends.into_iter().filter(|(own, ..)| held(Some(*own)));
                ends.all(|(own, direction, other)| {
                    let ports = seen
                        .edges(own, direction)
                        .and_then(|edges| edges.get(&Other::Unit(other)));
                    ports.is_some_and(|ports| is_within(&connection.ports, ports))
                })
            }
            (Party::Workload(_), Party::Outside(block)) => outside(
                seen,
                unit(&connection.from).filter(|one| held(Some(*one))),
                Direction::Egress,
                block,
                connection,
            ),
            (Party::Outside(block), Party::Workload(_)) => outside(
                seen,
                unit(&connection.to).filter(|one| held(Some(*one))),
                Direction::Ingress,
                block,
                connection,
            ),
            (Party::Outside(_), Party::Outside(_)) => true,
        }
    };
    let side = |party: Party| match party {
        Party::Outside(block) => Side::Outside(block),
        Party::Workload(workload) => {
            let unit = known.get(&workload).and_then(|number| units.get(*number));
            let who = unit.and_then(|unit| unit.whos.first().cloned());
            Side::Workload(who.unwrap_or(Who::Workload {
                namespace: workload.namespace,
                name: workload.name,
                kind: Some(workload.kind),
            }))
        }
    };
    let unseen = connections.into_iter().filter(|one| !is_seen(one));
    let opened = unseen.map(|one| Opened {
        from: side(one.from),
        to: side(one.to),
        ports: one.ports,
    });
    opened.collect()
}

/// Whether every address of a block was seen at these ports.
fn outside(
    seen: &Seen,
    unit: Option<usize>,
    direction: Direction,
    block: &IpNet,
    connection: &Connection,
) -> bool {
    let Some(unit) = unit else { return true };
    let edges = seen.edges(unit, direction).into_iter().flatten();
    let blocks: Vec<IpNet> = edges
        .filter(|(_, ports)| is_within(&connection.ports, ports))
        .filter_map(|(other, _)| match other {
            Other::Block(block) => Some(*block),
            Other::Unit(_) => None,
        })
        .collect();
    IpNet::aggregate(&blocks)
        .iter()
        .any(|seen| seen.contains(block))
}

fn is_within(ports: &PortSet, seen: &PortList) -> bool {
    let seen = seen
        .iter()
        .map(|(protocol, port)| PortSet::one(*protocol, *port))
        .fold(PortSet::none(), |all, one| all.or(&one));
    ports.or(&seen) == seen
}
