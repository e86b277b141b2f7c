//! The search for rules that a change breaks: pairs of groups, each judged as it was before and as it is after.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::outside::{has_outside, means, ordered, samples};
use super::whole::{Violation, is_of};
use super::{ReachabilityRule, ReachabilityRules, Side};
use crate::guard::decide::Cut;
use crate::netpol::groups::Group;
use crate::netpol::net::Family;
use crate::netpol::reach::bits::BitSet;
use crate::netpol::{Pod, PortSet};

/// The two ends of some flows, before and after.
#[derive(Clone, Copy)]
pub(super) struct Pairing<'g> {
    pub(super) side: Side,
    pub(super) own: (Option<&'g Group>, &'g Group),
    pub(super) other: (Option<&'g Group>, &'g Group),
}

/// The rules that a change breaks, each with one flow; all of them unless it had to be cut short.
#[derive(Debug, Default)]
pub(super) struct Broken<'r> {
    pub(super) violations: Vec<(&'r ReachabilityRule, Violation)>,
    pub(super) cut: Option<Cut>,
}

/// The search for violations.
pub(super) struct Search<'r> {
    rules: &'r [ReachabilityRule],
    found: BTreeMap<usize, Violation>,
    /// The rules that are not known to be broken, by their positions.
    open: BitSet,
    left: usize,
    most: usize,
}

// === impl Search ===

impl<'r> Search<'r> {
    /// A search that may look at so many groups at the other end.
    pub(super) fn new(rules: &'r ReachabilityRules, most: usize) -> Self {
        let rules = rules.iter().as_slice();
        Self {
            rules,
            found: BTreeMap::new(),
            open: BitSet::of(rules.len(), 0..rules.len()),
            left: most,
            most,
        }
    }

    /// What was found.
    pub(super) fn broken(self, cut: Option<Cut>) -> Broken<'r> {
        let found = self.found.into_iter();
        let violations = found
            .filter_map(|(number, violation)| Some((self.rules.get(number)?, violation)))
            .collect();
        Broken { violations, cut }
    }

    /// The rules that are not known to be broken, by their positions.
    pub(super) fn open(&self) -> &BitSet {
        &self.open
    }

    /// Counts one group at the other end.
    pub(super) fn spend(&mut self) -> Result<(), Cut> {
        self.left = self.left.checked_sub(1).ok_or(Cut::Pods(self.most))?;
        Ok(())
    }

    /// Judges the pairs of pods of two groups by rules that mean both of these, as they are now.
    pub(super) fn pair(&mut self, rules: &BitSet, pairing: &Pairing<'_>) {
        for (source, destination) in pairing.pods() {
            let asked = rules.and(&self.open);
            if asked.is_empty() {
                return;
            }
            let now = pairing.now(source, destination);
            // Most pairs are as the rules want them, and what they were before is then nobody's concern.
            let then = OnceCell::new();
            for number in asked.iter() {
                let Some(rule) = self.rules.get(number) else {
                    continue;
                };
                let mut wrong = rule.wrong(&now);
                if !wrong.is_empty() && pairing.was_meant(rule) {
                    let then = then.get_or_init(|| pairing.then(source, destination));
                    if let Some(then) = then {
                        wrong = wrong.without(&rule.wrong(then));
                    }
                }
                if !wrong.is_empty() {
                    self.find(number, Violation::new(source, destination, wrong));
                }
            }
        }
    }

    fn find(&mut self, number: usize, violation: Violation) {
        self.open.remove(number);
        self.found.insert(number, violation);
    }

    /// Judges the flows of a group with addresses outside, one of each kind.
    pub(super) fn outside(&mut self, rules: &BitSet, side: Side, own: (Option<&Group>, &Group)) {
        let (before, after) = own;
        let there = side.other();
        for number in rules.and(&self.open).iter() {
            let Some(rule) = self.rules.get(number) else {
                continue;
            };
            if !has_outside(rule.end(there)) {
                continue;
            }
            let then = before.filter(|group| rule.means(side, group));
            let groups = then.into_iter().chain([after]);
            let holdings: Vec<_> = groups
                .map(|group| group.holding(side.direction()))
                .collect();
            let samples = samples(rule.end(there), &holdings);
            self.of_addresses(number, rule, side, (then, after), &samples);
        }
    }

    /// Judges the flows of a group with these addresses, as far as rules mean them.
    pub(super) fn addresses(
        &mut self,
        rules: &BitSet,
        side: Side,
        (before, after): (Option<&Group>, &Group),
        addresses: &[IpAddr],
    ) {
        for number in rules.and(&self.open).iter() {
            let Some(rule) = self.rules.get(number) else {
                continue;
            };
            let then = before.filter(|group| rule.means(side, group));
            let meant = addresses.iter().copied();
            let meant = meant.filter(|address| means(rule.end(side.other()), *address));
            let meant: Vec<IpAddr> = meant.collect();
            self.of_addresses(number, rule, side, (then, after), &meant);
        }
    }

    /// Judges the flows of a group with addresses that a rule means; it has meant these of the group before, if there is
    /// one.
    fn of_addresses(
        &mut self,
        number: usize,
        rule: &ReachabilityRule,
        side: Side,
        (before, after): (Option<&Group>, &Group),
        addresses: &[IpAddr],
    ) {
        let Some(pod) = after.pods().first() else {
            return;
        };
        let wrong = |group: &Group, pod: &Pod, address: IpAddr| {
            rule.wrong(&group.passes_outside(side.direction(), pod, address))
        };
        for address in addresses {
            let family = Family::of(*address);
            if !is_of(pod, family) {
                continue;
            }
            let mut found = wrong(after, pod, *address);
            if let Some((group, old)) =
                before.and_then(|group| Some((group, group.pods().first()?)))
                && is_of(old, family)
            {
                found = found.without(&wrong(group, old, *address));
            }
            if !found.is_empty() {
                self.find(number, Violation::outside(side, pod, *address, found));
                return;
            }
        }
    }
}

