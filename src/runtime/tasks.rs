//! Tasks that somebody owns: each has a name, and its end is always noticed.

use std::collections::HashMap;
use std::future::Future;

use tokio::task::{Id, JoinSet};

/// Why a task ended badly.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The task's own error.
    #[error("task {name} failed")]
    Failed {
        /// The task.
        name: &'static str,
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The task panicked.
    #[error("task {name} panicked")]
    Panicked {
        /// The task.
        name: &'static str,
    },
}

/// A task that came to its end.
#[derive(Debug)]
pub struct TaskEnd {
    /// The task.
    pub name: &'static str,
    /// How it ended.
    pub result: Result<(), TaskError>,
}

/// The tasks of a process. Dropping it stops them all.
#[derive(Debug, Default)]
pub struct Tasks {
    set: JoinSet<Result<(), Box<dyn std::error::Error + Send + Sync>>>,
    names: HashMap<Id, &'static str>,
}

impl Tasks {
    /// No tasks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task.
    pub fn spawn<F, E>(&mut self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let handle = self
            .set
            .spawn(async move { task.await.map_err(Into::into) });
        self.names.insert(handle.id(), name);
    }

    /// Waits for the next task to end; `None` when none is left.
    pub async fn next_end(&mut self) -> Option<TaskEnd> {
        let (id, outcome) = match self.set.join_next_with_id().await? {
            Ok((id, outcome)) => (id, Some(outcome)),
            Err(error) => (
                error.id(),
                if error.is_panic() { None } else { Some(Ok(())) },
            ),
        };
        let name = self.names.remove(&id).unwrap_or("unnamed");
        let result = match outcome {
            Some(Ok(())) => Ok(()),
            Some(Err(source)) => Err(TaskError::Failed { name, source }),
            None => Err(TaskError::Panicked { name }),
        };
        Some(TaskEnd { name, result })
    }

    /// Stops every task and waits until they are gone.
    pub async fn stop(&mut self) {
        self.set.shutdown().await;
        self.names.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_end_is_noticed_with_its_name() {
        let mut tasks = Tasks::new();
        tasks.spawn("good", async { Ok::<_, std::io::Error>(()) });
        tasks.spawn("bad", async { Err(std::io::Error::other("no disk")) });
        tasks.spawn("broken", async {
            assert!(std::hint::black_box(false), "broken");
            Ok::<_, std::io::Error>(())
        });
        let mut ends = Vec::new();
        while let Some(end) = tasks.next_end().await {
            ends.push((end.name, end.result.map_err(|error| error.to_string())));
        }
        ends.sort();
        assert_eq!(
            ends,
            [
                ("bad", Err("task bad failed".to_owned())),
                ("broken", Err("task broken panicked".to_owned())),
                ("good", Ok(())),
            ]
        );
    }

    #[tokio::test]
    async fn stopping_ends_what_would_run_for_ever() {
        let mut tasks = Tasks::new();
        tasks.spawn(
            "endless",
            std::future::pending::<Result<(), std::io::Error>>(),
        );
        tasks.stop().await;
        assert!(tasks.next_end().await.is_none());
    }
}
