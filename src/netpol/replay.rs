//! Recorded flows against policies: what would pass that did not, and what would not that did.
//!
//! A reader of records fills [`Observations`]: each different flow once, with how often it was allowed or denied.
//! [`Replay::of`] finds each end in a snapshot (`replay/resolve.rs`), asks [`Snapshot::verdict`] once per flow that
//! differs, and sums up by workload. Ends that cannot be known are counted by reason, never dropped.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Serialize, Serializer};

use super::cluster_policy::ClusterPeer;
use super::coverage::Direction;
use super::flow::Flow;
use super::labels::NAMESPACE_NAME_LABEL;
use super::name::{NamespaceName, NodeName, ObjectName, PolicyRef};
use super::policy::{NamespaceScope, Peer, Peers, Ports};
use super::port::{Port, PortSpec, Protocol};
use super::snapshot::{NamespaceState, Snapshot};
use super::verdict::{EndVerdict, Verdict};
use super::workload::WorkloadKind;
pub(in crate::netpol) use resolve::{Resolved, Resolver};

pub use record::{Action, Actor, Counts, Observations, Observed, PodActor, Seen, Tally};

mod namespaces;
mod record;
mod resolve;

/// What policies say of recorded flows.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    /// The flows by workload, protocol and port, in the order of their ends.
    pub rows: Vec<Row>,
    /// How many recorded flows have an end that cannot be known, by reason.
    pub unknown: BTreeMap<String, u64>,
    /// Namespaces of recorded pods of which nothing but the name is known, where policies select by other labels.
    pub bare_namespaces: BTreeSet<NamespaceName>,
    /// Policies that name ports, where a destination is known from records only, which tell no port names.
    pub named_ports: BTreeSet<PolicyRef>,
}

/// The flows between two workloads at one port that have the same fate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Who opened them.
    pub from: Who,
    /// To whom.
    pub to: Who,
    /// Over which protocol.
    pub protocol: Protocol,
    /// To which port of the destination.
    pub port: Port,
    /// What becomes of them.
    pub change: Change,
    /// How many there were.
    pub flows: u64,
    /// The policies that deny or allow them, at each end that has any.
    pub because: Vec<Because>,
}

/// One end of recorded flows, as people know it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who {
    /// The pods of a workload, or a pod by itself.
    Workload {
        /// Its namespace.
        namespace: NamespaceName,
        /// Its name.
        name: ObjectName,
        /// Its kind, where it is known.
        kind: Option<WorkloadKind>,
    },
    /// A node.
    Node(NodeName),
    /// An address outside of the cluster.
    Address(IpAddr),
}

/// What becomes of flows under the policies that are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    /// They were allowed and would be denied.
    NewlyDenied,
    /// They were denied and would be allowed.
    NewlyAllowed,
    /// They were allowed and would be.
    StillAllowed,
    /// They were denied and would be.
    StillDenied,
}

/// What policies at one end do to flows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Because {
    /// At which end: egress of the source, ingress of the destination.
    pub direction: Direction,
    /// Those that isolate the pod, where no rule lets flows pass; else the one whose rule decides.
    pub policies: Vec<String>,
    /// Whether a rule decides, and not the lack of one.
    pub by_rule: bool,
}

/// What is told of a flow beside its ends.
type Fate = (Change, Vec<Because>);

