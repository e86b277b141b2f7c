//! What the receipts of 1 000 nodes cost an API server: their size, and how often they are written.
//!
//! `cargo bench --bench receipts`, some ten minutes: the receipt code of the agent, once for each node, against a real API server.
//! 10 000 pods and 2 000 policies are spread over the nodes; what a kernel holds is taken from the model once, goes on to the next
//! generation with each edit, and is read back some seconds after a change as the agent does. It prints how many bytes a receipt has as it is stored, and the writes of each second:
//! when all agents start at once, at rest, while policies are edited, and while a policy of the whole cluster is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a bench that cannot run says so by a panic"
)]

use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::Client;
use ringfence::agent::enforce::Holding;
use ringfence::agent::receipt;
use ringfence::guard::enforcement::HeldPolicy;
use ringfence::netpol::{NamespaceName, NetworkPolicy, NodeName, Object, Snapshot, parse};
use serde_json::Value;
use tokio::sync::watch;

#[path = "../cluster/installation.rs"]
#[allow(dead_code)] // the tests use the rest
mod installation;
#[path = "../cluster/kubernetes.rs"]
#[allow(dead_code)]
mod kubernetes;
#[path = "../support/large.rs"]
mod large;
#[path = "../cluster/process.rs"]
#[allow(dead_code)]
mod process;

use kubernetes::Kubernetes;

/// How many nodes there are.
const NODES: usize = 1_000;
/// How many pods there are on all of them.
const PODS: usize = 10_000;
/// How soon after a change an agent reads its kernel back.
const READ_BACK: Duration = Duration::from_secs(3);
/// How many policies are edited in a second.
const EDITS: u64 = 10;
/// How often it is looked what has changed.
const TICK: Duration = Duration::from_millis(100);

/// A node whose agent only writes receipts.
struct Agent {
    pods: usize,
    policies: Vec<HeldPolicy>,
    held: watch::Sender<Holding>,
    /// When it reads back what has changed.
    due: Option<Instant>,
}

/// All of them, and what is edited.
struct Cluster {
    agents: Vec<Agent>,
    policies: Vec<(NamespaceName, String)>,
    wide: String,
    generation: i64,
}

/// What is changed meanwhile.
#[derive(Clone, Copy, PartialEq)]
enum Edit {
    Nothing,
    Policies,
    Wide,
}

fn main() {
    // `cargo test --benches` comes here as well; only a bench is asked to measure.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(measure());
}

async fn measure() {
    let kubernetes = Kubernetes::start().await;
    installation::install_kinds(&kubernetes).await;
    let client = kubernetes.client().await;
    let mut cluster = Cluster::start(&client);
    let held = cluster.agents.iter().map(|agent| agent.policies.len());
    let held: Vec<usize> = held.collect();
    println!(
        "{NODES} nodes, {PODS} pods, {} policies; a node holds {} of them (the most: {})",
        cluster.policies.len(),
        middle(&held),
        held.iter().max().unwrap()
    );
    let seconds = Duration::from_secs;
    cluster
        .phase("all start at once", Edit::Nothing, seconds(20), &client)
        .await;
    sizes(&client).await;
    cluster
        .phase("at rest", Edit::Nothing, seconds(330), &client)
        .await;
    let edited = format!("{EDITS} policies edited in a second");
    cluster
        .phase(&edited, Edit::Policies, seconds(60), &client)
        .await;
    let wide = "a policy of the whole cluster edited in every second";
    cluster.phase(wide, Edit::Wide, seconds(60), &client).await;
    sizes(&client).await;
}

impl Cluster {
    fn start(client: &Client) -> Self {
        // A hundred more are on the network of their nodes.
        let objects = large::objects(PODS + 100).into_iter();
        let objects = objects.map(|value| parse(&value).unwrap().unwrap().object);
        let (mut snapshot, mut pods) = (Snapshot::default(), Vec::new());
        for object in objects {
            match object {
                Object::Pod(pod) if !pod.host_network => pods.push(pod),
                Object::Pod(_) | Object::Workload(_) => {}
                other => snapshot.insert(other),
            }
        }
        assert_eq!(pods.len(), PODS);
        let agents = pods.chunks(PODS / NODES).enumerate().map(|(node, pods)| {
            let (held, receiver) = watch::channel(Holding::default());
            let node = NodeName::from(format!("node-{node}"));
            tokio::spawn(receipt::write(client.clone(), node, receiver));
            let mut policies = HeldPolicy::of(&snapshot, pods);
            for policy in &mut policies {
                policy.generation = Some(1);
            }
            Agent {
                pods: pods.len(),
                policies,
                held,
                due: Some(Instant::now()),
            }
        });
        let named = |policy: &NetworkPolicy| (policy.namespace.clone(), policy.name.to_string());
        let mut cluster = Self {
            agents: agents.collect(),
            policies: snapshot.policies().map(named).collect(),
            wide: snapshot
                .cluster_policies()
                .last()
                .unwrap()
                .reference
                .name
                .to_string(),
            generation: 1,
        };
        cluster.read_back();
        cluster
    }

