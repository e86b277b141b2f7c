//! Cluster network policies: rules of the administrator before and after those of namespaces.
//!
//! A [`ClusterNetworkPolicy`] isolates nothing by itself: each rule says what becomes of the flows that it matches, and
//! what none matches goes on. `cluster_policy/manifest.rs` has the shape of the API, `cluster_policy/read.rs` makes
//! these types of it and refuses what the API server would; `verdict/tiers.rs` asks the rules in their order.
//!
//! A rule that cannot be understood *fails closed*, as the API wants it: an Accept then matches nothing, a Deny or a Pass denies
//! everything. See [`ClusterRule::reading`].

use std::fmt;

use serde::Serialize;

use super::coverage::Direction;
use super::labels::{Annotations, Labels};
use super::name::{ClusterPolicyKind, ClusterPolicyRef, PortName};
use super::pod::Pod;
use super::port::PortMatch;
use super::selector::Selector;

pub(super) mod manifest;
mod read;

pub(super) use read::Spec;

/// A ClusterNetworkPolicy of `policy.networking.k8s.io/v1alpha2`, as of release v0.2.0 of the API, or a policy of one of the
/// kinds that it has replaced and many clusters still have: AdminNetworkPolicy and BaselineAdminNetworkPolicy of
/// `v1alpha1`, as of release v0.1.7. These mean the same in other words, and are told by their own kind.
///
/// <https://network-policy-api.sigs.k8s.io/api-overview/#the-clusternetworkpolicy-resource>
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNetworkPolicy {
    /// Its kind and its name.
    pub reference: ClusterPolicyRef,
    /// Whether it comes before or after network policies.
    pub tier: Tier,
    /// Its place among the policies of its tier; of a kind that has no priority, the last one.
    pub priority: Priority,
    /// The pods whose flows it rules; never those on the host network.
    pub subject: PodScope,
    /// The rules for flows to the pods, the first that matches decides.
    pub ingress: Vec<ClusterRule>,
    /// The rules for flows from the pods, the first that matches decides.
    pub egress: Vec<ClusterRule>,
    /// Its own labels.
    pub labels: Labels,
    /// Its annotations, such as who owns it.
    pub annotations: Annotations,
    /// The number of its spec's version, where the API server has given one.
    pub generation: Option<i64>,
}

/// Where in the order of evaluation a policy stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Tier {
    /// Before network policies, which cannot override it.
    Admin,
    /// After them: only for pods that no network policy isolates in the direction.
    Baseline,
}

/// The place of a policy within its tier, 0 to 1000; the lower is asked first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Priority(u16);

/// Where a policy stands, in words: `Admin tier, priority 10`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Its kind, which may have no priority.
    pub kind: ClusterPolicyKind,
    /// Its tier.
    pub tier: Tier,
    /// Its priority there.
    pub priority: Priority,
}

/// What a rule does with the flows that it matches; the strictest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Action {
    /// They do not pass.
    Deny,
    /// The rest of the tier is skipped.
    Pass,
    /// They pass, whatever later tiers say.
    Accept,
}

/// Pods of all namespaces, by the labels of both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodScope {
    /// In which namespaces.
    pub namespaces: Selector,
    /// Which of the pods there.
    pub pods: Selector,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterRule {
    /// What its author calls it.
    pub name: Option<Box<str>>,
    /// What becomes of the flows that it matches.
    pub action: Action,
    /// Who is at the other end; one of them is enough, and there is always one.
    pub peers: Vec<ClusterPeer>,
    /// To which ports of the destination.
    pub ports: ClusterPorts,
}

/// One peer of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClusterPeer {
    /// Pods, never those on the host network.
    Pods(PodScope),
    /// The addresses of nodes, and so of the pods on their network. Of egress only.
    Nodes(Selector),
    /// Addresses, also those of pods. Of egress only.
    Networks(Vec<ipnet::IpNet>),
    /// What these names stand for, which nobody can say without asking a name server. Of egress only.
    DomainNames(Vec<Box<str>>),
    /// A kind of peer that this release of the API does not have.
    Unknown(Box<str>),
}

