//! What an API server tells of a kind: all that is there, and from then on each change.
//!
//! All that is there is the beginning of a watch (`sendInitialEvents`): the API server gives one object after the other from its
//! memory, and goes on with what changes. An API server that has no such beginning, or gives none however often it is asked, is asked
//! for pages instead, each of which it may have to search all objects for. Either is at least as new as the moment in which it was
//! asked for.
//!
//! <https://kubernetes.io/docs/reference/using-api/api-concepts/#streaming-lists>

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use kube::api::{ListParams, WatchParams};
use kube::core::{Status, WatchEvent};
use kube::{Api, Client, ResourceExt as _};

use super::kind::Kind;
use super::object::{Item, Wire};

/// How many objects one page of a list has at most: what is held as JSON at once.
const PAGE: u32 = 100;
/// How long one watch request lasts, in seconds.
const WATCH_SECONDS: u32 = 120;
/// How long a watch may be silent before its connection is taken for dead: longer than an API server lets it last.
const SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 5);
/// How long anything else is waited for.
const PATIENCE: Patience = Patience {
    answer: Duration::from_mins(1),
    beginning: Duration::from_secs(20),
};
/// After how many failures in a row a beginning is given up for pages, once: an API server may fail at the one and not the other.
const FAILED_BEGINNINGS: u32 = 3;
/// A watch that ends so soon, and has told nothing, has failed.
const AT_ONCE: Duration = Duration::from_secs(1);
/// The mark of the bookmark that ends the beginning.
const END_OF_BEGINNING: &str = "k8s.io/initial-events-end";

/// The objects of a kind, at an API server.
pub(super) struct Source {
    kind: Kind,
    api: Api<Wire>,
    /// How many beginnings have failed since something was listed.
    failed: u32,
    patience: Patience,
}

#[derive(Clone, Copy)]
struct Patience {
    /// Until an API server begins to answer, which may let requests wait in turn.
    answer: Duration,
    /// Until it goes on in a beginning.
    beginning: Duration,
}

/// All objects of a kind at one moment.
pub(super) struct Listed {
    pub(super) items: Vec<Item>,
    /// What goes on from there.
    pub(super) changes: Changes,
}

/// The changes from one version on.
pub(super) struct Changes {
    version: String,
    /// The watch that tells them; none between two.
    watch: Option<Watch>,
}

struct Watch {
    events: BoxStream<'static, kube::Result<WatchEvent<Wire>>>,
    begun: Instant,
    has_told: bool,
}

/// What a watch tells: that it goes on, or what has become of one object.
pub(super) enum Told {
    /// The API server has taken it up where it was.
    Resumed,
    Applied(Wire),
    Deleted(Wire),
}

/// Why nothing is told.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The API server could not be asked, or has refused.
    #[error(transparent)]
    Request(#[from] kube::Error),
    /// It has ended a watch with an error.
    #[error("the API server ended the watch: {}", .0.message)]
    Ended(Box<Status>),
    /// It has ended a watch with nothing.
    #[error("the watch ended at once")]
    Nothing,
    /// It does not answer.
    #[error("the API server does not answer")]
    Silent,
    /// It has ended a watch before it had told all that is there.
    #[error("the watch ended before it had told all that is there")]
    BrokenOff,
    /// A watch did not begin with all that is there, as was asked for.
    #[error("the watch did not begin with all that is there")]
    NoBeginning,
    /// A list is of no version, so that nothing can go on from there.
    #[error("the list has no resourceVersion")]
    NoVersion,
}

// === impl Source ===

impl Source {
    pub(super) fn new(client: Client, kind: Kind) -> Self {
        let api = Api::all_with(client, &kind.resource());
        Self {
            kind,
            api,
            failed: 0,
            patience: PATIENCE,
        }
    }

    /// All that is there. After a failure it can be asked again.
    pub(super) async fn list(&mut self) -> Result<Listed, Failure> {
        let failure = match self.beginning().await {
            Ok(listed) => {
                self.failed = 0;
                return Ok(listed);
            }
            Err(failure) => failure,
        };
        match failure.code() {
            // An API server before Kubernetes 1.32, or one in which beginnings are turned off.
            Some(400 | 405 | 422) => {}
            // Who asks for a page is told the same.
            Some(401 | 403 | 404 | 429) => return Err(failure),
            Some(_) | None if matches!(failure, Failure::NoBeginning) => {}
            Some(_) | None => {
                self.failed = self.failed.saturating_add(1);
                if self.failed < FAILED_BEGINNINGS {
                    return Err(failure);
                }
            }
        }
        let listed = self.pages().await?;
        self.failed = 0;
        Ok(listed)
    }

