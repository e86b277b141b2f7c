//! The agent from its own manifests, seen from real pods.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::capture::Capture;
use crate::image::RINGFENCE;
use crate::kubernetes::free_port;
use crate::machine::{AGENT, Machine, on_a_node, ringfence};
use crate::process::Process;
use crate::shop::{DROP, SHOP, Shop, asking, namespace, pod, ready, sprint};

const DAEMONSET: &str = "daemonset/ringfence-agent";
/// The capability `NET_ADMIN` and no other, as the kernel writes it.
const NET_ADMIN: &str = "0000000000001000";
/// All that new pods must not be heard of: addresses of pods of the node.
const PODS: [u8; 3] = [10, 244, 0];

#[test]
#[ignore = "needs the programs of a node, which `tests/run --only node` installs and builds"]
fn the_agent_of_the_manifests_holds_real_pods_to_their_policies() {
    on_a_node(async |machine| {
        let proved = probed(machine);
        assert!(
            proved.contains("problem  node n1 does not enforce NetworkPolicy"),
            "{proved}"
        );
        machine.say("without an agent nothing is enforced");
        the_smallest_installation(machine).await;
        machine.say("the smallest installation is Ready");
        machine.switch_bridge("0");
        machine.install(&["cni", "prepare"]);
        machine.rolled_out();
        let list = fs::read_to_string(machine.file("/etc/cni/net.d/10-bridge.conflist")).unwrap();
        assert!(list.contains("ringfence-cni"), "{list}");
        the_host_is_written_to_at_three_places(machine);

        let shop = Shop::open(machine);
        machine.say("pods run");
        policies_hold(machine, &shop).await;
        machine.say("policies hold, also behind a Service, and not against probes");
        let proved = probed(machine);
        assert!(
            proved.contains("ok       node n1 enforces NetworkPolicy"),
            "{proved}"
        );
        people_are_told(machine).await;
        machine.say("status, doctor and flows tell of it");
        new_pods_are_not_heard(machine).await;
        machine.say("new pods are not heard");
        updates_go_on(machine, &shop).await;
        machine.say("a Deployment is updated while policies change");
        agents_come_and_go(machine, &shop).await;
        machine.say("agents were killed, deleted, restarted and gone");
        it_is_taken_away(machine, &shop).await;
        machine.say("all is taken away");
    });
}

/// What `doctor --probe` says.
fn probed(machine: &Machine) -> String {
    let kubeconfig = machine.kubernetes.kubeconfig();
    let kubeconfig = kubeconfig.to_str().unwrap();
    let arguments = [
        "doctor",
        "--kubeconfig",
        kubeconfig,
        "--probe",
        "--probe-image",
        RINGFENCE,
    ];
    let (_, said) = ringfence(&arguments);
    let left = "jsonpath={.items[?(@.status.phase=='Active')].metadata.name}";
    let left = machine.kubectl(&["get", "namespaces", "-o", left]);
    assert!(!left.contains("ringfence-probe-"), "{left}");
    said
}

/// Without components: what the node lacks is said, and no more rights are used than are given.
async fn the_smallest_installation(machine: &Machine) {
    machine.install(&[]);
    let said = async || {
        let arguments = ["logs", "-n", AGENT, DAEMONSET, "--tail=-1"];
        let output = machine.kubernetes.kubectl(&arguments, "");
        String::from_utf8_lossy(&output.stdout).contains("component deploy/agent/prepare")
    };
    machine
        .until("the agent says what the node lacks", said)
        .await;
    machine.switch_bridge("1");
    machine.kubectl(&["delete", "pod", "-n", AGENT, "--all", "--now"]);
    machine.rolled_out();

    let id = machine.agent().expect("an agent");
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let of = |key: &str| {
        let mut lines = status.lines().filter_map(|line| line.strip_prefix(key));
        lines.next().unwrap().trim().to_owned()
    };
    for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(of(set), NET_ADMIN, "{set}");
    }
    assert_eq!(
        (of("NoNewPrivs:"), of("Seccomp:")),
        ("1".to_owned(), "2".to_owned())
    );
    let mounts = fs::read_to_string(format!("/proc/{id}/mounts")).unwrap();
    let root = mounts.lines().find(|line| line.contains(" / ")).unwrap();
    assert!(root.contains(" ro,"), "{root}");
    let wrote = fs::write(format!("/proc/{id}/root/etc/cni/net.d/x"), "").is_err();
    assert!(wrote, "the configurations are read only");
}

