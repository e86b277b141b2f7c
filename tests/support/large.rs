//! A large cluster: 500 namespaces, 1 500 workloads, 2 000 policies, 20 of the cluster, and as many pods as asked for.

#![allow(dead_code)] // each bench uses its part

use std::sync::Arc;

use ringfence::guard::decide::State;
use ringfence::guard::engine::PolicyEngine;
use ringfence::guard::exemption::Exemptions;
use ringfence::guard::guardrail::{Guardrail, Guardrails};
use ringfence::guard::reachability::ReachabilityRules;
use ringfence::guard::review::Subject;
use ringfence::netpol::snapshot::Snapshot;
use ringfence::netpol::{NodeName, Object, Pod, parse};
use serde_json::{Value, json};

/// How many namespaces there are.
pub(crate) const NAMESPACES: usize = 500;
/// The pods that are in each cluster of a thousand pods or more, by their numbers: on the node and looked at are the same in each,
/// so that what differs is the size of the cluster alone. One that [`spread`] has on the node is of the monitoring, which may reach
/// all pods.
pub(crate) const COMMON: std::ops::Range<usize> = 106..1_000;

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

/// Its objects as the model has them, with so many of the [`COMMON`] pods on a node, evenly spread, and all others elsewhere.
pub(crate) fn spread(pods: usize, node: &str, local: usize) -> impl Iterator<Item = Object> {
    let every = (COMMON.len() / local).max(1);
    objects(pods).into_iter().map(move |value| {
        let parsed = parse(&value).expect("valid").expect("of the model");
        match parsed.object {
            Object::Pod(pod) if !pod.host_network => {
                let place = common(&pod).map(|number| number - COMMON.start);
                let is_local =
                    place.is_some_and(|place| place % every == 0 && place / every < local);
                let node = if is_local { node } else { "elsewhere" };
                let node = Some(NodeName::from(node));
                Object::Pod(Pod { node, ..pod })
            }
            object => object,
        }
    })
}

/// The number of a pod that is in each cluster of a thousand pods or more.
pub(crate) fn common(pod: &Pod) -> Option<usize> {
    let number = pod.name().as_str().rsplit('-').next()?.parse().ok()?;
    Some(number).filter(|number| COMMON.contains(number) && !pod.host_network)
}

/// Its objects, as an API server or a folder of manifests has them.
///
/// Each namespace has three workloads and four policies, and belongs to one of 50 teams. Fronts reach the backs of their
/// team's namespaces, backs their own database; everyone reaches the DNS and ten shared services, the team's block
/// outside, and is scraped; an agent on the network of each node is as close to its pods as the node.
pub(crate) fn objects(pods: usize) -> Vec<Value> {
    let mut objects = Vec::new();
    for namespace in 0..NAMESPACES {
        let name = namespace_name(namespace);
        objects.push(json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {
                "team": team(namespace), "shared": if namespace % 50 == 7 { "true" } else { "false" }
            }}
        }));
        objects.extend(policies(namespace));
        objects.extend((0..APPS).flat_map(|app| workload(&name, app)));
    }
    objects.extend((0..CLUSTER_POLICIES).map(cluster_policy));
    objects.push(json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "node-agent", "namespace": "kube-system"},
        "spec": {"selector": {"matchLabels": {"app": "node-agent"}}, "template": {
            "metadata": {"labels": {"app": "node-agent"}},
            "spec": {"hostNetwork": true, "containers": [{"name": "main", "image": "example/agent:1"}]}}}
    }));
    let agents = NODES.min(pods / 100);
    objects.extend((0..agents).map(agent));
    objects.extend((agents..pods).map(pod));
    objects
}

/// How many workloads each namespace has.
const APPS: usize = 3;
/// How many policies the cluster as a whole has.
const CLUSTER_POLICIES: usize = 20;
/// How many nodes there are.
const NODES: usize = 100;

/// Ten pairs of teams that must not meet but for scrapes, nine that pass on what one port is about, and in the end
/// nothing that nobody has said something about.
fn cluster_policy(index: usize) -> Value {
    let of_team = |team: usize| json!({"matchLabels": {"team": format!("t{team}")}});
    let port = |number: u16| json!([{"tcp": {"destinationPort": {"number": number}}}]);
    let monitoring =
        json!({"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}});
    let (tier, subject, ingress) = match index {
        0..10 => (
            "Admin",
            json!({"namespaces": of_team(index)}),
            json!([
                {"action": "Accept", "from": [monitoring], "protocols": port(9090)},
                {"action": "Deny", "from": [{"namespaces": of_team(index + 10)}]}
            ]),
        ),
        10..19 => (
            "Admin",
            json!({"pods": {"namespaceSelector": of_team(index + 10), "podSelector": {"matchLabels": {"app": "app-2"}}}}),
            json!([
                {"action": "Pass", "from": [{"namespaces": {}}], "protocols": port(5432)},
                {"action": "Deny", "from": [{"namespaces": of_team(index + 20)}]}
            ]),
        ),
        _ => (
            "Baseline",
            json!({"namespaces": {}}),
            json!([{"action": "Deny", "from": [{"namespaces": {}}]}]),
        ),
    };
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": format!("cluster-{index}")},
        "spec": {"tier": tier, "priority": index, "subject": subject, "ingress": ingress}
    })
}

fn namespace_name(namespace: usize) -> String {
    match namespace {
        497 => "kube-system".to_owned(),
        498 => "monitoring".to_owned(),
        499 => "ingress".to_owned(),
        _ => format!("team-{namespace}"),
    }
}

