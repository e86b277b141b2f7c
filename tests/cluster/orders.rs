//! The orders in which people and programs bring a namespace, its policies and its workloads, by kubectl and Helm: each works
//! at the first try, every time. `RINGFENCE_ROUNDS=100` tries each so often and `--nocapture` shows how long they took.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::helm;
use crate::installation::{Installation, fails_for, registered};
use crate::kubernetes::Kubernetes;
use crate::registration::{default_deny, pod, refused};

/// How often each order is tried unless it is said.
const ROUNDS: usize = 3;
/// How many are under way at once.
const AT_ONCE: usize = 4;

const GUARDRAIL: &str = "
apiVersion: ringfence.dev/v1alpha1
kind: Guardrail
metadata: {name: orders}
spec:
  mode: Enforce
  namespaceSelector: {matchExpressions: [{key: stage, operator: NotIn, values: [none]}]}
  coverage: {}
  bypasses: {}
";

/// An order: its name, and what is done in a namespace that is not there yet.
type Order = (&'static str, fn(&Kubernetes, &str) -> Result<(), String>);

/// Which order was tried, how long it took, and what came of it.
type Done = (&'static str, Duration, Result<(), String>);

/// Those that bring a policy before the workload, which is enough by itself.
const POLICY_FIRST: [Order; 4] = [
    ("in-one-go", in_one_go),
    ("server-side", server_side),
    ("helm", by_helm),
    ("helm-client-side", by_helm_client_side),
];

/// Those in which it is the baseline that the workload waits for.
const WORKLOAD_FIRST: [Order; 4] = [
    ("workload-first", workload_first),
    ("without-a-policy", without_a_policy),
    ("helm-without-a-policy", by_helm_without_a_policy),
    ("bare-pod", bare_pod),
];

fn namespace(name: &str) -> String {
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {"stage": "prod"}}
    });
    format!("{namespace}\n---\n")
}

fn deployment(namespace: &str) -> String {
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "containers": [{"name": "main", "image": "x"}]
                }
            }
        }
    });
    format!("{deployment}\n---\n")
}

fn kubectl(cluster: &Kubernetes, arguments: &[&str], manifests: &str) -> Result<(), String> {
    let output = cluster.kubectl(arguments, manifests);
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

fn in_one_go(cluster: &Kubernetes, name: &str) -> Result<(), String> {
    let all = namespace(name) + &default_deny(name) + &deployment(name);
    kubectl(cluster, &["apply", "-f", "-"], &all)
}

fn server_side(cluster: &Kubernetes, name: &str) -> Result<(), String> {
    let all = namespace(name) + &default_deny(name) + &deployment(name);
    kubectl(cluster, &["apply", "--server-side", "-f", "-"], &all)
}

fn by_helm(cluster: &Kubernetes, name: &str) -> Result<(), String> {
    helm::install(cluster, name, &[])
}

fn by_helm_client_side(cluster: &Kubernetes, name: &str) -> Result<(), String> {
    helm::install(cluster, name, &["--server-side=false"])
}

fn by_helm_without_a_policy(cluster: &Kubernetes, name: &str) -> Result<(), String> {
    helm::install(cluster, name, &["--set", "policy=false"])
}

fn workload_first(cluster: &Kubernetes, name: &str) -> Result<(), String> {
    let all = namespace(name) + &deployment(name) + &default_deny(name);
    kubectl(cluster, &["apply", "-f", "-"], &all)
}

fn without_a_policy(cluster: &Kubernetes, name: &str) -> Result<(), String> {
    let all = namespace(name) + &deployment(name);
    kubectl(cluster, &["apply", "-f", "-"], &all)
}

fn bare_pod(cluster: &Kubernetes, name: &str) -> Result<(), String> {
    kubectl(cluster, &["apply", "-f", "-"], &namespace(name))?;
    // Without it no API server takes a pod, whoever else is asked; the controller manager makes it.
    let account = ["get", "serviceaccount", "default", "-n", name];
    while kubectl(cluster, &account, "").is_err() {
        std::thread::sleep(Duration::from_millis(10));
    }
    kubectl(cluster, &["apply", "-f", "-"], &pod("web", name))
}

/// Tries each order as often as is asked for; gives how often that was.
fn try_all(cluster: &Kubernetes, orders: &[Order]) -> usize {
    helm::chart(cluster);
    let asked = std::env::var("RINGFENCE_ROUNDS").ok();
    let rounds = asked.map_or(ROUNDS, |text| {
        text.parse().expect("RINGFENCE_ROUNDS: a number")
    });
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<Done>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let (round, order) = (number / orders.len(), number % orders.len());
                    if round >= rounds {
                        return;
                    }
                    let (name, order) = orders[order];
                    let begun = Instant::now();
                    let tried = order(cluster, &format!("{name}-{round}"));
                    done.lock().unwrap().push((name, begun.elapsed(), tried));
                }
            });
        }
    });
    let done = done.into_inner().unwrap();
    let mut failures = Vec::new();
    for (name, _) in orders {
        let of_it = done.iter().filter(|(of, ..)| of == name);
        let mut took: Vec<Duration> = of_it.clone().map(|(_, took, _)| *took).collect();
        took.sort();
        let failed = of_it.filter_map(|(_, _, tried)| tried.clone().err());
        let failed: Vec<String> = failed.collect();
        eprintln!(
            "{name}: {} of {rounds} at the first try, {:?} in the middle, {:?} at most",
            rounds - failed.len(),
            took[took.len() / 2],
            took[took.len() - 1]
        );
        failures.extend(failed);
    }
    assert!(failures.is_empty(), "{failures:#?}");
    rounds * orders.len()
}

