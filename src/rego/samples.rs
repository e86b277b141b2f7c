//! Requests to try policies with: of the kinds and operations that a webhook sees, in a small cluster.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::guard::engine::Question;
use crate::guard::guardrail::{Guardrail, GuardrailSpec};
use crate::guard::review::{Operation, Review, Subject};
use crate::netpol::{self, ParseError, Snapshot};

/// The requests and what they are asked in.
pub(super) struct Samples {
    reviews: Vec<(&'static str, Review)>,
    snapshot: Snapshot,
    guardrail: Guardrail,
}

impl Samples {
    /// Makes them.
    pub(super) fn new() -> Result<Self, ParseError> {
        let mut snapshot = Snapshot::default();
        for object in [namespace(), policy(), pod()] {
            if let Some(parsed) = netpol::parse(&object)? {
                snapshot = snapshot.with(parsed.object);
            }
        }
        let manifest = json!({
            "apiVersion": "ringfence.dev/v1alpha1", "kind": "Guardrail", "metadata": {"name": "sample"},
            "spec": serde_json::to_value(GuardrailSpec::built_in()).unwrap_or_default(),
        });
        let new = |object: Value| Some(Subject::new(object));
        let create = |object: Value| Review::made_of(Operation::Create, new(object), None);
        let reviews = vec![
            ("the creation of a Deployment", create(deployment("1.2.3"))),
            (
                "the update of a Deployment",
                Review::made_of(
                    Operation::Update,
                    new(deployment("1.2.4")),
                    new(deployment("1.2.3")),
                ),
            ),
            ("the creation of a Pod", create(pod())),
            (
                "the deletion of a Pod",
                Review::made_of(Operation::Delete, None, new(pod())),
            ),
            ("the creation of a CronJob", create(cron_job())),
            ("the creation of a NetworkPolicy", create(policy())),
            (
                "the deletion of a NetworkPolicy",
                Review::made_of(Operation::Delete, None, new(policy())),
            ),
            ("the creation of a Namespace", create(namespace())),
            (
                "the creation of a ConfigMap",
                create(
                    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "sample", "namespace": "shop"}, "data": {"key": "value"}}),
                ),
            ),
        ];
        Ok(Self {
            reviews,
            snapshot,
            guardrail: Guardrail::parse(&manifest)?,
        })
    }

    /// The questions, each with its name.
    pub(super) fn questions(&self) -> impl Iterator<Item = (&'static str, Question<'_>)> {
        self.reviews.iter().filter_map(|(name, review)| {
            let question = Question {
                review,
                subject: review.subject()?,
                snapshot: &self.snapshot,
                guardrail: &self.guardrail,
                now: Timestamp::UNIX_EPOCH,
                deadline: None,
            };
            Some((*name, question))
        })
    }
}

fn namespace() -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"team": "shop"}}})
}

fn pod_spec(tag: &str) -> Value {
    json!({
        "serviceAccountName": "web",
        "containers": [{
            "name": "web", "image": format!("registry.example/shop/web:{tag}"),
            "ports": [{"name": "http", "containerPort": 8080}],
            "env": [{"name": "LEVEL", "value": "info"}],
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
            "securityContext": {"privileged": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}},
        }],
        "initContainers": [{"name": "prepare", "image": "registry.example/shop/prepare:1", "command": ["true"]}],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    })
}

fn labels() -> Value {
    json!({"app.kubernetes.io/name": "web", "app": "web", "team": "shop"})
}

fn deployment(tag: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop", "labels": labels(), "annotations": {"owner": "shop"}},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": labels()}, "spec": pod_spec(tag)},
        },
    })
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web-1", "namespace": "shop", "labels": labels()},
        "spec": pod_spec("1.2.3"), "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]},
    })
}

fn cron_job() -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "report", "namespace": "shop"},
        "spec": {
            "schedule": "0 3 * * *",
            "jobTemplate": {"spec": {"template": {"metadata": {"labels": labels()}, "spec": pod_spec("1")}}},
        },
    })
}

fn policy() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "web", "namespace": "shop", "annotations": {"ringfence.dev/owner": "shop"}},
        "spec": {
            "podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": "shop"}}}], "ports": [{"port": "http"}]}],
            "egress": [{"to": [{"ipBlock": {"cidr": "10.1.0.0/16", "except": ["10.1.2.0/24"]}}], "ports": [{"port": 5432, "protocol": "TCP"}]}],
        },
    })
}
