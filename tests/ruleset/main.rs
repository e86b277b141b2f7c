//! Holds a node's wanted table equal to the model: over random clusters, every packet between every pair of addresses; and
//! what is planned step by step equal to what is planned at once.

// What a test cannot prepare has failed.
#![allow(clippy::expect_used, clippy::panic)]

#[path = "../netpol_oracle/clusters.rs"]
mod clusters;
#[path = "../support/random.rs"]
mod random;
mod sources;
mod staged;
mod table;
#[path = "../netpol_oracle/trials.rs"]
mod trials;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::IpAddr;

use proptest::prelude::*;
use ringfence::netpol::{
    Endpoint, Family, Flow, NodeName, Object, ObjectKey, Pod, Port, Protocol, Snapshot,
    WorkloadRef, parse,
};
use ringfence::ruleset::{Change, Options, Plan, Ruleset, Transaction};
use serde_json::Value;
use table::{Fate, Packet, apply, fate};

fn objects(values: &[Value]) -> Vec<Object> {
    let object = |value: &Value| {
        parse(value)
            .expect("valid")
            .expect("a kind of the model")
            .object
    };
    values.iter().map(object).collect()
}

/// Every address of a pod or node, and some that are nobody's.
fn addresses(snapshot: &Snapshot) -> BTreeSet<IpAddr> {
    let pods = snapshot.pods().flat_map(|pod| pod.ips.iter().copied());
    let others = clusters::OUTSIDE.iter().chain(&clusters::NODE_ADDRESSES);
    let others = others.map(|text| text.parse().expect("an address"));
    pods.chain(others).collect()
}

fn ports() -> BTreeSet<u16> {
    let ports = clusters::PORTS.into_iter();
    let ports = ports.map(|port| u16::try_from(port).expect("a port"));
    ports
        .flat_map(|port| [port - 1, port, port + 1])
        .chain([1, 65535])
        .collect()
}

fn is_at(snapshot: &Snapshot, address: IpAddr, node: &NodeName) -> bool {
    let pod = snapshot.pod_at(address);
    pod.is_some_and(|pod| pod.node.as_ref() == Some(node))
}

/// Whether the model lets a packet pass at those of its ends that are pods of a node.
fn passes(snapshot: &Snapshot, packet: &Packet, node: &NodeName) -> bool {
    let port = Port::new(packet.port).expect("a port");
    let ends = [packet.source, packet.destination].map(|address| snapshot.endpoint_at(address));
    let flow = Flow::new(ends[0], ends[1], packet.protocol, port);
    let verdict = snapshot.verdict(&flow.over(Family::of(packet.source)));
    (verdict.egress.passes() || !is_at(snapshot, packet.source, node))
        && (verdict.ingress.passes() || !is_at(snapshot, packet.destination, node))
}

/// How many packets were let pass and how many were not.
type Seen = Cell<(u32, u32)>;

fn check_node(snapshot: &Snapshot, options: &Options, seen: &Seen) -> Result<(), TestCaseError> {
    let ruleset = Plan::of(options.clone(), snapshot).whole();
    let node = options.node.clone();
    let is_crafted = |packet: &Packet| {
        let is_vxlan = options
            .vxlan_ports
            .iter()
            .any(|port| port.get() == packet.port);
        let to_node = matches!(
            snapshot.endpoint_at(packet.destination),
            Endpoint::Node { .. }
        );
        let is_local = is_at(snapshot, packet.source, &node);
        is_vxlan && packet.protocol == Protocol::Udp && is_local && to_node
    };
    let is_known = |address| {
        let mut blocks = options.known_only.iter();
        !blocks.any(|block| block.contains(&address)) || is_at(snapshot, address, &node)
    };
    let addresses = addresses(snapshot);
    let is_own = |address| matches!(snapshot.endpoint_at(address), Endpoint::Node { name, .. } if *name == node);
    for packet in packets(&addresses) {
        // What the node itself sends is not forwarded.
        if is_own(packet.source) {
            continue;
        }
        let chain = if is_own(packet.destination) {
            "input"
        } else {
            "forward"
        };
        let fate = fate(&ruleset, chain, &packet);
        let both = [packet.source, packet.destination];
        let passes = passes(snapshot, &packet, &node)
            && !is_crafted(&packet)
            && (chain == "input" || both.into_iter().all(is_known));
        prop_assert_eq!(fate == Fate::Passed, passes, "{:?} at {}", packet, node);
        let (yes, no) = seen.get();
        seen.set(if passes { (yes + 1, no) } else { (yes, no + 1) });
    }
    Ok(())
}

