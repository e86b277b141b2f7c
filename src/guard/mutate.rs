//! What is added to an object on its way in: baseline allows that a policy forgot, the scheduling gate of a pod that comes
//! before its baseline, and what policies in Rego change.
//!
//! It never judges, and doing it twice changes nothing: what was added is there the second time.

use jiff::Timestamp;
use json_patch::{AddOperation, Patch, PatchOperation, jsonptr::PointerBuf};
use serde_json::{Value, json};

use crate::guard::baseline::{self, Allow};
use crate::guard::decide::{self, Context};
use crate::guard::engine::{Budget, Failure, Question};
use crate::guard::finding::FindingId;
use crate::guard::gitops;
use crate::guard::guardrail::{BaselineSection, Guardrail, Inject, OptOut, Section};
use crate::guard::mode::Mode;
use crate::guard::quarantine::Quarantine;
use crate::guard::review::{Operation, Review, Subject};
use crate::netpol::{FieldPath, NetworkPolicy, Object};

pub mod gate;

/// The annotation by which a policy asks to be left without the baseline's allows.
pub const INJECT_ANNOTATION: &str = "ringfence.dev/inject";
/// The value of [`INJECT_ANNOTATION`] that asks for it.
pub const INJECT_DISABLED: &str = "disabled";
/// The annotation that says what was added.
pub const INJECTED_ANNOTATION: &str = "ringfence.dev/injected";

/// What is done about the allows that a policy forgot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// They were appended to the policy.
    Appended,
    /// They would be, in mode `Enforce`.
    WouldAppend(Mode),
    /// They belong into a policy of their own beside it, and why.
    Beside(Reason),
    /// The policy opted out.
    OptedOut,
}

/// Why a policy is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The guardrail says so.
    Asked,
    /// A GitOps tool tracks the object and would undo the change.
    Tracked(&'static str),
    /// It may select pods under quarantine.
    Quarantine,
}

/// The allows that a policy forgot under one guardrail.
#[derive(Clone, Debug, PartialEq)]
pub struct Injection {
    /// The guardrail that keeps the allows.
    pub guardrail: String,
    /// Which ones.
    pub allows: Vec<Allow>,
    /// The mode of the guardrail's baseline section.
    pub mode: Mode,
    /// What is done.
    pub way: Way,
    /// The policies that belong beside it; empty unless the way is [`Way::Beside`].
    pub beside: Vec<Value>,
}

/// What is changed, and what is told about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mutated {
    /// The change; empty for none.
    pub patch: Patch,
    /// The baseline allows.
    pub injections: Vec<Injection>,
    /// A pod that waits for the baseline of its namespace got the scheduling gate for that.
    pub gated: bool,
    /// The policies in Rego that changed it.
    pub policies: Vec<FindingId>,
    /// The policies in Rego that would change it under `Enforce`, and the mode that they are in.
    pub would_change: Vec<(FindingId, Mode)>,
    /// The policies in Rego that could not be evaluated or whose change does not apply.
    pub failures: Vec<Failure>,
}

/// What is to be changed about an object that is created or updated.
pub fn mutate(review: &Review, context: &Context<'_>, now: Timestamp, budget: Budget) -> Mutated {
    let mut mutated = Mutated::default();
    if !matches!(review.operation, Operation::Create | Operation::Update)
        || review
            .subresource
            .as_deref()
            .is_some_and(|name| !name.is_empty())
        || decide::skip(review, context.snapshot).is_some()
    {
        return mutated;
    }
    let Some(subject) = &review.object else {
        return mutated;
    };
    if subject.annotation("kubernetes.io/config.mirror").is_some() {
        return mutated;
    }
    let Some(namespace) = &review.namespace else {
        return mutated;
    };
    let labels = context.snapshot.namespace_labels(namespace);
    let mut value = subject.value.clone();
    let quarantine = Quarantine::of(context.guardrails.selecting(&labels));
    for guardrail in context.guardrails.selecting(&labels) {
        // Each step sees the object as the ones before it left it.
        let current = Subject::new(value.clone());
        if let Some(injection) = inject(&current, guardrail, &quarantine, context, budget.pods) {
            if injection.way == Way::Appended {
                let operations = append(&current.value, guardrail, &injection.allows);
                apply(&mut value, &mut mutated.patch, operations);
            }
            mutated.injections.push(injection);
        }
        let operations = gate::set(review, &current, guardrail, context);
        mutated.gated |= !operations.is_empty();
        apply(&mut value, &mut mutated.patch, operations);
        rego(
            review,
            guardrail,
            context,
            now,
            budget,
            &mut value,
            &mut mutated,
        );
    }
    mutated
}

fn rego(
    review: &Review,
    guardrail: &Guardrail,
    context: &Context<'_>,
    now: Timestamp,
    budget: Budget,
    value: &mut Value,
    mutated: &mut Mutated,
) {
    let Some(mode) = guardrail.mode_of(Section::Policies) else {
        return;
    };
    let current = Subject::new(value.clone());
    let snapshot = match current.model() {
        Some(object) => context.snapshot.with(object.clone()),
        None => context.snapshot.clone(),
    };
    let question = Question {
        review,
        subject: &current,
        snapshot: &snapshot,
        guardrail,
        now,
        deadline: budget.deadline,
    };
    let answers = context.engine.mutate(&question);
    mutated.failures.extend(answers.failures);
    for mutation in answers.patches {
        if mode != Mode::Enforce {
            mutated.would_change.push((mutation.policy, mode));
            continue;
        }
        let mut changed = value.clone();
        match json_patch::patch(&mut changed, &mutation.patch) {
            // A patch that changes nothing is not sent: the object has it already.
            Ok(()) if changed == *value => {}
            Ok(()) => {
                *value = changed;
                mutated.patch.0.extend(mutation.patch.0);
                mutated.policies.push(mutation.policy);
            }
            Err(error) => mutated.failures.push(Failure {
                policy: mutation.policy.to_string(),
                section: Section::Policies,
                reason: format!("its patch does not apply: {error}"),
            }),
        }
    }
}

