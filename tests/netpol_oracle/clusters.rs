//! Random clusters: small, and dense in the cases that evaluators get wrong.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

#[path = "cluster_policies.rs"]
mod tiers;

/// The namespaces that there are; the last one has no object of its own.
const NAMESPACES: [&str; 3] = ["a", "b", "c"];

/// The nodes that there are, and the addresses of the first one.
pub(crate) const NODES: [&str; 2] = ["n1", "n2"];
pub(crate) const NODE_ADDRESSES: [&str; 2] = ["192.168.0.1", "fd01::1"];

/// Addresses of no pod: far away, and between those of pods.
pub(crate) const OUTSIDE: [&str; 4] = ["192.0.2.1", "10.0.0.250", "2001:db8::1", "fd00::fa"];

/// The ports that decide something in what is generated here, and one that does not.
pub(crate) const PORTS: [u64; 6] = [53, 80, 81, 90, 91, 8080];

/// All objects of a cluster.
pub(crate) fn any_cluster() -> impl Strategy<Value = Vec<Value>> {
    let namespaces = (any_namespace("a"), any_namespace("b"));
    let pods = vec(any_pod(), 2..7);
    let templates = vec(any_template(), 0..2);
    let policies = vec(any_policy(), 0..10);
    let wide = prop_oneof![
        1 => Just((vec![], vec![])),
        3 => (vec(tiers::any_policy(), 1..5), tiers::any_nodes()),
    ];
    (namespaces, pods, templates, policies, wide).prop_map(
        |((a, b), pods, templates, policies, (wide, nodes))| {
            let mut cluster = vec![a, b];
            let objects = [pods, templates, policies, wide].into_iter().flatten();
            cluster.extend(objects.enumerate().map(|(number, mut object)| {
                object["metadata"]["name"] = json!(format!("x{number}"));
                object
            }));
            cluster.extend(nodes);
            cluster
        },
    )
}

fn any_namespace(name: &'static str) -> impl Strategy<Value = Value> {
    let terminating = prop_oneof![9 => Just(Value::Null), 1 => Just(json!("2026-01-01T00:00:00Z"))];
    (any_labels(), terminating).prop_map(move |(labels, terminating)| {
        let metadata = json!({"name": name, "labels": labels, "deletionTimestamp": terminating});
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    })
}

/// The first one more often, so that policies, sources and destinations meet.
fn any_namespace_name() -> impl Strategy<Value = &'static str> {
    prop_oneof![3 => Just(NAMESPACES[0]), 2 => Just(NAMESPACES[1]), 1 => Just(NAMESPACES[2])]
}

pub(crate) fn any_labels() -> impl Strategy<Value = Value> {
    let value = || option::weighted(0.7, select(vec!["x", "y"]));
    (value(), value()).prop_map(|(app, env)| {
        let labels = [("app", app), ("env", env)].into_iter();
        let labels = labels.filter_map(|(key, value)| Some((key.to_owned(), json!(value?))));
        Value::Object(labels.collect::<Map<_, _>>())
    })
}

fn any_pod() -> impl Strategy<Value = Value> {
    let four = (0_u8..2, 1_u8..7).prop_map(|(net, host)| format!("10.0.{net}.{host}"));
    let six = (1_u8..7).prop_map(|host| format!("fd00::{host}"));
    let addresses = (four, six).prop_flat_map(|(four, six)| {
        prop_oneof![
            5 => Just(vec![four.clone()]),
            1 => Just(vec![six.clone()]),
            4 => Just(vec![four.clone(), six.clone()]),
            1 => Just(vec![six, four]),
            1 => Just(vec![]),
        ]
    });
    let phase = prop_oneof![12 => Just("Running"), 1 => Just("Pending"), 1 => Just("Succeeded"), 1 => Just("Failed")];
    let owner = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "set", "uid": "1", "controller": true
    });
    let owners = prop_oneof![2 => Just(json!([])), 1 => Just(json!([owner]))];
    (
        any_template_of_pod(),
        any_namespace_name(),
        addresses,
        phase,
        owners,
    )
        .prop_map(|(mut pod, namespace, addresses, phase, owners)| {
            pod["metadata"]["ownerReferences"] = owners;
            pod["apiVersion"] = json!("v1");
            pod["kind"] = json!("Pod");
            pod["metadata"]["namespace"] = json!(namespace);
            let addresses: Vec<Value> = addresses
                .iter()
                .map(|address| json!({"ip": address}))
                .collect();
            pod["status"] = json!({"phase": phase, "podIPs": addresses});
            pod
        })
}

