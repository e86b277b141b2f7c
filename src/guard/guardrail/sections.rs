//! The sections of a guardrail, one type each. What an absent field means stands in `defaults`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Presence;
use super::defaults::{some_default, yes};
use crate::guard::mode::Mode;
use crate::netpol::Direction;

/// Label conventions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelsSection {
    /// The mode of this section, where it differs from the guardrail's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// The conventions, each judged by itself.
    #[schemars(length(max = 100))]
    #[serde(default = "LabelsSection::default_rules")]
    pub rules: Vec<LabelRule>,
    /// Whether a label that is a typo of one that a policy of the namespace selects by is found.
    #[serde(default = "yes")]
    pub near_misses: bool,
}

/// One label convention.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelRule {
    /// The key of the label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// Other keys that serve as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Whether it must be there.
    #[serde(default)]
    pub presence: Presence,
    /// The values that it may have. Empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// A regular expression that the whole value must match.
    #[schemars(length(max = 1000), extend("x-kubernetes-validations" = [
        {"rule": "''.matches(self) || !''.matches(self)", "message": "must be a regular expression"}
    ]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// The kinds that it holds for. Empty: Pod and all kinds that make pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<String>,
    /// Where the label is looked for.
    #[serde(default)]
    pub place: LabelPlace,
}

/// Where a label is looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LabelPlace {
    /// On the pod template where the kind has one, else on the object: what selectors of policies see.
    #[default]
    Pods,
    /// On the object itself.
    Object,
    /// On both.
    Both,
}

/// Default-deny coverage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CoverageSection {
    /// The mode of this section, where it differs from the guardrail's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// The directions in which pods must be isolated.
    #[serde(default = "CoverageSection::both")]
    pub directions: BTreeSet<Direction>,
    /// What must be covered.
    #[serde(default)]
    pub scope: CoverageScope,
    /// Whether something in the cluster enforces ClusterNetworkPolicy, so that a deny of its Baseline tier is a default-deny.
    #[serde(default)]
    pub cluster_network_policies: ClusterNetworkPolicies,
}

/// Whether ClusterNetworkPolicy is enforced in the cluster; most network plugins ignore it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClusterNetworkPolicies {
    /// It is not, or nobody knows: it covers nothing.
    #[default]
    Ignored,
    /// It is: a policy of the Baseline tier that denies the rest covers the pods that it rules. Its ingress cannot mean
    /// what is outside of the cluster, which the API has no peer for.
    Enforced,
}

/// What must be covered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CoverageScope {
    /// The namespace: policies with an empty podSelector isolate every pod, those to come as well.
    #[default]
    Namespace,
    /// Each workload: some policy isolates its pods.
    Workload,
}

/// What every namespace is allowed all the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BaselineSection {
    /// The mode of this section, where it differs from the guardrail's. Only `Enforce` changes a policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// How a policy that forgot the allows gets them.
    #[serde(default)]
    pub inject: Inject,
    /// The way to the cluster's DNS, for policies that isolate egress.
    #[serde(default = "some_default::<DnsAllow>")]
    pub dns: Option<DnsAllow>,
    /// The scrapes of the monitoring, for policies that isolate ingress.
    #[serde(default = "some_default::<MonitoringAllow>")]
    pub monitoring: Option<MonitoringAllow>,
    /// The ingress controller, which brings what comes from outside to the pods. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_controller: Option<IngressControllerAllow>,
    /// The directions in which the baseline policy of a namespace isolates every pod. Empty: there is none.
    #[serde(default = "CoverageSection::both")]
    pub default_deny: BTreeSet<Direction>,
    /// What becomes of namespaces in which pods run already when they meet this guardrail.
    #[serde(default)]
    pub existing: Existing,
    /// Names of such namespaces that get their baseline policy all the same; `ringfence promote` adds to them. They stand
    /// here and not on the Namespace, so that who may edit a namespace cannot cut its traffic by it, or keep it open.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(length(max = 5000), inner(length(max = 63)))]
    pub promoted: BTreeSet<String>,
    /// What a pod does that comes before the baseline policy of its namespace. `false`: it waits for some seconds, and is
    /// refused with "try again" after them. `true`: it is taken with a scheduling gate, which goes when the policy is there.
    #[serde(default)]
    pub scheduling_gates: bool,
    /// Pods that get none of these allows in any way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<LabelSelector>,
    /// Whether a policy may opt out by the annotation `ringfence.dev/inject: disabled`.
    #[serde(default)]
    pub opt_out: OptOut,
}