/// The allows that a policy forgot under a guardrail, and what is to be done about them.
fn inject(
    subject: &Subject,
    guardrail: &Guardrail,
    quarantine: &Quarantine<'_>,
    context: &Context<'_>,
    pods: usize,
) -> Option<Injection> {
    let section = guardrail.spec.baseline.as_ref()?;
    let Some(Object::NetworkPolicy(policy)) = subject.model() else {
        return None;
    };
    // A policy for pods under quarantine is to allow nothing.
    if quarantine.holds_all(&policy.selector) {
        return None;
    }
    let snapshot = context.snapshot.with(Object::NetworkPolicy(policy.clone()));
    let mut allows = baseline::forgotten(policy, guardrail, quarantine, &snapshot, pods);
    // A rule that is there and does not help would not help a second time.
    allows.retain(|allow| !stands_in(&subject.value, *allow, section));
    if allows.is_empty() {
        return None;
    }
    let mode = guardrail.mode_of(Section::Baseline)?;
    let way = way(subject, policy, section, quarantine, mode);
    let beside = if matches!(way, Way::Beside(_)) {
        baseline::beside(policy, guardrail, quarantine, &allows)
    } else {
        Vec::new()
    };
    Some(Injection {
        guardrail: guardrail.name.clone(),
        allows,
        mode,
        way,
        beside,
    })
}

/// Whether the rule of an allow stands in the policy word for word.
fn stands_in(policy: &Value, allow: Allow, section: &BaselineSection) -> bool {
    let rules = FieldPath::of(["spec", allow.direction().field()]);
    let rules = rules.lookup(policy).and_then(Value::as_array);
    rules.is_some_and(|rules| {
        allow
            .rule(section)
            .is_some_and(|rule| rules.contains(&rule))
    })
}

fn way(
    subject: &Subject,
    policy: &NetworkPolicy,
    section: &BaselineSection,
    quarantine: &Quarantine<'_>,
    mode: Mode,
) -> Way {
    let opted_out = subject.annotation(INJECT_ANNOTATION) == Some(INJECT_DISABLED);
    if opted_out && (section.opt_out == OptOut::Allow || mode != Mode::Enforce) {
        return Way::OptedOut;
    }
    if section.inject == Inject::Policy {
        return Way::Beside(Reason::Asked);
    }
    if quarantine.may_hold(&policy.selector) {
        return Way::Beside(Reason::Quarantine);
    }
    match gitops::keeper(subject) {
        Some(tool) if section.inject == Inject::Auto => Way::Beside(Reason::Tracked(tool.as_str())),
        Some(_) | None if mode == Mode::Enforce => Way::Appended,
        Some(_) | None => Way::WouldAppend(mode),
    }
}

/// The operations that append the rules of the allows, and say so in an annotation.
fn append(policy: &Value, guardrail: &Guardrail, allows: &[Allow]) -> Vec<PatchOperation> {
    let Some(section) = &guardrail.spec.baseline else {
        return Vec::new();
    };
    let mut operations = Vec::new();
    for allow in allows {
        let Some(rule) = allow.rule(section) else {
            continue;
        };
        let at = FieldPath::of(["spec", allow.direction().field()]);
        let there = at.lookup(policy).is_some_and(Value::is_array);
        operations.extend(if there {
            add(&at.key("-"), rule)
        } else {
            add(&at, json!([rule]))
        });
    }
    let annotations = FieldPath::of(["metadata", "annotations"]);
    let known = annotations.lookup(policy).filter(|value| value.is_object());
    let mut names: Vec<&str> = known
        .and_then(|annotations| annotations.get(INJECTED_ANNOTATION))
        .and_then(Value::as_str)
        .map(|value| value.split(',').collect())
        .unwrap_or_default();
    names.extend(allows.iter().map(|allow| allow.as_str()));
    names.sort_unstable();
    names.dedup();
    let value = json!(names.join(","));
    operations.extend(if known.is_some() {
        add(&annotations.key(INJECTED_ANNOTATION), value)
    } else {
        add(&annotations, json!({INJECTED_ANNOTATION: value}))
    });
    operations
}

fn add(field: &FieldPath, value: Value) -> Option<PatchOperation> {
    let path = PointerBuf::parse(field.to_pointer()).ok()?;
    Some(PatchOperation::Add(AddOperation { path, value }))
}

fn apply(value: &mut Value, patch: &mut Patch, operations: Vec<PatchOperation>) {
    // The operations are made for this very value, so they apply; if not, nothing is sent rather than half.
    let mut changed = value.clone();
    if json_patch::patch(&mut changed, &operations).is_ok() {
        *value = changed;
        patch.0.extend(operations);
    }
}

#[cfg(test)]
mod tests;
