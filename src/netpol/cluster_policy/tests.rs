//! Reading a ClusterNetworkPolicy; what its rules say of flows is tested beside the verdict.

// The arguments are JSON literals, which nobody wants to see borrowed.
#![allow(clippy::needless_pass_by_value)]

mod v1alpha1;

use serde_json::{Value, json};

use crate::netpol::testing::{all_refused, patched, problems, wide};
use crate::netpol::{
    ClusterPeer, ClusterPort, ClusterPorts, Direction, Object, PodScope, Tier, parse,
};

fn with_spec(patch: Value) -> Value {
    let rule = json!([{"action": "Deny", "to": [{"networks": ["10.0.0.0/8"]}]}]);
    patched(wide("p", "Admin", 1, rule), json!({"spec": patch}))
}

/// A rule for everyone in the cluster.
fn pods(action: &str) -> Value {
    json!({"action": action, "to": [{"namespaces": {}}]})
}

#[test]
fn every_field_is_read() {
    let value = json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "all", "labels": {"team": "sec"}, "annotations": {"owner": "sec"}},
        "spec": {
            "tier": "Baseline",
            "priority": 1000,
            "subject": {"pods": {"namespaceSelector": {"matchLabels": {"env": "prod"}}, "podSelector": {}}},
            "ingress": [{"name": "one", "action": "Accept", "from": [{"namespaces": {}}],
                "protocols": [{"destinationNamedPort": "web"}, {"tcp": {"destinationPort": {"number": 80}}}]}],
            "egress": [{"action": "Pass", "to": [
                {"networks": ["10.1.2.3/8", "fd00::/8"]}, {"nodes": {}}, {"pods": {"namespaceSelector": {}, "podSelector": {}}}],
                "protocols": [{"udp": {"destinationPort": {"range": {"start": 1, "end": 2}}}}]},
                {"action": "Accept", "to": [{"domainNames": ["*.example.com", "a.b."]}]}],
        },
        "status": {"conditions": [{"type": "Ready"}]},
    });
    let parsed = parse(&value).expect("valid").expect("of the model");
    assert_eq!(parsed.unknown_fields, []);
    let Object::ClusterNetworkPolicy(read) = parsed.object else {
        panic!("another kind");
    };
    assert_eq!((read.tier, read.priority.get()), (Tier::Baseline, 1000));
    assert_eq!(read.subject.namespaces.to_string(), "env=prod");
    let rule = &read.rules(Direction::Ingress)[0];
    assert_eq!(rule.name.as_deref(), Some("one"));
    let ClusterPorts::Only(ports) = &rule.ports else {
        panic!("all ports");
    };
    assert_eq!(ports[0], ClusterPort::Named("web".into()));
    let peers = &read.rules(Direction::Egress)[0].peers;
    let ClusterPeer::Networks(blocks) = &peers[0] else {
        panic!("another peer");
    };
    let blocks: Vec<String> = blocks.iter().map(ToString::to_string).collect();
    assert_eq!(blocks, ["10.0.0.0/8", "fd00::/8"]);
    assert!(matches!(&peers[2], ClusterPeer::Pods(scope) if PodScope::is_everything(scope)));
}

