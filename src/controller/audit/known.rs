//! What audits have found of a cluster so far, so that the next one need only look at what has changed.
//!
//! Of each namespace only numbers are kept: its report is in the cluster. What is in no namespace has one report together, of
//! which the parts are kept by kind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::guard::audit::{Kind, Moment, Touched, touched};
use crate::guard::decide::{Decision, State};
use crate::guard::finding::ObjectRef;
use crate::guard::review::Review;
use crate::netpol::{Coverage, NamespaceName};
use crate::report::policy_report::{Form, PolicyReport, RESULTS, Reports};
use crate::telemetry::audit::{Class, Tally};

/// Where something was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Namespace(NamespaceName),
    /// Among the objects of a kind that are in no namespace.
    Kind(&'static str),
}

/// What one audit has found.
#[derive(Debug)]
pub(super) struct Found {
    form: Form,
    tallies: BTreeMap<Place, Tally>,
    of_namespaces: Reports,
    of_cluster: BTreeMap<&'static str, Reports>,
}

/// What all of them have found.
pub(super) struct Known {
    /// By what it was judged, and when.
    state: Arc<State>,
    at: Timestamp,
    /// When everything was judged last.
    all: Instant,
    tallies: BTreeMap<Place, Tally>,
    of_cluster: BTreeMap<&'static str, Reports>,
}

// === impl Found ===

impl Found {
    pub(super) fn new(form: Form) -> Self {
        Self {
            form,
            tallies: BTreeMap::new(),
            of_namespaces: Reports::new(form, RESULTS),
            of_cluster: BTreeMap::new(),
        }
    }

    pub(super) fn add_namespace(&mut self, name: &NamespaceName, coverage: &Coverage) {
        let tally = self.tallies.entry(Place::Namespace(name.clone()));
        let class = Class::of(Some(name.as_str()));
        tally.or_default().add_namespace(class, coverage);
    }

    /// Adds what was decided about an object; `alike` findings of it were said of its owner.
    pub(super) fn add(
        &mut self,
        kind: &'static Kind,
        review: &Review,
        decision: &Decision,
        alike: usize,
    ) {
        let form = self.form;
        let (place, reports) = if let Some(name) = &review.namespace {
            (Place::Namespace(name.clone()), &mut self.of_namespaces)
        } else {
            let reports = self.of_cluster.entry(kind.kind);
            let reports = reports.or_insert_with(|| Reports::new(form, RESULTS));
            (Place::Kind(kind.kind), reports)
        };
        let namespace = review.namespace.as_ref().map(NamespaceName::as_str);
        reports.add(namespace, &review.object_ref(), decision, alike);
        let tally = self.tallies.entry(place).or_default();
        tally.add(Class::of(namespace), decision);
    }

    /// Adds what is known of an object that was not listed.
    pub(super) fn tell(
        &mut self,
        namespace: &NamespaceName,
        object: &ObjectRef,
        decision: &Decision,
    ) {
        let namespace = Some(namespace.as_str());
        self.of_namespaces.add(namespace, object, decision, 0);
    }

    /// How many objects were judged.
    pub(super) fn objects(&self) -> u64 {
        self.tallies.values().map(|tally| tally.objects).sum()
    }

    /// How many namespaces were looked at.
    pub(super) fn namespaces(&self) -> usize {
        namespaces(&self.tallies)
    }
}

// === impl Known ===

impl Known {
    /// What is to be judged: everything where nothing is known, or was known for so long.
    pub(super) async fn due(
        known: Option<&Self>,
        period: Duration,
        state: &Arc<State>,
        now: Timestamp,
    ) -> Touched {
        let Some(known) = known.filter(|known| !known.rest(period).is_zero()) else {
            return Touched::All;
        };
        let (before, at, after) = (Arc::clone(&known.state), known.at, Arc::clone(state));
        let compare = move || {
            let moment = |state, at| Moment { state, at };
            touched(moment(&before, at), moment(&after, now))
        };
        let compared = tokio::task::spawn_blocking(compare).await;
        compared.unwrap_or(Touched::All)
    }

    /// For how long what is known holds without everything being judged.
    pub(super) fn rest(&self, period: Duration) -> Duration {
        period.saturating_sub(self.all.elapsed())
    }

    /// Nothing is to be judged by another state.
    pub(super) fn stays(&mut self, state: Arc<State>, at: Timestamp) {
        (self.state, self.at) = (state, at);
    }

    /// What is known after an audit that began then: what it has found, and of the rest what was known.
    pub(super) fn after(
        before: Option<Self>,
        state: Arc<State>,
        (at, begun): (Timestamp, Instant),
        touched: &Touched,
        found: &Found,
    ) -> Self {
        let mut known = Self {
            state,
            at,
            all: begun,
            tallies: found.tallies.clone(),
            of_cluster: found.of_cluster.clone(),
        };
        if let (Touched::Some { namespaces, kinds }, Some(before)) = (touched, before) {
            known.all = before.all;
            let is_old = |place: &Place| match place {
                Place::Namespace(name) => namespaces.contains(name),
                Place::Kind(kind) => kinds.iter().any(|touched| touched.kind == *kind),
            };
            for (place, tally) in before.tallies {
                if !is_old(&place) {
                    known.tallies.insert(place, tally);
                }
            }
            for (kind, reports) in before.of_cluster {
                if !is_old(&Place::Kind(kind)) {
                    known.of_cluster.insert(kind, reports);
                }
            }
        }
        known
    }

