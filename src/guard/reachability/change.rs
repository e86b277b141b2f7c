//! A change held against the rules in force: only the pairs of groups that it can alter are judged, before and after.
//!
//! A policy alters flows of the pods that it selects, a namespace's labels those of its pods, a workload its own. These
//! are the *touched* groups; at the other end may be any group that a rule means there, less those that the changed
//! rules of a policy cannot mean. What was wrong before is left out, port by port: of each pair of pods only what the
//! change makes wrong is held against it.

use std::sync::Arc;

use super::index::Index;
use super::outside::{has_outside, ordered, samples};
use super::whole::{Violation, is_of};
use super::{Expect, ReachabilityRule, ReachabilityRules, Side};
use crate::guard::decide::Cut;
use crate::guard::review::{Operation, Review, Subject};
use crate::netpol::groups::{Group, Opened};
use crate::netpol::net::Family;
use crate::netpol::object::ObjectKey;
use crate::netpol::reach::bits::BitSet;
use crate::netpol::{NamespaceName, Object, Pod, PortSet, Snapshot};

/// A change, as far as reachability is concerned: the namespace that it happens in.
#[derive(Debug)]
pub(super) struct Change {
    namespace: NamespaceName,
    kind: Kind,
    /// All groups of that namespace.
    locals: Vec<Local>,
}

/// What is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A policy: who is meant by rules, and who is at the other end, stays the same.
    Policy,
    /// The labels of a namespace.
    Namespace,
    /// One pod, or template.
    Workload,
}

/// A group of the namespace.
#[derive(Debug)]
struct Local {
    /// None where its pod is new.
    before: Option<Group>,
    after: Group,
    touched: bool,
}

/// The two ends of some flows, before and after.
#[derive(Clone, Copy)]
struct Pairing<'g> {
    side: Side,
    own: (Option<&'g Group>, &'g Group),
    other: (Option<&'g Group>, &'g Group),
}

/// The rules that a change breaks, each with one flow; all of them unless it had to be cut short.
#[derive(Debug, Default)]
pub(super) struct Broken<'r> {
    pub(super) violations: Vec<(&'r ReachabilityRule, Violation)>,
    pub(super) cut: Option<Cut>,
}

/// The search for violations.
struct Search<'r> {
    rules: Vec<Asked<'r>>,
    left: usize,
    most: usize,
}

/// A rule that is asked.
struct Asked<'r> {
    number: usize,
    rule: &'r ReachabilityRule,
    found: Option<Violation>,
}

// === impl Change ===

impl Change {
    /// What a review changes; none where no flow can be altered.
    pub(super) fn of(review: &Review, known: &Snapshot, after: &Snapshot) -> Option<Self> {
        let old = review.old_object.as_ref().and_then(Subject::model);
        let new = review.object.as_ref().and_then(Subject::model);
        // What the server says that there was counts, whether it is known here already or not.
        let before = &match old {
            Some(object) if review.operation != Operation::Create => known.with(object.clone()),
            Some(_) | None => known.clone(),
        };
        match (old.or(new)?, new) {
            (Object::NetworkPolicy(policy), _) => {
                Self::in_place(Kind::Policy, &policy.namespace, before, after)
            }
            (Object::Namespace(namespace), Some(_)) => {
                Self::in_place(Kind::Namespace, &namespace.name, before, after)
            }
            (_, Some(Object::Pod(new) | Object::Workload(new))) => {
                let old = match old {
                    Some(Object::Pod(old) | Object::Workload(old)) => Some(old),
                    // What is there already is nothing new, and a pod of a workload that is there is held to what
                    // its template did not do.
                    _ => before
                        .pod(&new.workload)
                        .or_else(|| before.pod(new.owner.as_ref()?)),
                };
                Self::of_workload(new, old, before, after)
            }
            // Who leaves reaches nobody any more.
            (
                Object::Namespace(_)
                | Object::Pod(_)
                | Object::Workload(_)
                | Object::Service(_)
                | Object::ClusterNetworkPolicy(_)
                | Object::Node(_),
                _,
            ) => None,
        }
    }

    /// A change that leaves the pods of the namespace what they are.
    fn in_place(
        kind: Kind,
        namespace: &NamespaceName,
        before: &Snapshot,
        after: &Snapshot,
    ) -> Option<Self> {
        let (old, new) = (before.namespace(namespace)?, after.namespace(namespace)?);
        if kind == Kind::Namespace
            && old.labels() == new.labels()
            && old.is_terminating() == new.is_terminating()
        {
            return None;
        }
        let groups = Group::of_namespace(old, before).into_iter();
        let groups = groups.zip(Group::of_namespace(new, after));
        let locals: Vec<Local> = groups
            .map(|(before, after)| Local {
                touched: kind == Kind::Namespace || differ(&before, &after),
                before: Some(before),
                after,
            })
            .collect();
        Self::made_of(kind, namespace, locals)
    }

