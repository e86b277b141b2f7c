//! What became of packets, in words: each that the rules tell of is explained by the model, joined with its like, logged and
//! kept for who asks.
//!
//! A thread reads NFLOG; one task takes what it read. The explanation is that of the policies as they are now: a rule that has
//! changed between the packet and its report is said so.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::flows::{Details, End, Joiner, Kind, Recent, Record, Verdict};
use super::nflog::packet::{Carries, Header};
use super::nflog::{self, Counts, Reader};
use super::notices;
use super::ports::{self, Shared};
use crate::k8s::events::Events;
use crate::k8s::one::chain;
use crate::netpol::labels::TEMPLATE_HASH;
use crate::netpol::{
    Direction, EndVerdict, Endpoint, Family, Flow, NamespaceState, NetworkPolicy, NodeName, Pod,
    PolicyRef, Port, Snapshot, Standing,
};
use crate::telemetry::agent::AgentMetrics;

mod meaning;

use meaning::{Because, CRAFTED, LINK, Meaning, ROUTING, UNASKED, meaning};

/// The number of the hook for packets to the node itself.
const INPUT: u8 = 1;

/// How long equal flows are gathered before they are told again.
const WINDOW: Duration = Duration::from_secs(10);
/// How many different flows are gathered at once.
const DIFFERENT: usize = 4096;
/// How many records are kept for who asks.
const KEPT: usize = 4096;
/// How many batches may wait to be explained.
const WAITING: usize = 64;
/// How often it is looked for what has been gathered long enough.
const LOOK: Duration = Duration::from_secs(1);

/// What tells of packets.
#[derive(Debug)]
pub struct Teller {
    node: NodeName,
    snapshot: Arc<ArcSwap<Snapshot>>,
    ports: Shared,
    recent: Recent,
    metrics: AgentMetrics,
    joiner: Joiner,
    /// Where pods' Events go, if they are to be written.
    events: Option<Events>,
    /// Whether pods are told with their labels.
    labelled: bool,
}

/// How soon a group that cannot be read is tried again: the agent before this one may be on its way out.
const AGAIN: Duration = Duration::from_secs(2);

// === impl Teller ===

impl Teller {
    /// Tells by what is known of the cluster and of interfaces at the time.
    pub fn new(
        node: NodeName,
        snapshot: Arc<ArcSwap<Snapshot>>,
        ports: Shared,
        metrics: AgentMetrics,
    ) -> Self {
        Self {
            node,
            snapshot,
            ports,
            recent: Recent::new(KEPT),
            metrics,
            joiner: Joiner::new(WINDOW, DIFFERENT),
            events: None,
            labelled: false,
        }
    }

    /// The same, and pods get Events of what they lost.
    #[must_use]
    pub fn telling(self, events: Option<Events>) -> Self {
        Self { events, ..self }
    }

    /// The same, and pods are told with their labels: then whoever reads the records needs no manifests.
    #[must_use]
    pub fn with_labels(self, labelled: bool) -> Self {
        Self { labelled, ..self }
    }

    /// Where the last flows are kept.
    pub fn recent(&self) -> Recent {
        self.recent.clone()
    }

