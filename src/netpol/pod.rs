//! Pods: running ones, and the representative pod of a workload's template. Both are the same type.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as api;
use serde::Serialize;

use super::field::Place;
use super::labels::Labels;
use super::meta::{self, NameForm};
use super::name::{NamespaceName, NodeName, ObjectName, PortName, port_name_problem};
use super::net::{Family, parse_address};
use super::port::{ContainerPort, Port, Protocol};
use super::problem::{Problems, Quoted};
use super::workload::{WorkloadKind, WorkloadRef};

/// A pod as network policies see it.
///
/// <https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.36/#pod-v1-core>
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// The object that it was read from: the pod itself, or the workload whose template it is.
    pub workload: WorkloadRef,
    /// The workload that controls that object, where it is of a kind that we know.
    pub owner: Option<WorkloadRef>,
    /// The pod's labels, by which policies select it.
    pub labels: Labels,
    /// The ports of its containers and sidecars (init containers that keep running).
    pub ports: Arc<[ContainerPort]>,
    /// Its addresses, the primary one first; none for a template, and none before the pod has started.
    pub ips: Vec<IpAddr>,
    /// It uses the network of its node; policies do not hold it.
    pub host_network: bool,
    /// How far its life has come.
    pub phase: Phase,
    /// Where it runs, once that is decided.
    pub node: Option<NodeName>,
    /// It is being deleted; until it is gone it may still send and receive.
    pub terminating: bool,
    /// What tells it from others that had its name; none where the API server has not said it.
    pub uid: Option<Uid>,
}

/// The identity of an object, a UUID (RFC 9562).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid([u8; 16]);

/// How far the life of a pod has come.
///
/// <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-phase>
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Phase {
    /// Not started yet; also what is assumed where nothing is said.
    #[default]
    Pending,
    /// At least one container runs or is being restarted.
    Running,
    /// All containers ended well, and none will be restarted.
    Succeeded,
    /// All containers ended, at least one badly, and none will be restarted.
    Failed,
    /// The node could not be asked.
    Unknown,
}

impl Uid {
    /// The identity of a text; none where it is no UUID, as those of test objects may be.
    pub fn parse(text: &str) -> Option<Self> {
        let mut digits = text.chars().filter(|digit| *digit != '-');
        let mut bytes = [0; 16];
        for byte in &mut bytes {
            let high = digits.next()?.to_digit(16)?;
            let low = digits.next()?.to_digit(16)?;
            *byte = u8::try_from((high << 4) | low).ok()?;
        }
        digits.next().is_none().then_some(Self(bytes))
    }
}

impl fmt::Display for Uid {
    /// As API servers write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let hyphen = if matches!(index, 4 | 6 | 8 | 10) {
                "-"
            } else {
                ""
            };
            write!(f, "{hyphen}{byte:02x}")?;
        }
        Ok(())
    }
}

impl Pod {
    /// A pod of which nothing is known but whose it is.
    pub fn new(workload: WorkloadRef) -> Self {
        Self {
            workload,
            owner: None,
            labels: Labels::default(),
            ports: Arc::default(),
            ips: Vec::new(),
            host_network: false,
            phase: Phase::default(),
            node: None,
            terminating: false,
            uid: None,
        }
    }

    /// The namespace it is in.
    pub fn namespace(&self) -> &NamespaceName {
        &self.workload.namespace
    }

    /// The name of the object that it was read from.
    pub fn name(&self) -> &ObjectName {
        &self.workload.name
    }

    /// Whether it stands for the pods of a template instead of being one pod.
    pub fn is_template(&self) -> bool {
        self.workload.kind != WorkloadKind::Pod
    }

    /// Whether it has ended for good: its addresses may belong to another pod by now.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }

    /// Whether selectors of policies can mean it: it has a network of its own, and has not ended.
    ///
    /// What policies do to pods on the host network is undefined; as most implementations do, we take their
    /// traffic for traffic of the node.
    /// <https://kubernetes.io/docs/concepts/services-networking/network-policies/#networkpolicy-and-hostnetwork-pods>
    pub fn is_held(&self) -> bool {
        !self.host_network && !self.is_finished()
    }

    /// Whether it is bound to a node.
    pub fn is_on(&self, node: &NodeName) -> bool {
        self.node.as_ref() == Some(node)
    }

    /// The addresses of one family.
    pub fn ips_of(&self, family: Family) -> impl Iterator<Item = IpAddr> {
        self.ips
            .iter()
            .copied()
            .filter(move |address| Family::of(*address) == family)
    }

    /// The numbers that the containers give to a port name, of one protocol.
    pub fn ports_named(&self, name: &PortName, protocol: Protocol) -> impl Iterator<Item = Port> {
        let named = move |port: &&ContainerPort| {
            port.protocol == protocol && port.name.as_ref() == Some(name)
        };
        self.ports.iter().filter(named).map(|port| port.port)
    }

