//! Ringfence beside a real API server: 500 namespaces, 10 000 pods, 2 000 policies.
//!
//! `cargo bench --bench cluster`, as root, some minutes. It prints how long the webhook takes from its start until it is ready
//! and what memory it then has; what memory the agent of a node has with 110 of the pods, in a network namespace of its own; how
//! long `ringfence audit` takes for all of it; what memory the controller has once it leads, and once it has audited all; how long
//! it takes to give 500 new namespaces their baseline and with how many writes; and what the webhook adds to a `create`, beside a
//! webhook that does nothing and beside none, each asked in turn.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::format_collect,
    reason = "a bench that cannot run says so by a panic"
)]

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::post;
use base64::Engine as _;
use futures_util::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use ringfence::certs::{Authority, Names, Validity};
use ringfence::runtime::Trigger;
use ringfence::webhook::server::{self, ServerOptions};
use ringfence::webhook::tls::{CertificateSlot, Identity, TlsVersions, server_config};
use serde_json::{Value, json};

#[path = "../cluster/installation.rs"]
#[allow(dead_code)] // the tests use the rest
mod installation;
#[path = "../cluster/kubernetes.rs"]
#[allow(dead_code)]
mod kubernetes;
#[path = "../support/large.rs"]
mod large;
#[path = "../packets/namespace.rs"]
#[allow(dead_code)]
mod namespace;
#[path = "../cluster/process.rs"]
#[allow(dead_code)]
mod process;

use kubernetes::{Kubernetes, free_port};
use namespace::Namespace;
use process::Process;

/// How many pods there are.
const PODS: usize = 10_000;
/// How many namespaces are made for the controller.
const NEW: usize = 500;
/// How many requests of each kind are timed in one part, and how many parts there are. What else a machine does falls upon some
/// parts only: the middle one counts, and the others tell how much of it is chance.
const REQUESTS: usize = 500;
const PARTS: usize = 12;
/// How often all is audited.
const AUDITS: usize = 5;
/// With this argument, the program is the webhook that does nothing: a process of its own, as Ringfence is.
const NOTHING: &str = "--nothing";
/// A node, and how many of the pods are there.
const NODE: &str = "here";
const LOCAL: usize = 110;
/// The most data that the agent of that node may have, in MB. What it has of the program itself is shared and can be taken away.
const AGENT_BOUND: u64 = 32;
/// What the manifests of `deploy` ask of the allocator.
const ALLOCATOR: [(&str, &str); 2] = [("MIMALLOC_ALLOW_THP", "0"), ("MIMALLOC_PURGE_DELAY", "10")];
/// How long after something it is over what came with it: receipts, reading back, giving memory back.
const AT_REST: Duration = Duration::from_secs(10);
/// How many objects are written at once.
const AT_ONCE: usize = 24;

fn main() {
    let asked = |word: &str| std::env::args().any(|argument| argument == word);
    // `cargo test --benches` comes here as well; only a bench is asked to measure.
    if !asked("--bench") && !asked(NOTHING) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    if asked(NOTHING) {
        runtime.block_on(do_nothing());
    } else {
        runtime.block_on(measure());
    }
}

async fn measure() {
    let cluster = Kubernetes::start().await;
    let client = cluster.client().await;
    installation::install_kinds(&cluster).await;
    let begun = Instant::now();
    let written = fill(&client).await;
    println!("{written} objects written in {:.0?}", begun.elapsed());

    let port = free_port();
    let begun = Instant::now();
    let webhook = start_webhook(&cluster, port).await;
    println!("webhook: start to ready {:.2?}", begun.elapsed());
    memory("webhook, ready", &webhook);
    agent(&cluster).await;

    let audits = (0..AUDITS).map(|_| audit(&cluster));
    let audits: Vec<String> = audits.map(|took| format!("{took:.2?}")).collect();
    println!("audit of all {}", audits.join(", "));

    added(&cluster, &client, port).await;
    memory("webhook, after that", &webhook);
    drop(webhook);
    baselines(&cluster, &client).await;
}

/// How long `ringfence audit` takes.
fn audit(cluster: &Kubernetes) -> Duration {
    let begun = Instant::now();
    let audit = Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .args(["audit", "--output", "json", "--kubeconfig"])
        .arg(cluster.kubeconfig())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(audit.code().is_some_and(|code| code < 2));
    begun.elapsed()
}

