//! How much there is of everything, for the last line and for programs.

use serde::Serialize;

use crate::guard::finding::Severity;

use super::{Outcome, Report};

/// How much there is of everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Files that were read.
    pub files: usize,
    /// Objects that were judged.
    pub objects: usize,
    /// Documents that are no Kubernetes objects and were passed over.
    pub passed_over: usize,
    /// Findings that are refused.
    pub refused: usize,
    /// Findings that pass with a warning.
    pub warned: usize,
    /// Findings that are recorded only.
    pub recorded: usize,
    /// Findings that an exemption lets off.
    pub exempted: usize,
    /// Problems of the files themselves.
    pub problems: usize,
    /// Those of them that kept something from being checked.
    pub fatal_problems: usize,
    /// Findings by severity, without the exempted ones.
    pub by_severity: BySeverity,
    /// How long it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub milliseconds: Option<u64>,
}

/// How many findings there are of each severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BySeverity {
    /// The workload or the network is outside of any policy.
    pub critical: usize,
    /// Traffic can pass that should not.
    pub high: usize,
    /// Something will be missed or will break.
    pub medium: usize,
    /// A convention is missed.
    pub low: usize,
    /// Good to know.
    pub info: usize,
}

// === impl Summary ===

impl Summary {
    pub(super) fn of(report: &Report) -> Self {
        let mut summary = Self {
            files: report.files,
            objects: report.objects.len(),
            passed_over: report.passed_over,
            problems: report.problems.len(),
            fatal_problems: report
                .problems
                .iter()
                .filter(|problem| problem.fatal)
                .count(),
            milliseconds: report
                .elapsed
                .map(|elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)),
            ..Self::default()
        };
        for (_, located) in report.findings() {
            let outcome = located.outcome();
            let count = match outcome {
                Outcome::Exempted => &mut summary.exempted,
                Outcome::Recorded => &mut summary.recorded,
                Outcome::Warned => &mut summary.warned,
                Outcome::Refused => &mut summary.refused,
            };
            *count = count.saturating_add(1);
            if outcome != Outcome::Exempted {
                let count = summary.by_severity.of(located.judged.finding.severity);
                *count = count.saturating_add(1);
            }
        }
        summary
    }

    /// How many findings there are, without the exempted ones.
    pub fn findings(&self) -> usize {
        self.refused
            .saturating_add(self.warned)
            .saturating_add(self.recorded)
    }
}

// === impl BySeverity ===

impl BySeverity {
    fn of(&mut self, severity: Severity) -> &mut usize {
        match severity {
            Severity::Critical => &mut self.critical,
            Severity::High => &mut self.high,
            Severity::Medium => &mut self.medium,
            Severity::Low => &mut self.low,
            Severity::Info => &mut self.info,
        }
    }

    /// Each severity with its count, the gravest first.
    pub fn counts(&self) -> [(Severity, usize); 5] {
        [
            (Severity::Critical, self.critical),
            (Severity::High, self.high),
            (Severity::Medium, self.medium),
            (Severity::Low, self.low),
            (Severity::Info, self.info),
        ]
    }
}
