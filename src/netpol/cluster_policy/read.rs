//! From the API's ClusterNetworkPolicy, or one of the kinds before it, to ours, with every check that the API server makes by
//! the schema of the kind.
//!
//! Selectors are checked as those of NetworkPolicy are, which is more than the schema does: no implementation can
//! select by what is refused here. `read/kinds.rs` has what the kinds differ in, `read/peers.rs` and `read/ports.rs` read the
//! parts of a rule.

use serde_json::Value;

use super::manifest as api;
use super::{
    Action, ClusterNetworkPolicy, ClusterPeer, ClusterPort, ClusterPorts, ClusterRule, PodScope,
    Priority, Tier,
};
use crate::netpol::field::Place;
use crate::netpol::meta::{self, NameForm};
use crate::netpol::name::{ClusterPolicyKind, ClusterPolicyRef};
use crate::netpol::problem::{Problems, Quoted};
use crate::netpol::selector::Selector;
use ports::Entry;

mod kinds;
mod peers;
mod ports;

/// The longest name of a rule, in characters.
const LONGEST_NAME: usize = 100;

/// The name that the one BaselineAdminNetworkPolicy of a cluster must have.
const ONE: &str = "default";

/// The spec of one of the kinds, and what they differ in.
pub(in crate::netpol) trait Spec: Default {
    /// The kind.
    const KIND: ClusterPolicyKind;
    /// No list of rules, peers or ports may have more items than this.
    const MOST: usize;
    /// What its rules may do, by the words of the kind.
    const ACTIONS: &'static [(&'static str, Action)];
    /// The same in one text.
    const WORDS: &'static str;
    /// An entry of a rule's ports.
    type Port: Entry;

    /// Reads where the policy stands; nothing is amiss where the spec as a whole is not there.
    fn place(&self, is_there: bool, at: &Place<'_>, problems: &mut Problems) -> (Tier, Priority);
    /// Whose flows it rules.
    fn subject(&self) -> Option<&api::Peer>;
    /// Its rules for ingress.
    fn ingress(&self) -> Vec<Written<'_, api::Peer, Self::Port>>;
    /// Its rules for egress.
    fn egress(&self) -> Vec<Written<'_, api::EgressPeer, Self::Port>>;
}

/// A rule of either direction as it is written.
pub(in crate::netpol) struct Written<'r, P, E> {
    name: Option<&'r str>,
    action: Option<&'r str>,
    peers: Option<&'r [P]>,
    ports: Option<&'r [E]>,
}

impl ClusterNetworkPolicy {
    /// Reads the object; `raw` is the same one as JSON, to see what the types do not know.
    pub(in crate::netpol) fn read<S: Spec>(
        object: &api::Manifest<S>,
        raw: &Value,
        at: &Place<'_>,
        problems: &mut Problems,
    ) -> Self {
        let (meta, meta_at) = (&object.metadata, at.key("metadata"));
        let name = meta::read_name(meta, NameForm::Subdomain, &meta_at, problems);
        if S::KIND == ClusterPolicyKind::BaselineAdminNetworkPolicy
            && meta.name.as_deref().is_some_and(|name| !name.is_empty())
            && name != ONE
        {
            let reason = format!("{}: must be {ONE}, so that there is one", Quoted(&name));
            problems.add(&meta_at.key("name"), reason);
        }
        let labels = meta::read_labels(meta, &meta_at, problems);
        let at = at.key("spec");
        let absent = S::default();
        if object.spec.is_none() {
            problems.add(&at, "is missing");
        }
        let spec = object.spec.as_ref().unwrap_or(&absent);
        let is_there = object.spec.is_some();
        let (tier, priority) = spec.place(is_there, &at, problems);
        let subject_at = at.key("subject");
        if spec.subject().is_none() {
            missing(is_there, &subject_at, problems);
        }
        let subject = spec.subject();
        let subject = subject.and_then(|subject| peers::pods(subject, &subject_at, problems));
        let raw = raw.get("spec").unwrap_or(&Value::Null);
        Self {
            reference: ClusterPolicyRef::new(S::KIND, name),
            tier,
            priority,
            subject: subject.unwrap_or(PodScope {
                namespaces: Selector::everything(),
                pods: Selector::everything(),
            }),
            ingress: ingress(spec, raw, &at.key("ingress"), problems),
            egress: egress(spec, raw, &at.key("egress"), problems),
            labels,
            annotations: meta::read_annotations(meta),
            generation: meta.generation,
        }
    }
}

fn ingress<S: Spec>(
    spec: &S,
    raw: &Value,
    at: &Place<'_>,
    problems: &mut Problems,
) -> Vec<ClusterRule> {
    let rules = spec.ingress();
    at_most(rules.len(), S::MOST, at, problems);
    let rules = rules.iter().enumerate().map(|(index, rule)| {
        let peer = |number: usize, peer: &api::Peer, at: &Place<'_>, problems: &mut _| {
            let unknown = peers::unknown(S::KIND, raw, "ingress", index, "from", number);
            unknown.or_else(|| peers::pods(peer, at, problems).map(ClusterPeer::Pods))
        };
        rule.read::<S>("from", peer, &at.index(index), problems)
    });
    rules.collect()
}

