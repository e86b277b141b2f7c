//! One review from its bytes to the bytes of its answer: read, skip or parse, decide, write. Plain computing, which the
//! workers place where it holds up nobody.

use std::time::Instant;

use axum::body::Body;
use axum::response::Response;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use jiff::Timestamp;

use crate::guard::audit;
use crate::guard::coverage;
use crate::guard::decide::{self, State as Known};
use crate::guard::engine::Budget;
use crate::guard::exemption::ExemptionSpec;
use crate::guard::guardrail::{GROUP, Section};
use crate::guard::mode::Mode;
use crate::guard::mutate;
use crate::guard::review::{Kind, Operation, Review, Subject};
use crate::k8s::events::Events;
use crate::netpol::{NamespaceName, NamespaceState, Object, Pod, Snapshot};
use crate::telemetry::LogBudget;
use crate::telemetry::traces::TARGET;

use super::answer::{Answer, Failed, Verdict};
use super::cluster::{Basis, Exempting};
use super::events::notices;
use super::metrics::Metrics;
use super::review::{Envelope, Refusal};
use super::router::{OnFailure, WebhookOptions};

/// Anybody who reaches the port can cause these.
static NONSENSE: LogBudget = LogBudget::new(10);
/// A policy that is too slow causes one with each request.
static FAILED: LogBudget = LogBudget::new(10);
/// Anybody who may write to the cluster can cause these; the API server's audit log has all of them.
static REVIEWED: LogBudget = LogBudget::new(200);

/// Which of the two questions is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Validate,
    Mutate,
}

/// What comes of one look at a request.
pub(super) enum Step {
    /// The answer.
    Done(Reply),
    /// It would not pass, and a fresher look at this namespace may change that.
    Read(NamespaceName),
    /// It will pass once this namespace has the baseline that is being made.
    Wait(NamespaceName),
    /// It passes if the one who asks may exempt.
    Authorize(Box<Exempting>, Reply),
}

/// What goes back over HTTP.
pub(super) struct Reply {
    status: StatusCode,
    body: Vec<u8>,
}

/// One request with all that its decision needs.
pub(super) struct Judge<'a> {
    pub(super) verb: Verb,
    pub(super) known: &'a Known,
    pub(super) options: &'a WebhookOptions,
    pub(super) metrics: &'a Metrics,
    pub(super) events: Option<&'a Events>,
    pub(super) basis: &'a Basis,
    pub(super) begun: Instant,
    pub(super) deadline: Instant,
}

/// What a judgement came to, before it is written.
enum Judged {
    Answer(Answer),
    Read(NamespaceName),
    Wait(NamespaceName),
    Authorize(Box<Exempting>, Answer),
}

