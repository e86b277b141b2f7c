//! How namespaces stand with their baseline, and what was written for it.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::guard::baseline::plan::{Hold, Standing};

/// The numbers of baselines. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct BaselineMetrics {
    writes: Family<Write, Counter>,
    namespaces: Family<Stand, Gauge>,
}

/// Why a policy is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Reason {
    /// The namespace had none.
    New,
    /// Somebody edited or deleted it.
    Repair,
    /// No guardrail wants it any more, and it is deleted.
    Unwanted,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// It is done.
    Done,
    /// The policy or its namespace is not there any more.
    Gone,
    /// The API server did not take it.
    Failed,
}

/// How a namespace stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum State {
    Kept,
    Adopted,
    Leaving,
    ModeTooMild,
    NotPromoted,
    NameTaken,
    LastCover,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Write {
    reason: Reason,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Stand {
    state: State,
}

const STATES: [State; 7] = [
    State::Kept,
    State::Adopted,
    State::Leaving,
    State::ModeTooMild,
    State::NotPromoted,
    State::NameTaken,
    State::LastCover,
];

// === impl BaselineMetrics ===

impl BaselineMetrics {
    /// Adds them to a registry.
    pub fn new(registry: &mut Registry) -> Self {
        let this = Self::default();
        registry.register(
            "baseline_writes",
            "Writes of baseline policies, by why and what became of them",
            this.writes.clone(),
        );
        registry.register(
            "baseline_namespaces",
            "Namespaces that a guardrail has a baseline for, by how they stand with it",
            this.namespaces.clone(),
        );
        this
    }

    /// Counts a write.
    pub fn wrote(&self, reason: Reason, outcome: Outcome) {
        self.writes.get_or_create(&Write { reason, outcome }).inc();
    }

    /// Notes how all namespaces stand.
    pub fn stand<'s>(&self, standings: impl Iterator<Item = &'s Standing>) {
        let mut counts = [0_i64; STATES.len()];
        for standing in standings {
            let state = State::of(standing);
            if let Some(at) = STATES.iter().position(|known| *known == state) {
                counts[at] += 1;
            }
        }
        for (state, count) in STATES.into_iter().zip(counts) {
            self.namespaces.get_or_create(&Stand { state }).set(count);
        }
    }
}

impl Reason {
    /// The name as it stands in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Repair => "repair",
            Self::Unwanted => "unwanted",
        }
    }
}

impl State {
    fn of(standing: &Standing) -> Self {
        match standing {
            Standing::Kept => Self::Kept,
            Standing::Adopted => Self::Adopted,
            Standing::Leaving => Self::Leaving,
            Standing::Held(Hold::Mode(_), _) => Self::ModeTooMild,
            Standing::Held(Hold::RunningPods, _) => Self::NotPromoted,
            Standing::Held(Hold::NameTaken(_), _) => Self::NameTaken,
            Standing::Held(Hold::LastCover, _) => Self::LastCover,
        }
    }
}
