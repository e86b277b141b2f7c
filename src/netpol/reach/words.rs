//! The words in which policies speak: every selection of pods, address block and port name in use, each once.
//!
//! Two pods that no word tells apart are alike to every policy. Rules are kept as numbers of words.

use std::collections::HashMap;
use std::hash::Hash;

use super::ports::{PortRange, PortSet};
use super::space::Block;
use crate::netpol::cluster_policy::{
    Action, ClusterNetworkPolicy, ClusterPeer, ClusterPort, ClusterPorts, ClusterRule, Reading,
};
use crate::netpol::coverage::Direction;
use crate::netpol::name::{NamespaceName, PortName};
use crate::netpol::node::Node;
use crate::netpol::policy::{NamespaceScope, NetworkPolicy, Peer, Peers, Ports, Rule};
use crate::netpol::port::{PortSpec, Protocol};
use crate::netpol::selector::Selector;
use crate::netpol::snapshot::{NamespaceState, Snapshot};

/// Each different value once, by number.
#[derive(Debug)]
pub(super) struct Numbered<T> {
    values: Vec<T>,
    numbers: HashMap<T, usize>,
}

/// The pods that a peer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Selection<'s> {
    pub(super) scope: Scope<'s>,
    pub(super) pods: &'s Selector,
}

/// In which namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Scope<'s> {
    One(&'s NamespaceName),
    Selected(&'s Selector),
}

/// A port name as policies use it.
pub(super) type NamedPort<'s> = (&'s PortName, Protocol);

/// A policy with its rules in numbers.
#[derive(Debug)]
pub(super) struct Spoken<'s> {
    pub(super) policy: &'s NetworkPolicy,
    ingress: Vec<SpokenRule>,
    egress: Vec<SpokenRule>,
}

/// A rule in numbers.
#[derive(Debug)]
pub(super) struct SpokenRule {
    /// None where it is open to everyone.
    pub(super) peers: Option<Vec<Word>>,
    /// The ports that are the same for every destination.
    pub(super) ports: PortSet,
    /// The port names, whose numbers each destination has its own of.
    pub(super) named: Vec<usize>,
}

/// A cluster network policy with its rules in numbers, those that fail closed already turned into what they mean.
#[derive(Debug)]
pub(super) struct SpokenWide<'s> {
    pub(super) policy: &'s ClusterNetworkPolicy,
    ingress: Vec<WideRule>,
    egress: Vec<WideRule>,
}

/// A rule of a cluster network policy in numbers.
#[derive(Debug)]
pub(super) struct WideRule {
    pub(super) action: Action,
    pub(super) rule: SpokenRule,
}

/// Who is meant by a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Word {
    Selection(usize),
    Block(usize),
    Nodes(usize),
    /// Ends that may be such nodes, for all that is known.
    PerhapsNodes(usize),
}

/// All that the policies of a snapshot say.
#[derive(Debug, Default)]
pub(super) struct Words<'s> {
    pub(super) policies: Vec<Spoken<'s>>,
    /// In the order in which they are asked.
    pub(super) wide: Vec<SpokenWide<'s>>,
    pub(super) selections: Numbered<Selection<'s>>,
    pub(super) blocks: Numbered<Block<'s>>,
    pub(super) names: Numbered<NamedPort<'s>>,
    pub(super) nodes: Numbered<&'s Selector>,
    /// The nodes that have the one address of a block, by the block's number; only where a policy speaks of nodes.
    pub(super) nodes_at: HashMap<usize, Vec<&'s Node>>,
}

impl<'s> Words<'s> {
    /// The words of all policies that count.
    pub(super) fn of(snapshot: &'s Snapshot) -> Self {
        let mut words = Self::default();
        let policies = snapshot
            .namespaces()
            .flat_map(NamespaceState::policies_in_force);
        for policy in policies {
            let mut rules = |direction| {
                let rules = policy.rules(direction).iter();
                rules.map(|rule| words.rule(policy, rule)).collect()
            };
            let (ingress, egress) = (rules(Direction::Ingress), rules(Direction::Egress));
            words.policies.push(Spoken {
                policy,
                ingress,
                egress,
            });
        }
        for policy in snapshot.cluster_policies() {
            let mut rules = |direction| {
                let rules = policy.rules(direction).iter();
                rules.flat_map(|rule| words.wide_rules(rule)).collect()
            };
            let (ingress, egress) = (rules(Direction::Ingress), rules(Direction::Egress));
            words.wide.push(SpokenWide {
                policy,
                ingress,
                egress,
            });
        }
        if !words.nodes.values().is_empty() {
            for node in snapshot.nodes() {
                for address in &node.addresses {
                    let block = words.blocks.number(Block {
                        cidr: (*address).into(),
                        except: &[],
                    });
                    words.nodes_at.entry(block).or_default().push(node);
                }
            }
        }
        words
    }

