//! Ends that policies do not hold: nodes, the host network, finished pods, a pod itself.

use serde_json::json;

use crate::netpol::testing::{Cluster, deployment, patched, pod, policy};
use crate::netpol::{Direction, EndVerdict, NotHeld};

/// Pods on two nodes in a namespace that denies everything.
fn denied() -> Cluster {
    let on = |place: &str, address: &str, node: &str| {
        patched(
            pod(place, "app=x", [address]),
            json!({"spec": {"nodeName": node}}),
        )
    };
    let host = |place: &str, address: &str, node: &str| {
        patched(
            on(place, address, node),
            json!({"spec": {"hostNetwork": true}}),
        )
    };
    Cluster::of([
        on("a/one", "10.0.1.1", "n1"),
        on("a/two", "10.0.2.1", "n2"),
        host("a/host1", "192.168.0.1", "n1"),
        host("a/host2", "192.168.0.2", "n2"),
        policy("a/deny", json!({"policyTypes": ["Ingress", "Egress"]})),
    ])
}

fn open_to(peer: serde_json::Value) -> Cluster {
    denied().with(&policy(
        "a/open",
        json!({"ingress": [{"from": [peer]}], "egress": [{}]}),
    ))
}

/// Line 29: flows from the pod's own node are always allowed to it, those of pods on that node's network as well; flows
/// from other nodes are not.
#[test]
fn s1_29_flows_from_the_own_node_are_always_allowed() {
    let cluster = denied();
    let from = ["node:n1", "a/host1", "node:n2", "a/host2"];
    assert_eq!(
        cluster.allows_from(from, "a/one"),
        [true, true, false, false]
    );
    let verdict = cluster.verdict("node:n1", "a/one", "TCP 80");
    assert_eq!(verdict.ingress, EndVerdict::NotHeld(NotHeld::OwnNode));
    assert_eq!(verdict.egress, EndVerdict::NotHeld(NotHeld::Node));

    // A pod that is nowhere yet has no own node.
    let unscheduled = cluster.with(&pod("a/new", "", []));
    assert!(!unscheduled.allows("node:n1", "a/new", "TCP 80"));
}

/// Line 30: traffic to and from the node of a pod is always allowed, regardless of addresses; we take the documentation at its
/// word for egress too, although implementations differ there.
#[test]
fn s1_30_flows_to_the_own_node_are_always_allowed() {
    let cluster = denied();
    let to = ["node:n1", "a/host1", "node:n2", "a/host2"];
    assert_eq!(
        to.map(|to| cluster.allows("a/one", to, "TCP 10250")),
        [true, true, false, false]
    );
}

/// Line 31: a pod cannot block itself.
#[test]
fn s1_31_a_pod_cannot_block_itself() {
    let cluster = denied().with(&deployment("a/app", "app=x"));
    let verdict = cluster.verdict("a/one", "a/one", "TCP 80");
    assert_eq!(verdict.egress, EndVerdict::NotHeld(NotHeld::Itself));
    assert!(verdict.allowed());
    // Two pods of one deployment are not the same pod.
    assert!(!cluster.allows("Deployment:a/app", "Deployment:a/app", "TCP 80"));
}

/// Line 33: selectors do not mean pods on the host network, and their traffic is traffic of the node; an ipBlock may still
/// mean the node's address.
#[test]
fn s1_33_pods_on_the_host_network_are_their_node() {
    let selected = open_to(json!({"podSelector": {}}));
    assert_eq!(
        selected.allows_from(["a/two", "a/host2"], "a/one"),
        [true, false]
    );
    let by_address = open_to(json!({"ipBlock": {"cidr": "192.168.0.0/24"}}));
    assert_eq!(
        by_address.allows_from(["a/two", "a/host2"], "a/one"),
        [false, true]
    );

    let cluster = denied();
    assert_eq!(
        cluster.verdict("a/host1", "a/host2", "TCP 80").ingress,
        EndVerdict::NotHeld(NotHeld::HostNetwork)
    );
    assert_eq!(
        cluster.verdict("a/one", "a/host2", "TCP 80").ingress,
        EndVerdict::NotHeld(NotHeld::HostNetwork)
    );
    assert_eq!(
        cluster.0.pod_coverage(cluster.pod("a/host1")).missing(),
        Direction::BOTH
    );
    assert!(
        cluster
            .0
            .pod_at("192.168.0.1".parse().expect("an address"))
            .is_none()
    );
    // A name of a port is not looked up on the host network.
    let port = json!([{"name": "main", "ports": [{"name": "web", "containerPort": 8080}]}]);
    let named = json!({"spec": {"hostNetwork": true, "containers": port}});
    let cluster = Cluster::of([
        patched(pod("b/host", "", ["192.168.0.3"]), named),
        pod("a/one", "", ["10.0.1.1"]),
        policy(
            "a/p",
            json!({"policyTypes": ["Egress"], "egress": [{"ports": [{"port": "web"}]}]}),
        ),
    ]);
    assert!(!cluster.allows("a/one", "b/host", "TCP 8080"));
}

/// Line 34: pods that have finished keep an address which others get, and are ignored; pods being deleted are not, as they
/// still send.
#[test]
fn s1_34_finished_pods_are_ignored_and_terminating_ones_are_not() {
    let old = |phase: &str| {
        patched(
            pod("a/old", "app=x", ["10.0.1.1"]),
            json!({"status": {"phase": phase}}),
        )
    };
    for phase in ["Succeeded", "Failed"] {
        let cluster = open_to(json!({"podSelector": {}})).with(&old(phase));
        assert_eq!(
            cluster.verdict("a/old", "a/two", "TCP 80").egress,
            EndVerdict::NotHeld(NotHeld::Finished)
        );
        assert!(
            !cluster.allows("a/old", "a/two", "TCP 80"),
            "its labels are no peer any more"
        );
        assert!(
            !cluster
                .0
                .pod_coverage(cluster.pod("a/old"))
                .covered(Direction::Ingress)
        );
        let owner = cluster.0.pod_at("10.0.1.1".parse().expect("an address"));
        assert_eq!(owner.map(|pod| pod.name().as_str()), Some("one"));
    }
    let going = patched(
        old("Running"),
        json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
    );
    let cluster = open_to(json!({"podSelector": {}})).with(&going);
    assert!(cluster.allows("a/old", "a/two", "TCP 80"));
    assert!(
        cluster
            .0
            .pod_coverage(cluster.pod("a/old"))
            .covered(Direction::Ingress)
    );
}

/// Line 40: what another node masquerades comes from that node and not from the client, so that only a block of addresses
/// can allow it.
#[test]
fn s1_40_masqueraded_flows_are_those_of_another_node() {
    let selected = open_to(json!({"namespaceSelector": {}}));
    assert!(!selected.allows("node:n2", "a/one", "TCP 80"));
    let by_address = open_to(json!({"ipBlock": {"cidr": "192.168.0.0/24"}}));
    assert!(by_address.allows("192.168.0.2", "a/one", "TCP 80"));
}

#[test]
fn the_outside_is_not_held() {
    let cluster = denied();
    let verdict = cluster.verdict("192.0.2.1", "192.0.2.2", "TCP 80");
    assert_eq!(verdict.egress, EndVerdict::NotHeld(NotHeld::External));
    assert!(verdict.allowed());
    assert!(!cluster.allows("192.0.2.1", "a/one", "TCP 80"));
    assert!(!cluster.allows("a/one", "192.0.2.1", "TCP 80"));
}