/// Checks each node of so many random clusters, in which so many packets at least must pass, and not pass.
fn check_nodes<S: Strategy<Value = Vec<Value>>>(cases: u32, cluster: &S, least: (u32, u32)) {
    let seen = Seen::default();
    random::hold(cases, cluster, |values| {
        let snapshot: Snapshot = objects(&values).into_iter().collect();
        for node in clusters::NODES {
            check_node(&snapshot, &Options::new(node), &seen)?;
        }
        Ok(())
    });
    let (passed, denied) = seen.get();
    assert!(passed > least.0 && denied > least.1, "{passed}, {denied}");
}

#[test]
fn the_table_lets_pass_what_the_model_lets_pass() {
    check_nodes(150, &clusters::any_cluster(), (10_000, 10_000));
}

/// Where every address of some blocks, in which there are pods and others, must be a known pod's.
fn known_only(node: &str) -> Options {
    let blocks = ["10.0.0.0/24", "10.0.0.128/25", "fd00::/120"];
    Options {
        known_only: blocks.map(|block| block.parse().expect("a block")).into(),
        ..Options::new(node)
    }
}

#[test]
fn of_a_nodes_blocks_only_known_pods_pass() {
    let seen = Seen::default();
    random::hold(50, &clusters::any_cluster(), |values| {
        let snapshot: Snapshot = objects(&values).into_iter().collect();
        check_node(&snapshot, &known_only(clusters::NODES[0]), &seen)
    });
    let (passed, denied) = seen.get();
    assert!(passed > 1_000 && denied > 1_000, "{passed}, {denied}");
}

#[test]
fn what_pods_send_to_nodes_at_the_ports_of_vxlan_is_dropped_and_what_they_send_to_pods_is_not() {
    let seen = Seen::default();
    let ports: BTreeSet<Port> = ports().into_iter().filter_map(Port::new).collect();
    random::hold(50, &clusters::any_cluster(), |values| {
        let snapshot: Snapshot = objects(&values).into_iter().collect();
        let options = Options {
            vxlan_ports: ports.iter().copied().step_by(2).collect(),
            ..Options::new(clusters::NODES[0])
        };
        check_node(&snapshot, &options, &seen)
    });
    let (passed, denied) = seen.get();
    assert!(passed > 1_000 && denied > 1_000, "{passed}, {denied}");
}

/// What becomes of a key on the way from one cluster to another.
fn steps(from: &[Object], to: &[Object]) -> Vec<(ObjectKey, Option<Object>)> {
    let keys: BTreeSet<ObjectKey> = to.iter().map(Object::key).collect();
    let gone = from
        .iter()
        .map(Object::key)
        .filter(|key| !keys.contains(key));
    let mut steps: Vec<_> = gone.map(|key| (key, None)).collect();
    steps.extend(to.iter().map(|object| (object.key(), Some(object.clone()))));
    // Some pods are bound before they have an address.
    let bound = to.iter().step_by(2).filter_map(|object| match object {
        Object::Pod(pod) => Some(Object::Pod(Pod {
            ips: Vec::new(),
            ..pod.clone()
        })),
        _ => None,
    });
    steps.extend(bound.map(|object| (object.key(), Some(object))));
    steps
}

#[test]
fn step_by_step_comes_to_the_same_as_at_once() {
    hold_step_by_step(300, clusters::any_cluster);
}

#[test]
fn step_by_step_with_policies_on_trial_comes_to_the_same_as_at_once() {
    hold_step_by_step(150, trials::any_cluster);
}

