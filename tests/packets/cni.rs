//! The plugin in a real chain: Debian's `bridge` and `host-local` before it, called as libcni calls them, pods and node in
//! namespaces.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ringfence::agent::cni::NAME;
use ringfence::agent::cni::ask::{self, Answer};
use ringfence::agent::cni::install::{Change, Installer};
use ringfence::agent::cni::list::{Entry, WhenDown};
use ringfence::agent::cni::server::{self, Asked};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::namespace::{Namespace, runtime};

/// Where Debian has the plugins.
const PLUGINS: &str = "/usr/lib/cni";

/// A node with a network of the bridge plugin, and nothing of ours yet.
struct Node {
    namespace: Namespace,
    folder: tempfile::TempDir,
    installer: Installer,
}

/// A pod's namespace before it has a network.
struct Sandbox {
    namespace: Namespace,
    id: String,
}

fn node() -> Node {
    let namespace = Namespace::make(&["cni".to_owned()]).remove(0);
    let folder = tempfile::tempdir().unwrap();
    let [configurations, plugins] = ["net.d", "bin"].map(|name| folder.path().join(name));
    fs::create_dir(&configurations).unwrap();
    fs::create_dir(&plugins).unwrap();
    let socket = folder.path().join("run/cni.sock");
    let installer = Installer {
        configurations,
        plugins,
        binary: PathBuf::from(env!("CARGO_BIN_EXE_ringfence")),
        entry: Entry::new(socket.to_str().unwrap(), WhenDown::Fail, 1),
    };
    let node = Node {
        namespace,
        folder,
        installer,
    };
    fs::write(node.list(), node.without_us()).unwrap();
    node
}

impl Node {
    fn list(&self) -> PathBuf {
        self.installer.configurations.join("10-bridge.conflist")
    }

    fn without_us(&self) -> String {
        json!({
            "cniVersion": "1.0.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "bridge", "bridge": "cni0", "isGateway": true,
                    "ipam": {
                        "type": "host-local", "dataDir": self.folder.path().join("ipam"),
                        "ranges": [[{"subnet": "10.99.0.0/24"}], [{"subnet": "fd00:99::/64"}]]
                    }
                },
                {"type": "tuning"}
            ]
        })
        .to_string()
    }

    /// Answers questions as the agent would, after a while.
    fn agent(&self, after: Duration) -> mpsc::UnboundedReceiver<ask::Request> {
        let (heard, requests) = mpsc::unbounded_channel();
        let _runtime = runtime().enter();
        let listener = server::bind(&self.folder.path().join("run/cni.sock")).unwrap();
        let (sender, mut asked) = mpsc::channel::<Asked>(16);
        runtime().spawn(server::serve(listener, sender));
        runtime().spawn(async move {
            while let Some(Asked { request, reply }) = asked.recv().await {
                tokio::time::sleep(after).await;
                // A closed channel means that the test is over.
                if heard.send(request).is_err() {
                    return;
                }
                let _ = reply.send(Answer::Ready);
            }
        });
        requests
    }

    /// Calls one plugin as a container runtime does.
    fn call(
        &self,
        command: &str,
        kind: &str,
        sandbox: &Sandbox,
        config: &Value,
    ) -> Result<Option<Value>, Value> {
        let folders = [&*self.installer.plugins, Path::new(PLUGINS)];
        let path = folders
            .iter()
            .map(|folder| folder.join(kind))
            .find(|path| path.exists());
        let Some(path) = path else {
            return Err(json!({"msg": format!("no plugin {kind}")}));
        };
        let output = self.namespace.inside(|| {
            let mut child = Command::new(path)
                .env("CNI_COMMAND", command)
                .env("CNI_CONTAINERID", &sandbox.id)
                .env("CNI_NETNS", sandbox.namespace.path())
                .env("CNI_IFNAME", "eth0")
                .env("CNI_PATH", std::env::join_paths(folders).unwrap())
                .env(
                    "CNI_ARGS",
                    format!(
                        "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={}",
                        sandbox.id
                    ),
                )
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            serde_json::to_writer(child.stdin.take().unwrap(), config).unwrap();
            child.wait_with_output().unwrap()
        });
        let said = serde_json::from_slice(&output.stdout);
        if output.status.success() {
            Ok(said.ok())
        } else {
            Err(said.unwrap_or_default())
        }
    }

    /// The whole chain of the list in effect.
    fn add(&self, sandbox: &Sandbox) -> Result<Value, Value> {
        let list: Value = serde_json::from_str(&fs::read_to_string(self.list()).unwrap()).unwrap();
        let mut result = None;
        for plugin in list["plugins"].as_array().unwrap() {
            let config = chained(&list, plugin, result.as_ref());
            let kind = plugin["type"].as_str().unwrap();
            result = self.call("ADD", kind, sandbox, &config)?;
        }
        Ok(result.unwrap())
    }

    fn del(&self, sandbox: &Sandbox, result: Option<&Value>) {
        let list: Value = serde_json::from_str(&fs::read_to_string(self.list()).unwrap()).unwrap();
        for plugin in list["plugins"].as_array().unwrap().iter().rev() {
            let config = chained(&list, plugin, result);
            let kind = plugin["type"].as_str().unwrap();
            self.call("DEL", kind, sandbox, &config).unwrap();
        }
    }

    /// How many addresses are given out.
    fn given(&self) -> usize {
        let folder = self.folder.path().join("ipam/pods");
        let names = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        names
            .filter(|name| name.to_str().unwrap().contains("99"))
            .count()
    }
}

