//! The kinds that are audited, and where an API server has their objects.

use serde_json::Value;

use crate::guard::review::belongs_to_cluster;
use crate::netpol::{NamespaceName, WorkloadKind};

/// A kind that is audited, as the API names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// The group; empty for the core.
    pub group: &'static str,
    /// The version.
    pub version: &'static str,
    /// The kind.
    pub kind: &'static str,
    /// The resource, in the plural.
    pub plural: &'static str,
}

const fn kind(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
) -> Kind {
    Kind {
        group,
        version,
        kind,
        plural,
    }
}

/// The kinds that are audited. Owners come before what they own, and what gives others their meaning comes first.
pub const KINDS: [Kind; 19] = [
    kind("", "v1", "Namespace", "namespaces"),
    kind(
        "networking.k8s.io",
        "v1",
        "NetworkPolicy",
        "networkpolicies",
    ),
    STAGED,
    kind(
        "policy.networking.k8s.io",
        "v1alpha2",
        "ClusterNetworkPolicy",
        "clusternetworkpolicies",
    ),
    kind(
        "policy.networking.k8s.io",
        "v1alpha1",
        "AdminNetworkPolicy",
        "adminnetworkpolicies",
    ),
    kind(
        "policy.networking.k8s.io",
        "v1alpha1",
        "BaselineAdminNetworkPolicy",
        "baselineadminnetworkpolicies",
    ),
    kind("ringfence.dev", "v1alpha1", "Guardrail", "guardrails"),
    kind(
        "ringfence.dev",
        "v1alpha1",
        "ReachabilityRule",
        "reachabilityrules",
    ),
    kind("ringfence.dev", "v1alpha1", "Exemption", "exemptions"),
    kind("", "v1", "Node", "nodes"),
    kind("", "v1", "Service", "services"),
    kind("batch", "v1", "CronJob", "cronjobs"),
    kind("apps", "v1", "Deployment", "deployments"),
    kind("apps", "v1", "StatefulSet", "statefulsets"),
    kind("apps", "v1", "DaemonSet", "daemonsets"),
    kind("", "v1", "ReplicationController", "replicationcontrollers"),
    kind("batch", "v1", "Job", "jobs"),
    kind("apps", "v1", "ReplicaSet", "replicasets"),
    kind("", "v1", "Pod", "pods"),
];

/// Policies on trial.
pub const STAGED: Kind = kind(
    "ringfence.dev",
    "v1alpha1",
    "StagedNetworkPolicy",
    "stagednetworkpolicies",
);

// === impl Kind ===

impl Kind {
    /// The `apiVersion` of the API.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Puts its `apiVersion` and `kind` into an object, which the items of a list are without.
    pub fn name(&self, object: &mut Value) {
        if let Some(fields) = object.as_object_mut() {
            fields.insert("apiVersion".to_owned(), self.api_version().into());
            fields.insert("kind".to_owned(), self.kind.into());
        }
    }

    /// The path of all objects of this kind, of every namespace.
    pub fn path(&self) -> String {
        format!("{}/{}", self.version_path(), self.plural)
    }

    /// The path of those in one namespace; `None` for a kind whose objects are in none, a Namespace among them.
    pub fn path_in(&self, namespace: &NamespaceName) -> Option<String> {
        let is_in_none = self.kind == "Namespace" || belongs_to_cluster(self.kind);
        let (path, plural) = (self.version_path(), self.plural);
        (!is_in_none).then(|| format!("{path}/namespaces/{namespace}/{plural}"))
    }

    /// Whether objects of it are in a namespace; a Namespace is in itself.
    pub fn is_in_namespaces(&self) -> bool {
        self.kind == "Namespace" || !belongs_to_cluster(self.kind)
    }

    fn version_path(&self) -> String {
        if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        }
    }

    /// Whether a cluster can be without it.
    pub fn is_optional(&self) -> bool {
        self.group.contains('.') && self.group != "networking.k8s.io"
    }

    /// Whether its objects are a pod or make pods.
    pub fn runs_pods(&self) -> bool {
        WorkloadKind::from_api(&self.api_version(), self.kind).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(plural: &str) -> &'static Kind {
        let mut kinds = KINDS.iter();
        kinds
            .find(|kind| kind.plural == plural)
            .expect("a kind that is audited")
    }

    #[test]
    fn owners_come_before_what_they_own() {
        let at = |plural: &str| KINDS.iter().position(|kind| kind.plural == plural);
        for (owner, owned) in [
            ("cronjobs", "jobs"),
            ("deployments", "replicasets"),
            ("jobs", "pods"),
            ("replicasets", "pods"),
            ("statefulsets", "pods"),
        ] {
            assert!(at(owner) < at(owned), "{owner} before {owned}");
        }
        assert_eq!(of("pods").path(), "/api/v1/pods");
        assert_eq!(of("jobs").path(), "/apis/batch/v1/jobs");
        assert_eq!(
            of("jobs").path_in(&"shop".into()).as_deref(),
            Some("/apis/batch/v1/namespaces/shop/jobs")
        );
        for plural in ["namespaces", "nodes", "guardrails"] {
            assert_eq!(of(plural).path_in(&"shop".into()), None);
        }
        assert_eq!(KINDS.iter().filter(|kind| kind.is_optional()).count(), 7);
    }
}
