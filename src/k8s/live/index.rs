//! The state as the watches have told it so far. No IO: changes go in, and out comes whether they mattered.
//!
//! One loop for all kinds. A change costs what it changes; what is told again and says the same costs nothing more. An
//! object that cannot be understood does not take the place of its last good version, and is remembered with the reason.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::kind::Kind;
use super::object::{Item, Key, Told};
use crate::guard::decide::State;
use crate::guard::enforcement::confirmed::Confirmations;
use crate::guard::engine::PolicyEngine;
use crate::guard::exemption::{Exemption, Exemptions};
use crate::guard::guardrail::{Guardrail, Guardrails};
use crate::guard::reachability::{ReachabilityRule, ReachabilityRules};
use crate::guard::review::Kind as Known;
use crate::netpol::{
    ClusterPolicyRef, NamespaceState, Object, ObjectKey, PolicyRef, Snapshot, WorkloadKind,
    WorkloadRef,
};

/// What a watch tells.
#[derive(Debug)]
pub(super) enum Change {
    /// An object is there, or is different.
    Apply(Box<Item>),
    /// An object is gone.
    Delete(Key),
    /// These are all there are: whatever else was known of the kind is gone.
    Restart(Vec<Item>),
    /// The kind is not served: nothing is there, and the next list may be long in coming.
    Absent,
}

/// An object that cannot be understood. Its last good version, if there was one, stays in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecodable {
    /// Its kind.
    pub kind: Kind,
    /// Which one.
    pub key: Key,
    /// What is wrong with it, each problem with its field.
    pub reason: String,
    /// Whether an earlier version of it is still in force.
    pub earlier_in_force: bool,
    /// Whether neither it nor the earlier version is to hold anybody: a policy that is only tried.
    pub holds_nobody: bool,
}

/// How an object stands of which the controller says whether it is in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// Its kind.
    pub kind: Kind,
    /// Which one.
    pub key: Key,
    /// What its status says.
    pub told: Told,
    /// Why it cannot be understood, where it cannot.
    pub problem: Option<Undecodable>,
}

/// The state so far.
#[derive(Debug, Default)]
pub(super) struct Index {
    snapshot: Snapshot,
    guardrails: BTreeMap<String, Guardrail>,
    rules: BTreeMap<String, ReachabilityRule>,
    exemptions: BTreeMap<Key, Exemption>,
    confirmations: Confirmations,
    undecodable: BTreeMap<(Kind, Key), Undecodable>,
    undecodable_changed: bool,
    told: BTreeMap<(Kind, Key), Told>,
    standings_changed: bool,
    /// What has come, changed or gone since the last state was made.
    changed: Vec<ObjectKey>,
    /// What was published last, where nothing of it has changed since.
    made: Made,
}

#[derive(Debug, Default)]
struct Made {
    guardrails: Option<Guardrails>,
    exemptions: Option<Exemptions>,
    reachability: Option<ReachabilityRules>,
}

// === impl Index ===

impl Index {
    /// Takes a change in; tells whether the state is another one after it.
    pub(super) fn take(&mut self, kind: Kind, change: Change) -> bool {
        match change {
            Change::Apply(item) => self.apply(kind, *item),
            Change::Delete(key) => self.delete(kind, &key),
            Change::Absent => self.restart(kind, Vec::new()),
            Change::Restart(items) => self.restart(kind, items),
        }
    }

    fn restart(&mut self, kind: Kind, items: Vec<Item>) -> bool {
        let there: HashSet<Key> = items.iter().map(|item| item.key.clone()).collect();
        let mut mattered = false;
        for item in items {
            mattered |= self.apply(kind, item);
        }
        for gone in self.keys(kind) {
            if !there.contains(&gone) {
                mattered |= self.delete(kind, &gone);
            }
        }
        mattered
    }

    /// What cannot be understood now, where that is something else than when it was asked last.
    pub(super) fn undecodable_if_changed(&mut self) -> Option<Vec<Undecodable>> {
        let changed = std::mem::take(&mut self.undecodable_changed);
        self.standings_changed |= changed;
        changed.then(|| self.undecodable.values().cloned().collect())
    }

