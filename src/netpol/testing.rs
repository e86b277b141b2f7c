//! Small clusters in few words, for the unit tests of this folder.

// The arguments are JSON literals, which nobody wants to see borrowed.
#![allow(clippy::needless_pass_by_value)]

use serde_json::{Map, Value, json};

use super::replay::{Action, Actor, Observations, Observed, PodActor, Seen};
use super::verdict::Verdict;
use super::{
    Endpoint, Flow, Labels, NetworkPolicy, NodeName, Object, ObjectKey, ParseError, Pod, PolicyRef,
    Port, Protocol, Snapshot, WorkloadKind, WorkloadRef, parse,
};

/// A snapshot, asked in texts.
///
/// An end of a flow is written `namespace/pod`, `Deployment:namespace/name`, `node:name`, or as an address.
#[derive(Clone, Default)]
pub(crate) struct Cluster(pub(crate) Snapshot);

impl Cluster {
    pub(crate) fn of(objects: impl IntoIterator<Item = Value>) -> Self {
        Self(objects.into_iter().map(|value| object(&value)).collect())
    }

    pub(crate) fn with(&self, value: &Value) -> Self {
        Self(self.0.with(object(value)))
    }

    pub(crate) fn without_policy(&self, namespace: &str, name: &str) -> Self {
        let policy = PolicyRef::new(namespace, name);
        Self(self.0.without(&ObjectKey::NetworkPolicy(policy)))
    }

    pub(crate) fn pod(&self, text: &str) -> &Pod {
        let (kind, place) = text.split_once(':').unwrap_or(("Pod", text));
        let (namespace, name) = place.split_once('/').expect("namespace/name");
        let mut kinds = WorkloadKind::ALL.into_iter();
        let workload = WorkloadRef {
            kind: kinds
                .find(|known| known.as_str() == kind)
                .expect("a workload kind"),
            namespace: namespace.into(),
            name: name.into(),
        };
        self.0.pod(&workload).expect("a pod of the cluster")
    }

    /// The verdict on a flow; `at` is `TCP 80`, and may end with `IPv4` or `IPv6`.
    pub(crate) fn verdict(&self, from: &str, to: &str, at: &str) -> Verdict {
        let nodes = [from, to].map(|text| NodeName::from(text.trim_start_matches("node:")));
        let end = |text: &str, node| match text.parse() {
            Ok(address) => Endpoint::External(address),
            Err(_) if text.starts_with("node:") => Endpoint::Node {
                name: node,
                address: None,
            },
            Err(_) => Endpoint::Pod(self.pod(text)),
        };
        let mut words = at.split(' ');
        let protocol = words
            .next()
            .and_then(Protocol::from_api)
            .expect("a protocol");
        let port = words.next().and_then(|word| word.parse().ok());
        let port = port.and_then(Port::new).expect("a port");
        let family = words.next().map(|word| match word {
            "IPv4" => super::Family::V4,
            "IPv6" => super::Family::V6,
            other => panic!("{other} is no family"),
        });
        self.0.verdict(&Flow {
            family,
            ..Flow::new(end(from, &nodes[0]), end(to, &nodes[1]), protocol, port)
        })
    }

    pub(crate) fn allows(&self, from: &str, to: &str, at: &str) -> bool {
        self.verdict(from, to, at).allowed()
    }

    /// Which of some flows to one pod are allowed.
    pub(crate) fn allows_from<const N: usize>(&self, from: [&str; N], to: &str) -> [bool; N] {
        from.map(|from| self.allows(from, to, "TCP 80"))
    }
}

pub(crate) fn object(value: &Value) -> Object {
    parse(value)
        .expect("valid")
        .expect("a kind of the model")
        .object
}

pub(crate) fn network_policy(value: &Value) -> NetworkPolicy {
    match object(value) {
        Object::NetworkPolicy(policy) => policy,
        other => panic!("not a policy: {other:?}"),
    }
}

/// The problems of an object that must have some, as `field: reason`.
pub(crate) fn problems(value: &Value) -> Vec<String> {
    let ParseError { problems } = parse(value).expect_err("not valid");
    problems.iter().map(ToString::to_string).collect()
}

