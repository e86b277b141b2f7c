//! Two requests at one moment: each is let in for what it sees, and together they leave a pod without isolation. That cannot be
//! kept from happening at admission; it is repaired where a baseline is enforced, and told where not. The two requests come to two
//! API servers, each of which asks a replica of its own.

use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::access::definitions;
use crate::installation::{controller, fails_for, install_kinds, registered, webhook_with};
use crate::kubernetes::{Kubernetes, free_port};
use crate::process::Process;
use crate::registration::{default_deny, namespace, refused};
use crate::service::Endpoints;

/// How often requests race at most until it has happened as often as is wanted.
const TRIES: usize = 60;
/// How often it has to happen.
const WANTED: usize = 3;
/// How long the controller may take to put a baseline in place of a policy that is gone.
const REPAIRED: Duration = Duration::from_secs(5);
/// How long it may take until the report has it: a minute between two audits, and the audit.
const TOLD: Duration = Duration::from_mins(2);

/// Pods are to be isolated. In the stage `prod` a baseline sees to it, in the stage `bare` nothing does.
const GUARDRAILS: &str = "
apiVersion: ringfence.dev/v1alpha1
kind: Guardrail
metadata: {name: kept}
spec:
  mode: Enforce
  namespaceSelector: {matchLabels: {stage: prod}}
  coverage: {}
  baseline: {dns: {enabled: false}, monitoring: {enabled: false}}
---
apiVersion: ringfence.dev/v1alpha1
kind: Guardrail
metadata: {name: told}
spec:
  mode: Enforce
  namespaceSelector: {matchLabels: {stage: bare}}
  coverage: {}
";

/// Deletes the policy of a namespace and makes a pod in it at the same moment; gives the pod where both were let in.
async fn race(servers: &[Client; 2], namespace: &str) -> Option<Pod> {
    let [one, other] = servers.clone();
    let policies: Api<NetworkPolicy> = Api::namespaced(one, namespace);
    let pods: Api<Pod> = Api::namespaced(other, namespace);
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "web"}, "spec": {"containers": [{"name": "main", "image": "x"}]}
    }))
    .unwrap();
    let (gone, never) = (DeleteParams::default(), PostParams::default());
    let (deleted, made) = tokio::join!(
        policies.delete("default-deny", &gone),
        pods.create(&never, &pod)
    );
    deleted.ok().and(made.ok())
}

/// Whether one replica judged both requests of a race.
fn judged_both(replica: &Process, namespace: &str) -> bool {
    let log = replica.log();
    let judged = |operation: &str, kind: &str| {
        let mut lines = log.lines().filter(|line| line.contains("reviewed"));
        let words = [operation, kind, namespace];
        lines.any(|line| {
            words
                .iter()
                .all(|word| line.split([' ', '=', '"']).any(|it| it == *word))
        })
    };
    judged("Delete", "NetworkPolicy") && judged("Create", "Pod")
}

fn number(version: Option<String>) -> u64 {
    version.unwrap().parse().unwrap()
}

/// Makes a namespace of a stage whose own policy does all that is wanted.
async fn own(cluster: &Kubernetes, name: &str, stage: &str) {
    cluster.apply(&(namespace(name, "none") + &default_deny(name)));
    cluster.apply(&namespace(name, stage));
    registered(cluster, "in fail", |c| fails_for(c, name)).await;
}

/// Waits for the report of a namespace to have its pod without isolation; gives when it had.
async fn told(client: Client, namespace: String) -> Instant {
    let kind = GroupVersionKind::gvk("wgpolicyk8s.io", "v1alpha2", "PolicyReport");
    let kind = ApiResource::from_gvk_with_plural(&kind, "policyreports");
    let reports: Api<DynamicObject> = Api::namespaced_with(client, &namespace, &kind);
    Kubernetes::eventually("the pod in the report", async || {
        let report = reports.get_opt("ringfence").await.ok()??;
        let results = report.data["results"].as_array()?;
        let is_told =
            |result: &&Value| result["rule"] == "RF201" && result["resources"][0]["name"] == "web";
        results.iter().find(is_told).map(|_| Instant::now())
    })
    .await
}

