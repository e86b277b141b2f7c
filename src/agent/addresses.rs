//! Which addresses are the node's own.
//!
//! `rtnetlink(7)`, `linux/rtnetlink.h`, `linux/if_addr.h`. Asked of the interfaces that have them, and of the table by which the
//! kernel itself decides: whole blocks may be the node's by a route alone, and what is of a VRF is not in that table. Whether an
//! address can be bound says less, since a node may be told to bind what it does not have (`ip_nonlocal_bind`).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rustix::io::Errno;

use super::netlink::wire::{Attributes, array, flag};
use super::netlink::{Consistency, Link, settled};

/// `RTM_NEWADDR` and `RTM_GETADDR`.
const ADDRESSES: (u16, u16) = (20, 22);
/// `RTM_NEWROUTE` and `RTM_GETROUTE`.
const ROUTES: (u16, u16) = (24, 26);

/// `struct ifaddrmsg`, of which the first four bytes are written as the header of every message is.
const OF_ADDRESS: [u8; 4] = [0; 4];
/// `IFA_ADDRESS`, which is the other end's where there is an `IFA_LOCAL`; both, and `IFA_BROADCAST`.
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
const BROADCAST: u16 = 4;

/// `RT_TABLE_LOCAL`.
const TABLE: u8 = 255;
/// `struct rtmsg` without its first four bytes: what begins with the table.
const OF_ROUTE: [u8; 8] = [TABLE, 0, 0, 0, 0, 0, 0, 0];
/// Where it has the length of the prefix, the table and the type.
const LENGTH_AT: usize = 1;
const TABLE_AT: usize = 4;
const TYPE_AT: usize = 7;
/// `RTN_LOCAL`, `RTN_BROADCAST` and `RTN_ANYCAST`.
const OWN: [u8; 3] = [2, 3, 4];
/// `RTA_DST`.
const DESTINATION: u16 = 1;

/// `AF_INET6`.
const SIX: u8 = 10;

/// The addresses that the node takes packets for in the agent's network namespace.
#[derive(Debug, Default)]
pub(super) struct Own {
    addresses: BTreeSet<IpAddr>,
    blocks: BTreeSet<IpNet>,
}

// === impl Own ===

impl Own {
    /// Reads them, again where one came or went meanwhile.
    ///
    /// # Errors
    /// The kernel does not tell, or they change too often.
    pub(super) fn read() -> Result<Self, Errno> {
        let mut socket = Link::open_routes()?;
        // So that only the one table is told, of the many routes that a node may have.
        socket.ask_strictly();
        settled(|| {
            let mut own = Self::default();
            let addresses = own.hear(&mut socket, ADDRESSES, &OF_ADDRESS, of_interface)?;
            let of_table = |payload: &[u8]| of_table(payload).into_iter().collect();
            let routes = own.hear(&mut socket, ROUTES, &OF_ROUTE, of_table)?;
            Ok((own, addresses.and(routes)))
        })
    }

    /// Asks for all of a kind and adds what is said to be the node's own.
    fn hear(
        &mut self,
        socket: &mut Link,
        (new, get): (u16, u16),
        rest: &[u8],
        said: impl Fn(&[u8]) -> Vec<IpNet>,
    ) -> Result<Consistency, Errno> {
        socket.ask(
            (get, flag::DUMP),
            0,
            |writer| writer.raw(rest),
            |message| {
                if message.kind == new {
                    for block in said(message.payload) {
                        self.add(block);
                    }
                }
            },
        )
    }

    fn add(&mut self, block: IpNet) {
        if block.prefix_len() == block.max_prefix_len() {
            self.addresses.insert(block.addr());
        } else {
            self.blocks.insert(block);
        }
    }

    /// Whether packets to an address are for the node itself, as one of those that have it.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        let is_everyones = match address {
            IpAddr::V4(four) => four.is_broadcast(),
            IpAddr::V6(_) => false,
        };
        is_everyones
            || address.is_loopback()
            || address.is_unspecified()
            || address.is_multicast()
            || self.addresses.contains(&address)
            || self.blocks.iter().any(|block| block.contains(&address))
    }
}

/// What a message of an interface's address says to be the node's own.
fn of_interface(payload: &[u8]) -> Vec<IpNet> {
    let head = 4 + OF_ADDRESS.len();
    let said = Attributes(payload.get(head..).unwrap_or_default());
    let own = said.find(LOCAL).or_else(|| said.find(ADDRESS));
    let all = [own, said.find(BROADCAST)].into_iter().flatten();
    all.filter_map(address).map(IpNet::from).collect()
}

