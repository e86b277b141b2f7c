//! `deploy/install` as a user applies it: webhook and controller are pods, and an API server on another machine reaches them
//! through their Service, while the agent of `deploy/agent` holds them to their own network policies.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::machine::{Machine, SYSTEM, on_a_worker, runtime};
use crate::shop::{
    SHOP, Shop, allow, asking, deny_all, deployment, manifests, namespace, pod, ready,
};

const PARTS: [&str; 2] = ["webhook", "controller"];
/// A namespace in which the controller keeps a baseline.
const FRESH: &str = "fresh";
/// Where nothing covers anything.
const BARE: &str = "bare";
/// What is registered.
const REGISTERED: &str = "validatingwebhookconfigurations,mutatingwebhookconfigurations";
/// How long an answer may take that no network policy stands in the way of.
const NEAR: Duration = Duration::from_secs(1);

const GUARDRAILS: &str = "
apiVersion: ringfence.dev/v1alpha1
kind: Guardrail
metadata: {name: covered}
spec:
  namespaceSelector: {matchLabels: {stage: prod}}
  mode: Enforce
  coverage: {}
---
apiVersion: ringfence.dev/v1alpha1
kind: Guardrail
metadata: {name: kept}
spec:
  namespaceSelector: {matchLabels: {stage: fresh}}
  mode: Enforce
  coverage: {}
  baseline: {}
";

#[test]
#[ignore = "needs the programs of a node, which `tests/run --only node` installs and builds"]
fn the_installation_of_the_manifests_judges_what_comes_through_its_service() {
    on_a_worker(async |machine| {
        machine.install(&["cni", "prepare"]);
        machine.rolled_out();
        machine.say("the agent enforces");
        machine.kubernetes.apply(&report_definitions());
        for (name, stage) in [(SHOP, "prod"), (BARE, "prod"), ("monitoring", "none")] {
            machine.kubernetes.apply(&staged(name, stage).to_string());
        }
        let overlay = machine.overlay("install", &[]);
        machine.kubectl(&["apply", "--server-side", "-k", &overlay]);
        rolled_out(machine);
        machine.say("webhook and controller are Ready");
        // Without a Guardrail nothing is registered.
        assert_eq!(machine.kubectl(&["get", REGISTERED, "-o", "name"]), "");
        uncovered(machine).expect("nothing is refused");
        nobody_exempts_by_writing(machine).await;

        machine.kubernetes.apply(GUARDRAILS);
        it_is_registered_by_its_service(machine).await;
        let refused = async || uncovered(machine).is_err();
        let took = machine
            .until("what is not covered is refused", refused)
            .await;
        machine.say(&format!(
            "refused, {took:.1?} after the registration was seen"
        ));
        let said = uncovered(machine).unwrap_err();
        println!("{said}");
        assert!(
            said.contains("\"fail.validate.ringfence.dev\" denied the request"),
            "{said}"
        );
        assert!(said.contains("RF201"), "{said}");

        let shop = a_good_folder_is_admitted(machine).await;
        machine.say("a folder with its policies is admitted, and its pods run");
        a_new_namespace_has_its_baseline(machine);
        machine.say("a new namespace has its baseline, and its pods run");
        it_is_held_to_its_own_policies(machine).await;
        machine.say("its own policies hold, and nobody is locked out");
        replicas_are_replaced(machine);
        people_are_told(machine).await;
        for part in PARTS {
            memory(machine, part);
        }
        it_was_never_started_again(machine);

        machine.kubectl(&["delete", "-k", &overlay, "--timeout=180s"]);
        machine.say("uninstalled");
        assert_eq!(machine.kubectl(&["get", REGISTERED, "-o", "name"]), "");
        uncovered(machine).expect("nothing is refused");
        the_agent_goes_on(machine, &shop).await;
        machine.kubectl(&["apply", "--server-side", "-k", &overlay]);
        rolled_out(machine);
        let confirmed = async || machine.ringfence_on_cluster("status").0;
        machine
            .until("every policy is confirmed again", confirmed)
            .await;
        machine.say("installed again");
    });
}

