//! What one end of flows lets pass: for all faces of a profile at once, the faces at the other end with the ports.
//!
//! The rules of network policies are added up; those of cluster network policies are gone through in their order, by
//! `reach/tiers.rs`.

use std::collections::HashMap;

use super::bits::BitSet;
use super::classes::{Classes, Host};
use super::grid::Face;
use super::ports::PortSet;
use super::space::Space;
use super::tiers::{self, Pieces};
use super::words::{SpokenRule, Word, Words};
use crate::netpol::coverage::Direction;
use crate::netpol::net::Family;
use crate::netpol::verdict::Meant;

/// What faces have in common at one end of a flow: which policies isolate them there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Profile<'c> {
    pub(super) family: Family,
    pub(super) is_outside: bool,
    /// The cluster network policies that rule them.
    pub(super) wide: &'c [usize],
    pub(super) policies: &'c [usize],
    /// The table of the port names of a destination, where a rule asks for one.
    pub(super) table: usize,
}

/// What one end lets pass: ports and who is at the other end; nobody is in two of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts(pub(super) Vec<(PortSet, BitSet)>);

/// The faces that each word of the policies means.
pub(super) struct Ends<'w> {
    pub(super) words: &'w Words<'w>,
    classes: &'w Classes<'w>,
    bound: usize,
    nodes: Vec<BitSet>,
    perhaps_nodes: Vec<BitSet>,
    selections: Vec<BitSet>,
    blocks: Vec<BitSet>,
    tables: Vec<BitSet>,
    families: [BitSet; 2],
}

// === impl Ends ===

impl<'w> Ends<'w> {
    pub(super) fn of(
        words: &'w Words<'w>,
        classes: &'w Classes<'w>,
        space: &Space,
        faces: &[Face],
    ) -> Self {
        let bound = faces.len();
        let empty = |count: usize| vec![BitSet::below(bound); count];
        let mut ends = Self {
            words,
            classes,
            bound,
            selections: empty(words.selections.values().len()),
            blocks: empty(words.blocks.values().len()),
            nodes: empty(words.nodes.values().len()),
            perhaps_nodes: empty(words.nodes.values().len()),
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
            let host = class.map(|class| &class.host);
            if let Some(Host::Of(matching)) = host {
                for nodes in matching {
                    put(&mut ends.nodes, *nodes, index);
                }
            } else if host != Some(&Host::No) {
                for (nodes, meant) in ends.nodes_at(space, face).into_iter().enumerate() {
                    match meant {
                        Meant::Yes => put(&mut ends.nodes, nodes, index),
                        Meant::Perhaps => put(&mut ends.perhaps_nodes, nodes, index),
                        Meant::No => {}
                    }
                }
            }
            match face.family {
                Family::V4 => put(&mut ends.families, 0, index),
                Family::V6 => put(&mut ends.families, 1, index),
            }
        }
        ends
    }

    /// Whether each selector of nodes means a face by its address: what is outside, or a pod on a node of which no more
    /// is known.
    fn nodes_at(&self, space: &Space, face: &Face) -> Vec<Meant> {
        let region = space.regions().get(face.region).into_iter();
        let blocks = region.flat_map(|region| region.blocks.iter());
        let nodes = blocks.filter_map(|block| self.words.nodes_at.get(&block));
        let nodes: Vec<_> = nodes.flatten().collect();
        let selectors = self.words.nodes.values().iter();
        let meant = selectors.map(|selector| {
            if !nodes.is_empty() {
                Meant::of(nodes.iter().any(|node| selector.matches(&node.labels)))
            } else if face.class.is_none() {
                Meant::No
            } else {
                Meant::of_unknown_node(selector)
            }
        });
        meant.collect()
    }

