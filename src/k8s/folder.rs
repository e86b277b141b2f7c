//! A folder of manifests as if it were a cluster: what the model holds of it, and what is demanded in it.
//!
//! The command line judges the objects of such a folder; the webhook without a cluster judges others against it.
//! Guardrails, exemptions and reachability rules that lie among the manifests are read with them, as a cluster would hold them.

pub use doubts::Doubt;

use std::collections::HashMap;

use rayon::prelude::*;

use crate::guard::enforcement::confirmed::Confirmation;
use crate::guard::exemption::Exemption;
use crate::guard::guardrail::Guardrail;
use crate::guard::reachability::ReachabilityRule;
use crate::guard::review::{Kind, Review};
use crate::k8s::manifests::{self, Input, Problem, Source};
use crate::k8s::yaml::{Limits, Places};
use crate::netpol::{FieldPath, Object, ObjectKey, Snapshot};
use crate::report::Location;

mod doubts;
mod gaps;

/// One manifest, ready to be judged, and where it stands.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The manifest, as a request to create it.
    pub review: Review,
    /// Which object of which file it is.
    pub source: Source,
    /// Where its fields stand.
    pub places: Places,
}

/// What a folder holds.
#[derive(Clone, Debug, Default)]
pub struct Folder {
    /// The objects, in the order of the files.
    pub objects: Vec<Placed>,
    /// What the model holds of them.
    pub snapshot: Snapshot,
    /// The guardrails among them that are good.
    pub guardrails: Vec<Guardrail>,
    /// The exemptions among them that are good.
    pub exemptions: Vec<Exemption>,
    /// The reachability rules among them that are good.
    pub rules: Vec<ReachabilityRule>,
    /// The receipts of nodes among them.
    pub receipts: Vec<Confirmation>,
    /// What is to be told about the files.
    pub problems: Vec<Problem>,
    /// How many files were read.
    pub files: usize,
    /// How many documents are no Kubernetes objects and were passed over.
    pub passed_over: usize,
    /// Whether a kustomization would change what is written.
    pub is_unbuilt: bool,
    /// How many charts are to be rendered first.
    pub charts: usize,
}

/// An object that is not as its kind wants it, where everything must be.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct FolderError {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

/// Reads everything; what is wrong with single files or objects is told beside it.
pub fn read(inputs: Vec<Input>, limits: &Limits) -> Folder {
    let loaded = manifests::load(inputs, limits);
    let objects: Vec<Placed> = loaded
        .manifests
        .into_par_iter()
        .map(|manifest| Placed {
            review: Review::of_manifest(manifest.value),
            source: manifest.source,
            places: manifest.places,
        })
        .collect();
    let mut folder = Folder {
        problems: loaded.problems,
        files: loaded.files,
        passed_over: loaded.passed_over,
        is_unbuilt: loaded.is_unbuilt,
        charts: loaded.charts,
        ..Folder::default()
    };
    for placed in &objects {
        match placed.review.object.as_ref().map(|subject| &subject.parsed) {
            Some(Kind::Model(parsed)) => folder.snapshot.insert(parsed.object.clone()),
            Some(Kind::Guardrail(guardrail)) => folder.guardrails.push((**guardrail).clone()),
            Some(Kind::Exemption(exemption)) => folder.exemptions.push((**exemption).clone()),
            Some(Kind::ReachabilityRule(rule)) => folder.rules.push((**rule).clone()),
            Some(Kind::NodeEnforcement(receipt)) => folder.receipts.push((**receipt).clone()),
            Some(Kind::Other | Kind::Invalid(_)) | None => {}
        }
    }
    folder.objects = objects;
    folder
}

// === impl Folder ===

impl Folder {
    /// The first thing in it that keeps it from being relied on: a file that cannot be read, an object that does not parse.
    pub fn first_error(&self) -> Option<FolderError> {
        let unreadable = self
            .problems
            .iter()
            .filter(|problem| problem.fatal)
            .map(|problem| FolderError {
                file: problem.file.to_string(),
                line: problem.line,
                column: problem.column,
                message: problem.message.clone(),
            });
        let invalid =
            self.objects
                .iter()
                .filter_map(|placed| match &placed.review.object.as_ref()?.parsed {
                    Kind::Invalid(error) => {
                        let problem = error.problems.first()?;
                        let place = placed.places.place(&problem.field);
                        Some(FolderError {
                            file: placed.source.file.to_string(),
                            line: place.line,
                            column: place.column,
                            message: format!(
                                "{}: {}: {}",
                                placed.review.object_ref(),
                                problem.field,
                                problem.reason
                            ),
                        })
                    }
                    Kind::Model(_)
                    | Kind::Guardrail(_)
                    | Kind::Exemption(_)
                    | Kind::ReachabilityRule(_)
                    | Kind::NodeEnforcement(_)
                    | Kind::Other => None,
                });
        unreadable.chain(invalid).next()
    }

    /// The first object that says something else than another one of the same kind and name: which of the two counts
    /// nobody knows.
    pub fn first_contradiction(&self) -> Option<FolderError> {
        let mut known: HashMap<ObjectKey, (&Placed, &Object)> = HashMap::new();
        self.objects.iter().find_map(|placed| {
            let Kind::Model(parsed) = &placed.review.object.as_ref()?.parsed else {
                return None;
            };
            let object = &parsed.object;
            let (before, same) = *known.entry(object.key()).or_insert((placed, object));
            if same == object {
                return None;
            }
            let root = FieldPath::root();
            let (place, other) = (placed.places.place(&root), before.places.place(&root));
            Some(FolderError {
                file: placed.source.file.to_string(),
                line: place.line,
                column: place.column,
                message: format!(
                    "{} is there twice with different content, also at {}:{}; give one of them",
                    placed.review.object_ref(),
                    before.source.file,
                    other.line
                ),
            })
        })
    }
}

// === impl Placed ===

impl Placed {
    /// Where a field of it stands.
    pub fn location(&self, field: &FieldPath) -> Location {
        self.places.text().location(&self.places.place(field))
    }
}
