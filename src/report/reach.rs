//! Who reaches whom, in the forms that people and programs read. Pure.
//!
//! A [`Listing`] is what was asked for of a cluster's reachability, its connections still to come row by row. CSV and
//! JSON are written as they come. Text and Markdown name each connection of a small cluster; of a large one they put
//! together what many workloads have in common (`reach/groups.rs`), because nobody reads four million lines.
//! Pictures (`reach/picture.rs`) are of bounded size.

use std::io::{self, Write};

use crate::netpol::reach::{Connection, Exposure, Party, Row};
use crate::netpol::{Direction, WorkloadRef};
use document::{Document, DocumentExposure, Each, Streamed};
use groups::{Group, Many, Population, Told};

pub use map::{Denied, DeniedEnd, Map, TooCrowded};
pub use picture::{Picture, TooLarge};

pub(crate) mod document;
pub(crate) mod groups;
mod map;
mod picture;

/// More connections than this are put together, unless each is asked for.
const MOST_SINGLE: usize = 1000;

/// Whether people read each connection or what workloads have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grouping {
    /// Each connection as long as there are not too many.
    #[default]
    Auto,
    /// What workloads have in common.
    Always,
    /// Each connection, however many.
    Never,
}

/// Who could still come, or be reached, by workload and direction.
pub type Exposures = Vec<(WorkloadRef, Direction, Vec<Exposure>)>;

/// Connections to print, in their order, and what workloads are open to.
pub struct Listing<'a, I> {
    /// The connections.
    pub rows: I,
    /// All workloads of the cluster, of which those listed may be some.
    pub workloads: Vec<&'a WorkloadRef>,
    /// How people are told of many.
    pub grouping: Grouping,
    /// Who could still come, by workload; none where that was not asked.
    pub exposure: Option<Exposures>,
}

impl<I: Iterator<Item = Row>> Listing<'_, I> {
    /// For people: a block for each source.
    pub fn text(self, out: &mut impl Write) -> io::Result<()> {
        let mut blocks = 0_usize;
        let (is_grouped, exposure) = self.tell(|from, to| {
            if blocks > 0 {
                writeln!(out)?;
            }
            blocks = blocks.saturating_add(1);
            block(out, "", from, to)
        })?;
        if blocks == 0 {
            writeln!(out, "no connection is allowed")?;
        }
        if is_grouped {
            writeln!(
                out,
                "\nWhat workloads have in common is put together; `--group never`, csv and json list each connection."
            )?;
        }
        for (workload, direction, exposures) in exposure.iter().flatten() {
            write_exposure(out, workload, *direction, exposures)?;
        }
        Ok(())
    }

    /// A table, for pull requests and pages.
    pub fn markdown(self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "| From | To | Ports |\n| --- | --- | --- |")?;
        let (_, exposure) = self.tell(|from, to| {
            to.iter()
                .try_for_each(|(to, ports)| writeln!(out, "| {from} | {to} | {ports} |"))
        })?;
        let Some(exposure) = exposure else {
            return Ok(());
        };
        for (way, head) in [
            (Direction::Ingress, "Open to pods still to come"),
            (Direction::Egress, "May reach pods still to come"),
        ] {
            let mut own = exposure
                .iter()
                .filter(|(_, direction, _)| *direction == way)
                .peekable();
            if own.peek().is_some() {
                writeln!(out, "\n| Workload | {head} | Ports |\n| --- | --- | --- |")?;
            }
            for (workload, _, exposures) in own {
                let workload = Party::Workload(workload.clone());
                for one in exposures {
                    writeln!(out, "| {workload} | {} | {} |", one.who, one.ports())?;
                }
            }
        }
        Ok(())
    }

    /// For programs; stable.
    pub fn json(self, out: &mut impl Write) -> io::Result<()> {
        let document = Document {
            connections: Streamed::new(self.rows.flat_map(Row::connections).map(Each)),
            exposure: self.exposure.as_ref().map(|all| {
                all.iter()
                    .flat_map(|(workload, direction, exposures)| {
                        exposures
                            .iter()
                            .map(move |one| DocumentExposure::of(workload, *direction, one))
                    })
                    .collect()
            }),
        };
        serde_json::to_writer_pretty(&mut *out, &document)?;
        out.write_all(b"\n")
    }

    /// A row for each range of ports of each connection.
    pub fn csv(self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "from_kind,from_namespace,from_name,from_cidr,to_kind,to_namespace,to_name,to_cidr,protocol,ports"
        )?;
        let columns = |party: &Party| match party {
            Party::Workload(workload) => {
                format!(
                    "{},{},{},",
                    workload.kind, workload.namespace, workload.name
                )
            }
            Party::Outside(block) => format!(",,,{block}"),
        };
        for row in self.rows {
            let from = columns(&row.from);
            for Connection { to, ports, .. } in row.connections() {
                let to = columns(&to);
                for range in ports.ranges() {
                    writeln!(out, "{from},{to},{},{}", range.protocol, range.ports())?;
                }
            }
        }
        Ok(())
    }

    /// Tells a block for each source, and whether several connections were put together.
    fn tell(
        self,
        mut block: impl FnMut(&Many, &[(Many, String)]) -> io::Result<()>,
    ) -> io::Result<(bool, Option<Exposures>)> {
        let most = match self.grouping {
            Grouping::Never => {
                for Row { from, to } in self.rows {
                    let to = to.into_iter();
                    let to: Vec<_> = to
                        .map(|(to, ports)| (Many::One(to), ports.to_string()))
                        .collect();
                    block(&Many::One(from), &to)?;
                }
                return Ok((false, self.exposure));
            }
            Grouping::Auto => MOST_SINGLE,
            Grouping::Always => 0,
        };
        let told = Told::of(self.rows, most, &Population::of(self.workloads));
        for groups in told.groups.chunk_by(|a, b| a.from == b.from) {
            let to = groups.iter();
            let to: Vec<_> = to
                .map(|Group { to, ports, .. }| (to.clone(), ports.to_string()))
                .collect();
            if let Some(first) = groups.first() {
                block(&first.from, &to)?;
            }
        }
        Ok((told.is_grouped, self.exposure))
    }
}

/// A source and what it reaches, a line for each.
pub(crate) fn block(
    out: &mut impl Write,
    indent: &str,
    from: &Many,
    to: &[(Many, String)],
) -> io::Result<()> {
    writeln!(out, "{indent}{from}")?;
    let names: Vec<String> = to.iter().map(|(to, _)| to.to_string()).collect();
    let width = names.iter().map(String::len).max().unwrap_or_default();
    let width = width.min(60);
    for (name, (_, ports)) in names.iter().zip(to) {
        writeln!(out, "{indent}  -> {name:width$}  {ports}")?;
    }
    Ok(())
}

fn write_exposure(
    out: &mut impl Write,
    workload: &WorkloadRef,
    direction: Direction,
    exposures: &[Exposure],
) -> io::Result<()> {
    let workload = Party::Workload(workload.clone());
    let (words, arrow) = match direction {
        Direction::Ingress => ("is open to", "<-"),
        Direction::Egress => ("may reach", "->"),
    };
    writeln!(out, "\n{workload} {words} pods still to come:")?;
    if exposures.is_empty() {
        writeln!(out, "  {arrow} none")?;
    }
    for exposure in exposures {
        writeln!(out, "  {arrow} {}  {}", exposure.who, exposure.ports())?;
    }
    Ok(())
}
