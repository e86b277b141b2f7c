//! The pods of a snapshot by namespace, those alike as one, and what is known of whom a peer means.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use super::redundant::{Most, Redundant};
use super::vocabulary::{Answers, Ask, Wild};

use crate::netpol::labels::{Labels, NAMESPACE_NAME_LABEL};
use crate::netpol::name::NamespaceName;
use crate::netpol::pod::Pod;
use crate::netpol::policy::{NamespaceScope, NetworkPolicy, Peer, Peers};
use crate::netpol::port::ContainerPort;
use crate::netpol::selector::{Operator, Selector};
use crate::netpol::snapshot::{NamespaceState, Snapshot};

/// Whose workloads say that a snapshot is of a whole cluster: those of a folder of one's own never are there.
pub const SYSTEM: &str = "kube-system";

/// How much of one namespace is held against each other, in a folder and at admission.
const MANY: Most = Most {
    policies: 500,
    words: 10_000,
};
const SOME: Most = Most {
    policies: 32,
    words: 1_000,
};

/// The pods of a snapshot, sorted for questions about many policies.
#[derive(Debug)]
pub struct Neighbourhood<'s> {
    snapshot: &'s Snapshot,
    crowds: BTreeMap<&'s NamespaceName, Crowd<'s>>,
    /// The namespaces that each selector means which does not name them; empty where that was not looked at.
    selected: HashMap<&'s Selector, Vec<&'s NamespaceName>>,
    /// What adds nothing, by namespace, once it was asked for.
    redundant: BTreeMap<NamespaceName, OnceLock<Redundant>>,
    /// Whether all namespaces are known, and not only those that concern one policy.
    is_all: bool,
    is_whole_cluster: bool,
    nothing: Redundant,
    vocabulary: Answers,
}

/// Where more may run than a snapshot has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gaps {
    /// In these namespaces; in a snapshot of a whole cluster there are none for that.
    In(BTreeSet<NamespaceName>),
    /// Anywhere.
    Everywhere,
}

/// The pods of one namespace.
#[derive(Debug, Default)]
pub(super) struct Crowd<'s> {
    /// Those that policies hold.
    pub(super) kinds: Vec<Kind<'s>>,
    /// Those on the host network and those that have finished.
    pub(super) others: Vec<&'s Pod>,
    /// Whether the namespace itself was read as well, so that what is in it is taken to be all there is.
    pub(super) is_whole: bool,
    /// Whether pods come that are not known, with any labels.
    pub(super) has_gaps: bool,
}

/// Pods that no selector and no port name tells apart; never none.
#[derive(Debug)]
pub(super) struct Kind<'s> {
    pub(super) labels: &'s Labels,
    pub(super) ports: &'s [ContainerPort],
    pub(super) pods: Vec<&'s Pod>,
}

/// Who is meant by a peer that selects pods.
#[derive(Debug)]
pub(super) struct Meant<'n> {
    /// The namespaces that match and that something is known of.
    pub(super) namespaces: Vec<&'n NamespaceName>,
    /// Whether there can be no other namespace, and no other pod in these.
    pub(super) is_certain: bool,
    /// Whether the selector names its namespaces one by one, and workloads of each are known.
    pub(super) is_named: bool,
}

impl<'s> Neighbourhood<'s> {
    /// Everything that is in a snapshot.
    ///
    /// A namespace is taken to be known whole where the Namespace itself and workloads of it were read: a chart for one
    /// application seldom has the first, and says nothing of what else is in the namespace. All namespaces are taken to
    /// be known where the workloads of `kube-system` are.
    pub fn of(snapshot: &'s Snapshot) -> Self {
        let mut all = Self::empty(snapshot);
        all.is_all = true;
        // The labels of a namespace that was not read are not known.
        all.is_whole_cluster &= snapshot
            .namespaces()
            .all(|namespace| namespace.object().is_some());
        for namespace in snapshot.namespaces() {
            all.add(namespace);
            all.redundant
                .insert(namespace.name().clone(), OnceLock::new());
        }
        for policy in snapshot.policies() {
            for selector in namespace_selectors(policy) {
                if names(selector).is_none() && !all.selected.contains_key(selector) {
                    let meant = snapshot
                        .namespaces()
                        .filter(|namespace| selector.matches(namespace.labels()))
                        .map(NamespaceState::name)
                        .collect();
                    all.selected.insert(selector, meant);
                }
            }
        }
        all
    }

