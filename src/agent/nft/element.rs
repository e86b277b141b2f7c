//! Sets and their elements to attributes and back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::expression::{Code, JUMP, write_verdict};
use super::rule::{name, protocol, protocol_number};
use crate::agent::netlink::wire::{Attributes, Writer, array, text};
use crate::netpol::{Family, Port};
use crate::ruleset::table::{ChainName, Element, INTERFACE, Interface, SetKind, Tuple};

const LIST_ELEM: u16 = 1;
const KEY: u16 = 1;
const DATA: u16 = 2;
const FLAGS: u16 = 3;
const EXPIRATION: u16 = 5;
const USER_DATA: u16 = 6;
const VALUE: u16 = 1;

/// `NFT_SET_ELEM_INTERVAL_END`.
const INTERVAL_END: u32 = 1;

/// What nft notes at the start of a range that has no end, because it goes to the last value there is.
const OPEN: [u8; 6] = [1, 4, 1, 0, 0, 0];

/// The types of keys, which only nft looks at.
const IPV4_ADDR: u32 = 7;
const IPV6_ADDR: u32 = 8;
const INET_PROTO: u32 = 12;
const INET_SERVICE: u32 = 13;
const IFNAME: u32 = 41;

/// The type of verdicts as data.
const VERDICT: u32 = 0xffff_ff00;

const FLAG_INTERVAL: u32 = 0x4;
const FLAG_MAP: u32 = 0x8;
const FLAG_TIMEOUT: u32 = 0x10;

/// What the kernel is told of a set.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    flags: u32,
    /// The types of the parts of a key, in 6 bits each.
    key_type: u32,
    key_length: u32,
    /// In milliseconds; 0 for elements that stay.
    timeout: u64,
    is_map: bool,
}

impl Shape {
    fn of(kind: SetKind) -> Self {
        let (address, length) = match kind.family() {
            Some(Family::V4) | None => (IPV4_ADDR, 4),
            Some(Family::V6) => (IPV6_ADDR, 16),
        };
        let parts: &[(u32, u32)] = match kind {
            SetKind::Addresses(_) | SetKind::Blocks(_) | SetKind::Dispatch(_) => {
                &[(address, length)]
            }
            SetKind::Pairs(_) => &[(address, length), (address, length)],
            SetKind::AddressPorts(_) => &[(address, length), (INET_SERVICE, 4)],
            SetKind::Ports => &[(INET_SERVICE, 2)],
            SetKind::Interfaces => &[(IFNAME, 16)],
            SetKind::Sources(_) => &[(IFNAME, 16), (address, length)],
            SetKind::Tuples(..) => &[
                (address, length),
                (address, length),
                (INET_PROTO, 4),
                (INET_SERVICE, 4),
                (INET_SERVICE, 4),
            ],
        };
        let is_map = matches!(kind, SetKind::Dispatch(_));
        let mut flags = 0;
        let mut timeout = 0;
        if kind.has_ranges() {
            flags |= FLAG_INTERVAL;
        }
        if is_map {
            flags |= FLAG_MAP;
        }
        if let SetKind::Tuples(_, seconds) = kind {
            flags |= FLAG_TIMEOUT;
            timeout = u64::from(seconds) * 1000;
        }
        Self {
            flags,
            key_type: parts.iter().fold(0, |all, (part, _)| all << 6 | part),
            key_length: parts.iter().map(|(_, length)| length).sum(),
            timeout,
            is_map,
        }
    }
}

/// A set of each kind, whose elements go after so many seconds where they go by themselves.
pub(super) fn kinds(seconds: u32) -> impl Iterator<Item = SetKind> {
    let of_family = move |family| {
        [
            SetKind::Addresses(family),
            SetKind::Blocks(family),
            SetKind::Pairs(family),
            SetKind::AddressPorts(family),
            SetKind::Tuples(family, seconds),
            SetKind::Dispatch(family),
            SetKind::Sources(family),
        ]
    };
    let of_families = Family::BOTH.into_iter().flat_map(of_family);
    of_families.chain([SetKind::Ports, SetKind::Interfaces])
}