/// Waits for the pods of all namespaces, and holds that none came before what isolates it.
async fn none_came_before_its_policy(cluster: &Kubernetes, count: usize) {
    let client = cluster.client().await;
    let pods: Api<Pod> = Api::all(client.clone());
    let of_app = ListParams::default().labels("app=web");
    let made = Kubernetes::eventually("the pods of all", async || {
        let pods = pods.list(&of_app).await.unwrap().items;
        (pods.len() == count).then_some(pods)
    })
    .await;
    let policies: Api<NetworkPolicy> = Api::all(client);
    let policies = policies.list(&ListParams::default()).await.unwrap().items;
    // One counter counts the changes of the whole cluster, and nothing changes pods here once they are made.
    let number = |version: Option<String>| version.unwrap().parse::<u64>().unwrap();
    for pod in made {
        let (namespace, at) = (pod.namespace(), number(pod.resource_version()));
        let mut policies = policies.iter().filter(|it| it.namespace() == namespace);
        assert!(
            policies.any(|policy| number(policy.resource_version()) < at),
            "{namespace:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_brings_its_policy_works_at_the_first_try() {
    let cluster = Kubernetes::start_with_manager().await;
    let installation = Installation::start(&cluster, &[]).await;
    cluster.apply(GUARDRAIL);
    in_force(&cluster).await;
    let count = try_all(&cluster, &POLICY_FIRST);
    none_came_before_its_policy(&cluster, count).await;
    assert!(!installation.webhook.log().contains("panicked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_baseline_every_order_works_at_the_first_try() {
    let cluster = Kubernetes::start_with_manager().await;
    let installation = Installation::start(&cluster, &[]).await;
    cluster.apply(&format!("{GUARDRAIL}  baseline: {{}}\n"));
    in_force(&cluster).await;
    let orders = [POLICY_FIRST, WORKLOAD_FIRST].concat();
    let count = try_all(&cluster, &orders);
    none_came_before_its_policy(&cluster, count).await;
    assert!(!installation.webhook.log().contains("panicked"));
}

/// Waits until the API server asks the webhook: what it is not asked about says nothing of it.
async fn in_force(cluster: &Kubernetes) {
    cluster.apply(&namespace("probe"));
    registered(cluster, "probe in fail", |c| fails_for(c, "probe")).await;
    let shares = deployment("probe").replace("\"containers\"", "\"hostPID\":true,\"containers\"");
    refused(cluster, &shares, "hostPID").await;
}
