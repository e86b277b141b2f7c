//! One controller writes at a time: a Lease of `coordination.k8s.io/v1`, taken, renewed, lost and given back.
//!
//! No clock is compared with another machine's: a candidate takes over when the Lease has not changed for its whole
//! duration *by the candidate's own clock*, and a holder stops its work when it could not renew for a while that is
//! shorter than that. What the work is, is the caller's; it runs as [`Tasks`] that are stopped before anybody else may lead.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};

use super::FIELD_MANAGER;
use super::registration::MANAGED_BY;
use crate::k8s::one::chain;
use crate::runtime::{Phase, Shutdown, TaskEnd, Tasks};

/// The times of a Lease. Each is shorter than the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How long a Lease that is not renewed keeps others out.
    pub duration: Duration,
    /// How long a holder goes on without a renewal that went well.
    pub renew_within: Duration,
    /// How often it is looked at and renewed.
    pub every: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_within: Duration::from_secs(10),
            every: Duration::from_secs(2),
        }
    }
}

/// Who leads, by a Lease.
pub struct Election {
    api: Api<Lease>,
    name: String,
    identity: String,
    times: Times,
}

/// How a time of leading ended.
#[derive(Debug)]
pub enum Ending {
    /// The process goes; the Lease was given back.
    Shutdown,
    /// One of the tasks ended, which none should; the Lease was given back.
    Task(TaskEnd),
}

/// A Lease as it was seen, and when it was seen to change by the clock of this process.
#[derive(Clone, Debug)]
struct Seen {
    lease: Arc<Lease>,
    since: Instant,
}

// === impl Election ===

