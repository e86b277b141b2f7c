//! Exposure: who could reach a workload, and whom it could reach, although nobody of that kind is there yet.
//!
//! A selector of a rule goes on to hold for pods and namespaces that are made tomorrow. What is listed is what the
//! workload's own end lets pass; a newcomer in a namespace that isolates it in the other direction needs that one's
//! permission too, one in a new namespace does not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::Reachability;
use super::ports::{PortRange, PortSet};
use crate::netpol::coverage::Direction;
use crate::netpol::name::{NamespaceName, PortName};
use crate::netpol::pod::Pod;
use crate::netpol::policy::{NamespaceScope, NetworkPolicy, Peer, Peers, Ports, Rule};
use crate::netpol::port::{PortSpec, Protocol};
use crate::netpol::selector::Selector;
use crate::netpol::snapshot::NamespaceState;
use crate::netpol::workload::WorkloadRef;

/// Pods that need not be there yet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Newcomer {
    /// Any pod at all, in any namespace.
    Anyone,
    /// Pods with these labels in one namespace.
    In {
        /// The namespace.
        namespace: NamespaceName,
        /// The pods.
        pods: Selector,
    },
    /// Pods with these labels in namespaces with these.
    Selected {
        /// The namespaces.
        namespaces: Selector,
        /// The pods.
        pods: Selector,
    },
}

/// What a workload is open to in one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// Who could come, or be reached.
    pub who: Newcomer,
    /// At which ports.
    pub at: OpenPorts,
}

/// Ports, some by numbers that nobody knows yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenPorts {
    /// Those whose numbers are known.
    pub ports: PortSet,
    /// The names that a newcomer may give to ports of its own.
    pub named: BTreeSet<(Protocol, PortName)>,
}

impl Reachability {
    /// Who could reach a workload's pods (ingress), or whom they could reach (egress), of pods and namespaces that are
    /// not there yet. By network policies only: what cluster network policies say of newcomers is not in it.
    pub fn exposure(&self, workload: &WorkloadRef, direction: Direction) -> Vec<Exposure> {
        let pods = self.snapshot.pods_in(&workload.namespace);
        let pods = pods.filter(|pod| {
            !pod.is_finished()
                && self
                    .root(&pod.workload)
                    .is_some_and(|root| root == workload)
        });
        let mut open: BTreeMap<Newcomer, OpenPorts> = BTreeMap::new();
        for pod in pods {
            self.open_of(pod, direction, &mut open);
        }
        let anyone = open.get(&Newcomer::Anyone);
        if anyone.is_some_and(|open| open.ports.is_all()) {
            open.retain(|who, _| *who == Newcomer::Anyone);
        }
        open.into_iter()
            .map(|(who, at)| Exposure { who, at })
            .collect()
    }

    fn open_of(&self, pod: &Pod, direction: Direction, open: &mut BTreeMap<Newcomer, OpenPorts>) {
        let mut add = |who: Newcomer, more: &OpenPorts| {
            if !more.is_empty() {
                open.entry(who).or_default().add(more);
            }
        };
        let policies: Vec<&NetworkPolicy> = self
            .snapshot
            .namespace(pod.namespace())
            .into_iter()
            .flat_map(NamespaceState::effective_policies)
            .filter(|policy| policy.isolates_pod(pod, direction))
            .collect();
        if policies.is_empty() || !pod.is_held() {
            add(Newcomer::Anyone, &OpenPorts::all());
            return;
        }
        for policy in policies {
            for rule in policy.rules(direction) {
                let ports = OpenPorts::of(rule, pod, direction);
                let Peers::Only(peers) = &rule.peers else {
                    add(Newcomer::Anyone, &ports);
                    continue;
                };
                for peer in peers {
                    match peer {
                        Peer::Pods { namespaces, pods } => {
                            let pods = pods.clone();
                            let who = match namespaces {
                                NamespaceScope::Own => Newcomer::In {
                                    namespace: policy.namespace.clone(),
                                    pods,
                                },
                                NamespaceScope::Selected(namespaces) => Newcomer::Selected {
                                    namespaces: namespaces.clone(),
                                    pods,
                                },
                            };
                            add(who, &ports);
                        }
                        // Nobody knows the address of a newcomer, but some blocks hold them all.
                        Peer::Block { cidr, except } => {
                            if cidr.prefix_len() == 0 && except.is_empty() {
                                add(Newcomer::Anyone, &ports);
                            }
                        }
                    }
                }
            }
        }
    }
}

// === impl OpenPorts ===

impl OpenPorts {
    fn all() -> Self {
        Self {
            ports: PortSet::all(),
            named: BTreeSet::new(),
        }
    }

    /// The ports of a rule for a pod: its names are the pod's own where that is the destination.
    fn of(rule: &Rule, pod: &Pod, direction: Direction) -> Self {
        let Ports::Only(matches) = &rule.ports else {
            return Self::all();
        };
        let (mut ranges, mut named) = (Vec::new(), BTreeSet::new());
        for port in matches {
            let protocol = port.protocol;
            ranges.extend(PortRange::of(port));
            let PortSpec::Named(name) = &port.port else {
                continue;
            };
            match direction {
                Direction::Ingress => {
                    ranges.extend(pod.ports_named(name, protocol).map(|port| PortRange {
                        protocol,
                        first: port.get(),
                        last: port.get(),
                    }));
                }
                Direction::Egress => {
                    named.insert((protocol, name.clone()));
                }
            }
        }
        Self {
            ports: ranges.into_iter().collect(),
            named,
        }
    }

    fn add(&mut self, more: &OpenPorts) {
        self.ports = self.ports.or(&more.ports);
        self.named.extend(more.named.iter().cloned());
    }

    fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.named.is_empty()
    }
}

impl fmt::Display for OpenPorts {
    /// As in `TCP 80, UDP 53 and what it calls TCP web`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.ports.is_empty() || self.named.is_empty() {
            self.ports.fmt(f)?;
        }
        let names = self.named.iter();
        let names: Vec<String> = names
            .map(|(protocol, name)| format!("{protocol} {name}"))
            .collect();
        if names.is_empty() {
            return Ok(());
        }
        let and = if self.ports.is_empty() { "" } else { " and " };
        write!(f, "{and}what it calls {}", names.join(", "))
    }
}

impl fmt::Display for Newcomer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |selector: &Selector| {
            if selector.is_everything() {
                String::new()
            } else {
                format!(" with {selector}")
            }
        };
        match self {
            Self::Anyone => f.write_str("any pod in any namespace"),
            Self::In { namespace, pods } => {
                write!(f, "any pod{} in namespace {namespace}", of(pods))
            }
            Self::Selected { namespaces, pods } => {
                write!(f, "any pod{} in any namespace{}", of(pods), of(namespaces))
            }
        }
    }
}
