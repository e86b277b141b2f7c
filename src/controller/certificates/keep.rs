//! Carries the state machine out: reads the Secret once, then keeps it, and tells the bundle to whom registers the webhook.
//!
//! While this runs nobody else writes the Secret, so one that is deleted, spoilt or put back to what it was is written
//! again as it should be. A write is refused by the API server when somebody wrote in between; then all is looked at anew.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::sleep;

use super::clock::Clock;
use super::ending::{Ending, is_near};
use super::secret::{data, read, trusted};
use super::{Done, Kept, Terms};
use crate::controller::FIELD_MANAGER;
use crate::controller::events::{Certificates as What, Teller};
use crate::controller::registration::MANAGED_BY;
use crate::k8s::one::{Known, chain};
use crate::runtime::publish;
use crate::telemetry::certificates::{Certificate, CertificateMetrics};

/// The Secret of the certificates.
pub const SECRET: &str = "ringfence-certificates";

/// What certificates follow from, each as it is now.
#[derive(Debug)]
pub struct Inputs {
    /// The Secret.
    pub secret: watch::Receiver<Known<Secret>>,
    /// The validating configuration.
    pub validating: watch::Receiver<Known<ValidatingWebhookConfiguration>>,
    /// The mutating configuration.
    pub mutating: watch::Receiver<Known<MutatingWebhookConfiguration>>,
}

/// Where it is told how things stand.
#[derive(Debug)]
pub struct Outputs {
    /// The bundle to register, as PEM.
    pub bundle: watch::Sender<Option<Vec<u8>>>,
    /// The numbers.
    pub metrics: CertificateMetrics,
    /// The Events.
    pub events: Teller,
    /// Who is told when the first of those ends that should have been followed by others long ago.
    pub ending: Ending,
}

/// What is known of the certificates.
#[derive(Debug, Default)]
struct Standing {
    /// What is to be kept, once the Secret has been read.
    kept: Option<Kept>,
    /// When those end that the Secret has, which are in use whatever could not be written since.
    ends: Option<Ends>,
}

/// When what is in use ends.
#[derive(Clone, Copy, Debug)]
struct Ends {
    leaf: Option<Timestamp>,
    authority: Option<Timestamp>,
}

/// The longest that passes without a look, since clocks jump.
const LOOK: Duration = Duration::from_secs(30);
/// The shortest.
const PACE: Duration = Duration::from_millis(50);
/// How long after a failure it is tried again, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Keeps the certificates, for as long as it runs.
pub async fn keep(
    client: Client,
    namespace: String,
    terms: Terms,
    mut inputs: Inputs,
    mut outputs: Outputs,
) -> Result<(), Infallible> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let mut clock = Clock::new();
    let mut standing = Standing::default();
    let mut retry = RETRY.0;
    loop {
        let now = clock.ask(&client).await;
        let kept = round(&api, &terms, &mut inputs, &outputs, &mut standing, now).await;
        // Read again: writing took its time.
        let now = clock.now();
        outputs.tell_of_ends(&standing, &terms, now);
        let wait = match kept {
            Ok(again) => {
                retry = RETRY.0;
                let left = now.duration_until(again);
                Duration::try_from(left).map_or(PACE, |left| left.clamp(PACE, LOOK))
            }
            Err(error) => {
                outputs.metrics.failed();
                tracing::warn!(name = SECRET, error = %error, "certificates not kept, tried again");
                let note = format!("The certificates of the webhook could not be kept: {error}");
                outputs.events.certificates(What::Failed, "", note);
                retry = (retry * 2).min(RETRY.1);
                sleep(retry).await;
                continue;
            }
        };
        sleep(PACE).await;
        inputs.changed(wait).await;
    }
}

/// One look, and one write where something is to be written; when to look again.
async fn round(
    api: &Api<Secret>,
    terms: &Terms,
    inputs: &mut Inputs,
    outputs: &Outputs,
    standing: &mut Standing,
    now: Timestamp,
) -> Result<Timestamp, KeepError> {
    let there = inputs.secret.borrow_and_update().clone();
    let validating = inputs.validating.borrow_and_update().clone();
    let mutating = inputs.mutating.borrow_and_update().clone();
    if !(there.is_known() && validating.is_known() && mutating.is_known()) {
        return Ok(Timestamp::MAX);
    }
    let there = there.here().map(std::sync::Arc::as_ref);
    let Standing { kept, ends } = standing;
    let kept = kept.get_or_insert_with(|| {
        let (kept, problems) = there.map(read).unwrap_or_default();
        for problem in problems {
            tracing::warn!(name = SECRET, reason = problem, "left out of the Secret");
        }
        *ends = Some(Ends::of(&kept));
        kept
    });
    let trusted = trusted(
        validating.here().map(std::sync::Arc::as_ref),
        mutating.here().map(std::sync::Arc::as_ref),
    );
    let step = kept.step(&trusted, terms, now)?;
    for done in &step.done {
        tell(done, outputs);
    }
    if write(api, there, kept).await? == Written::Outrun {
        // The watch tells what is there now.
        return Ok(now);
    }
    // Told only once it is kept: what signs must never be trusted by the entries and then forgotten.
    publish(&outputs.bundle, Some(kept.bundle().into_bytes()));
    let now_in_use = Ends::of(kept);
    *ends = Some(now_in_use);
    for (which, at) in [
        (Certificate::Leaf, now_in_use.leaf),
        (Certificate::Authority, now_in_use.authority),
    ] {
        if let Some(at) = at {
            outputs.metrics.ends(which, at);
        }
    }
    Ok(step.again)
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    /// The Secret holds what is kept.
    Done,
    /// Somebody wrote since it was looked at.
    Outrun,
}

