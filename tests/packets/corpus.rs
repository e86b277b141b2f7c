//! The corpus of cyclonus as real packets: every truth table of every step, on pods of two nodes.
//!
//! `tests/cyclonus` holds the model to these tables; here the kernel is. The table of each node goes from step to step as the
//! agent would change it, by what differs, and all pairs of pods are asked at all ports of the step's table. Over IPv6, of which
//! the tool knows nothing, the same is expected: each of its blocks of addresses gets a twin.

use std::collections::BTreeMap;
use std::time::Duration;

use ringfence::agent::nft::Socket;
use ringfence::netpol::{Object, ObjectKey, Protocol, Snapshot};
use ringfence::ruleset::{Options, Plan, Transaction};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::output::Step;
use crate::probe::{self, Cell, Outcome, Probe, Transport};
use crate::{oracle, replay};

const NODES: [&str; 2] = ["n0", "n1"];

/// Where the tool's blocks of addresses are here: the pods of all steps are in the second and third one, as there.
const BLOCKS: [(&str, &str, &str); 4] = [
    ("0.0.0.0/0", "0.0.0.0/0", "::/0"),
    ("192.168.1.0/24", "10.244.0.0/16", "fd00:10:244::/48"),
    ("192.168.1.0/28", "10.244.0.0/23", "fd00:10:244::/63"),
    ("0.0.0.0/31", "0.0.0.0/31", "::/127"),
];

/// How long nothing may be heard before the rest counts as silent, and how long where an answer was expected.
const QUIET: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(2)];

/// What the pinned version of the tool prints, both families counted.
const CELLS: usize = 247_338;
/// Those of a pod to itself that the tool denies: a pod cannot block access to itself.
const EXCEPTED: usize = 3_108;

/// One question and what the tool expects of it.
struct Question {
    cell: Cell,
    probe: Probe,
    allowed: bool,
}

/// A node's plan, and the way to its kernel.
struct Node {
    plan: Plan,
    socket: Socket,
}

#[test]
#[ignore = "it runs cyclonus, which Go builds: tests/run --only cyclonus"]
fn every_table_of_every_step_holds_for_packets() {
    let cases = oracle::cases();
    let mut cluster = Cluster::new(2);
    place(&mut cluster, cases.iter().flat_map(|case| &case.steps));
    cluster.serve_all(&[80, 81]);
    let mut nodes: Vec<Node> = (0..NODES.len())
        .map(|node| Node::new(&cluster, node))
        .collect();

    let mut known: BTreeMap<ObjectKey, Value> = BTreeMap::new();
    let (mut steps, mut cells, mut allowed, mut excepted) = (0, 0, 0, 0);
    let mut wrong = Vec::new();
    for case in &cases {
        for (index, step) in case.steps.iter().enumerate() {
            let wanted = objects(step, &cluster);
            let differs = |key: &&ObjectKey| known.get(*key) != wanted.get(*key);
            let mut changed: Vec<ObjectKey> = wanted.keys().filter(differs).cloned().collect();
            let gone = known.keys().filter(|key| !wanted.contains_key(*key));
            changed.extend(gone.cloned());
            let snapshot: Snapshot = wanted.values().map(replay::object).collect();
            for (number, node) in nodes.iter_mut().enumerate() {
                let transaction = node.plan.advance(snapshot.clone(), &changed);
                node.socket.apply(&transaction).unwrap();
                // What was open in the step before is not asked here.
                cluster.node(number).namespace.run("conntrack", &["-F"], "");
            }
            known = wanted;

            let mut questions = Vec::new();
            for v6 in [false, true] {
                excepted += ask_for(step, &cluster, v6, &mut questions);
            }
            steps += 1;
            cells += questions.len();
            allowed += questions.iter().filter(|question| question.allowed).count();
            let found = answers(&questions);
            let title = format!("{}, step {}", case.description, index + 1);
            wrong.extend(found.into_iter().map(|wrong| format!("{title}: {wrong}")));
        }
    }
    println!(
        "{} cases, {steps} steps: {cells} flows tried, {allowed} allowed; {excepted} excepted: a pod cannot block itself",
        cases.len()
    );
    let first: Vec<&str> = wrong.iter().map(String::as_str).take(20).collect();
    assert!(
        first.is_empty(),
        "{} flows, among them:\n{}",
        wrong.len(),
        first.join("\n")
    );
    assert_eq!((cells, excepted), (CELLS, EXCEPTED), "cells and exceptions");
}

/// Makes all pods that any of the steps has, every other one on the second node.
fn place<'s>(cluster: &mut Cluster, steps: impl Iterator<Item = &'s Step>) {
    let mut names: Vec<String> = steps
        .flat_map(|step| &step.pods)
        .map(|pod| short(&replay::name(pod)))
        .collect();
    names.sort();
    names.dedup();
    let pods: Vec<(&str, usize)> = names
        .iter()
        .enumerate()
        .map(|(number, name)| (&**name, number % NODES.len()))
        .collect();
    cluster.add(&pods);
}

