//! Breadth by meaning: rules that open everything piece by piece, although none of them says so.
//!
//! Selectors that are together every pod there can be, which is tried with every combination of the labels that they speak
//! of; selectors and blocks that are together every namespace, or pod, there is; ports that are together all of a protocol. What
//! one peer or block says by itself is for the guardrail's section `breadth`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::neighbourhood::Neighbourhood;
use super::wanted::Wanted;
use super::{Flaw, What, rule_field};
use crate::netpol::cluster_policy::{
    Action, ClusterNetworkPolicy, ClusterPeer, ClusterPorts, Reading,
};
use crate::netpol::coverage::Direction;
use crate::netpol::labels::{Labels, NAMESPACE_NAME_LABEL};
use crate::netpol::name::NamespaceName;
use crate::netpol::policy::{NamespaceScope, NetworkPolicy, Peer, Peers, Ports};
use crate::netpol::port::{PortSpec, Protocol};
use crate::netpol::reach::PortRange;
use crate::netpol::selector::{Operator, Requirement, Selector};
use crate::netpol::snapshot::NamespaceState;

/// How many combinations of labels are tried.
const COMBINATIONS: usize = 1_024;

/// How many namespaces have to be there before it says something that all of them are meant.
const FEW: usize = 3;

/// Something that is opened as a whole, by these rules of a direction together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Everything {
    /// The direction.
    pub direction: Direction,
    /// The positions of the rules.
    pub rules: Vec<usize>,
    /// What they open.
    pub what: Whole,
}

/// What may be opened as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whole {
    /// Every pod of every namespace that there can be.
    AnyPod,
    /// Every pod of each of these namespaces, which are all there are.
    Namespaces(usize),
    /// The addresses of all pods there are, so many, by these blocks.
    Addresses {
        /// The blocks.
        blocks: Vec<IpNet>,
        /// How many pods.
        pods: usize,
    },
    /// Every port of a protocol, by numbers.
    Ports(Protocol),
}

/// What a rule opens, of either kind of policy.
struct Opening<'s> {
    rule: usize,
    peers: Vec<Opened<'s>>,
    ports: Wanted<'s>,
    /// The protocols of which it says in one word that all ports are meant.
    said: BTreeSet<Protocol>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Opened<'s> {
    Pods(Selector, &'s Selector),
    Block(&'s IpNet, &'s [IpNet]),
    /// What says nothing about pods.
    Other,
}

/// What a network policy opens piece by piece.
pub(super) fn policy(near: &Neighbourhood<'_>, policy: &NetworkPolicy) -> Option<Flaw> {
    let mut found = Vec::new();
    for direction in Direction::BOTH {
        let rules = policy.rules(direction);
        // To be open to everyone is said in so many words.
        if rules.iter().all(|rule| rule.peers != Peers::Any) {
            let openings: Vec<Opening<'_>> = rules
                .iter()
                .enumerate()
                .map(|(index, rule)| Opening::of_rule(index, &policy.namespace, rule))
                .collect();
            found.extend(of(Some(near), direction, &openings));
        }
    }
    flaw(found)
}

/// What a cluster network policy accepts piece by piece, where nothing is denied or passed on before.
pub(super) fn cluster_policy(policy: &ClusterNetworkPolicy) -> Option<Flaw> {
    let mut found = Vec::new();
    for direction in Direction::BOTH {
        let rules = policy.rules(direction).iter().enumerate();
        let accepting = rules
            .take_while(|(_, rule)| rule.action == Action::Accept)
            .filter(|(_, rule)| rule.reading() == Reading::AsWritten);
        let openings: Vec<Opening<'_>> = accepting
            .map(|(index, rule)| {
                let peers = rule.peers.iter().map(|peer| match peer {
                    ClusterPeer::Pods(scope) => Opened::Pods(scope.namespaces.clone(), &scope.pods),
                    _ => Opened::Other,
                });
                Opening {
                    rule: index,
                    peers: peers.collect(),
                    ports: Wanted::of_cluster(&rule.ports),
                    said: match &rule.ports {
                        ClusterPorts::Any => Protocol::ALL.into(),
                        ClusterPorts::Only(_) => BTreeSet::new(),
                    },
                }
            })
            .collect();
        found.extend(of(None, direction, &openings));
    }
    flaw(found)
}

