//! The words in which policies speak: every selection of pods, address block and port name in use, each once.
//!
//! Two pods that no word tells apart are alike to every policy. Rules are kept as numbers of words.

use std::collections::HashMap;
use std::hash::Hash;

use super::ports::{PortRange, PortSet};
use super::space::Block;
use crate::netpol::coverage::Direction;
use crate::netpol::name::{NamespaceName, PortName};
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

/// Who is meant by a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Word {
    Selection(usize),
    Block(usize),
}

/// All that the policies of a snapshot say.
#[derive(Debug, Default)]
pub(super) struct Words<'s> {
    pub(super) policies: Vec<Spoken<'s>>,
    pub(super) selections: Numbered<Selection<'s>>,
    pub(super) blocks: Numbered<Block<'s>>,
    pub(super) names: Numbered<NamedPort<'s>>,
}

impl<'s> Words<'s> {
    /// The words of all policies that count.
    pub(super) fn of(snapshot: &'s Snapshot) -> Self {
        let mut words = Self::default();
        let policies = snapshot
            .namespaces()
            .flat_map(NamespaceState::effective_policies);
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
        words
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
            let protocol = port.protocol;
            let (first, last) = match &port.port {
                PortSpec::Any => (1, u16::MAX),
                PortSpec::Number(port) => (port.get(), port.get()),
                PortSpec::Range(first, last) => (first.get(), last.get()),
                PortSpec::Named(name) => {
                    named.push(self.names.number((name, protocol)));
                    continue;
                }
            };
            ranges.push(PortRange {
                protocol,
                first,
                last,
            });
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
            Peer::Block { cidr, except } => Word::Block(self.blocks.number(Block { cidr, except })),
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
