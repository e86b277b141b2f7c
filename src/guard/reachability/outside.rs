//! Addresses outside of the cluster, one of each kind: those of a rule's blocks that no policy in question tells apart.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{Side, Who};
use crate::netpol::groups::Holding;

/// One address of each kind, of those that the ends of a rule mean, for pods that are held by these.
pub(super) fn samples(ends: &[Who], holdings: &[&Holding]) -> Vec<IpAddr> {
    let mut samples = Vec::new();
    for end in ends {
        let Who::Outside { cidrs, except } = end else {
            continue;
        };
        // Where a kind begins: at the first address of a block, or right after the last one.
        let mut begins: Vec<IpAddr> = cidrs.iter().map(IpNet::network).collect();
        begins.extend(except.iter().filter_map(after));
        for (cidr, left_out) in holdings.iter().flat_map(|holding| holding.blocks()) {
            for block in [&cidr].into_iter().chain(left_out) {
                begins.push(block.network());
                begins.extend(after(block));
            }
        }
        let is_meant = |address: &IpAddr| is_in(*address, cidrs, except);
        samples.extend(begins.into_iter().filter(is_meant));
    }
    samples.sort_unstable();
    samples.dedup();
    samples
}

/// Whether one of the ends means an address.
pub(super) fn means(ends: &[Who], address: IpAddr) -> bool {
    ends.iter().any(|end| match end {
        Who::Outside { cidrs, except } => is_in(address, cidrs, except),
        Who::Pods { .. } => false,
    })
}

fn is_in(address: IpAddr, cidrs: &[IpNet], except: &[IpNet]) -> bool {
    let within = |blocks: &[IpNet]| blocks.iter().any(|block| block.contains(&address));
    within(cidrs) && !within(except)
}

/// Whether one of the ends is outside.
pub(super) fn has_outside(ends: &[Who]) -> bool {
    ends.iter().any(|end| matches!(end, Who::Outside { .. }))
}

/// The address after a block.
fn after(block: &IpNet) -> Option<IpAddr> {
    match block.broadcast() {
        IpAddr::V4(last) => {
            let next = last.to_bits().checked_add(1)?;
            Some(Ipv4Addr::from_bits(next).into())
        }
        IpAddr::V6(last) => {
            let next = last.to_bits().checked_add(1)?;
            Some(Ipv6Addr::from_bits(next).into())
        }
    }
}

/// The two ends of a flow, of which `own` is the one of a side.
pub(super) fn ordered<T>(side: Side, own: T, other: T) -> (T, T) {
    match side {
        Side::From => (own, other),
        Side::To => (other, own),
    }
}
