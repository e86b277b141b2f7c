//! What the audit found of all that a cluster holds.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::guard::decide::Decision;
use crate::guard::mode::Mode;
use crate::netpol::{Coverage, Direction, SYSTEM_NAMESPACES};

/// The numbers of the audit. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct AuditMetrics {
    findings: Family<Labels, Gauge>,
    exempted: Gauge,
    namespaces: Family<CoverLabels, Gauge>,
    objects: Gauge,
    milliseconds: Gauge,
    last: Gauge,
    audits: Family<ExtentLabels, Counter>,
    failures: Counter,
}

/// How much an audit looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelValue)]
pub enum Extent {
    /// The whole cluster.
    Whole,
    /// What changes have touched.
    Touched,
}

/// What kind of namespace an object is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelValue)]
pub enum Class {
    /// One of Kubernetes' own.
    System,
    /// Any other.
    Workload,
    /// None: it belongs to the cluster.
    Cluster,
}

/// In which directions every pod of a namespace is isolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelValue)]
pub enum Cover {
    /// In both.
    Both,
    /// Of what comes in only.
    Ingress,
    /// Of what goes out only.
    Egress,
    /// In none.
    Neither,
}

/// How many findings there are of everything.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Objects that were judged.
    pub objects: u64,
    exempted: i64,
    namespaces: BTreeMap<(Class, Cover), i64>,
    findings: BTreeMap<(String, Mode, Class), i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    check: String,
    mode: &'static str,
    class: Class,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ExtentLabels {
    extent: Extent,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CoverLabels {
    class: Class,
    isolated: Cover,
}

// === impl AuditMetrics ===

impl AuditMetrics {
    /// Adds them to a registry.
    pub fn new(registry: &mut Registry) -> Self {
        let this = Self::default();
        registry.register(
            "audit_findings",
            "Findings of all that is there that no exemption lets off, by check, mode and class of namespace",
            this.findings.clone(),
        );
        registry.register(
            "audit_exempted",
            "Findings of all that is there that an exemption lets off",
            this.exempted.clone(),
        );
        registry.register(
            "audit_namespaces",
            "Namespaces by class and by the directions in which every pod of them is isolated",
            this.namespaces.clone(),
        );
        registry.register(
            "audit_objects",
            "Objects that are there and were judged, be it by the last audit or by one before",
            this.objects.clone(),
        );
        registry.register(
            "audit_duration_milliseconds",
            "How long the last audit took",
            this.milliseconds.clone(),
        );
        registry.register(
            "audit_last_timestamp_seconds",
            "When the last audit ended, in seconds since 1970",
            this.last.clone(),
        );
        registry.register(
            "audits",
            "Audits, of the whole cluster or of what changes have touched",
            this.audits.clone(),
        );
        registry.register(
            "audit_failures",
            "Audits that failed, or whose reports could not be written",
            this.failures.clone(),
        );
        this
    }

    /// Notes an audit that was done, and what is known of the whole cluster after it.
    pub fn done(&self, extent: Extent, tally: &Tally, took: Duration, at: Timestamp) {
        self.audits.get_or_create(&ExtentLabels { extent }).inc();
        // What is found no longer is not to stay.
        self.findings.clear();
        for ((check, mode, class), count) in &tally.findings {
            let labels = Labels {
                check: check.clone(),
                mode: mode.as_str(),
                class: *class,
            };
            self.findings.get_or_create(&labels).set(*count);
        }
        self.exempted.set(tally.exempted);
        self.namespaces.clear();
        for ((class, isolated), count) in &tally.namespaces {
            let (class, isolated) = (*class, *isolated);
            let labels = CoverLabels { class, isolated };
            self.namespaces.get_or_create(&labels).set(*count);
        }
        self.objects
            .set(i64::try_from(tally.objects).unwrap_or(i64::MAX));
        self.milliseconds
            .set(i64::try_from(took.as_millis()).unwrap_or(i64::MAX));
        self.last.set(at.as_second());
    }

    /// Counts one that failed.
    pub fn failed(&self) {
        self.failures.inc();
    }
}

// === impl Class ===

impl Class {
    /// The class of a namespace.
    pub fn of(namespace: Option<&str>) -> Self {
        match namespace {
            None => Self::Cluster,
            Some(name) if SYSTEM_NAMESPACES.contains(&name) => Self::System,
            Some(_) => Self::Workload,
        }
    }
}

// === impl Tally ===

impl Tally {
    /// Adds a namespace.
    pub fn add_namespace(&mut self, class: Class, coverage: &Coverage) {
        let [ingress, egress] = Direction::BOTH.map(|way| coverage.covered(way));
        let isolated = match (ingress, egress) {
            (true, true) => Cover::Both,
            (true, false) => Cover::Ingress,
            (false, true) => Cover::Egress,
            (false, false) => Cover::Neither,
        };
        *self.namespaces.entry((class, isolated)).or_default() += 1;
    }

    /// Adds what was decided about one object.
    pub fn add(&mut self, class: Class, decision: &Decision) {
        self.objects += 1;
        for judged in &decision.judged {
            if judged.exemption.is_some() {
                self.exempted += 1;
                continue;
            }
            let id = judged.finding.id.as_str();
            // A user's own policies are as many as they like, and labels are to be few.
            let check = if id.starts_with("RF") { id } else { "own" };
            let count = self
                .findings
                .entry((check.to_owned(), judged.mode, class))
                .or_default();
            *count += 1;
        }
    }
}

impl<'t> std::iter::Sum<&'t Tally> for Tally {
    fn sum<I: Iterator<Item = &'t Self>>(tallies: I) -> Self {
        let mut all = Self::default();
        for tally in tallies {
            all.objects += tally.objects;
            all.exempted += tally.exempted;
            for (place, count) in &tally.namespaces {
                *all.namespaces.entry(*place).or_default() += count;
            }
            for (place, count) in &tally.findings {
                match all.findings.get_mut(place) {
                    Some(sum) => *sum += count,
                    None => {
                        all.findings.insert(place.clone(), *count);
                    }
                }
            }
        }
        all
    }
}
