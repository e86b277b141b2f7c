//! Decisions in front of a cluster whose watches lag: the API server is asked before anything is refused, seldom, and in
//! time. The state is held still by the test, so it lags as far as can be.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use ringfence::guard::decide::State;
use ringfence::k8s::live::ReadLimits;
use ringfence::netpol::parse;
use ringfence::runtime::{Readiness, Trigger};
use ringfence::webhook::cluster::Cluster;
use ringfence::webhook::router::{Webhook, WebhookOptions};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::kubernetes::Kubernetes;
use crate::live::{
    Following, default_deny, follow, guardrail, guardrails, install, make, make_namespace, pod,
};

/// A webhook without a network in front of it.
struct Asked {
    router: Router,
    cluster: Cluster,
    _trigger: Trigger,
}

impl Asked {
    /// One that knows what is followed now and hears of nothing later.
    fn of_the_past(following: &Following, client: &Client, age_limit: Duration) -> Self {
        let known = following.live.state.load_full();
        Self::knowing(known, following, client, age_limit)
    }

    /// One that knows this and hears of nothing later.
    fn knowing(
        known: Arc<State>,
        following: &Following,
        client: &Client,
        age_limit: Duration,
    ) -> Self {
        let known = Arc::new(ArcSwap::new(known));
        let live = following.live.clone();
        let cluster = Cluster::new(live, client.clone(), ReadLimits::default(), age_limit);
        let (trigger, shutdown) = Trigger::new();
        let webhook = Webhook::in_front_of(
            Some(cluster.clone()),
            known,
            Arc::default(),
            Readiness::new(shutdown),
            WebhookOptions::default(),
        );
        Self {
            router: webhook.router(),
            cluster,
            _trigger: trigger,
        }
    }

    /// The response of `/validate`.
    async fn validate(&self, request: Value) -> Value {
        self.ask("validate", request).await
    }

    /// The response of `/mutate`.
    async fn mutate(&self, request: Value) -> Value {
        self.ask("mutate", request).await
    }

    async fn ask(&self, path: &str, request: Value) -> Value {
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request
        });
        let request = hyper::Request::post(format!("/{path}?timeout=10s"))
            .header("content-type", "application/json")
            .body(Body::from(review.to_string()))
            .unwrap();
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let answer: Value = serde_json::from_slice(&body).unwrap();
        answer["response"].clone()
    }

    /// Whether a pod may be made.
    async fn allows_pod(&self, namespace: &str) -> Value {
        self.validate(creation(namespace, pod("web"))).await
    }
}

fn creation(namespace: &str, mut object: Value) -> Value {
    object["metadata"]["namespace"] = json!(namespace);
    json!({
        "uid": "1", "operation": "CREATE", "namespace": namespace, "name": "web",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "userInfo": {"username": "jane", "groups": ["system:authenticated"]},
        "object": object, "oldObject": null, "dryRun": false, "options": null
    })
}

