//! Audits the cluster again and again and writes what is found as reports (`report::policy_report`).
//!
//! How data passes through: the state says what is to be judged again since it was judged last (`guard::audit::touched`);
//! `audit/known.rs` remembers that, and what was found of the rest. The state holds only what policies see of a pod, so the
//! objects themselves are listed in pages, judged on a thread of their own and dropped. `audit/write.rs` writes what differs
//! from the reports that are there, at a bounded rate; where their CRD is not there, the numbers are all there is.
//! Everything is judged now and then all the same: not all that is judged shows in the state.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use rayon::prelude::*;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument as _, trace_span};

use super::Certificates;
use crate::guard::audit::{self, Baselines, KINDS, Templates, Touched};
use crate::guard::decide::{Context, Decision, Judged, State};
use crate::guard::engine::{Budget, Level};
use crate::guard::finding::{Finding, Fix, ObjectRef};
use crate::guard::mode::Mode;
use crate::guard::registry;
use crate::guard::review::Review;
use crate::k8s::list::{ListError, Page, Pages};
use crate::k8s::live::Live;
use crate::k8s::one::chain;
use crate::netpol::findings::Neighbourhood;
use crate::netpol::{FieldPath, NamespaceName};
use crate::report::policy_report::Form;
use crate::telemetry::audit::{AuditMetrics, Extent};
use crate::telemetry::traces::TARGET;
use known::{Found, Known};
use write::WriteError;

mod known;
mod write;

/// The least time between two audits.
const PAUSE: Duration = Duration::from_mins(1);
/// The longest time between two audits of everything.
const PERIOD: Duration = Duration::from_mins(10);
/// How long to wait after one that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(30);

/// What is told of an object without having been listed: its namespace, the object, and what was decided.
type Told = (NamespaceName, ObjectRef, Decision);

