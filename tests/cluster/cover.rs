//! What covers pods, or keeps a forbidden way closed, cannot be taken away unseen on a real API server; there is a way to do it
//! rightly, and what ends may end.

use crate::drills::{installed, open_policy};
use crate::events::one;
use crate::installation::{fails_for, registered};
use crate::kubernetes::Kubernetes;
use crate::registration::{create, pod, refused};

/// Beside `prod`: each workload of `ops` is to have a policy of its own, and the web must not reach the database.
const DEMANDS: &str = "
apiVersion: ringfence.dev/v1alpha1
kind: Guardrail
metadata: {name: own}
spec: {mode: Enforce, namespaceSelector: {matchLabels: {stage: own}}, coverage: {scope: Workload}}
---
apiVersion: ringfence.dev/v1alpha1
kind: ReachabilityRule
metadata: {name: web-not-db}
spec:
  mode: Enforce
  expect: Deny
  from: [{namespaces: [own], podSelector: {matchLabels: {app: web}}}]
  to: [{namespaces: [own], podSelector: {matchLabels: {app: db}}}]
";

/// Isolates all that is called `web`, `db` or `tool`, and lets in to the database what says that it may, from namespaces that may.
const OWN: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: own, labels: {stage: own}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: default, namespace: own}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: isolated, namespace: own}
spec:
  podSelector: {matchExpressions: [{key: app, operator: In, values: [web, db, tool]}]}
  policyTypes: [Ingress, Egress]
  egress: [{to: [{podSelector: {}}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: own}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
    - from: [{podSelector: {matchLabels: {db: 'yes'}}}]
    - from: [{namespaceSelector: {matchLabels: {trusted: 'yes'}}, podSelector: {}}]
---
";

/// What kubectl says where it is refused.
fn tried(cluster: &Kubernetes, arguments: &[&str]) -> Result<(), String> {
    let output = cluster.kubectl(&[arguments, &["--dry-run=server"]].concat(), "");
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

fn refused_for(cluster: &Kubernetes, id: &str, arguments: &[&str]) {
    let text = tried(cluster, arguments).expect_err(&arguments.join(" "));
    assert!(text.contains(id), "{arguments:?}: {text}");
}

fn patch<'a>(kind: &'a str, name: &'a str, namespace: &'a str, patch: &'a str) -> [&'a str; 8] {
    [
        "patch",
        kind,
        name,
        "-n",
        namespace,
        "--type=merge",
        "-p",
        patch,
    ]
}

#[tokio::test]
async fn the_last_cover_goes_only_with_something_in_its_place_or_with_all_that_it_covers() {
    let (cluster, _installation) = installed().await;
    refused(&cluster, open_policy(), "RF3").await;
    let delete = ["delete", "networkpolicy", "default-deny", "-n", "shop"];
    refused_for(&cluster, "RF202", &delete);
    for spec in [
        r#"{"spec":{"policyTypes":["Ingress"]}}"#,
        r#"{"spec":{"podSelector":{"matchLabels":{"app":"else"}}}}"#,
    ] {
        refused_for(
            &cluster,
            "RF202",
            &patch("networkpolicy", "default-deny", "shop", spec),
        );
    }
    refused_for(
        &cluster,
        "RF202",
        &["delete", "networkpolicy", "--all", "-n", "shop"],
    );

    // The way to do it rightly, which is told: first another one, then away with the old one.
    let other = crate::registration::default_deny("shop").replace("default-deny", "other");
    create(&cluster, &other, &[]).unwrap();
    assert!(cluster.kubectl(&delete, "").status.success());
    refused_for(
        &cluster,
        "RF202",
        &["delete", "networkpolicy", "other", "-n", "shop"],
    );

    // A namespace that ends takes all of it along, with the webhook there.
    cluster.kubectl(&["delete", "namespace", "shop", "--wait=false"], "");
    cluster.gone("shop").await;
}

fn policies(cluster: &Kubernetes) -> Vec<String> {
    let output = cluster.kubectl(&["get", "networkpolicies", "-n", "shop", "-o", "name"], "");
    assert!(output.status.success());
    let names = String::from_utf8(output.stdout).unwrap();
    names.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn of_policies_that_go_one_right_after_the_other_the_last_one_stays() {
    let (cluster, _installation) = installed().await;
    refused(&cluster, open_policy(), "RF3").await;
    for _ in 0..5 {
        let there = policies(&cluster);
        let name = ["default-deny", "other"].into_iter();
        let mut name = name.filter(|name| !there.iter().any(|there| there.ends_with(name)));
        let missing = crate::registration::default_deny("shop");
        let missing = missing.replace("default-deny", name.next().unwrap());
        create(&cluster, &missing, &[]).unwrap();
        let all = "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies";
        let output = cluster.kubectl(&["delete", "--raw", all], "");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("RF202"), "{text}");
        assert_eq!(policies(&cluster).len(), 1);
    }
}

#[tokio::test]
async fn who_says_that_a_policy_is_owned_by_nobody_has_it_collected_with_its_pods_only() {
    let (cluster, _installation) = installed().await;
    refused(&cluster, open_policy(), "RF3").await;
    let owner = r#"{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"gone",
        "uid":"00000000-0000-4000-8000-000000000000"}]}}"#;
    let patch = patch("networkpolicy", "default-deny", "shop", owner);
    assert!(cluster.kubectl(&patch, "").status.success());
    one(&cluster, "shop", "Refused", "default-deny").await;
    assert_eq!(policies(&cluster).len(), 1);
    let pods = ["delete", "pods", "--all", "-n", "shop", "--now"];
    assert!(cluster.kubectl(&pods, "").status.success());
    Kubernetes::eventually("the policy collected", async || {
        policies(&cluster).is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_label_that_uncovers_or_opens_is_refused_on_pods_templates_and_namespaces() {
    let (cluster, _installation) = installed().await;
    cluster.apply(OWN);
    let friend = "{apiVersion: v1, kind: Namespace, metadata: {name: friend}}";
    cluster.apply(friend);
    for name in ["web", "db", "tool"] {
        Kubernetes::eventually("a pod", async || {
            create(&cluster, &pod(name, "own"), &[]).ok()
        })
        .await;
    }
    let deployment = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: tool, namespace: own}, spec: {replicas: 0, \
        selector: {matchLabels: {set: tool}}, template: {metadata: {labels: {app: tool, set: tool}}, \
        spec: {containers: [{name: main, image: x}]}}}}";
    create(&cluster, deployment, &[]).unwrap();
    cluster.apply(DEMANDS);
    registered(&cluster, "own in fail", |c| fails_for(c, "own")).await;
    refused(&cluster, &pod("stray", "own"), "RF201").await;

    let label = |kind: &str, name: &str, label: &str| {
        tried(
            &cluster,
            &["label", kind, name, "-n", "own", "--overwrite", label],
        )
    };
    // Harmless ones pass.
    label("pod", "tool", "note=x").unwrap();
    label("namespace", "own", "note=x").unwrap();
    // Of no policy any more.
    let text = label("pod", "web", "app=stray").unwrap_err();
    assert!(text.contains("RF20"), "{text}");
    let template = r#"{"spec":{"replicas":1,"template":{"metadata":{"labels":{"app":"stray"}}}}}"#;
    refused_for(
        &cluster,
        "RF201",
        &patch("deployment", "tool", "own", template),
    );
    // The web would reach the database.
    let text = label("pod", "web", "db=yes").unwrap_err();
    assert!(
        text.contains("RF701") && text.contains("web-not-db"),
        "{text}"
    );
    let text = label("namespace", "own", "trusted=yes").unwrap_err();
    assert!(text.contains("RF701"), "{text}");
    let opens = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: opens, namespace: own}, \
        spec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}}";
    let text = create(&cluster, opens, &["--dry-run=server"]).unwrap_err();
    assert!(text.contains("RF701"), "{text}");
    // And a policy that goes opens as well: without isolation the database lets everybody in.
    let text = tried(
        &cluster,
        &["delete", "networkpolicy", "isolated", "-n", "own"],
    )
    .unwrap_err();
    assert!(text.contains("RF202"), "{text}");
    // A namespace that leaves what is demanded is judged by what was, too; where nothing is opened by that, it may.
    label("namespace", "friend", "trusted=yes").unwrap();
}
