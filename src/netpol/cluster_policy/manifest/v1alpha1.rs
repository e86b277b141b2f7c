//! The shape of an AdminNetworkPolicy and of a BaselineAdminNetworkPolicy, where it is not that of a ClusterNetworkPolicy.

use serde::Deserialize;

use super::{EgressPeer, Peer};

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::netpol) struct AdminSpec {
    pub(in crate::netpol) priority: Option<i32>,
    pub(in crate::netpol) subject: Option<Peer>,
    pub(in crate::netpol) ingress: Option<Vec<IngressRule>>,
    pub(in crate::netpol) egress: Option<Vec<EgressRule>>,
}

/// There is one in a cluster, so that it has no priority.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::netpol) struct BaselineSpec {
    pub(in crate::netpol) subject: Option<Peer>,
    pub(in crate::netpol) ingress: Option<Vec<IngressRule>>,
    pub(in crate::netpol) egress: Option<Vec<EgressRule>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::netpol) struct IngressRule {
    pub(in crate::netpol) name: Option<String>,
    pub(in crate::netpol) action: Option<String>,
    pub(in crate::netpol) from: Option<Vec<Peer>>,
    pub(in crate::netpol) ports: Option<Vec<Port>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::netpol) struct EgressRule {
    pub(in crate::netpol) name: Option<String>,
    pub(in crate::netpol) action: Option<String>,
    pub(in crate::netpol) to: Option<Vec<EgressPeer>>,
    pub(in crate::netpol) ports: Option<Vec<Port>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(clippy::struct_field_names, reason = "the API calls them so")]
pub(in crate::netpol) struct Port {
    pub(in crate::netpol) port_number: Option<PortNumber>,
    pub(in crate::netpol) named_port: Option<String>,
    pub(in crate::netpol) port_range: Option<PortRange>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::netpol) struct PortNumber {
    pub(in crate::netpol) protocol: Option<String>,
    pub(in crate::netpol) port: Option<i32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::netpol) struct PortRange {
    pub(in crate::netpol) protocol: Option<String>,
    pub(in crate::netpol) start: Option<i32>,
    pub(in crate::netpol) end: Option<i32>,
}
