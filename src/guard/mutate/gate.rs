//! Scheduling gates: a pod that comes before the baseline of its namespace is taken at once and scheduled when it is there.
//!
//! The gate is set here, where a Guardrail asks for it, and taken away by the controller. Whoever sets it by hand gains
//! nothing: a pod with a gate does not run. Taking it away is an update that is judged like any other.
//!
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/pod-scheduling-readiness/>

use json_patch::PatchOperation;
use serde_json::{Value, json};

use super::add;
use crate::guard::baseline::plan;
use crate::guard::decide::Context;
use crate::guard::guardrail::{Guardrail, Section};
use crate::guard::mode::Mode;
use crate::guard::review::{Operation, Review, Subject};
use crate::netpol::{Direction, FieldPath, Object};

/// The name of the gate.
pub const GATE: &str = "ringfence.dev/baseline";

/// Whether an object is a pod with the gate.
pub fn is_gated(subject: &Subject) -> bool {
    let gates = subject.value.pointer("/spec/schedulingGates");
    let mut gates = gates.and_then(Value::as_array).into_iter().flatten();
    gates.any(|gate| gate.get("name").and_then(Value::as_str) == Some(GATE))
}

/// The operations that set the gate; none where the pod need not wait, or cannot.
pub(super) fn set(
    review: &Review,
    subject: &Subject,
    guardrail: &Guardrail,
    context: &Context<'_>,
) -> Vec<PatchOperation> {
    let Some(Object::Pod(pod)) = subject.model() else {
        return Vec::new();
    };
    let asks = guardrail.mode_of(Section::Baseline) == Some(Mode::Enforce)
        && guardrail
            .spec
            .baseline
            .as_ref()
            .is_some_and(|section| section.scheduling_gates);
    // A pod that is bound to a node already cannot have one.
    let can = review.operation == Operation::Create && pod.is_held() && pod.node.is_none();
    if !asks || !can || is_gated(subject) {
        return Vec::new();
    }
    let to_come = plan::to_come(pod.namespace(), context.snapshot, context.guardrails);
    let covered = context.snapshot.pod_coverage(pod);
    if to_come.iter().all(|way: &Direction| covered.covered(*way)) {
        return Vec::new();
    }
    let gates = FieldPath::of(["spec", "schedulingGates"]);
    let there = gates.lookup(&subject.value).is_some_and(Value::is_array);
    let gate = json!({"name": GATE});
    let operation = if there {
        add(&gates.key("-"), gate)
    } else {
        add(&gates, json!([gate]))
    };
    operation.into_iter().collect()
}
