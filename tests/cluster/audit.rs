//! `ringfence audit` against a real API server: the same findings as `check` has of the same manifests.

use std::process::{Command, Output};

use serde_json::Value;

use crate::kubernetes::Kubernetes;

const SHOP: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: audit-shop}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: audit-shop, labels: {app: web}}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {hostPID: true, containers: [{name: main, image: x}]}
";

const DENY: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: audit-shop}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
";

/// Of this test alone: whatever guardrails the cluster has belong to others.
const GUARDRAIL: &str = r"
apiVersion: ringfence.dev/v1alpha1
kind: Guardrail
metadata: {name: audited}
spec: {mode: Enforce, coverage: {}, bypasses: {}}
";

fn audit(cluster: &Kubernetes, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let guardrail = folder.path().join("guardrail.yaml");
    std::fs::write(&guardrail, GUARDRAIL).unwrap();
    Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .args(["audit", "--namespace", "audit-shop", "--kubeconfig"])
        .arg(cluster.kubeconfig())
        .arg("--guardrail")
        .arg(guardrail)
        .args(arguments)
        .output()
        .unwrap()
}

/// What is found of the Deployment, and how the run ended.
fn found(cluster: &Kubernetes) -> (Vec<String>, Option<i32>) {
    let output = audit(cluster, &["--output", "json"]);
    let document: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let findings = document["findings"].as_array().unwrap().iter();
    let of_web = findings
        .filter(|finding| finding["kind"] == "Deployment" && finding["outcome"] == "refused");
    let mut ids: Vec<String> = of_web
        .map(|finding| finding["id"].as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    (ids, output.status.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_finds_what_exists_and_is_clean_once_it_is_mended() {
    let cluster = Kubernetes::shared().await;
    cluster.apply(SHOP);
    let (ids, code) = found(cluster);
    assert_eq!(ids, ["RF201", "RF404"]);
    assert_eq!(code, Some(1));

    let reports = audit(
        cluster,
        &["--output", "policy-report", "--fail-on", "never"],
    );
    let text = String::from_utf8(reports.stdout).unwrap();
    assert_eq!(reports.status.code(), Some(0), "{text}");
    for expected in ["kind: PolicyReport", "rule: RF201", "namespace: audit-shop"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }

    cluster.apply(DENY);
    cluster.apply(&SHOP.replace("hostPID: true, ", ""));
    let (ids, code) = found(cluster);
    assert_eq!(ids, Vec::<String>::new());
    assert_eq!(code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_list_gets_told_which_right_is_missing() {
    let cluster = Kubernetes::shared().await;
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(cluster.kubeconfig()).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["users"][0]["user"]["as"] = Value::from("nobody");
    let file = folder.path().join("config");
    std::fs::write(&file, config.to_string()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .args(["audit", "--kubeconfig"])
        .arg(&file)
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(
        errors.contains(r#"User "nobody" cannot list resource "namespaces""#),
        "{errors}"
    );
}
