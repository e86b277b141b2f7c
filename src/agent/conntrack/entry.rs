//! One connection as the kernel tracks it, to and from attributes (`CTA_*`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::agent::netlink::wire::{Attributes, Writer, array};
use crate::agent::nft::protocol;
use crate::netpol::Family;
use crate::ruleset::Tuple;

const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const STATUS: u16 = 3;
const ID: u16 = 12;
const ZONE: u16 = 18;

/// In a way.
const IP: u16 = 1;
const PROTO: u16 = 2;
const WAY_ZONE: u16 = 3;

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The way of its first packet, as it was sent.
    pub original: Way,
    /// The way of what answers; where addresses are translated it is not the other way round.
    pub reply: Way,
    /// The number of its protocol in the header of IP.
    pub protocol: u8,
    /// What has happened to it: `IPS_*` of `linux/netfilter/nf_conntrack_common.h`.
    pub status: u32,
    /// The number by which the kernel tells it from others between the same ends; none where it gave none.
    pub id: Option<u32>,
    /// The zone that holds for both ways, 0 where there is none.
    pub zone: u16,
}

/// How packets of a connection go one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Way {
    /// Where they come from.
    pub source: IpAddr,
    /// Where they go.
    pub destination: IpAddr,
    /// What else tells them from others.
    pub ends: Ends,
    /// The zone that holds for this way alone, 0 where there is none.
    pub zone: u16,
}

/// What tells connections between the same addresses apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ends {
    /// Source and destination port.
    Ports(u16, u16),
    /// Number, type and code of ICMP or `ICMPv6`.
    Icmp(u16, u8, u8),
    /// Nothing.
    None,
}

/// `AF_INET`, `AF_INET6`.
pub(super) fn number(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

impl Entry {
    /// The family of its addresses.
    pub fn family(&self) -> Family {
        Family::of(self.original.source)
    }

    /// Addresses, protocol and ports of one of its ways; none for protocols that policies do not know.
    pub fn tuple(&self, way: &Way) -> Option<Tuple> {
        let Ends::Ports(from, to) = way.ends else {
            return None;
        };
        Some(Tuple {
            source: (way.source, from),
            destination: (way.destination, to),
            protocol: protocol(self.protocol)?,
        })
    }

    /// How its packets look where they are forwarded, which is behind the translation of destinations and before that of
    /// sources: from who began to who really answers. Those that answer look the other way round there.
    pub fn forwarded(&self) -> Option<Tuple> {
        let (Ends::Ports(from, _), Ends::Ports(to, _)) = (self.original.ends, self.reply.ends)
        else {
            return None;
        };
        Some(Tuple {
            source: (self.original.source, from),
            destination: (self.reply.source, to),
            protocol: protocol(self.protocol)?,
        })
    }

    pub(in crate::agent) fn read(attributes: Attributes<'_>) -> Option<Self> {
        let original = attributes.nested(ORIGINAL)?;
        Some(Self {
            original: Way::read(original)?,
            reply: Way::read(attributes.nested(REPLY)?)?,
            protocol: *original.nested(PROTO)?.find(1)?.first()?,
            status: attributes.u32(STATUS).unwrap_or_default(),
            id: attributes.u32(ID),
            zone: attributes.u16(ZONE).unwrap_or_default(),
        })
    }

    /// Writes what the kernel finds it by.
    pub(super) fn write(&self, w: &mut Writer) {
        w.nest(ORIGINAL, |w| self.original.write(self.protocol, w));
        if self.zone != 0 {
            w.u16(ZONE, self.zone);
        }
        if let Some(id) = self.id {
            w.u32(ID, id);
        }
    }
}

impl Way {
    fn read(way: Attributes<'_>) -> Option<Self> {
        let ip = way.nested(IP)?;
        let v4 = |kind| array::<4>(ip.find(kind)?).map(Ipv4Addr::from);
        let v6 = |kind| array::<16>(ip.find(kind)?).map(Ipv6Addr::from);
        let address = |four, six| {
            let four = v4(four).map(IpAddr::from);
            four.or_else(|| v6(six).map(IpAddr::from))
        };
        let proto = way.nested(PROTO)?;
        let byte = |kind| proto.find(kind)?.first().copied();
        let icmp = |id, kind, code| Some(Ends::Icmp(proto.u16(id)?, byte(kind)?, byte(code)?));
        let ports = || Some(Ends::Ports(proto.u16(2)?, proto.u16(3)?));
        let ends = ports().or_else(|| icmp(4, 5, 6)).or_else(|| icmp(7, 8, 9));
        Some(Self {
            source: address(1, 3)?,
            destination: address(2, 4)?,
            ends: ends.unwrap_or(Ends::None),
            zone: way.u16(WAY_ZONE).unwrap_or_default(),
        })
    }

    fn write(&self, protocol: u8, w: &mut Writer) {
        w.nest(IP, |w| {
            for (address, four, six) in [(self.source, 1, 3), (self.destination, 2, 4)] {
                match address {
                    IpAddr::V4(address) => w.bytes(four, &address.octets()),
                    IpAddr::V6(address) => w.bytes(six, &address.octets()),
                }
            }
        });
        w.nest(PROTO, |w| {
            w.bytes(1, &[protocol]);
            match (self.ends, Family::of(self.source)) {
                (Ends::Ports(from, to), _) => {
                    w.u16(2, from);
                    w.u16(3, to);
                }
                (Ends::Icmp(id, kind, code), Family::V4) => {
                    w.u16(4, id);
                    w.bytes(5, &[kind]);
                    w.bytes(6, &[code]);
                }
                (Ends::Icmp(id, kind, code), Family::V6) => {
                    w.u16(7, id);
                    w.bytes(8, &[kind]);
                    w.bytes(9, &[code]);
                }
                (Ends::None, _) => {}
            }
        });
        if self.zone != 0 {
            w.u16(WAY_ZONE, self.zone);
        }
    }
}
