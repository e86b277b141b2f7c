//! The search for rules that a change breaks: pairs of groups, each judged as it was before and as it is after.

use std::sync::Arc;

use super::outside::{has_outside, ordered, samples};
use super::whole::{Violation, is_of};
use super::{ReachabilityRule, ReachabilityRules, Side};
use crate::guard::decide::Cut;
use crate::netpol::groups::Group;
use crate::netpol::net::Family;
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
    rules: Vec<Asked<'r>>,
    left: usize,
    most: usize,
}

/// A rule that is asked.
pub(super) struct Asked<'r> {
    pub(super) number: usize,
    pub(super) rule: &'r ReachabilityRule,
    found: Option<Violation>,
}

// === impl Search ===

impl<'r> Search<'r> {
    /// A search that may look at so many groups at the other end.
    pub(super) fn new(rules: &'r ReachabilityRules, most: usize) -> Self {
        let rules = rules.iter().enumerate().map(|(number, rule)| Asked {
            number,
            rule,
            found: None,
        });
        Self {
            rules: rules.collect(),
            left: most,
            most,
        }
    }

    /// What was found.
    pub(super) fn broken(self, cut: Option<Cut>) -> Broken<'r> {
        let asked = self.rules.into_iter();
        let violations = asked.filter_map(|asked| Some((asked.rule, asked.found?)));
        Broken {
            violations: violations.collect(),
            cut,
        }
    }

    /// Whether a rule is known to be broken.
    pub(super) fn is_found(&self, rule: usize) -> bool {
        let asked = self.rules.get(rule);
        asked.is_some_and(|asked| asked.found.is_some())
    }

    /// The positions of the rules that are not known to be broken yet and of which something holds.
    pub(super) fn asked(&self, holds: impl Fn(&Asked<'_>) -> bool) -> Vec<usize> {
        let open = self
            .rules
            .iter()
            .filter(|asked| asked.found.is_none() && holds(asked));
        open.map(|asked| asked.number).collect()
    }

    /// Counts one group at the other end.
    pub(super) fn spend(&mut self) -> Result<(), Cut> {
        self.left = self.left.checked_sub(1).ok_or(Cut::Pods(self.most))?;
        Ok(())
    }

    /// Judges the pairs of pods of two groups by the rules that mean the other one.
    pub(super) fn pair(
        &mut self,
        rules: &[usize],
        pairing: &Pairing<'_>,
        means_other: impl Fn(&Asked<'_>) -> bool,
    ) {
        let mut asked: Vec<usize> = Vec::new();
        for rule in rules {
            let is_open = |asked: &&Asked<'_>| asked.found.is_none() && means_other(asked);
            asked.extend(self.rules.get(*rule).filter(is_open).map(|_| *rule));
        }
        if asked.is_empty() {
            return;
        }
        for (source, destination) in pairing.pods() {
            let now = pairing.now(source, destination);
            let then = pairing.then(source, destination);
            if then.as_ref() == Some(&now) && pairing.is_settled() {
                continue;
            }
            for number in &asked {
                let Some(asked) = self.rules.get_mut(*number) else {
                    continue;
                };
                if asked.found.is_some() {
                    continue;
                }
                let mut wrong = asked.rule.wrong(&now);
                if let Some(then) = then.as_ref().filter(|_| pairing.was_meant(asked.rule)) {
                    wrong = wrong.without(&asked.rule.wrong(then));
                }
                if !wrong.is_empty() {
                    asked.found = Some(Violation::new(source, destination, wrong));
                }
            }
        }
    }

    /// Judges the flows of a group with addresses outside.
    pub(super) fn outside(&mut self, rules: &[usize], side: Side, own: (Option<&Group>, &Group)) {
        let direction = side.direction();
        let (before, after) = own;
        let Some(pod) = after.pods().first() else {
            return;
        };
        for number in rules {
            let Some(asked) = self.rules.get_mut(*number) else {
                continue;
            };
            let ends = asked.rule.end(side.other());
            if asked.found.is_some() || !has_outside(ends) {
                continue;
            }
            let then = before.filter(|group| asked.rule.means(side, group));
            let holdings: Vec<_> = then
                .into_iter()
                .chain([after])
                .map(|group| group.holding(direction))
                .collect();
            for address in samples(ends, &holdings) {
                let family = Family::of(address);
                if !is_of(pod, family) {
                    continue;
                }
                let passes = |group: &Group, pod: &Pod| {
                    asked
                        .rule
                        .wrong(&group.passes_outside(direction, pod, address))
                };
                let mut wrong = passes(after, pod);
                if let Some((group, old)) =
                    then.and_then(|group| Some((group, group.pods().first()?)))
                    && is_of(old, family)
                {
                    wrong = wrong.without(&passes(group, old));
                }
                if !wrong.is_empty() {
                    asked.found = Some(Violation::outside(side, pod, address, wrong));
                    break;
                }
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

    /// Whether nothing but the ports can have changed.
    fn is_settled(&self) -> bool {
        let is_same = |(before, after): (Option<&Group>, &Group)| {
            before.is_some_and(|before| {
                before.namespace_labels() == after.namespace_labels()
                    && before.labels() == after.labels()
            })
        };
        is_same(self.own) && is_same(self.other)
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
