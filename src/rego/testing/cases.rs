//! Files of cases: an object, what is around it, and what is to be found.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::TestResult;
use crate::guard::engine::{Level, PolicyEngine as _, Question, Violation};
use crate::guard::finding::Severity;
use crate::guard::guardrail::{Guardrail, GuardrailSpec};
use crate::guard::review::{Operation, Review, Subject};
use crate::k8s::yaml::{self, Limits, Places, Text};
use crate::netpol::{self, FieldPath, Segment, Snapshot};
use crate::rego::engine::RegoEngine;
use crate::rego::load::{Place, PolicyFile, Problem};

/// A file of cases.
pub(super) struct Cases {
    file: String,
    content: File,
    places: Option<Places>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    /// Holds for every case that does not say otherwise.
    #[serde(default)]
    defaults: Around,
    cases: Vec<Case>,
}

/// What is around an object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Around {
    /// The `spec` of the guardrail in force; sections that are not named are as in the built-in one.
    guardrail: Option<Map<String, Value>>,
    /// The other objects of the cluster.
    objects: Option<Vec<Value>>,
    /// The current time.
    now: Option<Timestamp>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Case {
    /// What the case shows.
    note: String,
    /// The object that is created, or updated where there is an `old` one.
    manifest: Option<Value>,
    /// The object before the update; without a manifest, the object that is deleted.
    old: Option<Value>,
    guardrail: Option<Map<String, Value>>,
    objects: Option<Vec<Value>>,
    now: Option<Timestamp>,
    /// Exactly what is to be found. Absent: nothing.
    #[serde(default)]
    want: Vec<Want>,
    /// The object after the changes of `mutate`. Absent: not looked at.
    mutated: Option<Value>,
    /// A part of the reason why a policy cannot be evaluated.
    failure: Option<String>,
}

/// One finding; what is absent may be anything.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Want {
    id: String,
    field: Option<FieldPath>,
    level: Option<WantLevel>,
    severity: Option<Severity>,
    message: Option<String>,
    /// A part of the message.
    contains: Option<String>,
    /// The summary of the fix.
    fix: Option<String>,
    /// Whether there is a patch.
    patch: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WantLevel {
    Deny,
    Warn,
}

// === impl Cases ===

impl Cases {
    /// Reads a file.
    pub(super) fn read(file: &PolicyFile) -> Result<Self, Problem> {
        let text = Arc::new(Text::new(file.path.as_str(), file.text.as_str()));
        let reading = yaml::read(&text, &Limits::default());
        let place = |place: yaml::Place| Place {
            file: file.path.clone(),
            line: u32::try_from(place.line).unwrap_or(u32::MAX),
            column: u32::try_from(place.column).unwrap_or(u32::MAX),
        };
        if let Some(fault) = reading.faults.first() {
            return Err(Problem::at(
                place(text.place(&fault.range)),
                fault.kind.to_string(),
            ));
        }
        let Some(document) = reading.documents.into_iter().next() else {
            return Ok(Self {
                file: file.path.clone(),
                content: File::default(),
                places: None,
            });
        };
        let content = serde_path_to_error::deserialize(&document.value).map_err(|error| {
            let steps = error.path().iter().filter_map(|step| match step {
                serde_path_to_error::Segment::Map { key } => Some(Segment::Key(key.clone())),
                serde_path_to_error::Segment::Seq { index } => Some(Segment::Index(*index)),
                serde_path_to_error::Segment::Enum { .. }
                | serde_path_to_error::Segment::Unknown => None,
            });
            Problem::at(
                place(document.places.place(&FieldPath::of(steps))),
                error.inner().to_string(),
            )
        })?;
        Ok(Self {
            file: file.path.clone(),
            content,
            places: Some(document.places),
        })
    }

    /// Runs the cases one after the other.
    pub(super) fn run(&self, engine: &RegoEngine, tell: &mut dyn FnMut(TestResult)) {
        for (index, case) in self.content.cases.iter().enumerate() {
            let start = Instant::now();
            let failures = self
                .failures(case, engine)
                .unwrap_or_else(|error| vec![error.to_string()]);
            let field = FieldPath::of(["cases"]).index(index);
            let line = self
                .places
                .as_ref()
                .map_or(0, |places| places.place(&field).line);
            tell(TestResult {
                file: self.file.clone(),
                line: u32::try_from(line).unwrap_or(u32::MAX),
                name: case.note.clone(),
                failures,
                prints: Vec::new(),
                time: start.elapsed(),
            });
        }
    }

