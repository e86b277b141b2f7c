//! The roles of `deploy/install`, tried by the programs they are for: each verb that is granted is used, and nothing that is
//! asked for is refused. The API server's audit log is the witness.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::installation::{fails_for, registered};
use crate::kubernetes::{Kubernetes, free_port};
use crate::process::Process;
use crate::registration::{GUARDRAIL, create, default_deny, namespace, pod, refused};
use crate::roles::{granted, kubeconfig, used};

pub(crate) const INSTALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/install");
pub(crate) const NAMESPACE: &str = "ringfence-system";

/// As little of a kind's definition as lets the API server serve it.
pub(crate) fn definition(
    group: &str,
    version: &str,
    kind: &str,
    plural: &str,
    scope: &str,
) -> String {
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.{group}"),
            "annotations": {"api-approved.kubernetes.io": "unapproved"}
        },
        "spec": {
            "group": group,
            "names": {"kind": kind, "plural": plural},
            "scope": scope,
            "versions": [{
                "name": version, "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}
            }]
        }
    });
    format!("{definition}\n---\n")
}

/// Wants a baseline in one namespace.
const BASELINE: &str = "
apiVersion: ringfence.dev/v1alpha1
kind: Guardrail
metadata: {name: baseline}
spec: {namespaceSelector: {matchLabels: {stage: kept}}, baseline: {mode: Enforce}}
";

/// How long the programs have to come to all that they do.
const PATIENCE: Duration = Duration::from_mins(2);

/// Starts a program of the installation as the account that is meant for it.
pub(crate) fn start(cluster: &Kubernetes, account: &str, arguments: &[&str]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence"));
    command.args(arguments).arg("--kubeconfig");
    command
        .arg(kubeconfig(cluster, NAMESPACE, account))
        .args(["--namespace", NAMESPACE]);
    Process::start(account, cluster.folder(), &mut command)
}

/// Has a baseline made, put back twice, which is told in one Event, and taken away again.
async fn baseline_and_wait(cluster: &Kubernetes) {
    cluster.apply(&namespace("kept", "kept"));
    cluster.apply(BASELINE);
    let get = ["get", "networkpolicy", "ringfence-baseline", "-n", "kept"];
    let made = async || cluster.kubectl(&get, "").status.success().then_some(());
    Kubernetes::eventually("the baseline made", made).await;
    let delete = [
        "delete",
        "networkpolicy",
        "ringfence-baseline",
        "-n",
        "kept",
    ];
    for _ in 0..2 {
        assert!(cluster.kubectl(&delete, "").status.success());
        Kubernetes::eventually("the baseline put back", made).await;
    }
    cluster.apply(&namespace("kept", "other"));
    let gone = async || (!cluster.kubectl(&get, "").status.success()).then_some(());
    Kubernetes::eventually("the baseline gone", gone).await;
}

/// Puts entries of others into the configurations and takes the leaf away, which takes updates to mend.
async fn spoil_and_wait(cluster: &Kubernetes) {
    let patch = |kind: &str, name: &str, form: &str, patch: &Value| {
        let (form, patch) = (format!("--type={form}"), patch.to_string());
        let arguments = ["patch", kind, name, "-n", NAMESPACE, &form, "-p", &patch];
        assert!(cluster.kubectl(&arguments, "").status.success());
    };
    let get = |kind: &str, name: &str| {
        let output = cluster.kubectl(&["get", kind, name, "-n", NAMESPACE, "-o", "json"], "");
        String::from_utf8(output.stdout).unwrap()
    };
    let foreign = json!({"webhooks": [{
        "name": "foreign.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": "https://127.0.0.1:1/x"},
    }]});
    for kind in [
        "mutatingwebhookconfiguration",
        "validatingwebhookconfiguration",
    ] {
        patch(kind, "ringfence", "strategic", &foreign);
        let mended = async || (!get(kind, "ringfence").contains("foreign")).then_some(());
        Kubernetes::eventually("the foreign entry gone", mended).await;
    }
    let secret = "ringfence-certificates";
    patch(
        "secret",
        secret,
        "merge",
        &json!({"data": {"tls.crt": null}}),
    );
    let mended = async || get("secret", secret).contains("tls.crt").then_some(());
    Kubernetes::eventually("the leaf back", mended).await;
}

/// Waits for what the audit says of a namespace.
async fn reported(cluster: &Kubernetes) {
    let get = [
        "get",
        "policyreport",
        "ringfence",
        "-n",
        "shop",
        "-o",
        "json",
    ];
    let passed = async || {
        let report: Value = serde_json::from_slice(&cluster.kubectl(&get, "").stdout).ok()?;
        report["summary"]["pass"]
            .as_u64()
            .filter(|passed| *passed > 0)
    };
    Kubernetes::eventually("the report of the namespace", passed).await;
}