    /// How all stand of which the controller says it, where that is something else than when it was asked last.
    pub(super) fn standings_if_changed(&mut self) -> Option<Vec<Standing>> {
        let changed = std::mem::take(&mut self.standings_changed);
        let standing = |(place, told): (&(Kind, Key), &Told)| Standing {
            kind: place.0,
            key: place.1.clone(),
            told: told.clone(),
            problem: self.undecodable.get(place).cloned(),
        };
        changed.then(|| self.told.iter().map(standing).collect())
    }

    /// The state to publish.
    pub(super) fn state(&mut self, engine: Arc<dyn PolicyEngine>) -> State {
        let guardrails = self.made.guardrails.get_or_insert_with(|| {
            Guardrails::new(self.guardrails.values().cloned().collect()).with_baselines_kept()
        });
        let exemptions = self
            .made
            .exemptions
            .get_or_insert_with(|| Exemptions::new(self.exemptions.values().cloned().collect()));
        let changed = std::mem::take(&mut self.changed);
        let reachability = match self.made.reachability.take() {
            Some(same) if changed.is_empty() => same,
            Some(before) => before.following(&self.snapshot, &changed),
            None => ReachabilityRules::new(self.rules.values().cloned().collect(), &self.snapshot),
        };
        self.made.reachability = Some(reachability.clone());
        State {
            snapshot: self.snapshot.clone(),
            guardrails: guardrails
                .clone()
                .with_confirmations(Some(self.confirmations.clone())),
            exemptions: exemptions.clone(),
            reachability,
            engine,
        }
    }

    /// The objects of the model, and what of them has come, changed or gone since this was asked last.
    pub(super) fn model(&mut self) -> (Snapshot, Vec<ObjectKey>) {
        (self.snapshot.clone(), std::mem::take(&mut self.changed))
    }

    fn apply(&mut self, kind: Kind, item: Item) -> bool {
        let Item {
            key,
            known,
            told,
            holds_nobody,
        } = item;
        if let Some(told) = told {
            let place = (kind, key.clone());
            if self.told.get(&place) != Some(&told) {
                self.told.insert(place, told);
                self.standings_changed = true;
            }
        }
        let mattered = match known {
            Known::Model(parsed) => self.insert(parsed.object),
            Known::Guardrail(guardrail) => {
                let same = self.guardrails.get(&key.name);
                let mattered = same.is_none_or(|same| same.spec != guardrail.spec);
                if mattered {
                    self.guardrails.insert(key.name.clone(), *guardrail);
                    self.made.guardrails = None;
                }
                mattered
            }
            Known::ReachabilityRule(rule) => {
                let mattered = self.rules.get(&key.name) != Some(&*rule);
                if mattered {
                    self.rules.insert(key.name.clone(), *rule);
                    self.made.reachability = None;
                }
                mattered
            }
            Known::Exemption(exemption) => {
                let mattered = self.exemptions.get(&key) != Some(&*exemption);
                if mattered {
                    self.exemptions.insert(key.clone(), *exemption);
                    self.made.exemptions = None;
                }
                mattered
            }
            Known::NodeEnforcement(receipt) => self.confirmations.insert(*receipt),
            Known::Invalid(error) => {
                self.note(kind, key, error.to_string(), holds_nobody);
                return false;
            }
            // The API server sends what was asked for.
            Known::Other => {
                self.note(
                    kind,
                    key,
                    "it is not of the kind that was asked for".to_owned(),
                    holds_nobody,
                );
                return false;
            }
        };
        self.understand(kind, key);
        mattered
    }

    fn note(&mut self, kind: Kind, key: Key, reason: String, holds_nobody: bool) {
        let earlier_in_force = self.has(kind, &key);
        let staged = match model_key(kind, &key) {
            Some(ObjectKey::StagedNetworkPolicy(policy)) => self.snapshot.staged_policy(&policy),
            _ => None,
        };
        let held_some = staged.is_some_and(|staged| staged.in_force_for().is_some());
        let new = Undecodable {
            kind,
            key: key.clone(),
            reason,
            earlier_in_force,
            holds_nobody: holds_nobody && !held_some,
        };
        let place = (kind, key);
        if self.undecodable.get(&place) == Some(&new) {
            return;
        }
        tracing::warn!(
            kind = kind.as_str(), namespace = new.key.namespace.as_ref().map_or("", |name| name.as_str()),
            name = %new.key.name, error = %new.reason, earlier_in_force,
            "not understood, left out"
        );
        self.undecodable.insert(place, new);
        self.undecodable_changed = true;
    }

