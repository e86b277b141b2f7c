//! What the node knows of its pods better than the API server: the addresses that the CNI gave them and has not taken back.
//!
//! A pod has its address, and may send, before the kubelet has told the API server of it. Until the watch brings the same, the
//! address is taken from here. Nobody else on the node has it then, whatever the API server still says of a pod that had it
//! before.
//!
//! A pod that is deleted by force is gone from the API server at once, while its containers run until the kubelet ends them. It
//! stays what it was until the CNI takes its address back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::netpol::{NodeName, Object, ObjectKey, Pod, Snapshot, WorkloadRef};

/// Addresses of pods of one node, by the CNI's word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Overlay {
    given: BTreeMap<WorkloadRef, Given>,
    /// The pods that were other than the API server's word in the snapshot that was made last.
    shown: BTreeSet<WorkloadRef>,
    /// That snapshot.
    last: Snapshot,
}

/// What a pod was given.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Given {
    /// For which of its sandboxes: one that ends late takes nothing from the next one.
    sandbox: String,
    /// None once the sandbox is gone.
    addresses: Vec<IpAddr>,
}

impl Overlay {
    /// A sandbox of a pod got these addresses; whoever had them before has them no more.
    pub(super) fn give(&mut self, pod: WorkloadRef, sandbox: String, addresses: Vec<IpAddr>) {
        let is_free = |others: &[IpAddr]| others.iter().all(|other| !addresses.contains(other));
        self.given.retain(|_, given| is_free(&given.addresses));
        self.given.insert(pod, Given { sandbox, addresses });
    }

    /// The network of a sandbox is gone, and with it the pod's addresses.
    pub(super) fn take(&mut self, pod: &WorkloadRef, sandbox: &str) {
        let given = self.given.get_mut(pod);
        if let Some(given) = given.filter(|given| given.sandbox == sandbox) {
            given.addresses.clear();
        }
    }

    /// The cluster with what is known better here, and which pods are other for it than in the snapshot before.
    pub(super) fn over(&mut self, raw: &Snapshot, node: &NodeName) -> (Snapshot, Vec<ObjectKey>) {
        // A pod that is gone and was taken its addresses leaves nothing. One that is not there may be yet to come.
        self.given
            .retain(|workload, given| raw.pod(workload).is_some() || !given.addresses.is_empty());
        let mut snapshot = raw.clone();
        let mut shown = BTreeSet::new();
        for (workload, given) in &self.given {
            // One that is not there any more runs still.
            let known = raw.pod(workload);
            let Some(pod) = known.or_else(|| self.last.pod(workload)) else {
                continue;
            };
            let is_elsewhere = pod.node.as_ref().is_some_and(|there| there != node);
            if is_elsewhere || known.is_some() && pod.ips == given.addresses {
                continue;
            }
            for address in &given.addresses {
                // Whoever had it before on this node has it no more.
                while let Some(other) = snapshot.pod_at(*address).cloned() {
                    if other.workload == *workload || other.node.as_ref() != Some(node) {
                        break;
                    }
                    shown.insert(other.workload.clone());
                    snapshot.insert(Object::Pod(without(other, *address)));
                }
            }
            shown.insert(workload.clone());
            snapshot.insert(Object::Pod(Pod {
                ips: given.addresses.clone(),
                node: Some(node.clone()),
                ..pod.clone()
            }));
        }
        self.last = snapshot.clone();
        let before = std::mem::replace(&mut self.shown, shown);
        let changed = before.union(&self.shown).cloned();
        (snapshot, changed.map(ObjectKey::Workload).collect())
    }
}

fn without(mut pod: Pod, address: IpAddr) -> Pod {
    pod.ips.retain(|own| *own != address);
    pod
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netpol::parse;
    use serde_json::json;

    fn pod(name: &str, addresses: &[&str]) -> Object {
        let ips: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let value = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "a", "name": name},
            "spec": {"nodeName": "n", "containers": [{"name": "main", "image": "main"}]},
            "status": {"phase": "Pending", "podIPs": ips},
        });
        parse(&value).unwrap().unwrap().object
    }

    fn workload(object: &Object) -> WorkloadRef {
        match object.key() {
            ObjectKey::Workload(workload) => workload,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_address_belongs_to_the_pod_that_was_given_it_last() {
        let (old, new) = (pod("old", &["10.0.0.7"]), pod("new", &[]));
        let raw: Snapshot = [old.clone(), new.clone()].into_iter().collect();
        let (node, address) = ("n".into(), "10.0.0.7".parse().unwrap());
        let mut overlay = Overlay::default();
        overlay.give(workload(&new), "first".to_owned(), vec![address]);
        let (snapshot, changed) = overlay.over(&raw, &node);
        assert_eq!(snapshot.pod_at(address).unwrap().name().as_str(), "new");
        assert_eq!(changed, [new.key(), old.key()]);

        // The API server says the same, and the old pod is gone.
        let told: Snapshot = [pod("new", &["10.0.0.7"])].into_iter().collect();
        let (snapshot, changed) = overlay.over(&told, &node);
        assert_eq!(snapshot, told);
        assert_eq!(changed.len(), 2, "they are what the API server says again");

        // A sandbox that ended before says so late.
        overlay.take(&workload(&new), "another");
        assert_eq!(overlay.over(&told, &node), (told.clone(), Vec::new()));
        overlay.take(&workload(&new), "first");
        let (snapshot, _) = overlay.over(&told, &node);
        assert_eq!(snapshot.pod_at(address), None);
        overlay.over(&Snapshot::default(), &node);
        assert_eq!(overlay, Overlay::default());
    }

    #[test]
    fn a_pod_that_is_deleted_by_force_is_held_until_its_address_is_taken_back() {
        let (node, address) = ("n".into(), "10.0.0.7".parse().unwrap());
        let gone = pod("gone", &["10.0.0.7"]);
        let raw: Snapshot = [gone.clone()].into_iter().collect();
        let mut overlay = Overlay::default();
        overlay.give(workload(&gone), "first".to_owned(), vec![address]);
        assert_eq!(overlay.over(&raw, &node), (raw.clone(), Vec::new()));
        for _ in 0..2 {
            let (snapshot, changed) = overlay.over(&Snapshot::default(), &node);
            assert_eq!(snapshot, raw);
            assert_eq!(changed, [gone.key()]);
        }
        overlay.take(&workload(&gone), "first");
        let (snapshot, changed) = overlay.over(&Snapshot::default(), &node);
        assert_eq!((snapshot, changed), (Snapshot::default(), vec![gone.key()]));
        assert_eq!(overlay, Overlay::default());

        // One of the same name on another node is not what runs here.
        overlay.give(workload(&gone), "first".to_owned(), vec![address]);
        let other = pod("gone", &["10.0.9.9"]);
        let there: Snapshot = [other].into_iter().collect();
        assert_eq!(overlay.over(&there, &"m".into()).0, there);
        // One that takes the address of a pod that is gone is the only one that has it.
        overlay.over(&raw, &node);
        let new = pod("new", &[]);
        overlay.give(workload(&new), "second".to_owned(), vec![address]);
        let (snapshot, _) = overlay.over(&[new].into_iter().collect(), &node);
        assert_eq!(snapshot.pod_at(address).unwrap().name().as_str(), "new");
        assert_eq!(snapshot.pods().count(), 1);
    }
}
