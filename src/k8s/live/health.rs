//! How far the watches can be relied on: which first lists are complete, and since when the API server is not heard.
//!
//! A watch that is quiet may be well or dead. So the API server is asked for its version every few seconds, and a watch
//! that failed is doubted until it has told something again, or the API server has taken it up again and it has gone on for a while
//! without failing. One that begins again with all that is there is doubted until it has told all of it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::kind::Kind;

/// How long a watch that was begun again may take to fail.
const TRIAL: Duration = Duration::from_secs(6);
/// How long the API server may take to take up a watch again, and to tell all that is there.
const TELLING: Duration = Duration::from_mins(1);

/// What is known of the watches and of the way to the API server.
#[derive(Debug)]
pub(super) struct Health(Mutex<Known>);

#[derive(Debug)]
struct Known {
    watches: BTreeMap<Kind, Watch>,
    heard: Instant,
    silent: bool,
    /// For how long it has answered, as far as it was asked.
    answered: Duration,
}

/// What has become of one watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// Its first list is complete.
    pub listed: bool,
    /// The kind is not served: its CRD is not there.
    pub absent: bool,
    /// How often it had to begin again after a failure.
    pub restarts: u64,
    /// How many lists have been taken in.
    pub lists: u64,
    /// How many changes have been taken in.
    pub changes: u64,
    /// How many lists, or that there is none, were told, and how many of these were taken in.
    told: u64,
    taken: u64,
    broken: Option<Broken>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Broken {
    since: Instant,
    /// For how long the API server had answered then, and when the watch failed last, where it did.
    begun: Duration,
    failed: Option<Duration>,
    doubted: Doubted,
}

/// Until when a watch is doubted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubted {
    Until(Instant),
    /// Until the API server has taken it up again, or more than so many lists are taken in.
    UntilResumed(u64),
    /// Until so many lists are taken in.
    UntilListed(u64),
}

impl Health {
    pub(super) fn new(kinds: impl IntoIterator<Item = Kind>, now: Instant) -> Self {
        let watches = kinds.into_iter().map(|kind| (kind, Watch::default()));
        Self(Mutex::new(Known {
            watches: watches.collect(),
            heard: now,
            silent: false,
            answered: Duration::ZERO,
        }))
    }

    /// All that is there is asked for, from this moment on.
    pub(super) fn listing(&self, kind: Kind, now: Instant) {
        let mut known = self.known();
        let answered = known.answered;
        let watch = known.watches.entry(kind).or_default();
        // What was not served is asked for again and again, and nobody doubts it.
        if watch.listed && !watch.absent {
            let before = watch.doubted(now);
            watch.broken = Some(Broken {
                since: before.map_or(now, |broken| broken.since),
                begun: before.map_or(answered, |broken| broken.begun),
                failed: before.and_then(|broken| broken.failed),
                doubted: Doubted::UntilListed(watch.told.saturating_add(1)),
            });
        }
    }

    /// A complete list is told, to be taken in later: another one may be asked for before.
    pub(super) fn telling(&self, kind: Kind) {
        let mut known = self.known();
        let watch = known.watches.entry(kind).or_default();
        watch.told = watch.told.saturating_add(1);
    }

    /// A list is complete and taken in; tells whether it was the first.
    pub(super) fn listed(&self, kind: Kind, absent: bool) -> bool {
        let mut known = self.known();
        let watch = known.watches.entry(kind).or_default();
        let first = !watch.listed;
        watch.listed = true;
        watch.absent = absent;
        watch.taken = watch.taken.saturating_add(1);
        let taken = watch.taken;
        watch.broken = watch.broken.filter(|broken| broken.is_of_later(taken));
        watch.lists = watch.lists.saturating_add(u64::from(!absent));
        first
    }

    /// A change was told.
    pub(super) fn told(&self, kind: Kind) {
        let mut known = self.known();
        let watch = known.watches.entry(kind).or_default();
        // A change that was told before it failed, or before all that is there is asked for again, says nothing of that.
        watch.broken = watch.broken.filter(Broken::is_open);
        watch.changes = watch.changes.saturating_add(1);
    }

    /// The API server has taken up a watch again.
    pub(super) fn resumed(&self, kind: Kind, now: Instant) {
        let mut known = self.known();
        let watch = known.watches.entry(kind).or_default();
        if let Some(broken) = &mut watch.broken
            && matches!(broken.doubted, Doubted::UntilResumed(_))
        {
            broken.doubted = Doubted::Until(now.checked_add(TRIAL).unwrap_or(now));
        }
    }

    /// A watch failed, and begins again; tells whether it was well before.
    pub(super) fn failed(&self, kind: Kind, now: Instant) -> bool {
        let mut known = self.known();
        let answered = known.answered;
        let watch = known.watches.entry(kind).or_default();
        watch.restarts = watch.restarts.saturating_add(1);
        let before = watch.doubted(now);
        watch.broken = Some(Broken {
            since: before.map_or(now, |broken| broken.since),
            begun: before.map_or(answered, |broken| broken.begun),
            failed: Some(answered),
            doubted: Doubted::UntilResumed(watch.told),
        });
        before.is_none()
    }