async fn policies_hold(machine: &Machine, shop: &Shop<'_>) {
    shop.becomes("client", true).await;
    shop.deny_all();
    shop.becomes("client", false).await;
    // The kubelet's probes are not the pods' traffic.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(shop.health(), (0, 2), "{}", machine.logs());
    assert_eq!(shop.reaches("client"), Some(false));
    shop.allow();
    shop.becomes("client", true).await;
    assert_eq!(shop.reaches("other"), Some(false));
}

/// The folders of the host that the plugin takes, and none else; processes of the host are not seen.
fn the_host_is_written_to_at_three_places(machine: &Machine) {
    let id = machine.agent().expect("an agent");
    let mounts = fs::read_to_string(format!("/proc/{id}/mounts")).unwrap();
    let writable = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (place, _, options) = (words.next()?, words.next()?, words.next()?);
        options.split(',').any(|it| it == "rw").then_some(place)
    });
    // What each container has of its own, and what the kubelet makes for each pod.
    let of_every_pod = |place: &&str| {
        let own = ["/proc", "/dev", "/sys", "/run/secrets", "/var/run/secrets"];
        own.iter().any(|own| place.starts_with(own))
            || ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"].contains(place)
    };
    let mut places: Vec<&str> = writable.filter(|place| !of_every_pod(place)).collect();
    places.sort_unstable();
    assert_eq!(places, ["/etc/cni/net.d", "/opt/cni/bin", "/run/ringfence"]);
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let numbers = numbers.unwrap().split_whitespace().count();
    assert!(
        numbers > 1,
        "the agent is in the host's namespace of processes"
    );
}

/// `status`, `doctor` and `flows`, on the node and through kubectl.
async fn people_are_told(machine: &Machine) {
    let confirmed = async || machine.ringfence_on_cluster("status").0;
    machine.until("every policy is confirmed", confirmed).await;
    let (good, said) = machine.ringfence_on_cluster("doctor");
    assert!(
        good && said.contains("all 1 agents of Ringfence are ready"),
        "{said}"
    );
    let run = [
        "exec",
        "-n",
        AGENT,
        DAEMONSET,
        "-c",
        "agent",
        "--",
        "ringfence",
    ];
    let said = machine.kubectl(&[&run[..], &["doctor", "--no-cluster", "--node-checks"]].concat());
    assert!(
        said.contains("new pods are held back") && !said.contains("problem"),
        "{said}"
    );
    let line = "denied  shop/other -> shop/Deployment/web TCP 8080";
    let said = machine.kubectl(&[&run[..], &["flows", "--namespace", SHOP]].concat());
    assert!(
        said.contains(line) && said.contains("isolated by shop/default-deny"),
        "{said}"
    );

    let port = free_port();
    let mut command = Command::new(crate::kubernetes::program("kubectl"));
    command
        .arg(format!(
            "--kubeconfig={}",
            machine.kubernetes.kubeconfig().display()
        ))
        .args([
            "port-forward",
            "-n",
            AGENT,
            DAEMONSET,
            &format!("{port}:9471"),
        ]);
    let folder = machine.kubernetes.folder();
    let forward = Process::start("port-forward", folder, &mut command);
    forward.line(&["Forwarding from"]).await;
    let (good, said) = ringfence(&["flows", "--agent", &format!("127.0.0.1:{port}")]);
    assert!(good && said.contains(line), "{said}");
    // From elsewhere nobody is told.
    let place = machine.cluster.outside();
    let agent = machine.cluster.node(0).at(false, 9471).to_string();
    let asked = place
        .namespace
        .inside(|| ringfence(&["flows", "--agent", &agent]));
    assert!(!asked.0 && !asked.1.contains("denied  shop"), "{}", asked.1);
}

