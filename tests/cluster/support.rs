//! The test cluster itself: that it is what the other tests take it for.

use std::process::Command;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use crate::kubernetes::Kubernetes;
use crate::process::Process;

fn namespace(name: &str) -> Namespace {
    serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()
}

#[tokio::test]
async fn the_shared_cluster_is_of_the_release_and_keeps_objects() {
    let cluster = Kubernetes::shared().await;
    let client = cluster.client().await;
    let version = client.apiserver_version().await.unwrap();
    assert_eq!(version.git_version, "v1.36.3");

    let namespaces: Api<Namespace> = Api::all(client);
    let made = namespaces
        .create(&PostParams::default(), &namespace("support-keeps"))
        .await
        .unwrap();
    let labels = made.metadata.labels.unwrap();
    assert_eq!(labels["kubernetes.io/metadata.name"], "support-keeps");
    let printed = cluster
        .apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: support-keeps}}");
    assert_eq!(printed, "configmap/a created\n");
}

#[tokio::test]
async fn a_client_can_act_as_somebody_without_rights() {
    let cluster = Kubernetes::shared().await;
    let client = cluster.client_as("jane", &["developers"]).await;
    let configs: Api<ConfigMap> = Api::namespaced(client, "default");
    let error = configs.list(&kube::api::ListParams::default()).await;
    let text = error.unwrap_err().to_string();
    assert!(text.contains("User \"jane\" cannot list"), "{text}");
}

#[tokio::test]
async fn an_api_server_comes_back_with_what_it_had_and_the_manager_ends_namespaces() {
    let cluster = Kubernetes::start_with_manager().await;
    let namespaces: Api<Namespace> = Api::all(cluster.client().await);
    namespaces
        .create(&PostParams::default(), &namespace("gone"))
        .await
        .unwrap();
    cluster.stop_server(0);
    assert!(namespaces.get("gone").await.is_err());
    cluster.start_server(0).await;
    assert!(namespaces.get("gone").await.is_ok());

    namespaces
        .delete("gone", &DeleteParams::default())
        .await
        .unwrap();
    cluster.gone("gone").await;
}

#[tokio::test]
async fn two_api_servers_on_one_etcd_show_the_same() {
    let cluster = Kubernetes::with_servers(2).await;
    let first: Api<Namespace> = Api::all(cluster.client_of(0).await);
    let second: Api<Namespace> = Api::all(cluster.client_of(1).await);
    first
        .create(&PostParams::default(), &namespace("both"))
        .await
        .unwrap();
    assert!(second.get("both").await.is_ok());
}

#[tokio::test]
async fn a_process_is_told_to_end_and_is_killed_with_its_owner() {
    let cluster = Kubernetes::shared().await;
    let script = "trap 'echo told; exit' TERM; echo up; while :; do sleep 0.02; done";
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    let process = Process::start("polite", cluster.folder(), &mut command);
    process.line(&["up"]).await;
    process.signal("TERM");
    process.ended().await;
    assert_eq!(process.log(), "up\ntold\n");

    let process = Process::start("owned", cluster.folder(), &mut command);
    process.line(&["up"]).await;
    let id = process.id();
    drop(process);
    assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
}
