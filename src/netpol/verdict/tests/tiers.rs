//! What cluster network policies say of flows, in the words of their API.

use serde_json::{Value, json};

use crate::netpol::testing::{Cluster, deployment, namespace, object, patched, pod, policy, wide};
use crate::netpol::{ClusterPolicyKind, ClusterPolicyRef, ObjectKey, Tier, parse};

/// A rule for everyone in the cluster.
fn pods(action: &str) -> Value {
    json!({"action": action, "to": [{"namespaces": {}}]})
}

/// Two pods, `a/web` and `b/db`, beside other objects.
fn cluster(objects: impl IntoIterator<Item = Value>) -> Cluster {
    let own = [
        namespace("a", json!({"team": "x"})),
        pod("a/web", "app=web", ["10.0.0.1"]),
        pod("b/db", "app=db", ["10.0.0.2"]),
    ];
    Cluster::of(own.into_iter().chain(objects))
}

#[test]
fn a_peer_of_a_kind_to_come_is_read_and_fails_closed() {
    let to =
        |action: &str| json!([{"action": action, "to": [{"services": {}}, {"namespaces": {}}]}]);
    for (action, passes) in [("Accept", true), ("Deny", false), ("Pass", false)] {
        let value = wide("p", "Admin", 1, to(action));
        let parsed = parse(&value).expect("valid").expect("of the model");
        let unknown: Vec<String> = parsed
            .unknown_fields
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(unknown, ["spec.egress[0].to[0].services"]);
        let verdict = cluster([value]).verdict("a/web", "192.0.2.1", "TCP 80");
        assert_eq!(verdict.allowed(), passes, "{action}: {verdict}");
    }
    let deny_all = policy(
        "a/deny",
        json!({"podSelector": {}, "policyTypes": ["Egress"]}),
    );
    let verdict =
        cluster([wide("p", "Admin", 1, to("Accept")), deny_all]).verdict("a/web", "b/db", "TCP 80");
    assert!(
        !verdict.allowed()
            && verdict
                .to_string()
                .contains("not counted: ClusterNetworkPolicy p spec.egress[0]")
    );
}

#[test]
fn tiers_decide_before_and_after_network_policies() {
    let deny_all = policy(
        "a/deny",
        json!({"podSelector": {}, "policyTypes": ["Egress"]}),
    );
    let open = policy(
        "a/open",
        json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]}),
    );
    let ingress_only = policy(
        "a/in",
        json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
    );
    let rule = |tier: &str, action: &str| wide("p", tier, 1, json!([pods(action)]));
    let cases = [
        (rule("Admin", "Accept"), Some(&deny_all), true),
        (rule("Admin", "Deny"), Some(&open), false),
        (rule("Admin", "Pass"), Some(&deny_all), false),
        (rule("Admin", "Pass"), Some(&open), true),
        (rule("Baseline", "Deny"), Some(&open), true),
        (rule("Baseline", "Accept"), Some(&deny_all), false),
        (rule("Baseline", "Deny"), None, false),
        (rule("Baseline", "Pass"), None, true),
        // Another direction is another matter.
        (rule("Baseline", "Deny"), Some(&ingress_only), false),
    ];
    for (wide, network, passes) in cases {
        let cluster = cluster([wide.clone()].into_iter().chain(network.cloned()));
        let verdict = cluster.verdict("a/web", "b/db", "TCP 80");
        assert_eq!(verdict.allowed(), passes, "{wide} {network:?}: {verdict}");
    }
    // Pass in the Admin tier skips the rest of that tier only.
    let cluster = cluster([
        wide("first", "Admin", 1, json!([pods("Pass")])),
        wide("second", "Admin", 2, json!([pods("Deny")])),
        wide("last", "Baseline", 3, json!([pods("Deny")])),
    ]);
    let verdict = cluster.verdict("a/web", "b/db", "TCP 80");
    let ruled = verdict.egress.ruled().expect("a rule");
    assert_eq!(ruled.by.policy.name, "last");
    assert_eq!(
        verdict.egress.to_string(),
        "does not pass, denied by ClusterNetworkPolicy last spec.egress[0].to[0] (Baseline tier, priority 3)"
    );
}