    /// The API server answered, or did not.
    pub(super) fn probed(&self, answered: bool, now: Instant) {
        let mut known = self.known();
        if answered && !known.silent {
            let more = now.saturating_duration_since(known.heard);
            known.answered = known.answered.saturating_add(more);
        }
        known.silent = !answered;
        if answered {
            known.heard = now;
        }
    }

    /// The kinds whose first list is not complete.
    pub(super) fn missing(&self) -> Vec<Kind> {
        let known = self.known();
        let missing = known.watches.iter().filter(|(_, watch)| !watch.listed);
        missing.map(|(kind, _)| *kind).collect()
    }

    /// For how long changes may have been missed: since the first watch that is broken failed, or the API server was last
    /// heard. Nothing while all is well.
    pub(super) fn age(&self, now: Instant) -> Duration {
        let known = self.known();
        let watches = known.watches.values();
        let doubted = watches.filter_map(|watch| watch.doubted(now));
        let since = doubted
            .map(|broken| broken.since)
            .chain(known.silent.then_some(known.heard))
            .min();
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// The kinds whose watches have failed again and again for longer than this while the API server answered, or have not been
    /// taken up by it in that time.
    pub(super) fn doubted(&self, now: Instant, longer: Duration) -> Vec<Kind> {
        let known = self.known();
        let is_doubted = |(_, watch): &(&Kind, &Watch)| {
            let broken = watch.doubted(now);
            broken.is_some_and(|broken| known.is_lasting(broken, longer))
        };
        let doubted = known.watches.iter().filter(is_doubted);
        doubted.map(|(kind, _)| *kind).collect()
    }

    /// What has become of each watch.
    pub(super) fn watches(&self) -> Vec<(Kind, Watch)> {
        let known = self.known();
        let watches = known.watches.iter();
        watches.map(|(kind, watch)| (*kind, *watch)).collect()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Known ===

impl Known {
    /// Whether a watch has failed for longer than this, counting what time the API server answered.
    fn is_lasting(&self, broken: Broken, longer: Duration) -> bool {
        let lasts = |until: Duration, longer| until.saturating_sub(broken.begun) > longer;
        let is_waiting = broken.is_open() && lasts(self.answered, longer.max(TELLING));
        is_waiting || broken.failed.is_some_and(|last| lasts(last, longer))
    }
}

// === impl Watch ===

impl Watch {
    fn doubted(&self, now: Instant) -> Option<Broken> {
        self.broken.filter(|broken| match broken.doubted {
            Doubted::Until(end) => now < end,
            Doubted::UntilResumed(_) | Doubted::UntilListed(_) => true,
        })
    }
}

// === impl Broken ===

impl Broken {
    /// Whether the API server has not done yet what it was asked for.
    fn is_open(&self) -> bool {
        matches!(
            self.doubted,
            Doubted::UntilResumed(_) | Doubted::UntilListed(_)
        )
    }

    /// Whether it stays when so many lists are taken in.
    fn is_of_later(&self, taken: u64) -> bool {
        match self.doubted {
            Doubted::Until(_) => false,
            Doubted::UntilResumed(told) => taken <= told,
            Doubted::UntilListed(number) => taken < number,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_failure_makes_the_state_old_until_the_watch_is_heard_or_has_held_for_a_while() {
        let begun = Instant::now();
        let health = Health::new(Kind::ALL, begun);
        assert_eq!(health.age(begun + SECOND * 100), Duration::ZERO);

        assert!(health.failed(Kind::Pod, begun));
        assert!(!health.failed(Kind::Pod, begun + SECOND * 3));
        health.told(Kind::Pod);
        assert_eq!(
            health.age(begun + SECOND * 4),
            SECOND * 4,
            "what was told before it failed is taken in"
        );
        health.resumed(Kind::Pod, begun + SECOND * 4);
        assert_eq!(health.age(begun + SECOND * 5), SECOND * 5);
        health.told(Kind::Pod);
        assert_eq!(health.age(begun + SECOND * 5), Duration::ZERO);

        assert!(health.failed(Kind::Pod, begun + SECOND * 10));
        assert_eq!(health.age(begun + SECOND * 100), SECOND * 90);
        health.resumed(Kind::Pod, begun + SECOND * 100);
        assert_eq!(health.age(begun + SECOND * 105), SECOND * 95);
        assert_eq!(health.age(begun + SECOND * 106), Duration::ZERO);
        assert!(
            health.failed(Kind::Pod, begun + SECOND * 110),
            "it was well in between"
        );
        assert!(
            !health.failed(Kind::Pod, begun + SECOND * 170),
            "nobody answered in between"
        );
    }

    #[test]
    fn a_watch_that_nobody_answers_is_named_after_a_while_too() {
        let begun = Instant::now();
        let health = Health::new(Kind::ALL, begun);
        let doubted = |at: u32| {
            health.probed(true, begun + SECOND * at);
            health.doubted(begun + SECOND * at, SECOND * 10)
        };
        assert_eq!(doubted(5), []);
        health.failed(Kind::Pod, begun + SECOND * 5);
        assert_eq!(doubted(65), []);
        assert_eq!(doubted(70), [Kind::Pod]);
        health.resumed(Kind::Pod, begun + SECOND * 71);
        assert_eq!(doubted(72), []);
    }

    #[test]
    fn a_watch_that_goes_on_failing_is_named_after_a_while() {
        let begun = Instant::now();
        let health = Health::new(Kind::ALL, begun);
        // The API server is asked each time before.
        let fail = |kinds: &[Kind], at: u32, answers: bool| {
            let now = begun + SECOND * at;
            health.probed(answers, now);
            for kind in kinds {
                health.resumed(*kind, now);
                health.failed(*kind, now);
            }
            health.doubted(now, SECOND * 10)
        };
        let (policy, pod) = (Kind::NetworkPolicy, Kind::Pod);
        assert_eq!(fail(&[policy], 0, true), []);
        assert_eq!(fail(&[policy], 5, true), []);
        assert_eq!(fail(&[], 14, true), [], "it may have gone on well since");
        assert_eq!(fail(&[policy], 15, true), [policy]);
        // What is so stays so while no answer comes. Others fail for as long, and that is no reason.
        for at in (20..60).step_by(5) {
            assert_eq!(fail(&[policy, pod], at, false), [policy]);
        }
        // Nor is a single answer in between.
        assert_eq!(fail(&[policy, pod], 60, true), [policy]);
        assert_eq!(fail(&[policy, pod], 65, false), [policy]);
        for at in [70, 75, 80] {
            assert_eq!(fail(&[policy, pod], at, true), [policy]);
        }
        assert_eq!(fail(&[policy, pod], 85, true), [pod, policy]);
        for kind in [policy, pod] {
            health.resumed(kind, begun + SECOND * 86);
        }
        health.told(policy);
        assert_eq!(fail(&[], 86, true), [pod]);
        health.told(pod);

        // A list that does not come to its end.
        health.listed(Kind::Node, false);
        health.listing(Kind::Node, begun + SECOND * 86);
        assert_eq!(fail(&[], 145, true), []);
        assert_eq!(fail(&[], 147, true), [Kind::Node]);
    }

    #[test]
    fn a_watch_that_begins_again_makes_the_state_old_until_all_that_is_there_is_told() {
        let begun = Instant::now();
        let health = Health::new(Kind::ALL, begun);
        health.listing(Kind::Pod, begun);
        assert_eq!(health.age(begun + SECOND), Duration::ZERO, "the first list");
        health.listed(Kind::Pod, false);
        assert!(health.failed(Kind::Pod, begun + SECOND));
        health.listing(Kind::Pod, begun + SECOND * 2);
        assert_eq!(health.age(begun + SECOND * 101), SECOND * 100);
        health.told(Kind::Pod);
        assert_eq!(health.age(begun + SECOND * 101), SECOND * 100);
        health.listed(Kind::Pod, false);
        assert_eq!(health.age(begun + SECOND * 101), Duration::ZERO);

        // A list that is still on its way when the next one is asked for is not that one.
        health.telling(Kind::Service);
        health.listed(Kind::Service, false);
        for _ in 0..2 {
            health.telling(Kind::Service);
            health.listing(Kind::Service, begun);
        }
        health.telling(Kind::Service);
        for _ in 0..3 {
            assert_eq!(health.age(begun + SECOND), SECOND);
            health.listed(Kind::Service, false);
        }
        assert_eq!(health.age(begun + SECOND), Duration::ZERO);

        health.listed(Kind::Guardrail, true);
        health.listing(Kind::Guardrail, begun);
        assert_eq!(health.age(begun + SECOND), Duration::ZERO, "not served");
    }

    #[test]
    fn an_api_server_that_does_not_answer_makes_the_state_old_though_no_watch_failed() {
        let begun = Instant::now();
        let health = Health::new(Kind::ALL, begun);
        health.probed(true, begun + SECOND * 5);
        health.probed(false, begun + SECOND * 10);
        assert_eq!(health.age(begun + SECOND * 11), SECOND * 6);
        health.probed(true, begun + SECOND * 15);
        assert_eq!(health.age(begun + SECOND * 16), Duration::ZERO);
    }

    #[test]
    fn what_is_missing_is_told_by_kind() {
        let health = Health::new(Kind::ALL, Instant::now());
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Node) {
            assert!(health.listed(kind, false));
        }
        assert_eq!(health.missing(), [Kind::Node]);
        assert!(!health.listed(Kind::Pod, false), "not the first one");
    }
}
