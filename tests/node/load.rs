//! A large cluster around the node: nodes, pods and policies that only the API server knows. No kubelet looks after them.

use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use crate::machine::Machine;
use crate::shop::namespace;

/// How many pods a node has.
pub(crate) const EACH: usize = 110;
const NAMESPACES: usize = 20;
/// How many requests are in flight.
const AT_ONCE: usize = 16;

/// The name of a node that is not there.
pub(crate) fn node(number: usize) -> String {
    format!("elsewhere-{number}")
}

fn space(number: usize) -> String {
    format!("load-{}", number % NAMESPACES)
}

/// Makes pods with numbers of a range, 110 to a node, in 20 namespaces, each running as one of 50 applications.
pub(crate) async fn pods(machine: &Machine, numbers: std::ops::Range<usize>) -> Duration {
    let begun = Instant::now();
    let client = machine.kubernetes.client().await;
    if numbers.start == 0 {
        for number in 0..NAMESPACES {
            let name = space(number);
            machine.kubernetes.apply(&namespace(&name).to_string());
            let account = json!({
                "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name},
            });
            machine.kubernetes.apply(&account.to_string());
        }
    }
    let nodes: Api<Node> = Api::all(client.clone());
    for number in numbers.start.div_ceil(EACH)..numbers.end.div_ceil(EACH) {
        let object =
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node(number)}});
        let object = serde_json::from_value(object).unwrap();
        nodes.create(&PostParams::default(), &object).await.unwrap();
    }
    let made = stream::iter(numbers).map(|number| pod(client.clone(), number));
    made.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    begun.elapsed()
}

async fn pod(client: Client, number: usize) {
    let pods: Api<Pod> = Api::namespaced(client, &space(number));
    let name = format!("pod-{number}");
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": format!("app-{}", number % 50), "tier": "any"}},
        "spec": {
            "nodeName": node(number / EACH), "automountServiceAccountToken": false,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "main", "image": "main", "ports": [{"name": "web", "containerPort": 8080}]}],
        },
    });
    let object = serde_json::from_value(object).unwrap();
    pods.create(&PostParams::default(), &object).await.unwrap();
    let address = format!(
        "10.{}.{}.{}",
        100 + number / 60_000,
        number / 250 % 240,
        1 + number % 250
    );
    let status =
        json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}});
    let params = PatchParams::default();
    pods.patch_status(&name, &params, &Patch::Merge(&status))
        .await
        .unwrap();
}

/// Makes so many policies: each lets one application of its namespace be asked by another one.
pub(crate) async fn policies(machine: &Machine, count: usize) {
    let client = machine.kubernetes.client().await;
    for number in 0..count {
        let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), &space(number));
        let of = |number: usize| json!({"matchLabels": {"app": format!("app-{}", number % 50)}});
        let object = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": format!("policy-{number}")},
            "spec": {
                "podSelector": of(number / NAMESPACES), "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"podSelector": of(number / NAMESPACES + 1)}], "ports": [{"port": "web"}]}],
            },
        });
        let object = serde_json::from_value(object).unwrap();
        policies
            .create(&PostParams::default(), &object)
            .await
            .unwrap();
    }
}
