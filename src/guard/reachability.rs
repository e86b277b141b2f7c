//! The `ReachabilityRule` resource (`ringfence.dev/v1alpha1`): who must not, or must, reach whom, and at which ports.
//!
//! `expect: Deny` is kept when no flow from any `from` to any `to` at any of the ports passes; `expect: Allow` when every
//! flow from every `from` to every `to` at every port does. Ends are pods that policies hold, by the labels of their
//! namespaces and their own, or addresses outside of the cluster; a pod's flows with itself are never meant, as no policy
//! can deny them. A rule whose selectors select nothing says nothing, and that is told.
//!
//! How data passes through: [`ReachabilityRule::parse`] makes the checked form of a manifest (`reachability/check.rs`);
//! [`ReachabilityRules`] holds those in force with the pods of the cluster in groups (`reachability/index.rs`). A rule by
//! itself is held against all of them (`reachability/whole.rs`); a change of anything else only against the pairs that it can
//! alter (`reachability/change.rs`; `reachability/wide.rs` for a ClusterNetworkPolicy, `reachability/node.rs` for a Node). Either
//! gives violations, which `reachability/words.rs` makes findings of.
//! `reachability/scenario.rs` is what `ringfence test` runs, on pods to be by `reachability/assume.rs`.

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::guard::finding::Severity;
use crate::guard::mode::Mode;
use crate::guard::status::Status;
use crate::netpol::groups::Group;
use crate::netpol::{Labels, ParseError, PortSet, Protocol, Selector};

mod assume;
mod change;
mod check;
mod index;
mod judge;
mod node;
mod outside;
mod scenario;
mod search;
mod whole;
mod wide;
mod words;

pub use assume::assume;
pub use index::ReachabilityRules;
pub use scenario::{Failure, Tried};
pub use whole::Sizes;

pub(in crate::guard) use judge::judge;

/// Who must not, or must, reach whom.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ringfence.dev",
    version = "v1alpha1",
    kind = "ReachabilityRule",
    root = "ReachabilityRuleManifest",
    plural = "reachabilityrules",
    shortname = "rr",
    category = "ringfence",
    printcolumn = r#"{"name":"Expect","type":"string","jsonPath":".spec.expect"}"#,
    printcolumn = r#"{"name":"Mode","type":"string","jsonPath":".spec.mode"}"#,
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    status = "Status",
    doc = "Who must not, or must, reach whom, and at which ports.",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReachabilityRuleSpec {
    /// What the rule is for; a finding gives it as the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// How much a violation matters.
    #[serde(default = "high")]
    pub severity: Severity,
    /// Who opens the connections; each entry adds to the others.
    #[schemars(length(min = 1, max = 100))]
    pub from: Vec<RuleEnd>,
    /// To whom; each entry adds to the others.
    #[schemars(length(min = 1, max = 100))]
    pub to: Vec<RuleEnd>,
    /// At which ports of the destination's pods. Absent or empty: every port of every protocol.
    #[schemars(length(max = 100))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<RulePort>,
    /// Whether none of these flows may pass, or all of them must.
    pub expect: Expect,
    /// What is done about a change that breaks the rule.
    #[serde(default)]
    pub mode: Mode,
}

/// One end of the flows: pods, or addresses outside of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.namespaces) || has(self.namespaceSelector) || has(self.podSelector) || has(self.cidrs)",
        "message": "must say who: `namespaces`, `namespaceSelector` or `podSelector` (`podSelector: {}` is every pod), or `cidrs`"
    },
    {
        "rule": "!has(self.cidrs) || !(has(self.namespaces) || has(self.namespaceSelector) || has(self.podSelector))",
        "message": "`cidrs` may not stand beside selectors of pods: write a second entry"
    },
    {
        "rule": "!has(self.namespaces) || !has(self.namespaceSelector)",
        "message": "`namespaceSelector` may not stand beside `namespaces`"
    },
    {
        "rule": "!has(self.except) || has(self.cidrs)",
        "message": "`except` may only stand beside `cidrs`"
    }
]))]
pub struct RuleEnd {
    /// Pods in the namespaces of these names.
    #[schemars(length(max = 100))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Pods in the namespaces with these labels. An empty selector: in every namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Pods with these labels, in every namespace where nothing else is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// Addresses outside of the cluster: blocks such as `203.0.113.0/24`, and `0.0.0.0/0` with `::/0` for the internet.
    #[schemars(length(max = 100), inner(length(max = 43)), extend("x-kubernetes-validations" = [
        {"rule": "self.all(block, isCIDR(block))", "message": "must be blocks of addresses, such as 203.0.113.0/24"}
    ]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cidrs: Vec<String>,
    /// Blocks that are left out of `cidrs`.
    #[schemars(length(max = 100), inner(length(max = 43)), extend("x-kubernetes-validations" = [
        {"rule": "self.all(block, isCIDR(block))", "message": "must be blocks of addresses, such as 203.0.113.0/24"}
    ]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
}

