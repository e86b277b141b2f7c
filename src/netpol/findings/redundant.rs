//! Rules and policies that add nothing to the others of their namespace, whatever pods there are or will be.
//!
//! A rule adds nothing where other rules, for all the pods that it is for, allow each of its peers all of its ports: as the
//! selectors, blocks and ports mean it, and not by who happens to be there. A policy adds nothing where none of its rules
//! does and others isolate its pods in each of its directions. They are gone through from the last name to the first, each
//! held against those that were left, so that all that is found can be removed together. A policy without rules is a
//! statement of its own (`default-deny`): it is only ever held against other ones without rules. Rules that are open to
//! everyone make nothing redundant: they are what is to be narrowed.

use std::collections::{BTreeMap, BTreeSet};

use super::neighbourhood::Neighbourhood;
use super::wanted::Wanted;
use crate::netpol::coverage::Direction;
use crate::netpol::labels::NAMESPACE_NAME_LABEL;
use crate::netpol::name::{NamespaceName, PolicyName};
use crate::netpol::policy::{NamespaceScope, NetworkPolicy, Peer, Peers, Ports, Rule};
use crate::netpol::selector::{Operator, Requirement, Selector};
use crate::netpol::snapshot::NamespaceState;

/// What adds nothing in one namespace, each with the policies that make up for it.
#[derive(Debug, Default)]
pub(super) struct Redundant {
    pub(super) policies: BTreeMap<PolicyName, BTreeSet<PolicyName>>,
    pub(super) rules: BTreeMap<(PolicyName, Direction, usize), BTreeSet<PolicyName>>,
}

/// More than this of one namespace is not held against each other: each policy is against each, and so is all that they say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    pub(super) policies: usize,
    /// What they say: [`words`].
    pub(super) words: usize,
}

impl Redundant {
    /// What adds nothing among the policies of a namespace; nothing is said of more than so many.
    pub(super) fn of(near: &Neighbourhood<'_>, namespace: &NamespaceName, most: Most) -> Self {
        let mut found = Self::default();
        let state = near.snapshot().namespace(namespace);
        let policies: Vec<&NetworkPolicy> = state
            .into_iter()
            .flat_map(NamespaceState::effective_policies)
            .take(most.policies.saturating_add(1))
            .collect();
        let words = policies.iter().map(|policy| words(policy)).sum::<usize>();
        if policies.len() > most.policies || words > most.words {
            return found;
        }
        for policy in policies.iter().rev() {
            if let Some(by) = found.policy(policy, &policies) {
                found.policies.insert(policy.name.clone(), by);
            }
        }
        for policy in policies.iter().rev() {
            if found.policies.contains_key(&policy.name) {
                continue;
            }
            for direction in Direction::BOTH {
                for (index, rule) in policy.rules(direction).iter().enumerate().rev() {
                    let at = (policy.name.clone(), direction, index);
                    if let Some(by) = found.covered(policy, direction, rule, Some(index), &policies)
                    {
                        found.rules.insert(at, by);
                    }
                }
            }
        }
        found
    }

    /// The policies that do what this one does.
    fn policy(
        &self,
        policy: &NetworkPolicy,
        policies: &[&NetworkPolicy],
    ) -> Option<BTreeSet<PolicyName>> {
        let is_bare = |policy: &NetworkPolicy| {
            Direction::BOTH
                .iter()
                .all(|way| policy.rules(*way).is_empty())
        };
        let bare = is_bare(policy);
        let mut by = BTreeSet::new();
        for direction in Direction::BOTH {
            if !policy.isolates(direction) {
                continue;
            }
            let mut others = self.beside(policy, direction, policies);
            by.insert(others.find(|other| !bare || is_bare(other))?.name.clone());
            for rule in policy.rules(direction) {
                by.extend(self.covered(policy, direction, rule, None, policies)?);
            }
        }
        Some(by)
    }

