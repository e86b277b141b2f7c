//! What has been told, what is to be written next, and what is too much. No waiting and no clock: the time is an argument.
//!
//! A notice of a new key waits to become an Event; one of a known key is counted, and the count is written after a pause
//! that doubles each time, so that a flood of the same costs a handful of writes. New Events of one namespace have a
//! budget, so that one tenant does not take the place of the others; writes have one for all together.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::{Notice, namespace};
use crate::telemetry::events::Dropped;

/// Writes a second, and how many may be saved up.
const WRITES: (u32, u32) = (5, 25);
/// New Events of one namespace: how many may be saved up, one for each [`NAMESPACE_PACE`].
const NAMESPACE_BURST: u32 = 25;
const NAMESPACE_PACE: Duration = Duration::from_secs(2);
/// New Events that may wait to be written.
const WAITING: usize = 250;
/// Events that are remembered.
const REMEMBERED: usize = 1024;
/// An Event of which nothing was heard for so long is not counted on.
const SETTLED: Duration = Duration::from_mins(30);
/// The pause before a count is written, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// What is known of Events.
#[derive(Debug)]
pub(super) struct Book {
    entries: HashMap<String, Entry>,
    namespaces: HashMap<String, Budget>,
    writes: Budget,
    /// How many came, by which those that wait are in order.
    number: u64,
}

#[derive(Debug)]
struct Entry {
    notice: Notice,
    state: State,
    /// How often it was told, and how often of that is written.
    told: i32,
    written: i32,
    last: Timestamp,
    heard: Instant,
}

#[derive(Debug)]
enum State {
    /// There is no Event yet. The number is its place among those that wait.
    Waiting(u64),
    /// There is one of this name, and its count may be written from then on.
    There {
        name: String,
        from: Instant,
        pause: Duration,
    },
}

/// So many at once, and one more after each pace.
#[derive(Debug)]
struct Budget {
    burst: u32,
    pace: Duration,
    /// When it would be full again.
    full: Instant,
}

/// One write.
#[derive(Debug, PartialEq)]
pub(super) enum Job {
    /// A new Event.
    New {
        key: String,
        notice: Box<Notice>,
        at: Timestamp,
    },
    /// The count of an Event that is there.
    Count {
        key: String,
        namespace: String,
        name: String,
        count: i32,
        last: Timestamp,
    },
}

/// What became of a write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The Event is there, by this name.
    Written(String),
    /// The Event is not there any more.
    Gone,
    /// It was not written, and is not tried again.
    Failed,
}

// === impl Book ===

impl Book {
    /// Nothing is known.
    pub(super) fn new(now: Instant) -> Self {
        let (rate, burst) = WRITES;
        Self {
            entries: HashMap::new(),
            namespaces: HashMap::new(),
            writes: Budget::new(burst, Duration::from_secs(1) / rate, now),
            number: 0,
        }
    }

    /// Takes a notice, or says why not.
    pub(super) fn note(
        &mut self,
        notice: Notice,
        now: Instant,
        at: Timestamp,
    ) -> Result<(), Dropped> {
        if let Some(known) = self.entries.get_mut(&notice.key) {
            known.told = known.told.saturating_add(1);
            (known.last, known.heard) = (at, now);
            return Ok(());
        }
        if self.waiting().count() >= WAITING {
            return Err(Dropped::Rate);
        }
        self.forget(now);
        let namespace = namespace(&notice.regarding).to_owned();
        let budget = self.namespaces.entry(namespace);
        let budget = budget.or_insert_with(|| Budget::new(NAMESPACE_BURST, NAMESPACE_PACE, now));
        if !budget.spend(now) {
            return Err(Dropped::Namespace);
        }
        self.number = self.number.saturating_add(1);
        let entry = Entry {
            state: State::Waiting(self.number),
            told: 1,
            written: 0,
            last: at,
            heard: now,
            notice,
        };
        self.entries.insert(entry.notice.key.clone(), entry);
        Ok(())
    }

    /// When the next write may be made; `None` while there is none.
    pub(super) fn due(&self) -> Option<Instant> {
        let from = self.entries.values().filter_map(Entry::due);
        from.min().map(|from| from.max(self.writes.next()))
    }

