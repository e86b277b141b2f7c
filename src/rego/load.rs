//! From files to a set of policies that may be evaluated, or every reason why not, each with its place.
//!
//! The order: read, parse, read the metadata, follow the calls, check the ids, compile. A set is made whole or not at
//! all, so what is in force stays in force until there is something better.

mod nesting;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use regorus::Engine;
use regorus::unstable::{Module, Ref};

use super::callgraph::{CallGraph, IsFunction};
use super::metadata::{self, Block, Scope};
use super::trial::Trial;
use super::{MODULE, answer};
use crate::guard::engine::PolicyInfo;
use crate::guard::finding::{FindingId, Severity};
use crate::guard::guardrail::Section;
use crate::guard::registry;

/// One file of policies.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PolicyFile {
    /// The name to show.
    pub path: String,
    /// What is in it.
    pub text: String,
}

/// A place in a file of policies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Place {
    /// The file, as it was given.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1.
    pub column: u32,
}

/// One thing that is wrong with a set of policies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Problem {
    /// Where.
    pub place: Option<Place>,
    /// What is wrong and what to do.
    pub reason: String,
}

/// Why a set of policies cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct LoadError {
    /// Everything that is wrong; never empty.
    pub problems: Vec<Problem>,
}

/// Which policies a set of files holds and what they say about themselves; checked.
pub(super) struct Checked {
    /// The policies, in the order of their packages.
    pub(super) packages: Vec<Package>,
}

/// A package with policies.
pub(super) struct Package {
    /// Its path below `data`.
    pub(super) path: Vec<String>,
    /// Its policies: the one of the package first, then those of its rules.
    pub(super) policies: Vec<Policy>,
    /// Which of `deny`, `warn` and `mutate` it has.
    pub(super) entries: BTreeSet<&'static str>,
    /// The files that are needed to evaluate it.
    pub(super) files: Vec<PolicyFile>,
}

/// What one policy says about itself, completed.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    /// What others may know.
    pub(super) info: PolicyInfo,
    /// Why it matters, where the policy says so.
    pub(super) why: Option<String>,
}

/// Whose policies they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Those that come with Ringfence.
    Ringfence,
    /// A user's own.
    User,
}

/// What one file has of a package.
type Part<'f> = (&'f PolicyFile, &'f Module, Vec<Block>);

/// Largest file.
const MAX_FILE: u64 = 1 << 20;
/// Most files of one folder and the folders below it.
const MAX_FILES: usize = 1_000;
/// The rules that are asked.
const ENTRIES: [&str; 3] = [answer::DENY, answer::WARN, answer::MUTATE];
/// The package that Ringfence's own policies are below, and the one that asks the rules.
const RESERVED: [&str; 2] = ["ringfence", MODULE];

/// Reads the policies of a folder and the folders below it: all files that end in `.rego`.
///
/// Files that end in `_test.rego` are left to [`super::testing`]. Names that begin with a dot are left out: in a
/// mounted `ConfigMap` they are the older versions.
pub fn read_folder(folder: &Path) -> Result<Vec<PolicyFile>, LoadError> {
    read_folder_with(folder, |name| {
        let stem = name.strip_suffix(".rego");
        stem.is_some_and(|stem| !stem.ends_with("_test"))
    })
}

