//! The paths: `/validate` and `/mutate` for the API server, `/livez` and `/readyz` for the kubelet.
//!
//! A review passes through, in this order: method and content type; the body; a place among the requests at once, or 429 with
//! `Retry-After`, upon which an API server tries again within its own patience; the envelope; the decision of `guard`, computed by the workers before the deadline. What could not be decided in time, or panicked, is answered by
//! the configured direction. Health paths pass by all of it.
//!
//! In front of a live cluster a decision takes up to two looks: one that would refuse, that is about a namespace which no
//! watch has told of, or that may take cover from pods, asks the API server first for what the watches may not have told yet, and is made again by that. A pod that lacks nothing but the baseline which the
//! controller is making is looked at again for three quarters of its time. An Exemption passes only after a `SubjectAccessReview`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use hyper::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use hyper::{HeaderMap, StatusCode};
use tokio::sync::Semaphore;
use tracing::field::Empty;
use tracing::{Instrument as _, trace_span};

use crate::guard::decide::State as Known;
use crate::guard::engine::Budget;
use crate::k8s::events::Events;
use crate::netpol::NamespaceName;
use crate::runtime::{Readiness, admin};
use crate::telemetry::traces::{self, TARGET};

use super::body::{Bodies, BodyError, BodyOptions, discard};
use super::cluster::{Basis, Cluster, Unusable};
use super::deadline::patience;
use super::judge::{Judge, Reply, Step, Verb};
use super::metrics::Metrics;
use super::review::Envelope;
use super::workers::{Outcome, WorkerOptions, Workers};

/// How long a pod waits between two looks for its baseline; reads of one namespace are shared and have a pace of their own.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// How reviews are handled.
#[derive(Debug, Clone, Default)]
pub struct WebhookOptions {
    /// What follows when a request cannot be judged.
    pub on_failure: OnFailure,
    /// The limits of bodies.
    pub body: BodyOptions,
    /// How decisions are placed.
    pub workers: WorkerOptions,
    /// How many reviews there may be at once.
    pub reviews: ReviewLimit,
}

/// What follows when a request cannot be judged: too late, a panic, a limit of the check itself. A mutation that fails is
/// always let through unchanged, because what comes of it is still validated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum OnFailure {
    /// Refuse where a guardrail in mode Enforce selects the namespace, else allow.
    #[default]
    ByMode,
    /// Allow, and say so.
    Allow,
    /// Refuse, and say so.
    Deny,
}

/// How many reviews there may be at once, and how many pods one check may look at.
#[derive(Debug, Clone, Copy)]
pub struct ReviewLimit {
    /// Reviews in flight; the next is told to come back.
    pub in_flight: usize,
    /// Pods that one check may look at.
    pub pods: usize,
}

/// The state behind the handlers.
pub struct Webhook {
    known: Arc<ArcSwap<Known>>,
    cluster: Option<Cluster>,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    options: WebhookOptions,
    bodies: Bodies,
    workers: Arc<Workers>,
    in_flight: Semaphore,
}

impl Default for ReviewLimit {
    fn default() -> Self {
        Self {
            in_flight: 512,
            pods: Budget::PODS,
        }
    }
}

// === impl Webhook ===

impl Webhook {
    /// Handlers that decide by what is known at the moment of each request.
    pub fn new(
        known: Arc<ArcSwap<Known>>,
        readiness: Readiness,
        options: WebhookOptions,
    ) -> Arc<Self> {
        Self::in_front_of(None, known, Arc::default(), readiness, options)
    }

    /// The same, with a live cluster behind what is known, and the numbers that are kept.
    pub fn in_front_of(
        cluster: Option<Cluster>,
        known: Arc<ArcSwap<Known>>,
        metrics: Arc<Metrics>,
        readiness: Readiness,
        options: WebhookOptions,
    ) -> Arc<Self> {
        Arc::new(Self {
            known,
            cluster,
            metrics,
            readiness,
            bodies: Bodies::new(options.body.clone()),
            workers: Workers::new(options.workers.clone()),
            in_flight: Semaphore::new(options.reviews.in_flight.clamp(1, Semaphore::MAX_PERMITS)),
            options,
        })
    }

