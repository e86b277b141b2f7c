//! The ends of recorded flows in a snapshot: the workload among the manifests, else a pod made of what is recorded.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::Who;
use super::record::{Actor, PodActor};
use crate::netpol::flow::Endpoint;
use crate::netpol::labels::{Labels, TEMPLATE_HASH};
use crate::netpol::name::{NamespaceName, NodeName, ObjectName};
use crate::netpol::pod::{Phase, Pod};
use crate::netpol::snapshot::Snapshot;
use crate::netpol::workload::{WorkloadKind, WorkloadRef};

/// One end, as far as it can be known.
#[derive(Clone, Debug)]
pub(in crate::netpol) enum Resolved {
    Known(Known),
    Unknown(String),
}

/// One end that is known.
#[derive(Clone, Debug)]
pub(in crate::netpol) struct Known {
    /// As people know it.
    pub(in crate::netpol) who: Who,
    /// As policies see it.
    pub(in crate::netpol) end: End,
    /// It is not among the manifests.
    is_recorded_only: bool,
}

/// One end as policies see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::netpol) enum End {
    Pod(Box<Pod>),
    Node(NodeName, Option<IpAddr>),
    Address(IpAddr),
}

/// What makes two ends different to every policy.
type Key = (
    Option<WorkloadRef>,
    Option<Labels>,
    Option<IpAddr>,
    Option<NodeName>,
    Option<String>,
);

/// Finds ends; each different one once.
#[derive(Debug)]
pub(in crate::netpol) struct Resolver<'s> {
    snapshot: &'s Snapshot,
    cluster: &'s [IpNet],
    /// Whether policies look at addresses; else pods of one template need not be told apart.
    by_address: bool,
    /// The blocks that policies speak of; none where every address counts as itself.
    blocks: Option<Vec<IpNet>>,
    /// The addresses of nodes, which policies of the cluster may mean by the labels of the node.
    nodes: HashSet<IpAddr>,
    /// An address for each part of the addresses that no block tells apart.
    alike: HashMap<(bool, Vec<usize>), IpAddr>,
    ends: Vec<Resolved>,
    numbers: HashMap<Key, usize>,
}

impl<'s> Resolver<'s> {
    pub(in crate::netpol) fn new(snapshot: &'s Snapshot, cluster: &'s [IpNet]) -> Self {
        let nodes = snapshot.nodes();
        Self {
            snapshot,
            cluster,
            by_address: super::has_blocks(snapshot),
            blocks: Some(super::blocks(snapshot).into_iter().collect()),
            nodes: nodes.flat_map(|node| &node.addresses).copied().collect(),
            alike: HashMap::new(),
            ends: Vec::new(),
            numbers: HashMap::new(),
        }
    }

    /// One that tells pods of one template apart by their addresses, whether policies look at these or not.
    pub(in crate::netpol) fn with_addresses(snapshot: &'s Snapshot, cluster: &'s [IpNet]) -> Self {
        Self {
            by_address: true,
            blocks: None,
            ..Self::new(snapshot, cluster)
        }
    }

    /// The number of the end that an actor is.
    pub(in crate::netpol) fn resolve(&mut self, actor: &Actor) -> usize {
        let mut resolved = self.find(actor);
        if let Resolved::Known(Known {
            end: End::Pod(pod), ..
        }) = &mut resolved
        {
            for address in &mut pod.ips {
                *address = self.alike(*address);
            }
        }
        let key = match &resolved {
            Resolved::Known(Known { end, .. }) => match end {
                End::Pod(pod) => (
                    Some(pod.workload.clone()),
                    Some(pod.labels.clone()),
                    pod.ips.first().copied(),
                    pod.node.clone(),
                    None,
                ),
                End::Node(name, address) => (None, None, *address, Some(name.clone()), None),
                End::Address(address) => (None, None, Some(*address), None, None),
            },
            Resolved::Unknown(reason) => (None, None, None, None, Some(reason.clone())),
        };
        let ends = &mut self.ends;
        *self.numbers.entry(key).or_insert_with(|| {
            ends.push(resolved);
            ends.len().saturating_sub(1)
        })
    }

    /// The first address that was met of those that are in the same blocks and no node's: for policies they are one.
    fn alike(&mut self, address: IpAddr) -> IpAddr {
        let Some(blocks) = &self.blocks else {
            return address;
        };
        if self.nodes.contains(&address) {
            return address;
        }
        let within = blocks.iter().enumerate();
        let within = within.filter(|(_, block)| block.contains(&address));
        let key = (
            address.is_ipv4(),
            within.map(|(number, _)| number).collect(),
        );
        *self.alike.entry(key).or_insert(address)
    }

    /// The end of a number.
    pub(in crate::netpol) fn end(&self, number: usize) -> Option<&Resolved> {
        self.ends.get(number)
    }

