//! Policies of one namespace that could be one: they select the same pods and isolate them in the same directions, so their
//! rules mean the same in one policy as in several. Policies without rules are statements of their own, and those that add
//! nothing are to be removed and not joined.

use super::neighbourhood::Neighbourhood;
use crate::netpol::coverage::Direction;
use crate::netpol::pod::Pod;
use crate::netpol::policy::NetworkPolicy;
use crate::netpol::snapshot::NamespaceState;

impl<'s> Neighbourhood<'s> {
    /// The policies that could be one with this one, by name and without it.
    pub fn joinable(&self, policy: &NetworkPolicy) -> Vec<&'s NetworkPolicy> {
        if !self.may_be_joined(policy) {
            return Vec::new();
        }
        self.beside(policy)
            .filter(|other| {
                other.name != policy.name
                    && other.selector == policy.selector
                    && other.isolates == policy.isolates
                    && self.may_be_joined(other)
            })
            .collect()
    }

    /// The policies that select a pod, by name.
    pub fn selecting(&self, pod: &Pod) -> Vec<&'s NetworkPolicy> {
        let namespace = self.snapshot().namespace(pod.namespace());
        let policies = namespace
            .into_iter()
            .flat_map(NamespaceState::effective_policies);
        policies
            .filter(|policy| policy.selector.matches(&pod.labels))
            .collect()
    }

    fn beside(&self, policy: &NetworkPolicy) -> impl Iterator<Item = &'s NetworkPolicy> {
        let namespace = self.snapshot().namespace(&policy.namespace);
        namespace
            .into_iter()
            .flat_map(NamespaceState::effective_policies)
    }

    fn may_be_joined(&self, policy: &NetworkPolicy) -> bool {
        let redundant = self.redundant(&policy.namespace);
        Direction::BOTH
            .iter()
            .any(|direction| !policy.rules(*direction).is_empty())
            && !redundant.policies.contains_key(&policy.name)
    }
}