    /// The router with all paths.
    pub fn router(self: Arc<Self>) -> Router {
        let validate = |State(webhook), request| Self::handle(webhook, Verb::Validate, request);
        let mutate = |State(webhook), request| Self::handle(webhook, Verb::Mutate, request);
        Router::new()
            .route("/validate", post(validate).fallback(only_post))
            .route("/mutate", post(mutate).fallback(only_post))
            .route("/livez", get(async || "ok\n"))
            .route(
                "/readyz",
                get(async |State(webhook): State<Arc<Self>>| admin::ready(&webhook.readiness)),
            )
            .fallback(async || {
                let text = "no such path: there are /validate, /mutate, /livez and /readyz\n";
                (StatusCode::NOT_FOUND, text)
            })
            .with_state(self)
    }

    async fn handle(webhook: Arc<Self>, verb: Verb, request: Request) -> Response {
        let path = request.uri().path();
        let span =
            trace_span!(target: TARGET, "review", otel.kind = "server", path, status = Empty);
        traces::follow(&span, request.headers());
        let answer = Self::review(webhook, verb, request);
        let response = answer.instrument(span.clone()).await;
        span.record("status", response.status().as_u16());
        response
    }

    async fn review(webhook: Arc<Self>, verb: Verb, request: Request) -> Response {
        let begun = Instant::now();
        let (parts, body) = request.into_parts();
        if !is_json(&parts.headers) {
            let text = "the content type must be application/json\n";
            discard(body).await;
            return (StatusCode::UNSUPPORTED_MEDIA_TYPE, text).into_response();
        }
        let patience = patience(parts.uri.query());
        let deadline = begun.checked_add(patience).unwrap_or(begun);
        let received = match webhook.bodies.read(&parts.headers, body, patience).await {
            Ok(received) => received,
            Err(error) => return unread(error),
        };
        // Only what is there to be judged takes a place: a body that never comes would hold it for nothing.
        let Ok(_place) = webhook.in_flight.try_acquire() else {
            webhook.metrics.shed();
            return come_back();
        };
        let _counted = webhook.metrics.in_flight();
        webhook
            .decide(verb, received.bytes.clone(), begun, deadline)
            .await
            .into_response()
    }

    /// Judges, asks the cluster where the judgement calls for it, and judges again.
    async fn decide(&self, verb: Verb, body: Bytes, begun: Instant, deadline: Instant) -> Reply {
        let mut turn = Turn {
            verb,
            known: self.known.load_full(),
            basis: Basis::Folder,
            begun,
            deadline,
        };
        if let Some(cluster) = &self.cluster {
            turn.basis = match cluster.basis() {
                Ok(basis) => basis,
                Err(error @ Unusable::Incomplete) => return Reply::unavailable(&error.to_string()),
                Err(error @ Unusable::TooOld(..)) => {
                    return self.judge(&turn, |judge| judge.failed(&body, error.to_string()));
                }
            };
        }
        loop {
            let step = match self.look(&turn, &body).await {
                Ok(step) => step,
                Err(reason) => return self.judge(&turn, |judge| judge.failed(&body, reason)),
            };
            match (step, &self.cluster) {
                (Step::Done(reply), _) | (Step::Authorize(_, reply), None) => return reply,
                (Step::Read(namespace), Some(cluster)) => {
                    self.read(&mut turn, cluster, &namespace).await;
                }
                (Step::Wait(namespace), Some(cluster)) => {
                    if turn.may_wait() {
                        tokio::time::sleep(BETWEEN_LOOKS).await;
                        self.read(&mut turn, cluster, &namespace).await;
                    } else {
                        turn.basis = Basis::Waited;
                    }
                }
                (Step::Authorize(exempting, reply), Some(cluster)) => {
                    return match cluster.may_exempt(&exempting, deadline).await {
                        Ok(()) => reply,
                        Err(reason) => {
                            self.judge(&turn, |judge| judge.not_exempt(&body, &exempting, &reason))
                        }
                    };
                }
                // A folder has nobody to ask, and its basis calls for nobody.
                (Step::Read(_) | Step::Wait(_), None) => turn.basis = Basis::Folder,
            }
        }
    }

