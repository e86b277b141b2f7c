//! The ends of flows as people write them: workloads by name, the outside by address.

use std::collections::HashSet;
use std::net::IpAddr;
use std::str::FromStr;

use anyhow::bail;
use ipnet::IpNet;

use crate::netpol::net::{parse_address, parse_block};
use crate::netpol::reach::Party;
use crate::netpol::{Pod, Reachability, Snapshot, WorkloadKind, WorkloadRef};

/// Whom an argument means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// Workloads, or pods of theirs.
    Workload {
        /// Of any kind where none is said.
        kind: Option<WorkloadKind>,
        /// The namespace.
        namespace: String,
        /// Every one of the namespace where none is said.
        name: Option<String>,
    },
    /// An address, of a pod or of the outside.
    Address(IpAddr),
    /// A block of addresses outside.
    Block(IpNet),
}

/// Whom an argument means in a certain cluster.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    workloads: HashSet<WorkloadRef>,
    outside: Option<IpNet>,
}

impl FromStr for Who {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = parse_address(text) {
            return Ok(Self::Address(address));
        }
        if let Ok(block) = parse_block(text) {
            return Ok(Self::Block(block));
        }
        let parts: Vec<&str> = text.split('/').collect();
        let (kind, namespace, name) = match parts[..] {
            [namespace, name] => (None, namespace, name),
            [kind, namespace, name] => {
                let mut kinds = WorkloadKind::ALL.into_iter();
                let known = kinds.find(|known| known.as_str().eq_ignore_ascii_case(kind));
                let known = known.ok_or_else(|| format!("`{kind}` is no kind that runs pods"))?;
                (Some(known), namespace, name)
            }
            _ => (None, "", ""),
        };
        if namespace.is_empty() || name.is_empty() {
            return Err(
                "must be namespace/name, namespace/*, kind/namespace/name or an address".to_owned(),
            );
        }
        Ok(Self::Workload {
            kind,
            namespace: namespace.to_owned(),
            name: Some(name.to_owned()).filter(|name| name != "*"),
        })
    }
}

impl Who {
    /// Who that is in a cluster; an error where nobody is.
    pub(crate) fn find(&self, reach: &Reachability) -> anyhow::Result<Found> {
        let address = match self {
            Self::Workload { .. } => {
                let pods = self.pods(reach);
                let roots = pods.iter().filter_map(|pod| reach.root(&pod.workload));
                let roots = roots.chain(
                    reach
                        .workloads()
                        .into_iter()
                        .filter(|workload| self.names(workload)),
                );
                let workloads: HashSet<WorkloadRef> = roots.cloned().collect();
                if workloads.is_empty() {
                    bail!("there is no {self} among the manifests");
                }
                return Ok(Found {
                    workloads,
                    outside: None,
                });
            }
            Self::Block(block) => {
                return Ok(Found {
                    workloads: HashSet::new(),
                    outside: Some(*block),
                });
            }
            Self::Address(address) => *address,
        };
        let pod = reach.snapshot().pod_at(address);
        let root = pod.and_then(|pod| reach.root(&pod.workload));
        Ok(Found {
            outside: root.is_none().then(|| address.into()),
            workloads: root.cloned().into_iter().collect(),
        })
    }

    /// The pods, and the ones that stand for templates, that are called so themselves.
    pub(crate) fn pods<'r>(&self, reach: &'r Reachability) -> Vec<&'r Pod> {
        self.pods_of(reach.snapshot())
    }

    /// The same, asked of a cluster that was not judged as a whole.
    pub(crate) fn pods_of<'s>(&self, snapshot: &'s Snapshot) -> Vec<&'s Pod> {
        let pods = snapshot.pods();
        pods.filter(|pod| !pod.is_finished() && self.names(&pod.workload))
            .collect()
    }

    /// Whether a workload is called so.
    pub(crate) fn names(&self, workload: &WorkloadRef) -> bool {
        match self {
            Self::Workload {
                kind,
                namespace,
                name,
            } => {
                kind.is_none_or(|kind| kind == workload.kind)
                    && workload.namespace == namespace.as_str()
                    && name
                        .as_ref()
                        .is_none_or(|name| workload.name == name.as_str())
            }
            Self::Address(_) | Self::Block(_) => false,
        }
    }
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Workload {
                kind,
                namespace,
                name,
            } => {
                if let Some(kind) = kind {
                    write!(f, "{kind}/")?;
                }
                write!(f, "{namespace}/{}", name.as_deref().unwrap_or("*"))
            }
            Self::Address(address) => address.fmt(f),
            Self::Block(block) => block.fmt(f),
        }
    }
}

impl Found {
    /// Whether a party is meant.
    pub(crate) fn is(&self, party: &Party) -> bool {
        match party {
            Party::Workload(workload) => self.is_workload(workload),
            Party::Outside(block) => self
                .outside
                .is_some_and(|asked| asked.contains(block) || block.contains(&asked)),
        }
    }

    /// Whether a workload is meant.
    pub(crate) fn is_workload(&self, workload: &WorkloadRef) -> bool {
        self.workloads.contains(workload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_are_named_with_or_without_their_kind() {
        let who = |text: &str| text.parse::<Who>().map(|who| who.to_string());
        for good in [
            "shop/web",
            "shop/*",
            "Deployment/shop/web",
            "192.0.2.1",
            "fd00::/8",
        ] {
            assert_eq!(who(good).as_deref(), Ok(good));
        }
        assert_eq!(
            who("deployment/shop/web").as_deref(),
            Ok("Deployment/shop/web")
        );
        for bad in ["web", "", "/web", "shop/", "service/shop/web", "a/b/c/d"] {
            assert!(who(bad).is_err(), "{bad}");
        }
    }
}
