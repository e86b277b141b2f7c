//! Workloads as labels can tell them apart: the least that a policy can speak of.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::IpNet;

use crate::netpol::labels::{Labels, NAMING, VOLATILE};
use crate::netpol::name::NamespaceName;
use crate::netpol::pod::Pod;
use crate::netpol::replay::{Observations, Resolved, Resolver, Who};
use crate::netpol::selector::{Requirement, Selector};
use crate::netpol::snapshot::Snapshot;
use crate::netpol::workload::WorkloadRef;

/// Label keys that say what a workload is, after those that name it.
const TELLING: [&str; 3] = [
    "app.kubernetes.io/component",
    "component",
    "app.kubernetes.io/instance",
];

/// All workloads that take part.
#[derive(Debug)]
pub(super) struct Units {
    all: Vec<Unit>,
    by_who: HashMap<Who, usize>,
    /// The ends of the flows, by the number of their actor.
    ends: Vec<Resolved>,
}

/// The pods that the lasting labels of their workloads do not tell apart.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) namespace: NamespaceName,
    /// The workloads; mostly one.
    pub(super) whos: BTreeSet<Who>,
    /// The different labels of their pods, without those that differ from pod to pod or from day to day.
    labels: BTreeSet<Labels>,
    /// A pod for each of these that is not in the snapshot.
    pub(super) recorded: Vec<Pod>,
    pub(super) selector: Selector,
}

impl Units {
    pub(super) fn of(observations: &Observations, snapshot: &Snapshot, cluster: &[IpNet]) -> Self {
        let resolver = Resolver::with_addresses(snapshot, cluster);
        let ends: Vec<Resolved> = observations
            .actors()
            .map(|actor| resolver.find(actor))
            .collect();
        // The labels of each workload, and the pods that only records know.
        let mut found: BTreeMap<Who, (BTreeSet<Labels>, Vec<Pod>)> = BTreeMap::new();
        for pod in snapshot.pods().filter(|pod| pod.is_held()) {
            let (labels, _) = found.entry(resolver.who(pod)).or_default();
            labels.insert(lasting(&pod.labels));
        }
        for end in &ends {
            let Resolved::Known(known) = end else {
                continue;
            };
            let Some(pod) = known.pod().filter(|pod| pod.is_held()) else {
                continue;
            };
            let (labels, recorded) = found.entry(known.who.clone()).or_default();
            labels.insert(lasting(&pod.labels));
            let is_new = |one: &Pod| one.labels != pod.labels || one.workload != pod.workload;
            if known.is_recorded_only() && recorded.iter().all(is_new) {
                recorded.push(pod.clone());
            }
        }
        let mut all: Vec<Unit> = Vec::new();
        let mut alike: HashMap<(NamespaceName, BTreeSet<Labels>), usize> = HashMap::new();
        let mut by_who = HashMap::new();
        for (who, (labels, recorded)) in found {
            let Who::Workload { namespace, .. } = &who else {
                continue;
            };
            let number = *alike
                .entry((namespace.clone(), labels.clone()))
                .or_insert(all.len());
            if number == all.len() {
                all.push(Unit {
                    namespace: namespace.clone(),
                    whos: BTreeSet::new(),
                    labels,
                    recorded: Vec::new(),
                    selector: Selector::everything(),
                });
            }
            if let Some(unit) = all.get_mut(number) {
                unit.whos.insert(who.clone());
                unit.recorded.extend(recorded);
            }
            by_who.insert(who, number);
        }
        let selectors: Vec<Selector> = all.iter().map(|unit| telling(unit, &all)).collect();
        for (unit, selector) in all.iter_mut().zip(selectors) {
            unit.selector = selector;
        }
        Self { all, by_who, ends }
    }