    /// Puts what the API server holds of a namespace in the place of what the watches have told.
    async fn read(&self, turn: &mut Turn, cluster: &Cluster, namespace: &NamespaceName) {
        self.metrics.read();
        let known = self.known.load_full();
        let span = trace_span!(target: TARGET, "read", %namespace);
        let read = cluster.read(namespace, &known, turn.deadline);
        match read.instrument(span).await {
            Ok(state) => {
                turn.known = Arc::new(state);
                turn.basis = Basis::Read;
            }
            Err(error) => {
                self.metrics.unread();
                turn.known = self.known.load_full();
                turn.basis = Basis::Unread(error, cluster.age());
            }
        }
    }

    /// One look at a request, placed by the workers; the reason when it did not come about.
    async fn look(&self, turn: &Turn, body: &Bytes) -> Result<Step, String> {
        let work = {
            let (body, turn, options) = (body.clone(), turn.clone(), self.options.clone());
            let metrics = Arc::clone(&self.metrics);
            let events = self.events().cloned();
            let span = trace_span!(
                target: TARGET, "decide",
                kind = Empty, operation = Empty, namespace = Empty, outcome = Empty, mode = Empty
            );
            move || {
                let judge = turn.judge(&options, &metrics, events.as_ref());
                span.in_scope(|| judge.step(&body))
            }
        };
        let lane = || {
            Envelope::read(body)
                .map(|envelope| envelope.lane())
                .unwrap_or_default()
        };
        match self
            .workers
            .run(body.len(), turn.deadline, lane, work)
            .await
        {
            Outcome::Done(step) => Ok(step),
            Outcome::TooLate => Err("it took too long".to_owned()),
            Outcome::Panicked(panic) => {
                tracing::error!(reason = %panic, "a decision panicked");
                Err("an internal error".to_owned())
            }
        }
    }

    fn judge<T>(&self, turn: &Turn, then: impl FnOnce(&Judge<'_>) -> T) -> T {
        then(&turn.judge(&self.options, &self.metrics, self.events()))
    }

    fn events(&self) -> Option<&Events> {
        self.cluster.as_ref().and_then(Cluster::events)
    }
}

/// One look at a request: by what, on what basis and until when.
#[derive(Clone)]
struct Turn {
    verb: Verb,
    known: Arc<Known>,
    basis: Basis,
    begun: Instant,
    deadline: Instant,
}

impl Turn {
    /// Whether there is time for another look, and for the answer after it.
    fn may_wait(&self) -> bool {
        let whole = self.deadline.saturating_duration_since(self.begun);
        self.begun.elapsed() + BETWEEN_LOOKS < whole.saturating_mul(3) / 4
    }

    fn judge<'a>(
        &'a self,
        options: &'a WebhookOptions,
        metrics: &'a Metrics,
        events: Option<&'a Events>,
    ) -> Judge<'a> {
        Judge {
            verb: self.verb,
            known: &self.known,
            options,
            metrics,
            events,
            basis: &self.basis,
            begun: self.begun,
            deadline: self.deadline,
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
    else {
        return false;
    };
    let essence = value.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

async fn only_post(request: Request) -> Response {
    discard(request.into_body()).await;
    (
        StatusCode::METHOD_NOT_ALLOWED,
        [(ALLOW, "POST")],
        "only POST is served here\n",
    )
        .into_response()
}

/// An API server tries again after this many seconds, as long as its patience lasts.
fn come_back() -> Response {
    let text = "too many requests at once; come back in a second\n";
    (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, "1")], text).into_response()
}

fn unread(error: BodyError) -> Response {
    let text = format!("{error}\n");
    match error {
        BodyError::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, text).into_response(),
        BodyError::TooSlow(_) => (StatusCode::REQUEST_TIMEOUT, text).into_response(),
        BodyError::NoMemory | BodyError::Crowded => {
            (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, "1")], text).into_response()
        }
        BodyError::Broken => (StatusCode::BAD_REQUEST, text).into_response(),
    }
}
