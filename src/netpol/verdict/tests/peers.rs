//! Who is at the other end of a rule.

use serde_json::{Value, json};

use crate::netpol::testing::{Cluster, namespace, pod, policy, problem_fields};

/// Every kind of source that the peers of these tests may mean.
const SOURCES: [&str; 5] = ["a/web", "a/db", "b/web", "b/db", "192.0.2.1"];

/// A cluster with a pod `a/target` that lets in what one rule says.
fn behind(rule: Value) -> Cluster {
    let spec = json!({"podSelector": {"matchLabels": {"app": "target"}}, "ingress": [rule]});
    Cluster::of([
        namespace("a", json!({"team": "x"})),
        namespace("b", json!({"team": "y"})),
        pod("a/target", "app=target", ["10.0.0.9"]),
        pod("a/web", "app=web", ["10.0.0.1"]),
        pod("a/db", "app=db", ["10.0.0.2"]),
        pod("b/web", "app=web", ["10.0.1.1"]),
        pod("b/db", "app=db", ["10.0.1.2"]),
        policy("a/p", spec),
    ])
}

fn let_in(peers: Value) -> [bool; 5] {
    behind(json!({"from": peers})).allows_from(SOURCES, "a/target")
}

fn web() -> Value {
    json!({"matchLabels": {"app": "web"}})
}

fn team(name: &str) -> Value {
    json!({"matchLabels": {"team": name}})
}

/// Line 7: an absent or empty `from` means everyone, also outside; with one item or more, only those.
#[test]
fn s1_07_no_peers_mean_everyone_and_peers_mean_only_them() {
    for rule in [json!({}), json!({"from": []}), json!({"from": null})] {
        assert_eq!(behind(rule).allows_from(SOURCES, "a/target"), [true; 5]);
    }
    assert_eq!(
        let_in(json!([{"podSelector": web()}])),
        [true, false, false, false, false]
    );
}

/// Line 9: an empty peer is invalid, and so is an ipBlock beside a selector.
#[test]
fn s1_09_an_empty_peer_and_an_ip_block_beside_a_selector_are_refused() {
    let block = json!({"cidr": "10.0.0.0/8"});
    let peers = json!([
        {},
        null,
        {"ipBlock": block, "podSelector": {}},
        {"ipBlock": block, "namespaceSelector": {}},
        {"ipBlock": block},
    ]);
    let fields = problem_fields(&policy("a/p", json!({"egress": [{"to": peers}]})));
    let refused = [0, 1, 2, 3].map(|index| format!("spec.egress[0].to[{index}]"));
    assert_eq!(fields, refused);
}

/// Line 10: the two selectors of one peer must both match; of two peers one is enough.
#[test]
fn s1_10_selectors_of_one_peer_are_anded_and_peers_are_ored() {
    let both = json!([{"namespaceSelector": team("y"), "podSelector": web()}]);
    assert_eq!(let_in(both), [false, false, true, false, false]);
    let either = json!([{"namespaceSelector": team("y")}, {"podSelector": web()}]);
    assert_eq!(let_in(either), [true, false, true, true, false]);
}

/// Line 11: a podSelector alone means the policy's namespace, a namespaceSelector alone all pods there, and an empty one all
/// namespaces, the own one among them; none of them ever means anything outside of the cluster.
#[test]
fn s1_11_pod_and_namespace_selectors_mean_pods_of_their_namespaces_only() {
    assert_eq!(
        let_in(json!([{"podSelector": {}}])),
        [true, true, false, false, false]
    );
    assert_eq!(
        let_in(json!([{"namespaceSelector": team("y")}])),
        [false, false, true, true, false]
    );
    assert_eq!(
        let_in(json!([{"namespaceSelector": {}}])),
        [true, true, true, true, false]
    );
    let everything = json!([{"namespaceSelector": {}, "podSelector": {}}]);
    assert_eq!(let_in(everything), [true, true, true, true, false]);
    let all_web = json!([{"namespaceSelector": {}, "podSelector": web()}]);
    assert_eq!(let_in(all_web), [true, false, true, false, false]);
}

/// Line 12: the control plane labels every namespace with its name, so that offline input has to be given that label.
#[test]
fn s1_12_every_namespace_has_its_name_as_a_label() {
    let by_name =
        json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "b"}}}]);
    assert_eq!(let_in(by_name.clone()), [false, false, true, true, false]);

    // A namespace of which nothing but a pod is known has it too, and no other value can be set.
    let unknown = Cluster::of([
        pod("a/target", "", ["10.0.0.9"]),
        pod("b/web", "", ["10.0.1.1"]),
        pod("c/web", "", ["10.0.2.1"]),
        namespace("c", json!({"kubernetes.io/metadata.name": "b"})),
        policy("a/p", json!({"ingress": [{"from": by_name}]})),
    ]);
    assert_eq!(
        unknown.allows_from(["b/web", "c/web"], "a/target"),
        [true, false]
    );
}

#[test]
fn selectors_of_namespaces_match_unknown_ones_by_what_they_lack() {
    let not_x = json!([{"namespaceSelector": {"matchExpressions": [
        {"key": "team", "operator": "NotIn", "values": ["x"]},
    ]}}]);
    assert_eq!(let_in(not_x.clone()), [false, false, true, true, false]);
    let cluster = behind(json!({"from": not_x})).with(&pod("unknown/web", "", ["10.0.3.1"]));
    assert!(cluster.allows("unknown/web", "a/target", "TCP 80"));
}

/// Line 24: the address of a service is no pod: selectors never mean it.
#[test]
fn s1_24_selectors_never_match_the_address_of_a_service() {
    let cluster = Cluster::of([
        pod("a/web", "app=web", ["10.0.0.1"]),
        pod("a/db", "app=db", ["10.0.0.2"]),
        policy(
            "a/p",
            json!({"policyTypes": ["Egress"], "egress": [{"to": [{"namespaceSelector": {}}]}]}),
        ),
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"namespace": "a", "name": "db"},
            "spec": {"clusterIP": "10.96.0.7", "selector": {"app": "db"}, "ports": [{"port": 80}]},
        }),
    ]);
    assert!(cluster.allows("a/web", "a/db", "TCP 80"));
    assert!(!cluster.allows("a/web", "10.96.0.7", "TCP 80"));
    assert!(
        cluster
            .0
            .pod_at("10.96.0.7".parse().expect("an address"))
            .is_none()
    );
}