    /// The end that an actor is.
    pub(in crate::netpol) fn find(&self, actor: &Actor) -> Resolved {
        match actor {
            Actor::Unknown(reason) => Resolved::Unknown(reason.clone()),
            Actor::Node { name, address } => Resolved::Known(Known {
                who: Who::Node(name.clone()),
                end: End::Node(name.clone(), *address),
                is_recorded_only: true,
            }),
            Actor::Address(address) => self.address(*address),
            Actor::Pod(pod) => self.pod(pod),
        }
    }

    fn address(&self, address: IpAddr) -> Resolved {
        if let Some(pod) = self.snapshot.pod_at(address) {
            return self.known(pod, None, None);
        }
        if self.cluster.iter().any(|block| block.contains(&address)) {
            return Resolved::Unknown(format!(
                "{address} is an address of the cluster that no pod of the manifests has"
            ));
        }
        Resolved::Known(Known {
            who: Who::Address(address),
            end: End::Address(address),
            is_recorded_only: true,
        })
    }

    fn pod(&self, actor: &PodActor) -> Resolved {
        if let Some(pod) = self.among_manifests(actor) {
            return self.known(pod, actor.address, actor.node.clone());
        }
        if let Some(labels) = &actor.labels {
            return self.recorded(actor, labels);
        }
        let at_address = actor
            .address
            .and_then(|address| self.snapshot.pod_at(address));
        if let Some(pod) = at_address.filter(|pod| *pod.namespace() == actor.namespace) {
            return self.known(pod, None, actor.node.clone());
        }
        let name = actor
            .name
            .as_ref()
            .or(actor.workload.as_ref().map(|(_, name)| name));
        let name = name.map_or("some pod", ObjectName::as_str);
        Resolved::Unknown(format!(
            "{}/{name} is not among the manifests, and the record has no labels of it",
            actor.namespace
        ))
    }

    /// A pod of the manifests, with what the record knows better.
    fn known(&self, pod: &Pod, address: Option<IpAddr>, node: Option<NodeName>) -> Resolved {
        let who = self.who(pod);
        let mut pod = pod.clone();
        // It was there when it was recorded, whatever became of it.
        pod.phase = Phase::Running;
        pod.node = node.or(pod.node);
        if let Some(address) = address.filter(|_| !pod.host_network) {
            pod.ips = vec![address];
        }
        if !self.by_address {
            pod.ips.clear();
        }
        Resolved::Known(Known {
            who,
            end: End::Pod(Box::new(pod)),
            is_recorded_only: false,
        })
    }

    /// The workload of a pod of the snapshot, as people know it.
    pub(in crate::netpol) fn who(&self, pod: &Pod) -> Who {
        let root = self.root(pod);
        Who::Workload {
            namespace: root.namespace,
            name: root.name,
            kind: Some(root.kind),
        }
    }

    /// The workload that a pod belongs to in the end.
    fn root(&self, pod: &Pod) -> WorkloadRef {
        let mut root = pod;
        for _ in 0..3 {
            match root
                .owner
                .as_ref()
                .map(|owner| (owner, self.snapshot.pod(owner)))
            {
                Some((_, Some(next))) => root = next,
                Some((owner, None)) => return owner.clone(),
                None => break,
            }
        }
        root.workload.clone()
    }

    /// A pod that only the record knows.
    fn recorded(&self, actor: &PodActor, labels: &Labels) -> Resolved {
        let (kind, name) = workload(actor, labels);
        let own = actor.name.clone().filter(|_| kind.is_none());
        let workload = WorkloadRef {
            kind: kind.unwrap_or(WorkloadKind::Pod),
            namespace: actor.namespace.clone(),
            name: own.unwrap_or_else(|| name.clone()),
        };
        let pod = Pod {
            labels: labels.clone(),
            ips: actor
                .address
                .into_iter()
                .filter(|_| self.by_address)
                .collect(),
            phase: Phase::Running,
            node: actor.node.clone(),
            ..Pod::new(workload)
        };
        Resolved::Known(Known {
            who: Who::Workload {
                namespace: actor.namespace.clone(),
                name,
                kind,
            },
            end: End::Pod(Box::new(pod)),
            is_recorded_only: true,
        })
    }

