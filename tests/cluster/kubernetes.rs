//! A Kubernetes control plane of the test's own: etcd, one API server or more, and the controller manager if wanted.
//! Everything listens on loopback unless told otherwise, keeps its files in one temporary folder and ends with the test.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Namespace;
use kube::config::{KubeConfigOptions, Kubeconfig};
use ringfence::certs::{Authority, Names, Validity};
use tokio::sync::OnceCell;

use crate::process::Process;

/// The release that `tests/cluster/go.mod` asks for.
const RELEASE: &str = "1.36.3";
/// The token of a member of `system:masters`; good for nothing but this control plane.
const TOKEN: &str = "admin";
/// That of a controller manager whose controllers have no credentials of their own.
const MANAGER: &str = "manager";
/// The address at which pods find the API server.
const SERVICE: &str = "10.96.0.1";

/// Where an API server listens that has a machine of its own.
pub(crate) const PORT: u16 = 6443;

/// A control plane. It ends when this is dropped.
pub(crate) struct Kubernetes {
    // In the order in which they are to end.
    manager: Option<Process>,
    servers: Mutex<Vec<Option<Process>>>,
    address: Ipv4Addr,
    ports: Vec<u16>,
    etcd_port: u16,
    folder: PathBuf,
    _etcd: Process,
}

/// Where `tests/run` keeps programs of this release of Kubernetes.
pub(crate) fn tools(name: &str) -> PathBuf {
    kept(&format!("{name}-{RELEASE}"))
}

/// Where `tests/run` keeps programs.
pub(crate) fn kept(name: &str) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || Path::new(&std::env::var_os("HOME").unwrap()).join(".cache"),
        PathBuf::from,
    );
    cache.join("ringfence/tools").join(name)
}

/// The path of one of the Kubernetes programs.
pub(crate) fn program(name: &str) -> PathBuf {
    let folder =
        std::env::var_os("KUBEBUILDER_ASSETS").map_or_else(|| tools("kubernetes"), PathBuf::from);
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is missing: `tests/run --only kubernetes` builds it",
        path.display()
    );
    path
}

/// A port that nobody listens on at this moment.
pub(crate) fn free_port() -> u16 {
    // None that the system gives to whoever connects: it would be taken again before a server listens there.
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Programs that run at once begin far from each other.
    let begin = std::process::id().wrapping_mul(131);
    let ports = std::iter::repeat_with(|| {
        let taken = TAKEN.fetch_add(1, Ordering::Relaxed);
        u16::try_from(FIRST + begin.wrapping_add(taken) % COUNT).unwrap()
    });
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    ports.take(1_000).find(is_free).expect("a free port")
}

impl Kubernetes {
    /// The control plane that all tests share who do not change it as a whole: each works in namespaces of its own and
    /// registers nothing.
    pub(crate) async fn shared() -> &'static Self {
        static SHARED: OnceCell<Kubernetes> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// A control plane without the controller manager.
    pub(crate) async fn start() -> Self {
        Self::with_servers(1).await
    }

    /// A control plane in which Deployments make pods, namespaces end and what has no owner any more is collected.
    pub(crate) async fn start_with_manager() -> Self {
        let mut this = Self::start().await;
        this.start_manager();
        this
    }

    /// The same, with one credential for all controllers.
    pub(crate) async fn start_with_one_credential() -> Self {
        let mut this = Self::start().await;
        let text = std::fs::read_to_string(this.kubeconfig()).unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
        config["users"][0]["user"]["token"] = MANAGER.into();
        let file = this.folder.join("manager.kubeconfig");
        std::fs::write(&file, config.to_string()).unwrap();
        this.start_manager_as(&file, "--use-service-account-credentials=false");
        this
    }

    /// The same, at an address that others reach it at, too, such as the kubelet of that machine. Its port is [`PORT`].
    pub(crate) async fn start_at(address: Ipv4Addr) -> Self {
        let mut this = Self::with_servers_at(address, vec![PORT]).await;
        this.start_manager();
        this
    }

    fn start_manager(&mut self) {
        self.start_manager_as(&self.kubeconfig(), "--use-service-account-credentials");
    }

    fn start_manager_as(&mut self, kubeconfig: &Path, credentials: &str) {
        let mut command = Command::new(program("kube-controller-manager"));
        command.args([
            &format!("--kubeconfig={}", kubeconfig.display()),
            &format!("--service-account-private-key-file={}", self.file("sa.key")),
            &format!("--root-ca-file={}", self.file("ca.crt")),
            credentials,
            "--leader-elect=false",
            "--secure-port=0",
        ]);
        self.manager = Some(Process::start(
            "kube-controller-manager",
            &self.folder,
            &mut command,
        ));
    }

    /// A control plane with several API servers on one etcd.
    pub(crate) async fn with_servers(count: usize) -> Self {
        let ports = (0..count).map(|_| free_port()).collect();
        Self::with_servers_at(Ipv4Addr::LOCALHOST, ports).await
    }

