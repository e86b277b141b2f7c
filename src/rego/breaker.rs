//! A policy that runs out of time again and again is left out for a while, so that it cannot take the time of others.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// Failures in a row that suspend.
const STRIKES: u32 = 3;
/// How long the first suspension lasts; each further one lasts twice as long.
const FIRST: Duration = Duration::from_secs(30);
/// How long a suspension lasts at most.
const LONGEST: Duration = Duration::from_mins(15);

/// What is remembered of a policy.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    strikes: AtomicU32,
    /// When it may run again, in milliseconds since the start of the process.
    until: AtomicU64,
    /// Evaluations that nobody waits for any more and that have not come to an end.
    stuck: Arc<AtomicUsize>,
}

/// An evaluation that did not end in time. While one is alive its policy is suspended.
#[derive(Debug)]
pub(super) struct Stuck(Arc<AtomicUsize>);

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

// === impl Breaker ===

impl Breaker {
    /// Why the policy is left out now, if it is.
    pub(super) fn suspended(&self) -> Option<String> {
        if self.stuck.load(Ordering::Relaxed) > 0 {
            return Some(
                "it is suspended: an earlier evaluation has not come to an end".to_owned(),
            );
        }
        let left = self.until.load(Ordering::Relaxed).saturating_sub(now());
        (left > 0).then(|| {
            let strikes = self.strikes.load(Ordering::Relaxed);
            format!(
                "it is suspended for {} s more: it ran out of time {strikes} times in a row",
                left.div_ceil(1000)
            )
        })
    }

    /// It answered, or failed in a way that costs nothing.
    pub(super) fn ended(&self) {
        self.strikes.store(0, Ordering::Relaxed);
    }

    /// It ran out of time.
    pub(super) fn timed_out(&self) {
        let strikes = self
            .strikes
            .fetch_add(1, Ordering::Relaxed)
            .saturating_add(1);
        if let Some(more) = strikes.checked_sub(STRIKES) {
            let pause = FIRST
                .saturating_mul(1_u32.checked_shl(more).unwrap_or(u32::MAX))
                .min(LONGEST);
            let pause = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
            self.until
                .store(now().saturating_add(pause), Ordering::Relaxed);
        }
    }

    /// It did not even stop when its time was over.
    pub(super) fn stuck(&self) -> Stuck {
        self.timed_out();
        self.stuck.fetch_add(1, Ordering::Relaxed);
        Stuck(self.stuck.clone())
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn now() -> u64 {
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_in_a_row_suspend() {
        let breaker = Breaker::default();
        breaker.timed_out();
        breaker.timed_out();
        breaker.ended();
        breaker.timed_out();
        breaker.timed_out();
        assert_eq!(breaker.suspended(), None);
        breaker.timed_out();
        assert!(breaker.suspended().unwrap().contains("3 times in a row"));
    }

    #[test]
    fn a_policy_is_out_while_an_evaluation_of_it_is_stuck() {
        let breaker = Breaker::default();
        let stuck = breaker.stuck();
        assert!(
            breaker
                .suspended()
                .unwrap()
                .contains("has not come to an end")
        );
        drop(stuck);
        assert_eq!(breaker.suspended(), None);
    }
}
