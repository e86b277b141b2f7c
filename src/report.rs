//! Findings in the formats that people and programs read: one file per format.
//!
//! A [`Report`] holds all that a run found, with the place of each finding and the line that stands there, and
//! each format is a function from it to text. Pure: the text is printed, and its colours are chosen, elsewhere.
// A panic in a gatekeeper is an outage or a hole; tests may still say `expect`.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unwrap_used
    )
)]

pub mod access;
pub mod cuts;
pub mod diff;
pub mod github;
pub mod json;
pub mod junit;
pub mod policy_report;
pub mod reach;
pub mod register;
pub mod replay;
pub mod sarif;
pub mod staged;
pub mod text;
pub mod why;
pub mod yaml;

mod excerpt;
mod summary;
#[cfg(test)]
mod testing;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::guard::baseline::Observed;
use crate::guard::decide::Judged;
use crate::guard::engine::PolicyInfo;
use crate::guard::finding::{FindingId, ObjectRef, Severity};
use crate::guard::mode::Mode;

pub use excerpt::Excerpt;
pub use summary::Summary;

/// So many of something, in words.
pub fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// All that a run found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The objects that were judged, in the order of the files.
    pub objects: Vec<Checked>,
    /// What is to be told about the files themselves.
    pub problems: Vec<Problem>,
    /// Where the objects come from.
    pub place: Place,
    /// How many files were read.
    pub files: usize,
    /// How many documents are no Kubernetes objects and were passed over.
    pub passed_over: usize,
    /// What baselines would cut of recorded flows, where there are records.
    pub cuts: Option<Observed>,
    /// How long it took, where that is to be told.
    pub elapsed: Option<Duration>,
    /// What is known of the checks.
    pub checks: Vec<PolicyInfo>,
}

/// Where the objects of a report come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Files.
    #[default]
    Files,
    /// A cluster; nothing in it has a line.
    Cluster,
}

/// One object with what was found in it.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The object.
    pub object: ObjectRef,
    /// Where it begins.
    pub location: Location,
    /// What was found in it, the gravest first.
    pub findings: Vec<Located>,
}

/// A finding with its place.
#[derive(Clone, Debug)]
pub struct Located {
    /// The finding and what follows from it.
    pub judged: Judged,
    /// Where its field stands, or where it should stand.
    pub location: Location,
}

/// Something about a file that is to be told.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The check that it falls under.
    pub id: FindingId,
    /// How much it matters.
    pub severity: Severity,
    /// Where it is.
    pub location: Location,
    /// What is wrong, in one line.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Whether something was not checked because of it.
    pub fatal: bool,
}

/// A place in a file, never longer than a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The path as given or found, or `<stdin>`.
    pub file: Arc<str>,
    /// The line, from 1; 0 where there are no lines.
    pub line: usize,
    /// The column of the first character, from 1, in characters.
    pub column: usize,
    /// The column after the last character.
    pub end_column: usize,
    /// What stands there, where the file could be read.
    pub excerpt: Option<Excerpt>,
}

/// What becomes of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// An exemption lets it off.
    Exempted,
    /// It is recorded and told to nobody.
    Recorded,
    /// It passes with a warning.
    Warned,
    /// It is refused.
    Refused,
}

// === impl Report ===

impl Report {
    /// Every finding with its object, in the order of the files.
    pub fn findings(&self) -> impl Iterator<Item = (&Checked, &Located)> {
        self.objects.iter().flat_map(|checked| {
            checked
                .findings
                .iter()
                .map(move |located| (checked, located))
        })
    }

    /// What there is of everything.
    pub fn summary(&self) -> Summary {
        Summary::of(self)
    }
}

// === impl Located ===

impl Located {
    /// What becomes of it.
    pub fn outcome(&self) -> Outcome {
        if self.judged.exemption.is_some() {
            return Outcome::Exempted;
        }
        match self.judged.mode {
            Mode::Audit => Outcome::Recorded,
            Mode::Warn => Outcome::Warned,
            Mode::Enforce => Outcome::Refused,
        }
    }
}

// === impl Problem ===

impl Problem {
    /// What becomes of it: what cannot be read counts as refused, for nobody can say that it is right.
    pub fn outcome(&self) -> Outcome {
        if self.fatal {
            Outcome::Refused
        } else {
            Outcome::Warned
        }
    }
}

// === impl Location ===

impl Location {
    /// The beginning of a file that could not be read.
    pub fn of_file(file: impl Into<Arc<str>>) -> Self {
        Self {
            file: file.into(),
            line: 1,
            column: 1,
            end_column: 1,
            excerpt: None,
        }
    }

    /// A namespace of a cluster, or the cluster itself: what is there has no lines.
    pub fn of_cluster(namespace: Option<&str>) -> Self {
        let file = namespace.map_or_else(
            || "<cluster>".to_owned(),
            |namespace| format!("<namespaces/{namespace}>"),
        );
        Self {
            line: 0,
            column: 0,
            end_column: 0,
            ..Self::of_file(file)
        }
    }

    /// Whether it is a path, and not the name of a stream.
    pub fn is_path(&self) -> bool {
        !self.file.starts_with('<')
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}:{}", self.file, self.column),
        }
    }
}

// === impl Outcome ===

impl Outcome {
    /// The name as it stands in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exempted => "exempted",
            Self::Recorded => "recorded",
            Self::Warned => "warned",
            Self::Refused => "refused",
        }
    }
}
