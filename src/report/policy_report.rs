//! Findings as `PolicyReport` and `ClusterPolicyReport` (`wgpolicyk8s.io/v1alpha2`), or as what follows them, `Report` and
//! `ClusterReport` (`openreports.io/v1alpha1`), which have the same fields. For tools that read those.
//!
//! One report for each namespace, and one for what belongs to none. [`Reports`] takes decisions one by one and keeps of
//! each report only so many results as it may have, the gravest; what is over is counted and not listed. The same
//! decisions give the same bytes in whatever order they come.
//!
//! What a result says: `fail` would be refused in mode `Enforce`, `warn` never is, `skip` is let off by an exemption;
//! `pass` only counts the objects in which nothing was found. The mode that is in force is a property of the result.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::guard::audit::Kind;
use crate::guard::decide::{Decision, Judged};
use crate::guard::engine::Level;
use crate::guard::finding::{ObjectRef, Severity};

/// The name of each of our reports: one in a namespace.
pub const NAME: &str = "ringfence";
/// The annotation that counts the results which are not listed.
pub const OMITTED: &str = "ringfence.dev/results-omitted";
/// The annotation that counts the replicas whose findings are those of their template.
pub const ALIKE: &str = "ringfence.dev/repeated-by-replicas";
/// How many results a report has where nothing else is said: some 100 KB, far below what etcd takes.
pub const RESULTS: usize = 200;
/// The longest message of a result, in bytes.
const MESSAGE: usize = 512;

const POLICY_REPORTS: [Kind; 2] = [
    Kind {
        group: "wgpolicyk8s.io",
        version: "v1alpha2",
        kind: "PolicyReport",
        plural: "policyreports",
    },
    Kind {
        group: "wgpolicyk8s.io",
        version: "v1alpha2",
        kind: "ClusterPolicyReport",
        plural: "clusterpolicyreports",
    },
];
const OPEN_REPORTS: [Kind; 2] = [
    Kind {
        group: "openreports.io",
        version: "v1alpha1",
        kind: "Report",
        plural: "reports",
    },
    Kind {
        group: "openreports.io",
        version: "v1alpha1",
        kind: "ClusterReport",
        plural: "clusterreports",
    },
];

/// The API that reports are written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// `PolicyReport` and `ClusterPolicyReport`.
    #[default]
    PolicyReport,
    /// `Report` and `ClusterReport` of `OpenReports`.
    OpenReport,
}

/// A report; of the whole cluster where it has no namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyReport {
    /// That of its [`Form`].
    pub api_version: String,
    /// That of its [`Form`], for a namespace or for the cluster.
    pub kind: String,
    /// What names it.
    pub metadata: Metadata,
    /// How much there is of everything, what is not listed included.
    #[serde(default)]
    pub summary: Counts,
    /// The gravest results.
    #[serde(default)]
    pub results: Vec<ReportResult>,
}

/// What names a report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Its name.
    pub name: String,
    /// Its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// How much there is of everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Objects in which nothing was found.
    pub pass: u64,
    /// Findings that `Enforce` refuses.
    pub fail: u64,
    /// Findings that are never refused.
    pub warn: u64,
    /// Objects that could not be judged wholly.
    pub error: u64,
    /// Findings that an exemption lets off.
    pub skip: u64,
}

/// What a result says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Said {
    /// `Enforce` refuses it.
    Fail,
    /// It could not be judged wholly.
    Error,
    /// It is never refused.
    Warn,
    /// An exemption lets it off.
    Skip,
    /// Nothing was found.
    Pass,
}

/// One result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportResult {
    /// The guardrail that asks for it; `ringfence` for what every object is held to.
    pub policy: String,
    /// The id of the check.
    pub rule: String,
    /// The section of the guardrail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// How much it matters.
    pub severity: Severity,
    /// What it says.
    pub result: Said,
    /// Whether it counts: what is let off does not.
    pub scored: bool,
    /// Who says so.
    pub source: String,
    /// What is wrong, in one line.
    pub message: String,
    /// The object.
    pub resources: Vec<Resource>,
    /// The field, the mode, what to do.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
}

