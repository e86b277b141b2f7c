//! The ends of a flow with the addresses that they have in it; a flow is tried over each pair of one family.

use std::net::IpAddr;

use crate::netpol::coverage::Direction;
use crate::netpol::flow::{Endpoint, Flow};
use crate::netpol::net::Family;
use crate::netpol::pod::Pod;

/// The address of one end as far as it is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Address {
    pub(super) family: Family,
    pub(super) known: Option<IpAddr>,
}

/// One end of a flow and the address that it has in this flow.
#[derive(Clone, Copy, Debug)]
pub(in crate::netpol) struct End<'a> {
    pub(super) endpoint: Endpoint<'a>,
    pub(super) address: Address,
}

/// Both ends of a flow over a pair of addresses.
pub(super) fn ends<'a>(
    flow: &Flow<'a>,
    source: Address,
    destination: Address,
) -> (End<'a>, End<'a>) {
    let end = |endpoint, address| End { endpoint, address };
    (end(flow.from, source), end(flow.to, destination))
}

impl<'a> End<'a> {
    /// A pod at an address, or at an unknown one of a family.
    pub(in crate::netpol) fn of_pod(pod: &'a Pod, family: Family, known: Option<IpAddr>) -> Self {
        Self {
            endpoint: Endpoint::Pod(pod),
            address: Address { family, known },
        }
    }

    /// The end that rules of a direction call the peer, in a flow over one family of addresses.
    pub(in crate::netpol) fn other(flow: &Flow<'a>, direction: Direction) -> Option<Self> {
        let (source, destination) = address_pairs(flow).into_iter().next()?;
        let (from, to) = ends(flow, source, destination);
        Some(match direction {
            Direction::Ingress => from,
            Direction::Egress => to,
        })
    }
}

/// The pairs of addresses that a flow can be over, those of the destination's first address first.
pub(super) fn address_pairs(flow: &Flow<'_>) -> Vec<(Address, Address)> {
    let (sources, destinations) = (flow.from.addresses(), flow.to.addresses());
    let mut families: Vec<Family> = Vec::new();
    let known = destinations
        .iter()
        .chain(&sources)
        .map(|address| Family::of(*address));
    for family in known.chain(Family::BOTH) {
        if !families.contains(&family) && flow.family.is_none_or(|asked| asked == family) {
            families.push(family);
        }
    }
    let mut pairs = Vec::new();
    for family in families {
        for destination in Address::of(&destinations, family) {
            pairs.extend(
                Address::of(&sources, family)
                    .into_iter()
                    .map(|source| (source, destination)),
            );
        }
    }
    pairs
}

impl Address {
    /// The addresses of one family, or the unknown one of an end of which no address is known at all.
    fn of(addresses: &[IpAddr], family: Family) -> Vec<Address> {
        if addresses.is_empty() {
            return vec![Address {
                family,
                known: None,
            }];
        }
        let of_family = addresses
            .iter()
            .filter(|address| Family::of(**address) == family);
        of_family
            .map(|address| Address {
                family,
                known: Some(*address),
            })
            .collect()
    }
}