fn any_template() -> impl Strategy<Value = Value> {
    (
        any_template_of_pod(),
        any_namespace_name(),
        select(vec!["Deployment", "DaemonSet"]),
    )
        .prop_map(|(template, namespace, kind)| {
            json!({
                "apiVersion": "apps/v1",
                "kind": kind,
                "metadata": {"namespace": namespace, "labels": {"app": "x", "env": "x"}},
                "spec": {"selector": {}, "template": template},
            })
        })
}

/// Labels, node and containers, as pods and templates have them.
fn any_template_of_pod() -> impl Strategy<Value = Value> {
    let node = option::weighted(0.8, select(NODES.to_vec()));
    let host = prop_oneof![4 => Just(json!(null)), 4 => Just(json!(false)), 1 => Just(json!(true))];
    let init =
        (any_container(), option::of(Just("Always"))).prop_map(|(mut container, restart)| {
            container["restartPolicy"] = json!(restart);
            container
        });
    (any_labels(), node, host, vec(any_container(), 1..3), vec(init, 0..2)).prop_map(
        |(labels, node, host, containers, init)| {
            let spec = json!({"nodeName": node, "hostNetwork": host, "containers": containers, "initContainers": init});
            json!({"metadata": {"labels": labels}, "spec": spec})
        },
    )
}

fn any_container() -> impl Strategy<Value = Value> {
    let port = (select(vec!["web", "web", "dns", ""]), select(PORTS.to_vec()), any_protocol()).prop_map(
        |(name, number, protocol)| json!({"name": name, "containerPort": number, "protocol": protocol}),
    );
    vec(port, 1..4).prop_map(|ports| json!({"name": "main", "ports": ports}))
}

fn any_protocol() -> impl Strategy<Value = Value> {
    prop_oneof![3 => Just(json!(null)), 2 => Just(json!("TCP")), 2 => Just(json!("UDP")), 1 => Just(json!("SCTP"))]
}

fn any_policy() -> impl Strategy<Value = Value> {
    let types = prop_oneof![
        4 => Just(json!(null)),
        1 => Just(json!([])),
        2 => Just(json!(["Ingress"])),
        2 => Just(json!(["Egress"])),
        3 => Just(json!(["Egress", "Ingress"])),
        1 => Just(json!(["Ingress", "Ingress"])),
    ];
    let selector = prop_oneof![1 => Just(json!(null)), 2 => Just(json!({})), 4 => any_selector()];
    let rules = |peers: &'static str| {
        let rule = (any_peers(), any_ports())
            .prop_map(move |(list, ports)| json!({peers: list, "ports": ports}));
        prop_oneof![
            1 => Just(json!(null)),
            1 => Just(json!([])),
            1 => Just(json!([{}])),
            14 => vec(rule, 1..4).prop_map(Value::from),
        ]
    };
    (any_namespace_name(), selector, types, rules("from"), rules("to")).prop_map(
        |(namespace, selector, types, ingress, egress)| {
            let spec = json!({"podSelector": selector, "policyTypes": types, "ingress": ingress, "egress": egress});
            // A null is what it is to the API server, and the absent field is generated too.
            let spec: Map<String, Value> = match spec {
                Value::Object(spec) => spec.into_iter().filter(|(key, value)| key != "egress" || !value.is_null()).collect(),
                other => panic!("{other} is no object"),
            };
            json!({
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {"namespace": namespace},
                "spec": spec,
            })
        },
    )
}

