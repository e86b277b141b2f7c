//! Which faces reach which, at which ports: the egress of sources met with the ingress of destinations.
//!
//! A *face* is a class of pods at one region of addresses, or a region outside of the cluster. Faces whose
//! isolating policies are the same have one profile, and a profile's rules are added up once, as disjoint parts: ports
//! and a set of faces. Where a part of a source's profile meets a part of a destination's, a patch comes out:
//! every face of one set reaches every face of another at the same ports. Nothing here goes over pairs of pods.
//!
//! What a profile lets pass is added up by `reach/ends.rs`, network policies and cluster network policies together.

use std::collections::{BTreeSet, HashMap};

use super::bits::BitSet;
use super::classes::Classes;
use super::ends::{Ends, Parts, Profile};
use super::ports::PortSet;
use super::space::Space;
use super::words::{Numbered, Words};
use crate::netpol::coverage::Direction;
use crate::netpol::net::Family;

/// A class at a region of addresses, or a region outside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Face {
    /// None outside of the cluster.
    pub(super) class: Option<usize>,
    pub(super) region: usize,
    pub(super) family: Family,
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
    /// What each profile of sources, and of destinations, has open with its own node, where that is not everything.
    on_node: [Vec<Option<Parts>>; 2],
    column_of: Vec<usize>,
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
        let mut pieces = HashMap::new();
        let columns: Vec<(bool, BitSet, Parts)> = destinations
            .values()
            .iter()
            .zip(members(&column_of, destinations.values().len()))
            .map(|(profile, members)| {
                let parts = ends.parts(profile, Direction::Ingress, false, &mut pieces);
                (profile.is_outside, members, parts)
            })
            .collect();
        let mut on_node = |profiles: &[Profile<'_>], direction| -> Vec<Option<Parts>> {
            let all = profiles.iter().map(|profile| {
                let is_all = profile.wide.is_empty() || !classes.has_hosts();
                (!is_all).then(|| ends.parts(profile, direction, true, &mut pieces))
            });
            all.collect()
        };
        let on_node = [
            on_node(sources.values(), Direction::Egress),
            on_node(destinations.values(), Direction::Ingress),
        ];

        let rows = sources
            .values()
            .iter()
            .zip(members(&row_of, sources.values().len()));
        let rows = rows
            .map(|(profile, members)| {
                let mut patches: HashMap<(BitSet, PortSet), BitSet> = HashMap::new();
                let leaving = ends.parts(profile, Direction::Egress, false, &mut pieces);
                for (ports, to) in leaving.0 {
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
            on_node,
            column_of,
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

    /// How many classes there are.
    pub(super) fn classes(&self) -> usize {
        self.of_class.len()
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

    /// The same where one of the two is on the network of the node that the other one runs on: network policies do not
    /// hold such flows.
    pub(super) fn between_on_node(&self, from: &[usize], to: &[usize]) -> PortSet {
        let [rows, columns] = &self.on_node;
        let open = |parts: &[Option<Parts>], of: &[usize], own: usize, other: usize| {
            let parts = of.get(own).and_then(|profile| parts.get(*profile));
            parts
                .and_then(Option::as_ref)
                .map_or_else(PortSet::all, |parts| parts.at(other))
        };
        let mut ports = PortSet::none();
        for from in from {
            for to in to {
                let families = [from, to].map(|face| self.faces.get(*face).map(|one| one.family));
                if families[0] == families[1] {
                    let leaving = open(rows, &self.row_of, *from, *to);
                    let entering = open(columns, &self.column_of, *to, *from);
                    ports = ports.or(&leaving.and(&entering));
                }
            }
        }
        ports
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
