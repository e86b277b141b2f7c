//! Which faces reach which, at which ports: the egress of sources met with the ingress of destinations.
//!
//! A *face* is a class of pods at one region of addresses, or a region outside of the cluster. Faces whose
//! isolating policies are the same have one profile, and a profile's rules are added up once, as disjoint parts: ports
//! and a set of faces. Where a part of a source's profile meets a part of a destination's, a patch comes out:
//! every face of one set reaches every face of another at the same ports. Nothing here goes over pairs of pods.
//!
//! This is where tiers of other policy kinds belong: they change what [`Ends::parts`] adds up, and nothing else.

use std::collections::{BTreeSet, HashMap};

use super::bits::BitSet;
use super::classes::Classes;
use super::ports::PortSet;
use super::space::Space;
use super::words::{Numbered, SpokenRule, Word, Words};
use crate::netpol::coverage::Direction;
use crate::netpol::net::Family;

/// A class at a region of addresses, or a region outside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Face {
    /// None outside of the cluster.
    pub(super) class: Option<usize>,
    pub(super) region: usize,
    family: Family,
}

/// Each of some faces reaches each of others at these ports, and at no others.
#[derive(Clone, Debug)]
pub(super) struct Patch {
    pub(super) from: BitSet,
    pub(super) to: BitSet,
    pub(super) ports: PortSet,
}

/// All faces and patches.
#[derive(Clone, Debug)]
pub(super) struct Grid {
    pub(super) faces: Vec<Face>,
    /// The faces of each class.
    of_class: Vec<Vec<usize>>,
    /// The face of each region outside, where there is one.
    of_region: HashMap<usize, usize>,
    /// The patches of each profile of sources; a face belongs to one profile.
    rows: Vec<Vec<Patch>>,
    row_of: Vec<usize>,
}

/// What faces have in common at one end of a flow: which policies isolate them there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Profile<'c> {
    family: Family,
    is_outside: bool,
    policies: &'c [usize],
    /// The table of the port names of a destination, where a rule asks for one.
    table: usize,
}

/// What one end lets pass: ports and who is at the other end; nobody is in two of them.
#[derive(Debug, Default)]
struct Parts(Vec<(PortSet, BitSet)>);

/// The faces that each word of the policies means.
struct Ends<'w> {
    words: &'w Words<'w>,
    classes: &'w Classes<'w>,
    bound: usize,
    selections: Vec<BitSet>,
    blocks: Vec<BitSet>,
    tables: Vec<BitSet>,
    families: [BitSet; 2],
}

// === impl Grid ===

impl Grid {
    /// Judges every face against every other.
    pub(super) fn of(words: &Words<'_>, classes: &Classes<'_>, space: &Space) -> Self {
        let (faces, of_class) = faces(classes, space);
        let ends = Ends::of(words, classes, space, &faces);
        let bound = faces.len();

        let mut sources = Numbered::default();
        let row_of: Vec<usize> = faces
            .iter()
            .map(|face| sources.number(ends.profile(face, Direction::Egress)))
            .collect();
        let mut destinations = Numbered::default();
        let column_of: Vec<usize> = faces
            .iter()
            .map(|face| destinations.number(ends.profile(face, Direction::Ingress)))
            .collect();
        let columns: Vec<(bool, BitSet, Parts)> = destinations
            .values()
            .iter()
            .zip(members(&column_of, destinations.values().len()))
            .map(|(profile, members)| {
                let parts = ends.parts(profile, Direction::Ingress);
                (profile.is_outside, members, parts)
            })
            .collect();

        let rows = sources
            .values()
            .iter()
            .zip(members(&row_of, sources.values().len()));
        let rows = rows
            .map(|(profile, members)| {
                let mut patches: HashMap<(BitSet, PortSet), BitSet> = HashMap::new();
                for (ports, to) in ends.parts(profile, Direction::Egress).0 {
                    let met: BTreeSet<usize> = to
                        .iter()
                        .filter_map(|face| column_of.get(face).copied())
                        .collect();
                    for (is_outside, own, parts) in
                        met.into_iter().filter_map(|column| columns.get(column))
                    {
                        // What goes on outside of the cluster is not ours to say.
                        if profile.is_outside && *is_outside {
                            continue;
                        }
                        let to = own.and(&to);
                        for (open, from) in &parts.0 {
                            let (from, ports) = (members.and(from), ports.and(open));
                            if !from.is_empty() && !ports.is_empty() {
                                patches
                                    .entry((from, ports))
                                    .or_insert_with(|| BitSet::below(bound))
                                    .add(&to);
                            }
                        }
                    }
                }
                patches
                    .into_iter()
                    .map(|((from, ports), to)| Patch { from, to, ports })
                    .collect()
            })
            .collect();

        let outside = faces.iter().enumerate();
        let outside = outside.filter(|(_, face)| face.class.is_none());
        Self {
            of_region: outside.map(|(index, face)| (face.region, index)).collect(),
            faces,
            of_class,
            rows,
            row_of,
        }
    }

