//! Ringfence beside a real API server: 500 namespaces, 10 000 pods, 2 000 policies.
//!
//! `cargo bench --bench cluster`, some minutes. It prints how long the webhook takes from its start until it is ready and
//! what memory it then has; how long `ringfence audit` takes for all of it; how long the controller takes to give 500 new
//! namespaces their baseline and with how many writes; and what the webhook adds to a `create`, beside a webhook that does
//! nothing and beside none, each asked in turn.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
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
use kube::api::{DynamicObject, ListParams, PostParams};
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
#[path = "../cluster/process.rs"]
#[allow(dead_code)]
mod process;

use kubernetes::{Kubernetes, free_port};

/// How many pods there are.
const PODS: usize = 10_000;
/// How many namespaces are made for the controller.
const NEW: usize = 500;
/// How many requests of each kind are timed.
const REQUESTS: usize = 3_000;
/// What `deploy/install/webhook.yaml` asks of the allocator.
const ALLOCATOR: [(&str, &str); 2] = [("MIMALLOC_ALLOW_THP", "0"), ("MIMALLOC_PURGE_DELAY", "10")];
/// How many objects are written at once.
const AT_ONCE: usize = 24;

fn main() {
    // `cargo test --benches` comes here as well; only a bench is asked to measure.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(measure());
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
    println!(
        "start to ready {:.2?} | memory {} MB (peak {} MB)",
        begun.elapsed(),
        memory(webhook.id(), "VmRSS:"),
        memory(webhook.id(), "VmHWM:")
    );

    let begun = Instant::now();
    let audit = Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .args(["audit", "--output", "json", "--kubeconfig"])
        .arg(cluster.kubeconfig())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(audit.code().is_some_and(|code| code < 2));
    println!("audit of all {:.2?}", begun.elapsed());

    added(&cluster, &client, port).await;
    println!(
        "memory after that {} MB (peak {} MB)",
        memory(webhook.id(), "VmRSS:"),
        memory(webhook.id(), "VmHWM:")
    );
    drop(webhook);
    baselines(&cluster, &client).await;
}

async fn start_webhook(cluster: &Kubernetes, port: u16) -> process::Process {
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
    let webhook = process::Process::start("webhook", cluster.folder(), &mut command);
    webhook.line(&["state taken up"]).await;
    webhook
}

/// Writes the cluster; gives the number of objects.
async fn fill(client: &Client) -> usize {
    let mut kinds: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
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
            "NetworkPolicy" | "Pod" => kinds.entry("3").or_default().push(object),
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
    let object = serde_json::from_value(object).unwrap();
    match api.create(&PostParams::default(), &object).await {
        Ok(_) => {}
        // The API server makes its own namespaces.
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => panic!("{kind}: {error}"),
    }
}

/// What the webhook adds to a `create`.
async fn added(cluster: &Kubernetes, client: &Client, port: u16) {
    let nothing = Nothing::start();
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
    let mut times: [Vec<Duration>; 3] = Default::default();
    // The first hundred are for what has to be warm.
    for round in 0..REQUESTS + 100 {
        for turn in 0..3 {
            // Each comes first, second and third as often as the others.
            let which = (round + turn) % 3;
            let (api, deployment) = &apis[which];
            let begun = Instant::now();
            api.create(&dry, deployment).await.unwrap();
            if round >= 100 {
                times[which].push(begun.elapsed());
            }
        }
    }
    for times in &mut times {
        times.sort_unstable();
    }
    let at = |which: usize, share: f64| {
        let times = &times[which];
        times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0
    };
    for (which, name) in ["no webhook", "one that does nothing", "ringfence"]
        .into_iter()
        .enumerate()
    {
        println!(
            "create, {name:22} p50 {:.2} ms p99 {:.2} ms",
            at(which, 0.5),
            at(which, 0.99)
        );
    }
    println!(
        "added over one that does nothing: p50 {:+.2} ms p99 {:+.2} ms",
        at(2, 0.5) - at(1, 0.5),
        at(2, 0.99) - at(1, 0.99)
    );
    let all = [
        "delete",
        "validatingwebhookconfigurations,guardrails",
        "--all",
    ];
    assert!(cluster.kubectl(&all, "").status.success());
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
    _trigger: Trigger,
}

impl Nothing {
    fn start() -> Self {
        let names = Names::parse(["127.0.0.1"]).unwrap();
        let now = Timestamp::now();
        let validity = Validity::starting(now, SignedDuration::from_hours(1)).unwrap();
        let authority = Authority::generate("nothing", names.clone(), validity).unwrap();
        let leaf = authority.issue(&names, validity).unwrap();
        let slot = CertificateSlot::new(Identity::from_issued(&leaf, now).unwrap());
        let tls = server_config(slot, TlsVersions::Only13, None).unwrap();
        let router = Router::new().route("/validate", post(allow));
        let (trigger, shutdown) = Trigger::new();
        let listener = server::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(server::run(
            listener,
            Arc::clone(&tls),
            router,
            ServerOptions::default(),
            shutdown,
        ));
        Self {
            port,
            ca: authority.certificate_pem().as_bytes().to_vec(),
            _trigger: trigger,
        }
    }
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
    let controller = installation::controller(cluster, "controller", port, &[]);
    webhook.line(&["listening"]).await;
    controller.line(&["leading"]).await;
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
}

/// A figure of a process's memory, in MB.
fn memory(process: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("its status");
    let line = status.lines().find(|line| line.starts_with(field));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kilobytes.expect("a number") / 1024
}
