//! Baselines in a real cluster: new namespaces get theirs, edits and deletions are undone, pods that run are not cut.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::kubernetes::Kubernetes;

const GUARDRAIL: &str = r#"
apiVersion: ringfence.dev/v1alpha1
kind: Guardrail
metadata: {name: baselines}
spec:
  mode: Enforce
  namespaceSelector: {matchLabels: {baseline: "yes"}}
  baseline: {}
"#;

fn namespace(name: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{baseline: \"yes\"}}}}\n")
}

async fn there(policies: &Api<NetworkPolicy>) -> Option<NetworkPolicy> {
    policies.get_opt("ringfence-baseline").await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_given_its_baseline_and_keeps_it() {
    let cluster = Kubernetes::start().await;
    let crds = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/crds");
    assert!(cluster.kubectl(&["apply", "--server-side", "-k", crds], "").status.success());
    assert!(cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all"], "").status.success());
    cluster.apply(GUARDRAIL);
    let _controller = cluster.ringfence("controller", "controller", &["--webhook-url", "https://127.0.0.1:1"]);
    cluster.apply(&namespace("shop"));
    let client = cluster.client().await;
    let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), "shop");
    let made = Kubernetes::eventually("the baseline", || there(&policies)).await;
    let good = made.spec.unwrap();

    let open = json!({"spec": {"egress": [{}], "ingress": [{}]}});
    policies.patch("ringfence-baseline", &PatchParams::default(), &Patch::Merge(&open)).await.unwrap();
    Kubernetes::eventually("the edit undone", || async {
        there(&policies).await.filter(|policy| policy.spec.as_ref() == Some(&good))
    })
    .await;
    policies.delete("ringfence-baseline", &DeleteParams::default()).await.unwrap();
    Kubernetes::eventually("the deletion undone", || there(&policies)).await;
}
