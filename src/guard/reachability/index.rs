//! The rules in force, with the pods of the cluster in groups and the groups that each rule means.
//!
//! Made once for a state that is published. A judgement then asks only for the groups at the other end of a change.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::{ReachabilityRule, Side};
use crate::guard::mode::Mode;
use crate::netpol::groups::Group;
use crate::netpol::reach::bits::BitSet;
use crate::netpol::{Labels, NamespaceName, Snapshot};

/// The rules in force, and the cluster that they are asked about.
#[derive(Clone, Debug, Default)]
pub struct ReachabilityRules {
    rules: Arc<[ReachabilityRule]>,
    snapshot: Snapshot,
    index: Arc<OnceLock<Index>>,
}

/// The pods of a cluster in groups.
#[derive(Debug)]
pub(super) struct Index {
    /// Those of one namespace follow each other.
    pub(super) groups: Vec<Group>,
    of_namespace: BTreeMap<NamespaceName, Range<usize>>,
    /// Of each rule the groups that it means at each side.
    meant: Vec<[BitSet; 2]>,
}

impl ReachabilityRules {
    /// Rules in force in a cluster, in the order of their names.
    pub fn new(mut rules: Vec<ReachabilityRule>, snapshot: &Snapshot) -> Self {
        rules.sort_by(|a, b| a.name.cmp(&b.name));
        let made = Self {
            rules: rules.into(),
            snapshot: snapshot.clone(),
            index: Arc::default(),
        };
        if !made.rules.is_empty() {
            made.index();
        }
        made
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, ReachabilityRule> {
        self.rules.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The pods of the cluster in groups.
    pub fn groups(&self) -> &[Group] {
        &self.index().groups
    }

    /// The strictest mode of those that speak of a namespace with these labels.
    pub fn strictest(&self, namespace: &Labels) -> Option<Mode> {
        let concerned = self.iter().filter(|rule| rule.concerns(namespace));
        concerned.map(|rule| rule.spec.mode).max()
    }

    pub(super) fn index(&self) -> &Index {
        self.index
            .get_or_init(|| Index::of(&self.rules, &self.snapshot))
    }
}

impl<'a> IntoIterator for &'a ReachabilityRules {
    type Item = &'a ReachabilityRule;
    type IntoIter = std::slice::Iter<'a, ReachabilityRule>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Index {
    fn of(rules: &[ReachabilityRule], snapshot: &Snapshot) -> Self {
        let mut groups = Vec::new();
        let mut of_namespace = BTreeMap::new();
        for state in snapshot.namespaces() {
            let first = groups.len();
            groups.extend(Group::of_namespace(state, snapshot));
            of_namespace.insert(state.name().clone(), first..groups.len());
        }
        let meant = |rule: &ReachabilityRule, side| {
            let meant = groups.iter().enumerate();
            let meant = meant.filter(|(_, group)| rule.means(side, group));
            BitSet::of(groups.len(), meant.map(|(number, _)| number))
        };
        let meant = rules
            .iter()
            .map(|rule| Side::BOTH.map(|side| meant(rule, side)))
            .collect();
        Self {
            groups,
            of_namespace,
            meant,
        }
    }

    /// The groups that a rule means at a side; a rule is meant by its position.
    pub(super) fn meant(&self, rule: usize, side: Side) -> Option<&BitSet> {
        let [from, to] = self.meant.get(rule)?;
        Some(match side {
            Side::From => from,
            Side::To => to,
        })
    }

    /// The positions of the groups of a namespace.
    pub(super) fn of_namespace(&self, name: &NamespaceName) -> Range<usize> {
        self.of_namespace.get(name).cloned().unwrap_or_default()
    }
}
