//! Admission under 100 reachability rules in a large cluster: what one changed policy, or workload, costs.
//!
//! `cargo bench --bench reachability`. First the changes of each kind, in every namespace, with median
//! and 99th percentile; then each kind by itself. `index` is what new rules cost before the first request,
//! `following` what a change in one namespace costs when it is published, `whole` one rule from a team to everyone, as `ringfence check` does.

// What a bench cannot prepare has failed.
#![allow(clippy::expect_used)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use ringfence::guard::decide::{State, judge};
use ringfence::guard::engine::{Budget, NoPolicies};
use ringfence::guard::reachability::{ReachabilityRule, ReachabilityRules};
use ringfence::guard::review::{Operation, Review, Subject};
use ringfence::netpol::{ObjectKey, PolicyRef};
use serde_json::{Value, json};

#[path = "../support/large.rs"]
mod large;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many pods there are.
const PODS: usize = 10_000;

const BUDGET: Budget = Budget {
    deadline: None,
    pods: 20_000,
};

/// 100 rules: between two namespaces, between teams of ten namespaces, across all namespaces, with the internet; some of
/// them broken before any change.
fn rules() -> Vec<ReachabilityRule> {
    let rule = |number: usize, from: Value, to: Value, ports: Value, expect: &str| {
        let manifest = json!({
            "apiVersion": "ringfence.dev/v1alpha1", "kind": "ReachabilityRule", "metadata": {"name": format!("rule-{number:03}")},
            "spec": {"from": [from], "to": [to], "ports": ports, "expect": expect, "mode": "Enforce"}
        });
        ReachabilityRule::parse(&manifest).expect("a good rule")
    };
    let namespace = |number: usize| json!({"namespaces": [format!("team-{number}")]});
    let team = |number: usize| json!({"namespaceSelector": {"matchLabels": {"team": format!("t{number}")}}});
    let app =
        |number: usize| json!({"podSelector": {"matchLabels": {"app": format!("app-{number}")}}});
    let mut rules = Vec::new();
    for number in 0..40 {
        rules.push(rule(
            number,
            namespace(number),
            namespace(number + 50),
            json!([{"port": 5432}]),
            "Deny",
        ));
    }
    for number in 40..70 {
        rules.push(rule(
            number,
            team(number - 40),
            team(number - 20),
            json!([]),
            "Deny",
        ));
    }
    for number in 70..80 {
        let internet = json!({"cidrs": ["0.0.0.0/0", "::/0"]});
        rules.push(rule(number, internet, team(number - 70), json!([]), "Deny"));
    }
    for number in 80..90 {
        rules.push(rule(
            number,
            namespace(number),
            json!({"podSelector": {}}),
            json!([{"port": 9090}]),
            "Allow",
        ));
    }
    for number in 90..100 {
        rules.push(rule(
            number,
            app(number % 4),
            app((number + 1) % 4),
            json!([{"port": 22}, {"port": 5432}]),
            "Deny",
        ));
    }
    rules
}

fn policy(namespace: usize, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": format!("team-{namespace}")}, "spec": spec
    })
}

/// One change of each kind in a namespace, by name.
fn changes(namespace: usize) -> Vec<(&'static str, Review)> {
    let name = |namespace: usize| json!({"matchLabels": {"kubernetes.io/metadata.name": format!("team-{namespace}")}});
    let create = |object| Review::made_of(Operation::Create, Some(Subject::new(object)), None);
    let delete = |object| Review::made_of(Operation::Delete, None, Some(Subject::new(object)));
    let ingress = |from: Value, port: u16| json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": from, "ports": [{"port": port}]}]});
    let narrow = policy(
        namespace,
        "narrow",
        &ingress(
            json!([{"namespaceSelector": name(namespace + 1), "podSelector": {"matchLabels": {"app": "app-1"}}}]),
            5432,
        ),
    );
    let scrape = |ports: Value| {
        policy(
            namespace,
            "scrape",
            &json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{
                "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}], "ports": ports}]}),
        )
    };
    let deny = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
    let dns = json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{"namespaceSelector": {}}]}]});
    let mut deployment = large::deployment();
    deployment["metadata"]["namespace"] = json!(format!("team-{namespace}"));
    vec![
        ("create-narrow", create(narrow)),
        (
            "create-team",
            create(policy(
                namespace,
                "team",
                &ingress(
                    json!([{"namespaceSelector": {"matchLabels": {"team": format!("t{}", namespace % 50)}}}]),
                    8080,
                ),
            )),
        ),
        (
            "create-everyone",
            create(policy(
                namespace,
                "everyone",
                &ingress(json!([{"namespaceSelector": {}}]), 22),
            )),
        ),
        (
            "create-egress-anywhere",
            create(policy(namespace, "anywhere", &dns)),
        ),
        (
            "update-ports",
            Review::made_of(
                Operation::Update,
                Some(Subject::new(scrape(
                    json!([{"port": 9090}, {"port": 9091}]),
                ))),
                Some(Subject::new(scrape(
                    json!([{"protocol": "TCP", "port": 9090}]),
                ))),
            ),
        ),
        (
            "delete-default-deny",
            delete(policy(namespace, "default-deny", &deny)),
        ),
        (
            "delete-scrape",
            delete(scrape(json!([{"protocol": "TCP", "port": 9090}]))),
        ),
        ("create-deployment", create(deployment)),
    ]
}

