//! The registration of the webhook by the controller, on a real API server.

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::installation::{Installation, controller, fails_for, registered};
use crate::kubernetes::Kubernetes;

/// Namespaces of the stage `prod` are held to default-deny.
pub(crate) const GUARDRAIL: &str = r"
apiVersion: ringfence.dev/v1alpha1
kind: Guardrail
metadata: {name: prod}
spec:
  namespaceSelector: {matchLabels: {stage: prod}}
  mode: Enforce
  coverage: {}
  breadth: {}
  baseline: {mode: Audit}
";

pub(crate) fn namespace(name: &str, stage: &str) -> String {
    // Without the service account, which a controller makes, no pod is admitted.
    format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{stage: {stage}}}}}}}\n---\n\
         {{apiVersion: v1, kind: ServiceAccount, metadata: {{name: default, namespace: {name}}}}}\n---\n"
    )
}

pub(crate) fn pod(name: &str, namespace: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}, \
         spec: {{containers: [{{name: main, image: x}}]}}}}\n---\n"
    )
}

pub(crate) fn default_deny(namespace: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: default-deny, namespace: {namespace}}}, \
         spec: {{podSelector: {{}}, policyTypes: [Ingress, Egress]}}}}\n---\n"
    )
}

/// `kubectl create`; `Err` is what it says.
pub(crate) fn create(cluster: &Kubernetes, manifests: &str, flags: &[&str]) -> Result<(), String> {
    let arguments = [&["create", "-f", "-"], flags].concat();
    let output = cluster.kubectl(&arguments, manifests);
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Tries until the API server refuses with these words: it takes a registration up within a moment, not at once.
pub(crate) async fn refused(cluster: &Kubernetes, manifests: &str, words: &str) -> String {
    let attempt = async || {
        let refusal = create(cluster, manifests, &["--dry-run=server"]).err()?;
        refusal.contains(words).then_some(refusal)
    };
    Kubernetes::eventually(&format!("refused with {words:?}"), attempt).await
}

#[tokio::test]
async fn the_webhook_is_registered_where_a_guardrail_asks_for_it_and_nowhere_else() {
    let cluster = Kubernetes::start().await;
    let _installation = Installation::start(&cluster, &[]).await;
    let client = cluster.client().await;
    let validating: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let mutating: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    cluster.apply(&(namespace("shop", "prod") + &namespace("trial", "test")));
    assert!(validating.get_opt("ringfence").await.unwrap().is_none());

    cluster.apply(GUARDRAIL);
    let configuration = registered(&cluster, "shop in fail", |c| fails_for(c, "shop")).await;
    assert!(!fails_for(&configuration, "trial") && !fails_for(&configuration, "kube-system"));
    refused(&cluster, &pod("web", "shop"), "default-deny").await;
    create(&cluster, &pod("web", "trial"), &[]).unwrap();
    assert!(mutating.get_opt("ringfence").await.unwrap().is_some());
    let owner = &configuration.metadata.owner_references.clone().unwrap()[0];
    assert_eq!(
        (owner.kind.as_str(), owner.name.as_str()),
        ("Namespace", "ringfence-system")
    );

    // A relabel moves a namespace from one entry to the other.
    cluster.apply(&namespace("trial", "prod"));
    registered(&cluster, "trial in fail", |c| fails_for(c, "trial")).await;
    cluster.apply(&namespace("trial", "test"));
    registered(&cluster, "trial in ignore", |c| !fails_for(c, "trial")).await;

    // What is edited or deleted comes back.
    let wide =
        json!({"webhooks": [{"name": "fail.validate.ringfence.dev", "failurePolicy": "Ignore"}]});
    let edit = PatchParams::default();
    validating
        .patch("ringfence", &edit, &Patch::Strategic(wide))
        .await
        .unwrap();
    let fails = |c: &ValidatingWebhookConfiguration| {
        let mut entries = c.webhooks.iter().flatten();
        entries.any(|entry| entry.failure_policy.as_deref() == Some("Fail"))
    };
    registered(&cluster, "the entry mended", fails).await;
    let more = json!({"webhooks": [{
        "name": "foreign.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": "https://127.0.0.1:1/x"},
    }]});
    validating
        .patch("ringfence", &edit, &Patch::Strategic(more))
        .await
        .unwrap();
    registered(&cluster, "the foreign entry gone", |c| {
        c.webhooks.iter().flatten().count() == 3
    })
    .await;
    let uid = configuration.metadata.uid.clone();
    validating
        .delete("ringfence", &DeleteParams::default())
        .await
        .unwrap();
    registered(&cluster, "made again", |c| c.metadata.uid != uid).await;

    // Without a Guardrail there is nothing.
    cluster.kubectl(&["delete", "guardrail", "prod"], "");
    let gone = async || {
        let validating = validating.get_opt("ringfence").await.unwrap();
        let mutating = mutating.get_opt("ringfence").await.unwrap();
        (validating.is_none() && mutating.is_none()).then_some(())
    };
    Kubernetes::eventually("nothing registered", gone).await;
    create(&cluster, &pod("web", "shop"), &[]).unwrap();
}

#[tokio::test]
async fn one_controller_leads_and_another_takes_over_when_it_goes() {
    let cluster = Kubernetes::start().await;
    let installation = Installation::start(&cluster, &["--identity", "first"]).await;
    let second = controller(
        &cluster,
        "second",
        installation.port,
        &["--identity", "second"],
    );
    second.line(&["another leads", "first"]).await;
    let leases: Api<Lease> = Api::namespaced(cluster.client().await, "ringfence-system");
    let holder = async || {
        let lease = leases.get("ringfence-controller").await.unwrap();
        lease.spec.unwrap().holder_identity.unwrap()
    };
    assert_eq!(holder().await, "first");

    // Asked to go, it gives the Lease back, and nobody waits for it to run out.
    let begun = std::time::Instant::now();
    installation.controller.signal("TERM");
    installation.controller.line(&["given back"]).await;
    second.line(&["leading"]).await;
    assert!(
        begun.elapsed() < std::time::Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(holder().await, "second");

    // Taken away, the one that led stops at once; when it is free again it leads again.
    let taken = json!({"spec": {"holderIdentity": "thief", "leaseDurationSeconds": 3}});
    let edit = PatchParams::default();
    leases
        .patch("ringfence-controller", &edit, &Patch::Merge(taken))
        .await
        .unwrap();
    second.line(&["another has the Lease", "thief"]).await;
    second.line(&["no longer leading"]).await;
    Kubernetes::eventually("the Lease back", async || {
        (holder().await == "second").then_some(())
    })
    .await;
}
