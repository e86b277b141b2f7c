//! Reads of the API server itself, for what the watches may not have told yet.
//!
//! Whoever asks gets a read that *began after* the question, so that it shows what the asker wrote before. All who ask for
//! the same namespace while a read has not begun share it, and reads of one namespace begin some time apart: a thousand
//! questions in a second cost a few reads. What a read found is laid over a state for one decision and kept nowhere: the
//! watches tell the same a moment later, in order.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, try_join4};
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::time::Instant;

use super::kind::Kind;
use super::object::{Item, Key, Wire};
use crate::guard::decide::State;
use crate::guard::exemption::Exemptions;
use crate::guard::guardrail::Guardrails;
use crate::guard::review::Kind as Known;
use crate::k8s::one::chain;
use crate::netpol::{NamespaceName, Object, ObjectKey};

/// How often the API server may be read.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    /// The least time between the beginnings of two reads of one namespace.
    pub apart: Duration,
    /// How many reads may begin in a second, of all namespaces together.
    pub per_second: u32,
    /// How many may begin at once.
    pub burst: u32,
    /// Who would have to wait for longer than this is told so at once.
    pub patience: Duration,
}

/// Reads the API server. Cheap to clone.
#[derive(Clone)]
pub struct Reader(Arc<Inner>);

/// Why the API server could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It said no, or nothing.
    #[error("the API server could not be read: {0}")]
    Failed(Arc<str>),
    /// Its answer did not come in time.
    #[error("the API server did not answer in time")]
    TooLate,
    /// Too many reads are waiting already.
    #[error("the API server is being read too often")]
    TooMany,
}

/// What the API server held of a namespace, at a moment after it was asked.
#[derive(Debug)]
pub struct Fresh {
    namespace: NamespaceName,
    object: Option<Item>,
    policies: Vec<Item>,
    exemptions: Vec<Item>,
    guardrails: Vec<Item>,
}

struct Inner {
    client: Client,
    limits: ReadLimits,
    lanes: Mutex<HashMap<NamespaceName, Lane>>,
    pace: Mutex<Instant>,
    reads: AtomicU64,
    failures: AtomicU64,
}

/// The reads of one namespace.
struct Lane {
    /// The one that has not begun: who asks now may share it.
    next: Option<Flight>,
    begun: Option<Instant>,
    touched: Instant,
}

type Flight = Shared<BoxFuture<'static, Result<Arc<Fresh>, ReadError>>>;

/// Beyond so many lanes those that nobody asked for lately are forgotten.
const LANES: usize = 1024;
/// After which time a lane may be forgotten.
const IDLE: Duration = Duration::from_mins(1);

impl Default for ReadLimits {
    fn default() -> Self {
        Self {
            apart: Duration::from_millis(250),
            per_second: 20,
            burst: 40,
            patience: Duration::from_secs(10),
        }
    }
}

// === impl Reader ===

impl Reader {
    /// Reads by this client.
    pub fn new(client: Client, limits: ReadLimits) -> Self {
        Self(Arc::new(Inner {
            client,
            limits,
            lanes: Mutex::default(),
            pace: Mutex::new(Instant::now()),
            reads: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }))
    }

