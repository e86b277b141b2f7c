//! What the tool prints: its cases, and of each step the policies in force and the tables that it expects.

use std::sync::Arc;

use ringfence::k8s::yaml::{self, Limits, Text};
use ringfence::netpol::Protocol;
use serde_json::Value;

use crate::table::{self, PodRow, TruthTable};

/// Steps that build upon one another.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) description: String,
    pub(crate) steps: Vec<Step>,
}

/// The cluster after a change, and who may then connect to whom.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) pods: Vec<PodRow>,
    pub(crate) policies: Vec<Value>,
    pub(crate) probe: Probe,
    pub(crate) ingress: TruthTable,
    pub(crate) egress: TruthTable,
    pub(crate) combined: TruthTable,
}

/// To which ports connections are tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Those that the tables name.
    All,
    /// One number or name.
    One { port: String, protocol: Protocol },
}

/// The cases of an output, with the tables of resources of all their steps.
pub(crate) fn read(text: &str, mut clusters: impl Iterator<Item = String>) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let (head, text) = text
        .split_once("starting test case")
        .expect("cases in the output");
    for text in text.split("\nevaluating test case: ").skip(1) {
        let (description, text) = text.split_once('\n').expect("a description");
        let steps = text.split("\nstep ").enumerate().map(|(index, text)| {
            let text = match index {
                0 => text.strip_prefix("step ").expect("the first step"),
                _ => text,
            };
            let cluster = clusters.next().expect("a cluster for each step");
            step(text, &cluster, index + 1)
        });
        cases.push(Case {
            description: description.to_owned(),
            steps: steps.collect(),
        });
    }
    assert_eq!(clusters.next(), None, "a cluster without a step");
    let announced = format!("testing {} cases", cases.len());
    assert!(
        head.lines().any(|line| line == announced),
        "{announced}, but more were announced"
    );
    cases
}

/// One step, from after its first word.
fn step(text: &str, cluster: &str, number: usize) -> Step {
    let (title, text) = text.split_once(":\n").expect("the title of a step");
    let (found, ports) = title.split_once(" on ").expect("number and ports");
    assert_eq!(found, number.to_string(), "the number of the step {title}");
    let probe = match ports.strip_prefix("port ") {
        None => {
            assert_eq!(ports, "all available ports/protocols");
            Probe::All
        }
        Some(one) => {
            let (port, protocol) = one
                .split_once(", protocol ")
                .expect("a port and a protocol");
            Probe::One {
                port: port.to_owned(),
                protocol: table::protocol(protocol),
            }
        }
    };
    let (_, text) = text
        .split_once("Results for network policies:\n")
        .expect("the policies of a step");
    let (policies, text) = text
        .split_once("Expected ingress:\n")
        .expect("the expected ingress");
    let (ingress, text) = text
        .split_once("Expected egress:\n")
        .expect("the expected egress");
    let (egress, text) = text
        .split_once("Expected combined:\n")
        .expect("what is expected of both");
    let (combined, _) = text
        .split_once("kube results")
        .expect("results after what is expected");
    Step {
        pods: table::resources(cluster),
        policies: self::policies(policies),
        probe,
        ingress: table::truth(ingress),
        egress: table::truth(egress),
        combined: table::truth(combined),
    }
}

/// Policies in YAML, each under a line of its own and ended by an empty one.
fn policies(text: &str) -> Vec<Value> {
    let mut parts = text.split("Network policy:\n\n");
    let before = parts.next().unwrap_or_default();
    let policies: Vec<Value> = parts
        .map(|part| {
            let (policy, _) = part.split_once("\n\n").expect("the end of a policy");
            policy_of(policy)
        })
        .collect();
    assert_eq!(
        policies.is_empty(),
        before.starts_with("no network policies"),
        "policies in\n{text}"
    );
    policies
}

fn policy_of(text: &str) -> Value {
    let reading = yaml::read(&Arc::new(Text::new("policy", text)), &Limits::default());
    assert!(reading.faults.is_empty(), "{:?} in\n{text}", reading.faults);
    let [document] = reading.documents.as_slice() else {
        panic!("not one document:\n{text}");
    };
    let mut policy = document.value.clone();
    // Some are printed without: they are made as objects, whose type is known.
    let object = policy.as_object_mut().expect("a policy is an object");
    for (key, value) in [
        ("apiVersion", "networking.k8s.io/v1"),
        ("kind", "NetworkPolicy"),
    ] {
        let written = object.entry(key).or_insert_with(|| value.into());
        assert_eq!(*written, value, "{key} of\n{text}");
    }
    policy
}
