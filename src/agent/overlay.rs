//! What the node knows of its pods better than the API server: the addresses that the CNI gave them and has not taken back.
//!
//! A pod has its address, and may send, before the kubelet has told the API server of it. Until the watch brings the same, the
//! address is taken from here. Nobody else on the node has it then, whatever the API server still says of a pod that had it
//! before.
//!
//! A pod that is deleted by force is gone from the API server at once, while its containers run until the kubelet ends them. It
//! stays what it was until the CNI takes its address back, under a name of its own where another pod has got its name by then.
//!
//! From then on the address is nobody's, whatever the API server still says: until it says another one, which a sandbox of
//! which nobody told may have, or has another pod of that name, or another pod is given it. Of a sandbox of which nothing was told the API server's word counts to
//! the end: it may have another one, and to take an address from a pod that runs would free it of its policies.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::netpol::{NodeName, Object, ObjectKey, Pod, Snapshot, Uid, WorkloadRef};

/// Addresses of pods of one node, by the CNI's word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Overlay {
    given: BTreeMap<WorkloadRef, Given>,
    /// The pods whose containers run still while others have their names, by their sandboxes, with what these were given.
    outlived: BTreeMap<String, Pod>,
    /// The pods that were other than the API server's word in the snapshot that was made last.
    shown: BTreeSet<WorkloadRef>,
    /// That snapshot.
    last: Snapshot,
}

/// What a pod was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    /// For which of its sandboxes: one that ends late takes nothing from the next one.
    sandbox: String,
    /// Which pod of its name it was for, where that was said.
    pub(super) uid: Option<Uid>,
    pub(super) addresses: Vec<IpAddr>,
    /// Whether an agent before this one let it start, so that the API server had told of that very pod.
    is_older: bool,
    standing: Standing,
}

/// Whether a pod has what it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    Has,
    /// The sandbox is gone, and the pod has none of the addresses any more. With which pod of this name it was, where that is
    /// known: the word of the API server on the next one is not of this sandbox.
    Taken(Option<Uid>),
}

impl Overlay {
    /// A sandbox of a pod got these addresses; whoever had them before has them no more.
    pub(super) fn give(
        &mut self,
        pod: WorkloadRef,
        uid: Option<Uid>,
        sandbox: String,
        addresses: Vec<IpAddr>,
    ) {
        let is_free = |others: &[IpAddr]| others.iter().all(|other| !addresses.contains(other));
        self.given.retain(|_, given| is_free(&given.addresses));
        self.outlived.retain(|_, pod| is_free(&pod.ips));
        self.outlive(&pod, uid, None);
        if addresses.is_empty() {
            // Nothing was said: what the API server says counts.
            self.given.remove(&pod);
            return;
        }
        let given = Given {
            sandbox,
            uid,
            addresses,
            is_older: false,
            standing: Standing::Has,
        };
        self.given.insert(pod, given);
    }

    /// The same, as an agent before this one was told.
    pub(super) fn give_again(
        &mut self,
        pod: &WorkloadRef,
        uid: Option<Uid>,
        sandbox: String,
        addresses: Vec<IpAddr>,
    ) {
        self.give(pod.clone(), uid, sandbox, addresses);
        if let Some(given) = self.given.get_mut(pod) {
            given.is_older = true;
        }
    }

    /// The network of a sandbox is gone, and with it the pod's addresses.
    pub(super) fn take(&mut self, pod: &WorkloadRef, sandbox: &str) {
        self.outlived.remove(sandbox);
        let given = self.given.get_mut(pod);
        if let Some(given) = given.filter(|given| given.sandbox == sandbox) {
            let uid = self.last.pod(pod).and_then(|pod| pod.uid);
            given.standing = Standing::Taken(uid);
        }
    }

    /// These sandboxes are gone, and nobody said so when they went. What became of their pods since then only the API server
    /// knows.
    pub(super) fn forget(&mut self, sandboxes: &[String]) {
        self.outlived.retain(|it, _| !sandboxes.contains(it));
        self.given
            .retain(|_, given| given.is_taken() || !sandboxes.contains(&given.sandbox));
    }

