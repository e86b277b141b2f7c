//! The address space, cut by the blocks in use: addresses that are in the same blocks are alike.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

use super::bits::BitSet;
use crate::netpol::net::{Family, ends, number};
use crate::netpol::spans::{self, Span};

/// A block as a policy means it: without what is excepted from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Block<'s> {
    pub(super) cidr: IpNet,
    pub(super) except: &'s [IpNet],
}

/// Addresses that no block tells apart.
#[derive(Clone, Debug)]
pub(super) struct Region {
    pub(super) family: Family,
    /// The blocks that they are in.
    pub(super) blocks: BitSet,
    /// The addresses as numbers; none where only addresses that are not known are meant.
    pub(super) spans: Vec<Span<u128>>,
}

/// Both families of addresses, cut into regions.
#[derive(Clone, Debug)]
pub(super) struct Space {
    regions: Vec<Region>,
    /// Where each piece of a family's addresses begins, and the region that it belongs to; sorted.
    pieces: [Vec<(u128, usize)>; 2],
    /// The region of an address of which only the family is known.
    unknown: [usize; 2],
}

impl Space {
    /// The space as these blocks cut it.
    pub(super) fn cut(blocks: &[Block<'_>]) -> Self {
        let mut space = Self {
            regions: Vec::new(),
            pieces: [Vec::new(), Vec::new()],
            unknown: [0; 2],
        };
        let mut known: HashMap<(Family, BitSet), usize> = HashMap::new();
        for family in Family::BOTH {
            let pieces = pieces(family, blocks);
            let last_of_family = family.last();
            let ends = pieces
                .iter()
                .skip(1)
                .map(|(start, _)| start.saturating_sub(1))
                .chain([last_of_family]);
            for ((start, members), end) in pieces.iter().zip(ends) {
                let region = space.region(family, members, &mut known);
                if let Some(region) = space.regions.get_mut(region) {
                    region.spans.push((*start, end));
                }
                family.pick_mut(&mut space.pieces).push((*start, region));
            }
            // An address that is not known is in a block only where every address is.
            let everywhere = blocks.iter().enumerate().filter(|(_, block)| {
                Family::of_block(&block.cidr) == family
                    && block.cidr.prefix_len() == 0
                    && block.except.is_empty()
            });
            let members = BitSet::of(blocks.len(), everywhere.map(|(index, _)| index));
            *family.pick_mut(&mut space.unknown) = space.region(family, &members, &mut known);
        }
        for region in &mut space.regions {
            region.spans = spans::joined(std::mem::take(&mut region.spans));
        }
        space
    }

    /// All regions; a region is meant by its position here.
    pub(super) fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// The region of an address.
    pub(super) fn of(&self, address: IpAddr) -> usize {
        let address = address.to_canonical();
        let pieces = Family::of(address).pick(&self.pieces);
        let number = number(address);
        let after = pieces.partition_point(|(start, _)| *start <= number);
        after
            .checked_sub(1)
            .and_then(|at| pieces.get(at))
            .map_or(0, |(_, region)| *region)
    }

    /// The region of an address of which only the family is known.
    pub(super) fn unknown(&self, family: Family) -> usize {
        *family.pick(&self.unknown)
    }

    fn region(
        &mut self,
        family: Family,
        blocks: &BitSet,
        known: &mut HashMap<(Family, BitSet), usize>,
    ) -> usize {
        *known.entry((family, blocks.clone())).or_insert_with(|| {
            self.regions.push(Region {
                family,
                blocks: blocks.clone(),
                spans: Vec::new(),
            });
            self.regions.len().saturating_sub(1)
        })
    }
}

/// The pieces of a family's addresses between all ends of blocks, and the blocks that each is in.
fn pieces(family: Family, blocks: &[Block<'_>]) -> Vec<(u128, BitSet)> {
    let own = || {
        let of_family = |(_, block): &(usize, &Block<'_>)| Family::of_block(&block.cidr) == family;
        blocks.iter().enumerate().filter(of_family)
    };
    let mut starts = vec![0];
    for (_, block) in own() {
        for net in [&block.cidr].into_iter().chain(block.except) {
            let (first, last) = ends(net);
            starts.push(first);
            starts.extend(last.checked_add(1));
        }
    }
    let last = family.last();
    starts.retain(|start| *start <= last);
    starts.sort_unstable();
    starts.dedup();
    let mut pieces: Vec<(u128, BitSet)> = starts
        .into_iter()
        .map(|start| (start, BitSet::below(blocks.len())))
        .collect();
    for (index, block) in own() {
        let (first, last) = ends(&block.cidr);
        let from = pieces.partition_point(|(start, _)| *start < first);
        let within = pieces.iter_mut().skip(from);
        for (start, members) in within.take_while(|(start, _)| *start <= last) {
            let excepted = block.except.iter().map(ends);
            if !excepted
                .into_iter()
                .any(|(first, last)| (first..=last).contains(start))
            {
                members.insert(index);
            }
        }
    }
    pieces
}

/// The fewest blocks that hold just these addresses.
pub(super) fn cidrs(family: Family, spans: &[Span<u128>]) -> Vec<IpNet> {
    let mut cidrs = Vec::new();
    for (first, last) in spans {
        match family {
            Family::V4 => {
                let address =
                    |number: &u128| Ipv4Addr::from_bits(u32::try_from(*number).unwrap_or(u32::MAX));
                let subnets = Ipv4Subnets::new(address(first), address(last), 0);
                cidrs.extend(subnets.map(IpNet::V4));
            }
            Family::V6 => {
                let address = |number: &u128| Ipv6Addr::from_bits(*number);
                let subnets = Ipv6Subnets::new(address(first), address(last), 0);
                cidrs.extend(subnets.map(IpNet::V6));
            }
        }
    }
    cidrs
}

impl Family {
    /// What is kept of this family, where there is something of both.
    pub(super) fn pick<T>(self, [v4, v6]: &[T; 2]) -> &T {
        match self {
            Self::V4 => v4,
            Self::V6 => v6,
        }
    }

    fn pick_mut<T>(self, [v4, v6]: &mut [T; 2]) -> &mut T {
        match self {
            Self::V4 => v4,
            Self::V6 => v6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a block")
    }

    #[test]
    fn addresses_are_alike_where_they_are_in_the_same_blocks() {
        let (wide, all6) = (net("10.0.0.0/8"), net("::/0"));
        let except = [net("10.1.0.0/16")];
        let blocks = [
            Block {
                cidr: wide,
                except: &except,
            },
            Block {
                cidr: all6,
                except: &[],
            },
        ];
        let space = Space::cut(&blocks);
        let of = |address: &str| space.of(address.parse().expect("an address"));
        assert_eq!(of("10.0.0.1"), of("10.255.0.1"));
        assert_eq!(of("10.1.0.1"), of("192.0.2.1"));
        assert_ne!(of("10.0.0.1"), of("10.1.0.1"));
        assert_eq!(of("::1"), space.unknown(Family::V6));
        assert_eq!(of("192.0.2.1"), space.unknown(Family::V4));
        let region = &space.regions()[of("10.1.0.1")];
        let outside = cidrs(Family::V4, &region.spans);
        assert!(outside.contains(&net("10.1.0.0/16")) && outside.contains(&net("128.0.0.0/1")));
        let region = &space.regions()[of("10.0.0.1")];
        assert_eq!(cidrs(Family::V4, &region.spans).len(), 8);
    }

    #[test]
    fn a_whole_family_is_one_block() {
        let space = Space::cut(&[]);
        let all: Vec<_> = space
            .regions()
            .iter()
            .flat_map(|region| cidrs(region.family, &region.spans))
            .collect();
        assert_eq!(all, [net("0.0.0.0/0"), net("::/0")]);
    }
}
