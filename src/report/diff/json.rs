//! The stable form of a comparison for programs, every connection by itself, written as they are found.

use std::cell::Cell;
use std::io;

use serde::{Serialize, Serializer};

use super::{Comparison, Counts};
use crate::netpol::reach::{Connection, PortSet, Row, Standing};
use crate::netpol::{Direction, WorkloadRef};
use crate::report::reach::document::{DocumentParty, Streamed};

#[derive(Serialize)]
struct Document<'a, O: Serialize, C: Serialize> {
    old: &'a str,
    new: &'a str,
    opened: O,
    closed: C,
    added: Vec<DocumentStanding<'a>>,
    removed: Vec<DocumentStanding<'a>>,
    isolation: Vec<DocumentIsolation<'a>>,
    summary: Summary<'a>,
}

/// A connection that changes, and the ports at which it does.
struct Changed(Connection);

#[derive(Serialize)]
struct DocumentChange<'a> {
    from: DocumentParty<'a>,
    to: DocumentParty<'a>,
    ports: &'a PortSet,
}

#[derive(Serialize)]
struct DocumentStanding<'a> {
    #[serde(flatten)]
    workload: DocumentParty<'a>,
    reaches: usize,
    #[serde(rename = "reachedBy")]
    reached_by: usize,
    #[serde(rename = "toOutside")]
    to_outside: Vec<DocumentBlock<'a>>,
    #[serde(rename = "fromOutside")]
    from_outside: Vec<DocumentBlock<'a>>,
}

#[derive(Serialize)]
struct DocumentBlock<'a> {
    cidr: String,
    ports: &'a PortSet,
}

#[derive(Serialize)]
struct DocumentIsolation<'a> {
    #[serde(flatten)]
    workload: DocumentParty<'a>,
    direction: &'static str,
    isolated: bool,
}

/// The numbers, which are known once all else is written.
struct Summary<'a> {
    opened: &'a Cell<usize>,
    closed: &'a Cell<usize>,
    others: Counts,
}

impl Comparison<'_> {
    /// For programs; stable.
    pub fn json(&self, out: &mut impl io::Write) -> io::Result<Counts> {
        let (opened, closed) = (Cell::new(0), Cell::new(0));
        let (added, removed) = (self.diff.added(), self.diff.removed());
        let isolation = self.diff.isolation();
        let connected = |all: &[Standing]| all.iter().filter(|one| one.is_connected()).count();
        let mut changed: Vec<&WorkloadRef> = isolation.iter().map(|one| &one.workload).collect();
        changed.dedup();
        let others = Counts {
            added: added.len(),
            added_connected: connected(&added),
            removed: removed.len(),
            removed_connected: connected(&removed),
            isolation: changed.len(),
            ..Counts::default()
        };
        let summary = Summary {
            opened: &opened,
            closed: &closed,
            others,
        };
        let document = Document {
            old: self.old,
            new: self.new,
            opened: Streamed::new(counted(self.diff.opened(), &opened)),
            closed: Streamed::new(counted(self.diff.closed(), &closed)),
            added: added.iter().map(DocumentStanding::of).collect(),
            removed: removed.iter().map(DocumentStanding::of).collect(),
            isolation: isolation
                .iter()
                .map(|one| DocumentIsolation {
                    workload: DocumentParty::workload(&one.workload),
                    direction: match one.direction {
                        Direction::Ingress => "ingress",
                        Direction::Egress => "egress",
                    },
                    isolated: one.is_isolated,
                })
                .collect(),
            summary,
        };
        serde_json::to_writer_pretty(&mut *out, &document)?;
        out.write_all(b"\n")?;
        Ok(document.summary.counts())
    }
}

fn counted<'a>(
    rows: impl Iterator<Item = Row> + 'a,
    count: &'a Cell<usize>,
) -> impl Iterator<Item = Changed> + 'a {
    rows.flat_map(Row::connections).map(|connection| {
        count.set(count.get().saturating_add(1));
        Changed(connection)
    })
}

impl Summary<'_> {
    fn counts(&self) -> Counts {
        Counts {
            opened: self.opened.get(),
            closed: self.closed.get(),
            ..self.others
        }
    }
}

impl Serialize for Summary<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.counts().serialize(serializer)
    }
}

impl Serialize for Changed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(Connection { from, to, ports }) = self;
        let change = DocumentChange {
            from: DocumentParty::of(from),
            to: DocumentParty::of(to),
            ports,
        };
        change.serialize(serializer)
    }
}

impl<'a> DocumentStanding<'a> {
    fn of(standing: &'a Standing) -> Self {
        let blocks = |all: &'a [(ipnet::IpNet, PortSet)]| {
            let blocks = all.iter().map(|(block, ports)| DocumentBlock {
                cidr: block.to_string(),
                ports,
            });
            blocks.collect()
        };
        Self {
            workload: DocumentParty::workload(&standing.workload),
            reaches: standing.reaches,
            reached_by: standing.reached_by,
            to_outside: blocks(&standing.to_outside),
            from_outside: blocks(&standing.from_outside),
        }
    }
}