fn enforced() -> Value {
    json!({
        "mode": "Enforce", "coverage": {}, "bypasses": {},
        "namespaceSelector": {"matchExpressions": [
            {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system"]},
            {"key": "trusted", "operator": "DoesNotExist"}
        ]}
    })
}

fn allowed(answer: &Value) -> bool {
    answer["allowed"] == json!(true)
}

async fn start(age_limit: Duration) -> (Kubernetes, Client, Following, Asked) {
    start_under(&enforced(), age_limit).await
}

async fn start_under(spec: &Value, age_limit: Duration) -> (Kubernetes, Client, Following, Asked) {
    let cluster = Kubernetes::start().await;
    let client = cluster.client().await;
    install(&client).await;
    guardrails(&client)
        .create(&PostParams::default(), &guardrail("all", spec))
        .await
        .unwrap();
    let following = follow(&client);
    following
        .until("the guardrail", |state| {
            state.guardrails.iter().count() == 1
        })
        .await;
    let asked = Asked::of_the_past(&following, &client, age_limit);
    (cluster, client, following, asked)
}

#[tokio::test]
async fn what_was_written_a_moment_ago_counts_whether_the_watches_have_told_it_or_not() {
    let (_cluster, client, _following, asked) = start(Duration::from_mins(5)).await;
    for round in 0..20 {
        let name = format!("young-{round}");
        make_namespace(&client, &name).await;
        let refused = asked.allows_pod(&name).await;
        assert!(!allowed(&refused), "without any policy: {refused}");
        make::<NetworkPolicy>(&client, &name, default_deny()).await;
        let passed = asked.allows_pod(&name).await;
        assert!(allowed(&passed), "the policy was there before it: {passed}");
    }
    assert_eq!(asked.cluster.reads(), (40, 0));

    // A policy that is gone, though it is still known: a stale refusal is what is excluded, a stale allow is not.
    let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), "young-0");
    policies
        .delete("default-deny", &DeleteParams::default())
        .await
        .unwrap();
    assert!(!allowed(&asked.allows_pod("young-0").await));

    // Labels that take the namespace out of the guardrail, and an exemption.
    let trusted = kube::api::Patch::Merge(json!({"metadata": {"labels": {"trusted": "yes"}}}));
    Api::<Namespace>::all(client.clone())
        .patch("young-0", &kube::api::PatchParams::default(), &trusted)
        .await
        .unwrap();
    let passed = asked.allows_pod("young-0").await;
    assert!(allowed(&passed), "{passed}");
    let mut hosted = pod("web");
    hosted["spec"]["hostNetwork"] = json!(true);
    let request = creation("young-1", hosted);
    assert!(!allowed(&asked.validate(request.clone()).await));
    make::<ringfence::guard::exemption::ExemptionManifest>(
        &client,
        "young-1",
        json!({
            "apiVersion": "ringfence.dev/v1alpha1", "kind": "Exemption",
            "metadata": {"name": "web"},
            "spec": {
                "checks": ["RF401"], "objects": [{"kind": "Pod", "name": "web"}],
                "reason": "a test", "owner": "tests", "expires": "2099-01-01T00:00:00Z"
            }
        }),
    )
    .await;
    let passed = asked.validate(request).await;
    assert!(allowed(&passed), "{passed}");
    // And a guardrail that asks for nothing any more.
    guardrails(&client)
        .delete("all", &DeleteParams::default())
        .await
        .unwrap();
    assert!(allowed(&asked.allows_pod("nowhere").await));
}

#[tokio::test]
async fn the_labels_of_a_namespace_that_no_watch_has_told_of_count() {
    let spec = json!({
        "mode": "Enforce", "coverage": {},
        "baseline": {"defaultDeny": [], "monitoring": {"enabled": false}},
        "namespaceSelector": {"matchLabels": {"stage": "prod"}}
    });
    let limit = Duration::from_mins(5);
    let (cluster, client, following, asked) = start_under(&spec, limit).await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let young = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "young", "labels": {"stage": "prod"}}
    });
    // While it is being made it cannot be read, and is told in the request.
    let mut request = creation("young", young.clone());
    request["name"] = json!("young");
    request["kind"]["kind"] = json!("Namespace");
    request["resource"]["resource"] = json!("namespaces");
    assert!(allowed(&asked.validate(request).await));
    assert_eq!(asked.cluster.reads(), (0, 0));

    let young = serde_json::from_value(young).unwrap();
    namespaces
        .create(&PostParams::default(), &young)
        .await
        .unwrap();
    let answer = asked.allows_pod("young").await;
    assert!(!allowed(&answer), "{answer}");
    let forgets = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "web"},
        "spec": {
            "podSelector": {}, "policyTypes": ["Egress"],
            "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "db"}}}]}]
        }
    });
    let mut request = creation("young", forgets);
    request["kind"] =
        json!({"group": "networking.k8s.io", "version": "v1", "kind": "NetworkPolicy"});
    request["resource"] =
        json!({"group": "networking.k8s.io", "version": "v1", "resource": "networkpolicies"});
    let answer = asked.mutate(request).await;
    assert!(answer["patch"].is_string(), "{answer}");

    // Where it is not there either, nothing selects it.
    assert!(allowed(&asked.allows_pod("nowhere").await));
    assert_eq!(asked.cluster.reads(), (3, 0));

    // What is known of something in it says nothing of its labels.
    let mut known = State::clone(&following.live.state.load_full());
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "web", "namespace": "young"},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}}
    });
    known.snapshot = known.snapshot.with(parse(&policy).unwrap().unwrap().object);
    let asked = Asked::knowing(Arc::new(known), &following, &client, limit);
    let answer = asked.allows_pod("young").await;
    assert!(!allowed(&answer), "{answer}");
    // Whoever cannot be asked is no reason to say nothing.
    cluster.stop_server(0);
    let answer = asked.allows_pod("young").await;
    let warned = answer["warnings"][0].as_str().unwrap_or_default();
    assert!(warned.contains("could not be read"), "{answer}");
}

