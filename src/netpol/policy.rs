//! Network policies, after "absent" and "empty" have been given their meaning.
//!
//! In the API an absent list of rules allows nothing while an absent list of peers allows everyone. Here each
//! meaning has a variant of its own, and nothing is left to be defaulted later. `policy/read.rs` settles it.

use k8s_openapi::api::networking::v1 as api;
use serde::Serialize;

use super::coverage::Direction;
use super::field::Place;
use super::labels::{Annotations, Labels};
use super::name::{NamespaceName, PolicyName, PolicyRef};
use super::pod::Pod;
use super::port::PortMatch;
use super::problem::Problems;
use super::selector::Selector;
use super::staged::Standing;

mod manifest;
mod read;

/// A NetworkPolicy of `networking.k8s.io/v1`.
///
/// <https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.36/#networkpolicy-v1-networking-k8s-io>
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// The namespace whose pods it selects.
    pub namespace: NamespaceName,
    /// Its name.
    pub name: PolicyName,
    /// The pods that it isolates; absent and empty both mean every pod of the namespace.
    pub selector: Selector,
    /// In which directions it isolates them.
    pub isolates: Isolation,
    /// The ingress rules as written; see [`NetworkPolicy::rules`] for those that count.
    pub ingress: Vec<Rule>,
    /// The egress rules as written; see [`NetworkPolicy::rules`] for those that count.
    pub egress: Vec<Rule>,
    /// Its own labels.
    pub labels: Labels,
    /// Its annotations, such as who owns it.
    pub annotations: Annotations,
    /// The number of its spec's version, where the API server has given one.
    pub generation: Option<i64>,
    /// Whether it is in force, and for whom.
    pub standing: Standing,
    /// Whether its deletion was asked for: it is in force until its last finalizer is gone, which may be at any moment.
    pub terminating: bool,
}

/// Whether pods are isolated in a direction: whether all that is not allowed is denied there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Isolates {
    /// They are.
    Yes,
    /// They are not; rules of that direction are without effect.
    No,
}

/// In which directions a policy isolates the pods that it selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Isolation {
    /// For flows to the pods.
    pub ingress: Isolates,
    /// For flows from the pods.
    pub egress: Isolates,
}

/// One rule: the flows that it allows are those of its peers at its ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// Who is at the other end.
    pub peers: Peers,
    /// To which ports of the destination.
    pub ports: Ports,
}

/// The peers of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peers {
    /// Everyone, inside and outside of the cluster: `from` or `to` is absent or empty.
    Any,
    /// Only these, one of which is enough.
    Only(Vec<Peer>),
}

/// The ports of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ports {
    /// All of every protocol: `ports` is absent or empty.
    Any,
    /// Only these, one of which is enough.
    Only(Vec<PortMatch>),
}

/// One peer of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// Pods; never anything outside of the cluster.
    Pods {
        /// In which namespaces.
        namespaces: NamespaceScope,
        /// Which of the pods there; everything where `podSelector` is absent or empty.
        pods: Selector,
    },
    /// Addresses, also those of pods.
    Block {
        /// The block.
        cidr: ipnet::IpNet,
        /// What is not of it: smaller blocks within. Another peer may still allow these.
        except: Vec<ipnet::IpNet>,
    },
}

/// In which namespaces the pods of a peer are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamespaceScope {
    /// The policy's own: `namespaceSelector` is absent.
    Own,
    /// Those that match, the policy's own not excepted; an empty selector means all.
    Selected(Selector),
}

impl NetworkPolicy {
    /// Which policy it is.
    pub fn reference(&self) -> PolicyRef {
        PolicyRef {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            kind: self.standing.kind(),
        }
    }

    /// Whether it isolates the pods that it selects in a direction.
    pub fn isolates(&self, direction: Direction) -> bool {
        self.isolates.is(direction)
    }

    /// Whether it isolates this pod in a direction.
    pub fn isolates_pod(&self, pod: &Pod, direction: Direction) -> bool {
        self.isolates(direction) && self.selects(pod)
    }

    /// Whether it selects this pod by namespace and labels, and is in force for it where that is for some pods only.
    pub fn selects(&self, pod: &Pod) -> bool {
        self.namespace == *pod.namespace()
            && self.selector.matches(&pod.labels)
            && self.standing.is_for(pod)
    }

    /// The rules that count in a direction: none where the policy does not isolate, whatever is written there.
    pub fn rules(&self, direction: Direction) -> &[Rule] {
        match (direction, self.isolates(direction)) {
            (Direction::Ingress, true) => &self.ingress,
            (Direction::Egress, true) => &self.egress,
            (Direction::Ingress | Direction::Egress, false) => &[],
        }
    }

    pub(super) fn read(
        object: &api::NetworkPolicy,
        at: &Place<'_>,
        problems: &mut Problems,
    ) -> Self {
        read::policy(object, at, problems)
    }
}

impl Isolation {
    /// What is meant where `policyTypes` is absent or empty: ingress always, egress if there are rules for it.
    pub fn by_rules(egress_rules: usize) -> Self {
        let egress = if egress_rules > 0 {
            Isolates::Yes
        } else {
            Isolates::No
        };
        Self {
            ingress: Isolates::Yes,
            egress,
        }
    }

    /// Whether pods are isolated in a direction.
    pub fn is(self, direction: Direction) -> bool {
        let isolates = match direction {
            Direction::Ingress => self.ingress,
            Direction::Egress => self.egress,
        };
        isolates == Isolates::Yes
    }
}
