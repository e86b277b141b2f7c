//! Policies on trial: what the table would do is the model's difference, and what it does is the same as without them.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::IpAddr;

use proptest::prelude::*;
use ringfence::netpol::{
    Direction, Endpoint, Family, Flow, NodeName, ObjectKey, Port, Protocol, Snapshot, Stage,
    StagedNetworkPolicy, Verdict,
};
use ringfence::ruleset::{Element, Options, Plan};

use crate::table::{Fate, Packet, marks};
use crate::{addresses, check_nodes, clusters, is_at, objects, ports, random, trials};

fn flow_verdict(snapshot: &Snapshot, packet: &Packet) -> Verdict {
    let port = Port::new(packet.port).expect("a port");
    let ends = [packet.source, packet.destination].map(|address| snapshot.endpoint_at(address));
    let flow = Flow::new(ends[0], ends[1], packet.protocol, port);
    snapshot.verdict(&flow.over(Family::of(packet.source)))
}

/// The counters that a packet is to be counted by for what would become of it at the ends on a node.
fn would(
    snapshot: &Snapshot,
    promoted: &Snapshot,
    packet: &Packet,
    node: &NodeName,
) -> BTreeSet<String> {
    let (now, then) = (
        flow_verdict(snapshot, packet),
        flow_verdict(promoted, packet),
    );
    let mut marks = BTreeSet::new();
    for (direction, own) in [
        (Direction::Egress, packet.source),
        (Direction::Ingress, packet.destination),
    ] {
        if !is_at(snapshot, own, node) {
            continue;
        }
        match (now.at(direction).passes(), then.at(direction).passes()) {
            (true, false) => {
                marks.insert(format!("would-deny-{direction}"));
            }
            (false, true) => {
                marks.insert(format!("would-allow-{direction}"));
            }
            (true, true) | (false, false) => {}
        }
        if !now.at(direction).passes() {
            // It is gone, and nobody asks at the other end.
            break;
        }
    }
    marks
}

fn check_marks(
    snapshot: &Snapshot,
    node: &str,
    seen: &Cell<(u32, u32)>,
) -> Result<(), TestCaseError> {
    let ruleset = Plan::of(Options::new(node), snapshot).whole();
    let promoted = snapshot.promoting(snapshot.staged_policies());
    let node = NodeName::from(node);
    let addresses = addresses(snapshot);
    let is_own = |address| matches!(snapshot.endpoint_at(address), Endpoint::Node { name, .. } if *name == node);
    for source in addresses.iter().filter(|address| !is_own(**address)) {
        for destination in &addresses {
            if Family::of(*source) != Family::of(*destination) {
                continue;
            }
            let chain = if is_own(*destination) {
                "input"
            } else {
                "forward"
            };
            for port in ports() {
                let packet = Packet {
                    source: *source,
                    destination: *destination,
                    protocol: Protocol::ALL[usize::from(port) % 3],
                    port,
                };
                let (_, marked) = marks(&ruleset, chain, &packet);
                let marked: BTreeSet<String> = marked
                    .into_iter()
                    .filter(|mark| mark.starts_with("would-"))
                    .collect();
                let wanted = would(snapshot, &promoted, &packet, &node);
                let (deny, allow) = seen.get();
                let of = |word: &str| u32::from(wanted.iter().any(|mark| mark.starts_with(word)));
                seen.set((deny + of("would-deny"), allow + of("would-allow")));
                prop_assert_eq!(marked, wanted, "{:?} at {}", packet, node);
            }
        }
    }
    Ok(())
}

#[test]
fn what_the_table_would_do_is_the_difference_of_the_model() {
    let seen = Cell::default();
    random::hold(100, &trials::any_cluster(), |values| {
        let snapshot: Snapshot = objects(&values).into_iter().collect();
        for node in clusters::NODES {
            check_marks(&snapshot, node, &seen)?;
        }
        Ok(())
    });
    let (deny, allow) = seen.get();
    assert!(deny > 200 && allow > 50, "{deny}, {allow}");
}

#[test]
fn with_policies_on_trial_the_table_lets_pass_what_the_model_lets_pass() {
    check_nodes(60, &trials::any_cluster(), (10_000, 1_000));
}

#[test]
fn in_shadow_nothing_is_decided_otherwise() {
    random::hold(60, &trials::any_cluster(), |values| {
        let mut snapshot: Snapshot = objects(&values).into_iter().collect();
        let canaries: Vec<ObjectKey> = snapshot
            .staged_policies()
            .filter(|staged| staged.stage == Stage::Canary)
            .map(StagedNetworkPolicy::reference)
            .map(ObjectKey::StagedNetworkPolicy)
            .collect();
        for canary in &canaries {
            snapshot.remove(canary);
        }
        let mut bare = snapshot.clone();
        for staged in snapshot.staged_policies() {
            bare.remove(&ObjectKey::StagedNetworkPolicy(staged.reference()));
        }
        let node = clusters::NODES[0];
        let plan = |snapshot: &Snapshot| Plan::of(Options::new(node), snapshot).whole();
        let (tried, without) = (plan(&snapshot), plan(&bare));
        for source in &addresses(&snapshot) {
            for destination in &addresses(&snapshot) {
                if Family::of(*source) != Family::of(*destination) {
                    continue;
                }
                for port in ports() {
                    let packet = Packet {
                        source: *source,
                        destination: *destination,
                        protocol: Protocol::Tcp,
                        port,
                    };
                    let fate = |table| -> (Fate, bool) {
                        let (fate, marks) = marks(table, "forward", &packet);
                        (fate, marks.iter().any(|mark| mark.starts_with("denied-")))
                    };
                    prop_assert_eq!(fate(&tried), fate(&without), "{:?}", packet);
                }
            }
        }
        // Who has nothing on trial pays nothing.
        let has_none = |address: &IpAddr| {
            let pod = snapshot.pod_at(*address);
            pod.is_none_or(|pod| {
                snapshot
                    .staged_policies_in(pod.namespace())
                    .next()
                    .is_none()
            })
        };
        for (name, set) in &without.sets {
            for element in &set.elements {
                if let Element::Dispatch(address, chain) = element
                    && has_none(address)
                {
                    prop_assert!(tried.sets[name].elements.contains(element));
                    prop_assert_eq!(tried.chains.get(chain), without.chains.get(chain));
                }
            }
        }
        Ok(())
    });
}