    /// The same, where more may run than is known.
    #[must_use]
    pub fn with(mut self, gaps: &Gaps) -> Self {
        self.is_whole_cluster &= *gaps != Gaps::Everywhere;
        let is_gap = |name: &NamespaceName| match gaps {
            Gaps::In(names) => !self.is_whole_cluster && names.contains(name),
            Gaps::Everywhere => true,
        };
        for (name, crowd) in &mut self.crowds {
            crowd.has_gaps = is_gap(name);
            crowd.is_whole &= !crowd.has_gaps;
        }
        self
    }

    /// What is next to one policy: its own namespace and those that its peers name. None where that is more than so
    /// many pods. What peers select by the labels of namespaces stays unknown.
    pub fn around(snapshot: &'s Snapshot, policy: &NetworkPolicy, pods: usize) -> Option<Self> {
        let mut near = Self::empty(snapshot);
        let named = namespace_selectors(policy).filter_map(names).flatten();
        let mut seen = 0_usize;
        for name in named
            .map(NamespaceName::from)
            .chain([policy.namespace.clone()])
        {
            let Some(namespace) = snapshot.namespace(&name) else {
                continue;
            };
            if near.crowds.contains_key(namespace.name()) {
                continue;
            }
            seen = seen.saturating_add(namespace.pods().take(pods.saturating_add(1)).count());
            if seen > pods {
                return None;
            }
            near.add(namespace);
        }
        near.redundant
            .insert(policy.namespace.clone(), OnceLock::new());
        Some(near)
    }

    /// The snapshot.
    pub fn snapshot(&self) -> &'s Snapshot {
        self.snapshot
    }

    fn empty(snapshot: &'s Snapshot) -> Self {
        let system = snapshot.namespace(&NamespaceName::from(SYSTEM));
        Self {
            snapshot,
            crowds: BTreeMap::new(),
            selected: HashMap::new(),
            redundant: BTreeMap::new(),
            is_all: false,
            is_whole_cluster: system.is_some_and(|system| system.pods().next().is_some()),
            nothing: Redundant::default(),
            vocabulary: Answers::default(),
        }
    }

    fn add(&mut self, namespace: &'s NamespaceState) {
        let mut crowd = Crowd::default();
        let mut known: HashMap<(&Labels, &[ContainerPort]), usize> = HashMap::new();
        for pod in namespace.pods() {
            if !pod.is_held() {
                crowd.others.push(pod);
                continue;
            }
            let at = *known
                .entry((&pod.labels, &pod.ports))
                .or_insert(crowd.kinds.len());
            match crowd.kinds.get_mut(at) {
                Some(kind) => kind.pods.push(pod),
                None => crowd.kinds.push(Kind {
                    labels: &pod.labels,
                    ports: &pod.ports,
                    pods: vec![pod],
                }),
            }
        }
        let has_pods = !crowd.kinds.is_empty() || !crowd.others.is_empty();
        if has_pods {
            crowd.is_whole = namespace.object().is_some();
            self.crowds.insert(namespace.name(), crowd);
        }
    }

    /// The pods of a namespace; none where no workload of it is known.
    pub(super) fn crowd(&self, namespace: &NamespaceName) -> Option<&Crowd<'s>> {
        self.crowds.get(namespace)
    }

    /// What adds nothing to the other policies of a namespace.
    pub(super) fn redundant(&self, namespace: &NamespaceName) -> &Redundant {
        let most = if self.is_all { MANY } else { SOME };
        match self.redundant.get(namespace) {
            Some(found) => found.get_or_init(|| Redundant::of(self, namespace, most)),
            None => &self.nothing,
        }
    }

    /// The label keys whose values have run wild, by name; an answer is kept for who asks the same again.
    pub fn wild(&self, ask: &Ask) -> Arc<[Wild]> {
        self.vocabulary.of(self.snapshot, ask)
    }

    /// Whether what was read is a whole cluster.
    pub(super) fn is_whole_cluster(&self) -> bool {
        self.is_whole_cluster
    }

    /// Whether all namespaces were looked at.
    pub(super) fn is_all(&self) -> bool {
        self.is_all
    }

    /// The namespaces that a peer means; none where that was not looked at.
    pub(super) fn meant<'n>(
        &'n self,
        policy: &'n NetworkPolicy,
        namespaces: &NamespaceScope,
    ) -> Option<Meant<'n>> {
        let is_whole = |name: &NamespaceName| self.crowd(name).is_some_and(|crowd| crowd.is_whole);
        let selector = match namespaces {
            NamespaceScope::Own => {
                return Some(Meant {
                    namespaces: vec![&policy.namespace],
                    is_certain: is_whole(&policy.namespace),
                    is_named: self.crowd(&policy.namespace).is_some(),
                });
            }
            NamespaceScope::Selected(selector) => selector,
        };
        let Some(named) = names(selector) else {
            return Some(Meant {
                namespaces: self.selected.get(selector)?.clone(),
                is_certain: self.is_whole_cluster,
                is_named: false,
            });
        };
        let mut meant = Meant {
            namespaces: Vec::new(),
            is_certain: true,
            is_named: true,
        };
        for name in named {
            let Some(state) = self.snapshot.namespace(&NamespaceName::from(name)) else {
                meant.is_certain &= self.is_whole_cluster;
                meant.is_named = false;
                continue;
            };
            let is_known = state.object().is_some();
            meant.is_certain &= is_known && (self.is_whole_cluster || is_whole(state.name()));
            meant.is_named &= self.crowd(state.name()).is_some();
            if selector.matches(state.labels()) {
                meant.namespaces.push(state.name());
            }
        }
        Some(meant)
    }

    /// The pods that a policy holds, by kind.
    pub(super) fn held<'n>(
        &'n self,
        policy: &'n NetworkPolicy,
    ) -> impl Iterator<Item = &'n Kind<'s>> {
        let kinds = self
            .crowd(&policy.namespace)
            .into_iter()
            .flat_map(|crowd| &crowd.kinds);
        kinds.filter(|kind| policy.selector.matches(kind.labels))
    }
}

