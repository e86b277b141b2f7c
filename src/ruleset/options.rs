//! What the table of a node is to be like.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::netpol::{NodeName, Port};

/// What the table of a node is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The node.
    pub node: NodeName,
    /// The NFLOG group that denied packets are told to.
    pub log_group: u16,
    /// How many denied packets a second each chain tells of, at most.
    pub log_rate: u32,
    /// How many connections a second that are let through are told of; none are where it is 0.
    pub sample_rate: u32,
    /// For how many seconds the packets of a connection that was cut stay dropped.
    pub cut_seconds: u32,
    /// The blocks that pods of this node have their addresses from, where packets of an address in them that is no known
    /// pod's are to be dropped; none where they are to pass.
    pub known_only: Vec<IpNet>,
    /// Whether what comes from a pod must have the pod's own address as its sender, where it is known behind which interface
    /// the pod is ([`Plan::behind`](super::Plan::behind)).
    pub own_sources: bool,
    /// The UDP ports at which nodes take VXLAN, where what pods send there to nodes is to be dropped; none where it is to pass.
    pub vxlan_ports: BTreeSet<Port>,
}

// === impl Options ===

impl Options {
    /// For a node, as the agent has it where nothing else is said.
    pub fn new(node: impl Into<NodeName>) -> Self {
        Self {
            node: node.into(),
            log_group: 100,
            log_rate: 100,
            sample_rate: 0,
            // Linux repeats what is not acknowledged for 924.6 s (`tcp_retries2` of `ip-sysctl.rst`).
            cut_seconds: 1000,
            known_only: Vec::new(),
            own_sources: true,
            vxlan_ports: VXLAN_PORTS.into_iter().filter_map(Port::new).collect(),
        }
    }

    /// Whether it is asked which addresses are those of local pods.
    pub(super) fn asks_who_is_local(&self) -> bool {
        !self.known_only.is_empty() || !self.vxlan_ports.is_empty()
    }
}

/// The ports of VXLAN: that of its standard (RFC 7348), and the one that Linux had before it, which Flannel uses.
pub const VXLAN_PORTS: [u16; 2] = [4789, 8472];