async fn start_webhook(cluster: &Kubernetes, port: u16) -> Process {
    let (listen, ca) = (
        format!("127.0.0.1:{port}"),
        cluster.folder().join("webhook-ca.crt"),
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence"));
    command
        .args(["webhook", "--listen", &listen, "--kubeconfig"])
        .arg(cluster.kubeconfig())
        .arg("--ca-out")
        .arg(ca)
        .envs(ALLOCATOR);
    let webhook = Process::start("webhook", cluster.folder(), &mut command);
    webhook.line(&["state taken up"]).await;
    webhook
}

/// Writes the cluster; gives the number of objects.
async fn fill(client: &Client) -> usize {
    let mut kinds: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    let mut pods = 0;
    for mut object in large::objects(PODS) {
        if let Some(owners) = object.pointer_mut("/metadata/ownerReferences") {
            for owner in owners.as_array_mut().unwrap() {
                owner["uid"] = json!("5d6b6a36-0b0f-4f4e-8f0e-2f6f0c6f7a11");
            }
        }
        let kind = object["kind"].as_str().unwrap().to_owned();
        match kind.as_str() {
            "Namespace" => {
                let name = object["metadata"]["name"].clone();
                kinds.entry("2").or_default().push(json!({
                    "apiVersion": "v1", "kind": "ServiceAccount",
                    "metadata": {"name": "default", "namespace": name}
                }));
                kinds.entry("1").or_default().push(object);
            }
            "NetworkPolicy" => kinds.entry("3").or_default().push(object),
            "Pod" => {
                let has_own = object["spec"]["hostNetwork"] != true;
                pods += usize::from(has_own);
                if has_own && pods % (PODS / LOCAL) == 0 && pods / (PODS / LOCAL) <= LOCAL {
                    object["spec"]["nodeName"] = NODE.into();
                }
                kinds.entry("3").or_default().push(object);
            }
            // Without its definition an API server has none.
            _ => {}
        }
    }
    let mut written = 0;
    for objects in kinds.into_values() {
        written += objects.len();
        let writes = objects.into_iter().map(|object| write(client, object));
        futures_util::stream::iter(writes)
            .buffer_unordered(AT_ONCE)
            .for_each(async |()| ())
            .await;
    }
    written
}

async fn write(client: &Client, object: Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, api) = (text(&object["kind"]), text(&object["apiVersion"]));
    let (group, version) = api.rsplit_once('/').unwrap_or(("", &api));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
    let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let status = object.get("status").cloned();
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    match api.create(&PostParams::default(), &object).await {
        Ok(_) => {}
        // The API server makes its own namespaces.
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => panic!("{kind}: {error}"),
    }
    if let Some(status) = status {
        let patch = Patch::Merge(json!({"status": status}));
        let name = object.metadata.name.unwrap();
        let params = PatchParams::default();
        api.patch_status(&name, &params, &patch).await.unwrap();
    }
}

/// The agent of a node: what it has once its table is made and was read back.
async fn agent(cluster: &Kubernetes) {
    let node = Namespace::make(&[NODE.to_owned()]).remove(0);
    node.ip("link set lo up\n");
    node.let_in(cluster.address());
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", node.path().display()))
        .arg(env!("CARGO_BIN_EXE_ringfence"))
        .args(["agent", "--node-name", NODE, "--no-receipt", "--kubeconfig"])
        .arg(cluster.kubeconfig())
        .arg("--cni-conf-dir")
        .arg(cluster.folder())
        .envs(ALLOCATOR);
    let begun = Instant::now();
    let agent = Process::start("agent", cluster.folder(), &mut command);
    agent.line(&["the table is made", &LOCAL.to_string()]).await;
    println!("agent: start to a table {:.2?}", begun.elapsed());
    tokio::time::sleep(AT_REST).await;
    let used = memory(&format!("agent of a node with {LOCAL} pods"), &agent);
    assert!(used <= AGENT_BOUND, "{used} MB");
}

