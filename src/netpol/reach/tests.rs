use serde_json::{Value, json};

use super::*;
use crate::netpol::testing::{Cluster, deployment, namespace, patched, pod, policy};
use crate::netpol::{Direction, Endpoint, Flow, Port, Protocol};

fn reach(objects: impl IntoIterator<Item = Value>) -> Reachability {
    Reachability::of(&Cluster::of(objects).0)
}

/// The connections of a cluster, one line each.
fn lines(objects: impl IntoIterator<Item = Value>) -> Vec<String> {
    let connections = reach(objects).connections();
    let line = |one: &Connection| format!("{} -> {} {}", one.from, one.to, one.ports);
    connections.iter().map(line).collect()
}

fn deny_all(namespace: &str) -> Value {
    policy(
        &format!("{namespace}/deny"),
        json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
    )
}

#[test]
fn pods_that_nothing_tells_apart_are_one_class() {
    let pods = (0..20).map(|index| {
        let address = format!("10.0.0.{index}");
        pod(&format!("n{}/p{index}", index % 4), "app=web", [&address])
    });
    let open = reach(pods.clone());
    assert_eq!(open.classes(), 1);
    let rule = policy(
        "n0/web",
        json!({"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/29"}}]}]}),
    );
    // n0 is selected; of each kind there are pods in the block and outside of it.
    assert_eq!(reach(pods.chain([rule])).classes(), 4);
}

#[test]
fn a_cluster_of_denials_has_no_connections() {
    assert_eq!(
        lines([
            pod("a/web", "app=web", ["10.0.0.1"]),
            deployment("a/api", "app=api"),
            deny_all("a"),
        ]),
        Vec::<String>::new()
    );
}

#[test]
fn pods_of_a_workload_are_one_end_and_reach_each_other_only_when_there_are_two() {
    let owned = |name: &str| {
        patched(
            pod(&format!("a/{name}"), "app=web", ["10.0.0.1"]),
            json!({"metadata": {"ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "1", "controller": true}
            ]}}),
        )
    };
    let outside = [
        "a/web (StatefulSet) -> 0.0.0.0/0 all ports",
        "0.0.0.0/0 -> a/web (StatefulSet) all ports",
    ];
    assert_eq!(lines([owned("web-0")]), outside);
    assert_eq!(
        lines([owned("web-0"), owned("web-1")]),
        [
            "a/web (StatefulSet) -> a/web (StatefulSet) all ports",
            outside[0],
            outside[1]
        ]
    );
}

#[test]
fn egress_and_ingress_are_met_with_the_named_ports_of_each_destination() {
    let with_port = |place: &str, port: u16| {
        patched(
            deployment(place, "app=api"),
            json!({"spec": {"template": {"spec": {"containers": [
                {"name": "main", "image": "main", "ports": [{"name": "web", "containerPort": port}]}
            ]}}}}),
        )
    };
    let lines = lines([
        namespace("b", json!({"team": "b"})),
        pod("a/client", "app=client", ["10.0.0.1"]),
        with_port("b/one", 8080),
        with_port("b/two", 9090),
        deny_all("a"),
        deny_all("b"),
        policy(
            "a/out",
            json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{
                "to": [{"namespaceSelector": {"matchLabels": {"team": "b"}}}],
                "ports": [{"port": "web"}, {"port": 53, "protocol": "UDP"}]}]}),
        ),
        policy(
            "b/in",
            json!({"podSelector": {}, "ingress": [{
                "from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "client"}}}],
                "ports": [{"port": 8000, "endPort": 9000}, {"protocol": "UDP"}]}]}),
        ),
    ]);
    assert_eq!(
        lines,
        [
            "a/client (Pod) -> b/one (Deployment) TCP 8080, UDP 53",
            "a/client (Pod) -> b/two (Deployment) UDP 53",
        ]
    );
}

