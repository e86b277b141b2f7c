//! Changes of the table that take effect together or not at all, in an order that the kernel accepts.

use std::collections::BTreeSet;

use super::table::{
    Chain, ChainName, CounterName, Element, Hook, Layer, Rule, Ruleset, Set, SetKind, SetName,
};

/// Changes of the table, done as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// What is done, in this order.
    pub changes: Vec<Change>,
    /// What is done after it to the table for the ports of bridges.
    pub bridge: Vec<Change>,
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
    /// Has this one done after it.
    pub fn append(&mut self, next: Self) {
        self.changes.extend(next.changes);
        self.bridge.extend(next.bridge);
    }

    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.bridge.is_empty()
    }

    /// Whether it may forbid what was allowed, done as a step of a plan, but for what is denied to the members of sets that chains
    /// ask: new ones are allowed more by all others. Chains that come or go do not, since nothing leads to them but elements of
    /// other sets.
    pub(super) fn is_stricter(&self) -> bool {
        self.changes.iter().any(|change| match change {
            Change::AddElements(_, kind, _) => !matches!(
                kind,
                SetKind::Addresses(_)
                    | SetKind::AddressPorts(_)
                    | SetKind::Blocks(_)
                    | SetKind::Ports
            ),
            Change::DeleteElements(..) | Change::AddTable | Change::DeleteTable => true,
            Change::AddCounter(_)
            | Change::DeleteCounter(_)
            | Change::AddSet(..)
            | Change::DeleteSet(_)
            | Change::AddChain(..)
            | Change::FlushChain(_)
            | Change::DeleteChain(_)
            | Change::AddRules(..) => false,
        })
    }

    /// Changes of the one table, and of no other.
    pub fn of(changes: Vec<Change>) -> Self {
        Self {
            changes,
            bridge: Vec::new(),
        }
    }

    /// Everything that is done, in its order, and to which table.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = (Layer, &Change)> {
        let bridge = self.bridge.iter().map(|change| (Layer::Bridge, change));
        let changes = self.changes.iter();
        changes.map(|change| (Layer::Inet, change)).chain(bridge)
    }

    /// Makes a table from nothing, in the place of whatever there was of that name. The table for bridges is let be where none goes
    /// with it.
    pub fn whole(ruleset: &Ruleset) -> Self {
        let bridge = ruleset.bridge.as_deref();
        Self {
            changes: from_nothing(ruleset),
            bridge: bridge.map(from_nothing).unwrap_or_default(),
        }
    }

    /// Takes the tables away, whether they are there or not.
    pub fn removal() -> Self {
        Self {
            changes: REMOVAL.to_vec(),
            bridge: REMOVAL.to_vec(),
        }
    }

    /// What makes one table of the other, and so for those of bridges that go with them.
    pub fn between(old: &Ruleset, new: &Ruleset) -> Self {
        let bridge = match (old.bridge.as_deref(), new.bridge.as_deref()) {
            (None, None) => Vec::new(),
            (Some(_), None) => REMOVAL.to_vec(),
            (None, Some(new)) => from_nothing(new),
            (Some(old), Some(new)) => from_other(old, new),
        };
        Self {
            changes: from_other(old, new),
            bridge,
        }
    }
}

/// Adding it first makes the deletion good whether it was there or not.
const REMOVAL: [Change; 2] = [Change::AddTable, Change::DeleteTable];

fn from_nothing(ruleset: &Ruleset) -> Vec<Change> {
    let mut changes = REMOVAL.to_vec();
    changes.push(Change::AddTable);
    changes.extend(from_other(&Ruleset::default(), ruleset));
    changes
}

/// First what is new, then what leads to it, then what is not needed any more.
///
/// A set of another kind or a chain at another hook cannot become what it is not, so then all is made from nothing.
fn from_other(old: &Ruleset, new: &Ruleset) -> Vec<Change> {
    if !old.can_become(new) {
        return from_nothing(new);
    }
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
    // Chains and sets may lead to each other in new ways, so all that changes or goes is emptied before anything is
    // filled or goes.
    for (name, chain) in &old.chains {
        let after = new.chains.get(name).map(|chain| &chain.rules);
        if !chain.rules.is_empty() && after != Some(&chain.rules) {
            changes.push(Change::FlushChain(name.clone()));
        }
    }
    let none = BTreeSet::new();
    for (name, set) in &new.sets {
        let before = old.sets.get(name).map_or(&none, |old| &old.elements);
        changes.extend(set.replacing(name, before));
    }
    for (name, chain) in &new.chains {
        let before = old.chains.get(name).map_or(&[][..], |chain| &chain.rules);
        if before != chain.rules && !chain.rules.is_empty() {
            changes.push(Change::AddRules(name.clone(), chain.rules.clone()));
        }
    }
    // Sets go before chains, since the elements of verdict maps lead to chains.
    let sets = old.sets.keys().filter(|name| !new.sets.contains_key(*name));
    changes.extend(sets.cloned().map(Change::DeleteSet));
    let chains = old.chains.keys();
    let chains = chains.filter(|name| !new.chains.contains_key(*name));
    changes.extend(chains.cloned().map(Change::DeleteChain));
    let counters = old.counters.difference(&new.counters).cloned();
    changes.extend(counters.map(Change::DeleteCounter));
    changes
}

