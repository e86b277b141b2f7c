//! The webhook registered at a real API server: what people apply in one go works at the first try, every time, and what
//! has no cover is refused every time.

use base64::Engine as _;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::kubernetes::Kubernetes;
use crate::live::{default_deny, guardrail, guardrails, install, pod};
use crate::process::Process;

/// How often each order is tried.
const ROUNDS: usize = 100;

/// Starts `ringfence webhook` and registers it for everything but the system namespaces; failures refuse.
async fn webhook(cluster: &Kubernetes, client: &Client) -> Process {
    let ca = cluster.folder().join("ringfence-ca.crt");
    let arguments = ["--listen", "127.0.0.1:0", "--ca-out", ca.to_str().unwrap()];
    let process = cluster.ringfence("webhook", "webhook", &arguments);
    let line = process.line(&["listening"]).await;
    let address = line.rsplit_once("address=").unwrap().1.to_owned();
    process.line(&["state taken up"]).await;
    let bundle = base64::engine::general_purpose::STANDARD.encode(std::fs::read(&ca).unwrap());
    let rule = |group: &str, resources: &[&str]| {
        json!({
            "apiGroups": [group], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE", "DELETE"],
            "resources": resources
        })
    };
    let configuration: ValidatingWebhookConfiguration = serde_json::from_value(json!({
        "metadata": {"name": "ringfence"},
        "webhooks": [{
            "name": "validate.ringfence.dev", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "failurePolicy": "Fail", "timeoutSeconds": 10, "matchPolicy": "Equivalent",
            "clientConfig": {"url": format!("https://{address}/validate"), "caBundle": bundle},
            "namespaceSelector": {"matchExpressions": [{
                "key": "kubernetes.io/metadata.name", "operator": "NotIn",
                "values": ["kube-system", "kube-public", "kube-node-lease", "default"]
            }]},
            "rules": [
                rule("", &["pods", "namespaces"]),
                rule("apps", &["deployments", "replicasets", "statefulsets", "daemonsets"]),
                rule("batch", &["jobs", "cronjobs"]),
                rule("networking.k8s.io", &["networkpolicies"]),
                rule("ringfence.dev", &["exemptions", "guardrails"]),
            ]
        }]
    }))
    .unwrap();
    Api::all(client.clone())
        .create(&PostParams::default(), &configuration)
        .await
        .unwrap();
    process
}

async fn start(spec: &Value) -> (Kubernetes, Client, Process) {
    let cluster = Kubernetes::start_with_manager().await;
    let client = cluster.client().await;
    install(&client).await;
    guardrails(&client)
        .create(&PostParams::default(), &guardrail("all", spec))
        .await
        .unwrap();
    let process = webhook(&cluster, &client).await;
    // The API server takes a registration up a moment after it has stored it.
    apply::<Namespace>(&client, "", "probe", json!({}))
        .await
        .unwrap();
    apply::<ServiceAccount>(&client, "probe", "default", json!({}))
        .await
        .unwrap();
    let pods: Api<Pod> = Api::namespaced(client.clone(), "probe");
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let bare: Pod = serde_json::from_value(pod("web")).unwrap();
    Kubernetes::eventually("the webhook asked", async || {
        pods.create(&dry, &bare).await.err().map(|_| ())
    })
    .await;
    (cluster, client, process)
}

/// Server-side apply of one object, as it goes through every step of admission.
async fn apply<K>(
    client: &Client,
    namespace: &str,
    name: &str,
    mut object: Value,
) -> Result<(), kube::Error>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
    K::DynamicType: Default,
{
    let of = K::DynamicType::default();
    object["apiVersion"] = json!(K::api_version(&of));
    object["kind"] = json!(K::kind(&of));
    object["metadata"]["name"] = json!(name);
    if !namespace.is_empty() {
        object["metadata"]["namespace"] = json!(namespace);
    }
    let url = K::url_path(&of, (!namespace.is_empty()).then_some(namespace));
    let request = kube::core::Request::new(url).patch(
        name,
        &PatchParams::apply("test").force(),
        &Patch::Apply(&object),
    );
    client.request::<Value>(request.unwrap()).await.map(|_| ())
}

fn deployment() -> Value {
    json!({"spec": {
        "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": pod("web")["spec"]}
    }})
}