    /// Tells what a group of NFLOG says, for as long as it is polled.
    pub async fn run(mut self, group: u16) -> Result<(), Infallible> {
        let mut is_broken = false;
        loop {
            match Reader::open(&nflog::Options::new(group)) {
                Ok(reader) => {
                    is_broken = false;
                    self.read(reader).await;
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_broken, true) {
                        let error = chain(&error);
                        tracing::warn!(%error, "denied packets are counted and not told, trying again");
                    }
                }
            }
            sleep(AGAIN).await;
        }
    }

    async fn read(&mut self, reader: Reader) {
        let (sender, mut batches) = mpsc::channel(WAITING);
        let counts = reader.counts();
        // The thread ends when nobody takes from the channel any more.
        std::thread::spawn(move || {
            if let Err(error) = reader.run(&sender, &AtomicBool::new(false)) {
                tracing::warn!(error = %chain(&error), "denied packets are not told any more");
            }
        });
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lost = 0;
        loop {
            tokio::select! {
                batch = batches.recv() => match batch {
                    Some(batch) => self.take(batch),
                    None => return,
                },
                _ = look.tick() => {
                    for record in self.joiner.due(Timestamp::now()) {
                        self.tell(record);
                    }
                    lost = self.count_lost(&counts, lost);
                }
            }
        }
    }

    fn take(&mut self, batch: Vec<nflog::Record>) {
        let snapshot = self.snapshot.load_full();
        let now = Timestamp::now();
        for logged in batch {
            let Some(meaning) = meaning(&logged.prefix) else {
                continue;
            };
            let Ok(header) = &logged.header else {
                continue;
            };
            let from = match meaning.because {
                Some(Because::Spoofed | Because::Unasked | Because::Routing | Because::Link) => {
                    self.behind(&logged, &snapshot, header.source)
                }
                // It may have come with an address that is nobody's.
                Some(Because::Crafted) => match snapshot.endpoint_at(header.source) {
                    Endpoint::External(claimed) => self.behind(&logged, &snapshot, claimed),
                    known => known,
                },
                None => snapshot.endpoint_at(header.source),
            };
            let to = destination(logged.hook, header, &snapshot, &self.node);
            let mut record = explain(header, (from, to), meaning, &snapshot, &self.node, now);
            if self.labelled {
                record.kind.from.labels = labels(from);
                record.kind.to.labels = labels(to);
            }
            if let Some(record) = self.joiner.add(record, now) {
                self.tell(record);
            }
        }
    }

    /// Who is behind the interface by which a packet came; where that is not known any more, it is whoever the packet says, and
    /// no pod.
    fn behind<'s>(
        &self,
        logged: &nflog::Record,
        snapshot: &'s Snapshot,
        claimed: IpAddr,
    ) -> Endpoint<'s> {
        let name = logged.port.or(logged.input).and_then(ports::name);
        let ports = self.ports.load();
        let mut behind = ports
            .iter()
            .filter(|(_, port)| Some(*port) == name.as_ref());
        let pod = behind.find_map(|(address, _)| snapshot.pod_at(*address));
        pod.map_or(Endpoint::External(claimed), Endpoint::Pod)
    }

    fn tell(&self, record: Record) {
        let Record { kind, details, .. } = &record;
        let port = kind.port;
        match kind.verdict {
            Verdict::Denied => tracing::warn!(
                from = %kind.from, to = %kind.to, protocol = %kind.protocol, port,
                direction = %details.direction, node = %details.node, reason = %details.reason, packets = record.count,
                "denied"
            ),
            Verdict::WouldDeny | Verdict::WouldAllow => tracing::info!(
                from = %kind.from, to = %kind.to, protocol = %kind.protocol, port,
                direction = %details.direction, node = %details.node, reason = %details.reason, packets = record.count,
                staged = %details.policies.join(", "),
                "{}", kind.verdict.as_str()
            ),
            Verdict::Allowed => tracing::debug!(
                from = %kind.from, to = %kind.to, protocol = %kind.protocol, port, packets = record.count,
                "allowed"
            ),
        }
        let notice = |events| Some((events, notices::denied(&record, &self.snapshot.load())?));
        if let Some((events, notice)) = self.events.as_ref().and_then(notice) {
            events.tell(notice);
        }
        self.recent.push(record);
    }

    fn count_lost(&self, counts: &Counts, before: u64) -> u64 {
        let all = [&counts.lost, &counts.dropped, &counts.broken];
        let lost = all.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        self.metrics.lost.inc_by(u64::saturating_sub(lost, before));
        lost
    }
}

