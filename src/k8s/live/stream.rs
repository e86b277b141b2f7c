//! One watch: from the API server's events to changes of the index, for as long as the process lives.
//!
//! A list comes in pages and is held back until it is complete, so that it takes effect at once. After a failure the watch
//! goes on where it was; after several, or when the API server says that it has forgotten (410), it begins with a new list.

use std::hash::{BuildHasher as _, RandomState};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use kube::core::ApiResource;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use tokio::sync::mpsc;

use super::health::Health;
use super::index::Change;
use super::kind::Kind;
use super::object::Wire;
use crate::k8s::served;

/// How many objects one page of a list has at most: what is held as JSON at once.
const PAGE: u32 = 100;
/// How long one watch request lasts, in seconds: also how long a connection that died silently goes unnoticed at most.
const WATCH_SECONDS: u32 = 120;
/// The first pause after a failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
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
    let mut config = watcher::Config::default()
        .page_size(PAGE)
        .timeout(WATCH_SECONDS);
    config.field_selector = kind.field_selector().map(str::to_owned);
    let resource = kind.resource();
    let send = async |change| changes.send((kind, change)).await.map_err(|_| Closed);
    loop {
        let api: Api<Wire> = Api::all_with(client.clone(), &resource);
        let mut events = pin!(watcher::watcher(api, config.clone()));
        let (mut listed, mut failures) = (Vec::new(), 0);
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed = Vec::new(),
                Ok(Event::InitApply(object)) => {
                    let mut item = object.item(kind);
                    if let Some(before) = listed.last() {
                        item.share(before);
                    }
                    listed.push(item);
                }
                Ok(Event::InitDone) => {
                    failures = 0;
                    send(Change::Restart(std::mem::take(&mut listed))).await?;
                }
                Ok(Event::Apply(object)) => {
                    failures = 0;
                    send(Change::Apply(Box::new(object.item(kind)))).await?;
                }
                Ok(Event::Delete(object)) => {
                    failures = 0;
                    send(Change::Delete(object.key())).await?;
                }
                Err(error) if kind.is_optional() && is_absent(&client, &resource, &error).await => {
                    send(Change::Absent).await?;
                    tokio::time::sleep(absent(kind)).await;
                    break;
                }
                Err(error) => {
                    failures += 1;
                    let pause = pause(failures);
                    if health.failed(kind, Instant::now(), pause) {
                        tracing::warn!(kind = kind.as_str(), error = %words(&error), "the watch failed, trying again");
                    }
                    tokio::time::sleep(pause).await;
                    if failures >= FAILURES {
                        break;
                    }
                }
            }
        }
    }
}

/// Whether the API server serves no such resource.
async fn is_absent(client: &Client, resource: &ApiResource, error: &watcher::Error) -> bool {
    match code(error) {
        Some(404) => true,
        Some(403) => served::is_absent(client, &resource.api_version, &resource.plural).await,
        _ => false,
    }
}

/// What the API server has answered, by HTTP's numbers.
fn code(error: &watcher::Error) -> Option<u16> {
    let source = match error {
        watcher::Error::InitialListFailed(source)
        | watcher::Error::WatchStartFailed(source)
        | watcher::Error::WatchFailed(source) => source,
        watcher::Error::WatchError(status) => return Some(status.code),
        watcher::Error::NoResourceVersion => return None,
    };
    match source {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// The error with its causes.
pub(super) fn words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !words.contains(&more) {
            words.push_str(": ");
            words.push_str(&more);
        }
        cause = error.source();
    }
    words
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
}
