//! Changes of nodes, which rules for `nodes` mean by their labels and addresses.

use super::*;
use crate::guard::decide::Skip;
use crate::guard::review::Operation;

/// The shop, whose pods may open what they want but for nodes of the control plane, and must not reach what is not to be
/// reached there.
fn guarded(expect: &str, node: &Value) -> Cluster {
    let masters = json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "masters"},
        "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "egress": [
            {"action": "Deny", "to": [{"nodes": {"matchLabels": {"role": "master"}}}]}
        ]}
    });
    let to_nodes = rule(&json!({
        "from": [{"namespaces": ["shop"], "podSelector": {"matchLabels": {"app": "web"}}}],
        "to": [{"cidrs": ["10.9.0.0/24"]}], "ports": [{"port": 22}], "expect": expect, "mode": "Enforce"
    }));
    of(
        &[
            namespace("shop"),
            masters,
            node.clone(),
            deployment("web", &json!({"app": "web"})),
        ],
        &[to_nodes],
    )
}

fn node(role: &str, address: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": {"role": role}},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]}
    })
}

#[test]
fn labels_that_close_what_a_rule_demands_are_refused() {
    let (old, new) = (node("worker", "10.9.0.1"), node("master", "10.9.0.1"));
    let decision = guarded("Allow", &old).update(&old, &new);
    assert!(!decision.allowed());
    assert_eq!(
        messages(&decision),
        [
            "closes Deployment shop/web → outside address 10.9.0.1 TCP 22, which ReachabilityRule not-db demands; egress of \
             Deployment shop/web is denied by ClusterNetworkPolicy masters spec.egress[0].to[0]"
        ]
    );
    let finding = &decision.judged[0].finding;
    assert_eq!(finding.id.as_str(), "RF702");
    assert_eq!(finding.field.to_string(), "metadata.labels");
    assert!(guarded("Deny", &old).update(&old, &new).allowed());
}

#[test]
fn an_address_that_is_left_is_open_again() {
    let (old, new) = (node("master", "10.9.0.1"), node("master", "10.9.1.1"));
    let decision = guarded("Deny", &old).update(&old, &new);
    assert_eq!(ids(&decision), ["RF701"]);
    let finding = &decision.judged[0].finding;
    assert!(
        finding
            .message
            .contains("→ outside address 10.9.0.1 TCP 22"),
        "{}",
        finding.message
    );
    assert_eq!(finding.field.to_string(), "status.addresses");
    let decision = guarded("Deny", &old).update(&old, &node("worker", "10.9.1.1"));
    assert_eq!(ids(&decision), ["RF701"]);
}

#[test]
fn a_new_node_is_held_to_the_rules_and_one_that_leaves_is_not() {
    let other = node("worker", "10.9.7.7");
    let cluster = guarded("Allow", &other);
    let mut new = node("master", "10.9.0.1");
    new["metadata"]["name"] = json!("n2");
    assert_eq!(ids(&cluster.create(&new)), ["RF702"]);
    let master = node("master", "10.9.0.1");
    assert!(guarded("Deny", &master).delete(&master).allowed());
}

#[test]
fn what_a_node_says_of_itself_is_recorded_and_never_refused() {
    let (old, new) = (node("worker", "10.9.0.1"), node("master", "10.9.0.1"));
    let cluster = guarded("Allow", &old);
    let mut review = update(&old, &new);
    review.user.groups = vec!["system:nodes".to_owned()];
    let decision = cluster.judge(&review);
    assert_eq!(ids(&decision), ["RF702"]);
    assert_eq!(decision.in_force(Mode::Audit).count(), 1);
    assert!(decision.allowed());

    let mut moved = update(&node("master", "10.9.1.1"), &node("master", "10.9.0.1"));
    moved.subresource = Some("status".to_owned());
    let decision = guarded("Allow", &node("master", "10.9.1.1")).judge(&moved);
    assert_eq!(ids(&decision), ["RF702"]);
    assert!(decision.allowed());

    let mut beat = old.clone();
    beat["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
    let mut review = update(&old, &beat);
    review.subresource = Some("status".to_owned());
    review.user.groups = vec!["system:nodes".to_owned()];
    assert_eq!(cluster.judge(&review).skipped, Some(Skip::Insignificant));
    assert_eq!(review.operation, Operation::Update);
}
