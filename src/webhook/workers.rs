//! Where decisions are computed: on the spot while they are quick, on threads of their own once one was not.
//!
//! A decision takes tens of microseconds, and handing it to another thread and back costs 10 to 20 more, by
//! `spawn_blocking` as by `block_in_place`. A hostile or careless policy takes a hundred milliseconds, and on the spot it
//! would hold up every other request and the health checks. So decisions are timed. After one slow decision all of them
//! go to threads for a thousand times as long as it took, up to a minute, so that slow ones hold up little of the time; there,
//! kinds of request that were slow share half of the threads, so that the quick ones always find one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout_at;

use crate::telemetry::panic_text;

/// How decisions are placed.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// How many decisions may be computed at once beside those on the spot.
    pub threads: usize,
    /// From how much computing on a decision counts as slow.
    pub slow: Duration,
    /// How long one slow decision keeps all of them off the spot at most.
    pub wary: Duration,
    /// Requests larger than this are never computed on the spot: parsing alone takes long.
    pub large_bytes: usize,
}

/// Places decisions.
#[derive(Debug)]
pub struct Workers {
    options: WorkerOptions,
    born: Instant,
    threads: Arc<Semaphore>,
    slow_threads: Arc<Semaphore>,
    /// Until when decisions are kept off the spot, in milliseconds since birth.
    wary_until: AtomicU64,
    /// Until when the requests of each lane count as slow. A lane is a hash, so strangers may share one.
    lanes: [AtomicU64; LANES],
}

/// What came of a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It was made.
    Done(T),
    /// It was not made in time.
    TooLate,
    /// Making it panicked; what the panic said.
    Panicked(String),
}

const LANES: usize = 256;

/// How many times as long as a slow decision took it keeps the others off the spot.
const SHARE: u32 = 1_000;

impl Default for WorkerOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            // More than cores: the system shares the cores among slow decisions, and a quick one gets its turn.
            threads: cores.saturating_mul(4).clamp(8, 64),
            slow: Duration::from_millis(5),
            wary: Duration::from_mins(1),
            large_bytes: 64 * 1024,
        }
    }
}

impl Workers {
    /// Places decisions so.
    pub fn new(options: WorkerOptions) -> Arc<Self> {
        let threads = options.threads.max(2);
        Arc::new(Self {
            born: Instant::now(),
            threads: Arc::new(Semaphore::new(threads)),
            slow_threads: Arc::new(Semaphore::new(threads / 2)),
            wary_until: AtomicU64::new(0),
            lanes: std::array::from_fn(|_| AtomicU64::new(0)),
            options,
        })
    }

    /// Whether decisions are kept off the spot now.
    pub fn is_wary(&self) -> bool {
        self.now() < self.wary_until.load(Ordering::Relaxed)
    }