fn decide(state: &State, review: &Review) -> usize {
    let now = "2026-06-01T00:00:00Z".parse().expect("a time");
    let decision = judge(black_box(review), &state.context(), now, BUDGET);
    assert_eq!(decision.cut, None, "within the budget");
    let reachability = |id: &str| id.starts_with("RF7");
    let judged = decision.judged.iter();
    judged
        .filter(|judged| reachability(judged.finding.id.as_str()))
        .count()
}

/// How often each change is judged: the quickest time counts, so that what else the machine does is left out.
const TIMES: usize = 5;

/// Median and 99th percentile of every kind of change.
fn percentiles(state: &State) {
    let mut by_kind: Vec<(&str, Vec<Duration>, usize)> = Vec::new();
    // Unoptimized it is only seen to work.
    let step = if cfg!(debug_assertions) { 100 } else { 1 };
    for namespace in (0..large::NAMESPACES - 10).step_by(step) {
        for (position, (kind, review)) in changes(namespace).iter().enumerate() {
            let mut took = Duration::MAX;
            let mut found = 0;
            for _ in 0..TIMES {
                let begun = Instant::now();
                found = decide(state, review);
                took = took.min(begun.elapsed());
            }
            if by_kind.len() == position {
                by_kind.push((kind, Vec::new(), 0));
            }
            by_kind[position].1.push(took);
            by_kind[position].2 += found;
        }
    }
    let policies = by_kind
        .iter()
        .filter(|(kind, ..)| *kind != "create-deployment");
    let all = policies.flat_map(|(_, times, _)| times.clone()).collect();
    by_kind.push(("all changes of a policy", all, 0));
    for (kind, mut times, found) in by_kind {
        times.sort_unstable();
        let at = |share: usize| times[(times.len() - 1) * share / 100];
        eprintln!(
            "{kind}: median {:?}, p99 {:?}, longest {:?}, {found} rules broken",
            at(50),
            at(99),
            at(100)
        );
    }
}

fn reachability(criterion: &mut Criterion) {
    let mut state = large::state(PODS, Arc::new(NoPolicies));
    state.reachability = ReachabilityRules::new(rules(), &state.snapshot);
    percentiles(&state);

    let mut group = criterion.benchmark_group("reachability");
    group.sample_size(20);
    for (kind, review) in changes(7) {
        group.bench_function(kind, |bencher| bencher.iter(|| decide(&state, &review)));
    }
    group.bench_function("index", |bencher| {
        bencher.iter(|| ReachabilityRules::new(rules(), &state.snapshot));
    });
    let key = ObjectKey::NetworkPolicy(PolicyRef::new("team-7", "scrape"));
    group.bench_function("following", |bencher| {
        bencher.iter(|| {
            let changed = std::slice::from_ref(&key);
            state.reachability.following(&state.snapshot, changed)
        });
    });
    let broad = json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": "ReachabilityRule", "metadata": {"name": "broad"},
        "spec": {"from": [{"namespaceSelector": {"matchLabels": {"team": "t0"}}}], "to": [{"podSelector": {}}], "ports": [{"port": 22}], "expect": "Deny"}
    });
    let review = Review::of_manifest(broad);
    group.bench_function("whole", |bencher| bencher.iter(|| decide(&state, &review)));
    group.finish();
}

criterion_group!(benches, reachability);
criterion_main!(benches);
