//! When the API server told of a change, by watches that have nothing to do with the agents: an agent cannot know of it earlier.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::DynamicObject;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use ringfence::netpol::{ObjectKey, parse};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use crate::site::Kind;

/// What an object became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is there, by this `resourceVersion`.
    Now(ObjectKey, u64),
    /// It is gone.
    Gone(ObjectKey),
}

/// Watches, and all that they told.
pub(crate) struct News {
    told: Arc<Mutex<Vec<(Instant, Change)>>>,
    _watches: JoinSet<()>,
}

// === impl News ===

impl News {
    /// Watches all that policies see of pods, with connections of its own.
    pub(crate) fn watch(client: &Client) -> Self {
        let told = Arc::default();
        let mut watches = JoinSet::new();
        let all = Api::<Namespace>::all(client.clone());
        watches.spawn(follow(all, Arc::clone(&told)));
        let all = Api::<Pod>::all(client.clone());
        watches.spawn(follow(all, Arc::clone(&told)));
        let all = Api::<NetworkPolicy>::all(client.clone());
        watches.spawn(follow(all, Arc::clone(&told)));
        for kind in [Kind::Staged, Kind::Cluster] {
            let all = Api::<DynamicObject>::all_with(client.clone(), &kind.resource());
            watches.spawn(follow(all, Arc::clone(&told)));
        }
        Self {
            told,
            _watches: watches,
        }
    }

    /// When a change was told that had been asked for at some time; one that changed nothing, earlier than that.
    pub(crate) fn of(&self, change: &Change, asked: Instant) -> Option<Instant> {
        let told = self.told.lock().unwrap();
        let is_it = |(at, it): &&(Instant, Change)| match (it, change) {
            (Change::Now(key, version), Change::Now(wanted, least)) => {
                key == wanted && version >= least
            }
            (Change::Gone(key), Change::Gone(wanted)) => key == wanted && *at >= asked,
            _ => false,
        };
        told.iter().find(is_it).map(|(at, _)| *at)
    }
}

async fn follow<K>(all: Api<K>, told: Arc<Mutex<Vec<(Instant, Change)>>>)
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize + Send + 'static,
{
    let events = watcher(all, watcher::Config::default());
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        let change = match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                Some(Change::Now(key(&object), version(&object)))
            }
            Ok(watcher::Event::Delete(object)) => Some(Change::Gone(key(&object))),
            Ok(watcher::Event::Init | watcher::Event::InitDone) | Err(_) => None,
        };
        told.lock()
            .unwrap()
            .extend(change.map(|change| (Instant::now(), change)));
    }
}

fn key(object: &impl Serialize) -> ObjectKey {
    let manifest = serde_json::to_value(object).unwrap();
    parse(&manifest)
        .unwrap()
        .expect("a kind of the model")
        .object
        .key()
}

fn version(object: &impl Resource) -> u64 {
    let version = object.meta().resource_version.as_deref();
    version.unwrap().parse().expect("a number, as etcd counts")
}