pub(crate) fn any_selector() -> impl Strategy<Value = Value> {
    let key = || select(vec!["app", "env"]);
    let label = (key(), select(vec!["x", "y"]))
        .prop_map(|(key, value)| json!({"matchLabels": {key: value}}));
    let values = subsequence(vec!["x", "y", "z"], 1..3);
    let expression = (
        key(),
        select(vec!["In", "NotIn", "Exists", "DoesNotExist"]),
        values,
    )
        .prop_map(|(key, operator, values)| match operator {
            "In" | "NotIn" => json!({"key": key, "operator": operator, "values": values}),
            _ => json!({"key": key, "operator": operator}),
        });
    let expressions =
        vec(expression, 1..3).prop_map(|expressions| json!({"matchExpressions": expressions}));
    let both = (label.clone(), expressions.clone()).prop_map(|(mut label, expressions)| {
        label["matchExpressions"] = expressions["matchExpressions"].clone();
        label
    });
    prop_oneof![3 => label, 2 => expressions, 1 => both, 1 => Just(json!({}))]
}

pub(crate) fn any_namespace_selector() -> impl Strategy<Value = Value> {
    let named = any_namespace_name();
    let named =
        named.prop_map(|name| json!({"matchLabels": {"kubernetes.io/metadata.name": name}}));
    prop_oneof![4 => any_selector(), 2 => named, 1 => Just(json!({}))]
}

fn any_peers() -> impl Strategy<Value = Value> {
    prop_oneof![
        1 => Just(json!(null)),
        1 => Just(json!([])),
        18 => vec(any_peer(), 1..4).prop_map(Value::from),
    ]
}

fn any_peer() -> impl Strategy<Value = Value> {
    let both = (any_namespace_selector(), any_selector());
    prop_oneof![
        2 => any_selector().prop_map(|pods| json!({"podSelector": pods})),
        2 => any_namespace_selector().prop_map(|namespaces| json!({"namespaceSelector": namespaces})),
        2 => both.prop_map(|(namespaces, pods)| json!({"namespaceSelector": namespaces, "podSelector": pods})),
        4 => any_block().prop_map(|block| json!({"ipBlock": block})),
    ]
}

/// A block around addresses of pods, with some of its parts taken out.
fn any_block() -> impl Strategy<Value = Value> {
    let block = select(vec![
        (
            "0.0.0.0/0",
            vec!["10.0.0.0/8", "10.0.0.0/24", "10.0.1.4/30", "128.0.0.0/1"],
        ),
        (
            "10.0.0.0/8",
            vec!["10.0.0.0/24", "10.0.1.0/24", "10.0.0.3/32"],
        ),
        (
            "10.0.0.77/24",
            vec!["10.0.0.1/31", "10.0.0.4/30", "10.0.0.250/32"],
        ),
        ("10.0.1.0/29", vec!["10.0.1.1/32", "10.0.1.2/31"]),
        ("192.0.2.0/24", vec!["192.0.2.0/31", "192.0.2.128/25"]),
        ("192.168.0.0/16", vec!["192.168.0.0/31"]),
        ("::/0", vec!["fd00::/16", "8000::/1", "2001:db8::/32"]),
        ("fd00::/16", vec!["fd00::4/126", "fd00::1/128"]),
        ("fd00::4/126", vec!["fd00::5/128"]),
    ]);
    block.prop_flat_map(|(cidr, excepts)| {
        let most = excepts.len();
        let some = subsequence(excepts, 1..=most);
        prop_oneof![
            1 => Just(json!({"cidr": cidr})),
            1 => some.prop_map(move |except| json!({"cidr": cidr, "except": except})),
        ]
    })
}

fn any_ports() -> impl Strategy<Value = Value> {
    let number = || select(PORTS.to_vec());
    let port = prop_oneof![
        1 => Just(json!({})),
        3 => number().prop_map(|port| json!({"port": port})),
        2 => (number(), number()).prop_map(|(one, two)| json!({"port": one.min(two), "endPort": one.max(two)})),
        4 => select(vec!["web", "web", "dns", "none"]).prop_map(|name| json!({"port": name})),
    ];
    let port = (port, any_protocol()).prop_map(|(mut port, protocol)| {
        port["protocol"] = protocol;
        port
    });
    prop_oneof![
        2 => Just(json!(null)),
        1 => Just(json!([])),
        5 => vec(port, 1..4).prop_map(Value::from),
    ]
}
