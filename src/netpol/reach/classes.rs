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
    /// What it is to peers that are nodes.
    pub(super) host: Host,
}

/// What a pod is to peers that are nodes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Host {
    /// Nothing: it has a network of its own, or nobody speaks of nodes.
    No,
    /// It is on the network of a node that these selectors of nodes match, by number.
    Of(Vec<usize>),
    /// It is on the network of a node of which nothing is known, but perhaps by its address.
    Unknown,
}

/// The policies that isolate or rule a pod, and the selections that it is in, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Seen {
    /// The cluster network policies with rules for its ingress, and those with rules for its egress.
    pub(super) wide: [Vec<usize>; 2],
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
        let mut standings = words.policies.iter().map(|spoken| &spoken.policy.standing);
        let has_trials = standings.any(|standing| !standing.is_for_all());
        let mut classes = Numbered::default();
        let mut tables = Numbered::default();
        // The table of everything that has no ports of its own comes first.
        tables.number(vec![PortSet::none(); words.names.values().len()]);
        let mut pods = Vec::new();
        for pod in snapshot.pods().filter(|pod| !pod.is_finished()) {
            let seen = kinds
                .get(pod.namespace())
                .and_then(|kinds| kinds.get(&pod.labels));
            let mut seen = seen.filter(|_| pod.is_held()).unwrap_or(&nothing).clone();
            if has_trials {
                seen.only_in_force(pod, words);
            }
            let class = Class {
                seen,
                table: if pod.is_held() && !pod.ports.is_empty() {
                    tables.number(table(pod, words))
                } else {
                    0
                },
                regions: regions(pod, space),
                host: host(pod, words, snapshot),
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

impl Seen {
    /// Without the policies that select a pod and are in force for others only.
    fn only_in_force(&mut self, pod: &Pod, words: &Words<'_>) {
        let is_for = |policy: &usize| {
            let spoken = words.policies.get(*policy);
            spoken.is_some_and(|spoken| spoken.policy.standing.is_for(pod))
        };
        self.ingress.retain(is_for);
        self.egress.retain(is_for);
    }
}

impl Classes<'_> {
    /// Whether a pod is known to be on the network of a node that has a name.
    pub(super) fn has_hosts(&self) -> bool {
        let mut pods = self.pods.iter();
        pods.any(|(pod, _)| pod.host_network && pod.node.is_some())
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
    for (index, spoken) in words.wide.iter().enumerate() {
        let subject = &spoken.policy.subject;
        let rule = |kinds: &mut Kinds<'_>| {
            let ruled = kinds.iter_mut();
            for (_, seen) in ruled.filter(|(labels, _)| subject.pods.matches(labels)) {
                for (direction, of_direction) in Direction::BOTH.into_iter().zip(&mut seen.wide) {
                    if !spoken.rules(direction).is_empty() {
                        of_direction.push(index);
                    }
                }
            }
        };
        for_each(&subject.namespaces, &mut namespaces, snapshot, rule);
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
            Scope::Selected(selector) => for_each(selector, &mut namespaces, snapshot, select),
        }
    }
    namespaces
}

/// Does something with the pods of each namespace that a selector means.
fn for_each<'s>(
    selector: &Selector,
    namespaces: &mut BTreeMap<&'s NamespaceName, Kinds<'s>>,
    snapshot: &Snapshot,
    mut then: impl FnMut(&mut Kinds<'s>),
) {
    let is_meant = |name: &NamespaceName| selector.matches(&snapshot.namespace_labels(name));
    if let Some(names) = names(selector) {
        // A selector that names its namespaces need not be held against all of them.
        for name in names.map(NamespaceName::from) {
            if let Some(kinds) = namespaces.get_mut(&name).filter(|_| is_meant(&name)) {
                then(kinds);
            }
        }
    } else {
        let meant = namespaces.iter_mut().filter(|(name, _)| is_meant(name));
        meant.for_each(|(_, kinds)| then(kinds));
    }
}

/// What a pod is to peers that are nodes, as far as that does not depend on its address.
fn host(pod: &Pod, words: &Words<'_>, snapshot: &Snapshot) -> Host {
    let selectors = words.nodes.values();
    if selectors.is_empty() || !pod.host_network {
        return Host::No;
    }
    match pod.node.as_ref().and_then(|name| snapshot.node(name)) {
        None => Host::Unknown,
        Some(node) => {
            let matching = selectors.iter().enumerate();
            let matching = matching.filter(|(_, selector)| selector.matches(&node.labels));
            Host::Of(matching.map(|(index, _)| index).collect())
        }
    }
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
