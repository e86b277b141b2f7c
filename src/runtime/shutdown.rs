//! How a process stops: the first signal drains, the second aborts.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How far a process is on its way out. It only ever moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Doing its work.
    Running,
    /// No longer ready, finishing what has begun.
    Draining,
    /// Dropping what is left.
    Aborting,
}

/// Moves a process towards its end.
#[derive(Debug)]
pub struct Trigger(watch::Sender<Phase>);

/// Tells how far the process is on its way out; cheap to clone.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<Phase>);

// === impl Trigger ===

impl Trigger {
    /// A trigger and what it moves.
    pub fn new() -> (Self, Shutdown) {
        let (sender, receiver) = watch::channel(Phase::Running);
        (Self(sender), Shutdown(receiver))
    }

    /// Moves to this phase, unless it is reached already.
    pub fn advance_to(&self, phase: Phase) {
        self.0.send_if_modified(|current| {
            let forward = *current < phase;
            if forward {
                *current = phase;
            }
            forward
        });
    }

    /// Moves one phase on, as a signal does, and returns the new phase.
    pub fn advance(&self) -> Phase {
        let next = match *self.0.borrow() {
            Phase::Running => Phase::Draining,
            Phase::Draining | Phase::Aborting => Phase::Aborting,
        };
        self.advance_to(next);
        next
    }
}

// === impl Shutdown ===

impl Shutdown {
    /// How far the process is now.
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Waits until the process has come as far as this phase. With its trigger gone nothing could stop the process any
    /// more, so that counts as the order to drain.
    pub async fn reached(&mut self, phase: Phase) {
        if self.0.wait_for(|current| *current >= phase).await.is_err() && phase == Phase::Aborting {
            std::future::pending::<()>().await;
        }
    }
}

/// Turns SIGTERM and SIGINT into phases: the first drains, the second aborts. Runs until aborting.
pub async fn follow_signals(trigger: Trigger) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        match trigger.advance() {
            Phase::Running => {}
            Phase::Draining => {
                tracing::info!(signal = name, "draining, a second signal stops at once");
            }
            Phase::Aborting => {
                tracing::warn!(signal = name, "stopping at once");
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn phases_only_move_forward() {
        let (trigger, mut shutdown) = Trigger::new();
        assert_eq!(shutdown.phase(), Phase::Running);
        assert_eq!(trigger.advance(), Phase::Draining);
        shutdown.reached(Phase::Draining).await;
        assert_eq!(trigger.advance(), Phase::Aborting);
        trigger.advance_to(Phase::Draining);
        assert_eq!(shutdown.phase(), Phase::Aborting);
        shutdown.reached(Phase::Aborting).await;
    }

    #[tokio::test]
    async fn losing_the_trigger_drains_and_does_not_abort() {
        let (trigger, mut shutdown) = Trigger::new();
        drop(trigger);
        shutdown.reached(Phase::Draining).await;
        let aborted = shutdown.reached(Phase::Aborting);
        assert!(
            tokio::time::timeout(std::time::Duration::from_millis(20), aborted)
                .await
                .is_err()
        );
    }
}