    fn understand(&mut self, kind: Kind, key: Key) {
        self.undecodable_changed |= self.undecodable.remove(&(kind, key)).is_some();
    }

    fn insert(&mut self, object: Object) -> bool {
        if is_known(&self.snapshot, &object) {
            return false;
        }
        self.changed.push(object.key());
        self.snapshot.insert(object);
        true
    }

    fn delete(&mut self, kind: Kind, key: &Key) -> bool {
        self.understand(kind, key.clone());
        self.standings_changed |= self.told.remove(&(kind, key.clone())).is_some();
        match kind {
            Kind::Guardrail => {
                let gone = self.guardrails.remove(&key.name).is_some();
                if gone {
                    self.made.guardrails = None;
                }
                gone
            }
            Kind::ReachabilityRule => {
                let gone = self.rules.remove(&key.name).is_some();
                if gone {
                    self.made.reachability = None;
                }
                gone
            }
            Kind::Exemption => {
                let gone = self.exemptions.remove(key).is_some();
                if gone {
                    self.made.exemptions = None;
                }
                gone
            }
            Kind::NodeEnforcement => self.confirmations.remove(&key.name.as_str().into()),
            Kind::Namespace
            | Kind::Pod
            | Kind::Service
            | Kind::Node
            | Kind::NetworkPolicy
            | Kind::StagedNetworkPolicy
            | Kind::ClusterNetworkPolicy
            | Kind::AdminNetworkPolicy
            | Kind::BaselineAdminNetworkPolicy => {
                let there = self.has(kind, key);
                if let Some(key) = model_key(kind, key).filter(|_| there) {
                    self.snapshot.remove(&key);
                    self.changed.push(key);
                }
                there
            }
        }
    }

    fn has(&self, kind: Kind, key: &Key) -> bool {
        match kind {
            Kind::Guardrail => self.guardrails.contains_key(&key.name),
            Kind::ReachabilityRule => self.rules.contains_key(&key.name),
            Kind::Exemption => self.exemptions.contains_key(key),
            Kind::NodeEnforcement => self.confirmations.contains(&key.name.as_str().into()),
            Kind::Namespace
            | Kind::Pod
            | Kind::Service
            | Kind::Node
            | Kind::NetworkPolicy
            | Kind::StagedNetworkPolicy
            | Kind::ClusterNetworkPolicy
            | Kind::AdminNetworkPolicy
            | Kind::BaselineAdminNetworkPolicy => {
                model_key(kind, key).is_some_and(|key| self.has_model(&key))
            }
        }
    }

    fn has_model(&self, key: &ObjectKey) -> bool {
        let snapshot = &self.snapshot;
        match key {
            ObjectKey::Namespace(name) => snapshot
                .namespace(name)
                .is_some_and(|state| state.object().is_some()),
            ObjectKey::Workload(workload) => snapshot.pod(workload).is_some(),
            ObjectKey::Service { namespace, name } => snapshot.service(namespace, name).is_some(),
            ObjectKey::NetworkPolicy(policy) => snapshot.policy(policy).is_some(),
            ObjectKey::StagedNetworkPolicy(policy) => snapshot.staged_policy(policy).is_some(),
            ObjectKey::ClusterNetworkPolicy(policy) => snapshot.cluster_policy(policy).is_some(),
            ObjectKey::Node(name) => snapshot.node(name).is_some(),
        }
    }

