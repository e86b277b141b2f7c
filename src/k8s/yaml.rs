//! The text of one file to documents: values as `kubectl` would send them, and the place of every field.
//!
//! `kubectl` reads a file as a stream of JSON objects when it starts with `{`, and otherwise cuts it at lines
//! that start with `---` and reads each piece with `sigs.k8s.io/yaml`. The same is done here: [`read`] cuts,
//! `json` and `stream` turn a piece into events, and one `builder` makes values and places of them.
//! Scalars, merge keys and duplicate keys follow the Go library, not YAML 1.2; `tests/data/yaml/kubectl.json`
//! holds its answers.
//!
//! Whatever the bytes are, the answer is documents and faults: nothing here panics, recurses or grows without bound.

mod builder;
mod fault;
mod json;
mod places;
mod scalar;
mod source;
mod stream;
mod text;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde_json::Value;

pub use builder::Duplicate;
pub use fault::{Fault, FaultKind};
pub use places::Places;
pub use text::{NotText, Place, Text};

/// How much one file may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in one file.
    pub bytes: usize,
    /// Values in one file, with what aliases repeat; a long string counts more than once.
    pub values: usize,
    /// Values that the aliases of one document may repeat.
    pub aliased: usize,
    /// Collections inside one another.
    pub depth: usize,
}

/// What a text holds.
#[derive(Debug, Default)]
pub struct Reading {
    /// The documents that could be read, in the order of the text, without the empty ones.
    pub documents: Vec<Document>,
    /// Why the others could not, in the order of the text.
    pub faults: Vec<Fault>,
}

/// One YAML document or JSON value.
#[derive(Debug)]
pub struct Document {
    /// Its value, never null.
    pub value: Value,
    /// Where each of its fields stands.
    pub places: Places,
    /// Keys that are written twice in one mapping; the last one counts.
    pub duplicates: Vec<Duplicate>,
}

/// The documents of a text. A fault in one document leaves the others readable.
pub fn read(text: &Arc<Text>, limits: &Limits) -> Reading {
    let source = text.as_str();
    if source.len() > limits.bytes {
        return Reading::failed(
            FaultKind::TooLarge {
                limit: limits.bytes,
            },
            0..0,
        );
    }
    let budget = Budget::new(limits);
    let start = if source.starts_with('\u{feff}') {
        '\u{feff}'.len_utf8()
    } else {
        0
    };

    let mut reading = Reading::default();
    let (rest, json_fault) = json::read(text, start, limits, &budget, &mut reading);
    if let Some(rest) = rest {
        let pieces = pieces(source, rest);
        let mut read: Vec<Reading> = if pieces.len() > 1 && source.len() > WORTH_A_THREAD {
            pieces
                .into_par_iter()
                .map(|piece| stream::read(text, piece, limits, &budget))
                .collect()
        } else {
            pieces
                .into_iter()
                .map(|piece| stream::read(text, piece, limits, &budget))
                .collect()
        };
        // Neither reading of a broken `{…` is wrong by itself; the one that got further understood more of it.
        if let (Some(json), Some(yaml)) = (
            json_fault,
            read.first_mut().and_then(|first| first.faults.first_mut()),
        ) && json.range.start >= yaml.range.start
        {
            *yaml = json;
        }
        for piece in read {
            reading.documents.extend(piece.documents);
            reading.faults.extend(piece.faults);
        }
    }
    if budget.is_spent() {
        // Which documents came first depends on the threads; all or nothing does not.
        return Reading::failed(
            FaultKind::TooManyValues {
                limit: limits.values,
            },
            0..0,
        );
    }
    reading
}

/// Below this, starting work on other threads costs more than it saves.
const WORTH_A_THREAD: usize = 64 * 1024;

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 64 << 20,
            values: 4_000_000,
            aliased: 400_000,
            depth: 128,
        }
    }
}

impl Reading {
    fn failed(kind: FaultKind, range: Range<usize>) -> Self {
        Self {
            documents: Vec::new(),
            faults: vec![Fault { kind, range }],
        }
    }
}

/// What is left of a file's allowance of values, shared by the threads that read its documents.
struct Budget {
    left: AtomicUsize,
    spent: std::sync::atomic::AtomicBool,
}

impl Budget {
    fn new(limits: &Limits) -> Self {
        Self {
            left: AtomicUsize::new(limits.values),
            spent: std::sync::atomic::AtomicBool::new(false),
        }
    }

    /// Takes `count` out, or says that there is not as much left.
    fn take(&self, count: usize) -> bool {
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(count)
            });
        if taken.is_err() {
            self.spent.store(true, Ordering::Relaxed);
        }
        taken.is_ok()
    }

    /// Gives back what was taken and not used.
    fn give_back(&self, count: usize) {
        self.left.fetch_add(count, Ordering::Relaxed);
    }

    fn is_spent(&self) -> bool {
        self.spent.load(Ordering::Relaxed)
    }
}

/// Cuts at the lines that start a document, as `kubectl` does.
///
/// A piece keeps its `---` line. What holds only comments and directives belongs to the document after it.
fn pieces(source: &str, start: usize) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    let mut from = start;
    let text = source.get(start..).unwrap_or_default();
    for (at, _) in text.match_indices("\n---") {
        let cut = start + at + 1;
        let after = source.as_bytes().get(cut + 3);
        if !matches!(after, None | Some(b' ' | b'\t' | b'\r' | b'\n')) {
            continue;
        }
        if source.get(from..cut).is_some_and(has_content) {
            pieces.push(from..cut);
            from = cut;
        }
    }
    pieces.push(from..source.len());
    pieces
}

/// Whether there is more than comments, directives and a document start.
fn has_content(piece: &str) -> bool {
    piece.lines().map(str::trim_end).any(|line| {
        let line = line
            .strip_prefix("---")
            .unwrap_or(line)
            .trim_start_matches([' ', '\t', '\u{feff}']);
        !line.is_empty() && !line.starts_with(['#', '%'])
    })
}