fn chained(list: &Value, plugin: &Value, result: Option<&Value>) -> Value {
    let mut config = plugin.clone();
    config["name"] = list["name"].clone();
    config["cniVersion"] = list["cniVersion"].clone();
    if let Some(result) = result {
        config["prevResult"] = result.clone();
    }
    config
}

fn sandbox() -> Sandbox {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let id = format!("pod{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let namespace = Namespace::make(std::slice::from_ref(&id)).remove(0);
    Sandbox { namespace, id }
}

#[test]
fn a_pod_goes_on_once_the_agent_says_so() {
    let node = node();
    node.installer.install().unwrap();
    let pause = Duration::from_millis(300);
    let mut requests = node.agent(pause);
    let pod = sandbox();
    let begun = Instant::now();
    let result = node.add(&pod).unwrap();
    assert!(begun.elapsed() >= pause);
    let request = requests.try_recv().unwrap();
    assert_eq!(request.command, ask::Command::Add);
    let name = request.pod.unwrap();
    assert_eq!((&*name.namespace, name.name), ("shop", pod.id.clone()));
    let addresses: Vec<String> = request.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.99.0.2", "fd00:99::2"]);
    let given: Vec<&str> = result["ips"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ip| ip["address"].as_str().unwrap())
        .collect();
    assert_eq!(given, ["10.99.0.2/24", "fd00:99::2/64"]);
    // The interfaces are those that are really there.
    let host = request.host_interface.unwrap();
    assert!(host.starts_with("veth"), "{host}");
    node.namespace.ip(&format!("link show {host}\n"));
    let inside = pod.namespace.run("ip", &["link", "show", "eth0"], "");
    assert!(inside.contains(&request.mac.unwrap()), "{inside}");

    node.del(&pod, Some(&result));
    assert_eq!(requests.try_recv().unwrap().command, ask::Command::Del);
    assert_eq!(node.given(), 0);
}

#[test]
fn without_an_agent_a_pod_fails_in_time_and_leaves_nothing() {
    let node = node();
    node.installer.install().unwrap();
    let pod = sandbox();
    let begun = Instant::now();
    let error = node.add(&pod).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(
        (&error["code"], &error["msg"]),
        (&json!(11), &json!("the ringfence agent does not answer"))
    );
    assert_eq!(node.given(), 2);
    node.del(&pod, None);
    assert_eq!(node.given(), 0);
    // The agent is there: the next try succeeds.
    let _requests = node.agent(Duration::ZERO);
    node.add(&pod).unwrap();
}

#[test]
fn a_list_that_another_installer_rewrites_asks_again_within_a_second() {
    let node = node();
    let mut requests = node.agent(Duration::ZERO);
    node.installer.install().unwrap();
    let (stop, stopped) = watch::channel(false);
    let installer = node.installer.clone();
    let keeping = runtime().spawn(async move {
        installer
            .keep(stopped, |outcome| {
                // A list that is being written is none for a moment.
                assert_ne!(outcome.ok(), Some(Change::None));
            })
            .await;
    });
    for _ in 0..3 {
        fs::write(node.list(), node.without_us()).unwrap();
        std::thread::sleep(Duration::from_secs(1));
        let pod = sandbox();
        node.add(&pod).unwrap();
        assert_eq!(requests.try_recv().unwrap().pod.unwrap().name, pod.id);
    }
    stop.send(true).unwrap();
    runtime().block_on(keeping).unwrap();
}

#[test]
fn pods_start_and_end_while_the_plugin_is_taken_out_and_put_in() {
    let node = node();
    let mut requests = node.agent(Duration::ZERO);
    let done = Arc::new(AtomicBool::new(false));
    let rounds = Arc::new(AtomicUsize::new(0));
    let changing = {
        let installer = node.installer.clone();
        let (done, rounds) = (Arc::clone(&done), Arc::clone(&rounds));
        std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                installer.install().unwrap();
                std::thread::sleep(Duration::from_millis(100));
                installer.remove(Duration::from_millis(500)).unwrap();
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let begun = Instant::now();
    let (mut pods, mut asked) = (0, 0);
    // At least so long, and longer where the machine is busy with others.
    while begun.elapsed() < Duration::from_secs(3)
        || rounds.load(Ordering::Relaxed) < 2
        || pods <= 5
        || asked == 0
    {
        let made = rounds.load(Ordering::Relaxed);
        assert!(
            begun.elapsed() < Duration::from_mins(1),
            "{made} rounds, {pods} pods, {asked} asked"
        );
        let pod = sandbox();
        let result = node.add(&pod).unwrap();
        node.del(&pod, Some(&result));
        pods += 1;
        while requests.try_recv().is_ok() {
            asked += 1;
        }
    }
    done.store(true, Ordering::Relaxed);
    changing.join().unwrap();
    assert!(!node.installer.plugins.join(NAME).exists());
    assert_eq!(node.given(), 0);
}