    fn failures(&self, case: &Case, engine: &RegoEngine) -> anyhow::Result<Vec<String>> {
        let defaults = &self.content.defaults;
        let guardrail = guardrail(defaults.guardrail.as_ref(), case.guardrail.as_ref())?;
        let objects = case.objects.as_ref().or(defaults.objects.as_ref());
        let mut snapshot = Snapshot::default();
        for object in objects.into_iter().flatten() {
            if let Some(parsed) = netpol::parse(object)? {
                snapshot = snapshot.with(parsed.object);
            }
        }
        let now = case.now.or(defaults.now).unwrap_or_else(Timestamp::now);
        let subject = |value: &Option<Value>| value.clone().map(Subject::new);
        let operation = match (&case.manifest, &case.old) {
            (Some(_), None) => Operation::Create,
            (Some(_), Some(_)) => Operation::Update,
            (None, Some(_)) => Operation::Delete,
            (None, None) => anyhow::bail!("the case has neither `manifest` nor `old`"),
        };
        let around = Setting {
            engine,
            guardrail,
            snapshot,
            now,
        };
        let review = Review::made_of(operation, subject(&case.manifest), subject(&case.old));
        let mut differences = Vec::new();
        let (found, failed) = around.found(&review);
        compare(&case.want, &found, &mut differences);
        match &case.failure {
            Some(part) if failed.iter().any(|reason| reason.contains(part)) => {}
            Some(part) => differences.push(format!("no policy failed with `{part}`: {failed:?}")),
            None => differences.extend(
                failed
                    .into_iter()
                    .map(|reason| format!("a policy failed: {reason}")),
            ),
        }
        for violation in &found {
            differences.extend(around.not_fixed(&review, violation, &found, case.old.as_ref()));
        }
        if let Some(wanted) = &case.mutated {
            differences.extend(around.not_mutated(&review, wanted));
        }
        Ok(differences)
    }
}

/// What a case is asked in.
struct Setting<'e> {
    engine: &'e RegoEngine,
    guardrail: Guardrail,
    snapshot: Snapshot,
    now: Timestamp,
}

impl Setting<'_> {
    fn ask<R>(&self, review: &Review, ask: impl FnOnce(&Question<'_>) -> R) -> Option<R> {
        let subject = review.subject()?;
        let snapshot = match (review.operation, subject.model()) {
            (Operation::Create | Operation::Update, Some(object)) => {
                self.snapshot.with(object.clone())
            }
            _ => self.snapshot.clone(),
        };
        let (guardrail, now) = (&self.guardrail, self.now);
        Some(ask(&Question {
            review,
            subject,
            snapshot: &snapshot,
            guardrail,
            now,
            deadline: None,
        }))
    }

    /// What is found, and why policies could not be evaluated.
    fn found(&self, review: &Review) -> (Vec<Violation>, Vec<String>) {
        let answers = self
            .ask(review, |question| self.engine.evaluate(question))
            .unwrap_or_default();
        let failed = answers
            .failures
            .iter()
            .map(|failure| format!("{}: {}", failure.policy, failure.reason));
        (answers.violations, failed.collect())
    }

    /// Why the patch of a finding is none that clears it.
    fn not_fixed(
        &self,
        review: &Review,
        violation: &Violation,
        before: &[Violation],
        old: Option<&Value>,
    ) -> Option<String> {
        let patch = violation.fix.as_ref()?.patch.as_ref()?;
        let object = review.object.as_ref()?;
        let mut fixed = object.value.clone();
        if let Err(error) = json_patch::patch(&mut fixed, patch) {
            return Some(format!(
                "{}: its patch does not apply: {error}",
                violation.id
            ));
        }
        let review = Review::made_of(
            review.operation,
            Some(Subject::new(fixed)),
            old.cloned().map(Subject::new),
        );
        let (found, _) = self.found(&review);
        // Of two findings that are alike, the patch of one clears one.
        let alike = |all: &[Violation]| {
            let same =
                |one: &&Violation| one.id == violation.id && one.message == violation.message;
            all.iter().filter(same).count()
        };
        (alike(&found) >= alike(before)).then(|| {
            format!(
                "{}: its patch does not clear it: {}",
                violation.id, violation.message
            )
        })
    }

    fn not_mutated(&self, review: &Review, wanted: &Value) -> Vec<String> {
        let Some(object) = &review.object else {
            return Vec::new();
        };
        let mutations = self
            .ask(review, |question| self.engine.mutate(question))
            .unwrap_or_default();
        let mut differences: Vec<String> = mutations
            .failures
            .iter()
            .map(|failure| {
                format!(
                    "{} could not change the object: {}",
                    failure.policy, failure.reason
                )
            })
            .collect();
        let mut changed = object.value.clone();
        for mutation in &mutations.patches {
            if let Err(error) = json_patch::patch(&mut changed, &mutation.patch) {
                differences.push(format!(
                    "{}: its patch does not apply: {error}",
                    mutation.policy
                ));
            }
        }
        if changed != *wanted {
            differences.push(format!("- wanted {wanted}"));
            differences.push(format!("+ got    {changed}"));
            return differences;
        }
        // What was added is there the second time.
        let again = Review::made_of(review.operation, Some(Subject::new(changed.clone())), None);
        let again = self
            .ask(&again, |question| self.engine.mutate(question))
            .unwrap_or_default();
        let mut twice = changed.clone();
        for mutation in &again.patches {
            let _ = json_patch::patch(&mut twice, &mutation.patch);
        }
        if twice != changed {
            differences.push(format!("changing it twice gives something else: {twice}"));
        }
        differences
    }
}

