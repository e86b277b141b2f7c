//! The rules in force, with the pods of the cluster in groups, the rules that mean each of these, and the doors of each.
//!
//! Made once for a state that is published, and carried on from one to the next namespace by namespace. A judgement
//! then asks only for the groups at the other end of a change at which it may make a difference.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};

use super::{ReachabilityRule, Side};
use crate::guard::mode::Mode;
use crate::netpol::groups::{Door, Group};
use crate::netpol::object::ObjectKey;
use crate::netpol::reach::bits::BitSet;
use crate::netpol::{Direction, Labels, NamespaceName, PortSet, Snapshot};

/// The rules in force, and the cluster that they are asked about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReachabilityRules {
    rules: Arc<[ReachabilityRule]>,
    snapshot: Snapshot,
    index: Arc<OnceLock<Index>>,
    /// The same in the cluster without the policies on trial, where one of these is in force for some pods.
    lasting: Option<Arc<Self>>,
}

/// The pods of a cluster in groups, by namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Index {
    parts: RedBlackTreeMapSync<NamespaceName, Arc<Part>>,
    /// Of the doors in each direction, the namespaces that have them.
    ingress: Doors,
    egress: Doors,
}

/// Which namespaces have which doors; a door that none has is not kept.
type Doors = RedBlackTreeMapSync<Door, RedBlackTreeSetSync<NamespaceName>>;

/// What is in one namespace.
#[derive(Debug, PartialEq)]
pub(super) struct Part {
    pub(super) members: Vec<Member>,
}

/// A group, and the rules that mean it.
#[derive(Debug, PartialEq)]
pub(super) struct Member {
    pub(super) group: Group,
    from: BitSet,
    to: BitSet,
}

// === impl ReachabilityRules ===

impl ReachabilityRules {
    /// Rules in force in a cluster, in the order of their names.
    pub fn new(mut rules: Vec<ReachabilityRule>, snapshot: &Snapshot) -> Self {
        rules.sort_by(|a, b| a.name.cmp(&b.name));
        Self::made_of(rules.into(), snapshot)
    }

    /// The same rules in the cluster as it is after these objects have come, changed or gone. It costs what they cost, but
    /// for what concerns the whole cluster.
    #[must_use]
    pub fn following(&self, snapshot: &Snapshot, changed: &[ObjectKey]) -> Self {
        let names: Option<BTreeSet<&NamespaceName>> =
            changed.iter().map(ObjectKey::namespace).collect();
        let (Some(names), Some(index)) = (names, self.index.get()) else {
            return Self::made_of(Arc::clone(&self.rules), snapshot);
        };
        let mut index = index.clone();
        for name in names {
            index.read(name, &self.rules, snapshot);
        }
        let lasting = snapshot.is_passing().then(|| {
            // Where all was lasting until now, this is what was there without it.
            let before = self.lasting.as_deref().unwrap_or(self);
            Arc::new(before.following(&snapshot.lasting(), changed))
        });
        Self {
            rules: Arc::clone(&self.rules),
            snapshot: snapshot.clone(),
            index: Arc::new(OnceLock::from(index)),
            lasting,
        }
    }

    /// The same in the cluster without the policies that may be gone at any moment: what these close is not counted upon. `None`
    /// where there are none.
    pub(super) fn lasting(&self) -> Option<&Self> {
        self.lasting.as_deref()
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
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.index().members().map(|member| &member.group)
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

    fn made_of(rules: Arc<[ReachabilityRule]>, snapshot: &Snapshot) -> Self {
        let lasting = (!rules.is_empty() && snapshot.is_passing())
            .then(|| Arc::new(Self::made_of(Arc::clone(&rules), &snapshot.lasting())));
        let made = Self {
            rules,
            snapshot: snapshot.clone(),
            index: Arc::default(),
            lasting,
        };
        if !made.rules.is_empty() {
            made.index();
        }
        made
    }
}

impl<'a> IntoIterator for &'a ReachabilityRules {
    type Item = &'a ReachabilityRule;
    type IntoIter = std::slice::Iter<'a, ReachabilityRule>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

// === impl Index ===

impl Index {
    fn of(rules: &[ReachabilityRule], snapshot: &Snapshot) -> Self {
        let mut index = Self::default();
        for state in snapshot.namespaces() {
            index.read(state.name(), rules, snapshot);
        }
        index
    }

