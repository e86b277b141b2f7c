//! Keeps the baseline policies of namespaces: what [`crate::guard::baseline::plan`] wants is written, at a bounded rate.
//!
//! The plan is made anew at each change of the cluster and now and then, so that a write that failed or was undone is made
//! again. Each write is a server-side apply of a whole policy and may be repeated. Which namespaces were given their
//! baseline is kept in a `ConfigMap` of the installation (`baselines/record.rs`), so that one whose policy was deleted is not
//! taken for one that never had it.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::FIELD_MANAGER;
use super::events::{Baseline as What, baseline as tell};
use crate::guard::baseline::NAME;
use crate::guard::baseline::plan::{Hold, Plan, Standing, Step, plan};
use crate::k8s::events::Events;
use crate::k8s::live::Live;
use crate::netpol::{NamespaceName, PolicyName};
use crate::telemetry::baselines::{BaselineMetrics, Outcome, Reason};
use record::Record;

mod record;

/// How many writes are under way at a time.
const AT_ONCE: usize = 8;
/// The least time between the beginnings of two writes: a hundred in a second.
const BETWEEN: Duration = Duration::from_millis(10);
/// The least time between two plans.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest time between two plans.
const PERIOD: Duration = Duration::from_mins(1);
/// How long a policy that was written is left alone, doubled each time that it had to be written again: the watch is to
/// show it first, and two controllers that fight do so slowly.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The most that this doubles to.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// After this time a policy that was not written again counts as settled.
const SETTLED: Duration = Duration::from_mins(5);

struct Keeper {
    client: Client,
    record: Record,
    rate: Interval,
    attempts: HashMap<(NamespaceName, PolicyName), Attempt>,
    metrics: BaselineMetrics,
    events: Option<Events>,
    /// The namespaces of which it was told why they are held back.
    held: HashMap<NamespaceName, Hold>,
}

/// When a policy was written last, and how often of late.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    at: Instant,
    count: u32,
}

/// Keeps them for as long as it is polled.
pub(super) async fn keep(
    client: Client,
    installation: String,
    live: Live,
    metrics: BaselineMetrics,
    events: Option<Events>,
) -> Result<(), Infallible> {
    let mut rate = tokio::time::interval(BETWEEN);
    rate.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut keeper = Keeper {
        record: Record::new(client.clone(), &installation),
        client,
        rate,
        attempts: HashMap::new(),
        metrics,
        events,
        held: HashMap::new(),
    };
    let mut changed = live.changed();
    loop {
        changed.mark_unchanged();
        let next = if live.is_complete() {
            keeper.round(&live).await
        } else {
            PERIOD
        };
        tokio::time::sleep(PAUSE).await;
        tokio::select! {
            changed = changed.changed() => if changed.is_err() { return Ok(()) },
            () = tokio::time::sleep(next) => {}
        }
    }
}

// === impl Keeper ===

impl Keeper {
    /// Plans once and writes what is due; gives the time until something else is.
    async fn round(&mut self, live: &Live) -> Duration {
        if let Err(error) = self.record.load().await {
            tracing::warn!(%error, "record of baselines cannot be read, tried again");
            return FIRST_WAIT;
        }
        let state = live.state.load_full();
        let plans = plan(&state.snapshot, &state.guardrails, self.record.namespaces());
        self.metrics.stand(plans.iter().map(|plan| &plan.standing));
        self.tell_of_held(&plans);
        let now = Instant::now();
        self.attempts
            .retain(|_, attempt| now.duration_since(attempt.at) < SETTLED);
        let mut next = PERIOD;
        let mut due: Vec<(NamespaceName, Vec<Step>)> = Vec::new();
        for plan in &plans {
            let mut steps = Vec::new();
            for step in &plan.steps {
                let key = (plan.namespace.clone(), name_of(step).clone());
                match self.attempts.get(&key).map(|attempt| attempt.rest(now)) {
                    // What comes after waits with it: it may take away what this one is to replace.
                    Some(rest) if !rest.is_zero() => {
                        next = next.min(rest);
                        break;
                    }
                    Some(_) | None => steps.push(step.clone()),
                }
            }
            if !steps.is_empty() {
                due.push((plan.namespace.clone(), steps));
            }
        }
        let failed = self.write(due).await;
        self.note(&plans, &failed);
        self.record.retain(|name| {
            state
                .snapshot
                .namespace(name)
                .is_some_and(|known| known.object().is_some())
        });
        if let Err(error) = self.record.save().await {
            tracing::warn!(%error, "record of baselines cannot be written, tried again");
            next = next.min(FIRST_WAIT);
        }
        next
    }

