//! What opens and what closes between two clusters, or two moments of one, by workload and port.
//!
//! Workloads that are in both are compared: what is open in the one and not in the other, addresses outside span by
//! span, however the policies of either side cut them. Those that are in one only are told by themselves, with how
//! much they have open, because a new workload in an open cluster has connections with everyone.

use std::collections::HashMap;

use ipnet::IpNet;

use super::connections::{self, Ends, Row};
use super::ports::PortSet;
use super::rows::{self, Addresses, Open, Workloads};
use super::{Located, Reachability};
use crate::netpol::coverage::Direction;
use crate::netpol::labels::Labels;
use crate::netpol::name::NamespaceName;
use crate::netpol::net::Family;
use crate::netpol::pod::Pod;
use crate::netpol::spans::{self, Span};
use crate::netpol::workload::WorkloadRef;

/// Two judged clusters, held against each other.
pub struct Diff<'r> {
    old: Side<'r>,
    new: Side<'r>,
    both: Vec<&'r WorkloadRef>,
}

/// One of the two.
struct Side<'r> {
    reach: &'r Reachability,
    workloads: Workloads<'r>,
    /// Its number of each workload that both have.
    own: Vec<usize>,
    /// The position among those of both of each workload, where it has one.
    shared: Vec<Option<usize>>,
}

/// A workload that is on one side only, and how much it has open there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The workload.
    pub workload: WorkloadRef,
    /// How many other workloads it reaches at some port.
    pub reaches: usize,
    /// How many other workloads reach it at some port.
    pub reached_by: usize,
    /// What it reaches outside.
    pub to_outside: Vec<(IpNet, PortSet)>,
    /// From where outside it is reached.
    pub from_outside: Vec<(IpNet, PortSet)>,
}

/// A workload whose pods were all isolated in a direction and are not any more, or the reverse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsolationChange {
    /// The workload.
    pub workload: WorkloadRef,
    /// The direction.
    pub direction: Direction,
    /// Whether they all are now.
    pub is_isolated: bool,
}

/// What one side has open and the other has not, of the workloads that both have.
struct Beyond<'d, 'r> {
    this: &'d Side<'r>,
    that: &'d Side<'r>,
    both: &'d [&'r WorkloadRef],
}

// === impl Diff ===

impl<'r> Diff<'r> {
    /// Holds two judged clusters against each other.
    pub fn of(old: &'r Reachability, new: &'r Reachability) -> Self {
        let mut old = Side::new(old);
        let mut new = Side::new(new);
        let roots = new.reach.workloads().into_iter().enumerate();
        let numbers: HashMap<&WorkloadRef, usize> =
            roots.map(|(number, root)| (root, number)).collect();
        let mut both = Vec::new();
        for (number, root) in old.reach.workloads().into_iter().enumerate() {
            if let Some(other) = numbers.get(root) {
                old.share(number, both.len());
                new.share(*other, both.len());
                both.push(root);
            }
        }
        Self { old, new, both }
    }

    /// The workloads that both have.
    pub fn both(&self) -> &[&'r WorkloadRef] {
        &self.both
    }

    /// What is open now and was not, between the workloads that both have and with the outside.
    pub fn opened(&self) -> impl Iterator<Item = Row> {
        self.beyond(&self.new, &self.old)
    }

    /// What was open and is not any more, between the workloads that both have and with the outside.
    pub fn closed(&self) -> impl Iterator<Item = Row> {
        self.beyond(&self.old, &self.new)
    }

    /// The workloads that are new.
    pub fn added(&self) -> Vec<Standing> {
        self.new.alone()
    }

    /// The workloads that are gone.
    pub fn removed(&self) -> Vec<Standing> {
        self.old.alone()
    }

    /// The workloads that both have and whose pods are isolated now and were not, or the reverse.
    pub fn isolation(&self) -> Vec<IsolationChange> {
        let (before, after) = (self.old.isolated(), self.new.isolated());
        let mut changes = Vec::new();
        for root in &self.both {
            let (Some(before), Some(after)) = (before.get(root), after.get(root)) else {
                continue;
            };
            for (direction, (before, after)) in
                Direction::BOTH.into_iter().zip(before.iter().zip(after))
            {
                if before != after {
                    changes.push(IsolationChange {
                        workload: (*root).clone(),
                        direction,
                        is_isolated: *after,
                    });
                }
            }
        }
        changes
    }

    fn beyond<'d>(&'d self, this: &'d Side<'r>, that: &'d Side<'r>) -> impl Iterator<Item = Row> {
        let both = &self.both;
        connections::rows(Beyond { this, that, both }, |_| true)
    }
}

// === impl Side ===

impl<'r> Side<'r> {
    fn new(reach: &'r Reachability) -> Self {
        let workloads = Workloads::of(reach);
        Self {
            reach,
            own: Vec::new(),
            shared: vec![None; workloads.roots().len()],
            workloads,
        }
    }

    fn share(&mut self, number: usize, position: usize) {
        self.own.push(number);
        if let Some(shared) = self.shared.get_mut(number) {
            *shared = Some(position);
        }
    }

