//! Holds the difference of two clusters to its definition: what a verdict on single flows allows after and not before,
//! or before and not after, of workloads that are there both times.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use ringfence::netpol::reach::{Diff, Party, Row, Standing};
use ringfence::netpol::{
    Direction, Endpoint, Pod, Port, Protocol, Reachability, Snapshot, WorkloadRef,
};
use serde_json::Value;

use super::{clusters, flows, random, snapshot};

/// One end, as the definition sees it: a workload, or one address outside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Workload(WorkloadRef),
    Address(IpAddr),
}

/// Every (from, to, protocol, port) that some pods of the two ends may open, at the ports of [`flows`].
type Allowed = BTreeSet<(End, End, Protocol, Port)>;

fn pods(snapshot: &Snapshot) -> Vec<&Pod> {
    snapshot.pods().filter(|pod| !pod.is_finished()).collect()
}

fn outside() -> Vec<IpAddr> {
    let addresses = clusters::OUTSIDE.iter();
    addresses
        .map(|text| text.parse().expect("an address"))
        .collect()
}

fn root(reach: &Reachability, pod: &Pod) -> WorkloadRef {
    reach.root(&pod.workload).expect("a pod of it").clone()
}

fn allowed(reach: &Reachability) -> Allowed {
    let snapshot = reach.snapshot();
    let mut ends: Vec<(End, Endpoint<'_>)> = pods(snapshot)
        .into_iter()
        .map(|pod| (End::Workload(root(reach, pod)), Endpoint::Pod(pod)))
        .collect();
    ends.extend(
        outside()
            .into_iter()
            .map(|address| (End::Address(address), Endpoint::External(address))),
    );
    let mut allowed = Allowed::new();
    for (from, source) in &ends {
        for (to, destination) in &ends {
            match (source, destination) {
                (Endpoint::External(_), Endpoint::External(_)) => continue,
                (Endpoint::Pod(a), Endpoint::Pod(b))
                    if a.workload == b.workload && !a.is_template() =>
                {
                    continue;
                }
                _ => {}
            }
            for flow in flows(*source, *destination) {
                if snapshot.verdict(&flow).allowed() {
                    allowed.insert((from.clone(), to.clone(), flow.protocol, flow.port));
                }
            }
        }
    }
    allowed
}

/// Those of one side whose workloads are there both times.
fn of_both<'a>(
    allowed: &'a Allowed,
    both: &'a BTreeSet<WorkloadRef>,
) -> impl Iterator<Item = &'a (End, End, Protocol, Port)> {
    let is_there = |end: &End| match end {
        End::Workload(workload) => both.contains(workload),
        End::Address(_) => true,
    };
    allowed
        .iter()
        .filter(move |(from, to, ..)| is_there(from) && is_there(to))
}

/// What rows say of the same ends and ports.
fn told(rows: impl Iterator<Item = Row>) -> Result<Allowed, TestCaseError> {
    let ends = |party: &Party| match party {
        Party::Workload(workload) => vec![End::Workload(workload.clone())],
        Party::Outside(block) => outside()
            .into_iter()
            .filter(|address| block.contains(address))
            .map(End::Address)
            .collect(),
    };
    let mut told = Allowed::new();
    let mut listed = BTreeSet::new();
    for one in rows.flat_map(Row::connections) {
        prop_assert!(!one.ports.is_empty());
        prop_assert!(
            listed.insert((one.from.clone(), one.to.clone())),
            "told once"
        );
        for from in ends(&one.from) {
            for to in ends(&one.to) {
                let any = Endpoint::External(IpAddr::from([0, 0, 0, 0]));
                for flow in flows(any, any) {
                    if one.ports.contains(flow.protocol, flow.port) {
                        let is_new =
                            told.insert((from.clone(), to.clone(), flow.protocol, flow.port));
                        prop_assert!(is_new, "an address is in one block");
                    }
                }
            }
        }
    }
    Ok(told)
}

fn workloads(reach: &Reachability) -> BTreeSet<WorkloadRef> {
    let pods = pods(reach.snapshot()).into_iter();
    pods.map(|pod| root(reach, pod)).collect()
}

/// How many others a workload reaches, and how many reach it.
fn degrees(allowed: &Allowed, workload: &WorkloadRef) -> (usize, usize) {
    let own = End::Workload(workload.clone());
    let is_other = |end: &&End| matches!(end, End::Workload(_)) && **end != own;
    let pairs = || allowed.iter().map(|(from, to, ..)| (from, to));
    let to: BTreeSet<&End> = pairs()
        .filter(|(from, _)| **from == own)
        .map(|(_, to)| to)
        .collect();
    let from: BTreeSet<&End> = pairs()
        .filter(|(_, to)| **to == own)
        .map(|(from, _)| from)
        .collect();
    (
        to.into_iter().filter(is_other).count(),
        from.into_iter().filter(is_other).count(),
    )
}