fn egress<S: Spec>(
    spec: &S,
    raw: &Value,
    at: &Place<'_>,
    problems: &mut Problems,
) -> Vec<ClusterRule> {
    let rules = spec.egress();
    at_most(rules.len(), S::MOST, at, problems);
    let rules = rules.iter().enumerate().map(|(index, rule)| {
        let peer = |number: usize, peer: &api::EgressPeer, at: &Place<'_>, problems: &mut _| {
            let unknown = peers::unknown(S::KIND, raw, "egress", index, "to", number);
            unknown.or_else(|| peers::egress(S::KIND, peer, at, problems))
        };
        let at = at.index(index);
        let rule = rule.read::<S>("to", peer, &at, problems);
        nameless::<S>(&rule, &at, problems);
        rule
    });
    rules.collect()
}

/// Only pods have names for their ports.
fn nameless<S: Spec>(rule: &ClusterRule, at: &Place<'_>, problems: &mut Problems) {
    let has_no_names = |peer: &ClusterPeer| match peer {
        ClusterPeer::Nodes(_) | ClusterPeer::Networks(_) | ClusterPeer::DomainNames(_) => true,
        ClusterPeer::Pods(_) | ClusterPeer::Unknown(_) => false,
    };
    if !rule.peers.iter().any(has_no_names) {
        return;
    }
    let ClusterPorts::Only(ports) = &rule.ports else {
        return;
    };
    let named = |port: &ClusterPort| matches!(port, ClusterPort::Named(_));
    if let Some(index) = ports.iter().position(named) {
        problems.add(
            &at.key(S::Port::LIST).index(index).key(S::Port::NAME),
            "may not stand in a rule with networks, nodes or domainNames: these have no named ports",
        );
    }
}

impl<P, E: Entry> Written<'_, P, E> {
    /// Reads it; `list` is what its list of peers is called, and `peer` reads one of them by its position.
    fn read<S: Spec>(
        &self,
        list: &str,
        peer: impl Fn(usize, &P, &Place<'_>, &mut Problems) -> Option<ClusterPeer>,
        at: &Place<'_>,
        problems: &mut Problems,
    ) -> ClusterRule {
        let peers_at = at.key(list);
        some(self.peers.map(<[_]>::len), S::MOST, &peers_at, problems);
        let peers = self.peers.unwrap_or_default().iter().enumerate();
        let peers = peers
            .filter_map(|(number, one)| peer(number, one, &peers_at.index(number), problems))
            .collect();
        let (name, action) = (self.name, self.action);
        if let Some(name) = name.filter(|name| name.chars().count() > LONGEST_NAME) {
            let reason = format!(
                "{}: may not be longer than {LONGEST_NAME} characters",
                Quoted(name)
            );
            problems.add(&at.key("name"), reason);
        }
        let read = S::ACTIONS.iter().find(|(word, _)| Some(*word) == action);
        match (action, read) {
            (None, _) => problems.add(&at.key("action"), "is missing"),
            (Some(other), None) => {
                let reason = format!("{} is not {}", Quoted(other), S::WORDS);
                problems.add(&at.key("action"), reason);
            }
            (Some(_), Some(_)) => {}
        }
        ClusterRule {
            name: name.filter(|name| !name.is_empty()).map(Box::from),
            action: read.map_or(Action::Deny, |(_, action)| *action),
            peers,
            ports: self.read_ports(S::MOST, &at.key(E::LIST), problems),
        }
    }

    fn read_ports(&self, most: usize, at: &Place<'_>, problems: &mut Problems) -> ClusterPorts {
        let Some(ports) = self.ports else {
            return ClusterPorts::Any;
        };
        some(Some(ports.len()), most, at, problems);
        let read = ports.iter().enumerate();
        let read = read.filter_map(|(index, port)| port.read(&at.index(index), problems));
        ClusterPorts::Only(read.collect())
    }
}

fn some(count: Option<usize>, most: usize, at: &Place<'_>, problems: &mut Problems) {
    match count {
        None => problems.add(at, "is missing"),
        Some(0) => problems.add(at, "must have at least one item"),
        Some(count) => at_most(count, most, at, problems),
    }
}

fn at_most(count: usize, most: usize, at: &Place<'_>, problems: &mut Problems) {
    if count > most {
        let reason = format!("has {count} items, and may have {most} at most");
        problems.add(at, reason);
    }
}

fn one_of(set: &[bool], words: &str, at: &Place<'_>, problems: &mut Problems) {
    match set.iter().filter(|is_set| **is_set).count() {
        0 => problems.add(at, format!("must have {words}")),
        1 => {}
        _ => problems.add(at, format!("must have only one of {words}")),
    }
}

/// Notes that a field is missing, unless what it stands in is missing as a whole.
fn missing(is_there: bool, at: &Place<'_>, problems: &mut Problems) {
    if is_there {
        problems.add(at, "is missing");
    }
}
