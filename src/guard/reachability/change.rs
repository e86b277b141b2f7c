//! A change held against the rules in force: only the pairs of groups that it can alter are judged, before and after.
//!
//! A policy alters flows of the pods that it selects, a namespace's labels those of its pods, a workload its own. These
//! are the *touched* groups; at the other end may be any group that a rule means there, less those that the changed
//! rules of a policy cannot mean. What was wrong before is left out, port by port: of each pair of pods only what the
//! change makes wrong is held against it.

use super::index::Index;
use super::search::{Broken, Pairing, Search};
use super::{Expect, ReachabilityRules, Side};
use crate::guard::decide::Cut;
use crate::guard::review::{Operation, Review, Subject};
use crate::netpol::groups::{Group, Opened};
use crate::netpol::object::ObjectKey;
use crate::netpol::reach::bits::BitSet;
use crate::netpol::{NamespaceName, Object, Pod, Snapshot};

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
            // Who leaves reaches nobody any more; what is of no namespace has ways of its own (`wide.rs`), or none.
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
        let mut search = Search::new(rules, most);
        let mut cut = None;
        for local in self.locals.iter().filter(|local| local.touched) {
            for side in Side::BOTH {
                if let Err(met) = self.one(local, side, index, &mut search) {
                    cut = Some(met);
                }
            }
        }
        search.broken(cut)
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
