//! A change held against the rules in force: only the pairs of groups that it can alter are judged, before and after.
//!
//! A policy alters flows of the pods that it selects, a namespace's labels those of its pods, a workload its own. These
//! are the *touched* groups; at the other end may be any group that a rule means there, less those that the changed
//! rules of a policy cannot mean. What was wrong before is left out, port by port: of each pair of pods only what the
//! change makes wrong is held against it.

use std::collections::BTreeSet;

use super::index::{Index, Member, Part, meaning};
use super::search::{Broken, Pairing, Search};
use super::{Expect, ReachabilityRule, ReachabilityRules, Side};
use crate::guard::decide::Cut;
use crate::guard::review::{Review, Subject};
use crate::netpol::groups::{Group, Opened};
use crate::netpol::object::ObjectKey;
use crate::netpol::reach::bits::BitSet;
use crate::netpol::{Direction, NamespaceName, Object, Pod, PortSet, Snapshot};

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

/// What a change is held against.
struct Asking<'r> {
    rules: &'r [ReachabilityRule],
    /// Of each group of the namespace.
    meanings: Vec<Meaning>,
    index: &'r Index,
}

/// The rules that mean a group at each side, by their positions.
struct Meaning {
    from: BitSet,
    to: BitSet,
}

/// The rules that a touched group at one side may break, by their positions.
struct Suspects {
    rules: BitSet,
    /// Those of them that demand flows which they have not demanded before, so that it is not enough to look at what was
    /// open.
    new_demands: BitSet,
    /// The ports of the others at which more passes, and less.
    opened: PortSet,
    closed: PortSet,
}

// === impl Change ===

