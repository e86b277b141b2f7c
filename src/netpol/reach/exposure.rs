//! Exposure: who could reach a workload although nobody of that kind is there yet.
//!
//! A selector of a rule goes on to hold for pods and namespaces that are made tomorrow. What is listed is what the
//! workload's own ingress would let in; a newcomer in a namespace whose egress is isolated needs that one's
//! permission too, one in a new namespace does not.

use std::collections::BTreeMap;
use std::fmt;

use super::Reachability;
use super::ports::{PortRange, PortSet};
use crate::netpol::coverage::Direction;
use crate::netpol::name::NamespaceName;
use crate::netpol::pod::Pod;
use crate::netpol::policy::{NamespaceScope, NetworkPolicy, Peer, Peers, Ports, Rule};
use crate::netpol::port::PortSpec;
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

/// What a workload is open to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// To whom.
    pub from: Newcomer,
    /// At which of its ports.
    pub ports: PortSet,
}

impl Reachability {
    /// Who could reach a workload's pods from pods or namespaces that are not there yet.
    pub fn exposure(&self, workload: &WorkloadRef) -> Vec<Exposure> {
        let pods = self.snapshot.pods_in(&workload.namespace);
        let pods = pods.filter(|pod| {
            !pod.is_finished()
                && self
                    .root(&pod.workload)
                    .is_some_and(|root| root == workload)
        });
        let mut open: BTreeMap<Newcomer, PortSet> = BTreeMap::new();
        for pod in pods {
            self.open_of(pod, &mut open);
        }
        if open.get(&Newcomer::Anyone).is_some_and(PortSet::is_all) {
            open.retain(|from, _| *from == Newcomer::Anyone);
        }
        open.into_iter()
            .map(|(from, ports)| Exposure { from, ports })
            .collect()
    }

    fn open_of(&self, pod: &Pod, open: &mut BTreeMap<Newcomer, PortSet>) {
        let mut add = |from: Newcomer, more: &PortSet| {
            if !more.is_empty() {
                let ports = open.entry(from).or_default();
                *ports = ports.or(more);
            }
        };
        let policies: Vec<&NetworkPolicy> = self
            .snapshot
            .namespace(pod.namespace())
            .into_iter()
            .flat_map(NamespaceState::effective_policies)
            .filter(|policy| policy.isolates_pod(pod, Direction::Ingress))
            .collect();
        if policies.is_empty() || !pod.is_held() {
            add(Newcomer::Anyone, &PortSet::all());
            return;
        }
        for policy in policies {
            for rule in policy.rules(Direction::Ingress) {
                let ports = ports(rule, pod);
                let Peers::Only(peers) = &rule.peers else {
                    add(Newcomer::Anyone, &ports);
                    continue;
                };
                for peer in peers {
                    match peer {
                        Peer::Pods { namespaces, pods } => {
                            let pods = pods.clone();
                            let from = match namespaces {
                                NamespaceScope::Own => Newcomer::In {
                                    namespace: policy.namespace.clone(),
                                    pods,
                                },
                                NamespaceScope::Selected(namespaces) => Newcomer::Selected {
                                    namespaces: namespaces.clone(),
                                    pods,
                                },
                            };
                            add(from, &ports);
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

/// The ports of a rule, for one destination.
fn ports(rule: &Rule, pod: &Pod) -> PortSet {
    let Ports::Only(matches) = &rule.ports else {
        return PortSet::all();
    };
    let ranges = matches.iter().flat_map(|port| {
        let protocol = port.protocol;
        let spans: Vec<(u16, u16)> = match &port.port {
            PortSpec::Any => vec![(1, u16::MAX)],
            PortSpec::Number(port) => vec![(port.get(), port.get())],
            PortSpec::Range(first, last) => vec![(first.get(), last.get())],
            PortSpec::Named(name) => pod
                .ports_named(name, protocol)
                .map(|port| (port.get(), port.get()))
                .collect(),
        };
        spans.into_iter().map(move |(first, last)| PortRange {
            protocol,
            first,
            last,
        })
    });
    ranges.collect()
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
