//! Certificates that are replaced, and replicas that are, while requests go through real API servers: none may fail.

use std::net::SocketAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::access::definition;
use crate::events::{events, one};
use crate::installation::{
    Installation, controller, fails_for, install_kinds, registered, webhook,
};
use crate::kubernetes::{Kubernetes, free_port};
use crate::load::Load;
use crate::process::Process;
use crate::registration::{GUARDRAIL, namespace, pod, refused};
use crate::service::Endpoints;

/// How many requests the load makes; the long run is asked for by this variable.
fn requests() -> usize {
    let asked = std::env::var("RINGFENCE_REQUESTS").ok();
    asked.map_or(2_000, |asked| asked.parse().unwrap())
}

async fn judged(cluster: &Kubernetes) {
    cluster.apply(&namespace("shop", "prod"));
    cluster.apply(GUARDRAIL);
    registered(cluster, "shop in fail", |c| fails_for(c, "shop")).await;
    refused(cluster, &pod("web", "shop"), "default-deny").await;
}

fn count(process: &Process, words: &str) -> usize {
    process.log().matches(words).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn leaves_and_authorities_change_under_load_through_two_api_servers_and_nothing_fails() {
    let cluster = Kubernetes::with_servers(2).await;
    // A leaf each 5 seconds. An authority each 20, or 60 in the long run.
    let long = requests() > 10_000;
    let authority = if long { "90s" } else { "30s" };
    let arguments = [
        "--leaf-validity",
        "7500ms",
        "--ca-validity",
        authority,
        "--hold",
        "2s",
    ];
    let installation = Installation::start(&cluster, &arguments).await;
    judged(&cluster).await;
    let clients = [cluster.client_of(0).await, cluster.client_of(1).await];
    let load = Load::start(&clients, 40, "shop");
    let controller = &installation.controller;
    let (leaves, authorities) = (
        count(controller, "leaf signed"),
        count(controller, "authority made"),
    );
    load.reached(requests(), Duration::from_mins(30)).await;
    // Whatever the machine's pace: two authorities must have been taken into use, and one dropped.
    Kubernetes::eventually("an authority dropped", async || {
        (count(controller, "authority dropped") > 0
            && count(controller, "authority made") > authorities + 1)
            .then_some(())
    })
    .await;
    let made = load.unharmed().await;
    let leaves = count(controller, "leaf signed") - leaves;
    let authorities = count(controller, "authority made") - authorities;
    println!("{made} requests, {leaves} leaves, {authorities} authorities");
    assert!(leaves >= 5, "{leaves} leaves");
    assert!(count(&installation.webhook, "certificate replaced") >= leaves - 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_deleted_or_spoilt_comes_back_and_nothing_fails() {
    let cluster = Kubernetes::start().await;
    let arguments = ["--leaf-validity", "1h", "--hold", "2s"];
    let installation = Installation::start(&cluster, &arguments).await;
    judged(&cluster).await;
    let client = cluster.client().await;
    let load = Load::start(std::slice::from_ref(&client), 30, "shop");
    let secrets: Api<Secret> = Api::namespaced(client, "ringfence-system");
    let get = async || secrets.get_opt("ringfence-certificates").await.unwrap();
    let good = get().await.unwrap().data;
    let back = async || get().await.filter(|there| there.data == good).map(drop);

    secrets
        .delete("ringfence-certificates", &DeleteParams::default())
        .await
        .unwrap();
    Kubernetes::eventually("the Secret back", back).await;
    let spoilt = json!({"data": {"tls.crt": "eA==", "authorities": "eA==", "ca.crt": null}});
    secrets
        .patch(
            "ringfence-certificates",
            &PatchParams::default(),
            &Patch::Merge(spoilt),
        )
        .await
        .unwrap();
    Kubernetes::eventually("the Secret mended", back).await;
    installation
        .webhook
        .line(&["new certificate refused"])
        .await;

    // A controller that has not known it: the replica goes on with what it has until the new one is trusted everywhere.
    let Installation {
        controller: first,
        webhook,
        port,
    } = installation;
    drop(first);
    secrets
        .delete("ringfence-certificates", &DeleteParams::default())
        .await
        .unwrap();
    let second = controller(&cluster, "second", port, &arguments);
    second.line(&["trusted on"]).await;
    second.line(&["leaf signed"]).await;
    webhook.line(&["certificate replaced"]).await;
    let so_far = load.done();
    load.reached(so_far + 300, Duration::from_mins(2)).await;
    load.unharmed().await;
}

/// Whether the report of the installation's namespace tells of a certificate that ends, by an object of this name.
pub(crate) fn ending_is_reported(cluster: &Kubernetes, name: &str) -> Option<bool> {
    let own = "ringfence-system";
    let get = ["get", "policyreport", "ringfence", "-n", own, "-o", "json"];
    let report: Value = serde_json::from_slice(&cluster.kubectl(&get, "").stdout).ok()?;
    let mut results = report["results"].as_array()?.iter();
    Some(results.any(|result| result["rule"] == "RF801" && result["resources"][0]["name"] == name))
}

/// Nobody may write the Secret of the certificates.
const HELD: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: hold-certificates}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
      - {apiGroups: [""], apiVersions: [v1], operations: [CREATE, UPDATE, DELETE], resources: [secrets]}
  matchConditions:
    - {name: ours, expression: "request.name == 'ringfence-certificates'"}
  validations:
    - {expression: "false", message: held by a test}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: hold-certificates}
spec: {policyName: hold-certificates, validationActions: [Deny]}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_cannot_be_renewed_is_told_by_event_report_and_number_before_it_ends() {
    let cluster = Kubernetes::start().await;
    let reports = "wgpolicyk8s.io";
    cluster.apply(&definition(
        reports,
        "v1alpha2",
        "PolicyReport",
        "policyreports",
        "Namespaced",
    ));
    let admin = format!("127.0.0.1:{}", free_port());
    // Renewed when 20 seconds are left, told when it is not by the last 8.
    let terms = ["--leaf-validity", "60s", "--hold", "2s", "--admin", &admin];
    let _installation = Installation::start(&cluster, &terms).await;
    judged(&cluster).await;
    let (own, secret) = ("ringfence-system", "ringfence-certificates");
    assert!(
        events(&cluster, own, "CertificateEnding", secret)
            .await
            .is_empty()
    );
    cluster.apply(HELD);
    let touch = [
        "annotate",
        "secret",
        secret,
        "-n",
        own,
        "held=yes",
        "--overwrite",
        "--dry-run=server",
    ];
    Kubernetes::eventually("the Secret held", async || {
        let output = cluster.kubectl(&touch, "");
        let told = String::from_utf8_lossy(&output.stderr).contains("held by a test");
        told.then_some(())
    })
    .await;

    let failed = one(&cluster, own, "CertificateFailed", secret).await;
    assert!(failed.note.unwrap().contains("held by a test"));
    assert_eq!(failed.type_.as_deref(), Some("Warning"));
    let ending = one(&cluster, own, "CertificateEnding", secret).await;
    let note = ending.note.unwrap();
    let words: Vec<&str> = note.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "at").unwrap();
    let ends: jiff::Timestamp = words[at + 1].parse().unwrap();
    assert!(ends > jiff::Timestamp::now(), "told before it ends: {note}");
    let page = std::process::Command::new("curl")
        .args(["-sf", &format!("http://{admin}/metrics")])
        .output()
        .unwrap();
    let page = String::from_utf8(page.stdout).unwrap();
    let expiry = format!(
        "ringfence_certificate_expiry_timestamp_seconds{{certificate=\"Leaf\"}} {}",
        ends.as_second()
    );
    assert!(page.contains(&expiry), "{expiry}: {page}");
    let told = async || ending_is_reported(&cluster, secret);
    Kubernetes::eventually("it in the report", async || {
        told().await.filter(|told| *told)
    })
    .await;

    // And all is well again as soon as it may be.
    let away = [
        "delete",
        "validatingadmissionpolicybinding",
        "hold-certificates",
    ];
    assert!(cluster.kubectl(&away, "").status.success());
    Kubernetes::eventually("it out of the report", async || {
        told().await.filter(|told| !*told)
    })
    .await;
    refused(&cluster, &pod("web", "shop"), "default-deny").await;
}