impl Replay {
    /// Judges recorded flows by the policies of a snapshot.
    ///
    /// `cluster` is what is known to be addresses of the cluster: one of these that no pod has is unknown, and not
    /// something outside.
    pub fn of(observations: &Observations, snapshot: &Snapshot, cluster: &[IpNet]) -> Self {
        let mut replay = Self::default();
        let snapshot = &*observations.informing(snapshot);
        let mut resolver = Resolver::new(snapshot, cluster);
        let ends: Vec<usize> = observations
            .actors()
            .map(|actor| resolver.resolve(actor))
            .collect();
        // Many pods are one end to policies, so that far fewer flows differ for them than were recorded.
        let mut passed: HashMap<(usize, usize, Protocol, Port), Counts> = HashMap::new();
        for (observed, tally) in observations.iter() {
            let number = |actor: usize| ends.get(actor).copied();
            if let (Some(from), Some(to)) = (number(observed.from), number(observed.to)) {
                let flow = (from, to, observed.protocol, observed.port);
                let counts = passed.entry(flow).or_default();
                counts.allowed = counts.allowed.saturating_add(tally.allowed());
                counts.denied = counts.denied.saturating_add(tally.denied());
            }
        }
        let by_labels = has_namespace_labels(snapshot);
        let mut rows: BTreeMap<(&Who, &Who, Protocol, Port, Fate), u64> = BTreeMap::new();
        for ((from, to, protocol, port), counts) in passed {
            let (source, destination) = match (resolver.end(from), resolver.end(to)) {
                (Some(Resolved::Known(source)), Some(Resolved::Known(destination))) => {
                    (source, destination)
                }
                (Some(Resolved::Unknown(reason)), _) | (_, Some(Resolved::Unknown(reason))) => {
                    let count = replay.unknown.entry(reason.clone()).or_default();
                    *count = count.saturating_add(counts.allowed.saturating_add(counts.denied));
                    continue;
                }
                (None, _) | (_, None) => continue,
            };
            let flow = Flow::new(source.endpoint(), destination.endpoint(), protocol, port);
            let verdict = snapshot.verdict(&flow);
            for (was_allowed, flows) in [(true, counts.allowed), (false, counts.denied)] {
                if flows > 0 {
                    let fate = fate(&verdict, was_allowed);
                    let row = rows.entry((&source.who, &destination.who, protocol, port, fate));
                    let count = row.or_default();
                    *count = count.saturating_add(flows);
                }
            }
            if by_labels {
                let bare = [source, destination].into_iter();
                let bare = bare.filter_map(|known| known.bare_namespace(snapshot));
                replay.bare_namespaces.extend(bare);
            }
            if destination.is_recorded_only() {
                replay.named_ports.extend(naming_ports(&verdict, snapshot));
            }
        }
        let rows = rows.into_iter();
        let rows = rows.map(
            |((from, to, protocol, port, (change, because)), flows)| Row {
                from: from.clone(),
                to: to.clone(),
                protocol,
                port,
                change,
                flows,
                because,
            },
        );
        replay.rows = rows.collect();
        replay
    }

    /// The rows of one fate.
    pub fn of_change(&self, change: Change) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.change == change)
    }

    /// How many flows have one fate.
    pub fn flows(&self, change: Change) -> u64 {
        let flows = self.of_change(change).map(|row| row.flows);
        flows.fold(0, u64::saturating_add)
    }

    /// The flows of one fate that did not have it in another replay of the same records.
    pub fn beyond(&self, before: &Replay, change: Change) -> Vec<Row> {
        let mut known: BTreeMap<(&Who, &Who, Protocol, Port), u64> = BTreeMap::new();
        for row in before.of_change(change) {
            let flows = known.entry(row.ends()).or_default();
            *flows = flows.saturating_add(row.flows);
        }
        let rows = self.of_change(change).filter_map(|row| {
            let known = known.entry(row.ends()).or_default();
            let flows = row.flows.saturating_sub(*known);
            *known = known.saturating_sub(row.flows);
            (flows > 0).then(|| Row {
                flows,
                ..row.clone()
            })
        });
        rows.collect()
    }

    /// How many flows have an end that cannot be known.
    pub fn unknown_flows(&self) -> u64 {
        let flows = self.unknown.values().copied();
        flows.fold(0, u64::saturating_add)
    }
}

impl Row {
    /// What makes recorded flows the same.
    fn ends(&self) -> (&Who, &Who, Protocol, Port) {
        (&self.from, &self.to, self.protocol, self.port)
    }
}

fn fate(verdict: &Verdict, was_allowed: bool) -> Fate {
    let passes = verdict.allowed();
    let change = match (was_allowed, passes) {
        (true, false) => Change::NewlyDenied,
        (false, true) => Change::NewlyAllowed,
        (true, true) => Change::StillAllowed,
        (false, false) => Change::StillDenied,
    };
    let ends = [Direction::Egress, Direction::Ingress].into_iter();
    let because = ends.filter_map(|direction| {
        let (policies, by_rule) = match verdict.at(direction) {
            EndVerdict::Denied { isolated_by } => {
                (isolated_by.iter().map(ToString::to_string).collect(), false)
            }
            EndVerdict::Allowed { by, .. } if passes => (vec![by.policy.to_string()], true),
            EndVerdict::Ruled(ruled) if ruled.accepts == passes => {
                (vec![ruled.by.to_string()], true)
            }
            _ => return None,
        };
        Some(Because {
            direction,
            policies,
            by_rule,
        })
    });
    (change, because.collect())
}

