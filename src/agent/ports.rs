//! Behind which interface of the node each address of its pods is, by the CNI's word.
//!
//! What pods send or answer themselves is no proof of that, so neither the table of neighbours nor that of a bridge is asked.
//! An agent that is started again has it from the table that the one before it left.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustix::net::netdevice::{index_to_name, name_to_index};
use rustix::net::{AddressFamily, SocketType};

use crate::ruleset::Interface;

/// What is known, for whoever explains packets.
pub type Shared = Arc<ArcSwap<BTreeMap<IpAddr, Interface>>>;

/// What is known of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ports(BTreeMap<IpAddr, Interface>);

// === impl Ports ===

impl Ports {
    /// Those that were known before, as far as their interfaces are there.
    pub(super) fn kept(before: BTreeMap<IpAddr, Interface>) -> Self {
        let mut ports = Self(before);
        ports.forget_gone(is_there);
        ports
    }

    /// A pod got these addresses, behind this interface where that is told and there is such a one.
    pub(super) fn give(&mut self, addresses: &[IpAddr], port: Option<&str>) {
        let port = port.and_then(Interface::parse).filter(is_there);
        for address in addresses {
            match &port {
                Some(port) => self.0.insert(*address, port.clone()),
                None => self.0.remove(address),
            };
        }
    }

    /// Forgets interfaces that are gone: whoever has their addresses now is behind another one. Whether there were any.
    pub(super) fn forget_gone(&mut self, is_there: impl Fn(&Interface) -> bool) -> bool {
        let before = self.0.len();
        self.0.retain(|_, port| is_there(port));
        self.0.len() != before
    }

    /// All of them.
    pub(super) fn all(&self) -> &BTreeMap<IpAddr, Interface> {
        &self.0
    }
}

/// Whether there is such an interface in the agent's network namespace. One that cannot be asked for is taken to be there.
pub(super) fn is_there(port: &Interface) -> bool {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None);
    socket.map_or(true, |socket| name_to_index(socket, port.as_str()).is_ok())
}

/// The interface of a number in the agent's network namespace.
pub(super) fn name(number: u32) -> Option<Interface> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
    Interface::parse(&index_to_name(socket, number).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_behind_the_interface_that_was_told_last_and_is_there() {
        let address: IpAddr = "10.0.0.7".parse().unwrap();
        let behind = |ports: &Ports| ports.all().get(&address).map(|it| it.as_str().to_owned());
        let mut ports = Ports::default();
        ports.give(&[address], Some("lo"));
        assert_eq!(behind(&ports), Some("lo".to_owned()));
        assert_eq!(Ports::kept(ports.all().clone()), ports);
        ports.give(&[address], Some("rf-nowhere"));
        assert_eq!(behind(&ports), None);
        ports.give(&[address], Some("lo"));
        ports.give(&[address], None);
        assert_eq!(behind(&ports), None);
        ports.give(&[address], Some("lo"));
        assert!(!ports.forget_gone(is_there));
        assert!(ports.forget_gone(|_| false));
        assert_eq!(ports, Ports::default());
    }
}