    /// What a rule of a cluster network policy means: nothing, one rule, or one more for the ends that it may mean.
    fn wide_rules(&mut self, rule: &'s ClusterRule) -> Vec<WideRule> {
        match rule.reading() {
            Reading::Nothing(_) => return Vec::new(),
            Reading::DenyAll(_) => {
                let rule = SpokenRule {
                    peers: None,
                    ports: PortSet::all(),
                    named: Vec::new(),
                };
                return vec![WideRule {
                    action: Action::Deny,
                    rule,
                }];
            }
            Reading::AsWritten => {}
        }
        let (ports, named) = match &rule.ports {
            ClusterPorts::Any => (PortSet::all(), Vec::new()),
            ClusterPorts::Only(ports) => {
                let (mut ranges, mut named) = (Vec::new(), Vec::new());
                for port in ports {
                    match port {
                        ClusterPort::Numbered(port) => ranges.extend(PortRange::of(port)),
                        ClusterPort::Named(name) => named.extend(
                            Protocol::ALL.map(|protocol| self.names.number((name, protocol))),
                        ),
                    }
                }
                (ranges.into_iter().collect(), named)
            }
        };
        let (mut sure, mut perhaps) = (Vec::new(), Vec::new());
        for peer in &rule.peers {
            match peer {
                ClusterPeer::Pods(scope) => {
                    let selection = Selection {
                        scope: Scope::Selected(&scope.namespaces),
                        pods: &scope.pods,
                    };
                    sure.push(Word::Selection(self.selections.number(selection)));
                }
                ClusterPeer::Networks(blocks) => sure.extend(blocks.iter().map(|cidr| {
                    let block = Block {
                        cidr: *cidr,
                        except: &[],
                    };
                    Word::Block(self.blocks.number(block))
                })),
                ClusterPeer::Nodes(selector) => {
                    let nodes = self.nodes.number(selector);
                    sure.push(Word::Nodes(nodes));
                    perhaps.push(Word::PerhapsNodes(nodes));
                }
                // Nobody can say offline whom they mean; only Accept rules come here with them.
                ClusterPeer::DomainNames(_) | ClusterPeer::Unknown(_) => {}
            }
        }
        let with = |action, peers| WideRule {
            action,
            rule: SpokenRule {
                peers: Some(peers),
                ports: ports.clone(),
                named: named.clone(),
            },
        };
        let mut rules = vec![with(rule.action, sure)];
        if rule.action != Action::Accept && !perhaps.is_empty() {
            rules.push(with(Action::Deny, perhaps));
        }
        rules
    }

    fn rule(&mut self, policy: &'s NetworkPolicy, rule: &'s Rule) -> SpokenRule {
        let peers = match &rule.peers {
            Peers::Any => None,
            Peers::Only(peers) => Some(peers.iter().map(|peer| self.peer(policy, peer)).collect()),
        };
        let Ports::Only(ports) = &rule.ports else {
            return SpokenRule {
                peers,
                ports: PortSet::all(),
                named: Vec::new(),
            };
        };
        let (mut ranges, mut named) = (Vec::new(), Vec::new());
        for port in ports {
            ranges.extend(PortRange::of(port));
            if let PortSpec::Named(name) = &port.port {
                named.push(self.names.number((name, port.protocol)));
            }
        }
        SpokenRule {
            peers,
            ports: ranges.into_iter().collect(),
            named,
        }
    }

    fn peer(&mut self, policy: &'s NetworkPolicy, peer: &'s Peer) -> Word {
        match peer {
            Peer::Pods { namespaces, pods } => {
                let scope = match namespaces {
                    NamespaceScope::Own => Scope::One(&policy.namespace),
                    NamespaceScope::Selected(selector) => Scope::Selected(selector),
                };
                Word::Selection(self.selections.number(Selection { scope, pods }))
            }
            Peer::Block { cidr, except } => {
                let cidr = *cidr;
                Word::Block(self.blocks.number(Block { cidr, except }))
            }
        }
    }
}

impl SpokenWide<'_> {
    /// The rules of a direction, in the order in which they are asked.
    pub(super) fn rules(&self, direction: Direction) -> &[WideRule] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

impl Spoken<'_> {
    /// The rules that count in a direction.
    pub(super) fn rules(&self, direction: Direction) -> &[SpokenRule] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

// === impl Numbered ===

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            numbers: HashMap::new(),
        }
    }
}

impl<T: Clone + Eq + Hash> Numbered<T> {
    /// The number of a value, a new one where it has none yet.
    pub(super) fn number(&mut self, value: T) -> usize {
        if let Some(number) = self.numbers.get(&value) {
            return *number;
        }
        let number = self.values.len();
        self.values.push(value.clone());
        self.numbers.insert(value, number);
        number
    }

    /// The values in the order of their numbers.
    pub(super) fn values(&self) -> &[T] {
        &self.values
    }
}
