//! One flow explained, in JSON: the stable form that others parse. Pure.

use serde_json::{Value, json};

use crate::netpol::reach::{Change, Explanation, Says, Step, StepPolicy};
use crate::netpol::{ClusterPolicyRef, ClusterRuleRef, EndVerdict, Endpoint, Flow, Place};

/// The whole document, with a line end.
///
/// # Errors
///
/// Where a value cannot be written; none of these can.
pub fn json(flow: &Flow<'_>, explanation: &Explanation) -> serde_json::Result<String> {
    let verdict = &explanation.verdict;
    let steps = explanation.egress.iter().chain(&explanation.ingress);
    let blocked_by = explanation.blocked_by().into_iter().map(rule);
    let not_counted = verdict.not_counted.iter().map(rule);
    let document = json!({
        "verdict": if verdict.allowed() { "allowed" } else { "denied" },
        "reason": verdict.to_string(),
        "flow": {
            "from": endpoint(flow.from),
            "to": endpoint(flow.to),
            "protocol": flow.protocol,
            "port": flow.port,
        },
        "ends": {"egress": end(&verdict.egress), "ingress": end(&verdict.ingress)},
        "steps": steps.map(step).collect::<Vec<_>>(),
        "notCounted": not_counted.collect::<Vec<_>>(),
        "blockedBy": blocked_by.collect::<Vec<_>>(),
        "proposal": explanation.changes.iter().map(change).collect::<Vec<_>>(),
    });
    let mut text = serde_json::to_string_pretty(&document)?;
    text.push('\n');
    Ok(text)
}

fn endpoint(end: Endpoint<'_>) -> Value {
    match end {
        Endpoint::Pod(pod) => json!({
            "kind": pod.workload.kind.as_str(),
            "namespace": pod.namespace(),
            "name": pod.name(),
        }),
        Endpoint::Node { name, .. } => json!({"kind": "Node", "name": name}),
        Endpoint::External(address) => json!({"address": address.to_string()}),
    }
}

fn end(verdict: &EndVerdict) -> Value {
    json!({"passes": verdict.passes(), "reason": verdict.to_string()})
}

fn step(step: &Step) -> Value {
    let policy = match &step.policy {
        StepPolicy::Network(policy) => {
            json!({"kind": "NetworkPolicy", "namespace": policy.namespace, "name": policy.name})
        }
        StepPolicy::Cluster { policy, place } => cluster_policy(policy, *place),
    };
    let says = match step.says {
        Says::Nothing => "nothing".to_owned(),
        Says::NotCounted => "not counted".to_owned(),
        Says::Allows => "allow".to_owned(),
        Says::Does(action, _) => action.as_str().to_lowercase(),
        Says::Outdone(_) => "outdone".to_owned(),
    };
    json!({
        "policy": policy,
        "direction": step.direction.field(),
        "rule": step.field(),
        "peer": step.peer,
        "port": step.port,
        "says": says,
    })
}

/// The `priority` is absent where the kind has none.
fn cluster_policy(policy: &ClusterPolicyRef, place: Place) -> Value {
    let (kind, name, tier) = (policy.kind, &policy.name, place.tier);
    match place.priority() {
        Some(priority) => json!({"kind": kind, "name": name, "tier": tier, "priority": priority}),
        None => json!({"kind": kind, "name": name, "tier": tier}),
    }
}

fn rule(rule: &ClusterRuleRef) -> Value {
    json!({
        "policy": cluster_policy(&rule.policy, rule.place()),
        "direction": rule.direction.field(),
        "rule": rule.field(),
    })
}

fn change(change: &Change) -> Value {
    json!({
        "policy": {
            "kind": "NetworkPolicy",
            "namespace": change.policy.namespace,
            "name": change.policy.name,
        },
        "direction": change.direction.field(),
        "new": change.is_new,
        "isolates": change.isolates,
        "manifest": change.manifest,
    })
}