    /// The numbers of the whole cluster.
    pub(super) fn tally(&self) -> Tally {
        self.tallies.values().sum()
    }

    /// How many namespaces are known.
    pub(super) fn namespaces(&self) -> usize {
        namespaces(&self.tallies)
    }

    /// The reports that may say something else after an audit.
    pub(super) fn reports(&self, found: Found, touched: &Touched) -> Vec<PolicyReport> {
        let mut reports = found.of_namespaces;
        let is_as_it_was = matches!(touched, Touched::Some { kinds, .. } if kinds.is_empty());
        if !is_as_it_was {
            for part in self.of_cluster.values() {
                reports.merge(part.clone());
            }
        }
        reports.finish()
    }
}

fn namespaces(tallies: &BTreeMap<Place, Tally>) -> usize {
    let places = tallies.keys();
    places
        .filter(|place| matches!(place, Place::Namespace(_)))
        .count()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;
    use crate::guard::audit::{self, KINDS};
    use crate::guard::engine::NoPolicies;
    use crate::guard::exemption::Exemptions;
    use crate::guard::guardrail::Guardrails;
    use crate::guard::reachability::ReachabilityRules;
    use crate::netpol::Snapshot;

    fn state() -> Arc<State> {
        Arc::new(State {
            snapshot: Snapshot::default(),
            guardrails: Guardrails::default(),
            exemptions: Exemptions::default(),
            reachability: ReachabilityRules::default(),
            engine: Arc::new(NoPolicies),
        })
    }

    /// What is found where nothing is wrong with these objects: kinds in the plural, namespaces and names.
    fn found(objects: &[(&str, &str, &str)]) -> Found {
        let mut found = Found::new(Form::PolicyReport);
        for (plural, namespace, name) in objects {
            let kind = KINDS.iter().find(|kind| kind.plural == *plural).unwrap();
            let namespace = Some(*namespace).filter(|namespace| !namespace.is_empty());
            let object: Value = json!({"metadata": {"name": name, "namespace": namespace}});
            let review = audit::review(object, kind);
            found.add(kind, &review, &Decision::default(), 0);
        }
        found
    }

    fn audited(before: Option<Known>, touched: &Touched, found: &Found) -> Known {
        let now = (Timestamp::UNIX_EPOCH, Instant::now());
        Known::after(before, state(), now, touched, found)
    }

    /// How many objects of each place passed, the cluster's first.
    fn passed(reports: &[PolicyReport]) -> Vec<(Option<&str>, u64)> {
        let places = reports.iter();
        places
            .map(|report| (report.metadata.namespace.as_deref(), report.summary.pass))
            .collect()
    }

    #[test]
    fn what_is_touched_takes_the_place_of_what_was_known_and_the_rest_stays() {
        let first = found(&[
            ("guardrails", "", "all"),
            ("reachabilityrules", "", "apart"),
            ("pods", "shop", "a"),
            ("pods", "shop", "b"),
            ("pods", "bank", "c"),
            ("pods", "gone", "d"),
        ]);
        let known = audited(None, &Touched::All, &first);
        assert_eq!((known.tally().objects, known.namespaces()), (6, 3));
        let reports = known.reports(first, &Touched::All);
        let all = [
            (None, 2),
            (Some("bank"), 1),
            (Some("gone"), 1),
            (Some("shop"), 2),
        ];
        assert_eq!(passed(&reports), all);

        let namespaces: BTreeSet<NamespaceName> = ["shop".into(), "gone".into()].into();
        let rules = KINDS.iter().filter(|kind| kind.kind == "ReachabilityRule");
        let some = Touched::Some {
            namespaces: namespaces.clone(),
            kinds: rules.collect(),
        };
        let second = found(&[("reachabilityrules", "", "apart"), ("pods", "shop", "a")]);
        let known = audited(Some(known), &some, &second);
        assert_eq!((known.tally().objects, known.namespaces()), (4, 2));
        let reports = known.reports(second, &some);
        assert_eq!(passed(&reports), [(None, 2), (Some("shop"), 1)]);

        // Where nothing of the cluster itself is touched, nothing is to be told of it.
        let some = Touched::Some {
            namespaces,
            kinds: Vec::new(),
        };
        let third = found(&[("pods", "shop", "a"), ("pods", "shop", "e")]);
        let known = audited(Some(known), &some, &third);
        assert_eq!(known.tally().objects, 5);
        assert_eq!(passed(&known.reports(third, &some)), [(Some("shop"), 2)]);
    }
}
