//! Reachability: every connection that the policies of a cluster allow, for all pods at once and exactly.
//!
//! A [`Snapshot`] goes in. `reach/words.rs` numbers what its policies speak of, `reach/space.rs` cuts the addresses by
//! the blocks in use, `reach/classes.rs` sorts pods into classes that nothing tells apart, and `reach/grid.rs` judges
//! class against class. [`Reachability::between`] answers for two ends what [`Snapshot::verdict`] says of each port;
//! [`Reachability::rows`] lists everything by workload; [`Reachability::exposure`] says who could come; a [`Diff`] holds
//! two of them against each other.
//!
//! Finished pods are left out: they neither send nor receive. Pods on the host network are there, held by nothing.
//! What depends on two pods and not on their classes is kept apart: a pod with itself, and with its own node.

use std::collections::HashMap;
use std::net::IpAddr;

use super::name::NodeName;
use super::net::Family;
use super::pod::Pod;
use super::snapshot::Snapshot;
use super::workload::WorkloadRef;
use classes::Classes;
use grid::Grid;
use space::Space;
use words::Words;

pub use connections::{Connection, Party, Row};
pub use diff::{Diff, IsolationChange, Standing};
pub use exposure::{Exposure, Newcomer, OpenPorts, TooManyNewcomers};
pub use ports::{PortRange, PortSet};
pub(super) use said::Said;
pub use why::{Change, Explanation, Says, Step, StepPolicy};

pub(crate) mod bits;
mod classes;
mod connections;
mod diff;
mod ends;
mod exposure;
mod grid;
mod ports;
mod rows;
mod said;
mod space;
mod tiers;
mod why;
mod words;

/// Who reaches whom in a snapshot.
#[derive(Clone, Debug)]
pub struct Reachability {
    snapshot: Snapshot,
    space: Space,
    grid: Grid,
    pods: Vec<Located>,
    by_workload: HashMap<WorkloadRef, usize>,
    classes: usize,
}

/// One end of a flow, as a question names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// A pod of the snapshot, or the one that stands for a template.
    Pod(&'a WorkloadRef),
    /// An address outside of the cluster.
    Address(IpAddr),
}

/// A pod and what the grid and the exceptions to it need to know of it.
#[derive(Clone, Debug)]
struct Located {
    /// The workload that it belongs to in the end: the Deployment, not its ReplicaSet.
    root: WorkloadRef,
    class: usize,
    is_template: bool,
    /// Another template stands for it already.
    is_stood_for: bool,
    is_host: bool,
    node: Option<NodeName>,
    families: Vec<Family>,
}

impl Reachability {
    /// Judges a whole snapshot.
    pub fn of(snapshot: &Snapshot) -> Self {
        let words = Words::of(snapshot);
        let space = Space::cut(words.blocks.values());
        let classes = Classes::of(snapshot, &words, &space);
        let grid = Grid::of(&words, &classes, &space);
        let pods: Vec<Located> = classes
            .pods
            .iter()
            .map(|(pod, class)| Located::new(pod, *class, snapshot))
            .collect();
        let by_workload = classes.pods.iter().enumerate();
        Self {
            by_workload: by_workload
                .map(|(index, (pod, _))| (pod.workload.clone(), index))
                .collect(),
            classes: classes.all.len(),
            snapshot: snapshot.clone(),
            space,
            grid,
            pods,
        }
    }

    /// The snapshot that was judged.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// How many classes its pods are in.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The ports at which one end reaches the other; none at all where one of them is not there or has finished, and
    /// between addresses outside.
    pub fn between(&self, from: Place<'_>, to: Place<'_>) -> PortSet {
        if let (Some(source), Some(destination)) = (self.located(from), self.located(to)) {
            let is_itself = from == to && !source.is_template;
            if is_itself {
                return PortSet::all();
            }
            if source.shares_node(destination) {
                return self.on_own_node(source, destination);
            }
        }
        self.grid.between(self.faces(from), self.faces(to))
    }

    /// The ports at which a pod reaches another where one of them is on the network of the node that the other runs on:
    /// network policies do not hold such flows, cluster network policies may.
    fn on_own_node(&self, source: &Located, destination: &Located) -> PortSet {
        let (from, to) = (
            self.grid.class(source.class),
            self.grid.class(destination.class),
        );
        self.grid.between_on_node(from, to)
    }

    /// The workload that a pod belongs to in the end.
    pub fn root(&self, workload: &WorkloadRef) -> Option<&WorkloadRef> {
        let located = self.located(Place::Pod(workload))?;
        Some(&located.root)
    }

    fn located(&self, place: Place<'_>) -> Option<&Located> {
        match place {
            Place::Pod(workload) => self.pods.get(*self.by_workload.get(workload)?),
            Place::Address(_) => None,
        }
    }

    fn faces(&self, place: Place<'_>) -> &[usize] {
        match place {
            Place::Pod(_) => self
                .located(place)
                .map(|pod| self.grid.class(pod.class))
                .unwrap_or_default(),
            Place::Address(address) => self.grid.outside(self.space.of(address)),
        }
    }
}

// === impl Located ===

impl Located {
    fn new(pod: &Pod, class: usize, snapshot: &Snapshot) -> Self {
        let families = if pod.ips.is_empty() {
            Family::BOTH.to_vec()
        } else {
            pod.ips.iter().map(|address| Family::of(*address)).collect()
        };
        let has_known_owner = pod
            .owner
            .as_ref()
            .is_some_and(|owner| snapshot.pod(owner).is_some());
        Self {
            root: root(pod, snapshot),
            class,
            is_template: pod.is_template(),
            is_stood_for: pod.is_template() && has_known_owner,
            is_host: pod.host_network,
            node: pod.node.clone(),
            families,
        }
    }

    /// Whether one of the two is on the network of the node that the other one runs on, which no network policy blocks.
    fn shares_node(&self, other: &Located) -> bool {
        self.is_host != other.is_host
            && self.node.is_some()
            && self.node == other.node
            && self
                .families
                .iter()
                .any(|family| other.families.contains(family))
    }
}

impl Snapshot {
    /// The workload that a pod belongs to in the end, as far as is known.
    pub fn root(&self, pod: &Pod) -> WorkloadRef {
        root(pod, self)
    }
}

/// The workload that owns a pod in the end, as far as the snapshot knows.
pub fn root(pod: &Pod, snapshot: &Snapshot) -> WorkloadRef {
    let mut root = pod;
    // Pod, ReplicaSet, Deployment or Pod, Job, CronJob: owners are never further away.
    for _ in 0..3 {
        match &root.owner {
            None => break,
            Some(owner) => match snapshot.pod(owner) {
                Some(next) => root = next,
                None => return owner.clone(),
            },
        }
    }
    root.workload.clone()
}

#[cfg(test)]
mod tests;
