//! The `NodeEnforcement` resource (`ringfence.dev/v1alpha1`): an agent's receipt for what the kernel of its node holds.
//!
//! NetworkPolicy has no status that could say who enforces it. One object for each node says so: which policies hold pods of
//! the node, in which version, since when, and what went wrong. It is written only after the table was read back.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::guard::audit;
use crate::netpol::{
    ClusterNetworkPolicy, NamespaceState, NetworkPolicy, Pod, PolicyKind, Snapshot, Stage,
    StagedNetworkPolicy, Tier,
};

pub mod answer;
pub mod chains;
pub mod confirmed;
pub mod doctor;
pub mod plugins;
pub mod probe;

/// The kind, as the API names it.
pub const KIND: audit::Kind = audit::Kind {
    group: "ringfence.dev",
    version: "v1alpha1",
    kind: "NodeEnforcement",
    plural: "nodeenforcements",
};

/// How old the last reading of a kernel may be for its receipt to count. Agents read again, and say so, every five minutes.
pub const FRESH: SignedDuration = SignedDuration::from_mins(10);

/// The most policies that a receipt names. An object of the API server may not be larger than about 1.5 MB, and a policy with
/// the longest names takes some 500 bytes of it.
pub const MOST_NAMED: usize = 2_000;

/// The type of the condition that says whether the node holds what the policies say.
pub const ENFORCED: &str = "Enforced";

/// Which node it is about. Its name is the node's.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "ringfence.dev",
    version = "v1alpha1",
    kind = "NodeEnforcement",
    plural = "nodeenforcements",
    shortname = "rfn",
    category = "ringfence",
    printcolumn = r#"{"name":"Enforced","type":"string","jsonPath":".status.conditions[?(@.type==\"Enforced\")].status"}"#,
    printcolumn = r#"{"name":"Pods","type":"integer","jsonPath":".status.pods"}"#,
    printcolumn = r#"{"name":"Policies","type":"integer","jsonPath":".status.policyCount"}"#,
    printcolumn = r#"{"name":"Read back","type":"date","jsonPath":".status.readBack"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    status = "Receipt",
    doc = "The receipt of a node's agent: which network policies the kernel of the node was read back to hold.",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeEnforcementSpec {
    /// The node.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
}

/// What the kernel of a node was read back to hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// The policies that hold pods of this node, and those on trial for them, each in the version that the kernel holds; of very
    /// many the first 2000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<HeldPolicy>,
    /// How many they are, those that are not named included.
    #[serde(default)]
    pub policy_count: u32,
    /// How many pods of this node have an address that policies can hold.
    #[serde(default)]
    pub pods: u32,
    /// How many of them may send with addresses that are not their own, as far as this node can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unchecked_pods: Option<u32>,
    /// The SHA-256 digest of the table, which `ringfence ruleset` prints too.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// When the kernel was last read back (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub read_back: Option<Timestamp>,
    /// The version of the agent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub agent: String,
    /// `Enforced`: whether the kernel holds what the policies say; where it does not, the message says why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A policy in the version that a kernel holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeldPolicy {
    /// Its kind, where that is AdminNetworkPolicy, BaselineAdminNetworkPolicy or StagedNetworkPolicy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its namespace; absent for a policy of the whole cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its `metadata.generation`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// How far its trial has come, where it is on trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
}

/// What a receipt is worth at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Worth {
    /// It counts.
    Confirmed,
    /// The kernel was read back too long ago, or never.
    Old(Option<Timestamp>),
    /// The agent says that the kernel does not hold what the policies say.
    Failing {
        /// Why, in the agent's words.
        message: String,
    },
}

// === impl Receipt ===

impl Receipt {
    /// Reads what a `NodeEnforcement` says, as an API server gives it; empty where nothing was written yet.
    ///
    /// # Errors
    ///
    /// Its status is not of the kind.
    pub fn read(object: &Value) -> Result<Self, serde_json::Error> {
        match object.get("status") {
            None | Some(Value::Null) => Ok(Self::default()),
            Some(status) => Self::deserialize(status),
        }
    }

