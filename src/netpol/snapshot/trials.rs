//! Policies on trial, and what they make of the policies that are in force.

use std::sync::Arc;

use super::{NamespaceState, Snapshot};
use crate::netpol::name::{NamespaceName, PolicyName, PolicyRef};
use crate::netpol::object::{Object, ObjectKey};
use crate::netpol::policy::NetworkPolicy;
use crate::netpol::staged::{Choice, StagedNetworkPolicy, Standing};

/// A policy on trial, and what it makes of those in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trial {
    staged: Arc<StagedNetworkPolicy>,
    /// The policy as it is in force for the pods that are chosen.
    canary: Option<Arc<NetworkPolicy>>,
    /// The policy of the same name, as it is in force for the others.
    beside: Option<Arc<NetworkPolicy>>,
}

impl Snapshot {
    /// All policies on trial.
    pub fn staged_policies(&self) -> impl Iterator<Item = &StagedNetworkPolicy> {
        self.namespaces().flat_map(NamespaceState::staged_policies)
    }

    /// The policies on trial in a namespace, by name.
    pub fn staged_policies_in(
        &self,
        name: &NamespaceName,
    ) -> impl Iterator<Item = &StagedNetworkPolicy> {
        self.namespace(name)
            .into_iter()
            .flat_map(NamespaceState::staged_policies)
    }

    /// A policy on trial.
    pub fn staged_policy(&self, policy: &PolicyRef) -> Option<&StagedNetworkPolicy> {
        let trial = self.namespace(&policy.namespace)?.trials.get(&policy.name);
        trial.map(|trial| &*trial.staged)
    }

    /// Whether a policy is in force that may be gone at any moment, with nobody asked.
    pub fn is_passing(&self) -> bool {
        self.passing().next().is_some()
    }

    /// The cluster without the policies that may be gone at any moment: those on trial that are in force for some pods, and those
    /// that are being deleted.
    #[must_use]
    pub fn lasting(&self) -> Snapshot {
        let mut lasting = self.clone();
        for policy in self.passing() {
            lasting.remove(&policy);
        }
        lasting
    }

    fn passing(&self) -> impl Iterator<Item = ObjectKey> {
        let staged = self.staged_policies();
        let staged = staged.filter(|staged| staged.in_force_for().is_some());
        let leaving = self.policies().filter(|policy| policy.terminating);
        let staged = staged.map(|staged| ObjectKey::StagedNetworkPolicy(staged.reference()));
        staged.chain(leaving.map(|policy| ObjectKey::NetworkPolicy(policy.reference())))
    }

    /// The cluster as if some policies on trial were promoted: each is in force for all pods that it selects, in the place of
    /// one of the same name where there is one.
    #[must_use]
    pub fn promoting<'s>(
        &self,
        staged: impl IntoIterator<Item = &'s StagedNetworkPolicy>,
    ) -> Snapshot {
        let mut promoted = self.clone();
        for staged in staged {
            promoted.remove(&ObjectKey::StagedNetworkPolicy(staged.reference()));
            promoted.insert(Object::NetworkPolicy(staged.policy.clone()));
        }
        promoted
    }
}

impl NamespaceState {
    /// Its policies on trial, by name.
    pub fn staged_policies(&self) -> impl Iterator<Item = &StagedNetworkPolicy> {
        self.trials.values().map(|trial| &*trial.staged)
    }

    /// Whether another policy is in force in the place of this one, for some pods.
    pub fn gives_way(&self, policy: &NetworkPolicy) -> bool {
        self.tried_in_place_of(policy).is_some()
    }

    /// What is tried in the place of a policy, and for whom it is in force.
    pub(in crate::netpol) fn tried_in_place_of(
        &self,
        policy: &NetworkPolicy,
    ) -> Option<(&Choice, &NetworkPolicy)> {
        let trial = self.trials.get(&policy.name)?;
        let choice = trial.staged.in_force_for()?;
        Some((choice, &trial.staged.policy))
    }

    /// The policies that are in force for pods: those that can be counted upon, and those on trial for the pods that they are
    /// tried on. Whether one is for a pod, [`NetworkPolicy::selects`] says.
    pub fn policies_in_force(&self) -> impl Iterator<Item = &NetworkPolicy> {
        self.shared_policies().map(|policy| &**policy)
    }

    /// Those that are in force for pods, as they are shared between snapshots.
    pub(in crate::netpol) fn shared_policies(&self) -> impl Iterator<Item = &Arc<NetworkPolicy>> {
        let counted = !self.is_terminating();
        let real = self.policies.iter().map(|(name, policy)| {
            let trial = self.trials.get(name);
            let beside = trial.and_then(|trial| trial.beside.as_ref());
            beside.unwrap_or(policy)
        });
        let canaries = self.trials.values();
        let canaries = canaries.filter_map(|trial| trial.canary.as_ref());
        real.chain(canaries).filter(move |_| counted)
    }

    /// The policies that would be in force if all that are on trial were promoted.
    pub fn policies_if_promoted(&self) -> impl Iterator<Item = &NetworkPolicy> {
        let counted = !self.is_terminating();
        let others = self.policies.values().map(|policy| &**policy);
        let others = others.filter(|policy| self.trials.get(&policy.name).is_none());
        let staged = self.trials.values().map(|trial| &trial.staged.policy);
        others.chain(staged).filter(move |_| counted)
    }

    /// The objects of all its policies, those on trial among them.
    pub fn policy_keys(&self) -> impl Iterator<Item = ObjectKey> {
        let staged = self.staged_policies().map(StagedNetworkPolicy::reference);
        let real = self.policies.keys();
        let real = real.map(|name| PolicyRef::new(self.name.clone(), name.clone()));
        let real = real.map(ObjectKey::NetworkPolicy);
        real.chain(staged.map(ObjectKey::StagedNetworkPolicy))
    }

    /// Begins to try a policy, or goes on with another version of it.
    pub(super) fn try_out(&mut self, staged: StagedNetworkPolicy) {
        let name = staged.policy.name.clone();
        let canary = staged.in_force_for().map(|choice| {
            Arc::new(NetworkPolicy {
                standing: Standing::Canary(choice.clone()),
                ..staged.policy.clone()
            })
        });
        let trial = Trial {
            staged: Arc::new(staged),
            canary,
            beside: None,
        };
        self.trials.insert_mut(name.clone(), trial);
        self.follow_trial(&name);
    }

    /// Has the policy of a name give way to the trial of that name, where there are both.
    pub(super) fn follow_trial(&mut self, name: &PolicyName) {
        let Some(trial) = self.trials.get(name) else {
            return;
        };
        let choice = trial.staged.in_force_for();
        let beside = choice.zip(self.policies.get(name)).map(|(choice, policy)| {
            Arc::new(NetworkPolicy {
                standing: Standing::Beside(choice.clone()),
                ..(**policy).clone()
            })
        });
        let trial = Trial {
            beside,
            ..trial.clone()
        };
        self.trials.insert_mut(name.clone(), trial);
    }
}
