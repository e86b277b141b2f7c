//! A small cluster behind the webhook, reviews as an API server sends them, and a policy engine that does as objects say.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use hyper::body::Bytes;
use ringfence::guard::decide::State;
use ringfence::guard::engine::{
    Answers, Level, Mutations, PolicyEngine, PolicyInfo, Question, Violation,
};
use ringfence::guard::exemption::Exemptions;
use ringfence::guard::finding::{FindingId, Fix, Severity};
use ringfence::guard::guardrail::{Guardrail, Guardrails, Section};
use ringfence::guard::reachability::ReachabilityRules;
use ringfence::guard::review::Subject;
use ringfence::netpol::{FieldPath, Snapshot};
use ringfence::runtime::Readiness;
use ringfence::webhook::router::{Webhook, WebhookOptions};
use ringfence::webhook::server::ServerOptions;
use ringfence::webhook::tls::TlsVersions;
use serde_json::{Value, json};

use crate::client::{Answer, Client, Http};
use crate::support::{Running, options, start_with};

pub(crate) const UID: &str = "705ab4f5-6393-11e8-b7cc-42010a800002";

/// Annotations that tell the engine what to do with an object.
const SLEEP: &str = "test/sleep-milliseconds";
const BURN: &str = "test/burn-milliseconds";
const PANIC: &str = "test/panic";

/// Finds privileged containers of any sort, as the built-in pack does; sleeps and panics when asked to.
struct Obedient;

impl PolicyEngine for Obedient {
    fn evaluate(&self, question: &Question<'_>) -> Answers {
        if let Some(time) = question.subject.annotation(SLEEP) {
            // Goes on past the deadline, which a good engine does not.
            std::thread::sleep(Duration::from_millis(time.parse().unwrap()));
        }
        if let Some(time) = question.subject.annotation(BURN) {
            let until = Instant::now() + Duration::from_millis(time.parse().unwrap());
            while Instant::now() < until {
                std::hint::spin_loop();
            }
        }
        assert!(
            question.subject.annotation(PANIC).is_none(),
            "asked to panic"
        );
        let mut answers = Answers::default();
        for kind in ["containers", "initContainers", "ephemeralContainers"] {
            let field = FieldPath::of(["spec", kind]);
            for (index, container) in field
                .lookup(&question.subject.value)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .enumerate()
            {
                if container.pointer("/securityContext/privileged") == Some(&json!(true)) {
                    let field = field.index(index).key("securityContext").key("privileged");
                    answers.violations.push(Violation {
                        id: FindingId::from("RF403"),
                        section: Section::Bypasses,
                        level: Level::Deny,
                        severity: Severity::Critical,
                        field,
                        message: format!("container {} is privileged", container["name"]),
                        why: "a privileged container can undo any policy".into(),
                        fix: Some(Fix::words("remove securityContext.privileged")),
                    });
                }
            }
        }
        answers
    }

    fn mutate(&self, _: &Question<'_>) -> Mutations {
        Mutations::default()
    }

    fn registry(&self) -> Vec<PolicyInfo> {
        Vec::new()
    }

    fn looks_far(&self) -> bool {
        false
    }
}

pub(crate) struct Cluster {
    pub(crate) running: Running,
    pub(crate) known: Arc<ArcSwap<State>>,
    pub(crate) readiness: Readiness,
}

