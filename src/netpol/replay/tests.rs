use serde_json::{Value, json};

use super::*;
use crate::netpol::labels::Labels;
use crate::netpol::testing::{actor, observe};
use crate::netpol::{Object, parse};

fn snapshot(objects: &[Value]) -> Snapshot {
    let parsed = objects.iter().map(|object| {
        let parsed = parse(object).expect("valid").expect("a kind of the model");
        parsed.object
    });
    parsed.collect::<Vec<Object>>().into_iter().collect()
}

fn policy(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    })
}

fn deployment(namespace: &str, name: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {"containers": [
            {"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}
        ]}}},
    })
}

fn address(text: &str) -> Actor {
    Actor::Address(text.parse().expect("an address"))
}

fn told(replay: &Replay) -> Vec<String> {
    let rows = replay.rows.iter().map(|row| {
        let because: Vec<String> = row
            .because
            .iter()
            .map(|because| {
                format!(
                    "{} {:?}",
                    because.direction,
                    because
                        .policies
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                )
            })
            .collect();
        format!(
            "{} {} -> {} {}: {} by {}",
            row.change.as_str(),
            row.from,
            row.to,
            row.port,
            row.flows,
            because.join(" ")
        )
    });
    rows.chain(
        replay
            .unknown
            .iter()
            .map(|(reason, flows)| format!("unknown {flows}: {reason}")),
    )
    .collect()
}

/// A recorded pod of the database, which had this address.
fn db(ip: &str) -> Actor {
    Actor::Pod(PodActor {
        namespace_labels: None,
        namespace: "data".into(),
        name: Some("db-0".into()),
        workload: None,
        labels: Some(Labels::default()),
        address: Some(ip.parse().expect("an address")),
        node: None,
    })
}