/// Writes what a set is, behind its name. No size is said: it would be a limit, and the kernel would take a table of
/// that size at once.
pub(super) fn write_kind(kind: SetKind, id: u32, w: &mut Writer) {
    let shape = Shape::of(kind);
    w.u32(3, shape.flags);
    w.u32(4, shape.key_type);
    w.u32(5, shape.key_length);
    if shape.is_map {
        w.u32(6, VERDICT);
        w.u32(7, 0);
    }
    w.u32(10, id);
    if shape.timeout > 0 {
        w.u64(11, shape.timeout);
    }
    // For nft: single keys are big-endian (2), names in the machine's order (1), concatenations and verdicts of none (0).
    let order: u32 = match kind {
        SetKind::Pairs(_)
        | SetKind::AddressPorts(_)
        | SetKind::Tuples(..)
        | SetKind::Sources(_) => 0,
        SetKind::Interfaces => 1,
        SetKind::Addresses(_) | SetKind::Blocks(_) | SetKind::Ports | SetKind::Dispatch(_) => 2,
    };
    let mut user_data = vec![0, 4];
    user_data.extend_from_slice(&order.to_ne_bytes());
    if shape.is_map {
        user_data.extend_from_slice(&[1, 4, 0, 0, 0, 0]);
    }
    w.bytes(13, &user_data);
}

/// What a set is; none if it is nothing of ours.
pub(super) fn read_kind(set: Attributes<'_>) -> Option<SetKind> {
    let timeout = set.u64(11).unwrap_or(0);
    let found = Shape {
        flags: set.u32(3).unwrap_or(0),
        key_type: set.u32(4)?,
        key_length: set.u32(5)?,
        timeout,
        is_map: set.u32(6) == Some(VERDICT),
    };
    let seconds = u32::try_from(timeout / 1000).ok()?;
    kinds(seconds).find(|kind| Shape::of(*kind) == found)
}

/// Writes an element into a list: a range as its start and what follows its end.
pub(super) fn write(element: &Element, w: &mut Writer) {
    match element {
        Element::Block(first, last) => {
            let after = match last {
                IpAddr::V4(last) => last.to_bits().checked_add(1).map(|n| ip4(n).into()),
                IpAddr::V6(last) => last.to_bits().checked_add(1).map(|n| ip6(n).into()),
            };
            write_range(
                w,
                |w| write_address(*first, w),
                after,
                |w, after| {
                    write_address(after, w);
                },
            );
        }
        Element::Ports(first, last) => {
            let after = last.get().checked_add(1);
            let first = first.get().to_be_bytes();
            write_range(
                w,
                |w| w.raw(&first),
                after,
                |w, after: u16| {
                    w.raw(&after.to_be_bytes());
                },
            );
        }
        Element::Dispatch(address, chain) => w.nest(LIST_ELEM, |w| {
            write_key(w, |w| write_address(*address, w));
            w.nest(DATA, |w| write_verdict(JUMP, Some(chain.as_str()), w));
        }),
        Element::Address(_)
        | Element::Pair(..)
        | Element::AddressPort(..)
        | Element::Tuple(_)
        | Element::Interface(_)
        | Element::Source(..) => {
            w.nest(LIST_ELEM, |w| write_key(w, |w| write_plain(element, w)));
        }
    }
}

