//! The objects that a snapshot holds, whatever their kind.

use super::cluster_policy::ClusterNetworkPolicy;
use super::name::{ClusterPolicyRef, NamespaceName, NodeName, ObjectName, PolicyRef};
use super::namespace::Namespace;
use super::node::Node;
use super::pod::Pod;
use super::policy::NetworkPolicy;
use super::service::Service;
use super::staged::StagedNetworkPolicy;
use super::workload::WorkloadRef;

/// An object of a kind that the model knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A namespace.
    Namespace(Namespace),
    /// A pod by itself.
    Pod(Pod),
    /// The representative pod of a workload's template.
    Workload(Pod),
    /// A service.
    Service(Service),
    /// A network policy.
    NetworkPolicy(NetworkPolicy),
    /// A network policy on trial.
    StagedNetworkPolicy(Box<StagedNetworkPolicy>),
    /// A cluster network policy, or one of a kind that it has replaced.
    ClusterNetworkPolicy(ClusterNetworkPolicy),
    /// A node.
    Node(Node),
}

/// Which object of a snapshot is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKey {
    /// A namespace.
    Namespace(NamespaceName),
    /// A pod, or a workload with its template.
    Workload(WorkloadRef),
    /// A service.
    Service {
        /// Its namespace.
        namespace: NamespaceName,
        /// Its name.
        name: ObjectName,
    },
    /// A network policy.
    NetworkPolicy(PolicyRef),
    /// A network policy on trial.
    StagedNetworkPolicy(PolicyRef),
    /// A cluster network policy, or one of a kind that it has replaced.
    ClusterNetworkPolicy(ClusterPolicyRef),
    /// A node.
    Node(NodeName),
}

impl Object {
    /// Which object it is: another one of the same key takes its place.
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Namespace(namespace) => ObjectKey::Namespace(namespace.name.clone()),
            Self::Pod(pod) | Self::Workload(pod) => ObjectKey::Workload(pod.workload.clone()),
            Self::Service(service) => ObjectKey::Service {
                namespace: service.namespace.clone(),
                name: service.name.clone(),
            },
            Self::NetworkPolicy(policy) => ObjectKey::NetworkPolicy(PolicyRef::new(
                policy.namespace.clone(),
                policy.name.clone(),
            )),
            Self::StagedNetworkPolicy(staged) => ObjectKey::StagedNetworkPolicy(staged.reference()),
            Self::ClusterNetworkPolicy(policy) => {
                ObjectKey::ClusterNetworkPolicy(policy.reference.clone())
            }
            Self::Node(node) => ObjectKey::Node(node.name.clone()),
        }
    }

    /// The namespace that it is in, or that it is; none for what belongs to the whole cluster.
    pub fn namespace(&self) -> Option<&NamespaceName> {
        match self {
            Self::Namespace(namespace) => Some(&namespace.name),
            Self::Pod(pod) | Self::Workload(pod) => Some(pod.namespace()),
            Self::Service(service) => Some(&service.namespace),
            Self::NetworkPolicy(policy) => Some(&policy.namespace),
            Self::StagedNetworkPolicy(staged) => Some(&staged.policy.namespace),
            Self::ClusterNetworkPolicy(_) | Self::Node(_) => None,
        }
    }
}

impl ObjectKey {
    /// The namespace that it is in, or that it is; none for what belongs to the whole cluster.
    pub fn namespace(&self) -> Option<&NamespaceName> {
        match self {
            Self::Namespace(namespace) | Self::Service { namespace, .. } => Some(namespace),
            Self::Workload(workload) => Some(&workload.namespace),
            Self::NetworkPolicy(policy) | Self::StagedNetworkPolicy(policy) => {
                Some(&policy.namespace)
            }
            Self::ClusterNetworkPolicy(_) | Self::Node(_) => None,
        }
    }
}