    /// The number of the row that a face is a source in.
    pub(super) fn row_of(&self, face: usize) -> Option<usize> {
        self.row_of.get(face).copied()
    }

    /// The patches of a row.
    pub(super) fn row(&self, row: usize) -> &[Patch] {
        self.rows.get(row).map(Vec::as_slice).unwrap_or_default()
    }

    /// The faces of a class.
    pub(super) fn class(&self, class: usize) -> &[usize] {
        self.of_class
            .get(class)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// The face of a region outside of the cluster.
    pub(super) fn outside(&self, region: usize) -> &[usize] {
        self.of_region
            .get(&region)
            .map(std::slice::from_ref)
            .unwrap_or_default()
    }

    /// The ports at which one of some faces reaches one of others.
    pub(super) fn between(&self, from: &[usize], to: &[usize]) -> PortSet {
        let mut ports = PortSet::none();
        for face in from {
            let row = self.row_of.get(*face).and_then(|row| self.rows.get(*row));
            for patch in row.into_iter().flatten() {
                if patch.from.contains(*face) && to.iter().any(|to| patch.to.contains(*to)) {
                    ports = ports.or(&patch.ports);
                }
            }
        }
        ports
    }
}

fn faces(classes: &Classes<'_>, space: &Space) -> (Vec<Face>, Vec<Vec<usize>>) {
    let mut faces = Vec::new();
    let mut of_class = Vec::new();
    for (index, class) in classes.all.iter().enumerate() {
        let mut own = Vec::new();
        for region in &class.regions {
            if let Some(found) = space.regions().get(*region) {
                own.push(faces.len());
                faces.push(Face {
                    class: Some(index),
                    region: *region,
                    family: found.family,
                });
            }
        }
        of_class.push(own);
    }
    let regions = space.regions().iter().enumerate();
    for (index, region) in regions.filter(|(_, region)| !region.spans.is_empty()) {
        faces.push(Face {
            class: None,
            region: index,
            family: region.family,
        });
    }
    (faces, of_class)
}

/// The members of each of some groups, where each thing's group is given.
fn members(group_of: &[usize], groups: usize) -> Vec<BitSet> {
    let mut members = vec![BitSet::below(group_of.len()); groups];
    for (thing, group) in group_of.iter().enumerate() {
        if let Some(group) = members.get_mut(*group) {
            group.insert(thing);
        }
    }
    members
}

// === impl Ends ===

impl<'w> Ends<'w> {
    fn of(words: &'w Words<'w>, classes: &'w Classes<'w>, space: &Space, faces: &[Face]) -> Self {
        let bound = faces.len();
        let empty = |count: usize| vec![BitSet::below(bound); count];
        let mut ends = Self {
            words,
            classes,
            bound,
            selections: empty(words.selections.values().len()),
            blocks: empty(words.blocks.values().len()),
            tables: empty(classes.tables.len()),
            families: [BitSet::below(bound), BitSet::below(bound)],
        };
        let put = |sets: &mut [BitSet], set: usize, face: usize| {
            if let Some(set) = sets.get_mut(set) {
                set.insert(face);
            }
        };
        for (index, face) in faces.iter().enumerate() {
            let class = face.class.and_then(|class| classes.all.get(class));
            if let Some(class) = class {
                put(&mut ends.tables, class.table, index);
                for selection in &class.seen.selections {
                    put(&mut ends.selections, *selection, index);
                }
            }
            if let Some(region) = space.regions().get(face.region) {
                for block in region.blocks.iter() {
                    put(&mut ends.blocks, block, index);
                }
            }
            match face.family {
                Family::V4 => put(&mut ends.families, 0, index),
                Family::V6 => put(&mut ends.families, 1, index),
            }
        }
        ends
    }

