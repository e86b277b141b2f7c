//! Random cluster network policies and nodes, for the clusters of `clusters`.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use super::{NODE_ADDRESSES, NODES, PORTS, any_labels, any_namespace_selector, any_selector};

/// Some of the nodes, the first one with its addresses.
pub(super) fn any_nodes() -> impl Strategy<Value = Vec<Value>> {
    let node = |name: &'static str, addresses: &'static [&'static str]| {
        any_labels().prop_map(move |labels| {
            let addresses = addresses
                .iter()
                .map(|address| json!({"type": "InternalIP", "address": address}));
            let addresses: Vec<Value> = addresses
                .chain([json!({"type": "Hostname", "address": name})])
                .collect();
            json!({
                "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
                "status": {"addresses": addresses}
            })
        })
    };
    (
        node(NODES[0], &NODE_ADDRESSES),
        node(NODES[1], &[]),
        0_usize..4,
    )
        .prop_map(|(first, second, which)| match which {
            0 => vec![],
            1 => vec![first],
            2 => vec![second],
            _ => vec![first, second],
        })
}

/// A policy; priorities are few, so that some are equal.
pub(super) fn any_policy() -> impl Strategy<Value = Value> {
    let subject = prop_oneof![
        2 => Just(json!({"namespaces": {}})),
        2 => any_namespace_selector().prop_map(|namespaces| json!({"namespaces": namespaces})),
        3 => any_pods(),
    ];
    let rules = |peers: &'static str| {
        let rule = (any_action(), any_peers(peers), any_protocols()).prop_map(
            move |(action, list, protocols)| {
                // Names of ports are for pods only, says the validation.
                let has_names =
                    |peer: &Value| peer["namespaces"].is_object() || peer["pods"].is_object();
                let mut rule = json!({"action": action, peers: list});
                if list.iter().all(has_names) {
                    rule["protocols"] = protocols;
                } else if let Some(protocols) = protocols.as_array() {
                    let numbered = protocols
                        .iter()
                        .filter(|one| one["destinationNamedPort"].is_null());
                    let numbered: Vec<Value> = numbered.cloned().collect();
                    if !numbered.is_empty() {
                        rule["protocols"] = Value::from(numbered);
                    }
                }
                rule
            },
        );
        prop_oneof![1 => Just(json!(null)), 6 => vec(rule, 0..4).prop_map(Value::from)]
    };
    let place = (
        select(vec!["Admin", "Admin", "Baseline"]),
        select(vec![0, 10, 10, 1000]),
    );
    (place, subject, rules("from"), rules("to")).prop_map(
        |((tier, priority), subject, ingress, egress)| {
            json!({
                "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {},
                "spec": {
                    "tier": tier, "priority": priority, "subject": subject, "ingress": ingress, "egress": egress
                }
            })
        },
    )
}

fn any_action() -> impl Strategy<Value = &'static str> {
    prop_oneof![2 => Just("Accept"), 2 => Just("Deny"), 1 => Just("Pass")]
}

fn any_pods() -> impl Strategy<Value = Value> {
    let scope = (any_namespace_selector(), any_selector());
    scope.prop_map(
        |(namespaces, pods)| json!({"pods": {"namespaceSelector": namespaces, "podSelector": pods}}),
    )
}

fn any_peers(list: &str) -> BoxedStrategy<Vec<Value>> {
    let pods = prop_oneof![
        2 => any_namespace_selector().prop_map(|namespaces| json!({"namespaces": namespaces})),
        3 => any_pods(),
    ];
    // What is to come is one kind among many.
    let unknown = Just(json!({"services": {"name": "web"}}));
    if list == "from" {
        return vec(prop_oneof![20 => pods, 1 => unknown], 1..3).boxed();
    }
    let networks = subsequence(
        vec![
            "0.0.0.0/0",
            "::/0",
            "10.0.0.0/24",
            "10.0.1.4/30",
            "192.0.2.0/24",
            "192.168.0.0/16",
            "fd00::4/126",
        ],
        1..3,
    );
    let peer = prop_oneof![
        8 => pods,
        5 => networks.prop_map(|networks| json!({"networks": networks})),
        2 => any_selector().prop_map(|nodes| json!({"nodes": nodes})),
        1 => Just(json!({"domainNames": ["example.com", "*.example.org"]})),
        1 => unknown,
    ];
    vec(peer, 1..3).boxed()
}

fn any_protocols() -> impl Strategy<Value = Value> {
    let number = || select(PORTS.to_vec());
    let port = prop_oneof![
        3 => number().prop_map(|number| json!({"number": number})),
        2 => (number(), number()).prop_map(|(one, two)| {
            json!({"range": {"start": one.min(two), "end": one.max(two) + 1}})
        }),
    ];
    let numbered = (select(vec!["tcp", "tcp", "udp", "sctp"]), port)
        .prop_map(|(protocol, port)| json!({protocol: {"destinationPort": port}}));
    let named = select(vec!["web", "web", "dns", "none"])
        .prop_map(|name| json!({"destinationNamedPort": name}));
    option::of(vec(prop_oneof![3 => numbered, 2 => named], 1..4)).prop_map(|list| json!(list))
}
