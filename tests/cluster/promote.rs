//! `ringfence promote` against a real API server: what is there now, what passed lately and would not have, and what was
//! seen and a baseline would cut.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::installation::{Installation, install_kinds, registered};
use crate::kubernetes::Kubernetes;
use crate::registration::{GUARDRAIL, create, default_deny, namespace, pod};

/// How it ends, and all that it says.
fn promote(kubeconfig: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .args(["promote", "prod", "--kubeconfig"])
        .arg(kubeconfig)
        .args(arguments)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.code(), text)
}

fn mode(cluster: &Kubernetes) -> Value {
    let output = cluster.kubectl(&["get", "guardrail", "prod", "-o", "json"], "");
    let guardrail: Value = serde_json::from_slice(&output.stdout).unwrap();
    guardrail["spec"]["mode"].clone()
}

/// A kubeconfig of somebody who may read all that is judged and no Events.
fn without_events(cluster: &Kubernetes) -> std::path::PathBuf {
    cluster.apply(
        "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: no-events}, rules: [\
            {apiGroups: ['', apps, batch, networking.k8s.io, ringfence.dev, policy.networking.k8s.io], \
             resources: ['*'], verbs: [list]}]}\n---\n\
         {apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: no-events}, \
          roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: no-events}, \
          subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: jane}]}",
    );
    let text = std::fs::read_to_string(cluster.kubeconfig()).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["users"][0]["user"]["as"] = Value::from("jane");
    let path = cluster.folder().join("jane.kubeconfig");
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

#[tokio::test]
async fn a_guardrail_moves_on_when_nothing_is_there_and_nothing_passed_lately() {
    let cluster = Kubernetes::start().await;
    let installation = Installation::start(&cluster, &[]).await;
    let admin = cluster.kubeconfig();
    cluster.apply(&namespace("shop", "prod"));
    cluster.apply(&GUARDRAIL.replace("mode: Enforce", "mode: Audit"));
    registered(&cluster, "an entry", |c| c.webhooks.is_some()).await;
    let delete = ["delete", "pod", "bare", "-n", "shop", "--now"];
    let told = async || {
        create(&cluster, &pod("bare", "shop"), &[]).unwrap();
        assert!(cluster.kubectl(&delete, "").status.success());
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let (_, text) = promote(&admin, &["--dry-run"]);
        text.contains("shop, lately: ").then_some(text)
    };
    let text = Kubernetes::eventually("a change of late", told).await;
    assert!(
        text.contains("RF201: ") && text.contains("of Pod bare"),
        "{text}"
    );

    // All is well now, and was not a moment ago.
    cluster.apply(&default_deny("shop"));
    let (code, text) = promote(&admin, &[]);
    assert!(
        text.contains("nothing of what is there, and would have"),
        "{text}"
    );
    assert_eq!((code, mode(&cluster)), (Some(1), "Audit".into()), "{text}");

    // Nobody counts on any more.
    drop(installation);
    let all = ["delete", "events", "--all", "-n", "shop"];
    assert!(cluster.kubectl(&all, "").status.success());
    let (code, text) = promote(&without_events(&cluster), &["--dry-run"]);
    assert!(
        text.contains("Events cannot be listed: events.events.k8s.io is forbidden"),
        "{text}"
    );
    assert!(text.contains("does not count as clean"), "{text}");
    assert_eq!(code, Some(1), "{text}");
    let (code, text) = promote(&admin, &[]);
    assert!(text.contains("there is no Event of a change"), "{text}");
    assert_eq!((code, mode(&cluster)), (Some(0), "Warn".into()), "{text}");
}

/// Recorded in a cluster without any policy: only the first is cut by a baseline, the second is an allow of it.
const SEEN: &str = r#"
{"from":{"namespace":"shop","pod":"web"},"to":{"namespace":"shop","pod":"api"},"port":8080,"verdict":"allowed","count":40}
{"from":{"namespace":"monitoring","labels":{"app":"prometheus"}},"to":{"namespace":"shop","pod":"api"},"port":9090,"verdict":"allowed","count":7}
{"from":{"namespace":"shop","pod":"web"},"to":{"namespace":"shop","pod":"api"},"port":22,"verdict":"denied","count":3}
"#;

#[tokio::test]
async fn flows_that_were_seen_and_a_baseline_would_cut_are_told_and_hold_a_promotion_up() {
    let cluster = Kubernetes::start().await;
    install_kinds(&cluster).await;
    let pods = pod("web", "shop") + &pod("api", "shop");
    cluster.apply(&(namespace("shop", "prod") + &namespace("monitoring", "other") + &pods));
    for name in ["web", "api"] {
        let patch = [
            "patch",
            "pod",
            name,
            "-n",
            "shop",
            "--subresource=status",
            "--type=merge",
        ];
        let running = [&patch[..], &["-p", r#"{"status":{"phase":"Running"}}"#]].concat();
        assert!(cluster.kubectl(&running, "").status.success());
    }
    let warning = GUARDRAIL
        .replace("mode: Enforce", "mode: Warn")
        .replace("{mode: Audit}", "{}");
    cluster.apply(&warning.replace("coverage: {}", ""));
    let (admin, file) = (cluster.kubeconfig(), cluster.folder().join("seen.jsonl"));
    std::fs::write(&file, SEEN.trim_start()).unwrap();
    let flows = ["--flows", file.to_str().unwrap()];

    let audited = Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .args([
            "audit",
            "--namespace",
            "shop",
            "--output",
            "json",
            "--kubeconfig",
        ])
        .arg(&admin)
        .args(flows)
        .output()
        .unwrap();
    let document: Value = serde_json::from_slice(&audited.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&audited.stderr)));
    let cut = &document["wouldCut"]["namespaces"][0];
    assert_eq!(
        (&cut["namespace"], &cut["flows"]),
        (&"shop".into(), &40.into()),
        "{document:#}"
    );
    let findings = document["findings"].as_array().unwrap().iter();
    let of_baseline: Vec<&Value> = findings.filter(|it| it["id"] == "RF506").collect();
    let message = of_baseline[0]["message"].as_str().unwrap();
    assert!(
        message.ends_with(
            "; it would cut 40 recorded flows: shop/web (Pod) to shop/api (Pod) TCP 8080 (40)"
        ),
        "{message}"
    );

    // Pods run there: what Enforce does at once cuts nothing, and what the namespace's own promotion does cuts this.
    let to_enforce = ["--to", "enforce", "--dry-run"];
    let (_, text) = promote(&admin, &[&to_enforce[..], &flows].concat());
    assert!(
        text.contains("1 namespace in which pods run waits for its own promotion"),
        "{text}"
    );
    assert!(!text.contains("recorded"), "{text}");
    let own = ["--namespace", "shop", "--dry-run"];
    let (code, text) = promote(&admin, &own);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = promote(&admin, &[&own[..], &flows].concat());
    let told = "namespace shop: 1 policies are made, 0 declared flows are cut, of recorded ones 40 flows at 1 connection\n  \
                shop/web (Pod) -> shop/api (Pod) TCP 8080: 40 flows\n";
    assert!(text.contains(told), "{text}");
    assert_eq!(code, Some(1), "{text}");
    let (code, text) = promote(&admin, &[&own[..2], &flows].concat());
    assert!(
        text.contains("not promoted; mend it first, or give --force"),
        "{text}"
    );
    assert_eq!(code, Some(1), "{text}");

    // Where all namespaces are given theirs at once, it is the step to Enforce that is held up, unless it is forced.
    cluster.apply(
        &warning
            .replace("coverage: {}", "")
            .replace("baseline: {}", "baseline: {existing: Apply}"),
    );
    let (code, text) = promote(&admin, &flows);
    assert!(text.contains(told), "{text}");
    assert_eq!((code, mode(&cluster)), (Some(1), "Warn".into()), "{text}");
    let (code, text) = promote(&admin, &[&flows[..], &["--force"]].concat());
    assert_eq!(
        (code, mode(&cluster)),
        (Some(0), "Enforce".into()),
        "{text}"
    );
    let output = cluster.kubectl(&["get", "guardrail", "prod", "-o", "json"], "");
    let guardrail: Value = serde_json::from_slice(&output.stdout).unwrap();
    let forced = &guardrail["metadata"]["annotations"]["ringfence.dev/promotion-forced"];
    assert!(
        forced.as_str().unwrap().starts_with("to Enforce over "),
        "{forced}"
    );
}
