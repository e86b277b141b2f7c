//! The kernel against the model: random policies on nodes and pods of namespaces, and every flow of the whole table tried
//! with real packets. From one cluster to the next the table is changed as the agent would, not made anew.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, TestRunner};
use ringfence::agent::nft::{self, Socket};
use ringfence::netpol::{
    Endpoint, Family, Flow, NodeName, Object, ObjectKey, Port, Protocol, Snapshot, parse,
};
use ringfence::ruleset::{Options, Plan, Transaction};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Place};
use crate::clusters;
use crate::probe::{Cell, Table, Transport};
use crate::trials;

/// How many clusters are tried; more of them when asked for.
fn count() -> usize {
    let asked = std::env::var("RINGFENCE_CLUSTERS").ok();
    asked.map_or(12, |asked| {
        asked.parse().expect("RINGFENCE_CLUSTERS: a number")
    })
}

const PODS: [(&str, usize); 6] = [
    ("p0", 0),
    ("p1", 0),
    ("p2", 0),
    ("p3", 1),
    ("p4", 1),
    ("p5", 1),
];

const FLOWS: [(Transport, u16); 6] = [
    (Transport::Tcp, 80),
    (Transport::Tcp, 91),
    (Transport::Tcp, 8080),
    (Transport::Udp, 53),
    (Transport::Udp, 90),
    (Transport::Sctp, 80),
];

/// The policies and labels of a random cluster, on the pods and nodes that there are.
fn objects(values: &[Value], cluster: &Cluster) -> Vec<Object> {
    let is = |value: &Value, kind: &str| value["kind"] == kind;
    let pods: Vec<&Value> = values.iter().filter(|value| is(value, "Pod")).collect();
    let mut all: Vec<Value> = values
        .iter()
        .filter(|value| {
            !is(value, "Pod") && !is(value, "Node") && value["spec"]["template"].is_null()
        })
        .cloned()
        .collect();
    for (number, (name, node)) in PODS.into_iter().enumerate() {
        let place = &cluster.pod(name).place;
        let mut pod = pods[number % pods.len()].clone();
        pod["metadata"]["name"] = json!(name);
        pod["spec"]["hostNetwork"] = json!(false);
        pod["spec"]["nodeName"] = json!(clusters::NODES[node]);
        let addresses = [json!({"ip": place.v4}), json!({"ip": place.v6})];
        pod["status"] = json!({"phase": "Running", "podIPs": addresses});
        all.push(pod);
    }
    for (number, name) in clusters::NODES.into_iter().enumerate() {
        let is_it = |value: &&Value| is(value, "Node") && value["metadata"]["name"] == name;
        // Of some nodes, also of the pods' own, nothing is known.
        let Some(node) = values.iter().find(is_it) else {
            continue;
        };
        let labels = &node["metadata"]["labels"];
        let place = cluster.node(number);
        let addresses = [place.address(false), place.address(true)];
        let addresses = addresses.map(|address| json!({"type": "InternalIP", "address": address}));
        all.push(json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
            "status": {"addresses": addresses}
        }));
    }
    // The blocks of the policies, moved to where the pods are.
    let moved = |value: &Value| -> Value {
        let text = value.to_string();
        let text = text
            .replace("\"10.0.", "\"10.244.")
            .replace("\"fd00::4/126\"", "\"fd00:10:244::4/126\"")
            .replace("\"fd00::5/128\"", "\"fd00:10:244::5/128\"")
            .replace("\"fd00::1/128\"", "\"fd00:10:244::2/128\"");
        serde_json::from_str(&text).unwrap()
    };
    let object = |value: &Value| {
        parse(&moved(value))
            .expect("valid")
            .expect("a kind of the model")
            .object
    };
    all.iter().map(object).collect()
}

/// The addresses of the nodes' bridges, which no Node says.
fn bridges(cluster: &Cluster) -> [Place; 2] {
    [0, 1].map(|number: u8| {
        let node = cluster.node(number.into());
        let (v4, v6) = Cluster::gateways(number);
        Place {
            name: format!("{}-bridge", node.name),
            namespace: Arc::clone(&node.namespace),
            v4,
            v6,
        }
    })
}

/// The end of a flow that a place is, for who is on a node or elsewhere.
fn endpoint<'s>(
    snapshot: &'s Snapshot,
    cluster: &Cluster,
    name: &str,
    v6: bool,
    from: Option<(usize, &'s NodeName)>,
) -> Endpoint<'s> {
    if let Some(pod) = snapshot.pods().find(|pod| pod.name().as_str() == name) {
        return Endpoint::Pod(pod);
    }
    let nodes = [0, 1].map(|number| (Some(number), cluster.node(number).clone()));
    let bridges = bridges(cluster).into_iter().enumerate();
    let bridges = bridges.map(|(number, place)| (Some(number), place));
    let mut places = nodes
        .into_iter()
        .chain(bridges)
        .chain([(None, cluster.outside().clone())]);
    let (node, place) = places.find(|(_, place)| place.name == name).unwrap();
    let address = place.address(v6);
    match from {
        Some((number, name)) if node == Some(number) => Endpoint::Node {
            name,
            address: Some(address),
        },
        _ => snapshot.endpoint_at(address),
    }
}

