//! Audits the cluster again and again and writes what is found as reports (`report::policy_report`).
//!
//! The state that decisions are made by holds only what policies see of a pod, so the objects themselves are listed in
//! pages, one kind at a time, judged on a thread of their own and dropped. What is written is only what differs from the
//! reports that are there, at a bounded rate; where their CRD is not there, the numbers are all there is.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use rayon::prelude::*;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::field::Empty;
use tracing::{Instrument as _, trace_span};

use super::FIELD_MANAGER;
use super::certificates::keep::SECRET;
use crate::guard::audit::{self, Baselines, KINDS, Kind, Templates};
use crate::guard::decide::{Context, Decision, Judged, State};
use crate::guard::engine::{Budget, Level};
use crate::guard::finding::{Finding, Fix, ObjectRef};
use crate::guard::mode::Mode;
use crate::guard::registry;
use crate::guard::review::Review;
use crate::k8s::list::{ListError, Pages};
use crate::k8s::live::Live;
use crate::netpol::findings::Neighbourhood;
use crate::netpol::{FieldPath, NamespaceName};
use crate::report::policy_report::{Form, PolicyReport, RESULTS, Reports};
use crate::telemetry::audit::{AuditMetrics, Class, Tally};
use crate::telemetry::traces::TARGET;

/// The least time between two audits.
const PAUSE: Duration = Duration::from_mins(1);
/// The longest time between two audits.
const PERIOD: Duration = Duration::from_mins(10);
/// How long to wait after one that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(30);
/// The least time between the beginnings of two writes.
const BETWEEN: Duration = Duration::from_millis(20);
/// What our reports are known by.
const OURS: &str = "app.kubernetes.io/managed-by=ringfence";

/// What is told of an object without having been listed: its namespace, the object, and what was decided.
type Told = (String, ObjectRef, Decision);