/// What the webhook adds to a `create`.
async fn added(cluster: &Kubernetes, client: &Client, port: u16) {
    let nothing = Nothing::start(cluster).await;
    let ours = std::fs::read(cluster.folder().join("webhook-ca.crt")).unwrap();
    let guardrail = json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": "Guardrail", "metadata": {"name": "all"},
        "spec": {"mode": "Enforce", "coverage": {}, "breadth": {}}
    });
    cluster.apply(&guardrail.to_string());
    register(cluster, "ours", port, &ours, "team-1");
    register(cluster, "nothing", nothing.port, &nothing.ca, "team-2");

    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let deployment: Deployment = serde_json::from_value(large::deployment()).unwrap();
    let apis = ["team-3", "team-2", "team-1"].map(|namespace| {
        let mut deployment = deployment.clone();
        deployment.metadata.namespace = Some(namespace.to_owned());
        (
            Api::<Deployment>::namespaced(client.clone(), namespace),
            deployment,
        )
    });
    let mut asked = 0;
    let mut measured = async |requests: usize| {
        let mut times: [Vec<f64>; 3] = Default::default();
        for _ in 0..requests {
            asked += 1;
            for turn in 0..3 {
                // Each comes first, second and third as often as the others.
                let which = (asked + turn) % 3;
                let (api, deployment) = &apis[which];
                let begun = Instant::now();
                api.create(&dry, deployment).await.unwrap();
                times[which].push(begun.elapsed().as_secs_f64() * 1000.0);
            }
        }
        times
    };
    // The first hundred are for what has to be warm.
    measured(100).await;
    let (mut parts, mut together) = (Vec::new(), <[Vec<f64>; 3]>::default());
    for _ in 0..PARTS {
        let times = measured(REQUESTS).await;
        for (all, times) in together.iter_mut().zip(&times) {
            all.extend(times);
        }
        parts.push(times.map(percentiles));
    }
    for (which, name) in ["no webhook", "one that does nothing", "ringfence"]
        .into_iter()
        .enumerate()
    {
        println!(
            "create, {name:22} p50 {:.2} ms p99 {:.2} ms",
            spread(parts.iter().map(|part| part[which].0)).1,
            spread(parts.iter().map(|part| part[which].1)).1,
        );
    }
    let (least, median, most) = spread(parts.iter().map(|part| part[2].0 - part[1].0));
    print!("added over one that does nothing: p50 {median:+.2} ms ({least:+.2} to {most:+.2}), ");
    let (least, median, most) = spread(parts.iter().map(|part| part[2].1 - part[1].1));
    println!("p99 {median:+.2} ms ({least:+.2} to {most:+.2})");
    let [_, nothing, ours] = together.map(percentiles);
    println!(
        "of all {} together: p50 {:+.2} ms, p99 {:+.2} ms",
        PARTS * REQUESTS,
        ours.0 - nothing.0,
        ours.1 - nothing.1
    );
    let all = [
        "delete",
        "validatingwebhookconfigurations,guardrails",
        "--all",
    ];
    assert!(cluster.kubectl(&all, "").status.success());
}

/// The 50th and the 99th.
fn percentiles(mut times: Vec<f64>) -> (f64, f64) {
    times.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    (at(0.5), at(0.99))
}

/// The least, the middle and the greatest.
fn spread(all: impl Iterator<Item = f64>) -> (f64, f64, f64) {
    let mut all: Vec<f64> = all.collect();
    all.sort_unstable_by(f64::total_cmp);
    (all[0], all[all.len() / 2], all[all.len() - 1])
}

/// Registers a webhook for the Deployments of one namespace.
fn register(cluster: &Kubernetes, name: &str, port: u16, ca: &[u8], namespace: &str) {
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [{
            "name": format!("{name}.example.com"), "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "failurePolicy": "Fail", "timeoutSeconds": 5,
            "clientConfig": {
                "url": format!("https://127.0.0.1:{port}/validate"),
                "caBundle": base64::engine::general_purpose::STANDARD.encode(ca)
            },
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "rules": [{
                "apiGroups": ["apps"], "apiVersions": ["*"], "operations": ["CREATE"],
                "resources": ["deployments"]
            }]
        }]
    });
    cluster.apply(&configuration.to_string());
}

/// A webhook that reads a review and allows it.
struct Nothing {
    port: u16,
    ca: Vec<u8>,
    _process: Process,
}

impl Nothing {
    async fn start(cluster: &Kubernetes) -> Self {
        let ca = cluster.folder().join("nothing-ca.crt");
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(NOTHING).arg(&ca);
        let process = Process::start("nothing", cluster.folder(), &mut command);
        let line = process.line(&["listening"]).await;
        let port = line.rsplit(' ').next().unwrap();
        Self {
            port: port.parse().unwrap(),
            ca: std::fs::read(ca).unwrap(),
            _process: process,
        }
    }
}