    /// Computes a decision about a request of this size, to be had before the deadline. `lane` tells requests apart that
    /// are likely to be equally quick; it is asked only when it matters.
    pub async fn run<T, W>(
        self: &Arc<Self>,
        size: usize,
        deadline: Instant,
        lane: impl FnOnce() -> u64,
        work: W,
    ) -> Outcome<T>
    where
        T: Send + 'static,
        W: FnOnce() -> T + Send + 'static,
    {
        if size <= self.options.large_bytes && !self.is_wary() {
            let begun = computing_time();
            let outcome = caught(work);
            self.note(computing_time().saturating_sub(begun));
            return outcome;
        }
        let lane = self.lane(lane());
        let Ok(permits) = timeout_at(deadline.into(), self.permits(lane, size)).await else {
            return Outcome::TooLate;
        };
        let workers = Arc::clone(self);
        let job = tokio::task::spawn_blocking(move || {
            let begun = computing_time();
            let outcome = caught(work);
            let computed = computing_time().saturating_sub(begun);
            workers.note(computed);
            workers.note_lane(lane, computed);
            // Held to the end, answered in time or not: a thread that computes is not free.
            drop(permits);
            outcome
        });
        match timeout_at(deadline.into(), job).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Outcome::Panicked(error.to_string()),
            Err(_) => Outcome::TooLate,
        }
    }

    async fn permits(
        &self,
        lane: Option<usize>,
        size: usize,
    ) -> (Option<OwnedSemaphorePermit>, OwnedSemaphorePermit) {
        loop {
            let slow =
                size > self.options.large_bytes || lane.is_some_and(|lane| self.is_slow(lane));
            // The semaphores are never closed, so an error cannot come; it would mean one permit less, not a failure.
            let slow_permit = if slow {
                Arc::clone(&self.slow_threads).acquire_owned().await.ok()
            } else {
                None
            };
            let Ok(permit) = Arc::clone(&self.threads).acquire_owned().await else {
                continue;
            };
            // While it waited its lane may have turned out to be slow; then it waits with its like.
            if slow || !lane.is_some_and(|lane| self.is_slow(lane)) {
                return (slow_permit, permit);
            }
        }
    }

    fn lane(&self, hash: u64) -> Option<usize> {
        usize::try_from(hash % self.lanes.len() as u64).ok()
    }

    fn is_slow(&self, lane: usize) -> bool {
        self.lanes
            .get(lane)
            .is_some_and(|until| self.now() < until.load(Ordering::Relaxed))
    }

    /// A decision is slow by what it computes, not by how long it takes: with the processors taken by others, everything
    /// takes long.
    fn note(&self, computed: Duration) {
        if computed < self.options.slow {
            return;
        }
        if !self.is_wary() {
            tracing::warn!(
                milliseconds = computed.as_millis(),
                "a slow decision: decisions move to threads for a while"
            );
        }
        self.wary_until
            .fetch_max(self.after_a_while(computed), Ordering::Relaxed);
    }

    fn note_lane(&self, lane: Option<usize>, computed: Duration) {
        if computed >= self.options.slow
            && let Some(lane) = lane.and_then(|lane| self.lanes.get(lane))
        {
            lane.fetch_max(self.after_a_while(computed), Ordering::Relaxed);
        }
    }

    fn after_a_while(&self, computed: Duration) -> u64 {
        let length = computed.saturating_mul(SHARE).min(self.options.wary);
        self.now()
            .saturating_add(u64::try_from(length.as_millis()).unwrap_or(u64::MAX))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// What this thread has computed so far, waiting not counted.
fn computing_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

fn caught<T>(work: impl FnOnce() -> T) -> Outcome<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => Outcome::Done(done),
        Err(panic) => Outcome::Panicked(panic_text(&*panic).to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const SLOW: Duration = Duration::from_millis(50);

    fn workers(threads: usize) -> Arc<Workers> {
        Workers::new(WorkerOptions {
            threads,
            ..WorkerOptions::default()
        })
    }

    fn burn() {
        let until = computing_time() + SLOW;
        while computing_time() < until {}
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[tokio::test]
    async fn quick_decisions_stay_on_the_spot_and_a_slow_one_moves_the_rest_to_threads() {
        let workers = workers(4);
        let here = thread::current().id();
        let id = || thread::current().id();
        assert_eq!(workers.run(10, soon(), || 1, id).await, Outcome::Done(here));
        let Outcome::Done(there) = workers.run(1 << 20, soon(), || 1, id).await else {
            panic!()
        };
        assert_ne!(there, here, "a large one is never on the spot");
        assert!(!workers.is_wary());
        workers.run(10, soon(), || 1, burn).await;
        assert!(workers.is_wary());
        let Outcome::Done(there) = workers.run(10, soon(), || 1, id).await else {
            panic!()
        };
        assert_ne!(there, here);
    }

    #[tokio::test]
    async fn how_long_decisions_are_kept_off_the_spot_follows_from_how_slow_one_was() {
        let workers = Workers::new(WorkerOptions {
            slow: Duration::from_micros(1),
            wary: Duration::from_millis(300),
            ..WorkerOptions::default()
        });
        let quick = Duration::from_micros(100);
        workers.note(quick / 1_000);
        assert!(!workers.is_wary());
        workers.note(quick);
        let until = workers.wary_until.load(Ordering::Relaxed);
        assert!(until <= workers.now() + 100, "100 ms at most, {until}");
        workers.note(SLOW);
        let until = workers.wary_until.load(Ordering::Relaxed);
        assert!(until > workers.now() + 200 && until <= workers.now() + 300);
        workers.note(quick);
        assert_eq!(
            workers.wary_until.load(Ordering::Relaxed),
            until,
            "not less than before"
        );
    }

    #[tokio::test]
    async fn slow_lanes_leave_threads_for_the_quick_ones() {
        let workers = workers(4);
        workers.run(10, soon(), || 7, burn).await;
        workers.run(10, soon(), || 7, burn).await;
        let slow: Vec<_> = (0..6)
            .map(|_| {
                let workers = Arc::clone(&workers);
                tokio::spawn(async move { workers.run(10, soon(), || 7, burn).await })
            })
            .collect();
        tokio::time::sleep(SLOW / 4).await;
        assert_eq!(workers.run(10, soon(), || 8, || 1).await, Outcome::Done(1));
        assert!(
            !slow.iter().all(tokio::task::JoinHandle::is_finished),
            "a quick one overtakes"
        );
        for slow in slow {
            assert_eq!(slow.await.unwrap(), Outcome::Done(()));
        }
    }

    #[tokio::test]
    async fn the_answer_does_not_wait_for_a_decision_past_its_deadline() {
        let workers = workers(2);
        workers.run(10, soon(), || 7, burn).await;
        let begun = Instant::now();
        let deadline = begun + Duration::from_millis(10);
        assert_eq!(
            workers
                .run(10, deadline, || 7, || thread::sleep(SLOW))
                .await,
            Outcome::TooLate
        );
        assert!(begun.elapsed() < SLOW / 2, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn a_panic_is_an_outcome_wherever_it_happens() {
        let workers = workers(2);
        for size in [10, 1 << 20] {
            let outcome = workers
                .run(
                    size,
                    soon(),
                    || 1,
                    || assert!(std::hint::black_box(false), "no"),
                )
                .await;
            assert_eq!(outcome, Outcome::Panicked("no".to_owned()));
        }
        assert_eq!(workers.run(10, soon(), || 1, || 2).await, Outcome::Done(2));
    }
}