async fn ready(port: u16) -> bool {
    let asked = tokio::task::spawn_blocking(move || {
        std::process::Command::new("curl")
            .args(["-skf", &format!("https://127.0.0.1:{port}/readyz")])
            .output()
    });
    asked.await.unwrap().unwrap().status.success()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_are_replaced_under_load_and_nothing_fails() {
    let cluster = Kubernetes::start().await;
    install_kinds(&cluster).await;
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let controller = controller(
        &cluster,
        "controller",
        front.local_addr().unwrap().port(),
        &[],
    );
    let endpoints = Endpoints::default();
    let service = tokio::spawn(endpoints.clone().serve(front));
    let replica = async |name: &str| {
        let port = free_port();
        let process = webhook(&cluster, name, port);
        process.line(&["listening"]).await;
        Kubernetes::eventually("the replica ready", async || {
            ready(port).await.then_some(())
        })
        .await;
        (process, SocketAddr::from(([127, 0, 0, 1], port)))
    };
    let mut replicas = vec![replica("one").await, replica("two").await];
    let addresses =
        |replicas: &[(Process, SocketAddr)]| replicas.iter().map(|(_, at)| *at).collect();
    endpoints.set(addresses(&replicas));
    judged(&cluster).await;

    let load = Load::start(&[cluster.client().await], 30, "shop");
    load.reached(100, Duration::from_mins(1)).await;
    for name in ["three", "four"] {
        replicas.push(replica(name).await);
        endpoints.set(addresses(&replicas));
        let before = load.done();
        load.reached(before + 200, Duration::from_mins(1)).await;
        // Told to go while it is an endpoint still: that it is none any more is known half a second later.
        let (old, at) = replicas.remove(0);
        old.signal("TERM");
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(!ready(at.port()).await, "not ready while it drains");
        endpoints.set(addresses(&replicas));
        Kubernetes::eventually("the old replica gone", async || {
            (!old.is_running()).then_some(())
        })
        .await;
        let before = load.done();
        load.reached(before + 200, Duration::from_mins(1)).await;
    }
    println!("{} requests", load.unharmed().await);
    service.abort();
    drop(controller);
}