/// Pods that send from their first instant to their last, to another pod and to the world outside. The same pods without a policy
/// are heard.
async fn new_pods_are_not_heard(machine: &Machine) {
    machine.kubernetes.apply(&namespace("open").to_string());
    let note = "echo heard >>/heard";
    let port = DROP.to_string();
    let listen = ["/bin/nc", "-ll", "-p", &port, "-e", "/bin/sh", "-c", note];
    machine
        .kubernetes
        .apply(&pod("open", "listener", &listen).to_string());
    ready(machine, "open", "listener");
    let address = "jsonpath={.status.podIP}";
    let address = machine.kubectl(&["get", "pod", "-n", "open", "listener", "-o", address]);
    let outside = machine.cluster.outside();
    let world = outside.v4.to_string();
    let line = sprint(&[&world, &address]);
    let heard_of = async |namespace: &str, count: usize| {
        let capture = Capture::start(&outside.namespace);
        let names: Vec<String> = (0..count)
            .map(|number| format!("sprinter-{number}"))
            .collect();
        for name in &names {
            let pod = pod(namespace, name, &["/bin/sh", "-c", &line]);
            machine.kubernetes.apply(&pod.to_string());
        }
        for name in &names {
            let sent = async || {
                machine
                    .kubectl(&["logs", "-n", namespace, name])
                    .contains("sent")
            };
            ready(machine, namespace, name);
            machine.until("all is sent", sent).await;
        }
        // By force they are gone from the API server at once, while the kubelet has yet to end them.
        for (name, how) in names.iter().zip(["--force", "--now"].iter().cycle()) {
            machine.kubectl(&["delete", "pod", "-n", namespace, name, how, "--wait=false"]);
        }
        let ended = async || {
            machine
                .groups
                .processes(&["/bin/sh", "-c", &line])
                .is_empty()
        };
        machine.until("the pods have ended", ended).await;
        let is_pod = |address: std::net::IpAddr| match address {
            std::net::IpAddr::V4(address) => address.octets()[..3] == PODS,
            std::net::IpAddr::V6(_) => false,
        };
        let packets = capture.stop();
        let outside = packets
            .iter()
            .filter(|packet| is_pod(packet.tuple.from))
            .count();
        let read = ["exec", "-n", "open", "listener", "--", "/bin/sh", "-c"];
        let read =
            machine.kubectl(&[&read[..], &["cat /heard 2>/dev/null; rm -f /heard"]].concat());
        (outside, read.lines().count())
    };
    let denied = heard_of(SHOP, 6).await;
    let allowed = heard_of("open", 1).await;
    println!(
        "6 pods that send from their first instant to their last: {denied:?} packets and connections; without a policy one: {allowed:?}"
    );
    assert_eq!(denied, (0, 0));
    assert!(allowed.0 > 100 && allowed.1 > 50, "{allowed:?}");
}

/// New pods of a Deployment become Ready while policies come and go, and those that are gone are forgotten.
async fn updates_go_on(machine: &Machine, shop: &Shop<'_>) {
    for _ in 0..3 {
        let before = shop.addresses();
        machine.kubectl(&["rollout", "restart", "-n", SHOP, "deployment/web"]);
        machine.kubectl(&[
            "delete",
            "networkpolicy",
            "-n",
            SHOP,
            "client-to-web",
            "web-from-client",
        ]);
        shop.allow();
        let status = [
            "rollout",
            "status",
            "-n",
            SHOP,
            "deployment/web",
            "--timeout=60s",
        ];
        machine.kubectl(&status);
        shop.becomes("client", true).await;
        assert_eq!(shop.reaches("other"), Some(false));
        let forgotten = async || {
            let (table, now) = (Machine::table(), shop.addresses());
            let mut gone = before.iter().filter(|address| !now.contains(address));
            gone.all(|address| !table.contains(&format!("{address} : jump")))
        };
        machine
            .until("the pods that are gone are forgotten", forgotten)
            .await;
    }
    assert_eq!(shop.health().0, 0, "no container was started again");
}

