//! What a map shows: each workload in the box of its namespace while there are few, else namespaces only.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::super::groups::{Many, Population, Told};
use super::{Denied, DeniedEnd};
use crate::netpol::NamespaceName;
use crate::netpol::reach::{Connection, Party, PortSet, Row};

/// A listing of more workloads than this is drawn by namespace.
const MOST_WORKLOADS: usize = 50;
/// More blocks than this are one node.
const MOST_BLOCKS: usize = 12;

/// Everything that is drawn, by position.
#[derive(Debug, Default)]
pub(super) struct Scene {
    /// The namespaces around workloads.
    pub(super) boxes: Vec<String>,
    pub(super) nodes: Vec<Node>,
    pub(super) edges: Vec<Edge>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// The box that it is in.
    pub(super) parent: Option<usize>,
    pub(super) label: String,
    /// A line below, in small letters.
    pub(super) note: String,
    pub(super) shape: Shape,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Workload,
    Namespace,
    Everyone,
    Outside,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) ports: PortSet,
    /// Demanded to be closed.
    pub(super) is_denied: bool,
}

/// What a node stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    Everyone(usize),
    Namespace(NamespaceName),
    Party(Party),
    /// A block outside, and what is left out of it.
    But(IpNet, Vec<IpNet>),
    /// All blocks outside, where there are many.
    Outside(usize),
}

/// An end of a connection before it is drawn.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Told(Many),
    But(IpNet, Vec<IpNet>),
}

impl End {
    fn of(end: &DeniedEnd) -> Self {
        match &end.party {
            Party::Outside(block) if !end.except.is_empty() => {
                Self::But(*block, end.except.clone())
            }
            party => Self::Told(Many::One(party.clone())),
        }
    }
}

/// What is left out of a block, in a few words.
fn but(except: &[IpNet]) -> String {
    let first = except.first().map(ToString::to_string).unwrap_or_default();
    match except.len().checked_sub(1) {
        None | Some(0) => format!("outside, except {first}"),
        Some(more) => format!("outside, except {first} and {more} more"),
    }
}

/// Edges before they have numbers, those with the same ends and of the same sort joined.
type Edges = BTreeMap<(Thing, Thing, bool), PortSet>;

impl Scene {
    /// What these connections are drawn as.
    pub(super) fn of(
        rows: impl Iterator<Item = Row>,
        denied: &[Denied],
        population: &Population,
    ) -> Self {
        let mut few = Vec::new();
        let mut workloads = BTreeSet::new();
        let mut rows = rows.peekable();
        while workloads.len() <= MOST_WORKLOADS
            && let Some(row) = rows.next()
        {
            let to = row.to.iter().map(|(to, _)| to);
            let parties = to.chain([&row.from]);
            let own = parties.filter(|party| matches!(party, Party::Workload(_)));
            workloads.extend(own.cloned());
            few.push(row);
        }
        let each = |one: Connection| {
            let ends = (End::Told(Many::One(one.from)), End::Told(Many::One(one.to)));
            (ends.0, ends.1, one.ports)
        };
        let mut all: Vec<(End, End, PortSet, bool)> = Vec::new();
        let by_namespace = workloads.len() > MOST_WORKLOADS;
        if by_namespace {
            let told = Told::of(few.into_iter().chain(rows), 0, population);
            let groups = told.groups.into_iter();
            all.extend(groups.map(|group| {
                let ends = (End::Told(group.from), End::Told(group.to));
                (ends.0, ends.1, group.ports, false)
            }));
        } else {
            let connections = few.into_iter().flat_map(Row::connections).map(each);
            all.extend(connections.map(|(from, to, ports)| (from, to, ports, false)));
        }
        let denied = denied
            .iter()
            .map(|one| (End::of(&one.from), End::of(&one.to), one.ports.clone()));
        all.extend(denied.map(|(from, to, ports)| (from, to, ports, true)));

        let blocks: BTreeSet<&End> = all
            .iter()
            .flat_map(|(from, to, ..)| [from, to])
            .filter(|end| matches!(end, End::Told(Many::One(Party::Outside(_))) | End::But(..)))
            .collect();
        let blocks = blocks.len();
        let thing = |end: &End| match end {
            End::Told(Many::Everyone(count)) => Thing::Everyone(*count),
            End::Told(Many::Namespace(namespace, _)) => Thing::Namespace(namespace.clone()),
            End::Told(Many::One(Party::Workload(workload))) if by_namespace => {
                Thing::Namespace(workload.namespace.clone())
            }
            End::Told(Many::One(Party::Outside(_))) | End::But(..) if blocks > MOST_BLOCKS => {
                Thing::Outside(blocks)
            }
            End::Told(Many::One(party)) => Thing::Party(party.clone()),
            End::But(block, except) => Thing::But(*block, except.clone()),
        };
        let mut edges = Edges::new();
        for (from, to, ports, is_denied) in &all {
            let edge = edges.entry((thing(from), thing(to), *is_denied));
            let joined = edge.or_default();
            *joined = joined.or(ports);
        }
        Self::numbered(&edges, population)
    }

    fn numbered(edges: &Edges, population: &Population) -> Self {
        let mut scene = Self::default();
        let mut numbers: BTreeMap<Thing, usize> = BTreeMap::new();
        let mut boxes: BTreeMap<NamespaceName, usize> = BTreeMap::new();
        let things: BTreeSet<&Thing> = edges.keys().flat_map(|(from, to, _)| [from, to]).collect();
        for thing in things {
            let (label, note, shape) = match thing {
                Thing::Everyone(count) => (
                    "every workload".to_owned(),
                    format!("all {count}"),
                    Shape::Everyone,
                ),
                Thing::Namespace(namespace) => {
                    let count = population.in_namespace(namespace);
                    let plural = if count == 1 { "" } else { "s" };
                    let note = format!("{count} workload{plural}");
                    (namespace.to_string(), note, Shape::Namespace)
                }
                Thing::Party(Party::Workload(workload)) => (
                    workload.name.to_string(),
                    workload.kind.to_string(),
                    Shape::Workload,
                ),
                Thing::Party(Party::Outside(block)) => {
                    (block.to_string(), "outside".to_owned(), Shape::Outside)
                }
                Thing::But(block, except) => (block.to_string(), but(except), Shape::Outside),
                Thing::Outside(count) => (
                    "outside".to_owned(),
                    format!("{count} blocks"),
                    Shape::Outside,
                ),
            };
            let parent = match thing {
                Thing::Party(Party::Workload(workload)) => {
                    let next = boxes.len();
                    Some(*boxes.entry(workload.namespace.clone()).or_insert_with(|| {
                        scene.boxes.push(workload.namespace.to_string());
                        next
                    }))
                }
                Thing::Everyone(_)
                | Thing::Namespace(_)
                | Thing::Party(Party::Outside(_))
                | Thing::But(..)
                | Thing::Outside(_) => None,
            };
            numbers.insert(thing.clone(), scene.nodes.len());
            scene.nodes.push(Node {
                parent,
                label,
                note,
                shape,
            });
        }
        for ((from, to, is_denied), ports) in edges {
            if let (Some(from), Some(to)) = (numbers.get(from), numbers.get(to)) {
                scene.edges.push(Edge {
                    from: *from,
                    to: *to,
                    ports: ports.clone(),
                    is_denied: *is_denied,
                });
            }
        }
        scene
    }
}