#[test]
fn a_pod_is_found_by_its_name_else_made_of_its_labels_else_unknown() {
    let cluster = snapshot(&[
        deployment("shop", "web", &json!({"app": "web"})),
        deployment("shop", "web-api", &json!({"app": "api"})),
        policy(
            "shop",
            "api",
            &json!({"podSelector": {"matchLabels": {"app": "api"}}, "ingress": [
                {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": "web"}]},
            ]}),
        ),
    ]);
    let observed = observe(&[
        (
            actor("shop/web-755cdc7957-abcde", None),
            actor("shop/web-api-7d4899b484-*", None),
            8080,
            Action::Allowed,
            4,
        ),
        (
            actor("shop/web-755cdc7957-fghij", None),
            actor("shop/web-api-7d4899b484-*", None),
            8080,
            Action::Allowed,
            1,
        ),
        (
            actor("shop/job-abc", Some(&[("app", "batch")])),
            actor("shop/web-api-7d4899b484-*", None),
            8080,
            Action::Allowed,
            2,
        ),
        (
            actor("shop/job-abc", Some(&[("app", "web")])),
            actor("shop/web-api-7d4899b484-*", None),
            8080,
            Action::Denied,
            3,
        ),
        (
            actor("shop/job-abc", None),
            actor("shop/web-api-7d4899b484-*", None),
            8080,
            Action::Denied,
            5,
        ),
        (
            address("192.0.2.1"),
            actor("shop/web-api-7d4899b484-*", None),
            8080,
            Action::Denied,
            6,
        ),
        (
            address("10.0.0.1"),
            actor("shop/web-api-7d4899b484-*", None),
            8080,
            Action::Denied,
            7,
        ),
    ]);
    let cidr = ["10.0.0.0/8".parse().expect("a block")];
    let replay = Replay::of(&observed, &cluster, &cidr);
    assert_eq!(
        told(&replay),
        [
            "newly denied shop/job-abc -> shop/web-api (Deployment) 8080: 2 by ingress [\"shop/api\"]",
            "newly allowed shop/job-abc -> shop/web-api (Deployment) 8080: 3 by ingress [\"shop/api\"]",
            "still allowed shop/web (Deployment) -> shop/web-api (Deployment) 8080: 5 by ingress [\"shop/api\"]",
            "still denied 192.0.2.1 -> shop/web-api (Deployment) 8080: 6 by ingress [\"shop/api\"]",
            "unknown 7: 10.0.0.1 is an address of the cluster that no pod of the manifests has",
            "unknown 5: shop/job-abc is not among the manifests, and the record has no labels of it"
        ]
    );
    assert_eq!(replay.unknown_flows(), 12);
}

#[test]
fn recorded_addresses_count_where_policies_look_at_them() {
    let cluster = snapshot(&[policy(
        "shop",
        "block",
        &json!({
            "podSelector": {}, "policyTypes": ["Egress"],
            "egress": [{"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]}],
        }),
    )]);
    let web = || actor("shop/web", Some(&[("app", "web")]));
    let observed = observe(&[
        (web(), db("10.1.2.3"), 5432, Action::Allowed, 1),
        (web(), db("10.2.2.3"), 5432, Action::Allowed, 1),
        (web(), db("10.1.255.255"), 5432, Action::Allowed, 1),
        (web(), db("10.3.2.3"), 5432, Action::Allowed, 3),
    ]);
    let replay = Replay::of(&observed, &cluster, &[]);
    assert_eq!(
        told(&replay),
        [
            "newly denied shop/web -> data/db-0 5432: 4 by egress [\"shop/block\"]",
            "still allowed shop/web -> data/db-0 5432: 2 by egress [\"shop/block\"]"
        ]
    );
}

#[test]
fn a_node_reaches_its_own_pods_whatever_policies_say() {
    let cluster = snapshot(&[policy("shop", "deny", &json!({"podSelector": {}}))]);
    let on_node = Actor::Pod(PodActor {
        namespace_labels: None,
        namespace: "shop".into(),
        name: Some("web".into()),
        workload: None,
        labels: Some(Labels::default()),
        address: None,
        node: Some("n1".into()),
    });
    let node = |name: &str| Actor::Node {
        name: name.into(),
        address: None,
    };
    let observed = observe(&[
        (node("n1"), on_node.clone(), 8080, Action::Allowed, 1),
        (node("n2"), on_node, 8080, Action::Allowed, 1),
    ]);
    let replay = Replay::of(&observed, &cluster, &[]);
    assert_eq!(
        told(&replay),
        [
            "still allowed node n1 -> shop/web 8080: 1 by ",
            "newly denied node n2 -> shop/web 8080: 1 by ingress [\"shop/deny\"]"
        ]
    );
}

#[test]
fn a_policy_of_the_cluster_that_denies_is_named_with_its_rule() {
    let cluster = snapshot(&[json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "apart"},
        "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "ingress": [
            {"action": "Deny", "from": [{"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}]},
        ]},
    })]);
    let web = actor("shop/web", Some(&[("app", "web")]));
    let api = actor("data/api", Some(&[("app", "api")]));
    let observed = observe(&[
        (web.clone(), api.clone(), 80, Action::Allowed, 1),
        (api, web, 80, Action::Allowed, 1),
    ]);
    let replay = Replay::of(&observed, &cluster, &[]);
    assert_eq!(
        told(&replay),
        [
            "still allowed data/api -> shop/web 80: 1 by ",
            "newly denied shop/web -> data/api 80: 1 by ingress [\"ClusterNetworkPolicy apart spec.ingress[0].from[0]\"]",
        ]
    );
}

#[test]
fn addresses_count_where_policies_of_the_cluster_look_at_them_or_at_nodes() {
    let on_host = |name: &str, ip: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "ops"},
            "spec": {"hostNetwork": true, "containers": []},
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
        })
    };
    let cluster = snapshot(&[
        json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "apart"},
            "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "egress": [
                {"action": "Deny", "to": [{"networks": ["10.1.0.0/16"]}]},
                {"action": "Deny", "to": [{"nodes": {"matchLabels": {"role": "edge"}}}]},
            ]},
        }),
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": {"role": "edge"}},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.1"}]},
        }),
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n2"},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.2"}]},
        }),
        on_host("edge", "192.168.0.1"),
        on_host("inner", "192.168.0.2"),
    ]);
    let web = || actor("shop/web", Some(&[("app", "web")]));
    let observed = observe(&[
        (web(), db("10.1.2.3"), 5432, Action::Allowed, 1),
        (web(), db("10.2.2.3"), 5432, Action::Allowed, 1),
        (web(), db("10.1.255.255"), 5432, Action::Allowed, 1),
        (web(), db("10.3.2.3"), 5432, Action::Allowed, 3),
        (web(), actor("ops/edge", None), 22, Action::Allowed, 1),
        (web(), actor("ops/inner", None), 22, Action::Allowed, 1),
    ]);
    let apart =
        |rule| format!("by egress [\"ClusterNetworkPolicy apart spec.egress[{rule}].to[0]\"]");
    assert_eq!(
        told(&Replay::of(&observed, &cluster, &[])),
        [
            format!("newly denied shop/web -> data/db-0 5432: 2 {}", apart(0)),
            "still allowed shop/web -> data/db-0 5432: 4 by ".to_owned(),
            format!("newly denied shop/web -> ops/edge (Pod) 22: 1 {}", apart(1)),
            "still allowed shop/web -> ops/inner (Pod) 22: 1 by ".to_owned(),
        ]
    );
}

