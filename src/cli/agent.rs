//! `ringfence agent`: make network policies hold on this node, by nftables.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::extract::Query;
use axum::response::IntoResponse as _;
use axum::routing::get;
use axum::{Extension, Router};
use clap::ValueEnum;
use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::sync::{mpsc, watch};

use super::cluster::{self, ClusterArgs};
use super::logs::LogArgs;
use super::{Exit, ended};
use crate::agent::cni::install::{Change, InstallError, Installer};
use crate::agent::cni::list::{Entry, WhenDown};
use crate::agent::cni::{self, kept, server};
use crate::agent::enforce::Enforcer;
use crate::agent::flows::Recent;
use crate::agent::host::{self, Bridged, HostError};
use crate::agent::told::Teller;
use crate::agent::{self, beside, doctor, receipt, remove};
use crate::guard::enforcement::{self, doctor::Level};
use crate::k8s::events::{self, Reporter};
use crate::k8s::live;
use crate::netpol::{NodeName, Port};
use crate::ruleset::{Options, VXLAN_PORTS};
use crate::runtime::admin::Peer;
use crate::runtime::{Phase, Readiness, Tasks, Trigger, admin, follow_signals};
use crate::telemetry::agent::AgentMetrics;
use crate::telemetry::events::EventMetrics;
use crate::telemetry::metrics;

/// Arguments of `ringfence agent`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    ringfence agent                                   in a pod on the host network, as the DaemonSet runs it\n  \
    ringfence agent --kubeconfig FILE --node-name worker-1\n  \
    ringfence agent --cleanup                         take the rules away again\n\n\
    The agent needs the capability NET_ADMIN in the node's network namespace. It makes the tables `inet ringfence` and\n\
    `bridge ringfence` and touches no other. When it stops, however it stops, the rules stay: only --cleanup takes them away.")]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct Args {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The node whose pods are held to their policies. Without it: the host's name.
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    node_name: Option<String>,
    /// Take the rules away, and with --cni the plugin, say so in the receipt, and end; with --admin stay and be ready, as a
    /// DaemonSet wants it. Not while an agent runs, which would put them back.
    #[arg(long)]
    cleanup: bool,
    /// Make packets between pods on one bridge meet the rules (net.bridge.bridge-nf-call-iptables and -ip6tables, and
    /// bridge-nf-filter-vlan-tagged for bridges with VLANs), say what else the node lacks, and end.
    #[arg(long, conflicts_with = "cleanup")]
    prepare: bool,
    /// Where the node's own files are seen: its modprobe loads `br_netfilter` where that is missing. For a privileged container.
    #[arg(long, value_name = "DIR", requires = "prepare")]
    host_root: Option<PathBuf>,
    /// Enforce although another network plugin on this node does so, too.
    #[arg(long)]
    beside_another: bool,
    /// Hold each new pod back until its rules are in force, by a plugin at the end of the node's chain of network plugins, which
    /// is put there and kept there. Needs write access to the two folders below.
    #[arg(long)]
    cni: bool,
    /// Where the node's network plugins are configured.
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    cni_conf_dir: PathBuf,
    /// Where the node's network plugins are.
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    cni_bin_dir: PathBuf,
    /// The socket at which the plugin asks the agent, as both see it.
    #[arg(long, value_name = "FILE", default_value = cni::SOCKET)]
    cni_socket: PathBuf,
    /// What becomes of a new pod while the agent is down.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = Down::Fail)]
    when_agent_is_down: Down,
    /// Drop what comes from or goes to addresses of the node's blocks for pods that are no known pod's: then no pod sends
    /// anything before its policies hold it, also without --cni, and none while an agent is down.
    #[arg(long)]
    drop_unknown: bool,
    /// These blocks, instead of the Node's spec.podCIDRs.
    #[arg(long, value_name = "CIDR", requires = "drop_unknown")]
    pod_cidr: Vec<IpNet>,
    /// Whether what pods send must be theirs: where --cni told behind which interface a pod is, no other sender, no word of who
    /// routes and, on a bridge, nothing but IP and ARP; and no VXLAN to nodes, which would take it for the overlay's own.
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = AntiSpoofing::Auto)]
    anti_spoofing: AntiSpoofing,
    /// The UDP ports at which nodes take VXLAN.
    #[arg(long, value_name = "PORT", value_delimiter = ',', default_values_t = VXLAN_PORTS,
        value_parser = clap::value_parser!(u16).range(1..))]
    vxlan_port: Vec<u16>,
    /// The NFLOG group that denied packets are told to: another one where something else listens to this.
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    log_group: u16,
    /// How many connections a second are told of that are let through, for `ringfence suggest` and `replay`; 0 for none.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    sample: u32,
    /// Tell pods with their labels, so that `ringfence suggest` and `replay` need no manifests.
    #[arg(long)]
    flow_labels: bool,
    /// How many denied packets a second are told for each set of policies, at most. All are counted.
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    log_rate: u32,
    /// Write no receipt (`NodeEnforcement`).
    #[arg(long)]
    no_receipt: bool,
    /// Write no Kubernetes Events on the pods whose packets are denied.
    #[arg(long)]
    no_events: bool,
    /// Where to serve /livez, /readyz and /metrics over plain HTTP, and /flows to who asks from this node. Without it: nowhere.
    #[arg(long, value_name = "ADDR:PORT")]
    admin: Option<SocketAddr>,
    #[command(flatten)]
    log: LogArgs,
}

