//! One decision against a large cluster: native checks, then with the built-in policies in Rego.
//!
//! `cargo bench --bench decision`. The same review is judged against clusters of 1 000 and 10 000 pods: the cost must
//! not follow the cluster.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench that cannot run says so by a panic"
)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ringfence::guard::decide::judge;
use ringfence::guard::engine::{Budget, NoPolicies};
use ringfence::guard::review::{Operation, Review, Subject};
use ringfence::rego::{PolicySet, RegoEngine};
use serde_json::Value;

#[path = "../support/large.rs"]
mod large;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BUDGET: Budget = Budget {
    deadline: None,
    pods: 10_000,
};

fn decision(criterion: &mut Criterion) {
    let bytes = serde_json::to_vec(&large::deployment()).expect("JSON");
    assert!(
        (3_900..4_600).contains(&bytes.len()),
        "a 4 KB Deployment, not {} bytes",
        bytes.len()
    );
    let now = "2026-06-01T00:00:00Z".parse().expect("a time");
    let mut group = criterion.benchmark_group("decision");
    for pods in [1_000, 10_000] {
        let native = large::state(pods, Arc::new(NoPolicies));
        group.bench_function(BenchmarkId::new("native", pods), |bencher| {
            let review = review(&bytes);
            bencher.iter(|| black_box(judge(black_box(&review), &native.context(), now, BUDGET)));
        });
        group.bench_function(BenchmarkId::new("native-from-bytes", pods), |bencher| {
            bencher.iter(|| {
                black_box(judge(
                    &review(black_box(&bytes)),
                    &native.context(),
                    now,
                    BUDGET,
                ))
            });
        });
        let rego = large::state(pods, rego());
        group.bench_function(BenchmarkId::new("rego-from-bytes", pods), |bencher| {
            bencher.iter(|| {
                black_box(judge(
                    &review(black_box(&bytes)),
                    &rego.context(),
                    now,
                    BUDGET,
                ))
            });
        });
    }
    group.finish();
}

fn rego() -> Arc<RegoEngine> {
    Arc::new(RegoEngine::new(PolicySet::built_in().expect("it is good")))
}

fn review(bytes: &[u8]) -> Review {
    let object: Value = serde_json::from_slice(bytes).expect("JSON");
    Review::made_of(Operation::Create, Some(Subject::new(object)), None)
}

criterion_group!(benches, decision);
criterion_main!(benches);
