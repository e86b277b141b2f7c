//! How many Events were written, and how many were not.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// The numbers of Events. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct EventMetrics {
    written: Family<How, Counter>,
    dropped: Family<Why, Counter>,
}

/// How an Event was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Written {
    /// A new one.
    New,
    /// The count of one that is there.
    Count,
}

/// Why something was not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Dropped {
    /// More came at once than the queue holds.
    Queue,
    /// The namespace has had too many new ones of late.
    Namespace,
    /// All namespaces together have more waiting than can be written.
    Rate,
    /// The API server did not take it, as it does not in a namespace that goes.
    Refused,
    /// The API server could not be reached, or did not answer in time.
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct How {
    write: Written,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    reason: Dropped,
}

// === impl EventMetrics ===

impl EventMetrics {
    /// Adds them to a registry.
    pub fn new(registry: &mut Registry) -> Self {
        let this = Self::default();
        registry.register(
            "events_written",
            "Kubernetes Events written, new ones and counts of those that are there",
            this.written.clone(),
        );
        registry.register(
            "events_dropped",
            "What was worth an Event and was not told, by why",
            this.dropped.clone(),
        );
        this
    }

    /// Counts one that was written.
    pub fn wrote(&self, write: Written) {
        self.written.get_or_create(&How { write }).inc();
    }

    /// Counts one that was not told.
    pub fn dropped(&self, reason: Dropped) {
        self.dropped.get_or_create(&Why { reason }).inc();
    }
}