    fn of_workload(
        new: &Pod,
        old: Option<&Pod>,
        before: &Snapshot,
        after: &Snapshot,
    ) -> Option<Self> {
        if old.is_some_and(|old| is_alike(old, new)) {
            return None;
        }
        let namespace = new.namespace();
        let labels = after.namespace_labels(namespace);
        let own = Group::of_pod(new, &labels, after.namespace(namespace), after)?;
        let state = before.namespace(namespace);
        let old = old.and_then(|old| Group::of_pod(old, &labels, state, before));
        let rest = after.without(&ObjectKey::Workload(new.workload.clone()));
        let state = rest.namespace(namespace);
        let rest = state.map(|state| Group::of_namespace(state, &rest));
        let mut locals: Vec<Local> = rest
            .into_iter()
            .flatten()
            .map(|group| Local {
                before: Some(group.clone()),
                after: group,
                touched: false,
            })
            .collect();
        locals.push(Local {
            before: old,
            after: own,
            touched: true,
        });
        Self::made_of(Kind::Workload, namespace, locals)
    }

    fn made_of(kind: Kind, namespace: &NamespaceName, locals: Vec<Local>) -> Option<Self> {
        locals.iter().any(|local| local.touched).then(|| Self {
            namespace: namespace.clone(),
            kind,
            locals,
        })
    }

    /// The rules that it breaks.
    pub(super) fn breaks<'r>(&self, rules: &'r ReachabilityRules, most: usize) -> Broken<'r> {
        let index = rules.index();
        let mut search = Search {
            rules: rules
                .iter()
                .enumerate()
                .map(|(number, rule)| Asked {
                    number,
                    rule,
                    found: None,
                })
                .collect(),
            left: most,
            most,
        };
        let mut cut = None;
        for local in self.locals.iter().filter(|local| local.touched) {
            for side in Side::BOTH {
                if let Err(met) = self.one(local, side, index, &mut search) {
                    cut = Some(met);
                }
            }
        }
        let asked = search.rules.into_iter();
        Broken {
            violations: asked
                .filter_map(|asked| Some((asked.rule, asked.found?)))
                .collect(),
            cut,
        }
    }

    /// The flows of one touched group, of which it is at one side.
    fn one(
        &self,
        local: &Local,
        side: Side,
        index: &Index,
        search: &mut Search<'_>,
    ) -> Result<(), Cut> {
        let own = (local.before.as_ref(), &local.after);
        let (opened, closed) = self.noticed(own, side);
        let rules: Vec<usize> = search.asked(|asked| {
            let altered = match asked.rule.spec.expect {
                Expect::Deny => &opened,
                Expect::Allow => &closed,
            };
            !altered.is_nobody() && asked.rule.means(side, own.1)
        });
        if rules.is_empty() {
            return Ok(());
        }
        for other in &self.locals {
            // Both ends may be altered, so nothing is known before it is asked.
            search.spend()?;
            let pairing = Pairing {
                side,
                own,
                other: (other.before.as_ref(), &other.after),
            };
            search.pair(&rules, &pairing, |asked| {
                asked.rule.means(side.other(), &other.after)
            });
        }
        let mut others = BitSet::below(index.groups.len());
        for rule in &rules {
            if let Some(meant) = index.meant(*rule, side.other()) {
                others.add(meant);
            }
        }
        let here = index.of_namespace(&self.namespace);
        for number in others.iter().filter(|number| !here.contains(number)) {
            let Some(group) = index.groups.get(number) else {
                continue;
            };
            search.spend()?;
            if !(opened.may_be(group) || closed.may_be(group)) {
                continue;
            }
            let pairing = Pairing {
                side,
                own,
                other: (Some(group), group),
            };
            search.pair(&rules, &pairing, |asked| {
                let meant = index.meant(asked.number, side.other());
                meant.is_some_and(|meant| meant.contains(number))
            });
        }
        search.outside(&rules, side, own);
        Ok(())
    }

    /// For whom at the other end a touched group may be open, or closed, as it was not before.
    fn noticed<'g>(
        &self,
        (before, after): (Option<&'g Group>, &'g Group),
        side: Side,
    ) -> (Opened<'g>, Opened<'g>) {
        match (self.kind, before) {
            (Kind::Policy, Some(before)) => {
                let direction = side.direction();
                let (old, new) = (before.holding(direction), after.holding(direction));
                (new.opened_since(old), old.opened_since(new))
            }
            (Kind::Policy | Kind::Namespace | Kind::Workload, _) => {
                (Opened::Everyone, Opened::Everyone)
            }
        }
    }
}

/// Whether policies hold the pods of a group otherwise than before.
fn differ(before: &Group, after: &Group) -> bool {
    Side::BOTH.into_iter().any(|side| {
        let direction = side.direction();
        let (old, new) = (before.holding(direction), after.holding(direction));
        !new.opened_since(old).is_nobody() || !old.opened_since(new).is_nobody()
    })
}

/// Whether two pods are the same to every policy and every rule.
fn is_alike(old: &Pod, new: &Pod) -> bool {
    old.labels == new.labels
        && old.ports == new.ports
        && old.ips == new.ips
        && old.is_held() == new.is_held()
}

// === impl Search ===

impl Search<'_> {
    /// The positions of the rules that are not known to be broken yet and of which something holds.
    fn asked(&self, holds: impl Fn(&Asked<'_>) -> bool) -> Vec<usize> {
        let open = self
            .rules
            .iter()
            .filter(|asked| asked.found.is_none() && holds(asked));
        open.map(|asked| asked.number).collect()
    }

    fn spend(&mut self) -> Result<(), Cut> {
        self.left = self.left.checked_sub(1).ok_or(Cut::Pods(self.most))?;
        Ok(())
    }

    /// Judges the pairs of pods of two groups by the rules that mean the other one.
    fn pair(
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
    fn outside(&mut self, rules: &[usize], side: Side, own: (Option<&Group>, &Group)) {
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