impl Election {
    /// A candidate. The identity must be of this process alone.
    pub fn new(
        client: Client,
        namespace: &str,
        name: &str,
        identity: String,
        times: Times,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity,
            times,
        }
    }

    /// Leads whenever it can, with the tasks that `work` starts, until the process goes or a task ends.
    pub async fn run<W, F>(self, mut shutdown: Shutdown, mut work: W) -> Ending
    where
        W: FnMut() -> F,
        F: Future<Output = Tasks>,
    {
        loop {
            let held = tokio::select! {
                held = self.acquire() => held,
                () = shutdown.reached(Phase::Draining) => return Ending::Shutdown,
            };
            tracing::info!(name = self.name, identity = self.identity, "leading");
            let mut tasks = work().await;
            let mut held = held;
            let ending = tokio::select! {
                () = self.keep(&mut held) => None,
                Some(end) = tasks.next_end() => Some(Ending::Task(end)),
                () = shutdown.reached(Phase::Draining) => Some(Ending::Shutdown),
            };
            // Before anything else: whoever takes over next must find nobody at work.
            tasks.stop().await;
            match ending {
                Some(ending) => {
                    self.give_back(&held).await;
                    return ending;
                }
                None => {
                    tracing::warn!(
                        name = self.name,
                        identity = self.identity,
                        "no longer leading"
                    );
                }
            }
        }
    }

    /// Waits until the Lease is ours.
    async fn acquire(&self) -> Seen {
        let mut seen: Option<Seen> = None;
        // The same is not told twice in a row.
        let mut told = None;
        loop {
            let outcome = match timeout(self.times.renew_within, self.try_acquire(&mut seen)).await
            {
                Ok(Ok(Some(held))) => return held,
                Ok(Ok(None)) => {
                    let holder = seen.as_ref().and_then(|seen| holder(&seen.lease));
                    Ok(holder.unwrap_or_default().to_owned())
                }
                Ok(Err(error)) => Err(chain(&error)),
                Err(_) => Err("no answer in time".to_owned()),
            };
            if told.as_ref() != Some(&outcome) {
                let name = &self.name;
                match &outcome {
                    Ok(holder) => tracing::info!(name, holder, "another leads, waiting"),
                    Err(error) => tracing::warn!(name, error, "cannot take the Lease"),
                }
                told = Some(outcome);
            }
            sleep(self.times.every).await;
        }
    }

    async fn try_acquire(&self, seen: &mut Option<Seen>) -> Result<Option<Seen>, kube::Error> {
        // Counted from before the request: what is ours then is ours for less long than others think.
        let begun = Instant::now();
        let Some(there) = self.api.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    labels: Some([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())].into()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.spec(None, Timestamp::now())),
            };
            return settled(self.api.create(&as_us(), &lease).await, begun);
        };
        let same = seen.as_ref().is_some_and(|seen| {
            seen.lease.metadata.resource_version == there.metadata.resource_version
        });
        if !same {
            *seen = Some(Seen {
                lease: Arc::new(there.clone()),
                since: Instant::now(),
            });
        }
        let since = seen.as_ref().map_or(begun, |seen| seen.since);
        if !self.is_free(&there, since.elapsed()) {
            return Ok(None);
        }
        let taken = Lease {
            spec: Some(self.spec(there.spec.as_ref(), Timestamp::now())),
            ..there
        };
        settled(self.api.replace(&self.name, &as_us(), &taken).await, begun)
    }

    /// Whether the Lease may be taken, which has not changed for this long.
    fn is_free(&self, lease: &Lease, unchanged: Duration) -> bool {
        let Some(holder) = holder(lease) else {
            return true;
        };
        // A process of this very identity is this one: it has lost track, not the Lease.
        let said = lease
            .spec
            .as_ref()
            .and_then(|spec| spec.lease_duration_seconds);
        let said = said.and_then(|seconds| u64::try_from(seconds).ok());
        let duration = said.map_or(self.times.duration, Duration::from_secs);
        holder == self.identity || unchanged >= duration
    }

    /// Renews until that fails for too long, or somebody else has the Lease.
    async fn keep(&self, held: &mut Seen) {
        loop {
            sleep(self.times.every).await;
            let left = self.times.renew_within.saturating_sub(held.since.elapsed());
            if left.is_zero() {
                tracing::warn!(name = self.name, "the Lease was not renewed in time");
                return;
            }
            let begun = Instant::now();
            match timeout(left, self.renew(&held.lease)).await {
                Ok(Ok(lease)) => {
                    *held = Seen {
                        lease: Arc::new(lease),
                        since: begun,
                    };
                }
                Ok(Err(kube::Error::Api(status))) if status.is_conflict() => {
                    match self.api.get(&self.name).await {
                        Ok(there) if holder(&there) == Some(&self.identity) => {
                            held.lease = Arc::new(there);
                        }
                        Ok(there) => {
                            let holder = holder(&there);
                            tracing::warn!(name = self.name, holder, "another has the Lease");
                            return;
                        }
                        // Written upon a Lease that is there no more, too, is a conflict.
                        Err(kube::Error::Api(status)) if status.is_not_found() => {
                            tracing::warn!(name = self.name, "the Lease is gone");
                            return;
                        }
                        Err(error) => {
                            tracing::warn!(name = self.name, error = %chain(&error), "Lease not renewed");
                        }
                    }
                }
                Ok(Err(kube::Error::Api(status))) if status.is_not_found() => {
                    tracing::warn!(name = self.name, "the Lease is gone");
                    return;
                }
                Ok(Err(error)) => {
                    tracing::warn!(name = self.name, error = %chain(&error), "Lease not renewed");
                }
                Err(_) => {}
            }
        }
    }

    async fn renew(&self, lease: &Lease) -> Result<Lease, kube::Error> {
        let mut renewed = lease.clone();
        let spec = renewed.spec.get_or_insert_default();
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        self.api.replace(&self.name, &as_us(), &renewed).await
    }

    /// Lets the next one in at once.
    async fn give_back(&self, held: &Seen) {
        let mut free = held.lease.as_ref().clone();
        let spec = free.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        let as_us = as_us();
        let replaced = self.api.replace(&self.name, &as_us, &free);
        match timeout(self.times.every, replaced).await {
            Ok(Ok(_)) => tracing::info!(name = self.name, "Lease given back"),
            Ok(Err(error)) => {
                tracing::info!(name = self.name, error = %chain(&error), "Lease not given back");
            }
            Err(_) => tracing::info!(name = self.name, "Lease not given back in time"),
        }
    }

    fn spec(&self, before: Option<&LeaseSpec>, now: Timestamp) -> LeaseSpec {
        let before_held = before.and_then(|spec| spec.holder_identity.as_deref());
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        let passes = before.is_some() && before_held != Some(&self.identity);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.times.duration.as_secs().max(1)).ok(),
            acquire_time: Some(MicroTime(now)),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(if passes {
                transitions.saturating_add(1)
            } else {
                transitions
            }),
            ..LeaseSpec::default()
        }
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref()?;
    (!holder.is_empty()).then_some(holder)
}

fn as_us() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}

/// Another was quicker: no error, but not ours either.
fn settled(
    written: Result<Lease, kube::Error>,
    begun: Instant,
) -> Result<Option<Seen>, kube::Error> {
    match written {
        Ok(lease) => Ok(Some(Seen {
            lease: Arc::new(lease),
            since: begun,
        })),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
