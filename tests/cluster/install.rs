//! `deploy/install` as a user applies it: built by kubectl, taken by the API server, and good by its own checks.

use std::process::{Command, Stdio};

use crate::drills::shop;
use crate::installation::Installation;
use crate::kubernetes::Kubernetes;
use crate::registration::pod;

const INSTALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/install");

#[tokio::test]
async fn the_installation_is_taken_by_the_api_server_and_keeps_its_own_rules() {
    let cluster = Kubernetes::shared().await;
    let built = cluster.kubectl(&["kustomize", INSTALL], "");
    assert!(built.status.success());
    let manifests = String::from_utf8(built.stdout).unwrap();

    let open = INSTALL.replace("install", "examples/open-reports");
    let built = cluster.kubectl(&["kustomize", &open], "");
    let varied = String::from_utf8(built.stdout).unwrap();
    assert!(varied.contains("--reports=open-report") && varied.contains("- openreports.io"));

    // The namespace first: a dry run of what is in it needs it.
    let applied = cluster.kubectl(&["apply", "--server-side", "-f", "-"], &manifests);
    let errors = String::from_utf8_lossy(&applied.stderr);
    assert!(applied.status.success(), "{errors}");
    assert_eq!(errors, "");

    let mut check = Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .args(["check", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut check.stdin.take().unwrap(), manifests.as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
}

/// Whoever may edit, or administer, a namespace.
const TENANTS: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: editors, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}
subjects: [{kind: User, name: jane, apiGroup: rbac.authorization.k8s.io}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: admins, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: admin}
subjects: [{kind: User, name: john, apiGroup: rbac.authorization.k8s.io}]
";

#[tokio::test]
async fn without_configuration_nothing_is_written_and_no_tenant_may_exempt() {
    let cluster = Kubernetes::start_with_manager().await;
    let applied = cluster.kubectl(&["apply", "--server-side", "-k", INSTALL], "");
    assert!(applied.status.success());
    let words = |arguments: &[&str]| {
        let output = cluster.kubectl(arguments, "");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // The installation has policies for its own pods; nobody else is to get any.
    let policies = ["get", "networkpolicies", "-A", "-o", "name"];
    let before = words(&policies);
    let installation = Installation::start(&cluster, &[]).await;
    shop(&cluster).await;
    cluster.apply(&pod("bare", "shop"));
    installation.controller.line(&["audit done"]).await;
    assert_eq!(words(&policies), before);
    let registered = words(&[
        "get",
        "validatingwebhookconfigurations,mutatingwebhookconfigurations",
        "-o",
        "name",
    ]);
    assert_eq!(registered, "");

    cluster.apply(TENANTS);
    for user in ["jane", "john"] {
        let may = |verb: &str, what: &str| {
            let user = format!("--as={user}");
            words(&["auth", "can-i", verb, what, "-n", "shop", &user]) == "yes\n"
        };
        // The manager puts these roles together.
        let edits = async || may("create", "deployments.apps").then_some(());
        Kubernetes::eventually("what a tenant may", edits).await;
        for verb in ["create", "update", "patch", "delete"] {
            assert!(!may(verb, "exemptions.ringfence.dev"), "{user} {verb}");
        }
        assert!(!may("exempt", "guardrails.ringfence.dev"), "{user}");
    }
}