    /// Carries out the steps of some namespaces, each namespace's one after the other; gives those in which one failed.
    async fn write(&mut self, due: Vec<(NamespaceName, Vec<Step>)>) -> BTreeSet<NamespaceName> {
        let mut failed = BTreeSet::new();
        let mut writes = FuturesUnordered::new();
        for (namespace, steps) in due {
            while writes.len() >= AT_ONCE {
                failed.extend(writes.next().await.flatten());
            }
            for step in &steps {
                self.rate.tick().await;
                let key = (namespace.clone(), name_of(step).clone());
                let attempt = self.attempts.entry(key).or_insert(Attempt {
                    at: Instant::now(),
                    count: 0,
                });
                attempt.at = Instant::now();
                attempt.count = attempt.count.saturating_add(1);
            }
            let (client, metrics) = (self.client.clone(), self.metrics.clone());
            let events = self.events.clone();
            writes.push(async move {
                for step in &steps {
                    if !one(client.clone(), &namespace, step, &metrics).await {
                        return Some(namespace);
                    }
                    if let Step::Apply { repair: true, .. } = step {
                        let note =
                            "The policy of the baseline was edited or deleted, and was put back";
                        let (events, name) = (events.as_ref(), name_of(step));
                        tell(events, What::Repaired, &namespace, name, note.to_owned());
                    }
                }
                None
            });
        }
        while let Some(written) = writes.next().await {
            failed.extend(written);
        }
        failed
    }

    /// Tells of the namespaces that somebody has to look at, once.
    fn tell_of_held(&mut self, plans: &[Plan]) {
        let mut told = HashMap::new();
        for plan in plans {
            let Standing::Held(hold, _) = &plan.standing else {
                continue;
            };
            let (policy, note) = match hold {
                Hold::Mode(_) | Hold::RunningPods => continue,
                Hold::NameTaken(policy) => (
                    policy.clone(),
                    "The baseline is not made: a policy of this name is there that is not Ringfence's",
                ),
                Hold::LastCover => (
                    PolicyName::from(NAME),
                    "No Guardrail asks for the baseline any more; it stays, since pods would be left without isolation",
                ),
            };
            if self.held.get(&plan.namespace) != Some(hold) {
                let note = note.to_owned();
                tell(
                    self.events.as_ref(),
                    What::Held,
                    &plan.namespace,
                    &policy,
                    note,
                );
            }
            told.insert(plan.namespace.clone(), hold.clone());
        }
        self.held = told;
    }

    /// Notes which namespaces have their baseline now, and which are left by it.
    fn note(&mut self, plans: &[Plan], failed: &BTreeSet<NamespaceName>) {
        for plan in plans
            .iter()
            .filter(|plan| !failed.contains(&plan.namespace))
        {
            match plan.standing {
                Standing::Kept => self.record.add(&plan.namespace),
                Standing::Leaving => self.record.remove(&plan.namespace),
                Standing::Adopted | Standing::Held(..) => {}
            }
        }
    }
}

fn name_of(step: &Step) -> &PolicyName {
    match step {
        Step::Apply { wanted, .. } => &wanted.policy.name,
        Step::Remove(name) => name,
    }
}

/// One write; tells whether it was done.
async fn one(
    client: Client,
    namespace: &NamespaceName,
    step: &Step,
    metrics: &BaselineMetrics,
) -> bool {
    let policies: Api<NetworkPolicy> = Api::namespaced(client, namespace.as_str());
    let name = name_of(step).as_str();
    let (reason, result) = match step {
        Step::Apply { wanted, repair } => {
            // By force: the policy is ours, and what others changed in it is to be undone.
            let as_us = PatchParams::apply(FIELD_MANAGER).force();
            let patch = Patch::Apply(&wanted.manifest);
            let result = policies.patch(name, &as_us, &patch).await.map(|_| ());
            let reason = if *repair { Reason::Repair } else { Reason::New };
            (reason, result)
        }
        Step::Remove(_) => {
            let result = policies.delete(name, &DeleteParams::default()).await;
            (Reason::Unwanted, result.map(|_| ()))
        }
    };
    let namespace = namespace.as_str();
    let reason_name = reason.as_str();
    match result {
        Ok(()) => {
            metrics.wrote(reason, Outcome::Done);
            tracing::info!(
                namespace,
                name,
                reason = reason_name,
                "baseline policy written"
            );
            true
        }
        // It is gone, or its namespace is about to be; the next plan knows.
        Err(kube::Error::Api(status)) if status.code == 404 => {
            metrics.wrote(reason, Outcome::Gone);
            false
        }
        Err(error) => {
            metrics.wrote(reason, Outcome::Failed);
            tracing::warn!(namespace, name, reason = reason_name, %error, "baseline policy not written");
            false
        }
    }
}

// === impl Attempt ===

impl Attempt {
    /// For how long the policy is still left alone.
    fn rest(&self, now: Instant) -> Duration {
        let doubled = self.count.saturating_sub(1).min(16);
        let wait = FIRST_WAIT.saturating_mul(1 << doubled).min(LONGEST_WAIT);
        (self.at + wait).saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_be_written_again_and_again_is_written_ever_more_slowly() {
        let at = Instant::now();
        let rest = |count| Attempt { at, count }.rest(at);
        assert_eq!(rest(1), FIRST_WAIT);
        assert_eq!(rest(2), FIRST_WAIT * 2);
        assert_eq!(rest(40), LONGEST_WAIT);
        let later = at + Duration::from_secs(2);
        assert!(Attempt { at, count: 1 }.rest(later).is_zero());
    }
}
