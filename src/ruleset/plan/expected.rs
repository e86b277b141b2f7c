//! Pods that are bound to the node and have no address yet: their chains are made while their sandboxes are, idle, and the address
//! that comes then costs its own elements only, however many peers its policies name.

use std::collections::{BTreeMap, BTreeSet};

use super::{Plan, Written};
use crate::netpol::{Family, ObjectKey, Pod, Snapshot, WorkloadRef};
use crate::ruleset::draft::Draft;
use crate::ruleset::table::ChainName;

impl Plan {
    /// Makes the chains of pods that are bound to the node since the last snapshot, as far as there is room for idle ones. Of which
    /// families their addresses will be is known from the pods that are here.
    pub(super) fn prepare(&mut self, old: &Snapshot, changed: &[ObjectKey], draft: &mut Draft) {
        // What goes in a transaction does not come in the same one.
        if draft.takes_away() {
            return;
        }
        let (snapshot, node) = (self.snapshot.clone(), self.options.node.clone());
        let workloads = changed.iter().filter_map(|key| match key {
            ObjectKey::Workload(workload) => Some(workload),
            _ => None,
        });
        let is_new = |workload: &&WorkloadRef| !old.pod(workload).is_some_and(|it| it.is_on(&node));
        let pods = workloads.filter(is_new).filter_map(|it| snapshot.pod(it));
        let is_bound = |pod: &&Pod| pod.is_on(&node) && pod.is_held() && pod.ips.is_empty();
        let pods: Vec<&Pod> = pods.filter(is_bound).collect();
        if pods.is_empty() {
            return;
        }
        let families: BTreeSet<Family> = self.local.keys().copied().map(Family::of).collect();
        let mut written = Written::new();
        let mut made: BTreeMap<ChainName, Family> = BTreeMap::new();
        for pod in pods {
            for family in &families {
                if made.len() >= self.idle.room() {
                    break;
                }
                for chain in self.chains_for(pod, *family, &mut written).into_values() {
                    made.insert(chain, *family);
                }
            }
        }
        let used = made.iter().map(|(chain, family)| (chain, *family));
        self.use_chains(&used.collect::<Vec<_>>(), draft);
        // None is made once more when one of them had to go.
        for chain in made.keys() {
            self.set_aside(chain, draft);
        }
    }
}
