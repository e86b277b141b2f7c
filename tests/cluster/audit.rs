//! `ringfence audit` against a real API server: the same findings as `check` has of the same manifests. And the controller's
//! audit, which after a change looks at what the change touches.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use serde_json::Value;

use crate::access::{INSTALL, NAMESPACE, definitions, start};
use crate::kubernetes::{Kubernetes, free_port};

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

/// Looks at everything there is, and refuses nothing.
const WATCHFUL: &str = r"
apiVersion: ringfence.dev/v1alpha1
kind: Guardrail
metadata: {name: watchful}
spec: {mode: Audit, coverage: {}, hygiene: {}}
---
";

const ACCOUNT: &str = "ringfence-controller";

fn busy(number: usize) -> String {
    format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: busy-{number}}}}}\n---\n\
         {{apiVersion: v1, kind: ServiceAccount, metadata: {{name: default, namespace: busy-{number}}}}}\n---\n"
    )
}

/// The lists that the controller has made, in order: of what, and in which namespace.
fn lists(cluster: &Kubernetes) -> Vec<(String, String)> {
    let log = std::fs::read_to_string(cluster.audit_log(0)).unwrap();
    // The last line may be half written.
    let events = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let user = format!("system:serviceaccount:{NAMESPACE}:{ACCOUNT}");
    let lists =
        events.filter(|event| event["user"]["username"] == *user && event["verb"] == "list");
    let place = |event: Value| {
        let of = |field: &str| {
            event["objectRef"][field]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        let resource = of("resource");
        let namespace = if resource == "namespaces" {
            of("name")
        } else {
            of("namespace")
        };
        (resource, namespace)
    };
    lists.map(place).collect()
}

/// How many findings the report of a namespace has.
async fn reported(cluster: &Kubernetes, namespace: &str, wanted: &str) {
    let path = "jsonpath={.summary.fail}";
    let get = [
        "get",
        "policyreport",
        "ringfence",
        "-n",
        namespace,
        "-o",
        path,
    ];
    let told = async || {
        let output = cluster.kubectl(&get, "");
        (output.stdout == wanted.as_bytes()).then_some(())
    };
    Kubernetes::eventually("the report of the namespace", told).await;
}

fn metric(admin: &str, name: &str) -> u64 {
    let output = Command::new("curl")
        .args(["-sf", &format!("http://{admin}/metrics")])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(name));
    lines
        .next()
        .unwrap_or_else(|| panic!("{name}: {text}"))
        .trim()
        .parse()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_change_the_controller_lists_only_where_it_was_and_the_numbers_are_those_of_all() {
    let cluster = Kubernetes::start().await;
    let applied = cluster.kubectl(&["apply", "--server-side", "-k", INSTALL], "");
    assert!(applied.status.success());
    cluster.apply(&definitions());
    let guardrail = async || {
        let applied = cluster.kubectl(&["apply", "-f", "-"], WATCHFUL);
        applied.status.success().then_some(())
    };
    Kubernetes::eventually("guardrails served", guardrail).await;
    cluster.apply(&(0..6).map(busy).collect::<String>());

    let admin = format!("127.0.0.1:{}", free_port());
    let url = format!("https://127.0.0.1:{}", free_port());
    let arguments = ["controller", "--webhook-url", &url, "--admin", &admin];
    let controller = start(&cluster, ACCOUNT, &arguments);
    controller.line(&["audit done"]).await;
    reported(&cluster, "busy-5", "0").await;
    let objects = metric(&admin, "ringfence_audit_objects ");
    let before = lists(&cluster);
    assert!(before.contains(&("pods".to_owned(), String::new())));

    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: busy-3}, \
        spec: {containers: [{name: main, image: none}]}}";
    cluster.apply(pod);
    reported(&cluster, "busy-3", "1").await;
    let after: BTreeSet<(String, String)> =
        lists(&cluster).into_iter().skip(before.len()).collect();
    let elsewhere: Vec<_> = after.iter().filter(|(_, at)| at != "busy-3").collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
    for resource in ["namespaces", "pods", "deployments", "policyreports"] {
        let place = (resource.to_owned(), "busy-3".to_owned());
        assert!(after.contains(&place), "{resource}: {after:?}");
    }
    assert_eq!(metric(&admin, "ringfence_audit_objects "), objects + 1);
    for (extent, audits) in [("Whole", 1), ("Touched", 1)] {
        let name = format!("ringfence_audits_total{{extent=\"{extent}\"}} ");
        assert_eq!(metric(&admin, &name), audits, "{extent}");
    }
}
