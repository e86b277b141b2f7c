//! The part of nftables that is used, as types: chains of rules, sets, verdict maps, counters.
//!
//! <https://wiki.nftables.org/wiki-nftables/index.php/Main_Page>, `man 8 nft`. Each value can be written as text
//! (`render.rs`) and encoded for the kernel, and both mean the same.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::netpol::name::name;
use crate::netpol::{Family, Port, Protocol};

/// The name of the only tables that are ours, one in each [`Layer`].
pub const TABLE: &str = "ringfence";

/// How many bytes of a packet's head a listener gets: IPv6 with extension headers and the ports of any protocol fit, and
/// nothing of what is said in a connection of IPv4 over TCP but its first words.
pub const LOG_SNAPLEN: u32 = 128;

/// How many packets the kernel gathers before it wakes a listener, unless its timer is over first: at the full rate of a
/// flood one wake-up reads many, and a lone packet waits for the listener's timer only.
pub const LOG_QUEUE: u16 = 64;

// Letters, digits, `.`, `-` and `_`, beginning with a letter. The kernel takes any name; nft reads no word of its own language
// as one (`all`, `map`, `set`, `counter`), so names have a part that no such word has.
name!(
    /// The name of a chain.
    ChainName
);
name!(
    /// The name of a set or of a verdict map.
    SetName
);
name!(
    /// The name of a counter.
    CounterName
);

/// Where a table is at work, by its family of nftables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// Packets of IP, wherever they come from: `inet`.
    Inet,
    /// Frames that come in by a port of a bridge: `bridge`.
    Bridge,
}

/// An interface of the node, by a name that nft reads as it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interface(Arc<str>);

/// How many bytes the name of an interface has in the kernel, with the zero at its end (`IFNAMSIZ`).
pub const INTERFACE: usize = 16;

/// A whole table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Its chains.
    pub chains: BTreeMap<ChainName, Chain>,
    /// Its sets and verdict maps.
    pub sets: BTreeMap<SetName, Set>,
    /// Its counters, which outlive the rules that count with them.
    pub counters: BTreeSet<CounterName>,
    /// The table for the ports of bridges that goes with it, where one does.
    pub bridge: Option<Box<Ruleset>>,
}

/// A list of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where packets come into it; none for a chain that others jump to.
    pub hook: Option<Hook>,
    /// What is asked of each packet, in this order.
    pub rules: Vec<Rule>,
}

/// Where the packets of a node come by. Each of our chains there accepts what it does not drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Packets to the node itself.
    Input,
    /// Packets from one interface to another.
    Forward,
    /// All packets that come in, before anything is made of them.
    Prerouting,
}

/// One rule: where everything matches, the statements are done in their order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// What must hold of a packet.
    pub matches: Vec<Match>,
    /// What is done then.
    pub does: Vec<Statement>,
    /// The same in words, for people; no more than 128 bytes of it go into the kernel.
    pub why: Arc<str>,
}

/// Something that holds of a packet or does not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Match {
    /// It carries this. Where the next question is one of the same, it is said by that.
    Carries(Carried),
    /// What connection tracking says of it.
    Tracked(Tracked),
    /// It tells an end of a connection of this family that something went wrong: ICMP or `ICMPv6`.
    Icmp(Family),
    /// It finds neighbours and routers, or groups of receivers: IPv6 does not work without (RFC 4861, RFC 3810).
    NeighbourDiscovery,
    /// It says who routes: the advertisement of a router, or a redirect (RFC 4861, sections 4.2 and 4.5).
    Routing,
    /// It asks for a connection of TCP: SYN, and neither ACK nor FIN nor RST (RFC 9293, section 3.5).
    Opening,
    /// The address of one end is in a set ([`SetKind::Addresses`] or [`SetKind::Blocks`]).
    Address(Family, End, SetName),
    /// Source and destination address, in this order, are in a [`SetKind::Pairs`].
    Pair(Family, SetName),
    /// Destination address and port are in a [`SetKind::AddressPorts`].
    DestinationPort(Family, SetName),
    /// Addresses, protocol and ports are in a [`SetKind::Tuples`], those of the end that is said first: with the destination, it is
    /// the way back that is asked for.
    Tuple(Family, End, SetName),
    /// Its protocol.
    Protocol(Protocol),
    /// Its destination port is from the first to the last.
    Port(Port, Port),
    /// Its destination port is in a [`SetKind::Ports`].
    Ports(SetName),
    /// It was unpacked by a VXLAN device of the node.
    FromOverlay,
    /// It came in by an interface in a [`SetKind::Interfaces`].
    Interface(SetName),
    /// The interface by which it came in and the sender that it names are in a [`SetKind::Sources`].
    Own(Carried, SetName),
    /// The sender that a message of ARP names is in a [`SetKind::Addresses`] of IPv4.
    ArpSender(SetName),
}

