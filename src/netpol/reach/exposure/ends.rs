//! A pod at one end and newcomers at the other: what both ends let pass, region by region.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::open::{Names, OpenPorts};
use super::regions::{self, Lies, Region};
use super::tiers::Across;
use super::{Newcomer, Open, TooManyNewcomers};
use crate::netpol::cluster_policy::{
    ClusterNetworkPolicy, ClusterPeer, ClusterPort, ClusterPorts, ClusterRule, Tier,
};
use crate::netpol::coverage::Direction;
use crate::netpol::name::PortName;
use crate::netpol::net::Family;
use crate::netpol::pod::Pod;
use crate::netpol::policy::{NamespaceScope, NetworkPolicy, Peer, Peers, Ports};
use crate::netpol::port::{PortSpec, Protocol};
use crate::netpol::reach::said::{Said, SetOfPorts as _};
use crate::netpol::selector::Selector;
use crate::netpol::snapshot::{NamespaceState, Snapshot};
use crate::netpol::verdict::{End, Meant};

/// A pod that newcomers may reach (ingress) or be reached from (egress).
pub(super) struct Side<'s> {
    snapshot: &'s Snapshot,
    pod: &'s Pod,
    state: Option<&'s NamespaceState>,
    direction: Direction,
    /// The network policies that isolate it.
    policies: Vec<&'s NetworkPolicy>,
    /// The cluster network policies that rule it.
    wide: Vec<&'s ClusterNetworkPolicy>,
    /// Those that may rule newcomers in the other direction.
    theirs: Vec<&'s ClusterNetworkPolicy>,
    names: Names<'s>,
}

impl<'s> Side<'s> {
    pub(super) fn of(snapshot: &'s Snapshot, pod: &'s Pod, direction: Direction) -> Self {
        let state = snapshot.namespace(pod.namespace());
        let labels = snapshot.namespace_labels(pod.namespace());
        let policies = state
            .into_iter()
            .flat_map(NamespaceState::policies_in_force);
        let policies =
            policies.filter(|policy| policy.isolates_pod(pod, direction) && pod.is_held());
        let policies: Vec<&NetworkPolicy> = policies.collect();
        let wide = snapshot.cluster_policies();
        let wide: Vec<&ClusterNetworkPolicy> = wide
            .filter(|policy| !policy.rules(direction).is_empty() && policy.rules_pod(pod, &labels))
            .collect();
        let theirs = snapshot.cluster_policies();
        let theirs: Vec<&ClusterNetworkPolicy> = theirs
            .filter(|policy| !policy.rules(other(direction)).is_empty())
            .collect();
        let names = match direction {
            Direction::Ingress => Names::Of(&pod.ports),
            Direction::Egress => {
                let own = wide.iter().flat_map(|policy| policy.rules(direction));
                let others = theirs
                    .iter()
                    .flat_map(|policy| policy.rules(other(direction)));
                let mut names: BTreeSet<(Protocol, PortName)> =
                    own.chain(others).flat_map(names_of).collect();
                names.extend(policies.iter().flat_map(|policy| {
                    policy
                        .rules(direction)
                        .iter()
                        .flat_map(|rule| named(&rule.ports))
                }));
                Names::Anything(names)
            }
        };
        Self {
            snapshot,
            pod,
            state,
            direction,
            policies,
            wide,
            theirs,
            names,
        }
    }

    /// Adds what is open to whom.
    pub(super) fn open_to(
        &self,
        open: &mut BTreeMap<Newcomer, Open>,
    ) -> Result<(), TooManyNewcomers> {
        let mut left = vec![Region::everyone()];
        let mut seen = 0_usize;
        while let Some(region) = left.pop() {
            seen = seen.saturating_add(1);
            if seen > regions::MOST {
                return Err(TooManyNewcomers);
            }
            match self.open_to_region(&region) {
                Ok(found) => {
                    for (who, at) in found {
                        open.entry(who).or_default().add(&at);
                    }
                }
                Err(Across(scope)) => left.extend(region.cut(&scope)),
            }
        }
        Ok(())
    }

    fn open_to_region(&self, region: &Region) -> Result<Vec<(Newcomer, Open)>, Across> {
        let mut found = Vec::new();
        for family in Family::BOTH {
            for address in addresses(self.pod, family) {
                let theirs = self.theirs(region, family, address)?;
                if theirs.is_empty() {
                    continue;
                }
                let own = self.own(region, family)?;
                found.extend(own.into_iter().map(|(who, ports)| {
                    let open = Open {
                        free: theirs.free.and(&ports),
                        allowed: theirs.allowed.and(&ports),
                    };
                    (who, open)
                }));
            }
        }
        Ok(found)
    }

