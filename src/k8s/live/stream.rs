//! One watch: from the API server's events to changes of the index, for as long as the process lives.
//!
//! A list is held back until it is complete, so that it takes effect at once. After a failure the watch goes on where it was; after
//! several, or when the API server says that it has forgotten (410), it begins with a new list. The pauses in between grow until the
//! API server has told something, or has not failed for a while.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;
use tokio::sync::mpsc;

use super::health::Health;
use super::index::Change;
use super::kind::Kind;
use super::source::{Failure, Source, Told};
use crate::k8s::one::chain;
use crate::k8s::served;

/// The first pause after a failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// After how long a failure is forgotten.
const FORGOTTEN: Duration = Duration::from_mins(1);
/// After how many failures in a row a watch begins with a new list: the API server may have lost its past.
const FAILURES: u32 = 5;
/// How often one of Ringfence's own kinds that is not served is asked for again, and one of others, which many clusters never
/// have and every node's agent asks for.
const ABSENT: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(20)];

/// Nobody takes the changes any more.
#[derive(Debug, thiserror::Error)]
#[error("the index is gone")]
pub(super) struct Closed;

/// Follows a kind.
pub(super) async fn follow(
    client: Client,
    kind: Kind,
    health: Arc<Health>,
    changes: mpsc::Sender<(Kind, Change)>,
) -> Result<(), Closed> {
    let mut following = Following {
        source: Source::new(client.clone(), kind),
        client,
        kind,
        health,
        changes,
        failures: Failures::default(),
    };
    loop {
        following.round().await?;
    }
}

/// One kind that is followed.
struct Following {
    source: Source,
    client: Client,
    kind: Kind,
    health: Arc<Health>,
    changes: mpsc::Sender<(Kind, Change)>,
    failures: Failures,
}

/// The failures since the API server has last told something.
#[derive(Debug, Default)]
struct Failures {
    in_a_row: u32,
    last: Option<Instant>,
}