fn hold_step_by_step<S: Strategy<Value = Vec<Value>>>(cases: u32, cluster: impl Fn() -> S) {
    let two = (cluster(), cluster());
    // In which order, and how many at a time.
    let order = proptest::collection::vec((any::<prop::sample::Index>(), 1_usize..4), 40);
    let all = (two, order, any::<bool>());
    random::hold(cases, &all, |((one, other), order, is_strict)| {
        let (one, other) = (objects(&one), objects(&other));
        let options = || {
            let node = clusters::NODES[0];
            if is_strict {
                known_only(node)
            } else {
                Options::new(node)
            }
        };
        let mut snapshot: Snapshot = one.iter().cloned().collect();
        let mut plan = Plan::of(options(), &snapshot);
        let mut table = Ruleset::default();
        let mut whole = Transaction::whole(&plan.whole());
        // A table of that name may be there or not.
        whole.changes.drain(..2);
        apply(&mut table, &whole);
        let mut steps = steps(&one, &other);
        for (index, at_once) in order {
            let mut changed = Vec::new();
            for _ in 0..at_once.min(steps.len()) {
                let (key, object) = steps.swap_remove(index.index(steps.len()));
                match object {
                    Some(object) => snapshot.insert(object),
                    None => snapshot.remove(&key),
                }
                changed.push(key);
            }
            let ports = sources::any_ports(&snapshot, index.index(1_000));
            plan.behind(ports.clone());
            apply(&mut table, &plan.advance(snapshot.clone(), &changed));
            prop_assert_eq!(&table, &plan.whole());
            if index.index(3) == 0 {
                apply(&mut table, &plan.drop_idle());
                prop_assert_eq!(&table, &plan.whole());
            }
            let mut at_once = Plan::of(options(), &snapshot);
            at_once.behind(ports);
            at_once.advance(snapshot.clone(), &[]);
            prop_assert_eq!(&plan.without_idle(table.clone()), &at_once.whole());
        }
        prop_assert!(plan.advance(snapshot, &[]).is_empty());
        for _ in 0..2 {
            apply(&mut table, &plan.drop_idle());
        }
        prop_assert_eq!(&table, &plan.whole());
        prop_assert_eq!(&table, &plan.without_idle(plan.whole()));
        prop_assert!(plan.drop_idle().is_empty());
        Ok(())
    });
}

/// Every packet between addresses of one family.
fn packets(addresses: &BTreeSet<IpAddr>) -> impl Iterator<Item = Packet> {
    let pairs = addresses.iter().flat_map(|source| {
        let same = |it: &&IpAddr| Family::of(**it) == Family::of(*source);
        addresses.iter().filter(same).map(|it| (*source, *it))
    });
    pairs.flat_map(|(source, destination)| {
        ports().into_iter().flat_map(move |port| {
            Protocol::ALL.map(|protocol| Packet {
                source,
                destination,
                protocol,
                port,
            })
        })
    })
}

/// Open connections are looked through after steps that may forbid some, and no others.
#[test]
fn a_step_that_is_not_stricter_forbids_nothing() {
    let seen = Cell::new((0, 0));
    let two = (clusters::any_cluster(), clusters::any_cluster());
    random::hold(60, &two, |(one, other)| {
        let (one, other) = (objects(&one), objects(&other));
        let mut snapshot: Snapshot = one.iter().cloned().collect();
        let all: Snapshot = other.iter().cloned().collect();
        let addresses: BTreeSet<IpAddr> =
            [&snapshot, &all].into_iter().flat_map(addresses).collect();
        let mut plan = Plan::of(Options::new(clusters::NODES[0]), &snapshot);
        let mut table = plan.whole();
        for (key, object) in steps(&one, &other) {
            match object {
                Some(object) => snapshot.insert(object),
                None => snapshot.remove(&key),
            }
            let step = plan.advance(snapshot.clone(), &[key]);
            let before = table.clone();
            apply(&mut table, &step);
            if step.is_empty() {
                continue;
            }
            let (harmless, stricter) = seen.get();
            if plan.is_stricter(&step) {
                seen.set((harmless, stricter + 1));
                continue;
            }
            seen.set((harmless + 1, stricter));
            for packet in packets(&addresses) {
                for chain in ["input", "forward"] {
                    let passes = |table| fate(table, chain, &packet) == Fate::Passed;
                    prop_assert!(
                        !passes(&before) || passes(&table),
                        "{packet:?} at {chain} by {step:?}"
                    );
                }
            }
        }
        Ok(())
    });
    let (harmless, stricter) = seen.get();
    assert!(harmless > 20 && stricter > 100, "{harmless}, {stricter}");
}