impl Judge<'_> {
    /// From the bytes of a review to the bytes of its answer, or to what has to be asked before. Plain computing: no
    /// waiting, no clock but the budget's.
    pub(super) fn step(&self, body: &[u8]) -> Step {
        let outcome = Envelope::read(body).and_then(|envelope| self.judge(&envelope));
        let refusal = match outcome {
            Ok(Judged::Answer(answer)) => return Step::Done(Reply::of(&answer)),
            Ok(Judged::Read(namespace)) => return Step::Read(namespace),
            Ok(Judged::Wait(namespace)) => return Step::Wait(namespace),
            Ok(Judged::Authorize(exempting, answer)) => {
                return Step::Authorize(exempting, Reply::of(&answer));
            }
            Err(refusal) => refusal,
        };
        Step::Done(Self::senseless(refusal))
    }

    /// The answer to a review that makes no sense.
    fn senseless(refusal: Refusal) -> Reply {
        match refusal {
            Refusal::Nobody(reason) => {
                if let Some(left_out) = NONSENSE.spend() {
                    tracing::warn!(%reason, left_out, "not an AdmissionReview");
                }
                Reply {
                    status: StatusCode::BAD_REQUEST,
                    body: format!("{reason}\n").into_bytes(),
                }
            }
            Refusal::Answerable {
                uid,
                version,
                reason,
            } => {
                if let Some(left_out) = NONSENSE.spend() {
                    tracing::warn!(%uid, %reason, left_out, "invalid AdmissionReview");
                }
                Reply::of(&Answer::refused(&uid, version, &reason))
            }
        }
    }

    fn judge(&self, envelope: &Envelope<'_>) -> Result<Judged, Refusal> {
        let context = self.known.context();
        // What is not judged at all need not be parsed, nor make sense.
        let outline = envelope.outline();
        if let Some(skip) = decide::skip(&outline, context.snapshot) {
            let decision = decide::Decision {
                skipped: Some(skip),
                ..decide::Decision::default()
            };
            self.metrics.skipped(&outline, self.verb == Verb::Mutate);
            return Ok(Judged::Answer(match self.verb {
                Verb::Validate => Answer::judged(&outline.uid, &outline.object_ref(), &decision),
                Verb::Mutate => Answer::mutated(&outline.uid, &mutate::Mutated::default()),
            }));
        }
        // While it is being made it cannot be read, and the request tells its labels.
        if !envelope.is_namespace()
            && let Some(namespace) = self.unheard_of(&outline)
        {
            return Ok(Judged::Read(namespace.clone()));
        }
        let review = envelope.fill(outline)?;
        let now = Timestamp::now();
        let budget = Budget {
            deadline: Some(self.deadline),
            pods: self.options.reviews.pods,
        };
        let mut exempting = None;
        let mut answer = match self.verb {
            Verb::Validate => {
                let decision = decide::judge(&review, &context, now, budget);
                if matches!(self.basis, Basis::Followed(_))
                    && let Some(namespace) = worth_reading(&review, &decision, context.snapshot)
                {
                    return Ok(Judged::Read(namespace.clone()));
                }
                if *self.basis == Basis::Read
                    && let Some(namespace) = worth_waiting(&review, &decision, &context)
                {
                    return Ok(Judged::Wait(namespace.clone()));
                }
                if *self.basis != Basis::Folder && decision.allowed() {
                    exempting = new_exemption(&review).map(|spec| Exempting {
                        requester: envelope.requester(),
                        guardrail: spec.guardrail.clone(),
                    });
                }
                match decision.cut {
                    // What was found is enough to refuse; what was not found is not enough to allow.
                    Some(cut) if decision.allowed() => {
                        let deny = decision.strictest == Some(Mode::Enforce);
                        Answer::failed(&review.uid, &self.failure(deny, cut.to_string()))
                    }
                    Some(_) | None => {
                        if let Some(events) = self.events {
                            for notice in notices(&review, &decision) {
                                events.tell(notice);
                            }
                        }
                        Answer::judged(&review.uid, &review.object_ref(), &decision)
                    }
                }
            }
            Verb::Mutate => {
                Answer::mutated(&review.uid, &mutate::mutate(&review, &context, now, budget))
            }
        };
        // Where nothing is demanded, it does not matter what the state is like; of a namespace that could not be read nobody
        // knows what is.
        let is_in_doubt = || {
            review
                .namespace
                .as_ref()
                .is_some_and(|name| self.lacks(name))
        };
        if (answer.is_governed() || is_in_doubt())
            && let Some(remark) = self.basis.remark()
        {
            answer.remark(&remark);
        }
        self.log(&review, &answer);
        Ok(match exempting {
            Some(exempting) => Judged::Authorize(Box::new(exempting), answer),
            None => Judged::Answer(answer),
        })
    }

    /// The namespace of a request, where the watches have not told of it yet: without its labels no guardrail may select it.
    fn unheard_of<'r>(&self, outline: &'r Review) -> Option<&'r NamespaceName> {
        let namespace = outline.namespace.as_ref();
        namespace.filter(|name| matches!(self.basis, Basis::Followed(_)) && self.lacks(name))
    }

    /// Whether a namespace is not known itself, whatever is known to be in it.
    fn lacks(&self, name: &NamespaceName) -> bool {
        let state = self.known.snapshot.namespace(name);
        state.and_then(NamespaceState::object).is_none()
    }

    /// The answer when the judgement did not come about.
    pub(super) fn failed(&self, body: &[u8], reason: String) -> Reply {
        // A review that cannot be read gets the answer to that.
        let envelope = match Envelope::read(body) {
            Ok(envelope) => envelope,
            Err(refusal) => return Self::senseless(refusal),
        };
        let failed = match self.verb {
            Verb::Mutate => Failed {
                allowed: true,
                reason,
            },
            Verb::Validate => self.failure(self.is_enforced(&envelope), reason),
        };
        self.metrics.failed(failed.allowed);
        if let Some(left_out) = FAILED.spend() {
            tracing::warn!(
                uid = envelope.uid(), kind = envelope.kind(), namespace = envelope.namespace().unwrap_or_default(),
                reason = %failed.reason, outcome = if failed.allowed { "allowed" } else { "denied" }, left_out, "not judged"
            );
        }
        Reply::of(&Answer::failed(envelope.uid(), &failed))
    }

    /// The answer to who may not exempt.
    pub(super) fn not_exempt(&self, body: &[u8], exempting: &Exempting, reason: &str) -> Reply {
        let envelope = match Envelope::read(body) {
            Ok(envelope) => envelope,
            Err(refusal) => return Self::senseless(refusal),
        };
        self.metrics.not_exempt();
        tracing::info!(
            uid = envelope.uid(), kind = envelope.kind(), namespace = envelope.namespace().unwrap_or_default(),
            name = %envelope.outline().name, user = exempting.requester.user.as_deref().unwrap_or_default(),
            reason, outcome = "denied", "exemption not authorized"
        );
        Reply::of(&Answer::forbidden(envelope.uid(), reason))
    }

    fn failure(&self, enforced: bool, reason: String) -> Failed {
        let allowed = match self.options.on_failure {
            OnFailure::Allow => true,
            OnFailure::Deny => false,
            OnFailure::ByMode => !enforced,
        };
        Failed { allowed, reason }
    }

    /// Whether a guardrail in mode Enforce selects the namespace, or a reachability rule in that mode speaks of it. Ringfence's own kinds and the end of a namespace are never
    /// held up by a failure: they are what a lockout is undone with.
    fn is_enforced(&self, envelope: &Envelope<'_>) -> bool {
        let is_way_out = is_own(envelope.group(), envelope.kind())
            || (envelope.operation() == Operation::Delete && envelope.is_namespace());
        let Some(namespace) = envelope.namespace().filter(|_| !is_way_out) else {
            return false;
        };
        let labels = self.known.snapshot.namespace_labels(&namespace.into());
        let mut guardrails = self.known.guardrails.selecting(&labels);
        guardrails.any(|guardrail| guardrail.spec.strictest() == Mode::Enforce)
            || self.known.reachability.strictest(&labels) == Some(Mode::Enforce)
    }

    fn log(&self, review: &Review, answer: &Answer) {
        let verdict = answer.verdict();
        self.metrics
            .judged(review, answer, self.verb == Verb::Mutate);
        if tracing::span_enabled!(target: TARGET, tracing::Level::TRACE) {
            let (span, (_, mode)) = (tracing::Span::current(), answer.rules_and_mode());
            span.record("kind", review.kind.as_str());
            span.record("operation", tracing::field::debug(&review.operation));
            span.record(
                "namespace",
                review.namespace.as_ref().map(NamespaceName::as_str),
            );
            span.record("outcome", verdict.as_str());
            span.record("mode", mode);
        }
        let microseconds = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        macro_rules! line {
            ($level:ident) => {{
                let Some(left_out) = REVIEWED.spend() else { return };
                let object = review.object_ref();
                let (rule, mode) = answer.rules_and_mode();
                tracing::$level!(
                    uid = %review.uid, operation = ?review.operation, kind = %review.kind,
                    namespace = object.namespace.as_deref().unwrap_or_default(), name = %object.name,
                    outcome = verdict.as_str(), rule, mode, state = self.basis.as_str(), dry_run = review.dry_run, microseconds, left_out, "reviewed"
                );
            }};
        }
        match verdict {
            Verdict::Denied | Verdict::WouldDeny | Verdict::Patched => line!(info),
            Verdict::Allowed if tracing::enabled!(tracing::Level::DEBUG) => line!(debug),
            Verdict::Allowed => {}
        }
    }
}

