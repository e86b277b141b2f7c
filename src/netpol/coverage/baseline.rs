//! Baseline denies: cluster network policies of the Baseline tier that deny the rest, as a default-deny does.
//!
//! The rest is everyone at every port: for egress all addresses of both families, for ingress all pods, because the API
//! has no ingress peer for what is not a pod. What is accepted before does not matter, unless it is the rest itself.

use super::Direction;
use crate::netpol::cluster_policy::{
    Action, ClusterNetworkPolicy, ClusterPeer, ClusterPorts, ClusterRule, Reading, Tier,
};
use crate::netpol::labels::Labels;
use crate::netpol::name::NamespaceName;
use crate::netpol::net::Family;
use crate::netpol::pod::Pod;
use crate::netpol::snapshot::Snapshot;

impl Snapshot {
    /// The policy of the Baseline tier that denies the rest to a pod that no network policy isolates in a direction.
    pub fn baseline_of_pod(
        &self,
        pod: &Pod,
        direction: Direction,
    ) -> Option<&ClusterNetworkPolicy> {
        let namespace = self.namespace_labels(pod.namespace());
        let ruling = |policy: &ClusterNetworkPolicy| {
            let rules = policy.rules_pod(pod, &namespace);
            (rules, rules)
        };
        self.denying(direction, ruling)
    }

    /// The policy of the Baseline tier that denies the rest to every pod of a namespace, those to come as well.
    pub fn baseline_of_namespace(
        &self,
        name: &NamespaceName,
        direction: Direction,
    ) -> Option<&ClusterNetworkPolicy> {
        let namespace = self.namespace_labels(name);
        self.denying(direction, |policy| {
            let may_rule = policy.subject.namespaces.matches(&namespace);
            (may_rule && policy.subject.pods.is_everything(), may_rule)
        })
    }

    /// The first policy that denies the rest; none where one that may come before it accepts the rest or passes it on.
    /// `ruling` says whether a policy rules all the pods in question, and whether it may rule some.
    fn denying(
        &self,
        direction: Direction,
        ruling: impl Fn(&ClusterNetworkPolicy) -> (bool, bool),
    ) -> Option<&ClusterNetworkPolicy> {
        let policies: Vec<&ClusterNetworkPolicy> =
            self.cluster_policies_of(Tier::Baseline).collect();
        for tied in policies.chunk_by(|one, next| one.priority == next.priority) {
            let mut denying = None;
            for policy in tied {
                let (all, some) = ruling(policy);
                let mut rules = policy.rules(direction).iter();
                let rest = rules.find_map(|rule| of_the_rest(rule, direction));
                match rest {
                    Some(Action::Deny) if all => denying = denying.or(Some(*policy)),
                    Some(Action::Accept | Action::Pass) if some => return None,
                    _ => {}
                }
            }
            if denying.is_some() {
                return denying;
            }
        }
        None
    }
}

/// What a rule does with the rest, where it is for all of it.
fn of_the_rest(rule: &ClusterRule, direction: Direction) -> Option<Action> {
    match rule.reading() {
        Reading::Nothing(_) => return None,
        Reading::DenyAll(_) => return Some(Action::Deny),
        Reading::AsWritten => {}
    }
    if rule.ports != ClusterPorts::Any {
        return None;
    }
    let is_all = match direction {
        Direction::Ingress => rule
            .peers
            .iter()
            .any(|peer| matches!(peer, ClusterPeer::Pods(scope) if scope.is_everything())),
        Direction::Egress => {
            let blocks = rule.peers.iter().flat_map(|peer| match peer {
                ClusterPeer::Networks(blocks) => blocks.as_slice(),
                _ => &[],
            });
            let whole = blocks.filter(|block| block.prefix_len() == 0);
            let families: Vec<Family> = whole.map(Family::of_block).collect();
            Family::BOTH.iter().all(|family| families.contains(family))
        }
    };
    is_all.then_some(rule.action)
}

impl ClusterNetworkPolicy {
    /// Whether it can be the cover of pods: it denies the rest in some direction, as the Baseline tier does.
    pub fn denies_the_rest(&self) -> bool {
        self.tier == Tier::Baseline
            && Direction::BOTH.into_iter().any(|direction| {
                let mut rules = self.rules(direction).iter();
                rules.find_map(|rule| of_the_rest(rule, direction)) == Some(Action::Deny)
            })
    }

    /// Whether it may rule pods of a namespace with these labels.
    pub fn may_rule(&self, namespace: &Labels) -> bool {
        self.subject.namespaces.matches(namespace)
    }
}