    /// The next write, if one may be made now: new Events before counts.
    pub(super) fn take(&mut self, now: Instant) -> Option<Job> {
        let next = self.next(now)?.clone();
        if !self.writes.spend(now) {
            return None;
        }
        let entry = self.entries.get(&next)?;
        Some(match &entry.state {
            State::Waiting(_) => Job::New {
                key: next,
                notice: Box::new(entry.notice.clone()),
                at: entry.last,
            },
            State::There { name, .. } => Job::Count {
                key: next,
                namespace: namespace(&entry.notice.regarding).to_owned(),
                name: name.clone(),
                count: entry.told,
                last: entry.last,
            },
        })
    }

    /// Notes what became of the write that was taken.
    pub(super) fn done(&mut self, key: &str, outcome: Outcome, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        match (outcome, &mut entry.state) {
            (Outcome::Written(name), State::Waiting(_)) => {
                entry.written = 1;
                entry.state = State::There {
                    name,
                    from: now + PAUSE.0,
                    pause: PAUSE.0,
                };
            }
            (Outcome::Written(_), State::There { from, pause, .. }) => {
                entry.written = entry.told;
                *pause = pause.saturating_mul(2).min(PAUSE.1);
                *from = now + *pause;
            }
            (Outcome::Gone, state) => {
                self.number = self.number.saturating_add(1);
                *state = State::Waiting(self.number);
                entry.told = entry.told.saturating_sub(entry.written).max(1);
                entry.written = 0;
            }
            (Outcome::Failed, _) => {
                self.entries.remove(key);
            }
        }
    }

    /// The key of what is to be written first.
    fn next(&self, now: Instant) -> Option<&String> {
        if let Some((_, key)) = self.waiting().min() {
            return Some(key);
        }
        let due = self.entries.iter().filter_map(|(key, entry)| {
            let from = entry.due().filter(|from| *from <= now)?;
            Some((from, key))
        });
        due.min().map(|(_, key)| key)
    }

    fn waiting(&self) -> impl Iterator<Item = (u64, &String)> {
        self.entries
            .iter()
            .filter_map(|(key, entry)| match entry.state {
                State::Waiting(number) => Some((number, key)),
                State::There { .. } => None,
            })
    }

    /// Forgets what is settled, and what was not heard of for the longest time if there is no place else.
    fn forget(&mut self, now: Instant) {
        self.namespaces.retain(|_, budget| !budget.is_full(now));
        if self.entries.len() < REMEMBERED {
            return;
        }
        self.entries
            .retain(|_, entry| now.duration_since(entry.heard) < SETTLED);
        let there = self.entries.iter().filter(|(_, entry)| {
            matches!(entry.state, State::There { .. }) && self.entries.len() >= REMEMBERED
        });
        let oldest = there.min_by_key(|(_, entry)| entry.heard);
        if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
            self.entries.remove(&oldest);
        }
    }
}

// === impl Entry ===

impl Entry {
    /// From when something of it may be written; `None` where there is nothing to write.
    fn due(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting(_) => Some(self.heard),
            State::There { from, .. } => (self.told > self.written).then_some(*from),
        }
    }
}

// === impl Job ===

impl Job {
    /// Whose write it is.
    pub(super) fn key(&self) -> &str {
        match self {
            Self::New { key, .. } | Self::Count { key, .. } => key,
        }
    }
}

// === impl Budget ===

impl Budget {
    fn new(burst: u32, pace: Duration, now: Instant) -> Self {
        Self {
            burst,
            pace,
            full: now,
        }
    }

    /// From when one may be spent.
    fn next(&self) -> Instant {
        let all_but_one = self.pace.saturating_mul(self.burst.saturating_sub(1));
        self.full.checked_sub(all_but_one).unwrap_or(self.full)
    }

    fn is_full(&self, now: Instant) -> bool {
        self.full <= now
    }

