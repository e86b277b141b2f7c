//! How many connections there may be at once.
//!
//! At the limit a new connection is let in by sending another one away: first one that never asked for anything, then one
//! that asks and does not send the body, else the one that has been idle for longest. So somebody who opens connections and
//! leaves them lying cannot keep the API server out. When every connection is busy, new ones wait in the kernel's queue.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::activity::Activity;

/// How long a first request, or the body of one, may be on its way before its connection counts as one that makes room.
const ON_ITS_WAY: Duration = Duration::from_millis(250);

/// What a connection that is not busy has been good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    /// It never asked for anything.
    None,
    /// It asks, and does not send the body.
    Owes,
    /// It has had no time to ask.
    Fresh,
    /// It has asked before.
    Served,
}

/// Lets connections in.
#[derive(Debug)]
pub(super) struct Gate {
    limit: usize,
    inside: Mutex<Inside>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Inside {
    next: u64,
    connections: HashMap<u64, Arc<Activity>>,
}

/// The right to be connected; given back when dropped.
#[derive(Debug)]
pub(super) struct Pass {
    gate: Arc<Gate>,
    number: u64,
    activity: Arc<Activity>,
}

// === impl Gate ===

impl Gate {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: limit.max(1),
            inside: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// Waits for a place, making one where it can.
    pub(super) async fn admit(self: &Arc<Self>) -> Pass {
        loop {
            if let Some(pass) = self.try_admit() {
                return pass;
            }
            // A busy connection that falls idle tells nobody, so look again soon in any case.
            let _ = timeout(Duration::from_millis(20), self.freed.notified()).await;
        }
    }

    fn try_admit(self: &Arc<Self>) -> Option<Pass> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if inside.connections.len() >= self.limit {
            let least_use = inside
                .connections
                .values()
                .filter_map(|activity| Some((use_of(activity)?, activity)))
                .min_by_key(|(of_use, _)| *of_use);
            // For one that has just come the next one waits, rather than that one of use goes.
            if let Some(((of_use, _), activity)) = least_use
                && of_use != Use::Fresh
            {
                activity.tell_to_go();
            }
            return None;
        }
        let number = inside.next;
        inside.next = number.wrapping_add(1);
        let activity = Activity::new();
        inside.connections.insert(number, Arc::clone(&activity));
        Some(Pass {
            gate: Arc::clone(self),
            number,
            activity,
        })
    }
}

/// How much use a connection is, the least first; `None` for one that is busy.
fn use_of(activity: &Activity) -> Option<(Use, Instant)> {
    if let Some(since) = activity.owes_since() {
        return (since.elapsed() >= ON_ITS_WAY).then_some((Use::Owes, since));
    }
    if activity.is_busy() {
        return None;
    }
    let since = activity.idle_from();
    let of_use = if activity.has_served() {
        Use::Served
    } else if since.elapsed() < ON_ITS_WAY {
        Use::Fresh
    } else {
        Use::None
    };
    Some((of_use, since))
}

// === impl Pass ===

impl Pass {
    pub(super) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.gate
            .inside
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .connections
            .remove(&self.number);
        self.gate.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn is_told_to_go(pass: &Pass) -> bool {
        timeout(Duration::from_millis(1), pass.activity().told_to_go())
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn the_connection_of_least_use_makes_room() {
        let gate = Gate::new(3);
        let useful = gate.admit().await;
        drop(useful.activity().begin_request());
        let busy = gate.admit().await;
        let _request = busy.activity().begin_request();
        let silent = gate.admit().await;
        assert!(gate.try_admit().is_none());
        assert!(!is_told_to_go(&silent).await, "it has just come");
        assert!(!is_told_to_go(&useful).await, "nor for it");
        tokio::time::sleep(ON_ITS_WAY).await;
        assert!(gate.try_admit().is_none());
        assert!(is_told_to_go(&silent).await, "it never asked for anything");
        drop(silent);
        let next = gate.admit().await;
        drop(next.activity().begin_request());
        assert!(gate.try_admit().is_none());
        assert!(is_told_to_go(&useful).await, "idle for longest");
        assert!(!is_told_to_go(&busy).await);
        drop(useful);
        assert!(gate.try_admit().is_some());
    }

    #[tokio::test]
    async fn who_owes_a_body_makes_room_before_who_was_of_use() {
        let gate = Gate::new(2);
        let useful = gate.admit().await;
        drop(useful.activity().begin_request());
        let owing = gate.admit().await;
        let _request = owing.activity().begin_request();
        let owed = owing.activity().owe_body();
        assert!(gate.try_admit().is_none());
        assert!(!is_told_to_go(&owing).await, "the body is on its way");
        assert!(is_told_to_go(&useful).await);
        tokio::time::sleep(ON_ITS_WAY).await;
        assert!(gate.try_admit().is_none());
        assert!(is_told_to_go(&owing).await && !is_told_to_go(&useful).await);
        drop(owed);
        assert!(gate.try_admit().is_none());
        assert!(!is_told_to_go(&owing).await, "it is judged now");
    }

    #[tokio::test]
    async fn with_all_busy_the_next_waits_until_one_leaves() {
        let gate = Gate::new(1);
        let busy = gate.admit().await;
        let _request = busy.activity().begin_request();
        let waiting = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { drop(gate.admit().await) }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!waiting.is_finished());
        drop(busy);
        waiting.await.unwrap();
    }
}