/// The object that a result speaks of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    /// Its `apiVersion`.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

/// The reports of a cluster as they are made.
#[derive(Clone, Debug)]
pub struct Reports {
    form: Form,
    most: usize,
    open: BTreeMap<Option<String>, Open>,
}

/// A report that is being made.
#[derive(Clone, Debug, Default)]
struct Open {
    counts: Counts,
    alike: u64,
    results: Vec<ReportResult>,
}

// === impl Form ===

impl Form {
    /// The kind of a namespace's report, and that of the cluster's.
    pub const fn kinds(self) -> &'static [Kind; 2] {
        match self {
            Self::PolicyReport => &POLICY_REPORTS,
            Self::OpenReport => &OPEN_REPORTS,
        }
    }

    /// The kind of one report.
    pub const fn kind(self, is_of_namespace: bool) -> &'static Kind {
        let [of_namespace, of_cluster] = self.kinds();
        if is_of_namespace {
            of_namespace
        } else {
            of_cluster
        }
    }
}

// === impl Reports ===

impl Reports {
    /// Reports of at most so many results each.
    pub fn new(form: Form, most: usize) -> Self {
        Self {
            form,
            most,
            open: BTreeMap::new(),
        }
    }

    /// Notes a namespace, which has a report even when there is nothing in it.
    pub fn open(&mut self, namespace: &str) {
        self.open.entry(Some(namespace.to_owned())).or_default();
    }

    /// Adds what was decided about one object of a namespace, or of none; `alike` findings of it were said of its owner.
    pub fn add(
        &mut self,
        namespace: Option<&str>,
        object: &ObjectRef,
        decision: &Decision,
        alike: usize,
    ) {
        let most = self.most;
        let open = self.open.entry(namespace.map(str::to_owned)).or_default();
        open.alike = open
            .alike
            .saturating_add(u64::try_from(alike).unwrap_or(u64::MAX));
        if let Some(cut) = decision.cut {
            open.count(Said::Error);
            open.results
                .push(ReportResult::cut(object, &cut.to_string()));
        }
        if decision.judged.is_empty() && decision.cut.is_none() && alike == 0 {
            open.count(Said::Pass);
        }
        for judged in &decision.judged {
            let result = ReportResult::of(object, judged);
            open.count(result.result);
            open.results.push(result);
        }
        // Sorted now and then only, so that many results cost little each.
        if open.results.len() > most.saturating_mul(2).max(64) {
            open.keep(most);
        }
    }

    /// Takes in what was added to others.
    pub fn merge(&mut self, others: Self) {
        let most = self.most;
        for (namespace, other) in others.open {
            let open = self.open.entry(namespace).or_default();
            open.counts.add(other.counts);
            open.alike = open.alike.saturating_add(other.alike);
            open.results.extend(other.results);
            open.keep(most);
        }
    }

    /// The reports, in the order of the namespaces; the one of the cluster comes first.
    pub fn finish(self) -> Vec<PolicyReport> {
        let most = self.most;
        let reports = self.open.into_iter().map(|(namespace, mut open)| {
            open.keep(most);
            open.close(self.form, namespace)
        });
        reports.collect()
    }
}