    /// Keeps the pod that has had a name up to now, where its sandbox is there and the name is another one's from now on. What it was
    /// before this agent nobody says: it is taken for one like the next, on this node.
    fn outlive(&mut self, name: &WorkloadRef, next: Option<Uid>, like: Option<(&Pod, &NodeName)>) {
        let (Some(given), Some(next)) = (self.given.get(name), next) else {
            return;
        };
        let last = self.last.pod(name).filter(|last| last.uid == given.uid);
        let last = last.map(|last| (last, last.node.as_ref()));
        let like = like.filter(|_| given.is_older);
        let like = like.map(|(like, node)| (like, Some(node)));
        let Some((last, node)) = last.or(like) else {
            return;
        };
        let is_its = given.uid.is_some_and(|own| own != next);
        if is_its && !given.is_taken() {
            let workload = WorkloadRef {
                // No pod of the API server has such a name.
                name: format!("{} (sandbox {})", name.name, given.sandbox).into(),
                ..name.clone()
            };
            let pod = Pod {
                workload,
                uid: given.uid,
                node: node.cloned(),
                ips: given.addresses.clone(),
                ..last.clone()
            };
            self.outlived.insert(given.sandbox.clone(), pod);
            self.given.remove(name);
        }
    }

    /// The pod that a sandbox is the newest one of, and what it was given.
    pub(super) fn of_sandbox(&self, sandbox: &str) -> Option<(&WorkloadRef, &Given)> {
        let mut given = self.given.iter();
        given.find(|(_, it)| it.sandbox == sandbox && !it.is_taken())
    }