/// Kills, restarts, no agent at all: what was denied stays denied, what was allowed goes on, no new pod slips through.
async fn agents_come_and_go(machine: &Machine, shop: &Shop<'_>) {
    let folder = machine.kubernetes.folder();
    let watch = |pod: &str, wrong: &str| {
        let ask = asking(&shop.service, 80);
        let script = format!(
            "while :; do case \"$({ask})\" in *hello*) echo heard;; *) echo silent;; esac; sleep 0.1; done"
        );
        let mut command = Command::new(crate::kubernetes::program("kubectl"));
        command
            .arg(format!(
                "--kubeconfig={}",
                machine.kubernetes.kubeconfig().display()
            ))
            .args(["exec", "-n", SHOP, pod, "--", "/bin/sh", "-c", &script]);
        (
            Process::start(&format!("watch-{pod}"), folder, &mut command),
            wrong.to_owned(),
        )
    };
    let watches = [watch("client", "silent"), watch("other", "heard")];

    let killed = machine.agent().expect("an agent").to_string();
    assert!(
        Command::new("kill")
            .args(["-KILL", &killed])
            .status()
            .unwrap()
            .success()
    );
    let another = async || machine.agent().is_some_and(|id| id.to_string() != killed);
    machine
        .until("the kubelet starts the agent again", another)
        .await;
    machine.rolled_out();
    machine.kubectl(&["delete", "pod", "-n", AGENT, "--all", "--now"]);
    machine.rolled_out();
    machine.kubectl(&["rollout", "restart", "-n", AGENT, DAEMONSET]);
    machine.rolled_out();

    // No agent at all: a new pod waits for the next one.
    let select = |value: &str| {
        let patch = format!(r#"{{"spec":{{"template":{{"spec":{{"nodeSelector":{value}}}}}}}}}"#);
        machine.kubectl(&["patch", "-n", AGENT, DAEMONSET, "-p", &patch]);
    };
    select(r#"{"nowhere": "true"}"#);
    machine
        .until("no agent", async || machine.agent().is_none())
        .await;
    assert!(Machine::table().contains("chain"), "the rules stay");
    machine
        .kubernetes
        .apply(&pod(SHOP, "late", &["/bin/sleep", "100000"]).to_string());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let phase = [
        "get",
        "pod",
        "-n",
        SHOP,
        "late",
        "-o",
        "jsonpath={.status.phase}",
    ];
    assert_eq!(machine.kubectl(&phase), "Pending");
    select("null");
    machine.rolled_out();
    ready(machine, SHOP, "late");

    for (watch, wrong) in watches {
        let log = watch.log();
        assert!(log.lines().count() > 10, "{log}");
        assert!(!log.contains(&wrong), "{log}");
    }
}

/// The component `remove`: nothing is left on the node, and new pods start without an agent.
async fn it_is_taken_away(machine: &Machine, shop: &Shop<'_>) {
    machine.install(&["cni", "remove"]);
    machine.rolled_out();
    assert_eq!(Machine::table(), "");
    let list = fs::read_to_string(machine.file("/etc/cni/net.d/10-bridge.conflist")).unwrap();
    assert!(!list.contains("ringfence"), "{list}");
    assert!(!machine.file("/opt/cni/bin/ringfence-cni").exists());
    shop.becomes("other", true).await;
    machine.kubectl(&["delete", "namespace", AGENT]);
    machine
        .kubernetes
        .apply(&pod(SHOP, "last", &["/bin/sleep", "100000"]).to_string());
    ready(machine, SHOP, "last");
    assert_eq!(Machine::table(), "");
}
