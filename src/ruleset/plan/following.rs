//! A set of peers, kept up with the cluster.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::netpol::{Family, Snapshot};
use crate::ruleset::draft::Draft;
use crate::ruleset::members;
use crate::ruleset::table::{Element, SetKind, SetName};
use crate::ruleset::terms::{Occupant, PeerKey};

/// Who was at an address, and who is there now.
pub(super) struct Occupied<'s> {
    pub(super) address: IpAddr,
    pub(super) before: Occupant<'s>,
    pub(super) after: Occupant<'s>,
}

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
    /// Sets of one family each, that nothing asks yet.
    pub(super) fn all(sets: Vec<(PeerKey, Family)>, snapshot: &Snapshot) -> Vec<Self> {
        let keys: Vec<_> = sets.iter().map(|(key, family)| (key, *family)).collect();
        let elements = members::elements(&keys, snapshot);
        let made = sets.into_iter().zip(elements);
        made.map(|((key, family), elements)| Self::new(key, family, elements))
            .collect()
    }

    pub(super) fn new(key: PeerKey, family: Family, elements: BTreeSet<Element>) -> Self {
        let kind = if key.named.is_some() {
            SetKind::AddressPorts(family)
        } else {
            SetKind::Addresses(family)
        };
        Self {
            key,
            family,
            kind,
            elements,
            users: 0,
        }
    }

    /// Goes on to who is at some addresses now. Most are in few sets: whether they were is asked of who was there, since to find
    /// nothing in a large set takes longer.
    pub(super) fn follow(&mut self, name: &SetName, occupied: &[Occupied<'_>], draft: &mut Draft) {
        for one in occupied {
            if Family::of(one.address) != self.family {
                continue;
            }
            let at = |occupant| self.key.elements_at(one.address, occupant);
            let (old, new) = (at(&one.before), at(&one.after));
            for gone in old.difference(&new) {
                if self.elements.remove(gone) {
                    draft.leave(name, self.kind, gone.clone());
                }
            }
            for come in new.difference(&old) {
                if self.elements.insert(come.clone()) {
                    draft.come(name, self.kind, [come.clone()]);
                }
            }
        }
    }
}
