//! The webhook under load, as an API server loads it: TLS 1.3, HTTP/1.1 keep-alive, 4 KB reviews.
//!
//! `cargo bench --bench load`. The real program runs on one core, this client on another. It prints requests per
//! second of that one core, latencies at half of that load, and the memory of the server with 500 namespaces,
//! 10 000 pods and 2 000 policies: first with the checks in Rust alone, then with the built-in policies in Rego.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a bench that cannot run says so by a panic"
)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use serde_json::{Value, json};

#[path = "../webhook/client.rs"]
#[allow(dead_code)] // the tests use the rest
mod client;
#[path = "../support/large.rs"]
mod large;

use client::{Client, Http};

/// Connections that an API server keeps open under load.
const CONNECTIONS: usize = 16;
/// How long each measurement lasts.
const LENGTH: Duration = Duration::from_secs(5);
/// More than the timer oversleeps.
const TICK: Duration = Duration::from_millis(2);
/// Pods in the cluster.
const PODS: usize = 10_000;

fn main() {
    // `cargo test --benches` and `cargo bench` with a filter both come here; only a bench is asked to measure.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    pin(std::process::id(), 1);
    let folder = tempfile::tempdir().expect("a folder");
    let manifests = folder.path().join("manifests");
    fs::create_dir(&manifests).expect("a folder");
    let list = json!({"apiVersion": "v1", "kind": "List", "items": large::objects(PODS)});
    fs::write(manifests.join("cluster.json"), list.to_string()).expect("a file");
    let native = folder.path().join("native.json");
    let guardrail = json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": "Guardrail", "metadata": {"name": "native"},
        "spec": {"mode": "Enforce", "coverage": {}, "breadth": {}, "baseline": {}}
    });
    fs::write(&native, guardrail.to_string()).expect("a file");

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    println!(
        "{PODS} pods, {} namespaces, {CONNECTIONS} connections, {} s each",
        large::NAMESPACES,
        LENGTH.as_secs()
    );
    for (name, guardrail) in [
        ("checks in Rust", Some(native.as_path())),
        ("with built-in Rego", None),
    ] {
        let server = Server::start(&manifests, guardrail);
        let result = runtime.block_on(measure(&server));
        println!(
            "{name:20} {:7.0} requests/s of one core | at half load p50 {:?} p99 {:?} p99.9 {:?} | memory {} MB (peak {} MB)",
            result.rate,
            result.p50,
            result.p99,
            result.p999,
            server.memory("VmRSS:"),
            server.memory("VmHWM:")
        );
    }
}

struct Measured {
    rate: f64,
    p50: Duration,
    p99: Duration,
    p999: Duration,
}

async fn measure(server: &Server) -> Measured {
    let body = Bytes::from(review().to_string());
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            // Warm.
            load(server, &body, None, Duration::from_secs(1)).await;
            let full = load(server, &body, None, LENGTH).await;
            let rate = full.len() as f64 / LENGTH.as_secs_f64();
            let every = Duration::from_secs_f64(CONNECTIONS as f64 / (rate / 2.0));
            let mut half = load(server, &body, Some(every), LENGTH).await;
            half.sort_unstable();
            let at = |share: f64| half[((half.len() - 1) as f64 * share) as usize];
            Measured {
                rate,
                p50: at(0.5),
                p99: at(0.99),
                p999: at(0.999),
            }
        })
        .await
}

/// Sends from all connections, each as fast as it is answered or once in so long. Gives the latency of each request.
async fn load(
    server: &Server,
    body: &Bytes,
    every: Option<Duration>,
    length: Duration,
) -> Vec<Duration> {
    let started = Instant::now();
    let senders = (0..CONNECTIONS).map(|connection| {
        let body = body.clone();
        let (address, ca) = (server.address, server.ca.clone());
        tokio::task::spawn_local(async move {
            let mut client = Client::new(address, &[&ca], Http::One);
            let mut latencies = Vec::new();
            let mut turn = 0_u32;
            while started.elapsed() < length {
                // Latency counts from when the request was due, so that a stall is not hidden.
                let due = match every {
                    None => Instant::now(),
                    Some(every) => {
                        let soon = started
                            + every.mul_f64(connection as f64 / CONNECTIONS as f64)
                            + every * turn;
                        let due = soon + TICK;
                        turn += 1;
                        // The timer ticks by the millisecond and would send what is due in one as a burst; this core
                        // is the client's own, so it may spin.
                        tokio::time::sleep_until(soon.into()).await;
                        while Instant::now() < due {
                            tokio::task::yield_now().await;
                        }
                        due
                    }
                };
                let answer = client
                    .post("/validate?timeout=10s", body.clone())
                    .await
                    .expect("an answer");
                latencies.push(due.elapsed());
                assert!(
                    answer.text().contains("\"allowed\":true"),
                    "{}",
                    answer.text()
                );
            }
            latencies
        })
    });
    let mut latencies = Vec::new();
    for sender in senders.collect::<Vec<_>>() {
        latencies.extend(sender.await.expect("a sender"));
    }
    latencies
}

fn review() -> Value {
    let kind = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "7b3f1d0e-9c2a-4e57-8f61-2d4c5a6b7e80", "kind": kind,
            "resource": {"group": "apps", "version": "v1", "resource": "deployments"},
            "name": "checkout", "namespace": "team-0", "operation": "CREATE",
            "userInfo": {"username": "alice", "groups": ["system:authenticated"]},
            "object": large::deployment(), "oldObject": null, "dryRun": false
        }
    })
}

/// The real program, on one core.
struct Server {
    child: Child,
    address: SocketAddr,
    ca: String,
}

impl Server {
    fn start(manifests: &Path, guardrail: Option<&Path>) -> Self {
        let ca = manifests.with_file_name("ca.crt");
        let mut command = Command::new("taskset");
        command.args([
            "-c",
            "0",
            env!("CARGO_BIN_EXE_ringfence"),
            "webhook",
            "--listen",
            "127.0.0.1:0",
        ]);
        command.args(["--log-format", "json", "--drain-delay", "0"]);
        command
            .arg("--manifests")
            .arg(manifests)
            .arg("--ca-out")
            .arg(&ca);
        if let Some(guardrail) = guardrail {
            command.arg("--guardrail").arg(guardrail);
        }
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .expect("taskset (util-linux) and the program");
        let log = BufReader::new(child.stderr.take().expect("its log"));
        let address = log
            .lines()
            .map_while(Result::ok)
            .filter_map(|line| serde_json::from_str::<Value>(&line).ok())
            .find_map(|line| line.get("address")?.as_str()?.parse().ok())
            .expect("the server listens");
        Self {
            child,
            address,
            ca: fs::read_to_string(ca).expect("the CA"),
        }
    }

    /// A figure of its memory, in MB.
    fn memory(&self, field: &str) -> u64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("its status");
        let line = status
            .lines()
            .find(|line| line.starts_with(field))
            .expect("the field");
        line.split_whitespace()
            .nth(1)
            .and_then(|kilobytes| kilobytes.parse::<u64>().ok())
            .expect("a number")
            / 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pin(process: u32, core: usize) {
    let status = Command::new("taskset")
        .args(["-pc", &core.to_string(), &process.to_string()])
        .stdout(Stdio::null())
        .status();
    assert!(status.expect("taskset (util-linux)").success());
}
