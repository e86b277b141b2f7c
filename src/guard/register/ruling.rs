//! Policies of the whole cluster with the workloads that they rule now, and which of them are for the same ones.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{ClusterEntry, ClusterOverlap, Review, Source, words};
use crate::guard::guardrail::Guardrails;
use crate::netpol::{
    ClusterNetworkPolicy, Direction, NamespaceState, NetworkPolicy, ObjectKey, Snapshot,
    WorkloadRef,
};

/// One of them.
pub(super) struct Ruling<'s> {
    policy: &'s ClusterNetworkPolicy,
    /// Each template, and each pod that no template stands for.
    workloads: BTreeSet<&'s WorkloadRef>,
}

impl<'s> Ruling<'s> {
    /// All of them, by tier, priority and name.
    pub(super) fn all(snapshot: &'s Snapshot) -> Vec<Self> {
        let mut policies: Vec<&ClusterNetworkPolicy> = snapshot.cluster_policies().collect();
        policies.sort_by_key(|policy| (policy.tier, policy.priority, &policy.reference));
        let ruling = policies.into_iter().map(|policy| {
            let namespaces = snapshot
                .namespaces()
                .filter(|state| policy.may_rule(state.labels()));
            let pods = namespaces.flat_map(|state| {
                let pods = state.pods();
                pods.filter(|pod| policy.rules_pod(pod, state.labels()))
            });
            Self {
                policy,
                workloads: pods
                    .map(|pod| pod.owner.as_ref().unwrap_or(&pod.workload))
                    .collect(),
            }
        });
        ruling.collect()
    }

    /// All of them as the register tells them.
    pub(super) fn entries(
        all: &[Self],
        snapshot: &Snapshot,
        guardrails: &Guardrails,
        sources: &BTreeMap<ObjectKey, Source>,
        at: Timestamp,
    ) -> Vec<ClusterEntry> {
        let entries = all.iter().map(|ruling| {
            let policy = ruling.policy;
            let section = guardrails
                .iter()
                .filter(|guardrail| guardrail.may_select(&policy.subject.namespaces))
                .find_map(|guardrail| guardrail.spec.documentation.clone())
                .unwrap_or_default();
            let said = |key: &str| super::said(&policy.annotations, key);
            let source = sources.get(&ObjectKey::ClusterNetworkPolicy(policy.reference.clone()));
            ClusterEntry {
                kind: policy.reference.kind,
                name: policy.reference.name.to_string(),
                place: ruling.place(),
                location: source.map(|source| source.location.clone()),
                digest: source.map(|source| source.digest.clone()),
                owner: said(&section.owner.annotation),
                purpose: said(&section.purpose.annotation),
                review: Review::of(said(&section.review_by.annotation), at),
                controls: super::controls(&policy.annotations),
                subject: words::pods_of(&policy.subject),
                workloads: ruling.workloads.len(),
                rules: words::cluster(policy),
                overlaps: all
                    .iter()
                    .filter_map(|other| ruling.beside(other))
                    .collect(),
                network_policies: ruling.network_policies(snapshot),
            }
        });
        entries.collect()
    }

    /// Its tier and its priority there, where its kind has one.
    fn place(&self) -> String {
        let place = self.policy.place();
        match place.priority() {
            Some(priority) => format!("{} {priority}", place.tier),
            None => place.tier.to_string(),
        }
    }

    /// What it has in common with a network policy for some workloads.
    pub(super) fn over(
        &self,
        policy: &NetworkPolicy,
        workloads: &BTreeSet<&WorkloadRef>,
    ) -> Option<ClusterOverlap> {
        let is_same_way = |way: &Direction| policy.isolates(*way) && self.has_rules(*way);
        let common = workloads.intersection(&self.workloads).count();
        (common > 0 && Direction::BOTH.iter().any(is_same_way)).then(|| self.overlap(common))
    }

    /// What it has in common with another one.
    fn beside(&self, other: &Self) -> Option<ClusterOverlap> {
        let is_same_way = |way: &Direction| other.has_rules(*way) && self.has_rules(*way);
        let common = self.workloads.intersection(&other.workloads).count();
        let is_other = self.policy.reference != other.policy.reference;
        (is_other && common > 0 && Direction::BOTH.iter().any(is_same_way))
            .then(|| other.overlap(common))
    }

    /// How many network policies isolate some of its workloads in a direction that it has rules for.
    fn network_policies(&self, snapshot: &Snapshot) -> usize {
        let namespaces = snapshot
            .namespaces()
            .filter(|state| self.policy.may_rule(state.labels()));
        let policies = namespaces.flat_map(|state| {
            let pods = || {
                let pods = state.pods();
                pods.filter(|pod| self.policy.rules_pod(pod, state.labels()))
            };
            let policies = NamespaceState::effective_policies(state);
            policies.filter(move |policy| {
                let mut ways = Direction::BOTH.into_iter();
                ways.any(|way| policy.isolates(way) && self.has_rules(way))
                    && pods().any(|pod| policy.selects(pod))
            })
        });
        policies.count()
    }

    fn has_rules(&self, direction: Direction) -> bool {
        !self.policy.rules(direction).is_empty()
    }

    fn overlap(&self, workloads: usize) -> ClusterOverlap {
        ClusterOverlap {
            kind: self.policy.reference.kind,
            policy: self.policy.reference.name.to_string(),
            place: self.place(),
            workloads,
        }
    }
}
