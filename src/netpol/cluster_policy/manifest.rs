//! The shape of a ClusterNetworkPolicy in the API, field by field; what is optional there may be absent here too.
//! `manifest/v1alpha1.rs` has what was different before.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::Deserialize;
use serde_json::Value;

pub(in crate::netpol) mod v1alpha1;

/// The whole object, of any of the kinds.
#[derive(Debug, Default, Deserialize)]
#[serde(
    default,
    rename_all = "camelCase",
    bound = "S: Default + Deserialize<'de>"
)]
pub(in crate::netpol) struct Manifest<S> {
    /// Both are known already; without these fields they would be unknown ones.
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    pub(super) metadata: ObjectMeta,
    pub(super) spec: Option<S>,
    /// Whatever an implementation says of it.
    #[serde(rename = "status")]
    _status: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::netpol) struct Spec {
    pub(super) tier: Option<String>,
    pub(super) priority: Option<i32>,
    pub(super) subject: Option<Peer>,
    pub(super) ingress: Option<Vec<IngressRule>>,
    pub(super) egress: Option<Vec<EgressRule>>,
}

/// A rule for ingress; the other one differs in the name and the type of its peers.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct IngressRule {
    pub(super) name: Option<String>,
    pub(super) action: Option<String>,
    pub(super) from: Option<Vec<Peer>>,
    pub(super) protocols: Option<Vec<Protocol>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct EgressRule {
    pub(super) name: Option<String>,
    pub(super) action: Option<String>,
    pub(super) to: Option<Vec<EgressPeer>>,
    pub(super) protocols: Option<Vec<Protocol>>,
}

/// A subject, and a peer for ingress.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::netpol) struct Peer {
    pub(super) namespaces: Option<LabelSelector>,
    pub(super) pods: Option<NamespacedPod>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::netpol) struct EgressPeer {
    pub(super) namespaces: Option<LabelSelector>,
    pub(super) pods: Option<NamespacedPod>,
    pub(super) nodes: Option<LabelSelector>,
    pub(super) networks: Option<Vec<String>>,
    pub(super) domain_names: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct NamespacedPod {
    pub(super) namespace_selector: Option<LabelSelector>,
    pub(super) pod_selector: Option<LabelSelector>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::netpol) struct Protocol {
    pub(super) tcp: Option<Numbered>,
    pub(super) udp: Option<Numbered>,
    pub(super) sctp: Option<Numbered>,
    pub(super) destination_named_port: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Numbered {
    pub(super) destination_port: Option<Port>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Port {
    pub(super) number: Option<i32>,
    pub(super) range: Option<PortRange>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PortRange {
    pub(super) start: Option<i32>,
    pub(super) end: Option<i32>,
}