    /// The other policies that are left and isolate in a direction, at least, the pods that this one selects.
    fn beside<'p>(
        &'p self,
        policy: &'p NetworkPolicy,
        direction: Direction,
        policies: &'p [&'p NetworkPolicy],
    ) -> impl Iterator<Item = &'p NetworkPolicy> {
        policies
            .iter()
            .copied()
            .filter(move |other| {
                other.name != policy.name
                    && other.isolates(direction)
                    && !self.policies.contains_key(&other.name)
            })
            .filter(|other| is_within(&policy.selector, &other.selector))
    }

    /// The policies that allow all that a rule does; the rule is one of its own policy, which has others, where `index` says
    /// where it stands there.
    fn covered(
        &self,
        policy: &NetworkPolicy,
        direction: Direction,
        rule: &Rule,
        index: Option<usize>,
        policies: &[&NetworkPolicy],
    ) -> Option<BTreeSet<PolicyName>> {
        let mut candidates: Vec<(&NetworkPolicy, &Rule)> = Vec::new();
        let own = index.map(|_| policy);
        for other in own
            .into_iter()
            .chain(self.beside(policy, direction, policies))
        {
            for (position, candidate) in other.rules(direction).iter().enumerate() {
                let is_itself = other.name == policy.name && Some(position) == index;
                let at = (other.name.clone(), direction, position);
                // What is open to everyone is to be narrowed, and not what it makes idle to be removed.
                let is_open = candidate.peers == Peers::Any;
                if !is_itself && !is_open && !self.rules.contains_key(&at) {
                    candidates.push((other, candidate));
                }
            }
        }
        let wanted = Wanted::of([rule]);
        let mut by = BTreeSet::new();
        let mut is_covered = |is_meant: &dyn Fn(&Peers) -> bool| {
            let covering: Vec<_> = candidates
                .iter()
                .filter(|(_, candidate)| is_meant(&candidate.peers))
                .filter(|(_, candidate)| wanted.meets(&Wanted::of([*candidate])))
                .collect();
            by.extend(covering.iter().map(|(other, _)| other.name.clone()));
            wanted.is_within(&Wanted::of(covering.iter().map(|(_, rule)| *rule)))
        };
        let all = match &rule.peers {
            Peers::Any => false,
            Peers::Only(peers) => peers.iter().all(|peer| {
                is_covered(&|candidate| match candidate {
                    Peers::Any => false,
                    Peers::Only(candidates) => candidates
                        .iter()
                        .any(|candidate| is_peer_within(peer, candidate, &policy.namespace)),
                })
            }),
        };
        (all && !by.is_empty()).then_some(by)
    }
}

/// How much a policy says: each peer, each block that one excepts, each port, and each label or value that is asked for.
fn words(policy: &NetworkPolicy) -> usize {
    let of_peer = |peer: &Peer| match peer {
        Peer::Pods { namespaces, pods } => match namespaces {
            NamespaceScope::Own => asked(pods).saturating_add(1),
            NamespaceScope::Selected(namespaces) => {
                let of_both = asked(pods).saturating_add(asked(namespaces));
                of_both.saturating_add(1)
            }
        },
        Peer::Block { except, .. } => except.len().saturating_add(1),
    };
    let rules = Direction::BOTH
        .into_iter()
        .flat_map(|way| policy.rules(way));
    let of_rules = rules.map(|rule| {
        let peers = match &rule.peers {
            Peers::Any => 1,
            Peers::Only(peers) => peers.iter().map(of_peer).sum::<usize>(),
        };
        let ports = match &rule.ports {
            Ports::Any => 0,
            Ports::Only(ports) => ports.len(),
        };
        peers.saturating_add(ports)
    });
    asked(&policy.selector).saturating_add(of_rules.sum())
}

/// The labels and values that a selector asks for.
fn asked(selector: &Selector) -> usize {
    let requirements = selector.requirements().iter();
    let words = requirements.map(|requirement| match requirement.operator() {
        Operator::In(values) | Operator::NotIn(values) => values.len(),
        Operator::Exists | Operator::DoesNotExist => 1,
    });
    words.sum()
}

/// Whether all that one selector means the other one means too.
pub(super) fn is_within(selector: &Selector, other: &Selector) -> bool {
    other.is_everything() || selector == other || selector.implies(other)
}

/// Whether whoever a peer means, now or later, is meant by the other peer too; both stand in policies of one namespace.
fn is_peer_within(peer: &Peer, other: &Peer, own: &NamespaceName) -> bool {
    match (peer, other) {
        (
            Peer::Pods { namespaces, pods },
            Peer::Pods {
                namespaces: other_namespaces,
                pods: other_pods,
            },
        ) => {
            is_within(pods, other_pods)
                && (namespaces == other_namespaces
                    || is_within(&scope(namespaces, own), &scope(other_namespaces, own)))
        }
        (
            Peer::Block { cidr, except },
            Peer::Block {
                cidr: other_cidr,
                except: other_except,
            },
        ) => {
            other_cidr.contains(cidr)
                && other_except.iter().all(|hole| {
                    let is_apart = !hole.contains(cidr) && !cidr.contains(hole);
                    is_apart || except.iter().any(|own| own.contains(hole))
                })
        }
        (Peer::Pods { .. }, Peer::Block { .. }) | (Peer::Block { .. }, Peer::Pods { .. }) => false,
    }
}

/// A scope as a selector of namespaces: nobody can change the label that is a namespace's name.
fn scope(namespaces: &NamespaceScope, own: &NamespaceName) -> Selector {
    match namespaces {
        NamespaceScope::Own => Selector::new([Requirement::is(NAMESPACE_NAME_LABEL, own.as_str())]),
        NamespaceScope::Selected(selector) => selector.clone(),
    }
}
