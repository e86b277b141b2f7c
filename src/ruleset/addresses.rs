//! Sets of addresses of one family, as sorted ranges that neither overlap nor touch: what the kernel accepts as intervals.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::table::Element;
use crate::netpol::net::{Family, ends, number};
use crate::netpol::spans::{self, Span};

/// Some addresses of each family.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Addresses {
    v4: Vec<Span<u128>>,
    v6: Vec<Span<u128>>,
}

impl Addresses {
    /// The addresses of a block that are in none of the smaller ones.
    pub(super) fn of(cidr: &IpNet, except: &[IpNet]) -> Self {
        let without: Vec<Span<u128>> = except.iter().map(ends).collect();
        let rest = spans::less(&[ends(cidr)], &spans::joined(without));
        match Family::of_block(cidr) {
            Family::V4 => Self {
                v4: rest,
                v6: Vec::new(),
            },
            Family::V6 => Self {
                v4: Vec::new(),
                v6: rest,
            },
        }
    }

    /// Whether there are none of a family.
    pub(super) fn is_empty(&self, family: Family) -> bool {
        self.of_family(family).is_empty()
    }

    /// Whether all of a family are among them.
    pub(super) fn is_everything(&self, family: Family) -> bool {
        self.of_family(family) == [(0, family.last())]
    }

    /// Whether an address is among them.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        spans::contains(self.of_family(Family::of(address)), number(address))
    }

    /// The elements of a set that holds those of a family.
    pub(super) fn elements(&self, family: Family) -> impl Iterator<Item = Element> {
        let ranges = self.of_family(family).iter();
        ranges.map(move |(first, last)| {
            Element::Block(address(family, *first), address(family, *last))
        })
    }

    fn of_family(&self, family: Family) -> &[Span<u128>] {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

/// All that are in one of them.
impl FromIterator<Addresses> for Addresses {
    fn from_iter<I: IntoIterator<Item = Addresses>>(parts: I) -> Self {
        let mut all = Self::default();
        for part in parts {
            all.v4.extend(part.v4);
            all.v6.extend(part.v6);
        }
        Self {
            v4: spans::joined(all.v4),
            v6: spans::joined(all.v6),
        }
    }
}

fn address(family: Family, number: u128) -> IpAddr {
    match family {
        // Numbers of this family have no more bits.
        Family::V4 => Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        Family::V6 => Ipv6Addr::from_bits(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(text: &str) -> IpNet {
        text.parse().expect("a block")
    }

    #[test]
    fn blocks_lose_what_is_excepted_and_join_where_they_touch() {
        let some = [
            Addresses::of(
                &block("10.0.0.0/24"),
                &[block("10.0.0.0/25"), block("10.0.0.192/26")],
            ),
            Addresses::of(&block("10.0.0.192/26"), &[]),
            Addresses::of(&block("::/0"), &[]),
        ];
        let some: Addresses = some.into_iter().collect();
        let range = |first: &str, last: &str| {
            Element::Block(first.parse().expect("first"), last.parse().expect("last"))
        };
        let v4: Vec<Element> = some.elements(Family::V4).collect();
        assert_eq!(v4, [range("10.0.0.128", "10.0.0.255")]);
        assert!(some.is_everything(Family::V6) && !some.is_everything(Family::V4));
        assert!(some.contains("10.0.0.200".parse().expect("an address")));
        assert!(!some.contains("10.0.0.1".parse().expect("an address")));
    }

    #[test]
    fn the_last_addresses_are_in_range() {
        let all = Addresses::of(&block("0.0.0.0/0"), &[block("255.255.255.255/32")]);
        let last: Vec<Element> = all.elements(Family::V4).collect();
        let range = Element::Block(
            "0.0.0.0".parse().expect("first"),
            "255.255.255.254".parse().expect("last"),
        );
        assert_eq!(last, [range]);
    }
}
