//! What never decides a flow, because what is asked before it takes all that it speaks of: rules of cluster network policies
//! behind earlier ones, those of the Baseline tier behind network policies, and network policies behind the Admin tier.
//!
//! As everywhere here, by meaning: a rule is behind others where these take each of its peers at each of its ports, for all
//! pods that it is for, those to come as well. Namespaces are known by the labels that they have. Rules of another
//! policy of equal priority are not before it: which of the two is asked first is not defined.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::neighbourhood::names;
use super::nothing::is_contradiction;
use super::redundant::is_within;
use super::wanted::Wanted;
use super::{Flaw, What, rule_field};
use crate::netpol::cluster_policy::{
    Action, ClusterNetworkPolicy, ClusterPeer, ClusterRule, Priority, Reading, Tier,
};
use crate::netpol::coverage::Direction;
use crate::netpol::field::FieldPath;
use crate::netpol::name::{ClusterPolicyRef, NamespaceName, PolicyRef};
use crate::netpol::net::Family;
use crate::netpol::policy::{NetworkPolicy, Rule};
use crate::netpol::snapshot::Snapshot;
use speech::{Others, Speech};

mod speech;

/// How many cluster network policies a rule is held against; of more nothing is said.
const MOST: usize = 1_000;

/// What is asked before something else, and takes flows from it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Before {
    /// A rule of a cluster network policy.
    Rule {
        /// The policy.
        policy: ClusterPolicyRef,
        /// Its tier.
        tier: Tier,
        /// Its priority.
        priority: Priority,
        /// The position of the rule among those of its direction.
        index: usize,
        /// What becomes of the flows there.
        action: Action,
    },
    /// A network policy, which has the last word on the pods that it isolates.
    Policy(PolicyRef),
}

/// A rule that is asked early.
#[derive(Clone, Copy)]
struct Earlier<'s> {
    policy: &'s ClusterNetworkPolicy,
    index: usize,
    rule: &'s ClusterRule,
    action: Action,
    /// It fails closed, and takes every flow.
    is_closed: bool,
}

/// What never decides in a cluster network policy: the policy as a whole, or rules of it.
pub(super) fn in_cluster_policy(snapshot: &Snapshot, policy: &ClusterNetworkPolicy) -> Vec<Flaw> {
    let is_empty = [&policy.subject.namespaces, &policy.subject.pods]
        .into_iter()
        .any(is_contradiction);
    if is_empty || snapshot.cluster_policies().nth(MOST).is_some() {
        return Vec::new();
    }
    let mut flaws = Vec::new();
    let mut rules = 0_usize;
    for direction in Direction::BOTH {
        for (index, rule) in policy.rules(direction).iter().enumerate() {
            rules = rules.saturating_add(1);
            let Some(speech) = Speech::of_cluster(policy, rule) else {
                continue;
            };
            let before = before(snapshot, policy, direction, index);
            let by = match policy.tier {
                Tier::Admin => taken(snapshot, &speech, &before),
                Tier::Baseline => {
                    let mut all = deciding(snapshot, &speech, direction);
                    all.extend(before);
                    isolated(snapshot, policy, direction).or_else(|| taken(snapshot, &speech, &all))
                }
            };
            if let Some(by) = by {
                flaws.push(Flaw {
                    field: rule_field(direction, index),
                    what: What::RuleShadowed(by),
                });
            }
        }
    }
    if rules < 2 || flaws.len() < rules {
        return flaws;
    }
    let mut all = BTreeSet::new();
    for flaw in flaws {
        if let What::RuleShadowed(by) = flaw.what {
            all.extend(by);
        }
    }
    // What stands before a rule in its own policy is gone with it.
    all.retain(|one| !matches!(one, Before::Rule { policy: own, .. } if *own == policy.reference));
    vec![Flaw {
        field: FieldPath::of(["spec"]),
        what: What::PolicyShadowed(all),
    }]
}

/// The rules of the Admin tier that take everything from a network policy, what it denies as well.
pub(super) fn policy(snapshot: &Snapshot, policy: &NetworkPolicy) -> Option<BTreeSet<Before>> {
    let mut all = BTreeSet::new();
    for direction in Direction::BOTH {
        if policy.isolates(direction) {
            all.extend(by_admin(snapshot, &Speech::of_pods(policy), direction)?);
        }
    }
    (!all.is_empty()).then_some(all)
}

/// The rules of the Admin tier that take everything from a rule of a network policy.
pub(super) fn rule(
    snapshot: &Snapshot,
    policy: &NetworkPolicy,
    direction: Direction,
    rule: &Rule,
) -> Option<BTreeSet<Before>> {
    by_admin(snapshot, &Speech::of_rule(policy, rule), direction)
}