/// Those of the policies that deny at the destination, or at the source, which name a port.
fn naming_ports<'v>(
    verdict: &'v Verdict,
    snapshot: &'v Snapshot,
) -> impl Iterator<Item = PolicyRef> + 'v {
    let ends = [Direction::Egress, Direction::Ingress].into_iter();
    ends.flat_map(move |direction| {
        let denying: &[PolicyRef] = match verdict.at(direction) {
            EndVerdict::Denied { isolated_by } => isolated_by,
            _ => &[],
        };
        let naming = denying.iter().filter(move |policy| {
            let rules = snapshot
                .policy(policy)
                .map(|policy| policy.rules(direction));
            rules.into_iter().flatten().any(|rule| match &rule.ports {
                Ports::Any => false,
                Ports::Only(ports) => ports
                    .iter()
                    .any(|port| matches!(port.port, PortSpec::Named(_))),
            })
        });
        naming.cloned()
    })
}

/// Whether any policy looks at addresses.
fn has_blocks(snapshot: &Snapshot) -> bool {
    has_cluster_policies(snapshot) || peers(snapshot).any(|peer| matches!(peer, Peer::Block { .. }))
}

/// Whether there are policies of the whole cluster, whose peers may look at anything.
fn has_cluster_policies(snapshot: &Snapshot) -> bool {
    snapshot.cluster_policies().next().is_some()
}

/// Every block that policies speak of, each once.
fn blocks(snapshot: &Snapshot) -> BTreeSet<IpNet> {
    let blocks = peers(snapshot).flat_map(|peer| match peer {
        Peer::Block { cidr, except } => [&[*cidr][..], except].concat(),
        Peer::Pods { .. } => Vec::new(),
    });
    let wide = snapshot.cluster_policies().flat_map(|policy| {
        let directions = [Direction::Ingress, Direction::Egress].into_iter();
        let rules = directions.flat_map(|direction| policy.rules(direction));
        rules.flat_map(|rule| &rule.peers)
    });
    let networks = wide.flat_map(|peer| match peer {
        ClusterPeer::Networks(blocks) => blocks.as_slice(),
        ClusterPeer::Pods(_)
        | ClusterPeer::Nodes(_)
        | ClusterPeer::DomainNames(_)
        | ClusterPeer::Unknown(_) => &[],
    });
    blocks.chain(networks.copied()).collect()
}

/// Whether any policy looks at labels of namespaces beside the one that is their name.
fn has_namespace_labels(snapshot: &Snapshot) -> bool {
    let by_labels = |peer: &Peer| match peer {
        Peer::Pods {
            namespaces: NamespaceScope::Selected(selector),
            ..
        } => {
            let mut requirements = selector.requirements().iter();
            requirements.any(|requirement| requirement.key() != NAMESPACE_NAME_LABEL)
        }
        Peer::Pods { .. } | Peer::Block { .. } => false,
    };
    has_cluster_policies(snapshot) || peers(snapshot).any(by_labels)
}

/// Every peer of every rule that counts.
fn peers(snapshot: &Snapshot) -> impl Iterator<Item = &Peer> {
    let policies = snapshot
        .namespaces()
        .flat_map(NamespaceState::policies_in_force);
    policies.flat_map(|policy| {
        let directions = [Direction::Ingress, Direction::Egress].into_iter();
        let rules = directions.flat_map(|direction| policy.rules(direction));
        rules.flat_map(|rule| match &rule.peers {
            Peers::Any => &[][..],
            Peers::Only(peers) => peers,
        })
    })
}

// === impl Change ===

impl Change {
    /// All of them, what matters most first.
    pub const ALL: [Change; 4] = [
        Change::NewlyDenied,
        Change::NewlyAllowed,
        Change::StillAllowed,
        Change::StillDenied,
    ];

    /// Its name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NewlyDenied => "newly denied",
            Self::NewlyAllowed => "newly allowed",
            Self::StillAllowed => "still allowed",
            Self::StillDenied => "still denied",
        }
    }
}

// === impl Who ===

impl fmt::Display for Who {
    /// As in `shop/web (Deployment)`, `node n1` or `192.0.2.1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload {
                namespace,
                name,
                kind: Some(kind),
            } => write!(f, "{namespace}/{name} ({kind})"),
            Self::Workload {
                namespace, name, ..
            } => write!(f, "{namespace}/{name}"),
            Self::Node(name) => write!(f, "node {name}"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl Serialize for Who {
    /// `kind`, `namespace` and `name`; or `node`; or `cidr`, as in the answers about reachability.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(None)?;
        match self {
            Self::Workload {
                namespace,
                name,
                kind,
            } => {
                map.serialize_entry("kind", kind)?;
                map.serialize_entry("namespace", namespace)?;
                map.serialize_entry("name", name)?;
            }
            Self::Node(name) => map.serialize_entry("node", name)?,
            Self::Address(address) => {
                map.serialize_entry("cidr", &IpNet::from(*address).to_string())?;
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests;
