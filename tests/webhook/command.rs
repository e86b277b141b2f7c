//! `ringfence webhook` as its users start it: a folder of manifests for a cluster, followed as it changes.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Client, Http};

/// Nothing here takes so long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

const DEFAULT_DENY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
";

/// The program while a test runs.
pub(crate) struct Program {
    child: Child,
    pub(crate) address: SocketAddr,
    log: mpsc::Receiver<String>,
    pub(crate) ca: String,
}

impl Program {
    /// Starts it on a free port and waits until it listens.
    pub(crate) fn start(folder: &Path, arguments: &[&str]) -> Self {
        let ca = folder.with_file_name("ca.crt");
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence"));
        command.args([
            "webhook",
            "--listen",
            "127.0.0.1:0",
            "--log-format",
            "json",
            "--drain-delay",
            "0",
        ]);
        command.arg("--manifests").arg(folder).args(arguments);
        if !arguments.contains(&"--tls-cert") {
            command.arg("--ca-out").arg(&ca);
        }
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let (sender, log) = mpsc::channel();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        std::thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        let mut program = Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            log,
            ca: String::new(),
        };
        let line = program.logged("\"listening\"");
        program.address = line["address"].as_str().unwrap().parse().unwrap();
        program.ca = std::fs::read_to_string(ca).unwrap_or_default();
        program
    }

    /// Waits for a line of the log.
    pub(crate) fn logged(&self, part: &str) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self
                .log
                .recv_timeout(left)
                .unwrap_or_else(|_| panic!("no line with {part}"));
            if line.contains(part) {
                return serde_json::from_str(&line).unwrap();
            }
        }
    }

    /// Whether a deployment in the namespace `shop` may be created.
    async fn allows(&self) -> bool {
        let mut client = Client::new(self.address, &[&self.ca], Http::One);
        let answer = client
            .post("/validate?timeout=10s", review().to_string())
            .await
            .unwrap();
        let answer: Value = serde_json::from_str(answer.text()).unwrap();
        answer["response"]["allowed"].as_bool().unwrap()
    }

    /// Asks it to stop, as a kubelet does, and waits until it has.
    pub(crate) fn stop(mut self) -> ExitStatus {
        let status = Command::new("kill")
            .arg(self.child.id().to_string())
            .status()
            .unwrap();
        assert!(status.success());
        self.child.wait().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn review() -> Value {
    let kind = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
    let labels = json!({"app": "web", "tier": "front", "team": "shop"});
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u", "kind": kind, "resource": {"group": "apps", "version": "v1", "resource": "deployments"},
            "name": "web", "namespace": "shop", "operation": "CREATE", "userInfo": {"username": "alice"},
            "object": {
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop", "labels": labels},
                "spec": {"selector": {"matchLabels": labels}, "template": {
                    "metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "x"}]}}}
            }
        }
    })
}