fn write_plain(element: &Element, w: &mut Writer) {
    match element {
        Element::Pair(source, destination) => {
            write_address(*source, w);
            write_address(*destination, w);
        }
        Element::AddressPort(address, port) => {
            write_address(*address, w);
            write_port(port.get(), w);
        }
        Element::Tuple(tuple) => {
            write_address(tuple.source.0, w);
            write_address(tuple.destination.0, w);
            w.raw(&[protocol_number(tuple.protocol), 0, 0, 0]);
            write_port(tuple.source.1, w);
            write_port(tuple.destination.1, w);
        }
        Element::Address(address) | Element::Block(address, _) | Element::Dispatch(address, _) => {
            write_address(*address, w);
        }
        Element::Ports(first, _) => w.raw(&first.get().to_be_bytes()),
        Element::Interface(interface) => w.raw(&name(interface.as_str())),
        Element::Source(interface, address) => {
            w.raw(&name(interface.as_str()));
            write_address(*address, w);
        }
    }
}

fn write_key(w: &mut Writer, key: impl FnOnce(&mut Writer)) {
    w.nest(KEY, |w| w.attribute(VALUE, key));
}

fn write_range<T>(
    w: &mut Writer,
    first: impl FnOnce(&mut Writer),
    after: Option<T>,
    end: impl FnOnce(&mut Writer, T),
) {
    w.nest(LIST_ELEM, |w| {
        write_key(w, first);
        if after.is_none() {
            w.bytes(USER_DATA, &OPEN);
        }
    });
    if let Some(after) = after {
        w.nest(LIST_ELEM, |w| {
            w.u32(FLAGS, INTERVAL_END);
            write_key(w, |w| end(w, after));
        });
    }
}

fn write_address(address: IpAddr, w: &mut Writer) {
    match address {
        IpAddr::V4(address) => w.raw(&address.octets()),
        IpAddr::V6(address) => w.raw(&address.octets()),
    }
}

/// A port as a part of a longer key, which is in fours of bytes.
fn write_port(port: u16, w: &mut Writer) {
    let [high, low] = port.to_be_bytes();
    w.raw(&[high, low, 0, 0]);
}

/// Whether this is no element but where a range has ended.
pub(super) fn is_end(element: Attributes<'_>) -> bool {
    element.u32(FLAGS).unwrap_or(0) & INTERVAL_END != 0
}

/// The elements of a set as they are dumped.
#[derive(Debug)]
pub(super) struct Elements {
    kind: SetKind,
    plain: Vec<(Element, Option<Duration>)>,
    /// Keys of a set of ranges, and whether a range has ended before it. Ends come before starts.
    bounds: BTreeSet<(u128, bool)>,
    /// The chains that verdicts lead to, each kept once.
    chains: BTreeMap<String, ChainName>,
    strangers: usize,
    /// Something came twice, so something else may have not come at all.
    has_repeats: bool,
}

/// The elements of a set of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// All of them in order, with the time that each has left where it goes by itself.
    pub elements: Vec<(Element, Option<Duration>)>,
    /// How many others there are, which are nothing of ours.
    pub strangers: usize,
    /// They changed each time that they were read.
    pub is_torn: bool,
}

impl Elements {
    pub(super) fn new(kind: SetKind) -> Self {
        Self {
            kind,
            plain: Vec::new(),
            bounds: BTreeSet::new(),
            chains: BTreeMap::new(),
            strangers: 0,
            has_repeats: false,
        }
    }

    /// Takes what one message has of them.
    pub(super) fn take(&mut self, list: Attributes<'_>) {
        for (_, element) in list {
            let element = Attributes(element);
            if self.take_one(element).is_none() {
                self.strangers += 1;
            }
        }
    }

    fn take_one(&mut self, element: Attributes<'_>) -> Option<()> {
        let key = element.nested(KEY)?.find(VALUE)?;
        if self.kind.has_ranges() {
            let value = key.iter().fold(0, |all, byte| all << 8 | u128::from(*byte));
            self.has_repeats |= !self.bounds.insert((value, !is_end(element)));
        } else {
            let left = element.u64(EXPIRATION).map(Duration::from_millis);
            let read = self.plain(key, element)?;
            self.plain.push((read, left));
        }
        Some(())
    }

