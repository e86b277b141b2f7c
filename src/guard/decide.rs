//! The one decision: a review judged against a context. The webhook, the command line and the audit call this.
//!
//! Each guardrail that selects the namespace is applied by itself. What it finds passes through the same four
//! steps, in this order: what was wrong before an update is left out, exemptions let off, the mode of the section
//! is noted, equal findings of several guardrails become one. Nothing is refused or printed here.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use serde_json::Value;

use crate::guard::engine::{Budget, Level, PolicyEngine, Question};
use crate::guard::exemption::Exemptions;
use crate::guard::finding::Finding;
use crate::guard::guardrail::{Guardrail, Guardrails, OnFailure, Section, Unchanged};
use crate::guard::mode::Mode;
use crate::guard::reachability::{self, ReachabilityRules};
use crate::guard::review::{Operation, Review, Subject};
use crate::guard::{coverage, registry};
use crate::netpol::findings::Neighbourhood;
use crate::netpol::{FieldPath, Snapshot};

mod native;
mod promotion;
mod ratchet;
mod selecting;
mod skip;
mod universal;

use native::native;
use promotion::Promotion;
use ratchet::leave_out;
use selecting::selecting;
use skip::of_itself;
pub use skip::{COLLECTORS, GARBAGE_COLLECTOR, Skip, skip};
use universal::{mirror, own_kind, universal};

/// What a review is judged against.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The cluster as it is known, before the change.
    pub snapshot: &'a Snapshot,
    /// The guardrails in force.
    pub guardrails: &'a Guardrails,
    /// The exemptions in force.
    pub exemptions: &'a Exemptions,
    /// The reachability rules in force, made for this very snapshot.
    pub reachability: &'a ReachabilityRules,
    /// The policies in Rego.
    pub engine: &'a dyn PolicyEngine,
    /// All that is in the snapshot, for who judges many objects of it that are there already. Without it a policy is
    /// held against what is next to it only.
    pub neighbourhood: Option<&'a Neighbourhood<'a>>,
}

/// Everything that a decision needs, kept together and replaced as a whole.
#[derive(Clone)]
pub struct State {
    /// The cluster as it is known.
    pub snapshot: Snapshot,
    /// The guardrails in force.
    pub guardrails: Guardrails,
    /// The exemptions in force.
    pub exemptions: Exemptions,
    /// The reachability rules in force, made for this very snapshot.
    pub reachability: ReachabilityRules,
    /// The policies in Rego.
    pub engine: Arc<dyn PolicyEngine>,
}

/// Why a judgement is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cut {
    /// A check met more pods than the budget allows.
    #[error("more than {0} pods would have to be looked at")]
    Pods(usize),
}

/// A finding with what follows from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// The finding.
    pub finding: Finding,
    /// The section that it comes from; `None` for what every manifest is held to.
    pub section: Option<Section>,
    /// How far it may go, whatever the mode: what is only recommended is never refused.
    pub level: Level,
    /// What is done about it.
    pub mode: Mode,
    /// The guardrails that ask for it, by name.
    pub guardrails: Vec<String>,
    /// The exemption that lets it off, as `namespace/name`.
    pub exemption: Option<String>,
}

/// Everything that follows from one review.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// What was found, the gravest first.
    pub judged: Vec<Judged>,
    /// Why nothing was judged.
    pub skipped: Option<Skip>,
    /// Why the judgement is not whole.
    pub cut: Option<Cut>,
    /// The strictest mode that any guardrail has for the namespace; `None` where none selects it.
    pub strictest: Option<Mode>,
    /// Whether it would pass in any mode: what nodes tell of themselves.
    pub unrefusable: bool,
}

/// One finding on its way to a decision.
struct Raw {
    section: Option<Section>,
    level: Level,
    finding: Finding,
    /// What it is about, by which it is known again in the old object: what a rule opens and for whom, wherever
    /// the rule stands, else the message.
    about: Value,
}