    async fn with_servers_at(address: Ipv4Addr, ports: Vec<u16>) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("ringfence-cluster-")
            .tempdir()
            .unwrap()
            .keep();
        prepare(&folder, address);
        let (etcd_port, peers) = (free_port(), free_port());
        let mut command = Command::new(program("etcd"));
        command.args([
            &format!("--data-dir={}", folder.join("etcd").display()),
            &format!("--listen-client-urls=http://127.0.0.1:{etcd_port}"),
            &format!("--advertise-client-urls=http://127.0.0.1:{etcd_port}"),
            &format!("--listen-peer-urls=http://127.0.0.1:{peers}"),
            &format!("--initial-advertise-peer-urls=http://127.0.0.1:{peers}"),
            &format!("--initial-cluster=default=http://127.0.0.1:{peers}"),
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]);
        let etcd = Process::start_and_remove("etcd", &folder, &mut command, Some(&folder));
        let this = Self {
            manager: None,
            servers: Mutex::default(),
            address,
            ports,
            etcd_port,
            folder,
            _etcd: etcd,
        };
        for (index, port) in this.ports.iter().enumerate() {
            let address = SocketAddr::from((address, *port));
            kubeconfig(&this.folder, &format!("server-{index}"), address);
            this.servers().push(None);
            this.start_server(index).await;
        }
        this
    }

    /// Starts an API server that was stopped, at its old address, and waits until it is ready.
    pub(crate) async fn start_server(&self, index: usize) {
        self.start_server_with(index, &[]).await;
    }

    /// The same, with these arguments more.
    pub(crate) async fn start_server_with(&self, index: usize, more: &[&str]) {
        let port = self.ports[index];
        let name = format!("kube-apiserver-{index}");
        let mut command = Command::new(program("kube-apiserver"));
        command.args([
            &format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port),
            &format!("--secure-port={port}"),
            &format!("--bind-address={}", self.address),
            &format!("--advertise-address={}", self.address),
            "--endpoint-reconciler-type=none",
            "--kubelet-preferred-address-types=InternalIP",
            &format!("--tls-cert-file={}", self.file("server.crt")),
            &format!("--tls-private-key-file={}", self.file("server.key")),
            &format!("--cert-dir={}", self.file(&name)),
            &format!("--service-account-key-file={}", self.file("sa.pub")),
            &format!("--service-account-signing-key-file={}", self.file("sa.key")),
            "--service-account-issuer=https://kubernetes.default.svc",
            &format!("--token-auth-file={}", self.file("tokens.csv")),
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--allow-privileged=true",
            &format!("--audit-policy-file={}", self.file("audit.yaml")),
            &format!("--audit-log-path={}", self.audit_log(index).display()),
        ]);
        command.args(more);
        let process = Process::start(&name, &self.folder, &mut command);
        let begun = Instant::now();
        let client = self.client_of(index).await;
        loop {
            let ready = client.request_text(http_get("/readyz")).await;
            if ready.is_ok_and(|text| text == "ok") {
                break;
            }
            assert!(process.is_running(), "{name} ended:\n{}", process.log());
            assert!(
                begun.elapsed() < Duration::from_secs(90),
                "{name} is not ready:\n{}",
                process.log()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.servers()[index] = Some(process);
    }

    /// Starts the first API server anew as one whose watches cannot begin with all that is there, as they could not before
    /// Kubernetes 1.32.
    pub(crate) async fn without_beginnings(&self) {
        self.stop_server(0);
        self.start_server_with(0, &["--feature-gates=WatchList=false"])
            .await;
    }

    /// Kills an API server.
    pub(crate) fn stop_server(&self, index: usize) {
        let process = self.servers()[index].take();
        drop(process);
    }

    /// A client of a member of `system:masters`.
    pub(crate) async fn client(&self) -> kube::Client {
        self.client_of(0).await
    }

    /// The same, of one of several API servers.
    pub(crate) async fn client_of(&self, index: usize) -> kube::Client {
        let mut config = self.config(index).await;
        // A test that waits for one answer for minutes is a test that hangs.
        config.read_timeout = Some(Duration::from_mins(5));
        kube::Client::try_from(config).unwrap()
    }

    /// A client that acts as somebody else, with these groups beside `system:authenticated`.
    pub(crate) async fn client_as(&self, user: &str, groups: &[&str]) -> kube::Client {
        let mut config = self.config(0).await;
        config.auth_info.impersonate = Some(user.to_owned());
        let groups = groups.iter().copied().chain(["system:authenticated"]);
        config.auth_info.impersonate_groups = Some(groups.map(str::to_owned).collect());
        kube::Client::try_from(config).unwrap()
    }

    async fn config(&self, index: usize) -> kube::Config {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let file = self.kubeconfig_of(index);
        let kubeconfig = Kubeconfig::read_from(file).unwrap();
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .unwrap()
    }

    /// The kubeconfig of a member of `system:masters`.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig_of(0)
    }

    /// The same, of one of several API servers.
    pub(crate) fn kubeconfig_of(&self, index: usize) -> PathBuf {
        self.folder.join(format!("server-{index}.kubeconfig"))
    }

    /// What an API server's audit log holds, one JSON object per line.
    pub(crate) fn audit_log(&self, index: usize) -> PathBuf {
        self.folder.join(format!("audit-{index}.log"))
    }

    /// A folder for files of the test, gone with the control plane.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs kubectl with something on its standard input.
    pub(crate) fn kubectl(&self, arguments: &[&str], input: &str) -> Output {
        use std::io::Write as _;
        let mut child = Command::new(program("kubectl"))
            .arg(format!("--kubeconfig={}", self.kubeconfig().display()))
            .arg(format!("--cache-dir={}", self.file("kubectl-cache")))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // kubectl may end without having read all of it.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// `kubectl apply` of manifests, which must work; gives what it prints.
    pub(crate) fn apply(&self, manifests: &str) -> String {
        let apply = || {
            let output = self.kubectl(&["apply", "-f", "-"], manifests);
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            (output, errors)
        };
        let (mut output, mut errors) = apply();
        // The cluster makes the ServiceAccount of a new namespace, too, and may do so between kubectl's look and its write.
        if errors.contains("(AlreadyExists)") {
            (output, errors) = apply();
        }
        assert!(output.status.success(), "{errors}");
        String::from_utf8_lossy(&output.stdout).into_owned() + &errors
    }

    /// Ringfence's own program, with the kubeconfig and these arguments.
    pub(crate) fn ringfence(&self, name: &str, subcommand: &str, arguments: &[&str]) -> Process {
        Process::start(name, &self.folder, &mut self.command(subcommand, arguments))
    }

    /// Where the first API server is.
    pub(crate) fn address(&self) -> SocketAddr {
        let text = std::fs::read_to_string(self.kubeconfig()).unwrap();
        let config: serde_json::Value = serde_json::from_str(&text).unwrap();
        let server = config["clusters"][0]["cluster"]["server"].as_str().unwrap();
        server.trim_start_matches("https://").parse().unwrap()
    }

    /// The same, not started yet.
    pub(crate) fn command(&self, subcommand: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence"));
        command
            .arg(subcommand)
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(arguments);
        command
    }

    /// Waits until an API server answers as it should, for instance once it has taken a registration up.
    pub(crate) async fn eventually<T, F>(what: &str, mut attempt: impl FnMut() -> F) -> T
    where
        F: Future<Output = Option<T>>,
    {
        let begun = Instant::now();
        loop {
            if let Some(found) = attempt().await {
                return found;
            }
            assert!(begun.elapsed() < Duration::from_mins(3), "not seen: {what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a namespace is gone.
    pub(crate) async fn gone(&self, namespace: &str) {
        let namespaces: kube::Api<Namespace> = kube::Api::all(self.client().await);
        let gone = async || {
            let there = namespaces.get_opt(namespace).await.unwrap();
            there.is_none().then_some(())
        };
        Self::eventually("the namespace gone", gone).await;
    }

    fn servers(&self) -> std::sync::MutexGuard<'_, Vec<Option<Process>>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

fn http_get(path: &str) -> hyper::Request<Vec<u8>> {
    hyper::Request::get(path).body(Vec::new()).unwrap()
}

/// Keys, certificates and users, made anew for each control plane.
fn prepare(folder: &Path, address: Ipv4Addr) {
    let names = Names::parse([
        "127.0.0.1",
        &address.to_string(),
        SERVICE,
        "localhost",
        "kubernetes",
        "kubernetes.default.svc",
    ])
    .unwrap();
    // Good for programs whose clocks a test moves by days.
    let (now, days) = (Timestamp::now(), SignedDuration::from_hours(7 * 24));
    let validity = Validity::between(now - days, now + days).unwrap();
    let authority = Authority::generate("test cluster", names.clone(), validity).unwrap();
    let leaf = authority.issue(&names, validity).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write("ca.crt", authority.certificate_pem());
    write("server.crt", leaf.certificate_pem());
    write("server.key", leaf.key().expose());
    let accounts = rcgen::KeyPair::generate().unwrap();
    write("sa.key", &accounts.serialize_pem());
    write("sa.pub", &accounts.public_key_pem());
    write(
        "tokens.csv",
        &format!(
            "{TOKEN},admin,admin,\"system:masters\"\n\
             {MANAGER},system:kube-controller-manager,manager,\"system:masters\"\n"
        ),
    );
    // What anybody changes, with whom they act as; what is read only of the accounts whose roles are tried.
    write(
        "audit.yaml",
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n\
         - level: Metadata\n  verbs: [create, update, patch, delete, deletecollection]\n\
         - level: Metadata\n  userGroups:\n      - system:serviceaccounts:ringfence-system\n      - system:serviceaccounts:ringfence-agent\n- level: None\n",
    );
}

fn kubeconfig(folder: &Path, name: &str, address: SocketAddr) {
    let authority = folder.join("ca.crt");
    let text = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {
            "server": format!("https://{address}"), "certificate-authority": authority,
        }}],
        "users": [{"name": "admin", "user": {"token": TOKEN}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        "current-context": "test",
    });
    std::fs::write(folder.join(format!("{name}.kubeconfig")), text.to_string()).unwrap();
}