/// What becomes of a new pod while the agent is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Down {
    /// It does not start; the kubelet tries again.
    Fail,
    /// It starts without its rules.
    Pass,
}

/// Whether what pods send is held to be theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AntiSpoofing {
    /// Where it can be known.
    Auto,
    /// It is not.
    Off,
}

/// How long a new pod waits for the agent, in seconds.
const PATIENCE: u64 = 10;
/// How long calls of the plugin that have begun are given before it is removed, and how soon an agent that runs makes rules again
/// that were taken away.
const PAUSE: Duration = Duration::from_secs(2);
/// What is told where somebody is at work still.
const RUNS: &str =
    "an agent runs on this node still and keeps what is to be taken away: end it first";
/// How long an agent is given to end, and the API server to take the last word.
const LAST_WORD: Duration = Duration::from_secs(10);
/// What is told where it has not.
const UNSAID: &str = "the receipt is as it was, and counts for ten minutes at most";

/// Runs until told to stop.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    args.log.start(None)?;
    if args.cleanup {
        return clean_up(args);
    }
    if args.prepare {
        return prepare(args);
    }
    // Rules that packets do not meet hold nobody.
    Args::tell_of_bridges(host::bridged()?);
    if !args.beside_another {
        beside::nobody(&args.cni_conf_dir)?;
    }
    several_threads()?.block_on(work(args))
}

/// Takes all of it off the node. An agent that runs still would put it back: one with the plugin is known by its socket; one
/// without makes the rules again, but for one that has not heard of the whole cluster yet.
fn clean_up(args: &Args) -> anyhow::Result<Exit> {
    if server::answers(&args.cni_socket, LAST_WORD) {
        bail!("{RUNS}");
    }
    if args.cni {
        let removed = args.installer()?.remove(PAUSE);
        removed.context("the plugin is not taken out of the node's chain")?;
        tracing::info!("the plugin is taken out of the node's chain");
    }
    remove().context("the rules are not taken away")?;
    std::thread::sleep(PAUSE);
    if agent::has_table()? || server::answers(&args.cni_socket, Duration::ZERO) {
        bail!("{RUNS}");
    }
    if args.cni {
        kept::forget(&args.cni_socket).context("what the plugin told is not taken away")?;
    }
    tracing::info!("the rules are taken away");
    let runtime = several_threads()?;
    if !args.no_receipt {
        runtime.block_on(retract(args));
    }
    match args.admin {
        Some(address) => runtime.block_on(stay(address)),
        None => Ok(Exit::Clean),
    }
}

/// Says in the receipt that nothing is enforced any more, where the API server can be asked: what was last said there would
/// count until it is too old.
async fn retract(args: &Args) {
    let said = async {
        let (client, node) = (args.cluster.connect().await?, args.node()?);
        let is_there = receipt::retract(client, &node).await?;
        Ok::<_, anyhow::Error>((node, is_there))
    };
    match tokio::time::timeout(LAST_WORD, said).await {
        Ok(Ok((node, true))) => tracing::info!(%node, "the receipt says so"),
        Ok(Ok((node, false))) => {
            tracing::info!(%node, "there is no receipt of this node to say so in");
        }
        Ok(Err(error)) => tracing::warn!("{UNSAID}: {error:#}"),
        Err(_) => tracing::warn!("{UNSAID}: the API server does not answer"),
    }
}