/// A namespace of a stage.
fn staged(name: &str, stage: &str) -> Value {
    let mut namespace = namespace(name);
    namespace["metadata"]["labels"] = json!({"stage": stage});
    namespace
}

/// Waits until all that is installed is Ready.
fn rolled_out(machine: &Machine) {
    for part in PARTS {
        let name = format!("deployment/ringfence-{part}");
        machine.kubectl(&["rollout", "status", "-n", SYSTEM, &name, "--timeout=120s"]);
    }
}

/// Whether a Deployment that no policy covers would be taken, or what kubectl says.
fn uncovered(machine: &Machine) -> Result<(), String> {
    let manifest = deployment(BARE, "web", 1).to_string();
    let arguments = ["apply", "--dry-run=server", "-f", "-"];
    let output = machine.kubernetes.kubectl(&arguments, &manifest);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    output.status.success().then_some(()).ok_or(said)
}

/// Whoever may write an Exemption, and exempt from no Guardrail, is refused while no webhook is asked.
async fn nobody_exempts_by_writing(machine: &Machine) {
    let verb = ["create", "role", "writer", "-n", BARE, "--verb=create"];
    let resource = ["--resource=exemptions.ringfence.dev"];
    machine.kubectl(&[&verb[..], &resource].concat());
    let bind = ["create", "rolebinding", "jane", "-n", BARE, "--role=writer"];
    machine.kubectl(&[&bind[..], &["--user=jane"]].concat());
    let exemption = json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": "Exemption",
        "metadata": {"name": "mine", "namespace": BARE},
        "spec": {
            "checks": ["RF201"], "objects": [{"kind": "Deployment", "name": "web"}],
            "reason": "r", "owner": "o", "expires": "2100-01-01T00:00:00Z",
        },
    });
    let create = ["create", "--as=jane", "--dry-run=server", "-f", "-"];
    let refused = async || {
        let output = machine.kubernetes.kubectl(&create, &exemption.to_string());
        String::from_utf8_lossy(&output.stderr)
            .contains("user `jane` may not exempt from every guardrail")
    };
    machine.until("an Exemption is refused", refused).await;
}

async fn it_is_registered_by_its_service(machine: &Machine) {
    let get = ["get", REGISTERED, "-o", "json"];
    let all = || -> Vec<Value> {
        let list: Value = serde_json::from_str(&machine.kubectl(&get)).unwrap();
        let items = list["items"].as_array().unwrap().iter();
        let entries = items.flat_map(|item| item["webhooks"].as_array().unwrap().clone());
        entries.collect()
    };
    let fails = async || {
        let all = all();
        // Of both Guardrails, and of the baseline to add to policies.
        all.len() == 4 && all.iter().any(|entry| entry["failurePolicy"] == "Fail")
    };
    machine.until("it is registered", fails).await;
    for entry in all() {
        let (client, name) = (&entry["clientConfig"], entry["name"].as_str().unwrap());
        let service = &client["service"];
        assert_eq!(service["namespace"], SYSTEM, "{name}");
        assert_eq!(service["name"], "ringfence-webhook", "{name}");
        let mutates = name == "mutate.ringfence.dev";
        assert_eq!(
            service["path"],
            if mutates { "/mutate" } else { "/validate" },
            "{name}"
        );
        assert!(client["url"].is_null(), "{name}");
        assert!(!client["caBundle"].as_str().unwrap().is_empty(), "{name}");
    }
}

/// Policies, a Deployment, its Service and pods in one folder.
async fn a_good_folder_is_admitted(machine: &Machine) -> Shop<'_> {
    let folder = machine.kubernetes.folder().join("shop");
    fs::create_dir(&folder).unwrap();
    let policies = [deny_all()].into_iter().chain(allow());
    for (number, manifest) in policies.chain(manifests()).enumerate() {
        let path = folder.join(format!("{number:02}.json"));
        fs::write(path, manifest.to_string()).unwrap();
    }
    machine.kubectl(&["apply", "-f", folder.to_str().unwrap()]);
    let shop = Shop::opened(machine);
    shop.becomes("client", true).await;
    assert_eq!(shop.reaches("other"), Some(false));
    shop
}

