//! A cluster as it is now: watches of the API server, kept as the [`State`] that decisions are made by.
//!
//! How data passes through: one task per kind (`live/stream.rs`) reads what the API server tells (`live/source.rs`), decodes each
//! object by itself (`live/object.rs`) and sends it on trimmed to what the model keeps; one task takes the changes into the index
//! (`live/index.rs`) and publishes a new state when one of them mattered, at most every [`Options::pause`].
//! `live/read.rs` asks the API server itself where a decision could turn on what the watches have not told yet.
//! `live/health.rs` knows whether the first lists are complete and for how long the API server was not heard.
//!
//! The pods of a cluster are real, so workloads with templates are not watched: one that is scaled to nothing has no pods
//! to be reached or left uncovered, and is judged when it makes some.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use kube::Client;
use tokio::sync::{mpsc, watch};

use crate::guard::decide::State;
use crate::guard::engine::PolicyEngine;
use crate::runtime::{Readiness, Tasks};
use health::Health;
use index::{Change, Index};

mod feed;
mod health;
mod index;
mod kind;
mod numbers;
mod object;
mod read;
mod source;
mod stream;

pub use feed::{Feed, Update, feed};
pub use health::Watch;
pub use index::{Standing, Undecodable};
pub use kind::Kind;
pub use object::{Key, Told};
pub use read::{Fresh, ReadError, ReadLimits, Reader};

/// How a cluster is followed.
#[derive(Clone)]
pub struct Options {
    /// The policies in Rego, and those that take their place.
    pub engine: watch::Receiver<Arc<dyn PolicyEngine>>,
    /// The least time between two publications; changes in between are published together.
    pub pause: Duration,
}

/// A cluster that is followed. Cheap to clone.
#[derive(Clone)]
pub struct Live {
    /// The state to judge by; empty until [`Live::is_complete`].
    pub state: Arc<ArcSwap<State>>,
    published: watch::Receiver<u64>,
    health: Arc<Health>,
    undecodable: Arc<ArcSwap<Vec<Undecodable>>>,
    standings: watch::Receiver<Arc<[Standing]>>,
}

/// Why a cluster is followed no longer.
#[derive(Debug, thiserror::Error)]
#[error("the watches have ended")]
pub struct Ended;

/// How many changes may wait for the index.
const WAITING: usize = 1024;
/// How often the API server is asked whether it is there.
const PROBE: Duration = Duration::from_secs(5);
/// How long it may take to answer that.
const PROBE_PATIENCE: Duration = Duration::from_secs(3);
/// What a process waits for while first lists are not complete.
const READY: &str = "watches";

/// Begins to follow a cluster. Not ready until every first list is complete.
pub fn follow(client: &Client, options: Options, readiness: Readiness, tasks: &mut Tasks) -> Live {
    let mut index = Index::default();
    let engine = Arc::clone(&options.engine.borrow());
    let state = Arc::new(ArcSwap::from_pointee(index.state(engine)));
    let (generation, published) = watch::channel(0);
    let (standings_sender, standings) = watch::channel(Arc::default());
    let live = Live {
        state,
        published,
        standings,
        health: Arc::new(Health::new(Kind::ALL, Instant::now())),
        undecodable: Arc::default(),
    };
    readiness.wait_for(READY, "first lists are not complete");
    let (sender, changes) = mpsc::channel(WAITING);
    for kind in Kind::ALL {
        let health = Arc::clone(&live.health);
        tasks.spawn(
            "watch",
            stream::follow(client.clone(), kind, health, sender.clone()),
        );
    }
    tasks.spawn("probe", probe(client.clone(), Arc::clone(&live.health)));
    let index_task = Publisher {
        live: live.clone(),
        index,
        options,
        readiness,
        generation,
        standings: standings_sender,
    };
    tasks.spawn("index", index_task.run(changes));
    live
}

// === impl Options ===

impl Options {
    /// With these policies, for good.
    pub fn new(engine: Arc<dyn PolicyEngine>) -> Self {
        Self::following(watch::channel(engine).1)
    }

    /// With policies that may be replaced.
    pub fn following(engine: watch::Receiver<Arc<dyn PolicyEngine>>) -> Self {
        Self {
            engine,
            pause: Duration::from_millis(50),
        }
    }
}

// === impl Live ===