/// Some ports of one protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.endPort) || (has(self.port) && self.port <= self.endPort)",
    "message": "`endPort` needs a `port`, and may not be below it"
}]))]
pub struct RulePort {
    /// The protocol.
    #[serde(default)]
    pub protocol: RuleProtocol,
    /// The port of the pod itself, not of a Service. Absent: every port of the protocol.
    #[schemars(range(min = 1, max = 65535))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The last port, where a range is meant.
    #[schemars(range(min = 1, max = 65535))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_port: Option<u16>,
}

/// A protocol, by its name in the API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum RuleProtocol {
    /// Transmission Control Protocol.
    #[default]
    Tcp,
    /// User Datagram Protocol.
    Udp,
    /// Stream Control Transmission Protocol.
    Sctp,
}

/// What a rule expects of the flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Expect {
    /// None of them passes.
    Deny,
    /// Every one of them passes.
    Allow,
}

/// A reachability rule that was checked: its selectors, blocks and ports are known to be good.
#[derive(Clone, Debug, PartialEq)]
pub struct ReachabilityRule {
    /// Its name.
    pub name: String,
    /// What it says.
    pub spec: ReachabilityRuleSpec,
    /// Who opens the connections.
    pub from: Vec<Who>,
    /// To whom.
    pub to: Vec<Who>,
    /// At which ports.
    pub ports: PortSet,
}

/// One end of a rule.
#[derive(Clone, Debug, PartialEq)]
pub enum Who {
    /// Pods that policies hold.
    Pods {
        /// In which namespaces.
        namespaces: Selector,
        /// Which of the pods there.
        pods: Selector,
    },
    /// Addresses outside of the cluster.
    Outside {
        /// The blocks.
        cidrs: Vec<IpNet>,
        /// What is left out of them.
        except: Vec<IpNet>,
    },
}

/// Which of the two ends of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who opens it.
    From,
    /// To whom.
    To,
}

fn high() -> Severity {
    Severity::High
}

impl ReachabilityRule {
    /// Reads a manifest. Unknown fields are errors, and every problem is named by its field.
    pub fn parse(value: &Value) -> Result<Self, ParseError> {
        let manifest: ReachabilityRuleManifest = super::manifest::read(value)?;
        Self::check(manifest.metadata.name.unwrap_or_default(), manifest.spec)
    }

    /// One of its ends.
    pub fn end(&self, side: Side) -> &[Who] {
        match side {
            Side::From => &self.from,
            Side::To => &self.to,
        }
    }

    /// Whether the pods of a group are at one of its ends.
    pub fn means(&self, side: Side, group: &Group) -> bool {
        self.end(side).iter().any(|who| who.means(group))
    }

    /// Whether it speaks of a namespace with these labels at one of its ends.
    pub fn concerns(&self, namespace: &Labels) -> bool {
        let mut ends = self.from.iter().chain(&self.to);
        ends.any(|who| match who {
            Who::Pods { namespaces, .. } => namespaces.matches(namespace),
            Who::Outside { .. } => false,
        })
    }

    /// What of some ports is wrong, where `open` are those at which a flow passes.
    fn wrong(&self, open: &PortSet) -> PortSet {
        match self.spec.expect {
            Expect::Deny => self.ports.and(open),
            Expect::Allow => self.ports.without(open),
        }
    }
}

impl Who {
    /// Whether the pods of a group are meant.
    pub fn means(&self, group: &Group) -> bool {
        match self {
            Self::Pods { namespaces, pods } => {
                namespaces.matches(group.namespace_labels()) && pods.matches(group.labels())
            }
            Self::Outside { .. } => false,
        }
    }
}

impl Side {
    /// Both of them.
    pub const BOTH: [Self; 2] = [Self::From, Self::To];

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::From => Self::To,
            Self::To => Self::From,
        }
    }

    /// Its field in a rule.
    pub fn field(self) -> &'static str {
        match self {
            Self::From => "from",
            Self::To => "to",
        }
    }

    /// The direction in which policies hold this end.
    pub fn direction(self) -> crate::netpol::Direction {
        match self {
            Self::From => crate::netpol::Direction::Egress,
            Self::To => crate::netpol::Direction::Ingress,
        }
    }
}

impl From<RuleProtocol> for Protocol {
    fn from(protocol: RuleProtocol) -> Self {
        match protocol {
            RuleProtocol::Tcp => Self::Tcp,
            RuleProtocol::Udp => Self::Udp,
            RuleProtocol::Sctp => Self::Sctp,
        }
    }
}

#[cfg(test)]
mod tests;