/// A controller and two replicas of the webhook behind one Service; what else must live.
async fn replicas(cluster: &Kubernetes) -> ([Process; 2], (Process, JoinHandle<()>)) {
    install_kinds(cluster).await;
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = front.local_addr().unwrap().port();
    let endpoints = Endpoints::default();
    let service = tokio::spawn(endpoints.clone().serve(front));
    let controller = controller(cluster, "controller", at, &[]);
    controller.line(&["leading"]).await;
    let ports = [free_port(), free_port()];
    let names = ["one", "two"];
    let replicas =
        [0, 1].map(|index| webhook_with(cluster, names[index], ports[index], &["--log", "debug"]));
    for replica in &replicas {
        replica.line(&["listening"]).await;
    }
    endpoints.set(ports.map(|port| ([127, 0, 0, 1], port).into()).to_vec());
    (replicas, (controller, service))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_requests_at_one_moment_uncover_is_repaired_by_the_baseline_and_told_in_the_report()
 {
    let cluster = Kubernetes::with_servers(2).await;
    cluster.apply(&definitions());
    let (replicas, _rest) = replicas(&cluster).await;
    cluster.apply(GUARDRAILS);
    cluster.apply(&namespace("probe", "bare"));
    registered(&cluster, "probe in fail", |c| fails_for(c, "probe")).await;
    refused(
        &cluster,
        &crate::registration::pod("web", "probe"),
        "default-deny",
    )
    .await;
    let client = cluster.client().await;
    let servers = [cluster.client_of(0).await, cluster.client_of(1).await];

    // Where nothing repairs it.
    let mut bare = None;
    for round in 0..TRIES {
        let name = format!("bare-{round}");
        own(&cluster, &name, "bare").await;
        if race(&servers, &name).await.is_some() {
            bare = Some(name);
            break;
        }
    }
    let bare = bare.expect("both were let in");
    let since = Instant::now();
    let told = tokio::spawn(told(client.clone(), bare.clone()));
    let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), &bare);
    let left = policies
        .list(&kube::api::ListParams::default())
        .await
        .unwrap();
    assert!(left.items.is_empty(), "{left:?}");
    // Whoever asks is told at once.
    let audit = Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .args(["audit", "--namespace", &bare, "--kubeconfig"])
        .arg(cluster.kubeconfig())
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&audit.stdout);
    assert_eq!(audit.status.code(), Some(1), "{words}");
    assert!(words.contains("RF201") && words.contains("web"), "{words}");

    // Where a baseline is enforced, which was not made since the namespace's own policy was enough.
    let (mut took, mut apart) = (Vec::new(), false);
    for round in 0..TRIES {
        let name = format!("kept-{round}");
        own(&cluster, &name, "prod").await;
        let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), &name);
        let baseline = async || policies.get_opt("ringfence-baseline").await.unwrap();
        if baseline().await.is_some() {
            continue;
        }
        let Some(pod) = race(&servers, &name).await else {
            continue;
        };
        let begun = Instant::now();
        let repaired = Kubernetes::eventually("the baseline", &baseline).await;
        // A pod that has waited for the baseline has lost the race.
        if number(pod.resource_version()) < number(repaired.resource_version()) {
            took.push(begun.elapsed());
            apart |= !replicas.iter().any(|replica| judged_both(replica, &name));
        }
        if took.len() >= WANTED && apart {
            break;
        }
    }
    eprintln!("repaired after {took:?}");
    assert!(
        apart,
        "once at least, each request was judged by a replica of its own"
    );
    assert!(took.len() >= WANTED, "it has to happen to be repaired");
    assert!(took.iter().all(|took| *took < REPAIRED), "{took:?}");

    let told = told.await.unwrap().duration_since(since);
    eprintln!("reported after {told:?}");
    assert!(told < TOLD, "{told:?}");
}
