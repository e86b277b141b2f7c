//! Reachability of a large cluster: 10 000 pods in 500 namespaces with 2 000 policies.
//!
//! `cargo bench --bench reach`. `model` is what comes before: parsed objects put into a snapshot; `classes` judges every
//! class against every other; `connections` lists all that is allowed, by workload; `why` explains one flow.

// What a bench cannot prepare has failed.
#![allow(clippy::expect_used)]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use ringfence::netpol::{Endpoint, Flow, Object, Port, Protocol, Reachability, Snapshot, parse};

#[path = "../support/large.rs"]
mod large;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many pods there are.
const PODS: usize = 10_000;

fn reach(criterion: &mut Criterion) {
    let values = large::objects(PODS);
    let objects: Vec<Object> = values
        .iter()
        .filter_map(|value| Some(parse(value).expect("valid")?.object))
        .collect();
    let snapshot: Snapshot = objects.iter().cloned().collect();
    let reach = Reachability::of(&snapshot);
    let connections = reach.connections().len();
    eprintln!(
        "{PODS} pods, {} policies: {} classes, {connections} connections",
        snapshot.policies().count(),
        reach.classes()
    );

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
    group.bench_function("classes", |bencher| {
        bencher.iter(|| Reachability::of(black_box(&snapshot)));
    });
    group.bench_function("connections", |bencher| {
        bencher.iter(|| black_box(&reach).connections());
    });
    let mut pods = snapshot.pods();
    let (from, to) = (pods.next().expect("a pod"), pods.last().expect("another"));
    let port = Port::new(8080).expect("a port");
    let flow = Flow::new(Endpoint::Pod(from), Endpoint::Pod(to), Protocol::Tcp, port);
    group.bench_function("why", |bencher| {
        bencher.iter(|| snapshot.explain(black_box(&flow)));
    });
    group.finish();
}

criterion_group!(benches, reach);
criterion_main!(benches);