/// Whom a packet was for, by the hook that it met: the node itself has more addresses than its Node says.
fn destination<'s>(
    hook: u8,
    header: &Header,
    snapshot: &'s Snapshot,
    node: &'s NodeName,
) -> Endpoint<'s> {
    match snapshot.endpoint_at(header.destination) {
        Endpoint::External(address) if hook == INPUT => Endpoint::Node {
            name: node,
            address: Some(address),
        },
        known => known,
    }
}

/// Says of a packet whose it was and why that became of it.
fn explain(
    header: &Header,
    (from, to): (Endpoint<'_>, Endpoint<'_>),
    meaning: Meaning,
    snapshot: &Snapshot,
    node: &NodeName,
    now: Timestamp,
) -> Record {
    let Meaning {
        verdict,
        direction,
        because,
    } = meaning;
    let (protocol, port) = match header.carries {
        Carries::Ports {
            protocol,
            destination,
            ..
        } => (protocol.to_string(), destination),
        Carries::Icmp { .. } => ("ICMP".to_owned(), 0),
        Carries::Piece { protocol } | Carries::Other { protocol } => (protocol.to_string(), 0),
    };
    let (policies, reason) = match because {
        Some(Because::Crafted) => (Vec::new(), CRAFTED.to_owned()),
        Some(Because::Unasked) => (Vec::new(), UNASKED.to_owned()),
        Some(Because::Routing) => (Vec::new(), ROUTING.to_owned()),
        Some(Because::Link) => (Vec::new(), LINK.to_owned()),
        Some(Because::Spoofed) => {
            let reason = format!("the source address {} is not the pod's", header.source);
            (Vec::new(), reason)
        }
        None => by_policies(header, (from, to), meaning, snapshot),
    };
    let pods = [from, to].into_iter().filter_map(|end| match end {
        Endpoint::Pod(pod) => Some(format!("{}/{}", pod.namespace(), pod.name())),
        Endpoint::Node { .. } | Endpoint::External(_) => None,
    });
    Record {
        time: now,
        kind: Kind {
            from: told(from),
            to: told(to),
            protocol,
            port,
            verdict,
        },
        count: 1,
        details: Details {
            direction: direction.to_string(),
            node: node.to_string(),
            policies,
            reason,
            pods: pods.collect(),
        },
    }
}

/// The policies that decided, and what they say.
fn by_policies(
    header: &Header,
    (from, to): (Endpoint<'_>, Endpoint<'_>),
    meaning: Meaning,
    snapshot: &Snapshot,
) -> (Vec<String>, String) {
    let Meaning {
        verdict, direction, ..
    } = meaning;
    let own = match direction {
        Direction::Ingress => to,
        Direction::Egress => from,
    };
    let promoted;
    let judge = match verdict {
        Verdict::Allowed | Verdict::Denied => snapshot,
        Verdict::WouldDeny | Verdict::WouldAllow => {
            promoted = if_promoted(snapshot, own);
            &promoted
        }
    };
    let judged = match header.carries {
        Carries::Ports {
            protocol,
            destination,
            ..
        } => Port::new(destination).map(|port| {
            let flow = Flow::new(from, to, protocol, port).over(Family::of(header.source));
            judge.verdict(&flow).at(direction).clone()
        }),
        _ => None,
    };
    match (&judged, verdict) {
        (_, Verdict::Allowed) => (Vec::new(), String::new()),
        (Some(end), Verdict::Denied | Verdict::WouldDeny) if end.passes() => (
            Vec::new(),
            "the policies have changed since: it would pass now".to_owned(),
        ),
        (Some(end), Verdict::WouldAllow) if !end.passes() => (
            Vec::new(),
            "the policies have changed since: it would not pass now".to_owned(),
        ),
        (Some(end), Verdict::Denied) => (deciding(end), end.to_string()),
        (Some(end), Verdict::WouldDeny | Verdict::WouldAllow) => {
            (tried(own, direction, judge), end.to_string())
        }
        // Only rules for all ports speak of what has none.
        (None, Verdict::Denied | Verdict::WouldDeny) => {
            let isolating = names(isolating(own, direction, judge));
            let reason = format!(
                "does not pass, isolated by {} and allowed by no rule for all ports",
                isolating.join(", ")
            );
            match verdict {
                Verdict::WouldDeny => (tried(own, direction, judge), reason),
                _ => (isolating, reason),
            }
        }
        (None, Verdict::WouldAllow) => {
            let reason = "passes by a rule for all ports, or is isolated by nothing".to_owned();
            (tried(own, direction, judge), reason)
        }
    }
}

