//! The kinds that ClusterNetworkPolicy has replaced.

use serde_json::{Value, json};

use crate::netpol::testing::{all_refused, namespace, object, patched, pod};
use crate::netpol::{
    Action, ClusterNetworkPolicy, ClusterPeer, ClusterPolicyKind, ClusterPort, ClusterPorts,
    Direction, Object, ObjectKey, Snapshot, Tier, parse,
};

const API: &str = "policy.networking.k8s.io/v1alpha1";

fn admin(name: &str, spec: Value) -> Value {
    let whole = json!({"priority": 1, "subject": {"namespaces": {}}});
    json!({
        "apiVersion": API, "kind": "AdminNetworkPolicy", "metadata": {"name": name},
        "spec": patched(whole, spec),
    })
}

fn baseline(spec: Value) -> Value {
    let whole = json!({"subject": {"namespaces": {}}});
    json!({
        "apiVersion": API, "kind": "BaselineAdminNetworkPolicy", "metadata": {"name": "default"},
        "spec": patched(whole, spec),
    })
}

fn read(value: &Value) -> ClusterNetworkPolicy {
    let parsed = parse(value).expect("valid").expect("of the model");
    assert_eq!(parsed.unknown_fields, []);
    let Object::ClusterNetworkPolicy(read) = parsed.object else {
        panic!("another kind");
    };
    read
}

#[test]
fn every_field_of_an_admin_policy_is_read() {
    let mut value = admin(
        "all",
        json!({
            "priority": 1000,
            "subject": {"pods": {"namespaceSelector": {"matchLabels": {"env": "prod"}}, "podSelector": {}}, "namespaces": null},
            "ingress": [{"name": "one", "action": "Allow", "from": [{"namespaces": {}}], "ports": [
                {"namedPort": "web"}, {"portNumber": {"port": 80}}, {"portNumber": {"protocol": "UDP", "port": 53}},
                {"portRange": {"protocol": "SCTP", "start": 1, "end": 2}}, {"portRange": {"start": 5, "end": 5}},
            ]}],
            "egress": [
                {"action": "Pass", "to": [{"networks": ["10.1.2.3/8"]}, {"nodes": {}}, {"pods": {"namespaceSelector": {}, "podSelector": {}}}]},
                {"action": "Allow", "to": [{"domainNames": ["*.example.com"]}]},
                {"action": "Deny", "to": [{"namespaces": {}}]},
            ],
        }),
    );
    value["metadata"]["annotations"] = json!({"owner": "sec"});
    value["status"] = json!({"conditions": []});
    let read = read(&value);
    assert_eq!(read.reference.to_string(), "AdminNetworkPolicy all");
    assert_eq!((read.tier, read.priority.get()), (Tier::Admin, 1000));
    assert_eq!(read.place().to_string(), "Admin tier, priority 1000");
    assert_eq!(read.subject.namespaces.to_string(), "env=prod");
    let rule = &read.rules(Direction::Ingress)[0];
    assert_eq!(
        (rule.name.as_deref(), rule.action),
        (Some("one"), Action::Accept)
    );
    let ClusterPorts::Only(ports) = &rule.ports else {
        panic!("all ports");
    };
    let ports: Vec<String> = ports
        .iter()
        .map(|port| match port {
            ClusterPort::Numbered(port) => port.to_string(),
            ClusterPort::Named(name) => format!("named {name}"),
        })
        .collect();
    let expected = ["named web", "TCP 80", "UDP 53", "SCTP 1-2", "TCP 5-5"];
    assert_eq!(ports, expected);
    let egress = read.rules(Direction::Egress);
    let actions: Vec<Action> = egress.iter().map(|rule| rule.action).collect();
    assert_eq!(actions, [Action::Pass, Action::Accept, Action::Deny]);
    assert_eq!(egress[0].ports, ClusterPorts::Any);
    assert!(matches!(egress[0].peers[0], ClusterPeer::Networks(_)));
    assert!(matches!(egress[0].peers[1], ClusterPeer::Nodes(_)));
    assert!(matches!(egress[1].peers[0], ClusterPeer::DomainNames(_)));
}

