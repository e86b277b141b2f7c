//! A cluster for who goes by what the policies mean and nothing else: each change as soon as it is told.
//!
//! The same watches as for [`State`](crate::guard::decide::State), but only of the kinds that the model holds; nothing is
//! published at intervals, and every snapshot comes with what has changed since the one before. What comes while the taker is
//! busy is taken together.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;
use tokio::sync::mpsc;

use super::health::Health;
use super::index::{Change, Index, Undecodable};
use super::kind::Kind;
use super::stream;
use super::{Ended, WAITING};
use crate::guard::review::Kind as Known;
use crate::netpol::{Object, ObjectKey, Snapshot};
use crate::runtime::Tasks;

/// The kinds of the model that say who may reach whom.
const KINDS: [Kind; 8] = [
    Kind::Namespace,
    Kind::Pod,
    Kind::Node,
    Kind::NetworkPolicy,
    Kind::StagedNetworkPolicy,
    Kind::ClusterNetworkPolicy,
    Kind::AdminNetworkPolicy,
    Kind::BaselineAdminNetworkPolicy,
];

/// The changes of a cluster, one after the other.
#[derive(Debug)]
pub struct Feed {
    changes: mpsc::Receiver<(Kind, Change)>,
    index: Index,
    undecodable: Arc<[Undecodable]>,
    health: Arc<Health>,
    complete: bool,
}

/// The cluster after some changes.
#[derive(Clone, Debug)]
pub struct Update {
    /// How it is now.
    pub snapshot: Snapshot,
    /// What has come, changed or gone since the update before.
    pub changed: Vec<ObjectKey>,
    /// What cannot be understood, so that it is not as it is written in the snapshot.
    pub undecodable: Arc<[Undecodable]>,
    /// When the first of these changes was told.
    pub told: Instant,
}

/// Begins to follow a cluster.
pub fn feed(client: &Client, tasks: &mut Tasks) -> Feed {
    let health = Arc::new(Health::new(KINDS, Instant::now()));
    let (sender, changes) = mpsc::channel(WAITING);
    for kind in KINDS {
        let health = Arc::clone(&health);
        tasks.spawn(
            "watch",
            stream::follow(client.clone(), kind, health, sender.clone()),
        );
    }
    tasks.spawn("probe", super::probe(client.clone(), Arc::clone(&health)));
    Feed {
        changes,
        index: Index::default(),
        undecodable: Arc::default(),
        health,
        complete: false,
    }
}

impl Feed {
    /// Waits for the next changes; the first time, until every first list is complete. May be given up and asked again.
    ///
    /// # Errors
    ///
    /// The watches have ended.
    pub async fn next(&mut self) -> Result<Update, Ended> {
        loop {
            let (kind, change) = self.changes.recv().await.ok_or(Ended)?;
            let told = Instant::now();
            self.take(kind, change);
            while let Ok((kind, change)) = self.changes.try_recv() {
                self.take(kind, change);
            }
            let first = !self.complete && self.health.missing().is_empty();
            self.complete |= first;
            if !self.complete {
                continue;
            }
            let undecodable = self.index.undecodable_if_changed();
            let is_other = undecodable.is_some();
            if let Some(undecodable) = undecodable {
                self.undecodable = undecodable.into();
            }
            let (snapshot, changed) = self.index.model();
            if first || is_other || !changed.is_empty() {
                return Ok(Update {
                    snapshot,
                    changed,
                    undecodable: Arc::clone(&self.undecodable),
                    told,
                });
            }
        }
    }

    /// The kinds of which changes may have been missed for longer than this, although the API server answers.
    pub fn doubted(&self, longer: Duration) -> Vec<Kind> {
        self.health.doubted(Instant::now(), longer)
    }

    fn take(&mut self, kind: Kind, change: Change) {
        match &change {
            Change::Restart(_) => self.health.listed(kind, false),
            Change::Absent => self.health.listed(kind, true),
            Change::Apply(_) | Change::Delete(_) => {
                self.health.told(kind);
                false
            }
        };
        self.index.take(kind, enforced(change));
    }
}

/// Policies of a namespace that is being deleted hold its pods until they are gone themselves: the pods go first, and may
/// take their time.
fn enforced(mut change: Change) -> Change {
    let items = match &mut change {
        Change::Apply(item) => std::slice::from_mut(&mut **item),
        Change::Restart(items) => items.as_mut_slice(),
        Change::Delete(_) | Change::Absent => &mut [],
    };
    for item in items {
        if let Known::Model(parsed) = &mut item.known
            && let Object::Namespace(namespace) = &mut parsed.object
        {
            namespace.terminating = false;
        }
    }
    change
}
