//! What belongs to no namespace: cluster network policies in the order in which they are asked, and nodes.

use std::net::IpAddr;
use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

use crate::netpol::cluster_policy::{ClusterNetworkPolicy, Priority, Tier};
use crate::netpol::name::{ClusterPolicyRef, NodeName};
use crate::netpol::node::Node;

/// The objects of a snapshot that belong to the whole cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wide {
    /// By tier, priority and name.
    policies: RedBlackTreeMapSync<(Tier, Priority, ClusterPolicyRef), Arc<ClusterNetworkPolicy>>,
    /// Where each policy stands there.
    places: RedBlackTreeMapSync<ClusterPolicyRef, (Tier, Priority)>,
    nodes: Nodes,
}

/// The nodes that are known; cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::netpol) struct Nodes {
    by_name: RedBlackTreeMapSync<NodeName, Arc<Node>>,
    /// Those that have an address; several may claim the same one for a while.
    by_address: RedBlackTreeMapSync<(IpAddr, NodeName), Arc<Node>>,
}

impl Wide {
    pub(super) fn insert_policy(&mut self, policy: ClusterNetworkPolicy) {
        self.remove_policy(&policy.reference);
        let name = policy.reference.clone();
        let place = (policy.tier, policy.priority);
        self.places.insert_mut(name.clone(), place);
        self.policies
            .insert_mut((place.0, place.1, name), Arc::new(policy));
    }

    pub(super) fn remove_policy(&mut self, name: &ClusterPolicyRef) {
        if let Some((tier, priority)) = self.places.get(name).copied() {
            self.policies.remove_mut(&(tier, priority, name.clone()));
            self.places.remove_mut(name);
        }
    }

    pub(super) fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    pub(super) fn nodes_mut(&mut self) -> &mut Nodes {
        &mut self.nodes
    }

    pub(super) fn policies(&self) -> impl Iterator<Item = &ClusterNetworkPolicy> {
        self.shared_policies().map(|policy| &**policy)
    }

    pub(super) fn shared_policies(&self) -> impl Iterator<Item = &Arc<ClusterNetworkPolicy>> {
        self.policies.values()
    }

    pub(super) fn policy(&self, name: &ClusterPolicyRef) -> Option<&ClusterNetworkPolicy> {
        let (tier, priority) = *self.places.get(name)?;
        let policy = self.policies.get(&(tier, priority, name.clone()))?;
        Some(policy)
    }
}

// === impl Nodes ===

impl Nodes {
    pub(super) fn insert(&mut self, node: Node) {
        self.remove(&node.name);
        let node = Arc::new(node);
        for address in &node.addresses {
            let key = (*address, node.name.clone());
            self.by_address.insert_mut(key, Arc::clone(&node));
        }
        self.by_name.insert_mut(node.name.clone(), node);
    }

    pub(super) fn remove(&mut self, name: &NodeName) {
        let addresses = self.by_name.get(name).map(|node| node.addresses.clone());
        for address in addresses.into_iter().flatten() {
            self.by_address.remove_mut(&(address, name.clone()));
        }
        self.by_name.remove_mut(name);
    }

    /// All of them, by name.
    pub(in crate::netpol) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.by_name.values().map(|node| &**node)
    }

    pub(super) fn get(&self, name: &NodeName) -> Option<&Node> {
        self.by_name.get(name).map(|node| &**node)
    }

    /// Those that have an address in canonical form.
    pub(in crate::netpol) fn at(&self, address: IpAddr) -> impl Iterator<Item = &Node> {
        let following = self.by_address.range((address, NodeName::from(""))..);
        following
            .take_while(move |((claimed, _), _)| *claimed == address)
            .map(|(_, node)| &**node)
    }

    /// Every address that one of them has, and no other.
    pub(in crate::netpol) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.by_address.keys().map(|(address, _)| *address)
    }
}
