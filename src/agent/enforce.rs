//! The loop of the agent: from changes of the cluster to changes of the kernel, and back to what the kernel holds.
//!
//! One task owns the plan and the kernel's table, so that nothing here is ever done twice at once. It takes whatever comes first: a
//! change that a watch told, a pod that the CNI is about to start, somebody else who touched the table, the time to look for
//! connections that have become forbidden, or the time to read the table back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::cni::kept::Kept;
use super::cni::server::Asked;
use super::counts::Counts;
use super::cut::{self, CutError};
use super::kernel::{Held, Kernel, KernelError};
use super::links::Links;
use super::nft::{Event, Monitor};
use super::others;
use super::overlay::Overlay;
use super::ports::{Ports, Shared};
use crate::guard::enforcement::HeldPolicy;
use crate::k8s::live::{Ended, Feed, Undecodable, Update};
use crate::netpol::{ObjectKey, Pod, Snapshot, WorkloadRef};
use crate::ruleset::{Interface, Options, Plan, Ruleset, Transaction};
use crate::runtime::{Phase, Readiness, Shutdown};
use crate::telemetry::agent::{AgentMetrics, Rebuild};

mod asked;
mod failing;

/// What the kernel was read back to hold, or why it was not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Holding {
    /// The policies that hold local pods.
    pub policies: Vec<HeldPolicy>,
    /// How many local pods have an address.
    pub pods: usize,
    /// How many of them are not held to their own addresses.
    pub unchecked: usize,
    /// The digest of the table.
    pub digest: String,
    /// Why the kernel does not hold what is wanted.
    pub failure: Option<String>,
    /// When it was read back.
    pub read_back: Option<Timestamp>,
}

/// Why the agent does not go on.
#[derive(Debug, thiserror::Error)]
pub enum EnforceError {
    /// The kernel cannot be talked to at all.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The cluster is followed no longer.
    #[error(transparent)]
    Watches(#[from] Ended),
}

/// The agent's own state.
#[derive(Debug)]
pub struct Enforcer {
    plan: Plan,
    kernel: Kernel,
    /// The cluster as the API server tells of it, and what is known better here.
    raw: Snapshot,
    /// What of it is not understood.
    undecodable: Arc<[Undecodable]>,
    /// Which kinds are not heard of, in words; none where all are.
    unheard: Option<String>,
    overlay: Overlay,
    /// Behind which interfaces addresses are, and the same for whoever explains packets.
    ports: Ports,
    behind: Shared,
    metrics: AgentMetrics,
    readiness: Readiness,
    /// The cluster that explains what became of a packet.
    explained_by: Arc<ArcSwap<Snapshot>>,
    held: watch::Sender<Holding>,
    started: bool,
    /// When connections are looked at next; none while nothing has become stricter.
    sweep: Option<Instant>,
    /// How soon after a change they are: looking at very many is not to take up a processor.
    sweep_pace: Duration,
    /// Until when connections may be kept cut that policies allow again.
    cut_until: Option<Instant>,
    /// When the table is read back next for a receipt; none while nothing has changed.
    receipt: Option<Instant>,
    /// How soon after a change the table is read back: reading a large one is not to take up a processor.
    pace: Duration,
    /// When a table that the kernel did not take is tried again.
    again: Option<Instant>,
    /// What the CNI told, for the agent after this one.
    kept: Option<Kept>,
    /// Pods that are about to start and of which the API server has not told yet.
    waiting: Vec<(Asked, Instant)>,
    counts: Counts,
}

/// What the agent is waiting for.
const READY: &str = "rules";
/// How soon after a change connections are looked at, at the earliest: changes that come together are looked at together.
const SWEEP: Duration = Duration::from_millis(50);
/// And at the latest, however many connections there are.
const SWEEP_AT_LAST: Duration = Duration::from_millis(400);
/// How soon after a change the table is read back, at the earliest.
const RECEIPT: Duration = Duration::from_secs(3);
/// How many times longer than reading back takes it is waited before the next time; the same for looking at connections.
const SHARE: u32 = 20;
/// How often the table is read back although nothing has changed.
const VERIFY: Duration = Duration::from_mins(1);
/// How often the counters are read.
const COUNT: Duration = Duration::from_secs(5);
/// How long chains are kept at least for pods that may come back.
const IDLE: Duration = Duration::from_mins(10);
/// How soon a table that the kernel did not take is tried again.
const AGAIN: Duration = Duration::from_secs(1);

// === impl Enforcer ===

impl Enforcer {
    /// Prepares the work; the kernel is not changed before the whole cluster is known.
    pub fn new(
        options: Options,
        metrics: AgentMetrics,
        readiness: Readiness,
    ) -> Result<Self, EnforceError> {
        readiness.wait_for(READY, "the cluster is not known yet");
        Ok(Self {
            plan: Plan::new(options),
            kernel: Kernel::open(metrics.clone())?,
            raw: Snapshot::default(),
            undecodable: Arc::default(),
            unheard: None,
            overlay: Overlay::default(),
            ports: Ports::default(),
            behind: Shared::default(),
            metrics,
            readiness,
            explained_by: Arc::default(),
            held: watch::channel(Holding::default()).0,
            started: false,
            sweep: None,
            sweep_pace: SWEEP,
            cut_until: None,
            receipt: None,
            pace: RECEIPT,
            again: None,
            kept: None,
            waiting: Vec::new(),
            counts: Counts::default(),
        })
    }