/// The namespace that a fresher look may show to be other than the state has it, so that a refusal would be wrong: cover,
/// labels and exemptions that were written a moment ago. A warning is worth a look only where it is about cover.
///
/// What may take cover from pods is worth it also where it would pass: of two policies that go one after the other, each may be
/// taken for the one that stays.
fn worth_reading<'a>(
    review: &'a Review,
    decision: &decide::Decision,
    snapshot: &Snapshot,
) -> Option<&'a NamespaceName> {
    let namespace = review.namespace.as_ref()?;
    // What is wrong with these is wrong by itself, but for what is judged as a NetworkPolicy.
    if is_own(&review.kind_version.group, &review.kind) {
        return None;
    }
    let is_refused = decision.in_force(Mode::Enforce).next().is_some();
    let is_warned = || {
        let mut warned = decision.in_force(Mode::Warn);
        warned.any(|judged| judged.section == Some(Section::Coverage))
    };
    let may_uncover = || {
        let mut pods = snapshot.pods_in(namespace);
        decision.strictest == Some(Mode::Enforce) && may_uncover(review) && pods.any(Pod::is_held)
    };
    (is_refused || is_warned() || may_uncover()).then_some(namespace)
}

/// Whether a policy isolates other pods than before, or fewer.
fn may_uncover(review: &Review) -> bool {
    let policy = |subject: &'_ Option<Subject>| match subject.as_ref().and_then(Subject::model) {
        Some(Object::NetworkPolicy(policy)) => Some((policy.selector.clone(), policy.isolates)),
        _ => None,
    };
    let old = policy(&review.old_object);
    old.is_some() && old != policy(&review.object)
}

