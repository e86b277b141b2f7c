//! When certificates end, and how often new ones were made.

use jiff::Timestamp;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The numbers of certificates. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct CertificateMetrics {
    ends: Family<Which, Gauge>,
    made: Family<Which, Counter>,
    failures: Counter,
    wrong: Gauge,
}

/// Which certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Certificate {
    /// What the webhook shows.
    Leaf,
    /// What signs it.
    Authority,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Which {
    certificate: Certificate,
}

// === impl CertificateMetrics ===

impl CertificateMetrics {
    /// Adds them to a registry.
    pub fn new(registry: &mut Registry) -> Self {
        let this = Self::default();
        registry.register(
            "certificate_expiry_timestamp_seconds",
            "When the certificate in use ends, in seconds since 1970",
            this.ends.clone(),
        );
        registry.register("certificates_made", "Certificates made", this.made.clone());
        registry.register(
            "certificate_failures",
            "Times that certificates could not be kept, or taken into use",
            this.failures.clone(),
        );
        registry.register(
            "certificate_not_trusted",
            "1 while the registration does not trust the certificate that is shown",
            this.wrong.clone(),
        );
        this
    }

    /// Notes when the one in use ends.
    pub fn ends(&self, certificate: Certificate, at: Timestamp) {
        let gauge = self.ends.get_or_create(&Which { certificate });
        gauge.set(at.as_second());
    }

    /// Counts one that was made.
    pub fn made(&self, certificate: Certificate) {
        self.made.get_or_create(&Which { certificate }).inc();
    }

    /// Counts a failure.
    pub fn failed(&self) {
        self.failures.inc();
    }

    /// Notes whether the certificate that is shown is trusted.
    pub fn trusted(&self, trusted: bool) {
        self.wrong.set(i64::from(!trusted));
    }
}