    /// As the beginning of a watch.
    async fn beginning(&self) -> Result<Listed, Failure> {
        // Of no version: the newest one.
        let mut watch = self.watch("", true).await?;
        let mut items = Items::default();
        loop {
            let next = tokio::time::timeout(self.patience.beginning, watch.events.next());
            let event = next.await.map_err(|_| Failure::NoBeginning)?;
            match event.transpose()? {
                Some(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                    items.push(object.item(self.kind));
                }
                Some(WatchEvent::Bookmark(mark)) => {
                    if mark.metadata.annotations.contains_key(END_OF_BEGINNING) {
                        let version = mark.metadata.resource_version;
                        let watch = Some(watch);
                        return Ok(Listed {
                            items: items.0,
                            changes: Changes { version, watch },
                        });
                    }
                }
                Some(WatchEvent::Error(status)) => return Err(Failure::Ended(status)),
                Some(WatchEvent::Deleted(_)) => return Err(Failure::NoBeginning),
                None => return Err(Failure::BrokenOff),
            }
        }
    }

    /// In pages.
    async fn pages(&self) -> Result<Listed, Failure> {
        let mut parameters = ListParams::default().limit(PAGE);
        parameters.field_selector = self.kind.field_selector().map(str::to_owned);
        let mut items = Items::default();
        loop {
            let page = self.answer(self.api.list(&parameters)).await?;
            for object in page.items {
                items.push(object.item(self.kind));
            }
            let some = |text: &String| !text.is_empty();
            let next = page.metadata.continue_.filter(some);
            if next.is_some() {
                parameters.continue_token = next;
                continue;
            }
            let version = page.metadata.resource_version.filter(some);
            let version = version.ok_or(Failure::NoVersion)?;
            return Ok(Listed {
                items: items.0,
                changes: Changes {
                    version,
                    watch: None,
                },
            });
        }
    }

    /// The next change. After a failure it can be asked again.
    pub(super) async fn next(&self, changes: &mut Changes) -> Result<Told, Failure> {
        loop {
            let Some(mut watch) = changes.watch.take() else {
                changes.watch = Some(self.watch(&changes.version, false).await?);
                return Ok(Told::Resumed);
            };
            let told = match watch.next().await {
                Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => {
                    changes.go_on(object.resource_version());
                    Told::Applied(object)
                }
                Some(Ok(WatchEvent::Deleted(object))) => {
                    changes.go_on(object.resource_version());
                    Told::Deleted(object)
                }
                Some(Ok(WatchEvent::Bookmark(mark))) => {
                    changes.go_on(Some(mark.metadata.resource_version));
                    watch.has_told = true;
                    changes.watch = Some(watch);
                    continue;
                }
                Some(Ok(WatchEvent::Error(status))) => return Err(Failure::Ended(status)),
                Some(Err(error)) => return Err(error.into()),
                None if watch.has_told || watch.begun.elapsed() > AT_ONCE => continue,
                None => return Err(Failure::Nothing),
            };
            watch.has_told = true;
            changes.watch = Some(watch);
            return Ok(told);
        }
    }

    async fn watch(&self, version: &str, from_all: bool) -> Result<Watch, Failure> {
        let parameters = WatchParams {
            field_selector: self.kind.field_selector().map(str::to_owned),
            timeout: Some(WATCH_SECONDS),
            send_initial_events: from_all,
            ..WatchParams::default()
        };
        let begun = Instant::now();
        let events = self
            .answer(self.api.watch(&parameters, version))
            .await?
            .boxed();
        Ok(Watch {
            events,
            begun,
            has_told: false,
        })
    }

    async fn answer<T>(&self, asked: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
        let answer = tokio::time::timeout(self.patience.answer, asked).await;
        Ok(answer.map_err(|_| Failure::Silent)??)
    }
}

// === impl Changes ===

impl Changes {
    fn go_on(&mut self, version: Option<String>) {
        if let Some(version) = version.filter(|version| !version.is_empty()) {
            self.version = version;
        }
    }
}

// === impl Watch ===

impl Watch {
    /// The next event; `None` where the watch has ended, or is silent for so long that nobody can be there.
    async fn next(&mut self) -> Option<kube::Result<WatchEvent<Wire>>> {
        let next = tokio::time::timeout(SILENCE, self.events.next());
        next.await.ok().flatten()
    }
}

// === impl Failure ===

impl Failure {
    /// What the API server has answered, by HTTP's numbers.
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            Self::Request(kube::Error::Api(status)) | Self::Ended(status) => Some(status.code),
            Self::Request(_)
            | Self::Nothing
            | Self::Silent
            | Self::BrokenOff
            | Self::NoBeginning
            | Self::NoVersion => None,
        }
    }
}

/// The objects of a list, in which each has what is the same in the one before it from there.
#[derive(Default)]
struct Items(Vec<Item>);

impl Items {
    fn push(&mut self, mut item: Item) {
        if let Some(before) = self.0.last() {
            item.share(before);
        }
        self.0.push(item);
    }
}

#[cfg(test)]
pub(super) mod tests;
