//! Reachability of a large cluster: 10 000 pods of 1 500 workloads in 500 namespaces with 2 000 policies
//! and 20 of the cluster.
//!
//! `cargo bench --bench reach`; `PODS=100000` before it for another number of pods. What each does:
//!
//! - `parse`, `model`: JSON to objects, objects to a snapshot;
//! - `reach`: all of it, a judged cluster and every connection by workload; `reach-half` with half of the policies,
//!   which shows how the cost grows; `reach-open` without any, where everyone reaches everyone;
//! - `why`: one flow explained;
//! - `diff`: two snapshots to a comparison in words, when one policy opens and when all policies of a kind go;
//!   `diff-open` when all policies go.
//!
//! What it prints first is a single run of each, with the memory that the process has needed at most until then.

// What a bench cannot prepare has failed.
#![allow(clippy::expect_used)]

use std::hint::black_box;
use std::time::Instant;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use ringfence::netpol::reach::Diff;
use ringfence::netpol::{
    Endpoint, Flow, Object, Port, Protocol, Reachability, Snapshot, WorkloadKind, parse,
};
use ringfence::report::diff::{Comparison, Counts};
use ringfence::report::reach::{Grouping, Listing};
use serde_json::json;

#[path = "../support/large.rs"]
mod large;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many pods there are where nothing else is said.
const PODS: usize = 10_000;

/// The most memory that the process has had, as Linux counts it.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    most.map_or_else(|| "unknown".to_owned(), |most| most.trim().to_owned())
}

/// Runs something once and prints how long it took.
fn once<T>(name: &str, run: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = run();
    eprintln!(
        "{name}: {:?}, memory so far {}",
        started.elapsed(),
        memory()
    );
    result
}

/// Every connection of a cluster.
fn connections(snapshot: &Snapshot) -> usize {
    let reach = Reachability::of(snapshot);
    reach.rows(|_| true).map(|row| row.to.len()).sum()
}

fn compare(old: &Snapshot, new: &Snapshot) -> Counts {
    let (old, new) = (Reachability::of(old), Reachability::of(new));
    let comparison = Comparison {
        old: "old",
        new: "new",
        diff: &Diff::of(&old, &new),
    };
    comparison
        .text(&mut std::io::sink())
        .expect("it is written")
}

/// A cluster without the policies of which the function says so.
fn without(snapshot: &Snapshot, is_left_out: impl Fn(usize, &str) -> bool) -> Snapshot {
    let names = snapshot.policies().enumerate();
    let left_out: Vec<_> = names
        .filter(|(index, policy)| is_left_out(*index, policy.name.as_str()))
        .map(|(_, policy)| Object::NetworkPolicy(policy.clone()).key())
        .collect();
    let mut changed = snapshot.clone();
    for key in &left_out {
        changed.remove(key);
    }
    changed
}

/// A cluster without policies of any kind.
fn without_any(snapshot: &Snapshot) -> Snapshot {
    let mut open = without(snapshot, |_, _| true);
    for policy in snapshot.cluster_policies() {
        open.remove(&Object::ClusterNetworkPolicy(policy.clone()).key());
    }
    open
}

/// The same cluster, but one database is open to all.
fn one_opens(snapshot: &Snapshot) -> Snapshot {
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "oops", "namespace": "team-1"},
        "spec": {"podSelector": {"matchLabels": {"app": "app-2"}}, "ingress": [{}]}
    });
    let parsed = parse(&policy).expect("valid").expect("a kind of the model");
    snapshot.with(parsed.object)
}

fn reach(criterion: &mut Criterion) {
    let asked = std::env::var("PODS").ok();
    let pods = asked.map_or(PODS, |pods| pods.parse().expect("PODS: a number"));
    let values = large::objects(pods);
    let objects: Vec<Object> = values
        .iter()
        .filter_map(|value| Some(parse(value).expect("valid")?.object))
        .collect();
    eprintln!(
        "{pods} pods, memory for their JSON and objects {}",
        memory()
    );
    let snapshot: Snapshot = once("model", || objects.iter().cloned().collect());
    let opened = one_opens(&snapshot);
    let half = without(&snapshot, |index, _| index % 2 == 1);
    let no_scrapes = without(&snapshot, |_, name| name == "scrape");
    let open = without_any(&snapshot);
    let reach = once("classes", || Reachability::of(&snapshot));
    let found = once("reach", || connections(&snapshot));
    eprintln!(
        "{} workloads, {} policies and {} of the cluster, {} classes, {found} connections",
        reach.workloads().len(),
        snapshot.policies().count(),
        snapshot.cluster_policies().count(),
        reach.classes()
    );
    let found = once("reach-open", || connections(&open));
    eprintln!("all open: {found} connections");
    once("reach-open as text", || {
        let reach = Reachability::of(&open);
        let listing = Listing {
            rows: reach.rows(|_| true),
            workloads: reach.workloads(),
            grouping: Grouping::Auto,
            exposure: None,
        };
        listing.text(&mut std::io::sink()).expect("it is written");
    });
    eprintln!("{}", once("diff", || compare(&snapshot, &opened)));
    eprintln!("{}", once("diff-many", || compare(&snapshot, &no_scrapes)));
    eprintln!("{}", once("diff-open", || compare(&snapshot, &open)));

    let mut group = criterion.benchmark_group("reach");
    group.sample_size(10);
    group.bench_function("parse", |bencher| {
        bencher.iter(|| values.iter().filter_map(|value| parse(value).ok()).count());
    });
    group.bench_function("model", |bencher| {
        bencher.iter_batched(
            || objects.clone(),
            |objects| objects.into_iter().collect::<Snapshot>(),
            BatchSize::LargeInput,
        );
    });
    for (name, snapshot) in [
        ("reach", &snapshot),
        ("reach-half", &half),
        ("reach-open", &open),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| connections(black_box(snapshot)));
        });
    }
    let own = |app: &str| {
        let mut pods = snapshot.pods();
        let found = pods.find(|pod| {
            pod.workload.kind == WorkloadKind::Pod
                && pod.labels.get("app") == Some(app)
                && *pod.namespace() == *"team-1"
        });
        Endpoint::Pod(found.expect("a pod of it"))
    };
    let port = Port::new(8080).expect("a port");
    let flow = Flow::new(own("app-0"), own("app-2"), Protocol::Tcp, port);
    group.bench_function("why", |bencher| {
        bencher.iter(|| snapshot.explain(black_box(&flow)));
    });
    for (name, new) in [
        ("diff", &opened),
        ("diff-many", &no_scrapes),
        ("diff-open", &open),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| compare(black_box(&snapshot), black_box(new)));
        });
    }
    group.finish();
}

criterion_group!(benches, reach);
criterion_main!(benches);
