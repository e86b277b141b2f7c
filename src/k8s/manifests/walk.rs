//! The files to read: folders walked in the order of their names, with what Helm and Kustomize make of them.
//!
//! Hidden files and folders are left out, and nothing else: what Git ignores may well be applied. Links are
//! followed, for that is how a folder mounted from the cluster looks; a file that is reached twice is read once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::{Error, WalkBuilder};
use serde_json::Value;

use crate::k8s::yaml::{self, Limits, Text};

use super::{Input, Problem, describe, shown};

/// What to read, and what is to be told of the search.
#[derive(Default)]
pub(super) struct Walk {
    pub(super) files: Vec<Found>,
    pub(super) problems: Vec<Problem>,
    /// Whether a kustomization would change what is written.
    pub(super) is_unbuilt: bool,
    /// Whether a file may have been reached twice.
    has_links: bool,
    /// What was found out about folders that may be charts.
    charts: BTreeMap<PathBuf, bool>,
    /// The files that Kustomize makes objects with, but that are none themselves.
    parts: BTreeSet<PathBuf>,
}

/// One file to read.
pub(super) struct Found {
    /// The name to show.
    pub(super) name: String,
    pub(super) content: Content,
    /// Whether the user named the file itself, and not a folder above it.
    pub(super) is_named: bool,
    /// The Helm chart whose template it may be.
    pub(super) chart: Option<PathBuf>,
}

pub(super) enum Content {
    Path(PathBuf),
    Bytes(Vec<u8>),
}

/// The files of all inputs, in their order.
pub(super) fn files(inputs: Vec<Input>) -> Walk {
    let mut walk = Walk::default();
    let has_several = inputs.len() > 1;
    for input in inputs {
        match input {
            Input::Bytes { name, bytes } => {
                walk.files.push(Found {
                    name,
                    content: Content::Bytes(bytes),
                    is_named: true,
                    chart: None,
                });
            }
            Input::Path(path) => match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => walk.folder(&path),
                Ok(_) => walk.add(path, true),
                Err(error) => {
                    walk.problems.push(Problem::of_file(
                        shown(&path),
                        format!("cannot be read: {}", describe(&error)),
                    ));
                }
            },
        }
    }
    if has_several || walk.has_links || !walk.parts.is_empty() {
        walk.leave_out_repeated();
    }
    walk
}

/// What is told once for the templates of a chart.
pub(super) fn unrendered_chart(chart: &Path, count: usize) -> Problem {
    let templates = if count == 1 {
        "one template"
    } else {
        &format!("{count} templates")
    };
    let message =
        format!("{templates} of this Helm chart cannot be checked before Helm has rendered them");
    Problem {
        help: Some(format!(
            "check what is made of them: `helm template {} | ringfence check -`",
            argument(chart)
        )),
        fatal: false,
        ..Problem::of_file(shown(&chart.join("Chart.yaml")), message)
    }
}

impl Walk {
    fn folder(&mut self, folder: &Path) {
        let entries = WalkBuilder::new(folder)
            .standard_filters(false)
            .hidden(true)
            .follow_links(true)
            .sort_by_file_name(Ord::cmp)
            .build();
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.problems.extend(problem_of(&error, folder));
                    continue;
                }
            };
            self.has_links |= entry.path_is_symlink();
            if !entry.file_type().is_some_and(|kind| kind.is_file()) {
                continue;
            }
            let path = entry.into_path();
            if is_kustomization(&path) {
                self.kustomization(&path);
            } else if is_manifest(&path) {
                self.add(path, false);
            }
        }
    }

    fn add(&mut self, path: PathBuf, is_named: bool) {
        let chart = self.chart_of(&path);
        self.files.push(Found {
            name: shown(&path),
            content: Content::Path(path),
            is_named,
            chart,
        });
    }

    /// The chart that a file is a template of: the folder above a `templates` folder, with a `Chart.yaml`.
    fn chart_of(&mut self, path: &Path) -> Option<PathBuf> {
        let folders = path
            .ancestors()
            .skip(1)
            .filter(|folder| folder.file_name().is_some_and(|name| name == "templates"));
        for folder in folders {
            let chart = match folder.parent() {
                Some(chart) if chart.as_os_str().is_empty() => Path::new("."),
                Some(chart) => chart,
                None => continue,
            };
            let is_chart = *self
                .charts
                .entry(chart.to_owned())
                .or_insert_with(|| chart.join("Chart.yaml").is_file());
            if is_chart {
                return Some(chart.to_owned());
            }
        }
        None
    }

    /// Notes which files are only parts of objects, and tells what the kustomization changes unseen.
    fn kustomization(&mut self, path: &Path) {
        let folder = path.parent().unwrap_or(Path::new("."));
        let limits = Limits::default();
        let Some(value) = fs::read(path)
            .ok()
            .and_then(|bytes| Text::from_bytes(shown(path), bytes).ok())
            .and_then(|text| {
                yaml::read(&Arc::new(text), &limits)
                    .documents
                    .into_iter()
                    .next()
                    .map(|document| document.value)
            })
        else {
            let message =
                "this kustomization cannot be read; its patches are taken for objects".to_owned();
            self.problems.push(Problem {
                fatal: false,
                ..Problem::of_file(shown(path), message)
            });
            return;
        };
        self.parts.extend(
            parts(&value)
                .into_iter()
                .filter_map(|part| folder.join(part).canonicalize().ok()),
        );
        let unseen: Vec<&str> = changes(&value).collect();
        if !unseen.is_empty() {
            self.is_unbuilt = true;
            let message = format!(
                "the files here are checked as they are; what this kustomization changes is not seen: {}",
                unseen.join(", ")
            );
            let help = format!(
                "check what is made of them: `kustomize build {} | ringfence check -`",
                argument(folder)
            );
            let problem = Problem {
                help: Some(help),
                fatal: false,
                ..Problem::of_file(shown(path), message)
            };
            self.problems.push(problem);
        }
    }

    fn leave_out_repeated(&mut self) {
        let mut seen = BTreeSet::new();
        let parts = &self.parts;
        self.files.retain(|file| match &file.content {
            Content::Bytes(_) => true,
            // A path that cannot be resolved is a stream, or fails when it is read.
            Content::Path(path) => path.canonicalize().map_or(true, |path| {
                (file.is_named || !parts.contains(&path)) && seen.insert(path)
            }),
        });
    }
}