    /// The policies as a receipt names them, and how many there are.
    pub fn naming(policies: &[HeldPolicy]) -> (Vec<HeldPolicy>, u32) {
        let named = policies.iter().take(MOST_NAMED).cloned().collect();
        (named, u32::try_from(policies.len()).unwrap_or(u32::MAX))
    }

    /// How many policies it does not name, for want of room.
    pub fn left_out(&self) -> usize {
        let all = usize::try_from(self.policy_count).unwrap_or(usize::MAX);
        all.saturating_sub(self.policies.len())
    }

    /// What it is worth now.
    pub fn worth(&self, now: Timestamp) -> Worth {
        let fresh = |at: &Timestamp| now.duration_since(*at) <= FRESH;
        if !self.read_back.as_ref().is_some_and(fresh) {
            return Worth::Old(self.read_back);
        }
        let mut conditions = self.conditions.iter();
        match conditions.find(|condition| condition.type_ == ENFORCED) {
            Some(condition) if condition.status == "True" => Worth::Confirmed,
            Some(condition) => Worth::Failing {
                message: condition.message.clone(),
            },
            None => Worth::Failing {
                message: format!("the receipt has no condition {ENFORCED}"),
            },
        }
    }
}

// === impl HeldPolicy ===

impl HeldPolicy {
    /// The policies that hold at least one of some pods, and those on trial that select one, in the order of their names.
    pub fn of<'p>(snapshot: &Snapshot, pods: impl IntoIterator<Item = &'p Pod>) -> Vec<Self> {
        let mut held = Vec::new();
        for pod in pods.into_iter().filter(|pod| pod.is_held()) {
            let own = snapshot.namespace(pod.namespace());
            // One in whose place another is tried holds those pods only that are not chosen for that.
            let in_force = own.into_iter().flat_map(NamespaceState::policies_in_force);
            let in_force = in_force.filter(|it| it.standing.kind() == PolicyKind::NetworkPolicy);
            held.extend(in_force.filter(|it| it.selects(pod)).map(Self::from));
            let tried = own.filter(|state| !state.is_terminating());
            let tried = tried.into_iter().flat_map(NamespaceState::staged_policies);
            held.extend(tried.filter(|it| it.policy.selects(pod)).map(Self::from));
            let labels = snapshot.namespace_labels(pod.namespace());
            let wide = Tier::BOTH.into_iter();
            let wide = wide.flat_map(|tier| snapshot.cluster_policies_of(tier));
            held.extend(
                wide.filter(|policy| policy.rules_pod(pod, &labels))
                    .map(Self::from),
            );
        }
        held.sort_unstable();
        held.dedup();
        held
    }
}

impl From<&NetworkPolicy> for HeldPolicy {
    fn from(policy: &NetworkPolicy) -> Self {
        Self {
            kind: None,
            namespace: Some(policy.namespace.to_string()),
            name: policy.name.to_string(),
            generation: policy.generation,
            stage: None,
        }
    }
}

impl From<&ClusterNetworkPolicy> for HeldPolicy {
    fn from(policy: &ClusterNetworkPolicy) -> Self {
        Self {
            kind: Some(policy.reference.kind)
                .filter(|kind| kind.is_replaced())
                .map(|kind| kind.to_string()),
            namespace: None,
            name: policy.reference.name.to_string(),
            generation: policy.generation,
            stage: None,
        }
    }
}

impl From<&StagedNetworkPolicy> for HeldPolicy {
    fn from(staged: &StagedNetworkPolicy) -> Self {
        Self {
            kind: Some(audit::STAGED.kind.to_owned()),
            stage: Some(staged.stage),
            ..Self::from(&staged.policy)
        }
    }
}