impl Set {
    /// What makes its elements of others: those that go first, since a verdict map has each address once and ranges may not
    /// overlap for a moment. What goes by itself is not waited for, and may be gone already.
    fn replacing(&self, name: &SetName, before: &BTreeSet<Element>) -> Vec<Change> {
        let gone: Vec<Element> = match self.kind {
            SetKind::Tuples(..) => Vec::new(),
            _ => before.difference(&self.elements).cloned().collect(),
        };
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
    /// Whether what has the same name in both is of the same kind.
    fn can_become(&self, new: &Self) -> bool {
        let of_same_kind = |(name, set): (&SetName, &Set)| {
            let after = new.sets.get(name);
            after.is_none_or(|after| after.kind == set.kind)
        };
        let at_same_hook = |(name, chain): (&ChainName, &Chain)| {
            let after = new.chains.get(name);
            after.is_none_or(|after| after.hook == chain.hook)
        };
        self.sets.iter().all(of_same_kind) && self.chains.iter().all(at_same_hook)
    }

    /// The chain of a name, made if it is not there.
    pub fn chain_mut(&mut self, name: ChainName) -> &mut Chain {
        self.chains.entry(name).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netpol::Family;
    use crate::ruleset::{Verdict, render};

    fn with(sets: &[(&str, SetKind, &[Element])], chains: &[(&str, &[Rule])]) -> Ruleset {
        let mut made = Ruleset::default();
        for (name, kind, elements) in sets {
            let elements = elements.iter().cloned().collect();
            let set = Set {
                kind: *kind,
                elements,
            };
            made.sets.insert((*name).into(), set);
        }
        for (name, rules) in chains {
            made.chain_mut((*name).into()).rules = rules.to_vec();
        }
        made
    }

    fn pod(last: u8, chain: &str) -> Element {
        Element::Dispatch([10, 0, 0, last].into(), chain.into())
    }

    fn lines(old: &Ruleset, new: &Ruleset) -> Vec<String> {
        let text = render::transaction(&Transaction::between(old, new));
        text.lines()
            .map(|line| line.replace("inet ringfence ", ""))
            .collect()
    }

    const MAP: SetKind = SetKind::Dispatch(Family::V4);

    #[test]
    fn a_pod_that_comes_or_goes_is_its_elements() {
        let drop = [Rule::new(vec![], Verdict::Drop, "")];
        let chains: &[(&str, &[Rule])] = &[("a", &drop), ("b", &drop)];
        let old = with(&[("map", MAP, &[pod(1, "a"), pod(2, "a")])], chains);
        let new = with(&[("map", MAP, &[pod(1, "b"), pod(3, "a")])], chains);
        assert_eq!(
            lines(&old, &new),
            [
                "delete element map { 10.0.0.1 : jump a, 10.0.0.2 : jump a }",
                "add element map { 10.0.0.1 : jump b, 10.0.0.3 : jump a }",
            ]
        );
        assert!(Transaction::between(&old, &old).is_empty());
    }

    #[test]
    fn what_leads_to_something_goes_before_it() {
        let jump = [Rule::new(vec![], Verdict::Jump("b".into()), "")];
        let drop = [Rule::new(vec![], Verdict::Drop, "")];
        let old = with(
            &[("map", MAP, &[pod(1, "a")])],
            &[("a", &jump), ("b", &drop)],
        );
        assert_eq!(
            lines(&old, &Ruleset::default()),
            [
                "flush chain a",
                "flush chain b",
                "delete set map",
                "delete chain a",
                "delete chain b"
            ]
        );
        assert_eq!(
            lines(&Ruleset::default(), &old),
            [
                "create map map { type ipv4_addr : verdict; }",
                "create chain a",
                "create chain b",
                "add element map { 10.0.0.1 : jump a }",
                "add rule a jump b",
                "add rule b drop"
            ]
        );
    }

    #[test]
    fn a_policy_edit_is_its_own_chain() {
        let drop = [Rule::new(vec![], Verdict::Drop, "")];
        let pass = [Rule::new(vec![], Verdict::Return, "")];
        let old = with(&[], &[("a", &drop), ("b", &drop), ("c", &drop)]);
        let new = with(&[], &[("a", &drop), ("b", &pass), ("c", &[])]);
        assert_eq!(
            lines(&old, &new),
            ["flush chain b", "flush chain c", "add rule b return"]
        );
    }

    #[test]
    fn what_goes_by_itself_is_never_taken_out() {
        let kind = SetKind::Tuples(Family::V4, 5);
        let tuple = |port| {
            Element::Tuple(super::super::Tuple {
                source: ([10, 0, 0, 1].into(), port),
                destination: ([10, 0, 0, 2].into(), 80),
                protocol: crate::netpol::Protocol::Tcp,
            })
        };
        let old = with(&[("cut", kind, &[tuple(1)])], &[]);
        let new = with(&[("cut", kind, &[tuple(2)])], &[]);
        assert_eq!(
            lines(&old, &new),
            ["add element cut { 10.0.0.1 . 10.0.0.2 . tcp . 2 . 80 }"]
        );
        assert_eq!(lines(&old, &with(&[("cut", kind, &[])], &[])), [""; 0]);
    }

    #[test]
    fn another_kind_under_the_same_name_is_made_from_nothing() {
        let old = with(&[("a", SetKind::Ports, &[])], &[]);
        let new = with(&[("a", MAP, &[])], &[]);
        assert_eq!(Transaction::between(&old, &new), Transaction::whole(&new));
    }
}
