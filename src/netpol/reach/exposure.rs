//! Exposure: who could reach a workload, and whom it could reach, although nobody of that kind is there yet.
//!
//! A selector of a rule goes on to hold for pods and namespaces that are made tomorrow. Newcomers are cut into regions
//! (`exposure/regions.rs`) that no scope of a cluster network policy tells apart; both ends are asked about each in the order of
//! the tiers (`exposure/tiers.rs`), the newcomer's as that of a pod which no network policy isolates. What passes besides where one
//! does isolate it, and allows it, is told apart: then the Baseline tier has no say there. A newcomer is a pod with a network of
//! its own whose address nobody knows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::said::SetOfPorts as _;
use super::{Place, Reachability};
use crate::netpol::coverage::Direction;
use crate::netpol::name::NamespaceName;
use crate::netpol::selector::Selector;
use crate::netpol::workload::WorkloadRef;
use ends::Side;

pub use open::OpenPorts;

mod ends;
mod open;
mod regions;
mod tiers;

/// Pods that need not be there yet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Newcomer {
    /// Any pod at all, in any namespace.
    Anyone,
    /// Pods with these labels in one namespace.
    In {
        /// The namespace.
        namespace: NamespaceName,
        /// The pods.
        pods: Selector,
    },
    /// Pods with these labels in namespaces with these.
    Selected {
        /// The namespaces.
        namespaces: Selector,
        /// The pods.
        pods: Selector,
    },
}

/// What a workload is open to in one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// Who could come, or be reached.
    pub who: Newcomer,
    /// At which ports, where no network policy isolates the newcomer.
    pub at: OpenPorts,
    /// At which ports besides, where one does and allows it: what the Baseline tier denies the newcomer otherwise.
    pub if_allowed: OpenPorts,
}

/// Cluster network policies tell more kinds of newcomers apart than anyone could be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cluster network policies tell more than {} kinds of newcomers apart",
    regions::MOST
)]
pub struct TooManyNewcomers;

/// The ports that are open to some newcomers.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Open {
    /// While no network policy isolates them.
    free: OpenPorts,
    /// Where one does, and allows everything.
    allowed: OpenPorts,
}

impl Reachability {
    /// Who could reach a workload's pods (ingress), or whom they could reach (egress), of pods and namespaces that are
    /// not there yet.
    pub fn exposure(
        &self,
        workload: &WorkloadRef,
        direction: Direction,
    ) -> Result<Vec<Exposure>, TooManyNewcomers> {
        let mut open: BTreeMap<Newcomer, Open> = BTreeMap::new();
        let mut classes = BTreeSet::new();
        for pod in self.snapshot.pods_in(&workload.namespace) {
            let Some(located) = self.located(Place::Pod(&pod.workload)) else {
                continue;
            };
            // Pods of one class are alike to every policy.
            if located.root != *workload || !classes.insert(located.class) {
                continue;
            }
            Side::of(&self.snapshot, pod, direction).open_to(&mut open)?;
        }
        Ok(told(open))
    }
}

/// Everything that was found, in the fewest words.
fn told(open: BTreeMap<Newcomer, Open>) -> Vec<Exposure> {
    let mut by_ports: BTreeMap<Open, Vec<Newcomer>> = BTreeMap::new();
    for (who, at) in open {
        if !at.is_empty() {
            by_ports.entry(at).or_default().push(who);
        }
    }
    let mut all: Vec<(Newcomer, Open)> = Vec::new();
    for (at, whos) in by_ports {
        let joined = regions::joined(whos);
        all.extend(joined.into_iter().map(|who| (who, at.clone())));
    }
    let is_needless = |(who, at): &(Newcomer, Open)| {
        all.iter()
            .any(|(other, others)| other != who && who.is_within(other) && at.is_within(others))
    };
    let mut told: Vec<(Newcomer, Open)> = all
        .iter()
        .filter(|one| !is_needless(one))
        .cloned()
        .collect();
    told.sort();
    let told = told.into_iter().map(|(who, at)| Exposure {
        who,
        if_allowed: at.allowed.without(&at.free).in_short(),
        at: at.free.in_short(),
    });
    told.collect()
}

// === impl Open ===

impl Open {
    fn is_empty(&self) -> bool {
        self.allowed.is_empty()
    }

    fn is_within(&self, other: &Open) -> bool {
        self.free.is_within(&other.free) && self.allowed.is_within(&other.allowed)
    }

    fn add(&mut self, more: &Open) {
        self.free = self.free.or(&more.free);
        self.allowed = self.allowed.or(&more.allowed);
    }
}

impl Exposure {
    /// Its ports as a text: `TCP 80`, or `TCP 80, and TCP 443 where a policy of its own namespace allows it`.
    pub fn ports(&self) -> String {
        let more = format!(
            "{} where a policy of its own namespace allows it",
            self.if_allowed
        );
        match (self.at.is_empty(), self.if_allowed.is_empty()) {
            (_, true) => self.at.to_string(),
            (true, false) => more,
            (false, false) => format!("{}, and {more}", self.at),
        }
    }
}

impl fmt::Display for Newcomer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |selector: &Selector| {
            if selector.is_everything() {
                String::new()
            } else {
                format!(" with {selector}")
            }
        };
        match self {
            Self::Anyone => f.write_str("any pod in any namespace"),
            Self::In { namespace, pods } => {
                write!(f, "any pod{} in namespace {namespace}", of(pods))
            }
            Self::Selected { namespaces, pods } => {
                write!(f, "any pod{} in any namespace{}", of(pods), of(namespaces))
            }
        }
    }
}
