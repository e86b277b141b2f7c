//! How soon a policy holds, and what the agent costs, on a real node: figures. `RINGFENCE_BINARY` names a release build to
//! put into the image instead of the tests' own.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use crate::load;
use crate::machine::{Machine, on_a_node};
use crate::namespace::Namespace;
use crate::process::Process;
use crate::shop::{SHOP, namespace, pod, ready};

const ROUNDS: usize = 120;
/// A connection that is not answered by then is denied. An answer takes a tenth of a millisecond.
const TRY: Duration = Duration::from_millis(25);
/// What a debug build on a busy machine must keep to; the figures are for release builds.
const BOUND: Duration = Duration::from_millis(500);

/// Asks all the time, and keeps when each question was asked and whether it was answered.
struct Prober {
    stop: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<(Instant, bool)>>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Prober {
    fn start(from: Arc<Namespace>, to: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (stopped, keeps) = (Arc::clone(&stop), Arc::clone(&asked));
        let thread = thread::spawn(move || {
            from.enter();
            while !stopped.load(Ordering::Relaxed) {
                let at = Instant::now();
                // Nobody listens there: a refusal is an answer of the pod, and costs it nothing.
                let is_answered = match TcpStream::connect_timeout(&to, TRY) {
                    Ok(_) => true,
                    Err(error) => error.kind() == ErrorKind::ConnectionRefused,
                };
                keeps.lock().unwrap().push((at, is_answered));
                thread::sleep(Duration::from_micros(300));
            }
        });
        Self {
            stop,
            asked,
            thread: Some(thread),
        }
    }

    /// When the first of two questions was asked after each other, after some time, that went this way.
    async fn first(&self, after: Instant, answered: bool) -> Instant {
        let begun = Instant::now();
        loop {
            let found = {
                let asked = self.asked.lock().unwrap();
                let from = asked.partition_point(|(at, _)| *at < after);
                let mut pairs = asked[from..].windows(2);
                pairs
                    .find(|pair| pair.iter().all(|(_, it)| *it == answered))
                    .map(|pair| pair[0].0)
            };
            if let Some(at) = found {
                return at;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "not seen: {answered}"
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap();
    text.split(' ').next().unwrap().to_owned()
}

/// Makes a policy that denies, sees the first connection denied, and takes it away, again and again.
async fn rounds(machine: &Machine, to: SocketAddr, what: &str) -> Duration {
    let client = machine.kubernetes.client().await;
    let policies: Api<NetworkPolicy> = Api::namespaced(client, SHOP);
    let object = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "deny"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    });
    let object: NetworkPolicy = serde_json::from_value(object).unwrap();
    let outside = Arc::clone(&machine.cluster.outside().namespace);
    let prober = Prober::start(outside, to);
    let (mut sent, mut answered) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        prober.first(Instant::now(), true).await;
        prober.asked.lock().unwrap().clear();
        let asked = Instant::now();
        policies
            .create(&PostParams::default(), &object)
            .await
            .unwrap();
        let told = Instant::now();
        let denied = prober.first(asked, false).await;
        sent.push(denied - asked);
        answered.push(denied.saturating_duration_since(told));
        policies
            .delete("deny", &DeleteParams::default())
            .await
            .unwrap();
    }
    let mut half = Duration::ZERO;
    for (from, mut all) in [("the request", sent), ("the API server's answer", answered)] {
        all.sort();
        let at = |percent: usize| all[ROUNDS * percent / 100];
        println!(
            "{what}: a policy is created to the first connection denied, from {from}: least {:.1?}, p50 {:.1?}, p90 {:.1?}, \
             p99 {:.1?} of {ROUNDS}; load {}",
            at(0),
            at(50),
            at(90),
            at(99),
            load_average()
        );
        half = half.max(at(50));
    }
    half
}

/// Memory and processor time of a process, of which nothing is asked meanwhile; gives what is its own of it, in KiB.
async fn idle(id: u32, what: &str) -> u64 {
    const SPAN: Duration = Duration::from_secs(20);
    // What was asked before is answered, and the receipt is written.
    const PAUSE: Duration = Duration::from_secs(10);
    let ticks = || -> u64 {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
        let (_, rest) = stat.rsplit_once(')').unwrap();
        let fields: Vec<&str> = rest.split_whitespace().collect();
        fields[11..13]
            .iter()
            .map(|field| field.parse::<u64>().unwrap())
            .sum()
    };
    tokio::time::sleep(PAUSE).await;
    let before = ticks();
    tokio::time::sleep(SPAN).await;
    let used = ticks() - before;
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let kib = |key: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    // A tick is ten milliseconds.
    println!(
        "{what}: {} KiB, {} KiB of them its own data, {} KiB at most; {} ms of a processor in {SPAN:?} in which nothing happens; \
         load {}",
        kib("VmRSS:"),
        kib("RssAnon:"),
        kib("VmHWM:"),
        used * 10,
        load_average()
    );
    kib("RssAnon:")
}

#[test]
#[ignore = "needs the programs of a node, which `tests/run --only node` installs and builds"]
fn a_policy_holds_soon_in_a_small_and_in_a_large_cluster() {
    on_a_node(async |machine| {
        machine.install(&["cni", "prepare"]);
        machine.rolled_out();
        machine.kubernetes.apply(&namespace(SHOP).to_string());
        machine
            .kubernetes
            .apply(&pod(SHOP, "quiet", &["/bin/sleep", "100000"]).to_string());
        ready(machine, SHOP, "quiet");
        let address = "jsonpath={.status.podIP}";
        let address = machine.kubectl(&["get", "pod", "-n", SHOP, "quiet", "-o", address]);
        let to = SocketAddr::new(address.parse().unwrap(), 9);
        let small = rounds(machine, to, "a small cluster").await;
        let id = machine.agent().expect("an agent");
        idle(id, "the agent of a small cluster").await;

        load::pods(machine, 0..1_000).await;
        load::policies(machine, 200).await;
        let large = rounds(machine, to, "1 000 pods and 200 policies elsewhere").await;
        idle(id, "the agent with 1 000 pods elsewhere").await;
        assert!(small < BOUND && large < BOUND, "{small:?}, {large:?}");
    });
}

#[test]
#[ignore = "needs the programs of a node, which `tests/run --only node` installs and builds"]
fn the_agent_of_a_node_in_a_large_cluster_stays_small() {
    on_a_node(async |machine| {
        machine.install(&["cni", "prepare"]);
        machine.rolled_out();
        let pods: usize =
            std::env::var("RINGFENCE_PODS").map_or(2_000, |text| text.parse().unwrap());
        let made = load::pods(machine, 0..pods).await;
        load::policies(machine, 200).await;
        println!("{pods} pods are made in {made:.1?}");
        let id = machine.agent().expect("an agent");
        idle(id, "the agent of a node with no pods, which saw them come").await;
        // Another one, in a namespace of its own, for a node that is full.
        let place = machine.cluster.outside();
        let program = std::env::var("RINGFENCE_BINARY");
        let program = program.unwrap_or_else(|_| env!("CARGO_BIN_EXE_ringfence").to_owned());
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", place.namespace.path().display()))
            .args([
                &program,
                "agent",
                "--no-receipt",
                "--node-name",
                &load::node(0),
                "--kubeconfig",
            ])
            .arg(machine.kubernetes.kubeconfig())
            .arg("--cni-conf-dir")
            .arg(machine.kubernetes.folder());
        // As the manifest has it.
        command.envs([("MIMALLOC_ALLOW_THP", "0"), ("MIMALLOC_PURGE_DELAY", "10")]);
        machine.switch_outside();
        let agent = Process::start("full", machine.kubernetes.folder(), &mut command);
        agent.line(&["the table is made", "110"]).await;
        let used = idle(
            agent.id(),
            "the agent of a node with 110 pods, started among them",
        )
        .await;
        // The program itself is larger in a debug build, what it keeps is not.
        let bound = 24 * 1024 + pods as u64;
        assert!(used < bound, "{used} KiB, not {bound}");
    });
}