/// A failure of the walk; a link to a folder above is none, for that folder is being walked.
fn problem_of(error: &Error, folder: &Path) -> Option<Problem> {
    let mut path = folder;
    let mut inner = error;
    loop {
        match inner {
            Error::WithPath { path: at, err } => {
                path = at;
                inner = err;
            }
            Error::WithDepth { err, .. } | Error::WithLineNumber { err, .. } => inner = err,
            Error::Loop { .. } => return None,
            Error::Io(error) => {
                return Some(Problem::of_file(
                    shown(path),
                    format!("cannot be read: {}", describe(error)),
                ));
            }
            other => {
                return Some(Problem::of_file(
                    shown(path),
                    format!("cannot be read: {other}"),
                ));
            }
        }
    }
}

fn is_manifest(path: &Path) -> bool {
    path.extension()
        .and_then(|extension| extension.to_str())
        .is_some_and(|extension| {
            ["yaml", "yml", "json"]
                .iter()
                .any(|known| extension.eq_ignore_ascii_case(known))
        })
}

fn is_kustomization(path: &Path) -> bool {
    path.file_name().is_some_and(|name| {
        ["kustomization.yaml", "kustomization.yml", "Kustomization"]
            .iter()
            .any(|known| name == *known)
    })
}

/// The files that a kustomization names and that are no objects.
fn parts<'v>(kustomization: &'v Value) -> Vec<&'v str> {
    const LISTS: [&str; 6] = [
        "patchesStrategicMerge",
        "transformers",
        "generators",
        "validators",
        "configurations",
        "crds",
    ];
    const LISTS_OF_PATHS: [&str; 3] = ["patches", "patchesJson6902", "replacements"];
    const GENERATORS: [&str; 2] = ["configMapGenerator", "secretGenerator"];

    let list = |value: &'v Value, field: &str| {
        value
            .get(field)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
    };
    let listed = LISTS
        .iter()
        .flat_map(|field| list(kustomization, field))
        .filter_map(Value::as_str);
    let patched = LISTS_OF_PATHS
        .iter()
        .flat_map(|field| list(kustomization, field))
        .filter_map(|patch| patch.get("path").and_then(Value::as_str));
    let generated = GENERATORS
        .iter()
        .flat_map(|field| list(kustomization, field))
        .flat_map(|generator| list(generator, "files").chain(list(generator, "envs")))
        .filter_map(Value::as_str)
        .map(|file| file.split_once('=').map_or(file, |(_, path)| path));
    listed.chain(patched).chain(generated).collect()
}

/// What a kustomization does to the objects beside it.
fn changes(kustomization: &Value) -> impl Iterator<Item = &str> {
    const HARMLESS: [&str; 6] = [
        "apiVersion",
        "kind",
        "metadata",
        "resources",
        "bases",
        "crds",
    ];
    let fields = kustomization
        .as_object()
        .into_iter()
        .flat_map(|fields| fields.keys());
    fields
        .map(String::as_str)
        .filter(|field| !HARMLESS.contains(field))
}

/// A path for a shell.
fn argument(path: &Path) -> String {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let path = path.to_string_lossy();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+@:,".contains(&byte);
    if path.bytes().all(is_plain) {
        path.into_owned()
    } else {
        format!("'{}'", path.replace('\'', r"'\''"))
    }
}