/// Whether a kind is one of those by which Ringfence itself is told what to do.
fn is_own(group: &str, kind: &str) -> bool {
    group == GROUP && kind != audit::STAGED.kind
}

/// The namespace whose baseline is being made, where that is all that a pod is refused for.
fn worth_waiting<'a>(
    review: &'a Review,
    decision: &decide::Decision,
    context: &decide::Context<'_>,
) -> Option<&'a NamespaceName> {
    let mut refused = decision.in_force(Mode::Enforce).peekable();
    refused.peek()?;
    let (snapshot, guardrails) = (context.snapshot, context.guardrails);
    let waits = |judged: &decide::Judged| {
        coverage::awaits_baseline(&judged.finding, review, snapshot, guardrails)
    };
    review.namespace.as_ref().filter(|_| refused.all(waits))
}

/// What a new or other Exemption says. One that says the same as before was authorized before.
fn new_exemption(review: &Review) -> Option<&ExemptionSpec> {
    let [new, old] = [&review.object, &review.old_object].map(|subject| {
        subject.as_ref().and_then(|subject| match &subject.parsed {
            Kind::Exemption(exemption) => Some(&exemption.spec),
            _ => None,
        })
    });
    new.filter(|new| old != Some(*new))
}

// === impl Reply ===

impl Reply {
    /// No answer at all: the API server then does what the registration says of a webhook that fails.
    pub(super) fn unavailable(reason: &str) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            body: format!("{reason}\n").into_bytes(),
        }
    }

    fn of(answer: &Answer) -> Self {
        Self {
            status: StatusCode::OK,
            body: answer.to_json(),
        }
    }

    pub(super) fn into_response(self) -> Response {
        let kind = if self.status == StatusCode::OK {
            "application/json"
        } else {
            "text/plain; charset=utf-8"
        };
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }
}
