//! A policy on trial, judged as the NetworkPolicy that promotion makes of it.
//!
//! In stage `Canary` it is in force for some pods, so it is held to all that a NetworkPolicy is held to. In stage `Shadow` it holds
//! nobody: what promotion would be refused for is told, and refuses nothing.

use jiff::Timestamp;

use super::{Context, Decision, Judged, one_guardrail};
use crate::guard::engine::{Budget, Level};
use crate::guard::guardrail::Guardrail;
use crate::guard::mode::Mode;
use crate::guard::reachability;
use crate::guard::review::{Operation, Review, Subject};
use crate::netpol::staged::promoted;
use crate::netpol::{
    NetworkPolicy, Object, ObjectKey, PolicyRef, Snapshot, Stage, StagedNetworkPolicy,
};

/// The promotion of the policy that a review brings.
pub(super) struct Promotion {
    /// The NetworkPolicy comes, or takes the place of one.
    review: Review,
    /// The cluster without the trial, and with the NetworkPolicy.
    before: Snapshot,
    after: Snapshot,
    stage: Stage,
}

impl Promotion {
    /// `None` for a review of anything else, for the end of a trial, and for what is not understood.
    pub(super) fn of(review: &Review, known: &Snapshot) -> Option<Self> {
        let new = review.object.as_ref()?;
        let staged = tried(new)?;
        let before = known.without(&ObjectKey::StagedNetworkPolicy(staged.reference()));
        // What a canary did already is nothing new; what was only in shadow never was in force.
        let was = review.old_object.as_ref();
        let was_canary = was.filter(|old| tried(old).is_some_and(|old| old.stage == Stage::Canary));
        let policy = &staged.policy;
        let replaced = PolicyRef::new(policy.namespace.clone(), policy.name.clone());
        let old = match was_canary {
            Some(old) if staged.stage == Stage::Canary => Some(promoted(&old.value)),
            Some(_) | None => before.policy(&replaced).map(NetworkPolicy::manifest),
        };
        let operation = match old {
            Some(_) => Operation::Update,
            None => Operation::Create,
        };
        let object = Subject::new(promoted(&new.value));
        let after = before.with(object.model()?.clone());
        let made = Review::made_of(operation, Some(object), old.map(Subject::new));
        Some(Self {
            review: Review {
                origin: review.origin,
                uid: review.uid.clone(),
                namespace: review.namespace.clone(),
                name: review.name.clone(),
                user: review.user.clone(),
                dry_run: review.dry_run,
                ..made
            },
            before,
            after,
            stage: staged.stage,
        })
    }

    /// Judges it, as what is found of the policy on trial.
    pub(super) fn judge(
        &self,
        selecting: &[&Guardrail],
        review: &Review,
        context: &Context<'_>,
        now: Timestamp,
        budget: Budget,
        decision: &mut Decision,
    ) {
        let Some(subject) = &self.review.object else {
            return;
        };
        let asked = Context {
            snapshot: &self.before,
            // That is of the policies that are there.
            neighbourhood: None,
            ..*context
        };
        for guardrail in selecting {
            let mut found = Decision::default();
            one_guardrail(
                &self.review,
                subject,
                guardrail,
                &asked,
                &self.after,
                now,
                budget,
                &mut found,
            );
            self.take(found, review, Some(guardrail), context, now, decision);
        }
        // A canary is held to reachability as what it is, for the pods that it is in force for.
        if self.stage == Stage::Shadow {
            let (made, after) = (&self.review, &self.after);
            let found = reachability::judge(made, subject, &asked, after, now, budget);
            let found = Decision {
                judged: found.judged,
                ..Decision::default()
            };
            self.take(found, review, None, context, now, decision);
        }
    }

    /// Takes what was found of the promotion as what is found of the policy on trial.
    fn take(
        &self,
        found: Decision,
        review: &Review,
        guardrail: Option<&Guardrail>,
        context: &Context<'_>,
        now: Timestamp,
        decision: &mut Decision,
    ) {
        let (of_policy, own) = (self.review.object_ref(), review.object_ref());
        for mut judged in found.judged {
            if judged.finding.object == of_policy {
                judged.finding.object.clone_from(&own);
            }
            let is_told = |known: &Judged| {
                let (known, new) = (&known.finding, &judged.finding);
                known.id == new.id && known.field == new.field && known.message == new.message
            };
            // A policy in Rego may ask all objects the same.
            if self.stage == Stage::Shadow && decision.judged.iter().any(is_told) {
                continue;
            }
            if self.stage == Stage::Shadow {
                judged.mode = judged.mode.min(Mode::Warn);
                judged.level = Level::Warn;
                judged.finding.message = format!("once promoted: {}", judged.finding.message);
            }
            // An exemption may name the one or the other.
            if let (None, Some(guardrail)) = (&judged.exemption, guardrail) {
                let covering = context
                    .exemptions
                    .covering(&judged.finding, &guardrail.name, now);
                judged.exemption =
                    covering.map(|exemption| format!("{}/{}", exemption.namespace, exemption.name));
            }
            decision.add(judged);
        }
        // What is only told need not be whole.
        if self.stage != Stage::Shadow {
            decision.cut = decision.cut.or(found.cut);
        }
    }
}

fn tried(subject: &Subject) -> Option<&StagedNetworkPolicy> {
    match subject.model() {
        Some(Object::StagedNetworkPolicy(staged)) => Some(staged),
        _ => None,
    }
}
