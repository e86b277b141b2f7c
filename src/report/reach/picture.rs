//! Reachability as a picture: sources for Graphviz and Mermaid, each namespace a box.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;

use super::Listing;
use crate::netpol::WorkloadRef;
use crate::netpol::name::NamespaceName;
use crate::netpol::reach::Party;

/// The parties of a listing, each with the short name that edges use.
#[derive(Default)]
struct Parties<'a> {
    names: HashMap<&'a Party, String>,
    boxes: BTreeMap<&'a NamespaceName, BTreeSet<(&'a WorkloadRef, String)>>,
    outside: Vec<(String, String)>,
}

impl Listing {
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
    fn of(listing: &'a Listing) -> Self {
        let mut parties = Self::default();
        let ends = listing.connections.iter();
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