/// Makes the node ready as far as it goes, and says what is missing. What is not needed on every node is no error.
fn prepare(args: &Args) -> anyhow::Result<Exit> {
    match host::prepare(args.host_root.as_deref()) {
        Ok(Bridged::SwitchedOn) => Args::tell_of_bridges(Bridged::SwitchedOn),
        Ok(Bridged::Judged | Bridged::NoSwitch) => {}
        Err(error @ HostError::NotLoaded(_)) => tracing::warn!("{error}"),
        Err(error) => return Err(error.into()),
    }
    let checks = enforcement::doctor::node(&doctor::look(&args.cni_conf_dir, true));
    for check in &checks {
        let advice = check.advice.as_deref().unwrap_or_default();
        match check.level {
            Level::Ok => {}
            Level::Warning => tracing::info!(check = check.id, advice, "{}", check.says),
            Level::Problem | Level::Unknown => {
                tracing::warn!(check = check.id, advice, "{}", check.says);
            }
        }
    }
    Ok(Exit::Clean)
}

fn several_threads() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}

/// Has nothing left to do, and says so to who asks, until told to stop.
async fn stay(address: SocketAddr) -> anyhow::Result<Exit> {
    let (trigger, mut shutdown) = Trigger::new();
    let mut tasks = Tasks::new();
    tasks.spawn("signals", follow_signals(trigger));
    let listener = admin::listen(address).await.context("--admin")?;
    let readiness = Readiness::new(shutdown.clone());
    let router = admin::router(readiness, Arc::new(metrics::registry()));
    tasks.spawn("admin", admin::serve(listener, router, shutdown.clone()));
    let running = shutdown.clone();
    tokio::select! {
        () = shutdown.reached(Phase::Draining) => Ok(Exit::Clean),
        end = ended(&mut tasks, running) => end,
    }
}

async fn work(args: &Args) -> anyhow::Result<Exit> {
    let (trigger, shutdown) = Trigger::new();
    let mut tasks = Tasks::new();
    tasks.spawn("signals", follow_signals(trigger));
    let client = args.cluster.connect().await?;
    let node = args.node()?;

    let mut numbers = metrics::registry();
    let counted = AgentMetrics::new(&mut numbers);
    let readiness = Readiness::new(shutdown.clone());
    let options = Options {
        log_group: args.log_group,
        log_rate: args.log_rate,
        sample_rate: args.sample,
        known_only: args.known_only(&client, &node).await?,
        own_sources: args.anti_spoofing == AntiSpoofing::Auto,
        vxlan_ports: args.vxlan_ports(),
        ..Options::new(node.clone())
    };
    if !options.own_sources {
        agent::remove_bridge().context("--anti-spoofing off")?;
    }
    let mut enforcer = Enforcer::new(options, counted.clone(), readiness.clone())?;
    if args.cni {
        enforcer = enforcer.keeping_beside(&args.cni_socket);
    }
    let events = (!args.no_events).then(|| {
        let reporter = Reporter::new(events::AGENT, node.as_str());
        let counted = EventMetrics::new(&mut numbers);
        let (events, task) = events::writer(client.clone(), reporter, counted);
        tasks.spawn("events", task);
        events
    });
    let (snapshot, behind) = (enforcer.snapshot(), enforcer.behind());
    let teller = Teller::new(node.clone(), snapshot, behind, counted)
        .telling(events)
        .with_labels(args.flow_labels);
    if let Some(address) = args.admin {
        let listener = admin::listen(address).await.context("--admin")?;
        let router =
            admin::router(readiness, Arc::new(numbers)).merge(flows_router(teller.recent()));
        tasks.spawn("admin", admin::serve(listener, router, shutdown.clone()));
    }
    tasks.spawn("told", teller.run(args.log_group));
    if !args.no_receipt {
        let held = enforcer.held();
        tasks.spawn(
            "receipt",
            receipt::write(client.clone(), node.clone(), held),
        );
    }
    let (asks, asked) = mpsc::channel(64);
    if args.cni {
        let path = args.cni_socket.display();
        let listener =
            server::bind(&args.cni_socket).with_context(|| format!("--cni-socket {path}"))?;
        tasks.spawn("cni", async move {
            server::serve(listener, asks).await;
            Ok::<(), Infallible>(())
        });
        let installer = args.installer()?;
        tasks.spawn("cni-chain", async move {
            // Nobody stops it but the end of the process: the plugin stays for the next agent.
            let (_forever, stop) = watch::channel(false);
            installer.keep(stop, tell_chain).await;
            Ok::<(), Infallible>(())
        });
    }
    tasks.spawn("beside", beside::watch(args.cni_conf_dir.clone()));
    let feed = live::feed(&client, &mut tasks);
    tracing::info!(node = %node, "following the cluster");
    tokio::select! {
        end = enforcer.run(feed, asked, shutdown.clone()) => {
            end?;
            tracing::info!("stopped; the rules stay");
            Ok(Exit::Clean)
        }
        end = ended(&mut tasks, shutdown) => end,
    }
}