/// The policies that decided.
fn deciding(end: &EndVerdict) -> Vec<String> {
    match end {
        EndVerdict::Ruled(ruled) => {
            let policy = &ruled.by.policy;
            vec![format!("{}/{}", policy.kind, policy.name)]
        }
        end => end.isolated_by().iter().map(PolicyRef::to_string).collect(),
    }
}

/// The policies that isolate an end.
fn isolating<'s>(
    end: Endpoint<'_>,
    direction: Direction,
    snapshot: &'s Snapshot,
) -> Vec<&'s NetworkPolicy> {
    let Endpoint::Pod(pod) = end else {
        return Vec::new();
    };
    let state = snapshot.namespace(pod.namespace()).into_iter();
    let policies = state.flat_map(NamespaceState::policies_in_force);
    policies
        .filter(|policy| policy.isolates_pod(pod, direction))
        .collect()
}

fn names<'s>(policies: impl IntoIterator<Item = &'s NetworkPolicy>) -> Vec<String> {
    let policies = policies.into_iter();
    policies
        .map(|policy| policy.reference().to_string())
        .collect()
}

/// The policies on trial that are asked at an end, in a snapshot in which they are promoted: those that isolate it, or where
/// none does, all of its namespace, one of which has taken the place of what isolated it.
fn tried(end: Endpoint<'_>, direction: Direction, promoted: &Snapshot) -> Vec<String> {
    let is_tried = |policy: &&NetworkPolicy| policy.standing == Standing::Promoted;
    let isolating = isolating(end, direction, promoted);
    let own = names(isolating.into_iter().filter(is_tried));
    match end {
        Endpoint::Pod(pod) if own.is_empty() => {
            names(promoted.policies_in(pod.namespace()).filter(is_tried))
        }
        _ => own,
    }
}

/// The cluster as if the policies on trial at an end were promoted.
fn if_promoted(snapshot: &Snapshot, end: Endpoint<'_>) -> Snapshot {
    match end {
        Endpoint::Pod(pod) => snapshot.promoting(snapshot.staged_policies_in(pod.namespace())),
        Endpoint::Node { .. } | Endpoint::External(_) => snapshot.clone(),
    }
}

/// An end as it is told: pods by their workload, so that what all of them do is told once.
fn told(end: Endpoint<'_>) -> End {
    match end {
        Endpoint::Pod(pod) => End {
            namespace: Some(pod.namespace().to_string()),
            pod: pod.owner.is_none().then(|| pod.name().to_string()),
            workload: workload(pod),
            ..End::default()
        },
        Endpoint::Node { name, address } => End {
            node: Some(name.to_string()),
            ip: address,
            ..End::default()
        },
        Endpoint::External(address) => End {
            ip: Some(address),
            ..End::default()
        },
    }
}

/// The labels of a pod.
fn labels(end: Endpoint<'_>) -> Option<BTreeMap<String, String>> {
    let Endpoint::Pod(pod) = end else {
        return None;
    };
    let pairs = pod.labels.iter();
    Some(
        pairs
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
    )
}

