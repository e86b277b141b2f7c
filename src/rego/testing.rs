//! Tests of policies: `test_` rules beside them, and data files of cases.
//!
//! A file that ends in `.cases.yaml` has a list of `cases`; each is an object, what is around it, and what the policies
//! are to find. Whatever a policy offers as a fix is tried as well: the finding must be gone afterwards.

mod cases;
mod rules;

use std::path::PathBuf;
use std::time::Duration;

use super::engine::{PolicySet, RegoEngine};
use super::load::{LoadError, PolicyFile, Problem, read_folder, read_folder_with};
use super::pack;
use super::trial::Trial;

/// Whose policies are tested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Those that come with Ringfence.
    BuiltIn,
    /// Those of some folders, together.
    Folders(Vec<PathBuf>),
}

/// One test and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TestResult {
    /// The file that it is in.
    pub file: String,
    /// The line that it starts at.
    pub line: u32,
    /// The name of the rule, or the note of the case.
    pub name: String,
    /// Why it did not pass; each line is one thing that differs. Empty: it passed.
    pub failures: Vec<String>,
    /// What the policy printed.
    pub prints: Vec<String>,
    /// How long it took.
    #[serde(skip)]
    pub time: Duration,
}

/// Runs all tests of a source, telling of each as it ends.
pub fn run(
    source: &Source,
    trial: &Trial,
    tell: &mut dyn FnMut(&TestResult),
) -> Result<Vec<TestResult>, LoadError> {
    let (policies, tests, cases, set) = match source {
        Source::BuiltIn => (
            pack::files(),
            Vec::new(),
            pack::cases(),
            PolicySet::built_in()?,
        ),
        Source::Folders(folders) => {
            let (mut policies, mut tests, mut cases) = (Vec::new(), Vec::new(), Vec::new());
            for folder in folders {
                policies.extend(read_folder(folder)?);
                tests.extend(read_folder_with(folder, |name| {
                    name.ends_with("_test.rego")
                })?);
                cases.extend(read_folder_with(folder, |name| {
                    name.ends_with(".cases.yaml")
                })?);
            }
            let set = PolicySet::only(&policies, trial)?;
            (policies, tests, cases, set)
        }
    };
    let engine = RegoEngine::new(set);
    let mut results = Vec::new();
    let mut tell = |result: TestResult| {
        tell(&result);
        results.push(result);
    };
    let files: Vec<PolicyFile> = policies.into_iter().chain(tests).collect();
    rules::run(&files, &mut tell)?;
    let mut problems = Vec::new();
    for file in &cases {
        match cases::Cases::read(file) {
            Ok(cases) => cases.run(&engine, &mut tell),
            Err(problem) => problems.push(problem),
        }
    }
    LoadError::if_any(problems)?;
    if results.is_empty() {
        return Err(LoadError {
            problems: vec![Problem::of(
                "no tests: no `test_` rule and no file `*.cases.yaml`",
            )],
        });
    }
    Ok(results)
}

impl TestResult {
    /// Whether it passed.
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }
}

#[cfg(test)]
mod tests;
