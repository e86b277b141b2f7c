//! The flows that a rule speaks of: of which pods, with whom, at which ports.

use ipnet::IpNet;

use crate::netpol::cluster_policy::{
    Action, ClusterNetworkPolicy, ClusterPeer, ClusterRule, Reading,
};
use crate::netpol::findings::neighbourhood::names;
use crate::netpol::findings::nothing::is_contradiction;
use crate::netpol::findings::redundant::is_within;
use crate::netpol::findings::wanted::Wanted;
use crate::netpol::labels::{Labels, NAMESPACE_NAME_LABEL};
use crate::netpol::name::NamespaceName;
use crate::netpol::net::Family;
use crate::netpol::policy::{NamespaceScope, NetworkPolicy, Peer, Peers, Rule};
use crate::netpol::selector::{Requirement, Selector};
use crate::netpol::snapshot::{NamespaceState, Snapshot};

/// The flows that a rule speaks of.
pub(super) struct Speech<'s> {
    /// Of the pods of which namespaces.
    pub(super) namespaces: Where<'s>,
    pub(super) pods: &'s Selector,
    pub(super) others: Vec<Others<'s>>,
    pub(super) ports: Wanted<'s>,
    /// Whether what is not known of a node is taken for a yes.
    pub(super) is_closed_to_doubt: bool,
}

/// Who is at the other end.
#[derive(Clone, Copy)]
pub(super) enum Others<'s> {
    Anyone,
    Pods(Where<'s>, &'s Selector),
    Block(&'s IpNet),
    Nodes(&'s Selector),
    /// Nobody can say whom it means.
    Unknown,
}

/// Some namespaces.
#[derive(Clone, Copy)]
pub(super) enum Where<'s> {
    One(&'s NamespaceName),
    Selected(&'s Selector),
}

// === impl Speech ===

impl<'s> Speech<'s> {
    /// All flows of the pods of a network policy in a direction.
    pub(super) fn of_pods(policy: &'s NetworkPolicy) -> Self {
        Self {
            namespaces: Where::One(&policy.namespace),
            pods: &policy.selector,
            others: vec![Others::Anyone],
            ports: Wanted::all(),
            is_closed_to_doubt: false,
        }
    }

    /// What a rule of a network policy speaks of.
    pub(super) fn of_rule(policy: &'s NetworkPolicy, rule: &'s Rule) -> Self {
        let peer = |peer: &'s Peer| match peer {
            Peer::Pods { namespaces, pods } => {
                let namespaces = match namespaces {
                    NamespaceScope::Own => Where::One(&policy.namespace),
                    NamespaceScope::Selected(selector) => Where::Selected(selector),
                };
                Others::Pods(namespaces, pods)
            }
            Peer::Block { cidr, .. } => Others::Block(cidr),
        };
        let mut speech = Self::of_pods(policy);
        if let Peers::Only(peers) = &rule.peers {
            speech.others = peers.iter().map(peer).collect();
        }
        speech.ports = Wanted::of([rule]);
        speech
    }

    /// What a rule of a cluster network policy speaks of; nothing where it fails closed, or selects nobody.
    pub(super) fn of_cluster(
        policy: &'s ClusterNetworkPolicy,
        rule: &'s ClusterRule,
    ) -> Option<Self> {
        if rule.reading() != Reading::AsWritten {
            return None;
        }
        let is_nobody = |peer: &ClusterPeer| {
            matches!(peer, ClusterPeer::Pods(scope)
                if is_contradiction(&scope.namespaces) || is_contradiction(&scope.pods))
        };
        if rule.peers.iter().all(is_nobody) {
            return None;
        }
        let others = rule.peers.iter().flat_map(|peer| match peer {
            ClusterPeer::Pods(scope) => {
                vec![Others::Pods(
                    Where::Selected(&scope.namespaces),
                    &scope.pods,
                )]
            }
            ClusterPeer::Networks(blocks) => blocks.iter().map(Others::Block).collect(),
            ClusterPeer::Nodes(selector) => vec![Others::Nodes(selector)],
            ClusterPeer::DomainNames(_) | ClusterPeer::Unknown(_) => vec![Others::Unknown],
        });
        Some(Self {
            namespaces: Where::Selected(&policy.subject.namespaces),
            pods: &policy.subject.pods,
            others: others.collect(),
            ports: Wanted::of_cluster(&rule.ports),
            is_closed_to_doubt: rule.action != Action::Accept,
        })
    }
}

// === impl Others ===

impl Others<'_> {
    /// The families of addresses that they may have.
    pub(super) fn families(&self) -> &'static [Family] {
        match self {
            Self::Block(IpNet::V4(_)) => &[Family::V4],
            Self::Block(IpNet::V6(_)) => &[Family::V6],
            Self::Anyone | Self::Pods(..) | Self::Nodes(_) | Self::Unknown => &Family::BOTH,
        }
    }
}

// === impl Where ===

impl Where<'_> {
    /// Whether a selector means all of them.
    pub(super) fn is_within(&self, other: &Selector, snapshot: &Snapshot) -> bool {
        if other.is_everything() {
            return true;
        }
        match self {
            Self::One(name) => {
                named(name).implies(other)
                    || labels(name, snapshot).is_some_and(|labels| other.matches(labels))
            }
            Self::Selected(own) => {
                is_within(own, other)
                    || names(own).is_some_and(|mut names| {
                        names.all(|name| {
                            labels(&NamespaceName::from(name), snapshot)
                                .is_some_and(|labels| !own.matches(labels) || other.matches(labels))
                        })
                    })
            }
        }
    }

    /// Whether a selector can mean none of them.
    pub(super) fn is_apart(&self, other: &Selector, snapshot: &Snapshot) -> bool {
        match self {
            Self::One(name) => {
                named(name).disjoint(other)
                    || labels(name, snapshot).is_some_and(|labels| !other.matches(labels))
            }
            Self::Selected(own) => own.disjoint(other),
        }
    }
}

/// The selector of one namespace: nobody can change the label that is its name.
fn named(name: &NamespaceName) -> Selector {
    Selector::new([Requirement::is(NAMESPACE_NAME_LABEL, name.as_str())])
}

/// The labels of a namespace that was read.
fn labels<'s>(name: &NamespaceName, snapshot: &'s Snapshot) -> Option<&'s Labels> {
    let state = snapshot.namespace(name)?;
    state.object().map(|_| NamespaceState::labels(state))
}
