//! `ringfence promote` against a real API server: what is there now, and what passed lately and would not have.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::installation::{Installation, registered};
use crate::kubernetes::Kubernetes;
use crate::registration::{GUARDRAIL, create, default_deny, namespace, pod};

/// How it ends, and all that it says.
fn promote(kubeconfig: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .args(["promote", "prod", "--kubeconfig"])
        .arg(kubeconfig)
        .args(arguments)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.code(), text)
}

fn mode(cluster: &Kubernetes) -> Value {
    let output = cluster.kubectl(&["get", "guardrail", "prod", "-o", "json"], "");
    let guardrail: Value = serde_json::from_slice(&output.stdout).unwrap();
    guardrail["spec"]["mode"].clone()
}

/// A kubeconfig of somebody who may read all that is judged and no Events.
fn without_events(cluster: &Kubernetes) -> std::path::PathBuf {
    cluster.apply(
        "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: no-events}, rules: [\
            {apiGroups: ['', apps, batch, networking.k8s.io, ringfence.dev, policy.networking.k8s.io], \
             resources: ['*'], verbs: [list]}]}\n---\n\
         {apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: no-events}, \
          roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: no-events}, \
          subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: jane}]}",
    );
    let text = std::fs::read_to_string(cluster.kubeconfig()).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["users"][0]["user"]["as"] = Value::from("jane");
    let path = cluster.folder().join("jane.kubeconfig");
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

#[tokio::test]
async fn a_guardrail_moves_on_when_nothing_is_there_and_nothing_passed_lately() {
    let cluster = Kubernetes::start().await;
    let installation = Installation::start(&cluster, &[]).await;
    let admin = cluster.kubeconfig();
    cluster.apply(&namespace("shop", "prod"));
    cluster.apply(&GUARDRAIL.replace("mode: Enforce", "mode: Audit"));
    registered(&cluster, "an entry", |c| c.webhooks.is_some()).await;
    let delete = ["delete", "pod", "bare", "-n", "shop", "--now"];
    let told = async || {
        create(&cluster, &pod("bare", "shop"), &[]).unwrap();
        assert!(cluster.kubectl(&delete, "").status.success());
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let (_, text) = promote(&admin, &[]);
        text.contains("would have refused").then_some(text)
    };
    let text = Kubernetes::eventually("a change of late", told).await;
    assert!(text.contains("shop, lately: "), "{text}");
    assert!(
        text.contains("RF201: ") && text.contains("of Pod bare"),
        "{text}"
    );

    // All is well now, and was not a moment ago.
    cluster.apply(&default_deny("shop"));
    let (code, text) = promote(&admin, &[]);
    assert!(
        text.contains("nothing of what is there, and would have"),
        "{text}"
    );
    assert_eq!((code, mode(&cluster)), (Some(1), "Audit".into()), "{text}");

    // Nobody counts on any more.
    drop(installation);
    let all = ["delete", "events", "--all", "-n", "shop"];
    assert!(cluster.kubectl(&all, "").status.success());
    let (code, text) = promote(&without_events(&cluster), &["--dry-run"]);
    assert!(
        text.contains("Events cannot be listed: events.events.k8s.io is forbidden"),
        "{text}"
    );
    assert!(text.contains("does not count as clean"), "{text}");
    assert_eq!(code, Some(1), "{text}");
    let (code, text) = promote(&admin, &[]);
    assert!(text.contains("there is no Event of a change"), "{text}");
    assert_eq!((code, mode(&cluster)), (Some(0), "Warn".into()), "{text}");
}
