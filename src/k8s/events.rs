//! Kubernetes Events (`events.k8s.io/v1`): what happened, told where `kubectl describe` and `kubectl get events` show it.
//!
//! Who has something to tell gives a [`Notice`] to [`Events::tell`], which never waits; a task of its own ([`write`])
//! writes. What is told again makes the series of its Event grow instead of a new Event (`book.rs`), and everything is
//! bounded: the queue, what is remembered, new Events of a namespace, writes in a second. What is left out is counted.
//!
//! The recorder of `kube::runtime` knows no annotations, tells events of different notes for the same, and has no limits.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::k8s::one::chain;
use crate::telemetry::LogBudget;
use crate::telemetry::events::{Dropped, EventMetrics, Written};
use book::{Book, Job, Outcome};

mod book;
pub mod window;

/// Annotation: the id of the check.
pub const CHECK: &str = "ringfence.dev/check";
/// Annotation: the mode that the check is in.
pub const MODE: &str = "ringfence.dev/mode";
/// Annotation: the guardrails that ask for it, with commas between them.
pub const GUARDRAILS: &str = "ringfence.dev/guardrails";

/// The webhook, as who reports.
pub const WEBHOOK: &str = "ringfence.dev/webhook";
/// The controller, as who reports.
pub const CONTROLLER: &str = "ringfence.dev/controller";

/// The agent of a node, as who reports.
pub const AGENT: &str = "ringfence.dev/agent";

/// The reason of packets that a node did not let pass.
pub const DENIED: &str = "Denied";
/// The reason of what was refused.
pub const REFUSED: &str = "Refused";
/// The reason of what was let pass and would be refused in mode `Enforce`.
pub const WOULD_REFUSE: &str = "WouldRefuse";

/// Notices that wait to be looked at.
const QUEUE: usize = 1024;
/// The longest note that an API server takes, in bytes.
const LONGEST_NOTE: usize = 1024;
/// The longest name of an instance that it takes.
const LONGEST_INSTANCE: usize = 128;
/// The longest beginning of an Event's name; its number comes after it, and 253 is the most.
const LONGEST_NAME: usize = 200;
/// How long one write may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A line a minute at the most, whatever fails: an API server that is gone fails every write.
static FAILED: LogBudget = LogBudget::new(1);

/// Something to tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// What it is about. The Event goes to its namespace, or to `default` where it has none.
    pub regarding: ObjectReference,
    /// Whether somebody should look.
    pub weight: Weight,
    /// One word in capitals and small letters: what happened.
    pub reason: &'static str,
    /// One word like it: what was being done.
    pub action: &'static str,
    /// What happened in a sentence or two; cut at 1 KiB.
    pub note: String,
    /// For programs.
    pub annotations: BTreeMap<String, String>,
    /// Notices with the same key are one Event with a count.
    pub key: String,
}

/// The `type` of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Good to know.
    Normal,
    /// Somebody should look.
    Warning,
}

/// Where notices are given. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Events {
    sender: mpsc::Sender<Notice>,
    metrics: EventMetrics,
}

/// Who tells.
#[derive(Clone, Debug)]
pub struct Reporter {
    controller: &'static str,
    instance: String,
}

/// Where notices go, and the task that writes them.
pub fn writer(
    client: Client,
    reporter: Reporter,
    metrics: EventMetrics,
) -> (
    Events,
    impl Future<Output = Result<(), Infallible>> + Send + use<>,
) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let events = Events {
        sender,
        metrics: metrics.clone(),
    };
    (events, write(client, reporter, receiver, metrics))
}

// === impl Events ===

impl Events {
    /// Takes a notice, or drops it; never waits.
    pub fn tell(&self, notice: Notice) {
        if self.sender.try_send(notice).is_err() {
            self.metrics.dropped(Dropped::Queue);
        }
    }
}

/// Writes what is told, until nobody can tell any more.
async fn write(
    client: Client,
    reporter: Reporter,
    mut notices: mpsc::Receiver<Notice>,
    metrics: EventMetrics,
) -> Result<(), Infallible> {
    let mut book = Book::new(Instant::now());
    loop {
        let due = book.due();
        let ready = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            notice = notices.recv() => {
                let Some(notice) = notice else { return Ok(()) };
                if let Err(reason) = book.note(notice, Instant::now(), Timestamp::now()) {
                    metrics.dropped(reason);
                }
            }
            () = ready => {
                if let Some(job) = book.take(Instant::now()) {
                    let outcome = carry_out(&client, &reporter, &job, &metrics).await;
                    book.done(job.key(), outcome, Instant::now());
                }
            }
        }
    }
}

