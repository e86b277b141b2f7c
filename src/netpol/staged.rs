//! The `StagedNetworkPolicy` resource (`ringfence.dev/v1alpha1`): a NetworkPolicy on trial, until it is promoted.
//!
//! In stage `Shadow` it holds nobody: what it would do is counted and told. In stage `Canary` it is a NetworkPolicy for the pods
//! that `canary` chooses, and goes on in shadow for the others. Where a NetworkPolicy of the same name is there, the staged
//! one is tried in its place: that is what promotion does. Its rules are read by the parser of NetworkPolicies.

use k8s_openapi::api::networking::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::field::Place;
use super::name::{PolicyKind, PolicyRef};
use super::pod::Pod;
use super::policy::NetworkPolicy;
use super::problem::Problems;
use super::selector::Selector;

/// A NetworkPolicy on trial.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ringfence.dev",
    version = "v1alpha1",
    kind = "StagedNetworkPolicy",
    root = "StagedNetworkPolicyManifest",
    plural = "stagednetworkpolicies",
    shortname = "snp",
    category = "ringfence",
    namespaced,
    printcolumn = r#"{"name":"Stage","type":"string","jsonPath":".spec.stage"}"#,
    printcolumn = r#"{"name":"Canary","type":"integer","jsonPath":".spec.canary.percent"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    doc = "A NetworkPolicy on trial: counted and told, for a share of its pods in force, until it is promoted.",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.stage != 'Canary' || has(self.canary)",
    "message": "stage Canary needs `canary`: for which of the pods it is in force"
}]))]
pub struct StagedNetworkPolicySpec {
    /// How far the trial has come.
    #[serde(default)]
    pub stage: Stage,
    /// For which of the pods it is in force in stage `Canary`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanarySpec>,
    /// As in a NetworkPolicy: the pods that it isolates. Absent or empty: every pod of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// As in a NetworkPolicy: in which directions it isolates them.
    #[schemars(length(max = 2), inner(regex(pattern = r"^(Ingress|Egress)$")))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_types: Option<Vec<String>>,
    /// As in a NetworkPolicy: what may come to them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Vec<api::NetworkPolicyIngressRule>>,
    /// As in a NetworkPolicy: where they may go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<api::NetworkPolicyEgressRule>>,
}

/// How far a trial has come.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum Stage {
    /// Nothing is held to it: what it would do is counted and told.
    #[default]
    Shadow,
    /// It is in force for the pods that `canary` chooses.
    Canary,
}

/// Which pods a canary is in force for: one of the two.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.percent) != has(self.podSelector)",
    "message": "must have either `percent` or `podSelector`"
}]))]
pub struct CanarySpec {
    /// About so many of a hundred pods, chosen by their names: the same on every node, and a larger share keeps those of a
    /// smaller one.
    #[schemars(range(min = 1, max = 99))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// The pods with these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
}

/// The whole object, as it is read.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct StagedManifest {
    /// Both are known already; without these fields they would be unknown ones.
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: ObjectMeta,
    spec: StagedNetworkPolicySpec,
}

/// A StagedNetworkPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedNetworkPolicy {
    /// What it is promoted to; [`Standing::Promoted`].
    pub policy: NetworkPolicy,
    /// How far the trial has come.
    pub stage: Stage,
    /// For which pods it is in force in stage `Canary`, where that is said; there it always is.
    pub canary: Option<Choice>,
}

/// Some of the pods of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Choice {
    /// So many of a hundred, by their names. The pods of a template, which have no names yet, are not chosen.
    Percent(u8),
    /// Those with these labels.
    Pods(Selector),
}

/// Whether a policy is in force, and for whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// A NetworkPolicy: for all pods that it selects.
    #[default]
    InForce,
    /// A NetworkPolicy in whose place another one is tried: for the pods that are not chosen for that.
    Beside(Choice),
    /// A StagedNetworkPolicy in stage `Canary`: for the pods that are chosen.
    Canary(Choice),
    /// A StagedNetworkPolicy as if it were promoted: for all pods that it selects.
    Promoted,
}

// === impl StagedNetworkPolicy ===

impl StagedNetworkPolicy {
    pub(super) fn read(object: &StagedManifest, at: &Place<'_>, problems: &mut Problems) -> Self {
        let spec = &object.spec;
        let policy = api::NetworkPolicy {
            metadata: object.metadata.clone(),
            spec: Some(api::NetworkPolicySpec {
                pod_selector: spec.pod_selector.clone(),
                policy_types: spec.policy_types.clone(),
                ingress: spec.ingress.clone(),
                egress: spec.egress.clone(),
            }),
        };
        let policy = NetworkPolicy {
            standing: Standing::Promoted,
            ..NetworkPolicy::read(&policy, at, problems)
        };
        let at = at.key("spec");
        let canary_at = at.key("canary");
        let canary = spec
            .canary
            .as_ref()
            .and_then(|canary| Choice::read(canary, &canary_at, problems));
        if spec.stage == Stage::Canary && spec.canary.is_none() {
            problems.add(
                &canary_at,
                "is missing: stage Canary must say for which of the pods it is in force",
            );
        }
        Self {
            policy,
            stage: spec.stage,
            canary,
        }
    }

