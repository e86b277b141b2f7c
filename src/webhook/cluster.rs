//! What the webhook asks of a live cluster beside the state that it follows: a fresher look before it refuses, or lets pass what
//! should not rest on what is old, and whether somebody may write an Exemption. Everything within the deadline of the request, and nothing of it for a folder.

use std::fmt;
use std::time::{Duration, Instant};

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};

use crate::guard::decide::State;
use crate::guard::guardrail::GROUP;
use crate::k8s::events::Events;
use crate::k8s::live::{Live, ReadError, ReadLimits, Reader};
use crate::netpol::NamespaceName;

/// A live cluster, as the webhook uses it.
#[derive(Clone)]
pub struct Cluster {
    live: Live,
    reader: Reader,
    client: Client,
    age_limit: Duration,
    events: Option<Events>,
}

/// What a decision is based on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Basis {
    /// A folder: it is all there is.
    Folder,
    /// A state that is followed, of this age; the API server may be asked for more.
    Followed(Duration),
    /// The API server was read for this very request.
    Read,
    /// It was read again and again, and what the request waits for did not come.
    Waited,
    /// The API server could not be read, and the state is of this age.
    Unread(ReadError, Duration),
}

/// Why a state is not to be judged by.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    /// The first lists are not complete.
    #[error("the cluster is not known yet: its first lists are not complete")]
    Incomplete,
    /// The API server has not been heard for too long.
    #[error("the API server was last heard {0} ago, and no state older than {1} is judged by")]
    TooOld(Seconds, Seconds),
}

/// A time in whole seconds, as people read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seconds(pub(super) Duration);

/// Who wants to exempt from what.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Exempting {
    pub(super) requester: SubjectAccessReviewSpec,
    /// The guardrails that are named: one, or `None` for every one.
    pub(super) guardrail: Option<String>,
}

/// The verb that is asked for on a guardrail.
const VERB: &str = "exempt";

// === impl Cluster ===

impl Cluster {
    /// A cluster that is followed and may be read so often. A state older than the limit is not judged by.
    pub fn new(live: Live, client: Client, limits: ReadLimits, age_limit: Duration) -> Self {
        Self {
            live,
            reader: Reader::new(client.clone(), limits),
            client,
            age_limit,
            events: None,
        }
    }

    /// The same, where it is told what was refused or would be.
    #[must_use]
    pub fn telling(self, events: Option<Events>) -> Self {
        Self { events, ..self }
    }

    /// Where that is told.
    pub(super) fn events(&self) -> Option<&Events> {
        self.events.as_ref()
    }

    /// How often the API server was read before a decision, and how often that failed.
    pub fn reads(&self) -> (u64, u64) {
        self.reader.counts()
    }

    /// What is followed.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// What a decision may be based on now.
    pub(super) fn basis(&self) -> Result<Basis, Unusable> {
        if !self.live.is_complete() {
            return Err(Unusable::Incomplete);
        }
        let age = self.live.age();
        if age > self.age_limit {
            return Err(Unusable::TooOld(Seconds(age), Seconds(self.age_limit)));
        }
        Ok(Basis::Followed(age))
    }

    /// Lays what the API server holds of a namespace over a state. Leaves some of the time until the deadline.
    pub(super) async fn read(
        &self,
        namespace: &NamespaceName,
        known: &State,
        deadline: Instant,
    ) -> Result<State, ReadError> {
        let fresh = self.reader.read(namespace, most_of(deadline)).await?;
        Ok(fresh.over(known))
    }

    /// For how long changes may have been missed.
    pub(super) fn age(&self) -> Duration {
        self.live.age()
    }

    /// Whether somebody may exempt; the reason if not. In doubt not.
    pub(super) async fn may_exempt(
        &self,
        exempting: &Exempting,
        deadline: Instant,
    ) -> Result<(), String> {
        let user = exempting.requester.user.as_deref().unwrap_or_default();
        let from = match &exempting.guardrail {
            Some(name) => format!("guardrail `{name}`"),
            None => "every guardrail".to_owned(),
        };
        let asked = tokio::time::timeout_at(most_of(deadline).into(), self.ask(exempting)).await;
        let doubt = match asked {
            Ok(Ok(status)) if status.allowed && status.denied != Some(true) => return Ok(()),
            Ok(Ok(_)) => {
                let on = exempting.guardrail.as_deref();
                let on = on.map_or_else(
                    || "all guardrails.ringfence.dev".to_owned(),
                    |name| format!("guardrails.ringfence.dev `{name}`"),
                );
                return Err(format!(
                    "user `{user}` may not exempt from {from}: it takes the verb `{VERB}` on {on}, granted by a ClusterRole"
                ));
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        Err(format!(
            "whether user `{user}` may exempt from {from} could not be found out ({doubt}), so it is refused. Try again."
        ))
    }

    async fn ask(
        &self,
        exempting: &Exempting,
    ) -> Result<k8s_openapi::api::authorization::v1::SubjectAccessReviewStatus, kube::Error> {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    group: Some(GROUP.to_owned()),
                    resource: Some("guardrails".to_owned()),
                    verb: Some(VERB.to_owned()),
                    name: exempting.guardrail.clone(),
                    ..ResourceAttributes::default()
                }),
                ..exempting.requester.clone()
            },
            ..SubjectAccessReview::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &review).await?;
        Ok(answer.status.unwrap_or_default())
    }
}

/// Three quarters of the time that is left: the rest is for the decision and the way back.
fn most_of(deadline: Instant) -> Instant {
    let now = Instant::now();
    let left = deadline.saturating_duration_since(now);
    now.checked_add(left.saturating_sub(left / 4))
        .unwrap_or(deadline)
}

// === impl Basis ===

impl Basis {
    /// What is to be said of it: that the state is old, that it could not be made sure.
    pub(super) fn remark(&self) -> Option<String> {
        let old = |age: &Duration| *age >= Duration::from_secs(1);
        match self {
            Self::Followed(age) if old(age) => Some(format!(
                "judged by a state that is {} old: the API server has not been heard since",
                Seconds(*age)
            )),
            Self::Unread(error, age) if old(age) => Some(format!(
                "judged by a state that is {} old: {error}",
                Seconds(*age)
            )),
            Self::Unread(error, _) => Some(format!(
                "judged by what the watches have told, which may be some milliseconds behind: {error}"
            )),
            Self::Folder | Self::Followed(_) | Self::Read | Self::Waited => None,
        }
    }

    /// One word for the log.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Folder => "folder",
            Self::Followed(_) => "followed",
            Self::Read => "read",
            Self::Waited => "waited",
            Self::Unread(..) => "unread",
        }
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match (seconds / 60, seconds % 60) {
            (0, seconds) => write!(f, "{seconds}s"),
            (minutes, 0) => write!(f, "{minutes}m"),
            (minutes, seconds) => write!(f, "{minutes}m{seconds}s"),
        }
    }
}
