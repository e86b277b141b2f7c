//! Who reaches whom, in the forms that people and programs read. Pure.
//!
//! A [`Listing`] is what was asked for of a cluster's reachability; each form is one method that gives a whole text.
//! Pictures (`reach/picture.rs`) are sources for Graphviz and Mermaid, namespaces as boxes.

use std::fmt::Write;

use serde::Serialize;

use crate::netpol::WorkloadRef;
use crate::netpol::reach::{Connection, Exposure, Newcomer, Party, PortSet};

mod picture;

/// Connections to print, in their order, and what workloads are open to.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// The connections.
    pub connections: Vec<Connection>,
    /// Who could still come, by workload; none where that was not asked.
    pub exposure: Option<Vec<(WorkloadRef, Vec<Exposure>)>>,
}

/// The stable form of JSON: this is what others parse.
#[derive(Serialize)]
struct Document<'a> {
    connections: Vec<DocumentConnection<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exposure: Option<Vec<DocumentExposure<'a>>>,
}

#[derive(Serialize)]
struct DocumentConnection<'a> {
    from: DocumentParty<'a>,
    to: DocumentParty<'a>,
    allowed: &'a PortSet,
}

#[derive(Serialize)]
struct DocumentExposure<'a> {
    to: DocumentParty<'a>,
    from: DocumentNewcomer<'a>,
    allowed: &'a PortSet,
}

/// A workload by `kind`, `namespace` and `name`; addresses outside by `cidr`.
#[derive(Serialize)]
#[serde(untagged)]
enum DocumentParty<'a> {
    Workload {
        kind: &'a str,
        namespace: &'a str,
        name: &'a str,
    },
    Outside {
        cidr: String,
    },
}

/// Selectors as `kubectl --selector` takes them; an empty one means all.
#[derive(Serialize)]
struct DocumentNewcomer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(rename = "namespaceSelector", skip_serializing_if = "Option::is_none")]
    namespaces: Option<String>,
    #[serde(rename = "podSelector")]
    pods: String,
}

impl Listing {
    /// For people: a block for each source.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let to_width = self.connections.iter();
        let to_width = to_width.map(|one| one.to.to_string().len()).max();
        let width = to_width.unwrap_or_default().min(60);
        let mut before = None;
        for Connection { from, to, ports } in &self.connections {
            if before != Some(from) {
                let gap = if before.is_some() { "\n" } else { "" };
                let _ = writeln!(text, "{gap}{from}");
                before = Some(from);
            }
            let _ = writeln!(text, "  -> {:width$}  {ports}", to.to_string());
        }
        if self.connections.is_empty() {
            text.push_str("no connection is allowed\n");
        }
        for (workload, exposures) in self.exposure.iter().flatten() {
            let workload = Party::Workload(workload.clone());
            let _ = writeln!(text, "\n{workload} is open to pods still to come:");
            if exposures.is_empty() {
                text.push_str("  <- nobody\n");
            }
            for exposure in exposures {
                let _ = writeln!(text, "  <- {}  {}", exposure.from, exposure.ports);
            }
        }
        text
    }

    /// For programs; stable.
    pub fn json(&self) -> serde_json::Result<String> {
        let connections = self.connections.iter();
        let document = Document {
            connections: connections.map(DocumentConnection::of).collect(),
            exposure: self.exposure.as_ref().map(|all| {
                all.iter()
                    .flat_map(|(workload, exposures)| {
                        exposures
                            .iter()
                            .map(move |exposure| DocumentExposure::of(workload, exposure))
                    })
                    .collect()
            }),
        };
        let mut text = serde_json::to_string_pretty(&document)?;
        text.push('\n');
        Ok(text)
    }

    /// A row for each range of ports of each connection.
    pub fn csv(&self) -> String {
        let mut text = String::from(
            "from_kind,from_namespace,from_name,from_cidr,to_kind,to_namespace,to_name,to_cidr,protocol,ports\n",
        );
        let columns = |party: &Party| match party {
            Party::Workload(workload) => {
                format!(
                    "{},{},{},",
                    workload.kind, workload.namespace, workload.name
                )
            }
            Party::Outside(block) => format!(",,,{block}"),
        };
        for Connection { from, to, ports } in &self.connections {
            let (from, to) = (columns(from), columns(to));
            for range in ports.ranges() {
                let _ = writeln!(text, "{from},{to},{},{}", range.protocol, range.ports());
            }
        }
        text
    }

    /// A table, for pull requests and pages.
    pub fn markdown(&self) -> String {
        let mut text = String::from("| From | To | Ports |\n| --- | --- | --- |\n");
        for Connection { from, to, ports } in &self.connections {
            let _ = writeln!(text, "| {from} | {to} | {ports} |");
        }
        if let Some(exposure) = &self.exposure {
            text.push_str(
                "\n| Workload | Open to pods still to come | Ports |\n| --- | --- | --- |\n",
            );
            for (workload, exposures) in exposure {
                let workload = Party::Workload(workload.clone());
                for Exposure { from, ports } in exposures {
                    let _ = writeln!(text, "| {workload} | {from} | {ports} |");
                }
            }
        }
        text
    }
}

impl<'a> DocumentConnection<'a> {
    fn of(connection: &'a Connection) -> Self {
        Self {
            from: DocumentParty::of(&connection.from),
            to: DocumentParty::of(&connection.to),
            allowed: &connection.ports,
        }
    }
}

impl<'a> DocumentExposure<'a> {
    fn of(workload: &'a WorkloadRef, exposure: &'a Exposure) -> Self {
        let (namespace, namespaces, pods) = match &exposure.from {
            Newcomer::Anyone => (None, Some(String::new()), String::new()),
            Newcomer::In { namespace, pods } => (Some(namespace.as_str()), None, pods.to_string()),
            Newcomer::Selected { namespaces, pods } => {
                (None, Some(namespaces.to_string()), pods.to_string())
            }
        };
        Self {
            to: DocumentParty::workload(workload),
            from: DocumentNewcomer {
                namespace,
                namespaces,
                pods,
            },
            allowed: &exposure.ports,
        }
    }
}

impl<'a> DocumentParty<'a> {
    fn of(party: &'a Party) -> Self {
        match party {
            Party::Workload(workload) => Self::workload(workload),
            Party::Outside(block) => Self::Outside {
                cidr: block.to_string(),
            },
        }
    }

    fn workload(workload: &'a WorkloadRef) -> Self {
        Self::Workload {
            kind: workload.kind.as_str(),
            namespace: workload.namespace.as_str(),
            name: workload.name.as_str(),
        }
    }
}