fn team(namespace: usize) -> String {
    format!("t{}", namespace % 50)
}

/// The four policies of a namespace.
fn policies(namespace: usize) -> [Value; 4] {
    let name = namespace_name(namespace);
    let of_team = json!({"matchLabels": {"team": team(namespace)}});
    let named = |name: &str| json!({"matchLabels": {"kubernetes.io/metadata.name": name}});
    let app = |app: usize| json!({"matchLabels": {"app": format!("app-{app}")}});
    let tcp = |port: u16| json!([{"protocol": "TCP", "port": port}]);
    let policy = |policy: &str, spec: Value| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": policy, "namespace": name}, "spec": spec
        })
    };
    let mut out = vec![
        json!({"to": [{"namespaceSelector": named("kube-system"), "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}],
               "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}),
        json!({"to": [{"namespaceSelector": of_team, "podSelector": app(1)}], "ports": [{"protocol": "TCP", "port": "http"}]}),
        json!({"to": [{"podSelector": app(2)}], "ports": tcp(5432)}),
        json!({"to": [{"namespaceSelector": {"matchLabels": {"shared": "true"}}}], "ports": tcp(8443)}),
        json!({"to": [{"ipBlock": {"cidr": format!("198.51.{}.0/24", namespace % 50), "except": [format!("198.51.{}.0/28", namespace % 50)]}}],
               "ports": tcp(443)}),
    ];
    let mut scrape =
        vec![json!({"from": [{"namespaceSelector": named("monitoring")}], "ports": tcp(9090)})];
    match name.as_str() {
        "monitoring" => out.push(json!({"to": [{"namespaceSelector": {}}], "ports": tcp(9090)})),
        "ingress" => {
            out.push(json!({"to": [{"namespaceSelector": {}, "podSelector": app(0)}], "ports": tcp(8080)}));
            scrape.push(json!({"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": tcp(443)}));
        }
        "kube-system" => scrape.push(json!({"from": [{"namespaceSelector": {}}],
            "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]})),
        _ => {}
    }
    if namespace % 50 == 7 {
        scrape.push(json!({"from": [{"namespaceSelector": {}}], "ports": tcp(8443)}));
    }
    [
        policy(
            "default-deny",
            json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
        ),
        policy(
            "allow-out",
            json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": out}),
        ),
        policy(
            "front-to-back",
            json!({"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["app-0", "app-1", "app-2"]}]},
                "policyTypes": ["Ingress"], "ingress": [
                    {"from": [{"namespaceSelector": of_team, "podSelector": app(0)}], "ports": [{"protocol": "TCP", "port": "http"}]},
                    {"from": [{"podSelector": app(1)}], "ports": tcp(5432)},
                    {"from": [{"namespaceSelector": named("ingress")}], "ports": tcp(8080)}]}),
        ),
        policy(
            "scrape",
            json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": scrape}),
        ),
    ]
}

fn labels(namespace: &str, app: usize) -> Value {
    let mut labels = json!({"app": format!("app-{app}"), "tier": "backend"});
    if namespace == "kube-system" && app == 0 {
        labels["k8s-app"] = json!("kube-dns");
    }
    labels
}

fn containers() -> Value {
    json!([{"name": "main", "image": "example/app:1", "ports": [
        {"name": "http", "containerPort": 8080}, {"name": "metrics", "containerPort": 9090}]}])
}

/// A Deployment with its ReplicaSet, or a StatefulSet.
fn workload(namespace: &str, app: usize) -> Vec<Value> {
    let labels = labels(namespace, app);
    let object = |kind: &str, name: String, owners: Value| {
        json!({
            "apiVersion": "apps/v1", "kind": kind,
            "metadata": {"name": name, "namespace": namespace, "ownerReferences": owners},
            "spec": {"selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": labels}, "spec": {"containers": containers()}}}
        })
    };
    let name = format!("app-{app}");
    if app == 2 {
        return vec![object("StatefulSet", name, json!([]))];
    }
    vec![
        object(
            "ReplicaSet",
            format!("app-{app}-5f7c"),
            owner("Deployment", &name),
        ),
        object("Deployment", name, json!([])),
    ]
}

fn owner(kind: &str, name: &str) -> Value {
    json!([{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "1", "controller": true}])
}

fn pod(pod: usize) -> Value {
    let namespace = namespace_name(pod % NAMESPACES);
    let app = (pod / NAMESPACES) % APPS;
    let owner = match app {
        2 => owner("StatefulSet", "app-2"),
        _ => owner("ReplicaSet", &format!("app-{app}-5f7c")),
    };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("app-{app}-{pod}"), "namespace": namespace, "labels": labels(&namespace, app),
            "ownerReferences": owner
        },
        "spec": {"nodeName": format!("node-{}", pod % NODES), "containers": containers()},
        "status": {"phase": "Running", "podIP": format!("10.{}.{}.{}", pod / 65_536, pod / 256 % 256, pod % 256)}
    })
}

fn agent(node: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("node-agent-{node}"), "namespace": "kube-system", "labels": {"app": "node-agent"},
            "ownerReferences": owner("DaemonSet", "node-agent")
        },
        "spec": {"nodeName": format!("node-{node}"), "hostNetwork": true,
                 "containers": [{"name": "main", "image": "example/agent:1"}]},
        "status": {"phase": "Running", "podIP": format!("172.16.0.{node}")}
    })
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