// === impl Pairing ===

impl<'g> Pairing<'g> {
    /// The pairs of pods that have to be asked for.
    fn pods(&self) -> Vec<(&'g Arc<Pod>, &'g Arc<Pod>)> {
        let (from, to) = ordered(self.side, self.own, self.other);
        let holdings = |side: Side, (before, after): (Option<&'g Group>, &'g Group)| {
            let groups = before.into_iter().chain([after]);
            groups
                .map(|group| group.holding(side.direction()))
                .collect::<Vec<_>>()
        };
        from.1
            .pairs(to.1, &holdings(Side::From, from), &holdings(Side::To, to))
    }

    /// The ports at which it passes with the change.
    fn now(&self, source: &Pod, destination: &Pod) -> PortSet {
        let (from, to) = ordered(self.side, self.own.1, self.other.1);
        from.reaches(source, to, destination)
    }

    /// The ports at which it has passed; none where an end is new.
    fn then(&self, source: &'g Arc<Pod>, destination: &'g Arc<Pod>) -> Option<PortSet> {
        let (from, to) = ordered(self.side, self.own, self.other);
        let (before_from, before_to) = (from.0?, to.0?);
        let source = counterpart(from.1, before_from, source)?;
        let destination = counterpart(to.1, before_to, destination)?;
        Some(before_from.reaches(source, before_to, destination))
    }

    /// Whether a rule has meant these flows already.
    fn was_meant(&self, rule: &ReachabilityRule) -> bool {
        let meant = |side: Side, before: Option<&Group>| {
            before.is_some_and(|group| rule.means(side, group))
        };
        meant(self.side, self.own.0) && meant(self.side.other(), self.other.0)
    }
}

/// The pod that one of a group has been: itself, or the only one of a group that had another.
fn counterpart<'g>(after: &Group, before: &'g Group, pod: &'g Arc<Pod>) -> Option<&'g Pod> {
    if before.pods().len() == after.pods().len() && before.pods().len() > 1 {
        return Some(pod);
    }
    before.pods().first().map(|pod| &**pod)
}