/// Reads the files of a folder and the folders below it whose names are wanted, in the order of their paths.
pub(super) fn read_folder_with(
    folder: &Path,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<PolicyFile>, LoadError> {
    let mut paths = Vec::new();
    let mut open = vec![(folder.to_path_buf(), 0_usize)];
    while let Some((folder, depth)) = open.pop() {
        let cannot = |error: std::io::Error| {
            LoadError::new(format!("cannot read folder {}: {error}", folder.display()))
        };
        for entry in std::fs::read_dir(&folder).map_err(cannot)? {
            let path = entry.map_err(cannot)?.path();
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            if name.starts_with('.') {
                continue;
            }
            // Follows links: a mounted `ConfigMap` is made of them.
            let kind = std::fs::metadata(&path).map_err(cannot)?;
            if kind.is_dir() && depth < 16 {
                open.push((path, depth + 1));
            } else if kind.is_file() && wanted(&name) {
                if kind.len() > MAX_FILE {
                    return Err(LoadError::new(format!(
                        "{} is larger than {MAX_FILE} bytes",
                        path.display()
                    )));
                }
                paths.push(path);
            }
        }
        if paths.len() > MAX_FILES {
            return Err(LoadError::new(format!(
                "{} holds more than {MAX_FILES} policies",
                folder.display()
            )));
        }
    }
    paths.sort();
    paths.into_iter().map(|path| read_file(&path)).collect()
}

fn read_file(path: &PathBuf) -> Result<PolicyFile, LoadError> {
    let text = std::fs::read(path)
        .map_err(|error| LoadError::new(format!("cannot read {}: {error}", path.display())))?;
    let text = String::from_utf8(text)
        .map_err(|error| LoadError::new(format!("{}: {}", path.display(), error.utf8_error())))?;
    Ok(PolicyFile {
        path: path.display().to_string(),
        text,
    })
}

/// Checks a set of files; with a trial first in another process, where it can do no harm.
pub(super) fn check(
    files: &[PolicyFile],
    owner: Owner,
    trial: &Trial,
) -> Result<Checked, LoadError> {
    trial.run(files)?;
    let mut problems = Vec::new();
    let modules = parse(files, &mut problems);
    let packages = packages(files, &modules, owner, &mut problems);
    LoadError::if_any(problems)?;
    Ok(Checked { packages })
}

/// Parses each file by itself, so that every file that is broken is told.
fn parse(files: &[PolicyFile], problems: &mut Vec<Problem>) -> Vec<Ref<Module>> {
    let mut modules = Vec::new();
    let mut seen = BTreeSet::new();
    for file in files {
        if !seen.insert(&file.path) {
            problems.push(Problem::of(format!("{} is given twice", file.path)));
            continue;
        }
        if let Some(problem) = nesting::too_deep(file) {
            problems.push(problem);
            continue;
        }
        let mut engine = Engine::new();
        match engine.add_policy(file.path.clone(), file.text.clone()) {
            Ok(_) => modules.extend(engine.get_modules().iter().cloned()),
            Err(error) => problems.push(Problem::of_evaluator(&error, files)),
        }
    }
    modules
}

fn packages(
    files: &[PolicyFile],
    modules: &[Ref<Module>],
    owner: Owner,
    problems: &mut Vec<Problem>,
) -> Vec<Package> {
    let graph = CallGraph::of(modules);
    let mut by_path: BTreeMap<Vec<String>, Vec<Part<'_>>> = BTreeMap::new();
    for module in modules {
        let path = super::callgraph::package(module);
        let at = super::callgraph::place(&module.package.span);
        if owner == Owner::User
            && path
                .first()
                .is_some_and(|first| RESERVED.contains(&first.as_str()))
        {
            let reason = format!(
                "packages below `{}` are Ringfence's own; take another name",
                path[0]
            );
            problems.push(Problem::at(at.clone(), reason));
        }
        let Some(file) = files.iter().find(|file| file.path == at.file) else {
            continue;
        };
        let (blocks, wrong) = metadata::read(&file.path, &file.text);
        problems.extend(wrong);
        by_path
            .entry(path)
            .or_default()
            .push((file, module, blocks));
    }
    let mut packages = Vec::new();
    let mut ids: BTreeMap<FindingId, Place> = BTreeMap::new();
    for (path, parts) in by_path {
        let rule = |name: &str| {
            path.iter()
                .cloned()
                .chain([name.to_owned()])
                .collect::<Vec<_>>()
        };
        let mut entries = BTreeSet::new();
        for entry in ENTRIES {
            match graph.rule(&rule(entry)) {
                Some(IsFunction::No) => drop(entries.insert(entry)),
                Some(IsFunction::Yes) => {
                    let place = graph.place(&rule(entry)).cloned();
                    let reason =
                        format!("`{entry}` must be a rule, not a function: `{entry} contains …`");
                    problems.push(Problem { place, reason });
                }
                None => {}
            }
        }
        if entries.is_empty() {
            continue;
        }
        let mut policies: Vec<(Block, Policy)> = Vec::new();
        for (file, _, blocks) in &parts {
            policies.extend(
                blocks
                    .iter()
                    .filter_map(|block| policy(block, blocks, file, owner)),
            );
        }
        // The policy of the package is the one that an answer without an id means.
        policies.sort_by_key(|(block, _)| block.scope != Scope::Package);
        if policies.is_empty() {
            let place = parts
                .first()
                .map(|(_, module, _)| super::callgraph::place(&module.package.span));
            let reason = "the package has policies but no id: write above `package` a comment `# METADATA` with \
                          `# title: …` and `# custom:` / `#   id: …`"
                .to_owned();
            problems.push(Problem { place, reason });
        }
        for (block, policy) in &policies {
            check_id(block, policy, owner, &mut ids, problems);
        }
        let needed = graph.files_of(&path);
        packages.push(Package {
            files: files
                .iter()
                .filter(|file| needed.contains(&file.path))
                .cloned()
                .collect(),
            policies: policies.into_iter().map(|(_, policy)| policy).collect(),
            path,
            entries,
        });
    }
    problems.extend(graph.problems());
    packages
}

/// The policy that a block tells of; none for one that tells of something else.
fn policy(
    block: &Block,
    blocks: &[Block],
    file: &PolicyFile,
    owner: Owner,
) -> Option<(Block, Policy)> {
    let id = block.id.as_ref()?;
    // What a rule does not say of itself, its package says.
    let package = blocks.iter().find(|block| block.scope == Scope::Package);
    let inherited =
        |read: fn(&Block) -> Option<String>| read(block).or_else(|| package.and_then(read));
    let info = PolicyInfo {
        id: FindingId::from(id.as_str()),
        title: block.title.clone().unwrap_or_default(),
        description: inherited(|block| block.description.clone()).unwrap_or_default(),
        severity: block
            .severity
            .or(package.and_then(|package| package.severity))
            .unwrap_or(Severity::Medium),
        owner: inherited(|block| block.owner.clone()),
        section: block
            .section
            .or(package.and_then(|package| package.section))
            .unwrap_or(Section::Policies),
        file: if owner == Owner::Ringfence {
            String::new()
        } else {
            file.path.clone()
        },
    };
    Some((
        block.clone(),
        Policy {
            info,
            why: inherited(|block| block.why.clone()),
        },
    ))
}

fn check_id(
    block: &Block,
    policy: &Policy,
    owner: Owner,
    ids: &mut BTreeMap<FindingId, Place>,
    problems: &mut Vec<Problem>,
) {
    let id = &policy.info.id;
    let mut refuse = |reason: String| problems.push(Problem::at(block.id_place.clone(), reason));
    if policy.info.title.is_empty() {
        refuse(format!("the policy `{id}` has no `title`"));
    }
    if owner == Owner::User && is_reserved(id.as_str()) {
        refuse(format!(
            "ids such as `{id}` (`RF` and digits) are Ringfence's own; take another prefix"
        ));
    }
    if registry::CHECKS.iter().any(|check| check.id == id.as_str()) {
        refuse(format!("the id `{id}` is that of a check that is built in"));
    }
    if let Some(first) = ids.get(id) {
        refuse(format!(
            "the id `{id}` is taken by {}:{}",
            first.file, first.line
        ));
    } else {
        ids.insert(id.clone(), block.id_place.clone());
    }
}

fn is_reserved(id: &str) -> bool {
    let digits = id
        .get(..2)
        .filter(|prefix| prefix.eq_ignore_ascii_case("RF"))
        .and(id.get(2..));
    digits.is_some_and(|digits| {
        !digits.is_empty() && digits.chars().all(|digit| digit.is_ascii_digit())
    })
}

// === impl Problem ===

impl Problem {
    pub(super) fn at(place: Place, reason: impl Into<String>) -> Self {
        Self {
            place: Some(place),
            reason: reason.into(),
        }
    }

    pub(super) fn of(reason: impl Into<String>) -> Self {
        Self {
            place: None,
            reason: reason.into(),
        }
    }

    /// What the evaluator says, which prints a picture: `--> file:line:column`, the line, and last the reason.
    pub(super) fn of_evaluator(error: &anyhow::Error, files: &[PolicyFile]) -> Self {
        let text = format!("{error:#}");
        let reason = match text.rsplit_once("error: ") {
            Some((_, reason)) => reason.trim().to_owned(),
            None => text.trim().to_owned(),
        };
        let place = text.rsplit_once("--> ").and_then(|(_, rest)| {
            let mut parts = rest.lines().next()?.rsplitn(3, ':');
            let (column, line) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            Some(Place {
                file: parts.next()?.to_owned(),
                line,
                column,
            })
        });
        // A tab counts as four columns there and as one in an editor.
        let place = place.map(|place| {
            let line = files
                .iter()
                .find(|file| file.path == place.file)
                .and_then(|file| {
                    file.text
                        .lines()
                        .nth(usize::try_from(place.line).ok()?.checked_sub(1)?)
                });
            let tabs = line.map_or(0, |line| {
                line.chars().take_while(|letter| *letter == '\t').count()
            });
            let wider = u32::try_from(tabs.saturating_mul(3)).unwrap_or(0);
            Place {
                column: place.column.saturating_sub(wider).max(1),
                ..place
            }
        });
        Self { place, reason }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(Place { file, line, column }) => {
                write!(f, "{file}:{line}:{column}: {}", self.reason)
            }
            None => f.write_str(&self.reason),
        }
    }
}

// === impl LoadError ===

impl LoadError {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self {
            problems: vec![Problem::of(reason)],
        }
    }

    pub(super) fn if_any(mut problems: Vec<Problem>) -> Result<(), Self> {
        problems.sort();
        problems.dedup();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Self { problems })
        }
    }
}

#[cfg(test)]
mod tests;
