//! One node and its control plane. The test is in the node's network namespace, and so is the control plane unless it is
//! wanted on a machine of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::{Cluster, Place};
use crate::groups::Groups;
use crate::image;
use crate::kubernetes::{Kubernetes, PORT, tools};
use crate::process::Process;

/// The node's name.
pub(crate) const NODE: &str = "n1";
/// The namespace of the agent's manifests.
pub(crate) const AGENT: &str = "ringfence-agent";
/// The namespace of the manifests of webhook and controller.
pub(crate) const SYSTEM: &str = "ringfence-system";

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy");
/// The addresses of Services.
const SERVICES: &str = "10.96.0.0/16";
const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node/machine.sh");
/// How long anything of Kubernetes may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// A node that is Ready; all of it ends when this is dropped.
pub(crate) struct Machine {
    begun: Instant,
    // In the order in which they are to end.
    programs: Process,
    _scheduler: Process,
    _proxy: Option<Process>,
    pub(crate) kubernetes: Kubernetes,
    pub(crate) cluster: Cluster,
    pub(crate) groups: Groups,
}

/// Runs a test on a node of its own. The test is inside the node's network namespace, as the node's programs and the API
/// server are.
pub(crate) fn on_a_node(test: impl AsyncFnOnce(&Machine) + Send) {
    on(Cluster::new(1), false, test);
}

/// The same on a node that has no control plane: that is outside, and finds Services by a kube-proxy of its own.
pub(crate) fn on_a_worker(test: impl AsyncFnOnce(&Machine) + Send) {
    on(Cluster::new(1), true, test);
}

fn on(cluster: Cluster, control_is_outside: bool, test: impl AsyncFnOnce(&Machine) + Send) {
    let node = cluster.node(0).clone();
    node.namespace.inside(move || {
        runtime().block_on(async {
            let machine = Machine::start(cluster, control_is_outside).await;
            test(&machine).await;
        });
    });
}

/// A runtime for the calling thread.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap()
}

// === impl Machine ===

impl Machine {
    async fn start(cluster: Cluster, control_is_outside: bool) -> Self {
        let begun = Instant::now();
        let place = cluster.node(0).clone();
        switch_bridge(&place, "0");
        let control = if control_is_outside {
            cluster.outside()
        } else {
            &place
        };
        let start = || runtime().block_on(Kubernetes::start_at(control.v4));
        let kubernetes = control.namespace.inside(start);
        let kubeconfig = format!("--kubeconfig={}", kubernetes.kubeconfig().display());
        let proxy = control_is_outside.then(|| {
            let (namespace, node) = (&control.namespace, place.v4);
            namespace.ip(&format!("route add {SERVICES} via {node}\n"));
            let mut command = Command::new("nsenter");
            command
                .arg(format!("--net={}", namespace.path().display()))
                .arg(tools("node").join("kube-proxy"))
                .arg(&kubeconfig)
                .args(["--proxy-mode=nftables", "--cluster-cidr=10.244.0.0/16"])
                // It wants a Node, and this machine is none.
                .arg(format!("--hostname-override={NODE}"))
                .arg("--conntrack-max-per-core=0");
            Process::start("kube-proxy", kubernetes.folder(), &mut command)
        });
        let groups = Groups::new();
        let folder = kubernetes.folder().join("machine");
        fs::create_dir_all(folder.join("images")).unwrap();
        image::make(&folder.join("images"));
        configure(&folder, groups.name());
        kubernetes.apply(&service(control).to_string());

        let mut command = Command::new(tools("node").join("kube-scheduler"));
        command
            .arg(&kubeconfig)
            .args(["--leader-elect=false", "--secure-port=0"]);
        let scheduler = Process::start("kube-scheduler", kubernetes.folder(), &mut command);
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--pid", "--fork", "--kill-child", "sh", PROGRAMS])
            .args([&folder, &tools("node"), &kubernetes.kubeconfig()])
            .args([NODE, &place.v4.to_string(), groups.name()]);
        let programs = Process::start("machine", kubernetes.folder(), &mut command);
        let this = Self {
            begun,
            programs,
            _scheduler: scheduler,
            _proxy: proxy,
            kubernetes,
            cluster,
            groups,
        };
        let ready = async || {
            assert!(this.programs.is_running(), "{}", this.logs());
            let wanted = [
                "wait",
                "--for=condition=Ready",
                "--timeout=1s",
                "node",
                NODE,
            ];
            this.kubernetes.kubectl(&wanted, "").status.success()
        };
        this.until("the node is Ready", ready).await;
        this.say("the node is Ready");
        this
    }