pub(crate) fn folder() -> (tempfile::TempDir, std::path::PathBuf) {
    let top = tempfile::tempdir().unwrap();
    let manifests = top.path().join("manifests");
    std::fs::create_dir(&manifests).unwrap();
    std::fs::write(
        manifests.join("namespace.yaml"),
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n",
    )
    .unwrap();
    (top, manifests)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_folder_is_the_cluster_and_its_changes_are_taken_up() {
    let (_top, manifests) = folder();
    let program = Program::start(&manifests, &[]);
    assert!(
        !program.allows().await,
        "the namespace has no default-deny yet"
    );

    std::fs::write(manifests.join("policy.yaml"), DEFAULT_DENY).unwrap();
    program.logged("state taken up");
    assert!(program.allows().await);

    // What cannot be read changes nothing, and is told with its place.
    std::fs::write(manifests.join("broken.yaml"), "apiVersion: v1\nkind: [\n").unwrap();
    let line = program.logged("last good state stays");
    assert!(
        line["error"].as_str().unwrap().contains("broken.yaml:"),
        "{line}"
    );
    assert!(program.allows().await);

    std::fs::remove_file(manifests.join("policy.yaml")).unwrap();
    std::fs::remove_file(manifests.join("broken.yaml")).unwrap();
    program.logged("state taken up");
    assert!(!program.allows().await);

    assert_eq!(program.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guardrail_in_audit_lets_the_same_thing_pass() {
    let (top, manifests) = folder();
    let guardrail = top.path().join("guardrail.yaml");
    let audit = "apiVersion: ringfence.dev/v1alpha1\nkind: Guardrail\nmetadata: {name: g}\nspec: {mode: MODE, coverage: {}}\n";
    std::fs::write(&guardrail, audit.replace("MODE", "Audit")).unwrap();
    let program = Program::start(&manifests, &["--guardrail", guardrail.to_str().unwrap()]);
    assert!(program.allows().await);

    std::fs::write(&guardrail, audit.replace("MODE", "Enforce")).unwrap();
    program.logged("state taken up");
    assert!(!program.allows().await);
}

#[test]
fn what_cannot_be_started_says_why_and_exits_with_2() {
    let (top, manifests) = folder();
    let bad = top.path().join("bad.yaml");
    std::fs::write(&bad, "apiVersion: ringfence.dev/v1alpha1\nkind: Guardrail\nmetadata: {name: g}\nspec: {mod: Audit}\n").unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence"));
        let output = command
            .args(["webhook", "--listen", "127.0.0.1:0", "--manifests"])
            .arg(&manifests)
            .args(arguments)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, text) = run(&["--guardrail", bad.to_str().unwrap()]);
    assert_eq!(code, Some(2));
    assert!(
        text.contains("bad.yaml:4:") && text.contains("mod"),
        "{text}"
    );

    let (code, text) = run(&["--tls-cert", "nowhere.crt", "--tls-key", "nowhere.key"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("nowhere.crt"), "{text}");

    let (code, text) = run(&["--name", "not a name"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("not a name"), "{text}");
}

/// What the command line refuses of a file beside the example shop: name of the object and id, sorted.
fn refused_by_check(shop: &Path, file: &Path) -> Vec<(String, String)> {
    let output = Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .args(["check", "--output", "json"])
        .args([shop, file])
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap().to_owned();
    let mut refused: Vec<(String, String)> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| {
            finding["outcome"] == "refused" && finding["file"] == file.to_str().unwrap()
        })
        .map(|finding| (text(finding, "name"), text(finding, "id")))
        .collect();
    refused.sort();
    refused
}

#[tokio::test(flavor = "multi_thread")]
async fn the_webhook_and_the_command_line_refuse_the_same() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples");
    let shop = examples.join("shop");
    let (_top, manifests) = folder();
    for entry in std::fs::read_dir(&shop).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, manifests.join(path.file_name().unwrap())).unwrap();
    }
    let program = Program::start(&manifests, &[]);
    let mut client = Client::new(program.address, &[&program.ca], Http::One);
    let mut compared = 0;
    for entry in std::fs::read_dir(examples.join("violations")).unwrap() {
        let file = entry.unwrap().path();
        let input = ringfence::k8s::manifests::Input::Path(file.clone());
        let loaded =
            ringfence::k8s::manifests::load(vec![input], &ringfence::k8s::yaml::Limits::default());
        let mut refused = Vec::new();
        for manifest in loaded.manifests {
            let review = crate::cluster::review("CREATE", &manifest.value, &Value::Null);
            let answer = client
                .post("/validate?timeout=10s", review.to_string())
                .await
                .unwrap();
            let answer: Value = serde_json::from_str(answer.text()).unwrap();
            let causes = answer["response"]["status"]["details"]["causes"]
                .as_array()
                .cloned();
            let name = manifest.value["metadata"]["name"].as_str().unwrap();
            refused.extend(causes.unwrap_or_default().iter().map(|cause| {
                (
                    name.to_owned(),
                    cause["reason"].as_str().unwrap().to_owned(),
                )
            }));
            compared += 1;
        }
        refused.sort();
        assert_eq!(
            refused,
            refused_by_check(&shop, &file),
            "{}",
            file.display()
        );
    }
    assert!(compared >= 13, "{compared}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_any_more_does_not_end_the_program() {
    let (_top, manifests) = folder();
    let mut program = Program::start(&manifests, &[]);
    // With its receiver gone the reader ends at the next line and closes the pipe.
    drop(std::mem::replace(&mut program.log, mpsc::channel().1));
    let mut client = Client::new(program.address, &[&program.ca], Http::One);
    for _ in 0..20 {
        let answer = client.post("/validate", "nonsense, which is logged").await;
        assert_eq!(answer.unwrap().status, 400);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(client.connections, 1);
    assert!(!program.allows().await, "it goes on judging");
}
