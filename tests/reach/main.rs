//! Holds reachability equal to the verdict on single flows: over random clusters, every pair of ends, every protocol,
//! every port at a boundary; and every connection that is listed to one that a pod of the one end really has.

// What a test cannot prepare has failed.
#![allow(clippy::expect_used, clippy::panic)]

#[path = "../netpol_oracle/clusters.rs"]
mod clusters;
mod diff;
mod examples;
mod exposure;
#[path = "../support/random.rs"]
mod random;
#[path = "../netpol_oracle/trials.rs"]
mod trials;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::prelude::*;
use ringfence::netpol::reach::{Connection, Party, Place, PortSet, Says, Step, StepPolicy};
use ringfence::netpol::{
    Action, Direction, EndVerdict, Endpoint, Flow, NamespaceState, Pod, Port, Protocol,
    Reachability, Snapshot, WorkloadRef, parse,
};
use serde_json::Value;

fn snapshot(objects: &[Value]) -> Snapshot {
    let object = |value: &Value| {
        parse(value)
            .expect("valid")
            .expect("a kind of the model")
            .object
    };
    objects.iter().map(object).collect()
}

/// Addresses that are no pod's; some are those of nodes that may be known.
fn outside() -> impl Iterator<Item = IpAddr> {
    let addresses = clusters::OUTSIDE.iter().chain(&clusters::NODE_ADDRESSES);
    addresses.map(|text| text.parse().expect("an address"))
}

/// Every end, as a question to reachability and as one to the verdict.
fn ends(snapshot: &Snapshot) -> Vec<(Place<'_>, Endpoint<'_>)> {
    let pods = snapshot.pods().filter(|pod| !pod.is_finished());
    let pods = pods.map(|pod| (Place::Pod(&pod.workload), Endpoint::Pod(pod)));
    let outside = outside().map(|address| (Place::Address(address), Endpoint::External(address)));
    pods.chain(outside).collect()
}

/// The ports at which something may change, as reachability and as single verdicts have them.
fn flows<'a>(from: Endpoint<'a>, to: Endpoint<'a>) -> impl Iterator<Item = Flow<'a>> {
    let ports = clusters::PORTS.into_iter();
    let ports = ports.map(|port| u16::try_from(port).expect("a port"));
    let near = ports.flat_map(|port| [port - 1, port, port + 1]);
    let ports: BTreeSet<u16> = near.chain([1, 65535]).collect();
    let ports = ports.into_iter().filter_map(Port::new);
    ports.flat_map(move |port| {
        Protocol::ALL.map(move |protocol| Flow::new(from, to, protocol, port))
    })
}

fn check_pairs(snapshot: &Snapshot, reach: &Reachability) -> Result<(), TestCaseError> {
    let ends = ends(snapshot);
    for (place, from) in &ends {
        for (other, to) in &ends {
            if matches!((place, other), (Place::Address(_), Place::Address(_))) {
                continue;
            }
            let ports = reach.between(*place, *other);
            for flow in flows(*from, *to) {
                let verdict = snapshot.verdict(&flow);
                prop_assert_eq!(
                    ports.contains(flow.protocol, flow.port),
                    verdict.allowed(),
                    "{}: {} but reachability says {}",
                    flow,
                    verdict,
                    ports
                );
            }
        }
    }
    Ok(())
}

/// What the list must hold, put together from single pairs of pods and from addresses in the blocks listed.
fn check_list(snapshot: &Snapshot, reach: &Reachability) -> Result<(), TestCaseError> {
    let pods: Vec<&Pod> = snapshot.pods().filter(|pod| !pod.is_finished()).collect();
    let root = |pod: &Pod| reach.root(&pod.workload).expect("a pod of it").clone();
    let mut wanted: BTreeMap<(WorkloadRef, WorkloadRef), PortSet> = BTreeMap::new();
    for from in &pods {
        for to in &pods {
            if from.workload == to.workload && !from.is_template() {
                continue;
            }
            let ports = reach.between(Place::Pod(&from.workload), Place::Pod(&to.workload));
            if !ports.is_empty() {
                let all = wanted.entry((root(from), root(to))).or_default();
                *all = all.or(&ports);
            }
        }
    }
    let connections = reach.connections();
    let mut listed = BTreeMap::new();
    let mut from_outside: Vec<&Connection> = Vec::new();
    for connection in &connections {
        match (&connection.from, &connection.to) {
            (Party::Workload(from), Party::Workload(to)) => {
                let before = listed.insert((from.clone(), to.clone()), connection.ports.clone());
                prop_assert_eq!(before, None, "listed once");
            }
            (Party::Outside(_), Party::Workload(_)) => from_outside.push(connection),
            (Party::Workload(_), Party::Outside(_)) => {}
            (Party::Outside(_), Party::Outside(_)) => prop_assert!(false, "between outsiders"),
        }
    }
    prop_assert_eq!(listed, wanted);
    for address in outside() {
        for workload in reach.workloads() {
            let of_workload = pods.iter().filter(|pod| root(pod) == *workload);
            let wanted = of_workload
                .map(|pod| reach.between(Place::Address(address), Place::Pod(&pod.workload)))
                .fold(PortSet::none(), |all, ports| all.or(&ports));
            let is_meant = |one: &&&Connection| {
                matches!(&one.from, Party::Outside(block) if block.contains(&address))
                    && one.to == Party::Workload(workload.clone())
            };
            let listed: Vec<_> = from_outside.iter().filter(is_meant).collect();
            prop_assert!(listed.len() <= 1, "{} is listed in one block", address);
            let listed = listed.first().map(|one| one.ports.clone());
            prop_assert_eq!(
                listed.unwrap_or_default(),
                wanted,
                "{} -> {}",
                address,
                workload
            );
        }
    }
    Ok(())
}