#[test]
fn the_lower_priority_is_asked_first_and_of_equal_ones_the_strictest_counts() {
    let asked = |first: &str, second: &str, priority| {
        let cluster = cluster([
            wide("a", "Admin", 10, json!([pods(first)])),
            wide("b", "Admin", priority, json!([pods(second)])),
        ]);
        cluster.verdict("a/web", "b/db", "TCP 80")
    };
    assert!(!asked("Accept", "Deny", 9).allowed());
    assert!(asked("Accept", "Deny", 11).allowed());
    let tied = asked("Accept", "Deny", 10);
    assert!(!tied.allowed());
    let ruled = tied.egress.ruled().expect("a rule");
    assert_eq!(
        (&ruled.by.policy.name, &ruled.tied[0].policy.name),
        (&"b".into(), &"a".into())
    );
    assert!(
        tied.to_string()
            .contains("ClusterNetworkPolicy a spec.egress[0].to[0] has the same priority")
    );
    assert_eq!(
        asked("Deny", "Deny", 10)
            .egress
            .ruled()
            .map(|ruled| ruled.tied.len()),
        Some(0)
    );
}

#[test]
fn the_first_rule_that_matches_counts_and_names_of_ports_have_any_protocol() {
    let web = json!({"spec": {"containers": [{"name": "main", "image": "x", "ports": [
        {"name": "web", "containerPort": 8080}, {"name": "web", "containerPort": 53, "protocol": "UDP"}]}]}});
    let db = patched(pod("b/db", "app=db", ["10.0.0.2"]), web);
    let named = json!({"action": "Accept", "to": [{"namespaces": {}}], "protocols": [{"destinationNamedPort": "web"}]});
    let cluster = cluster([db, wide("p", "Admin", 1, json!([named, pods("Deny")]))]);
    for (at, passes) in [
        ("TCP 8080", true),
        ("UDP 53", true),
        ("TCP 53", false),
        ("UDP 8080", false),
    ] {
        assert_eq!(cluster.allows("a/web", "b/db", at), passes, "{at}");
    }
}

#[test]
fn networks_mean_pods_too_and_unknown_addresses_only_as_a_whole() {
    let deny = |block: &str| {
        wide(
            "p",
            "Admin",
            1,
            json!([{"action": "Deny", "to": [{"networks": [block]}]}]),
        )
    };
    let cluster = |block: &str| cluster([deny(block), deployment("b/api", "app=api")]);
    assert!(!cluster("10.0.0.0/8").allows("a/web", "b/db", "TCP 80"));
    assert!(
        cluster("10.0.0.0/8").allows("a/web", "b/db", "TCP 80")
            == cluster("0.0.0.0/0").allows("a/web", "b/db", "TCP 80")
    );
    assert!(cluster("10.0.0.0/8").allows("a/web", "Deployment:b/api", "TCP 80"));
    assert!(!cluster("0.0.0.0/0").allows("a/web", "Deployment:b/api", "TCP 80"));
    // A pod's connection with itself is nobody's business.
    assert!(cluster("0.0.0.0/0").allows("a/web", "a/web", "TCP 80"));
}

#[test]
fn pods_on_the_host_network_are_neither_subject_nor_peer_but_nodes() {
    let host = |place: &str| {
        let host = json!({"spec": {"hostNetwork": true, "nodeName": "n1"}});
        patched(pod(place, "app=web", ["192.168.0.1"]), host)
    };
    let to = |peer: Value| wide("p", "Admin", 1, json!([{"action": "Deny", "to": [peer]}]));
    let with = |peer: Value, node: Option<Value>| {
        cluster([host("b/host"), to(peer)].into_iter().chain(node))
    };
    assert!(with(json!({"namespaces": {}}), None).allows("a/web", "b/host", "TCP 80"));
    assert!(with(json!({"namespaces": {}}), None).allows("b/host", "a/web", "TCP 80"));
    assert!(!with(json!({"nodes": {}}), None).allows("a/web", "b/host", "TCP 80"));
    assert!(!with(json!({"nodes": {}}), None).allows("a/web", "node:n1", "TCP 80"));
    let labelled = json!({"nodes": {"matchLabels": {"role": "infra"}}});
    // Nothing is known of the node: it may be one of those.
    let verdict = with(labelled.clone(), None).verdict("a/web", "b/host", "TCP 80");
    assert!(
        !verdict.allowed()
            && verdict
                .to_string()
                .contains("the labels of the node are not known")
    );
    let node = |role: &str| {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": {"role": role}},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.9"}, {"type": "Hostname", "address": "n1"}]}})
    };
    assert!(with(labelled.clone(), Some(node("web"))).allows("a/web", "b/host", "TCP 80"));
    assert!(!with(labelled.clone(), Some(node("infra"))).allows("a/web", "b/host", "TCP 80"));
    assert!(!with(labelled.clone(), Some(node("infra"))).allows("a/web", "192.168.0.9", "TCP 80"));
    assert!(with(labelled, Some(node("infra"))).allows("a/web", "192.168.0.8", "TCP 80"));
}

