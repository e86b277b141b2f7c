//! Several nodes with an agent each, pods in two namespaces, and a real API server that knows of them.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use axum::http::Request;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams,
};
use kube::{Api, Client};
use serde::Serialize;
use serde_json::{Value, json};

use crate::agent::definition;
use crate::cluster::{Cluster, Place};
use crate::kubernetes::Kubernetes;
use crate::process::Process;

/// Nodes `n0`, `n1` and so on, and what the API server says of them.
pub(crate) struct Site {
    pub(crate) kubernetes: Kubernetes,
    pub(crate) client: Client,
    pub(crate) cluster: Cluster,
}

/// How long the API server may take to hear of a namespace.
const HEARD: Duration = Duration::from_secs(5);

/// A pod's object: where it is, and what it is called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named<'n> {
    pub(crate) namespace: &'n str,
    pub(crate) name: &'n str,
    pub(crate) app: &'n str,
}

/// The kinds of policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Network,
    Staged,
    Cluster,
}

/// A policy's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Written {
    pub(crate) kind: Kind,
    pub(crate) namespace: Option<&'static str>,
    pub(crate) name: String,
}

// === impl Kind ===

impl Kind {
    /// How the API server has it.
    pub(crate) fn resource(self) -> ApiResource {
        let (group, version, kind) = match self {
            Self::Network => ("networking.k8s.io", "v1", "NetworkPolicy"),
            Self::Staged => ("ringfence.dev", "v1alpha1", "StagedNetworkPolicy"),
            Self::Cluster => (
                "policy.networking.k8s.io",
                "v1alpha2",
                "ClusterNetworkPolicy",
            ),
        };
        let plural = format!("{}ies", kind.to_lowercase().trim_end_matches('y'));
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), &plural)
    }
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
        let this = Self {
            kubernetes,
            client,
            cluster,
        };
        for name in namespaces {
            this.namespace(name, &BTreeMap::new()).await;
            this.account(name).await;
        }
        for node in 0..nodes {
            this.node(node).await;
        }
        this
    }

    /// Has the API server know policies of the cluster.
    pub(crate) fn know_cluster_policies(&self) {
        let kind = definition("ClusterNetworkPolicy", "clusternetworkpolicies", "v1alpha2");
        self.kubernetes.apply(&kind.to_string());
        let wait = ["wait", "--for=condition=Established", "crd", "--all"];
        let established = self.kubernetes.kubectl(&wait, "");
        assert!(established.status.success(), "{established:?}");
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
        let params = PostParams::default();
        let begun = Instant::now();
        loop {
            match pods.create(&params, &object).await {
                // The API server itself hears of a namespace that has come again a moment later.
                Err(kube::Error::Api(status))
                    if status.is_forbidden() && begun.elapsed() < HEARD =>
                {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                made => return value(&made.unwrap()),
            }
        }
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

    /// Makes a policy of any kind, or makes it another one.
    pub(crate) async fn write(&self, policy: &Written, spec: &Value) -> Value {
        let kind = policy.kind.resource();
        let mut object = json!({
            "apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": policy.name}, "spec": spec,
        });
        if let Some(namespace) = policy.namespace {
            object["metadata"]["namespace"] = json!(namespace);
        }
        let params = PatchParams::apply("packets").force();
        let patch = Patch::Apply(&object);
        let policies = self.policies(policy);
        let written = policies.patch(&policy.name, &params, &patch).await;
        value(&written.unwrap())
    }

    /// Takes a policy of any kind away.
    pub(crate) async fn take_away(&self, policy: &Written) {
        let params = DeleteParams::default();
        self.policies(policy)
            .delete(&policy.name, &params)
            .await
            .unwrap();
    }

    fn policies(&self, policy: &Written) -> Api<DynamicObject> {
        let (client, kind) = (self.client.clone(), policy.kind.resource());
        match policy.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &kind),
            None => Api::all_with(client, &kind),
        }
    }

    /// Takes a namespace away in which nothing is left, as the controller manager would.
    pub(crate) async fn without_namespace(&self, name: &str) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let params = DeleteParams::default();
        namespaces.delete(name, &params).await.unwrap();
        let mut object = value(&namespaces.get(name).await.unwrap());
        object["spec"]["finalizers"] = json!([]);
        let finalize = Request::put(format!("/api/v1/namespaces/{name}/finalize"))
            .header("content-type", "application/json")
            .body(object.to_string().into_bytes())
            .unwrap();
        self.client.request_text(finalize).await.unwrap();
    }

    /// Makes the account that the controller manager would make in a namespace; it stays where only the namespace goes.
    async fn account(&self, name: &str) {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), name);
        let account = json!({"metadata": {"name": "default", "namespace": name}});
        let account = serde_json::from_value(account).unwrap();
        accounts
            .create(&PostParams::default(), &account)
            .await
            .unwrap();
    }

    /// Makes a namespace.
    pub(crate) async fn namespace(&self, name: &str, labels: &BTreeMap<&str, &str>) -> Value {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let object = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels},
        });
        let object = serde_json::from_value(object).unwrap();
        let params = PostParams::default();
        let made = namespaces.create(&params, &object).await.unwrap();
        value(&made)
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
}

fn value(object: &impl Serialize) -> Value {
    serde_json::to_value(object).unwrap()
}