fn is_allowed(snapshot: &Snapshot, cluster: &Cluster, cell: &Cell) -> bool {
    let protocol = match cell.transport {
        Transport::Tcp => Protocol::Tcp,
        Transport::Udp => Protocol::Udp,
        Transport::Sctp => Protocol::Sctp,
        Transport::Icmp => unreachable!("policies say nothing of it"),
    };
    let family = if cell.v6 { Family::V6 } else { Family::V4 };
    let from = endpoint(snapshot, cluster, &cell.from, cell.v6, None);
    let names: [NodeName; 2] = clusters::NODES.map(NodeName::from);
    let on = PODS.iter().find(|(name, _)| *name == cell.from);
    let on = on.map(|(_, node)| (*node, &names[*node]));
    let to = endpoint(snapshot, cluster, &cell.to, cell.v6, on);
    let port = Port::new(cell.port).unwrap();
    let is_of = |node: usize| PODS.contains(&(cell.to.as_str(), node));
    if (0..2).any(|number| cell.from == cluster.node(number).name && is_of(number)) {
        // A node reaches its own pods, whatever is said: the kubelet asks them whether they are well.
        return true;
    }
    snapshot
        .verdict(&Flow::new(from, to, protocol, port).over(family))
        .allowed()
}

#[test]
fn the_kernel_lets_pass_what_the_model_lets_pass() {
    let mut cluster = Cluster::new(2);
    cluster.add(&PODS);
    let mut places: Vec<Place> = cluster.places();
    places.extend([cluster.node(0), cluster.node(1), cluster.outside()].map(Clone::clone));
    let ports: BTreeSet<u16> = FLOWS.iter().map(|(_, port)| *port).collect();
    let ports: Vec<u16> = ports.into_iter().collect();
    let (pods, bridges) = (cluster.places(), bridges(&cluster));
    for place in places.iter().chain(&bridges) {
        cluster.serve(place, &ports);
    }
    let mut nodes: Vec<(Plan, Socket)> = clusters::NODES
        .into_iter()
        .enumerate()
        .map(|(number, name)| {
            let plan = Plan::new(Options::new(name));
            let mut socket = cluster
                .node(number)
                .namespace
                .inside(|| Socket::open().unwrap());
            socket.apply(&Transaction::whole(&plan.whole())).unwrap();
            (plan, socket)
        })
        .collect();

    let mut runner = TestRunner::new(Config::default());
    let (mut known, mut passed, mut denied) = (BTreeSet::new(), 0, 0);
    for number in 0..count() {
        // In every other one policies are on trial, too.
        let cluster_of_kind = if number % 2 == 0 {
            clusters::any_cluster().boxed()
        } else {
            trials::any_cluster().boxed()
        };
        let values = cluster_of_kind.new_tree(&mut runner).unwrap().current();
        let objects = objects(&values, &cluster);
        let keys: BTreeSet<ObjectKey> = objects.iter().map(Object::key).collect();
        let changed: Vec<ObjectKey> = known.union(&keys).cloned().collect();
        known = keys;
        let snapshot: Snapshot = objects.into_iter().collect();
        for (number, (plan, socket)) in nodes.iter_mut().enumerate() {
            socket
                .apply(&plan.advance(snapshot.clone(), &changed))
                .unwrap();
            // What no pod uses stays for one cluster, or for one more.
            socket.apply(&plan.drop_idle()).unwrap();
            let found = nft::read(socket).unwrap().expect("a table");
            let wanted = plan.whole().as_kept();
            assert!(found.ruleset.as_kept() == wanted, "in {snapshot:#?}");
            // What was open under the policies before is not asked here.
            cluster.node(number).namespace.run("conntrack", &["-F"], "");
        }
        let mut table = Table::ask(&places, &FLOWS, &[false, true]);
        table.append(Table::ask_between(&pods, &bridges, &FLOWS, &[false, true]));
        let wrong = table.wrong(|cell| {
            let allowed = is_allowed(&snapshot, &cluster, cell);
            (passed, denied) = (
                passed + usize::from(allowed),
                denied + usize::from(!allowed),
            );
            allowed
        });
        assert!(wrong.is_empty(), "{}\nin {snapshot:#?}", wrong.join("\n"));
    }
    println!("{} clusters: {passed} flows pass, {denied} do not", count());
    assert!(
        passed > 100 * count() && denied > 50 * count(),
        "{passed}, {denied}"
    );
    assert!(nodes.iter().all(|(plan, _)| plan.local_pods().len() == 3));
}
