//! Load through real API servers: dry-run creates that the webhook must judge, many at once, and every failure kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;
use tokio::task::JoinSet;

/// Requests that go on until told to stop.
pub(crate) struct Load {
    workers: JoinSet<Vec<String>>,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
}

impl Load {
    /// So many at once, of each API server alike. More than an API server keeps idle connections for (25) make handshakes
    /// all the time.
    pub(crate) fn start(clients: &[Client], at_once: usize, namespace: &str) -> Self {
        let mut this = Self {
            workers: JoinSet::new(),
            stop: Arc::default(),
            done: Arc::default(),
        };
        for number in 0..at_once {
            let client = clients[number % clients.len()].clone();
            let api: Api<NetworkPolicy> = Api::namespaced(client, namespace);
            let (stop, done) = (Arc::clone(&this.stop), Arc::clone(&this.done));
            this.workers.spawn(async move {
                let dry = PostParams {
                    dry_run: true,
                    ..PostParams::default()
                };
                let policy = serde_json::from_value(json!({
                    "metadata": {"name": format!("load-{number}")},
                    "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
                }))
                .unwrap();
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    if let Err(error) = api.create(&dry, &policy).await {
                        failures.push(error.to_string());
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
                failures
            });
        }
        this
    }

    /// How many requests are done.
    pub(crate) fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until so many are done.
    pub(crate) async fn reached(&self, requests: usize, within: Duration) {
        let begun = Instant::now();
        while self.done() < requests {
            assert!(
                begun.elapsed() < within,
                "{} of {requests} in {within:?}",
                self.done()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stops, and gives the number of requests; none may have failed.
    pub(crate) async fn unharmed(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        while let Some(worker) = self.workers.join_next().await {
            failures.extend(worker.unwrap());
        }
        let made = self.done();
        assert!(
            failures.is_empty(),
            "{} of {made} failed: {:?}",
            failures.len(),
            failures.first()
        );
        made
    }
}
