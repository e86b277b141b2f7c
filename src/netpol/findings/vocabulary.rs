//! Label keys whose values have run wild: more of them than anyone can know, or several for what is one and the same.
//!
//! Looked at are the keys that selectors of policies use, and those that a caller adds, over the pods of workloads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use crate::netpol::cluster_policy::{ClusterNetworkPolicy, ClusterPeer};
use crate::netpol::policy::{NetworkPolicy, Peer, Peers};
use crate::netpol::selector::{Requirement, Selector};
use crate::netpol::snapshot::Snapshot;
use crate::netpol::workload::WorkloadRef;

/// Which values are looked at, and how many there may be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ask {
    /// Of the workloads of these namespaces.
    pub namespaces: Selector,
    /// How many values one key may have.
    pub most: usize,
    /// Keys that are looked at although no selector uses them.
    pub more: BTreeSet<String>,
    /// Keys that are not looked at.
    pub but: BTreeSet<String>,
    /// Keys that name a workload, and may have as many values as there are workloads.
    pub names: BTreeSet<String>,
}

/// A key whose values have run wild.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wild {
    /// The key.
    pub key: String,
    /// How many values it has.
    pub values: usize,
    /// Over how many workloads.
    pub workloads: usize,
    /// Whether these are too many.
    pub is_too_many: bool,
    /// Values that are probably meant to be one, the most frequent first, each with how many workloads have it.
    pub alike: Vec<Vec<(String, usize)>>,
    /// The first workload with the rarest of the values that are alike, or of all.
    pub at: WorkloadRef,
    /// The value that it has.
    pub value: String,
}

/// What was asked so far: an answer takes a look at all workloads.
#[derive(Debug, Default)]
pub(super) struct Answers(Mutex<BTreeMap<Ask, Arc<[Wild]>>>);

/// How a value is used.
struct Use<'s> {
    workloads: usize,
    first: &'s WorkloadRef,
}

/// Words for one stage or thing, each line one.
const SAME: [&[&str]; 5] = [
    &["prod", "production", "prd"],
    &["dev", "devel", "develop", "development"],
    &["stage", "staging", "stg"],
    &["test", "testing", "tst"],
    &["db", "database"],
];

impl Answers {
    pub(super) fn of(&self, snapshot: &Snapshot, ask: &Ask) -> Arc<[Wild]> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = known.get(ask) {
            return Arc::clone(answer);
        }
        let answer: Arc<[Wild]> = wild(snapshot, ask).into();
        known.insert(ask.clone(), Arc::clone(&answer));
        answer
    }
}

/// The keys whose values have run wild, by name.
fn wild(snapshot: &Snapshot, ask: &Ask) -> Vec<Wild> {
    let mut keys: BTreeSet<&str> = ask.more.iter().map(String::as_str).collect();
    for selector in snapshot.policies().flat_map(selectors) {
        keys.extend(selector.requirements().iter().map(Requirement::key));
    }
    for selector in snapshot.cluster_policies().flat_map(cluster_selectors) {
        keys.extend(selector.requirements().iter().map(Requirement::key));
    }
    keys.retain(|key| !ask.but.contains(*key));
    let mut used: BTreeMap<&str, BTreeMap<&str, Use<'_>>> = BTreeMap::new();
    for state in snapshot.namespaces() {
        if !ask.namespaces.matches(state.labels()) {
            continue;
        }
        for pod in state.pods() {
            // The pods of a workload have its labels.
            let owner = pod.owner.as_ref();
            if owner.is_some_and(|owner| snapshot.pod(owner).is_some()) || pod.is_finished() {
                continue;
            }
            for (key, value) in pod.labels.iter() {
                if !keys.contains(key) {
                    continue;
                }
                let values = used.entry(key).or_default();
                let used = values.entry(value).or_insert(Use {
                    workloads: 0,
                    first: &pod.workload,
                });
                used.workloads = used.workloads.saturating_add(1);
            }
        }
    }
    let used = used.into_iter();
    used.filter_map(|(key, values)| of_key(key, &values, ask))
        .collect()
}

