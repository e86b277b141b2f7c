//! A changed Node held against the rules in force: by its labels and addresses it is a `nodes` peer of cluster network
//! policies, so that flows between its addresses and the pods that those rule may open or close. Nothing else can be
//! altered: pods on its network have no other addresses.

use std::net::IpAddr;

use super::outside::{has_outside, means};
use super::search::{Broken, Search};
use super::{ReachabilityRules, Side};
use crate::netpol::reach::bits::BitSet;
use crate::netpol::{Node, NodeName, Snapshot};

/// The rules that a change of the Node of a name breaks. Who leaves reaches nobody any more.
pub(super) fn breaks<'r>(
    name: &NodeName,
    before: &Snapshot,
    after: &Snapshot,
    rules: &'r ReachabilityRules,
    pods: usize,
) -> Broken<'r> {
    let (old, Some(new)) = (before.node(name), after.node(name)) else {
        return Broken::default();
    };
    let is_same = |old: &Node| old.labels == new.labels && old.addresses == new.addresses;
    if old.is_some_and(is_same) {
        return Broken::default();
    }
    let mut addresses: Vec<IpAddr> = old
        .into_iter()
        .chain([new])
        .flat_map(|node| node.addresses.clone())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    // At each side, the rules whose other end means one of its addresses.
    let asked = Side::BOTH.map(|side| {
        let numbered = rules.iter().enumerate();
        let asked = numbered.filter(|(_, rule)| {
            let ends = rule.end(side.other());
            has_outside(ends) && addresses.iter().any(|address| means(ends, *address))
        });
        (
            side,
            BitSet::of(rules.iter().len(), asked.map(|(number, _)| number)),
        )
    });
    let mut search = Search::new(rules, pods);
    for member in rules.index().members() {
        for (side, asked) in &asked {
            let asked = asked.and(member.meant(*side)).and(search.open());
            if asked.is_empty() || !member.group.holding(side.direction()).asks_nodes() {
                continue;
            }
            if let Err(met) = search.spend() {
                return search.broken(Some(met));
            }
            let (then, now) = (member.group.under(before), member.group.under(after));
            if let Some(now) = &now {
                search.addresses(&asked, *side, (then.as_ref(), now), &addresses);
            }
        }
    }
    search.broken(None)
}