/// Why an audit did not come to its end.
#[derive(Debug, thiserror::Error)]
enum AuditError {
    #[error(transparent)]
    List(#[from] ListError),
    #[error("the judging thread has ended")]
    Thread,
}

/// What the controller tells of itself.
pub(super) struct Own {
    /// The namespace of the installation.
    pub(super) namespace: String,
    /// When a certificate of the webhook ends that could not be renewed.
    pub(super) ending: watch::Receiver<Option<Timestamp>>,
}

/// Audits for as long as it is polled: when something has changed, and now and then.
pub(super) async fn keep(
    client: Client,
    live: Live,
    form: Form,
    metrics: AuditMetrics,
    mut own: Own,
) -> Result<(), Infallible> {
    let mut changed = live.changed();
    loop {
        changed.mark_unchanged();
        let mut wait = PERIOD;
        if live.is_complete() {
            let begun = Instant::now();
            let span = trace_span!(target: TARGET, "audit", objects = Empty);
            let told = own.told();
            let all = once(&client, live.state.load_full(), form, told);
            match all.instrument(span.clone()).await {
                Ok((reports, tally)) => {
                    let objects = tally.objects;
                    span.record("objects", objects);
                    metrics.done(&tally, begun.elapsed(), Timestamp::now());
                    tracing::info!(
                        objects,
                        seconds = begun.elapsed().as_secs_f64(),
                        "audit done"
                    );
                    let told = trace_span!(target: TARGET, parent: &span, "report");
                    if let Err(error) = write(&client, form, reports).instrument(told).await {
                        metrics.failed();
                        tracing::warn!(%error, "policy reports not written, tried again");
                        wait = AFTER_FAILURE;
                    }
                }
                Err(error) => {
                    metrics.failed();
                    tracing::warn!(%error, "audit failed, tried again");
                    wait = AFTER_FAILURE;
                }
            }
        }
        let pause = async {
            tokio::time::sleep(PAUSE.min(wait)).await;
            tokio::select! {
                changed = changed.changed() => changed.is_err(),
                () = tokio::time::sleep(wait.saturating_sub(PAUSE)) => false,
            }
        };
        tokio::select! {
            is_over = pause => if is_over { return Ok(()) },
            // This is seldom, and whoever reads the reports has little time left.
            Ok(()) = own.ending.changed() => {}
        }
    }
}

/// Judges everything once.
async fn once(
    client: &Client,
    state: Arc<State>,
    form: Form,
    told: Option<Told>,
) -> Result<(Vec<PolicyReport>, Tally), AuditError> {
    // One page waits while another is judged.
    let (pages, inbox) = mpsc::channel(1);
    let thread = tokio::task::spawn_blocking(move || judge(&state, form, told.as_ref(), inbox));
    for kind in &KINDS {
        let mut listed = Pages::of(client, kind);
        loop {
            match listed.next().await {
                Ok(Some(page)) => {
                    let sent = pages.send((kind, page.items)).await;
                    sent.map_err(|_| AuditError::Thread)?;
                }
                Ok(None) => break,
                Err(ListError::Absent { .. }) if kind.is_optional() => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    drop(pages);
    thread.await.map_err(|_| AuditError::Thread)
}

fn judge(
    state: &State,
    form: Form,
    told: Option<&Told>,
    mut pages: mpsc::Receiver<(&'static Kind, Vec<Value>)>,
) -> (Vec<PolicyReport>, Tally) {
    let neighbourhood = Neighbourhood::of(&state.snapshot);
    let context = Context {
        neighbourhood: Some(&neighbourhood),
        ..state.context()
    };
    let (now, plans) = (Timestamp::now(), Baselines::of(&context));
    let (mut templates, mut reports) = (Templates::default(), Reports::new(form, RESULTS));
    let mut tally = Tally::default();
    for namespace in state.snapshot.namespaces() {
        let name = namespace.name();
        let coverage = state.snapshot.namespace_coverage(name);
        tally.add_namespace(Class::of(Some(name.as_str())), &coverage);
    }
    if let Some((namespace, object, decision)) = told {
        reports.add(Some(namespace), object, decision, 0);
    }
    while let Some((kind, items)) = pages.blocking_recv() {
        let judged: Vec<(Review, Option<Decision>)> = items
            .into_par_iter()
            .map(|item| {
                let review = audit::review(item, kind);
                let decision = audit::decide(&review, &plans, &context, now, Budget::UNHURRIED);
                (review, decision)
            })
            .collect();
        for (review, decision) in judged {
            let Some(mut decision) = decision else {
                continue;
            };
            let alike = templates.leave_out(&review, &mut decision);
            let namespace = review.namespace.as_ref().map(NamespaceName::as_str);
            tally.add(Class::of(namespace), &decision);
            reports.add(namespace, &review.object_ref(), &decision, alike);
        }
    }
    (reports.finish(), tally)
}

impl Own {
    /// What is to be told of the certificates.
    fn told(&mut self) -> Option<Told> {
        let at = (*self.ending.borrow_and_update())?;
        let object = ObjectRef {
            api_version: "v1".to_owned(),
            kind: "Secret".to_owned(),
            namespace: Some(self.namespace.clone()),
            name: SECRET.to_owned(),
        };
        let message = format!("a certificate of the webhook ends at {at} and could not be renewed");
        let fix = Fix::words("see why in the log of the controller and in its Events");
        let (check, root) = (&registry::ENDING_CERTIFICATE, FieldPath::root());
        let finding = Finding::of(check, object.clone(), root, message, Some(fix));
        let judged = Judged {
            finding,
            section: None,
            level: Level::Warn,
            mode: Mode::Warn,
            guardrails: Vec::new(),
            exemption: None,
        };
        let decision = Decision {
            judged: vec![judged],
            ..Decision::default()
        };
        Some((self.namespace.clone(), object, decision))
    }
}

/// Writes the reports that differ from those that are there; nothing where their CRD is not there.
async fn write(
    client: &Client,
    form: Form,
    reports: Vec<PolicyReport>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut there: BTreeMap<(String, Option<String>), PolicyReport> = BTreeMap::new();
    let mut known: Vec<&'static str> = Vec::new();
    for kind in form.kinds() {
        let mut pages = Pages::of(client, kind).labelled(OURS);
        loop {
            match pages.next().await {
                Ok(Some(page)) => {
                    for mut item in page.items {
                        kind.name(&mut item);
                        if let Ok(report) = serde_json::from_value::<PolicyReport>(item) {
                            let key = (report.kind.clone(), report.metadata.namespace.clone());
                            there.insert(key, report);
                        }
                    }
                }
                Ok(None) => {
                    known.push(kind.kind);
                    break;
                }
                Err(ListError::Absent { .. }) => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    let mut rate = tokio::time::interval(BETWEEN);
    rate.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for report in reports {
        let key = (report.kind.clone(), report.metadata.namespace.clone());
        if !known.contains(&report.kind.as_str()) || there.get(&key) == Some(&report) {
            continue;
        }
        rate.tick().await;
        let kind = form.kind(report.metadata.namespace.is_some());
        let named = GroupVersionKind::gvk(kind.group, kind.version, kind.kind);
        let resource = ApiResource::from_gvk_with_plural(&named, kind.plural);
        let api: Api<DynamicObject> = match &report.metadata.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let as_us = PatchParams::apply(FIELD_MANAGER).force();
        match api
            .patch(&report.metadata.name, &as_us, &Patch::Apply(&report))
            .await
        {
            Ok(_) => {}
            // The namespace has gone meanwhile, or is about to.
            Err(kube::Error::Api(status))
                if status.is_not_found() || status.message.contains("being terminated") => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