impl Live {
    /// A number that grows with each state that is published; 0 until the first one.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.published.clone()
    }

    /// Whether every first list is complete.
    pub fn is_complete(&self) -> bool {
        *self.published.borrow() > 0
    }

    /// For how long changes may have been missed. Nothing while all is well; what is on its way is not counted.
    pub fn age(&self) -> Duration {
        self.health.age(Instant::now())
    }

    /// What cannot be understood now, by kind and name.
    pub fn undecodable(&self) -> Arc<Vec<Undecodable>> {
        self.undecodable.load_full()
    }

    /// How the objects stand of which the controller says in their status whether they are in force.
    pub fn standings(&self) -> watch::Receiver<Arc<[Standing]>> {
        self.standings.clone()
    }

    /// How many objects of a kind the state has.
    pub fn count(&self, kind: Kind) -> u64 {
        let state = self.state.load();
        let snapshot = &state.snapshot;
        let count = match kind {
            Kind::Namespace => {
                let namespaces = snapshot.namespaces();
                namespaces
                    .filter(|namespace| namespace.object().is_some())
                    .count()
            }
            Kind::Pod => snapshot.pods().count(),
            Kind::Service => {
                let namespaces = snapshot.namespaces();
                namespaces
                    .map(|namespace| namespace.services().count())
                    .sum()
            }
            Kind::Node => snapshot.nodes().count(),
            Kind::NetworkPolicy => snapshot.policies().count(),
            Kind::StagedNetworkPolicy => snapshot.staged_policies().count(),
            Kind::ClusterNetworkPolicy
            | Kind::AdminNetworkPolicy
            | Kind::BaselineAdminNetworkPolicy => {
                let policies = snapshot.cluster_policies();
                policies
                    .filter(|policy| Some(policy.reference.kind) == kind.of_cluster())
                    .count()
            }
            Kind::Guardrail => state.guardrails.iter().count(),
            Kind::ReachabilityRule => state.reachability.iter().count(),
            Kind::Exemption => state.exemptions.iter().count(),
            Kind::NodeEnforcement => {
                let confirmations = state.guardrails.confirmations();
                confirmations.map_or(0, |known| known.nodes().len())
            }
        };
        u64::try_from(count).unwrap_or(u64::MAX)
    }

    /// What has become of each watch.
    pub fn watches(&self) -> Vec<(Kind, Watch)> {
        self.health.watches()
    }
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live")
            .field("published", &*self.published.borrow())
            .field("health", &self.health)
            .finish_non_exhaustive()
    }
}

/// Takes changes in and publishes.
struct Publisher {
    live: Live,
    index: Index,
    options: Options,
    readiness: Readiness,
    generation: watch::Sender<u64>,
    standings: watch::Sender<Arc<[Standing]>>,
}

impl Publisher {
    async fn run(mut self, mut changes: mpsc::Receiver<(Kind, Change)>) -> Result<(), Ended> {
        let mut last: Option<tokio::time::Instant> = None;
        let mut due = false;
        let mut policies = true;
        loop {
            let at = last.map_or_else(tokio::time::Instant::now, |last| last + self.options.pause);
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(at), if due => {
                    self.publish();
                    last = Some(tokio::time::Instant::now());
                    due = false;
                }
                change = changes.recv() => {
                    let Some((kind, change)) = change else { return Err(Ended) };
                    due |= self.take(kind, change);
                    due &= self.is_complete();
                }
                other = self.options.engine.changed(), if policies => match other {
                    Ok(()) => due |= self.is_complete(),
                    // They stay as they are.
                    Err(_) => policies = false,
                },
            }
        }
    }

    /// Tells whether there is something to publish.
    fn take(&mut self, kind: Kind, change: Change) -> bool {
        let health = &self.live.health;
        let first = match &change {
            Change::Restart(_) => health.listed(kind, false),
            Change::Absent => health.listed(kind, true),
            Change::Apply(_) | Change::Delete(_) => {
                health.told(kind);
                false
            }
        };
        let mattered = self.index.take(kind, change);
        if let Some(undecodable) = self.index.undecodable_if_changed() {
            self.live.undecodable.store(Arc::new(undecodable));
        }
        if let Some(standings) = self.index.standings_if_changed() {
            self.standings.send_replace(standings.into());
        }
        if first {
            let missing = self.live.health.missing();
            if !missing.is_empty() {
                let names: Vec<&str> = missing.into_iter().map(Kind::plural).collect();
                let reason = format!("first lists are not complete: {}", names.join(", "));
                self.readiness.wait_for(READY, reason);
            }
        }
        mattered || first
    }

    fn is_complete(&self) -> bool {
        self.live.is_complete() || self.live.health.missing().is_empty()
    }

    fn publish(&mut self) {
        let engine = Arc::clone(&self.options.engine.borrow_and_update());
        let state = self.index.state(engine);
        let first = !self.live.is_complete();
        self.live.state.store(Arc::new(state));
        self.generation.send_modify(|generation| *generation += 1);
        if first {
            self.readiness.ready(READY);
        }
    }
}

/// Asks the API server, for as long as the process lives, whether it is there.
async fn probe(client: Client, health: Arc<Health>) -> Result<(), Ended> {
    let mut ticks = tokio::time::interval(PROBE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let answer = tokio::time::timeout(PROBE_PATIENCE, client.apiserver_version()).await;
        health.probed(matches!(answer, Ok(Ok(_))), Instant::now());
    }
}
