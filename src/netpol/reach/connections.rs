//! All connections by workload: pods of one workload are one, addresses outside are the fewest blocks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use ipnet::IpNet;

use super::ports::PortSet;
use super::space::{self, Region};
use super::spans::Span;
use super::{Located, Reachability};
use crate::netpol::name::{NamespaceName, NodeName, ObjectName};
use crate::netpol::net::Family;
use crate::netpol::workload::{WorkloadKind, WorkloadRef};

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Party {
    /// The pods of a workload.
    Workload(WorkloadRef),
    /// Addresses outside of the cluster.
    Outside(IpNet),
}

/// Where a party stands in a list.
type Order<'a> = (
    bool,
    Option<(&'a NamespaceName, &'a ObjectName, WorkloadKind)>,
    Option<IpNet>,
);

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

/// The workloads of each class: which, and whether there are two pods of it in the class at least.
type Members = HashMap<usize, BTreeMap<usize, bool>>;

/// What workloads, by number, have open to regions outside, or the regions to them.
type Outward = BTreeMap<(usize, usize), PortSet>;

impl Reachability {
    /// Every allowed connection between workloads and with the outside, sorted; a pod's own with itself is none.
    pub fn connections(&self) -> Vec<Connection> {
        let roots: BTreeSet<&WorkloadRef> = self.listed().map(|pod| &pod.root).collect();
        let roots: Vec<&WorkloadRef> = roots.into_iter().collect();
        let numbers: HashMap<&WorkloadRef, usize> = roots
            .iter()
            .enumerate()
            .map(|(number, root)| (*root, number))
            .collect();
        let mut members = Members::new();
        for pod in self.listed() {
            if let Some(number) = numbers.get(&pod.root) {
                let of_class = members.entry(pod.class).or_default();
                // A template stands for as many pods as one likes.
                let is_there = of_class.contains_key(number);
                of_class.insert(*number, pod.is_template || is_there);
            }
        }

        let mut inside: HashMap<(usize, usize), PortSet> = HashMap::new();
        let (mut inward, mut outward) = (Outward::new(), Outward::new());
        let open = |ports: &mut PortSet, more: &PortSet| *ports = ports.or(more);
        for patch in self.grid.patches() {
            let (from, from_outside) = self.side(&patch.from, &members);
            let (to, to_outside) = self.side(&patch.to, &members);
            for (source, classes) in &from {
                for (destination, others) in &to {
                    if source != destination || has_two(*source, classes, others, &members) {
                        let ports = inside.entry((*source, *destination)).or_default();
                        open(ports, &patch.ports);
                    }
                }
                for region in &to_outside {
                    open(outward.entry((*source, *region)).or_default(), &patch.ports);
                }
            }
            for destination in to.keys() {
                for region in &from_outside {
                    let ports = inward.entry((*destination, *region)).or_default();
                    open(ports, &patch.ports);
                }
            }
        }
        for (host, pod) in self.with_own_node() {
            if let (Some(host), Some(pod)) = (numbers.get(&host.root), numbers.get(&pod.root)) {
                inside.insert((*host, *pod), PortSet::all());
                inside.insert((*pod, *host), PortSet::all());
            }
        }

        let party = |number: usize| {
            roots
                .get(number)
                .map(|root| Party::Workload((*root).clone()))
        };
        let within = inside.into_iter().filter_map(|((from, to), ports)| {
            Some(Connection {
                from: party(from)?,
                to: party(to)?,
                ports,
            })
        });
        let mut connections: Vec<Connection> = within.collect();
        for (workload, block, ports) in self.blocks(inward) {
            connections.extend(party(workload).map(|to| Connection {
                from: Party::Outside(block),
                to,
                ports,
            }));
        }
        for (workload, block, ports) in self.blocks(outward) {
            connections.extend(party(workload).map(|from| Connection {
                from,
                to: Party::Outside(block),
                ports,
            }));
        }
        connections
            .sort_by(|a, b| (a.from.order(), a.to.order()).cmp(&(b.from.order(), b.to.order())));
        connections
    }

    /// The workloads whose pods can have connections, by name.
    pub fn workloads(&self) -> Vec<&WorkloadRef> {
        let roots: BTreeSet<&WorkloadRef> = self.listed().map(|pod| &pod.root).collect();
        let mut roots: Vec<&WorkloadRef> = roots.into_iter().collect();
        roots.sort_by_key(|root| (&root.namespace, &root.name, root.kind));
        roots
    }

    fn listed(&self) -> impl Iterator<Item = &Located> {
        self.pods.iter().filter(|pod| !pod.is_stood_for)
    }

    /// The workloads on one side of a patch, with the classes that they are there in, and the regions outside.
    fn side(
        &self,
        faces: &super::bits::BitSet,
        members: &Members,
    ) -> (BTreeMap<usize, BTreeSet<usize>>, Vec<usize>) {
        let mut workloads: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        let mut outside = Vec::new();
        for face in faces.iter().filter_map(|face| self.grid.faces.get(face)) {
            let Some(class) = face.class else {
                outside.push(face.region);
                continue;
            };
            for workload in members.get(&class).into_iter().flat_map(BTreeMap::keys) {
                workloads.entry(*workload).or_default().insert(class);
            }
        }
        (workloads, outside)
    }

    /// The pods on the network of a node with each other pod on that node.
    fn with_own_node(&self) -> impl Iterator<Item = (&Located, &Located)> {
        let mut nodes: HashMap<&NodeName, (Vec<&Located>, Vec<&Located>)> = HashMap::new();
        for pod in self.listed() {
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

    /// Regions of the same ports as blocks.
    fn blocks(&self, open: Outward) -> impl Iterator<Item = (usize, IpNet, PortSet)> {
        let mut spans: BTreeMap<(usize, Family, PortSet), Vec<Span<u128>>> = BTreeMap::new();
        for ((workload, region), ports) in open {
            if let Some(Region {
                family,
                spans: more,
                ..
            }) = self.space.regions().get(region)
            {
                let spans = spans.entry((workload, *family, ports)).or_default();
                spans.extend(more);
            }
        }
        spans
            .into_iter()
            .flat_map(|((workload, family, ports), spans)| {
                let blocks = space::cidrs(family, &super::spans::joined(spans));
                blocks
                    .into_iter()
                    .map(move |block| (workload, block, ports.clone()))
            })
    }
}

/// Whether a workload has a pod on one side of a patch and another one on the other side.
fn has_two(
    workload: usize,
    classes: &BTreeSet<usize>,
    others: &BTreeSet<usize>,
    members: &Members,
) -> bool {
    let two_of_one = |class: &usize| {
        let of_class = members.get(class);
        of_class.and_then(|of_class| of_class.get(&workload)) == Some(&true)
    };
    classes.iter().any(|class| {
        others
            .iter()
            .any(|other| class != other || two_of_one(class))
    })
}

impl Party {
    /// Sorted by namespace and name; what is outside comes last.
    fn order(&self) -> Order<'_> {
        match self {
            Self::Workload(workload) => (
                false,
                Some((&workload.namespace, &workload.name, workload.kind)),
                None,
            ),
            Self::Outside(block) => (true, None, Some(*block)),
        }
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
