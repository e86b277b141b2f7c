//! Lockout drills: what still works when Ringfence does not, and the way back that the README describes.

use std::process::Command;

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::installation::{Installation, controller, fails_for, registered, webhook};
use crate::kubernetes::Kubernetes;
use crate::registration::{GUARDRAIL, create, default_deny, pod, refused};

const DEAD: &str = "failed calling webhook";

fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// What a cluster does all the time to stay alive: none of it may ever be refused.
pub(crate) async fn the_cluster_lives(cluster: &Kubernetes, tag: &str) {
    let kubelet = cluster
        .client_as("system:node:one", &["system:nodes", "system:masters"])
        .await;
    let nodes: Api<Node> = Api::all(kubelet.clone());
    let post = PostParams::default();
    let node = format!("node-{tag}");
    let made = json!({"metadata": {"name": node, "labels": {"stage": "prod"}}});
    nodes.create(&post, &object(made)).await.unwrap();
    let leases: Api<Lease> = Api::namespaced(kubelet, "kube-node-lease");
    leases
        .create(
            &post,
            &object(json!({"metadata": {"name": node}, "spec": {"leaseDurationSeconds": 40}})),
        )
        .await
        .unwrap();
    let manager = cluster.client().await;
    let leases: Api<Lease> = Api::namespaced(manager.clone(), "kube-system");
    leases
        .create(&post, &object(json!({"metadata": {"name": node}})))
        .await
        .unwrap();
    let pods: Api<Pod> = Api::namespaced(manager.clone(), "kube-system");
    let spec = json!({"hostNetwork": true, "containers": [{"name": "main", "image": "x"}]});
    pods.create(
        &post,
        &object(json!({"metadata": {"name": node}, "spec": spec})),
    )
    .await
    .unwrap();
    let policies: Api<NetworkPolicy> = Api::namespaced(manager.clone(), "kube-system");
    let open = json!({"metadata": {"name": node}, "spec": {"podSelector": {}, "ingress": [{}]}});
    policies.create(&post, &object(open)).await.unwrap();
    // The status of a pod that is there, wherever it is.
    let pods: Api<Pod> = Api::namespaced(manager, "shop");
    let ready = json!({"status": {"phase": "Running"}});
    pods.patch_status("there", &PatchParams::default(), &Patch::Merge(ready))
        .await
        .unwrap();
}

/// Authorities that sign soon.
pub(crate) const HOLD: [&str; 4] = ["--leaf-validity", "1h", "--hold", "1s"];

/// The namespace, ready for pods.
pub(crate) async fn shop(cluster: &Kubernetes) {
    cluster
        .apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {stage: prod}}}");
    for namespace in ["shop", "kube-system"] {
        let account = ["get", "serviceaccount", "default", "-n", namespace];
        let there = async || cluster.kubectl(&account, "").status.success().then_some(());
        Kubernetes::eventually("the account that pods run as", there).await;
    }
}

/// A cluster with a namespace in Enforce that has a pod, and everything of Ringfence in place.
pub(crate) async fn installed() -> (Kubernetes, Installation) {
    let cluster = Kubernetes::start_with_manager().await;
    let installation = Installation::start(&cluster, &HOLD).await;
    guarded(&cluster, GUARDRAIL).await;
    (cluster, installation)
}

/// The namespace with a pod, in Enforce by this Guardrail.
pub(crate) async fn guarded(cluster: &Kubernetes, guardrail: &str) {
    shop(cluster).await;
    let covered = default_deny("shop") + &pod("there", "shop");
    create(cluster, &covered, &[]).unwrap();
    cluster.apply(guardrail);
    registered(cluster, "shop in fail", |c| fails_for(c, "shop")).await;
}

pub(crate) fn open_policy() -> &'static str {
    "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: open, namespace: shop}, \
     spec: {podSelector: {}, ingress: [{}]}}"
}

async fn break_glass(cluster: &Kubernetes) -> Client {
    cluster
        .client_as("jane", &["ringfence.dev:break-glass", "system:masters"])
        .await
}

