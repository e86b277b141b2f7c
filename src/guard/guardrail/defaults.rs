//! What an absent field of a guardrail means, and the guardrail that is made of nothing but defaults.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use schemars::JsonSchema;

use super::{
    AnnotationRule, BaselineSection, BreadthLimits, BreadthSection, BypassesSection,
    ClusterNetworkPolicies, CoverageScope, CoverageSection, DnsAllow, DocumentationSection,
    Existing, GROUP, GuardrailSpec, HygieneSection, IngressControllerAllow, Inject, LabelPlace,
    LabelRule, LabelsSection, MonitoringAllow, OptOut, PoliciesSection, Presence, ScrapePort,
    Unchanged,
};
use crate::guard::mode::Mode;
use crate::netpol::Direction;
use crate::netpol::SYSTEM_NAMESPACES;

pub(super) fn yes() -> bool {
    true
}

// serde wants a function for a default that differs from the type's own.
#[allow(clippy::unnecessary_wraps)]
pub(super) fn some_default<T: Default>() -> Option<T> {
    Some(T::default())
}

fn labelled(key: &str, value: &str) -> LabelSelector {
    LabelSelector {
        match_labels: Some([(key.to_owned(), value.to_owned())].into()),
        ..LabelSelector::default()
    }
}

impl LabelsSection {
    pub(super) fn default_rules() -> Vec<LabelRule> {
        let rule = |key: &str, aliases: &[&str], presence| LabelRule {
            key: key.to_owned(),
            aliases: aliases.iter().map(|&alias| alias.to_owned()).collect(),
            presence,
            values: Vec::new(),
            pattern: None,
            kinds: Vec::new(),
            place: LabelPlace::Pods,
        };
        vec![
            rule(
                "app.kubernetes.io/name",
                &["app", "k8s-app"],
                Presence::Required,
            ),
            rule(
                "app.kubernetes.io/component",
                &["tier", "role", "component"],
                Presence::Recommended,
            ),
            rule(
                "app.kubernetes.io/part-of",
                &["team"],
                Presence::Recommended,
            ),
        ]
    }
}

impl Default for LabelsSection {
    fn default() -> Self {
        Self {
            mode: None,
            rules: Self::default_rules(),
            near_misses: true,
        }
    }
}

impl CoverageSection {
    pub(super) fn both() -> BTreeSet<Direction> {
        [Direction::Ingress, Direction::Egress].into()
    }
}

impl Default for CoverageSection {
    fn default() -> Self {
        Self {
            mode: None,
            directions: Self::both(),
            scope: CoverageScope::default(),
            cluster_network_policies: ClusterNetworkPolicies::default(),
        }
    }
}

impl Default for BaselineSection {
    fn default() -> Self {
        Self {
            mode: None,
            inject: Inject::default(),
            dns: some_default(),
            monitoring: some_default(),
            ingress_controller: None,
            default_deny: CoverageSection::both(),
            existing: Existing::default(),
            promoted: BTreeSet::new(),
            scheduling_gates: false,
            quarantine: None,
            opt_out: OptOut::default(),
        }
    }
}

impl Default for BreadthSection {
    fn default() -> Self {
        Self {
            mode: None,
            ingress: some_default(),
            egress: some_default(),
        }
    }
}

impl DnsAllow {
    pub(super) fn default_namespace() -> LabelSelector {
        labelled("kubernetes.io/metadata.name", "kube-system")
    }

    pub(super) fn default_pods() -> LabelSelector {
        labelled("k8s-app", "kube-dns")
    }

    pub(super) fn default_ports() -> Vec<u16> {
        vec![53]
    }
}

impl Default for DnsAllow {
    fn default() -> Self {
        Self {
            enabled: true,
            namespace_selector: Self::default_namespace(),
            pod_selector: Self::default_pods(),
            ports: Self::default_ports(),
            node_local: Vec::new(),
        }
    }
}

impl MonitoringAllow {
    pub(super) fn default_namespace() -> LabelSelector {
        labelled("kubernetes.io/metadata.name", "monitoring")
    }

