//! Several nodes with an agent each, pods in two namespaces, and a real API server that knows of them.

use std::collections::BTreeMap;
use std::process::Command;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Place};
use crate::kubernetes::Kubernetes;
use crate::process::Process;

/// Nodes `n0`, `n1` and so on, and what the API server says of them.
pub(crate) struct Site {
    pub(crate) kubernetes: Kubernetes,
    pub(crate) client: Client,
    pub(crate) cluster: Cluster,
}

/// A pod's object: where it is, and what it is called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named<'n> {
    pub(crate) namespace: &'n str,
    pub(crate) name: &'n str,
    pub(crate) app: &'n str,
}

// === impl Site ===

impl Site {
    /// Nodes without agents, and places for pods on them, of which the API server does not know yet.
    pub(crate) async fn new(nodes: usize, places: &[(&str, usize)], namespaces: &[&str]) -> Self {
        let kubernetes = Kubernetes::start().await;
        let printed = Command::new(env!("CARGO_BIN_EXE_ringfence"))
            .arg("crds")
            .output()
            .unwrap();
        kubernetes.apply(&String::from_utf8(printed.stdout).unwrap());
        let client = kubernetes.client().await;
        let mut cluster = Cluster::new(nodes);
        cluster.add(places);
        for node in 0..nodes {
            cluster.let_in(node, kubernetes.address());
        }
        for namespace in namespaces {
            // What the controller manager would make, too.
            kubernetes.apply(&format!(
                "{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}\n---\n\
                 {{apiVersion: v1, kind: ServiceAccount, metadata: {{name: default, namespace: {namespace}}}}}"
            ));
        }
        let this = Self {
            kubernetes,
            client,
            cluster,
        };
        for node in 0..nodes {
            this.node(node).await;
        }
        this
    }

    /// A node object with the addresses of its place.
    async fn node(&self, number: usize) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let name = format!("n{number}");
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        let node = serde_json::from_value(node).unwrap();
        nodes.create(&PostParams::default(), &node).await.unwrap();
        let place = self.cluster.node(number);
        let addresses = [place.address(false), place.address(true)];
        let addresses = addresses.map(|address| json!({"type": "InternalIP", "address": address}));
        let status = json!({"status": {"addresses": addresses}});
        let params = PatchParams::default();
        nodes
            .patch_status(&name, &params, &Patch::Merge(&status))
            .await
            .unwrap();
    }

    /// Starts a node's agent and waits until its rules are there.
    pub(crate) async fn agent(&self, number: usize) -> Process {
        self.agent_with(number, &[]).await
    }

    /// The same with more arguments.
    pub(crate) async fn agent_with(&self, number: usize, more: &[&str]) -> Process {
        let name = format!("n{number}");
        let mut command = Command::new("nsenter");
        let node = &self.cluster.node(number).namespace;
        command
            .arg(format!("--net={}", node.path().display()))
            .arg(env!("CARGO_BIN_EXE_ringfence"))
            .args(["agent", "--node-name", &name, "--kubeconfig"])
            .arg(self.kubernetes.kubeconfig())
            .arg("--cni-conf-dir")
            .arg(self.kubernetes.folder())
            .args(more);
        let agent = Process::start(
            &format!("agent-{name}"),
            self.kubernetes.folder(),
            &mut command,
        );
        agent.line(&["the table is made"]).await;
        agent
    }

    /// Makes a pod's object, as the scheduler leaves it.
    pub(crate) async fn schedule(&self, pod: Named<'_>, node: usize) -> Value {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), pod.namespace);
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": pod.name, "labels": {"app": pod.app}},
            "spec": {
                "nodeName": format!("n{node}"), "automountServiceAccountToken": false,
                "containers": [{"name": "main", "image": "main", "ports": [
                    {"name": "web", "containerPort": 8080}, {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                ]}],
            },
        });
        let object = serde_json::from_value(object).unwrap();
        value(&pods.create(&PostParams::default(), &object).await.unwrap())
    }

    /// Says that a pod runs and has the addresses of a place.
    pub(crate) async fn running(&self, pod: Named<'_>, place: &Place) -> Value {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), pod.namespace);
        let addresses = [json!({"ip": place.v4}), json!({"ip": place.v6})];
        let status =
            json!({"status": {"phase": "Running", "podIP": place.v4, "podIPs": addresses}});
        let params = PatchParams::default();
        let patch = Patch::Merge(&status);
        value(&pods.patch_status(pod.name, &params, &patch).await.unwrap())
    }

    /// Labels a pod by another name of an application.
    pub(crate) async fn relabel(&self, pod: Named<'_>) -> Value {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), pod.namespace);
        let labels = json!({"metadata": {"labels": {"app": pod.app}}});
        let params = PatchParams::default();
        let patch = Patch::Merge(&labels);
        value(&pods.patch(pod.name, &params, &patch).await.unwrap())
    }

    /// Takes a pod's object away at once.
    pub(crate) async fn delete(&self, pod: Named<'_>) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), pod.namespace);
        let now = DeleteParams::default().grace_period(0);
        pods.delete(pod.name, &now).await.unwrap();
    }

    /// Labels a namespace.
    pub(crate) async fn label(&self, namespace: &str, labels: &BTreeMap<&str, &str>) -> Value {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let labels = json!({"metadata": {"labels": labels}});
        let params = PatchParams::default();
        let patch = Patch::Merge(&labels);
        value(&namespaces.patch(namespace, &params, &patch).await.unwrap())
    }

    /// Makes a policy, or makes it another one.
    pub(crate) async fn policy(&self, namespace: &str, name: &str, spec: &Value) -> Value {
        let policies: Api<NetworkPolicy> = Api::namespaced(self.client.clone(), namespace);
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": namespace}, "spec": spec,
        });
        let params = PatchParams::apply("packets").force();
        value(
            &policies
                .patch(name, &params, &Patch::Apply(&policy))
                .await
                .unwrap(),
        )
    }

    /// Takes a policy away.
    pub(crate) async fn without_policy(&self, namespace: &str, name: &str) {
        let policies: Api<NetworkPolicy> = Api::namespaced(self.client.clone(), namespace);
        policies
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
    }
}

fn value(object: &impl Serialize) -> Value {
    serde_json::to_value(object).unwrap()
}