#[test]
fn one_more_that_is_denied_is_stricter_and_one_more_that_is_let_in_is_not() {
    let rule = |action: &str| {
        objects(&[serde_json::json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "of-the-team"},
            "spec": {
                "tier": "Admin", "priority": 1, "subject": {"namespaces": {}},
                "ingress": [{"action": action, "from": [{"pods": {
                    "namespaceSelector": {}, "podSelector": {"matchLabels": {"team": "other"}}
                }}]}]
            }
        })])
    };
    for (action, is_stricter) in [("Accept", false), ("Deny", true), ("Pass", true)] {
        let mut all = of_many_namespaces(1);
        all.extend(rule(action));
        let mut snapshot: Snapshot = all.iter().cloned().collect();
        let mut plan = Plan::of(Options::new("here"), &snapshot);
        let Object::Pod(client) = &all[1] else {
            panic!("{:?}", all[1])
        };
        let labels = [("app", "client"), ("team", "other")];
        let labelled = Object::Pod(Pod {
            labels: labels.into_iter().collect(),
            ..client.clone()
        });
        let key = labelled.key();
        snapshot.insert(labelled);
        let step = plan.advance(snapshot, &[key]);
        let is_one_more = matches!(step.changes.as_slice(), [Change::AddElements(..)]);
        assert!(is_one_more, "{action}: {step:?}");
        assert_eq!(plan.is_stricter(&step), is_stricter, "{action}");
    }
}

/// Pods of one node, each in a namespace of its own whose policy lets in a pod of another node.
fn of_many_namespaces(number: usize) -> Vec<Object> {
    let namespaces = (0..number).map(|at| {
        let pod = |name: &str, node: &str, last: usize| {
            serde_json::json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"namespace": format!("n{at}"), "name": name, "labels": {"app": name}},
                "spec": {"nodeName": node, "containers": []},
                "status": {"phase": "Running", "podIPs": [{"ip": format!("10.{last}.0.{at}")}]},
            })
        };
        let policy = serde_json::json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": format!("n{at}"), "name": "from-client"},
            "spec": {
                "podSelector": {"matchLabels": {"app": "server"}},
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}],
            },
        });
        [pod("server", "here", 1), pod("client", "there", 2), policy]
    });
    objects(&namespaces.flatten().collect::<Vec<Value>>())
}

#[test]
fn a_pod_that_comes_back_finds_its_chains_and_they_are_not_kept_without_end() {
    let number = 80;
    let all = of_many_namespaces(number);
    let mut snapshot: Snapshot = all.iter().cloned().collect();
    let mut plan = Plan::of(Options::new("here"), &snapshot);
    let mut table = plan.whole();
    let without_sets = Plan::of(Options::new("here"), &Snapshot::default()).whole();
    let fixed = (without_sets.chains.len(), without_sets.sets.len());
    let servers: Vec<&Object> = all.iter().step_by(3).collect();
    let mut elements = Vec::new();
    for server in &servers {
        let key = server.key();
        snapshot.remove(&key);
        let gone = plan.advance(snapshot.clone(), std::slice::from_ref(&key));
        apply(&mut table, &gone);
        snapshot.insert((*server).clone());
        let back = plan.advance(snapshot.clone(), &[key]);
        apply(&mut table, &back);
        let is_of_element = |change: &Change| {
            matches!(change, Change::AddElements(..) | Change::DeleteElements(..))
        };
        assert!(gone.changes.iter().all(is_of_element), "{gone:?}");
        assert!(back.changes.iter().all(is_of_element), "{back:?}");
        elements.push((gone.changes.len(), back.changes.len()));
    }
    assert!(elements.iter().all(|own| *own == elements[0]));
    assert_eq!(table, plan.whole());
    for server in &servers {
        let key = server.key();
        snapshot.remove(&key);
        apply(&mut table, &plan.advance(snapshot.clone(), &[key]));
    }
    // Each has its own chain, one of what it denies, and one set of peers.
    let idle = (table.chains.len() - fixed.0, table.sets.len() - fixed.1);
    assert_eq!(idle, (2 * 64, 64));
    assert_eq!(plan.without_idle(table.clone()), without_sets);
    assert!(plan.drop_idle().is_empty(), "they are idle since now");
    snapshot.insert(servers[number - 1].clone());
    let key = servers[number - 1].key();
    apply(&mut table, &plan.advance(snapshot.clone(), &[key]));
    apply(&mut table, &plan.drop_idle());
    assert_eq!(table, plan.whole());
    assert_eq!(table, Plan::of(Options::new("here"), &snapshot).whole());
}

