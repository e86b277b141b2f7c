//! A policy on trial, from `kubectl apply` to the packet and to its promotion: told and not enforced, enforced on some pods,
//! enforced on all.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::kubernetes::Kubernetes;
use crate::probe::{Outcome, Transport, ask_one};
use crate::site::{Named, Site};

const NAMESPACE: &str = "shop";
const PORT: u16 = 5432;
/// Where the agent is asked.
const ADMIN: &str = "127.0.0.1:9471";
/// How long a change may take until packets show it.
const PATIENCE: Duration = Duration::from_secs(10);

/// `canary` is the pod on which things are tried.
const PODS: [(&str, usize); 3] = [("web", 0), ("db", 0), ("canary", 0)];

/// A policy on trial for the pods that are asked.
fn staged(spec: &Value) -> String {
    let mut staged = json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": "StagedNetworkPolicy",
        "metadata": {"name": "db", "namespace": NAMESPACE, "labels": {"team": "data"}}, "spec": spec,
    });
    staged["spec"]["podSelector"] =
        json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["db", "canary"]}]});
    staged.to_string()
}

fn becomes(site: &Site, to: &str, wanted: Outcome) {
    let begun = Instant::now();
    for v6 in [false, true] {
        loop {
            let to = site.cluster.pod(to).place.at(v6, PORT);
            let outcome = ask_one(&site.cluster.pod("web").place, to, Transport::Tcp);
            if outcome == wanted {
                break;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "{to}: {outcome:?}, not {wanted:?}"
            );
        }
    }
}

/// How many packets a counter of the table has counted; none where the table has no such counter.
fn counted(site: &Site, counter: &str) -> Option<u64> {
    let list = || {
        Command::new("nft")
            .args(["-j", "list", "counter", "inet", "ringfence", counter])
            .output()
    };
    let output = site.cluster.node(0).namespace.inside(list).unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).ok()?;
    document["nftables"][1]["counter"]["packets"].as_u64()
}

/// Waits for a flow of this verdict, and gives it and all that the agent tells.
async fn flow(site: &Site, verdict: &str) -> (Value, String) {
    Kubernetes::eventually(&format!("a flow {verdict}"), async || {
        let node = &site.cluster.node(0).namespace;
        let ask = || {
            Command::new(env!("CARGO_BIN_EXE_ringfence"))
                .args(["flows", "--agent", ADMIN, "--output", "json"])
                .args(["--verdict", verdict])
                .output()
        };
        let output = node.inside(ask).unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let first = serde_json::from_str(text.lines().next()?).unwrap();
        Some((first, text))
    })
    .await
}

fn ringfence(site: &Site, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .args(arguments)
        .arg("--kubeconfig")
        .arg(site.kubernetes.kubeconfig())
        .output()
        .unwrap()
}

fn promote(site: &Site, more: &[&str], code: i32) -> Output {
    let arguments = [&["staged", "promote", "shop/db"], more].concat();
    let output = ringfence(site, &arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    output
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_told_then_tried_on_some_pods_and_then_promoted() {
    let site = Site::new(1, &PODS, &[NAMESPACE]).await;
    for (name, node) in PODS {
        let pod = Named {
            namespace: NAMESPACE,
            name,
            app: name,
        };
        site.schedule(pod, node).await;
        site.running(pod, &site.cluster.pod(name).place).await;
    }
    site.cluster.serve_all(&[PORT]);
    let agent = site.agent_with(0, &["--admin", ADMIN]).await;

    // In shadow it is counted and told, and drops nothing.
    site.kubernetes.apply(&staged(&json!({})));
    let begun = Instant::now();
    while counted(&site, "would-deny-ingress").unwrap_or(0) < 4 {
        for to in ["db", "canary"] {
            becomes(&site, to, Outcome::Answered);
        }
        assert!(begun.elapsed() < PATIENCE, "{}", agent.log());
    }
    assert_eq!(counted(&site, "denied-ingress"), Some(0));
    assert_eq!(counted(&site, "would-allow-ingress"), Some(0));
    let (would_deny, flows) = flow(&site, "would-deny").await;
    assert_eq!(
        would_deny["details"]["policies"],
        json!(["StagedNetworkPolicy shop/db"])
    );
    assert_eq!(would_deny["details"]["direction"], "ingress");
    assert!(agent.log().contains("would-deny"), "{}", agent.log());

    // The report says it, and which flows were seen.
    let seen = site.kubernetes.folder().join("flows.jsonl");
    std::fs::write(&seen, flows).unwrap();
    let seen = seen.display().to_string();
    let arguments = [
        "staged",
        "report",
        "--output",
        "json",
        "--fail-on",
        "flows",
        "--flows",
        &seen,
    ];
    let report = ringfence(&site, &arguments);
    let said = String::from_utf8_lossy(&report.stderr).into_owned();
    assert_eq!(report.status.code(), Some(1), "{said}");
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    let policy = &report["policies"][0];
    assert_eq!(
        (&policy["name"], &policy["stage"]),
        (&json!("db"), &json!("Shadow"))
    );
    assert!(policy["summary"]["closed"].as_u64().unwrap() >= 2);
    assert!(policy["flows"]["newlyDenied"]["flows"].as_u64().unwrap() >= 1);

    // As a canary it holds the pods that it chooses.
    let chosen = json!({"podSelector": {"matchLabels": {"app": "canary"}}});
    site.kubernetes
        .apply(&staged(&json!({"stage": "Canary", "canary": chosen})));
    becomes(&site, "canary", Outcome::Silent);
    becomes(&site, "db", Outcome::Answered);

    // Promoted, it holds all of them, and the trial is over.
    let tried = promote(&site, &["--dry-run"], 0);
    let printed = String::from_utf8(tried.stdout).unwrap();
    assert!(
        printed.contains("kind: NetworkPolicy") && !printed.contains("Canary"),
        "{printed}"
    );
    becomes(&site, "db", Outcome::Answered);
    promote(&site, &[], 0);
    becomes(&site, "db", Outcome::Silent);
    becomes(&site, "canary", Outcome::Silent);
    let kubectl = |arguments: &[&str]| {
        let arguments = [arguments, &["-n", NAMESPACE, "-o", "json"]].concat();
        let output = site.kubernetes.kubectl(&arguments, "");
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let real = kubectl(&["get", "networkpolicy", "db"]);
    assert_eq!(real["metadata"]["labels"], json!({"team": "data"}));
    assert_eq!(real["spec"]["policyTypes"], json!(["Ingress"]));
    assert_eq!(kubectl(&["get", "snp"])["items"], json!([]));

    // Another version of it, in the place of the first: told as what would pass.
    site.kubernetes.apply(&staged(&json!({"ingress": [{}]})));
    let begun = Instant::now();
    while counted(&site, "would-allow-ingress").unwrap_or(0) == 0 {
        becomes(&site, "db", Outcome::Silent);
        assert!(begun.elapsed() < PATIENCE, "{}", agent.log());
    }
    let (would_allow, _) = flow(&site, "would-allow").await;
    assert_eq!(
        would_allow["details"]["policies"],
        json!(["StagedNetworkPolicy shop/db"])
    );
    let refused = promote(&site, &[], 1);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("+ ingress:"), "{said}");
    becomes(&site, "db", Outcome::Silent);
    promote(&site, &["--force"], 0);
    becomes(&site, "db", Outcome::Answered);
    becomes(&site, "canary", Outcome::Answered);
    assert_eq!(kubectl(&["get", "snp"])["items"], json!([]));
    // Whenever the kernel was read back, it held what was wanted.
    assert!(!agent.log().contains("was not the wanted one"));
}
