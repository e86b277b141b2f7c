//! Changes of the table that take effect together or not at all, in an order that the kernel accepts.

use std::collections::BTreeSet;

use super::table::{
    Chain, ChainName, CounterName, Element, Hook, Rule, Ruleset, Set, SetKind, SetName,
};

/// Changes of the table, done as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// What is done, in this order.
    pub changes: Vec<Change>,
}

/// One change of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Makes the table, unless it is there.
    AddTable,
    /// Takes the table away with all that is in it. It must be there.
    DeleteTable,
    /// Makes a counter.
    AddCounter(CounterName),
    /// Takes a counter away that nothing counts with.
    DeleteCounter(CounterName),
    /// Makes an empty set.
    AddSet(SetName, SetKind),
    /// Takes a set away that nothing asks.
    DeleteSet(SetName),
    /// Makes an empty chain.
    AddChain(ChainName, Option<Hook>),
    /// Takes the rules of a chain away.
    FlushChain(ChainName),
    /// Takes an empty chain away that nothing leads to.
    DeleteChain(ChainName),
    /// Adds rules to the end of a chain.
    AddRules(ChainName, Vec<Rule>),
    /// Adds elements to a set.
    AddElements(SetName, SetKind, Vec<Element>),
    /// Takes elements out of a set. They must be there.
    DeleteElements(SetName, SetKind, Vec<Element>),
}

impl Transaction {
    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Makes a table from nothing, in the place of whatever there was of that name.
    pub fn whole(ruleset: &Ruleset) -> Self {
        // Adding it first makes the deletion good whether it was there or not.
        let mut changes = vec![Change::AddTable, Change::DeleteTable, Change::AddTable];
        changes.extend(Self::between(&Ruleset::default(), ruleset).changes);
        Self { changes }
    }

    /// Takes the table away, whether it is there or not.
    pub fn removal() -> Self {
        Self {
            changes: vec![Change::AddTable, Change::DeleteTable],
        }
    }

    /// What makes one table of the other: first what is new, then what leads to it, then what is not needed any more.
    pub fn between(old: &Ruleset, new: &Ruleset) -> Self {
        let mut changes = Vec::new();
        let counters = new.counters.difference(&old.counters).cloned();
        changes.extend(counters.map(Change::AddCounter));
        for (name, set) in &new.sets {
            if !old.sets.contains_key(name) {
                changes.push(Change::AddSet(name.clone(), set.kind));
            }
        }
        for (name, chain) in &new.chains {
            if !old.chains.contains_key(name) {
                changes.push(Change::AddChain(name.clone(), chain.hook));
            }
        }
        let none = BTreeSet::new();
        for (name, set) in &new.sets {
            let before = old.sets.get(name).map_or(&none, |old| &old.elements);
            changes.extend(set.replacing(name, before));
        }
        for (name, chain) in &new.chains {
            let before = old.chains.get(name).map_or(&[][..], |chain| &chain.rules);
            if before != chain.rules {
                if !before.is_empty() {
                    changes.push(Change::FlushChain(name.clone()));
                }
                if !chain.rules.is_empty() {
                    changes.push(Change::AddRules(name.clone(), chain.rules.clone()));
                }
            }
        }
        let gone = |chain: &ChainName| !new.chains.contains_key(chain);
        let chains = || old.chains.keys().filter(|name| gone(name)).cloned();
        // Chains may lead to each other, so all are emptied before the first one goes.
        changes.extend(chains().map(Change::FlushChain));
        changes.extend(chains().map(Change::DeleteChain));
        let sets = old.sets.keys().filter(|name| !new.sets.contains_key(*name));
        changes.extend(sets.cloned().map(Change::DeleteSet));
        let counters = old.counters.difference(&new.counters).cloned();
        changes.extend(counters.map(Change::DeleteCounter));
        Self { changes }
    }
}

impl Set {
    /// What makes its elements of others: those that go first, since a verdict map has each address once and ranges may not
    /// overlap for a moment.
    fn replacing(&self, name: &SetName, before: &BTreeSet<Element>) -> Vec<Change> {
        let gone: Vec<Element> = before.difference(&self.elements).cloned().collect();
        let new: Vec<Element> = self.elements.difference(before).cloned().collect();
        let mut changes = Vec::new();
        if !gone.is_empty() {
            changes.push(Change::DeleteElements(name.clone(), self.kind, gone));
        }
        if !new.is_empty() {
            changes.push(Change::AddElements(name.clone(), self.kind, new));
        }
        changes
    }
}

impl Ruleset {
    /// The chain of a name, made if it is not there.
    pub fn chain_mut(&mut self, name: ChainName) -> &mut Chain {
        self.chains.entry(name).or_default()
    }
}
