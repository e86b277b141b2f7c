//! The pieces that templates are built of: policies, rules and peers as JSON values.

use serde_json::{Value, json};

use super::TemplateError;
use super::parameter::Values;
use crate::guard::baseline::Allow;
use crate::guard::guardrail::{BaselineSection, DnsAllow, GROUP};
use crate::netpol::labels::NAMESPACE_NAME_LABEL;
use crate::netpol::selector::{Requirement, Selector};
use crate::netpol::{Direction, NamespaceName, Port, Protocol};

/// From some pods to others: both ends, since a connection needs both.
pub(super) fn way(values: &Values<'_>) -> Result<Vec<Value>, TemplateError> {
    let name = values.text("name").unwrap_or_default();
    let (from, to) = (values.selector("from"), values.selector("to"));
    for (end, selector) in [("from", &from), ("to", &to)] {
        if selector.is_everything() {
            let problem = format!("parameter `{end}`: must have a label at least, such as app=web");
            return Err(values.template().refuse(vec![problem]));
        }
    }
    let ports = values.ports("ports");
    let there = peer(&in_namespace(values, "to-namespace"), &to);
    let here = peer(&in_namespace(values, "from-namespace"), &from);
    Ok(vec![
        policy(
            values,
            values.namespace("from-namespace"),
            &format!("{name}-egress"),
            &from,
            &[(Direction::Egress, rule(Direction::Egress, &[there], ports))],
        ),
        policy(
            values,
            values.namespace("to-namespace"),
            &format!("{name}-ingress"),
            &to,
            &[(Direction::Ingress, rule(Direction::Ingress, &[here], ports))],
        ),
    ])
}

pub(super) fn default_deny(values: &Values<'_>, namespace: &str) -> Value {
    let mut policy = policy(
        values,
        namespace,
        "default-deny",
        &Selector::everything(),
        &[],
    );
    if let Some(types) = policy.pointer_mut("/spec/policyTypes") {
        *types = json!(["Ingress", "Egress"]);
    }
    policy
}

/// The same rule as the baseline of a Guardrail has.
pub(super) fn dns(values: &Values<'_>, namespace: &str) -> Value {
    let ports = values.port_numbers("dns-ports").to_vec();
    let usual = DnsAllow::default();
    let section = BaselineSection {
        dns: Some(DnsAllow {
            enabled: true,
            namespace_selector: in_namespace(values, "dns-namespace").to_label_selector(),
            pod_selector: values.selector("dns-pods").to_label_selector(),
            ports: if ports.is_empty() { usual.ports } else { ports },
            node_local: values.addresses("node-local").to_vec(),
        }),
        ..BaselineSection::default()
    };
    let rule = Allow::Dns.rule(&section).unwrap_or_default();
    let pods = values.selector("pods");
    // The pods of an allowlist are those that are called; every pod of the namespace resolves names.
    let pods = if values.template().name == "allow-dns" {
        pods
    } else {
        Selector::everything()
    };
    policy(
        values,
        namespace,
        "allow-dns",
        &pods,
        &[(Direction::Egress, rule)],
    )
}

/// All pods of a namespace with all pods of some namespaces, both ways, at every port.
pub(super) fn among(values: &Values<'_>, namespace: &str, name: &str, others: &Selector) -> Value {
    let peers = [peer(others, &Selector::everything())];
    let rules = [Direction::Ingress, Direction::Egress]
        .map(|direction| (direction, rule(direction, &peers, &[])));
    policy(values, namespace, name, &Selector::everything(), &rules)
}

pub(super) fn in_namespace(values: &Values<'_>, parameter: &str) -> Selector {
    in_namespaces(values.namespaces(parameter))
}

pub(super) fn in_namespaces(names: &[NamespaceName]) -> Selector {
    let names = names.iter().map(NamespaceName::as_str);
    Selector::new([Requirement::is_in(NAMESPACE_NAME_LABEL, names)])
}

pub(super) fn peer(namespaces: &Selector, pods: &Selector) -> Value {
    let mut peer = json!({"namespaceSelector": namespaces.to_label_selector()});
    if let (false, Some(peer)) = (pods.is_everything(), peer.as_object_mut()) {
        peer.insert("podSelector".to_owned(), json!(pods.to_label_selector()));
    }
    peer
}

/// A rule of a NetworkPolicy; without ports it is for all of them.
pub(super) fn rule(direction: Direction, peers: &[Value], ports: &[(Protocol, Port)]) -> Value {
    let side = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    let mut rule = json!({side: peers});
    if let (false, Some(rule)) = (ports.is_empty(), rule.as_object_mut()) {
        let ports: Vec<Value> = ports
            .iter()
            .map(|(protocol, port)| json!({"protocol": protocol, "port": port}))
            .collect();
        rule.insert("ports".to_owned(), json!(ports));
    }
    rule
}

/// A policy that isolates in the directions that it has a rule for, and says of itself what it was told to say.
pub(super) fn policy(
    values: &Values<'_>,
    namespace: &str,
    name: &str,
    pods: &Selector,
    rules: &[(Direction, Value)],
) -> Value {
    let purpose = values.text("purpose").unwrap_or(values.template().purpose);
    let mut annotations = json!({
        format!("{GROUP}/owner"): values.text("owner"),
        format!("{GROUP}/purpose"): purpose,
    });
    if let (Some(day), Some(annotations)) = (values.text("review-by"), annotations.as_object_mut())
    {
        annotations.insert(format!("{GROUP}/review-by"), json!(day));
    }
    let types: Vec<&str> = rules
        .iter()
        .map(|(direction, _)| direction.policy_type())
        .collect();
    let mut spec = json!({"podSelector": pods.to_label_selector(), "policyTypes": types});
    if let Some(spec) = spec.as_object_mut() {
        for (direction, rule) in rules {
            spec.insert(direction.field().to_owned(), json!([rule]));
        }
    }
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations},
        "spec": spec,
    })
}
