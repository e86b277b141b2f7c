//! Which of the node's interfaces can have one pod behind it, and nobody else.
//!
//! `rtnetlink(7)`, `linux/if_link.h`. Who is held to a pod's addresses must be that pod: behind a bridge, or behind what the node
//! reaches the world by, are others, too.

use std::collections::BTreeMap;

use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::io::Errno;

use super::netlink::wire::{Attributes, array, flag};
use super::netlink::{Consistency, Link};
use crate::ruleset::Interface;

/// `RTM_NEWLINK` and `RTM_GETLINK`.
const NEW: u16 = 16;
const GET: u16 = 18;

/// `struct ifinfomsg`, of which the first four bytes are written as the header of every message is.
const REST: [u8; 12] = [0; 12];
const HEAD: usize = 4 + REST.len();

// `IFLA_*`.
const NAME: u16 = 3;
const LOWER: u16 = 5;
const MASTER: u16 = 10;
const INFO: u16 = 18;
const KIND: u16 = 1;
const DATA: u16 = 2;
const ELSEWHERE: u16 = 37;
// `IFLA_BR_VLAN_FILTERING`.
const VLAN_FILTERING: u16 = 7;

/// The kind of bridges.
const BRIDGE: &str = "bridge";

/// How often they are read where they change meanwhile.
const TRIES: usize = 5;

/// How many bytes of answers may wait.
const RECEIVE: usize = 256 * 1024;

/// The kinds of which one end is a pod's: pairs, and what a virtual machine has.
const PAIR: &str = "veth";
const OF_PODS: [&str; 3] = [PAIR, "netkit", "tun"];

/// The interfaces of the agent's network namespace as they were at a moment.
#[derive(Debug, Default)]
pub(super) struct Links {
    all: BTreeMap<u32, One>,
    /// Those by which there is a way to everywhere.
    ways_out: Vec<String>,
}

#[derive(Debug, Default)]
struct One {
    name: String,
    kind: String,
    /// Whose port it is.
    master: Option<u32>,
    /// On which other one of the same namespace it is.
    lower: Option<u32>,
    /// Whether it is a bridge that gives frames tags of its own.
    has_vlans: bool,
}

/// What an interface is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// There is none of that name.
    Gone,
    /// One pod may be behind it. With its number, which no other interface gets while it is there.
    Leaf(u32),
    /// Others are behind it, and why.
    Shared(&'static str),
}

// === impl Links ===

impl Links {
    /// Reads them, again where one came or went meanwhile: one that is not among them is taken to be gone.
    ///
    /// # Errors
    /// The kernel does not tell, or they change too often.
    pub(super) fn read() -> Result<Self, Errno> {
        for _ in 0..TRIES {
            let (links, consistency) = Self::read_once()?;
            if consistency == Consistency::Whole {
                return Ok(links);
            }
        }
        Err(Errno::AGAIN)
    }

    fn read_once() -> Result<(Self, Consistency), Errno> {
        let mut links = Self::default();
        let mut socket = Link::open_of(NETLINK_ROUTE, RECEIVE)?;
        let consistency = socket.ask(
            (GET, flag::DUMP),
            0,
            |writer| writer.raw(&REST),
            |message| {
                if message.kind == NEW {
                    links.all.extend(one(message.payload));
                }
            },
        )?;
        // A node without IPv6 has no such file.
        let [four, six] = ["route", "ipv6_route"]
            .map(|of| std::fs::read_to_string(format!("/proc/net/{of}")).unwrap_or_default());
        links.ways_out = ways_out(&four, &six);
        Ok((links, consistency))
    }

    /// The number of the one of a name.
    pub(super) fn number(&self, name: &Interface) -> Option<u32> {
        let mut all = self.all.iter();
        all.find(|(_, one)| one.name == name.as_str())
            .map(|(number, _)| *number)
    }

    /// Whether a bridge gives frames tags of its own, behind which the kernel does not see the packets of pods unless told to.
    pub(super) fn have_vlans(&self) -> bool {
        self.all.values().any(|one| one.has_vlans)
    }

    /// What the one of a name is.
    pub(super) fn look(&self, name: &Interface) -> Found {
        let mut all = self.all.iter();
        let Some((number, own)) = all.find(|(_, one)| one.name == name.as_str()) else {
            return Found::Gone;
        };
        let is_on_it = |one: &One| {
            one.master == Some(*number) || one.lower == Some(*number) && one.kind != PAIR
        };
        if !OF_PODS.contains(&own.kind.as_str()) {
            Found::Shared("it is no end of a pair")
        } else if self.all.values().any(is_on_it) {
            Found::Shared("it has ports, or other interfaces on it")
        } else if self.ways_out.contains(&own.name) {
            Found::Shared("the node's default route goes by it")
        } else {
            Found::Leaf(*number)
        }
    }
}

