//! AdminNetworkPolicy and BaselineAdminNetworkPolicy (`v1alpha1`) against each ClusterNetworkPolicy that says the same: a cluster
//! with the one has the verdicts of a cluster with the other.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use ringfence::netpol::{Direction, EndVerdict, Endpoint, Flow, Port, Protocol};
use serde_json::{Value, json};

use crate::clusters;
use crate::{Both, config};

/// The same policies where `v1alpha1` can say them, in the words of `v1alpha2`: one of the Baseline tier at most, which is asked
/// last, passes nothing on and has no domain names.
fn sayable(objects: Vec<Value>) -> Vec<Value> {
    let is_baseline = |object: &Value| object["spec"]["tier"] == "Baseline";
    let mut has_baseline = false;
    let mut kept = Vec::new();
    for mut object in objects {
        if is_baseline(&object) {
            if std::mem::replace(&mut has_baseline, true) {
                continue;
            }
            object["spec"]["priority"] = json!(1000);
            for rules in ["ingress", "egress"] {
                let Some(rules) = object["spec"][rules].as_array_mut() else {
                    continue;
                };
                let has_name = |peer: &Value| peer["domainNames"].is_array();
                rules.retain(|rule| {
                    let to = rule["to"].as_array();
                    rule["action"] != "Pass" && !to.is_some_and(|to| to.iter().any(has_name))
                });
            }
        }
        kept.push(object);
    }
    kept
}

/// A ClusterNetworkPolicy in the words of `v1alpha1`; what is none stays as it is.
fn translated(object: &Value) -> Value {
    let mut object = object.clone();
    if object["kind"] != "ClusterNetworkPolicy" {
        return object;
    }
    object["apiVersion"] = json!("policy.networking.k8s.io/v1alpha1");
    let spec = object["spec"].as_object_mut().expect("a spec");
    let tier = spec.remove("tier");
    if tier == Some(json!("Baseline")) {
        spec.remove("priority");
    }
    for rules in ["ingress", "egress"] {
        for rule in spec[rules].as_array_mut().into_iter().flatten() {
            if rule["action"] == "Accept" {
                rule["action"] = json!("Allow");
            }
            let fields = rule.as_object_mut().expect("a rule");
            if let Some(Value::Array(entries)) = fields.remove("protocols") {
                let entries = entries.iter().map(port);
                fields.insert("ports".to_owned(), entries.collect());
            }
        }
    }
    if tier == Some(json!("Baseline")) {
        object["kind"] = json!("BaselineAdminNetworkPolicy");
        object["metadata"]["name"] = json!("default");
    } else {
        object["kind"] = json!("AdminNetworkPolicy");
    }
    object
}

/// An entry of `protocols` as one of `ports`; TCP need not be said.
fn port(entry: &Value) -> Value {
    if let Some(name) = entry["destinationNamedPort"].as_str() {
        return json!({"namedPort": name});
    }
    let (protocol, numbers) = entry
        .as_object()
        .and_then(|fields| fields.iter().next())
        .expect("a protocol");
    let numbers = &numbers["destinationPort"];
    let (field, mut port) = match &numbers["range"] {
        Value::Null => ("portNumber", json!({"port": numbers["number"]})),
        range => ("portRange", range.clone()),
    };
    if protocol != "tcp" {
        port["protocol"] = json!(protocol.to_uppercase());
    }
    json!({field: port})
}

#[test]
fn the_kinds_before_mean_what_the_equal_cluster_network_policies_mean() {
    let (ruled, by_baseline) = (Cell::new(0), Cell::new(0));
    let check = |objects: Vec<Value>| {
        let objects = sayable(objects);
        let before: Vec<Value> = objects.iter().map(translated).collect();
        let (both, before) = (Both::new(objects), Both::new(before));
        let ends = both.ends();
        for (_, from) in &ends {
            for (_, to) in &ends {
                if !matches!(from, Endpoint::Pod(_)) && !matches!(to, Endpoint::Pod(_)) {
                    continue;
                }
                for protocol in Protocol::ALL {
                    for number in [53, 80, 81, 90, 8080] {
                        let number = Port::new(number).expect("a port");
                        let flow = Flow::new(*from, *to, protocol, number);
                        let verdict = both.snapshot.verdict(&flow);
                        let other = before.snapshot.verdict(&flow);
                        prop_assert_eq!(verdict.allowed(), other.allowed(), "{}: {}", flow, other);
                        for direction in Direction::BOTH {
                            let end = other.at(direction);
                            prop_assert_eq!(verdict.at(direction).passes(), end.passes());
                            if let EndVerdict::Ruled(own) = end {
                                let place = own.by.place();
                                prop_assert!(
                                    own.by.policy.kind.as_str().ends_with("AdminNetworkPolicy")
                                );
                                let count = match place.priority() {
                                    Some(_) => &ruled,
                                    None => &by_baseline,
                                };
                                count.set(count.get() + 1);
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    };
    let result = TestRunner::new(config(64)).run(&clusters::any_cluster(), check);
    result.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(ruled.get() > 500, "{}", ruled.get());
    assert!(by_baseline.get() > 20, "{}", by_baseline.get());
}