#[test]
fn the_outside_is_listed_in_the_fewest_blocks() {
    let lines = lines([
        pod("a/web", "app=web", ["10.0.0.1"]),
        policy(
            "a/in",
            json!({"policyTypes": ["Ingress", "Egress"], "ingress": [{
                "from": [{"ipBlock": {"cidr": "192.0.2.0/25"}}, {"ipBlock": {"cidr": "192.0.2.128/25"}}],
                "ports": [{"port": 443}]}]}),
        ),
    ]);
    assert_eq!(lines, ["192.0.2.0/24 -> a/web (Pod) TCP 443"]);
}

#[test]
fn a_pod_is_open_to_its_own_node() {
    let on_node = |value: Value| patched(value, json!({"spec": {"nodeName": "n1"}}));
    let agent = patched(
        on_node(pod("a/agent", "app=agent", ["192.0.2.1"])),
        json!({"spec": {"hostNetwork": true}}),
    );
    let lines = lines([
        agent,
        on_node(pod("b/near", "app=near", ["10.0.0.1"])),
        pod("b/far", "app=far", ["10.0.0.2"]),
        deny_all("b"),
    ]);
    assert_eq!(
        lines,
        [
            "a/agent (Pod) -> b/near (Pod) all ports",
            "a/agent (Pod) -> 0.0.0.0/0 all ports",
            "b/near (Pod) -> a/agent (Pod) all ports",
            "0.0.0.0/0 -> a/agent (Pod) all ports",
        ]
    );
}

#[test]
fn exposure_is_told_by_the_selectors_that_would_match() {
    let reach = reach([
        deployment("a/api", "app=api"),
        deployment("b/open", "app=open"),
        policy(
            "a/both",
            json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 80}, {"port": "nothing"}]},
                {"from": [{"namespaceSelector": {"matchLabels": {"team": "x"}}}]},
            ],
            "egress": [
                {"to": [{"podSelector": {"matchLabels": {"app": "db"}}}], "ports": [{"port": 5432}, {"port": "sql"}]},
                {"to": [{"podSelector": {"matchLabels": {"app": "named"}}}], "ports": [{"port": "web"}]},
                {"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]},
                {"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": 53, "protocol": "UDP"}]},
            ]}),
        ),
    ]);
    let told = |name: &str, direction: Direction| -> Vec<String> {
        let workloads = reach.workloads().into_iter();
        workloads
            .filter(|workload| workload.name == name)
            .flat_map(|workload| reach.exposure(workload, direction).expect("few scopes"))
            .map(|exposure| format!("{} {}", exposure.who, exposure.ports()))
            .collect()
    };
    assert_eq!(
        told("api", Direction::Ingress),
        [
            "any pod with app=web in namespace a TCP 80",
            "any pod in any namespace with team=x all ports",
        ]
    );
    assert_eq!(
        told("api", Direction::Egress),
        [
            "any pod in any namespace UDP 53",
            "any pod with app=db in namespace a TCP 5432 and what it calls TCP sql",
            "any pod with app=named in namespace a what it calls TCP web",
        ]
    );
    for direction in Direction::BOTH {
        assert_eq!(
            told("open", direction),
            ["any pod in any namespace all ports"]
        );
    }
}

#[test]
fn both_ends_may_be_allowed_by_additions_to_one_policy() {
    let cluster = Cluster::of([
        deployment("a/api", "app=api"),
        policy(
            "a/api",
            json!({"podSelector": {"matchLabels": {"app": "api"}}, "policyTypes": ["Ingress", "Egress"]}),
        ),
    ]);
    let api = Endpoint::Pod(cluster.pod("Deployment:a/api"));
    let port = Port::new(80).expect("a port");
    let explanation = cluster.0.explain(&Flow::new(api, api, Protocol::Tcp, port));
    let changes = explanation.changes.iter();
    let told: Vec<String> = changes
        .map(|change| format!("{} {} {}", change.direction, change.policy, change.manifest))
        .collect();
    assert_eq!(
        told,
        [
            r#"egress a/api {"ports":[{"port":80,"protocol":"TCP"}],"to":[{"podSelector":{"matchLabels":{"app":"api"}}}]}"#,
            r#"ingress a/api {"from":[{"podSelector":{"matchLabels":{"app":"api"}}}],"ports":[{"port":80,"protocol":"TCP"}]}"#,
        ]
    );
}