/// Each of these objects has one problem, which begins so.
pub(crate) fn all_refused(cases: &[(Value, &str)]) {
    for (value, expected) in cases {
        let problems = problems(value);
        let is_told = problems.iter().any(|problem| problem.starts_with(expected));
        assert!(
            is_told && problems.len() == 1,
            "{problems:?} for {expected}"
        );
    }
}

/// The fields of these problems.
pub(crate) fn problem_fields(value: &Value) -> Vec<String> {
    let ParseError { problems } = parse(value).expect_err("not valid");
    problems
        .iter()
        .map(|problem| problem.field.to_string())
        .collect()
}

pub(crate) fn namespace(name: &str, labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

/// A running pod whose labels are written as `app=web,tier=front`, with some addresses.
pub(crate) fn pod<const N: usize>(place: &str, labels: &str, addresses: [&str; N]) -> Value {
    let (namespace, name) = place.split_once('/').expect("namespace/name");
    let addresses = addresses.map(|address| json!({"ip": address})).to_vec();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": texts(labels)},
        "spec": {"containers": [{"name": "main", "image": "main"}]},
        "status": {"phase": "Running", "podIPs": addresses},
    })
}

pub(crate) fn deployment(place: &str, labels: &str) -> Value {
    let (namespace, name) = place.split_once('/').expect("namespace/name");
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "selector": {"matchLabels": texts(labels)},
            "template": {
                "metadata": {"labels": texts(labels)},
                "spec": {"containers": [{"name": "main", "image": "main"}]},
            },
        },
    })
}

pub(crate) fn policy(place: &str, spec: Value) -> Value {
    let (namespace, name) = place.split_once('/').expect("namespace/name");
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": name},
        "spec": spec,
    })
}

/// A policy on trial, in stage `Shadow` where the spec says nothing.
pub(crate) fn staged(place: &str, spec: Value) -> Value {
    let mut manifest = policy(place, spec);
    manifest["apiVersion"] = json!("ringfence.dev/v1alpha1");
    manifest["kind"] = json!("StagedNetworkPolicy");
    manifest
}

/// A policy of a tier for all pods, with some rules for egress.
pub(crate) fn wide(name: &str, tier: &str, priority: i32, egress: Value) -> Value {
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name},
        "spec": {
            "tier": tier, "priority": priority, "subject": {"namespaces": {}}, "egress": egress
        },
    })
}

/// The value with a patch merged into it (RFC 7386).
pub(crate) fn patched(mut value: Value, patch: Value) -> Value {
    merge(&mut value, patch);
    value
}

fn merge(value: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *value = patch;
        return;
    };
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    for (key, patch) in patch {
        if patch.is_null() {
            value.as_object_mut().expect("an object").remove(&key);
        } else {
            merge(&mut value[&key], patch);
        }
    }
}

fn texts(labels: &str) -> Value {
    let pairs = labels.split(',').filter(|pair| !pair.is_empty());
    let labels: Labels = pairs
        .map(|pair| pair.split_once('=').expect("key=value"))
        .collect();
    json!(labels)
}

/// A pod as a record tells of it: `namespace/name`, with labels where they are given.
pub(crate) fn actor(text: &str, labels: Option<&[(&str, &str)]>) -> Actor {
    let (namespace, name) = text.split_once('/').expect("namespace/name");
    Actor::Pod(PodActor {
        namespace_labels: None,
        namespace: namespace.into(),
        name: Some(name.into()),
        workload: None,
        labels: labels.map(|labels| labels.iter().copied().collect::<Labels>()),
        address: None,
        node: None,
    })
}

/// Records of flows over TCP: from whom, to whom, at which port, what became of them, and how often.
pub(crate) fn observe(flows: &[(Actor, Actor, u16, Action, u64)]) -> Observations {
    let mut observations = Observations::default();
    for (from, to, port, action, count) in flows {
        let observed = Observed {
            from: observations.actor(from.clone()),
            to: observations.actor(to.clone()),
            protocol: Protocol::Tcp,
            port: Port::new(*port).expect("a port"),
        };
        observations.add(observed, Seen::Somewhere, *action, *count);
    }
    observations
}
