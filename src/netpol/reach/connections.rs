//! All connections by workload, a row for each source: pods of one workload are one, addresses outside are the fewest
//! blocks.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use ipnet::IpNet;

use super::Reachability;
use super::ports::PortSet;
use super::rows::{self, Addresses, Open, Workloads};
use crate::netpol::workload::WorkloadRef;

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Party {
    /// The pods of a workload.
    Workload(WorkloadRef),
    /// Addresses outside of the cluster.
    Outside(IpNet),
}

/// What one party may open to another: at these ports some pod of the one reaches some pod of the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Who opens it.
    pub from: Party,
    /// To whom.
    pub to: Party,
    /// At which ports of the destination; never none.
    pub ports: PortSet,
}

/// What one party may open to others: at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Who opens it.
    pub from: Party,
    /// To whom, each once, at which ports; by namespace and name, what is outside last.
    pub to: Vec<(Party, PortSet)>,
}

/// Whoever has connections to list: some workloads, and what is open to and from each.
pub(super) trait Ends {
    /// The workloads in the order of lists; a workload is meant by its position here.
    fn roots(&self) -> &[&WorkloadRef];

    /// What a workload may open.
    fn open_from(&self, source: usize) -> Open;

    /// What addresses outside may open to a workload.
    fn open_to(&self, destination: usize) -> Addresses;
}

impl Reachability {
    /// Every allowed connection between workloads and with the outside, sorted; a pod's own with itself is none.
    pub fn connections(&self) -> Vec<Connection> {
        self.rows(|_| true).flat_map(Row::connections).collect()
    }

    /// The same a source at a time, of those that are meant: by namespace and name, what is outside last.
    pub fn rows(&self, is_meant: impl Fn(&Party) -> bool) -> impl Iterator<Item = Row> {
        rows(Workloads::of(self), is_meant)
    }
}

/// The rows of some ends. What comes from outside is put together once the workloads are through; until then no more
/// than a row is held.
pub(super) fn rows(
    ends: impl Ends,
    is_meant: impl Fn(&Party) -> bool,
) -> impl Iterator<Item = Row> {
    let mut next = 0_usize;
    let mut from_outside = None;
    std::iter::from_fn(move || {
        while let Some(from) = party(&ends, next) {
            let source = next;
            next = next.saturating_add(1);
            if !is_meant(&from) {
                continue;
            }
            let open = ends.open_from(source);
            let inside = open.inside.into_iter();
            let inside = inside.filter_map(|(number, ports)| Some((party(&ends, number)?, ports)));
            let outside = rows::blocks(open.outside).into_iter();
            let outside = outside.map(|(block, ports)| (Party::Outside(block), ports));
            let to: Vec<(Party, PortSet)> = inside.chain(outside).collect();
            if !to.is_empty() {
                return Some(Row { from, to });
            }
        }
        let rest = from_outside.get_or_insert_with(|| rows_from_outside(&ends));
        rest.find(|row| is_meant(&row.from))
    })
}

fn rows_from_outside<E: Ends>(ends: &E) -> impl Iterator<Item = Row> + use<E> {
    let mut sources: BTreeMap<IpNet, Vec<(Party, PortSet)>> = BTreeMap::new();
    for number in 0..ends.roots().len() {
        for (block, ports) in rows::blocks(ends.open_to(number)) {
            if let Some(to) = party(ends, number) {
                sources.entry(block).or_default().push((to, ports));
            }
        }
    }
    sources.into_iter().map(|(block, to)| Row {
        from: Party::Outside(block),
        to,
    })
}

fn party(ends: &impl Ends, number: usize) -> Option<Party> {
    let root = ends.roots().get(number)?;
    Some(Party::Workload((*root).clone()))
}

impl Row {
    /// Its connections, one by one.
    pub fn connections(self) -> impl Iterator<Item = Connection> {
        let Self { from, to } = self;
        to.into_iter().map(move |(to, ports)| Connection {
            from: from.clone(),
            to,
            ports,
        })
    }
}

impl Party {
    /// Where it stands in a list.
    fn order(&self) -> impl Ord + use<'_> {
        match self {
            Self::Workload(workload) => {
                let place = (&workload.namespace, &workload.name, workload.kind);
                (Some(place), None)
            }
            Self::Outside(block) => (None, Some(*block)),
        }
    }
}

impl Ord for Party {
    /// By namespace and name; what is outside comes last.
    fn cmp(&self, other: &Self) -> Ordering {
        let is_outside = |party: &Self| matches!(party, Self::Outside(_));
        let outside = is_outside(self).cmp(&is_outside(other));
        outside.then_with(|| self.order().cmp(&other.order()))
    }
}

impl PartialOrd for Party {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Party {
    /// As in `shop/web (Deployment)`; a block as it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(workload) => write!(
                f,
                "{}/{} ({})",
                workload.namespace, workload.name, workload.kind
            ),
            Self::Outside(block) => block.fmt(f),
        }
    }
}
