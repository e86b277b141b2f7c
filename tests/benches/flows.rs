//! Recorded flows against the policies of a large cluster: 1 million records, replayed.
//!
//! `cargo bench --bench flows`; `FLOWS=100000` before it for another number of records. Each format is read from a file
//! and judged by 2 000 policies, with 1 500 workloads as manifests; what is printed has the memory that the process has
//! needed at most until then. As a test it reads a few records only.

// What a bench cannot prepare has failed.
#![allow(clippy::expect_used)]

use std::fmt::Write as _;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use ringfence::flows::{self, Input, Limits};
use ringfence::netpol::replay::{Change, Replay};
use ringfence::netpol::{Object, Snapshot, parse};

#[path = "../support/large.rs"]
mod large;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many records there are where nothing else is said.
const FLOWS: u64 = 1_000_000;

/// The most memory that the process has had, as Linux counts it.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    most.map_or_else(|| "unknown".to_owned(), |most| most.trim().to_owned())
}

/// Writes the record of a number.
type Record = fn(&mut String, u64);

/// The parts of a record: pods of a namespace, its own and one of its team's.
struct Parts {
    from: (u64, u64, u64),
    to: (u64, u64, u64),
    port: u16,
    is_denied: bool,
}

/// The parts of the record of a number: always the same, and well mixed.
fn parts(number: u64) -> Parts {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let namespace = mixed % 490;
    let replica = (mixed >> 12) % 7;
    Parts {
        from: (namespace, (mixed >> 16) % 3, replica),
        to: (
            (namespace + 50 * ((mixed >> 20) % 3)) % 490,
            (mixed >> 24) % 3,
            (replica + 3) % 7,
        ),
        port: [8080, 5432, 9090, 443][usize::try_from((mixed >> 28) % 4).unwrap_or_default()],
        is_denied: mixed.is_multiple_of(97),
    }
}

fn address((namespace, app, replica): (u64, u64, u64)) -> String {
    format!(
        "10.{}.{}.{}",
        namespace / 250,
        namespace % 250,
        app * 7 + replica + 1
    )
}

/// The last app of each namespace is a StatefulSet.
fn kind(app: u64) -> &'static str {
    if app == 2 {
        "StatefulSet"
    } else {
        "Deployment"
    }
}

/// A record as Hubble's exporter writes it.
fn hubble(line: &mut String, number: u64) {
    let Parts {
        from,
        to,
        port,
        is_denied,
    } = parts(number);
    let endpoint = |(namespace, app, replica): (u64, u64, u64)| {
        format!(
            r#"{{"ID":{},"identity":{},"cluster_name":"default","namespace":"team-{namespace}","labels":["k8s:app=app-{app}","k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=team-{namespace}","k8s:io.cilium.k8s.policy.cluster=default","k8s:io.cilium.k8s.policy.serviceaccount=default","k8s:io.kubernetes.pod.namespace=team-{namespace}"],"pod_name":"app-{app}-755cdc7957-abcd{replica}","workloads":[{{"name":"app-{app}","kind":"{}"}}]}}"#,
            namespace * 10 + replica,
            namespace * 100 + app,
            kind(app)
        )
    };
    let verdict = if is_denied {
        r#""verdict":"DROPPED","drop_reason":133,"drop_reason_desc":"POLICY_DENIED""#
    } else {
        r#""verdict":"FORWARDED","is_reply":false"#
    };
    let _ = write!(
        line,
        r#"{{"flow":{{"time":"2026-01-01T00:00:00.450508431Z","uuid":"047846e8-5d33-4999-8a35-{number:012x}",{verdict},"ethernet":{{"source":"ce:38:1f:4b:21:dd","destination":"fa:ce:3c:de:8b:f8"}},"IP":{{"source":"{}","destination":"{}","ipVersion":"IPv4"}},"l4":{{"TCP":{{"source_port":{},"destination_port":{port},"flags":{{"SYN":true}}}}}},"source":{},"destination":{},"Type":"L3_L4","node_name":"default/node-1","event_type":{{"type":4}},"traffic_direction":"EGRESS","trace_observation_point":"TO_STACK","Summary":"TCP Flags: SYN"}},"node_name":"default/node-1","time":"2026-01-01T00:00:00.450508431Z"}}"#,
        address(from),
        address(to),
        32768 + number % 20000,
        endpoint(from),
        endpoint(to)
    );
}

/// A record of our own.
fn own(line: &mut String, number: u64) {
    let Parts {
        from,
        to,
        port,
        is_denied,
    } = parts(number);
    let verdict = if is_denied { "denied" } else { "allowed" };
    let end = |(namespace, app, _): (u64, u64, u64)| {
        let kind = kind(app);
        format!(r#"{{"namespace":"team-{namespace}","workload":"{kind}/app-{app}"}}"#)
    };
    let _ = write!(
        line,
        r#"{{"from":{},"to":{},"protocol":"TCP","port":{port},"verdict":"{verdict}"}}"#,
        end(from),
        end(to)
    );
}

fn written(folder: &Path, name: &str, count: u64, record: Record) -> PathBuf {
    let path = folder.join(name);
    let mut file = BufWriter::new(std::fs::File::create(&path).expect("a file"));
    let mut line = String::new();
    for number in 0..count {
        line.clear();
        record(&mut line, number);
        line.push('\n');
        file.write_all(line.as_bytes()).expect("room for it");
    }
    file.flush().expect("room for it");
    path
}

fn main() {
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let asked = std::env::var("FLOWS")
        .ok()
        .map(|count| count.parse().expect("FLOWS: a number"));
    let count = asked.unwrap_or(if is_bench { FLOWS } else { 2_000 });
    let values = large::objects(0);
    let objects = values
        .iter()
        .filter_map(|value| Some(parse(value).expect("valid")?.object));
    let snapshot: Snapshot = objects.collect::<Vec<Object>>().into_iter().collect();
    let folder = tempfile::tempdir().expect("a folder");
    eprintln!(
        "{count} records, {} policies, memory so far {}",
        snapshot.policies().count(),
        memory()
    );
    let formats: [(&str, Record); 2] = [("own", own), ("hubble", hubble)];
    for (name, record) in formats {
        let path = written(folder.path(), name, count, record);
        let size = std::fs::metadata(&path).expect("it is there").len();
        let started = Instant::now();
        let inputs = [Input::Path(path)];
        let recorded =
            flows::read(&inputs, None, &Limits::default(), &mut |_| {}).expect("it is read");
        let read = started.elapsed();
        assert_eq!(
            (recorded.records, recorded.broken),
            (count, 0),
            "{:?}",
            recorded.shown
        );
        let replay = Replay::of(&recorded.observations, &snapshot, &[]);
        let all: u64 = Change::ALL
            .into_iter()
            .map(|change| replay.flows(change))
            .sum();
        assert_eq!(all, count, "{:?}", replay.unknown.iter().next());
        eprintln!(
            "{name}: {:?} ({read:?} reading {} MB), {} different flows, {} newly denied, memory so far {}",
            started.elapsed(),
            size / 1_000_000,
            recorded.observations.len(),
            replay.flows(Change::NewlyDenied),
            memory()
        );
    }
}