/// The workload of a pod; that of a ReplicaSet's pods is the Deployment that its name tells of.
fn workload(pod: &Pod) -> Option<String> {
    let owner = pod.owner.as_ref()?;
    let hash = pod.labels.get(TEMPLATE_HASH);
    let deployment =
        hash.and_then(|hash| owner.name.as_str().strip_suffix(hash)?.strip_suffix('-'));
    Some(deployment.map_or_else(
        || format!("{}/{}", owner.kind, owner.name),
        |name| format!("Deployment/{name}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netpol::{Protocol, parse};
    use clap::ValueEnum as _;
    use serde_json::{Value, json};

    fn snapshot(values: &[Value]) -> Snapshot {
        let object = |value: &Value| parse(value).unwrap().unwrap().object;
        values.iter().map(object).collect()
    }

    fn pod(name: &str, address: &str, owner: Option<&str>) -> Value {
        let owner = owner.map(|owner| {
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": "1", "controller": true}])
        });
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "shop", "name": name, "ownerReferences": owner,
                "labels": {"app": name, "pod-template-hash": "755cdc7957"}},
            "spec": {"nodeName": "n1", "containers": [{"name": "main", "image": "main"}]},
            "status": {"phase": "Running", "podIPs": [{"ip": address}]},
        })
    }

    /// A packet of whoever it says, as it is told.
    fn told(header: &Header, meaning: Meaning, cluster: &Snapshot) -> Record {
        told_at(2, header, meaning, cluster)
    }

    fn told_at(hook: u8, header: &Header, meaning: Meaning, cluster: &Snapshot) -> Record {
        let from = cluster.endpoint_at(header.source);
        let (node, now) = ("n1".into(), Timestamp::UNIX_EPOCH);
        let to = destination(hook, header, cluster, &node);
        explain(header, (from, to), meaning, cluster, &node, now)
    }

    #[test]
    fn what_is_not_the_pod_s_own_is_told_of_who_sent_it() {
        let cluster = snapshot(&[pod("web", "10.0.0.1", None), pod("liar", "10.0.0.2", None)]);
        let header = Header {
            source: "10.0.0.1".parse().unwrap(),
            destination: "10.0.0.9".parse().unwrap(),
            carries: Carries::Other { protocol: 50 },
        };
        let [liar, to] =
            ["10.0.0.2", "10.0.0.9"].map(|it| cluster.endpoint_at(it.parse().unwrap()));
        let (node, now) = ("n1".into(), Timestamp::UNIX_EPOCH);
        let spoofed = meaning("ringfence spoofed egress").unwrap();
        let record = explain(&header, (liar, to), spoofed, &cluster, &node, now);
        assert_eq!(record.kind.from.to_string(), "shop/liar");
        assert_eq!(record.details.pods, ["shop/liar"]);
        assert_eq!(
            record.details.reason,
            "the source address 10.0.0.1 is not the pod's"
        );
        let unasked = meaning("ringfence unasked egress").unwrap();
        let record = explain(&header, (liar, to), unasked, &cluster, &node, now);
        assert_eq!(record.details.reason, UNASKED);
        for (word, reason) in [("link", LINK), ("routing", ROUTING)] {
            let meant = meaning(&format!("ringfence {word} egress")).unwrap();
            let record = explain(&header, (liar, to), meant, &cluster, &node, now);
            assert_eq!(record.details.reason, reason);
        }
        let crafted = meaning("ringfence crafted egress").unwrap();
        let record = told(&header, crafted, &cluster);
        assert_eq!(record.details.reason, CRAFTED);
        assert_eq!(record.details.policies, [""; 0]);
    }

    #[test]
    fn what_is_denied_at_another_address_of_the_node_is_told_of_the_node() {
        let policy = json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "no-nodes"},
            "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}},
                "egress": [{"action": "Deny", "to": [{"nodes": {}}]}]},
        });
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
        let cluster = snapshot(&[pod("web", "10.0.0.2", None), policy, node]);
        let header = Header {
            source: "10.0.0.2".parse().unwrap(),
            destination: "10.0.0.1".parse().unwrap(),
            carries: Carries::Ports {
                protocol: Protocol::Tcp,
                source: 40_000,
                destination: 10250,
            },
        };
        let denied = meaning("ringfence denied egress").unwrap();
        let record = told_at(1, &header, denied, &cluster);
        assert_eq!(record.kind.to.node.as_deref(), Some("n1"));
        assert_eq!(record.details.policies, ["ClusterNetworkPolicy/no-nodes"]);
        let forwarded = told(&header, denied, &cluster);
        assert_eq!(forwarded.kind.to.node, None);
    }

    #[test]
    fn a_denied_packet_is_told_with_who_and_why() {
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "shop", "name": "deny"}, "spec": {"podSelector": {}},
        });
        let cluster = snapshot(&[
            pod("web-755cdc7957-x", "10.0.0.1", Some("web-755cdc7957")),
            pod("db", "10.0.0.2", None),
            policy,
        ]);
        let mut header = Header {
            source: "10.0.0.1".parse().unwrap(),
            destination: "10.0.0.2".parse().unwrap(),
            carries: Carries::Ports {
                protocol: Protocol::Tcp,
                source: 40_000,
                destination: 5432,
            },
        };
        let denied = meaning("ringfence denied ingress").unwrap();
        let record = told(&header, denied, &cluster);
        assert_eq!(
            serde_json::to_value(&record).unwrap(),
            json!({
                "time": "1970-01-01T00:00:00Z",
                "from": {"namespace": "shop", "workload": "Deployment/web"},
                "to": {"namespace": "shop", "pod": "db"},
                "protocol": "TCP", "port": 5432, "verdict": "denied", "count": 1,
                "details": {
                    "direction": "ingress", "node": "n1", "policies": ["shop/deny"],
                    "reason": "does not pass, isolated by shop/deny and allowed by no rule",
                    "pods": ["shop/web-755cdc7957-x", "shop/db"],
                },
            })
        );
        let staged = |name: &str, spec: Value| {
            let mut staged = json!({
                "apiVersion": "ringfence.dev/v1alpha1", "kind": "StagedNetworkPolicy",
                "metadata": {"namespace": "shop", "name": name}, "spec": spec,
            });
            staged["spec"]["podSelector"] = json!({"matchLabels": {"app": "db"}});
            parse(&staged).unwrap().unwrap().object
        };
        let would_allow = meaning("ringfence would allow ingress").unwrap();
        let open = cluster.with(staged("db", json!({"ingress": [{}]})));
        let record = told(&header, would_allow, &open);
        assert_eq!(record.details.policies, ["StagedNetworkPolicy shop/db"]);
        assert_eq!(
            record.details.reason,
            "passes by StagedNetworkPolicy shop/db spec.ingress[0], isolated by StagedNetworkPolicy shop/db, shop/deny"
        );
        assert_eq!(json!(record)["verdict"], "would-allow");
        let record = told(&header, would_allow, &cluster);
        assert!(record.details.reason.contains("have changed since"));
        let would_deny = meaning("ringfence would deny egress").unwrap();
        std::mem::swap(&mut header.source, &mut header.destination);
        let closed = cluster.with(staged("db", json!({"policyTypes": ["Egress"]})));
        let record = told(&header, would_deny, &closed);
        assert_eq!(record.details.policies, ["StagedNetworkPolicy shop/db"]);
        assert_eq!(
            record.details.reason,
            "does not pass, isolated by StagedNetworkPolicy shop/db and allowed by no rule"
        );
        for verdict in Verdict::value_variants() {
            assert_eq!(json!(verdict), verdict.as_str());
        }
        std::mem::swap(&mut header.source, &mut header.destination);
        header.carries = Carries::Icmp { kind: 8, code: 0 };
        let record = told(&header, denied, &cluster);
        assert!(record.details.reason.ends_with("no rule for all ports"));
        header.source = "192.0.2.1".parse().unwrap();
        let record = told(&header, denied, &Snapshot::default());
        assert_eq!(record.kind.from.to_string(), "192.0.2.1");
        assert_eq!(meaning("another program"), None);
    }
}
