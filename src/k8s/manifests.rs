//! Files, folders and streams to Kubernetes objects, each with the place of every field.
//!
//! `walk` finds the files, each file is read by itself and on its own thread, `objects` makes objects of its
//! documents. The order of what comes out is that of the arguments and, within a folder, of the names.
//! What is no Kubernetes object is passed over in folders, where other YAML lies as well, and named elsewhere.
//! What has to be rendered first, Helm's templates and what Kustomize patches, is named with the command to do so.

mod objects;
mod walk;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use serde_json::Value;

use crate::guard::finding::{FindingId, Severity};
use crate::guard::registry;
use crate::k8s::yaml::{self, Limits, Place, Places, Text};
use crate::netpol::FieldPath;
use crate::report;

/// Where manifests come from.
#[derive(Clone, Debug)]
pub enum Input {
    /// A file, or a folder with all that is below it.
    Path(PathBuf),
    /// Bytes that were read elsewhere: standard input.
    Bytes {
        /// The name to show.
        name: String,
        /// The bytes.
        bytes: Vec<u8>,
    },
}

/// One Kubernetes object as it was written.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Which object of which file it is.
    pub source: Source,
    /// The object, as `kubectl` would send it.
    pub value: Value,
    /// Where its fields stand.
    pub places: Places,
}

/// Which object of which file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The path as given or found, or the name of the stream.
    pub file: Arc<str>,
    /// Which document of the file, from 1, those left out that are empty or cannot be read.
    pub document: usize,
    /// Which item of the document, from 0, if that is a list.
    pub item: Option<usize>,
}

/// Something about a file that is to be told.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The id of the check that it falls under.
    pub id: &'static str,
    /// The path as given or found, or the name of the stream.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// What is wrong, in one line.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Whether something that was to be checked is not, for it could not be read.
    pub fatal: bool,
    /// The text and the place in it, where the file could be read at all.
    pub excerpt: Option<(Arc<Text>, Place)>,
}

/// All that was found.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The objects, in order.
    pub manifests: Vec<Manifest>,
    /// What is to be told about the files, in order.
    pub problems: Vec<Problem>,
    /// How many files were read.
    pub files: usize,
    /// How many documents in folders are no Kubernetes objects and were passed over.
    pub passed_over: usize,
    /// Whether a kustomization would change what is written.
    pub is_unbuilt: bool,
    /// How many charts are to be rendered first.
    pub charts: usize,
}

/// Reads everything; never fails as a whole.
pub fn load(inputs: Vec<Input>, limits: &Limits) -> Loaded {
    let walk = walk::files(inputs);
    let read: Vec<FileContent> = walk
        .files
        .into_par_iter()
        .map(|file| read(file, limits))
        .collect();

    let mut loaded = Loaded {
        problems: walk.problems,
        is_unbuilt: walk.is_unbuilt,
        ..Loaded::default()
    };
    let mut charts: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for content in read {
        loaded.files += 1;
        loaded.manifests.extend(content.manifests);
        loaded.problems.extend(content.problems);
        loaded.passed_over += content.passed_over;
        if let Some(chart) = content.template_of {
            *charts.entry(chart).or_default() += 1;
        }
    }
    loaded.charts = charts.len();
    loaded.problems.extend(
        charts
            .iter()
            .map(|(chart, count)| walk::unrendered_chart(chart, *count)),
    );
    loaded
}

impl Input {
    /// Reads a stream to its end, or one byte past the limit, which is refused later with the others.
    pub fn read(name: impl Into<String>, stream: impl Read, limits: &Limits) -> io::Result<Self> {
        Ok(Self::Bytes {
            name: name.into(),
            bytes: read_bounded(stream, limits)?,
        })
    }
}

impl Manifest {
    /// The place of a field; of one that is not there, the place of what it should be in.
    pub fn place(&self, field: &FieldPath) -> Place {
        self.places.place(field)
    }

    /// The text of the file.
    pub fn text(&self) -> &Arc<Text> {
        self.places.text()
    }
}

impl Problem {
    /// The same for a report.
    pub fn report(&self) -> report::Problem {
        let severity = registry::CHECKS
            .iter()
            .find(|check| check.id == self.id)
            .map_or(Severity::High, |check| check.severity);
        report::Problem {
            id: FindingId::from(self.id),
            severity,
            location: match &self.excerpt {
                Some((text, place)) => text.location(place),
                None => report::Location::of_file(Arc::clone(&self.file)),
            },
            message: self.message.clone(),
            help: self.help.clone(),
            fatal: self.fatal,
        }
    }

    /// A problem of a file as a whole.
    fn of_file(file: impl Into<Arc<str>>, message: String) -> Self {
        Self {
            id: registry::UNREADABLE.id,
            file: file.into(),
            line: 1,
            column: 1,
            message,
            help: None,
            fatal: true,
            excerpt: None,
        }
    }

    /// A problem at a place.
    fn at(id: &'static str, text: &Arc<Text>, place: Place, message: String) -> Self {
        Self {
            id,
            file: Arc::clone(text.name()),
            line: place.line,
            column: place.column,
            message,
            help: None,
            fatal: false,
            excerpt: Some((Arc::clone(text), place)),
        }
    }
}

/// What one file holds.
#[derive(Default)]
struct FileContent {
    manifests: Vec<Manifest>,
    problems: Vec<Problem>,
    passed_over: usize,
    /// The chart whose template the file is; it was not read then.
    template_of: Option<PathBuf>,
}

fn read(file: walk::Found, limits: &Limits) -> FileContent {
    let bytes = match file.content {
        walk::Content::Bytes(bytes) => Ok(bytes),
        walk::Content::Path(path) => File::open(&path).and_then(|file| read_bounded(file, limits)),
    };
    let text = match bytes {
        Ok(bytes) => Text::from_bytes(file.name, bytes),
        Err(error) => {
            let problem =
                Problem::of_file(file.name, format!("cannot be read: {}", describe(&error)));
            return FileContent {
                problems: vec![problem],
                ..FileContent::default()
            };
        }
    };
    let text = match text {
        Ok(text) => Arc::new(text),
        Err(not_text) => {
            let before = Arc::new(not_text.before);
            let mut content = FileContent::default();
            content
                .problems
                .push(objects::unreadable(&before, &not_text.fault, file.is_named));
            return content;
        }
    };
    if let Some(chart) = file.chart
        && text.as_str().contains("{{")
    {
        return FileContent {
            template_of: Some(chart),
            ..FileContent::default()
        };
    }
    objects::of(&text, yaml::read(&text, limits), file.is_named)
}

/// One byte more than is allowed is enough to see that there is too much.
fn read_bounded(stream: impl Read, limits: &Limits) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream
        .take(limits.bytes as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// An error of the system in words, without its number.
fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file or folder".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// A path to show: as given, without a leading `./`.
fn shown(path: &Path) -> String {
    let path = path
        .strip_prefix(".")
        .ok()
        .filter(|path| !path.as_os_str().is_empty())
        .unwrap_or(path);
    path.to_string_lossy().into_owned()
}