fn check_alone(
    standings: &[Standing],
    reach: &Reachability,
    allowed: &Allowed,
    both: &BTreeSet<WorkloadRef>,
) -> Result<(), TestCaseError> {
    let there = workloads(reach);
    let wanted: BTreeSet<&WorkloadRef> = there.difference(both).collect();
    let named: BTreeSet<&WorkloadRef> = standings.iter().map(|one| &one.workload).collect();
    prop_assert_eq!(named, wanted);
    for standing in standings {
        let seen = (standing.reaches, standing.reached_by);
        prop_assert_eq!(seen, degrees(allowed, &standing.workload));
        for address in outside() {
            let own = End::Workload(standing.workload.clone());
            let there = End::Address(address);
            for (blocks, from, to) in [
                (&standing.to_outside, &own, &there),
                (&standing.from_outside, &there, &own),
            ] {
                let is_told = blocks.iter().any(|(block, _)| block.contains(&address));
                // A block may be open at ports that are not looked at here, but not the reverse.
                let is_open = allowed.iter().any(|(a, b, ..)| a == from && b == to);
                prop_assert!(is_told || !is_open);
            }
        }
    }
    Ok(())
}

fn check(old: &[Value], new: &[Value]) -> Result<(), TestCaseError> {
    let [old, new] = [old, new].map(|objects| Reachability::of(&snapshot(objects)));
    let (before, after) = (allowed(&old), allowed(&new));
    let both: BTreeSet<WorkloadRef> = workloads(&old)
        .intersection(&workloads(&new))
        .cloned()
        .collect();
    let diff = Diff::of(&old, &new);
    prop_assert_eq!(
        diff.both().iter().copied().collect::<BTreeSet<_>>(),
        both.iter().collect::<BTreeSet<_>>()
    );
    let opened: Allowed = of_both(&after, &both)
        .filter(|one| !before.contains(one))
        .cloned()
        .collect();
    prop_assert_eq!(told(diff.opened())?, opened);
    let closed: Allowed = of_both(&before, &both)
        .filter(|one| !after.contains(one))
        .cloned()
        .collect();
    prop_assert_eq!(told(diff.closed())?, closed);
    check_alone(&diff.added(), &new, &after, &both)?;
    check_alone(&diff.removed(), &old, &before, &both)?;
    check_isolation(&diff, &old, &new, &both)
}

fn check_isolation(
    diff: &Diff<'_>,
    old: &Reachability,
    new: &Reachability,
    both: &BTreeSet<WorkloadRef>,
) -> Result<(), TestCaseError> {
    let isolated = |reach: &Reachability, workload: &WorkloadRef, direction| {
        let snapshot = reach.snapshot();
        let mut own = pods(snapshot).into_iter().filter(|pod| {
            let stands = pod.is_template();
            let owner = pod.owner.as_ref().filter(|_| stands);
            owner.is_none_or(|owner| snapshot.pod(owner).is_none()) && root(reach, pod) == *workload
        });
        own.all(|pod| snapshot.pod_coverage(pod).covered(direction))
    };
    let mut wanted = BTreeMap::new();
    for workload in both {
        for direction in Direction::BOTH {
            let now = isolated(new, workload, direction);
            if isolated(old, workload, direction) != now {
                wanted.insert((workload.clone(), direction), now);
            }
        }
    }
    let told: BTreeMap<_, _> = diff
        .isolation()
        .into_iter()
        .map(|one| ((one.workload, one.direction), one.is_isolated))
        .collect();
    prop_assert_eq!(told, wanted);
    Ok(())
}

/// A cluster, and the same with some objects left out, others in their place, or more of them.
fn any_change() -> impl Strategy<Value = (Vec<Value>, Vec<Value>)> {
    let choices = vec(0..6_u8, 16);
    (clusters::any_cluster(), clusters::any_cluster(), choices).prop_map(|(old, other, choices)| {
        let length = old.len().max(other.len());
        let new = (0..length).zip(choices.into_iter().cycle());
        let new = new.filter_map(|(index, choice)| match choice {
            0 => None,
            1 | 2 => other.get(index).cloned(),
            _ => old.get(index).cloned(),
        });
        let new = new.collect();
        (old, new)
    })
}

#[test]
fn the_difference_is_what_the_verdict_says_before_and_after() {
    random::hold(192, &any_change(), |(old, new)| check(&old, &new));
}
