//! What became of packets, told once: equal ones are joined with their number, and the last ones are kept for who asks.
//!
//! A [`Record`] is written as a line of Ringfence's own recorded flows, so what the agent tells is what `ringfence replay`
//! and `ringfence suggest` read.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Flows of one kind, as a line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When the last of them was seen.
    pub time: Timestamp,
    /// Who, to whom, over what, with which end.
    #[serde(flatten)]
    pub kind: Kind,
    /// How many packets.
    pub count: u64,
    /// What else is known; nothing that replay needs.
    pub details: Details,
}

/// What makes flows the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Kind {
    /// Who opened them.
    pub from: End,
    /// To whom.
    pub to: End,
    /// `TCP`, `UDP`, `SCTP`, `ICMP`, or the number of another protocol.
    pub protocol: String,
    /// To which port; 0 for a protocol without ports.
    pub port: u16,
    /// What was done to them.
    pub verdict: Verdict,
}

/// One end of a flow. Pods of one workload are one end, so that a record does not tell which of them it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// The namespace of a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The pod, where it belongs to no workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Its workload, as `Deployment/web`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// Its labels, where they are asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// The address of what is no pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// The name of a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// What was done to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It passed.
    Allowed,
    /// It was dropped.
    Denied,
    /// It passed, and would be dropped if the policies on trial were promoted.
    WouldDeny,
    /// It was dropped, and would pass if they were.
    WouldAllow,
}

/// What is known of flows beside what replay needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Details {
    /// `ingress` or `egress`: at which end it was decided.
    pub direction: String,
    /// The node that saw it.
    pub node: String,
    /// The policies that decided, as `namespace/name`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The pods of the last one, as `namespace/name`: the one that sent and the one that would have received.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<String>,
}

/// Joins equal flows. Pure: the time is an argument.
///
/// The first of a kind is told at once; those that follow within the window are told together when it ends.
#[derive(Debug)]
pub struct Joiner {
    window: Duration,
    most: usize,
    /// What has been told, until when its like is gathered, and what was gathered.
    open: HashMap<(Kind, String), Gathered>,
}

#[derive(Debug)]
struct Gathered {
    until: Timestamp,
    record: Option<Record>,
}

/// The last records, each with a number of its own, so that who asks again gets what is new. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Recent {
    kept: Arc<Mutex<Kept>>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Kept {
    records: VecDeque<Arc<Record>>,
    /// The number that the next record gets: how many there were before it.
    next: u64,
}

/// A part of what was kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The number to ask from the next time.
    pub next: u64,
    /// How many records are gone that were asked for.
    pub lost: u64,
    /// The records, the oldest first.
    pub flows: Vec<Arc<Record>>,
}

// === impl Verdict ===

impl Verdict {
    /// As in a line of JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::WouldDeny => "would-deny",
            Self::WouldAllow => "would-allow",
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let namespace = self.namespace.as_deref().unwrap_or_default();
        match (&self.workload, &self.pod, &self.node, &self.ip) {
            (Some(name), ..) | (None, Some(name), ..) => write!(f, "{namespace}/{name}"),
            (None, None, Some(node), _) => write!(f, "node {node}"),
            (None, None, None, Some(address)) => address.fmt(f),
            (None, None, None, None) => f.write_str("unknown"),
        }
    }
}

// === impl Joiner ===

impl Joiner {
    /// Gathers for so long, and so many different kinds at once; more kinds are told one by one.
    pub fn new(window: Duration, most: usize) -> Self {
        Self {
            window,
            most,
            open: HashMap::new(),
        }
    }

    /// Adds flows, and gives them back where they are to be told now.
    pub fn add(&mut self, record: Record, now: Timestamp) -> Option<Record> {
        let key = (record.kind.clone(), record.details.direction.clone());
        if let Some(gathered) = self.open.get_mut(&key) {
            let before = gathered.record.as_ref().map_or(0, |record| record.count);
            let count = before.saturating_add(record.count);
            gathered.record = Some(Record { count, ..record });
            return None;
        }
        if self.open.len() < self.most {
            let until = now.checked_add(self.window).unwrap_or(Timestamp::MAX);
            let gathered = Gathered {
                until,
                record: None,
            };
            self.open.insert(key, gathered);
        }
        Some(record)
    }

    /// What was gathered in windows that are over, in the order of their times. A kind that went on begins a new window.
    pub fn due(&mut self, now: Timestamp) -> Vec<Record> {
        let mut due = Vec::new();
        let window = self.window;
        self.open.retain(|_, gathered| {
            if now < gathered.until {
                return true;
            }
            gathered.until = now.checked_add(window).unwrap_or(Timestamp::MAX);
            match gathered.record.take() {
                Some(record) => {
                    due.push(record);
                    true
                }
                None => false,
            }
        });
        due.sort_by_key(|record| record.time);
        due
    }

    /// All that was gathered, for the end.
    pub fn rest(&mut self) -> Vec<Record> {
        let mut rest: Vec<Record> = self
            .open
            .drain()
            .filter_map(|(_, gathered)| gathered.record)
            .collect();
        rest.sort_by_key(|record| record.time);
        rest
    }

    /// How many kinds are gathered.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether nothing is gathered.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

// === impl Recent ===

impl Recent {
    /// Keeps so many.
    pub fn new(capacity: usize) -> Self {
        Self {
            kept: Arc::default(),
            capacity: capacity.max(1),
        }
    }

    /// Adds a record.
    pub fn push(&self, record: Record) {
        // A thread that panicked while it held this left whole records.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.records.len() >= self.capacity {
            kept.records.pop_front();
        }
        kept.records.push_back(Arc::new(record));
        kept.next = kept.next.saturating_add(1);
    }

    /// What there is from a number on; from 0, all that is kept.
    pub fn from(&self, number: u64) -> Page {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let count = u64::try_from(kept.records.len()).unwrap_or(u64::MAX);
        let oldest = kept.next.saturating_sub(count);
        // A number from another life of the agent means nothing here.
        let from = if number > kept.next { 0 } else { number };
        let skip = usize::try_from(from.saturating_sub(oldest)).unwrap_or(usize::MAX);
        let flows = kept.records.iter().skip(skip);
        Page {
            next: kept.next,
            lost: if from == 0 {
                0
            } else {
                oldest.saturating_sub(from)
            },
            flows: flows.map(Arc::clone).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