/// Judges a review. Costs what the change costs: its own namespace, never the cluster.
pub fn judge(review: &Review, context: &Context<'_>, now: Timestamp, budget: Budget) -> Decision {
    if let Some(skip) = skip(review, context.snapshot) {
        return Decision {
            skipped: Some(skip),
            ..Decision::default()
        };
    }
    let Some(subject) = review.subject() else {
        return Decision {
            skipped: Some(Skip::NoObject),
            ..Decision::default()
        };
    };
    let after = changed(review, context.snapshot);
    let selecting = selecting(review, context, &after);
    let mut decision = Decision {
        strictest: selecting
            .iter()
            .map(|guardrail| guardrail.spec.strictest())
            .max(),
        ..Decision::default()
    };

    let universal = universal(review, subject, now);
    let mode = if own_kind(review) {
        Mode::Enforce
    } else {
        decision.strictest.unwrap_or_default()
    };
    for finding in universal {
        decision.judged.push(Judged {
            finding,
            section: None,
            level: Level::Deny,
            mode,
            guardrails: Vec::new(),
            exemption: None,
        });
    }
    for guardrail in &selecting {
        one_guardrail(
            review,
            subject,
            guardrail,
            context,
            &after,
            now,
            budget,
            &mut decision,
        );
    }
    if let Some(promotion) = Promotion::of(review, context.snapshot) {
        promotion.judge(&selecting, review, context, now, budget, &mut decision);
    }
    let reachable = reachability::judge(review, subject, context, &after, now, budget);
    decision.judged.extend(reachable.judged);
    if let Some((cut, mode)) = reachable.cut {
        decision.cut = Some(cut);
        decision.strictest = decision.strictest.max(Some(mode));
    }
    decision.unrefusable = mirror(subject) || of_itself(review);
    if decision.unrefusable {
        // The kubelet runs a static pod, and is where it is, whatever is answered here; a refusal would only hide it.
        for judged in &mut decision.judged {
            judged.mode = Mode::Audit;
        }
    }
    decision.judged.sort_by(|a, b| {
        let key = |judged: &Judged| {
            (
                judged.exemption.is_some(),
                std::cmp::Reverse((judged.mode, judged.finding.severity)),
            )
        };
        key(a)
            .cmp(&key(b))
            .then_with(|| a.finding.id.cmp(&b.finding.id))
            .then_with(|| a.finding.field.cmp(&b.finding.field))
    });
    decision
}

#[allow(clippy::too_many_arguments)] // each is a value of its own, and this is the one call
fn one_guardrail(
    review: &Review,
    subject: &Subject,
    guardrail: &Guardrail,
    context: &Context<'_>,
    after: &Snapshot,
    now: Timestamp,
    budget: Budget,
    decision: &mut Decision,
) {
    let mut raw = Vec::new();
    if review.operation != Operation::Delete {
        native(review, subject, guardrail, context, after, now, &mut raw);
    }
    policies(
        review,
        subject,
        guardrail,
        context,
        after,
        now,
        budget.deadline,
        &mut raw,
    );
    if coverage::out_of_reach(subject) {
        // No policy holds it, covered or not: that is a bypass, and one violation gives one finding.
        raw.retain(|raw| raw.section != Some(Section::Coverage));
    }
    if !raw.is_empty()
        && review.operation == Operation::Update
        && guardrail.spec.unchanged == Unchanged::Tolerate
        && let Some(old) = &review.old_object
    {
        let mut before = Vec::new();
        native(
            review,
            old,
            guardrail,
            context,
            context.snapshot,
            now,
            &mut before,
        );
        policies(
            review,
            old,
            guardrail,
            context,
            context.snapshot,
            now,
            budget.deadline,
            &mut before,
        );
        leave_out(&mut raw, before);
    }
    // A change that takes cover away is new by its nature: it is not held against the old object.
    if let Some(section) = &guardrail.spec.coverage {
        match coverage::last_cover(review, section, context.snapshot, after, budget.pods) {
            Ok(finding) => raw.extend(finding.map(|finding| Raw::deny(Section::Coverage, finding))),
            Err(cut) => decision.cut = Some(cut),
        }
        let (before, pods) = (context.snapshot, budget.pods);
        match coverage::last_wide_cover(review, guardrail, section, before, after, pods) {
            Ok(finding) => raw.extend(finding.map(|finding| Raw::deny(Section::Coverage, finding))),
            Err(cut) => decision.cut = Some(cut),
        }
        // A workload that is not covered as it would be is told of once.
        let is_told = |raw: &Raw| raw.finding.id.as_str() == registry::UNCOVERED.id;
        if !raw.iter().any(is_told) && !coverage::out_of_reach(subject) {
            let finding = coverage::last_cover_of_labels(review, section, context.snapshot, after);
            raw.extend(finding.map(|finding| Raw::deny(Section::Coverage, finding)));
        }
    }
    for Raw {
        section,
        level,
        finding,
        ..
    } in raw
    {
        let mode = section
            .and_then(|section| guardrail.mode_of(section))
            .unwrap_or(guardrail.spec.mode);
        let mode = if level == Level::Warn {
            mode.min(Mode::Warn)
        } else {
            mode
        };
        let exemption = context
            .exemptions
            .covering(&finding, &guardrail.name, now)
            .map(|exemption| format!("{}/{}", exemption.namespace, exemption.name));
        decision.add(Judged {
            finding,
            section,
            level,
            mode,
            guardrails: vec![guardrail.name.clone()],
            exemption,
        });
    }
}