    /// All groups, by namespace.
    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.parts.values().flat_map(|part| &part.members)
    }

    /// What is in each namespace, by name.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&NamespaceName, &Part)> {
        self.parts.iter().map(|(name, part)| (name, &**part))
    }

    /// The namespaces with pods that may let those of a group pass at one of these ports, by name; `direction` is that of
    /// the other pods. Others than its own are meant.
    pub(super) fn open_to(
        &self,
        group: &Group,
        direction: Direction,
        ports: &PortSet,
    ) -> BTreeSet<&NamespaceName> {
        let mut names = BTreeSet::new();
        if ports.is_empty() {
            return names;
        }
        for (door, of) in self.doors(direction) {
            let is_open = || {
                let at = door.ports_for(group, direction);
                door.is_for(group) && !at.and(ports).is_empty()
            };
            if is_open() {
                names.extend(of.iter());
            }
        }
        names
    }

    /// What is in a namespace; none of which nothing is known.
    pub(super) fn part(&self, name: &NamespaceName) -> Option<&Part> {
        self.parts.get(name).map(|part| &**part)
    }

    /// Takes in a namespace as it is now.
    fn read(&mut self, name: &NamespaceName, rules: &[ReachabilityRule], snapshot: &Snapshot) {
        let state = snapshot.namespace(name);
        let groups = state.map(|state| Group::of_namespace(state, snapshot));
        let members: Vec<Member> = groups
            .into_iter()
            .flatten()
            .map(|group| Member::of(group, rules))
            .collect();
        let new = (!members.is_empty()).then(|| Part { members });
        let old = self.parts.get(name).cloned();
        for direction in [Direction::Ingress, Direction::Egress] {
            let of =
                |part: Option<&Part>| part.map_or_else(BTreeSet::new, |part| part.doors(direction));
            let (before, after) = (of(old.as_deref()), of(new.as_ref()));
            let doors = match direction {
                Direction::Ingress => &mut self.ingress,
                Direction::Egress => &mut self.egress,
            };
            for gone in before.difference(&after) {
                if let Some(names) = doors.get_mut(gone) {
                    names.remove_mut(name);
                    if names.is_empty() {
                        doors.remove_mut(gone);
                    }
                }
            }
            for door in after.difference(&before) {
                if let Some(names) = doors.get_mut(door) {
                    names.insert_mut(name.clone());
                } else {
                    let names = [name.clone()].into_iter().collect();
                    doors.insert_mut(door.clone(), names);
                }
            }
        }
        match new {
            Some(part) => self.parts.insert_mut(name.clone(), Arc::new(part)),
            None => {
                self.parts.remove_mut(name);
            }
        }
    }

    fn doors(
        &self,
        direction: Direction,
    ) -> impl Iterator<Item = (&Door, &RedBlackTreeSetSync<NamespaceName>)> {
        match direction {
            Direction::Ingress => self.ingress.iter(),
            Direction::Egress => self.egress.iter(),
        }
    }
}

// === impl Part ===

impl Part {
    fn doors(&self, direction: Direction) -> BTreeSet<Door> {
        let members = self.members.iter();
        members
            .flat_map(|member| member.group.doors(direction))
            .collect()
    }
}

// === impl Member ===

impl Member {
    fn of(group: Group, rules: &[ReachabilityRule]) -> Self {
        let [from, to] = Side::BOTH.map(|side| meaning(&group, side, rules));
        Self { group, from, to }
    }

    /// The rules that mean it at a side, by their positions.
    pub(super) fn meant(&self, side: Side) -> &BitSet {
        match side {
            Side::From => &self.from,
            Side::To => &self.to,
        }
    }
}

/// The rules that mean a group at a side, by their positions.
pub(super) fn meaning(group: &Group, side: Side, rules: &[ReachabilityRule]) -> BitSet {
    let meaning = rules.iter().enumerate();
    let meaning = meaning.filter(|(_, rule)| rule.means(side, group));
    BitSet::of(rules.len(), meaning.map(|(number, _)| number))
}