    /// What the API server holds of a namespace now or later, not before.
    pub async fn read(
        &self,
        namespace: &NamespaceName,
        deadline: std::time::Instant,
    ) -> Result<Arc<Fresh>, ReadError> {
        let flight = self.flight(namespace);
        match tokio::time::timeout_at(deadline.into(), flight).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ReadError::TooLate),
        }
    }

    /// How many reads have begun, and how many failed.
    pub fn counts(&self) -> (u64, u64) {
        let Inner {
            reads, failures, ..
        } = &*self.0;
        (
            reads.load(Ordering::Relaxed),
            failures.load(Ordering::Relaxed),
        )
    }

    fn flight(&self, namespace: &NamespaceName) -> Flight {
        let now = Instant::now();
        let mut lanes = self.lanes();
        if lanes.len() >= LANES {
            lanes.retain(|_, lane| now.saturating_duration_since(lane.touched) < IDLE);
        }
        let lane = lanes.entry(namespace.clone()).or_insert_with(|| Lane {
            next: None,
            begun: None,
            touched: now,
        });
        lane.touched = now;
        if let Some(flight) = &lane.next {
            return flight.clone();
        }
        let earliest = lane.begun.map_or(now, |begun| begun + self.0.limits.apart);
        let (reader, name) = (self.clone(), namespace.clone());
        let flight = async move {
            tokio::time::sleep_until(earliest).await;
            let turn = reader.turn();
            if let Some(turn) = turn {
                tokio::time::sleep_until(turn).await;
            }
            reader.begin(&name);
            if turn.is_none() {
                return Err(ReadError::TooMany);
            }
            reader.0.reads.fetch_add(1, Ordering::Relaxed);
            let fresh = fetch(&reader.0.client, &name).await;
            if fresh.is_err() {
                reader.0.failures.fetch_add(1, Ordering::Relaxed);
            }
            fresh.map(Arc::new)
        };
        let flight = flight.boxed().shared();
        lane.next = Some(flight.clone());
        flight
    }

    /// From here on the read may miss what is written: who asks now needs the next one.
    fn begin(&self, namespace: &NamespaceName) {
        if let Some(lane) = self.lanes().get_mut(namespace) {
            lane.next = None;
            lane.begun = Some(Instant::now());
        }
    }

    /// When the next read of any namespace may begin; `None` when too many wait.
    fn turn(&self) -> Option<Instant> {
        let limits = self.0.limits;
        let each = Duration::from_secs(1) / limits.per_second.max(1);
        let now = Instant::now();
        let mut pace = self.0.pace.lock().unwrap_or_else(PoisonError::into_inner);
        // Virtual time: each read moves it by one share, and it may be ahead of the clock by a burst.
        let next = (*pace).max(now) + each;
        let turn = next
            .checked_sub(each * limits.burst.max(1))
            .unwrap_or(now)
            .max(now);
        if turn.saturating_duration_since(now) > limits.patience {
            return None;
        }
        *pace = next;
        Some(turn)
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<NamespaceName, Lane>> {
        self.0.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Without a resourceVersion: the API server asks its store, not its cache.
async fn fetch(client: &Client, namespace: &NamespaceName) -> Result<Fresh, ReadError> {
    let failed = |error: kube::Error| ReadError::Failed(chain(&error).into());
    let list = async |kind: Kind| {
        let (client, resource) = (client.clone(), kind.resource());
        let api: Api<Wire> = if kind == Kind::Guardrail {
            Api::all_with(client, &resource)
        } else {
            Api::namespaced_with(client, namespace.as_str(), &resource)
        };
        match api.list(&ListParams::default()).await {
            Ok(list) => Ok(list.items.into_iter().map(|it| it.item(kind)).collect()),
            Err(kube::Error::Api(status)) if status.code == 404 && kind.is_optional() => {
                Ok(Vec::new())
            }
            Err(error) => Err(failed(error)),
        }
    };
    let object = async {
        let api: Api<Wire> = Api::all_with(client.clone(), &Kind::Namespace.resource());
        let found = api.get_opt(namespace.as_str()).await.map_err(failed)?;
        Ok(found.map(|found| found.item(Kind::Namespace)))
    };
    let (object, policies, exemptions, guardrails) = try_join4(
        object,
        list(Kind::NetworkPolicy),
        list(Kind::Exemption),
        list(Kind::Guardrail),
    )
    .await?;
    Ok(Fresh {
        namespace: namespace.clone(),
        object,
        policies,
        exemptions,
        guardrails,
    })
}

// === impl Fresh ===

impl Fresh {
    /// A state with what was read in the place of what it knew. Of what cannot be understood the known version stays.
    pub fn over(&self, state: &State) -> State {
        let mut snapshot = state.snapshot.clone();
        let there: HashSet<&str> = self
            .policies
            .iter()
            .map(|it| it.key.name.as_str())
            .collect();
        let gone = snapshot
            .policies_in(&self.namespace)
            .filter(|policy| !there.contains(policy.name.as_str()))
            .map(|policy| ObjectKey::NetworkPolicy(policy.reference()));
        let mut gone: Vec<ObjectKey> = gone.collect();
        if self.object.is_none() {
            gone.push(ObjectKey::Namespace(self.namespace.clone()));
        }
        for key in &gone {
            snapshot.remove(key);
        }
        snapshot.extend(self.policies.iter().chain(&self.object).filter_map(model));

        let elsewhere = state.exemptions.iter();
        let elsewhere = elsewhere.filter(|exemption| exemption.namespace != self.namespace);
        let here = self.exemptions.iter().filter_map(|item| match &item.known {
            Known::Exemption(exemption) => Some((**exemption).clone()),
            Known::Invalid(_) => {
                let mut known = state.exemptions.iter();
                known
                    .find(|known| is(&item.key, Some(&known.namespace), &known.name))
                    .cloned()
            }
            _ => None,
        });
        let exemptions = Exemptions::new(elsewhere.cloned().chain(here).collect());

        let guardrails = self.guardrails.iter().filter_map(|item| match &item.known {
            Known::Guardrail(guardrail) => Some((**guardrail).clone()),
            Known::Invalid(_) => {
                let mut known = state.guardrails.iter();
                known.find(|known| known.name == item.key.name).cloned()
            }
            _ => None,
        });
        let guardrails = Guardrails::new(guardrails.collect())
            .with_baselines_kept()
            .with_confirmations(state.guardrails.confirmations().cloned());

        let changed = [ObjectKey::Namespace(self.namespace.clone())];
        let reachability = state.reachability.following(&snapshot, &changed);
        State {
            snapshot,
            guardrails,
            exemptions,
            reachability,
            engine: Arc::clone(&state.engine),
        }
    }
}

fn model(item: &Item) -> Option<Object> {
    match &item.known {
        Known::Model(parsed) => Some(parsed.object.clone()),
        _ => None,
    }
}

fn is(key: &Key, namespace: Option<&NamespaceName>, name: &str) -> bool {
    key.namespace.as_ref() == namespace && key.name == name
}

#[cfg(test)]
mod tests;