    /// All of them, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Unit)> {
        self.all.iter().enumerate()
    }

    pub(super) fn get(&self, number: usize) -> Option<&Unit> {
        self.all.get(number)
    }

    /// The end that an actor is.
    pub(super) fn end(&self, actor: usize) -> Option<&Resolved> {
        self.ends.get(actor)
    }

    /// The unit of a workload.
    pub(super) fn of_who(&self, who: &Who) -> Option<usize> {
        self.by_who.get(who).copied()
    }

    /// The unit of each workload of the snapshot.
    pub(super) fn of_workloads(&self) -> HashMap<WorkloadRef, usize> {
        let known = self.by_who.iter().filter_map(|(who, number)| match who {
            Who::Workload {
                namespace,
                name,
                kind: Some(kind),
            } => {
                let workload = WorkloadRef {
                    kind: *kind,
                    namespace: namespace.clone(),
                    name: name.clone(),
                };
                Some((workload, *number))
            }
            _ => None,
        });
        known.collect()
    }

    /// Notes on units that cannot be selected without selecting everything.
    pub(super) fn wide(&self) -> impl Iterator<Item = String> {
        let wide = self.all.iter().filter(|unit| unit.selector.is_everything());
        wide.map(|unit| {
            format!(
                "{}/{} has no lasting labels: policies that mean it mean every pod of the namespace",
                unit.namespace,
                unit.name()
            )
        })
    }

    /// The workloads that nothing tells apart.
    pub(super) fn alike(&self) -> Vec<Vec<Who>> {
        let several = self.all.iter().filter(|unit| unit.whos.len() > 1);
        several
            .map(|unit| unit.whos.iter().cloned().collect())
            .collect()
    }
}

// === impl Unit ===

impl Unit {
    /// Its name: that of its first workload.
    pub(super) fn name(&self) -> &str {
        match self.whos.first() {
            Some(Who::Workload { name, .. }) => name.as_str(),
            _ => "workload",
        }
    }

    fn is_matched(&self, selector: &Selector) -> bool {
        self.labels.iter().any(|labels| selector.matches(labels))
    }
}

/// The labels that say what a pod is and not which of them it is.
fn lasting(labels: &Labels) -> Labels {
    let lasting = labels.iter().filter(|(key, _)| !VOLATILE.contains(key));
    lasting.collect()
}

/// The least that selects all pods of a unit and, as far as labels can, none of the others of its namespace.
fn telling(unit: &Unit, all: &[Unit]) -> Selector {
    let others: Vec<&Unit> = all
        .iter()
        .filter(|other| other.namespace == unit.namespace && other.labels != unit.labels)
        .collect();
    let wrong = |selector: &Selector| {
        let matched = others.iter().filter(|other| other.is_matched(selector));
        matched.count()
    };
    let own = shared(unit);
    let everything = Selector::everything();
    // One label is enough mostly.
    for one in &own {
        let alone = everything.and(one);
        if wrong(&alone) == 0 {
            return alone;
        }
    }
    let mut chosen = own
        .first()
        .map_or(everything.clone(), |first| everything.and(first));
    for one in &own {
        let more = chosen.and(one);
        if wrong(&more) < wrong(&chosen) {
            chosen = more;
        }
    }
    // What is left has all these labels and others beside them.
    for other in &others {
        for labels in other
            .labels
            .iter()
            .filter(|labels| chosen.matches(labels))
            .collect::<Vec<_>>()
        {
            if !chosen.matches(labels) {
                continue;
            }
            let lacks = labels.iter().flat_map(|(key, value)| {
                [
                    Requirement::does_not_exist(key),
                    Requirement::is_not_in(key, [value]),
                ]
            });
            let mut keeps = lacks.filter(|lack| unit.labels.iter().all(|own| lack.matches(own)));
            if let Some(lack) = keeps.next() {
                chosen = chosen.and(&lack);
            }
        }
    }
    chosen
}

/// The labels that all pods of a unit have, those first that are there to name it.
fn shared(unit: &Unit) -> Vec<Requirement> {
    let mut labels = unit.labels.iter();
    let Some(first) = labels.next() else {
        return Vec::new();
    };
    let mut shared: Vec<(&str, &str)> = first
        .iter()
        .filter(|(key, value)| labels.clone().all(|other| other.get(key) == Some(value)))
        .collect();
    let rank = |key: &str| {
        let mut telling = NAMING.iter().chain(&TELLING);
        telling
            .position(|known| *known == key)
            .unwrap_or(usize::MAX)
    };
    shared.sort_by_key(|(key, _)| (rank(key), *key));
    shared
        .into_iter()
        .map(|(key, value)| Requirement::is(key, value))
        .collect()
}