/// A Deployment comes in one go with its namespace, before the policy that the controller makes for it.
fn a_new_namespace_has_its_baseline(machine: &Machine) {
    let both = [staged(FRESH, "fresh"), deployment(FRESH, "web", 2)];
    machine
        .kubernetes
        .apply(&both.map(|it| it.to_string()).join("\n---\n"));
    let status = [
        "rollout",
        "status",
        "-n",
        FRESH,
        "deployment/web",
        "--timeout=60s",
    ];
    machine.kubectl(&status);
    machine.kubectl(&["get", "networkpolicy", "-n", FRESH, "ringfence-baseline"]);
}

/// `deploy/install/network.yaml`, as the agent enforces it: who is let in is, who is not is not, and without the policy for it
/// the API server is locked out.
async fn it_is_held_to_its_own_policies(machine: &Machine) {
    let confirmed = async || machine.ringfence_on_cluster("status").0;
    machine.until("every policy is confirmed", confirmed).await;
    let addresses = [
        "get",
        "pods",
        "-n",
        SYSTEM,
        "-l",
        "app.kubernetes.io/component=webhook",
        "-o",
        "jsonpath={.items[*].status.podIP}",
    ];
    let addresses = machine.kubectl(&addresses);
    let address = addresses.split(' ').next().unwrap();
    machine.kubernetes.apply(&namespace("open").to_string());
    for (namespace, wanted) in [("monitoring", true), ("open", false)] {
        let asker = pod(namespace, "asker", &["/bin/sleep", "100000"]);
        let there = async || {
            let output = machine
                .kubernetes
                .kubectl(&["apply", "-f", "-"], &asker.to_string());
            output.status.success()
        };
        // Its service account may be a moment late.
        machine.until("the pod is taken", there).await;
        ready(machine, namespace, "asker");
        let ask = format!("{}; exit 0", asking(address, 8080));
        let run = [
            "exec", "-n", namespace, "asker", "--", "/bin/sh", "-c", &ask,
        ];
        let answer = machine.kubectl(&run);
        assert_eq!(answer.contains("/readyz"), wanted, "{namespace}: {answer}");
    }
    let outside = &machine.cluster.outside().namespace;
    for (port, wanted) in [(8443, true), (8080, false)] {
        let to = SocketAddr::new(address.parse().unwrap(), port);
        let is_open = outside.inside(|| TcpStream::connect_timeout(&to, NEAR).is_ok());
        assert_eq!(is_open, wanted, "from the control plane to {port}");
    }

    machine.kubectl(&["delete", "networkpolicy", "-n", SYSTEM, "webhook"]);
    let says = async |words: &str| uncovered(machine).unwrap_err().contains(words);
    let locked_out = async || says("failed calling webhook").await;
    machine
        .until("the API server is locked out", locked_out)
        .await;
    let overlay = machine.overlay("install", &[]);
    machine.kubectl(&["apply", "--server-side", "-k", &overlay]);
    let let_in = async || says("RF201").await;
    machine.until("the API server is let in", let_in).await;
}