    /// What the pod's own end lets pass to or from whom of a region.
    fn own(&self, region: &Region, family: Family) -> Result<Vec<(Newcomer, OpenPorts)>, Across> {
        let all = Newcomer::selected(region.namespaces.clone(), region.pods.clone());
        let means = |rule: &ClusterRule| is_meant(rule, region, family);
        let mut said = Said::nothing(self.names.everything());
        let ask = |said: &mut Said<OpenPorts>, tier| {
            said.ask(tier, &self.wide, self.direction, &self.names, &means)
        };
        ask(&mut said, Tier::Admin)?;
        if self.policies.is_empty() {
            said.next_tier();
            ask(&mut said, Tier::Baseline)?;
            return Ok(vec![(all, said.in_the_end())]);
        }
        let left = said.left();
        let mut found = vec![(all.clone(), said.accepted.clone())];
        let rules = self
            .policies
            .iter()
            .flat_map(|policy| policy.rules(self.direction));
        for rule in rules {
            let ports = self.names.of(&rule.ports).and(&left);
            if ports.is_empty() {
                continue;
            }
            let Peers::Only(peers) = &rule.peers else {
                found.push((all.clone(), ports));
                continue;
            };
            for peer in peers {
                let who = match peer {
                    Peer::Pods { namespaces, pods } => self.pods(region, namespaces, pods),
                    // Nobody knows the address of a newcomer, but some blocks hold them all.
                    Peer::Block { cidr, except } => {
                        let is_world = cidr.prefix_len() == 0
                            && except.is_empty()
                            && Family::of_block(cidr) == family;
                        is_world.then(|| all.clone())
                    }
                };
                found.extend(who.map(|who| (who, ports.clone())));
            }
        }
        Ok(found)
    }

    fn pods(
        &self,
        region: &Region,
        namespaces: &NamespaceScope,
        pods: &Selector,
    ) -> Option<Newcomer> {
        let namespaces = match namespaces {
            NamespaceScope::Own => None,
            NamespaceScope::Selected(selector) => Some(selector),
        };
        region.and(namespaces, self.state?, pods, self.snapshot)
    }

    /// What the end of the newcomers lets pass, with and without network policies of their own.
    fn theirs(
        &self,
        region: &Region,
        family: Family,
        address: Option<IpAddr>,
    ) -> Result<Open, Across> {
        let mut ruling = Vec::new();
        for policy in &self.theirs {
            match region.lies(&policy.subject) {
                Lies::Within => ruling.push(*policy),
                Lies::Apart => {}
                Lies::Across => return Err(Across(policy.subject.clone())),
            }
        }
        let end = End::of_pod(self.pod, family, address);
        let means = |rule: &ClusterRule| Ok(self.snapshot.is_meant(rule, end));
        let direction = other(self.direction);
        let mut said = Said::nothing(self.names.everything());
        said.ask(Tier::Admin, &ruling, direction, &self.names, &means)?;
        let allowed = said.in_the_end();
        said.next_tier();
        said.ask(Tier::Baseline, &ruling, direction, &self.names, &means)?;
        Ok(Open {
            free: said.in_the_end(),
            allowed,
        })
    }
}

fn other(direction: Direction) -> Direction {
    match direction {
        Direction::Ingress => Direction::Egress,
        Direction::Egress => Direction::Ingress,
    }
}

/// Whether a rule means the newcomers of a region, who are pods with a network of their own and an unknown address.
fn is_meant(rule: &ClusterRule, region: &Region, family: Family) -> Result<Meant, Across> {
    let mut across = None;
    for peer in &rule.peers {
        match peer {
            ClusterPeer::Pods(scope) => match region.lies(scope) {
                Lies::Within => return Ok(Meant::Yes),
                Lies::Apart => {}
                Lies::Across => across = across.or(Some(scope)),
            },
            ClusterPeer::Networks(blocks) => {
                let is_world = |block: &ipnet::IpNet| {
                    block.prefix_len() == 0 && Family::of_block(block) == family
                };
                if blocks.iter().any(is_world) {
                    return Ok(Meant::Yes);
                }
            }
            ClusterPeer::Nodes(_) | ClusterPeer::DomainNames(_) | ClusterPeer::Unknown(_) => {}
        }
    }
    match across {
        Some(scope) => Err(Across(scope.clone())),
        None => Ok(Meant::No),
    }
}

/// The addresses of one family; an unknown one of a pod of which none is known.
fn addresses(pod: &Pod, family: Family) -> impl Iterator<Item = Option<IpAddr>> {
    let unknown = pod.ips.is_empty().then_some(None);
    unknown.into_iter().chain(pod.ips_of(family).map(Some))
}

/// The port names of a rule, with every protocol.
fn names_of(rule: &ClusterRule) -> Vec<(Protocol, PortName)> {
    let ClusterPorts::Only(ports) = &rule.ports else {
        return Vec::new();
    };
    let names = ports.iter().filter_map(|port| match port {
        ClusterPort::Named(name) => Some(name),
        ClusterPort::Numbered(_) => None,
    });
    let all = names.flat_map(|name| Protocol::ALL.map(|protocol| (protocol, name.clone())));
    all.collect()
}

/// The port names of a rule.
fn named(ports: &Ports) -> Vec<(Protocol, PortName)> {
    let Ports::Only(ports) = ports else {
        return Vec::new();
    };
    let names = ports.iter().filter_map(|port| match &port.port {
        PortSpec::Named(name) => Some((port.protocol, name.clone())),
        PortSpec::Any | PortSpec::Number(_) | PortSpec::Range(..) => None,
    });
    names.collect()
}
