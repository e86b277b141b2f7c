//! Threads for users' policies.
//!
//! An evaluation cannot be stopped from outside. So it runs in a thread of its own kind, with a deep stack, and whoever
//! asked waits only so long: a thread that does not come back is given up and another takes its place. Few may
//! be lost at a time; then no user's policy is evaluated until one comes back, and the process goes on.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, PoisonError};

/// A stack for the deepest policy that the call graph lets through. Pages that are not touched cost nothing.
pub(super) const STACK: usize = 64 << 20;
/// Most threads that are given up at a time.
const MAX_LOST: usize = 4;

/// The threads of the process.
pub(super) static POOL: LazyLock<Pool> = LazyLock::new(|| {
    // At least two, so that policies of one request run beside each other.
    Pool::new(
        std::thread::available_parallelism()
            .map_or(2, NonZeroUsize::get)
            .max(2),
    )
});

/// A piece of work.
type Job = Box<dyn FnOnce() + Send>;

/// Threads that wait for work.
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: usize,
}

/// Whether whoever gave a piece of work still waits for it.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting(Arc<AtomicBool>);

#[derive(Default)]
struct Shared {
    queue: Mutex<VecDeque<(Job, Waiting)>>,
    ready: Condvar,
    lost: AtomicUsize,
}

// === impl Pool ===

impl Pool {
    fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared::default());
        for _ in 0..threads {
            spawn(&shared);
        }
        Self { shared, threads }
    }

    /// How many pieces of work can be done at a time.
    pub(super) fn threads(&self) -> usize {
        self.threads
    }

    /// Whether there is anybody to do the work.
    pub(super) fn works(&self) -> bool {
        self.shared.lost.load(Ordering::Relaxed) < MAX_LOST
    }

    /// Has a piece of work done by the next free thread.
    pub(super) fn give(&self, job: Job) -> Waiting {
        let waiting = Waiting::default();
        self.shared
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back((job, waiting.clone()));
        self.shared.ready.notify_one();
        waiting
    }

    /// Waits no more for a piece of work that has begun: its thread is lost until it comes back.
    pub(super) fn give_up(&self, waiting: &Waiting) {
        if !waiting.0.swap(true, Ordering::AcqRel) {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            spawn(&self.shared);
        }
    }
}

fn spawn(shared: &Arc<Shared>) {
    let shared = shared.clone();
    // Without a thread there is no answer, which is told as a failure of the policies that wait for it.
    let _ = std::thread::Builder::new()
        .name("policy".to_owned())
        .stack_size(STACK)
        .spawn(move || work(&shared));
}

fn work(shared: &Shared) {
    loop {
        let (job, waiting) = {
            let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            loop {
                if let Some(job) = queue.pop_front() {
                    break job;
                }
                let woken = shared.ready.wait(queue);
                queue = woken.unwrap_or_else(PoisonError::into_inner);
            }
        };
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
        // Taken back by whoever gave up; then another thread has this one's place already.
        if waiting.0.swap(true, Ordering::AcqRel) {
            shared.lost.fetch_sub(1, Ordering::Relaxed);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn work_is_done_even_when_a_thread_does_not_come_back() {
        let pool = Pool::new(1);
        let (release, blocked) = mpsc::channel::<()>();
        let (begun, has_begun) = mpsc::channel();
        let stuck = pool.give(Box::new(move || {
            begun.send(()).unwrap();
            let _ = blocked.recv();
        }));
        has_begun.recv().unwrap();
        pool.give_up(&stuck);
        assert!(pool.works());

        let (done, is_done) = mpsc::channel();
        pool.give(Box::new(move || done.send(()).unwrap()));
        is_done
            .recv_timeout(Duration::from_secs(10))
            .expect("another thread has taken over");
        drop(release);
        while pool.shared.lost.load(Ordering::Relaxed) > 0 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_piece_of_work_that_panics_costs_no_thread() {
        let pool = Pool::new(1);
        pool.give(Box::new(|| panic!("on purpose")));
        let (done, is_done) = mpsc::channel();
        pool.give(Box::new(move || done.send(()).unwrap()));
        is_done
            .recv_timeout(Duration::from_secs(10))
            .expect("the thread goes on");
    }

    #[test]
    fn when_too_many_threads_are_lost_there_is_no_more_work() {
        let pool = Pool::new(1);
        let (release, blocked) = mpsc::channel::<()>();
        let blocked = Arc::new(Mutex::new(blocked));
        for _ in 0..MAX_LOST {
            assert!(pool.works());
            let blocked = blocked.clone();
            let (begun, has_begun) = mpsc::channel();
            let stuck = pool.give(Box::new(move || {
                begun.send(()).unwrap();
                let _ = blocked
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .recv();
            }));
            has_begun.recv().unwrap();
            pool.give_up(&stuck);
        }
        assert!(!pool.works());
        drop(release);
    }
}
