//! What is judged at all: the resources and operations that a webhook must be asked about, and no others.
//!
//! The registration in a cluster is made from this table. A resource that is missing is a hole, one too many is a
//! dependency of the cluster on the webhook for nothing; the tests hold the table against what [`judge`] finds.
//!
//! [`judge`]: crate::guard::decide::judge

use crate::guard::guardrail::{GROUP, VERSION};
use crate::guard::review::Operation::{self, Create, Delete, Update};

/// Where objects of a resource are, as far as a registration is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a namespace, or a namespace itself: whether a request that nobody answers passes follows the namespace.
    Namespace,
    /// Of the whole cluster, or what Ringfence itself is told by: a request that nobody answers always passes.
    Cluster,
}

/// Resources of one API group that are judged alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Where the objects are.
    pub place: Place,
    /// API group; empty for the core.
    pub group: &'static str,
    /// API version; the API server converts what comes in another.
    pub version: &'static str,
    /// The resources, in the plural, with a subresource after a slash.
    pub resources: &'static [&'static str],
    /// What is asked for.
    pub operations: &'static [Operation],
    /// What may change the object on its way in, other than a policy in Rego.
    pub changed: Changed,
}

/// What changes objects on their way in, beside policies in Rego.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Nothing.
    Never,
    /// A policy that forgot the allows of the baseline gets them.
    ToAllow,
    /// A pod that comes before the baseline of its namespace gets a scheduling gate, where that is asked for.
    ToWait,
}

/// Everything that is judged.
pub const JUDGED: [Judged; 14] = [
    Judged {
        changed: Changed::ToWait,
        ..in_namespaces("", "v1", &["pods"], &[Create])
    },
    in_namespaces("", "v1", &["pods"], &[Update]),
    in_namespaces("", "v1", &["replicationcontrollers"], &[Create, Update]),
    // They only ever change a pod that is there.
    in_namespaces(
        "",
        "v1",
        &["pods/ephemeralcontainers", "pods/resize"],
        &[Update],
    ),
    in_namespaces("", "v1", &["namespaces"], &[Create, Update]),
    in_namespaces(
        "apps",
        "v1",
        &["daemonsets", "deployments", "replicasets", "statefulsets"],
        &[Create, Update],
    ),
    in_namespaces("batch", "v1", &["cronjobs", "jobs"], &[Create, Update]),
    Judged {
        changed: Changed::ToAllow,
        ..in_namespaces(
            "networking.k8s.io",
            "v1",
            &["networkpolicies"],
            &[Create, Update],
        )
    },
    // Nothing can be added to what goes away.
    in_namespaces("networking.k8s.io", "v1", &["networkpolicies"], &[Delete]),
    // A trial that ends leaves what nobody has counted on.
    in_namespaces(
        GROUP,
        VERSION,
        &["stagednetworkpolicies"],
        &[Create, Update],
    ),
    // What policies mean by `nodes`; what a kubelet says of itself never comes here.
    Judged {
        place: Place::Cluster,
        ..in_namespaces("", "v1", &["nodes"], &[Create, Update])
    },
    Judged {
        place: Place::Cluster,
        ..in_namespaces(
            "policy.networking.k8s.io",
            "v1alpha2",
            &["clusternetworkpolicies"],
            &[Create, Update, Delete],
        )
    },
    Judged {
        place: Place::Cluster,
        ..in_namespaces(
            "policy.networking.k8s.io",
            "v1alpha1",
            &["adminnetworkpolicies", "baselineadminnetworkpolicies"],
            &[Create, Update, Delete],
        )
    },
    Judged {
        place: Place::Cluster,
        ..in_namespaces(
            GROUP,
            VERSION,
            &["exemptions", "guardrails", "reachabilityrules"],
            &[Create, Update],
        )
    },
];

const fn in_namespaces(
    group: &'static str,
    version: &'static str,
    resources: &'static [&'static str],
    operations: &'static [Operation],
) -> Judged {
    Judged {
        place: Place::Namespace,
        group,
        version,
        resources,
        operations,
        changed: Changed::Never,
    }
}

#[cfg(test)]
mod tests;
