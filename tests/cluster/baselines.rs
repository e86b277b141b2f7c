//! Baselines in a real cluster: new namespaces get theirs, edits and deletions are undone, pods that run are not cut, and no
//! pod comes before the baseline that it waits for.

use std::time::{Duration, Instant};

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::installation::{Installation, fails_for, registered};
use crate::kubernetes::Kubernetes;
use crate::registration::{create, default_deny, namespace, pod, refused};

/// How many namespaces are made in one go with their pods.
const ROUNDS: usize = 30;

const GUARDRAIL: &str = "
apiVersion: ringfence.dev/v1alpha1
kind: Guardrail
metadata: {name: baselines}
spec:
  mode: Enforce
  namespaceSelector: {matchLabels: {stage: prod}}
  coverage: {}
  baseline: {}
";

async fn policies(cluster: &Kubernetes, namespace: &str) -> Api<NetworkPolicy> {
    Api::namespaced(cluster.client().await, namespace)
}

async fn there(policies: &Api<NetworkPolicy>) -> Option<NetworkPolicy> {
    policies.get_opt("ringfence-baseline").await.unwrap()
}

/// There is no kubelet to say so.
async fn run(cluster: &Kubernetes, namespace: &str, name: &str) {
    let pods: Api<Pod> = Api::namespaced(cluster.client().await, namespace);
    let running = json!({"status": {"phase": "Running"}});
    let merge = Patch::Merge(&running);
    let as_us = PatchParams::default();
    pods.patch_status(name, &as_us, &merge).await.unwrap();
}

/// Creates a pod; the API server looks for the service account in a cache of its own, before it asks anybody.
fn first_try(cluster: &Kubernetes, pod: &str) -> Result<(), String> {
    loop {
        match create(cluster, pod, &[]) {
            Err(refusal) if refusal.contains("error looking up service account") => {}
            tried => return tried,
        }
    }
}

#[tokio::test]
async fn a_namespace_is_given_its_baseline_and_keeps_it_until_nobody_wants_it() {
    let cluster = Kubernetes::start().await;
    // This one has a pod that runs, from before.
    cluster.apply(&(namespace("old", "prod") + &pod("web", "old")));
    run(&cluster, "old", "web").await;
    // And this one does by itself all that a baseline would.
    cluster.apply(&namespace("own", "prod"));
    cluster.apply(&default_deny("own"));
    let guardrail = GUARDRAIL.replace(
        "baseline: {}",
        "baseline: {dns: {enabled: false}, monitoring: {enabled: false}}",
    );
    let installation = Installation::start(&cluster, &[]).await;
    cluster.apply(&guardrail);
    cluster.apply(&namespace("shop", "prod"));
    let shop = policies(&cluster, "shop").await;
    let made = Kubernetes::eventually("the baseline", async || there(&shop).await).await;
    let good = made.spec.unwrap();
    assert_eq!(good.policy_types.as_ref().map(Vec::len), Some(2));

    // What is edited and what is deleted comes back, and what others added in metadata stays.
    let open = json!({
        "metadata": {"annotations": {"example.com/note": "kept"}},
        "spec": {"egress": [{}], "ingress": [{}]}
    });
    let (as_them, merge) = (PatchParams::default(), Patch::Merge(&open));
    let name = "ringfence-baseline";
    shop.patch(name, &as_them, &merge).await.unwrap();
    let mended = Kubernetes::eventually("the edit undone", async || {
        there(&shop)
            .await
            .filter(|policy| policy.spec.as_ref() == Some(&good))
    })
    .await;
    assert_eq!(mended.annotations()["example.com/note"], "kept");
    shop.delete(name, &DeleteParams::default()).await.unwrap();
    Kubernetes::eventually("the deletion undone", async || there(&shop).await).await;

    // Pods that run are not cut before a promotion, and an equal policy of somebody else is enough.
    let old = policies(&cluster, "old").await;
    assert!(there(&old).await.is_none());
    assert!(there(&policies(&cluster, "own").await).await.is_none());
    cluster.apply(&guardrail.replace("{dns", "{promoted: [old], dns"));
    Kubernetes::eventually("the promoted one", async || there(&old).await).await;

    // A namespace that goes is left to go.
    let gone = cluster.kubectl(&["delete", "namespace", "shop", "--wait=false"], "");
    assert!(gone.status.success());
    // Nobody wants it any more, but a pod would be left without any cover.
    let deleted = cluster.kubectl(&["delete", "guardrail", "baselines"], "");
    assert!(deleted.status.success());
    let without_webhook = async || {
        let refusal = create(&cluster, &pod("late", "own"), &["--dry-run=server"]).err();
        refusal.is_none().then_some(())
    };
    Kubernetes::eventually("nothing registered", without_webhook).await;
    assert!(there(&old).await.is_some());
    cluster.apply(&default_deny("old"));
    let gone = async || there(&old).await.is_none().then_some(());
    Kubernetes::eventually("the baseline gone", gone).await;
    assert!(installation.controller.is_running());
}

