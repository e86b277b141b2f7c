//! What policies in Rego cost: the built-in ones on a Deployment that passes and on one that does not, and users' own.
//!
//! `cargo bench --bench rego`. The object is parsed already; its conversion for the evaluator is part of what is measured.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench that cannot run says so by a panic"
)]

use std::fmt::Write as _;
use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use jiff::Timestamp;
use ringfence::guard::engine::{PolicyEngine as _, Question};
use ringfence::guard::guardrail::Guardrail;
use ringfence::guard::review::{Operation, Review, Subject};
use ringfence::netpol::Snapshot;
use ringfence::rego::{PolicyFile, PolicySet, RegoEngine, Trial};
use serde_json::{Value, json};

#[path = "../support/large.rs"]
mod large;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn rego(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rego");
    let built_in = RegoEngine::new(PolicySet::built_in().expect("it is good"));
    let passes = large::deployment();
    group.bench_function("built-in-passes", |bencher| {
        let asked = Asked::about(&passes);
        bencher.iter(|| asked.ask(&built_in));
    });
    let mut fails = passes.clone();
    fails["spec"]["template"]["metadata"]["labels"] = json!({"ap": "x"});
    fails["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
    group.bench_function("built-in-finds", |bencher| {
        let asked = Asked::about(&fails);
        bencher.iter(|| asked.ask(&built_in));
    });
    for policies in [1, 10, 50] {
        let engine =
            RegoEngine::new(PolicySet::only(&own(policies), &Trial::None).expect("they are good"));
        group.bench_function(BenchmarkId::new("own", policies), |bencher| {
            let asked = Asked::about(&passes);
            bencher.iter(|| asked.ask(&engine));
        });
    }
    group.bench_function("load-50", |bencher| {
        bencher.iter_batched(
            || own(50),
            |files| PolicySet::only(&files, &Trial::None).expect("they are good"),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

/// Policies with a few rules each.
fn own(policies: usize) -> Vec<PolicyFile> {
    (0..policies)
        .map(|index| {
            let mut text = format!("# METADATA\n# title: t\n# custom: {{id: OWN-{index}}}\npackage own.p{index}\n");
            for rule in 0..5 {
                let _ = writeln!(
                    text,
                    "deny contains sprintf(\"%s {rule}\", [c.container.name]) if {{\n\tsome c in input.workload.containers\n\
                     \tendswith(c.container.image, \":{rule}\")\n\tnot input.namespace.labels.team\n}}"
                );
            }
            PolicyFile { path: format!("{index}.rego"), text }
        })
        .collect()
}

struct Asked {
    review: Review,
    snapshot: Snapshot,
    guardrail: Guardrail,
}

impl Asked {
    fn about(object: &Value) -> Self {
        Self {
            review: Review::made_of(Operation::Create, Some(Subject::new(object.clone())), None),
            snapshot: Snapshot::default(),
            guardrail: Guardrail::built_in().expect("it is good"),
        }
    }

    fn ask(&self, engine: &RegoEngine) {
        let question = Question {
            review: &self.review,
            subject: self.review.subject().expect("an object"),
            snapshot: &self.snapshot,
            guardrail: &self.guardrail,
            now: Timestamp::UNIX_EPOCH,
            deadline: None,
        };
        black_box(engine.evaluate(black_box(&question)));
    }
}

criterion_group!(benches, rego);
criterion_main!(benches);