/// The policies in Rego. A policy that fails is a finding as well.
#[allow(clippy::too_many_arguments)]
fn policies(
    review: &Review,
    subject: &Subject,
    guardrail: &Guardrail,
    context: &Context<'_>,
    snapshot: &Snapshot,
    now: Timestamp,
    deadline: Option<Instant>,
    raw: &mut Vec<Raw>,
) {
    let question = Question {
        review,
        subject,
        snapshot,
        guardrail,
        now,
        deadline,
    };
    let answers = context.engine.evaluate(&question);
    let object = review.object_ref();
    for found in answers.violations {
        let finding = Finding {
            id: found.id,
            severity: found.severity,
            object: object.clone(),
            field: found.field,
            message: found.message,
            why: found.why,
            fix: found.fix,
        };
        raw.push(Raw::new(found.section, found.level, finding));
    }
    for failure in answers.failures {
        let allow = failure.section == Section::Policies
            && guardrail
                .spec
                .policies
                .as_ref()
                .is_some_and(|section| section.on_failure == OnFailure::Allow);
        let message = format!(
            "policy `{}` could not be evaluated: {}",
            failure.policy, failure.reason
        );
        let finding = Finding::of(
            &registry::FAILED_POLICY,
            object.clone(),
            FieldPath::root(),
            message,
            None,
        );
        let level = if allow { Level::Warn } else { Level::Deny };
        raw.push(Raw::new(failure.section, level, finding));
    }
}

/// The cluster with the change made.
fn changed(review: &Review, before: &Snapshot) -> Snapshot {
    match (review.operation, &review.object, &review.old_object) {
        (Operation::Create | Operation::Update, Some(new), _) => match new.model() {
            Some(object) => before.with(object.clone()),
            None => before.clone(),
        },
        (Operation::Delete, _, Some(old)) => match old.model() {
            Some(object) => before.without(&object.key()),
            None => before.clone(),
        },
        (Operation::Create | Operation::Update | Operation::Delete | Operation::Connect, _, _) => {
            before.clone()
        }
    }
}

// === impl State ===

impl State {
    /// What a review is judged against.
    pub fn context(&self) -> Context<'_> {
        Context {
            snapshot: &self.snapshot,
            guardrails: &self.guardrails,
            exemptions: &self.exemptions,
            reachability: &self.reachability,
            engine: &*self.engine,
            neighbourhood: None,
        }
    }
}

// === impl Raw ===

impl Raw {
    fn new(section: Section, level: Level, finding: Finding) -> Self {
        let about = Value::from(finding.message.as_str());
        Self {
            section: Some(section),
            level,
            finding,
            about,
        }
    }

    fn deny(section: Section, finding: Finding) -> Self {
        Self::new(section, Level::Deny, finding)
    }
}

// === impl Decision ===

impl Decision {
    /// Whether it may pass.
    pub fn allowed(&self) -> bool {
        self.in_force(Mode::Enforce).next().is_none()
    }

    /// The findings of one mode that no exemption lets off.
    pub fn in_force(&self, mode: Mode) -> impl Iterator<Item = &Judged> {
        self.judged
            .iter()
            .filter(move |judged| judged.mode == mode && judged.exemption.is_none())
    }

    /// The findings for which it would be refused if their mode were `Enforce`, and is not.
    pub fn would_deny(&self) -> impl Iterator<Item = &Judged> {
        let silent = self.in_force(Mode::Audit).chain(self.in_force(Mode::Warn));
        silent.filter(|judged| judged.level == Level::Deny)
    }

    /// The findings that an exemption lets off.
    pub fn exempted(&self) -> impl Iterator<Item = &Judged> {
        self.judged
            .iter()
            .filter(|judged| judged.exemption.is_some())
    }

    /// Adds a finding; one that another guardrail has brought already takes the stricter mode.
    fn add(&mut self, new: Judged) {
        let same = self.judged.iter_mut().find(|known| {
            known.finding.id == new.finding.id
                && known.finding.field == new.finding.field
                && known.finding.message == new.finding.message
                && known.exemption == new.exemption
        });
        match same {
            Some(known) => {
                known.mode = known.mode.max(new.mode);
                known.level = known.level.max(new.level);
                known.guardrails.extend(new.guardrails);
            }
            None => self.judged.push(new),
        }
    }
}

#[cfg(test)]
mod tests;