#[test]
fn a_pod_that_is_bound_finds_its_chains_when_its_address_comes() {
    let all = of_many_namespaces(2);
    let (first, second) = (&all[0], &all[3]);
    let Object::Pod(pod) = second else {
        panic!("{second:?}")
    };
    let bound = Object::Pod(Pod {
        ips: Vec::new(),
        ..pod.clone()
    });
    let mut snapshot: Snapshot = all.iter().cloned().collect();
    snapshot.remove(&second.key());
    let mut plan = Plan::of(Options::new("here"), &snapshot);
    let mut table = plan.whole();
    let mut next = |plan: &mut Plan, object: &Object| {
        snapshot.insert(object.clone());
        let transaction = plan.advance(snapshot.clone(), &[object.key()]);
        apply(&mut table, &transaction);
        assert_eq!(table, plan.whole());
        assert_eq!(
            plan.without_idle(plan.whole()),
            Plan::of(Options::new("here"), &snapshot).whole()
        );
        transaction.changes
    };
    let is_made = |change: &Change| matches!(change, Change::AddChain(..) | Change::AddSet(..));
    let binding = next(&mut plan, &bound);
    assert!(binding.iter().any(is_made), "{binding:?}");
    let is_stricter = |plan: &Plan, changes: &[Change]| {
        let step = Transaction::of(changes.to_vec());
        plan.is_stricter(&step)
    };
    assert!(!is_stricter(&plan, &binding), "nothing leads there");
    let coming = next(&mut plan, second);
    assert!(is_stricter(&plan, &coming));
    assert!(
        !coming.is_empty() && !coming.iter().any(is_made),
        "{coming:?}"
    );
    assert!(next(&mut plan, second).is_empty());
    // Chains that are used are not made once more.
    let Object::Pod(pod) = first else {
        panic!("{first:?}")
    };
    let workload = WorkloadRef {
        name: "another".into(),
        ..pod.workload.clone()
    };
    let like_first = Object::Pod(Pod {
        workload,
        ips: Vec::new(),
        ..pod.clone()
    });
    assert!(next(&mut plan, &like_first).is_empty());

    // What was made for an address that does not come goes like what nobody uses any more.
    snapshot.remove(&second.key());
    let mut plan = Plan::of(Options::new("here"), &snapshot);
    let without = plan.whole();
    snapshot.insert(bound);
    plan.advance(snapshot, &[second.key()]);
    assert_ne!(plan.whole(), without);
    assert!(plan.drop_idle().is_empty(), "it is idle since now");
    assert!(!plan.drop_idle().is_empty());
    assert_eq!(plan.whole(), without);
}

