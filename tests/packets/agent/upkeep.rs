//! The agent's upkeep: beside whom it works, what it says where the kernel refuses it, how much it does at once, what it counts.

use std::io::Write as _;
use std::net::TcpStream;

use super::*;

/// Where it serves its numbers, in its node's namespace.
const ADMIN: &str = "127.0.0.1:9473";

impl Site {
    /// What the agent answers.
    fn get(&self, path: &str) -> String {
        let node = &self.cluster.node(0).namespace;
        let read = || {
            let mut stream = TcpStream::connect(ADMIN)?;
            write!(
                stream,
                "GET /{path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
            )?;
            std::io::read_to_string(stream)
        };
        node.inside(read).unwrap()
    }

    /// What the agent counts, as it is scraped.
    fn numbers(&self) -> String {
        self.get("metrics")
    }

    /// A number by the line that it stands on.
    fn number(&self, line: &str) -> u64 {
        let numbers = self.numbers();
        let mut lines = numbers.lines();
        let found = lines.find_map(|one| one.strip_prefix(line)?.trim().parse().ok());
        found.unwrap_or_else(|| panic!("{line}\n{numbers}"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_who_enforces_it_does_not_start_unless_told_so() {
    let mut site = Site::new(&["web"]).await;
    let refuses = async |name: &str, words: &[&str]| {
        let agent = site.run(name, &["--node-name", NODE]);
        agent.line(words).await;
        agent.ended().await;
        assert_eq!(site.rules(), "");
    };
    let doctor = || {
        let folder = site.cni.path().join("net.d");
        let folder = folder.to_str().unwrap();
        let look = ["doctor", "--no-cluster", "--node-checks", "--cni-conf-dir"];
        site.ringfence(&[&look[..], &[folder]].concat())
    };
    site.configure("05-calico.conflist", "calico");
    refuses("calico", &["Calico is configured", "--beside-another"]).await;
    std::fs::remove_file(site.cni.path().join("net.d/05-calico.conflist")).unwrap();

    // kube-router's plugin is a plain bridge: its rules tell.
    let node = &site.cluster.node(0).namespace;
    node.nft("add table ip filter; add chain ip filter KUBE-ROUTER-FORWARD");
    let rules = "kube-router has rules in the kernel of this node (the chain ip filter KUBE-ROUTER-FORWARD)";
    refuses("router", &[rules, "--beside-another"]).await;
    let said = doctor();
    assert!(
        said.contains("kube-router has rules for policies here"),
        "{said}"
    );

    let agent = site.run("beside", &["--node-name", NODE, "--beside-another"]);
    agent.line(&["the table is made"]).await;
    agent.line(&[rules, "what either denies is denied"]).await;
    let said = doctor();
    assert!(said.contains("and so has Ringfence's agent"), "{said}");
    node.nft("add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }");
    let said = doctor();
    let drops = "ip filter FORWARD drops what none of its rules lets pass";
    assert!(said.contains(drops), "{said}");

    // One that has begun goes on, or its rules would stay as they are.
    agent.signal("KILL");
    agent.ended().await;
    let next = site.run("next", &["--node-name", NODE]);
    next.line(&["the table is made"]).await;
    next.line(&[rules, "what either denies is denied"]).await;
    site.agent = Some(next);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_running_agent_keeps_is_not_taken_away() {
    let mut site = Site::new(&["web", "db"]).await;
    site.cluster.serve_all(&[80]);
    site.policy("default-deny", &deny_all());
    let refused = async |name: &str, more: &[&str]| {
        let arguments = [&["--cleanup", "--node-name", NODE], more].concat();
        let cleanup = site.run(name, &arguments);
        cleanup.line(&["an agent runs on this node still"]).await;
        cleanup.ended().await;
    };
    let agent = site.run("agent", &["--node-name", NODE]);
    agent.line(&["the table is made"]).await;
    site.says("True", "").await;
    refused("by-rules", &[]).await;
    assert!(site.rules().contains("chain forward"));
    agent.signal("KILL");
    agent.ended().await;

    // With the plugin it is known before anything is taken away.
    let agent = site.run("with-plugin", &["--node-name", NODE, "--cni"]);
    agent.line(&["the table is made"]).await;
    agent.line(&["the plugin is in the node's chain"]).await;
    for (name, more) in [("by-socket", &[][..]), ("plugin", &["--cni"])] {
        refused(name, more).await;
    }
    assert!(!agent.log().contains("somebody else was at the table"));
    site.agent = Some(agent);
    site.becomes("web", "db", 80, Outcome::Silent);
    assert!(site.socket().exists() && site.cni.path().join("bin/ringfence-cni").exists());
    let receipt = site.receipt().unwrap();
    assert_eq!(
        receipt["status"]["conditions"][0]["status"], "True",
        "{receipt}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_kernel_refuses_is_told_tried_again_and_made_good() {
    let mut site = Site::new(&["web", "db"]).await;
    site.cluster.serve_all(&[80]);
    let agent = site.run("agent", &["--node-name", NODE, "--admin", ADMIN]);
    agent.line(&["the table is made"]).await;
    site.agent = Some(agent);
    site.says("True", "").await;
    assert_eq!(site.number("ringfence_agent_in_force"), 1);
    let refused = r#"ringfence_agent_rebuilds_total{reason="Refused"}"#;

    // A table may be owned: then nobody else may change it while its owner is there.
    let mut owner = Command::new("nsenter")
        .arg(format!(
            "--net={}",
            site.cluster.node(0).namespace.path().display()
        ))
        .args(["nft", "-i"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut words = owner.stdin.take().unwrap();
    words
        .write_all(b"delete table inet ringfence; add table inet ringfence { flags owner; }\n")
        .unwrap();
    site.says("False", "another process owns the table").await;
    assert_eq!(site.number("ringfence_agent_in_force"), 0);
    let failures = site.number("ringfence_agent_failures_total");
    assert!(failures > 0);
    site.policy("default-deny", &deny_all());
    let ready = || site.get("readyz");
    assert!(ready().starts_with("HTTP/1.1 503"), "{}", ready());

    drop(words);
    owner.wait().unwrap();
    // What changed meanwhile is in force, too.
    site.becomes("web", "db", 80, Outcome::Silent);
    site.says("True", "").await;
    assert_eq!(site.number("ringfence_agent_in_force"), 1);
    assert!(site.number(refused) >= 1);
    assert!(ready().starts_with("HTTP/1.1 200"), "{}", ready());
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_come_together_are_one_transaction_and_all_is_counted() {
    const POLICIES: usize = 60;
    let mut site = Site::new(&["web", "db"]).await;
    site.cluster.serve_all(&[80]);
    let agent = site.run("agent", &["--node-name", NODE, "--admin", ADMIN]);
    agent.line(&["the table is made"]).await;
    site.agent = Some(agent);
    site.policy("default-deny", &deny_all());
    site.becomes("web", "db", 80, Outcome::Silent);
    let transactions = "ringfence_agent_transactions_total";
    let before = site.number(transactions);

    // Each of them alone changes what the kernel holds.
    site.agent().signal("STOP");
    let policies = (1..=POLICIES).map(|number| {
        let [(_, egress), (_, ingress)] = allow("web", "db", 80);
        let (name, mut spec) = match number {
            POLICIES => ("last".to_owned(), ingress),
            _ => (format!("to-{number}"), egress),
        };
        if number > 1 && number < POLICIES {
            spec["egress"][0]["ports"][0]["port"] = json!(1000 + number);
        }
        let object = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec,
        });
        object.to_string()
    });
    let policies: Vec<String> = policies.collect();
    site.kubernetes.apply(&policies.join("\n---\n"));
    site.agent().signal("CONT");
    site.becomes("web", "db", 80, Outcome::Answered);
    let took = site.number(transactions) - before;
    // The watches' connection may give what waits in a few pieces, more of them where the machine is busy.
    let few = 1..POLICIES as u64 / 2;
    assert!(few.contains(&took), "{took} transactions");

    let names: BTreeSet<String> = site
        .numbers()
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ringfence_agent_"))
        .map(str::to_owned)
        .collect();
    insta::assert_snapshot!(names.into_iter().collect::<Vec<_>>().join("\n"), @r"
    crafted_packets counter
    cut_connections counter
    denied_packets counter
    failures counter
    in_force gauge
    lag_seconds histogram
    link_local_packets counter
    local_pods gauge
    lost_reports counter
    policies gauge
    rebuilds counter
    spoofed_packets counter
    staged_packets counter
    transactions counter
    unchecked_pods gauge
    unknown_packets counter
    ");
    // Counters are read every few seconds.
    let denied = r#"ringfence_agent_denied_packets_total{direction="Egress"} "#;
    Kubernetes::eventually("denied packets are counted", async || {
        (site.number(denied) > 0).then_some(())
    })
    .await;
    assert!(site.number("ringfence_agent_lag_seconds_count") > 0);
    assert_eq!(site.number("ringfence_agent_lost_reports_total"), 0);
    assert_eq!(site.number("ringfence_agent_local_pods"), 2);
}

/// Runs `agent --prepare` on a node without `br_netfilter` whose files are below a root, and gives what it says.
fn prepared(root: &Path) -> String {
    let hidden = "echo 0 >/proc/sys/net/ipv4/ip_forward && mkdir -p \"$1/switches\" && mount -t tmpfs none /proc/sys/net/bridge && \
        mount --bind /proc/sys/net/bridge \"$1/switches\" && \
        \"$0\" agent --prepare --host-root \"$1\" && { head -v /proc/sys/net/bridge/* || true; }";
    let output = Command::new("unshare")
        .args(["--mount", "--net", "sh", "-c", hidden])
        .arg(env!("CARGO_BIN_EXE_ringfence"))
        .arg(root)
        .output()
        .unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn a_node_is_prepared_by_its_own_modprobe() {
    let root = tempfile::tempdir().unwrap();
    let said = prepared(root.path());
    assert!(
        said.contains("br_netfilter cannot be loaded: modprobe: No such file"),
        "{said}"
    );

    let source = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/packets/agent/modprobe.c"
    );
    std::fs::create_dir_all(root.path().join("sbin")).unwrap();
    let built = Command::new("cc")
        .args(["-static", "-O1", "-Wall", "-Werror", "-o"])
        .arg(root.path().join("sbin/modprobe"))
        .arg(source)
        .output()
        .unwrap();
    assert!(built.status.success(), "{built:?}");
    let said = prepared(root.path());
    assert!(
        said.contains("FATAL: Module br_netfilter not found"),
        "{said}"
    );

    std::fs::write(root.path().join("found"), "").unwrap();
    let said = prepared(root.path());
    assert!(
        said.contains("packets between pods on one bridge meet the rules now"),
        "{said}"
    );
    for switch in ["call-iptables", "call-ip6tables", "filter-vlan-tagged"] {
        let on = format!("==> /proc/sys/net/bridge/bridge-nf-{switch} <==\n1\n");
        assert!(said.contains(&on), "{said}");
    }
    // What else is missing is told, and nothing of what is there now.
    assert!(said.contains("net.ipv4.ip_forward is not 1"), "{said}");
    assert!(!said.contains("nf-call-iptables is not"), "{said}");
}
