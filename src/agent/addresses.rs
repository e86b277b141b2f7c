//! Which addresses are the node's own.
//!
//! `rtnetlink(7)`, `linux/if_addr.h`. Asked of the interfaces that have them: whether an address can be bound says less, since a
//! node may be told to bind what it does not have (`ip_nonlocal_bind`).

use std::collections::BTreeSet;
use std::net::IpAddr;

use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::io::Errno;

use super::netlink::wire::{Attributes, array, flag};
use super::netlink::{Consistency, Link};

/// `RTM_NEWADDR` and `RTM_GETADDR`.
const NEW: u16 = 20;
const GET: u16 = 22;

/// `struct ifaddrmsg`, of which the first four bytes are written as the header of every message is.
const REST: [u8; 4] = [0; 4];
const HEAD: usize = 4 + REST.len();

/// `IFA_ADDRESS`, which is the other end's where there is an `IFA_LOCAL`; both, and `IFA_BROADCAST`.
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
const BROADCAST: u16 = 4;

/// How often they are read where they change meanwhile.
const TRIES: usize = 5;

/// How many bytes of answers may wait.
const RECEIVE: usize = 256 * 1024;

/// The addresses that the node takes packets for in the agent's network namespace.
#[derive(Debug, Default)]
pub(super) struct Own(BTreeSet<IpAddr>);

// === impl Own ===

impl Own {
    /// Reads them, again where one came or went meanwhile.
    ///
    /// # Errors
    /// The kernel does not tell, or they change too often.
    pub(super) fn read() -> Result<Self, Errno> {
        let mut socket = Link::open_of(NETLINK_ROUTE, RECEIVE)?;
        for _ in 0..TRIES {
            let mut own = BTreeSet::new();
            let consistency = socket.ask(
                (GET, flag::DUMP),
                0,
                |writer| writer.raw(&REST),
                |message| {
                    if message.kind == NEW {
                        own.extend(said(message.payload));
                    }
                },
            )?;
            if consistency == Consistency::Whole {
                return Ok(Self(own));
            }
        }
        Err(Errno::AGAIN)
    }

    /// Whether packets to an address are for the node itself, as one of those that have it: no policy asks of it then.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        let is_everyones = match address {
            IpAddr::V4(four) => four.is_broadcast(),
            IpAddr::V6(_) => false,
        };
        is_everyones
            || address.is_loopback()
            || address.is_unspecified()
            || address.is_multicast()
            || self.0.contains(&address)
    }
}

/// The addresses of a message.
fn said(payload: &[u8]) -> Vec<IpAddr> {
    let said = Attributes(payload.get(HEAD..).unwrap_or_default());
    let own = said.find(LOCAL).or_else(|| said.find(ADDRESS));
    let all = [own, said.find(BROADCAST)].into_iter().flatten();
    all.filter_map(|bytes| match bytes.len() {
        4 => array::<4>(bytes).map(IpAddr::from),
        16 => array::<16>(bytes).map(IpAddr::from),
        _ => None,
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::netlink::wire::Writer;

    #[test]
    fn the_near_end_of_a_link_is_the_nodes() {
        let message = |parts: &[(u16, &[u8])]| {
            let mut writer = Writer::default();
            writer.raw(&[0; HEAD]);
            for (kind, bytes) in parts {
                writer.bytes(*kind, bytes);
            }
            said(&writer.finish().unwrap())
        };
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(
            message(&[(ADDRESS, &[10, 0, 0, 2]), (LOCAL, &[10, 0, 0, 1])]),
            [ip("10.0.0.1")]
        );
        assert_eq!(
            message(&[(ADDRESS, &[10, 0, 0, 1]), (BROADCAST, &[10, 0, 0, 255])]),
            [ip("10.0.0.1"), ip("10.0.0.255")]
        );
        let six: std::net::Ipv6Addr = "fd00::1".parse().unwrap();
        assert_eq!(message(&[(ADDRESS, &six.octets())]), [ip("fd00::1")]);
        assert_eq!(message(&[(ADDRESS, &[1, 2])]), [] as [IpAddr; 0]);
        assert_eq!(said(&[0; 3]), [] as [IpAddr; 0]);
    }

    #[test]
    fn this_machine_has_its_own_and_no_others() {
        let own = Own::read().unwrap();
        for address in ["127.0.0.9", "::1", "0.0.0.0", "255.255.255.255", "ff02::1"] {
            assert!(own.has(address.parse().unwrap()), "{address}");
        }
        assert!(!own.has("192.0.2.77".parse().unwrap()), "for documentation");
    }
}
