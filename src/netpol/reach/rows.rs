//! Connections a source at a time: pods of one workload are one end, addresses outside are spans.
//!
//! [`Workloads`] numbers the workloads of a judged cluster once; each of its questions goes through the patches of one
//! workload's faces only, so that whoever lists a large cluster never holds more than a row of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::IpNet;

use super::connections::Ends;
use super::grid::Patch;
use super::ports::PortSet;
use super::space;
use super::{Located, Reachability};
use crate::netpol::name::NodeName;
use crate::netpol::net::Family;
use crate::netpol::spans::{self, Span};
use crate::netpol::workload::WorkloadRef;

/// What is open by addresses outside: sorted, and no address twice.
pub(super) type Addresses = Vec<(Family, Span<u128>, PortSet)>;

/// What one workload may open.
#[derive(Debug, Default)]
pub(super) struct Open {
    /// To workloads, by their ascending numbers.
    pub(super) inside: Vec<(usize, PortSet)>,
    /// To addresses outside.
    pub(super) outside: Addresses,
}

/// The workloads of a judged cluster in the order of lists, and what is needed to answer for each.
pub(super) struct Workloads<'r> {
    reach: &'r Reachability,
    roots: Vec<&'r WorkloadRef>,
    /// The classes of each workload's pods.
    classes: Vec<BTreeSet<usize>>,
    /// The workloads of each class, by ascending numbers: which, and whether it has two pods in the class at least.
    members: Vec<Vec<(usize, bool)>>,
    /// The workloads with which a workload shares a node, and what is open to them for that.
    near: HashMap<usize, BTreeMap<usize, PortSet>>,
    /// The patches from addresses outside, by the face that they lead to.
    inward: HashMap<usize, Vec<&'r Patch>>,
}

impl<'r> Workloads<'r> {
    pub(super) fn of(reach: &'r Reachability) -> Self {
        let roots = reach.workloads();
        let numbers: HashMap<&WorkloadRef, usize> = roots
            .iter()
            .enumerate()
            .map(|(number, root)| (*root, number))
            .collect();
        let mut classes = vec![BTreeSet::new(); roots.len()];
        let mut members = vec![BTreeMap::new(); reach.grid.classes()];
        for pod in reach.listed() {
            let Some(number) = numbers.get(&pod.root) else {
                continue;
            };
            if let Some(classes) = classes.get_mut(*number) {
                classes.insert(pod.class);
            }
            if let Some(of_class) = members.get_mut(pod.class) {
                // A template stands for as many pods as one likes.
                let is_there = of_class.contains_key(number);
                of_class.insert(*number, pod.is_template || is_there);
            }
        }
        let mut near: HashMap<usize, BTreeMap<usize, PortSet>> = HashMap::new();
        for (host, pod) in with_own_node(reach) {
            for (from, to) in [(host, pod), (pod, host)] {
                if let (Some(source), Some(other)) =
                    (numbers.get(&from.root), numbers.get(&to.root))
                {
                    let of_source = near.entry(*source).or_default();
                    join(
                        of_source.entry(*other).or_default(),
                        &reach.on_own_node(from, to),
                    );
                }
            }
        }
        Self {
            inward: inward(reach),
            reach,
            roots,
            classes,
            members: members
                .into_iter()
                .map(|of_class| of_class.into_iter().collect())
                .collect(),
            near,
        }
    }

    fn addresses(&self, regions: BTreeMap<usize, PortSet>) -> Addresses {
        let space = self.reach.space.regions();
        let mut addresses: Addresses = regions
            .into_iter()
            .filter_map(|(region, ports)| Some((space.get(region)?, ports)))
            .flat_map(|(region, ports)| {
                let spans = region.spans.iter();
                spans.map(move |span| (region.family, *span, ports.clone()))
            })
            .collect();
        addresses.sort_unstable_by_key(|(family, span, _)| (*family, *span));
        addresses
    }
}

