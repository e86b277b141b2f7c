//! `ringfence diff`: folders, files and revisions of git, in every form.

use std::fs;
use std::path::Path;
use std::process::Command;

use insta::assert_snapshot;
use tempfile::TempDir;

use super::{folder_with, ringfence};

const NAMESPACES: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Namespace
metadata: {name: db}
";

/// What the two sides have in common, and a policy for each part that differs.
fn manifests(shop: &str, db: &str) -> String {
    let workload = |kind: &str, namespace: &str, name: &str| {
        format!(
            "---\napiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec:\n  selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    \
             metadata: {{labels: {{app: {name}}}}}\n    spec: {{containers: [{{name: main, image: main}}]}}\n"
        )
    };
    let policy = |namespace: &str, spec: &str| {
        format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
             metadata: {{name: all, namespace: {namespace}}}\nspec: {spec}\n"
        )
    };
    let mut text = NAMESPACES.to_owned();
    text.push_str(&workload("Deployment", "shop", "web"));
    text.push_str(&workload("Deployment", "shop", "api"));
    text.push_str(&workload("StatefulSet", "db", "postgres"));
    for (namespace, spec) in [("shop", shop), ("db", db)] {
        if !spec.is_empty() {
            text.push_str(&policy(namespace, spec));
        }
    }
    text
}

const DENY: &str = "{podSelector: {}, policyTypes: [Ingress, Egress]}";
const TO_DB: &str = "{podSelector: {matchLabels: {app: api}}, policyTypes: [Ingress, Egress], \
    egress: [{to: [{namespaceSelector: {}}], ports: [{port: 5432}]}, \
    {to: [{ipBlock: {cidr: 192.0.2.0/25}}, {ipBlock: {cidr: 192.0.2.128/25}}], ports: [{port: 443}]}]}";
const FROM_SHOP: &str = "{podSelector: {}, policyTypes: [Ingress, Egress], \
    ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}}]}]}";

/// A folder with `old.yaml` and `new.yaml`.
fn two(old: &str, new: &str) -> TempDir {
    let folder = folder_with("old.yaml", old);
    fs::write(folder.path().join("new.yaml"), new).unwrap();
    folder
}

fn diff(folder: &TempDir, arguments: &[&str]) -> String {
    let arguments = [&["diff", "old.yaml", "new.yaml"], arguments].concat();
    ringfence(folder.path(), &arguments, "")
}

#[test]
fn what_opens_and_closes_is_told_in_every_form() {
    let folder = two(&manifests(DENY, DENY), &manifests(TO_DB, FROM_SHOP));
    for form in ["text", "json", "markdown"] {
        assert_snapshot!(format!("diff-{form}"), diff(&folder, &["--output", form]));
    }
}

#[test]
fn the_exit_code_says_what_was_asked_for() {
    let ends = |old: &str, new: &str, what: &str| {
        let seen = diff(&two(old, new), &["--fail-on", what]);
        seen.lines().next().unwrap().to_owned()
    };
    let (denied, open) = (manifests(DENY, DENY), manifests(DENY, ""));
    assert_eq!(ends(&denied, &open, "opened"), "exit: 1");
    assert_eq!(ends(&denied, &open, "closed"), "exit: 0");
    assert_eq!(ends(&open, &denied, "opened"), "exit: 0");
    assert_eq!(ends(&open, &denied, "closed"), "exit: 1");
    assert_eq!(ends(&open, &denied, "any"), "exit: 1");
    assert_eq!(ends(&open, &open, "any"), "exit: 0");
    let less = open.replace("name: postgres", "name: mysql");
    assert_eq!(ends(&open, &less, "opened"), "exit: 1");
    assert_eq!(ends(&open, &less, "closed"), "exit: 1");
}

#[test]
fn workloads_that_are_new_or_gone_are_told_by_themselves() {
    let old = manifests("", DENY);
    let new = old.replace("name: api", "name: cart");
    assert_snapshot!("diff-new", diff(&two(&old, &new), &[]));
    assert_snapshot!(
        "diff-new-json",
        diff(&two(&old, &new), &["--output", "json"])
    );
}

#[test]
fn a_comment_is_bounded_and_says_what_is_left_out() {
    let pod = |index: usize| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: pod-{index}, namespace: n{index}, labels: {{app: p}}}}\n\
             spec: {{containers: [{{name: main, image: main}}]}}\n"
        )
    };
    let pods: Vec<String> = (0..400).map(pod).collect();
    let pods = pods.concat();
    let deny = |index: usize| {
        format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: deny, namespace: n{index}}}\n\
             spec: {{podSelector: {{}}, policyTypes: [Ingress]}}\n"
        )
    };
    let denied: Vec<String> = (0..400).map(deny).collect();
    let fewer: Vec<String> = (0..400).step_by(2).map(deny).collect();
    let (old, new) = (denied.concat() + &pods, fewer.concat() + &pods);
    let seen = diff(&two(&old, &new), &["--output", "markdown"]);
    // Every other pod is open to all others, and to all addresses of both families.
    assert!(seen.contains("80200 connections opened"), "{seen}");
    assert!(seen.len() < 65_536, "{} bytes", seen.len());
    assert!(seen.contains("left out here"), "{seen}");
    assert_eq!(
        seen.matches("<details>").count(),
        seen.matches("</details>").count()
    );
}

