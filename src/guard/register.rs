//! The register: every network policy with who answers for it, what it is for, whom it selects and what it opens.
//!
//! Made of a snapshot for people who have to account for it; what the annotations are called is the guardrails' matter.
//! [`Register::of`] reads no clock: the moment of which it tells is given.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::guard::exemption::{Exemption, Exemptions};
use crate::guard::guardrail::{DocumentationSection, Guardrails};
use crate::netpol::{
    Annotations, ClusterPolicyKind, Direction, NamespaceName, NamespaceState, NetworkPolicy,
    ObjectKey, Snapshot, WorkloadRef,
};
use ruling::Ruling;
pub use words::Opens;

mod ruling;
#[cfg(test)]
mod tests;
mod words;

/// The annotation that names the controls a policy serves, separated by commas: `PCI DSS 1.3.1, SOC 2 CC6.6`.
pub const CONTROLS: &str = "ringfence.dev/controls";

/// Everything at one moment.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Register {
    /// The moment.
    pub at: Timestamp,
    /// The policies, by namespace and name.
    pub policies: Vec<Entry>,
    /// The policies of the whole cluster, in the order in which they are asked.
    pub cluster: Vec<ClusterEntry>,
    /// The namespaces that have workloads or policies, and whether everything in them is covered.
    pub namespaces: Vec<Covered>,
    /// The exemptions, by namespace and name.
    pub exemptions: Vec<Exempted>,
}

/// One policy.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where it stands, where that is known.
    pub location: Option<String>,
    /// The digest of its text as it stands there, such as `sha256:…`.
    pub digest: Option<String>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// What it is for.
    pub purpose: Option<String>,
    /// When someone looks at it again.
    pub review: Review,
    /// The controls that it serves.
    pub controls: Vec<String>,
    /// The pods that it selects, as `kubectl --selector` takes it; empty for all.
    pub selector: String,
    /// The workloads that these are now.
    pub workloads: Vec<String>,
    /// In which directions it isolates them.
    pub isolates: Vec<&'static str>,
    /// What its rules open.
    pub opens: Vec<Opens>,
    /// Other policies that isolate some of the same workloads in the same direction.
    pub overlaps: Vec<Overlap>,
    /// Policies of the whole cluster that rule some of the same workloads in a direction in which it isolates them.
    pub ruled_by: Vec<ClusterOverlap>,
    /// The exemptions that let it off some checks.
    pub exemptions: Vec<String>,
}

/// One policy of the whole cluster: a ClusterNetworkPolicy, or one of a kind that it has replaced.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterEntry {
    /// Its kind.
    pub kind: ClusterPolicyKind,
    /// Its name.
    pub name: String,
    /// Its tier and its priority there, such as `Admin 10`; the tier alone where its kind has no priority.
    pub place: String,
    /// Where it stands, where that is known.
    pub location: Option<String>,
    /// The digest of its text as it stands there, such as `sha256:…`.
    pub digest: Option<String>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// What it is for.
    pub purpose: Option<String>,
    /// When someone looks at it again.
    pub review: Review,
    /// The controls that it serves.
    pub controls: Vec<String>,
    /// The pods whose flows it rules, in words.
    pub subject: String,
    /// How many workloads these are now.
    pub workloads: usize,
    /// What its rules do, in words and in their order.
    pub rules: Vec<String>,
    /// Other policies of the whole cluster for some of the same workloads in the same direction.
    pub overlaps: Vec<ClusterOverlap>,
    /// How many network policies isolate some of the same workloads in a direction that it has rules for.
    pub network_policies: usize,
}

/// Where a policy was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file and the line.
    pub location: String,
    /// The digest of its text, with the name of the algorithm before it.
    pub digest: String,
}

/// A policy of the whole cluster for some of the same workloads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterOverlap {
    /// Its kind.
    pub kind: ClusterPolicyKind,
    /// Its name.
    pub policy: String,
    /// Its tier and its priority there.
    pub place: String,
    /// How many workloads both are for.
    pub workloads: usize,
}

/// When someone looks at a policy again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", content = "by", rename_all = "camelCase")]
pub enum Review {
    /// It does not say.
    Unsaid,
    /// By this day, which is to come.
    Due(String),
    /// By this day, which is over.
    Overdue(String),
    /// It says something that is no day.
    Unreadable(String),
}

/// Another policy for some of the same workloads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Overlap {
    /// Its name, in the same namespace.
    pub policy: String,
    /// How many workloads both select.
    pub workloads: usize,
    /// How many of the rules it has as well, word for word.
    pub same_rules: usize,
}