/// One write.
async fn carry_out(
    client: &Client,
    reporter: &Reporter,
    job: &Job,
    metrics: &EventMetrics,
) -> Outcome {
    let (written, what) = match job {
        Job::New { notice, at, .. } => {
            let event = reporter.event(notice, *at);
            let name = event.metadata.name.clone().unwrap_or_default();
            let api: Api<Event> = Api::namespaced(client.clone(), namespace(&notice.regarding));
            let create = async { api.create(&PostParams::default(), &event).await };
            (
                timeout(PATIENCE, create)
                    .await
                    .map(|made| made.map(|_| name)),
                Written::New,
            )
        }
        Job::Count {
            namespace,
            name,
            count,
            last,
            ..
        } => {
            let api: Api<Event> = Api::namespaced(client.clone(), namespace);
            let series = json!({"series": {"count": count, "lastObservedTime": MicroTime(*last)}});
            let patch = async {
                let merge = Patch::Merge(&series);
                api.patch(name, &PatchParams::default(), &merge).await
            };
            let made = timeout(PATIENCE, patch).await;
            (made.map(|made| made.map(|_| name.clone())), Written::Count)
        }
    };
    let (error, reason) = match written {
        Ok(Ok(name)) => {
            metrics.wrote(what);
            return Outcome::Written(name);
        }
        // It was kept for as long as the API server keeps Events.
        Ok(Err(kube::Error::Api(status))) if status.code == 404 && what == Written::Count => {
            return Outcome::Gone;
        }
        Ok(Err(error @ kube::Error::Api(_))) => (chain(&error), Dropped::Refused),
        Ok(Err(error)) => (chain(&error), Dropped::Failed),
        Err(_) => ("no answer in time".to_owned(), Dropped::Failed),
    };
    metrics.dropped(reason);
    if let Some(left_out) = FAILED.spend() {
        tracing::warn!(%error, left_out, "Event not written");
    }
    Outcome::Failed
}

/// Where the Event of an object goes.
fn namespace(regarding: &ObjectReference) -> &str {
    regarding.namespace.as_deref().unwrap_or("default")
}

/// A text of at most so many bytes.
fn cut(text: &str, longest: usize) -> String {
    if text.len() <= longest {
        return text.to_owned();
    }
    let mut end = longest.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    text.get(..end).unwrap_or_default().to_owned() + "…"
}

/// A name for an Event that an API server takes: the object's own, as far as it can be part of a name, and a number.
fn name(object: &str, number: i128) -> String {
    let fits = |c: &char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '-');
    let name: String = object.chars().filter(fits).take(LONGEST_NAME).collect();
    match name.trim_matches(['.', '-']) {
        "" => format!("ringfence.{number:x}"),
        name => format!("{name}.{number:x}"),
    }
}

// === impl Reporter ===

impl Reporter {
    /// A program and the name of the machine or pod that it runs on.
    pub fn new(controller: &'static str, instance: &str) -> Self {
        let instance = match instance.trim() {
            "" => controller,
            instance => instance,
        };
        Self {
            controller,
            instance: cut(instance, LONGEST_INSTANCE),
        }
    }

    fn event(&self, notice: &Notice, at: Timestamp) -> Event {
        let object = notice.regarding.name.as_deref().unwrap_or_default();
        Event {
            metadata: ObjectMeta {
                namespace: Some(namespace(&notice.regarding).to_owned()),
                name: Some(name(object, at.as_nanosecond())),
                annotations: Some(notice.annotations.clone()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(at)),
            action: Some(notice.action.to_owned()),
            reason: Some(notice.reason.to_owned()),
            regarding: Some(notice.regarding.clone()),
            note: Some(cut(&notice.note, LONGEST_NOTE)),
            reporting_controller: Some(self.controller.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(notice.weight.as_str().to_owned()),
            ..Event::default()
        }
    }
}

// === impl Weight ===

impl Weight {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_of_what_may_be_in_one() {
        assert_eq!(name("web-*", 255), "web.ff");
        assert_eq!(name("system:node", 1), "systemnode.1");
        assert_eq!(name("***", 1), "ringfence.1");
        assert_eq!(name(&"a".repeat(253), 1).len(), LONGEST_NAME + 2);
    }

    #[test]
    fn a_note_is_cut_at_bytes_and_between_characters() {
        assert_eq!(cut("üü", 4), "üü");
        assert_eq!(cut(&"ü".repeat(600), LONGEST_NOTE).len(), 1023);
        assert!(cut(&"ü".repeat(600), LONGEST_NOTE).ends_with("ü…"));
    }

    #[test]
    fn an_instance_without_a_name_is_called_as_the_program() {
        assert_eq!(Reporter::new(WEBHOOK, " \n").instance, WEBHOOK);
        assert_eq!(Reporter::new(WEBHOOK, "pod-a\n").instance, "pod-a");
    }
}