#[tokio::test]
async fn pods_come_at_the_first_try_and_never_before_the_baseline_of_their_namespace() {
    let cluster = Kubernetes::start_with_manager().await;
    let installation = Installation::start(&cluster, &[]).await;
    // Where pods run already nothing is made, so nothing is worth to wait for.
    cluster.apply(&(namespace("held", "prod") + &pod("web", "held")));
    run(&cluster, "held", "web").await;
    cluster.apply(GUARDRAIL);
    registered(&cluster, "held in fail", |c| fails_for(c, "held")).await;
    refused(&cluster, &pod("late", "held"), "default-deny").await;

    let client = cluster.client().await;
    for round in 0..ROUNDS {
        let name = format!("round-{round}");
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": name},
            "spec": {
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "main", "image": "x"}]}
                }
            }
        });
        // The controller manager makes the service account.
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {"stage": "prod"}}
        });
        create(&cluster, &format!("{namespace}\n---\n{deployment}"), &[]).unwrap();
        first_try(&cluster, &pod("bare", &name)).unwrap();
    }
    let pods: Api<Pod> = Api::all(client.clone());
    let made = Kubernetes::eventually("the pods of all", async || {
        let pods = pods.list(&kube::api::ListParams::default()).await.unwrap();
        (pods.items.len() == ROUNDS * 2 + 1).then_some(pods.items)
    })
    .await;
    for pod in made
        .iter()
        .filter(|pod| pod.namespace().as_deref() != Some("held"))
    {
        let namespace = pod.namespace().unwrap();
        let policy = there(&policies(&cluster, &namespace).await).await.unwrap();
        // One counter counts the changes of the whole cluster, and nothing changes pods here once they are made.
        let number = |version: Option<String>| version.unwrap().parse::<u64>().unwrap();
        let (pod, policy) = (
            number(pod.resource_version()),
            number(policy.resource_version()),
        );
        assert!(policy < pod, "{namespace}: policy {policy}, pod {pod}");
    }

    // While the controller does nothing a pod waits, and is refused in time to be tried again.
    installation.controller.signal("STOP");
    if let Err(refusal) = create(&cluster, &namespace("late", "prod"), &[]) {
        assert!(refusal.contains("already exists"), "{refusal}");
    }
    let begun = Instant::now();
    let refusal = first_try(&cluster, &pod("bare", "late")).unwrap_err();
    assert!(refusal.contains("try again: the baseline"), "{refusal}");
    assert!(begun.elapsed() > Duration::from_secs(2), "it waited");
    // One that waits passes as soon as the baseline is there.
    std::thread::scope(|scope| {
        let tried = scope.spawn(|| create(&cluster, &pod("bare", "late"), &[]));
        std::thread::sleep(Duration::from_millis(500));
        assert!(!tried.is_finished());
        installation.controller.signal("CONT");
        tried.join().unwrap().unwrap();
    });
    assert!(!installation.webhook.log().contains("panicked"));
}

#[tokio::test]
async fn a_pod_with_a_scheduling_gate_is_taken_at_once_and_let_go_with_the_baseline() {
    let cluster = Kubernetes::start().await;
    let installation = Installation::start(&cluster, &[]).await;
    cluster.apply(&namespace("probe", "prod"));
    cluster.apply(&GUARDRAIL.replace(
        "{}\n  baseline: {}",
        "{}\n  baseline: {schedulingGates: true}",
    ));
    registered(&cluster, "probe in fail", |c| fails_for(c, "probe")).await;
    let client = cluster.client().await;
    let mutating: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    Kubernetes::eventually("pods offered", async || {
        let all = mutating.get_opt("ringfence").await.unwrap();
        let text = serde_json::to_string(&all).unwrap();
        text.contains("\"pods\"").then_some(())
    })
    .await;

    installation.controller.signal("STOP");
    cluster.apply(&namespace("late", "prod"));
    let gates = async |name: &str| {
        let pods: Api<Pod> = Api::namespaced(client.clone(), "late");
        let pod = pods.get(name).await.unwrap();
        pod.spec.unwrap().scheduling_gates.unwrap_or_default().len()
    };
    // The API server takes the registration up, and the webhook the namespace, a moment after they are told.
    Kubernetes::eventually("a pod with a gate", async || {
        let tried = create(
            &cluster,
            &pod("web", "late"),
            &["--dry-run=server", "-o", "yaml"],
        );
        tried.ok()
    })
    .await;
    create(&cluster, &pod("web", "late"), &[]).unwrap();
    assert_eq!(gates("web").await, 1);
    // Whoever takes the gate away by hand is refused, as the pod would start uncovered.
    let open = r#"{"spec": {"schedulingGates": null}}"#;
    let arguments = [
        "patch",
        "pod",
        "web",
        "-n",
        "late",
        "--type=merge",
        "-p",
        open,
    ];
    let refusal = cluster.kubectl(&arguments, "");
    let words = String::from_utf8_lossy(&refusal.stderr);
    assert!(words.contains("default-deny"), "{words}");

    installation.controller.signal("CONT");
    let late = policies(&cluster, "late").await;
    Kubernetes::eventually("the baseline", async || there(&late).await).await;
    Kubernetes::eventually("the gate open", async || {
        (gates("web").await == 0).then_some(())
    })
    .await;
}