#[test]
fn the_own_node_is_no_exception_to_cluster_network_policies() {
    let on_node = json!({"spec": {"nodeName": "n1"}});
    let web = patched(pod("a/web", "app=web", ["10.0.0.1"]), on_node);
    let deny = wide(
        "p",
        "Admin",
        1,
        json!([{"action": "Deny", "to": [{"nodes": {}}]}]),
    );
    let isolated = policy(
        "a/deny",
        json!({"podSelector": {}, "policyTypes": ["Egress", "Ingress"]}),
    );
    let cluster = cluster([web, isolated]);
    assert!(cluster.allows("a/web", "node:n1", "TCP 80"));
    assert!(cluster.allows("node:n1", "a/web", "TCP 80"));
    let cluster = cluster.with(&deny);
    assert!(!cluster.allows("a/web", "node:n1", "TCP 80"));
    // No ingress peer can mean a node, so that probes always pass.
    assert!(cluster.allows("node:n1", "a/web", "TCP 80"));
}

#[test]
fn domain_names_are_never_counted_as_open() {
    let rules = json!([
        {"action": "Accept", "to": [{"domainNames": ["example.com"]}], "protocols": [{"tcp": {"destinationPort": {"number": 443}}}]},
        {"action": "Deny", "to": [{"networks": ["0.0.0.0/0"]}]},
    ]);
    let cluster = cluster([wide("p", "Admin", 1, rules)]);
    let verdict = cluster.verdict("a/web", "192.0.2.1", "TCP 443");
    assert!(!verdict.allowed());
    assert_eq!(verdict.not_counted.len(), 1);
    assert!(
        verdict
            .to_string()
            .contains("not counted: ClusterNetworkPolicy p spec.egress[0].to[0]")
    );
    let verdict = cluster.verdict("a/web", "192.0.2.1", "TCP 80");
    assert_eq!(verdict.not_counted.len(), 0);
    // They are for Accept rules only.
    let deny = json!([{"action": "Deny", "to": [{"domainNames": ["example.com"]}]}]);
    let cluster = Cluster::of([pod("a/web", "", ["10.0.0.1"]), wide("p", "Admin", 1, deny)]);
    assert!(!cluster.allows("a/web", "192.0.2.1", "TCP 80"));
}

#[test]
fn a_snapshot_replaces_and_forgets_policies_and_nodes() {
    let with = |tier: &str, priority| object(&wide("p", tier, priority, json!([pods("Deny")])));
    let snapshot = cluster([])
        .0
        .with(with("Admin", 5))
        .with(with("Baseline", 7));
    assert_eq!(snapshot.cluster_policies().count(), 1);
    assert_eq!(snapshot.cluster_policies_of(Tier::Admin).count(), 0);
    let own = ClusterPolicyRef::new(ClusterPolicyKind::ClusterNetworkPolicy, "p");
    let found = snapshot.cluster_policy(&own).expect("the policy");
    assert_eq!(found.priority.get(), 7);
    let without = snapshot.without(&ObjectKey::ClusterNetworkPolicy(own));
    assert_eq!(without, cluster([]).0);

    let node = |address: &str| {
        object(
            &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
            "status": {"addresses": [{"type": "ExternalIP", "address": address}]}}),
        )
    };
    let snapshot = cluster([])
        .0
        .with(node("192.0.2.1"))
        .with(node("192.0.2.2"));
    let count = |address: [u8; 4]| snapshot.nodes_at(address.into()).count();
    assert_eq!((count([192, 0, 2, 1]), count([192, 0, 2, 2])), (0, 1));
    assert_eq!(
        snapshot.without(&ObjectKey::Node("n1".into())),
        cluster([]).0
    );
}