    /// Spends one, if there is one.
    fn spend(&mut self, now: Instant) -> bool {
        if self.next() > now {
            return false;
        }
        self.full = self.full.max(now) + self.pace;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::{REFUSED, Weight};
    use super::*;
    use k8s_openapi::api::core::v1::ObjectReference;

    fn notice(namespace: &str, key: &str) -> Notice {
        Notice {
            regarding: ObjectReference {
                namespace: Some(namespace.to_owned()),
                ..ObjectReference::default()
            },
            weight: Weight::Warning,
            reason: REFUSED,
            action: "Create",
            note: String::new(),
            annotations: std::collections::BTreeMap::new(),
            key: format!("{namespace}/{key}"),
        }
    }

    fn tell(book: &mut Book, namespace: &str, key: &str, now: Instant) -> Result<(), Dropped> {
        book.note(notice(namespace, key), now, Timestamp::UNIX_EPOCH)
    }

    /// Does all that may be done until some time has passed; gives the counts that were written, 1 for a new Event.
    fn run(book: &mut Book, from: Instant, time: Duration) -> Vec<i32> {
        let mut written = Vec::new();
        while let Some(due) = book.due().filter(|due| *due <= from + time) {
            let now = due.max(from);
            let job = book.take(now).unwrap();
            written.push(match &job {
                Job::New { .. } => 1,
                Job::Count { count, .. } => *count,
            });
            book.done(job.key(), Outcome::Written("event".to_owned()), now);
        }
        written
    }

    #[test]
    fn what_is_told_again_makes_one_event_with_a_count() {
        let now = Instant::now();
        let mut book = Book::new(now);
        assert_eq!(book.due(), None);
        for _ in 0..50 {
            tell(&mut book, "shop", "web", now).unwrap();
        }
        assert_eq!(run(&mut book, now, Duration::ZERO), [1]);
        for _ in 0..50 {
            tell(&mut book, "shop", "web", now).unwrap();
        }
        assert_eq!(run(&mut book, now, Duration::from_millis(900)), [0; 0]);
        assert_eq!(run(&mut book, now, Duration::from_secs(10)), [100]);
        assert_eq!(book.due(), None);
    }

    #[test]
    fn a_flood_of_the_same_is_counted_ever_more_slowly() {
        let mut now = Instant::now();
        let mut book = Book::new(now);
        let mut writes = 0;
        for _ in 0..600 {
            tell(&mut book, "shop", "web", now).unwrap();
            writes += run(&mut book, now, Duration::ZERO).len();
            now += Duration::from_secs(1);
        }
        assert!((10..=17).contains(&writes), "{writes}");
    }

    #[test]
    fn an_event_that_is_gone_is_made_anew_with_what_came_since() {
        let now = Instant::now();
        let mut book = Book::new(now);
        tell(&mut book, "shop", "web", now).unwrap();
        run(&mut book, now, Duration::ZERO);
        for _ in 0..3 {
            tell(&mut book, "shop", "web", now).unwrap();
        }
        let later = now + Duration::from_secs(2);
        let job = book.take(later).unwrap();
        assert!(matches!(job, Job::Count { count: 4, .. }));
        book.done(job.key(), Outcome::Gone, later);
        assert_eq!(run(&mut book, later, Duration::from_secs(5)), [1, 3]);
    }

    #[test]
    fn a_namespace_has_a_budget_and_leaves_the_others_theirs() {
        let now = Instant::now();
        let mut book = Book::new(now);
        let outcomes: Vec<_> = (0..30)
            .map(|number| tell(&mut book, "loud", &number.to_string(), now))
            .collect();
        let burst = usize::try_from(NAMESPACE_BURST).unwrap();
        assert!(outcomes[..burst].iter().all(Result::is_ok));
        assert_eq!(outcomes[burst], Err(Dropped::Namespace));
        tell(&mut book, "quiet", "web", now).unwrap();
        tell(&mut book, "loud", "later", now + NAMESPACE_PACE).unwrap();
    }

    #[test]
    fn writes_keep_to_their_rate_and_what_waits_is_bounded() {
        let now = Instant::now();
        let mut book = Book::new(now);
        for number in 0..WAITING {
            tell(&mut book, &format!("ns-{number}"), "web", now).unwrap();
        }
        assert_eq!(tell(&mut book, "more", "web", now), Err(Dropped::Rate));
        assert_eq!(run(&mut book, now, Duration::ZERO).len(), 25);
        assert_eq!(run(&mut book, now, Duration::from_secs(2)).len(), 10);
        assert_eq!(run(&mut book, now, Duration::from_mins(1)).len(), 215);
    }

    #[test]
    fn what_failed_is_forgotten_and_what_is_remembered_is_bounded() {
        let mut now = Instant::now();
        let mut book = Book::new(now);
        tell(&mut book, "shop", "web", now).unwrap();
        let job = book.take(now).unwrap();
        book.done(job.key(), Outcome::Failed, now);
        assert_eq!(book.due(), None);
        for number in 0..REMEMBERED + 100 {
            tell(&mut book, &format!("ns-{number}"), "web", now).unwrap();
            run(&mut book, now, Duration::from_secs(1));
            now += Duration::from_millis(250);
        }
        assert_eq!(book.entries.len(), REMEMBERED);
    }
}
