//! What the promotion of policies on trial would change, for people and for programs.
//!
//! Two answers for each policy: the connections that would open and close (a [`Comparison`]), and of recorded flows those that
//! would break, or pass where they did not.

use std::fmt::Write as _;
use std::io;

use serde_json::{Value, json};

use super::counted;
use super::diff::{Comparison, Counts};
use super::replay::{self, DocumentRow};
use crate::netpol::reach::Diff;
use crate::netpol::replay::{Change, Replay, Row};
use crate::netpol::{Stage, StagedNetworkPolicy};

/// What the promotion of one policy, or of all together, would change.
pub struct Promotion<'a> {
    /// The policy; none where all of them are promoted together.
    pub of: Option<&'a StagedNetworkPolicy>,
    /// Whether a NetworkPolicy of its name is there, in whose place it would come.
    pub replaces: bool,
    /// The cluster as it is against the cluster with it promoted.
    pub diff: &'a Diff<'a>,
    /// What would become of recorded flows, where there are records.
    pub flows: Option<Flows>,
}

/// Recorded flows that fare otherwise after a promotion than they would before it.
#[derive(Clone, Debug, Default)]
pub struct Flows {
    /// They passed, and would not any more.
    pub denied: Vec<Row>,
    /// They did not pass, and would.
    pub allowed: Vec<Row>,
    /// Those of which an end cannot be known.
    pub unknown: u64,
}

/// What was found of a promotion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Connections.
    pub counts: Counts,
    /// Recorded flows that would break.
    pub breaks: u64,
}

// === impl Flows ===

impl Flows {
    /// What becomes of recorded flows after a promotion that does not become of them before it.
    pub fn of(before: &Replay, after: &Replay) -> Self {
        Self {
            denied: after.beyond(before, Change::NewlyDenied),
            allowed: after.beyond(before, Change::NewlyAllowed),
            unknown: after.unknown_flows(),
        }
    }

    fn breaks(&self) -> u64 {
        self.denied.iter().map(|row| row.flows).sum()
    }
}

// === impl Promotion ===

impl Promotion<'_> {
    /// For people.
    pub fn text(&self, out: &mut impl io::Write) -> io::Result<Found> {
        writeln!(out, "{}", self.title())?;
        let counts = self.comparison().text(out)?;
        if let Some(flows) = &self.flows {
            let mut text = String::new();
            for (words, rows) in flows.told() {
                let count = rows.iter().map(|row| row.flows).sum();
                let _ = writeln!(text, "{words}: {}", counted(count, "flow"));
                replay::rows(&mut text, rows.iter(), rows.len());
            }
            if flows.unknown > 0 {
                let unknown = counted(flows.unknown, "flow");
                let _ = writeln!(text, "of the recorded flows not judged: {unknown}");
            }
            out.write_all(text.as_bytes())?;
        }
        Ok(self.found(counts))
    }

    /// For a comment on a pull request; bounded.
    pub fn markdown(&self) -> (String, Found) {
        let title = format!("### {}", self.title());
        let (mut text, counts) = self.comparison().markdown_titled(&title);
        if let Some(flows) = &self.flows {
            for (words, rows) in flows.told() {
                let count = rows.iter().map(|row| row.flows).sum();
                let _ = writeln!(text, "\n**{words}: {}**\n", counted(count, "flow"));
                let mut list = String::new();
                replay::rows(&mut list, rows.iter(), rows.len());
                if !list.is_empty() {
                    let _ = write!(text, "```\n{list}```\n");
                }
            }
        }
        (text, self.found(counts))
    }

    /// For programs; stable.
    pub fn json(&self) -> io::Result<(Value, Found)> {
        let mut bytes = Vec::new();
        let counts = self.comparison().json(&mut bytes)?;
        let mut document: Value = serde_json::from_slice(&bytes)?;
        if let Some(fields) = document.as_object_mut() {
            fields.remove("old");
            fields.remove("new");
            if let Some(staged) = self.of {
                fields.insert("namespace".to_owned(), json!(staged.policy.namespace));
                fields.insert("name".to_owned(), json!(staged.policy.name));
                fields.insert("stage".to_owned(), json!(stage(staged)));
                fields.insert("replaces".to_owned(), json!(self.replaces));
            }
            if let Some(flows) = &self.flows {
                let rows = |rows: &[Row]| {
                    let connections: Vec<DocumentRow<'_>> =
                        rows.iter().map(DocumentRow::of).collect();
                    let flows: u64 = rows.iter().map(|row| row.flows).sum();
                    json!({"flows": flows, "connections": connections})
                };
                let told = json!({
                    "newlyDenied": rows(&flows.denied),
                    "newlyAllowed": rows(&flows.allowed),
                    "unknown": flows.unknown,
                });
                fields.insert("flows".to_owned(), told);
            }
        }
        Ok((document, self.found(counts)))
    }

    fn comparison(&self) -> Comparison<'_> {
        Comparison {
            old: "now",
            new: "promoted",
            diff: self.diff,
        }
    }

    fn found(&self, counts: Counts) -> Found {
        let flows = self.flows.as_ref();
        Found {
            counts,
            breaks: flows.map_or(0, Flows::breaks),
        }
    }

    fn title(&self) -> String {
        let Some(staged) = self.of else {
            return "all of them together".to_owned();
        };
        let (namespace, name) = (&staged.policy.namespace, &staged.policy.name);
        let mut title = format!("StagedNetworkPolicy {namespace}/{name} ({})", stage(staged));
        if let Some(choice) = staged.in_force_for() {
            let _ = write!(title, ", in force for {choice}");
        }
        if self.replaces {
            title.push_str(", in the place of the NetworkPolicy of its name");
        }
        title
    }
}

impl Flows {
    fn told(&self) -> [(&'static str, &[Row]); 2] {
        [
            ("seen, and would break", &self.denied),
            ("seen denied, and would pass", &self.allowed),
        ]
    }
}

fn stage(staged: &StagedNetworkPolicy) -> &'static str {
    match staged.stage {
        Stage::Shadow => "Shadow",
        Stage::Canary => "Canary",
    }
}
