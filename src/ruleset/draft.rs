//! A transaction being made: changes in whatever order they are found, put into the one that the kernel accepts.

use std::collections::BTreeMap;

use super::table::{Element, SetKind, SetName};
use super::transaction::{Change, Transaction};

/// A transaction being made, its changes by the place that they have in it.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) new_sets: Vec<Change>,
    pub(super) new_chains: Vec<Change>,
    pub(super) rules: Vec<Change>,
    leaving: BTreeMap<SetName, (SetKind, Vec<Element>)>,
    coming: BTreeMap<SetName, (SetKind, Vec<Element>)>,
    pub(super) flushed: Vec<Change>,
    pub(super) old_chains: Vec<Change>,
    old_sets: Vec<Change>,
    is_ignored: bool,
}

// === impl Draft ===

impl Draft {
    /// One of which nobody asks what changes: the table is wanted as a whole.
    pub(super) fn ignored() -> Self {
        Self {
            is_ignored: true,
            ..Self::default()
        }
    }

    pub(super) fn come(
        &mut self,
        set: &SetName,
        kind: SetKind,
        elements: impl IntoIterator<Item = Element>,
    ) {
        if self.is_ignored {
            return;
        }
        let coming = self.coming.entry(set.clone());
        coming
            .or_insert_with(|| (kind, Vec::new()))
            .1
            .extend(elements);
    }

    pub(super) fn leave(&mut self, set: &SetName, kind: SetKind, element: Element) {
        let leaving = self.leaving.entry(set.clone());
        leaving
            .or_insert_with(|| (kind, Vec::new()))
            .1
            .push(element);
    }

    /// Whether chains or sets go.
    pub(super) fn takes_away(&self) -> bool {
        !(self.old_chains.is_empty() && self.old_sets.is_empty())
    }

    /// A set goes; what was to be done to it is not.
    pub(super) fn forget(&mut self, set: &SetName) {
        self.coming.remove(set);
        self.leaving.remove(set);
        self.old_sets.push(Change::DeleteSet(set.clone()));
    }

    /// First what is new, then what leads to it, then what is not needed any more. In a set, elements go before others come,
    /// because a verdict map has each address once.
    pub(super) fn finish(self) -> Transaction {
        let leaving = self.leaving.into_iter();
        let leaving =
            leaving.map(|(name, (kind, elements))| Change::DeleteElements(name, kind, elements));
        let coming = self
            .coming
            .into_iter()
            .filter(|(_, (_, it))| !it.is_empty());
        let coming =
            coming.map(|(name, (kind, elements))| Change::AddElements(name, kind, elements));
        let mut changes = self.new_sets;
        changes.extend(self.new_chains);
        changes.extend(leaving);
        changes.extend(coming);
        changes.extend(self.rules);
        changes.extend(self.flushed);
        changes.extend(self.old_chains);
        changes.extend(self.old_sets);
        // Both tables know what is behind an interface.
        let is_of_node = |change: &&Change| match change {
            Change::AddElements(_, kind, _) | Change::DeleteElements(_, kind, _) => {
                kind.is_of_node()
            }
            _ => false,
        };
        let bridge = changes.iter().filter(is_of_node).cloned().collect();
        Transaction { changes, bridge }
    }
}