fn git(folder: &Path, arguments: &[&str]) {
    let done = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.com"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "git {arguments:?}: {error}");
}

/// A repository whose branch `main` denies, and whose work tree does not.
fn repository() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    git(at, &["init", "--quiet", "--initial-branch=main"]);
    fs::create_dir(at.join("deploy")).unwrap();
    fs::write(at.join("deploy/all.yaml"), manifests(DENY, DENY)).unwrap();
    git(at, &["add", "."]);
    git(at, &["commit", "--quiet", "--message=first"]);
    fs::write(at.join("deploy/all.yaml"), manifests(TO_DB, FROM_SHOP)).unwrap();
    folder
}

#[test]
fn revisions_are_read_without_touching_the_work_tree() {
    let folder = repository();
    let at = folder.path();
    let last = |arguments: &[&str]| {
        let seen = ringfence(at, &[&["diff"], arguments].concat(), "");
        seen.trim_end().lines().last().unwrap().to_owned()
    };
    let changed = "9 connections opened, 0 closed, isolation of 1 workload changed";
    assert_eq!(
        last(&["main:deploy", "deploy"]),
        format!("main:deploy -> deploy: {changed}")
    );
    assert_eq!(
        last(&["main:deploy", "HEAD:"]),
        "main:deploy -> HEAD:: nothing opens, nothing closes"
    );
    assert_eq!(
        last(&["main:deploy/all.yaml", "deploy/all.yaml"]),
        format!("main:deploy/all.yaml -> deploy/all.yaml: {changed}")
    );
    git(at, &["commit", "--quiet", "--all", "--message=second"]);
    assert_eq!(
        last(&["HEAD~1:./deploy", "HEAD:deploy"]),
        format!("HEAD~1:./deploy -> HEAD:deploy: {changed}")
    );
    let status = Command::new("git")
        .args(["status", "--porcelain"])
        .current_dir(at)
        .output()
        .unwrap();
    assert!(status.stdout.is_empty() && status.status.success());
}

#[test]
fn links_of_a_revision_are_followed_within_it_only() {
    let folder = repository();
    let at = folder.path();
    fs::create_dir(at.join("overlay")).unwrap();
    std::os::unix::fs::symlink("../deploy/all.yaml", at.join("overlay/base.yaml")).unwrap();
    git(at, &["add", "."]);
    git(at, &["commit", "--quiet", "--message=link"]);
    let seen = ringfence(at, &["diff", "HEAD:", "deploy"], "");
    assert!(seen.contains("nothing opens"), "{seen}");
    assert_snapshot!(
        "diff-link-out",
        ringfence(at, &["diff", "HEAD:overlay", "deploy"], "")
    );
}

#[test]
fn what_cannot_be_compared_says_why() {
    let folder = repository();
    let at = folder.path();
    let seen = |arguments: &[&str]| ringfence(at, &[&["diff"], arguments].concat(), "");
    let mut all = String::new();
    for arguments in [
        ["main", "deploy"],
        ["develop:deploy", "deploy"],
        ["main:charts", "deploy"],
        [":deploy", "deploy"],
        ["--", "--upload-pack=x:deploy"],
        ["-", "-"],
        ["deploy", "nothing"],
    ] {
        all.push_str(&seen(&arguments));
    }
    assert_snapshot!("diff-errors", all);

    let broken = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: x, namespace: shop}\nspec: {podSelector: {}, policyTypes: [In]}\n";
    fs::write(at.join("deploy/broken.yaml"), broken).unwrap();
    git(at, &["add", "."]);
    git(at, &["commit", "--quiet", "--message=broken"]);
    fs::remove_file(at.join("deploy/broken.yaml")).unwrap();
    assert_snapshot!("diff-broken", seen(&["HEAD:", "deploy"]));

    fs::write(at.join("deploy/twice.yaml"), manifests(DENY, "")).unwrap();
    assert_snapshot!("diff-contradiction", seen(&["main~1:deploy", "deploy"]));

    let elsewhere = tempfile::tempdir().unwrap();
    assert_snapshot!(
        "diff-no-repository",
        ringfence(elsewhere.path(), &["diff", "main:deploy", "."], "")
    );
}