/// The built-in guardrail with the sections that are given in the place of its own; `null` takes one away.
fn guardrail(
    defaults: Option<&Map<String, Value>>,
    own: Option<&Map<String, Value>>,
) -> anyhow::Result<Guardrail> {
    let mut spec = serde_json::to_value(GuardrailSpec::built_in())?;
    if let Value::Object(sections) = &mut spec {
        sections.remove("namespaceSelector");
        for (section, value) in defaults.into_iter().chain(own).flatten() {
            match value {
                Value::Null => drop(sections.remove(section)),
                value => drop(sections.insert(section.clone(), value.clone())),
            }
        }
    }
    let manifest = json!({"apiVersion": "ringfence.dev/v1alpha1", "kind": "Guardrail", "metadata": {"name": "case"}, "spec": spec});
    Ok(Guardrail::parse(&manifest)?)
}

/// What is wanted and was not found, and what was found and is not wanted.
fn compare(wants: &[Want], found: &[Violation], differences: &mut Vec<String>) {
    let mut left: Vec<&Violation> = found.iter().collect();
    let mut missing = Vec::new();
    for want in wants {
        match left
            .iter()
            .position(|violation| want.differs(violation).is_none())
        {
            Some(index) => drop(left.swap_remove(index)),
            None => missing.push(want),
        }
    }
    for want in missing {
        // The one that was probably meant, so that the difference is small.
        let near = left
            .iter()
            .position(|violation| violation.id.as_str() == want.id);
        match near.map(|index| left.swap_remove(index)) {
            Some(violation) => {
                differences.push(format!(
                    "{} differs: {}",
                    want.id,
                    want.differs(violation).unwrap_or_default()
                ));
            }
            None => differences.push(format!("- not found: {}", want.shown())),
        }
    }
    for violation in left {
        let level = if violation.level == Level::Deny {
            "deny"
        } else {
            "warn"
        };
        differences.push(format!(
            "+ not wanted: {} ({level}) at {}: {}",
            violation.id, violation.field, violation.message
        ));
    }
}

// === impl Want ===

impl Want {
    /// In what a violation is not the wanted one.
    fn differs(&self, found: &Violation) -> Option<String> {
        let mut differences = Vec::new();
        let mut same = |name: &str, wanted: Option<String>, found: String| {
            if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
                differences.push(format!("{name} is `{found}`, wanted `{wanted}`"));
            }
        };
        same("id", Some(self.id.clone()), found.id.to_string());
        same(
            "field",
            self.field.as_ref().map(ToString::to_string),
            found.field.to_string(),
        );
        let level = if found.level == Level::Deny {
            WantLevel::Deny
        } else {
            WantLevel::Warn
        };
        same(
            "level",
            self.level.map(|level| format!("{level:?}")),
            format!("{level:?}"),
        );
        same(
            "severity",
            self.severity.map(|severity| severity.to_string()),
            found.severity.to_string(),
        );
        same("message", self.message.clone(), found.message.clone());
        let fix = found.fix.as_ref();
        same(
            "fix",
            self.fix.clone(),
            fix.map(|fix| fix.summary.clone()).unwrap_or_default(),
        );
        let patch = fix.is_some_and(|fix| fix.patch.is_some());
        same(
            "patch",
            self.patch.map(|patch| patch.to_string()),
            patch.to_string(),
        );
        if let Some(part) = self
            .contains
            .as_ref()
            .filter(|part| !found.message.contains(*part))
        {
            differences.push(format!("message is `{}`, wanted `…{part}…`", found.message));
        }
        (!differences.is_empty()).then(|| differences.join("; "))
    }

    fn shown(&self) -> String {
        let mut text = self.id.clone();
        if let Some(field) = &self.field {
            let _ = write!(text, " at {field}");
        }
        if let Some(message) = self.message.as_ref().or(self.contains.as_ref()) {
            let _ = write!(text, ": {message}");
        }
        text
    }
}