    /// The workloads that only this side has.
    fn alone(&self) -> Vec<Standing> {
        let roots = self.workloads.roots().iter().enumerate();
        let mut alone: HashMap<usize, Standing> = roots
            .filter(|(number, _)| self.shared.get(*number) == Some(&None))
            .map(|(number, root)| (number, Standing::new(root)))
            .collect();
        if alone.is_empty() {
            return Vec::new();
        }
        for source in 0..self.shared.len() {
            let open = self.workloads.open_from(source);
            let others = open.inside.iter().filter(|(number, _)| *number != source);
            let mut reaches = 0_usize;
            for (number, _) in others {
                reaches = reaches.saturating_add(1);
                if let Some(standing) = alone.get_mut(number) {
                    standing.reached_by = standing.reached_by.saturating_add(1);
                }
            }
            if let Some(standing) = alone.get_mut(&source) {
                standing.reaches = reaches;
                standing.to_outside = rows::blocks(open.outside);
                standing.from_outside = rows::blocks(self.workloads.open_to(source));
            }
        }
        let mut alone: Vec<(usize, Standing)> = alone.into_iter().collect();
        alone.sort_unstable_by_key(|(number, _)| *number);
        alone.into_iter().map(|(_, standing)| standing).collect()
    }

    /// Whether all pods of a workload are isolated, for ingress and for egress.
    fn isolated(&self) -> HashMap<&WorkloadRef, [bool; 2]> {
        let mut known: HashMap<(&NamespaceName, &Labels, bool), [bool; 2]> = HashMap::new();
        let mut isolated: HashMap<&WorkloadRef, [bool; 2]> = HashMap::new();
        for (pod, located) in self.pods().filter(|(_, located)| !located.is_stood_for) {
            let key = (pod.namespace(), &pod.labels, pod.is_held());
            let of_pod = *known.entry(key).or_insert_with(|| {
                let coverage = self.reach.snapshot.pod_coverage(pod);
                Direction::BOTH.map(|direction| coverage.covered(direction))
            });
            let of_all = isolated.entry(&located.root).or_insert([true; 2]);
            for (all, one) in of_all.iter_mut().zip(of_pod) {
                *all &= one;
            }
        }
        isolated
    }

    fn pods(&self) -> impl Iterator<Item = (&Pod, &Located)> {
        let pods = self.reach.snapshot.pods();
        pods.filter(|pod| !pod.is_finished()).filter_map(|pod| {
            let index = self.reach.by_workload.get(&pod.workload)?;
            Some((pod, self.reach.pods.get(*index)?))
        })
    }

    /// What a workload of both may open, by positions among those of both.
    fn open_from(&self, position: usize) -> Open {
        let Some(number) = self.own.get(position) else {
            return Open::default();
        };
        let open = self.workloads.open_from(*number);
        let inside = open.inside.into_iter().filter_map(|(number, ports)| {
            let shared = self.shared.get(number).copied().flatten();
            Some((shared?, ports))
        });
        Open {
            inside: inside.collect(),
            outside: open.outside,
        }
    }

    fn open_to(&self, position: usize) -> Addresses {
        let number = self.own.get(position);
        number.map_or_else(Vec::new, |number| self.workloads.open_to(*number))
    }
}

impl Standing {
    fn new(workload: &WorkloadRef) -> Self {
        Self {
            workload: workload.clone(),
            reaches: 0,
            reached_by: 0,
            to_outside: Vec::new(),
            from_outside: Vec::new(),
        }
    }

    /// Whether it has any connection at all.
    pub fn is_connected(&self) -> bool {
        self.reaches > 0
            || self.reached_by > 0
            || !self.to_outside.is_empty()
            || !self.from_outside.is_empty()
    }
}

impl Ends for Beyond<'_, '_> {
    fn roots(&self) -> &[&WorkloadRef] {
        self.both
    }

    fn open_from(&self, source: usize) -> Open {
        let (this, that) = (self.this.open_from(source), self.that.open_from(source));
        let mut others = that.inside.iter().peekable();
        let inside = this.inside.into_iter().filter_map(|(position, ports)| {
            while others.next_if(|(other, _)| *other < position).is_some() {}
            let rest = match others.next_if(|(other, _)| *other == position) {
                Some((_, other)) => ports.without(other),
                None => ports,
            };
            (!rest.is_empty()).then_some((position, rest))
        });
        Open {
            inside: inside.collect(),
            outside: beyond(this.outside, &that.outside),
        }
    }

    fn open_to(&self, destination: usize) -> Addresses {
        beyond(
            self.this.open_to(destination),
            &self.that.open_to(destination),
        )
    }
}

/// What is open in the one and not in the other.
fn beyond(this: Addresses, that: &Addresses) -> Addresses {
    if this == *that {
        return Addresses::new();
    }
    let of = |wanted: Family| {
        let spans = that.iter().filter(move |(family, ..)| *family == wanted);
        spans.map(|(_, span, ports)| (*span, ports)).collect()
    };
    let others: [Vec<(Span<u128>, &PortSet)>; 2] = Family::BOTH.map(of);
    let mut rest = Addresses::new();
    for (family, span, ports) in this {
        let others = family.pick(&others);
        let near = others.partition_point(|((_, last), _)| *last < span.0);
        let near = others.iter().skip(near);
        let near: Vec<_> = near
            .take_while(|((first, _), _)| *first <= span.1)
            .collect();
        let spans: Vec<Span<u128>> = near.iter().map(|(other, _)| *other).collect();
        let untouched = spans::less(&[span], &spans).into_iter();
        rest.extend(untouched.map(|span| (family, span, ports.clone())));
        for ((first, last), other) in near {
            let ports = ports.without(other);
            if !ports.is_empty() {
                rest.push((family, (span.0.max(*first), span.1.min(*last)), ports));
            }
        }
    }
    rest.sort_unstable_by_key(|(family, span, _)| (*family, *span));
    rest
}