/// The address of some bytes.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => array::<4>(bytes).map(IpAddr::from),
        16 => array::<16>(bytes).map(IpAddr::from),
        _ => None,
    }
}

/// What a message of a route says to be the node's own.
fn of_table(payload: &[u8]) -> Option<IpNet> {
    let at = |at: usize| payload.get(at).copied();
    if at(TABLE_AT)? != TABLE || !OWN.contains(&at(TYPE_AT)?) {
        return None;
    }
    let head = 4 + OF_ROUTE.len();
    let address = match (Attributes(payload.get(head..)?).find(DESTINATION), at(0)?) {
        (Some(bytes), _) => address(bytes)?,
        // All of a family.
        (None, SIX) => Ipv6Addr::UNSPECIFIED.into(),
        (None, _) => Ipv4Addr::UNSPECIFIED.into(),
    };
    let block = IpNet::new(address, at(LENGTH_AT)?).ok()?;
    Some(block.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::netlink::wire::Writer;

    #[test]
    fn the_near_end_of_a_link_is_the_nodes() {
        let message = |parts: &[(u16, &[u8])]| {
            let mut writer = Writer::default();
            writer.raw(&[0; 8]);
            for (kind, bytes) in parts {
                writer.bytes(*kind, bytes);
            }
            of_interface(&writer.finish().unwrap())
        };
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        assert_eq!(
            message(&[(ADDRESS, &[10, 0, 0, 2]), (LOCAL, &[10, 0, 0, 1])]),
            [net("10.0.0.1/32")]
        );
        assert_eq!(
            message(&[(ADDRESS, &[10, 0, 0, 1]), (BROADCAST, &[10, 0, 0, 255])]),
            [net("10.0.0.1/32"), net("10.0.0.255/32")]
        );
        let six: Ipv6Addr = "fd00::1".parse().unwrap();
        assert_eq!(message(&[(ADDRESS, &six.octets())]), [net("fd00::1/128")]);
        assert_eq!(message(&[(ADDRESS, &[1, 2])]), [] as [IpNet; 0]);
        assert_eq!(of_interface(&[0; 3]), [] as [IpNet; 0]);
    }

    #[test]
    fn what_the_local_table_has_is_the_nodes() {
        let message = |family: u8, length: u8, table: u8, kind: u8, bytes: Option<&[u8]>| {
            let mut writer = Writer::default();
            writer.raw(&[family, length, 0, 0, table, 0, 0, kind, 0, 0, 0, 0]);
            if let Some(bytes) = bytes {
                writer.bytes(DESTINATION, bytes);
            }
            of_table(&writer.finish().unwrap())
        };
        let net = |text: &str| Some(text.parse::<IpNet>().unwrap());
        let ten: &[u8] = &[10, 0, 0, 1];
        assert_eq!(message(2, 32, 255, 2, Some(ten)), net("10.0.0.1/32"));
        assert_eq!(message(2, 8, 255, 2, Some(ten)), net("10.0.0.0/8"));
        assert_eq!(message(2, 0, 255, 2, None), net("0.0.0.0/0"));
        assert_eq!(message(SIX, 0, 255, 2, None), net("::/0"));
        let six: Ipv6Addr = "fd00::1".parse().unwrap();
        let anycast = message(SIX, 128, 255, 4, Some(&six.octets()));
        assert_eq!(anycast, net("fd00::1/128"));
        // Of another table, of another kind, or nonsense.
        assert_eq!(message(2, 32, 254, 2, Some(ten)), None);
        assert_eq!(message(2, 32, 255, 1, Some(ten)), None);
        assert_eq!(message(2, 33, 255, 2, Some(ten)), None);
        assert_eq!(message(2, 32, 255, 2, Some(&ten[..3])), None);
        assert_eq!(of_table(&[0; 3]), None);

        let mut own = Own::default();
        own.add("10.0.0.1/32".parse().unwrap());
        own.add("10.1.0.0/16".parse().unwrap());
        let has = |text: &str| own.has(text.parse().unwrap());
        assert!(has("10.0.0.1") && has("10.1.2.3"));
        assert!(!has("10.0.0.2") && !has("10.2.0.0"));
    }

    #[test]
    fn this_machine_has_its_own_and_no_others() {
        let own = Own::read().unwrap();
        for address in ["127.0.0.9", "::1", "0.0.0.0", "255.255.255.255", "ff02::1"] {
            assert!(own.has(address.parse().unwrap()), "{address}");
        }
        assert!(own.blocks.contains(&"127.0.0.0/8".parse().unwrap()));
        assert!(!own.has("192.0.2.77".parse().unwrap()), "for documentation");
    }
}