    /// Says how far the test is, and after how many seconds.
    pub(crate) fn say(&self, what: &str) {
        println!("{:6.1} s  {what}", self.begun.elapsed().as_secs_f64());
    }

    /// Makes packets between pods on the node's bridge meet its rules, or not.
    pub(crate) fn switch_bridge(&self, value: &str) {
        switch_bridge(self.cluster.node(0), value);
    }

    /// The same of the world outside, where an agent may be tried, too.
    pub(crate) fn switch_outside(&self) {
        switch_bridge(self.cluster.outside(), "1");
    }

    /// Runs kubectl, which must work, and gives what it printed.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.kubernetes.kubectl(arguments, "");
        let said = both(&output);
        assert!(
            output.status.success(),
            "{arguments:?}: {said}\n{}",
            self.logs()
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Ringfence's own program on somebody's desk, with the cluster's kubeconfig.
    pub(crate) fn ringfence_on_cluster(&self, subcommand: &str) -> (bool, String) {
        let kubeconfig = self.kubernetes.kubeconfig();
        ringfence(&[subcommand, "--kubeconfig", kubeconfig.to_str().unwrap()])
    }

    /// Applies `deploy/agent` with these components, as an overlay of a user does.
    pub(crate) fn install(&self, components: &[&str]) {
        let overlay = self.overlay("agent", components);
        self.kubectl(&[
            "apply",
            "--server-side",
            "--force-conflicts",
            "-k",
            &overlay,
        ]);
    }

    /// A user's overlay of a folder in `deploy`: the image and these components. Gives its path.
    pub(crate) fn overlay(&self, of: &str, components: &[&str]) -> String {
        let overlay = self.kubernetes.folder().join("overlay").join(of);
        fs::create_dir_all(&overlay).unwrap();
        // An overlay names what it is built on by relative paths only.
        let up = "../".repeat(overlay.canonicalize().unwrap().components().count() - 1);
        let base = format!("{up}{}/{of}", DEPLOY.trim_start_matches('/'));
        let (name, tag) = image::RINGFENCE.split_once(':').unwrap();
        let components: Vec<String> = components.iter().map(|it| format!("{base}/{it}")).collect();
        let kustomization = json!({
            "resources": [base], "components": components,
            "images": [{"name": "ringfence", "newName": name, "newTag": tag}],
        });
        fs::write(
            overlay.join("kustomization.yaml"),
            kustomization.to_string(),
        )
        .unwrap();
        overlay.to_str().unwrap().to_owned()
    }

    /// Waits until the agent of the last installation is Ready.
    pub(crate) fn rolled_out(&self) {
        let name = format!("daemonset/{AGENT}");
        self.kubectl(&["rollout", "status", &name, "-n", AGENT, "--timeout=120s"]);
    }

    /// The process of the agent, as the machine that the test runs on has it.
    pub(crate) fn agent(&self) -> Option<u32> {
        self.groups
            .processes(&["/bin/ringfence", "agent"])
            .first()
            .copied()
    }

    /// The table in the kernel as `nft` shows it; empty where there is none.
    pub(crate) fn table() -> String {
        let arguments = ["list", "table", "inet", "ringfence"];
        let output = Command::new("nft").args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// A file as the node's programs see it.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        // The first process of the machine is the child of the one that made its namespaces.
        let parent = self.programs.id();
        let children = format!("/proc/{parent}/task/{parent}/children");
        let child = fs::read_to_string(children).unwrap();
        Path::new(&format!("/proc/{}/root", child.trim())).join(path.trim_start_matches('/'))
    }

    /// Waits until something is so.
    pub(crate) async fn until(
        &self,
        what: &str,
        mut attempt: impl AsyncFnMut() -> bool,
    ) -> Duration {
        let begun = Instant::now();
        while !attempt().await {
            assert!(
                begun.elapsed() < PATIENCE,
                "not seen: {what}\n{}",
                self.logs()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        begun.elapsed()
    }

    /// What pods and programs say, for a test that fails.
    pub(crate) fn logs(&self) -> String {
        let show = |arguments: &[&str]| both(&self.kubernetes.kubectl(arguments, ""));
        let folder = self.kubernetes.folder();
        let programs = ["containerd", "kubelet", "kube-proxy"].map(|name| {
            let path = folder.join(format!("machine/{name}.log"));
            let text = fs::read_to_string(path).unwrap_or_default();
            let last: Vec<&str> = text.lines().rev().take(8).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            format!("== {name}\n{}\n", last.join("\n"))
        });
        let pods = show(&["get", "pods", "-A", "-o", "wide"]);
        let ours = [AGENT, SYSTEM].map(|namespace| {
            let select = "app.kubernetes.io/name=ringfence";
            let arguments = [
                "logs",
                "-n",
                namespace,
                "-l",
                select,
                "--all-containers",
                "--prefix",
                "--tail=20",
            ];
            show(&arguments)
        });
        let machine = self.programs.log();
        format!(
            "{machine}\n{pods}\n{}\n{}",
            ours.concat(),
            programs.concat()
        )
    }
}

/// Ringfence's own program on somebody's desk: whether it exits with 0, and what it printed.
pub(crate) fn ringfence(arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence"));
    let output = command.args(arguments).output().unwrap();
    (output.status.success(), both(&output))
}

fn switch_bridge(place: &Place, value: &str) {
    let keys = [
        "bridge/bridge-nf-call-iptables",
        "bridge/bridge-nf-call-ip6tables",
    ];
    place.namespace.set(&keys.map(|key| (key, value)));
}

fn both(output: &Output) -> String {
    let text = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    text.concat()
}

/// Where pods find the API server: nobody registers it, since it is told not to reconcile.
fn service(place: &Place) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "ports": [{"name": "https", "port": PORT, "protocol": "TCP"}],
        "endpoints": [{"addresses": [place.v4], "conditions": {"ready": true}}],
    })
}

/// The configurations of containerd, kubelet and the bridge.
fn configure(folder: &Path, groups: &str) {
    let write = |name: &str, text: String| fs::write(folder.join(name), text).unwrap();
    let sandbox = image::BUSYBOX;
    write(
        "containerd.toml",
        format!(
            "version = 2\nroot = \"/var/lib/containerd\"\nstate = \"/run/containerd\"\n\
             [grpc]\naddress = \"/run/containerd/containerd.sock\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"{sandbox}\"\nrestrict_oom_score_adj = true\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/opt/cni/bin\"\nconf_dir = \"/etc/cni/net.d\"\n"
        ),
    );
    let kubelet = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "failCgroupV1": false, "cgroupDriver": "cgroupfs", "cgroupRoot": format!("/{groups}"),
        "enforceNodeAllocatable": [], "evictionHard": {}, "failSwapOn": false, "resolvConf": "",
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
    });
    write("kubelet.yaml", kubelet.to_string());
    let bridge = json!({
        "cniVersion": "0.4.0", "name": "pods", "plugins": [
            {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipam": {
                "type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}],
            }},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    write("10-bridge.conflist", bridge.to_string());
}