/// The ports of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClusterPorts {
    /// All of every protocol: `protocols` is absent.
    Any,
    /// Only these, one of which is enough.
    Only(Vec<ClusterPort>),
}

/// One entry of `protocols`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClusterPort {
    /// Numbers of one protocol.
    Numbered(PortMatch),
    /// Whatever number and protocol a container of the destination pod gives to this name.
    Named(PortName),
}

/// How a rule is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// As it is written.
    AsWritten,
    /// It fails closed and matches no flow.
    Nothing(Closed),
    /// It fails closed and denies every flow.
    DenyAll(Closed),
}

/// Why a rule fails closed, or is counted although it is not known to match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Closed {
    /// It has a peer of an unknown kind.
    UnknownPeer,
    /// It has domain names, which are for Accept rules only.
    DomainNames,
    /// It is for nodes of some labels, and the labels of the node in question are not known.
    UnknownNode,
}

impl ClusterNetworkPolicy {
    /// Where it stands, in words.
    pub fn place(&self) -> Place {
        Place {
            kind: self.reference.kind,
            tier: self.tier,
            priority: self.priority,
        }
    }

    /// The rules of a direction, in the order in which they are asked.
    pub fn rules(&self, direction: Direction) -> &[ClusterRule] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    /// Whether it rules the flows of a pod that is in a namespace with these labels.
    pub fn rules_pod(&self, pod: &Pod, namespace: &Labels) -> bool {
        pod.is_held() && self.subject.includes(&pod.labels, namespace)
    }
}

impl Tier {
    /// Both of them, in the order in which they are asked.
    pub const BOTH: [Tier; 2] = [Tier::Admin, Tier::Baseline];

    /// Its name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "Admin",
            Self::Baseline => "Baseline",
        }
    }
}

impl Place {
    /// The priority that the policy was given; none where its kind has none.
    pub fn priority(&self) -> Option<Priority> {
        self.kind.has_priority().then_some(self.priority)
    }
}

impl Priority {
    /// That of what is asked last.
    const LAST: Self = Self(1000);

    /// The priority of a number of the API; none beyond 0 to 1000.
    pub fn new(number: i32) -> Option<Self> {
        let number = u16::try_from(number).ok();
        number.map(Self).filter(|read| *read <= Self::LAST)
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl Action {
    /// All of them.
    pub const ALL: [Action; 3] = [Action::Deny, Action::Pass, Action::Accept];

    /// Its name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "Deny",
            Self::Pass => "Pass",
            Self::Accept => "Accept",
        }
    }
}

impl PodScope {
    /// Whether pods with some labels in a namespace with others are meant.
    pub fn includes(&self, pod: &Labels, namespace: &Labels) -> bool {
        self.namespaces.matches(namespace) && self.pods.matches(pod)
    }

    /// Whether every pod of every namespace is meant.
    pub fn is_everything(&self) -> bool {
        self.namespaces.is_everything() && self.pods.is_everything()
    }
}

impl ClusterRule {
    /// How it is to be taken: as written, or closed where it has what cannot be understood.
    pub fn reading(&self) -> Reading {
        let closed = self.peers.iter().find_map(|peer| match peer {
            ClusterPeer::Unknown(_) => Some(Closed::UnknownPeer),
            ClusterPeer::DomainNames(_) if self.action != Action::Accept => {
                Some(Closed::DomainNames)
            }
            ClusterPeer::Pods(_)
            | ClusterPeer::Nodes(_)
            | ClusterPeer::Networks(_)
            | ClusterPeer::DomainNames(_) => None,
        });
        match (closed, self.action) {
            (None, _) => Reading::AsWritten,
            (Some(why), Action::Accept) => Reading::Nothing(why),
            (Some(why), Action::Deny | Action::Pass) => Reading::DenyAll(why),
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tier", self.tier)?;
        match self.priority() {
            Some(priority) => write!(f, ", priority {priority}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownPeer => "it has a kind of peer that is not known, and fails closed",
            Self::DomainNames => {
                "it has domain names, which only Accept rules may have, and fails closed"
            }
            Self::UnknownNode => "the labels of the node are not known, so that it may be meant",
        })
    }
}

#[cfg(test)]
mod tests;