/// What a frame carries, where it is one of these and has no tag of a VLAN before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Carried {
    /// A packet of IP.
    Ip(Family),
    /// A question or an answer about who has an address of IPv4 (RFC 826). Only bridges meet it.
    Arp,
}

/// What connection tracking says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tracked {
    /// It belongs to a connection that has been let through in at least one direction.
    Established,
    /// It is about such a connection, like an ICMP error.
    Related,
    /// It goes against the way of the first packet of its connection. What is not tracked does not.
    Reply,
}

/// One end of a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

/// Something that is done with a packet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Statement {
    /// Counts it.
    Count(CounterName),
    /// Goes on only for so many packets in a second, after a burst of as many.
    Limit(u32),
    /// Sends its head to a listener.
    Log(Log),
    /// Asks a [`SetKind::Dispatch`] by the address of one end and does what is found there, if anything.
    Dispatch(Family, End, SetName),
    /// Ends the rule.
    Verdict(Verdict),
}

/// How packets are sent to a listener.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Log {
    /// The number of the NFLOG group.
    pub group: u16,
    /// What the listener is told with each packet, at most 127 bytes.
    pub prefix: Arc<str>,
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// This table lets it pass. Other tables may still drop it.
    Accept,
    /// It is gone.
    Drop,
    /// Back to the chain that jumped here.
    Return,
    /// Into a chain and back here.
    Jump(ChainName),
    /// Into a chain and not back here.
    Goto(ChainName),
}

/// A set or verdict map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// What its elements are.
    pub kind: SetKind,
    /// Its elements; those of a kind with a range never overlap.
    pub elements: BTreeSet<Element>,
}

/// What the elements of a set are. Only blocks and ports are ranges: those sets cost more to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetKind {
    /// [`Element::Address`].
    Addresses(Family),
    /// [`Element::Pair`].
    Pairs(Family),
    /// [`Element::AddressPort`].
    AddressPorts(Family),
    /// [`Element::Block`].
    Blocks(Family),
    /// [`Element::Ports`].
    Ports,
    /// [`Element::Tuple`], each of which goes by itself after some seconds.
    Tuples(Family, u32),
    /// [`Element::Dispatch`]: a verdict map.
    Dispatch(Family),
    /// [`Element::Interface`].
    Interfaces,
    /// [`Element::Source`].
    Sources(Family),
}

/// One element of a set. All addresses of a set are of its family.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Element {
    /// An address.
    Address(IpAddr),
    /// A source and a destination.
    Pair(IpAddr, IpAddr),
    /// A destination and its port.
    AddressPort(IpAddr, Port),
    /// All addresses from the first to the last.
    Block(IpAddr, IpAddr),
    /// All ports from the first to the last.
    Ports(Port, Port),
    /// A connection in one direction.
    Tuple(Tuple),
    /// An address and the chain that is jumped to. Of one address there is at most one.
    Dispatch(IpAddr, ChainName),
    /// An interface.
    Interface(Interface),
    /// An interface, and an address that what comes in there may have as its sender.
    Source(Interface, IpAddr),
}

