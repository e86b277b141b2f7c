//! Services: names for sets of pods. Policies never see them, since flows are judged after translation to pods.

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;

use super::field::Place;
use super::labels::{self, Labels};
use super::meta::{self, NameForm};
use super::name::{NamespaceName, ObjectName, PortName, port_name_problem};
use super::net::parse_address;
use super::pod::Pod;
use super::port::{Port, Protocol};
use super::problem::{Problems, Quoted};
use super::selector::Selector;

/// A service.
///
/// <https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.36/#service-v1-core>
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The namespace it is in, whose pods it selects.
    pub namespace: NamespaceName,
    /// Its name.
    pub name: ObjectName,
    /// Its labels.
    pub labels: Labels,
    /// Its pods; none where the endpoints are set by hand. An empty selector means that too.
    pub selector: Option<Selector>,
    /// How it is reached.
    pub service_type: ServiceType,
    /// Its own addresses, which are not addresses of pods; none for a headless service.
    pub cluster_ips: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
}

/// How a service is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum ServiceType {
    /// From inside the cluster; also what is meant where none is said.
    #[default]
    ClusterIP,
    /// By a port of every node too.
    NodePort,
    /// By a load balancer too.
    LoadBalancer,
    /// As another name in DNS; it has no pods.
    ExternalName,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name, empty where it has none.
    pub name: Box<str>,
    /// Its protocol.
    pub protocol: Protocol,
    /// The number at the service's own address.
    pub port: Port,
    /// The port at the pods, which is the one that policies are about.
    pub target: TargetPort,
}

/// A port at the pods of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// This number at every pod.
    Number(Port),
    /// Whatever number each pod gives to this name.
    Named(PortName),
}

impl Service {
    /// Whether it sends flows to this pod.
    pub fn selects(&self, pod: &Pod) -> bool {
        self.namespace == *pod.namespace()
            && self
                .selector
                .as_ref()
                .is_some_and(|selector| selector.matches(&pod.labels))
    }

    pub(super) fn read(object: &api::Service, at: &Place<'_>, problems: &mut Problems) -> Self {
        let (meta, meta_at) = (&object.metadata, at.key("metadata"));
        let mut service = Self {
            namespace: meta::read_namespace(meta, &meta_at, problems),
            name: meta::read_name(meta, NameForm::Label, &meta_at, problems).into(),
            labels: meta::read_labels(meta, &meta_at, problems),
            selector: None,
            service_type: ServiceType::default(),
            cluster_ips: Vec::new(),
            ports: Vec::new(),
        };
        let at = at.key("spec");
        match &object.spec {
            Some(spec) => service.read_spec(spec, &at, problems),
            None => problems.add(&at, "is missing"),
        }
        service
    }

    fn read_spec(&mut self, spec: &api::ServiceSpec, at: &Place<'_>, problems: &mut Problems) {
        self.service_type = match spec.type_.as_deref() {
            None | Some("" | "ClusterIP") => ServiceType::ClusterIP,
            Some("NodePort") => ServiceType::NodePort,
            Some("LoadBalancer") => ServiceType::LoadBalancer,
            Some("ExternalName") => ServiceType::ExternalName,
            Some(unknown) => {
                let reason = format!(
                    "{} is not ClusterIP, NodePort, LoadBalancer or ExternalName",
                    Quoted(unknown)
                );
                problems.add(&at.key("type"), reason);
                ServiceType::default()
            }
        };
        if let Some(selector) = spec
            .selector
            .as_ref()
            .filter(|selector| !selector.is_empty())
        {
            labels::check(selector, &at.key("selector"), problems);
            let labels = selector
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str()));
            self.selector = Some(Selector::of_labels(&labels.collect()));
        }
        self.read_cluster_ips(spec, at, problems);
        let ports_at = at.key("ports");
        let ports = spec.ports.iter().flatten().enumerate();
        self.ports = ports
            .filter_map(|(index, port)| ServicePort::read(port, &ports_at.index(index), problems))
            .collect();
    }

    fn read_cluster_ips(
        &mut self,
        spec: &api::ServiceSpec,
        at: &Place<'_>,
        problems: &mut Problems,
    ) {
        let mut add = |text: &str, at: &Place<'_>| match (text, parse_address(text)) {
            ("" | "None", _) => {}
            (_, Ok(address)) if !self.cluster_ips.contains(&address) => {
                self.cluster_ips.push(address);
            }
            (_, Ok(_)) => {}
            (_, Err(reason)) => problems.add(at, format!("{}: {reason}", Quoted(text))),
        };
        if let Some(primary) = spec.cluster_ip.as_deref() {
            add(primary, &at.key("clusterIP"));
        }
        let all_at = at.key("clusterIPs");
        for (index, address) in spec.cluster_ips.iter().flatten().enumerate() {
            add(address, &all_at.index(index));
        }
    }
}

impl ServicePort {
    /// The port at one pod; none where the pod has no port of the name.
    pub fn at(&self, pod: &Pod) -> Option<Port> {
        match &self.target {
            TargetPort::Number(port) => Some(*port),
            TargetPort::Named(name) => pod.ports_named(name, self.protocol).next(),
        }
    }

    fn read(port: &api::ServicePort, at: &Place<'_>, problems: &mut Problems) -> Option<Self> {
        let protocol = port
            .protocol
            .as_deref()
            .filter(|protocol| !protocol.is_empty());
        let protocol = Protocol::read(protocol, &at.key("protocol"), problems);
        let number = Port::read(port.port, &at.key("port"), problems);
        let target_at = at.key("targetPort");
        let target = match &port.target_port {
            // Nothing, 0 and the empty text are filled in with the service's own port.
            None | Some(IntOrString::Int(0)) => number.map(TargetPort::Number),
            Some(IntOrString::String(text)) if text.is_empty() => number.map(TargetPort::Number),
            Some(IntOrString::Int(target)) => {
                Port::read(*target, &target_at, problems).map(TargetPort::Number)
            }
            Some(IntOrString::String(name)) => {
                problems.add_if(&target_at, name, port_name_problem(name));
                Some(TargetPort::Named(name.as_str().into()))
            }
        };
        let name = port.name.as_deref().unwrap_or_default();
        Some(Self {
            name: name.into(),
            protocol: protocol?,
            port: number?,
            target: target?,
        })
    }
}