/// Ends as Hubble tells of them: with the labels of the namespace.
fn told_of(text: &str, namespace: &[(&str, &str)]) -> Actor {
    let Actor::Pod(own) = actor(text, Some(&[("app", "x")])) else {
        panic!("a pod");
    };
    Actor::Pod(PodActor {
        namespace_labels: Some(namespace.iter().copied().collect()),
        ..own
    })
}

#[test]
fn labels_of_namespaces_come_from_records_where_manifests_say_none() {
    let from_prod = json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"env": "prod"}}}]}]});
    let replayed = |others: &[Value], flows: &[Actor]| {
        let mut objects = vec![policy("shop", "from-prod", &from_prod)];
        objects.extend_from_slice(others);
        let to = actor("shop/web", Some(&[("app", "web")]));
        let flows: Vec<_> = flows
            .iter()
            .map(|from| (from.clone(), to.clone(), 80, Action::Allowed, 1))
            .collect();
        let replay = Replay::of(&observe(&flows), &snapshot(&objects), &[]);
        let bare: Vec<String> = replay
            .bare_namespaces
            .iter()
            .map(ToString::to_string)
            .collect();
        (replay.flows(Change::StillAllowed), bare)
    };
    let namespace = |labels: Value| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ops", "labels": labels}});
    let (prod, dev) = (
        told_of("ops/prober", &[("env", "prod")]),
        told_of("ops/prober", &[("env", "dev")]),
    );
    let bare = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        replayed(&[], std::slice::from_ref(&prod)),
        (1, bare(&["shop"]))
    );
    assert_eq!(
        replayed(&[], std::slice::from_ref(&dev)),
        (0, bare(&["shop"]))
    );
    // Manifests know better, unless they say nothing.
    let there = [namespace(json!({"env": "dev"}))];
    assert_eq!(
        replayed(&there, std::slice::from_ref(&prod)),
        (0, bare(&["shop"]))
    );
    let there = [namespace(json!({"env": "prod"}))];
    assert_eq!(
        replayed(&there, std::slice::from_ref(&dev)),
        (1, bare(&["shop"]))
    );
    let there = [namespace(json!({}))];
    assert_eq!(
        replayed(&there, std::slice::from_ref(&prod)),
        (1, bare(&["shop"]))
    );
    // Records that contradict each other say nothing.
    assert_eq!(replayed(&[], &[prod, dev]), (0, bare(&["ops", "shop"])));
}
