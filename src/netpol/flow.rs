//! Flows: who wants to connect to whom, at which port.

use std::fmt;
use std::net::IpAddr;

use super::name::NodeName;
use super::net::Family;
use super::pod::Pod;
use super::port::{Port, Protocol};

/// A connection, seen from the one who opens it; replies belong to it.
///
/// The port is the one of the destination itself. A flow to a service is a flow to one of its pods, at the pod's port:
/// that is what policies judge.
#[derive(Clone, Copy, Debug)]
pub struct Flow<'a> {
    /// Who opens it.
    pub from: Endpoint<'a>,
    /// To whom.
    pub to: Endpoint<'a>,
    /// Over which protocol.
    pub protocol: Protocol,
    /// To which port of the destination.
    pub port: Port,
    /// Over which of the two families of addresses; none asks whether any of them will do.
    pub family: Option<Family>,
}

/// One end of a flow.
#[derive(Clone, Copy, Debug)]
pub enum Endpoint<'a> {
    /// A pod, which need not be part of the snapshot.
    Pod(&'a Pod),
    /// A node itself: the kubelet, a daemon on it, or traffic that it masquerades.
    Node {
        /// Its name.
        name: &'a NodeName,
        /// Its address, where it is known.
        address: Option<IpAddr>,
    },
    /// An address that is neither a pod's nor a known node's.
    External(IpAddr),
}

impl<'a> Flow<'a> {
    /// A flow over whatever addresses the two ends have.
    pub fn new(from: Endpoint<'a>, to: Endpoint<'a>, protocol: Protocol, port: Port) -> Self {
        Self {
            from,
            to,
            protocol,
            port,
            family: None,
        }
    }

    /// The same flow over the addresses of one family only.
    #[must_use]
    pub fn over(self, family: Family) -> Self {
        Self {
            family: Some(family),
            ..self
        }
    }
}

impl<'a> Endpoint<'a> {
    /// The pod that this end is to selectors: neither one on the host network nor one that has finished.
    pub fn selectable(self) -> Option<&'a Pod> {
        match self {
            Self::Pod(pod) => Some(pod).filter(|pod| pod.is_held()),
            Self::Node { .. } | Self::External(_) => None,
        }
    }

    /// The node whose own traffic this is: a node's, or that of a pod on its network.
    pub fn host(self) -> Option<&'a NodeName> {
        match self {
            Self::Node { name, .. } => Some(name),
            Self::Pod(pod) if pod.host_network && !pod.is_finished() => pod.node.as_ref(),
            Self::Pod(_) | Self::External(_) => None,
        }
    }

    /// All its addresses, in canonical form; none where they are not known.
    pub(super) fn addresses(self) -> Vec<IpAddr> {
        match self {
            // The addresses of a finished pod may be another's by now.
            Self::Pod(pod) if pod.is_finished() => Vec::new(),
            Self::Pod(pod) => pod.ips.clone(),
            Self::Node { address, .. } => address
                .into_iter()
                .map(|address| address.to_canonical())
                .collect(),
            Self::External(address) => vec![address.to_canonical()],
        }
    }
}

impl fmt::Display for Endpoint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(pod) => pod.workload.fmt(f),
            Self::Node { name, .. } => write!(f, "node {name}"),
            Self::External(address) => address.fmt(f),
        }
    }
}

impl fmt::Display for Flow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} -> {} {} {}",
            self.from, self.to, self.protocol, self.port
        )?;
        self.family
            .map_or(Ok(()), |family| write!(f, " over {family}"))
    }
}
