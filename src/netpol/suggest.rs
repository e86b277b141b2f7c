//! Least-privilege policies from recorded flows: what was seen may be, and nothing else.
//!
//! `suggest/units.rs` joins the ends of flows to workloads and finds the fewest labels that tell each from the others
//! of its namespace; `suggest/rules.rs` writes, for each namespace, a default-deny and a policy per workload;
//! `suggest/proof.rs` puts these into the cluster and asks the model whether every flow passes that did, and whether
//! anything between the known workloads is open that was not seen.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::IpNet;
use serde_json::Value;

use super::name::NamespaceName;
use super::namespace::SYSTEM_NAMESPACES;
use super::object::Object;
use super::parse;
use super::reach::PortSet;
use super::replay::{Observations, Row, Who};
use super::snapshot::Snapshot;

mod proof;
mod rules;
mod units;

/// How policies are to be written.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Only in these namespaces; none for all that take part in flows, but those of the system.
    pub namespaces: BTreeSet<NamespaceName>,
    /// Addresses of the cluster: one of these that no pod has is unknown, and not something outside.
    pub cluster: Vec<IpNet>,
    /// Outside addresses are joined to blocks of these lengths, which opens addresses that were not seen.
    pub join: Option<Join>,
    /// Who answers for the policies.
    pub owner: String,
    /// What they are for, in place of the words that say what was seen.
    pub purpose: Option<String>,
}

/// How far outside addresses are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Join {
    /// The length of the prefix of IPv4 blocks.
    pub v4: u8,
    /// The length of the prefix of IPv6 blocks.
    pub v6: u8,
}

/// Policies, and what is proved of them.
#[derive(Clone, Debug, Default)]
pub struct Suggestion {
    /// The policies as manifests, by namespace and name, the default-deny of each namespace first.
    pub policies: Vec<Value>,
    /// Recorded flows that passed and that these policies would deny; none where they are sufficient.
    pub denied: Vec<Row>,
    /// What these policies open between the known workloads, and to and from outside, that was not seen.
    pub opened: Vec<Opened>,
    /// How many flows that passed were recorded and judged.
    pub flows: u64,
    /// Flows that have an end that cannot be known, by reason: nothing was written for them.
    pub unknown: BTreeMap<String, u64>,
    /// Workloads of one namespace whose labels do not tell them apart; what one may, each may.
    pub alike: Vec<Vec<Who>>,
    /// What else is to be said.
    pub notes: BTreeSet<String>,
}

/// A connection that is open and was not seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Who may open it.
    pub from: Side,
    /// To whom.
    pub to: Side,
    /// The ports that are open, some of which were not seen.
    pub ports: PortSet,
}

/// One end of such a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// A workload.
    Workload(Who),
    /// Addresses outside of the cluster.
    Outside(IpNet),
}

impl Suggestion {
    /// Policies for what was recorded, in a snapshot without policies.
    pub fn of(observations: &Observations, snapshot: &Snapshot, options: &Options) -> Self {
        let snapshot = &*observations.informing(snapshot);
        let units = units::Units::of(observations, snapshot, &options.cluster);
        let mut suggestion = Self {
            alike: units.alike(),
            ..Self::default()
        };
        suggestion.notes.extend(units.wide());
        suggestion.notes.extend(options.join.map(|join| {
            format!(
                "addresses outside are joined to /{} and /{}: more of them are open than were seen",
                join.v4, join.v6
            )
        }));
        let seen = rules::Seen::of(observations, &units, options, &mut suggestion.notes);
        suggestion.policies = seen.policies(&units, options);
        let parsed = suggestion.policies.iter().filter_map(|policy| {
            let parsed = parse(policy).ok()??;
            Some(parsed.object)
        });
        let mut tried = snapshot.clone();
        tried.extend(parsed.collect::<Vec<Object>>());
        proof::sufficient(observations, &tried, options, &mut suggestion);
        suggestion.opened = proof::opened(&tried, &units, &seen);
        suggestion
    }

    /// Whether everything that was seen passes, nothing else does, and nothing was left unjudged.
    pub fn is_proved(&self) -> bool {
        self.denied.is_empty() && self.opened.is_empty() && self.unknown.is_empty()
    }
}

impl Options {
    /// Whether policies are to be written in a namespace.
    fn wants(&self, namespace: &NamespaceName) -> bool {
        if self.namespaces.is_empty() {
            !SYSTEM_NAMESPACES.contains(&namespace.as_str())
        } else {
            self.namespaces.contains(namespace)
        }
    }
}

impl fmt::Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}: {}", self.from, self.to, self.ports)
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(who) => who.fmt(f),
            Self::Outside(block) => block.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
