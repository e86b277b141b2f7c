//! Which of the node's interfaces can have one pod behind it, and nobody else, and which bridges have pods behind them.
//!
//! `rtnetlink(7)`, `linux/if_link.h`. Who is held to a pod's addresses must be that pod: behind a bridge, or behind what the node
//! reaches the world by, are others, too.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rustix::io::Errno;

use super::netlink::wire::{Attributes, array, flag};
use super::netlink::{Consistency, Link, settled};
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

/// The kinds of which one end is a pod's: pairs, and what a virtual machine has.
const PAIR: &str = "veth";
const OF_PODS: [&str; 3] = [PAIR, "netkit", "tun"];

/// The interfaces of the agent's network namespace as they were at a moment.
#[derive(Debug, Default)]
pub(super) struct Links {
    all: BTreeMap<u32, One>,
    ways: Vec<Way>,
}

/// A route by one of them.
type Way = (IpNet, String);

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
        settled(Self::read_once)
    }

    fn read_once() -> Result<(Self, Consistency), Errno> {
        let mut links = Self::default();
        let mut socket = Link::open_routes()?;
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
        links.ways = ways(&four, &six);
        Ok((links, consistency))
    }

    /// Whether there is one of a name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.all.values().any(|one| one.name == name)
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

    fn is_way_out(&self, one: &One) -> bool {
        let mut ways = self.ways.iter();
        ways.any(|(block, by)| block.prefix_len() == 0 && *by == one.name)
    }

    /// The bridges behind which pods are: those of their ports, and those by which the node reaches their addresses.
    pub(super) fn bridges<'p>(
        &self,
        ports: impl IntoIterator<Item = &'p Interface>,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> BTreeSet<Interface> {
        let number = |port: &Interface| self.number(port);
        let ports = ports.into_iter().filter_map(number);
        let masters = ports.filter_map(|port| self.all.get(&port)?.master);
        let masters = masters.filter_map(|master| Some(&self.all.get(&master)?.name));
        let ways = addresses.into_iter().filter_map(|it| self.way_to(it));
        let named: BTreeSet<&String> = masters.chain(ways).collect();
        let bridges = named.into_iter().filter_map(|name| self.bridge_of(name));
        bridges
            .filter_map(|one| Interface::parse(&one.name))
            .collect()
    }

    /// The bridge of a name, or the one on which the interface of that name is.
    fn bridge_of(&self, name: &str) -> Option<&One> {
        let mut all = self.all.values();
        let one = all.find(|one| one.name == name)?;
        let lower = one.lower.and_then(|lower| self.all.get(&lower));
        let mut both = [Some(one), lower].into_iter().flatten();
        both.find(|one| one.kind == BRIDGE)
    }

    /// By which of them the node reaches an address.
    fn way_to(&self, address: IpAddr) -> Option<&String> {
        let ways = self.ways.iter().filter(|(it, _)| it.contains(&address));
        let longest = ways.max_by_key(|(block, _)| block.prefix_len());
        longest.map(|(_, by)| by)
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
        } else if self.is_way_out(own) {
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

/// The routes of the main tables, as `/proc/net/route` and `/proc/net/ipv6_route` have them.
fn ways(four: &str, six: &str) -> Vec<Way> {
    // Each number as it is in memory.
    let quad = |word: &str| Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes());
    let four = four.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [address, mask] = [quad(words.get(1)?)?, quad(words.get(7)?)?].map(Ipv4Addr::from);
        let block = IpNet::with_netmask(address.into(), mask.into()).ok()?;
        Some((block, (*words.first()?).to_owned()))
    });
    let six = six.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let address = Ipv6Addr::from(u128::from_str_radix(words.first()?, 16).ok()?);
        let length = u8::from_str_radix(words.get(1)?, 16).ok()?;
        let block = IpNet::new(address.into(), length).ok()?;
        Some((block, (*words.last()?).to_owned()))
    });
    four.chain(six).collect()
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
            ways: vec![
                ("0.0.0.0/0".parse().unwrap(), "veth-up".to_owned()),
                ("10.0.0.0/16".parse().unwrap(), "veth1".to_owned()),
                ("10.0.1.0/24".parse().unwrap(), "cni0".to_owned()),
                ("10.0.3.0/24".parse().unwrap(), "br-lan.100".to_owned()),
            ],
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
                ways: Vec::new(),
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
    fn the_bridges_of_pods_are_those_of_their_ports_and_addresses() {
        let links = links(&[
            (2, "eth0", "", None, None),
            (3, "cni0", "bridge", None, None),
            (4, "veth1", "veth", Some(5), None),
            (5, "br-pods", "bridge", None, None),
            (6, "docker0", "bridge", None, None),
            (7, "br-lan", "bridge", None, None),
            (8, "br-lan.100", "vlan", None, Some(7)),
        ]);
        let bridges = |ports: &[&str], addresses: &[&str]| {
            let ports: Vec<_> = ports.iter().filter_map(|it| Interface::parse(it)).collect();
            let addresses = addresses.iter().map(|it| it.parse().unwrap());
            let found = links.bridges(&ports, addresses);
            let names = found.iter().map(|it| it.as_str().to_owned());
            names.collect::<Vec<_>>()
        };
        assert_eq!(bridges(&[], &[]), [""; 0]);
        assert_eq!(bridges(&["veth1", "veth9"], &[]), ["br-pods"]);
        assert_eq!(bridges(&[], &["10.0.1.7", "192.0.2.1"]), ["cni0"]);
        assert_eq!(bridges(&[], &["10.0.2.7"]), [""; 0], "by a pair of its own");
        assert_eq!(bridges(&[], &["10.0.3.7"]), ["br-lan"], "by a VLAN on it");
    }

    #[test]
    fn the_ways_are_read() {
        let four = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
                    eth0\t00000000\t0102000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                    eth1\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let zero = "0".repeat(32);
        let six = format!(
            "fe80{z} 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001 eth3\n\
             {zero} 00 {zero} 00 {zero} 00000400 00000001 00000000 00000003 eth2\n",
            z = "0".repeat(28)
        );
        let read = ways(four, &six);
        let read = read.iter().map(|(block, by)| format!("{block} {by}"));
        assert_eq!(
            read.collect::<Vec<_>>(),
            [
                "0.0.0.0/0 eth0",
                "10.0.2.0/24 eth1",
                "fe80::/64 eth3",
                "::/0 eth2"
            ]
        );
    }
}
