//! Random small clusters for reachability rules: few labels, addresses and ports, so that all of them meet.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

/// Addresses of no pod, in and out of the blocks below.
pub(crate) const OUTSIDE: [&str; 4] = ["192.0.2.1", "10.0.0.250", "2001:db8::1", "fd00::fa"];

/// The ports at which rules begin and end.
pub(crate) const PORTS: [u16; 4] = [53, 80, 90, 8080];

/// All objects of a cluster.
pub(crate) fn any_cluster() -> impl Strategy<Value = Vec<Value>> {
    let namespace = |name: &'static str| {
        any_labels().prop_map(move |labels| {
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        })
    };
    let pods = vec(any_pod(), 1..8);
    let policies = vec(any_policy(), 0..8);
    (namespace("a"), namespace("b"), pods, policies).prop_map(|(a, b, pods, policies)| {
        let numbered = pods.into_iter().chain(policies).enumerate();
        let numbered = numbered.map(|(number, mut object)| {
            object["metadata"]["name"] = json!(format!("x{number}"));
            object
        });
        [a, b].into_iter().chain(numbered).collect()
    })
}

fn any_labels() -> impl Strategy<Value = Value> {
    select(vec![
        json!({}),
        json!({"app": "x"}),
        json!({"app": "y"}),
        json!({"app": "x", "env": "y"}),
    ])
}

fn any_namespace() -> impl Strategy<Value = &'static str> {
    prop_oneof![3 => Just("a"), 2 => Just("b"), 1 => Just("c")]
}

fn any_protocol() -> impl Strategy<Value = &'static str> {
    prop_oneof![3 => Just("TCP"), 2 => Just("UDP"), 1 => Just("SCTP")]
}

/// A running pod, some with an owner, or the template of a Deployment.
fn any_pod() -> impl Strategy<Value = Value> {
    let port = (select(vec!["web", "dns"]), select(PORTS.to_vec()), any_protocol()).prop_map(
        |(name, port, protocol)| json!({"name": name, "containerPort": port, "protocol": protocol}),
    );
    let addresses = select(vec![
        json!([]),
        json!([{"ip": "10.0.0.1"}]),
        json!([{"ip": "10.0.0.6"}, {"ip": "fd00::6"}]),
        json!([{"ip": "10.0.1.1"}, {"ip": "fd00::1"}]),
        json!([{"ip": "fd00::5"}]),
    ]);
    let node = option::of(select(vec!["n1", "n2"]));
    let kind = select(vec![
        "Pod",
        "Pod",
        "Pod",
        "Owned",
        "Owned",
        "Deployment",
        "Finished",
    ]);
    let is_host = prop::bool::weighted(0.2);
    (any_namespace(), any_labels(), vec(port, 0..3), addresses, node, kind, is_host).prop_map(
        |(namespace, labels, ports, addresses, node, kind, is_host)| {
            let spec = json!({
                "nodeName": node, "hostNetwork": is_host, "containers": [{"name": "main", "ports": ports}]
            });
            if kind == "Deployment" {
                return json!({
                    "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": namespace},
                    "spec": {"selector": {}, "template": {"metadata": {"labels": labels}, "spec": spec}}
                });
            }
            let owner = json!({
                "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "set", "uid": "1", "controller": true
            });
            let owners = if kind == "Owned" { json!([owner]) } else { json!([]) };
            let phase = if kind == "Finished" { "Succeeded" } else { "Running" };
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"namespace": namespace, "labels": labels, "ownerReferences": owners},
                "spec": spec, "status": {"phase": phase, "podIPs": addresses}
            })
        },
    )
}

fn any_policy() -> impl Strategy<Value = Value> {
    let types = select(vec![
        json!(null),
        json!(["Ingress"]),
        json!(["Egress"]),
        json!(["Ingress", "Egress"]),
    ]);
    let rules = |peers: &'static str| {
        let rule = (any_peers(), any_ports())
            .prop_map(move |(list, ports)| json!({peers: list, "ports": ports}));
        vec(rule, 0..4)
    };
    (any_namespace(), any_selector(), types, rules("from"), rules("to")).prop_map(
        |(namespace, selector, types, ingress, egress)| {
            json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"namespace": namespace},
                "spec": {"podSelector": selector, "policyTypes": types, "ingress": ingress, "egress": egress}
            })
        },
    )
}

fn any_selector() -> impl Strategy<Value = Value> {
    select(vec![
        json!({}),
        json!({}),
        json!({"matchLabels": {"app": "x"}}),
        json!({"matchLabels": {"app": "y"}}),
        json!({"matchExpressions": [{"key": "env", "operator": "DoesNotExist"}]}),
        json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["x"]}]}),
    ])
}

fn any_peers() -> impl Strategy<Value = Value> {
    let named = json!({"matchLabels": {"kubernetes.io/metadata.name": "b"}});
    let namespaces = prop_oneof![3 => any_selector(), 1 => Just(named)];
    let both = (namespaces.clone(), any_selector());
    let block = select(vec![
        json!({"cidr": "0.0.0.0/0"}),
        json!({"cidr": "0.0.0.0/0", "except": ["10.0.0.0/24", "128.0.0.0/1"]}),
        json!({"cidr": "10.0.0.0/24", "except": ["10.0.0.4/30"]}),
        json!({"cidr": "10.0.0.0/8"}),
        json!({"cidr": "192.0.2.0/24"}),
        json!({"cidr": "::/0"}),
        json!({"cidr": "fd00::/16", "except": ["fd00::4/126"]}),
    ]);
    let peer = prop_oneof![
        any_selector().prop_map(|pods| json!({"podSelector": pods})),
        namespaces.prop_map(|namespaces| json!({"namespaceSelector": namespaces})),
        both.prop_map(
            |(namespaces, pods)| json!({"namespaceSelector": namespaces, "podSelector": pods})
        ),
        block.prop_map(|block| json!({"ipBlock": block})),
    ];
    prop_oneof![1 => Just(json!(null)), 6 => vec(peer, 1..4).prop_map(Value::from)]
}

fn any_ports() -> impl Strategy<Value = Value> {
    let number = || select(PORTS.to_vec());
    let port = prop_oneof![
        1 => Just(json!({})),
        3 => number().prop_map(|port| json!({"port": port})),
        2 => (number(), number()).prop_map(|(one, two)| json!({"port": one.min(two), "endPort": one.max(two)})),
        3 => select(vec!["web", "dns", "none"]).prop_map(|name| json!({"port": name})),
    ];
    let port = (port, any_protocol()).prop_map(|(mut port, protocol)| {
        port["protocol"] = json!(protocol);
        port
    });
    prop_oneof![1 => Just(json!(null)), 4 => vec(port, 1..4).prop_map(Value::from)]
}
