//! The seam to the policies in Rego. Values of JSON go in and come out, so that `guard` knows no interpreter.

use std::time::Instant;

use jiff::Timestamp;

use crate::guard::finding::{FindingId, Fix, Severity};
use crate::guard::guardrail::{Guardrail, Section};
use crate::guard::review::{Review, Subject};
use crate::netpol::{FieldPath, Snapshot};

/// What one judgement may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// When policies in Rego stop, all of them together. `None`: only their own limit holds.
    pub deadline: Option<Instant>,
    /// How many pods one check may look at.
    pub pods: usize,
}

impl Budget {
    /// How many pods one check may look at where nothing else is said.
    pub const PODS: usize = 20_000;

    /// For who judges what is there already, and waits for as long as it takes.
    pub const UNHURRIED: Self = Self {
        deadline: None,
        pods: Self::PODS,
    };
}

/// What a policy engine is asked.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// The change that is asked for.
    pub review: &'a Review,
    /// The object that is judged: the new one, or in a second pass the old one.
    pub subject: &'a Subject,
    /// The cluster with the change made.
    pub snapshot: &'a Snapshot,
    /// The guardrail that is applied; its sections are the parameters of the built-in policies.
    pub guardrail: &'a Guardrail,
    /// The current time.
    pub now: Timestamp,
    /// When it stops, answered or not. `None`: only the engine's own limit holds.
    pub deadline: Option<Instant>,
}

/// How far a policy's answer may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It is never refused: at most a warning.
    Warn,
    /// It is refused where the mode is `Enforce`.
    Deny,
}

/// What a policy found.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    /// Which check.
    pub id: FindingId,
    /// The section that gives the mode.
    pub section: Section,
    /// How far it may go.
    pub level: Level,
    /// How much it matters.
    pub severity: Severity,
    /// The exact field.
    pub field: FieldPath,
    /// What is wrong, in one line.
    pub message: String,
    /// Why it matters, in one line.
    pub why: String,
    /// The smallest change that would pass.
    pub fix: Option<Fix>,
}

/// A policy that could not be evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The id of the policy, or its package where it has none.
    pub policy: String,
    /// Whether it is a user's own policy or a built-in one.
    pub section: Section,
    /// Why, in one line.
    pub reason: String,
}

/// What all policies answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answers {
    /// What they found.
    pub violations: Vec<Violation>,
    /// Those that could not be evaluated.
    pub failures: Vec<Failure>,
}

/// What the mutating policies answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mutations {
    /// The changes, in the order of the policies' ids.
    pub patches: Vec<Mutation>,
    /// Those that could not be evaluated.
    pub failures: Vec<Failure>,
}

/// The change that one policy makes.
#[derive(Clone, Debug, PartialEq)]
pub struct Mutation {
    /// The id of the policy.
    pub policy: FindingId,
    /// The change of the object, as JSON Patch (RFC 6902).
    pub patch: json_patch::Patch,
}

/// What is known of a policy without running it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyInfo {
    /// Its id.
    pub id: FindingId,
    /// One line.
    pub title: String,
    /// What it is for and what to do, in full.
    pub description: String,
    /// How much its findings matter.
    pub severity: Severity,
    /// Who answers for it.
    pub owner: Option<String>,
    /// The section that gives the mode.
    pub section: Section,
    /// The file that it is in, as it was given.
    pub file: String,
}

/// Whatever evaluates the policies in Rego.
pub trait PolicyEngine: Send + Sync {
    /// What the policies find. Never panics and never goes on long after the deadline: what could not
    /// be evaluated is told as a failure.
    fn evaluate(&self, question: &Question<'_>) -> Answers;

    /// What the policies change. Each sees the object as the ones before it left it.
    fn mutate(&self, question: &Question<'_>) -> Mutations;

    /// What is known of each policy, in the order of the ids.
    fn registry(&self) -> Vec<PolicyInfo>;

    /// Whether what the users' policies say of an object may rest on what is in other namespaces.
    fn looks_far(&self) -> bool;
}

/// An engine without policies.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPolicies;

impl PolicyEngine for NoPolicies {
    fn evaluate(&self, _: &Question<'_>) -> Answers {
        Answers::default()
    }

    fn mutate(&self, _: &Question<'_>) -> Mutations {
        Mutations::default()
    }

    fn registry(&self) -> Vec<PolicyInfo> {
        Vec::new()
    }

    fn looks_far(&self) -> bool {
        false
    }
}
