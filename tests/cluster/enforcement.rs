//! Who enforces policies, on a real API server: `ringfence status` and the section `enforcement`, by receipts that the test
//! writes as an agent does.

use std::process::Command;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::installation::{Installation, fails_for, registered};
use crate::kubernetes::Kubernetes;
use crate::registration::{create, default_deny, namespace, pod, refused};

const GUARDRAIL: &str = r"
apiVersion: ringfence.dev/v1alpha1
kind: Guardrail
metadata: {name: enforced}
spec: {namespaceSelector: {matchLabels: {stage: prod}}, mode: Enforce, enforcement: {}}
";

/// How it ends, and what it prints.
fn status(cluster: &Kubernetes, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .args(["status", "--kubeconfig"])
        .arg(cluster.kubeconfig())
        .args(arguments)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// A pod that runs on a node.
fn run_on(cluster: &Kubernetes, name: &str, node: &str, address: &str) {
    let on_node = pod(name, "shop").replace("spec: {", &format!("spec: {{nodeName: {node}, "));
    create(cluster, &on_node, &[]).unwrap();
    let status =
        json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}});
    patch_status(cluster, "pod", name, &status);
}

fn patch_status(cluster: &Kubernetes, kind: &str, name: &str, patch: &Value) {
    let patch = patch.to_string();
    let arguments = [
        "patch",
        kind,
        name,
        "-n",
        "shop",
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ];
    let output = cluster.kubectl(&arguments, "");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}

/// Writes the receipt of a node, read back now.
fn confirm(cluster: &Kubernetes, node: &str, is_enforced: &str) {
    cluster.apply(&format!(
        "{{apiVersion: ringfence.dev/v1alpha1, kind: NodeEnforcement, metadata: {{name: {node}}}, spec: {{node: {node}}}}}"
    ));
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let receipt = json!({"status": {
        "readBack": now, "pods": 1, "policyCount": 1,
        "policies": [{"namespace": "shop", "name": "default-deny", "generation": 1}],
        "conditions": [{"type": "Enforced", "status": is_enforced, "reason": "ReadBack",
            "message": "what the test says", "lastTransitionTime": now}],
    }});
    patch_status(cluster, "nodeenforcement", node, &receipt);
}

#[tokio::test]
async fn workloads_wait_for_a_receipt_and_status_says_where_policies_are_confirmed() {
    let cluster = Kubernetes::start().await;
    cluster.apply(&(namespace("shop", "prod") + &default_deny("shop")));
    let (code, text) = status(&cluster, &[]);
    assert_eq!(code, Some(0), "nobody is selected: {text}");
    run_on(&cluster, "web", "worker-1", "10.0.0.1");
    let (code, text) = status(&cluster, &[]);
    assert_eq!(code, Some(1), "{text}");
    for words in [
        "does not know NodeEnforcement",
        "shop/default-deny: 0/1 node",
        "worker-1: no receipt",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }

    let _installation = Installation::start(&cluster, &[]).await;
    cluster.apply(GUARDRAIL);
    registered(&cluster, "shop in fail", |c| fails_for(c, "shop")).await;
    refused(&cluster, &pod("more", "shop"), "RF203").await;
    confirm(&cluster, "worker-1", "False");
    let (code, text) = status(&cluster, &["--namespace", "shop"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("worker-1: not enforced: what the test says"),
        "{text}"
    );
    create(&cluster, &pod("more", "shop"), &["--dry-run=server"]).unwrap_err();

    confirm(&cluster, "worker-1", "True");
    let allowed = async || create(&cluster, &pod("more", "shop"), &["--dry-run=server"]).ok();
    Kubernetes::eventually("a pod allowed by the receipt", allowed).await;
    // A pod that says where it runs is held to that node.
    let elsewhere = pod("more", "shop").replace("spec: {", "spec: {nodeName: worker-2, ");
    refused(&cluster, &elsewhere, "worker-2").await;
    let (code, text) = status(&cluster, &["--output", "json"]);
    assert_eq!(code, Some(0), "{text}");
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["confirmed"], true);
    let policy = json!({
        "namespace": "shop", "name": "default-deny", "generation": 1, "confirmed": 1, "nodes": 1
    });
    assert_eq!(document["policies"], json!([policy]));
    assert_eq!(document["nodes"], json!([{"node": "worker-1"}]));

    let ingress_only = default_deny("shop").replace("[Ingress, Egress]", "[Ingress]");
    cluster.apply(&ingress_only);
    let (code, text) = status(&cluster, &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("worker-1: generation 1 of 2"), "{text}");

    // What is refused for want of a receipt passes once another one is said to enforce.
    let gone = ["delete", "nodeenforcement", "worker-1"];
    assert!(cluster.kubectl(&gone, "").status.success());
    refused(&cluster, &pod("more", "shop"), "RF203").await;
    cluster.apply(&GUARDRAIL.replace("enforcement: {}", "enforcement: {enforcedBy: Cilium}"));
    Kubernetes::eventually("a pod allowed by name", allowed).await;
}

#[tokio::test]
async fn the_doctor_finds_that_nothing_enforces_and_that_agents_do() {
    let cluster = Kubernetes::start().await;
    let doctor = || {
        let output = Command::new(env!("CARGO_BIN_EXE_ringfence"))
            .args(["doctor", "--output", "json", "--kubeconfig"])
            .arg(cluster.kubeconfig())
            .output()
            .unwrap();
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = document["checks"].as_array().unwrap().iter();
        let levels = checks.map(|check| format!("{}={}", check["id"], check["level"]));
        let levels = levels.collect::<Vec<_>>().join(" ").replace('"', "");
        (output.status.code(), levels)
    };
    let flannel = "{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: kube-flannel-ds, namespace: default}, \
        spec: {selector: {matchLabels: {app: flannel}}, template: {metadata: {labels: {app: flannel}}, \
        spec: {hostNetwork: true, containers: [{name: kube-flannel, image: x}]}}}}\n---\n";
    let node = "{apiVersion: v1, kind: Node, metadata: {name: worker-1}}";
    cluster.apply(&format!("{flannel}{node}"));
    let nothing = "plugin=ok enforcement=problem agents=ok webhook=ok";
    assert_eq!(doctor(), (Some(1), nothing.to_owned()));

    crate::installation::install_kinds(&cluster).await;
    cluster.apply(&namespace("shop", "prod"));
    confirm(&cluster, "worker-1", "True");
    let well = "plugin=ok enforcement=ok agents=ok webhook=ok";
    assert_eq!(doctor(), (Some(0), well.to_owned()));
    // A demand, and no controller that would register the webhook for it.
    cluster.apply(GUARDRAIL);
    let (code, levels) = doctor();
    assert_eq!(code, Some(1), "{levels}");
    assert!(levels.contains("webhook=problem"), "{levels}");
}