    fn among_manifests(&self, actor: &PodActor) -> Option<&'s Pod> {
        let there = |kind, name: &ObjectName| {
            self.snapshot.pod(&WorkloadRef {
                kind,
                namespace: actor.namespace.clone(),
                name: name.clone(),
            })
        };
        if let Some((kind, name)) = &actor.workload {
            let kinds: &[WorkloadKind] = match kind {
                Some(kind) => std::slice::from_ref(kind),
                None => &WorkloadKind::ALL,
            };
            let found = kinds.iter().find_map(|kind| there(*kind, name));
            // Of a Deployment some records know the ReplicaSet only, of a CronJob the Job.
            let made = || self.made_by(&actor.namespace, name, true);
            if let Some(pod) = found.or_else(made) {
                return Some(pod);
            }
        }
        let name = actor.name.as_ref()?;
        there(WorkloadKind::Pod, name).or_else(|| self.made_by(&actor.namespace, name, false))
    }

    /// The template that makes pods, or with `objects` the `ReplicaSet`s and `Job`s, of such a name: the longest name where
    /// there are several.
    fn made_by(
        &self,
        namespace: &NamespaceName,
        name: &ObjectName,
        objects: bool,
    ) -> Option<&'s Pod> {
        let templates = self
            .snapshot
            .pods_in(namespace)
            .filter(|pod| pod.is_template());
        let made = templates.filter(|template| {
            let rest = name.as_str().strip_prefix(template.name().as_str());
            let rest = rest.and_then(|rest| rest.strip_prefix('-'));
            rest.is_some_and(|rest| is_made(template.workload.kind, rest, objects))
        });
        made.max_by_key(|template| template.name().as_str().len())
    }
}

/// Whether the end of a name is what a controller of this kind adds to its own.
///
/// <https://kubernetes.io/docs/concepts/workloads/controllers/>
fn is_made(kind: WorkloadKind, rest: &str, objects: bool) -> bool {
    let is_hash = |part: &str| (8..=10).contains(&part.len()) && is_random(part);
    let is_suffix = |part: &str| part == "*" || part.len() == 5 && is_random(part);
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<&str> = rest.split('-').collect();
    match (kind, parts.as_slice(), objects) {
        (WorkloadKind::Deployment, [hash], true) => is_hash(hash),
        (WorkloadKind::Deployment, [hash, suffix], false) => is_hash(hash) && is_suffix(suffix),
        (WorkloadKind::CronJob, [time], true) => is_number(time),
        (WorkloadKind::CronJob, [time, suffix], false) => is_number(time) && is_suffix(suffix),
        (WorkloadKind::StatefulSet, [number], false) => *number == "*" || is_number(number),
        (
            WorkloadKind::ReplicaSet
            | WorkloadKind::ReplicationController
            | WorkloadKind::DaemonSet
            | WorkloadKind::Job,
            [suffix],
            false,
        ) => is_suffix(suffix),
        _ => false,
    }
}

fn is_random(part: &str) -> bool {
    part.bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// The workload that a recorded pod belongs to, as far as the record tells.
fn workload(actor: &PodActor, labels: &Labels) -> (Option<WorkloadKind>, ObjectName) {
    let hash = labels.get(TEMPLATE_HASH).map(|hash| format!("-{hash}"));
    let before_hash = |name: &ObjectName| {
        let (before, _) = name.as_str().split_once(hash.as_deref()?)?;
        Some((Some(WorkloadKind::Deployment), ObjectName::from(before)))
    };
    match (&actor.workload, &actor.name) {
        (Some((kind, name)), _) => before_hash(name).unwrap_or((*kind, name.clone())),
        (None, Some(name)) => before_hash(name).unwrap_or_else(|| {
            let name = name.as_str().trim_end_matches('*').trim_end_matches('-');
            (None, ObjectName::from(name))
        }),
        (None, None) => (None, ObjectName::from(labels.to_string())),
    }
}

// === impl Known ===

impl Known {
    /// As an end of a flow.
    pub(in crate::netpol) fn endpoint(&self) -> Endpoint<'_> {
        match &self.end {
            End::Pod(pod) => Endpoint::Pod(pod),
            End::Node(name, address) => Endpoint::Node {
                name,
                address: *address,
            },
            End::Address(address) => Endpoint::External(*address),
        }
    }

    /// The pod that it is.
    pub(in crate::netpol) fn pod(&self) -> Option<&Pod> {
        match &self.end {
            End::Pod(pod) => Some(pod),
            End::Node(..) | End::Address(_) => None,
        }
    }

    /// The address by which a block of a policy can mean it.
    pub(in crate::netpol) fn address(&self) -> Option<IpAddr> {
        match &self.end {
            End::Pod(pod) => pod.ips.first().copied(),
            End::Node(_, address) => *address,
            End::Address(address) => Some(*address),
        }
    }

    /// Whether it is a pod on the node that the other end is, which nothing can block.
    pub(in crate::netpol) fn shares_node(&self, other: &Known) -> bool {
        let node = self.pod().and_then(|pod| pod.node.as_ref());
        node.is_some() && node == other.endpoint().host()
    }

    /// Whether it is a pod that only records know.
    pub(in crate::netpol) fn is_recorded_only(&self) -> bool {
        self.is_recorded_only && matches!(self.end, End::Pod(_))
    }

    /// Its namespace, where that is not among the manifests.
    pub(in crate::netpol) fn bare_namespace(&self, snapshot: &Snapshot) -> Option<NamespaceName> {
        let Who::Workload { namespace, .. } = &self.who else {
            return None;
        };
        let object = snapshot
            .namespace(namespace)
            .and_then(|state| state.object());
        object.is_none().then(|| namespace.clone())
    }
}