/// An interface, with its number, as a message tells it.
fn one(payload: &[u8]) -> Option<(u32, One)> {
    let native = |bytes: &[u8]| array(bytes).map(u32::from_ne_bytes);
    let number = native(payload.get(4..8)?)?;
    let said = Attributes(payload.get(HEAD..)?);
    let is_elsewhere = said.find(ELSEWHERE).is_some();
    let info = said.nested(INFO);
    let kind = info.and_then(|info| info.text(KIND)).unwrap_or_default();
    let data = info
        .filter(|_| kind == BRIDGE)
        .and_then(|info| info.nested(DATA));
    let filters = data.and_then(|data| data.find(VLAN_FILTERING));
    let one = One {
        name: said.text(NAME)?.to_owned(),
        kind: kind.to_owned(),
        has_vlans: filters.is_some_and(|value| value != [0]),
        master: said.find(MASTER).and_then(native),
        lower: said.find(LOWER).and_then(native).filter(|_| !is_elsewhere),
    };
    Some((number, one))
}

/// The interfaces of the routes to everywhere, as `/proc/net/route` and `/proc/net/ipv6_route` have them.
fn ways_out(four: &str, six: &str) -> Vec<String> {
    let four = four.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_default = words.get(1) == Some(&"00000000") && words.get(7) == Some(&"00000000");
        is_default.then(|| words.first().copied()).flatten()
    });
    let six = six.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_zero = |at: usize| {
            words
                .get(at)
                .is_some_and(|word| word.bytes().all(|b| b == b'0'))
        };
        (is_zero(0) && is_zero(1))
            .then(|| words.last().copied())
            .flatten()
    });
    four.chain(six).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::netlink::wire::Writer;

    type Told = (u32, &'static str, &'static str, Option<u32>, Option<u32>);

    fn links(all: &[Told]) -> Links {
        let one = |(number, name, kind, master, lower): &Told| {
            let one = One {
                name: (*name).to_owned(),
                kind: (*kind).to_owned(),
                master: *master,
                lower: *lower,
                has_vlans: false,
            };
            (*number, one)
        };
        Links {
            all: all.iter().map(one).collect(),
            ways_out: vec!["veth-up".to_owned()],
        }
    }

    #[test]
    fn only_a_leaf_is_taken_for_a_pod_s() {
        let links = links(&[
            (2, "eth0", "", None, None),
            (3, "cni0", "bridge", None, None),
            (4, "veth1", "veth", Some(3), None),
            (5, "veth-up", "veth", None, None),
            // Both ends of a pair are here.
            (6, "veth2", "veth", None, Some(7)),
            (7, "veth3", "veth", None, Some(6)),
            (8, "veth-lan", "veth", None, None),
            (9, "vlan9", "vlan", None, Some(8)),
        ]);
        for (name, found) in [
            ("eth0", None),
            ("cni0", None),
            ("veth-up", None),
            ("veth-lan", None),
            ("vlan9", None),
            ("veth1", Some(4)),
            ("veth2", Some(6)),
            ("veth3", Some(7)),
        ] {
            let seen = match links.look(&Interface::parse(name).unwrap()) {
                Found::Leaf(number) => Some(number),
                Found::Shared(_) => None,
                Found::Gone => panic!("{name} is there"),
            };
            assert_eq!(seen, found, "{name}");
        }
        assert_eq!(links.look(&Interface::parse("veth9").unwrap()), Found::Gone);
    }

    #[test]
    fn a_bridge_with_vlans_says_so_itself() {
        let told = |kind: &str, filters: u8| {
            let mut message = Writer::default();
            message.raw(&[0; 4]);
            message.raw(&3_u32.to_ne_bytes());
            message.raw(&[0; 8]);
            message.text(NAME, "cni0");
            message.nest(INFO, |info| {
                info.text(KIND, kind);
                info.nest(DATA, |data| {
                    data.u32(1, 9);
                    data.bytes(VLAN_FILTERING, &[filters]);
                });
            });
            Links {
                all: one(&message.finish().unwrap()).into_iter().collect(),
                ways_out: Vec::new(),
            }
        };
        assert!(told("bridge", 1).have_vlans());
        assert!(!told("bridge", 0).have_vlans());
        // The same number means something else to other kinds.
        assert!(!told("vlan", 1).have_vlans());
    }

    #[test]
    fn the_interfaces_of_this_machine_are_read() {
        let found = Links::read().unwrap();
        assert_eq!(
            found.look(&Interface::parse("lo").unwrap()),
            Found::Shared("it is no end of a pair")
        );
    }

    #[test]
    fn the_ways_to_everywhere_are_read() {
        let four = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
                    eth0\t00000000\t0102000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                    eth1\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let zero = "0".repeat(32);
        let six = format!(
            "fe80{z} 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001 eth3\n\
             {zero} 00 {zero} 00 {zero} 00000400 00000001 00000000 00000003 eth2\n",
            z = "0".repeat(28)
        );
        assert_eq!(ways_out(four, &six), ["eth0", "eth2"]);
    }
}