/// The last flows, for who asks on the node itself: they tell who talks to whom.
fn flows_router(recent: Recent) -> Router {
    #[derive(serde::Deserialize)]
    struct Asked {
        #[serde(default)]
        from: u64,
    }
    let flows = async move |Extension(Peer(peer)): Extension<Peer>, Query(asked): Query<Asked>| {
        if !peer.ip().to_canonical().is_loopback() {
            let words = "flows are told on the node itself only, and by kubectl port-forward\n";
            return (StatusCode::FORBIDDEN, words).into_response();
        }
        match serde_json::to_string(&recent.from(asked.from)) {
            Ok(text) => ([(CONTENT_TYPE, "application/json")], text).into_response(),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    };
    Router::new().route("/flows", get(flows))
}

fn tell_chain(outcome: Result<Change, InstallError>) {
    match outcome {
        Ok(_) => tracing::info!("the plugin is in the node's chain"),
        Err(error) => tracing::warn!(%error, "the plugin is not in the node's chain, trying again"),
    }
}

// === impl Args ===

impl Args {
    fn installer(&self) -> anyhow::Result<Installer> {
        let when_down = match self.when_agent_is_down {
            Down::Fail => WhenDown::Fail,
            Down::Pass => WhenDown::Pass,
        };
        let socket = self
            .cni_socket
            .to_str()
            .context("--cni-socket: not a text")?;
        Ok(Installer {
            configurations: self.cni_conf_dir.clone(),
            plugins: self.cni_bin_dir.clone(),
            binary: std::env::current_exe().context("where this program is")?,
            entry: Entry::new(socket, when_down, PATIENCE),
        })
    }

    fn tell_of_bridges(bridged: Bridged) {
        match bridged {
            Bridged::Judged => {}
            Bridged::SwitchedOn => {
                tracing::info!("packets between pods on one bridge meet the rules now");
            }
            Bridged::NoSwitch => tracing::warn!(
                "br_netfilter is not loaded: if pods of this node share a bridge, packets between them do not meet the rules"
            ),
        }
    }

    /// The blocks in which every address must be a known pod's.
    async fn known_only(&self, client: &Client, node: &NodeName) -> anyhow::Result<Vec<IpNet>> {
        if !self.drop_unknown || !self.pod_cidr.is_empty() {
            return Ok(self.pod_cidr.clone());
        }
        let nodes: Api<Node> = Api::all(client.clone());
        // The role lets it list and not get.
        let only = ListParams::default().fields(&format!("metadata.name={node}"));
        let found = nodes.list(&only).await.context("--drop-unknown")?;
        let spec = found.items.into_iter().next().and_then(|node| node.spec);
        let blocks = spec.and_then(|spec| spec.pod_cidrs).unwrap_or_default();
        if blocks.is_empty() {
            bail!("--drop-unknown: the Node {node} has no spec.podCIDRs; say --pod-cidr");
        }
        let parsed = blocks.iter().map(|block| block.parse());
        parsed
            .collect::<Result<_, _>>()
            .context("--drop-unknown: spec.podCIDRs of the Node")
    }

    /// The ports of VXLAN at which pods are kept from nodes.
    fn vxlan_ports(&self) -> BTreeSet<Port> {
        match self.anti_spoofing {
            AntiSpoofing::Auto => {
                let ports = self.vxlan_port.iter();
                ports.filter_map(|port| Port::new(*port)).collect()
            }
            AntiSpoofing::Off => BTreeSet::new(),
        }
    }

    fn node(&self) -> anyhow::Result<NodeName> {
        let name = self.node_name.clone().unwrap_or_else(cluster::host);
        if name.is_empty() {
            bail!("--node-name: say which node this is, the host has no name");
        }
        Ok(NodeName::from(name))
    }
}