/// How far a namespace is covered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Covered {
    /// Its name.
    pub namespace: String,
    /// How many workloads it has.
    pub workloads: usize,
    /// How many of them no policy isolates for ingress.
    pub open_to_ingress: usize,
    /// How many of them no policy isolates for egress.
    pub open_to_egress: usize,
    /// The policies that isolate every pod for ingress, those to come as well.
    pub ingress: Vec<String>,
    /// The same for egress.
    pub egress: Vec<String>,
}

/// One exemption.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Exempted {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The checks that it lets off.
    pub checks: Vec<String>,
    /// The objects, as `kind/name`.
    pub objects: Vec<String>,
    /// Why.
    pub reason: String,
    /// Who answers for it.
    pub owner: String,
    /// When it ends.
    pub expires: Timestamp,
    /// Whether it has ended.
    pub has_ended: bool,
}

impl Register {
    /// Everything in a snapshot; `sources` says where policies stand.
    pub fn of(
        snapshot: &Snapshot,
        guardrails: &Guardrails,
        exemptions: &Exemptions,
        sources: &BTreeMap<ObjectKey, Source>,
        at: Timestamp,
    ) -> Self {
        let mut register = Self {
            at,
            policies: Vec::new(),
            cluster: Vec::new(),
            namespaces: Vec::new(),
            exemptions: exemptions.iter().map(|one| Exempted::of(one, at)).collect(),
        };
        register
            .exemptions
            .sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        let wide = Ruling::all(snapshot);
        register.cluster = Ruling::entries(&wide, snapshot, guardrails, sources, at);
        for state in snapshot.namespaces() {
            let section = guardrails
                .selecting(state.labels())
                .find_map(|guardrail| guardrail.spec.documentation.clone())
                .unwrap_or_default();
            let selected: Vec<(&NetworkPolicy, BTreeSet<&WorkloadRef>)> = state
                .policies()
                .map(|policy| (policy, workloads(policy, state)))
                .collect();
            for (policy, workloads) in &selected {
                let source = sources.get(&ObjectKey::NetworkPolicy(policy.reference()));
                register.policies.push(Entry {
                    location: source.map(|source| source.location.clone()),
                    digest: source.map(|source| source.digest.clone()),
                    ruled_by: wide
                        .iter()
                        .filter_map(|ruling| ruling.over(policy, workloads))
                        .collect(),
                    workloads: workloads
                        .iter()
                        .map(|one| format!("{}/{}", one.kind, one.name))
                        .collect(),
                    overlaps: overlaps(policy, workloads, &selected),
                    exemptions: letting_off(policy, exemptions, at),
                    ..Entry::of(policy, &section, at)
                });
            }
            if state.policies().next().is_some() || state.pods().next().is_some() {
                register.namespaces.push(Covered::of(state, snapshot));
            }
        }
        register
    }

    /// How many policies are to be looked at by a day that is over.
    pub fn overdue(&self) -> usize {
        let reviews = self.policies.iter().map(|entry| &entry.review);
        let reviews = reviews.chain(self.cluster.iter().map(|entry| &entry.review));
        let overdue = reviews.filter(|review| matches!(review, Review::Overdue(_)));
        overdue.count()
    }

    /// How many policies say neither whose they are nor what they are for.
    pub fn undocumented(&self) -> usize {
        let said = self
            .policies
            .iter()
            .map(|entry| (&entry.owner, &entry.purpose));
        let cluster = self
            .cluster
            .iter()
            .map(|entry| (&entry.owner, &entry.purpose));
        let unsaid = said
            .chain(cluster)
            .filter(|(owner, purpose)| owner.is_none() || purpose.is_none());
        unsaid.count()
    }
}

/// What an annotation says, where it says anything.
fn said(annotations: &Annotations, key: &str) -> Option<String> {
    let text = annotations.get(key).map(str::trim);
    text.filter(|text| !text.is_empty()).map(str::to_owned)
}

fn controls(annotations: &Annotations) -> Vec<String> {
    let controls = said(annotations, CONTROLS).unwrap_or_default();
    let controls = controls.split(',').map(str::trim);
    controls
        .filter(|one| !one.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The workloads that a policy selects now: each template, and each pod that no template stands for.
fn workloads<'s>(policy: &NetworkPolicy, state: &'s NamespaceState) -> BTreeSet<&'s WorkloadRef> {
    let selected = state
        .pods()
        .filter(|pod| pod.is_held() && policy.selects(pod));
    selected
        .map(|pod| pod.owner.as_ref().unwrap_or(&pod.workload))
        .collect()
}