    pub(super) fn default_ports() -> Vec<ScrapePort> {
        vec![ScrapePort::Number(9090)]
    }
}

impl IngressControllerAllow {
    pub(super) fn default_namespace() -> LabelSelector {
        labelled("kubernetes.io/metadata.name", "ingress-nginx")
    }
}

impl Default for MonitoringAllow {
    fn default() -> Self {
        Self {
            enabled: true,
            namespace_selector: Self::default_namespace(),
            pod_selector: None,
            ports: Self::default_ports(),
        }
    }
}

impl BypassesSection {
    pub(super) fn default_capabilities() -> BTreeSet<String> {
        ["BPF", "NET_ADMIN", "NET_RAW", "SYS_ADMIN", "SYS_MODULE"]
            .map(str::to_owned)
            .into()
    }
}

impl Default for BypassesSection {
    fn default() -> Self {
        Self {
            mode: None,
            allow: BTreeSet::new(),
            allowed_host_ports: BTreeSet::new(),
            capabilities: Self::default_capabilities(),
        }
    }
}

impl BreadthLimits {
    pub(super) fn default_v4() -> u8 {
        8
    }

    pub(super) fn default_v6() -> u8 {
        32
    }
}

impl Default for BreadthLimits {
    fn default() -> Self {
        Self {
            enabled: true,
            any_peer: false,
            all_namespaces: false,
            widest_prefix_v4: Self::default_v4(),
            widest_prefix_v6: Self::default_v6(),
            allowed_blocks: Vec::new(),
        }
    }
}

impl DocumentationSection {
    fn annotation(name: &str, presence: Presence) -> AnnotationRule {
        AnnotationRule {
            annotation: format!("{GROUP}/{name}"),
            presence,
            pattern: None,
        }
    }

    pub(super) fn default_owner() -> AnnotationRule {
        Self::annotation("owner", Presence::Recommended)
    }

    pub(super) fn default_purpose() -> AnnotationRule {
        Self::annotation("purpose", Presence::Recommended)
    }

    pub(super) fn default_review_by() -> AnnotationRule {
        Self::annotation("review-by", Presence::Optional)
    }
}

impl Default for DocumentationSection {
    fn default() -> Self {
        Self {
            mode: None,
            owner: Self::default_owner(),
            purpose: Self::default_purpose(),
            review_by: Self::default_review_by(),
        }
    }
}

impl HygieneSection {
    pub(super) fn default_policies_per_pod() -> u16 {
        10
    }

    pub(super) fn default_label_values() -> u16 {
        30
    }
}

impl Default for HygieneSection {
    fn default() -> Self {
        Self {
            mode: None,
            most_policies_per_pod: Self::default_policies_per_pod(),
            most_label_values: Self::default_label_values(),
        }
    }
}

impl JsonSchema for ScrapePort {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ScrapePort".into()
    }

    // A structural schema has no `oneOf` of types; this is how Kubernetes itself writes int-or-string.
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"x-kubernetes-int-or-string": true})
    }
}

impl GuardrailSpec {
    /// What is demanded where nobody has said anything: everything, with every default, outside the system namespaces.
    pub fn built_in() -> Self {
        Self {
            namespace_selector: Some(LabelSelector {
                match_expressions: Some(vec![LabelSelectorRequirement {
                    key: "kubernetes.io/metadata.name".to_owned(),
                    operator: "NotIn".to_owned(),
                    values: Some(SYSTEM_NAMESPACES.map(str::to_owned).into()),
                }]),
                match_labels: None,
            }),
            mode: Mode::Enforce,
            unchanged: Unchanged::Tolerate,
            labels: Some(LabelsSection::default()),
            coverage: Some(CoverageSection::default()),
            baseline: Some(BaselineSection::default()),
            bypasses: Some(BypassesSection::default()),
            breadth: Some(BreadthSection::default()),
            documentation: Some(DocumentationSection::default()),
            hygiene: Some(HygieneSection::default()),
            // Most clusters have a network plugin that enforces policies and gives no receipts.
            enforcement: None,
            policies: Some(PoliciesSection::default()),
        }
    }
}