/// Every request is answered, and by the webhook, while all replicas of both parts are replaced.
fn replicas_are_replaced(machine: &Machine) {
    let over = AtomicBool::new(false);
    let ask = async |namespace: &str, wanted: &str| {
        let api: Api<Deployment> = Api::namespaced(machine.kubernetes.client().await, namespace);
        let object = serde_json::from_value(deployment(namespace, "dry", 1)).unwrap();
        let dry = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let (mut took, mut wrong) = (Vec::new(), Vec::new());
        while !over.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let said = match api.create(&dry, &object).await {
                Ok(_) => "taken".to_owned(),
                Err(error) => error.to_string(),
            };
            took.push(begun.elapsed());
            if !said.contains(wanted) {
                wrong.push(said);
            }
        }
        (took, wrong)
    };
    let (mut took, wrong) = thread::scope(|scope| {
        let askers = scope.spawn(|| {
            let all = [(SHOP, "taken"), (BARE, "RF201")].repeat(2);
            let all = all
                .into_iter()
                .map(|(namespace, wanted)| ask(namespace, wanted));
            let all = runtime().block_on(join_all(all));
            let (took, wrong): (Vec<_>, Vec<_>) = all.into_iter().unzip();
            (took.concat(), wrong.concat())
        });
        for _ in 0..2 {
            for part in PARTS {
                let name = format!("deployment/ringfence-{part}");
                machine.kubectl(&["rollout", "restart", "-n", SYSTEM, &name]);
            }
            rolled_out(machine);
            // Until the last of the old ones has drained.
            let begun = Instant::now();
            while machine
                .groups
                .processes(&["/bin/ringfence", "webhook"])
                .len()
                > 2
            {
                assert!(
                    begun.elapsed() < Duration::from_mins(1),
                    "{}",
                    machine.logs()
                );
                thread::sleep(Duration::from_millis(100));
            }
        }
        over.store(true, Ordering::Relaxed);
        askers.join().unwrap()
    });
    took.sort();
    let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
    machine.say(&format!(
        "all replicas were replaced twice: {} requests, {} without their answer; p50 {:.1?}, p99 {:.1?}, longest {:.1?}",
        took.len(),
        wrong.len(),
        at(50),
        at(99),
        at(100)
    ));
    assert!(took.len() > 200 && wrong.is_empty(), "{wrong:?}");
}

/// The agent has lost its kinds with the others, and holds on to network policies.
async fn the_agent_goes_on(machine: &Machine, shop: &Shop<'_>) {
    assert_eq!(shop.reaches("client"), Some(true));
    machine.kubectl(&["delete", "networkpolicy", "-n", SHOP, "client-to-web"]);
    shop.becomes("client", false).await;
    machine.rolled_out();
}

/// Statuses and reports.
async fn people_are_told(machine: &Machine) {
    let accepted = async || {
        let said = machine.kubectl(&["get", "guardrails", "--no-headers"]);
        said.lines().count() == 2 && said.lines().all(|line| line.contains(" True "))
    };
    machine
        .until("both Guardrails are accepted", accepted)
        .await;
    print!("{}", machine.kubectl(&["get", "guardrails"]));
    let reported = async || {
        let passed = "jsonpath={.items[*].summary.pass}";
        let said = machine.kubectl(&["get", "policyreports", "-n", SHOP, "-o", passed]);
        said.trim().parse::<u32>().is_ok_and(|passed| passed > 0)
    };
    machine.until("the shop has a report", reported).await;
}

/// Prints the memory of a part's processes.
fn memory(machine: &Machine, part: &str) {
    let processes = machine.groups.processes(&["/bin/ringfence", part]);
    assert_eq!(processes.len(), 2, "{part}");
    for id in processes {
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let of = |key: &str| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(key))
                .unwrap();
            line.trim().to_owned()
        };
        println!(
            "a {part} takes {}, of which {} are its own data; {} at most",
            of("VmRSS:"),
            of("RssAnon:"),
            of("VmHWM:")
        );
    }
}

/// Probes and limits never ended a container.
fn it_was_never_started_again(machine: &Machine) {
    let counts = "jsonpath={.items[*].status.containerStatuses[*].restartCount}";
    let counts = machine.kubectl(&["get", "pods", "-n", SYSTEM, "-o", counts]);
    let none = counts.split(' ').all(|count| count == "0");
    assert!(none, "{counts}\n{}", machine.logs());
}

/// The kinds of reports, which are somebody else's.
fn report_definitions() -> String {
    let kinds = [
        ("PolicyReport", "policyreports", "Namespaced"),
        ("ClusterPolicyReport", "clusterpolicyreports", "Cluster"),
    ];
    let definitions = kinds.map(|(kind, plural, scope)| {
        let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let version = json!({
            "name": "v1alpha2", "served": true, "storage": true, "schema": {"openAPIV3Schema": anything},
        });
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.wgpolicyk8s.io")},
            "spec": {
                "group": "wgpolicyk8s.io", "scope": scope, "versions": [version],
                "names": {"kind": kind, "plural": plural},
            },
        })
    });
    definitions
        .map(|definition| definition.to_string())
        .join("\n---\n")
}