    /// What a face has in common with others at the end that a direction belongs to.
    fn profile(&self, face: &Face, direction: Direction) -> Profile<'w> {
        let class = face.class.and_then(|class| self.classes.all.get(class));
        let policies = class.map_or(&[][..], |class| match direction {
            Direction::Ingress => &class.seen.ingress,
            Direction::Egress => &class.seen.egress,
        });
        let mut rules = self.rules(policies, direction);
        let asks_names =
            direction == Direction::Ingress && rules.any(|rule| !rule.named.is_empty());
        Profile {
            family: face.family,
            is_outside: face.class.is_none(),
            policies,
            table: class.filter(|_| asks_names).map_or(0, |class| class.table),
        }
    }

    /// What the faces of a profile let pass.
    fn parts(&self, profile: &Profile<'_>, direction: Direction) -> Parts {
        let family = profile.family.pick(&self.families);
        if profile.policies.is_empty() {
            return Parts(vec![(PortSet::all(), family.clone())]);
        }
        let mut parts = Parts::default();
        for rule in self.rules(profile.policies, direction) {
            let others = self.peers(rule).and(family);
            if others.is_empty() {
                continue;
            }
            match direction {
                Direction::Ingress => {
                    let named = self.named(rule, profile.table);
                    parts.add(&rule.ports.or(&named), others);
                }
                Direction::Egress => {
                    // The names are those of each destination.
                    if !rule.named.is_empty() {
                        for (table, members) in self.tables.iter().enumerate() {
                            parts.add(&self.named(rule, table), others.and(members));
                        }
                    }
                    parts.add(&rule.ports, others);
                }
            }
        }
        parts
    }

    fn rules(
        &self,
        policies: &[usize],
        direction: Direction,
    ) -> impl Iterator<Item = &'w SpokenRule> {
        policies
            .iter()
            .filter_map(|policy| self.words.policies.get(*policy))
            .flat_map(move |policy| policy.rules(direction))
    }

    /// Whoever is meant by the peers of a rule.
    fn peers(&self, rule: &SpokenRule) -> BitSet {
        let Some(peers) = &rule.peers else {
            return BitSet::of(self.bound, 0..self.bound);
        };
        let mut meant = BitSet::below(self.bound);
        for peer in peers {
            let faces = match peer {
                Word::Selection(selection) => self.selections.get(*selection),
                Word::Block(block) => self.blocks.get(*block),
            };
            if let Some(faces) = faces {
                meant.add(faces);
            }
        }
        meant
    }

    /// The numbers that a table gives to the port names of a rule.
    fn named(&self, rule: &SpokenRule, table: usize) -> PortSet {
        let table = self.classes.tables.get(table);
        let ports = rule.named.iter().filter_map(|name| table?.get(*name));
        ports.fold(PortSet::none(), |all, ports| all.or(ports))
    }
}

// === impl Parts ===

impl Parts {
    /// Opens ports to some faces more.
    fn add(&mut self, ports: &PortSet, faces: BitSet) {
        if ports.is_empty() || faces.is_empty() {
            return;
        }
        let mut left = faces;
        let mut split = Parts::default();
        for (own, members) in self.0.drain(..) {
            let both = members.and(&left);
            if both.is_empty() {
                split.put(own, members);
                continue;
            }
            left = left.without(&both);
            split.put(own.or(ports), both.clone());
            split.put(own, members.without(&both));
        }
        split.put(ports.clone(), left);
        *self = split;
    }

    /// Adds faces that are in no part to the part of their ports.
    fn put(&mut self, ports: PortSet, faces: BitSet) {
        if faces.is_empty() {
            return;
        }
        match self.0.iter_mut().find(|(own, _)| *own == ports) {
            Some((_, members)) => members.add(&faces),
            None => self.0.push((ports, faces)),
        }
    }
}