/// The name of a pod's place, which must not have a slash.
fn short(name: &str) -> String {
    name.replace('/', "-")
}

/// The objects of a step, its pods where they are here.
fn objects(step: &Step, cluster: &Cluster) -> BTreeMap<ObjectKey, Value> {
    let mut values = replay::values(step);
    for value in &mut values {
        if value["kind"] == "Pod" {
            let meta = &value["metadata"];
            let name = format!(
                "{}/{}",
                meta["namespace"].as_str().unwrap(),
                meta["name"].as_str().unwrap()
            );
            let pod = cluster.pod(&short(&name));
            value["spec"]["nodeName"] = json!(NODES[pod.node]);
            let addresses = [json!({"ip": pod.place.v4}), json!({"ip": pod.place.v6})];
            value["status"] = json!({"phase": "Running", "podIPs": addresses});
        }
    }
    values.extend(step.policies.iter().cloned().map(moved));
    let keyed = values
        .into_iter()
        .map(|value| (Object::key(&replay::object(&value)), value));
    keyed.collect()
}

/// A policy with its blocks of addresses moved to where the pods are, of both families.
fn moved(mut policy: Value) -> Value {
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in policy["spec"][rules].as_array_mut().into_iter().flatten() {
            let Some(peers) = rule.get_mut(peers).and_then(Value::as_array_mut) else {
                continue;
            };
            let mut twins = Vec::new();
            for peer in peers
                .iter_mut()
                .filter(|peer| peer.get("ipBlock").is_some())
            {
                twins.push(of_family(peer, true));
                *peer = of_family(peer, false);
            }
            peers.extend(twins);
        }
    }
    // Asking for what is absent has made it null.
    let spec = policy["spec"].as_object_mut().unwrap();
    spec.retain(|_, value| !value.is_null());
    policy
}

fn of_family(peer: &Value, v6: bool) -> Value {
    let block = |text: &Value| -> Value {
        let found = BLOCKS.iter().find(|(theirs, ..)| text == theirs);
        let (_, v4_block, v6_block) = found.unwrap_or_else(|| panic!("a new block: {text}"));
        json!(if v6 { v6_block } else { v4_block })
    };
    let mut moved = json!({"cidr": block(&peer["ipBlock"]["cidr"])});
    if let Some(except) = peer["ipBlock"]["except"].as_array() {
        moved["except"] = except.iter().map(block).collect();
    }
    json!({ "ipBlock": moved })
}

/// Adds a step's questions, and gives how many of them the tool answers otherwise than the API's text.
fn ask_for(step: &Step, cluster: &Cluster, v6: bool, questions: &mut Vec<Question>) -> usize {
    let mut excepted = 0;
    let names = &step.combined.pods;
    for (row, from) in names.iter().enumerate() {
        for (column, to) in names.iter().enumerate() {
            let ports = replay::ports(step, to).into_iter();
            for (index, (protocol, port)) in ports.enumerate() {
                let theirs = step.combined.cells[row][column][index];
                excepted += usize::from(from == to && !theirs);
                let transport = match protocol {
                    Protocol::Tcp => Transport::Tcp,
                    Protocol::Udp => Transport::Udp,
                    Protocol::Sctp => Transport::Sctp,
                };
                let to_place = &cluster.pod(&short(to)).place;
                questions.push(Question {
                    cell: Cell {
                        from: from.clone(),
                        to: to.clone(),
                        transport,
                        port: port.get(),
                        v6,
                    },
                    probe: Probe {
                        from: cluster.pod(&short(from)).place.clone(),
                        to: to_place.at(v6, port.get()),
                        transport,
                    },
                    allowed: theirs || from == to,
                });
            }
        }
    }
    excepted
}

/// Asks all of them, and gives what is not as expected. Silence where an answer was expected is asked for once more, in case
/// the machine was busy; an answer where silence was expected is never excused.
fn answers(questions: &[Question]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut left: Vec<&Question> = questions.iter().collect();
    for (round, quiet) in QUIET.into_iter().enumerate() {
        let probes: Vec<Probe> = left.iter().map(|it| it.probe.clone()).collect();
        let outcomes = probe::ask_within(&probes, quiet);
        let mut again = Vec::new();
        for (question, outcome) in left.into_iter().zip(outcomes) {
            match (question.allowed, outcome) {
                (true, Outcome::Answered) | (false, Outcome::Silent) => {}
                (true, Outcome::Silent) if round == 0 => again.push(question),
                (allowed, outcome) => {
                    let word = if allowed { "allowed" } else { "denied" };
                    wrong.push(format!("{} is {word}, but {outcome:?}", question.cell));
                }
            }
        }
        left = again;
        if left.is_empty() {
            break;
        }
    }
    wrong
}

// === impl Node ===

impl Node {
    fn new(cluster: &Cluster, number: usize) -> Self {
        let plan = Plan::new(Options::new(NODES[number]));
        let namespace = &cluster.node(number).namespace;
        let mut socket = namespace.inside(|| Socket::open().unwrap());
        socket.apply(&Transaction::whole(&plan.whole())).unwrap();
        Self { plan, socket }
    }
}