    /// The cluster with what is known better here, and which pods are other for it than in the snapshot before.
    pub(super) fn over(&mut self, raw: &Snapshot, node: &NodeName) -> (Snapshot, Vec<ObjectKey>) {
        // A pod that is not there may be yet to come.
        self.given.retain(|workload, given| {
            !given.is_taken() || given.is_said_by(raw.pod(workload), node)
        });
        let given = self.given.iter();
        let others = given.filter(|(name, given)| given.is_of_another(raw.pod(name)));
        let names: Vec<WorkloadRef> = others.map(|(name, _)| name.clone()).collect();
        for name in names {
            let next = raw.pod(&name);
            let like = next.map(|next| (next, node));
            self.outlive(&name, next.and_then(|pod| pod.uid), like);
        }
        let mut snapshot = raw.clone();
        let mut shown = BTreeSet::new();
        for pod in self.outlived.values() {
            shown.insert(pod.workload.clone());
            snapshot.insert(Object::Pod(pod.clone()));
        }
        for (workload, given) in &self.given {
            // One that is not there any more runs still.
            let known = raw.pod(workload);
            let Some(pod) = known.or_else(|| self.last.pod(workload)) else {
                continue;
            };
            if given.is_taken() {
                shown.insert(workload.clone());
                snapshot.insert(Object::Pod(without(pod.clone(), &given.addresses)));
                continue;
            }
            // What another pod of its name had is not its own.
            if given.is_of_another(known) {
                continue;
            }
            let is_elsewhere = pod.node.as_ref().is_some_and(|there| there != node);
            let has = |address: &IpAddr| {
                let occupant = snapshot.pod_at(*address);
                occupant.is_some_and(|it| it.workload == *workload)
            };
            let is_said = known.is_some() && pod.ips == given.addresses;
            if is_elsewhere || is_said && given.addresses.iter().all(has) {
                continue;
            }
            for address in &given.addresses {
                // Whoever had it before on this node has it no more.
                while let Some(other) = snapshot.pod_at(*address).cloned() {
                    if other.workload == *workload || other.node.as_ref() != Some(node) {
                        break;
                    }
                    shown.insert(other.workload.clone());
                    snapshot.insert(Object::Pod(without(other, &[*address])));
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

impl Given {
    fn is_taken(&self) -> bool {
        matches!(self.standing, Standing::Taken(_))
    }

    /// Whether the pod that has the name now is known to be another one.
    fn is_of_another(&self, known: Option<&Pod>) -> bool {
        let now = known.and_then(|pod| pod.uid);
        self.uid.zip(now).is_some_and(|(own, now)| own != now)
    }

    /// Whether the API server says of the pod whose sandbox it was that it has one of these addresses here.
    fn is_said_by(&self, pod: Option<&Pod>, node: &NodeName) -> bool {
        pod.is_some_and(|pod| {
            if let (Standing::Taken(Some(uid)), Some(now)) = (&self.standing, &pod.uid)
                && uid != now
            {
                return false;
            }
            pod.is_on(node) && pod.ips.iter().any(|own| self.addresses.contains(own))
        })
    }
}

fn without(mut pod: Pod, addresses: &[IpAddr]) -> Pod {
    pod.ips.retain(|own| !addresses.contains(own));
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
        overlay.give(workload(&new), None, "first".to_owned(), vec![address]);
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
    fn the_next_pod_of_a_name_has_the_address_that_the_one_before_lost() {
        let (node, address) = ("n".into(), "10.0.0.7".parse().unwrap());
        let of = |uid: &str| {
            let Object::Pod(pod) = pod("web-0", &["10.0.0.7"]) else {
                panic!("a pod");
            };
            let uid = Uid::parse(uid);
            assert!(uid.is_some());
            Object::Pod(Pod { uid, ..pod })
        };
        let uids = [
            "0b1c4c2e-6a0e-4b0f-9a53-000000000001",
            "0b1c4c2e-6a0e-4b0f-9a53-000000000002",
        ];
        let [first, second]: [Snapshot; 2] = uids.map(|uid| [of(uid)].into_iter().collect());
        let mut overlay = Overlay::default();
        overlay.give(
            workload(&of(uids[0])),
            None,
            "first".to_owned(),
            vec![address],
        );
        overlay.over(&first, &node);
        overlay.take(&workload(&of(uids[0])), "first");
        assert_eq!(overlay.over(&first, &node).0.pod_at(address), None);
        // Of its sandbox nothing was told, so the API server's word counts.
        let (snapshot, changed) = overlay.over(&second, &node);
        assert_eq!(snapshot, second);
        assert_eq!(changed, [of(uids[1]).key()]);
        assert_eq!(overlay.given, BTreeMap::new());
    }

    #[test]
    fn an_address_that_is_taken_back_is_nobody_s_until_the_api_server_says_another_one() {
        let (node, address) = ("n".into(), "10.0.0.7".parse().unwrap());
        let told = pod("web", &["10.0.0.7", "fd00::7"]);
        let raw: Snapshot = [told.clone()].into_iter().collect();
        let mut overlay = Overlay::default();
        overlay.give(workload(&told), None, "first".to_owned(), vec![address]);
        overlay.take(&workload(&told), "first");
        for _ in 0..2 {
            let (snapshot, changed) = overlay.over(&raw, &node);
            assert_eq!(snapshot.pod_at(address), None);
            // Of the other one nothing was told.
            assert!(snapshot.pod_at("fd00::7".parse().unwrap()).is_some());
            assert_eq!(changed, [told.key()]);
        }
        // A sandbox of which nobody told has another one: a pod that runs is held.
        let next: Snapshot = [pod("web", &["10.0.0.9"])].into_iter().collect();
        assert_eq!(overlay.over(&next, &node), (next, vec![told.key()]));
        assert_eq!(overlay.over(&raw, &node).0, raw);

        // Its next sandbox is given the same one.
        overlay.give(workload(&told), None, "second".to_owned(), vec![address]);
        overlay.take(&workload(&told), "second");
        overlay.give(workload(&told), None, "third".to_owned(), vec![address]);
        overlay.take(&workload(&told), "second");
        let (snapshot, _) = overlay.over(&raw, &node);
        assert!(snapshot.pod_at(address).is_some());
    }

    #[test]
    fn of_a_sandbox_that_went_unheard_nothing_is_left() {
        let (node, address) = ("n".into(), "10.0.0.7".parse().unwrap());
        let told = pod("web", &[]);
        let raw: Snapshot = [told.clone()].into_iter().collect();
        let mut overlay = Overlay::default();
        overlay.give(workload(&told), None, "first".to_owned(), vec![address]);
        let (pod, given) = overlay.of_sandbox("first").unwrap();
        assert_eq!(
            (pod, &given.addresses[..]),
            (&workload(&told), &[address][..])
        );
        overlay.over(&raw, &node);
        overlay.forget(&["another".to_owned()]);
        let (snapshot, _) = overlay.over(&Snapshot::default(), &node);
        assert!(snapshot.pod_at(address).is_some(), "it runs still");
        overlay.forget(&["first".to_owned()]);
        assert_eq!(overlay.of_sandbox("first"), None);
        assert_eq!(overlay.over(&raw, &node), (raw.clone(), vec![told.key()]));
        assert_eq!(
            overlay.over(&Snapshot::default(), &node).0,
            Snapshot::default()
        );
        assert_eq!(overlay, Overlay::default());
    }

    #[test]
    fn a_pod_that_is_deleted_by_force_is_held_until_its_address_is_taken_back() {
        let (node, address) = ("n".into(), "10.0.0.7".parse().unwrap());
        let gone = pod("gone", &["10.0.0.7"]);
        let raw: Snapshot = [gone.clone()].into_iter().collect();
        let mut overlay = Overlay::default();
        overlay.give(workload(&gone), None, "first".to_owned(), vec![address]);
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
        overlay.give(workload(&gone), None, "first".to_owned(), vec![address]);
        let other = pod("gone", &["10.0.9.9"]);
        let there: Snapshot = [other].into_iter().collect();
        assert_eq!(overlay.over(&there, &"m".into()).0, there);
        // One that takes the address of a pod that is gone is the only one that has it.
        overlay.over(&raw, &node);
        let new = pod("new", &[]);
        overlay.give(workload(&new), None, "second".to_owned(), vec![address]);
        let (snapshot, _) = overlay.over(&[new].into_iter().collect(), &node);
        assert_eq!(snapshot.pod_at(address).unwrap().name().as_str(), "new");
        assert_eq!(snapshot.pods().count(), 1);
    }

    #[test]
    fn a_pod_that_runs_is_held_when_another_has_its_name() {
        let (node, address) = ("n".into(), "10.0.0.7".parse().unwrap());
        let uid = |last: u8| Uid::parse(&format!("0b1c4c2e-6a0e-4b0f-9a53-0000000000{last:02}"));
        let of = |last: u8, at: &str, addresses: &[&str]| {
            let Object::Pod(pod) = pod("web-0", addresses) else {
                panic!("a pod");
            };
            assert!(uid(last).is_some());
            Object::Pod(Pod {
                node: Some(at.into()),
                uid: uid(last),
                ..pod
            })
        };
        let first = of(1, "n", &["10.0.0.7"]);
        let name = workload(&first);
        let raw: Snapshot = [first].into_iter().collect();
        let runs = |snapshot: &Snapshot| {
            let pod = snapshot.pod_at(address);
            pod.is_some_and(|pod| pod.uid == uid(1) && pod.is_on(&"n".into()))
        };
        // Its next one is elsewhere, or comes here before the API server tells of it, or after.
        let elsewhere: Snapshot = [of(2, "m", &["10.0.9.9"])].into_iter().collect();
        let here: Snapshot = [of(2, "n", &[])].into_iter().collect();
        for (is_given, told) in [(false, &elsewhere), (true, &here), (false, &here)] {
            let mut overlay = Overlay::default();
            overlay.give(name.clone(), uid(1), "first".to_owned(), vec![address]);
            assert!(runs(&overlay.over(&raw, &node).0));
            let next = "10.0.0.8".parse().unwrap();
            if is_given {
                overlay.give(name.clone(), uid(2), "second".to_owned(), vec![next]);
                assert!(runs(&overlay.over(&raw, &node).0));
            }
            let (snapshot, changed) = overlay.over(told, &node);
            assert!(runs(&snapshot), "{told:?}");
            assert_eq!(snapshot.pods().count(), 2);
            let new = snapshot.pod(&name).unwrap();
            assert_eq!(new.uid, uid(2));
            assert_eq!(is_given, new.ips == [next]);
            assert!(changed.len() <= 2, "{changed:?}");
            assert!(runs(&overlay.over(told, &node).0), "until it has ended");
            overlay.take(&name, "first");
            let (snapshot, changed) = overlay.over(told, &node);
            assert_eq!(snapshot.pod_at(address), None);
            assert_eq!(snapshot.pods().count(), 1);
            assert!(!changed.is_empty());
        }
        // Who has its address is another one, and a sandbox that went unheard is no more.
        for is_gone in [true, false] {
            let mut overlay = Overlay::default();
            overlay.give(name.clone(), uid(1), "first".to_owned(), vec![address]);
            overlay.over(&raw, &node);
            overlay.over(&elsewhere, &node);
            if is_gone {
                overlay.forget(&["first".to_owned()]);
            } else {
                let new = workload(&pod("new", &[]));
                overlay.give(new, None, "second".to_owned(), vec![address]);
            }
            assert!(!runs(&overlay.over(&elsewhere, &node).0));
        }
    }

    #[test]
    fn what_was_kept_of_a_pod_that_is_gone_is_not_the_next_one_s() {
        let (node, address) = ("n".into(), "10.0.0.7".parse().unwrap());
        let uid = |last: u8| Uid::parse(&format!("0b1c4c2e-6a0e-4b0f-9a53-0000000000{last:02}"));
        let Object::Pod(next) = pod("web-0", &["10.0.0.8"]) else {
            panic!("a pod");
        };
        let next = Object::Pod(Pod {
            uid: uid(2),
            ..next
        });
        let raw: Snapshot = [next.clone()].into_iter().collect();
        let mut overlay = Overlay::default();
        overlay.give_again(&workload(&next), uid(1), "first".to_owned(), vec![address]);
        for _ in 0..2 {
            let (snapshot, _) = overlay.over(&raw, &node);
            assert_eq!(snapshot.pod(&workload(&next)), raw.pod(&workload(&next)));
            // It is held as one of its name would be, until it has ended.
            let old = snapshot.pod_at(address).unwrap();
            assert_eq!((old.uid, old.is_on(&node)), (uid(1), true));
        }
        let mut taken = overlay.clone();
        taken.take(&workload(&next), "first");
        assert_eq!(taken.over(&raw, &node).0, raw);
        overlay.give(workload(&next), uid(2), "second".to_owned(), vec![address]);
        let (snapshot, _) = overlay.over(&raw, &node);
        assert_eq!(snapshot.pod_at(address).map(|pod| pod.uid), Some(uid(2)));
        assert_eq!(snapshot.pods().count(), 1);
    }

    #[test]
    fn of_two_that_the_api_server_has_at_an_address_the_one_has_it_that_was_given_it() {
        let (node, address) = ("n".into(), "10.0.0.7".parse().unwrap());
        let [before, new] = ["a", "b"].map(|name| pod(name, &["10.0.0.7"]));
        let raw: Snapshot = [before, new.clone()].into_iter().collect();
        assert_eq!(raw.pod_at(address).unwrap().name().as_str(), "a");
        let mut overlay = Overlay::default();
        overlay.give(workload(&new), None, "first".to_owned(), vec![address]);
        for _ in 0..2 {
            let (snapshot, _) = overlay.over(&raw, &node);
            assert_eq!(snapshot.pod_at(address).unwrap().name().as_str(), "b");
        }
    }
}