/// The kinds of others that Ringfence looks at or writes, where they are there.
pub(crate) fn definitions() -> String {
    let (policies, reports) = ("policy.networking.k8s.io", "wgpolicyk8s.io");
    let kinds = [
        (
            policies,
            "v1alpha2",
            "ClusterNetworkPolicy",
            "clusternetworkpolicies",
            "Cluster",
        ),
        (
            policies,
            "v1alpha1",
            "AdminNetworkPolicy",
            "adminnetworkpolicies",
            "Cluster",
        ),
        (
            policies,
            "v1alpha1",
            "BaselineAdminNetworkPolicy",
            "baselineadminnetworkpolicies",
            "Cluster",
        ),
        (
            reports,
            "v1alpha2",
            "PolicyReport",
            "policyreports",
            "Namespaced",
        ),
        (
            reports,
            "v1alpha2",
            "ClusterPolicyReport",
            "clusterpolicyreports",
            "Cluster",
        ),
    ];
    let kinds = kinds.map(|(group, version, kind, plural, scope)| {
        definition(group, version, kind, plural, scope)
    });
    kinds.concat()
}

#[tokio::test]
async fn every_right_that_is_granted_is_used_and_none_is_missing() {
    let cluster = Kubernetes::start().await;
    // Lists are for API servers that have nothing better.
    cluster.without_beginnings().await;
    let applied = cluster.kubectl(&["apply", "--server-side", "-k", INSTALL], "");
    assert!(applied.status.success());
    cluster.apply(&definitions());
    // What belongs to no namespace has a report of its own.
    let wide = "{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: wide}, \
        spec: {tier: Baseline, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}}";
    let served = async || create(&cluster, wide, &[]).ok();
    Kubernetes::eventually("cluster policies served", served).await;

    cluster.apply(&namespace("shop", "prod"));
    cluster.apply(GUARDRAIL);
    let port = free_port();
    let (listen, url) = (
        format!("127.0.0.1:{port}"),
        format!("https://127.0.0.1:{port}"),
    );
    let (webhook, controller) = ("ringfence-webhook", "ringfence-controller");
    let _webhook = start(&cluster, webhook, &["webhook", "--listen", &listen]);
    let _controller = start(
        &cluster,
        controller,
        &["controller", "--webhook-url", &url, "--hold", "1s"],
    );

    registered(&cluster, "shop in fail", |c| fails_for(c, "shop")).await;
    refused(&cluster, &pod("bare", "shop"), "RF201").await;
    // The second time is counted in the Event of the first.
    for _ in 0..2 {
        create(&cluster, &pod("bare", "shop"), &[]).unwrap_err();
    }
    create(
        &cluster,
        &(default_deny("shop") + &pod("covered", "shop")),
        &[],
    )
    .unwrap();
    let exemption = "{apiVersion: ringfence.dev/v1alpha1, kind: Exemption, metadata: {name: mine, namespace: shop}, \
        spec: {guardrail: prod, checks: [RF201], objects: [{kind: Pod, name: a}], reason: r, owner: o, \
        expires: 2100-01-01T00:00:00Z}}";
    create(&cluster, exemption, &[]).unwrap();
    let rule = "{apiVersion: ringfence.dev/v1alpha1, kind: ReachabilityRule, metadata: {name: none}, \
        spec: {expect: Deny, from: [{namespaces: [kept]}], to: [{namespaces: [shop]}]}}";
    create(&cluster, rule, &[]).unwrap();
    baseline_and_wait(&cluster).await;
    spoil_and_wait(&cluster).await;
    // Without Guardrails and rules there is no registration.
    let all = ["delete", "guardrails,reachabilityrules", "--all"];
    assert!(cluster.kubectl(&all, "").status.success());

    for account in [webhook, controller] {
        let granted = granted(&cluster, NAMESPACE, account);
        assert!(!granted.is_empty());
        let begun = Instant::now();
        loop {
            let (done, refused) = used(&cluster, NAMESPACE, account);
            assert_eq!(refused, BTreeSet::new(), "{account} was refused");
            let unused: BTreeSet<_> = granted.difference(&done).collect();
            if unused.is_empty() {
                break;
            }
            let waited = begun.elapsed();
            assert!(waited < PATIENCE, "{account} never used {unused:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    reported(&cluster).await;
}
