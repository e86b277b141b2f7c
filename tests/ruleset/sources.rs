//! Senders: what comes from a pod that is known to be behind an interface must have the pod's own address, in both tables.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::prelude::*;
use ringfence::netpol::{Family, Port, Snapshot};
use ringfence::ruleset::{
    Carried, Change, Interface, Layer, Options, Plan, Ruleset, SetKind, Transaction, render,
};

use crate::table::{Fate, Frame, apply, frame_fate};
use crate::{addresses, clusters, is_at, objects, random};

pub(crate) fn interface(number: usize) -> Interface {
    Interface::parse(&format!("veth{number}")).expect("a name")
}

/// Interfaces of addresses of pods, always the same for a number: some have none, some share one.
pub(crate) fn any_ports(snapshot: &Snapshot, number: usize) -> BTreeMap<IpAddr, Interface> {
    let addresses = snapshot.pods().flat_map(|pod| pod.ips.iter().copied());
    let numbered = addresses.enumerate();
    numbered
        .filter(|(at, _)| !(number / 7 + at).is_multiple_of(3))
        .map(|(at, address)| (address, interface((number + at) % 5)))
        .collect()
}

#[test]
fn a_pod_sends_with_no_address_but_its_own() {
    let seen = Cell::new((0, 0));
    let all = (clusters::any_cluster(), 0_usize..1_000);
    random::hold(60, &all, |(values, number)| {
        let snapshot: Snapshot = objects(&values).into_iter().collect();
        let options = Options::new(clusters::NODES[0]);
        let node = options.node.clone();
        let ports = any_ports(&snapshot, number);
        let mut plan = Plan::of(options, &snapshot);
        plan.behind(ports.clone());
        plan.advance(snapshot.clone(), &[]);
        let inet = plan.whole();
        let bridge = inet.bridge.as_deref().expect("a table for bridges");
        let is_behind = |address: IpAddr, port: &Interface| {
            is_at(&snapshot, address, &node) && ports.get(&address) == Some(port)
        };
        let nobody = ["0.0.0.0", "::", "fe80::1", "febf::1", "fe7f::1", "fec0::1"];
        let nobody = nobody.map(|text| text.parse::<IpAddr>().expect("an address"));
        let senders = addresses(&snapshot);
        for port in (0..6).map(interface) {
            let is_known = ports.keys().any(|address| is_behind(*address, &port));
            for sender in senders.iter().copied().chain(nobody) {
                let is_nobody = sender.is_unspecified()
                    || matches!(sender, IpAddr::V6(six) if six.is_unicast_link_local());
                let passes = !is_known || is_nobody || is_behind(sender, &port);
                let family = Family::of(sender);
                let mut kinds = vec![(&inet, Carried::Ip(family)), (bridge, Carried::Ip(family))];
                if family == Family::V4 {
                    kinds.push((bridge, Carried::Arp));
                }
                for (table, carried) in kinds {
                    let frame = Frame {
                        interface: &port,
                        carried: Some(carried),
                        sender,
                        port: None,
                        routes: false,
                    };
                    let fate = frame_fate(table, &frame);
                    prop_assert_eq!(fate == Fate::Passed, passes, "{:?}", frame);
                    let (yes, no) = seen.get();
                    seen.set(if passes { (yes + 1, no) } else { (yes, no + 1) });
                    // What policies see nothing of, and what is for the overlay and from nobody.
                    let other = Frame {
                        carried: None,
                        ..frame
                    };
                    let fate = frame_fate(bridge, &other);
                    prop_assert_eq!(fate == Fate::Passed, !is_known, "{:?}", other);
                    if carried == Carried::Arp {
                        continue;
                    }
                    if family == Family::V6 {
                        let routes = Frame {
                            routes: true,
                            ..frame
                        };
                        let is_believed = is_known && is_nobody;
                        let fate = frame_fate(table, &routes);
                        prop_assert_eq!(
                            fate == Fate::Passed,
                            passes && !is_believed,
                            "{:?}",
                            routes
                        );
                    }
                    for number in [4788, 4789, 8472] {
                        let is_crafted = is_known && is_nobody && number != 4788;
                        let frame = Frame {
                            port: Port::new(number),
                            ..frame
                        };
                        let fate = frame_fate(table, &frame);
                        prop_assert_eq!(fate == Fate::Passed, passes && !is_crafted, "{:?}", frame);
                    }
                }
            }
        }
        Ok(())
    });
    let (passed, dropped) = seen.get();
    assert!(passed > 1_000 && dropped > 1_000, "{passed}, {dropped}");
}

#[test]
fn who_comes_or_goes_costs_its_own_elements_in_both_tables() {
    let snapshot: Snapshot = clusters_of(&["10.0.0.1", "10.0.0.2"]);
    let mut plan = Plan::of(Options::new("n"), &snapshot);
    let mut table = Ruleset::default();
    apply(&mut table, &Transaction::whole(&plan.whole()));
    let address: IpAddr = "10.0.0.1".parse().expect("an address");
    let told = |plan: &mut Plan, port: Option<usize>| {
        plan.behind(
            port.map(|port| (address, interface(port)))
                .into_iter()
                .collect(),
        );
        plan.advance(snapshot.clone(), &[])
    };
    let texts: Vec<String> = [Some(1), Some(2), None]
        .into_iter()
        .map(|port| {
            let transaction = told(&mut plan, port);
            apply(&mut table, &transaction);
            assert_eq!(table, plan.whole());
            let is_of_node = |(layer, change): (Layer, &Change)| match change {
                Change::AddElements(_, kind, _) | Change::DeleteElements(_, kind, _) => {
                    matches!(kind, SetKind::Interfaces | SetKind::Sources(Family::V4))
                        && matches!(layer, Layer::Inet | Layer::Bridge)
                }
                _ => false,
            };
            assert!(transaction.all().all(is_of_node));
            render::transaction(&transaction)
        })
        .collect();
    let digest = |port| {
        let mut plan = Plan::of(Options::new("n"), &snapshot);
        told(&mut plan, port);
        plan.whole().digest()
    };
    assert_eq!(
        digest(Some(1)),
        digest(None),
        "who knows the cluster can tell it"
    );
    insta::assert_snapshot!(texts.join("\n"));
}

/// Pods of one node with these addresses.
fn clusters_of(addresses: &[&str]) -> Snapshot {
    let pod = |(at, address): (usize, &&str)| {
        serde_json::json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "shop", "name": format!("pod-{at}")},
            "spec": {"nodeName": "n", "containers": [{"name": "main", "image": "main"}]},
            "status": {"phase": "Running", "podIPs": [{"ip": address}]},
        })
    };
    let values: Vec<_> = addresses.iter().enumerate().map(pod).collect();
    objects(&values).into_iter().collect()
}
