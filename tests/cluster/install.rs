//! `deploy/install` as a user applies it: built by kubectl, taken by the API server, and good by its own checks.

use std::process::{Command, Stdio};

use crate::kubernetes::Kubernetes;

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