#[tokio::test]
async fn what_is_applied_in_one_go_works_at_the_first_try_a_hundred_times() {
    let spec = json!({"mode": "Enforce", "coverage": {}});
    let (_cluster, client, process) = start(&spec).await;
    for round in 0..ROUNDS {
        // Server-side apply, one right after the other; the namespace is seconds younger than anything was ever told of it.
        let name = format!("apply-{round}");
        apply::<Namespace>(&client, "", &name, json!({}))
            .await
            .unwrap();
        apply::<NetworkPolicy>(&client, &name, "default-deny", default_deny())
            .await
            .unwrap();
        apply::<ServiceAccount>(&client, &name, "default", json!({}))
            .await
            .unwrap();
        apply::<Pod>(&client, &name, "bare", pod("bare"))
            .await
            .unwrap();
        apply::<Deployment>(&client, &name, "web", deployment())
            .await
            .unwrap();

        // Without any policy, and the policy last: it is the policy that has to come first.
        let name = format!("bare-{round}");
        apply::<Namespace>(&client, "", &name, json!({}))
            .await
            .unwrap();
        let refused = apply::<Deployment>(&client, &name, "web", deployment()).await;
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("has no default-deny"), "{text}");
        apply::<NetworkPolicy>(&client, &name, "default-deny", default_deny())
            .await
            .unwrap();
        apply::<Deployment>(&client, &name, "web", deployment())
            .await
            .unwrap();
    }
    // The pods that the controllers make are judged as well, and pass.
    let made = Kubernetes::eventually("the pods of the deployments", async || {
        let pods: Api<Pod> = Api::all(client.clone());
        let list = pods
            .list(&ListParams::default().labels("app=web"))
            .await
            .unwrap();
        (list.items.len() == ROUNDS * 2).then_some(list.items.len())
    });
    assert_eq!(made.await, ROUNDS * 2);

    assert!(process.is_running());
    let log = process.log();
    assert!(
        !log.contains("panicked") && !log.contains("not judged"),
        "{log}"
    );
}

/// Who may write Exemptions at all, and who may exempt from one guardrail besides.
const ROLES: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: trial}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: write-exemptions}
rules:
  - {apiGroups: [ringfence.dev], resources: [exemptions], verbs: [create, update, patch, get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: write-exemptions}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: write-exemptions}
subjects: [{kind: User, name: jane, apiGroup: rbac.authorization.k8s.io}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: exempt-from-all}
rules:
  - {apiGroups: [ringfence.dev], resources: [guardrails], resourceNames: [all], verbs: [exempt]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: exempt-from-all}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: exempt-from-all}
subjects: [{kind: Group, name: exempters, apiGroup: rbac.authorization.k8s.io}]
";

fn exemption(guardrail: Option<&str>, reason: &str) -> Value {
    let mut exemption = json!({
        "spec": {
            "checks": ["RF401"], "objects": [{"kind": "Pod", "name": "web"}],
            "reason": reason, "owner": "tests", "expires": "2099-01-01T00:00:00Z"
        }
    });
    if let Some(guardrail) = guardrail {
        exemption["spec"]["guardrail"] = json!(guardrail);
    }
    exemption
}

type Exemption = ringfence::guard::exemption::ExemptionManifest;

/// Holds wherever the right is asked for.
async fn only_who_may_exempt_writes_exemptions(cluster: &Kubernetes, admin: &Client) {
    let plain = cluster.client_as("jane", &["developers"]).await;
    let entitled = cluster.client_as("jane", &["exempters"]).await;
    let write = async |client: &Client, name: &str, guardrail, reason| {
        let object = exemption(guardrail, reason);
        apply::<Exemption>(client, "trial", name, object).await
    };
    let refused = write(&plain, "a", Some("all"), "x")
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("user `jane` may not exempt from guardrail `all`")
            && refused.contains("the verb `exempt`"),
        "{refused}"
    );
    write(&entitled, "a", Some("all"), "x").await.unwrap();
    let refused = write(&entitled, "b", None, "x")
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("from every guardrail"), "{refused}");
    assert!(write(&entitled, "b", Some("other"), "x").await.is_err());
    // Whoever may not write one may not change what another one says either.
    assert!(write(&plain, "a", Some("all"), "longer").await.is_err());
    write(&entitled, "a", Some("all"), "longer").await.unwrap();
    write(admin, "b", None, "x").await.unwrap();
}

#[tokio::test]
async fn an_exemption_takes_the_verb_exempt_on_the_guardrail_that_it_names() {
    let spec = json!({"mode": "Enforce", "coverage": {}});
    let (cluster, client, process) = start(&spec).await;
    cluster.apply(ROLES);
    only_who_may_exempt_writes_exemptions(&cluster, &client).await;
    process.line(&["exemption not authorized", "jane"]).await;
}

#[tokio::test]
async fn the_api_server_itself_asks_for_that_verb_where_no_webhook_is() {
    let cluster = Kubernetes::start().await;
    let client = cluster.client().await;
    install(&client).await;
    cluster.apply(ROLES);
    cluster.apply(include_str!("../../deploy/install/exemptions.yaml"));
    let plain = cluster.client_as("jane", &["developers"]).await;
    Kubernetes::eventually("the policy in force", async || {
        // It may come into force between the two: then the second one is refused, and the first is no change any more.
        let mut refused = false;
        for guardrail in [Some("all"), None] {
            let object = exemption(guardrail, "probe");
            refused |= apply::<Exemption>(&plain, "trial", "probe", object)
                .await
                .is_err();
        }
        refused.then_some(())
    })
    .await;
    only_who_may_exempt_writes_exemptions(&cluster, &client).await;
}