impl Change {
    /// What a review changes; none where no flow can be altered.
    pub(super) fn of(review: &Review, before: &Snapshot, after: &Snapshot) -> Option<Self> {
        let old = review.old_object.as_ref().and_then(Subject::model);
        let new = review.object.as_ref().and_then(Subject::model);
        match (old.or(new)?, new) {
            (Object::NetworkPolicy(policy), _) => {
                Self::in_place(Kind::Policy, &policy.namespace, before, after)
            }
            (Object::StagedNetworkPolicy(staged), Some(_)) => {
                Self::of_trial(&staged.policy.namespace, before, after)
            }
            (Object::Namespace(namespace), Some(_)) => {
                Self::in_place(Kind::Namespace, &namespace.name, before, after)
            }
            (_, Some(Object::Pod(new) | Object::Workload(new))) => {
                let old = match old {
                    Some(Object::Pod(old) | Object::Workload(old)) => Some(old),
                    // What is there already is nothing new, and a pod of a workload that is there is held to what
                    // its template did not do. A pod is nobody's template, whatever another one says.
                    _ => before.pod(&new.workload).or_else(|| {
                        let owner = new.owner.as_ref()?;
                        let pod = before.pod(owner)?;
                        pod.is_template().then_some(pod)
                    }),
                };
                Self::of_workload(new, old, before, after)
            }
            // A trial that ends leaves what it was never counted upon to change. Who leaves reaches nobody any more; what is of
            // no namespace has ways of its own (`wide.rs`), or none.
            (
                Object::Namespace(_)
                | Object::Pod(_)
                | Object::Workload(_)
                | Object::Service(_)
                | Object::StagedNetworkPolicy(_)
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

    /// A policy that is tried, or otherwise than before.
    fn of_trial(namespace: &NamespaceName, before: &Snapshot, after: &Snapshot) -> Option<Self> {
        let new = after.namespace(namespace)?;
        // Of a namespace of which nothing was known there is no pod either.
        let old = before.namespace(namespace)?;
        let groups = Group::of_trial((old, before), (new, after)).into_iter();
        let locals = groups.map(|(before, after)| Local {
            touched: differ(&before, &after),
            before: Some(before),
            after,
        });
        Self::made_of(Kind::Policy, namespace, locals.collect())
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
        let known = index.part(&self.namespace);
        let meanings = self.locals.iter().map(|local| {
            let members = known.into_iter().flat_map(|part| &part.members);
            Meaning::of(&local.after, members, rules)
        });
        let asking = Asking {
            rules: rules.iter().as_slice(),
            meanings: meanings.collect(),
            index,
        };
        let mut search = Search::new(rules, most);
        let mut cut = None;
        for (local, meaning) in self.locals.iter().zip(&asking.meanings) {
            for side in Side::BOTH.into_iter().filter(|_| local.touched) {
                let asked = meaning.at(side).and(search.open());
                if let Err(met) = self.one(local, side, &asked, &asking, &mut search) {
                    cut = Some(met);
                }
            }
        }
        search.broken(cut)
    }

    /// The flows of one touched group, of which it is at one side, by the rules that mean it there.
    fn one(
        &self,
        local: &Local,
        side: Side,
        asked: &BitSet,
        asking: &Asking<'_>,
        search: &mut Search<'_>,
    ) -> Result<(), Cut> {
        let own = (local.before.as_ref(), &local.after);
        let (opened, closed) = self.noticed(own, side);
        let suspects = Suspects::of(asked, asking.rules, side, own, (&opened, &closed));
        let asked = &suspects.rules;
        if asked.is_empty() {
            return Ok(());
        }
        let there = side.other();
        for (other, meaning) in self.locals.iter().zip(&asking.meanings) {
            // Both ends may be altered, so nothing is known before it is asked.
            search.spend()?;
            let pairing = Pairing {
                side,
                own,
                other: (other.before.as_ref(), &other.after),
            };
            search.pair(&asked.and(meaning.at(there)), &pairing);
        }
        let mut pairs = |asked: &BitSet, part: &Part| {
            for member in &part.members {
                if !asked.meets(member.meant(there)) {
                    continue;
                }
                let rules = asked.and(member.meant(there)).and(search.open());
                if rules.is_empty() {
                    continue;
                }
                search.spend()?;
                let group = &member.group;
                if opened.may_be(group) || closed.may_be(group) {
                    let other = (Some(group), group);
                    search.pair(&rules, &Pairing { side, own, other });
                }
            }
            Ok(search.open().meets(asked))
        };
        let index = asking.index;
        let near = suspects.near(index, there.direction(), own);
        for name in near.iter().filter(|name| ***name != self.namespace) {
            if let Some(part) = index.part(name)
                && !pairs(asked, part)?
            {
                return Ok(());
            }
        }
        if !suspects.new_demands.is_empty() {
            for (name, part) in index.parts() {
                let is_asked = *name == self.namespace || near.contains(name);
                if !is_asked && !pairs(&suspects.new_demands, part)? {
                    break;
                }
            }
        }
        search.outside(asked, side, own);
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

// === impl Meaning ===

impl Meaning {
    /// The rules that mean a group, as it was found for one of these that is the same to them where there is such.
    fn of<'m>(
        group: &Group,
        mut known: impl Iterator<Item = &'m Member>,
        rules: &ReachabilityRules,
    ) -> Self {
        let same = known.find(|member| {
            member.group.labels() == group.labels()
                && member.group.namespace_labels() == group.namespace_labels()
        });
        let meant = |side| match same {
            Some(member) => member.meant(side).clone(),
            None => meaning(group, side, rules.iter().as_slice()),
        };
        Self {
            from: meant(Side::From),
            to: meant(Side::To),
        }
    }

    fn at(&self, side: Side) -> &BitSet {
        match side {
            Side::From => &self.from,
            Side::To => &self.to,
        }
    }
}

// === impl Suspects ===

impl Suspects {
    /// Those of some rules that may be broken by flows of a group at one side, for which its policies are open, or closed,
    /// as they were not before.
    fn of(
        asked: &BitSet,
        rules: &[ReachabilityRule],
        side: Side,
        (before, after): (Option<&Group>, &Group),
        (opened, closed): (&Opened<'_>, &Opened<'_>),
    ) -> Self {
        let direction = side.direction();
        let opened = after.ports_opened(direction, opened);
        let closed = before.map(|before| before.ports_opened(direction, closed));
        let mut suspects = Self {
            rules: BitSet::below(rules.len()),
            new_demands: BitSet::below(rules.len()),
            opened: PortSet::none(),
            closed: PortSet::none(),
        };
        for number in asked.iter() {
            let Some(rule) = rules.get(number) else {
                continue;
            };
            let was_meant = before.is_some_and(|before| rule.means(side, before));
            match (rule.spec.expect, &closed) {
                (Expect::Deny, _) => {
                    let ports = rule.ports.and(&opened);
                    if ports.is_empty() {
                        continue;
                    }
                    suspects.opened = suspects.opened.or(&ports);
                }
                (Expect::Allow, Some(closed)) if was_meant => {
                    let ports = rule.ports.and(closed);
                    if ports.is_empty() {
                        continue;
                    }
                    suspects.closed = suspects.closed.or(&ports);
                }
                (Expect::Allow, _) => suspects.new_demands.insert(number),
            }
            suspects.rules.insert(number);
        }
        suspects
    }

    /// The namespaces at whose pods a difference may show: those that let the group pass as it is where that is forbidden,
    /// or have let it pass as it was where that is demanded.
    fn near<'i>(
        &self,
        index: &'i Index,
        direction: Direction,
        (before, after): (Option<&Group>, &Group),
    ) -> BTreeSet<&'i NamespaceName> {
        let mut near = index.open_to(after, direction, &self.opened);
        if let Some(before) = before {
            near.extend(index.open_to(before, direction, &self.closed));
        }
        near
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