#[test]
fn a_baseline_policy_is_of_the_baseline_tier_and_has_no_priority() {
    let read = read(&baseline(json!({
        "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}],
        "egress": [{"action": "Allow", "to": [{"networks": ["0.0.0.0/0"]}]}],
    })));
    assert_eq!(
        read.reference.to_string(),
        "BaselineAdminNetworkPolicy default"
    );
    assert_eq!(read.place().to_string(), "Baseline tier");
    assert_eq!(read.place().priority(), None);
    // It is asked last.
    assert_eq!((read.tier, read.priority.get()), (Tier::Baseline, 1000));
    let with = baseline(json!({"priority": 1}));
    let unknown = parse(&with).expect("valid").expect("of the model");
    let unknown: Vec<String> = unknown
        .unknown_fields
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(unknown, ["spec.priority"]);
}

#[test]
#[allow(clippy::too_many_lines)] // a table
fn what_the_api_server_refuses_is_refused_with_its_field() {
    let rule = |rule: Value| admin("p", json!({"egress": [rule]}));
    let peer = |peer: Value| rule(json!({"action": "Allow", "to": [peer]}));
    let port =
        |port: Value| rule(json!({"action": "Allow", "to": [{"namespaces": {}}], "ports": [port]}));
    let of_baseline = |rule: Value| baseline(json!({"egress": [rule]}));
    let many = |one: Value, count: usize| Value::from(vec![one; count]);
    let deny = json!({"action": "Deny", "to": [{"namespaces": {}}]});
    let mut other = baseline(json!({}));
    other["metadata"]["name"] = json!("other");
    let mut later = admin("p", json!({}));
    later["apiVersion"] = json!("policy.networking.k8s.io/v1alpha2");
    let mut missing = admin("p", json!({}));
    missing["spec"] = Value::Null;
    let cases = [
        (
            later,
            "apiVersion: \"policy.networking.k8s.io/v1alpha2\" is not read: an AdminNetworkPolicy must be of",
        ),
        (missing, "spec: is missing"),
        (
            other,
            "metadata.name: \"other\": must be default, so that there is one",
        ),
        (
            admin("p", json!({"priority": null})),
            "spec.priority: is missing",
        ),
        (
            admin("p", json!({"priority": 1001})),
            "spec.priority: 1001: must be between 0 and 1000",
        ),
        (
            admin("p", json!({"subject": null})),
            "spec.subject: is missing",
        ),
        (
            baseline(json!({"subject": {"namespaces": null}})),
            "spec.subject: must have namespaces or pods",
        ),
        (
            admin("p", json!({"egress": many(deny.clone(), 101)})),
            "spec.egress: has 101 items, and may have 100 at most",
        ),
        (
            rule(json!({"action": "Accept", "to": [{"namespaces": {}}]})),
            "spec.egress[0].action: \"Accept\" is not Allow, Deny or Pass",
        ),
        (
            of_baseline(json!({"action": "Pass", "to": [{"namespaces": {}}]})),
            "spec.egress[0].action: \"Pass\" is not Allow or Deny",
        ),
        (
            of_baseline(json!({"action": "Allow", "to": [{"domainNames": ["a.b"]}]})),
            "spec.egress[0].to[0].domainNames: is no peer of a BaselineAdminNetworkPolicy",
        ),
        (
            rule(json!({"action": "Deny"})),
            "spec.egress[0].to: is missing",
        ),
        (
            rule(json!({"action": "Deny", "to": many(json!({"namespaces": {}}), 101)})),
            "spec.egress[0].to: has 101 items",
        ),
        (
            peer(json!({"networks": vec!["10.0.0.0/8"; 1], "nodes": {}})),
            "spec.egress[0].to[0]: must have only one of",
        ),
        (
            peer(json!({"pods": {"podSelector": {}}})),
            "spec.egress[0].to[0].pods.namespaceSelector: is missing",
        ),
        (
            rule(json!({"action": "Deny", "to": [{"namespaces": {}}], "ports": []})),
            "spec.egress[0].ports: must have at least one item",
        ),
        (
            port(json!({})),
            "spec.egress[0].ports[0]: must have portNumber, namedPort or portRange",
        ),
        (
            port(json!({"portNumber": {"port": 1}, "namedPort": "web"})),
            "spec.egress[0].ports[0]: must have only one of portNumber, namedPort or portRange",
        ),
        (
            port(json!({"portNumber": {"protocol": "TCP"}})),
            "spec.egress[0].ports[0].portNumber.port: is missing",
        ),
        (
            port(json!({"portNumber": {"port": 0}})),
            "spec.egress[0].ports[0].portNumber.port: 0: must be a port number",
        ),
        (
            port(json!({"portNumber": {"protocol": "tcp", "port": 1}})),
            "spec.egress[0].ports[0].portNumber.protocol: \"tcp\" is not TCP, UDP or SCTP",
        ),
        (
            port(json!({"portRange": {"start": 1}})),
            "spec.egress[0].ports[0].portRange.end: is missing",
        ),
        (
            port(json!({"portRange": {"start": 2, "end": 1}})),
            "spec.egress[0].ports[0].portRange.end: must be greater than or equal to the start 2",
        ),
        (
            rule(
                json!({"action": "Allow", "to": [{"networks": ["10.0.0.0/8"]}], "ports": [{"namedPort": "web"}]}),
            ),
            "spec.egress[0].ports[0].namedPort: may not stand in a rule with networks",
        ),
    ];
    all_refused(&cases);
    let most = admin("p", json!({"egress": many(deny, 100)}));
    assert_eq!(read(&most).egress.len(), 100);
}

