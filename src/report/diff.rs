//! What opens and what closes between two clusters, in the forms that people and programs read. Pure.
//!
//! A [`Diff`] is asked once for each form. Text and Markdown put together what many workloads have in common; JSON
//! (`diff/json.rs`) names every connection and is written as they come. Markdown is bounded, for a comment on a pull
//! request has a size that it may not exceed.

use std::collections::BTreeMap;
use std::io::{self, Write};

use ipnet::IpNet;

use crate::netpol::reach::{Diff, Party, PortSet, Standing};
use crate::netpol::{Direction, WorkloadRef};
use crate::report::reach::block;
use crate::report::reach::groups::{Many, Population, Told};

mod json;
mod markdown;

/// More connections than this are put together in text.
const MOST_IN_TEXT: usize = 1000;

/// A comparison, and what its two sides are called.
pub struct Comparison<'a> {
    /// The name of what was.
    pub old: &'a str,
    /// The name of what is.
    pub new: &'a str,
    /// What is told.
    pub diff: &'a Diff<'a>,
}

/// How much there is of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Connections that open between workloads that were there before, and with the outside.
    pub opened: usize,
    /// Connections of theirs that close.
    pub closed: usize,
    /// Workloads that are new.
    pub added: usize,
    /// Those of them that have connections.
    #[serde(rename = "addedConnected")]
    pub added_connected: usize,
    /// Workloads that are gone.
    pub removed: usize,
    /// Those of them that had connections.
    #[serde(rename = "removedConnected")]
    pub removed_connected: usize,
    /// Workloads whose isolation changes in a direction or both.
    pub isolation: usize,
}

/// All that there is to tell, for people.
struct Findings {
    population: Population,
    opened: Told,
    closed: Told,
    added: Vec<Standing>,
    removed: Vec<Standing>,
    isolation: Vec<(WorkloadRef, Isolations)>,
}

/// The directions in which the isolation of a workload changes, each with whether it is isolated now.
type Isolations = Vec<(Direction, bool)>;

impl Comparison<'_> {
    /// For people.
    pub fn text(&self, out: &mut impl Write) -> io::Result<Counts> {
        let findings = Findings::of(self.diff, MOST_IN_TEXT);
        let counts = findings.counts();
        for (word, told) in [("opened", &findings.opened), ("closed", &findings.closed)] {
            if told.groups.is_empty() {
                continue;
            }
            let together = if told.is_grouped {
                ", put together (json has each)"
            } else {
                ""
            };
            let count = number(told.connections, "connection");
            writeln!(out, "{word}: {count}{together}")?;
            for groups in told.groups.chunk_by(|a, b| a.from == b.from) {
                let to = groups.iter();
                let to: Vec<_> = to
                    .map(|group| (group.to.clone(), group.ports.to_string()))
                    .collect();
                if let Some(first) = groups.first() {
                    block(out, "  ", &first.from, &to)?;
                }
            }
            writeln!(out)?;
        }
        for (word, when, standings) in [
            ("new", When::New, &findings.added),
            ("gone", When::Gone, &findings.removed),
        ] {
            if standings.is_empty() {
                continue;
            }
            writeln!(out, "{word}: {}", number(standings.len(), "workload"))?;
            for standing in standings {
                let party = Party::Workload(standing.workload.clone());
                writeln!(out, "  {party}: {}", in_words(standing, when))?;
            }
            writeln!(out)?;
        }
        if !findings.isolation.is_empty() {
            writeln!(out, "isolation: {}", number(counts.isolation, "workload"))?;
            for (who, isolations) in findings.isolation() {
                writeln!(out, "  {who}: {}", isolations_in_words(&isolations))?;
            }
            writeln!(out)?;
        }
        writeln!(out, "{} -> {}: {counts}", self.old, self.new)?;
        Ok(counts)
    }
}

impl Findings {
    fn of(diff: &Diff<'_>, most: usize) -> Self {
        let population = Population::of(diff.both().iter().copied());
        let mut isolation: Vec<(WorkloadRef, Isolations)> = Vec::new();
        for change in diff.isolation() {
            let one = (change.direction, change.is_isolated);
            match isolation.last_mut() {
                Some((workload, ways)) if *workload == change.workload => ways.push(one),
                Some(_) | None => isolation.push((change.workload, vec![one])),
            }
        }
        Self {
            opened: Told::of(diff.opened(), most, &population),
            closed: Told::of(diff.closed(), most, &population),
            added: diff.added(),
            removed: diff.removed(),
            isolation,
            population,
        }
    }