/// The names of the namespaces that a selector can match at most, where it says so.
pub(super) fn names(selector: &Selector) -> Option<impl Iterator<Item = &str>> {
    let mut requirements = selector.requirements().iter();
    requirements.find_map(|requirement| match requirement.operator() {
        Operator::In(values) if requirement.key() == NAMESPACE_NAME_LABEL => {
            Some(values.iter().map(AsRef::as_ref))
        }
        _ => None,
    })
}

/// Whether what is said of a policy may rest on the pods and policies of one of these other namespaces, given by their labels.
/// What rests on which namespaces there are, and with which labels, is not meant.
pub fn looks_at(policy: &NetworkPolicy, namespaces: &[Labels]) -> bool {
    let rules = policy.ingress.iter().chain(&policy.egress);
    let mut peers = rules.flat_map(|rule| match &rule.peers {
        Peers::Any => &[][..],
        Peers::Only(peers) => peers,
    });
    let is_meant = |selector: &Selector, labels: &Labels| {
        // One that is named and does not match is looked at all the same.
        let own = labels.get(NAMESPACE_NAME_LABEL);
        let is_named = names(selector).is_some_and(|mut names| names.any(|name| Some(name) == own));
        is_named || selector.matches(labels)
    };
    peers.any(|peer| match peer {
        // Any pod may have such an address.
        Peer::Block { .. } => true,
        Peer::Pods {
            namespaces: NamespaceScope::Own,
            ..
        } => false,
        Peer::Pods {
            namespaces: NamespaceScope::Selected(selector),
            ..
        } => namespaces.iter().any(|labels| is_meant(selector, labels)),
    })
}

/// The selectors of namespaces that the rules of a policy have.
fn namespace_selectors(policy: &NetworkPolicy) -> impl Iterator<Item = &Selector> {
    let rules = policy.ingress.iter().chain(&policy.egress);
    let peers = rules.flat_map(|rule| match &rule.peers {
        Peers::Any => &[][..],
        Peers::Only(peers) => peers,
    });
    peers.filter_map(|peer| match peer {
        Peer::Pods {
            namespaces: NamespaceScope::Selected(selector),
            ..
        } => Some(selector),
        Peer::Pods { .. } | Peer::Block { .. } => None,
    })
}