fn of_key(key: &str, values: &BTreeMap<&str, Use<'_>>, ask: &Ask) -> Option<Wild> {
    let is_name = ask.names.contains(key);
    let is_too_many = !is_name && values.len() > ask.most;
    let mut words: BTreeMap<String, Vec<(&str, &Use<'_>)>> = BTreeMap::new();
    for (value, used) in values {
        let word = word(value, is_name);
        words.entry(word).or_default().push((value, used));
    }
    let mut alike: Vec<Vec<(&str, &Use<'_>)>> = words.into_values().filter_map(same).collect();
    for group in &mut alike {
        group.sort_by_key(|(value, used)| (std::cmp::Reverse(used.workloads), *value));
    }
    if !is_too_many && alike.is_empty() {
        return None;
    }
    let of_alike = alike.iter().flat_map(|group| group.iter().skip(1));
    let rarest = of_alike.min_by_key(|(_, used)| used.workloads).copied();
    let of_all = || {
        let all = values.iter().map(|(value, used)| (*value, used));
        all.min_by_key(|(_, used)| used.workloads)
    };
    let (value, used) = rarest.or_else(of_all)?;
    let told = alike.iter().map(|group| {
        let group = group.iter();
        group
            .map(|(value, used)| ((*value).to_owned(), used.workloads))
            .collect()
    });
    Some(Wild {
        key: key.to_owned(),
        values: values.len(),
        workloads: values
            .values()
            .fold(0, |all, used| all.saturating_add(used.workloads)),
        is_too_many,
        alike: told.collect(),
        at: used.first.clone(),
        value: value.to_owned(),
    })
}

/// The values of one word that are not members of a series: `production-1` beside `prod`, and not `zone-1` beside `zone-2`.
fn same<'u, 's>(mut group: Vec<(&'u str, &'u Use<'s>)>) -> Option<Vec<(&'u str, &'u Use<'s>)>> {
    let mut series: BTreeMap<String, usize> = BTreeMap::new();
    for (value, _) in &group {
        let digits: String = value.chars().filter(char::is_ascii_digit).collect();
        let count = series.entry(digits).or_default();
        *count = count.saturating_add(1);
    }
    if !series.contains_key("") {
        // All have digits: those with the same ones are alike.
        let repeated = |value: &str| {
            let digits: String = value.chars().filter(char::is_ascii_digit).collect();
            series.get(&digits).is_some_and(|count| *count > 1)
        };
        group.retain(|(value, _)| repeated(value));
    }
    (group.len() > 1).then_some(group)
}

/// What a value probably stands for: without capitals and separators, and without a number at its end.
fn word(value: &str, is_name: bool) -> String {
    let lower = value.to_lowercase();
    let base = lower.trim_end_matches(|letter: char| letter.is_ascii_digit());
    let base = base.trim_end_matches(['-', '_', '.']);
    let joined: String = base
        .chars()
        .filter(|letter| !matches!(letter, '-' | '_' | '.'))
        .collect();
    let same = SAME.iter().find(|words| words.contains(&joined.as_str()));
    if let Some(first) = same.and_then(|words| words.first()) {
        return (*first).to_owned();
    }
    // What has digits within is a version or an address, and so are names: there only spelling may differ.
    if is_name || base.contains(|letter: char| letter.is_ascii_digit()) {
        return lower.replace(['_', '.'], "-");
    }
    joined
}

/// The selectors of pods of a policy.
fn selectors(policy: &NetworkPolicy) -> impl Iterator<Item = &Selector> {
    let rules = policy.ingress.iter().chain(&policy.egress);
    let peers = rules.flat_map(|rule| match &rule.peers {
        Peers::Any => &[][..],
        Peers::Only(peers) => peers,
    });
    let peers = peers.filter_map(|peer| match peer {
        Peer::Pods { pods, .. } => Some(pods),
        Peer::Block { .. } => None,
    });
    std::iter::once(&policy.selector).chain(peers)
}

/// The same of a cluster network policy.
fn cluster_selectors(policy: &ClusterNetworkPolicy) -> impl Iterator<Item = &Selector> {
    let rules = policy.ingress.iter().chain(&policy.egress);
    let peers = rules.flat_map(|rule| &rule.peers);
    let peers = peers.filter_map(|peer| match peer {
        ClusterPeer::Pods(scope) => Some(&scope.pods),
        _ => None,
    });
    std::iter::once(&policy.subject.pods).chain(peers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netpol::workload::WorkloadKind;

    #[test]
    fn spellings_of_one_word_are_one() {
        for value in ["prod", "Prod", "production", "production-1", "PRD", "prod2"] {
            assert_eq!(word(value, false), "prod", "{value}");
        }
        assert_eq!(word("front-end", false), word("Frontend", false));
        assert_ne!(word("1.21", false), word("12.1", false));
        assert_ne!(word("web", true), word("web-2", true));
        assert_eq!(word("My_App", true), word("my-app", true));
    }

    #[test]
    fn members_of_a_series_are_different() {
        let at = WorkloadRef {
            kind: WorkloadKind::Deployment,
            namespace: "a".into(),
            name: "x".into(),
        };
        let used = Use {
            workloads: 1,
            first: &at,
        };
        let found = |values: &[&'static str]| {
            let group: Vec<_> = values.iter().map(|value| (*value, &used)).collect();
            same(group).map_or(0, |group| group.len())
        };
        assert_eq!(found(&["zone-1", "zone-2"]), 0);
        assert_eq!(found(&["zone-1", "Zone-1", "zone-2"]), 2);
        assert_eq!(found(&["prod", "production-1"]), 2);
    }
}
