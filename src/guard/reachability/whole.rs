//! One rule by itself, held against all pods of a cluster.

use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use super::outside::{has_outside, ordered, samples};
use super::{ReachabilityRule, Side, Who};
use crate::guard::decide::Cut;
use crate::netpol::groups::Group;
use crate::netpol::net::Family;
use crate::netpol::{Endpoint, FieldPath, Flow, Pod, PortSet};

/// A flow that a rule does not want as it is, and the ports at which it is so.
#[derive(Clone, Debug)]
pub(super) struct Violation {
    pub(super) from: Party,
    pub(super) to: Party,
    /// Never none.
    pub(super) ports: PortSet,
}

/// One end of it.
#[derive(Clone, Debug)]
pub(super) enum Party {
    Pod(Arc<Pod>),
    Address(IpAddr),
}

/// What a rule was held against.
#[derive(Clone, Debug, Default)]
pub(super) struct Whole {
    /// How many pods and templates are at each end.
    pub(super) sizes: Sizes,
    /// The entries of `from` and `to` that select nothing.
    pub(super) empty: Vec<FieldPath>,
}

/// How many pods and templates are at each end of a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// Who opens the connections.
    pub from: usize,
    /// To whom.
    pub to: usize,
}

/// Holds a rule against the pods of a cluster and hands on each violation until `told` is content with one.
pub(super) fn violations(
    rule: &ReachabilityRule,
    groups: &[&Group],
    most: usize,
    told: &mut dyn FnMut(Violation) -> bool,
) -> Result<(), Cut> {
    let meant = |side| {
        let groups = groups.iter().copied();
        groups.filter(move |group| rule.means(side, group))
    };
    let destinations: Vec<&Group> = meant(Side::To).collect();
    let mut asked = 0_usize;
    for from in meant(Side::From) {
        for to in &destinations {
            asked = asked.saturating_add(1);
            if asked > most {
                return Err(Cut::Pods(most));
            }
            let egress = from.holding(Side::From.direction());
            let ingress = to.holding(Side::To.direction());
            for (source, destination) in from.pairs(to, &[egress], &[ingress]) {
                let ports = rule.wrong(&from.reaches(source, to, destination));
                if !ports.is_empty() {
                    let violation = Violation::new(source, destination, ports);
                    if told(violation) {
                        return Ok(());
                    }
                }
            }
        }
    }
    for side in Side::BOTH {
        let others = rule.end(side.other());
        if !has_outside(others) {
            continue;
        }
        for group in meant(side) {
            let Some(pod) = group.pods().first() else {
                continue;
            };
            for address in samples(others, &[group.holding(side.direction())]) {
                if !is_of(pod, Family::of(address)) {
                    continue;
                }
                let ports = rule.wrong(&group.passes_outside(side.direction(), pod, address));
                if !ports.is_empty() && told(Violation::outside(side, pod, address, ports)) {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// What a rule means in a cluster.
pub(super) fn hold(rule: &ReachabilityRule, groups: &[&Group]) -> Whole {
    let mut whole = Whole::default();
    for side in Side::BOTH {
        let at = FieldPath::of(["spec", side.field()]);
        for (index, end) in rule.end(side).iter().enumerate() {
            let selects = match end {
                Who::Outside { .. } => true,
                Who::Pods { .. } => groups.iter().any(|group| end.means(group)),
            };
            if !selects {
                whole.empty.push(at.index(index));
            }
        }
        let meant = groups.iter().filter(|group| rule.means(side, group));
        let pods = meant.map(|group| group.pods().len()).sum();
        match side {
            Side::From => whole.sizes.from = pods,
            Side::To => whole.sizes.to = pods,
        }
    }
    whole
}

/// Whether a pod has, or may have, an address of a family.
pub(super) fn is_of(pod: &Pod, family: Family) -> bool {
    pod.ips.is_empty() || pod.ips_of(family).next().is_some()
}

impl Violation {
    pub(super) fn new(from: &Arc<Pod>, to: &Arc<Pod>, ports: PortSet) -> Self {
        Self {
            from: Party::Pod(Arc::clone(from)),
            to: Party::Pod(Arc::clone(to)),
            ports,
        }
    }

    /// Between a pod at a side and an address.
    pub(super) fn outside(side: Side, pod: &Arc<Pod>, address: IpAddr, ports: PortSet) -> Self {
        let (from, to) = ordered(side, Party::Pod(Arc::clone(pod)), Party::Address(address));
        Self { from, to, ports }
    }

    /// One flow of it: at its first port.
    pub(super) fn flow(&self) -> Option<Flow<'_>> {
        let first = self.ports.ranges().next()?;
        let port = crate::netpol::Port::new(first.first)?;
        Some(Flow::new(
            self.from.endpoint(),
            self.to.endpoint(),
            first.protocol,
            port,
        ))
    }
}

impl Party {
    pub(super) fn endpoint(&self) -> Endpoint<'_> {
        match self {
            Self::Pod(pod) => Endpoint::Pod(pod),
            Self::Address(address) => Endpoint::External(*address),
        }
    }

    pub(super) fn pod(&self) -> Option<&Pod> {
        match self {
            Self::Pod(pod) => Some(pod),
            Self::Address(_) => None,
        }
    }
}