    /// Goes on for a time and prints how often was written.
    async fn phase(&mut self, name: &str, edit: Edit, length: Duration, client: &Client) {
        let begun = Instant::now();
        let (mut edits, mut rates) = (0, Vec::new());
        let first = written(client).await;
        let (mut looked, mut before) = (Instant::now(), first);
        while begun.elapsed() < length {
            tokio::time::sleep(TICK).await;
            self.edit(edit, &mut edits, begun.elapsed());
            self.read_back();
            let since = looked.elapsed();
            if since >= Duration::from_secs(1) {
                let now = written(client).await;
                rates.push((now - before) as f64 / since.as_secs_f64());
                (looked, before) = (Instant::now(), now);
            }
        }
        let total = written(client).await - first;
        let busy = rates.iter().filter(|rate| **rate > 0.0).count();
        rates.sort_unstable_by(f64::total_cmp);
        println!(
            "{name}, {length:?}: {total} writes, {:.1} in a second (p50 {:.0}, p99 {:.0}, most {:.0}; none in {} of {} looks)",
            total as f64 / begun.elapsed().as_secs_f64(),
            rates[rates.len() / 2],
            rates[rates.len() * 99 / 100],
            rates[rates.len() - 1],
            rates.len() - busy,
            rates.len(),
        );
    }

    fn edit(&mut self, edit: Edit, edits: &mut u64, elapsed: Duration) {
        let per_second = match edit {
            Edit::Nothing => return,
            Edit::Policies => EDITS,
            Edit::Wide => 1,
        };
        let wanted = u64::try_from(elapsed.as_millis()).unwrap() * per_second / 1_000;
        while *edits < wanted {
            *edits += 1;
            self.generation += 1;
            let number = usize::try_from(*edits).unwrap() * 7 % self.policies.len();
            let (namespace, name) = match edit {
                Edit::Wide => (None, &self.wide),
                Edit::Policies | Edit::Nothing => {
                    let (namespace, name) = &self.policies[number];
                    (Some(namespace.as_str()), name)
                }
            };
            for agent in &mut self.agents {
                let is_it = |held: &&mut HeldPolicy| {
                    held.namespace.as_deref() == namespace && held.name == *name
                };
                if let Some(held) = agent.policies.iter_mut().find(is_it) {
                    held.generation = Some(self.generation);
                    agent.due.get_or_insert(Instant::now() + READ_BACK);
                }
            }
        }
    }

    fn read_back(&mut self) {
        let now = Instant::now();
        let is_due = |agent: &&mut Agent| agent.due.is_some_and(|due| due <= now);
        for agent in self.agents.iter_mut().filter(is_due) {
            agent.due = None;
            agent.held.send_replace(Holding {
                policies: agent.policies.clone(),
                pods: agent.pods,
                unchecked: 0,
                digest: format!("{:064x}", self.generation),
                failure: None,
                read_back: Some(Timestamp::now()),
            });
        }
    }
}

/// How many bytes the receipts have, as the API server keeps them, and what its store has.
async fn sizes(client: &Client) {
    let path = "/apis/ringfence.dev/v1alpha1/nodeenforcements";
    let list = client.request::<Value>(get(path)).await.unwrap();
    let of = |item: &Value| item.to_string().len();
    let items = list["items"].as_array().unwrap();
    let kept: Vec<usize> = items.iter().map(of).collect();
    let managed = items
        .iter()
        .map(|item| of(&item["metadata"]["managedFields"]));
    let managed: Vec<usize> = managed.collect();
    println!(
        "{} receipts: {} bytes (p50; of them {} say who wrote which field), the longest {}; together {} KB",
        kept.len(),
        middle(&kept),
        middle(&managed),
        kept.iter().max().unwrap(),
        kept.iter().sum::<usize>() / 1024
    );
    let metrics = metrics(client).await;
    let store = metrics
        .lines()
        .filter(|line| line.starts_with("apiserver_storage_size_bytes{"));
    let store: f64 = store.filter_map(last).sum();
    println!(
        "the store has {:.1} MB, with the versions that are not compacted yet",
        store / 1e6
    );
}

/// How many receipts were written by now, by the API server's own word.
async fn written(client: &Client) -> u64 {
    let metrics = metrics(client).await;
    let requests = metrics.lines().filter(|line| {
        line.starts_with("apiserver_request_total{")
            && line.contains("resource=\"nodeenforcements\"")
            && line.contains("verb=\"APPLY\"")
    });
    requests.filter_map(last).sum::<f64>() as u64
}

/// What the API server counts. One that is busy may drop a connection that it was asked by.
async fn metrics(client: &Client) -> String {
    for _ in 0..5 {
        if let Ok(metrics) = client.request_text(get("/metrics")).await {
            return metrics;
        }
        tokio::time::sleep(TICK).await;
    }
    panic!("the API server does not tell what it counts");
}

fn last(line: &str) -> Option<f64> {
    line.rsplit(' ').next()?.parse().ok()
}

fn middle(all: &[usize]) -> usize {
    let mut all = all.to_vec();
    all.sort_unstable();
    all[all.len() / 2]
}

fn get(path: &str) -> hyper::Request<Vec<u8>> {
    hyper::Request::get(path).body(Vec::new()).unwrap()
}