/// What becomes of namespaces in which pods run already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Existing {
    /// They are left alone until they are promoted: a default-deny would cut what nobody has declared yet.
    #[default]
    Leave,
    /// They get their baseline policy like new ones.
    Apply,
}

/// How a policy that forgot the allows gets them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Inject {
    /// `Patch`, but `Policy` for objects that a GitOps tool tracks and would fight over.
    #[default]
    Auto,
    /// The rules are appended to the policy itself.
    Patch,
    /// The policy is left alone; a separate baseline policy beside it allows the same.
    Policy,
}

/// Whether a policy may opt out of injection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OptOut {
    /// The annotation is honoured.
    Allow,
    /// The annotation is a finding, and is honoured only where the mode is not `Enforce`.
    #[default]
    Forbid,
}

/// The way to the cluster's DNS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DnsAllow {
    /// Whether there is one. `false`: no allow.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// The namespace of the DNS pods, by its labels.
    #[serde(default = "DnsAllow::default_namespace")]
    pub namespace_selector: LabelSelector,
    /// The DNS pods, by their labels.
    #[serde(default = "DnsAllow::default_pods")]
    pub pod_selector: LabelSelector,
    /// The ports that the DNS pods listen on (after translation of the Service), UDP and TCP.
    #[serde(default = "DnsAllow::default_ports")]
    #[schemars(length(min = 1, max = 100), inner(range(min = 1, max = 65535)))]
    pub ports: Vec<u16>,
    /// Addresses of a node-local DNS cache, such as 169.254.20.10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_local: Vec<IpAddr>,
}

/// The scrapes of the monitoring.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MonitoringAllow {
    /// Whether there is one. `false`: no allow.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// The namespace of the monitoring, by its labels.
    #[serde(default = "MonitoringAllow::default_namespace")]
    pub namespace_selector: LabelSelector,
    /// The pods that scrape, by their labels. Absent: all of that namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// The TCP ports that are scraped: numbers or names of container ports.
    #[serde(default = "MonitoringAllow::default_ports")]
    #[schemars(length(min = 1, max = 100))]
    pub ports: Vec<ScrapePort>,
}

/// The ingress controller.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IngressControllerAllow {
    /// The namespace of the ingress controller, by its labels.
    #[serde(default = "IngressControllerAllow::default_namespace")]
    pub namespace_selector: LabelSelector,
    /// The pods of the ingress controller, by their labels. Absent: all of that namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// The TCP ports of the pods that it may reach: numbers or names of container ports. Empty: every port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ScrapePort>,
}

/// A port that is scraped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ScrapePort {
    /// By number.
    Number(u16),
    /// By the name of the container port.
    Name(String),
}

/// Workloads that network policy cannot hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BypassesSection {
    /// The mode of this section, where it differs from the guardrail's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// The ways that are allowed.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub allow: BTreeSet<Bypass>,
    /// Host ports that are allowed.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub allowed_host_ports: BTreeSet<u16>,
    /// Capabilities that may not be added; `ALL` never may.
    #[serde(default = "BypassesSection::default_capabilities")]
    pub capabilities: BTreeSet<String>,
}

/// A way past network policy.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum Bypass {
    /// `hostNetwork: true`.
    HostNetwork,
    /// A container port with a `hostPort`.
    HostPort,
    /// `privileged: true`.
    Privileged,
    /// `hostPID: true`.
    #[serde(rename = "HostPID")]
    HostPid,
    /// `hostIPC: true`.
    #[serde(rename = "HostIPC")]
    HostIpc,
    /// An added capability.
    Capability,
}