/// Why an audit did not come to its end.
#[derive(Debug, thiserror::Error)]
enum AuditError {
    #[error(transparent)]
    List(#[from] ListError),
    #[error("the judging thread has ended")]
    Thread,
    #[error("policy reports not written: {0}")]
    Write(WriteError),
}

/// What the controller tells of itself.
pub(super) struct Own {
    /// The namespace of the installation.
    pub(super) namespace: NamespaceName,
    /// Where the webhook's certificates come from.
    pub(super) certificates: Certificates,
    /// When one of them ends that has no successor.
    pub(super) ending: watch::Receiver<Option<Timestamp>>,
}

/// Audits for as long as it is polled: what has changed, and everything now and then.
pub(super) async fn keep(
    client: Client,
    live: Live,
    form: Form,
    metrics: AuditMetrics,
    mut own: Own,
) -> Result<(), Infallible> {
    let mut changed = live.changed();
    let mut known: Option<Known> = None;
    if changed.wait_for(|published| *published > 0).await.is_err() {
        return Ok(());
    }
    loop {
        changed.mark_unchanged();
        let mut wait = PERIOD;
        let (state, told) = (live.state.load_full(), own.told());
        if let Err(error) = one(&client, state, &mut known, told, form, &metrics).await {
            metrics.failed();
            tracing::warn!(error = %chain(&error), "audit failed, tried again");
            wait = AFTER_FAILURE;
        }
        let pause = async {
            tokio::time::sleep(PAUSE.min(wait)).await;
            let all = known.as_ref().map_or(PERIOD, |known| known.rest(PERIOD));
            tokio::select! {
                changed = changed.changed() => changed.is_err(),
                () = tokio::time::sleep(all.min(wait.saturating_sub(PAUSE))) => false,
            }
        };
        tokio::select! {
            is_over = pause => if is_over { return Ok(()) },
            // This is seldom, and whoever reads the reports has little time left.
            Ok(()) = own.ending.changed() => known = None,
        }
    }
}

/// Judges what is to be judged and writes what is to be told of it.
async fn one(
    client: &Client,
    state: Arc<State>,
    known: &mut Option<Known>,
    told: Option<Told>,
    form: Form,
    metrics: &AuditMetrics,
) -> Result<(), AuditError> {
    let (begun, at) = (Instant::now(), Timestamp::now());
    let touched = Known::due(known.as_ref(), PERIOD, &state, at).await;
    if let (Touched::Some { namespaces, .. }, Some(known)) = (&touched, known.as_mut())
        && namespaces.is_empty()
    {
        known.stays(state, at);
        return Ok(());
    }
    let span = trace_span!(target: TARGET, "audit", objects = Empty);
    let found = judged(client, Arc::clone(&state), at, &touched, told, form);
    let found = found.instrument(span.clone()).await?;
    span.record("objects", found.objects());
    let now_known = Known::after(known.take(), state, (at, begun), &touched, &found);
    let (tally, took) = (now_known.tally(), begun.elapsed());
    let extent = match &touched {
        Touched::All => Extent::Whole,
        Touched::Some { .. } => Extent::Touched,
    };
    metrics.done(extent, &tally, took, Timestamp::now());
    tracing::info!(
        objects = found.objects(),
        namespaces = found.namespaces(),
        of = now_known.namespaces(),
        seconds = took.as_secs_f64(),
        "audit done"
    );
    let reports = now_known.reports(found, &touched);
    let told = trace_span!(target: TARGET, parent: &span, "report");
    // Where this fails it is not known what the reports say, so that nothing is known until everything is judged again.
    let written = write::reports(client, form, &touched, reports);
    written.instrument(told).await.map_err(AuditError::Write)?;
    *known = Some(now_known);
    Ok(())
}

/// Lists what is to be judged and judges it.
async fn judged(
    client: &Client,
    state: Arc<State>,
    at: Timestamp,
    touched: &Touched,
    told: Option<Told>,
    form: Form,
) -> Result<Found, AuditError> {
    let mut lists: Vec<Pages<'_>> = Vec::new();
    match touched {
        Touched::All => lists.extend(KINDS.iter().map(|kind| Pages::of(client, kind))),
        Touched::Some { namespaces, kinds } => {
            lists.extend(kinds.iter().map(|kind| Pages::of(client, kind)));
            let known = |name: &&NamespaceName| state.snapshot.namespace(name).is_some();
            for name in namespaces.iter().filter(known) {
                let of_it = KINDS.iter().filter(|kind| kind.is_in_namespaces());
                lists.extend(of_it.map(|kind| Pages::of(client, kind).within(name)));
            }
        }
    }
    // One page waits while another is judged.
    let (pages, inbox) = mpsc::channel(1);
    let what = touched.clone();
    let found = Found::new(form);
    let thread = tokio::task::spawn_blocking(move || judge(&state, at, &what, told, found, inbox));
    'lists: for mut list in lists {
        let kind = list.kind();
        loop {
            match list.next().await {
                Ok(Some(page)) => {
                    if pages.send(page).await.is_err() {
                        // Who judges them has ended, and tells why.
                        break 'lists;
                    }
                }
                Ok(None) => break,
                Err(ListError::Absent { .. }) if kind.is_optional() => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    drop(pages);
    thread.await.map_err(|_| AuditError::Thread)?
}

fn judge(
    state: &State,
    at: Timestamp,
    touched: &Touched,
    told: Option<Told>,
    mut found: Found,
    mut pages: mpsc::Receiver<Page>,
) -> Result<Found, AuditError> {
    let neighbourhood = Neighbourhood::of(&state.snapshot);
    let context = Context {
        neighbourhood: Some(&neighbourhood),
        ..state.context()
    };
    let baselines = Baselines::of(&context);
    let mut templates = Templates::default();
    for namespace in state.snapshot.namespaces() {
        let name = namespace.name();
        if touched.includes(name) {
            found.add_namespace(name, &state.snapshot.namespace_coverage(name));
        }
    }
    if let Some((namespace, object, decision)) = told.filter(|(name, ..)| touched.includes(name)) {
        found.tell(&namespace, &object, &decision);
    }
    while let Some(page) = pages.blocking_recv() {
        let kind = page.kind();
        let judged: Vec<(Review, Option<Decision>)> = page
            .into_objects()?
            .into_par_iter()
            .map(|item| {
                let review = audit::review(item, kind);
                let decision = audit::decide(&review, &baselines, &context, at, Budget::UNHURRIED);
                (review, decision)
            })
            .collect();
        for (review, decision) in judged {
            if let Some(mut decision) = decision {
                let alike = templates.leave_out(&review, &mut decision);
                found.add(kind, &review, &decision, alike);
            }
        }
    }
    Ok(found)
}

// === impl Own ===

impl Own {
    /// What is to be told of the certificates.
    fn told(&mut self) -> Option<Told> {
        let at = (*self.ending.borrow_and_update())?;
        let object = self.certificates.object(self.namespace.as_str());
        let (message, fix) = match &self.certificates {
            Certificates::Kept(_) => (
                format!("a certificate of the webhook ends at {at} and could not be renewed"),
                Fix::words("see why in the log of the controller and in its Events"),
            ),
            Certificates::Elsewhere(path) => (
                format!("the last authority that it trusts ends at {at}, and no other has come"),
                Fix::words(format!(
                    "have whoever makes the webhook's certificates renew {}",
                    path.display()
                )),
            ),
        };
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