#[test]
fn policies_of_one_name_and_several_kinds_stand_beside_each_other() {
    let deny = json!([{"action": "Deny", "from": [{"namespaces": {}}]}]);
    let values = [
        admin("default", json!({"ingress": deny.clone()})),
        baseline(json!({"ingress": deny.clone()})),
        json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "default"},
            "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "ingress": deny},
        }),
        namespace("a", json!({})),
        pod("a/web", "app=web", ["10.0.0.1"]),
    ];
    let snapshot: Snapshot = values.iter().map(object).collect();
    let kinds = |snapshot: &Snapshot| -> Vec<ClusterPolicyKind> {
        let policies = snapshot.cluster_policies();
        policies.map(|policy| policy.reference.kind).collect()
    };
    assert_eq!(kinds(&snapshot), ClusterPolicyKind::ALL);
    let ObjectKey::ClusterNetworkPolicy(own) = object(&values[0]).key() else {
        panic!("another kind");
    };
    assert_eq!(own.kind, ClusterPolicyKind::AdminNetworkPolicy);
    let left = snapshot.without(&ObjectKey::ClusterNetworkPolicy(own));
    assert_eq!(
        kinds(&left),
        [
            ClusterPolicyKind::ClusterNetworkPolicy,
            ClusterPolicyKind::BaselineAdminNetworkPolicy
        ]
    );
}

#[test]
fn namespaces_in_the_words_of_the_first_releases_are_not_all_namespaces() {
    for peer in [
        json!({"namespaces": {"namespaceSelector": {"matchLabels": {"team": "a"}}}}),
        json!({"namespaces": {"sameLabels": ["team"]}}),
        json!({"pods": {"namespaces": {"notSameLabels": ["team"]}, "podSelector": {}}}),
    ] {
        let value = admin(
            "old",
            json!({"ingress": [{"action": "Allow", "from": [peer]}]}),
        );
        let parsed = parse(&value).expect("valid").expect("of the model");
        let Object::ClusterNetworkPolicy(read) = parsed.object else {
            panic!("another kind");
        };
        let rule = &read.rules(Direction::Ingress)[0];
        assert!(
            matches!(rule.peers[0], ClusterPeer::Unknown(_)),
            "{peer}: {rule:?}"
        );
    }
}