    /// Which one it is.
    pub fn reference(&self) -> PolicyRef {
        PolicyRef::staged(self.policy.namespace.clone(), self.policy.name.clone())
    }

    /// Which pods it is in force for; none of them in stage `Shadow`.
    pub fn in_force_for(&self) -> Option<&Choice> {
        match self.stage {
            Stage::Shadow => None,
            Stage::Canary => self.canary.as_ref(),
        }
    }
}

/// The manifest of the NetworkPolicy that the manifest of a StagedNetworkPolicy is promoted to: what the user wrote, without
/// what belongs to the trial and to the API server.
pub fn promoted(staged: &Value) -> Value {
    let mut metadata = Map::new();
    let mut take = |field: &str, value: Option<Value>| {
        if let Some(value) = value.filter(|value| !value.is_null()) {
            metadata.insert(field.to_owned(), value);
        }
    };
    let of = |field: &str| staged.get("metadata")?.get(field).cloned();
    take("name", of("name"));
    take("namespace", of("namespace"));
    take("labels", of("labels"));
    let annotations = of("annotations").map(|mut annotations| {
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
        annotations
    });
    let is_some = |value: &Value| value.as_object().is_some_and(|all| !all.is_empty());
    take("annotations", annotations.filter(is_some));
    let mut spec = staged.get("spec").cloned().unwrap_or_else(|| json!({}));
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("stage");
        spec.remove("canary");
        // Absent and empty mean the same to the API server, and only this is read by everyone.
        spec.entry("podSelector").or_insert_with(|| json!({}));
    }
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": spec,
    })
}

// === impl Choice ===

impl Choice {
    fn read(canary: &CanarySpec, at: &Place<'_>, problems: &mut Problems) -> Option<Self> {
        match (canary.percent, &canary.pod_selector) {
            (Some(percent @ 1..=99), None) => Some(Self::Percent(percent)),
            (Some(_), None) => {
                problems.add(&at.key("percent"), "must be from 1 to 99");
                None
            }
            (None, Some(selector)) => {
                let at = at.key("podSelector");
                Some(Self::Pods(Selector::read(selector, &at, problems)))
            }
            (None, None) | (Some(_), Some(_)) => {
                problems.add(at, "must have either `percent` or `podSelector`");
                None
            }
        }
    }

    /// Whether a pod is one of them.
    pub fn chooses(&self, pod: &Pod) -> bool {
        match self {
            Self::Percent(percent) => !pod.is_template() && lot(pod) < u64::from(*percent),
            Self::Pods(selector) => selector.matches(&pod.labels),
        }
    }
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent} % of the pods"),
            Self::Pods(selector) if selector.is_everything() => f.write_str("every pod"),
            Self::Pods(selector) => write!(f, "pods with {selector}"),
        }
    }
}

/// A number below 100 that a pod has for as long as it lives, the same for whoever knows its name (FNV-1a).
///
/// It does not depend on the policy: two policies that are tried together are tried on the same pods.
fn lot(pod: &Pod) -> u64 {
    let name = [pod.namespace().as_str(), "/", pod.name().as_str()];
    let bytes = name.into_iter().flat_map(str::bytes);
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // The last bytes of a name have touched the low bits only.
    (hash ^ (hash >> 32)).checked_rem(100).unwrap_or(0)
}

// === impl Standing ===

impl Standing {
    /// Whether a policy that selects a pod is in force for it.
    pub fn is_for(&self, pod: &Pod) -> bool {
        match self {
            Self::InForce | Self::Promoted => true,
            Self::Beside(choice) => !choice.chooses(pod),
            Self::Canary(choice) => choice.chooses(pod),
        }
    }

    /// Whether it is for all pods that the policy selects, so that labels say all.
    pub fn is_for_all(&self) -> bool {
        matches!(self, Self::InForce | Self::Promoted)
    }

    /// By which object a policy of this standing is one.
    pub fn kind(&self) -> PolicyKind {
        match self {
            Self::InForce | Self::Beside(_) => PolicyKind::NetworkPolicy,
            Self::Canary(_) => PolicyKind::Canary,
            Self::Promoted => PolicyKind::StagedNetworkPolicy,
        }
    }
}

#[cfg(test)]
mod tests;
