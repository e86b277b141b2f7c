//! Policies on trial at admission, on a real API server: told in shadow, refused as canaries, and known once they are there.

use crate::installation::{Installation, fails_for, registered};
use crate::kubernetes::Kubernetes;
use crate::registration::{GUARDRAIL, create, default_deny, namespace, pod, refused};

/// `web` is to reach the database, and `other` is not.
const RULES: &str = r"
apiVersion: ringfence.dev/v1alpha1
kind: ReachabilityRule
metadata: {name: web-to-db}
spec:
  from: [{namespaces: [shop], podSelector: {matchLabels: {app: web}}}]
  to: [{namespaces: [shop], podSelector: {matchLabels: {app: db}}}]
  ports: [{port: 5432}]
  expect: Allow
  mode: Enforce
---
apiVersion: ringfence.dev/v1alpha1
kind: ReachabilityRule
metadata: {name: other-not-to-db}
spec:
  from: [{namespaces: [shop], podSelector: {matchLabels: {app: other}}}]
  to: [{namespaces: [shop], podSelector: {matchLabels: {app: db}}}]
  expect: Deny
  mode: Enforce
---
";

fn policy(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: {name}, namespace: shop}}, spec: {{{spec}}}}}\n---\n"
    )
}

fn staged(name: &str, stage: &str, spec: &str) -> String {
    let kind = "apiVersion: ringfence.dev/v1alpha1, kind: StagedNetworkPolicy";
    let choice = "canary: {podSelector: {matchLabels: {app: db}}}";
    format!(
        "{{{kind}, metadata: {{name: {name}, namespace: shop}}, spec: {{stage: {stage}, {choice}, {spec}}}}}\n---\n"
    )
}

#[tokio::test]
async fn a_canary_is_judged_as_a_network_policy_and_one_in_shadow_is_told_of() {
    let cluster = Kubernetes::start().await;
    let _installation = Installation::start(&cluster, &[]).await;
    let db = "podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress]";
    let from = |app: &str| {
        format!("ingress: [{{from: [{{podSelector: {{matchLabels: {{app: {app}}}}}}}]}}]")
    };
    let to_db = |app: &str| {
        format!(
            "podSelector: {{matchLabels: {{app: {app}}}}}, policyTypes: [Egress], \
             egress: [{{to: [{{podSelector: {{matchLabels: {{app: db}}}}}}]}}]"
        )
    };
    cluster.apply(&(namespace("shop", "prod") + &default_deny("shop")));
    cluster.apply(&policy("db", &format!("{db}, {}", from("web"))));
    cluster.apply(&policy("web", &to_db("web")));
    for name in ["web", "db", "other"] {
        create(&cluster, &pod(name, "shop"), &[]).unwrap();
    }
    cluster.apply(&format!("{RULES}{GUARDRAIL}"));
    registered(&cluster, "shop in fail", |c| fails_for(c, "shop")).await;

    // Open to the world.
    let world = "ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]";
    let refusal = refused(&cluster, &staged("open", "Canary", world), "0.0.0.0/0").await;
    assert!(refusal.contains("StagedNetworkPolicy"), "{refusal}");
    let output = cluster.kubectl(&["create", "-f", "-"], &staged("open", "Shadow", world));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("once promoted: "), "{said}");
    // What is there in shadow is judged when it is to hold pods.
    let begin = [
        "patch",
        "snp",
        "open",
        "-n",
        "shop",
        "--type=merge",
        "-p",
        "{\"spec\":{\"stage\":\"Canary\"}}",
    ];
    let output = cluster.kubectl(&begin, "");
    assert!(!output.status.success());

    // In the place of the policy of its name it would cut the web off, for the pods that it is tried on.
    let refusal = refused(&cluster, &staged("db", "Canary", db), "web-to-db").await;
    assert!(refusal.contains("(canary)"), "{refusal}");
    create(&cluster, &staged("db", "Shadow", db), &[]).unwrap();

    // What a canary lets in counts for those who would be let out.
    let out = policy("out", &to_db("other"));
    create(&cluster, &out, &["--dry-run=server"]).unwrap();
    let opens = format!("{db}, {}", from("other"));
    create(&cluster, &staged("opens", "Canary", &opens), &[]).unwrap();
    refused(&cluster, &out, "other-not-to-db").await;
    // The end of a trial is never held up.
    let end = ["delete", "snp", "opens", "-n", "shop"];
    assert!(cluster.kubectl(&end, "").status.success());
    let passes = async || create(&cluster, &out, &["--dry-run=server"]).ok();
    Kubernetes::eventually("nothing lets it in any more", passes).await;
}