    /// Every object of a kind that is known, understood or not.
    fn keys(&self, kind: Kind) -> Vec<Key> {
        let snapshot = &self.snapshot;
        let wide = |name: &str| Key::new(None, name);
        let mut keys: Vec<Key> = match kind {
            Kind::Namespace => snapshot
                .namespaces()
                .filter(|state| state.object().is_some())
                .map(|state| wide(state.name().as_str()))
                .collect(),
            Kind::Pod => snapshot
                .pods()
                .map(|pod| Key::new(Some(pod.namespace().as_str()), pod.name().as_str()))
                .collect(),
            Kind::Service => snapshot
                .namespaces()
                .flat_map(NamespaceState::services)
                .map(|it| Key::new(Some(it.namespace.as_str()), it.name.as_str()))
                .collect(),
            Kind::NetworkPolicy => snapshot
                .policies()
                .map(|it| Key::new(Some(it.namespace.as_str()), it.name.as_str()))
                .collect(),
            Kind::StagedNetworkPolicy => snapshot
                .staged_policies()
                .map(|it| Key::new(Some(it.policy.namespace.as_str()), it.policy.name.as_str()))
                .collect(),
            Kind::Node => snapshot.nodes().map(|it| wide(it.name.as_str())).collect(),
            Kind::ClusterNetworkPolicy
            | Kind::AdminNetworkPolicy
            | Kind::BaselineAdminNetworkPolicy => snapshot
                .cluster_policies()
                .filter(|it| Some(it.reference.kind) == kind.of_cluster())
                .map(|it| wide(it.reference.name.as_str()))
                .collect(),
            Kind::Guardrail => self.guardrails.keys().map(|name| wide(name)).collect(),
            Kind::ReachabilityRule => self.rules.keys().map(|name| wide(name)).collect(),
            Kind::Exemption => self.exemptions.keys().cloned().collect(),
            Kind::NodeEnforcement => {
                let nodes = self.confirmations.nodes();
                nodes.map(|node| wide(node.as_str())).collect()
            }
        };
        let undecodable = self.undecodable.keys();
        keys.extend(
            undecodable
                .filter(|(of, _)| *of == kind)
                .map(|(_, key)| key.clone()),
        );
        keys
    }
}

/// Whether a snapshot has this very object.
fn is_known(snapshot: &Snapshot, object: &Object) -> bool {
    match object {
        Object::Namespace(new) => {
            snapshot
                .namespace(&new.name)
                .and_then(NamespaceState::object)
                == Some(new)
        }
        Object::Pod(new) | Object::Workload(new) => snapshot.pod(&new.workload) == Some(new),
        Object::Service(new) => snapshot.service(&new.namespace, &new.name) == Some(new),
        Object::NetworkPolicy(new) => snapshot.policy(&new.reference()) == Some(new),
        Object::StagedNetworkPolicy(new) => {
            snapshot.staged_policy(&new.reference()) == Some(&**new)
        }
        Object::ClusterNetworkPolicy(new) => snapshot.cluster_policy(&new.reference) == Some(new),
        Object::Node(new) => snapshot.node(&new.name) == Some(new),
    }
}

/// The object of the model that a key means; `None` for a kind that the model does not hold.
fn model_key(kind: Kind, key: &Key) -> Option<ObjectKey> {
    let name = key.name.as_str();
    Some(match kind {
        Kind::Namespace => ObjectKey::Namespace(name.into()),
        Kind::Node => ObjectKey::Node(name.into()),
        Kind::ClusterNetworkPolicy
        | Kind::AdminNetworkPolicy
        | Kind::BaselineAdminNetworkPolicy => {
            ObjectKey::ClusterNetworkPolicy(ClusterPolicyRef::new(kind.of_cluster()?, name))
        }
        Kind::Pod => ObjectKey::Workload(WorkloadRef {
            kind: WorkloadKind::Pod,
            namespace: key.namespace.clone()?,
            name: name.into(),
        }),
        Kind::Service => ObjectKey::Service {
            namespace: key.namespace.clone()?,
            name: name.into(),
        },
        Kind::NetworkPolicy => {
            ObjectKey::NetworkPolicy(PolicyRef::new(key.namespace.clone()?, name))
        }
        Kind::StagedNetworkPolicy => {
            ObjectKey::StagedNetworkPolicy(PolicyRef::staged(key.namespace.clone()?, name))
        }
        Kind::Guardrail | Kind::ReachabilityRule | Kind::Exemption | Kind::NodeEnforcement => {
            return None;
        }
    })
}

#[cfg(test)]
mod tests;