    /// Has what is the same in another pod from there, so that it is held once: replicas differ in their names and addresses,
    /// and clusters have thousands.
    pub fn share(&mut self, other: &Pod) {
        fn same<T: PartialEq + Clone>(own: &mut T, other: &T) {
            if own == other {
                own.clone_from(other);
            }
        }
        same(&mut self.workload.namespace, &other.workload.namespace);
        same(&mut self.owner, &other.owner);
        same(&mut self.labels, &other.labels);
        same(&mut self.ports, &other.ports);
        same(&mut self.node, &other.node);
    }

    pub(super) fn read(object: &api::Pod, at: &Place<'_>, problems: &mut Problems) -> Self {
        let (meta, meta_at) = (&object.metadata, at.key("metadata"));
        let workload = WorkloadRef {
            kind: WorkloadKind::Pod,
            namespace: meta::read_namespace(meta, &meta_at, problems),
            name: meta::read_name(meta, NameForm::Subdomain, &meta_at, problems).into(),
        };
        let owner = meta::read_owner(meta, &workload.namespace);
        let labels = meta::read_labels(meta, &meta_at, problems);
        let terminating = meta.deletion_timestamp.is_some();
        let mut pod = Self {
            owner,
            labels,
            terminating,
            uid: meta.uid.as_deref().and_then(Uid::parse),
            ..Self::new(workload)
        };
        pod.read_spec(object.spec.as_ref(), &at.key("spec"), problems);
        if let Some(status) = &object.status {
            pod.read_status(status, &at.key("status"), problems);
        }
        pod
    }

    /// Takes what the pod's spec says; a template's is the same.
    pub(super) fn read_spec(
        &mut self,
        spec: Option<&api::PodSpec>,
        at: &Place<'_>,
        problems: &mut Problems,
    ) {
        let Some(spec) = spec else {
            problems.add(at, "is missing");
            return;
        };
        self.host_network = spec.host_network == Some(true);
        self.node = spec
            .node_name
            .as_deref()
            .filter(|node| !node.is_empty())
            .map(NodeName::from);

        let mut ports = Vec::new();
        let containers_at = at.key("containers");
        for (index, container) in spec.containers.iter().enumerate() {
            ports.extend(read_ports(container, &containers_at.index(index), problems));
        }
        let containers_at = at.key("initContainers");
        for (index, container) in spec.init_containers.iter().flatten().enumerate() {
            let own = read_ports(container, &containers_at.index(index), problems);
            // Other init containers have ended when the pod's containers start.
            if container.restart_policy.as_deref() == Some("Always") {
                ports.extend(own);
            }
        }
        self.ports = ports.into();
    }

    fn read_status(&mut self, status: &api::PodStatus, at: &Place<'_>, problems: &mut Problems) {
        self.phase = match status.phase.as_deref() {
            None | Some("" | "Pending") => Phase::Pending,
            Some("Running") => Phase::Running,
            Some("Succeeded") => Phase::Succeeded,
            Some("Failed") => Phase::Failed,
            // Phases that are not known to us are as good as the one that says so.
            Some(_) => Phase::Unknown,
        };
        let mut add = |text: &str, at: &Place<'_>| match parse_address(text) {
            Ok(address) if !self.ips.contains(&address) => self.ips.push(address),
            Ok(_) => {}
            Err(reason) => problems.add(at, format!("{}: {reason}", Quoted(text))),
        };
        if let Some(primary) = status
            .pod_ip
            .as_deref()
            .filter(|address| !address.is_empty())
        {
            add(primary, &at.key("podIP"));
        }
        let all_at = at.key("podIPs");
        for (index, address) in status.pod_ips.iter().flatten().enumerate() {
            add(&address.ip, &all_at.index(index).key("ip"));
        }
        if Family::BOTH
            .into_iter()
            .any(|family| self.ips_of(family).count() > 1)
        {
            problems.add(&all_at, "may not list more than one address of a family");
        }
        self.ips.shrink_to_fit();
    }
}

fn read_ports(
    container: &api::Container,
    at: &Place<'_>,
    problems: &mut Problems,
) -> Vec<ContainerPort> {
    let ports_at = at.key("ports");
    let ports = container.ports.iter().flatten().enumerate();
    let read = ports.filter_map(|(index, port)| {
        let at = ports_at.index(index);
        // An empty text is the same as none here, as the API's defaults have it.
        let protocol = port
            .protocol
            .as_deref()
            .filter(|protocol| !protocol.is_empty());
        let protocol = Protocol::read(protocol, &at.key("protocol"), problems);
        let name = port.name.as_deref().filter(|name| !name.is_empty());
        if let Some(name) = name {
            problems.add_if(&at.key("name"), name, port_name_problem(name));
        }
        let number = Port::read(port.container_port, &at.key("containerPort"), problems);
        Some(ContainerPort {
            name: name.map(PortName::from),
            port: number?,
            protocol: protocol?,
        })
    });
    read.collect()
}
