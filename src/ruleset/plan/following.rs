//! A set of peers, kept up with the cluster.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::netpol::{Family, Snapshot};
use crate::ruleset::draft::Draft;
use crate::ruleset::table::{Element, SetKind, SetName};
use crate::ruleset::terms::{Occupant, PeerKey, elements_of};

/// A set that follows the cluster.
#[derive(Clone, Debug)]
pub(super) struct Following {
    pub(super) key: PeerKey,
    family: Family,
    pub(super) kind: SetKind,
    pub(super) elements: BTreeSet<Element>,
    pub(super) users: usize,
}

// === impl Following ===

impl Following {
    pub(super) fn new(key: PeerKey, family: Family, snapshot: &Snapshot) -> Self {
        let kind = if key.named.is_some() {
            SetKind::AddressPorts(family)
        } else {
            SetKind::Addresses(family)
        };
        Self {
            elements: key.elements(family, snapshot),
            key,
            family,
            kind,
            users: 0,
        }
    }

    /// Looks again at some addresses, and who is at each.
    pub(super) fn follow(
        &mut self,
        name: &SetName,
        occupied: &[(IpAddr, Occupant<'_>)],
        draft: &mut Draft,
    ) {
        let own = |(address, _): &&(IpAddr, _)| Family::of(*address) == self.family;
        for (address, occupant) in occupied.iter().filter(own) {
            let new = self.key.elements_at(*address, occupant);
            let old: BTreeSet<Element> = elements_of(&self.elements, *address).cloned().collect();
            for gone in old.difference(&new) {
                self.elements.remove(gone);
                draft.leave(name, self.kind, gone.clone());
            }
            for come in new.difference(&old) {
                self.elements.insert(come.clone());
                draft.come(name, self.kind, [come.clone()]);
            }
        }
    }
}
