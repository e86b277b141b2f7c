//! A cluster at one moment, as far as network policies concern it.
//!
//! A [`Snapshot`] never changes: [`Snapshot::with`] and [`Snapshot::without`] make new ones that share all but the
//! change, so that a webhook can ask "what if" and a watcher can publish while others read.
//! Everything is kept per namespace, because a network policy concerns the pods of its own namespace only;
//! `snapshot/wide.rs` has what belongs to none.

use std::net::IpAddr;
use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

use super::cluster_policy::{ClusterNetworkPolicy, Tier};
use super::flow::Endpoint;
use super::labels::Labels;
use super::name::{
    ClusterPolicyRef, NamespaceName, NodeName, ObjectName, PolicyKind, PolicyName, PolicyRef,
};
use super::namespace::{Namespace, automatic_labels};
use super::node::Node;
use super::object::{Object, ObjectKey};
use super::pod::Pod;
use super::policy::NetworkPolicy;
use super::service::Service;
use super::workload::{WorkloadKind, WorkloadRef};
use addresses::Addresses;
use trials::Trial;
pub(super) use wide::Nodes;
use wide::Wide;

mod addresses;
mod trials;
mod wide;

/// How much of a name that is wanted is kept: it may have 253 bytes (RFC 1123, section 2.1), and a number comes behind it.
const LONGEST_WANTED: usize = 240;

/// The objects of a cluster; cheap to clone, to change and to send to other threads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    namespaces: RedBlackTreeMapSync<NamespaceName, NamespaceState>,
    addresses: Addresses,
    wide: Wide,
}

/// One namespace and what is in it; the namespace itself may be missing from what was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceState {
    name: NamespaceName,
    labels: Labels,
    object: Option<Arc<Namespace>>,
    pods: RedBlackTreeMapSync<(WorkloadKind, ObjectName), Arc<Pod>>,
    policies: RedBlackTreeMapSync<PolicyName, Arc<NetworkPolicy>>,
    trials: RedBlackTreeMapSync<PolicyName, Trial>,
    services: RedBlackTreeMapSync<ObjectName, Arc<Service>>,
}

// === impl Snapshot ===

impl Snapshot {
    /// The snapshot with this object added, or put in the place of the one with the same key.
    #[must_use]
    pub fn with(&self, object: Object) -> Snapshot {
        let mut changed = self.clone();
        changed.insert(object);
        changed
    }

    /// The snapshot without an object; the same one if it was not there.
    #[must_use]
    pub fn without(&self, key: &ObjectKey) -> Snapshot {
        let mut changed = self.clone();
        changed.remove(key);
        changed
    }

    /// A namespace of which something is known, be it only a pod or policy in it.
    pub fn namespace(&self, name: &NamespaceName) -> Option<&NamespaceState> {
        self.namespaces.get(name)
    }

    /// All namespaces of which something is known, by name.
    pub fn namespaces(&self) -> impl Iterator<Item = &NamespaceState> {
        self.namespaces.values()
    }

    /// The labels of a namespace, among them always its name; of an unknown one, only that.
    pub fn namespace_labels(&self, name: &NamespaceName) -> Labels {
        self.namespace(name)
            .map_or_else(|| automatic_labels(name), |state| state.labels.clone())
    }

    /// The pods and the representative pods of templates in a namespace, by kind and name.
    pub fn pods_in(&self, name: &NamespaceName) -> impl Iterator<Item = &Pod> {
        self.namespace(name)
            .into_iter()
            .flat_map(NamespaceState::pods)
    }

    /// The network policies in a namespace, by name.
    pub fn policies_in(&self, name: &NamespaceName) -> impl Iterator<Item = &NetworkPolicy> {
        self.namespace(name)
            .into_iter()
            .flat_map(NamespaceState::policies)
    }

    /// The name that is wanted for another policy of a namespace, or with a number where one has it: applied under that,
    /// it would take the other's place.
    #[must_use]
    pub fn free_policy_name(&self, namespace: &NamespaceName, wanted: &str) -> PolicyName {
        let state = self.namespace(namespace);
        let wanted = wanted.get(..LONGEST_WANTED).unwrap_or(wanted);
        let wanted = wanted.trim_end_matches(['-', '.']);
        let is_taken = |name: &str| {
            state.is_some_and(|state| {
                state.policies.contains_key(name) || state.trials.contains_key(name)
            })
        };
        let numbered = (2..=u64::MAX).map(|number| format!("{wanted}-{number}"));
        let mut names = std::iter::once(wanted.to_owned()).chain(numbered);
        let free = names.find(|name| !is_taken(name));
        free.map_or_else(|| wanted.into(), PolicyName::from)
    }

    /// The services in a namespace, by name.
    pub fn services_in(&self, name: &NamespaceName) -> impl Iterator<Item = &Service> {
        self.namespace(name)
            .into_iter()
            .flat_map(NamespaceState::services)
    }

