//! What a node's agent does at each change of a large cluster: from the object to the element in the kernel.
//!
//! `cargo bench --bench agent`, as root: the table is in a network namespace of its own. Clusters of 1 000, 10 000 and
//! 100 000 pods with 2 000 policies and 20 of the cluster, 110 of the pods on the node. Pods on other nodes come and go,
//! pods of the node come and go, the same ones in each cluster, and policies of the node's namespaces are edited, one by one; each
//! is planned and applied. Pods of the node come once more after what they used is gone: the first of its kind brings all the peers
//! of its policies when it is bound to the node, before it has an address; one that may reach every pod is told apart, since what
//! it brings is the cluster. Edited policies find nothing of theirs either. As a test it has a few pods only.
//!
//! Each figure is given twice: as time that passes, and as what is computed for it, in the kernel too, which a busy machine changes
//! less.

// What a bench cannot prepare has failed.
#![allow(clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use ringfence::agent::nft::Socket;
use ringfence::netpol::{NetworkPolicy, Object, ObjectKey, Pod, Snapshot};
use ringfence::ruleset::{Options, Plan, Transaction};

#[path = "../support/large.rs"]
mod large;
#[path = "../nftables/space.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod space;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many pods are on the node.
const LOCAL: usize = 110;
const NODE: &str = "here";

/// A node's agent without its watches.
struct Agent {
    plan: Plan,
    socket: Socket,
}

impl Agent {
    /// From a change of the cluster to the kernel; how long that took.
    fn change(&mut self, object: Object) -> Took {
        let key = object.key();
        self.go_on(self.plan.snapshot().with(object), key)
    }

    /// An object that goes and comes back.
    fn cycle(&mut self, object: Object) -> [Took; 2] {
        let key = object.key();
        let gone = self.go_on(self.plan.snapshot().without(&key), key);
        [gone, self.change(object)]
    }

    /// A pod that goes, and after it all that no other uses, before it comes back: what its binding took, and then its address.
    fn come_first(&mut self, pod: Pod) -> [Took; 2] {
        let bound = Object::Pod(Pod {
            ips: Vec::new(),
            ..pod.clone()
        });
        let key = bound.key();
        self.go_on(self.plan.snapshot().without(&key), key);
        self.drop_idle();
        [self.change(bound), self.change(Object::Pod(pod))]
    }

    /// Nothing is there that no pod uses.
    fn drop_idle(&mut self) {
        for _ in 0..2 {
            let transaction = self.plan.drop_idle();
            self.socket.apply(&transaction).expect("applied");
        }
    }

    fn go_on(&mut self, snapshot: Snapshot, changed: ObjectKey) -> Took {
        let begun = (Instant::now(), computed());
        let transaction = self.plan.advance(snapshot, &[changed]);
        self.socket.apply(&transaction).expect("applied");
        Took::since(begun)
    }
}

/// What one change took.
#[derive(Clone, Copy)]
struct Took {
    passed: Duration,
    computed: Duration,
}

impl Took {
    /// What has passed and was computed since.
    fn since((then, before): (Instant, Duration)) -> Self {
        Self {
            passed: then.elapsed(),
            computed: computed().saturating_sub(before),
        }
    }
}

/// What this thread has computed so far, in the kernel too.
fn computed() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("a positive time")
}

fn snapshot(pods: usize) -> Snapshot {
    large::spread(pods, NODE, LOCAL).collect()
}

/// Gives the 99th percentile of what was computed.
fn percentiles(name: &str, all: &[Took]) -> Duration {
    let at = |of: fn(&Took) -> Duration, percent: usize| {
        let mut all: Vec<Duration> = all.iter().map(of).collect();
        all.sort_unstable();
        all[(all.len() * percent / 100).min(all.len() - 1)]
    };
    let [passed, computed] = [|took: &Took| took.passed, |took: &Took| took.computed];
    println!(
        "  {name}: p50 {:.1?}, p99 {:.1?}; computed p50 {:.1?}, p99 {:.1?}",
        at(passed, 50),
        at(passed, 99),
        at(computed, 50),
        at(computed, 99)
    );
    at(computed, 99)
}

