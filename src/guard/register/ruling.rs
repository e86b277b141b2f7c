//! Policies of the whole cluster with the workloads that they rule now, and which of them are for the same ones.

use std::collections::BTreeSet;

use super::ClusterOverlap;
use crate::netpol::{
    ClusterNetworkPolicy, Direction, NamespaceState, NetworkPolicy, Snapshot, WorkloadRef,
};

/// One of them.
pub(super) struct Ruling<'s> {
    pub(super) policy: &'s ClusterNetworkPolicy,
    /// Each template, and each pod that no template stands for.
    pub(super) workloads: BTreeSet<&'s WorkloadRef>,
}

impl<'s> Ruling<'s> {
    /// All of them, by tier, priority and name.
    pub(super) fn all(snapshot: &'s Snapshot) -> Vec<Self> {
        let mut policies: Vec<&ClusterNetworkPolicy> = snapshot.cluster_policies().collect();
        policies.sort_by_key(|policy| (policy.tier, policy.priority, &policy.name));
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

    /// Its tier and its priority there.
    pub(super) fn place(&self) -> String {
        format!("{} {}", self.policy.tier, self.policy.priority)
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
    pub(super) fn beside(&self, other: &Self) -> Option<ClusterOverlap> {
        let is_same_way = |way: &Direction| other.has_rules(*way) && self.has_rules(*way);
        let common = self.workloads.intersection(&other.workloads).count();
        let is_other = self.policy.name != other.policy.name;
        (is_other && common > 0 && Direction::BOTH.iter().any(is_same_way))
            .then(|| other.overlap(common))
    }

    /// How many network policies isolate some of its workloads in a direction that it has rules for.
    pub(super) fn network_policies(&self, snapshot: &Snapshot) -> usize {
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
            policy: self.policy.name.to_string(),
            place: self.place(),
            workloads,
        }
    }
}