impl Following {
    /// From a list to when there is to be another one.
    async fn round(&mut self) -> Result<(), Closed> {
        self.health.listing(self.kind, Instant::now());
        let mut changes = match self.source.list().await {
            Ok(listed) => {
                self.send(Change::Restart(listed.items)).await?;
                listed.changes
            }
            Err(failure) => {
                self.failed(&failure).await?;
                return Ok(());
            }
        };
        let mut failures = 0;
        while failures < FAILURES {
            match self.source.next(&mut changes).await {
                Ok(Told::Resumed) => self.health.resumed(self.kind, Instant::now()),
                Ok(Told::Applied(object)) => {
                    failures = 0;
                    self.tell(Change::Apply(Box::new(object.item(self.kind))))
                        .await?;
                }
                Ok(Told::Deleted(object)) => {
                    failures = 0;
                    self.tell(Change::Delete(object.key())).await?;
                }
                Err(failure) => {
                    failures += 1;
                    let is_absent = self.failed(&failure).await?;
                    if is_absent || failure.code() == Some(410) {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    async fn tell(&mut self, change: Change) -> Result<(), Closed> {
        self.failures = Failures::default();
        self.send(change).await
    }

    async fn send(&self, change: Change) -> Result<(), Closed> {
        if matches!(change, Change::Restart(_) | Change::Absent) {
            self.health.telling(self.kind);
        }
        let sent = self.changes.send((self.kind, change)).await;
        sent.map_err(|_| Closed)
    }

    /// Waits for a while; whether the kind is not served.
    async fn failed(&mut self, failure: &Failure) -> Result<bool, Closed> {
        if self.kind.is_optional() && self.is_absent(failure).await {
            self.send(Change::Absent).await?;
            tokio::time::sleep(absent(self.kind)).await;
            return Ok(true);
        }
        let pause = pause(self.failures.one_more(Instant::now()));
        if self.health.failed(self.kind, Instant::now()) {
            tracing::warn!(kind = self.kind.as_str(), error = %chain(failure), "the watch failed, trying again");
        }
        tokio::time::sleep(pause).await;
        Ok(false)
    }

    /// Whether the API server serves no such resource.
    async fn is_absent(&self, failure: &Failure) -> bool {
        let resource = self.kind.resource();
        match failure.code() {
            Some(404) => true,
            Some(403) => {
                served::is_absent(&self.client, &resource.api_version, &resource.plural).await
            }
            _ => false,
        }
    }
}

// === impl Failures ===

impl Failures {
    /// How many there are with this one.
    fn one_more(&mut self, now: Instant) -> u32 {
        let last = self.last.replace(now);
        if last.is_some_and(|last| now.saturating_duration_since(last) > FORGOTTEN) {
            self.in_a_row = 0;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.in_a_row
    }
}

/// Until a kind is asked for again that is not served.
fn absent(kind: Kind) -> Duration {
    let [own, others] = ABSENT;
    shortened(if kind.is_own() { own } else { others })
}

/// Doubling, up to a bound.
fn pause(failures: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16));
    shortened(doubled.min(LONGEST_PAUSE))
}

/// Up to a half shorter by chance, so that replicas do not come all at once.
fn shortened(longest: Duration) -> Duration {
    let chance = RandomState::new().hash_one(longest) % 512;
    longest.saturating_sub(longest.mul_f64(f64::from(u32::try_from(chance).unwrap_or(0)) / 1024.0))
}

#[cfg(test)]
mod tests {
    use super::super::source::tests::{self, Beginning};
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_are_never_nothing() {
        for failures in 1..100 {
            let pause = pause(failures);
            assert!(
                pause >= FIRST_PAUSE / 2 && pause <= LONGEST_PAUSE,
                "{failures}: {pause:?}"
            );
        }
        assert!(pause(50) >= LONGEST_PAUSE / 2);
    }

    #[tokio::test]
    async fn lists_whose_watch_fails_at_once_are_asked_for_less_and_less_often() {
        let (client, asked) = tests::client(Beginning::Forgotten);
        let kind = Kind::Namespace;
        let health = Arc::new(Health::new([kind], Instant::now()));
        let (changes, mut taken) = mpsc::channel(16);
        let following = tokio::spawn(follow(client, kind, Arc::clone(&health), changes));
        let all = async {
            while let Some((kind, change)) = taken.recv().await {
                assert!(matches!(change, Change::Restart(_)));
                health.listed(kind, false);
            }
        };
        // Five pauses that double take at least 1.55 s.
        let over = tokio::time::timeout(Duration::from_millis(1_400), all).await;
        assert!(over.is_err(), "it is followed for ever");
        following.abort();
        let asked = asked.lock().unwrap();
        assert!((2..=5).contains(&asked.len()), "{asked:?}");
        assert!(asked.iter().all(|what| *what == "beginning"));
    }

    #[tokio::test]
    async fn a_watch_that_broke_is_doubted_until_the_api_server_takes_it_up_again() {
        for resumes in [true, false] {
            let (client, asked) = tests::client(Beginning::Lost { resumes });
            let kind = Kind::Namespace;
            let health = Arc::new(Health::new([kind], Instant::now()));
            let (changes, mut taken) = mpsc::channel(16);
            let following = tokio::spawn(follow(client, kind, Arc::clone(&health), changes));
            taken.recv().await.unwrap();
            health.listed(kind, false);
            while asked.lock().unwrap().len() < 2 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            // The answer, if any, is taken.
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(*asked.lock().unwrap(), ["beginning", "watch"]);
            let later = Instant::now() + Duration::from_secs(30);
            let is_doubted = health.age(later) > Duration::ZERO;
            assert_eq!(is_doubted, !resumes);
            following.abort();
        }
    }

    #[test]
    fn failures_are_counted_until_there_was_none_for_a_while() {
        let mut failures = Failures::default();
        let mut now = Instant::now();
        for number in 1..=20 {
            assert_eq!(failures.one_more(now), number);
            now += LONGEST_PAUSE;
        }
        now += FORGOTTEN;
        assert_eq!(failures.one_more(now), 1);
    }
}
