//! Which pod has an address.
//!
//! Asked for each address that a change is about and for each member of a set that is made, so that one step must not grow with
//! the cluster.

use std::net::IpAddr;
use std::sync::Arc;

use rpds::{HashTrieMapSync, RedBlackTreeMapSync};

use crate::netpol::pod::Pod;
use crate::netpol::workload::WorkloadRef;

/// The addresses of the pods that have some, in their canonical form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    /// The pod that has an address: of several that claim it the first that is not being deleted.
    owners: HashTrieMapSync<IpAddr, Arc<Pod>>,
    /// All that claim an address, by kind and name, where there are more than one for a while.
    contested: RedBlackTreeMapSync<IpAddr, Vec<Arc<Pod>>>,
}

// === impl Addresses ===

impl Addresses {
    /// The pod that has an address.
    pub(super) fn owner(&self, address: IpAddr) -> Option<&Pod> {
        self.owners.get(&address).map(|pod| &**pod)
    }

    /// Whether it is a pod that claims an address that has it.
    pub(super) fn is_owner(&self, pod: &Pod, address: IpAddr) -> bool {
        self.contested.get(&address).is_none()
            || self
                .owner(address)
                .is_some_and(|owner| owner.workload == pod.workload)
    }

    /// A pod claims an address; what is known of the pod there is what it is now.
    pub(super) fn claim(&mut self, address: IpAddr, pod: &Arc<Pod>) {
        let mut pods = self.claimants(address);
        pods.retain(|other| other.workload != pod.workload);
        let place = pods.partition_point(|other| other.workload < pod.workload);
        pods.insert(place, Arc::clone(pod));
        self.put(address, pods);
    }

    /// A pod claims an address no more.
    pub(super) fn leave(&mut self, address: IpAddr, workload: &WorkloadRef) {
        let mut pods = self.claimants(address);
        pods.retain(|pod| pod.workload != *workload);
        self.put(address, pods);
    }

    fn claimants(&self, address: IpAddr) -> Vec<Arc<Pod>> {
        match self.contested.get(&address) {
            Some(pods) => pods.clone(),
            None => self.owners.get(&address).cloned().into_iter().collect(),
        }
    }

    fn put(&mut self, address: IpAddr, pods: Vec<Arc<Pod>>) {
        match pods.iter().min_by_key(|pod| pod.terminating) {
            Some(owner) => self.owners.insert_mut(address, Arc::clone(owner)),
            None => {
                self.owners.remove_mut(&address);
            }
        }
        if pods.len() > 1 {
            self.contested.insert_mut(address, pods);
        } else {
            self.contested.remove_mut(&address);
        }
    }
}