/// The addresses, protocol and ports of packets that go one way in a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// Where they come from.
    pub source: (IpAddr, u16),
    /// Where they go.
    pub destination: (IpAddr, u16),
    /// Their protocol.
    pub protocol: Protocol,
}

// === impl End ===

impl End {
    /// The one that it is not.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Source => Self::Destination,
            Self::Destination => Self::Source,
        }
    }
}

// === impl Hook ===

impl Hook {
    /// The name of it in nftables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Prerouting => "prerouting",
        }
    }

    /// The priority of our chains there: just before the chains of others that filter, or before connections are tracked, bridged
    /// packets become packets of IP, and addresses are translated.
    pub fn priority(self) -> i32 {
        match self {
            Self::Input | Self::Forward => -5,
            Self::Prerouting => -300,
        }
    }
}

// === impl Layer ===

impl Layer {
    /// The family of nftables, as text has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Bridge => "bridge",
        }
    }
}

// === impl Interface ===

impl Interface {
    /// The interface of a name; none where the kernel would not take the name, or nft would take it for something else.
    pub fn parse(name: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@:".contains(&byte);
        let is_name = name.bytes().all(is_plain) && !matches!(name, "" | "." | "..");
        (is_name && name.len() < INTERFACE).then(|| Self(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// === impl Carried ===

impl Carried {
    /// All that is told apart.
    pub const ALL: [Self; 3] = [Self::Ip(Family::V4), Self::Ip(Family::V6), Self::Arp];
}

// === impl Match ===

impl Match {
    /// What it must carry for this to be asked at all, where that counts.
    pub fn carried(&self) -> Option<Carried> {
        match self {
            Self::Address(family, ..)
            | Self::Pair(family, _)
            | Self::DestinationPort(family, _)
            | Self::Tuple(family, ..) => Some(Carried::Ip(*family)),
            Self::Carries(carried) | Self::Own(carried, _) => Some(*carried),
            Self::ArpSender(_) => Some(Carried::Arp),
            Self::Tracked(_)
            | Self::Icmp(_)
            | Self::NeighbourDiscovery
            | Self::Routing
            | Self::Opening
            | Self::Protocol(_)
            | Self::Port(..)
            | Self::Ports(_)
            | Self::FromOverlay
            | Self::Interface(_) => None,
        }
    }
}

// === impl SetKind ===

impl SetKind {
    /// The family of the addresses, where there are any.
    pub fn family(self) -> Option<Family> {
        match self {
            Self::Addresses(family)
            | Self::Pairs(family)
            | Self::AddressPorts(family)
            | Self::Blocks(family)
            | Self::Tuples(family, _)
            | Self::Dispatch(family)
            | Self::Sources(family) => Some(family),
            Self::Ports | Self::Interfaces => None,
        }
    }

    /// Whether its elements are ranges.
    pub fn has_ranges(self) -> bool {
        matches!(self, Self::Blocks(_) | Self::Ports)
    }

    /// Whether its elements tell of the node, not of the cluster.
    pub fn is_of_node(self) -> bool {
        matches!(self, Self::Interfaces | Self::Sources(_))
    }
}

// === impl Statement ===

impl Statement {
    /// Tells a group of a packet by a prefix, of so many in a second.
    pub(super) fn tell(group: u16, rate: u32, prefix: &str) -> Vec<Self> {
        let prefix = prefix.into();
        vec![Self::Limit(rate), Self::Log(Log { group, prefix })]
    }
}

// === impl Tuple ===

impl Tuple {
    /// The way back.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            ..self
        }
    }
}

// === impl Rule ===

impl Rule {
    /// A rule that does one thing.
    pub fn new(matches: Vec<Match>, verdict: Verdict, why: impl Into<Arc<str>>) -> Self {
        Self {
            matches,
            does: vec![Statement::Verdict(verdict)],
            why: why.into(),
        }
    }
}