    fn counts(&self) -> Counts {
        let connected = |all: &[Standing]| {
            all.iter()
                .filter(|standing| standing.is_connected())
                .count()
        };
        Counts {
            opened: self.opened.connections,
            closed: self.closed.connections,
            added: self.added.len(),
            added_connected: connected(&self.added),
            removed: self.removed.len(),
            removed_connected: connected(&self.removed),
            isolation: self.isolation.len(),
        }
    }

    /// The changes of isolation, told once for a namespace whose workloads all have the same.
    fn isolation(&self) -> Vec<(Many, Isolations)> {
        let parties = self.isolation.iter();
        let parties: Vec<(Party, Isolations)> = parties
            .map(|(workload, ways)| (Party::Workload(workload.clone()), ways.clone()))
            .collect();
        self.population.together(&parties, None)
    }
}

impl Counts {
    /// Whether something opens: for workloads that were there, or by a new one that has connections.
    pub fn opens(self) -> bool {
        self.opened > 0 || self.added_connected > 0
    }

    /// Whether something closes: for workloads that are still there, or with one that had connections.
    pub fn closes(self) -> bool {
        self.closed > 0 || self.removed_connected > 0
    }

    /// Whether anything is told at all.
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

impl std::fmt::Display for Counts {
    /// In one line.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_nothing() {
            return f.write_str("nothing opens, nothing closes");
        }
        write!(
            f,
            "{} opened, {} closed",
            number(self.opened, "connection"),
            self.closed
        )?;
        for (count, words) in [(self.added, "new"), (self.removed, "gone")] {
            if count > 0 {
                write!(f, ", {} {words}", number(count, "workload"))?;
            }
        }
        match self.isolation {
            0 => Ok(()),
            count => write!(f, ", isolation of {} changed", number(count, "workload")),
        }
    }
}

/// As in `1 workload` and `3 workloads`.
fn number(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// When a workload that is on one side only has what it has open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    New,
    Gone,
}

/// What such a workload has open, or had.
fn in_words(standing: &Standing, when: When) -> String {
    let (none, to, from) = match when {
        When::New => ("has no connections", "reaches", "is reached by"),
        When::Gone => ("had no connections", "reached", "was reached by"),
    };
    if !standing.is_connected() {
        return none.to_owned();
    }
    let side = |count: usize, outside: &[(IpNet, PortSet)]| {
        let mut parts = Vec::new();
        if count > 0 {
            parts.push(number(count, "workload"));
        }
        parts.extend(outside_in_words(outside));
        if parts.is_empty() {
            "nobody".to_owned()
        } else {
            parts.join(", ")
        }
    };
    format!(
        "{to} {}; {from} {}",
        side(standing.reaches, &standing.to_outside),
        side(standing.reached_by, &standing.from_outside)
    )
}

/// Blocks of the same ports together; of many blocks only how many.
fn outside_in_words(outside: &[(IpNet, PortSet)]) -> Vec<String> {
    const MOST: usize = 3;
    let mut by_ports: BTreeMap<&PortSet, Vec<&IpNet>> = BTreeMap::new();
    for (block, ports) in outside {
        by_ports.entry(ports).or_default().push(block);
    }
    let words = by_ports.into_iter().map(|(ports, blocks)| {
        let blocks = if blocks.len() > MOST {
            number(blocks.len(), "block")
        } else {
            let names: Vec<String> = blocks.iter().map(ToString::to_string).collect();
            names.join(" and ")
        };
        format!("{blocks} ({ports})")
    });
    words.collect()
}

fn isolations_in_words(isolations: &Isolations) -> String {
    let words = isolations.iter().map(|(direction, is_isolated)| {
        if *is_isolated {
            format!("{direction} is isolated now")
        } else {
            format!("{direction} is no longer isolated")
        }
    });
    words.collect::<Vec<_>>().join(", ")
}