/// The other policies that isolate some of the same workloads.
fn overlaps(
    policy: &NetworkPolicy,
    workloads: &BTreeSet<&WorkloadRef>,
    all: &[(&NetworkPolicy, BTreeSet<&WorkloadRef>)],
) -> Vec<Overlap> {
    let both =
        |other: &NetworkPolicy, direction| policy.isolates(direction) && other.isolates(direction);
    let others = all.iter().filter(|(other, _)| {
        other.name != policy.name
            && Direction::BOTH
                .into_iter()
                .any(|direction| both(other, direction))
    });
    let overlaps = others.map(|(other, theirs)| Overlap {
        policy: other.name.to_string(),
        workloads: workloads.intersection(theirs).count(),
        same_rules: Direction::BOTH
            .into_iter()
            .flat_map(|direction| {
                policy
                    .rules(direction)
                    .iter()
                    .map(move |rule| (direction, rule))
            })
            .filter(|(direction, rule)| other.rules(*direction).contains(rule))
            .count(),
    });
    overlaps.filter(|overlap| overlap.workloads > 0).collect()
}

/// The names of the exemptions that hold for a policy.
fn letting_off(policy: &NetworkPolicy, exemptions: &Exemptions, at: Timestamp) -> Vec<String> {
    let holding = exemptions.iter().filter(|exemption| {
        exemption.namespace == policy.namespace
            && !exemption.expired(at)
            && exemption
                .spec
                .objects
                .iter()
                .any(|object| object.means("NetworkPolicy", policy.name.as_str()))
    });
    holding
        .map(|exemption| format!("{} until {}", exemption.name, day(exemption.spec.expires)))
        .collect()
}

/// The day of a moment, in UTC.
fn day(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::UTC).date()
}

// === impl Entry ===

impl Entry {
    fn of(policy: &NetworkPolicy, section: &DocumentationSection, at: Timestamp) -> Self {
        let said = |key: &str| said(&policy.annotations, key);
        let isolates = Direction::BOTH
            .into_iter()
            .filter(|direction| policy.isolates(*direction));
        Self {
            namespace: policy.namespace.to_string(),
            name: policy.name.to_string(),
            location: None,
            digest: None,
            owner: said(&section.owner.annotation),
            purpose: said(&section.purpose.annotation),
            review: Review::of(said(&section.review_by.annotation), at),
            controls: controls(&policy.annotations),
            selector: policy.selector.to_string(),
            workloads: Vec::new(),
            isolates: isolates.map(Direction::policy_type).collect(),
            opens: words::opens(policy),
            overlaps: Vec::new(),
            ruled_by: Vec::new(),
            exemptions: Vec::new(),
        }
    }
}

// === impl Review ===

impl Review {
    fn of(said: Option<String>, at: Timestamp) -> Self {
        let Some(text) = said else {
            return Self::Unsaid;
        };
        match text.parse::<Date>() {
            // The day itself is still good.
            Ok(by) if text.len() == 10 && by < day(at) => Self::Overdue(text),
            Ok(_) if text.len() == 10 => Self::Due(text),
            Ok(_) | Err(_) => Self::Unreadable(text),
        }
    }
}

// === impl Covered ===

impl Covered {
    fn of(state: &NamespaceState, snapshot: &Snapshot) -> Self {
        let pods: Vec<_> = state
            .pods()
            .filter(|pod| pod.is_held() && pod.owner.is_none())
            .collect();
        let open = |direction| {
            let open = pods
                .iter()
                .filter(|pod| !snapshot.pod_coverage(pod).covered(direction));
            open.count()
        };
        let coverage = snapshot.namespace_coverage(state.name());
        let names = |direction| {
            coverage
                .by(direction)
                .iter()
                .map(|policy| policy.name.to_string())
                .collect()
        };
        Self {
            namespace: state.name().to_string(),
            workloads: pods.len(),
            open_to_ingress: open(Direction::Ingress),
            open_to_egress: open(Direction::Egress),
            ingress: names(Direction::Ingress),
            egress: names(Direction::Egress),
        }
    }
}

// === impl Exempted ===

impl Exempted {
    fn of(exemption: &Exemption, at: Timestamp) -> Self {
        let Exemption {
            namespace,
            name,
            spec,
        } = exemption;
        let namespace: &NamespaceName = namespace;
        let objects = spec.objects.iter();
        Self {
            namespace: namespace.to_string(),
            name: name.clone(),
            checks: spec.checks.iter().map(ToString::to_string).collect(),
            objects: objects
                .map(|object| format!("{}/{}", object.kind, object.name))
                .collect(),
            reason: spec.reason.clone(),
            owner: spec.owner.clone(),
            expires: spec.expires,
            has_ended: exemption.expired(at),
        }
    }
}