#[tokio::test]
async fn a_thousand_retries_cost_a_few_reads_and_all_are_refused() {
    let (_cluster, client, _following, asked) = start(Duration::from_mins(5)).await;
    make_namespace(&client, "bare").await;
    let begun = Instant::now();
    let asked = Arc::new(asked);
    // Few at once, as controllers do it: the webhook turns away what is too much.
    let controllers: Vec<_> = (0..20)
        .map(|_| {
            let asked = Arc::clone(&asked);
            tokio::spawn(async move {
                for _ in 0..50 {
                    tokio::time::sleep(Duration::from_millis(60)).await;
                    let answer = asked.allows_pod("bare").await;
                    assert!(!allowed(&answer), "{answer}");
                    assert!(answer["auditAnnotations"]["state"].is_null(), "{answer}");
                }
            })
        })
        .collect();
    for controller in controllers {
        controller.await.unwrap();
    }
    let (reads, failures) = asked.cluster.reads();
    let most = begun.elapsed().as_millis() / 250 + 1;
    assert!(u128::from(reads) <= most, "{reads} reads, at most {most}");
    assert_eq!(failures, 0);
}

#[tokio::test]
async fn without_an_api_server_it_goes_on_with_what_it_knows_and_says_so_until_that_is_too_old() {
    let (cluster, client, following, _) = start(Duration::from_secs(10)).await;
    make_namespace(&client, "shop").await;
    make_namespace(&client, "bare").await;
    make::<NetworkPolicy>(&client, "shop", default_deny()).await;
    following
        .until("both", |state| {
            state.snapshot.policies().count() == 1
                && state.snapshot.namespace(&"bare".into()).is_some()
        })
        .await;
    let asked = Asked::of_the_past(&following, &client, Duration::from_secs(10));
    cluster.stop_server(0);
    Kubernetes::eventually("the state old", async || {
        (following.live.age() > Duration::from_secs(1)).then_some(())
    })
    .await;

    let passed = asked.allows_pod("shop").await;
    assert!(allowed(&passed), "{passed}");
    let warned = passed["warnings"][0].as_str().unwrap_or_default();
    assert!(
        warned.contains("old: the API server has not been heard"),
        "{passed}"
    );
    let refused = asked.allows_pod("bare").await;
    assert!(!allowed(&refused), "{refused}");
    let text = refused.to_string();
    assert!(text.contains("could not be read"), "{text}");

    Kubernetes::eventually("the state too old", async || {
        (following.live.age() > Duration::from_secs(10)).then_some(())
    })
    .await;
    let refused = asked.allows_pod("shop").await;
    let message = refused["status"]["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("the API server was last heard 1") && message.contains("older than 10s"),
        "{refused}"
    );
    // Where nothing is enforced it passes, and that it was not judged is said.
    let passed = asked.allows_pod("kube-system").await;
    assert!(allowed(&passed), "{passed}");
    assert!(
        passed["warnings"][0]
            .as_str()
            .unwrap()
            .contains("did not judge")
    );
}