/// Writes what is kept, where the Secret holds anything else.
async fn write(
    api: &Api<Secret>,
    there: Option<&Secret>,
    kept: &Kept,
) -> Result<Written, KeepError> {
    let data = data(kept)?;
    let as_us = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    let outcome = match there {
        Some(there) if there.data.as_ref() == Some(&data) => return Ok(Written::Done),
        Some(there) => {
            let secret = Secret {
                data: Some(data),
                ..there.clone()
            };
            api.replace(SECRET, &as_us, &secret).await
        }
        None => {
            let secret = Secret {
                metadata: ObjectMeta {
                    name: Some(SECRET.to_owned()),
                    labels: Some([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())].into()),
                    ..ObjectMeta::default()
                },
                data: Some(data),
                ..Secret::default()
            };
            api.create(&as_us, &secret).await
        }
    };
    match outcome {
        Ok(_) => Ok(Written::Done),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
            Ok(Written::Outrun)
        }
        Err(error) => Err(error.into()),
    }
}

/// Why a round failed.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error("{0}")]
    Certificate(#[from] crate::certs::CertError),
    #[error("{}", chain(.0))]
    Api(#[from] kube::Error),
    #[error("{0}")]
    Json(#[from] serde_json::Error),
}

// === impl Ends ===

impl Ends {
    fn of(kept: &Kept) -> Self {
        let newest = kept.authorities.last();
        Self {
            leaf: kept.leaf.as_ref().map(|leaf| leaf.facts.not_after()),
            authority: newest.map(|newest| newest.facts.not_after()),
        }
    }

    /// When the first of them ends that should have been followed by another long ago: that is done at a third of its time.
    fn near(&self, terms: &Terms, now: Timestamp) -> Option<Timestamp> {
        let all = [(self.leaf, terms.leaf), (self.authority, terms.authority)];
        let near = all
            .into_iter()
            .filter_map(|(until, whole)| until.filter(|until| is_near(*until, whole, now)));
        near.min()
    }
}

// === impl Outputs ===

impl Outputs {
    /// Tells that a certificate in use ends soon or has ended, where that is so.
    fn tell_of_ends(&mut self, standing: &Standing, terms: &Terms, now: Timestamp) {
        let ends = standing.ends.as_ref();
        let near = ends.and_then(|ends| ends.near(terms, now));
        let Some(at) = self.ending.tell(near, Instant::now()) else {
            return;
        };
        tracing::warn!(
            name = SECRET,
            not_after = %at,
            "a certificate ends soon or has ended, and could not be renewed"
        );
        let note = format!(
            "A certificate of the webhook ends at {at} and could not be renewed. The log of the controller says why."
        );
        self.events.certificates(What::Ending, "", note);
    }
}

fn tell(done: &Done, outputs: &Outputs) {
    let (name, metrics) = (SECRET, &outputs.metrics);
    let renewed = |about: &str, note: String| {
        outputs.events.certificates(What::Renewed, about, note);
    };
    match done {
        Done::Adopted => tracing::warn!(
            name,
            "an authority that is trusted but was not kept is trusted on"
        ),
        Done::Made { until } => {
            metrics.made(Certificate::Authority);
            tracing::info!(name, not_after = %until, "authority made");
            let note =
                format!("A new authority for the webhook's certificates holds until {until}");
            renewed("authority", note);
        }
        Done::Published => tracing::info!(name, "authority seen in every entry, or no longer"),
        Done::Signed { until } => {
            metrics.made(Certificate::Leaf);
            tracing::info!(name, not_after = %until, "leaf signed");
            let note = format!("A new certificate of the webhook holds until {until}");
            renewed("leaf", note);
        }
        Done::Dropped => tracing::info!(name, "authority dropped"),
    }
}

// === impl Inputs ===

impl Inputs {
    async fn changed(&mut self, wait: Duration) {
        tokio::select! {
            Ok(()) = self.secret.changed() => {}
            Ok(()) = self.validating.changed() => {}
            Ok(()) = self.mutating.changed() => {}
            () = sleep(wait) => {}
        }
    }
}
