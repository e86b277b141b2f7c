//! Policies to files, files to an engine, and questions to ask it.

use std::path::PathBuf;
use std::time::Instant;

use ringfence::guard::engine::{Answers, Mutations, PolicyEngine as _, Question};
use ringfence::guard::guardrail::{Guardrail, GuardrailSpec};
use ringfence::guard::review::{Operation, Review, Subject};
use ringfence::netpol::{self, Snapshot};
use ringfence::rego::{LoadError, PolicyFile, PolicySet, RegoEngine, Trial};
use serde_json::{Value, json};

/// Files with these texts, each named by its position.
pub(crate) fn files(texts: &[&str]) -> Vec<PolicyFile> {
    let file = |(index, text): (usize, &&str)| PolicyFile {
        path: format!("{index}.rego"),
        text: (*text).to_owned(),
    };
    texts.iter().enumerate().map(file).collect()
}

/// A policy with metadata, in a package of its own.
pub(crate) fn policy(package: &str, rules: &str) -> String {
    format!(
        "# METADATA\n# title: {package}\n# custom:\n#   id: {package}\npackage {package}\n\n{rules}\n"
    )
}

/// The trial by the real program.
pub(crate) fn trial() -> Trial {
    Trial::By(PathBuf::from(env!("CARGO_BIN_EXE_ringfence")))
}

/// An engine with these policies alone, which were not tried out before.
pub(crate) fn engine(texts: &[&str]) -> RegoEngine {
    RegoEngine::new(
        PolicySet::only(&files(texts), &Trial::None).unwrap_or_else(|error| panic!("{error}")),
    )
}

/// Why these policies do not load.
pub(crate) fn refused(texts: &[&str], trial: &Trial) -> String {
    match PolicySet::only(&files(texts), trial) {
        Ok(_) => panic!("the policies were loaded"),
        Err(LoadError { problems }) => problems
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n"),
    }
}

/// A cluster, a guardrail and a time to ask in.
pub(crate) struct Setting {
    pub(crate) snapshot: Snapshot,
    pub(crate) guardrail: Guardrail,
    pub(crate) deadline: Option<Instant>,
}

impl Setting {
    /// An empty cluster under the built-in guardrail.
    pub(crate) fn new() -> Self {
        Self::with(&json!({}))
    }

    /// An empty cluster under the built-in guardrail with these sections in the place of its own.
    pub(crate) fn with(sections: &Value) -> Self {
        let mut spec = serde_json::to_value(GuardrailSpec::built_in()).unwrap();
        spec.as_object_mut()
            .unwrap()
            .extend(sections.as_object().unwrap().clone());
        let manifest = json!({"apiVersion": "ringfence.dev/v1alpha1", "kind": "Guardrail", "metadata": {"name": "test"}, "spec": spec});
        Self {
            snapshot: Snapshot::default(),
            guardrail: Guardrail::parse(&manifest).unwrap(),
            deadline: None,
        }
    }

    /// The same with these objects in the cluster.
    pub(crate) fn in_cluster(mut self, objects: &[Value]) -> Self {
        for object in objects {
            self.snapshot = self
                .snapshot
                .with(netpol::parse(object).unwrap().unwrap().object);
        }
        self
    }

    pub(crate) fn ask(&self, engine: &RegoEngine, review: &Review) -> Answers {
        engine.evaluate(&self.question(review))
    }

    pub(crate) fn mutate(&self, engine: &RegoEngine, review: &Review) -> Mutations {
        engine.mutate(&self.question(review))
    }

    fn question<'a>(&'a self, review: &'a Review) -> Question<'a> {
        Question {
            review,
            subject: review.subject().expect("an object"),
            snapshot: &self.snapshot,
            guardrail: &self.guardrail,
            now: "2026-11-21T10:00:00Z".parse().unwrap(),
            deadline: self.deadline,
        }
    }
}

/// The creation of an object.
pub(crate) fn create(object: &Value) -> Review {
    Review::made_of(Operation::Create, Some(Subject::new(object.clone())), None)
}

/// A pod with this name.
pub(crate) fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]},
    })
}

/// What was found, as `id field: message`.
pub(crate) fn found(answers: &Answers) -> Vec<String> {
    answers
        .violations
        .iter()
        .map(|found| format!("{} {}: {}", found.id, found.field, found.message))
        .collect()
}

/// Why policies failed, as `policy: reason`.
pub(crate) fn failed(answers: &Answers) -> Vec<String> {
    answers
        .failures
        .iter()
        .map(|failure| format!("{}: {}", failure.policy, failure.reason))
        .collect()
}