    /// The cluster as it is planned for, for whoever explains packets.
    pub fn snapshot(&self) -> Arc<ArcSwap<Snapshot>> {
        Arc::clone(&self.explained_by)
    }

    /// Behind which interfaces addresses are, for whoever explains packets.
    pub fn behind(&self) -> Shared {
        Arc::clone(&self.behind)
    }

    /// What the kernel was read back to hold, each time that it was.
    pub fn held(&self) -> watch::Receiver<Holding> {
        self.held.subscribe()
    }

    /// Works until the process is to end. The rules stay.
    pub async fn run(
        mut self,
        mut feed: Feed,
        mut asked: mpsc::Receiver<Asked>,
        mut shutdown: Shutdown,
    ) -> Result<(), EnforceError> {
        let monitor = Monitor::open(vec![self.kernel.port()]).map_err(KernelError::from)?;
        self.kernel.spare(&monitor);
        let mut touched = others::listen(monitor);
        let mut verify = interval(VERIFY);
        verify.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut count = interval(COUNT);
        count.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut idle = interval(IDLE);
        idle.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                update = feed.next() => self.update(update?),
                Some(asked) = asked.recv() => self.asked(asked),
                () = due(self.patience()) => self.answer_waiting(),
                Some(event) = touched.recv() => self.touched(&event),
                () = due(self.sweep) => self.sweep(),
                () = due(self.receipt) => self.read_back(),
                () = due(self.again) => self.rebuild(Rebuild::Refused),
                _ = verify.tick(), if self.started => self.read_back(),
                _ = count.tick(), if self.started => {
                    self.doubt(&feed.doubted(failing::DOUBTED));
                    self.count();
                }
                _ = idle.tick(), if self.started => self.drop_idle(),
                () = shutdown.reached(Phase::Draining) => return Ok(()),
            }
        }
    }

    /// The cluster has changed.
    fn update(&mut self, update: Update) {
        self.raw = update.snapshot;
        self.undecodable = update.undecodable;
        if self.started {
            self.go_on(&update.changed);
        } else {
            self.begin();
        }
        self.metrics.took(update.told.elapsed());
        self.answer_waiting();
    }

    /// The whole cluster is known: takes over whatever table there is.
    fn begin(&mut self) {
        let node = self.plan.options().node.clone();
        let (snapshot, _) = self.overlay.over(&self.raw, &node);
        self.explained_by.store(Arc::new(snapshot.clone()));
        self.plan = Plan::of(self.plan.options().clone(), &snapshot);
        self.take_over_ports();
        self.know_ports();
        if let Ok(links) = Links::read() {
            self.know_bridges(&links);
        }
        self.plan.advance(snapshot, &[]);
        self.started = true;
        self.rebuild(Rebuild::Start);
        // Another agent may have cut some.
        self.cut_until = Some(self.cut_end());
        self.sweep = Some(Instant::now());
    }

    /// Tells whoever needs it behind which interfaces addresses are.
    fn know_ports(&mut self) {
        self.plan.behind(self.ports.all().clone());
        self.behind.store(Arc::new(self.ports.all().clone()));
    }

    /// Knows the bridges behind which pods are; whether they are others than before.
    fn know_bridges(&mut self, links: &Links) -> bool {
        self.plan.bridged_by(self.bridges(links))
    }

    fn bridges(&self, links: &Links) -> BTreeSet<Interface> {
        links.bridges(self.ports.all().values(), self.plan.local_addresses())
    }

    /// Takes over what the agent before this one was told of interfaces, below what this one was told already.
    fn take_over_ports(&mut self) {
        match tokio::task::block_in_place(|| self.kernel.behind()) {
            Ok(before) => self.ports.keep(before, Links::read().ok().as_ref()),
            Err(error) => tracing::warn!(
                %error, "behind which interfaces pods are cannot be read, and is known of new ones only"
            ),
        }
    }

    /// Brings the kernel to the cluster as it is known now.
    fn go_on(&mut self, changed: &[ObjectKey]) {
        let node = self.plan.options().node.clone();
        let (snapshot, mut more) = self.overlay.over(&self.raw, &node);
        more.extend(changed.iter().cloned());
        self.explained_by.store(Arc::new(snapshot.clone()));
        let before = self.plan.local_addresses().count();
        let mut transaction = self.plan.advance(snapshot.clone(), &more);
        // A pod that is new may be the first one on its bridge.
        if self.plan.local_addresses().count() > before
            && let Ok(links) = Links::read()
            && self.know_bridges(&links)
        {
            transaction.append(self.plan.advance(snapshot, &[]));
        }
        if transaction.is_empty() {
            // A policy may hold the same as before and be another version of itself.
            self.receipt
                .get_or_insert_with(|| Instant::now() + self.pace);
            return;
        }
        self.apply(&transaction);
        let has_cut = self.cut_until.is_some_and(|until| Instant::now() < until);
        if has_cut || self.plan.is_stricter(&transaction) {
            self.sweep
                .get_or_insert_with(|| Instant::now() + self.sweep_pace);
        }
    }

    /// Takes chains out of the kernel that no pod has used for long.
    fn drop_idle(&mut self) {
        let transaction = self.plan.drop_idle();
        if !transaction.is_empty() {
            self.apply(&transaction);
        }
    }

    /// Does in the kernel what the plan has gone on by.
    fn apply(&mut self, transaction: &Transaction) {
        let done = tokio::task::block_in_place(|| self.kernel.advance(&self.plan, transaction));
        self.after(done);
    }

    fn rebuild(&mut self, reason: Rebuild) {
        let done = tokio::task::block_in_place(|| self.kernel.rebuild(&self.plan, reason));
        if done.is_ok() {
            tracing::info!(reason = ?reason, pods = self.plan.local_pods().len(), "the table is made");
        }
        self.after(done);
    }

    /// What follows from whether the kernel took it.
    fn after(&mut self, done: Result<(), KernelError>) {
        match done {
            Ok(()) => {
                self.again = None;
                self.readiness.ready(READY);
                self.receipt
                    .get_or_insert_with(|| Instant::now() + self.pace);
            }
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&mut self, error: &KernelError) {
        tracing::error!(error = %error, "the kernel does not hold what is wanted; the old rules stand");
        self.metrics.in_force.set(0);
        self.readiness.wait_for(READY, error.to_string());
        self.again = Some(Instant::now() + AGAIN);
        self.held
            .send_modify(|held| held.failure = Some(error.to_string()));
    }

    /// Somebody else was at the table.
    fn touched(&mut self, event: &Event) {
        if !self.started {
            return;
        }
        tracing::warn!(event = ?event, "somebody else was at the table, reading it back");
        self.read_back();
        self.sweep
            .get_or_insert_with(|| Instant::now() + self.sweep_pace);
    }

    /// Reads the table back, repairs it where it must be, and says what it holds.
    fn read_back(&mut self) {
        self.receipt = None;
        if !self.started {
            return;
        }
        let mut passed_by = None;
        if let Ok(links) = Links::read() {
            self.forget_gone(&links);
            let bridges = self.bridges(&links);
            passed_by = failing::passed_by(&links, !bridges.is_empty());
            if self.plan.bridged_by(bridges) {
                self.go_on(&[]);
            }
        }
        let begun = Instant::now();
        let wanted = self.plan.whole().as_kept();
        let verified = tokio::task::block_in_place(|| self.kernel.verify(&self.plan, &wanted));
        self.pace = RECEIPT.max(begun.elapsed().saturating_mul(SHARE));
        match verified {
            Ok(Held::Unknown) => {
                self.receipt = Some(Instant::now() + self.pace);
            }
            Ok(held) => {
                if held == Held::Repaired {
                    tracing::warn!("the table was not the wanted one, and is again");
                }
                self.again = None;
                self.readiness.ready(READY);
                let mut holding = self.holding(&self.plan.without_idle(wanted));
                holding.failure = passed_by
                    .map(|error| error.to_string())
                    .or_else(|| failing::left_out(&self.undecodable))
                    .or_else(|| failing::too_deep(&self.plan.cut_short()))
                    .or_else(|| self.unheard.clone());
                self.metrics
                    .in_force
                    .set(i64::from(holding.failure.is_none()));
                if let Some(failure) = &holding.failure {
                    tracing::error!(error = %failure, "policies do not hold");
                }
                let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
                self.metrics.pods.set(count(holding.pods));
                self.metrics.policies.set(count(holding.policies.len()));
                self.say_unchecked();
                // That it was read once more is told with the next receipt, and is no reason for one.
                self.held.send_if_modified(|held| {
                    held.read_back = holding.read_back;
                    let differs = *held != holding;
                    *held = holding;
                    differs
                });
            }
            Err(error) => self.failed(&error),
        }
    }

    /// The pods that are not held to their own addresses.
    fn unchecked(&self) -> BTreeSet<&WorkloadRef> {
        if self.kernel.lacks_bridges() {
            self.plan.local_pods().into_keys().collect()
        } else {
            self.plan.unchecked_pods()
        }
    }

    /// Says how many these are, where that is another number than before.
    fn say_unchecked(&self) {
        let pods = self.unchecked();
        let count = i64::try_from(pods.len()).unwrap_or(i64::MAX);
        if self.metrics.unchecked.set(count) != count && self.plan.options().own_sources {
            let some: Vec<String> = pods.iter().take(3).map(ToString::to_string).collect();
            tracing::info!(
                pods = count, some = %some.join(", "),
                "pods that are not held to their own addresses, since the CNI has not told behind which interface they are"
            );
        }
    }

    fn holding(&self, table: &Ruleset) -> Holding {
        let snapshot = self.plan.snapshot();
        let pods = self.plan.local_pods();
        let found: Vec<&Pod> = pods.keys().filter_map(|pod| snapshot.pod(pod)).collect();
        Holding {
            policies: HeldPolicy::of(snapshot, found),
            pods: pods.len(),
            unchecked: self.unchecked().len(),
            digest: table.digest(),
            failure: None,
            read_back: Some(Timestamp::now()),
        }
    }

    /// When the last of the connections runs out that are cut now.
    fn cut_end(&self) -> Instant {
        Instant::now() + Duration::from_secs(self.plan.options().cut_seconds.into())
    }

    /// Cuts the connections that are open and would not be let in now, and lets those pass again that were cut and would be.
    fn sweep(&mut self) {
        self.sweep = None;
        if self.kernel.is_doubtful() {
            self.sweep = Some(Instant::now() + AGAIN);
            return;
        }
        let begun = Instant::now();
        let has_cut = self.cut_until.is_some_and(|until| begun < until);
        // What is forbidden first: what is to pass again can wait.
        let cut = tokio::task::block_in_place(|| cut::forbidden(&self.plan, &mut self.kernel));
        if !matches!(cut, Ok(0)) {
            // Also where it was not done to the end.
            self.cut_until = Some(self.cut_end());
        }
        if let Ok(connections @ 1..) = cut {
            tracing::info!(connections, "cut what policies deny now");
            let connections = u64::try_from(connections).unwrap_or(u64::MAX);
            self.metrics.cut.inc_by(connections);
        }
        let mut done = cut.map(drop);
        if has_cut && done.is_ok() {
            let release = || cut::allowed(&self.plan, &mut self.kernel).map(drop);
            done = tokio::task::block_in_place(release);
        }
        self.sweep_pace = begun
            .elapsed()
            .saturating_mul(SHARE)
            .clamp(SWEEP, SWEEP_AT_LAST);
        if let Err(error) = done {
            tracing::warn!(error = %error, "open connections could not be looked at, trying again");
            self.sweep = Some(Instant::now() + AGAIN);
            if let CutError::Kernel(error) = error {
                self.failed(&error);
            }
        }
    }

    fn count(&mut self) {
        if let Ok(counters) = tokio::task::block_in_place(|| self.kernel.counters()) {
            self.counts.take(counters, &self.metrics);
        }
    }
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