    /// All pods and representative pods.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.namespaces().flat_map(NamespaceState::pods)
    }

    /// All network policies.
    pub fn policies(&self) -> impl Iterator<Item = &NetworkPolicy> {
        self.namespaces().flat_map(NamespaceState::policies)
    }

    /// The pod, or representative pod, of a workload.
    pub fn pod(&self, workload: &WorkloadRef) -> Option<&Pod> {
        let pods = &self.namespace(&workload.namespace)?.pods;
        pods.get(&(workload.kind, workload.name.clone()))
            .map(|pod| &**pod)
    }

    /// A network policy, or one on trial.
    pub fn policy(&self, policy: &PolicyRef) -> Option<&NetworkPolicy> {
        let state = self.namespace(&policy.namespace)?;
        let staged = match policy.kind {
            PolicyKind::NetworkPolicy => None,
            PolicyKind::Canary | PolicyKind::StagedNetworkPolicy => self.staged_policy(policy),
        };
        // One that is promoted for a question is among the others.
        let real = || state.policies.get(&policy.name).map(|policy| &**policy);
        staged.map(|staged| &staged.policy).or_else(real)
    }

    /// All cluster network policies in the order in which they are asked: by tier, priority and name.
    pub fn cluster_policies(&self) -> impl Iterator<Item = &ClusterNetworkPolicy> {
        self.wide.policies()
    }

    /// Those of one tier, in the order in which they are asked.
    pub fn cluster_policies_of(&self, tier: Tier) -> impl Iterator<Item = &ClusterNetworkPolicy> {
        self.wide
            .policies()
            .filter(move |policy| policy.tier == tier)
    }

    /// A cluster network policy.
    pub fn cluster_policy(&self, policy: &ClusterPolicyRef) -> Option<&ClusterNetworkPolicy> {
        self.wide.policy(policy)
    }

    /// All cluster network policies in the order in which they are asked, as they are shared between snapshots.
    pub(super) fn shared_cluster_policies(
        &self,
    ) -> impl Iterator<Item = &Arc<ClusterNetworkPolicy>> {
        self.wide.shared_policies()
    }

    /// All nodes that are known, as they are shared between snapshots.
    pub(super) fn shared_nodes(&self) -> &Nodes {
        self.wide.nodes()
    }

    /// All nodes that are known, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.wide.nodes().iter()
    }

    /// A node.
    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.wide.nodes().get(name)
    }

    /// The nodes that have an address; more than one only while two claim it.
    pub fn nodes_at(&self, address: IpAddr) -> impl Iterator<Item = &Node> {
        self.wide.nodes().at(address.to_canonical())
    }

    /// A service.
    pub fn service(&self, namespace: &NamespaceName, name: &ObjectName) -> Option<&Service> {
        self.namespace(namespace)?
            .services
            .get(name)
            .map(|service| &**service)
    }

    /// The pod that has an address, of several that claim it one that is not being deleted.
    ///
    /// Pods on the host network have no address of their own, and those of finished pods are given to others.
    pub fn pod_at(&self, address: IpAddr) -> Option<&Pod> {
        self.addresses.owner(address.to_canonical())
    }

    /// Whether a pod of this snapshot has an address of its own, which others may claim too.
    pub(crate) fn has(&self, pod: &Pod, address: IpAddr) -> bool {
        self.addresses.is_owner(pod, address)
    }

    /// The end of a flow that an address is: the pod or the node that has it, or else something outside.
    pub fn endpoint_at(&self, address: IpAddr) -> Endpoint<'_> {
        if let Some(pod) = self.pod_at(address) {
            return Endpoint::Pod(pod);
        }
        match self.nodes_at(address).next() {
            Some(node) => Endpoint::Node {
                name: &node.name,
                address: Some(address),
            },
            None => Endpoint::External(address),
        }
    }

    /// Adds or replaces an object in place: what [`Snapshot::with`] does, for building many in a row.
    pub fn insert(&mut self, object: Object) {
        let object = match object {
            Object::ClusterNetworkPolicy(policy) => return self.wide.insert_policy(policy),
            Object::Node(node) => return self.wide.nodes_mut().insert(node),
            object => object,
        };
        self.forget_addresses(&object.key());
        let Some(name) = object.namespace().cloned() else {
            return;
        };
        let mut state = self
            .namespaces
            .get(&name)
            .cloned()
            .unwrap_or_else(|| NamespaceState::new(name.clone()));
        match object {
            Object::Namespace(namespace) => {
                state.labels = namespace.labels.clone();
                state.object = Some(Arc::new(namespace));
            }
            Object::Pod(mut pod) | Object::Workload(mut pod) => {
                state.share_with(&mut pod);
                if let Some(node) = pod.node.as_ref().and_then(|node| self.node(node)) {
                    pod.node = Some(node.name.clone());
                }
                let pod = Arc::new(pod);
                self.learn_addresses(&pod);
                state
                    .pods
                    .insert_mut((pod.workload.kind, pod.workload.name.clone()), pod);
            }
            Object::Service(service) => state
                .services
                .insert_mut(service.name.clone(), Arc::new(service)),
            Object::NetworkPolicy(policy) => {
                let name = policy.name.clone();
                state.policies.insert_mut(name.clone(), Arc::new(policy));
                state.follow_trial(&name);
            }
            Object::StagedNetworkPolicy(staged) => state.try_out(*staged),
            Object::ClusterNetworkPolicy(_) | Object::Node(_) => {}
        }
        self.namespaces.insert_mut(name, state);
    }

    /// Removes an object in place, if it is there.
    pub fn remove(&mut self, key: &ObjectKey) {
        match key {
            ObjectKey::ClusterNetworkPolicy(name) => self.wide.remove_policy(name),
            ObjectKey::Node(name) => self.wide.nodes_mut().remove(name),
            _ => {}
        }
        self.forget_addresses(key);
        let Some(name) = key.namespace() else { return };
        let Some(mut state) = self.namespaces.get(name).cloned() else {
            return;
        };
        match key {
            ObjectKey::Namespace(name) => {
                state.labels = automatic_labels(name);
                state.object = None;
            }
            ObjectKey::Workload(workload) => {
                state
                    .pods
                    .remove_mut(&(workload.kind, workload.name.clone()));
            }
            ObjectKey::Service { name, .. } => {
                state.services.remove_mut(name);
            }
            ObjectKey::NetworkPolicy(policy) => {
                state.policies.remove_mut(&policy.name);
                state.follow_trial(&policy.name);
            }
            ObjectKey::StagedNetworkPolicy(policy) => {
                state.trials.remove_mut(&policy.name);
            }
            ObjectKey::ClusterNetworkPolicy(_) | ObjectKey::Node(_) => {}
        }
        if state.is_unknown() {
            self.namespaces.remove_mut(name);
        } else {
            self.namespaces.insert_mut(name.clone(), state);
        }
    }

    fn learn_addresses(&mut self, pod: &Arc<Pod>) {
        for address in pod.ips.iter().filter(|_| pod.is_held()) {
            self.addresses.claim(*address, pod);
        }
    }

    fn forget_addresses(&mut self, key: &ObjectKey) {
        let ObjectKey::Workload(workload) = key else {
            return;
        };
        let addresses = self.pod(workload).map(|pod| pod.ips.clone());
        for address in addresses.into_iter().flatten() {
            self.addresses.leave(address, workload);
        }
    }
}