#[test]
#[allow(clippy::too_many_lines)] // a table
fn what_the_api_server_refuses_is_refused_with_its_field() {
    let rule = |rule: Value| with_spec(json!({"egress": [rule]}));
    let peer = |peer: Value| rule(json!({"action": "Accept", "to": [peer]}));
    let port = |port: Value| {
        let to = json!([{"namespaces": {}}]);
        rule(json!({"action": "Accept", "to": to, "protocols": [port]}))
    };
    let long = "x".repeat(101);
    let many = |one: Value| Value::from(vec![one; 26]);
    let cases = [
        (
            with_spec(json!({"tier": "Middle"})),
            "spec.tier: \"Middle\" is not Admin or Baseline",
        ),
        (with_spec(json!({"tier": null})), "spec.tier: is missing"),
        (
            with_spec(json!({"priority": 1001})),
            "spec.priority: 1001: must be between 0 and 1000",
        ),
        (
            with_spec(json!({"priority": -1})),
            "spec.priority: -1: must be between 0 and 1000",
        ),
        (
            with_spec(json!({"priority": "1"})),
            "spec.priority: must be an integer, not the string \"1\"",
        ),
        (
            with_spec(json!({"priority": null})),
            "spec.priority: is missing",
        ),
        (
            with_spec(json!({"subject": null})),
            "spec.subject: is missing",
        ),
        (
            with_spec(json!({"subject": {"namespaces": null}})),
            "spec.subject: must have namespaces or pods",
        ),
        (
            with_spec(json!({"subject": {"pods": {"namespaceSelector": {}, "podSelector": {}}}})),
            "spec.subject: must have only one of namespaces or pods",
        ),
        (
            with_spec(json!({"subject": {"namespaces": null, "pods": {"podSelector": {}}}})),
            "spec.subject.pods.namespaceSelector: is missing",
        ),
        (
            with_spec(json!({"egress": many(pods("Deny"))})),
            "spec.egress: has 26 items, and may have 25 at most",
        ),
        (
            rule(json!({"to": [{"namespaces": {}}]})),
            "spec.egress[0].action: is missing",
        ),
        (
            rule(json!({"action": "Allow", "to": [{"namespaces": {}}]})),
            "spec.egress[0].action: \"Allow\" is not Accept, Deny or Pass",
        ),
        (
            rule(json!({"name": long, "action": "Deny", "to": [{"namespaces": {}}]})),
            "spec.egress[0].name: ",
        ),
        (
            rule(json!({"action": "Deny"})),
            "spec.egress[0].to: is missing",
        ),
        (
            rule(json!({"action": "Deny", "to": []})),
            "spec.egress[0].to: must have at least one item",
        ),
        (
            rule(json!({"action": "Deny", "to": many(json!({"namespaces": {}}))})),
            "spec.egress[0].to: has 26 items",
        ),
        (
            peer(json!({})),
            "spec.egress[0].to[0]: must have namespaces, pods, nodes, networks or domainNames",
        ),
        (
            peer(json!({"namespaces": {}, "nodes": {}})),
            "spec.egress[0].to[0]: must have only one of namespaces",
        ),
        (
            peer(json!({"networks": []})),
            "spec.egress[0].to[0].networks: must have at least one item",
        ),
        (
            peer(json!({"networks": ["10.0.0.0/8", "10.0.0.0/8"]})),
            "spec.egress[0].to[0].networks[1]: \"10.0.0.0/8\": is there twice",
        ),
        (
            peer(json!({"networks": ["10.0.0.08/8"]})),
            "spec.egress[0].to[0].networks[0]: ",
        ),
        (
            peer(json!({"networks": ["10.0.0.0/08"]})),
            "spec.egress[0].to[0].networks[0]: ",
        ),
        (
            peer(json!({"networks": ["10.0.0.0"]})),
            "spec.egress[0].to[0].networks[0]: ",
        ),
        (
            peer(json!({"networks": ["::ffff:10.0.0.0/104"]})),
            "spec.egress[0].to[0].networks[0]: ",
        ),
        (
            peer(json!({"domainNames": ["example"]})),
            "spec.egress[0].to[0].domainNames[0]: ",
        ),
        (
            peer(json!({"domainNames": ["a.*.com"]})),
            "spec.egress[0].to[0].domainNames[0]: ",
        ),
        (
            peer(json!({"domainNames": ["-a.com"]})),
            "spec.egress[0].to[0].domainNames[0]: ",
        ),
        (
            peer(json!({"namespaces": {"matchExpressions": [{"key": "a", "operator": "Near"}]}})),
            "spec.egress[0].to[0].namespaces.matchExpressions[0].operator: ",
        ),
        (
            rule(
                json!({"action": "Accept", "to": [{"networks": ["10.0.0.0/8"]}],
                "protocols": [{"destinationNamedPort": "web"}]}),
            ),
            "spec.egress[0].protocols[0].destinationNamedPort: may not stand in a rule with networks",
        ),
        (
            port(json!({})),
            "spec.egress[0].protocols[0]: must have tcp, udp, sctp or destinationNamedPort",
        ),
        (
            port(json!({"tcp": {}})),
            "spec.egress[0].protocols[0].tcp.destinationPort: is missing",
        ),
        (
            port(json!({"tcp": {"destinationPort": {}}})),
            "spec.egress[0].protocols[0].tcp.destinationPort: must have number or range",
        ),
        (
            port(json!({"tcp": {"destinationPort": {"number": 0}}})),
            "spec.egress[0].protocols[0].tcp.destinationPort.number: 0: must be a port number",
        ),
        (
            port(json!({"sctp": {"destinationPort": {"range": {"start": 80, "end": 80}}}})),
            "spec.egress[0].protocols[0].sctp.destinationPort.range.end: must be greater than the start 80",
        ),
        (
            port(
                json!({"tcp": {"destinationPort": {"number": 1}}, "udp": {"destinationPort": {"number": 1}}}),
            ),
            "spec.egress[0].protocols[0]: must have only one of tcp",
        ),
    ];
    all_refused(&cases);
    let other = patched(
        with_spec(json!({})),
        json!({"apiVersion": "policy.networking.k8s.io/v1alpha1"}),
    );
    assert!(problems(&other)[0].starts_with("apiVersion: "));
}