fn measure(pods: usize, times: usize) -> [Duration; 5] {
    let snapshot = snapshot(pods);
    let begun = (Instant::now(), computed());
    let plan = Plan::of(Options::new(NODE), &snapshot);
    let planned = Took::since(begun);
    let mut socket = Socket::open().expect("a socket");
    let begun = (Instant::now(), computed());
    socket
        .apply(&Transaction::whole(&plan.whole()))
        .expect("applied");
    let applied = Took::since(begun);
    let whole = plan.whole();
    let elements: usize = whole.sets.values().map(|set| set.elements.len()).sum();
    println!(
        "{pods} pods, {} of the node: {elements} elements in {} sets, {} chains; planned in {:.1?}, in the kernel after {:.1?} \
         more; computed {:.1?} and {:.1?}, of 100 000 elements {:.1?}",
        plan.local_pods().len(),
        whole.sets.len(),
        whole.chains.len(),
        planned.passed,
        applied.passed,
        planned.computed,
        applied.computed,
        (planned.computed + applied.computed) * 100_000 / u32::try_from(elements).expect("a table")
    );
    let mut agent = Agent { plan, socket };
    let is_here = |pod: &&Pod| pod.node.as_ref().is_some_and(|node| node.as_str() == NODE);
    let held = || {
        let common = |pod: &&Pod| pod.is_held() && large::common(pod).is_some();
        snapshot.pods().filter(common)
    };
    let spread = |pods: Vec<Pod>| -> Vec<Pod> {
        let step = (pods.len() / times).max(1);
        pods.into_iter().step_by(step).take(times).collect()
    };
    let remote = spread(held().filter(|pod| !is_here(pod)).cloned().collect());
    let local: Vec<Pod> = held().filter(is_here).cloned().collect();
    let reaches_all = |pod: &Pod| pod.namespace().as_str() == "monitoring";
    let (reaching, local): (Vec<Pod>, Vec<Pod>) = local.into_iter().partition(reaches_all);
    let local = spread(local);
    let mut cycles = |pods: Vec<Pod>| -> Vec<Took> {
        let objects = pods.into_iter().map(Object::Pod);
        objects.flat_map(|pod| agent.cycle(pod)).collect()
    };
    let remote = percentiles("a pod elsewhere", &cycles(remote));
    let here = local.clone();
    let local = percentiles("a pod of the node", &cycles(local));
    let firsts = here.iter().cloned().map(|pod| agent.come_first(pod));
    let (bound, firsts): (Vec<Took>, Vec<Took>) =
        firsts.map(|[bound, first]| (bound, first)).unzip();
    let bound = percentiles("the first pod of its kind is bound to the node", &bound);
    let first = percentiles("it gets its address", &firsts);
    let reaching = reaching.into_iter().map(|pod| agent.come_first(pod)[0]);
    percentiles(
        "one that may reach all pods is bound to the node, the first of its kind",
        &reaching.collect::<Vec<_>>(),
    );
    let policies: Vec<NetworkPolicy> = here
        .iter()
        .flat_map(|pod| snapshot.policies_in(pod.namespace()))
        .take(times)
        .cloned()
        .collect();
    let mut edits = Vec::new();
    for policy in policies {
        let edited = NetworkPolicy {
            egress: Vec::new(),
            ingress: Vec::new(),
            ..policy.clone()
        };
        edits.push(agent.change(Object::NetworkPolicy(edited)));
        agent.drop_idle();
        edits.push(agent.change(Object::NetworkPolicy(policy)));
        agent.drop_idle();
    }
    let edits = percentiles("an edit of a policy", &edits);
    assert_eq!(agent.plan.whole(), whole, "all is as it was");
    [remote, local, bound, first, edits]
}

fn main() {
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let (sizes, times): (&[usize], usize) = if is_bench {
        (&[1_000, 10_000, 100_000], 500)
    } else {
        (&[1_000], 20)
    };
    let mut first: Option<[Duration; 5]> = None;
    for pods in sizes {
        let figures = space::alone(|| measure(*pods, times));
        let base = first.get_or_insert(figures);
        let ratio = |index: usize| figures[index].as_secs_f64() / base[index].as_secs_f64();
        println!(
            "  computed p99 against the smallest cluster: elsewhere x{:.2}, here x{:.2}, \
             first of its kind bound x{:.2}, and its address x{:.2}, edit x{:.2}",
            ratio(0),
            ratio(1),
            ratio(2),
            ratio(3),
            ratio(4)
        );
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let most = status.lines().find(|line| line.starts_with("VmHWM:"));
    println!(
        "memory at most, with all three clusters one after the other: {}",
        most.unwrap_or_default()
    );
}