/// How wide a rule may open, each direction by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BreadthSection {
    /// The mode of this section, where it differs from the guardrail's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// What ingress rules may open.
    #[serde(default = "some_default::<BreadthLimits>")]
    pub ingress: Option<BreadthLimits>,
    /// What egress rules may open.
    #[serde(default = "some_default::<BreadthLimits>")]
    pub egress: Option<BreadthLimits>,
}

/// The limits of one direction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BreadthLimits {
    /// Whether there are any. `false`: rules may open anything.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Whether a rule without peers (any peer, the world included) may be.
    #[serde(default)]
    pub any_peer: bool,
    /// Whether a peer may be all namespaces.
    #[serde(default)]
    pub all_namespaces: bool,
    /// The shortest prefix of an IPv4 block that may be opened; 0 allows the world.
    #[serde(default = "BreadthLimits::default_v4")]
    #[schemars(range(min = 0, max = 32))]
    pub widest_prefix_v4: u8,
    /// The shortest prefix of an IPv6 block that may be opened; 0 allows the world.
    #[serde(default = "BreadthLimits::default_v6")]
    #[schemars(range(min = 0, max = 128))]
    pub widest_prefix_v6: u8,
    /// Blocks that may be opened however wide they are, and everything within them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>", length(max = 100), inner(length(max = 43)), extend("x-kubernetes-validations" = [
        {"rule": "self.all(block, isCIDR(block))", "message": "must be blocks of addresses, such as 203.0.113.0/24"}
    ]))]
    pub allowed_blocks: Vec<IpNet>,
}

/// What a policy must say about itself, by annotations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DocumentationSection {
    /// The mode of this section, where it differs from the guardrail's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Who answers for the policy.
    #[serde(default = "DocumentationSection::default_owner")]
    pub owner: AnnotationRule,
    /// What it is for.
    #[serde(default = "DocumentationSection::default_purpose")]
    pub purpose: AnnotationRule,
    /// The day by which someone looks at it again (RFC 3339 full-date).
    #[serde(default = "DocumentationSection::default_review_by")]
    pub review_by: AnnotationRule,
}

/// One annotation of a policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AnnotationRule {
    /// The key of the annotation.
    pub annotation: String,
    /// Whether it must be there.
    #[serde(default)]
    pub presence: Presence,
    /// A regular expression that the whole value must match.
    #[schemars(length(max = 1000), extend("x-kubernetes-validations" = [
        {"rule": "''.matches(self) || !''.matches(self)", "message": "must be a regular expression"}
    ]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
}

/// What is wrong with policies only when they are seen among all others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HygieneSection {
    /// The mode of this section. Where it is left out, the guardrail's, but `Warn` instead of `Enforce`. A webhook only
    /// ever warns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// How many policies may select one pod; only `check` counts them.
    #[serde(default = "HygieneSection::default_policies_per_pod")]
    pub most_policies_per_pod: u16,
    /// How many values a label key may have over all workloads, where conventions or selectors use it and it does not name
    /// the workload; only `check` counts them.
    #[serde(default = "HygieneSection::default_label_values")]
    pub most_label_values: u16,
}

/// Whether anything enforces network policies where a pod is to run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnforcementSection {
    /// The mode of this section, where it differs from the guardrail's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// What enforces policies on every node and gives no receipts, such as a network plugin that does it itself. Where it is
    /// named, nothing is asked. Absent: a fresh receipt of an agent (`NodeEnforcement`) must say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub enforced_by: Option<String>,
}

/// The user's own policies in Rego.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PoliciesSection {
    /// The mode of this section, where it differs from the guardrail's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Ids of policies that are left out.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub exclude: BTreeSet<String>,
    /// What is done where a policy could not be evaluated.
    #[serde(default)]
    pub on_failure: OnFailure,
}

/// What is done where a policy could not be evaluated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnFailure {
    /// The failure is a finding in the mode of the section: `Enforce` refuses.
    #[default]
    ByMode,
    /// The failure is told and refuses nothing.
    Allow,
}
