//! A large cluster: 500 namespaces, 2 000 policies and as many pods as asked for.

#![allow(dead_code)] // each bench uses its part

use std::sync::Arc;

use ringfence::guard::decide::State;
use ringfence::guard::engine::PolicyEngine;
use ringfence::guard::exemption::Exemptions;
use ringfence::guard::guardrail::{Guardrail, Guardrails};
use ringfence::guard::reachability::ReachabilityRules;
use ringfence::guard::review::Subject;
use ringfence::netpol::snapshot::Snapshot;
use serde_json::{Value, json};

/// How many namespaces there are; each has four policies.
pub(crate) const NAMESPACES: usize = 500;

/// The cluster under the built-in guardrail.
pub(crate) fn state(pods: usize, engine: Arc<dyn PolicyEngine>) -> State {
    let snapshot = objects(pods)
        .into_iter()
        .fold(Snapshot::default(), |snapshot, object| {
            snapshot.with(
                Subject::new(object)
                    .model()
                    .expect("a kind of the model")
                    .clone(),
            )
        });
    State {
        snapshot,
        guardrails: Guardrails::new(vec![Guardrail::built_in().expect("it is good")]),
        exemptions: Exemptions::default(),
        reachability: ReachabilityRules::default(),
        engine,
    }
}

/// Its objects, as an API server or a folder of manifests has them.
pub(crate) fn objects(pods: usize) -> Vec<Value> {
    let mut objects = Vec::new();
    for namespace in 0..NAMESPACES {
        objects.push(json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": format!("team-{namespace}"), "labels": {"team": format!("t{}", namespace % 50)}}
        }));
        let policy = |name: &str, spec: Value| {
            json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"name": name, "namespace": format!("team-{namespace}")}, "spec": spec
            })
        };
        objects.push(policy(
            "default-deny",
            json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
        ));
        objects.push(policy(
            "allow-dns",
            json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{
                "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
                        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}],
                "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}]}),
        ));
        objects.push(policy(
            "front-to-back",
            json!({"podSelector": {"matchLabels": {"app": "app-1"}}, "policyTypes": ["Ingress"], "ingress": [{
                "from": [{"podSelector": {"matchLabels": {"app": "app-0"}}}],
                "ports": [{"protocol": "TCP", "port": 8080}]}]}),
        ));
        objects.push(policy(
            "scrape",
            json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{
                "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
                "ports": [{"protocol": "TCP", "port": 9090}]}]}),
        ));
    }
    for pod in 0..pods {
        let namespace = pod % NAMESPACES;
        let app = (pod / NAMESPACES) % 4;
        objects.push(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": format!("app-{app}-{pod}"), "namespace": format!("team-{namespace}"),
                "labels": {"app": format!("app-{app}"), "tier": "backend", "pod-template-hash": format!("{app:010}")}
            },
            "spec": {
                "nodeName": format!("node-{}", pod % 100),
                "containers": [{"name": "main", "image": "example/app:1", "ports": [{"name": "http", "containerPort": 8080}]}]
            },
            "status": {"phase": "Running", "podIP": format!("10.{}.{}.{}", pod / 65_536, pod / 256 % 256, pod % 256)}
        }));
    }
    objects
}

/// A Deployment of about 4 KB that breaks no rule, in the first namespace.
pub(crate) fn deployment() -> Value {
    let labels = json!({
        "app.kubernetes.io/name": "checkout", "app.kubernetes.io/component": "backend",
        "app.kubernetes.io/part-of": "shop", "app.kubernetes.io/version": "1.42.0"
    });
    let environment: Vec<Value> = (0..24)
        .map(|index| json!({"name": format!("CHECKOUT_SETTING_{index:02}"), "value": format!("https://settings.example/{index}/value")}))
        .collect();
    let probe = |path: &str| json!({"httpGet": {"path": path, "port": "http", "scheme": "HTTP"}, "initialDelaySeconds": 5, "periodSeconds": 10, "timeoutSeconds": 2, "failureThreshold": 3, "successThreshold": 1});
    let container = |name: &str| {
        json!({
            "name": name, "image": "registry.example/shop/checkout:1.42.0", "imagePullPolicy": "IfNotPresent",
            "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}, {"name": "metrics", "containerPort": 9090, "protocol": "TCP"}],
            "env": environment, "livenessProbe": probe("/livez"), "readinessProbe": probe("/readyz"),
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
            "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]}},
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, {"name": "config", "mountPath": "/etc/checkout", "readOnly": true}],
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"
        })
    };
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "checkout", "namespace": "team-0", "labels": labels, "annotations": {"example.com/note": "part of the shop"}},
        "spec": {
            "replicas": 3, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "selector": {"matchLabels": {"app.kubernetes.io/name": "checkout"}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "containers": [container("main")],
                    "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "config", "configMap": {"name": "checkout", "defaultMode": 420}}],
                    "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
                    "serviceAccountName": "checkout", "automountServiceAccountToken": false, "schedulerName": "default-scheduler",
                    "securityContext": {"runAsUser": 10001, "fsGroup": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
                }
            }
        }
    })
}
