//! The kinds that a cluster's state is made of.

use kube::core::{ApiResource, GroupVersionKind};

use crate::guard::guardrail::{GROUP, VERSION};
use crate::netpol::ClusterPolicyKind;

/// A kind that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `v1`.
    Namespace,
    /// `v1`; those that have ended are left out.
    Pod,
    /// `v1`.
    Service,
    /// `v1`.
    Node,
    /// `networking.k8s.io/v1`.
    NetworkPolicy,
    /// Ringfence's own, where its CRD is there: policies on trial.
    StagedNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha2`, where its CRD is there.
    ClusterNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha1`, where its CRD is there.
    AdminNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha1`, where its CRD is there.
    BaselineAdminNetworkPolicy,
    /// Ringfence's own, where its CRD is there.
    Guardrail,
    /// Ringfence's own, where its CRD is there.
    ReachabilityRule,
    /// Ringfence's own, where its CRD is there.
    Exemption,
    /// Ringfence's own, where its CRD is there: the receipts of nodes.
    NodeEnforcement,
}

impl Kind {
    /// Those that decisions are made by.
    pub const ALL: [Self; 13] = [
        Self::Namespace,
        Self::Pod,
        Self::Service,
        Self::Node,
        Self::NetworkPolicy,
        Self::StagedNetworkPolicy,
        Self::ClusterNetworkPolicy,
        Self::AdminNetworkPolicy,
        Self::BaselineAdminNetworkPolicy,
        Self::Guardrail,
        Self::ReachabilityRule,
        Self::Exemption,
        Self::NodeEnforcement,
    ];

    /// The `kind` of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::Node => "Node",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::StagedNetworkPolicy => "StagedNetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            Self::AdminNetworkPolicy => "AdminNetworkPolicy",
            Self::BaselineAdminNetworkPolicy => "BaselineAdminNetworkPolicy",
            Self::Guardrail => "Guardrail",
            Self::ReachabilityRule => "ReachabilityRule",
            Self::Exemption => "Exemption",
            Self::NodeEnforcement => "NodeEnforcement",
        }
    }

    /// The resource, in the plural.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Namespace => "namespaces",
            Self::Pod => "pods",
            Self::Service => "services",
            Self::Node => "nodes",
            Self::NetworkPolicy => "networkpolicies",
            Self::StagedNetworkPolicy => "stagednetworkpolicies",
            Self::ClusterNetworkPolicy => "clusternetworkpolicies",
            Self::AdminNetworkPolicy => "adminnetworkpolicies",
            Self::BaselineAdminNetworkPolicy => "baselineadminnetworkpolicies",
            Self::Guardrail => "guardrails",
            Self::ReachabilityRule => "reachabilityrules",
            Self::Exemption => "exemptions",
            Self::NodeEnforcement => "nodeenforcements",
        }
    }

    /// The `apiVersion` of the API.
    pub fn api_version(self) -> String {
        let (group, version) = self.group_version();
        if group.is_empty() {
            version.to_owned()
        } else {
            format!("{group}/{version}")
        }
    }

    /// What a client asks for.
    pub(crate) fn resource(self) -> ApiResource {
        let (group, version) = self.group_version();
        let kind = GroupVersionKind::gvk(group, version, self.as_str());
        ApiResource::from_gvk_with_plural(&kind, self.plural())
    }

    /// Whether it is one of Ringfence's own.
    pub(crate) fn is_own(self) -> bool {
        self.group_version().0 == GROUP
    }

    /// Whether a cluster may do without it: its CRD may come and go.
    pub(crate) fn is_optional(self) -> bool {
        self.is_own() || self.of_cluster().is_some()
    }

    /// The kind of policies of the whole cluster that it is.
    pub(super) fn of_cluster(self) -> Option<ClusterPolicyKind> {
        match self {
            Self::ClusterNetworkPolicy => Some(ClusterPolicyKind::ClusterNetworkPolicy),
            Self::AdminNetworkPolicy => Some(ClusterPolicyKind::AdminNetworkPolicy),
            Self::BaselineAdminNetworkPolicy => Some(ClusterPolicyKind::BaselineAdminNetworkPolicy),
            Self::Namespace
            | Self::Pod
            | Self::Service
            | Self::Node
            | Self::NetworkPolicy
            | Self::StagedNetworkPolicy
            | Self::Guardrail
            | Self::ReachabilityRule
            | Self::Exemption
            | Self::NodeEnforcement => None,
        }
    }

    /// Whether the controller says of its objects, in their status, whether they are in force.
    pub(super) fn has_standing(self) -> bool {
        matches!(
            self,
            Self::Guardrail | Self::ReachabilityRule | Self::Exemption
        )
    }

    /// What is left out already by the API server.
    pub(crate) fn field_selector(self) -> Option<&'static str> {
        // Policies do not hold what has ended, and of jobs that have ended there are often many.
        (self == Self::Pod).then_some("status.phase!=Succeeded,status.phase!=Failed")
    }

    fn group_version(self) -> (&'static str, &'static str) {
        match self {
            Self::Namespace | Self::Pod | Self::Service | Self::Node => ("", "v1"),
            Self::NetworkPolicy => ("networking.k8s.io", "v1"),
            Self::ClusterNetworkPolicy => ("policy.networking.k8s.io", "v1alpha2"),
            Self::AdminNetworkPolicy | Self::BaselineAdminNetworkPolicy => {
                ("policy.networking.k8s.io", "v1alpha1")
            }
            Self::StagedNetworkPolicy
            | Self::Guardrail
            | Self::ReachabilityRule
            | Self::Exemption
            | Self::NodeEnforcement => (GROUP, VERSION),
        }
    }
}