/// Is that webhook until it is killed; the last argument says where its authority is to be written.
async fn do_nothing() {
    let names = Names::parse(["127.0.0.1"]).unwrap();
    let now = Timestamp::now();
    let validity = Validity::starting(now, SignedDuration::from_hours(1)).unwrap();
    let authority = Authority::generate("nothing", names.clone(), validity).unwrap();
    let leaf = authority.issue(&names, validity).unwrap();
    let slot = CertificateSlot::new(Identity::from_issued(&leaf, now).unwrap());
    let tls = server_config(slot, TlsVersions::Only13, None).unwrap();
    let router = Router::new().route("/validate", post(allow));
    let (_trigger, shutdown) = Trigger::new();
    let listener = server::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    std::fs::write(
        std::env::args().next_back().unwrap(),
        authority.certificate_pem(),
    )
    .unwrap();
    println!("listening at {}", listener.local_addr().unwrap().port());
    server::run(
        listener,
        Arc::clone(&tls),
        router,
        ServerOptions::default(),
        shutdown,
    )
    .await;
}

async fn allow(body: String) -> ([(&'static str, &'static str); 1], String) {
    let review: Value = serde_json::from_str(&body).unwrap();
    let answer = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "response": {"uid": review["request"]["uid"], "allowed": true}
    });
    ([("content-type", "application/json")], answer.to_string())
}

/// The baselines of new namespaces.
async fn baselines(cluster: &Kubernetes, client: &Client) {
    // With the certificate that the controller keeps: what it writes is judged as well.
    let port = free_port();
    let webhook = installation::webhook(cluster, "judge", port);
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence"));
    let url = format!("https://127.0.0.1:{port}");
    command
        .args(["controller", "--webhook-url", &url, "--kubeconfig"])
        .arg(cluster.kubeconfig())
        .envs(ALLOCATOR);
    let controller = Process::start("controller", cluster.folder(), &mut command);
    webhook.line(&["listening"]).await;
    controller.line(&["leading"]).await;
    memory("controller, leading", &controller);
    controller.line(&["audit done"]).await;
    tokio::time::sleep(AT_REST).await;
    memory("controller, all audited", &controller);
    let guardrail = json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": "Guardrail", "metadata": {"name": "new"},
        "spec": {
            "namespaceSelector": {"matchLabels": {"new": "true"}},
            "baseline": {"mode": "Enforce"}
        }
    });
    cluster.apply(&guardrail.to_string());
    let begun = Instant::now();
    let namespaces = (0..NEW).map(|number| {
        let name = format!("new-{number}");
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {"new": "true"}}
        });
        write(client, namespace)
    });
    futures_util::stream::iter(namespaces)
        .buffer_unordered(AT_ONCE)
        .for_each(async |()| ())
        .await;
    let made = begun.elapsed();
    let policies: Api<NetworkPolicy> = Api::all(client.clone());
    let ours = ListParams::default()
        .labels("ringfence.dev/part-of=baseline")
        .match_any();
    Kubernetes::eventually("all baselines", async || {
        let list = policies.list_metadata(&ours).await.unwrap();
        (list.items.len() == NEW).then_some(())
    })
    .await;
    println!(
        "{NEW} namespaces made in {made:.2?}, all with their baseline after {:.2?}",
        begun.elapsed()
    );
    let log = std::fs::read_to_string(cluster.audit_log(0)).unwrap();
    let writes = log
        .lines()
        .filter(|line| line.contains("fieldManager=ringfence"))
        .count();
    println!("writes of the controller: {writes}");
    memory("controller, after that", &controller);
}

/// Prints what memory a process has, and gives how much of it is data, in MB.
fn memory(what: &str, process: &Process) -> u64 {
    let path = format!("/proc/{}/status", process.id());
    let status = std::fs::read_to_string(path).expect("its status");
    let megabytes = |field: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(field));
        let words = line.and_then(|line| line.split_whitespace().nth(1));
        words.expect("a field").parse::<u64>().expect("a number") / 1024
    };
    println!(
        "{what}: memory {} MB, {} MB of it data, the rest the program (peak {} MB)",
        megabytes("VmRSS:"),
        megabytes("RssAnon:"),
        megabytes("VmHWM:")
    );
    megabytes("RssAnon:")
}