#[test]
fn what_is_made_for_pods_that_are_bound_is_bounded_and_made_once() {
    // Both directions ask the same set, which is too large to be kept.
    let number = u32::try_from((1 << 16) + 1).unwrap();
    let pod = |namespace: &str, name: &str, node: &str, address: Option<std::net::Ipv4Addr>| {
        let ips: Vec<Value> = address
            .iter()
            .map(|ip| serde_json::json!({"ip": ip}))
            .collect();
        serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": namespace, "name": name},
            "spec": {"nodeName": node, "containers": []},
            "status": {"phase": "Running", "podIPs": ips},
        })
    };
    let there = (0..number).map(|at| {
        let address = std::net::Ipv4Addr::from(0x0b00_0000 + at);
        pod("far", &format!("pod-{at}"), "there", Some(address))
    });
    let policy = serde_json::json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "near", "name": "all"},
        "spec": {
            "podSelector": {},
            "ingress": [{"from": [{"namespaceSelector": {}}]}],
            "egress": [{"to": [{"namespaceSelector": {}}]}],
        },
    });
    let first = pod("first", "first", "here", Some([10, 0, 0, 1].into()));
    let values: Vec<Value> = there.chain([policy, first]).collect();
    let mut all = objects(&values);
    all.extend(of_many_namespaces(40));
    let servers: Vec<Object> = all.iter().skip(values.len()).step_by(3).cloned().collect();
    let mut snapshot: Snapshot = all.into_iter().collect();
    let mut plan = Plan::of(Options::new("here"), &snapshot);
    let mut table = plan.whole();
    // Those that were used are idle; the ones that are made for nobody yet take no place of theirs.
    let keys: Vec<ObjectKey> = servers.iter().map(Object::key).collect();
    for key in &keys {
        snapshot.remove(key);
    }
    apply(&mut table, &plan.advance(snapshot.clone(), &keys));
    let idle = table.chains.len();
    let bound = ["one", "two"].map(|name| pod("near", name, "here", None));
    let bound = objects(&bound);
    let keys: Vec<ObjectKey> = bound.iter().map(Object::key).collect();
    for object in bound {
        snapshot.insert(object);
    }
    let made = plan.advance(snapshot.clone(), &keys);
    apply(&mut table, &made);
    assert_eq!(table, plan.whole());
    assert_eq!(table.chains.len(), idle, "what is too large is not kept");
    let sets = |change: &Change| matches!(change, Change::AddSet(..));
    assert_eq!(made.changes.iter().filter(|change| sets(change)).count(), 1);
}

#[test]
fn a_chain_with_more_addresses_of_its_own_than_are_kept_leaves_the_idle_ones_there() {
    let blocks = |number: usize| -> Vec<Value> {
        // Every second address, so that none is next to another.
        let addresses = (0..number).map(|at| u32::try_from(at * 2).unwrap());
        let addresses = addresses.map(|at| std::net::Ipv4Addr::from(0x0b00_0000 + at));
        let blocks =
            addresses.map(|at| serde_json::json!({"ipBlock": {"cidr": format!("{at}/32")}}));
        blocks.collect()
    };
    let mut all = of_many_namespaces(2);
    for (name, number, place) in [("most", 1 << 16, 3), ("more", (1 << 16) + 1, 4)] {
        let pod = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": name, "name": "server"},
            "spec": {"nodeName": "here", "containers": []},
            "status": {"phase": "Running", "podIPs": [{"ip": format!("10.1.{place}.1")}]},
        });
        let policy = serde_json::json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": name, "name": "from-outside"},
            "spec": {
                "podSelector": {},
                "ingress": [{"from": blocks(number)}], "egress": [{"to": blocks(number)}],
            },
        });
        all.extend(objects(&[pod, policy]));
    }
    let mut snapshot: Snapshot = all.iter().cloned().collect();
    let mut plan = Plan::of(Options::new("here"), &snapshot);
    let mut table = plan.whole();
    let mut sets_after = |server: &Object| {
        let key = server.key();
        snapshot.remove(&key);
        apply(&mut table, &plan.advance(snapshot.clone(), &[key]));
        assert_eq!(table, plan.whole());
        table.sets.len()
    };
    let all_there = Plan::of(Options::new("here"), &all.iter().cloned().collect()).whole();
    let all_there = all_there.sets.len();
    // Idle ones stay, one too large goes by itself, and one that is as large as can be takes the place of all.
    assert_eq!(sets_after(&all[0]), all_there);
    assert_eq!(sets_after(&all[8]), all_there - 1);
    assert_eq!(sets_after(&all[3]), all_there - 1);
    assert_eq!(sets_after(&all[6]), all_there - 3);
}

#[test]
fn the_difference_of_two_tables_makes_one_of_the_other() {
    let two = (clusters::any_cluster(), clusters::any_cluster());
    random::hold(100, &two, |(one, other)| {
        let whole = |values: &[Value]| {
            let snapshot: Snapshot = objects(values).into_iter().collect();
            Plan::of(Options::new(clusters::NODES[0]), &snapshot).whole()
        };
        let (one, other) = (whole(&one), whole(&other));
        let mut table = one.clone();
        apply(&mut table, &Transaction::between(&one, &other));
        prop_assert_eq!(table, other);
        Ok(())
    });
}