/// What is known and demanded in these tests: `shop` is fenced and enforced, `open` has no policy and is enforced,
/// `trial` has none and is audited, `leaving` is on its way out.
pub(crate) fn state() -> State {
    let objects = [
        namespace("shop"),
        namespace("open"),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "trial", "labels": {"stage": "audit"}}}),
        json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "leaving"},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Terminating"}
        }),
        default_deny("shop"),
        default_deny("leaving"),
        pod("shop", "web-1"),
        pod("leaving", "web-1"),
    ];
    let snapshot = objects
        .into_iter()
        .fold(Snapshot::default(), |snapshot, object| {
            snapshot.with(
                Subject::new(object)
                    .model()
                    .expect("a kind of the model")
                    .clone(),
            )
        });
    let guardrail = |name: &str, operator: &str, mode: &str| {
        Guardrail::parse(&json!({
            "apiVersion": "ringfence.dev/v1alpha1", "kind": "Guardrail", "metadata": {"name": name},
            "spec": {
                "namespaceSelector": {"matchExpressions": [
                    {"key": "stage", "operator": operator, "values": ["audit"]},
                    {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system"]}
                ]},
                "mode": mode, "coverage": {}, "baseline": {}, "bypasses": {}, "breadth": {}
            }
        }))
        .expect("a good guardrail")
    };
    State {
        snapshot,
        guardrails: Guardrails::new(vec![
            guardrail("enforce", "NotIn", "Enforce"),
            guardrail("trial", "In", "Audit"),
        ]),
        exemptions: Exemptions::default(),
        reachability: ReachabilityRules::default(),
        engine: Arc::new(Obedient),
    }
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::start_with(options(), WebhookOptions::default()).await
    }

    pub(crate) async fn start_with(server: ServerOptions, webhook: WebhookOptions) -> Self {
        let known = Arc::new(ArcSwap::from_pointee(state()));
        let mut readiness = None;
        let running = start_with(server, TlsVersions::default(), |shutdown| {
            let ready = Readiness::new(shutdown);
            readiness = Some(ready.clone());
            Webhook::new(known.clone(), ready, webhook).router()
        })
        .await;
        Self {
            running,
            known,
            readiness: readiness.unwrap(),
        }
    }

    pub(crate) fn client(&self) -> Client {
        self.running.client(Http::One)
    }

    /// Asks `/validate` and returns the response of the AdmissionReview.
    pub(crate) async fn validate(&self, review: &Value) -> Value {
        response(
            &self
                .client()
                .post("/validate", bytes(review))
                .await
                .unwrap(),
        )
    }

    /// Asks `/mutate` and returns the response of the AdmissionReview.
    pub(crate) async fn mutate(&self, review: &Value) -> Value {
        response(&self.client().post("/mutate", bytes(review)).await.unwrap())
    }

    /// Whether `/validate` lets it pass.
    pub(crate) async fn allows(&self, review: &Value) -> bool {
        self.validate(review).await["allowed"] == json!(true)
    }
}

pub(crate) fn bytes(review: &Value) -> Bytes {
    Bytes::from(serde_json::to_vec(review).unwrap())
}

/// The response of an answer that is an AdmissionReview for [`UID`].
pub(crate) fn response(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let mut review: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(review["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(review["kind"], "AdmissionReview");
    assert_eq!(review["response"]["uid"], UID);
    review["response"].take()
}

pub(crate) fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

pub(crate) fn default_deny(namespace: &str) -> Value {
    policy(
        namespace,
        &json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
    )
}

pub(crate) fn policy(namespace: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "default-deny", "namespace": namespace}, "spec": spec
    })
}

pub(crate) fn pod(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "main", "image": "x"}]}
    })
}

pub(crate) fn deployment(namespace: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": "x"}]}}
        }
    })
}

/// An object that makes the engine sleep.
pub(crate) fn slow(mut object: Value, milliseconds: u32) -> Value {
    object["metadata"]["annotations"] = json!({SLEEP: milliseconds.to_string()});
    object
}

/// An object that makes the engine burn a processor, as an endless loop does until it is cut.
pub(crate) fn hostile(mut object: Value, milliseconds: u32) -> Value {
    object["metadata"]["annotations"] = json!({BURN: milliseconds.to_string()});
    object
}

/// An object that makes the engine panic.
pub(crate) fn panicking(mut object: Value) -> Value {
    object["metadata"]["annotations"] = json!({PANIC: "yes"});
    object
}

pub(crate) fn create(object: &Value) -> Value {
    review("CREATE", object, &Value::Null)
}

pub(crate) fn update(old: &Value, new: &Value) -> Value {
    review("UPDATE", new, old)
}

pub(crate) fn delete(old: &Value) -> Value {
    review("DELETE", &Value::Null, old)
}

/// A review with every field that an API server fills in.
pub(crate) fn review(operation: &str, object: &Value, old_object: &Value) -> Value {
    let subject = if object.is_null() { old_object } else { object };
    let api_version = subject["apiVersion"].as_str().unwrap();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let kind = json!({"group": group, "version": version, "kind": subject["kind"]});
    let plural = match subject["kind"].as_str().unwrap() {
        "NetworkPolicy" => "networkpolicies".to_owned(),
        other => format!("{}s", other.to_lowercase()),
    };
    let resource = json!({"group": group, "version": version, "resource": plural});
    let meta = &subject["metadata"];
    json!({
        "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": UID, "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
            "name": meta["name"].as_str().unwrap_or(""), "namespace": meta["namespace"].as_str().unwrap_or(""),
            "operation": operation,
            "userInfo": {"username": "jane", "groups": ["developers", "system:authenticated"]},
            "object": object, "oldObject": old_object, "dryRun": false,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"}
        }
    })
}

/// How long something took.
pub(crate) async fn timed<T>(future: impl Future<Output = T>) -> (T, Duration) {
    let begun = Instant::now();
    let outcome = future.await;
    (outcome, begun.elapsed())
}
