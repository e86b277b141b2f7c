//! The objects that a snapshot holds, whatever their kind.

use super::name::{NamespaceName, ObjectName, PolicyRef};
use super::namespace::Namespace;
use super::pod::Pod;
use super::policy::NetworkPolicy;
use super::service::Service;
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
            Self::NetworkPolicy(policy) => ObjectKey::NetworkPolicy(policy.reference()),
        }
    }

    /// The namespace that it is in, or that it is.
    pub fn namespace(&self) -> &NamespaceName {
        match self {
            Self::Namespace(namespace) => &namespace.name,
            Self::Pod(pod) | Self::Workload(pod) => pod.namespace(),
            Self::Service(service) => &service.namespace,
            Self::NetworkPolicy(policy) => &policy.namespace,
        }
    }
}

impl ObjectKey {
    /// The namespace that it is in, or that it is.
    pub fn namespace(&self) -> &NamespaceName {
        match self {
            Self::Namespace(namespace) | Self::Service { namespace, .. } => namespace,
            Self::Workload(workload) => &workload.namespace,
            Self::NetworkPolicy(policy) => &policy.namespace,
        }
    }
}