#[tokio::test]
async fn with_every_replica_dead_the_cluster_lives_and_there_is_a_way_in() {
    let (cluster, installation) = installed().await;
    let Installation {
        controller,
        webhook,
        ..
    } = installation;
    // Both are gone, so nothing mends itself.
    drop((webhook, controller));
    refused(&cluster, &pod("web", "shop"), DEAD).await;
    the_cluster_lives(&cluster, "dead").await;

    // Break glass is an act of its own; a mighty user without it is refused still.
    let jane = break_glass(&cluster).await;
    let pods: Api<Pod> = Api::namespaced(jane, "shop");
    let spec = json!({"containers": [{"name": "main", "image": "x"}]});
    let web = json!({"metadata": {"name": "web"}, "spec": spec});
    pods.create(&PostParams::default(), &object(web.clone()))
        .await
        .unwrap();
    let mighty = cluster.client_as("jane", &["system:masters"]).await;
    let policies: Api<NetworkPolicy> = Api::namespaced(mighty, "shop");
    let error = policies
        .delete("default-deny", &DeleteParams::default())
        .await
        .unwrap_err();
    assert!(error.to_string().contains(DEAD), "{error}");
    let log = std::fs::read_to_string(cluster.audit_log(0)).unwrap();
    let told = log.lines().any(|line| {
        line.contains("ringfence.dev:break-glass")
            && line.contains("\"resource\":\"pods\"")
            && line.contains("\"jane\"")
    });
    assert!(told, "the audit log has it");

    // What the controllers delete passes, and what is only called like one of them does not.
    let like = cluster
        .client_as(
            "system:serviceaccount:shop:namespace-controller",
            &["system:masters"],
        )
        .await;
    let policies: Api<NetworkPolicy> = Api::namespaced(like, "shop");
    let error = policies
        .delete("default-deny", &DeleteParams::default())
        .await
        .unwrap_err();
    assert!(error.to_string().contains(DEAD), "{error}");
    let whole = cluster
        .client_as("system:kube-controller-manager", &["system:masters"])
        .await;
    let policies: Api<NetworkPolicy> = Api::namespaced(whole, "shop");
    policies
        .delete("default-deny", &DeleteParams::default())
        .await
        .unwrap();
    let made = object(json!({"metadata": {"name": "x"}, "spec": {"podSelector": {}}}));
    let error = policies
        .create(&PostParams::default(), &made)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains(DEAD),
        "what it makes is judged: {error}"
    );

    // A namespace ends, with all that is in it.
    cluster.kubectl(&["delete", "namespace", "shop", "--wait=false"], "");
    cluster.gone("shop").await;
}

#[tokio::test]
async fn with_every_webhook_dead_a_guardrail_can_be_made_milder_and_taken_away() {
    let (cluster, installation) = installed().await;
    let Installation {
        controller,
        webhook,
        port,
    } = installation;
    drop(webhook);
    refused(&cluster, &pod("web", "shop"), DEAD).await;
    cluster.apply(&GUARDRAIL.replace("Enforce", "Audit"));
    registered(&cluster, "shop not in fail", |c| !fails_for(c, "shop")).await;
    let passes = async || create(&cluster, &pod("web", "shop"), &["--dry-run=server"]).ok();
    Kubernetes::eventually("a create that nobody judges passes", passes).await;
    the_cluster_lives(&cluster, "milder").await;

    cluster.apply(GUARDRAIL);
    registered(&cluster, "shop in fail again", |c| fails_for(c, "shop")).await;
    refused(&cluster, &pod("web", "shop"), DEAD).await;
    let deleted = cluster.kubectl(&["delete", "guardrail", "prod"], "");
    assert!(deleted.status.success());
    Kubernetes::eventually("a create passes", passes).await;

    // Back as it was, once a replica is there again.
    cluster.apply(GUARDRAIL);
    let _webhook = crate::installation::webhook(&cluster, "again", port);
    refused(&cluster, open_policy(), "RF").await;
    drop(controller);
}

