//! `ringfence test`: scenarios as their authors meet them.

use insta::assert_snapshot;

use super::{folder_with, repository, ringfence};

const SHOP: &str = "deploy/examples/shop";
const RULES: &str = "deploy/examples/rules/shop.yaml";
const OPENS: &str = "deploy/examples/rules/opens-the-database.yaml";

/// A template cut off from everything, and rules that want something of it.
const CLOSED: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress]}
---
apiVersion: ringfence.dev/v1alpha1
kind: ReachabilityRule
metadata: {name: scrape}
spec:
  from: [{namespaces: [monitoring]}]
  to: [{namespaces: [shop], podSelector: {matchLabels: {app: web}}}]
  ports: [{port: 9090}]
  expect: Allow
---
apiVersion: ringfence.dev/v1alpha1
kind: ReachabilityRule
metadata: {name: closed}
spec:
  from: [{cidrs: [0.0.0.0/0]}]
  to: [{namespaces: [shop]}]
  expect: Deny
";

#[test]
fn what_passes_and_what_fails_is_told_step_by_step() {
    let seen = ringfence(
        repository(),
        &["test", SHOP, OPENS, "--scenarios", RULES],
        "",
    );
    assert_snapshot!(seen);
}

#[test]
fn pods_that_are_not_there_fail_a_scenario_or_are_assumed() {
    let folder = folder_with("rules.yaml", CLOSED);
    assert_snapshot!("not_there", ringfence(folder.path(), &["test", "."], ""));
    assert_snapshot!(
        "assumed",
        ringfence(folder.path(), &["test", "-", "--assume-pods"], CLOSED)
    );
}

#[test]
fn programs_get_the_same() {
    let folder = folder_with("rules.yaml", CLOSED);
    let arguments = |format| ["test", ".", "--assume-pods", "--output", format];
    assert_snapshot!("json", ringfence(folder.path(), &arguments("json"), ""));
    let junit = ringfence(folder.path(), &arguments("junit"), "");
    let times = regex::Regex::new(r#" time="[^"]*""#).unwrap();
    assert_snapshot!("junit", times.replace_all(&junit, ""));
}

#[test]
fn what_cannot_be_read_or_is_not_there_exits_with_2() {
    let folder = folder_with(
        "rules.yaml",
        &CLOSED.replace("expect: Deny", "expect: Refuse"),
    );
    assert_snapshot!("wrong", ringfence(folder.path(), &["test", "."], ""));
    assert_snapshot!("none", ringfence(repository(), &["test", SHOP], ""));
}