impl Ends for Workloads<'_> {
    fn roots(&self) -> &[&WorkloadRef] {
        &self.roots
    }

    /// A pod's own connection with itself is none.
    fn open_from(&self, source: usize) -> Open {
        let grid = &self.reach.grid;
        let mut inside = vec![PortSet::none(); self.roots.len()];
        let mut open_to = |number: usize, ports: &PortSet| {
            if let Some(open) = inside.get_mut(number) {
                join(open, ports);
            }
        };
        let mut regions: BTreeMap<usize, PortSet> = BTreeMap::new();
        for class in self.classes.get(source).into_iter().flatten() {
            for face in grid.class(*class) {
                let row = grid.row_of(*face).map(|row| grid.row(row));
                let patches = row.into_iter().flatten();
                for patch in patches.filter(|patch| patch.from.contains(*face)) {
                    for other in patch.to.iter().filter_map(|face| grid.faces.get(face)) {
                        let Some(to) = other.class else {
                            join(regions.entry(other.region).or_default(), &patch.ports);
                            continue;
                        };
                        for (number, has_two) in self.members.get(to).into_iter().flatten() {
                            if *number != source || to != *class || *has_two {
                                open_to(*number, &patch.ports);
                            }
                        }
                    }
                }
            }
        }
        for (number, ports) in self.near.get(&source).into_iter().flatten() {
            open_to(*number, ports);
        }
        let inside = inside.into_iter().enumerate();
        Open {
            inside: inside.filter(|(_, ports)| !ports.is_empty()).collect(),
            outside: self.addresses(regions),
        }
    }

    fn open_to(&self, destination: usize) -> Addresses {
        let grid = &self.reach.grid;
        let mut regions: BTreeMap<usize, PortSet> = BTreeMap::new();
        let classes = self.classes.get(destination).into_iter().flatten();
        for face in classes.flat_map(|class| grid.class(*class)) {
            for patch in self.inward.get(face).into_iter().flatten() {
                for other in patch.from.iter().filter_map(|face| grid.faces.get(face)) {
                    join(regions.entry(other.region).or_default(), &patch.ports);
                }
            }
        }
        self.addresses(regions)
    }
}

impl Reachability {
    /// The workloads whose pods can have connections, by name.
    pub fn workloads(&self) -> Vec<&WorkloadRef> {
        let roots: BTreeSet<&WorkloadRef> = self.listed().map(|pod| &pod.root).collect();
        let mut roots: Vec<&WorkloadRef> = roots.into_iter().collect();
        roots.sort_by_key(|root| (&root.namespace, &root.name, root.kind));
        roots
    }

    pub(super) fn listed(&self) -> impl Iterator<Item = &Located> {
        self.pods.iter().filter(|pod| !pod.is_stood_for)
    }
}

/// The fewest blocks that say the same.
pub(super) fn blocks(addresses: Addresses) -> Vec<(IpNet, PortSet)> {
    let mut alike: BTreeMap<(Family, PortSet), Vec<Span<u128>>> = BTreeMap::new();
    for (family, span, ports) in addresses {
        alike.entry((family, ports)).or_default().push(span);
    }
    let blocks = alike.into_iter().flat_map(|((family, ports), spans)| {
        let blocks = space::cidrs(family, &spans::joined(spans));
        blocks.into_iter().map(move |block| (block, ports.clone()))
    });
    let mut blocks: Vec<(IpNet, PortSet)> = blocks.collect();
    blocks.sort_unstable();
    blocks
}

fn join(ports: &mut PortSet, more: &PortSet) {
    if ports != more {
        *ports = ports.or(more);
    }
}

/// The patches whose sources are outside, by the faces of pods that they lead to.
fn inward(reach: &Reachability) -> HashMap<usize, Vec<&Patch>> {
    let grid = &reach.grid;
    let outside = grid.faces.iter().enumerate();
    let outside = outside.filter(|(_, face)| face.class.is_none());
    let rows: BTreeSet<usize> = outside.filter_map(|(face, _)| grid.row_of(face)).collect();
    let mut inward: HashMap<usize, Vec<&Patch>> = HashMap::new();
    for patch in rows.into_iter().flat_map(|row| grid.row(row)) {
        for face in patch.to.iter() {
            inward.entry(face).or_default().push(patch);
        }
    }
    inward
}

/// The pods on the network of a node with each other pod on that node.
fn with_own_node(reach: &Reachability) -> impl Iterator<Item = (&Located, &Located)> {
    let mut nodes: HashMap<&NodeName, (Vec<&Located>, Vec<&Located>)> = HashMap::new();
    for pod in reach.listed() {
        if let Some(node) = &pod.node {
            let (hosts, others) = nodes.entry(node).or_default();
            if pod.is_host { hosts } else { others }.push(pod);
        }
    }
    nodes.into_values().flat_map(|(hosts, others)| {
        hosts.into_iter().flat_map(move |host| {
            let others = others.clone().into_iter();
            others
                .filter(|other| host.shares_node(other))
                .map(move |other| (host, other))
        })
    })
}
