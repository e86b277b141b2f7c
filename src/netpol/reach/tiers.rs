//! What cluster network policies make of the faces at the other end, before and after network policies.
//!
//! Each policy is asked once for all faces, and gives disjoint pieces: what it accepts, denies and passes on. A profile's
//! policies then go over the undecided ports of each face in their order, those of equal priority together, the
//! strictest first, as [`super::Snapshot::verdict`] does for one flow.

use super::bits::BitSet;
use super::ends::{Ends, Parts};
use super::ports::PortSet;
use super::said::Said;
use crate::netpol::cluster_policy::{Action, ClusterNetworkPolicy, Tier};
use crate::netpol::coverage::Direction;

/// What a policy by itself says of which faces at which ports; no face and port is in two of them.
pub(super) type Pieces = Vec<(Action, PortSet, BitSet)>;

/// Disjoint sets of faces with what was said of them.
struct States(Vec<(Said, BitSet)>);

/// What one policy says of all faces; `table` is the destination's own, for the names of ports in ingress rules.
pub(super) fn pieces(ends: &Ends<'_>, wide: usize, direction: Direction, table: usize) -> Pieces {
    let mut pieces = Pieces::new();
    let Some(spoken) = ends.words.wide.get(wide) else {
        return pieces;
    };
    let mut open = Parts(vec![(PortSet::all(), ends.everyone())]);
    for rule in spoken.rules(direction) {
        for (ports, faces) in ends.spoken(&rule.rule, direction, table) {
            let mut left = Parts::default();
            for (own, members) in open.0 {
                let both = members.and(&faces);
                let taken = own.and(&ports);
                if both.is_empty() || taken.is_empty() {
                    left.put(own, members);
                    continue;
                }
                left.put(own.without(&taken), both.clone());
                left.put(own, members.without(&both));
                pieces.push((rule.action, taken, both));
            }
            open = left;
        }
    }
    pieces
}

/// What passes after all tiers; `network` is what network policies let pass, where any isolates.
pub(super) fn through(
    asked: &[(&ClusterNetworkPolicy, &Pieces)],
    network: Option<&Parts>,
    family: &BitSet,
) -> Parts {
    let mut states = States(vec![(Said::nothing(PortSet::all()), family.clone())]);
    states.ask(asked, Tier::Admin);
    let mut parts = Parts::default();
    let Some(network) = network else {
        states.next_tier();
        states.ask(asked, Tier::Baseline);
        for (state, faces) in states.0 {
            parts.put(state.in_the_end(), faces);
        }
        parts.0.retain(|(ports, _)| !ports.is_empty());
        return parts;
    };
    for (state, mut faces) in states.0 {
        for (ports, members) in &network.0 {
            let both = members.and(&faces);
            faces = faces.without(&both);
            parts.put(state.with_network(ports), both);
        }
        parts.put(state.accepted, faces);
    }
    parts.0.retain(|(ports, _)| !ports.is_empty());
    parts
}

impl States {
    fn ask(&mut self, asked: &[(&ClusterNetworkPolicy, &Pieces)], tier: Tier) {
        let of_tier = |(policy, _): &&(&ClusterNetworkPolicy, &Pieces)| policy.tier == tier;
        let asked: Vec<_> = asked.iter().filter(of_tier).collect();
        for tied in asked.chunk_by(|one, next| one.0.priority == next.0.priority) {
            for action in Action::ALL {
                let pieces = tied.iter().flat_map(|(_, pieces)| *pieces);
                for (_, ports, faces) in pieces.filter(|(own, ..)| *own == action) {
                    self.decide(action, ports, faces);
                }
            }
        }
    }

    fn decide(&mut self, action: Action, ports: &PortSet, faces: &BitSet) {
        let mut decided = States(Vec::new());
        for (state, members) in self.0.drain(..) {
            let both = members.and(faces);
            let taken = state.open.and(ports);
            if both.is_empty() || taken.is_empty() {
                decided.put(state, members);
                continue;
            }
            let rest = members.without(&both);
            let mut new = state.clone();
            new.decide(action, &taken);
            decided.put(new, both);
            decided.put(state, rest);
        }
        *self = decided;
    }

    fn next_tier(&mut self) {
        for (state, _) in &mut self.0 {
            state.next_tier();
        }
    }

    fn put(&mut self, state: Said, faces: BitSet) {
        if faces.is_empty() {
            return;
        }
        match self.0.iter_mut().find(|(own, _)| *own == state) {
            Some((_, members)) => members.add(&faces),
            None => self.0.push((state, faces)),
        }
    }
}