impl Extend<Object> for Snapshot {
    fn extend<I: IntoIterator<Item = Object>>(&mut self, objects: I) {
        objects.into_iter().for_each(|object| self.insert(object));
    }
}

impl FromIterator<Object> for Snapshot {
    fn from_iter<I: IntoIterator<Item = Object>>(objects: I) -> Self {
        let mut snapshot = Self::default();
        snapshot.extend(objects);
        snapshot
    }
}

// === impl NamespaceState ===

impl NamespaceState {
    fn new(name: NamespaceName) -> Self {
        Self {
            labels: automatic_labels(&name),
            name,
            object: None,
            pods: RedBlackTreeMapSync::default(),
            policies: RedBlackTreeMapSync::default(),
            trials: RedBlackTreeMapSync::default(),
            services: RedBlackTreeMapSync::default(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &NamespaceName {
        &self.name
    }

    /// Its labels, among them always its name.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// The namespace itself, where it was among what was read.
    pub fn object(&self) -> Option<&Namespace> {
        self.object.as_deref()
    }

    /// Whether it is known to be being deleted.
    pub fn is_terminating(&self) -> bool {
        self.object().is_some_and(|namespace| namespace.terminating)
    }

    /// Its pods and the representative pods of its templates, by kind and name.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values().map(|pod| &**pod)
    }

    /// Its pods as they are shared between snapshots, by kind and name.
    pub(super) fn shared_pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.values()
    }

    /// Its network policies, by name.
    pub fn policies(&self) -> impl Iterator<Item = &NetworkPolicy> {
        self.policies.values().map(|policy| &**policy)
    }

    /// Its network policies that can be counted upon: none that is being deleted, and none at all while the namespace is,
    /// since they go with it, and nothing says that they go last.
    pub fn effective_policies(&self) -> impl Iterator<Item = &NetworkPolicy> {
        let counted = !self.is_terminating();
        self.policies()
            .filter(move |policy| counted && !policy.terminating)
    }

    /// Its services, by name.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values().map(|service| &**service)
    }

    /// Has a pod hold what is the same as in its neighbours by name, which the pods of one workload are, together with them.
    fn share_with(&self, pod: &mut Pod) {
        pod.workload.namespace = self.name.clone();
        let key = (pod.workload.kind, pod.workload.name.clone());
        let before = self.pods.range(..&key).next_back();
        let from = self.pods.range(&key..).next();
        for (_, other) in before.into_iter().chain(from) {
            pod.share(other);
        }
    }

    fn is_unknown(&self) -> bool {
        self.object.is_none()
            && self.pods.is_empty()
            && self.policies.is_empty()
            && self.trials.is_empty()
            && self.services.is_empty()
    }
}

#[cfg(test)]
mod tests;
