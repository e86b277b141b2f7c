//! What policies say of recorded flows, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::counted;
use crate::netpol::replay::{Because, Change, Replay, Row, Who};
use crate::netpol::{Direction, Port, Protocol};

/// How many rows of a kind are told to people.
const ROWS: usize = 50;

/// A replay, with what is to be said of the records themselves.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// What the policies say.
    pub replay: Replay,
    /// How many records were read.
    pub records: u64,
    /// How many were passed over, by reason: in words, and as a key of JSON.
    pub passed_over: Vec<(&'static str, Value, u64)>,
    /// How many are broken.
    pub broken: u64,
    /// The first of those: file, line and reason.
    pub shown: Vec<(String, u64, String)>,
    /// What else is to be said.
    pub notes: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    records: u64,
    newly_denied: DocumentChange<'a>,
    newly_allowed: DocumentChange<'a>,
    still_allowed: DocumentChange<'a>,
    still_denied: DocumentChange<'a>,
    unknown: Vec<DocumentUnknown<'a>>,
    passed_over: BTreeMap<String, u64>,
    broken: DocumentBroken<'a>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct DocumentChange<'a> {
    flows: u64,
    connections: Vec<DocumentRow<'a>>,
}

#[derive(Debug, Serialize)]
pub(super) struct DocumentRow<'a> {
    from: &'a Who,
    to: &'a Who,
    protocol: Protocol,
    port: Port,
    flows: u64,
    because: Vec<DocumentBecause<'a>>,
}

#[derive(Debug, Serialize)]
struct DocumentBecause<'a> {
    direction: &'static str,
    policies: &'a [String],
}

#[derive(Serialize)]
struct DocumentUnknown<'a> {
    reason: &'a str,
    flows: u64,
}

#[derive(Serialize)]
struct DocumentBroken<'a> {
    records: u64,
    shown: Vec<DocumentShown<'a>>,
}

#[derive(Serialize)]
struct DocumentShown<'a> {
    file: &'a str,
    line: u64,
    reason: &'a str,
}

// === impl Told ===

impl Told {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for change in Change::ALL {
            let count = self.replay.of_change(change).count();
            let flows = self.replay.flows(change);
            let _ = writeln!(
                text,
                "{}: {} at {}",
                change.as_str(),
                counted(flows, "flow"),
                counted(count as u64, "connection")
            );
            if matches!(change, Change::NewlyDenied | Change::NewlyAllowed) {
                rows(&mut text, self.replay.of_change(change), count);
            }
        }
        if !self.replay.unknown.is_empty() {
            let unknown = self.replay.unknown_flows();
            let _ = writeln!(text, "not judged: {}", counted(unknown, "flow"));
            for (reason, flows) in self.replay.unknown.iter().take(ROWS) {
                let _ = writeln!(text, "  {flows} x {reason}");
            }
            left_out(&mut text, self.replay.unknown.len());
        }
        let _ = writeln!(text, "read: {}", counted(self.records, "record"));
        for (words, _, count) in &self.passed_over {
            let _ = writeln!(text, "  {count} passed over: {words}");
        }
        if self.broken > 0 {
            let _ = writeln!(text, "  {} broken", self.broken);
            for (file, line, reason) in &self.shown {
                let _ = writeln!(text, "    {file}:{line}: {reason}");
            }
        }
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        text
    }

    /// For programs; the form is documented in the README.
    pub fn json(&self) -> serde_json::Result<String> {
        let change = |change| DocumentChange {
            flows: self.replay.flows(change),
            connections: self.replay.of_change(change).map(DocumentRow::of).collect(),
        };
        let unknown = self.replay.unknown.iter();
        let shown = self.shown.iter();
        let passed_over = self.passed_over.iter();
        let document = Document {
            records: self.records,
            newly_denied: change(Change::NewlyDenied),
            newly_allowed: change(Change::NewlyAllowed),
            still_allowed: change(Change::StillAllowed),
            still_denied: change(Change::StillDenied),
            unknown: unknown
                .map(|(reason, flows)| DocumentUnknown {
                    reason,
                    flows: *flows,
                })
                .collect(),
            passed_over: passed_over
                .map(|(_, key, count)| (key.as_str().unwrap_or_default().to_owned(), *count))
                .collect(),
            broken: DocumentBroken {
                records: self.broken,
                shown: shown
                    .map(|(file, line, reason)| DocumentShown {
                        file,
                        line: *line,
                        reason,
                    })
                    .collect(),
            },
            notes: &self.notes,
        };
        let mut text = serde_json::to_string_pretty(&document)?;
        text.push('\n');
        Ok(text)
    }
}

impl<'a> DocumentRow<'a> {
    pub(super) fn of(row: &'a Row) -> Self {
        let because = row.because.iter().map(|because| DocumentBecause {
            direction: because.direction.field(),
            policies: &because.policies,
        });
        Self {
            from: &row.from,
            to: &row.to,
            protocol: row.protocol,
            port: row.port,
            flows: row.flows,
            because: because.collect(),
        }
    }
}

/// The first of so many rows, and how many more there are.
pub(super) fn rows<'r>(text: &mut String, rows: impl Iterator<Item = &'r Row>, count: usize) {
    some_rows(text, rows.take(ROWS));
    left_out(text, count);
}

/// These rows, whatever there is beside them.
pub(super) fn some_rows<'r>(text: &mut String, rows: impl Iterator<Item = &'r Row>) {
    for row in rows {
        self::row(text, row);
    }
}

fn row(text: &mut String, row: &Row) {
    let _ = writeln!(
        text,
        "  {} -> {} {} {}: {}",
        row.from,
        row.to,
        row.protocol,
        row.port,
        counted(row.flows, "flow")
    );
    for because in &row.because {
        let _ = writeln!(text, "      {}", reason(because, row.change));
    }
}

/// Why, in words.
fn reason(because: &Because, change: Change) -> String {
    let policies = because.policies.join(", ");
    let end = match because.direction {
        Direction::Egress => "leaving",
        Direction::Ingress => "arriving",
    };
    match change {
        Change::NewlyDenied | Change::StillDenied if because.by_rule => {
            format!("{end}: {policies} denies it")
        }
        Change::NewlyDenied | Change::StillDenied => {
            format!("{end}: no rule of {policies} allows it")
        }
        Change::NewlyAllowed | Change::StillAllowed => format!("{end}: {policies} allows it"),
    }
}

fn left_out(text: &mut String, count: usize) {
    if count > ROWS {
        let more = count.saturating_sub(ROWS);
        let _ = writeln!(text, "  and {more} more; --output json has all");
    }
}