/// The steps at one end must end where the verdict does.
fn check_steps(steps: &[Step], end: &EndVerdict) -> Result<(), TestCaseError> {
    let first = steps.iter().find(|step| step.allows());
    let first = first.map(|step| (&step.policy, step.index));
    match end {
        EndVerdict::Allowed { by, .. } => {
            let policy = StepPolicy::Network(by.policy.clone());
            prop_assert_eq!(first, Some((&policy, Some(by.index))));
        }
        EndVerdict::Ruled(ruled) => {
            let action = if ruled.accepts {
                Action::Accept
            } else {
                Action::Deny
            };
            let is_it = |step: &&Step| {
                let is_of = matches!(&step.policy, StepPolicy::Cluster { policy, .. } if *policy == ruled.by.policy);
                is_of && step.index == Some(ruled.by.index)
            };
            let step = steps.iter().find(is_it).expect("the rule that decides");
            prop_assert_eq!(step.says, Says::Does(action, ruled.closed));
            prop_assert!(ruled.accepts || first.is_none());
        }
        EndVerdict::Denied { .. } | EndVerdict::NotIsolated => prop_assert_eq!(first, None),
        EndVerdict::NotHeld(_) | EndVerdict::NoAddress => {}
    }
    Ok(())
}

/// What an explanation says of its steps must be what the verdict says of the whole, and its proposal must help.
fn check_explanations(snapshot: &Snapshot) -> Result<(), TestCaseError> {
    let ends = ends(snapshot);
    for (_, from) in &ends {
        for (_, to) in &ends {
            for flow in flows(*from, *to).step_by(5) {
                let explanation = snapshot.explain(&flow);
                let verdict = snapshot.verdict(&flow);
                for direction in Direction::BOTH {
                    let steps = match direction {
                        Direction::Ingress => &explanation.ingress,
                        Direction::Egress => &explanation.egress,
                    };
                    check_steps(steps, verdict.at(direction))?;
                }
                prop_assert_eq!(&explanation.verdict, &verdict);
                let pods = [from, to].map(|end| matches!(end, Endpoint::Pod(pod) if pod.is_held()));
                // What the Admin tier denies is not for network policies to change, and none of a namespace that is
                // being deleted would count.
                let goes = |end: &Endpoint<'_>| {
                    let namespace = end.selectable().map(Pod::namespace);
                    let state = namespace.and_then(|name| snapshot.namespace(name));
                    state.is_some_and(NamespaceState::is_terminating)
                };
                let is_possible = verdict.egress != EndVerdict::NoAddress
                    && explanation.blocked_by().is_empty()
                    && !goes(from)
                    && !goes(to);
                if !explanation.blocked_by().is_empty() {
                    prop_assert!(explanation.changes.is_empty());
                }
                if !verdict.allowed() && pods == [true, true] && is_possible {
                    prop_assert!(!explanation.changes.is_empty(), "{}: {}", flow, verdict);
                }
            }
        }
    }
    Ok(())
}

#[test]
fn every_explanation_is_the_verdict_in_steps_and_ends_in_a_change_that_helps() {
    random::hold(32, &clusters::any_cluster(), |objects| {
        check_explanations(&snapshot(&objects))
    });
    random::hold(16, &trials::any_cluster(), |objects| {
        check_explanations(&snapshot(&objects))
    });
}

#[test]
fn reachability_is_the_verdict_on_every_pair_at_every_boundary() {
    let check = |objects: Vec<Value>| {
        let snapshot = snapshot(&objects);
        let reach = Reachability::of(&snapshot);
        check_pairs(&snapshot, &reach)?;
        check_list(&snapshot, &reach)
    };
    random::hold(256, &clusters::any_cluster(), check);
    random::hold(128, &trials::any_cluster(), check);
}
