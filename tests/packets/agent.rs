//! The agent itself, as a process in a node's namespace, with a real API server: from `kubectl apply` to the packet.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::cluster::{Cluster, Place};
use crate::connection::{Connection, Exchange, Side};
use crate::kubernetes::Kubernetes;
use crate::probe::{Outcome, Transport, ask_one};
use crate::process::Process;
use crate::roles::{granted, kubeconfig, used};

mod upkeep;

/// A node, pods on it, an API server that knows of them, and an agent.
struct Site {
    kubernetes: Kubernetes,
    client: Client,
    cluster: Cluster,
    /// Breaks the connections with the API server.
    broken: Arc<Notify>,
    agent: Option<Process>,
    /// The node's network plugins and their configuration.
    cni: tempfile::TempDir,
}

const NODE: &str = "n1";
/// The agent's own namespace and account.
const ACCOUNT: &str = "ringfence-agent";
const NAMESPACE: &str = "shop";
/// How long a change may take until packets show it: an API server on a busy machine, and the agent.
const PATIENCE: Duration = Duration::from_secs(10);

impl Site {
    async fn new(pods: &[&str]) -> Self {
        let kubernetes = Kubernetes::start().await;
        let printed = Command::new(env!("CARGO_BIN_EXE_ringfence"))
            .arg("crds")
            .output()
            .unwrap();
        kubernetes.apply(&String::from_utf8(printed.stdout).unwrap());
        let client = kubernetes.client().await;
        let mut cluster = Cluster::new(1);
        let placed: Vec<(&str, usize)> = pods.iter().map(|name| (*name, 0)).collect();
        cluster.add(&placed);
        let server = kubernetes.address();
        let broken = cluster.let_in(0, server);
        let this = Self {
            kubernetes,
            client,
            cluster,
            broken,
            agent: None,
            cni: tempfile::tempdir().unwrap(),
        };
        for folder in ["net.d", "bin"] {
            std::fs::create_dir(this.cni.path().join(folder)).unwrap();
        }
        this.configure("10-pods.conflist", "bridge");
        // What the controller manager would make, too.
        this.kubernetes.apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {NAMESPACE}}}}}\n---\n\
             {{apiVersion: v1, kind: ServiceAccount, metadata: {{name: default, namespace: {NAMESPACE}}}}}"
        ));
        this.node().await;
        for name in pods {
            this.pod(name).await;
        }
        this
    }

    /// A node object with the addresses of the namespace.
    async fn node(&self) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}});
        let node = serde_json::from_value(node).unwrap();
        nodes.create(&PostParams::default(), &node).await.unwrap();
        let place = self.cluster.node(0);
        let addresses = [place.address(false), place.address(true)];
        let addresses = addresses.map(|address| json!({"type": "InternalIP", "address": address}));
        let status = json!({"status": {"addresses": addresses}});
        let params = PatchParams::default();
        nodes
            .patch_status(NODE, &params, &Patch::Merge(&status))
            .await
            .unwrap();
    }

    /// A pod object with the addresses of its namespace, labelled by its name.
    async fn pod(&self, name: &str) {
        self.pod_without_address(name, name).await;
        let place = &self.cluster.pod(name).place;
        let addresses = [json!({"ip": place.v4}), json!({"ip": place.v6})];
        let status =
            json!({"status": {"phase": "Running", "podIP": place.v4, "podIPs": addresses}});
        let params = PatchParams::default();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        pods.patch_status(name, &params, &Patch::Merge(&status))
            .await
            .unwrap();
    }

    /// A pod object as the scheduler leaves it; gives its identity.
    async fn pod_without_address(&self, name: &str, label: &str) -> String {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": label}},
            "spec": {
                "nodeName": NODE, "automountServiceAccountToken": false,
                "containers": [{"name": "main", "image": "main"}],
            },
        });
        let pod = serde_json::from_value(pod).unwrap();
        let made = pods.create(&PostParams::default(), &pod).await.unwrap();
        made.metadata.uid.unwrap()
    }

    fn socket(&self) -> PathBuf {
        self.cni.path().join("run/cni.sock")
    }

    /// Calls the plugin as the container runtime does after the plugins before it; whether the pod may go on.
    fn plugin(&self, command: &str, pod: &str, uid: &str, place: &Place) -> Result<(), String> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ringfence"))
            .arg("cni")
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", format!("sandbox-{uid}"))
            .env("CNI_NETNS", place.namespace.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", self.cni.path().join("bin"))
            .env(
                "CNI_ARGS",
                format!("K8S_POD_NAMESPACE={NAMESPACE};K8S_POD_NAME={pod};K8S_POD_UID={uid}"),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let config = json!({
            "cniVersion": "1.0.0", "name": "pods", "type": "ringfence-cni",
            "agentSocket": self.socket(), "whenAgentIsDown": "fail", "timeoutSeconds": 10,
            "prevResult": {"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "sandbox": "x"}], "ips": [
                {"address": format!("{}/24", place.v4), "interface": 0},
                {"address": format!("{}/64", place.v6), "interface": 0},
            ]},
        });
        serde_json::to_writer(child.stdin.take().unwrap(), &config).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(()).ok_or(said)
    }

    /// What another command says in the node.
    fn ringfence(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence"));
        command.args(arguments);
        let node = &self.cluster.node(0).namespace;
        let output = node.inside(|| command.output()).unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Configures a network plugin of the node.
    fn configure(&self, file: &str, kind: &str) {
        let list = json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": kind}]});
        let path = self.cni.path().join("net.d").join(file);
        std::fs::write(path, list.to_string()).unwrap();
    }

    /// Starts the agent in the node, and waits until its rules are there.
    async fn start(&mut self) {
        let agent = self.run("agent", &["--node-name", NODE]);
        agent.line(&["the table is made"]).await;
        self.agent = Some(agent);
    }

    fn run(&self, name: &str, arguments: &[&str]) -> Process {
        self.run_as(&self.kubernetes.kubeconfig(), name, arguments)
    }

    fn run_as(&self, kubeconfig: &Path, name: &str, arguments: &[&str]) -> Process {
        let mut command = Command::new("nsenter");
        let node = &self.cluster.node(0).namespace;
        command
            .arg(format!("--net={}", node.path().display()))
            .arg(env!("CARGO_BIN_EXE_ringfence"))
            .args(["agent", "--kubeconfig"])
            .arg(kubeconfig)
            .arg("--cni-conf-dir")
            .arg(self.cni.path().join("net.d"))
            .arg("--cni-bin-dir")
            .arg(self.cni.path().join("bin"))
            .arg("--cni-socket")
            .arg(self.socket())
            .args(arguments);
        Process::start(name, self.kubernetes.folder(), &mut command)
    }

    fn agent(&self) -> &Process {
        self.agent.as_ref().unwrap()
    }

    fn place(&self, name: &str) -> &Place {
        &self.cluster.pod(name).place
    }

    fn outcome(&self, from: &str, to: &str, v6: bool, port: u16) -> Outcome {
        ask_one(
            self.place(from),
            self.place(to).at(v6, port),
            Transport::Tcp,
        )
    }

    /// Waits until a connection has this outcome over both families.
    fn becomes(&self, from: &str, to: &str, port: u16, wanted: Outcome) -> Duration {
        let begun = Instant::now();
        for v6 in [false, true] {
            loop {
                let outcome = self.outcome(from, to, v6, port);
                if outcome == wanted {
                    break;
                }
                assert!(
                    begun.elapsed() < PATIENCE,
                    "{from} -> {to} {port}: {outcome:?}, not {wanted:?}\n{}\n{}",
                    self.agent().log(),
                    self.rules()
                );
            }
        }
        begun.elapsed()
    }

    fn policy(&self, name: &str, spec: &Value) {
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec,
        });
        self.kubernetes.apply(&policy.to_string());
    }

    fn without_policy(&self, name: &str) {
        let output = self
            .kubernetes
            .kubectl(&["delete", "networkpolicy", name, "-n", NAMESPACE], "");
        assert!(output.status.success());
    }

    fn receipt(&self) -> Option<Value> {
        let get = ["get", "nodeenforcement", NODE, "-o", "json"];
        serde_json::from_slice(&self.kubernetes.kubectl(&get, "").stdout).ok()
    }

    /// Waits until the receipt's condition has this status, and this in its message.
    async fn says(&self, status: &str, word: &str) {
        Kubernetes::eventually(word, async || {
            let receipt = self.receipt()?;
            // It is made before it says anything.
            let condition = &receipt["status"]["conditions"][0];
            let message = condition["message"].as_str()?;
            (condition["status"] == status && message.contains(word)).then_some(())
        })
        .await;
    }

    /// The table as `nft` shows it; nothing where there is none.
    fn rules(&self) -> String {
        let node = &self.cluster.node(0).namespace;
        let list = || {
            Command::new("nft")
                .args(["list", "table", "inet", "ringfence"])
                .output()
        };
        let output = node.inside(list).unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

/// The agent's own role and account among it.
fn install(kubernetes: &Kubernetes) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/agent");
    let apply = ["apply", "--server-side", "--force-conflicts", "-k", folder];
    let applied = kubernetes.kubectl(&apply, "");
    let said = String::from_utf8_lossy(&applied.stderr);
    assert!(applied.status.success(), "{said}");
}

