//! Nodes: what `nodes` peers of a ClusterNetworkPolicy select, by labels, to mean their addresses.

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as api;

use super::field::Place;
use super::labels::Labels;
use super::meta::{self, NameForm};
use super::name::NodeName;
use super::net::parse_address;
use super::problem::{Problems, Quoted};

/// A node of the cluster.
///
/// <https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.36/#node-v1-core>
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Its labels.
    pub labels: Labels,
    /// The IP addresses among its `status.addresses`, in canonical form; its host names are left out.
    pub addresses: Vec<IpAddr>,
}

impl Node {
    pub(super) fn read(object: &api::Node, at: &Place<'_>, problems: &mut Problems) -> Self {
        let (meta, meta_at) = (&object.metadata, at.key("metadata"));
        let name = meta::read_name(meta, NameForm::Subdomain, &meta_at, problems);
        let labels = meta::read_labels(meta, &meta_at, problems);
        let (status_at, mut addresses) = (at.key("status"), Vec::new());
        let addresses_at = status_at.key("addresses");
        let listed = object.status.iter();
        let listed = listed.flat_map(|status| status.addresses.iter().flatten());
        for (index, address) in listed.enumerate() {
            if !matches!(address.type_.as_str(), "InternalIP" | "ExternalIP") {
                continue;
            }
            match parse_address(&address.address) {
                Ok(known) if !addresses.contains(&known) => addresses.push(known),
                Ok(_) => {}
                Err(reason) => problems.add(
                    &addresses_at.index(index).key("address"),
                    format!("{}: {reason}", Quoted(&address.address)),
                ),
            }
        }
        Self {
            name: name.into(),
            labels,
            addresses,
        }
    }
}