    /// What a face has in common with others at the end that a direction belongs to.
    pub(super) fn profile(&self, face: &Face, direction: Direction) -> Profile<'w> {
        let class = face.class.and_then(|class| self.classes.all.get(class));
        let policies = class.map_or(&[][..], |class| match direction {
            Direction::Ingress => &class.seen.ingress,
            Direction::Egress => &class.seen.egress,
        });
        let wide = class.map_or(&[][..], |class| match (direction, &class.seen.wide) {
            (Direction::Ingress, [ingress, _]) => ingress,
            (Direction::Egress, [_, egress]) => egress,
        });
        let wide_rules = wide.iter().filter_map(|wide| self.words.wide.get(*wide));
        let wide_rules = wide_rules.flat_map(|wide| wide.rules(direction));
        let mut rules = self
            .rules(policies, direction)
            .chain(wide_rules.map(|wide| &wide.rule));
        let asks_names =
            direction == Direction::Ingress && rules.any(|rule| !rule.named.is_empty());
        Profile {
            family: face.family,
            is_outside: face.class.is_none(),
            wide,
            policies,
            table: class.filter(|_| asks_names).map_or(0, |class| class.table),
        }
    }

    /// What the faces of a profile let pass, in general or with their own node. What cluster network policies say is
    /// kept, by policy and by the ports that the destination gives to names.
    pub(super) fn parts(
        &self,
        profile: &Profile<'_>,
        direction: Direction,
        on_node: bool,
        pieces: &mut HashMap<(Direction, usize, usize), Pieces>,
    ) -> Parts {
        let family = profile.family.pick(&self.families);
        let network = (!profile.policies.is_empty()).then(|| {
            if on_node {
                Parts(vec![(PortSet::all(), family.clone())])
            } else {
                self.network_parts(profile, direction)
            }
        });
        if profile.wide.is_empty() {
            return network.unwrap_or_else(|| Parts(vec![(PortSet::all(), family.clone())]));
        }
        for wide in profile.wide {
            pieces
                .entry((direction, *wide, profile.table))
                .or_insert_with(|| tiers::pieces(self, *wide, direction, profile.table));
        }
        let asked = profile.wide.iter().filter_map(|wide| {
            let pieces = pieces.get(&(direction, *wide, profile.table))?;
            Some((self.words.wide.get(*wide)?.policy, pieces))
        });
        let asked: Vec<_> = asked.collect();
        tiers::through(&asked, network.as_ref(), family)
    }

    /// What network policies that isolate the faces of a profile let pass.
    fn network_parts(&self, profile: &Profile<'_>, direction: Direction) -> Parts {
        let family = profile.family.pick(&self.families);
        let mut parts = Parts::default();
        for rule in self.rules(profile.policies, direction) {
            for (ports, others) in self.spoken(rule, direction, profile.table) {
                parts.add(&ports, others.and(family));
            }
        }
        parts
    }

    /// The faces that a rule means, with the ports of each; `table` is the destination's own for ingress.
    pub(super) fn spoken(
        &self,
        rule: &SpokenRule,
        direction: Direction,
        table: usize,
    ) -> Vec<(PortSet, BitSet)> {
        let others = self.peers(rule);
        match direction {
            _ if others.is_empty() => Vec::new(),
            Direction::Ingress => vec![(rule.ports.or(&self.named(rule, table)), others)],
            Direction::Egress => {
                let mut spoken = Vec::new();
                // The names are those of each destination.
                if !rule.named.is_empty() {
                    for (table, members) in self.tables.iter().enumerate() {
                        spoken.push((self.named(rule, table), others.and(members)));
                    }
                }
                spoken.push((rule.ports.clone(), others));
                spoken
            }
        }
    }

    /// All faces.
    pub(super) fn everyone(&self) -> BitSet {
        BitSet::of(self.bound, 0..self.bound)
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
            return self.everyone();
        };
        let mut meant = BitSet::below(self.bound);
        for peer in peers {
            let faces = match peer {
                Word::Selection(selection) => self.selections.get(*selection),
                Word::Block(block) => self.blocks.get(*block),
                Word::Nodes(nodes) => self.nodes.get(*nodes),
                Word::PerhapsNodes(nodes) => self.perhaps_nodes.get(*nodes),
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

    /// The ports that are open to a face.
    pub(super) fn at(&self, face: usize) -> PortSet {
        let mut parts = self.0.iter();
        parts
            .find(|(_, members)| members.contains(face))
            .map_or_else(PortSet::none, |(ports, _)| ports.clone())
    }

    /// Adds faces that are in no part to the part of their ports.
    pub(super) fn put(&mut self, ports: PortSet, faces: BitSet) {
        if faces.is_empty() {
            return;
        }
        match self.0.iter_mut().find(|(own, _)| *own == ports) {
            Some((_, members)) => members.add(&faces),
            None => self.0.push((ports, faces)),
        }
    }
}