fn deny_all() -> Value {
    json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})
}

/// Lets one pod reach another one, at both ends.
fn allow(from: &str, to: &str, port: u16) -> [(String, Value); 2] {
    let of = |name: &str| json!({"matchLabels": {"app": name}});
    let ports = json!([{"port": port}]);
    [
        (
            format!("to-{to}"),
            json!({"podSelector": of(from), "policyTypes": ["Egress"],
                "egress": [{"to": [{"podSelector": of(to)}], "ports": ports}]}),
        ),
        (
            format!("from-{from}"),
            json!({"podSelector": of(to), "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"podSelector": of(from)}], "ports": ports}]}),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_hold_from_apply_to_packet_through_kills_and_flushes() {
    let mut site = Site::new(&["web", "db", "other"]).await;
    site.cluster.serve_all(&[80, 5432]);
    site.start().await;
    site.becomes("web", "db", 5432, Outcome::Answered);

    site.policy("default-deny", &deny_all());
    site.becomes("web", "db", 5432, Outcome::Silent);
    for (name, spec) in allow("web", "db", 5432) {
        site.policy(&name, &spec);
    }
    site.becomes("web", "db", 5432, Outcome::Answered);
    assert_eq!(site.outcome("other", "db", false, 5432), Outcome::Silent);
    assert_eq!(site.outcome("web", "db", true, 80), Outcome::Silent);
    let node = site.cluster.node(0);
    for v6 in [false, true] {
        let probe = ask_one(node, site.place("db").at(v6, 80), Transport::Tcp);
        assert_eq!(probe, Outcome::Answered, "the node to its own pods");
    }

    // Labels decide, also while a pod runs.
    let pods: Api<Pod> = Api::namespaced(site.client.clone(), NAMESPACE);
    let label = json!({"metadata": {"labels": {"app": "web"}}});
    pods.patch("other", &PatchParams::default(), &Patch::Merge(&label))
        .await
        .unwrap();
    site.becomes("other", "db", 5432, Outcome::Answered);
    let label = json!({"metadata": {"labels": {"app": "other"}}});
    pods.patch("other", &PatchParams::default(), &Patch::Merge(&label))
        .await
        .unwrap();
    site.becomes("other", "db", 5432, Outcome::Silent);

    // The rules outlive the agent, and the next one takes over what has changed meanwhile.
    site.agent().signal("KILL");
    site.without_policy("to-db");
    assert_eq!(site.outcome("web", "db", false, 5432), Outcome::Answered);
    assert_eq!(site.outcome("other", "db", false, 5432), Outcome::Silent);
    site.start().await;
    site.becomes("web", "db", 5432, Outcome::Silent);
    for (name, spec) in allow("web", "db", 5432) {
        site.policy(&name, &spec);
    }
    site.becomes("web", "db", 5432, Outcome::Answered);

    // An administrator's flush, and a rule that somebody slips in.
    site.cluster.node(0).namespace.nft("flush ruleset\n");
    let begun = Instant::now();
    site.becomes("other", "db", 5432, Outcome::Silent);
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    site.becomes("web", "db", 5432, Outcome::Answered);
    site.cluster
        .node(0)
        .namespace
        .nft("insert rule inet ringfence forward accept\n");
    let begun = Instant::now();
    site.becomes("other", "db", 5432, Outcome::Silent);
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );

    // Nothing is left when it is told so. A receipt is written seconds after the rules are read back.
    Kubernetes::eventually("a receipt", async || site.receipt()).await;
    site.agent().signal("TERM");
    site.agent().line(&["the rules stay"]).await;
    assert!(site.rules().contains("chain forward"));
    let cleanup = site.run("cleanup", &["--cleanup", "--node-name", NODE]);
    cleanup.line(&["the receipt says so"]).await;
    assert_eq!(site.rules(), "");
    let receipt = site.receipt().unwrap();
    let condition = &receipt["status"]["conditions"][0];
    assert_eq!(condition["status"], "False", "{receipt}");
    assert!(receipt["status"]["policies"].is_null(), "{receipt}");
    assert_eq!(site.outcome("other", "db", false, 5432), Outcome::Answered);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_says_what_the_kernel_was_read_back_to_hold() {
    let mut site = Site::new(&["web"]).await;
    site.start().await;
    let first = Kubernetes::eventually("a receipt", async || {
        site.receipt()
            .filter(|it| it["status"]["conditions"][0]["status"] == "True")
    })
    .await;
    assert_eq!(first["status"]["pods"], 1);
    assert_eq!(first["status"]["policies"], Value::Null);

    site.policy("default-deny", &deny_all());
    let held = |generation: i64| json!([{"namespace": NAMESPACE, "name": "default-deny", "generation": generation}]);
    let seen = async |generation| {
        Kubernetes::eventually("the policy in the receipt", async || {
            site.receipt()
                .filter(|it| it["status"]["policies"] == held(generation))
        })
        .await
    };
    let second = seen(1).await;
    assert_ne!(first["status"]["digest"], second["status"]["digest"]);
    // The same digest is known without the node.
    let all = [
        "get",
        "namespaces,pods,nodes,networkpolicies",
        "-A",
        "-o",
        "json",
    ];
    let cluster = site.kubernetes.kubectl(&all, "").stdout;
    let file = site.cni.path().join("cluster.json");
    std::fs::write(&file, cluster).unwrap();
    let offline = [
        "ruleset",
        file.to_str().unwrap(),
        "--node",
        NODE,
        "--output",
        "digest",
    ];
    assert_eq!(site.ringfence(&offline).trim(), second["status"]["digest"]);
    site.policy(
        "default-deny",
        &json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
    );
    seen(2).await;
    // One on trial is named with its stage, though in this one it holds nobody.
    let staged = json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": "StagedNetworkPolicy",
        "metadata": {"name": "next", "namespace": NAMESPACE}, "spec": {"policyTypes": ["Egress"]},
    });
    site.kubernetes.apply(&staged.to_string());
    let tried = json!({"kind": "StagedNetworkPolicy", "namespace": NAMESPACE, "name": "next", "generation": 1, "stage": "Shadow"});
    Kubernetes::eventually("the policy on trial in the receipt", async || {
        let receipt = site.receipt()?;
        (receipt["status"]["policies"] == json!([held(2)[0], tried])).then_some(())
    })
    .await;
    let pods: Api<Pod> = Api::namespaced(site.client.clone(), NAMESPACE);
    let now = DeleteParams::default().grace_period(0);
    pods.delete("web", &now).await.unwrap();
    Kubernetes::eventually("no policy holds a pod", async || {
        site.receipt()
            .filter(|it| it["status"]["policies"].is_null())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_connections_are_cut_when_policies_forbid_them_and_others_are_not() {
    let mut site = Site::new(&["web", "db", "other"]).await;
    site.start().await;
    let (web, db, other) = (site.place("web"), site.place("db"), site.place("other"));
    let node = site.cluster.node(0).clone();
    // A node that may bind what it does not have, as those with floating addresses may.
    let anything = ["ipv4", "ipv6"].map(|family| format!("{family}/ip_nonlocal_bind"));
    let anything = anything.each_ref().map(|key| (&**key, "1"));
    node.namespace.set(&anything);
    let mut kept: Vec<Connection> = [false, true]
        .map(|v6| Connection::open(web, db, v6, 5432).unwrap())
        .into();
    kept.push(Connection::open(&node, db, false, 9000).unwrap());
    let mut by_client = Connection::open(other, db, false, 5433).unwrap();
    let mut by_server = Connection::open(other, db, true, 5434).unwrap();
    let mut from_outside = Connection::open(site.cluster.outside(), db, false, 5435).unwrap();
    let mut datagrams = Exchange::open(other, db, false, 53).unwrap();
    for side in [Side::Client, Side::Server] {
        assert!(by_client.passes(side, PATIENCE) && by_server.passes(side, PATIENCE));
        assert!(datagrams.passes(side, PATIENCE));
    }
    // Only web may reach db; db may reach everyone, also at the ports that the others have.
    let web = json!([{"podSelector": {"matchLabels": {"app": "web"}}}]);
    let spec = json!({
        "podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"],
        "ingress": [{"from": web, "ports": [{"port": 5432}]}],
    });
    site.policy("db", &spec);
    let begun = Instant::now();
    // The side that speaks first after the cut must not bring the connection back the other way round.
    let quiet = Duration::from_millis(300);
    for (connection, side) in [
        (&mut by_server, Side::Server),
        (&mut by_client, Side::Client),
        (&mut from_outside, Side::Client),
    ] {
        assert!(
            connection.cut(side, quiet, PATIENCE).is_some(),
            "{}",
            site.agent().log()
        );
        for side in [Side::Server, Side::Client] {
            assert!(!connection.passes(side, quiet), "{side:?} brought it back");
        }
    }
    assert!(!datagrams.passes(Side::Server, quiet) && !datagrams.passes(Side::Client, quiet));
    // Nor may a connection that it asks for, which is allowed, be taken for the one that was cut.
    for _ in 0..3 {
        by_client.ask_back(db).unwrap();
        for side in [Side::Client, Side::Server] {
            assert!(!by_client.passes(side, quiet), "{side:?} brought it back");
        }
    }
    println!("cut within {:?}", begun.elapsed());
    for connection in &mut kept {
        for side in [Side::Server, Side::Client] {
            assert!(connection.passes(side, PATIENCE), "{}", site.agent().log());
        }
    }
    // A cut holds through the end of one agent and the start of the next.
    site.agent().signal("KILL");
    site.start().await;
    assert!(!by_server.passes(Side::Server, quiet) && !datagrams.passes(Side::Server, quiet));
    // Until policies allow it again: then sockets that were kept are heard again, also by an agent that has not cut them.
    site.without_policy("db");
    let begun = Instant::now();
    while !datagrams.passes(Side::Client, quiet) {
        assert!(begun.elapsed() < PATIENCE, "{}", site.agent().log());
    }
    assert!(datagrams.passes(Side::Server, PATIENCE));
}

/// A kind of policy for the whole cluster, which takes everything.
pub(crate) fn definition(kind: &str, plural: &str, version: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.policy.networking.k8s.io"),
            "annotations": {"api-approved.kubernetes.io": "unapproved"},
        },
        "spec": {
            "group": "policy.networking.k8s.io", "scope": "Cluster",
            "names": {"kind": kind, "plural": plural},
            "versions": [{"name": version, "served": true, "storage": true, "schema": {"openAPIV3Schema":
                {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_says_what_is_not_in_force_because_it_is_not_understood() {
    let mut site = Site::new(&["web"]).await;
    let kind = definition("AdminNetworkPolicy", "adminnetworkpolicies", "v1alpha1");
    site.kubernetes.apply(&kind.to_string());
    let established = [
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        "crd",
        "--all",
    ];
    assert!(site.kubernetes.kubectl(&established, "").status.success());
    // The API's schema takes any text for a protocol.
    let policy = |protocol: &str| {
        let everywhere = json!([{"namespaces": {}}]);
        let port = json!({"portNumber": {"protocol": protocol, "port": 53}});
        json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": "AdminNetworkPolicy",
            "metadata": {"name": "no-names"},
            "spec": {"priority": 1, "subject": {"namespaces": {}}, "egress": [
                {"action": "Deny", "to": everywhere, "ports": [port]}]},
        })
    };
    site.kubernetes.apply(&policy("IP").to_string());
    site.start().await;
    site.says(
        "False",
        "AdminNetworkPolicy no-names is not understood, it is not in force: ",
    )
    .await;
    site.kubernetes.apply(&policy("UDP").to_string());
    site.says("True", "holds what the policies say").await;
    site.kubernetes.apply(&policy("IP").to_string());
    site.says("False", "an earlier version of it is in force")
        .await;
    // What kube-proxy does elsewhere takes packets off the way.
    let node = &site.cluster.node(0).namespace;
    node.ip("link add kube-ipvs0 type bridge\n");
    site.policy("default-deny", &deny_all());
    site.says("False", "kube-proxy sends on by IPVS here").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_pod_starts_while_one_kind_of_policies_is_not_heard_of() {
    let site = Site::new(&["web", "next"]).await;
    install(&site.kubernetes);
    let by = kubeconfig(&site.kubernetes, ACCOUNT, ACCOUNT);
    let agent = site.run_as(&by, "agent", &["--node-name", NODE, "--cni"]);
    agent.line(&["the table is made"]).await;
    let uid = async |name: &str| {
        let pods: Api<Pod> = Api::namespaced(site.client.clone(), NAMESPACE);
        pods.get(name).await.unwrap().metadata.uid.unwrap()
    };
    let starts = async |name: &str| site.plugin("ADD", name, &uid(name).await, site.place(name));
    assert_eq!(starts("web").await, Ok(()));

    // The right to read one kind is lost, and a connection with it; the others go on.
    let get = ["get", "clusterrole", ACCOUNT, "-o", "json"];
    let output = site.kubernetes.kubectl(&get, "");
    let mut role: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rules = role["rules"].as_array_mut().unwrap();
    rules.retain(|rule| rule["resources"] != json!(["networkpolicies"]));
    role["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("managedFields");
    let replaced = site
        .kubernetes
        .kubectl(&["replace", "-f", "-"], &role.to_string());
    assert!(replaced.status.success());
    site.broken.notify_waiters();
    let unheard = "the watch of networkpolicies fails";
    site.says("False", unheard).await;
    let refused = starts("next").await.unwrap_err();
    assert!(refused.contains(unheard), "{refused}");

    install(&site.kubernetes);
    site.says("True", "holds what the policies say").await;
    assert_eq!(starts("next").await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_uses_every_right_of_its_role_and_asks_for_no_other() {
    let site = Site::new(&["web", "db"]).await;
    // Lists are for API servers that have nothing better.
    site.kubernetes.without_beginnings().await;
    site.cluster.serve_all(&[5432]);
    site.policy("default-deny", &deny_all());
    install(&site.kubernetes);
    for (kind, plural, version) in [
        ("ClusterNetworkPolicy", "clusternetworkpolicies", "v1alpha2"),
        ("AdminNetworkPolicy", "adminnetworkpolicies", "v1alpha1"),
        (
            "BaselineAdminNetworkPolicy",
            "baselineadminnetworkpolicies",
            "v1alpha1",
        ),
    ] {
        let definition = definition(kind, plural, version);
        site.kubernetes.apply(&definition.to_string());
    }
    let by = kubeconfig(&site.kubernetes, ACCOUNT, ACCOUNT);
    let agent = site.run_as(&by, "agent", &["--node-name", NODE]);
    agent.line(&["the table is made"]).await;
    let granted = granted(&site.kubernetes, ACCOUNT, ACCOUNT);
    let denied = site.place("db").at(true, 5432);
    let all_used = async || {
        // An Event, and after a while its count.
        ask_one(site.place("web"), denied, Transport::Tcp);
        let (done, refused) = used(&site.kubernetes, ACCOUNT, ACCOUNT);
        assert_eq!(refused, BTreeSet::new(), "refused");
        granted.is_subset(&done).then_some(())
    };
    Kubernetes::eventually("every right used", all_used).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_of_the_node_that_is_no_known_pod_s_sends_and_gets_nothing() {
    let mut site = Site::new(&["web", "db"]).await;
    site.cluster.add(&[("stranger", 0)]);
    site.cluster.serve_all(&[5432]);
    let blocks = ["10.244.0.0/16", "fd00:10:244::/48"];
    let nodes: Api<Node> = Api::all(site.client.clone());
    let spec = json!({"spec": {"podCIDR": blocks[0], "podCIDRs": blocks}});
    let params = PatchParams::default();
    let patched = nodes.patch(NODE, &params, &Patch::Merge(&spec)).await;
    patched.unwrap();
    let agent = site.run("agent", &["--node-name", NODE, "--drop-unknown"]);
    agent.line(&["the table is made"]).await;
    let reaches = |from: &str, to: &str, v6| {
        let to = site.place(to).at(v6, 5432);
        ask_one(site.place(from), to, Transport::Tcp) == Outcome::Answered
    };
    for v6 in [false, true] {
        assert!(
            reaches("web", "db", v6),
            "both are known and no policy is there"
        );
        assert!(!reaches("stranger", "db", v6) && !reaches("web", "stranger", v6));
    }
    // Also while nobody runs, and until it is known.
    agent.signal("KILL");
    assert!(!reaches("stranger", "db", false));
    let agent = site.run("another", &["--node-name", NODE, "--drop-unknown"]);
    agent.line(&["the table is made"]).await;
    site.pod("stranger").await;
    let begun = Instant::now();
    while !reaches("stranger", "db", true) {
        assert!(begun.elapsed() < PATIENCE, "{}", agent.log());
    }
    assert!(reaches("web", "stranger", false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_pod_is_held_to_its_policies_before_its_first_packet() {
    let mut site = Site::new(&["web", "db"]).await;
    site.cluster.serve_all(&[80, 5432]);
    site.policy("default-deny", &deny_all());
    for (name, spec) in allow("web", "db", 5432) {
        site.policy(&name, &spec);
    }
    site.agent = Some(site.run("agent", &["--node-name", NODE, "--cni"]));
    site.agent().line(&["the table is made"]).await;
    site.agent()
        .line(&["the plugin is in the node's chain"])
        .await;
    let list = std::fs::read_to_string(site.cni.path().join("net.d/10-pods.conflist")).unwrap();
    assert!(list.contains("ringfence-cni"), "{list}");

    // Neither the watch nor a status says its address when it starts.
    site.cluster.add(&[("late", 0)]);
    let uid = site.pod_without_address("late", "web").await;
    let late = site.place("late").clone();
    site.cluster.serve(&late, &[80]);
    let may = site.plugin("ADD", "late", &uid, &late);
    assert_eq!(may, Ok(()), "{}", site.agent().log());
    for v6 in [false, true] {
        // A connection that the model denies, each way, and one that it allows, with the very first packets.
        assert_eq!(site.outcome("late", "db", v6, 80), Outcome::Silent);
        assert_eq!(site.outcome("web", "late", v6, 80), Outcome::Silent);
        assert_eq!(site.outcome("late", "db", v6, 5432), Outcome::Answered);
    }

    // Its name and its address come again, as another pod with other labels.
    assert_eq!(site.plugin("DEL", "late", &uid, &late), Ok(()));
    assert_eq!(site.outcome("late", "db", false, 5432), Outcome::Silent);
    let pods: Api<Pod> = Api::namespaced(site.client.clone(), NAMESPACE);
    let now = DeleteParams::default().grace_period(0);
    pods.delete("late", &now).await.unwrap();
    let uid = site.pod_without_address("late", "other").await;
    assert_eq!(site.plugin("ADD", "late", &uid, &late), Ok(()));
    assert_eq!(site.outcome("late", "db", false, 5432), Outcome::Silent);

    // One that the API server does not know is not let go on, and the words say why.
    let nobody = "00000000-0000-0000-0000-000000000001";
    let refused = site.plugin("ADD", "nobody", nobody, &late).unwrap_err();
    assert!(
        refused.contains("has not told the agent of the pod shop/nobody"),
        "{refused}"
    );

    // Without an agent a pod does not start, and after the cleanup the chain is as it was.
    site.agent().signal("TERM");
    site.agent().line(&["the rules stay"]).await;
    let begun = Instant::now();
    let refused = site.plugin("ADD", "late", &uid, &late).unwrap_err();
    assert!(
        refused.contains("agent") && begun.elapsed() < Duration::from_secs(15),
        "{refused}"
    );
    let cleanup = site.run("cleanup", &["--cleanup", "--cni"]);
    cleanup.line(&["the rules are taken away"]).await;
    let list = std::fs::read_to_string(site.cni.path().join("net.d/10-pods.conflist")).unwrap();
    assert!(!list.contains("ringfence-cni"), "{list}");
    for file in ["bin/ringfence-cni", "run/cni.sock", "run/cni.json"] {
        assert!(!site.cni.path().join(file).exists(), "{file}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_hold_while_their_namespace_is_being_deleted() {
    let mut site = Site::new(&["web", "db", "other"]).await;
    site.cluster.serve_all(&[80]);
    site.policy("default-deny", &deny_all());
    site.start().await;
    site.becomes("web", "db", 80, Outcome::Silent);
    // Nobody here takes its finalizer away, so it stays as it is while its pods end.
    let delete = ["delete", "namespace", NAMESPACE, "--wait=false"];
    assert!(site.kubernetes.kubectl(&delete, "").status.success());
    // A later change shows that this one has been heard.
    let pods: Api<Pod> = Api::namespaced(site.client.clone(), NAMESPACE);
    let now = DeleteParams::default().grace_period(0);
    pods.delete("other", &now).await.unwrap();
    let gone = site.place("other").v4.to_string();
    let heard = async || (!site.rules().contains(&gone)).then_some(());
    Kubernetes::eventually("the pod gone from the table", heard).await;
    assert_eq!(
        site.outcome("web", "db", false, 80),
        Outcome::Silent,
        "{}",
        site.rules()
    );
    assert_eq!(site.outcome("web", "db", true, 80), Outcome::Silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_whose_packets_pass_the_rules_by_is_noticed_while_the_agent_runs() {
    let mut site = Site::new(&["web", "db"]).await;
    site.cluster.serve_all(&[80]);
    site.policy("default-deny", &deny_all());
    site.start().await;
    site.becomes("web", "db", 80, Outcome::Silent);
    let off = ["iptables", "ip6tables"].map(|of| format!("bridge/bridge-nf-call-{of}"));
    let off: Vec<(&str, &str)> = off.iter().map(|name| (name.as_str(), "0")).collect();
    site.cluster.node(0).namespace.set(&off);
    assert_eq!(site.outcome("web", "db", false, 80), Outcome::Answered);
    // The kernel is looked at again after each change, and once a minute.
    let [(name, spec), _] = allow("web", "db", 81);
    site.policy(&name, &spec);
    site.becomes("web", "db", 80, Outcome::Silent);
}

/// A line of the log, as programs read it.
fn is_denied_by_default(line: &str) {
    let mut line: Value = serde_json::from_str(line).unwrap();
    let fields = line.as_object_mut().unwrap();
    assert!(fields.remove("timestamp").is_some());
    assert!(fields.remove("packets").unwrap().as_u64() > Some(0));
    assert_eq!(
        line,
        json!({
            "level": "WARN", "target": "ringfence::agent::told", "message": "denied", "from": "shop/web", "to": "shop/db",
            "protocol": "TCP", "port": 5432, "direction": "egress", "node": NODE,
            "reason": "does not pass, isolated by shop/default-deny and allowed by no rule",
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_packet_is_told_with_who_and_why_and_replay_reads_it() {
    let mut site = Site::new(&["web", "db"]).await;
    site.cluster.serve_all(&[5432]);
    site.policy("default-deny", &deny_all());
    let admin = "127.0.0.1:9471";
    let told = ["--admin", admin, "--log-format", "json"];
    site.agent = Some(site.run("agent", &[&["--node-name", NODE], &told[..]].concat()));
    site.agent().line(&["the table is made"]).await;
    let denied = site.place("db").at(true, 5432);
    assert_eq!(
        ask_one(site.place("web"), denied, Transport::Tcp),
        Outcome::Silent
    );
    let line = site
        .agent()
        .line(&["denied", "shop/web", "shop/db", "5432"])
        .await;
    is_denied_by_default(&line);
    let described = Kubernetes::eventually("an Event on the pod", async || {
        let described = site
            .kubernetes
            .kubectl(&["describe", "pod", "-n", NAMESPACE, "web"], "");
        let text = String::from_utf8_lossy(&described.stdout).into_owned();
        text.contains("ringfence.dev/agent").then_some(text)
    });
    let described = described.await;
    assert!(
        described.contains(
            "egress to shop/db at TCP 5432: does not pass, isolated by shop/default-deny"
        ),
        "{described}"
    );

    let flows =
        |arguments: &[&str]| site.ringfence(&[&["flows", "--agent", admin], arguments].concat());
    let text = flows(&[]);
    assert!(
        text.contains("denied  shop/web -> shop/db TCP 5432"),
        "{text}"
    );
    let json = flows(&["--output", "json", "--namespace", NAMESPACE]);
    let record: Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(record["details"]["policies"], json!(["shop/default-deny"]));
    assert_eq!(flows(&["--namespace", "elsewhere"]), "");

    // Who follows is told what comes later, too.
    let mut following = Command::new("nsenter");
    let node = &site.cluster.node(0).namespace;
    following
        .arg(format!("--net={}", node.path().display()))
        .arg(env!("CARGO_BIN_EXE_ringfence"))
        .args(["flows", "--agent", admin, "--follow", "--verdict", "denied"]);
    let following = Process::start("follow", site.kubernetes.folder(), &mut following);
    following.line(&["shop/web -> shop/db TCP 5432"]).await;
    assert!(!following.log().contains("5433"));
    let later = site.place("db").at(true, 5433);
    assert_eq!(
        ask_one(site.place("web"), later, Transport::Tcp),
        Outcome::Silent
    );
    following.line(&["shop/web -> shop/db TCP 5433"]).await;

    let recorded = site.cni.path().join("denied.jsonl");
    std::fs::write(&recorded, &json).unwrap();
    let policies = site
        .kubernetes
        .kubectl(&["get", "pods,networkpolicies", "-A", "-o", "json"], "");
    let manifests = site.cni.path().join("cluster.json");
    std::fs::write(&manifests, policies.stdout).unwrap();
    let replay = Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .arg("replay")
        .arg(&recorded)
        .arg("--policies")
        .arg(&manifests)
        .output()
        .unwrap();
    assert!(
        replay.status.code().is_some_and(|code| code < 2),
        "{}",
        String::from_utf8_lossy(&replay.stderr)
    );
}

#[tokio::test]
async fn what_is_let_through_is_told_by_option_and_suggest_makes_a_policy_of_it() {
    let mut site = Site::new(&["web", "db"]).await;
    site.cluster.serve_all(&[5432, 8080]);
    let admin = "127.0.0.1:9472";
    let told = ["--admin", admin, "--sample", "100", "--flow-labels"];
    let arguments = [&["--node-name", NODE], &told[..]].concat();
    site.agent = Some(site.run("agent", &arguments));
    site.agent().line(&["the table is made"]).await;
    let database = site.place("db").at(false, 5432);
    assert_eq!(
        ask_one(site.place("web"), database, Transport::Tcp),
        Outcome::Answered
    );
    let recorded = Kubernetes::eventually("a record of the connection", async || {
        let said = site.ringfence(&["flows", "--agent", admin, "--output", "json"]);
        (!said.is_empty()).then_some(said)
    });
    let lines = recorded.await;
    let records: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        records.iter().all(|it| it["verdict"] == "allowed"),
        "{lines}"
    );

    let file = site.cni.path().join("allowed.jsonl");
    std::fs::write(&file, &lines).unwrap();
    let suggest = Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .arg("suggest")
        .arg(&file)
        .output()
        .unwrap();
    assert!(suggest.status.success(), "{suggest:?}");
    site.kubernetes
        .apply(&String::from_utf8(suggest.stdout).unwrap());
    let asked = async |port: u16, outcome: Outcome| {
        let to = site.place("db").at(false, port);
        Kubernetes::eventually("the policy in force", async || {
            let is_so = ask_one(site.place("web"), to, Transport::Tcp) == outcome;
            is_so.then_some(())
        })
        .await;
    };
    asked(8080, Outcome::Silent).await;
    asked(5432, Outcome::Answered).await;
}