    fn plain(&mut self, key: &[u8], element: Attributes<'_>) -> Option<Element> {
        let mut key = Key(key);
        let family = self.kind.family();
        let read = match self.kind {
            SetKind::Addresses(_) => Element::Address(key.address(family)?),
            SetKind::Pairs(_) => Element::Pair(key.address(family)?, key.address(family)?),
            SetKind::AddressPorts(_) => {
                Element::AddressPort(key.address(family)?, Port::new(key.port()?)?)
            }
            SetKind::Tuples(..) => {
                let (source, destination) = (key.address(family)?, key.address(family)?);
                let protocol = protocol(*key.take(4)?.first()?)?;
                Element::Tuple(Tuple {
                    source: (source, key.port()?),
                    destination: (destination, key.port()?),
                    protocol,
                })
            }
            SetKind::Dispatch(_) => {
                let verdict = Code::read(element.nested(DATA)?)?;
                let chain = verdict.chain.filter(|_| verdict.code == JUMP)?;
                let name = || ChainName::from(chain.as_str());
                let known = self.chains.get(&chain).cloned().unwrap_or_else(name);
                let chain = self.chains.entry(chain).or_insert(known).clone();
                Element::Dispatch(key.address(family)?, chain)
            }
            SetKind::Interfaces => Element::Interface(key.interface()?),
            SetKind::Sources(_) => Element::Source(key.interface()?, key.address(family)?),
            SetKind::Blocks(_) | SetKind::Ports => return None,
        };
        key.0.is_empty().then_some(read)
    }

    /// All of them, in order. Where something came twice the order in which the kernel walks through a hash changed
    /// meanwhile, as it does when it has grown, and as much has not come at all.
    pub(super) fn finish(mut self) -> Held {
        let mut open = None;
        for (value, is_start) in std::mem::take(&mut self.bounds) {
            if let Some(first) = open.take() {
                self.push_range(first, value.checked_sub(1));
            }
            if is_start {
                open = Some(value);
            }
        }
        if let Some(first) = open {
            let last = match self.kind.family() {
                Some(Family::V4) => u128::from(u32::MAX),
                Some(Family::V6) => u128::MAX,
                None => u128::from(u16::MAX),
            };
            self.push_range(first, Some(last));
        }
        let before = self.plain.len();
        self.plain.sort_unstable();
        self.plain.dedup_by(|one, other| one.0 == other.0);
        Held {
            is_torn: self.has_repeats || self.plain.len() < before,
            elements: self.plain,
            strangers: self.strangers,
        }
    }

    fn push_range(&mut self, first: u128, last: Option<u128>) {
        let read = || {
            let last = last?;
            Some(match self.kind.family() {
                Some(Family::V4) => {
                    let ip = |n| u32::try_from(n).ok().map(ip4).map(IpAddr::from);
                    Element::Block(ip(first)?, ip(last)?)
                }
                Some(Family::V6) => Element::Block(ip6(first).into(), ip6(last).into()),
                None => {
                    let port = |n| u16::try_from(n).ok().and_then(Port::new);
                    Element::Ports(port(first)?, port(last)?)
                }
            })
        };
        match read() {
            Some(element) => self.plain.push((element, None)),
            None => self.strangers += 1,
        }
    }
}

/// What is left of a key.
struct Key<'a>(&'a [u8]);

impl<'a> Key<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn address(&mut self, family: Option<Family>) -> Option<IpAddr> {
        Some(match family? {
            Family::V4 => Ipv4Addr::from(array::<4>(self.take(4)?)?).into(),
            Family::V6 => Ipv6Addr::from(array::<16>(self.take(16)?)?).into(),
        })
    }

    fn interface(&mut self) -> Option<Interface> {
        Interface::parse(text(self.take(INTERFACE)?)?)
    }

    fn port(&mut self) -> Option<u16> {
        array(self.take(4)?).map(u16::from_be_bytes)
    }
}

fn ip4(bits: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(bits)
}

fn ip6(bits: u128) -> Ipv6Addr {
    Ipv6Addr::from_bits(bits)
}
