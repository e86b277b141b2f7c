//! The baseline policies that a namespace is to have as a whole: default-deny with the allows of all its guardrails.
//!
//! It is one policy where it can be, so that no moment has the deny without the allows and a namespace costs one write.
//! Where pods may be under quarantine, the deny is for all and the allows are for the rest.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{MANAGED_BY, dns_rule, monitoring_rule};
use crate::guard::guardrail::{Guardrail, IngressControllerAllow};
use crate::guard::quarantine::Quarantine;
use crate::guard::review::Subject;
use crate::netpol::{Direction, NamespaceName, NetworkPolicy, Object, Selector};

/// The name of the baseline policy of a namespace; those beside it have a dot and a number after it, which no policy of
/// [`super::beside`] has.
pub const NAME: &str = "ringfence-baseline";
/// The label that tells the baseline policy of a namespace from other policies that Ringfence made.
pub const PART_OF: &str = "ringfence.dev/part-of";

/// A policy that a namespace is to have.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// As it is applied.
    pub manifest: Value,
    /// The same as the model has it.
    pub policy: NetworkPolicy,
}

/// The policies that these guardrails want in a namespace, whatever their mode; none where no default-deny is asked for,
/// as an allow alone would isolate as well.
pub fn wanted(namespace: &NamespaceName, guardrails: &[&Guardrail]) -> Vec<Wanted> {
    let sections = || {
        let sections = guardrails.iter();
        sections.filter_map(|guardrail| guardrail.spec.baseline.as_ref())
    };
    let directions: BTreeSet<Direction> = sections()
        .flat_map(|section| section.default_deny.iter().copied())
        .collect();
    if directions.is_empty() {
        return Vec::new();
    }
    let mut ingress: Vec<Value> = Vec::new();
    let mut egress: Vec<Value> = Vec::new();
    for section in sections() {
        let rules = [
            section.monitoring.as_ref().map(monitoring_rule),
            section.ingress_controller.as_ref().map(ingress_rule),
        ];
        for rule in rules.into_iter().flatten() {
            if !ingress.contains(&rule) {
                ingress.push(rule);
            }
        }
        let rule = section.dns.as_ref().map(dns_rule);
        egress.extend(rule.filter(|rule| !egress.contains(rule)));
    }
    if !directions.contains(&Direction::Ingress) {
        ingress.clear();
    }
    if !directions.contains(&Direction::Egress) {
        egress.clear();
    }
    let quarantine = Quarantine::of(guardrails.iter().copied());
    let all = Selector::everything();
    let mut policies = Vec::new();
    if quarantine.may_hold(&all) {
        let both: Vec<Direction> = directions.iter().copied().collect();
        policies.push(policy(namespace, NAME, &all, &both, &[], &[]));
        let mut opened = Vec::new();
        if !ingress.is_empty() {
            opened.push(Direction::Ingress);
        }
        if !egress.is_empty() {
            opened.push(Direction::Egress);
        }
        if !opened.is_empty() {
            for (selector, number) in quarantine.outside(&all).iter().zip(1_u32..) {
                let name = format!("{NAME}.{number}");
                policies.push(policy(
                    namespace, &name, selector, &opened, &ingress, &egress,
                ));
            }
        }
    } else {
        let both: Vec<Direction> = directions.iter().copied().collect();
        policies.push(policy(namespace, NAME, &all, &both, &ingress, &egress));
    }
    // What is made here parses; a policy that did not would be none to apply.
    policies
        .into_iter()
        .filter_map(|manifest| {
            let subject = Subject::new(manifest);
            match subject.model() {
                Some(Object::NetworkPolicy(policy)) => Some(Wanted {
                    policy: policy.clone(),
                    manifest: subject.value,
                }),
                _ => None,
            }
        })
        .collect()
}

fn policy(
    namespace: &NamespaceName,
    name: &str,
    selector: &Selector,
    directions: &[Direction],
    ingress: &[Value],
    egress: &[Value],
) -> Value {
    let types: Vec<&str> = directions.iter().map(|way| way.policy_type()).collect();
    let mut spec = json!({"podSelector": selector.to_label_selector(), "policyTypes": types});
    if let Some(spec) = spec.as_object_mut() {
        for (rules, way) in [(ingress, Direction::Ingress), (egress, Direction::Egress)] {
            // An empty list is written as well: a field that is left out belongs to whoever adds rules to it.
            let rules = if directions.contains(&way) {
                rules
            } else {
                &[]
            };
            spec.insert(way.field().to_owned(), Value::from(rules.to_vec()));
        }
    }
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": name,
            "namespace": namespace.as_str(),
            "labels": {MANAGED_BY: "ringfence", PART_OF: "baseline"},
            "annotations": {
                "ringfence.dev/owner": "ringfence",
                "ringfence.dev/purpose": "baseline of the namespace, kept by its guardrails"
            }
        },
        "spec": spec
    })
}

fn ingress_rule(ingress: &IngressControllerAllow) -> Value {
    let mut peer = json!({"namespaceSelector": ingress.namespace_selector});
    if let (Some(pods), Some(peer)) = (&ingress.pod_selector, peer.as_object_mut()) {
        peer.insert("podSelector".to_owned(), json!(pods));
    }
    let mut rule = json!({"from": [peer]});
    if let (false, Some(rule)) = (ingress.ports.is_empty(), rule.as_object_mut()) {
        let ports = ingress.ports.iter();
        let ports = ports.map(|port| json!({"protocol": "TCP", "port": port}));
        rule.insert("ports".to_owned(), ports.collect());
    }
    rule
}