fn by_admin(
    snapshot: &Snapshot,
    speech: &Speech<'_>,
    direction: Direction,
) -> Option<BTreeSet<Before>> {
    if snapshot.cluster_policies().nth(MOST).is_some() {
        return None;
    }
    taken(snapshot, speech, &deciding(snapshot, speech, direction))
}

/// The network policies that isolate all pods of a policy of the Baseline tier, which is then never asked: where it
/// names the namespaces that it is for.
fn isolated(
    snapshot: &Snapshot,
    policy: &ClusterNetworkPolicy,
    direction: Direction,
) -> Option<BTreeSet<Before>> {
    let mut all = BTreeSet::new();
    for name in names(&policy.subject.namespaces)? {
        let state = snapshot.namespace(&NamespaceName::from(name))?;
        let mut policies = state.effective_policies();
        let found = policies.find(|other| {
            other.isolates(direction) && is_within(&policy.subject.pods, &other.selector)
        })?;
        all.insert(Before::Policy(found.reference()));
    }
    (!all.is_empty()).then_some(all)
}

/// The rules of a policy's tier that are asked before one of its own.
fn before<'s>(
    snapshot: &'s Snapshot,
    policy: &'s ClusterNetworkPolicy,
    direction: Direction,
    index: usize,
) -> Vec<Earlier<'s>> {
    let others = snapshot.cluster_policies_of(policy.tier);
    let others = others.filter(|other| other.priority < policy.priority);
    let own = Earlier::of(policy, direction).filter(|earlier| earlier.index < index);
    others
        .flat_map(|other| Earlier::of(other, direction))
        .chain(own)
        .collect()
}

/// The rules of the Admin tier that decide for good some of what is spoken of: none that a Pass may come before.
fn deciding<'s>(
    snapshot: &'s Snapshot,
    speech: &Speech<'_>,
    direction: Direction,
) -> Vec<Earlier<'s>> {
    let all: Vec<Earlier<'s>> = snapshot
        .cluster_policies_of(Tier::Admin)
        .flat_map(|policy| Earlier::of(policy, direction))
        .collect();
    let passing = all
        .iter()
        .filter(|earlier| earlier.action == Action::Pass && earlier.may_meet(snapshot, speech));
    let passing: Vec<Earlier<'s>> = passing.copied().collect();
    let is_free = |earlier: &Earlier<'s>| {
        passing.iter().all(|pass| {
            let is_own = pass.policy.reference == earlier.policy.reference;
            pass.policy.priority > earlier.policy.priority || is_own && pass.index > earlier.index
        })
    };
    all.iter()
        .filter(|earlier| earlier.action != Action::Pass && is_free(earlier))
        .copied()
        .collect()
}

/// The rules that take all that is spoken of; none where something is left.
fn taken(
    snapshot: &Snapshot,
    speech: &Speech<'_>,
    earlier: &[Earlier<'_>],
) -> Option<BTreeSet<Before>> {
    let for_all = |earlier: &&Earlier<'_>| {
        let subject = &earlier.policy.subject;
        speech.namespaces.is_within(&subject.namespaces, snapshot)
            && is_within(speech.pods, &subject.pods)
    };
    let earlier: Vec<&Earlier<'_>> = earlier.iter().filter(for_all).collect();
    if earlier.is_empty() {
        return None;
    }
    let mut by = BTreeSet::new();
    for others in &speech.others {
        for family in others.families() {
            let taking = |one: &&&Earlier<'_>| one.takes(*others, *family, speech, snapshot);
            let taking: Vec<&&Earlier<'_>> = earlier.iter().filter(taking).collect();
            let taking = enough(&taking, &speech.ports).or_else(|| match others {
                Others::Block(block) => piece_by_piece(block, &earlier, &speech.ports),
                _ => None,
            });
            by.extend(taking?.into_iter().map(Earlier::reference));
        }
    }
    (!by.is_empty()).then_some(by)
}