#[tokio::test]
async fn an_expired_certificate_and_a_wrong_bundle_are_mended_by_the_next_controller() {
    let (cluster, installation) = installed().await;
    let Installation {
        controller: first,
        webhook: shown,
        port,
    } = installation;
    refused(&cluster, open_policy(), "RF").await;

    // A bundle that trusts somebody else, and nobody there to mend it.
    drop(first);
    let stranger = Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .args(["certs", "dev", "--name", "127.0.0.1", "--out"])
        .arg(cluster.folder().join("stranger"))
        .output()
        .unwrap();
    assert!(stranger.status.success());
    let wrong = std::fs::read(cluster.folder().join("stranger/ca.crt")).unwrap();
    let client = cluster.client().await;
    let validating: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let mut configuration = validating.get("ringfence").await.unwrap();
    for entry in configuration.webhooks.iter_mut().flatten() {
        entry.client_config.ca_bundle = Some(k8s_openapi::ByteString(wrong.clone()));
    }
    validating
        .replace("ringfence", &PostParams::default(), &configuration)
        .await
        .unwrap();
    refused(
        &cluster,
        &pod("web", "shop"),
        "certificate signed by unknown authority",
    )
    .await;
    the_cluster_lives(&cluster, "wrong").await;
    shown.line(&["does not trust the certificate"]).await;
    let healthy = Command::new("curl")
        .args(["-sk", &format!("https://127.0.0.1:{port}/readyz")])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&healthy.stdout),
        "ok\n",
        "one fault must not take all out"
    );
    let jane: Api<NetworkPolicy> = Api::namespaced(break_glass(&cluster).await, "shop");
    jane.create(
        &PostParams::default(),
        &object(
            json!({"metadata": {"name": "glass"}, "spec": {"podSelector": {}, "ingress": [{}]}}),
        ),
    )
    .await
    .unwrap();
    let second = controller(
        &cluster,
        "second",
        port,
        &[
            "--leaf-validity",
            "3s",
            "--ca-validity",
            "60s",
            "--hold",
            "1s",
        ],
    );
    refused(&cluster, open_policy(), "RF").await;

    // A leaf that ends, and nobody there to sign the next one. A replica that starts then has nothing to show.
    shown.line(&["certificate replaced"]).await;
    drop((second, shown));
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    let late = webhook(&cluster, "late", port);
    late.line(&["waiting for a certificate", "expired"]).await;
    refused(&cluster, &pod("web", "shop"), DEAD).await;
    the_cluster_lives(&cluster, "expired").await;
    let _third = controller(&cluster, "third", port, &["--hold", "1s"]);
    refused(&cluster, open_policy(), "RF").await;
}

#[tokio::test]
async fn a_guardrail_for_everything_leaves_the_cluster_itself_alone() {
    let (cluster, installation) = installed().await;
    cluster.apply(
        "{apiVersion: ringfence.dev/v1alpha1, kind: Guardrail, metadata: {name: all}, \
         spec: {mode: Enforce, unchanged: Judge, coverage: {}, bypasses: {}, breadth: {}, labels: {}}}",
    );
    registered(&cluster, "default in fail", |c| fails_for(c, "default")).await;
    the_cluster_lives(&cluster, "alive").await;
    drop(installation.webhook);
    refused(&cluster, &pod("web", "default"), DEAD).await;
    the_cluster_lives(&cluster, "dead").await;
}

#[tokio::test]
async fn an_uninstall_takes_the_registration_along_with_the_controller_dead() {
    let cluster = Kubernetes::start_with_manager().await;
    cluster.apply("{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: ringfence-controller}, rules: []}");
    let installation = Installation::start(&cluster, &[]).await;
    shop(&cluster).await;
    guarded(&cluster, GUARDRAIL).await;
    drop(installation);
    refused(&cluster, &pod("web", "shop"), DEAD).await;
    the_cluster_lives(&cluster, "dead").await;
    cluster.kubectl(&["delete", "clusterrole", "ringfence-controller"], "");
    let client = cluster.client().await;
    let validating: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let mutating: Api<MutatingWebhookConfiguration> = Api::all(client);
    let collected = async || {
        let validating = validating.get_opt("ringfence").await.unwrap();
        let mutating = mutating.get_opt("ringfence").await.unwrap();
        (validating.is_none() && mutating.is_none()).then_some(())
    };
    Kubernetes::eventually("both configurations collected", collected).await;
    Kubernetes::eventually("a create passes", async || {
        create(&cluster, &pod("web", "shop"), &["--dry-run=server"]).ok()
    })
    .await;
    the_cluster_lives(&cluster, "rid").await;
}

#[tokio::test]
async fn without_credentials_of_their_own_controllers_end_a_namespace_too_with_every_replica_dead()
{
    let cluster = Kubernetes::start_with_one_credential().await;
    let installation = Installation::start(&cluster, &HOLD).await;
    guarded(&cluster, GUARDRAIL).await;
    drop(installation);
    refused(&cluster, &pod("web", "shop"), DEAD).await;
    the_cluster_lives(&cluster, "one").await;
    cluster.kubectl(&["delete", "namespace", "shop", "--wait=false"], "");
    cluster.gone("shop").await;
    let log = std::fs::read_to_string(cluster.audit_log(0)).unwrap();
    let deleted = log.lines().any(|line| {
        line.contains("\"resource\":\"networkpolicies\"")
            && line.contains("\"verb\":\"delete")
            && line.contains("\"username\":\"system:kube-controller-manager\"")
    });
    assert!(deleted, "the manager itself has deleted the policies");
}
