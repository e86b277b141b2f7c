//! Classes of pods: those that no policy, selector, port name or address block tells apart.

use std::collections::{BTreeMap, HashMap};

use super::ports::PortSet;
use super::space::Space;
use super::words::{Numbered, Scope, Selection, Words};
use crate::netpol::coverage::Direction;
use crate::netpol::labels::{Labels, NAMESPACE_NAME_LABEL};
use crate::netpol::name::NamespaceName;
use crate::netpol::net::Family;
use crate::netpol::pod::Pod;
use crate::netpol::selector::{Operator, Selector};
use crate::netpol::snapshot::Snapshot;

/// What policies see of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Class {
    /// What its labels and its namespace make of it.
    pub(super) seen: Seen,
    /// The numbers that it gives to the port names in use; a position in [`Classes::tables`].
    pub(super) table: usize,
    /// The regions that its addresses are in.
    pub(super) regions: Vec<usize>,
}

/// The policies that isolate a pod, and the selections that it is in, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Seen {
    pub(super) ingress: Vec<usize>,
    pub(super) egress: Vec<usize>,
    pub(super) selections: Vec<usize>,
}

/// The ports of each port name in use, in the order of [`Words::names`].
pub(super) type Table = Vec<PortSet>;

/// All classes, and the pods in them.
#[derive(Debug)]
pub(super) struct Classes<'s> {
    pub(super) all: Vec<Class>,
    pub(super) tables: Vec<Table>,
    /// The pods that have not finished, each with its class.
    pub(super) pods: Vec<(&'s Pod, usize)>,
}

/// The pods of a namespace by labels, each kind of labels with what policies see of it.
type Kinds<'s> = HashMap<&'s Labels, Seen>;

impl<'s> Classes<'s> {
    /// Sorts the pods of a snapshot into classes.
    pub(super) fn of(snapshot: &'s Snapshot, words: &Words<'_>, space: &Space) -> Self {
        let kinds = kinds(snapshot, words);
        let nothing = Seen::default();
        let mut classes = Numbered::default();
        let mut tables = Numbered::default();
        // The table of everything that has no ports of its own comes first.
        tables.number(vec![PortSet::none(); words.names.values().len()]);
        let mut pods = Vec::new();
        for pod in snapshot.pods().filter(|pod| !pod.is_finished()) {
            let seen = kinds
                .get(pod.namespace())
                .and_then(|kinds| kinds.get(&pod.labels));
            let class = Class {
                seen: seen.filter(|_| pod.is_held()).unwrap_or(&nothing).clone(),
                table: if pod.is_held() && !pod.ports.is_empty() {
                    tables.number(table(pod, words))
                } else {
                    0
                },
                regions: regions(pod, space),
            };
            pods.push((pod, classes.number(class)));
        }
        Self {
            all: classes.values().to_vec(),
            tables: tables.values().to_vec(),
            pods,
        }
    }
}

/// What policies see of each kind of labels in each namespace.
fn kinds<'s>(snapshot: &'s Snapshot, words: &Words<'_>) -> BTreeMap<&'s NamespaceName, Kinds<'s>> {
    let mut namespaces: BTreeMap<&NamespaceName, Kinds<'_>> = BTreeMap::new();
    for pod in snapshot.pods().filter(|pod| pod.is_held()) {
        namespaces
            .entry(pod.namespace())
            .or_default()
            .entry(&pod.labels)
            .or_default();
    }
    for (index, spoken) in words.policies.iter().enumerate() {
        let policy = spoken.policy;
        let kinds = namespaces.get_mut(&policy.namespace).into_iter().flatten();
        for (_, seen) in kinds.filter(|(labels, _)| policy.selector.matches(labels)) {
            if policy.isolates(Direction::Ingress) {
                seen.ingress.push(index);
            }
            if policy.isolates(Direction::Egress) {
                seen.egress.push(index);
            }
        }
    }
    for (index, Selection { scope, pods }) in words.selections.values().iter().enumerate() {
        let select = |kinds: &mut Kinds<'_>| {
            for (_, seen) in kinds.iter_mut().filter(|(labels, _)| pods.matches(labels)) {
                seen.selections.push(index);
            }
        };
        match scope {
            Scope::One(namespace) => {
                namespaces.get_mut(*namespace).into_iter().for_each(select);
            }
            Scope::Selected(selector) => {
                let is_meant =
                    |name: &NamespaceName| selector.matches(&snapshot.namespace_labels(name));
                if let Some(names) = names(selector) {
                    // A selector that names its namespaces need not be held against all of them.
                    for name in names.map(NamespaceName::from) {
                        if let Some(kinds) = namespaces.get_mut(&name).filter(|_| is_meant(&name)) {
                            select(kinds);
                        }
                    }
                } else {
                    let meant = namespaces.iter_mut().filter(|(name, _)| is_meant(name));
                    meant.for_each(|(_, kinds)| select(kinds));
                }
            }
        }
    }
    namespaces
}

/// The names of the namespaces that a selector can match at most, where it says so.
pub(super) fn names(selector: &Selector) -> Option<impl Iterator<Item = &str>> {
    let mut requirements = selector.requirements().iter();
    requirements.find_map(|requirement| match requirement.operator() {
        Operator::In(values) if requirement.key() == NAMESPACE_NAME_LABEL => {
            Some(values.iter().map(AsRef::as_ref))
        }
        _ => None,
    })
}

fn table(pod: &Pod, words: &Words<'_>) -> Table {
    let names = words.names.values().iter();
    names
        .map(|(name, protocol)| {
            pod.ports_named(name, *protocol)
                .map(|port| PortSet::one(*protocol, port))
                .fold(PortSet::none(), |ports, port| ports.or(&port))
        })
        .collect()
}

fn regions(pod: &Pod, space: &Space) -> Vec<usize> {
    let mut regions: Vec<usize> = if pod.ips.is_empty() {
        Family::BOTH.map(|family| space.unknown(family)).to_vec()
    } else {
        pod.ips.iter().map(|address| space.of(*address)).collect()
    };
    regions.sort_unstable();
    regions.dedup();
    regions
}