fn flaw(found: Vec<Everything>) -> Option<Flaw> {
    let first = found.first()?;
    Some(Flaw {
        field: rule_field(first.direction, *first.rules.first()?),
        what: What::OpensEverything(found),
    })
}

fn of(
    near: Option<&Neighbourhood<'_>>,
    direction: Direction,
    openings: &[Opening<'_>],
) -> Vec<Everything> {
    let mut found = Vec::new();
    let mut add = |openings: &[&Opening<'_>], what| {
        let rules = openings.iter().map(|opening| opening.rule).collect();
        found.push(Everything {
            direction,
            rules,
            what,
        });
    };
    // In the order in which they come first.
    let mut by_ports: Vec<Vec<&Opening<'_>>> = Vec::new();
    let mut places: BTreeMap<&Wanted<'_>, usize> = BTreeMap::new();
    let mut by_peers: BTreeMap<&[Opened<'_>], Vec<&Opening<'_>>> = BTreeMap::new();
    for opening in openings {
        let place = *places.entry(&opening.ports).or_insert(by_ports.len());
        match by_ports.get_mut(place) {
            Some(group) => group.push(opening),
            None => by_ports.push(vec![opening]),
        }
        by_peers.entry(&opening.peers).or_default().push(opening);
    }
    for group in by_ports {
        let (pods, all_pods): (Vec<_>, Vec<_>) = (
            needed(&group, |peer| matches!(peer, Opened::Pods(..))),
            needed(
                &group,
                |peer| matches!(peer, Opened::Pods(_, pods) if pods.is_everything()),
            ),
        );
        let is_said = pods.iter().any(|(_, peer)| is_all_in_one_word(peer));
        if is_said {
            continue;
        }
        if let Some(whole) = any_pod(&pods) {
            add(&whole, Whole::AnyPod);
            continue;
        }
        let Some(near) = near.filter(|near| near.is_all()) else {
            continue;
        };
        if let Some((rules, count)) = every_namespace(near, &all_pods) {
            add(&rules, Whole::Namespaces(count));
            continue;
        }
        let blocks = needed(&group, |peer| matches!(peer, Opened::Block(..)));
        if let Some((rules, blocks, pods)) = every_address(near, &blocks) {
            add(&rules, Whole::Addresses { blocks, pods });
        }
    }
    for group in by_peers.into_values() {
        let all: Wanted<'_> = group.iter().map(|opening| &opening.ports).collect();
        for protocol in Protocol::ALL {
            let is_said = group.iter().any(|one| one.said.contains(&protocol));
            if !is_said && all.has_all(protocol) {
                let part = group.iter().filter(|one| one.ports.has_some(protocol));
                let part: Vec<&Opening<'_>> = part.copied().collect();
                add(&part, Whole::Ports(protocol));
            }
        }
    }
    found
}

type Told<'o, 's> = (&'o Opening<'s>, &'o Opened<'s>);

fn needed<'o, 's>(
    group: &[&'o Opening<'s>],
    is_meant: impl Fn(&Opened<'s>) -> bool,
) -> Vec<Told<'o, 's>> {
    let peers = group
        .iter()
        .flat_map(|opening| opening.peers.iter().map(move |peer| (*opening, peer)));
    peers.filter(|(_, peer)| is_meant(peer)).collect()
}

/// The rules of some peers, each once.
fn rules<'o, 's>(told: &[Told<'o, 's>]) -> Vec<&'o Opening<'s>> {
    let mut rules: Vec<&Opening<'_>> = told.iter().map(|(opening, _)| *opening).collect();
    rules.dedup_by_key(|opening| opening.rule);
    rules
}

/// Whether a peer says by itself that every namespace is meant, which is found elsewhere.
fn is_all_in_one_word(peer: &Opened<'_>) -> bool {
    let is_about_names = |requirement: &Requirement| {
        let operator = requirement.operator();
        requirement.key() == NAMESPACE_NAME_LABEL
            && matches!(operator, Operator::Exists | Operator::NotIn(_))
    };
    matches!(peer, Opened::Pods(namespaces, pods)
        if pods.is_everything() && namespaces.requirements().iter().all(is_about_names))
}

/// The rules that mean together every pod that there can be, whatever labels it and its namespace have.
fn any_pod<'o, 's>(peers: &[Told<'o, 's>]) -> Option<Vec<&'o Opening<'s>>> {
    if peers.len() < 2 {
        return None;
    }
    let (mut of_namespaces, mut of_pods) = (BTreeMap::new(), BTreeMap::new());
    for (_, peer) in peers {
        if let Opened::Pods(namespaces, pods) = peer {
            speak(namespaces, &mut of_namespaces);
            speak(pods, &mut of_pods);
        }
    }
    let namespaces = combinations(&of_namespaces)?;
    let pods = combinations(&of_pods)?;
    if namespaces.len().saturating_mul(pods.len()) > COMBINATIONS {
        return None;
    }
    let is_meant = |namespace: &Labels, labels: &Labels| {
        peers.iter().any(|(_, peer)| {
            matches!(peer, Opened::Pods(namespaces, pods)
                if namespaces.matches(namespace) && pods.matches(labels))
        })
    };
    let all = namespaces
        .iter()
        .all(|namespace| pods.iter().all(|labels| is_meant(namespace, labels)));
    all.then(|| rules(peers))
}

/// Notes the keys and values that a selector speaks of.
fn speak<'s>(selector: &'s Selector, keys: &mut BTreeMap<&'s str, BTreeSet<&'s str>>) {
    for requirement in selector.requirements() {
        let values = keys.entry(requirement.key()).or_default();
        match requirement.operator() {
            Operator::In(own) | Operator::NotIn(own) => {
                values.extend(own.iter().map(AsRef::as_ref));
            }
            Operator::Exists | Operator::DoesNotExist => {}
        }
    }
}

/// All labels that selectors can tell apart which speak of these keys and values, the plainest first: without a key, with
/// another value, with each value. Every namespace has the label of its name. None where they are too many.
fn combinations(keys: &BTreeMap<&str, BTreeSet<&str>>) -> Option<Vec<Labels>> {
    let mut all = vec![Labels::default()];
    for (key, values) in keys {
        let mut other = "x".to_owned();
        while values.contains(other.as_str()) {
            other.push('x');
        }
        let mut next = Vec::new();
        if *key != NAMESPACE_NAME_LABEL {
            next.extend(all.iter().cloned());
        }
        for value in std::iter::once(other.as_str()).chain(values.iter().copied()) {
            if next.len() > COMBINATIONS {
                return None;
            }
            next.extend(all.iter().map(|labels| labels.with(key, value)));
        }
        all = next;
    }
    Some(all)
}

/// The rules that mean together every namespace that there is, and how many these are. Where it is not known that they are
/// all, only of selectors that leave something out which is not there.
fn every_namespace<'o, 's>(
    near: &Neighbourhood<'_>,
    peers: &[Told<'o, 's>],
) -> Option<(Vec<&'o Opening<'s>>, usize)> {
    let leaves_out = |selector: &Selector| {
        let mut requirements = selector.requirements().iter();
        requirements.all(|requirement| {
            matches!(
                requirement.operator(),
                Operator::NotIn(_) | Operator::DoesNotExist
            )
        })
    };
    let meaning: Vec<(&Told<'o, 's>, &Selector)> = peers
        .iter()
        .filter_map(|told| match told.1 {
            Opened::Pods(namespaces, _) => Some((told, namespaces)),
            Opened::Block(..) | Opened::Other => None,
        })
        .filter(|(_, namespaces)| near.is_whole_cluster() || leaves_out(namespaces))
        .collect();
    let mut count = 0_usize;
    for state in near.snapshot().namespaces() {
        let labels = NamespaceState::labels(state);
        state.object()?;
        if !meaning.iter().any(|(_, selector)| selector.matches(labels)) {
            return None;
        }
        count = count.saturating_add(1);
    }
    let told: Vec<Told<'o, 's>> = meaning.into_iter().map(|(told, _)| *told).collect();
    (count >= FEW).then(|| (rules(&told), count))
}

/// The rules of which the blocks hold together the addresses of all pods, where these are in several namespaces.
fn every_address<'o, 's>(
    near: &Neighbourhood<'_>,
    peers: &[Told<'o, 's>],
) -> Option<(Vec<&'o Opening<'s>>, Vec<IpNet>, usize)> {
    let blocks: Vec<(&IpNet, &[IpNet])> = peers
        .iter()
        .filter_map(|(_, peer)| match peer {
            Opened::Block(cidr, except) => Some((*cidr, *except)),
            Opened::Pods(..) | Opened::Other => None,
        })
        .collect();
    if blocks.is_empty() || !near.is_whole_cluster() {
        return None;
    }
    // That is the world, which is said in one word.
    if blocks.iter().any(|(cidr, _)| cidr.prefix_len() == 0) {
        return None;
    }
    let holds = |address: &IpAddr| {
        blocks.iter().any(|(cidr, except)| {
            cidr.contains(address) && !except.iter().any(|hole| hole.contains(address))
        })
    };
    let (mut namespaces, mut pods) = (BTreeSet::<&NamespaceName>::new(), 0_usize);
    let held = near
        .snapshot()
        .pods()
        .filter(|pod| pod.is_held() && !pod.ips.is_empty());
    for pod in held {
        if !pod.ips.iter().any(holds) {
            return None;
        }
        namespaces.insert(pod.namespace());
        pods = pods.saturating_add(1);
    }
    let cidrs = blocks.into_iter().map(|(cidr, _)| *cidr).collect();
    (namespaces.len() >= FEW).then(|| (rules(peers), cidrs, pods))
}

impl<'s> Opening<'s> {
    fn of_rule(index: usize, own: &NamespaceName, rule: &'s crate::netpol::policy::Rule) -> Self {
        let peers = match &rule.peers {
            Peers::Any => &[][..],
            Peers::Only(peers) => peers,
        };
        let peers = peers.iter().map(|peer| match peer {
            Peer::Pods { namespaces, pods } => {
                let namespaces = match namespaces {
                    NamespaceScope::Own => {
                        Selector::new([Requirement::is(NAMESPACE_NAME_LABEL, own.as_str())])
                    }
                    NamespaceScope::Selected(selector) => selector.clone(),
                };
                Opened::Pods(namespaces, pods)
            }
            Peer::Block { cidr, except } => Opened::Block(cidr, except),
        });
        Self {
            rule: index,
            peers: peers.collect(),
            ports: Wanted::of([rule]),
            said: match &rule.ports {
                Ports::Any => Protocol::ALL.into(),
                Ports::Only(ports) => ports
                    .iter()
                    .filter(|port| port.port == PortSpec::Any)
                    .map(|port| port.protocol)
                    .collect(),
            },
        }
    }
}

impl Wanted<'_> {
    /// Whether some port of a protocol is among the numbers.
    fn has_some(&self, protocol: Protocol) -> bool {
        let mut ranges = self.numbers.ranges();
        ranges.any(|range: PortRange| range.protocol == protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(keys: &[(&'static str, &[&'static str])]) -> Vec<Labels> {
        let keys = keys
            .iter()
            .map(|(key, values)| (*key, values.iter().copied().collect()));
        combinations(&keys.collect()).expect("few")
    }

    #[test]
    fn labels_are_combined_with_what_nobody_speaks_of() {
        assert_eq!(labels(&[]).len(), 1);
        assert_eq!(labels(&[("env", &["prod"])]).len(), 3);
        assert_eq!(
            labels(&[("env", &["prod"]), ("team", &["a", "x"])]).len(),
            12
        );
        assert_eq!(labels(&[(NAMESPACE_NAME_LABEL, &["a"])]).len(), 2);
        let many: Vec<String> = (0..2_000).map(|number| number.to_string()).collect();
        let many = many.iter().map(String::as_str).collect();
        assert_eq!(combinations(&[("key", many)].into()), None);
    }
}
