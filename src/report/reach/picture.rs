//! Reachability as a picture: sources for Graphviz and Mermaid, each namespace a box.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;

use crate::netpol::WorkloadRef;
use crate::netpol::name::NamespaceName;
use crate::netpol::reach::{Connection, Party, Row};

/// A picture of more connections than this shows nothing any more.
const MOST: usize = 5000;

/// Connections to draw.
#[derive(Clone, Debug)]
pub struct Picture {
    connections: Vec<Connection>,
}

/// There is too much for a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "more than {MOST} connections make no picture; ask for some of them with --from, --to or --port"
)]
pub struct TooLarge;

/// The parties of a picture, each with the short name that edges use.
#[derive(Default)]
struct Parties<'a> {
    names: HashMap<&'a Party, String>,
    boxes: BTreeMap<&'a NamespaceName, BTreeSet<(&'a WorkloadRef, String)>>,
    outside: Vec<(String, String)>,
}

impl Picture {
    /// One of these connections.
    pub fn of(rows: impl Iterator<Item = Row>) -> Result<Self, TooLarge> {
        let mut connections = rows.flat_map(Row::connections);
        let picture = Self {
            connections: connections.by_ref().take(MOST).collect(),
        };
        match connections.next() {
            Some(_) => Err(TooLarge),
            None => Ok(picture),
        }
    }

    /// For Graphviz.
    pub fn dot(&self) -> String {
        let parties = Parties::of(self);
        let mut text =
            String::from("digraph reach {\n  rankdir=LR;\n  node [shape=box, style=rounded];\n");
        for (index, (namespace, workloads)) in parties.boxes.iter().enumerate() {
            let _ = writeln!(
                text,
                "  subgraph cluster_{index} {{\n    label=\"{namespace}\";"
            );
            for (workload, id) in workloads {
                let label = format!("{}\\n{}", workload.name, workload.kind);
                let _ = writeln!(text, "    {id} [label=\"{label}\"];");
            }
            text.push_str("  }\n");
        }
        for (block, id) in &parties.outside {
            let _ = writeln!(text, "  {id} [label=\"{block}\", shape=ellipse];");
        }
        for connection in &self.connections {
            let (from, to) = (parties.id(&connection.from), parties.id(&connection.to));
            let _ = writeln!(text, "  {from} -> {to} [label=\"{}\"];", connection.ports);
        }
        text.push_str("}\n");
        text
    }

    /// For Mermaid, as Markdown pages show it.
    pub fn mermaid(&self) -> String {
        let parties = Parties::of(self);
        let mut text = String::from("flowchart LR\n");
        for (index, (namespace, workloads)) in parties.boxes.iter().enumerate() {
            let _ = writeln!(text, "  subgraph box{index}[\"{namespace}\"]");
            for (workload, id) in workloads {
                let _ = writeln!(text, "    {id}[\"{} ({})\"]", workload.name, workload.kind);
            }
            text.push_str("  end\n");
        }
        for (block, id) in &parties.outside {
            let _ = writeln!(text, "  {id}([\"{block}\"])");
        }
        for connection in &self.connections {
            let (from, to) = (parties.id(&connection.from), parties.id(&connection.to));
            let _ = writeln!(text, "  {from} -->|\"{}\"| {to}", connection.ports);
        }
        text
    }
}

impl<'a> Parties<'a> {
    fn of(picture: &'a Picture) -> Self {
        let mut parties = Self::default();
        let ends = picture.connections.iter();
        for party in ends.flat_map(|one| [&one.from, &one.to]) {
            if parties.names.contains_key(party) {
                continue;
            }
            let id = format!("n{}", parties.names.len());
            match party {
                Party::Workload(workload) => {
                    let own = parties.boxes.entry(&workload.namespace).or_default();
                    own.insert((workload, id.clone()));
                }
                Party::Outside(block) => parties.outside.push((block.to_string(), id.clone())),
            }
            parties.names.insert(party, id);
        }
        parties
    }

    fn id(&self, party: &Party) -> &str {
        self.names.get(party).map_or("", String::as_str)
    }
}
