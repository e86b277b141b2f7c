//! The resources that each power is over, and where a right to them bears.

use super::{BREAK_GLASS, Power};
use crate::guard::guardrail::GROUP;

/// A resource that a power is over.
pub(super) struct Target {
    pub(super) power: Power,
    pub(super) group: &'static str,
    pub(super) resource: &'static str,
    pub(super) verbs: &'static [&'static str],
    pub(super) within: Within,
    /// The one object that it is about.
    pub(super) name: Option<&'static str>,
}

/// How a right in one namespace bears on a resource.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Within {
    /// Not at all: it belongs to no namespace.
    Nothing,
    /// On those of the namespace.
    Namespace,
    /// On the namespace itself, which is asked for as if it were in itself.
    Itself,
}

pub(super) const WRITE: &[&str] = &["create", "update", "patch", "delete", "deletecollection"];
const RBAC: &str = "rbac.authorization.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";

const fn target(
    power: Power,
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
    within: Within,
) -> Target {
    Target {
        power,
        group,
        resource,
        verbs,
        within,
        name: None,
    }
}

pub(super) const TARGETS: [Target; 19] = {
    use Power::{
        ClusterNetworkPolicies, Exempt, Exemptions, Guardrails, NamespaceLabels, NetworkPolicies,
        Rights, Webhooks,
    };
    use Within::{Itself, Namespace, Nothing};
    let policies = "networking.k8s.io";
    let wide = "policy.networking.k8s.io";
    [
        target(
            NetworkPolicies,
            policies,
            "networkpolicies",
            WRITE,
            Namespace,
        ),
        // In stage `Canary` one is in force as a NetworkPolicy is.
        target(
            NetworkPolicies,
            GROUP,
            "stagednetworkpolicies",
            WRITE,
            Namespace,
        ),
        target(
            ClusterNetworkPolicies,
            wide,
            "clusternetworkpolicies",
            WRITE,
            Nothing,
        ),
        target(
            ClusterNetworkPolicies,
            wide,
            "adminnetworkpolicies",
            WRITE,
            Nothing,
        ),
        target(
            ClusterNetworkPolicies,
            wide,
            "baselineadminnetworkpolicies",
            WRITE,
            Nothing,
        ),
        target(
            NamespaceLabels,
            "",
            "namespaces",
            &["update", "patch"],
            Itself,
        ),
        target(Exemptions, GROUP, "exemptions", WRITE, Namespace),
        target(Exempt, GROUP, "guardrails", &["exempt"], Nothing),
        target(Guardrails, GROUP, "guardrails", WRITE, Nothing),
        target(Guardrails, GROUP, "reachabilityrules", WRITE, Nothing),
        target(
            Webhooks,
            ADMISSION,
            "validatingwebhookconfigurations",
            WRITE,
            Nothing,
        ),
        target(
            Webhooks,
            ADMISSION,
            "mutatingwebhookconfigurations",
            WRITE,
            Nothing,
        ),
        Target {
            name: Some(BREAK_GLASS),
            ..target(Power::BreakGlass, "", "groups", &["impersonate"], Nothing)
        },
        target(Rights, "", "groups", &["impersonate"], Nothing),
        target(Rights, "", "users", &["impersonate"], Nothing),
        target(Rights, "", "serviceaccounts", &["impersonate"], Namespace),
        target(Rights, RBAC, "roles", &["bind", "escalate"], Namespace),
        // A RoleBinding in a namespace may name a ClusterRole.
        target(Rights, RBAC, "clusterroles", &["bind"], Namespace),
        target(Rights, RBAC, "clusterroles", &["escalate"], Nothing),
    ]
};
