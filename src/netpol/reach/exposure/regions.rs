//! Regions of newcomers: namespaces and pods by selectors, cut where a scope tells them apart, and put together again.

use super::Newcomer;
use crate::netpol::cluster_policy::PodScope;
use crate::netpol::labels::NAMESPACE_NAME_LABEL;
use crate::netpol::selector::{Operator, Requirement, Selector};
use crate::netpol::snapshot::{NamespaceState, Snapshot};

/// How many regions there may be.
pub(super) const MOST: usize = 1_000;

/// Newcomers that are to be told apart from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) namespaces: Selector,
    pub(super) pods: Selector,
}

/// How a region lies to a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lies {
    Within,
    Apart,
    /// Across its border.
    Across,
}

impl Region {
    /// All newcomers.
    pub(super) fn everyone() -> Self {
        Self {
            namespaces: Selector::everything(),
            pods: Selector::everything(),
        }
    }

    pub(super) fn lies(&self, scope: &PodScope) -> Lies {
        if self.namespaces.disjoint(&scope.namespaces) || self.pods.disjoint(&scope.pods) {
            Lies::Apart
        } else if self.namespaces.implies(&scope.namespaces) && self.pods.implies(&scope.pods) {
            Lies::Within
        } else {
            Lies::Across
        }
    }

    /// The parts of it within a scope and apart from it, none of which meets another.
    pub(super) fn cut(self, scope: &PodScope) -> Vec<Region> {
        let mut parts = Vec::new();
        let mut rest = self;
        for requirement in scope.namespaces.requirements() {
            let mut part = rest.clone();
            part.namespaces = part.namespaces.and(&requirement.negated()).reduced();
            parts.push(part);
            rest.namespaces = rest.namespaces.and(requirement).reduced();
        }
        for requirement in scope.pods.requirements() {
            let mut part = rest.clone();
            part.pods = part.pods.and(&requirement.negated()).reduced();
            parts.push(part);
            rest.pods = rest.pods.and(requirement).reduced();
        }
        parts.push(rest);
        parts.retain(|part| !part.is_empty());
        parts
    }

    /// The newcomers of it that a peer means as well: by the labels of namespaces, or in one that is there.
    pub(super) fn and(
        &self,
        namespaces: Option<&Selector>,
        own: &NamespaceState,
        pods: &Selector,
        snapshot: &Snapshot,
    ) -> Option<Newcomer> {
        let pods = Selector::new(both(&self.pods, pods)).reduced();
        if is_contradiction(&pods) {
            return None;
        }
        let Some(selector) = namespaces else {
            return self.namespaces.matches(own.labels()).then(|| Newcomer::In {
                namespace: own.name().clone(),
                pods,
            });
        };
        let all = Selector::new(both(&self.namespaces, selector)).reduced();
        if is_contradiction(&all) {
            return None;
        }
        let namespaces = there(&all, snapshot)?;
        Some(Newcomer::selected(namespaces, pods))
    }

    fn is_empty(&self) -> bool {
        is_contradiction(&self.namespaces) || is_contradiction(&self.pods)
    }
}

fn both(one: &Selector, other: &Selector) -> impl Iterator<Item = Requirement> {
    let all = one.requirements().iter().chain(other.requirements());
    all.cloned().collect::<Vec<_>>().into_iter()
}

fn is_contradiction(selector: &Selector) -> bool {
    selector.disjoint(&Selector::everything())
}

/// A selector of namespaces of which those that it names have the labels that they have: by their names alone, where all are
/// there.
fn there(selector: &Selector, snapshot: &Snapshot) -> Option<Selector> {
    let mut requirements = selector.requirements().iter();
    let by_name = requirements.find_map(|requirement| match requirement.operator() {
        Operator::In(names) if requirement.key() == NAMESPACE_NAME_LABEL => Some(names),
        _ => None,
    });
    let Some(names) = by_name else {
        return Some(selector.clone());
    };
    let known = |name: &str| {
        let state = snapshot.namespace(&name.into())?;
        state.object().map(|_| state.labels().clone())
    };
    let mut are_known = true;
    let mut kept: Vec<&str> = Vec::new();
    for name in names {
        match known(name) {
            Some(labels) if !selector.matches(&labels) => continue,
            Some(_) => {}
            None => are_known = false,
        }
        kept.push(name);
    }
    if kept.is_empty() {
        return None;
    }
    let by_name = Requirement::is_in(NAMESPACE_NAME_LABEL, kept);
    if are_known {
        return Some(Selector::new([by_name]));
    }
    Some(selector.and(&by_name).reduced())
}

/// Newcomers in the fewest words: those that differ in one label only become one.
pub(super) fn joined(mut whos: Vec<Newcomer>) -> Vec<Newcomer> {
    whos.sort();
    whos.dedup();
    loop {
        let before = whos.len();
        let mut index = 0;
        while let Some(one) = whos.get(index) {
            let mut others = whos.iter().enumerate().skip(index.saturating_add(1));
            let found = others.find_map(|(other, who)| Some((other, one.or(who)?)));
            let Some((other, together)) = found else {
                index = index.saturating_add(1);
                continue;
            };
            whos.remove(other);
            whos.remove(index);
            whos.push(together);
        }
        if whos.len() == before {
            break;
        }
    }
    whos
}

impl Newcomer {
    pub(super) fn selected(namespaces: Selector, pods: Selector) -> Self {
        if namespaces.is_everything() && pods.is_everything() {
            return Self::Anyone;
        }
        Self::Selected { namespaces, pods }
    }

    /// Whether the others are as many at least.
    pub(super) fn is_within(&self, other: &Newcomer) -> bool {
        match (self, other) {
            (_, Self::Anyone) => true,
            (
                Self::In { namespace, pods },
                Self::In {
                    namespace: other,
                    pods: others,
                },
            ) => namespace == other && pods.implies(others),
            (
                Self::In { namespace, pods },
                Self::Selected {
                    namespaces,
                    pods: others,
                },
            ) => {
                let name = Requirement::is(NAMESPACE_NAME_LABEL, namespace.as_str());
                Selector::new([name]).implies(namespaces) && pods.implies(others)
            }
            (
                Self::Selected { namespaces, pods },
                Self::Selected {
                    namespaces: other,
                    pods: others,
                },
            ) => namespaces.implies(other) && pods.implies(others),
            (Self::Anyone | Self::Selected { .. }, Self::In { .. })
            | (Self::Anyone, Self::Selected { .. }) => false,
        }
    }

    /// Both together, where that can be said as one.
    fn or(&self, other: &Newcomer) -> Option<Newcomer> {
        if self.is_within(other) {
            return Some(other.clone());
        }
        if other.is_within(self) {
            return Some(self.clone());
        }
        match (self, other) {
            (
                Self::In { namespace, pods },
                Self::In {
                    namespace: other,
                    pods: others,
                },
            ) if namespace == other => Some(Self::In {
                namespace: namespace.clone(),
                pods: pods.or(others)?,
            }),
            (
                Self::Selected { namespaces, pods },
                Self::Selected {
                    namespaces: other,
                    pods: others,
                },
            ) => {
                if namespaces == other {
                    Some(Self::selected(namespaces.clone(), pods.or(others)?))
                } else if pods == others {
                    Some(Self::selected(namespaces.or(other)?, pods.clone()))
                } else {
                    None
                }
            }
            _ => None,
        }
    }
}