impl Counts {
    fn add(&mut self, other: Self) {
        let Self {
            pass,
            fail,
            warn,
            error,
            skip,
        } = self;
        for (sum, more) in [
            (pass, other.pass),
            (fail, other.fail),
            (warn, other.warn),
            (error, other.error),
            (skip, other.skip),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}

impl Open {
    fn count(&mut self, said: Said) {
        let count = match said {
            Said::Fail => &mut self.counts.fail,
            Said::Error => &mut self.counts.error,
            Said::Warn => &mut self.counts.warn,
            Said::Skip => &mut self.counts.skip,
            Said::Pass => &mut self.counts.pass,
        };
        *count = count.saturating_add(1);
    }

    fn keep(&mut self, most: usize) {
        self.results.sort_by(|a, b| a.rank().cmp(&b.rank()));
        self.results.truncate(most);
    }

    fn close(self, form: Form, namespace: Option<String>) -> PolicyReport {
        let Counts {
            fail,
            warn,
            error,
            skip,
            pass: _,
        } = self.counts;
        let all = fail
            .saturating_add(warn)
            .saturating_add(error)
            .saturating_add(skip);
        let listed = u64::try_from(self.results.len()).unwrap_or(u64::MAX);
        let omitted = all.saturating_sub(listed);
        let mut annotations = BTreeMap::new();
        for (key, count) in [(OMITTED, omitted), (ALIKE, self.alike)] {
            if count > 0 {
                annotations.insert(key.to_owned(), count.to_string());
            }
        }
        let kind = form.kind(namespace.is_some());
        let label = crate::guard::baseline::MANAGED_BY.to_owned();
        PolicyReport {
            api_version: kind.api_version(),
            kind: kind.kind.to_owned(),
            metadata: Metadata {
                name: NAME.to_owned(),
                namespace,
                labels: [(label, "ringfence".to_owned())].into(),
                annotations,
            },
            summary: self.counts,
            results: self.results,
        }
    }
}

// === impl ReportResult ===

impl ReportResult {
    fn of(object: &ObjectRef, judged: &Judged) -> Self {
        let finding = &judged.finding;
        let result = match (judged.level, &judged.exemption) {
            (_, Some(_)) => Said::Skip,
            (Level::Deny, None) => Said::Fail,
            (Level::Warn, None) => Said::Warn,
        };
        let mut properties = BTreeMap::from([("mode".to_owned(), judged.mode.as_str().to_owned())]);
        if !finding.field.is_root() {
            properties.insert("field".to_owned(), bounded(&finding.field.to_string()));
        }
        if let Some(fix) = &finding.fix {
            properties.insert("fix".to_owned(), bounded(&fix.summary));
        }
        if let Some(exemption) = &judged.exemption {
            properties.insert("exemption".to_owned(), bounded(exemption));
        }
        if judged.guardrails.len() > 1 {
            let names = bounded(&judged.guardrails.join(", "));
            properties.insert("guardrails".to_owned(), names);
        }
        let policy = judged
            .guardrails
            .first()
            .map_or("ringfence", String::as_str);
        Self {
            policy: policy.to_owned(),
            rule: finding.id.as_str().to_owned(),
            category: judged.section.map(|section| section.to_string()),
            severity: finding.severity,
            result,
            scored: result != Said::Skip,
            source: NAME.to_owned(),
            message: bounded(&finding.message),
            resources: vec![Resource::of(object)],
            properties,
        }
    }

    fn cut(object: &ObjectRef, reason: &str) -> Self {
        let check = &crate::guard::registry::FAILED_POLICY;
        Self {
            policy: NAME.to_owned(),
            rule: check.id.to_owned(),
            category: None,
            severity: check.severity,
            result: Said::Error,
            scored: true,
            source: NAME.to_owned(),
            message: bounded(&format!("it could not be judged wholly: {reason}")),
            resources: vec![Resource::of(object)],
            properties: BTreeMap::new(),
        }
    }

    /// The gravest first, then by what it is about; of two results none is before the other unless they are equal.
    fn rank(&self) -> impl Ord + '_ {
        (
            self.result,
            std::cmp::Reverse(self.severity),
            &self.rule,
            &self.resources,
            self.properties.get("field"),
            &self.message,
            &self.policy,
        )
    }
}

impl Resource {
    fn of(object: &ObjectRef) -> Self {
        Self {
            api_version: object.api_version.clone(),
            kind: object.kind.clone(),
            namespace: object.namespace.clone(),
            name: object.name.clone(),
        }
    }
}

/// A text cut at a character, so that no finding makes a report too large to be kept.
fn bounded(text: &str) -> String {
    if text.len() <= MESSAGE {
        return text.to_owned();
    }
    let end = (0..=MESSAGE)
        .rev()
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or_default();
    format!("{}…", text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::decide::Cut;
    use crate::report::testing;

    fn decisions() -> Vec<(Option<String>, ObjectRef, Decision)> {
        let report = testing::report();
        let mut all: Vec<_> = report
            .objects
            .iter()
            .map(|checked| {
                let judged = checked
                    .findings
                    .iter()
                    .map(|located| located.judged.clone());
                let decision = Decision {
                    judged: judged.collect(),
                    ..Decision::default()
                };
                let namespace = checked.object.namespace.clone();
                (namespace, checked.object.clone(), decision)
            })
            .collect();
        let cut = Decision {
            cut: Some(Cut::Pods(10)),
            ..Decision::default()
        };
        let (namespace, object, _) = all[0].clone();
        all.push((namespace, object, cut));
        all
    }

    fn reports(
        most: usize,
        decisions: &[(Option<String>, ObjectRef, Decision)],
    ) -> Vec<PolicyReport> {
        let mut reports = Reports::new(Form::PolicyReport, most);
        reports.open("empty");
        for (namespace, object, decision) in decisions {
            reports.add(namespace.as_deref(), object, decision, 0);
        }
        reports.finish()
    }

    #[test]
    fn one_report_for_each_namespace_and_one_for_the_cluster() {
        insta::assert_yaml_snapshot!(reports(RESULTS, &decisions()));
    }

    #[test]
    fn the_order_in_which_decisions_come_changes_nothing() {
        let mut decisions: Vec<_> = (0..40).flat_map(|_| decisions()).collect();
        for (index, (_, object, _)) in decisions.iter_mut().enumerate() {
            object.name = format!("{}-{}", object.name, index * 7919 % 160);
        }
        for most in [1, 3, 50] {
            let forward = reports(most, &decisions);
            decisions.reverse();
            assert_eq!(forward, reports(most, &decisions));
            assert!(forward.iter().all(|report| report.results.len() <= most));
        }
    }

    #[test]
    fn parts_that_are_put_together_are_the_whole() {
        let decisions = decisions();
        for most in [1, RESULTS] {
            for at in 0..decisions.len() {
                let part = |decisions: &[(Option<String>, ObjectRef, Decision)]| {
                    let mut reports = Reports::new(Form::PolicyReport, most);
                    reports.open("empty");
                    for (namespace, object, decision) in decisions {
                        reports.add(namespace.as_deref(), object, decision, 0);
                    }
                    reports
                };
                let mut whole = part(&decisions[..at]);
                whole.merge(part(&decisions[at..]));
                assert_eq!(whole.finish(), reports(most, &decisions));
            }
        }
    }

    #[test]
    fn what_is_not_listed_is_counted() {
        let all = reports(RESULTS, &decisions());
        let one = reports(1, &decisions());
        for (all, one) in all.iter().zip(&one) {
            assert_eq!(all.summary, one.summary);
            assert_eq!(all.results.first(), one.results.first());
            let omitted = one.metadata.annotations.get(OMITTED);
            let omitted = omitted.map_or(0, |count| count.parse::<usize>().expect("a number"));
            assert_eq!(one.results.len() + omitted, all.results.len());
        }
        assert!(
            one.iter()
                .any(|report| report.metadata.annotations.contains_key(OMITTED))
        );
    }

    #[test]
    fn no_message_is_longer_than_its_bound() {
        let long = "ä".repeat(MESSAGE);
        let cut = bounded(&long);
        assert!(cut.len() <= MESSAGE + '…'.len_utf8() && cut.ends_with('…'));
    }
}
