//! Which addresses are the node's own.
//!
//! `rtnetlink(7)`, `linux/rtnetlink.h`. Asked of the table by which the kernel itself decides it: interfaces have most of them, and
//! whole blocks may be the node's by a route alone. Whether an address can be bound says less, since a node may be told to bind what
//! it does not have (`ip_nonlocal_bind`).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::io::Errno;

use super::netlink::wire::{Attributes, array, flag};
use super::netlink::{Consistency, Link};

/// `RTM_NEWROUTE` and `RTM_GETROUTE`.
const NEW: u16 = 24;
const GET: u16 = 26;

/// `RT_TABLE_LOCAL`.
const TABLE: u8 = 255;
/// `struct rtmsg`, of which the first four bytes are written as the header of every message is: what begins with the table.
const REST: [u8; 8] = [TABLE, 0, 0, 0, 0, 0, 0, 0];
const HEAD: usize = 4 + REST.len();
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

/// How often they are read where they change meanwhile.
const TRIES: usize = 5;

/// How many bytes of answers may wait.
const RECEIVE: usize = 256 * 1024;

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
        let mut socket = Link::open_of(NETLINK_ROUTE, RECEIVE)?;
        // So that only the one table is told, of the many routes that a node may have.
        socket.ask_strictly();
        for _ in 0..TRIES {
            let mut own = Self::default();
            let consistency = socket.ask(
                (GET, flag::DUMP),
                0,
                |writer| writer.raw(&REST),
                |message| {
                    if message.kind == NEW
                        && let Some(block) = said(message.payload)
                    {
                        own.add(block);
                    }
                },
            )?;
            if consistency == Consistency::Whole {
                return Ok(own);
            }
        }
        Err(Errno::AGAIN)
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

/// What a message says to be the node's own.
fn said(payload: &[u8]) -> Option<IpNet> {
    let at = |at: usize| payload.get(at).copied();
    if at(TABLE_AT)? != TABLE || !OWN.contains(&at(TYPE_AT)?) {
        return None;
    }
    let said = Attributes(payload.get(HEAD..)?).find(DESTINATION);
    let address = match (said.map(|bytes| (bytes, bytes.len())), at(0)?) {
        (Some((bytes, 4)), _) => array::<4>(bytes).map(IpAddr::from)?,
        (Some((bytes, 16)), _) => array::<16>(bytes).map(IpAddr::from)?,
        (Some(_), _) => return None,
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
    fn what_the_local_table_has_is_the_nodes() {
        let message = |family: u8, length: u8, table: u8, kind: u8, bytes: Option<&[u8]>| {
            let mut writer = Writer::default();
            writer.raw(&[family, length, 0, 0, table, 0, 0, kind, 0, 0, 0, 0]);
            if let Some(bytes) = bytes {
                writer.bytes(DESTINATION, bytes);
            }
            said(&writer.finish().unwrap())
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
        assert_eq!(said(&[0; 3]), None);

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
