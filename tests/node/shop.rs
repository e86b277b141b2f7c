//! A few real pods: a Deployment with probes of both kinds, its Service, and who asks it.

use serde_json::{Value, json};

use crate::image::BUSYBOX;
use crate::machine::Machine;

/// Where the pods are.
pub(crate) const SHOP: &str = "shop";
/// The port that the pods of the Deployment listen at.
pub(crate) const PORT: u16 = 8080;
/// The port at which nothing that is held to the policies may be heard.
pub(crate) const DROP: u16 = 9999;

/// Pods that are Ready.
pub(crate) struct Shop<'m> {
    machine: &'m Machine,
    /// The Service's address.
    pub(crate) service: String,
}

// === impl Shop ===

impl<'m> Shop<'m> {
    /// A Deployment `web` of two pods with a Service, and the pods `client` and `other`.
    pub(crate) fn open(machine: &'m Machine) -> Self {
        machine.kubernetes.apply(&namespace(SHOP).to_string());
        for manifest in manifests() {
            machine.kubernetes.apply(&manifest.to_string());
        }
        Self::opened(machine)
    }

    /// The same of what was applied already.
    pub(crate) fn opened(machine: &'m Machine) -> Self {
        machine.kubectl(&[
            "rollout",
            "status",
            "-n",
            SHOP,
            "deployment/web",
            "--timeout=120s",
        ]);
        ready(machine, SHOP, "client");
        ready(machine, SHOP, "other");
        let address = "jsonpath={.spec.clusterIP}";
        let service = machine.kubectl(&["get", "service", "-n", SHOP, "web", "-o", address]);
        Self { machine, service }
    }

    /// The addresses of the Deployment's pods.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let addresses = "jsonpath={.items[*].status.podIP}";
        let arguments = ["get", "pods", "-n", SHOP, "-l", "app=web", "-o", addresses];
        let said = self.machine.kubectl(&arguments);
        said.split_whitespace().map(str::to_owned).collect()
    }

    /// Whether a pod is answered at an address.
    pub(crate) fn is_answered(&self, pod: &str, address: &str, port: u16) -> bool {
        let ask = format!("{}; exit 0", asking(address, port));
        let arguments = ["exec", "-n", SHOP, pod, "--", "/bin/sh", "-c", &ask];
        self.machine.kubectl(&arguments).contains("hello")
    }

    /// Whether a pod is answered by the Service and by each pod behind it; None where these differ.
    pub(crate) fn reaches(&self, pod: &str) -> Option<bool> {
        let direct = self.addresses();
        let mut all = direct
            .iter()
            .map(|address| self.is_answered(pod, address, PORT));
        let by_service = self.is_answered(pod, &self.service, 80);
        all.all(|direct| direct == by_service).then_some(by_service)
    }

    /// Waits until a pod is answered, or is not.
    pub(crate) async fn becomes(&self, pod: &str, wanted: bool) {
        let what = format!("{pod} is answered: {wanted}");
        let reaches = async || self.reaches(pod) == Some(wanted);
        self.machine.until(&what, reaches).await;
    }

    /// How often the kubelet started containers of the Deployment again, and how many of its pods are Ready.
    pub(crate) fn health(&self) -> (usize, usize) {
        let of = |path: &str| {
            let path = format!("jsonpath={{.items[*].status.containerStatuses[*].{path}}}");
            self.machine
                .kubectl(&["get", "pods", "-n", SHOP, "-l", "app=web", "-o", &path])
        };
        let restarts = of("restartCount");
        let restarts = restarts
            .split_whitespace()
            .map(|count| count.parse::<usize>().unwrap());
        let ready = of("ready");
        (
            restarts.sum(),
            ready.split_whitespace().filter(|it| *it == "true").count(),
        )
    }

    /// Nobody may send or receive anything.
    pub(crate) fn deny_all(&self) {
        self.machine.kubernetes.apply(&deny_all().to_string());
    }

    /// The client may ask the Deployment.
    pub(crate) fn allow(&self) {
        for policy in allow() {
            self.machine.kubernetes.apply(&policy.to_string());
        }
    }
}

/// All of a shop but its namespace and its policies.
pub(crate) fn manifests() -> Vec<Value> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": SHOP},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
    });
    let sleep = ["/bin/sleep", "100000"];
    let [client, other] = ["client", "other"].map(|name| pod(SHOP, name, &sleep));
    vec![deployment(SHOP, "web", 2), service, client, other]
}

/// A policy by which nobody may send or receive anything.
pub(crate) fn deny_all() -> Value {
    let spec = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
    policy("default-deny", &spec)
}

/// Policies by which the client may ask the Deployment.
pub(crate) fn allow() -> [Value; 2] {
    let of = |name: &str| json!({"podSelector": {"matchLabels": {"app": name}}});
    let select = |name: &str| of(name)["podSelector"].clone();
    let egress = json!({
        "podSelector": select("client"), "policyTypes": ["Egress"],
        "egress": [{"to": [of("web")], "ports": [{"port": PORT}]}],
    });
    let ingress = json!({
        "podSelector": select("web"), "policyTypes": ["Ingress"],
        "ingress": [{"from": [of("client")], "ports": [{"port": "http"}]}],
    });
    [
        policy("client-to-web", &egress),
        policy("web-from-client", &ingress),
    ]
}

fn policy(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": SHOP}, "spec": spec,
    })
}

/// A Deployment whose pods answer at [`PORT`], with probes of both kinds.
pub(crate) fn deployment(namespace: &str, name: &str, replicas: u8) -> Value {
    let container = json!({
        "name": "web", "image": BUSYBOX,
        "command": ["/bin/httpd", "-f", "-p", PORT.to_string(), "-h", "/www"],
        "ports": [{"name": "http", "containerPort": PORT}],
        "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1, "failureThreshold": 2},
        "livenessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 1, "failureThreshold": 3},
    });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": spec(&container)},
        },
    })
}

/// A line of shell that asks a server of HTTP and prints what it says, within seconds, whatever becomes of the server.
pub(crate) fn asking(address: &str, port: u16) -> String {
    format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 3 nc -w 1 {address} {port} 2>&1")
}

/// A line of shell that opens connections and sends echoes for as long as it runs, without waiting for any.
pub(crate) fn sprint(addresses: &[&str]) -> String {
    let all = |line: fn(&str) -> String| addresses.iter().map(|it| line(it)).collect::<String>();
    let echoes = all(|address| format!("ping -i 0.01 {address} >/dev/null 2>&1 & "));
    let opens =
        all(|address| format!("timeout 1 nc {address} {DROP} </dev/null >/dev/null 2>&1 & "));
    format!("{echoes} while :; do {opens} i=$((i+1)); [ $i = 100 ] && echo sent; usleep 5000; done")
}

/// A namespace.
pub(crate) fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// A pod of one container, labelled by its name.
pub(crate) fn pod(namespace: &str, name: &str, command: &[&str]) -> Value {
    let container = json!({"name": "main", "image": BUSYBOX, "command": command});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": spec(&container),
    })
}

/// Waits until a pod is Ready.
pub(crate) fn ready(machine: &Machine, namespace: &str, name: &str) {
    let pod = format!("pod/{name}");
    machine.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "-n",
        namespace,
        &pod,
        "--timeout=120s",
    ]);
}

fn spec(container: &Value) -> Value {
    json!({
        "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0, "containers": [container],
    })
}
