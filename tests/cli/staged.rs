//! `ringfence staged`: what promotion would break, and the promotion of manifests.

use insta::assert_snapshot;

use super::{folder_with, ringfence};

const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: main, image: main}]}
status: {phase: Running, podIPs: [{ip: 10.0.0.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {containers: [{name: main, image: main}]}
status: {phase: Running, podIPs: [{ip: 10.0.0.2}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]}
---
apiVersion: ringfence.dev/v1alpha1
kind: StagedNetworkPolicy
metadata:
  name: db
  namespace: shop
  labels: {team: data}
  annotations: {owner: anna}
spec:
  stage: Canary
  canary: {percent: 1}
  podSelector: {matchLabels: {app: db}}
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}]}]
---
apiVersion: ringfence.dev/v1alpha1
kind: StagedNetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 80}]}]
";

const FLOWS: &str = r#"{"from":{"namespace":"shop","pod":"web"},"to":{"namespace":"shop","pod":"db"},"port":5432,"verdict":"allowed","count":3}
{"from":{"namespace":"shop","pod":"web"},"to":{"namespace":"shop","pod":"db"},"port":9000,"verdict":"would-deny","count":2}
{"from":{"namespace":"shop","pod":"db"},"to":{"namespace":"shop","pod":"web"},"port":80,"verdict":"denied"}
{"from":{"namespace":"shop","pod":"db"},"to":{"namespace":"shop","pod":"web"},"port":80,"verdict":"would-allow"}
{"from":{"namespace":"shop","pod":"db"},"to":{"namespace":"shop","pod":"web"},"port":81,"verdict":"allowed"}
"#;

#[test]
fn what_promotion_would_change_is_told_in_every_form() {
    let folder = folder_with("shop.yaml", SHOP);
    std::fs::write(folder.path().join("flows.jsonl"), FLOWS).unwrap();
    let report = |more: &[&str]| {
        let arguments = [&["staged", "report", "shop.yaml"], more].concat();
        ringfence(folder.path(), &arguments, "")
    };
    let flows = ["--flows", "flows.jsonl", "--fail-on", "flows"];
    assert_snapshot!("staged-text", report(&flows));
    assert_snapshot!(
        "staged-json",
        report(&[&flows[..], &["--output", "json"]].concat())
    );
    assert_snapshot!(
        "staged-markdown",
        report(&["--output", "markdown", "--fail-on", "closed"])
    );
    assert!(report(&[]).starts_with("exit: 0"));
    assert_snapshot!("staged-elsewhere", report(&["--namespace", "other"]));
}

#[test]
fn promotion_prints_the_network_policy() {
    let folder = folder_with("shop.yaml", SHOP);
    let promote = |arguments: &[&str]| {
        let arguments = [&["staged", "promote"], arguments, &["shop.yaml"]].concat();
        ringfence(folder.path(), &arguments, "")
    };
    assert_snapshot!("staged-promote", promote(&["shop/db"]));
    assert_snapshot!("staged-promote-differs", promote(&["shop/web"]));
    let forced = promote(&["--force", "shop/web"]);
    assert!(
        forced.starts_with("exit: 0") && forced.contains("port: 80"),
        "{forced}"
    );
    assert_snapshot!("staged-promote-nothing", promote(&["shop/none"]));
}

#[test]
fn a_bad_policy_on_trial_is_named_by_file_and_line() {
    let folder = folder_with(
        "bad.yaml",
        &SHOP.replace("canary: {percent: 1}", "canary: {percent: 100}"),
    );
    assert_snapshot!(
        "staged-bad-check",
        ringfence(folder.path(), &["check", "bad.yaml"], "")
    );
    let report = ringfence(folder.path(), &["staged", "report", "bad.yaml"], "");
    assert!(report.starts_with("exit: 2"), "{report}");
    assert!(report.contains("bad.yaml:32:21"), "{report}");
}

#[test]
fn the_help_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    assert_snapshot!(
        "staged-help-report",
        ringfence(folder.path(), &["staged", "report", "--help"], "")
    );
    assert_snapshot!(
        "staged-help-promote",
        ringfence(folder.path(), &["staged", "promote", "--help"], "")
    );
}