/// Those of some rules that have all ports together: one where one has.
fn enough<'e, 's>(taking: &[&&'e Earlier<'s>], ports: &Wanted<'s>) -> Option<Vec<&'e Earlier<'s>>> {
    let of = |earlier: &Earlier<'s>| earlier.ports();
    let alone = taking.iter().find(|one| ports.is_within(&of(one)));
    if let Some(one) = alone {
        return Some(vec![**one]);
    }
    let own = taking.iter().map(|one| (**one, of(one)));
    let (needed, own): (Vec<_>, Vec<Wanted<'s>>) = own.filter(|(_, own)| ports.meets(own)).unzip();
    ports.is_within(&own.iter().collect()).then_some(needed)
}

/// The rules with all ports whose blocks make up a block together.
fn piece_by_piece<'e, 's>(
    block: &IpNet,
    earlier: &[&'e Earlier<'s>],
    ports: &Wanted<'_>,
) -> Option<Vec<&'e Earlier<'s>>> {
    let mut pieces = Vec::new();
    let mut needed = Vec::new();
    for one in earlier.iter().filter(|one| ports.is_within(&one.ports())) {
        let before = pieces.len();
        let nets = one.networks();
        pieces.extend(nets.filter(|net| block.contains(*net)).copied());
        if pieces.len() > before {
            needed.push(*one);
        }
    }
    let joined = IpNet::aggregate(&pieces);
    joined
        .iter()
        .any(|net| net.contains(block))
        .then_some(needed)
}

// === impl Earlier ===

impl<'s> Earlier<'s> {
    /// The rules of a policy that match something, in their order.
    fn of(policy: &'s ClusterNetworkPolicy, direction: Direction) -> impl Iterator<Item = Self> {
        let rules = policy.rules(direction).iter().enumerate();
        rules.filter_map(move |(index, rule)| {
            let (action, is_closed) = match rule.reading() {
                Reading::Nothing(_) => return None,
                Reading::DenyAll(_) => (Action::Deny, true),
                Reading::AsWritten => (rule.action, false),
            };
            Some(Self {
                policy,
                index,
                rule,
                action,
                is_closed,
            })
        })
    }

    fn ports(&self) -> Wanted<'s> {
        if self.is_closed {
            return Wanted::all();
        }
        Wanted::of_cluster(&self.rule.ports)
    }

    fn networks(&self) -> impl Iterator<Item = &'s IpNet> {
        let peers = self.rule.peers.iter().filter(|_| !self.is_closed);
        peers.flat_map(|peer| match peer {
            ClusterPeer::Networks(blocks) => blocks.as_slice(),
            _ => &[],
        })
    }

    /// Whether it takes all flows with some other ends of one family, at the ports that it has.
    fn takes(
        &self,
        others: Others<'_>,
        family: Family,
        speech: &Speech<'_>,
        snapshot: &Snapshot,
    ) -> bool {
        if self.is_closed {
            return true;
        }
        let is_world = |block: &IpNet| block.prefix_len() == 0 && Family::of_block(block) == family;
        self.rule.peers.iter().any(|peer| match (peer, others) {
            (ClusterPeer::Networks(blocks), Others::Block(own)) => {
                blocks.iter().any(|block| block.contains(own))
            }
            (
                ClusterPeer::Networks(blocks),
                Others::Anyone | Others::Pods(..) | Others::Nodes(_) | Others::Unknown,
            ) => blocks.iter().any(is_world),
            (ClusterPeer::Pods(scope), Others::Pods(namespaces, pods)) => {
                namespaces.is_within(&scope.namespaces, snapshot) && is_within(pods, &scope.pods)
            }
            (ClusterPeer::Nodes(selector), Others::Nodes(own)) => {
                let is_as_closed = self.action != Action::Accept || !speech.is_closed_to_doubt;
                is_as_closed && is_within(own, selector)
            }
            (
                ClusterPeer::Pods(_)
                | ClusterPeer::Nodes(_)
                | ClusterPeer::DomainNames(_)
                | ClusterPeer::Unknown(_),
                _,
            ) => false,
        })
    }

    /// Whether it may match some of what is spoken of.
    fn may_meet(&self, snapshot: &Snapshot, speech: &Speech<'_>) -> bool {
        let subject = &self.policy.subject;
        if speech.namespaces.is_apart(&subject.namespaces, snapshot)
            || speech.pods.disjoint(&subject.pods)
            || speech.ports.is_apart(&self.ports())
        {
            return false;
        }
        let meets = |others: &Others<'_>| {
            self.rule.peers.iter().any(|peer| match (peer, others) {
                (ClusterPeer::Pods(scope), Others::Pods(namespaces, pods)) => {
                    !namespaces.is_apart(&scope.namespaces, snapshot) && !pods.disjoint(&scope.pods)
                }
                (ClusterPeer::Networks(blocks), Others::Block(own)) => blocks
                    .iter()
                    .any(|block| block.contains(*own) || own.contains(block)),
                _ => true,
            })
        };
        speech.others.iter().any(meets)
    }

    fn reference(&self) -> Before {
        Before::Rule {
            policy: self.policy.reference.clone(),
            tier: self.policy.tier,
            priority: self.policy.priority,
            index: self.index,
            action: self.action,
        }
    }
}
