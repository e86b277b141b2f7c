//! The webhook's numbers: what was decided, how long it took, what was turned away, what was asked of the cluster.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::guard::review::{Operation, Review};
use crate::telemetry::metrics::ANSWER_SECONDS;

use super::answer::Answer;

/// The webhook's numbers. Counting costs a fraction of a microsecond.
#[derive(Debug)]
pub struct Metrics {
    decisions: Family<Decision, Counter>,
    seconds: Histogram,
    failures: Family<Outcome, Counter>,
    in_flight: Gauge,
    shed: Counter,
    reads: Counter,
    unread: Counter,
    not_exempt: Counter,
}

/// The labels of a decision, each of a closed set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decision {
    path: &'static str,
    kind: &'static str,
    operation: &'static str,
    outcome: &'static str,
    mode: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// A request that is counted as being in flight while this lives, and timed.
#[derive(Debug)]
pub(super) struct InFlight<'a> {
    metrics: &'a Metrics,
    begun: std::time::Instant,
}

/// The kinds that have a label of their own.
const KINDS: [&str; 18] = [
    "Pod",
    "Deployment",
    "StatefulSet",
    "DaemonSet",
    "ReplicaSet",
    "ReplicationController",
    "Job",
    "CronJob",
    "Namespace",
    "NetworkPolicy",
    "StagedNetworkPolicy",
    "ClusterNetworkPolicy",
    "AdminNetworkPolicy",
    "BaselineAdminNetworkPolicy",
    "Service",
    "Guardrail",
    "ReachabilityRule",
    "Exemption",
];
const MODES: [&str; 3] = ["Audit", "Warn", "Enforce"];

impl Default for Metrics {
    fn default() -> Self {
        Self {
            decisions: Family::default(),
            seconds: Histogram::new(ANSWER_SECONDS),
            failures: Family::default(),
            in_flight: Gauge::default(),
            shed: Counter::default(),
            reads: Counter::default(),
            unread: Counter::default(),
            not_exempt: Counter::default(),
        }
    }
}

// === impl Metrics ===

impl Metrics {
    /// Adds them to what is told.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("webhook");
        registry.register(
            "decisions",
            "Reviews that were answered, by what they were and what came of them; mode is empty where no guardrail selects the namespace",
            self.decisions.clone(),
        );
        registry.register_with_unit(
            "answer",
            "From the head of a request to its answer",
            Unit::Seconds,
            self.seconds.clone(),
        );
        registry.register(
            "failures",
            "Reviews that could not be judged (too late, a limit, a state that is too old), by what was answered",
            self.failures.clone(),
        );
        registry.register(
            "in_flight",
            "Reviews that are being handled",
            self.in_flight.clone(),
        );
        registry.register(
            "shed",
            "Reviews that were turned away because too many were in flight",
            self.shed.clone(),
        );
        registry.register(
            "rereads",
            "Reviews that had the API server asked before they were refused or warned of",
            self.reads.clone(),
        );
        registry.register(
            "rereads_failed",
            "The same, where it gave no answer in time",
            self.unread.clone(),
        );
        registry.register(
            "exemptions_not_authorized",
            "Exemptions that were refused because their writer may not exempt, or in doubt",
            self.not_exempt.clone(),
        );
    }

    pub(super) fn judged(&self, review: &Review, answer: &Answer, mutates: bool) {
        let (_, mode) = answer.rules_and_mode();
        self.decided(review, answer.verdict().as_str(), mode, mutates);
    }

    pub(super) fn skipped(&self, review: &Review, mutates: bool) {
        self.decided(review, "skipped", "", mutates);
    }

    pub(super) fn failed(&self, allowed: bool) {
        let outcome = if allowed { "allowed" } else { "denied" };
        self.failures.get_or_create(&Outcome { outcome }).inc();
    }

    pub(super) fn shed(&self) {
        self.shed.inc();
    }

    pub(super) fn read(&self) {
        self.reads.inc();
    }

    pub(super) fn unread(&self) {
        self.unread.inc();
    }

    pub(super) fn not_exempt(&self) {
        self.not_exempt.inc();
    }

    pub(super) fn in_flight(&self) -> InFlight<'_> {
        self.in_flight.inc();
        InFlight {
            metrics: self,
            begun: std::time::Instant::now(),
        }
    }

    fn decided(&self, review: &Review, outcome: &'static str, mode: &str, mutates: bool) {
        let of = |set: &[&'static str], word: &str, other| {
            set.iter()
                .copied()
                .find(|known| *known == word)
                .unwrap_or(other)
        };
        let labels = Decision {
            path: if mutates { "mutate" } else { "validate" },
            kind: of(&KINDS, &review.kind, "other"),
            operation: match review.operation {
                Operation::Create => "create",
                Operation::Update => "update",
                Operation::Delete => "delete",
                Operation::Connect => "connect",
            },
            outcome,
            mode: of(&MODES, mode, ""),
        };
        self.decisions.get_or_create(&labels).inc();
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
        let taken: Duration = self.begun.elapsed();
        self.metrics.seconds.observe(taken.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::telemetry::metrics::{registry, text};

    #[test]
    fn kinds_that_nobody_knows_make_one_series_together() {
        let (metrics, mut registry) = (Metrics::default(), registry());
        metrics.register(&mut registry);
        for number in 0..100 {
            let kind = format!("Widget{number}");
            let review = Review::of_manifest(json!({
                "apiVersion": "example.com/v1", "kind": kind, "metadata": {"name": "a", "namespace": "b"}
            }));
            metrics.skipped(&review, false);
        }
        drop(metrics.in_flight());
        metrics.shed();
        let text = text(&registry).unwrap();
        let line = "ringfence_webhook_decisions_total{path=\"validate\",kind=\"other\",operation=\"create\",outcome=\"skipped\",mode=\"\"} 100";
        assert!(text.contains(line), "{text}");
        assert!(
            text.contains("ringfence_webhook_answer_seconds_count 1\n"),
            "{text}"
        );
        assert!(text.contains("ringfence_webhook_shed_total 1\n"), "{text}");
        assert!(text.contains("ringfence_webhook_in_flight 0\n"), "{text}");
    }
}
