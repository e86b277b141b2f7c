//! What records of flows say, whatever their format: who, to whom, at which port, how often, with which end.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::netpol::labels::Labels;
use crate::netpol::name::{NamespaceName, NodeName, ObjectName};
use crate::netpol::port::{Port, Protocol};
use crate::netpol::workload::WorkloadKind;

/// Who a record says that one end of a flow was.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Actor {
    /// A pod.
    Pod(PodActor),
    /// An address of which nothing else is said.
    Address(IpAddr),
    /// A node itself.
    Node {
        /// Its name.
        name: NodeName,
        /// Its address, where it is said.
        address: Option<IpAddr>,
    },
    /// The record does not say, for this reason.
    Unknown(String),
}

/// What a record says of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodActor {
    /// Its namespace.
    pub namespace: NamespaceName,
    /// The labels of its namespace, where they are said.
    pub namespace_labels: Option<Labels>,
    /// Its name; it may end in `*` where several pods of one template are meant.
    pub name: Option<ObjectName>,
    /// The workload that it belongs to, and its kind where that is said.
    pub workload: Option<(Option<WorkloadKind>, ObjectName)>,
    /// Its labels, where they are said.
    pub labels: Option<Labels>,
    /// Its address, where it is said.
    pub address: Option<IpAddr>,
    /// The node that it runs on, where that matters.
    pub node: Option<NodeName>,
}

/// What was done to flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// They passed.
    Allowed,
    /// A policy denied them.
    Denied,
}

/// Where flows were seen: one and the same may be told of by both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Seen {
    /// Where they left.
    AtSource,
    /// Where they arrived.
    AtDestination,
    /// The record does not say.
    Somewhere,
}

/// How many flows passed and how many were denied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that passed.
    pub allowed: u64,
    /// Those that were denied.
    pub denied: u64,
}

/// How many flows were seen, by where they were seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    source: Counts,
    destination: Counts,
    somewhere: Counts,
}

/// One different flow; the ends are numbers of actors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Observed {
    /// Who opened it.
    pub from: usize,
    /// To whom.
    pub to: usize,
    /// Over which protocol.
    pub protocol: Protocol,
    /// To which port of the destination.
    pub port: Port,
}

/// All that was recorded, each different flow once.
#[derive(Clone, Debug, Default)]
pub struct Observations {
    actors: Vec<Actor>,
    numbers: HashMap<Actor, usize>,
    tallies: HashMap<Observed, Tally>,
}

// === impl Observations ===

impl Observations {
    /// The number of an actor, a new one where it has none yet.
    pub fn actor(&mut self, actor: Actor) -> usize {
        if let Some(number) = self.numbers.get(&actor) {
            return *number;
        }
        let number = self.actors.len();
        self.actors.push(actor.clone());
        self.numbers.insert(actor, number);
        number
    }

    /// Adds flows.
    pub fn add(&mut self, observed: Observed, seen: Seen, action: Action, flows: u64) {
        let tally = self.tallies.entry(observed).or_default();
        tally.add(seen, action, flows);
    }

    /// How many different flows there are.
    pub fn len(&self) -> usize {
        self.tallies.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tallies.is_empty()
    }

    /// The actors in the order of their numbers.
    pub fn actors(&self) -> impl ExactSizeIterator<Item = &Actor> {
        self.actors.iter()
    }

    /// The flows, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Observed, Tally)> {
        self.tallies
            .iter()
            .map(|(observed, tally)| (*observed, *tally))
    }
}

// === impl Tally ===

impl Tally {
    fn add(&mut self, seen: Seen, action: Action, flows: u64) {
        let counts = match seen {
            Seen::AtSource => &mut self.source,
            Seen::AtDestination => &mut self.destination,
            Seen::Somewhere => &mut self.somewhere,
        };
        let count = match action {
            Action::Allowed => &mut counts.allowed,
            Action::Denied => &mut counts.denied,
        };
        *count = count.saturating_add(flows);
    }

    /// How many passed: what left the source and was denied at the destination did not, and what both ends tell of
    /// was one flow.
    pub fn allowed(&self) -> u64 {
        let left = self.source.allowed.saturating_sub(self.destination.denied);
        left.max(self.destination.allowed)
            .saturating_add(self.somewhere.allowed)
    }

    /// How many were denied: at the source, or on arrival.
    pub fn denied(&self) -> u64 {
        let ends = self.source.denied.saturating_add(self.destination.denied);
        ends.saturating_add(self.somewhere.denied)
    }

    /// How many there were.
    pub fn all(&self) -> u64 {
        self.allowed().saturating_add(self.denied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(flows: &[(Seen, Action, u64)]) -> (u64, u64) {
        let mut tally = Tally::default();
        for (seen, action, count) in flows {
            tally.add(*seen, *action, *count);
        }
        (tally.allowed(), tally.denied())
    }

    #[test]
    fn what_both_ends_tell_of_is_counted_once() {
        use Action::{Allowed, Denied};
        use Seen::{AtDestination, AtSource, Somewhere};
        assert_eq!(
            tally(&[(AtSource, Allowed, 3), (AtDestination, Allowed, 3)]),
            (3, 0)
        );
        assert_eq!(
            tally(&[(AtSource, Allowed, 3), (AtDestination, Denied, 3)]),
            (0, 3)
        );
        assert_eq!(
            tally(&[
                (AtSource, Allowed, 5),
                (AtDestination, Allowed, 3),
                (AtDestination, Denied, 2)
            ]),
            (3, 2)
        );
        assert_eq!(tally(&[(AtSource, Denied, 2)]), (0, 2));
        assert_eq!(
            tally(&[(AtDestination, Allowed, 2), (Somewhere, Allowed, 1)]),
            (3, 0)
        );
        assert_eq!(
            tally(&[(Somewhere, Allowed, u64::MAX), (Somewhere, Allowed, 1)]),
            (u64::MAX, 0)
        );
    }
}
