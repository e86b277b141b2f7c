//! `ringfence webhook`: serve the admission webhook, judging against a cluster or against a folder of manifests.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use kube::Client;
use tokio::sync::watch;

use super::clients::ClientArgs;
use super::cluster::{ClusterArgs, host};
use super::inputs::{Inputs, engine};
use super::logs::LogArgs;
use super::shown::{Place, ShownArgs};
use super::traces::TraceArgs;
use super::{Exit, ended};
use crate::guard::decide::State;
use crate::guard::engine::Budget;
use crate::guard::engine::PolicyEngine;
use crate::k8s::changes::{self, Changes};
use crate::k8s::events::{self, Reporter};
use crate::k8s::live::{self, Live, ReadLimits};
use crate::runtime::{Readiness, Tasks, Trigger, admin, follow_signals};
use crate::telemetry::certificates::CertificateMetrics;
use crate::telemetry::events::EventMetrics;
use crate::telemetry::metrics;
use crate::webhook::cluster::Cluster;
use crate::webhook::deadline::go_duration;
use crate::webhook::metrics::Metrics;
use crate::webhook::router::{OnFailure, ReviewLimit, Webhook, WebhookOptions};
use crate::webhook::server::{self, Ending, ServerOptions};
use crate::webhook::tls::clients::ClientMetrics;

/// Arguments of `ringfence webhook`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:\n  \
    ringfence webhook --manifests deploy/ --listen 127.0.0.1:8443 --ca-out ca.crt\n  \
    curl --cacert ca.crt https://127.0.0.1:8443/readyz\n  \
    ringfence webhook --kubeconfig ~/.kube/config --context staging\n\n\
    With neither --manifests nor --kubeconfig nor --context it judges against the cluster whose pod it runs in. There \
    the Guardrails of the cluster are in force, and without any, nothing is refused or changed.\n\n\
    A change in the folders, the guardrails or the policies is taken up within a second; what cannot be read is \
    logged, and the last good state stays in force.")]
pub struct Args {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Folders or files of manifests that requests are judged against, as if they were the cluster.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["kubeconfig", "context"])]
    manifests: Vec<PathBuf>,
    /// A file or folder with Guardrails (and Exemptions). Without it: the Guardrails among the manifests, else the
    /// built-in one.
    #[arg(long, value_name = "FILE", requires = "manifests")]
    guardrail: Vec<PathBuf>,
    /// A folder of your own policies in Rego.
    #[arg(long, value_name = "DIR")]
    policies: Vec<PathBuf>,
    /// The address to listen on.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8443")]
    listen: SocketAddr,
    #[command(flatten)]
    shown: ShownArgs,
    #[command(flatten)]
    clients: ClientArgs,
    /// The namespace of the installation, where the controller keeps the certificate. Without it: the pod's own, or
    /// ringfence-system by a kubeconfig.
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// What follows when a request cannot be judged in time.
    #[arg(long, value_name = "DIRECTION", default_value = "by-mode")]
    on_failure: OnFailure,
    /// The most pods that one check may look at.
    #[arg(long, value_name = "N", default_value_t = Budget::PODS)]
    max_pods: usize,
    /// Serve /livez, /readyz and /metrics on this address, over plain HTTP. Probes have to use it with --client-ca.
    #[arg(long, value_name = "ADDR:PORT")]
    admin: Option<SocketAddr>,
    /// How old the state may be when the API server is not heard, such as 90s or 5m; beyond it follows --on-failure.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = time)]
    state_age_limit: Duration,
    /// Write no Kubernetes Events of what was refused or would be in mode Enforce.
    #[arg(long, conflicts_with = "manifests")]
    no_events: bool,
    /// How long new connections are still accepted after the first signal, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    drain_delay: u64,
    #[command(flatten)]
    traces: TraceArgs,
    #[command(flatten)]
    log: LogArgs,
}

/// Serves until told to stop.
pub(super) fn run(args: Args) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let traces = args.traces.start("ringfence-webhook", runtime.handle())?;
    args.log.start(traces.as_ref())?;
    let ending = runtime.block_on(serve(args));
    if let Some(traces) = traces {
        traces.finish();
    }
    ending
}

async fn serve(args: Args) -> anyhow::Result<Exit> {
    let (trigger, shutdown) = Trigger::new();
    let mut tasks = Tasks::new();
    tasks.spawn("signals", follow_signals(trigger));

    let readiness = Readiness::new(shutdown.clone());
    let mut numbers = metrics::registry();
    let counted = Arc::new(Metrics::default());
    counted.register(&mut numbers);
    let client_metrics = ClientMetrics::default();
    client_metrics.register(&mut numbers);
    let certificate_metrics = CertificateMetrics::new(&mut numbers);
    let (known, cluster, place) = if args.manifests.is_empty() {
        let place = args.place().await?;
        let cluster = cluster(&args, &place.client, &readiness, &mut tasks)?;
        let events = (!args.no_events).then(|| {
            let reporter = Reporter::new(events::WEBHOOK, &host());
            let counted = EventMetrics::new(&mut numbers);
            let (events, task) = events::writer(place.client.clone(), reporter, counted);
            tasks.spawn("events", task);
            events
        });
        let cluster = cluster.telling(events);
        cluster.live().register(&mut numbers);
        let known = Arc::clone(&cluster.live().state);
        (known, Some(cluster), Some(place))
    } else {
        (folder(&args, &mut tasks)?, None, None)
    };
    if let Some(address) = args.admin {
        let listener = admin::listen(address).await.context("--admin")?;
        tracing::info!(address = %listener.local_addr()?, "admin port");
        let router = admin::router(readiness.clone(), Arc::new(numbers));
        tasks.spawn("admin", admin::serve(listener, router, shutdown.clone()));
    }
    let slot = args.shown.slot(
        place.as_ref(),
        &certificate_metrics,
        &mut tasks,
        shutdown.clone(),
    );
    let Some(slot) = slot.await? else {
        return Ok(Exit::Clean);
    };
    let clients = args.clients.clients(&mut tasks)?;
    let tls = args.shown.tls(slot, clients.clone())?;
    let listener = server::listen(args.listen)?;
    let address = listener.local_addr()?;
    if let Some(place) = &place {
        ShownArgs::prove(
            place,
            address,
            clients.as_deref(),
            &readiness,
            &certificate_metrics,
            &mut tasks,
        );
    }
    let options = WebhookOptions {
        on_failure: args.on_failure,
        reviews: ReviewLimit {
            pods: args.max_pods,
            ..ReviewLimit::default()
        },
        ..WebhookOptions::default()
    };
    let webhook = Webhook::in_front_of(cluster, known, counted, readiness, options);
    let router = webhook.router();
    let server_options = ServerOptions {
        drain_delay: Duration::from_secs(args.drain_delay),
        clients: client_metrics,
        ..ServerOptions::default()
    };
    tracing::info!(%address, "listening");
    tokio::select! {
        ending = server::run(listener, tls, router, server_options, shutdown.clone()) => Ok(match ending {
            Ending::Finished => Exit::Clean,
            Ending::Cut(connections) => {
                tracing::warn!(connections, "connections were cut");
                Exit::Failed
            }
        }),
        end = ended(&mut tasks, shutdown) => end,
    }
}

/// A cluster, followed.
fn cluster(
    args: &Args,
    client: &Client,
    readiness: &Readiness,
    tasks: &mut Tasks,
) -> anyhow::Result<Cluster> {
    let changes = changes::watch(&args.policies).context("cannot watch the policies")?;
    let (sender, engine) = watch::channel(engine(&args.policies)?);
    if !args.policies.is_empty() {
        tasks.spawn(
            "policies",
            follow_policies(args.policies.clone(), changes, sender),
        );
    }
    let live = live::follow(
        client,
        live::Options::following(engine),
        readiness.clone(),
        tasks,
    );
    tasks.spawn("first state", tell_of_first(live.clone()));
    Ok(Cluster::new(
        live,
        client.clone(),
        ReadLimits::default(),
        args.state_age_limit,
    ))
}

/// Logs what a cluster was found to hold.
async fn tell_of_first(live: Live) -> anyhow::Result<()> {
    live.changed().wait_for(|published| *published > 0).await?;
    describe(&live.state.load());
    std::future::pending().await
}

/// Reads the policies in Rego again when a file changes. What cannot be read leaves the last good ones in force.
async fn follow_policies(
    policies: Vec<PathBuf>,
    mut changes: Changes,
    engines: watch::Sender<Arc<dyn PolicyEngine>>,
) -> anyhow::Result<()> {
    while changes.next().await {
        let policies = policies.clone();
        match tokio::task::spawn_blocking(move || engine(&policies)).await? {
            Ok(engine) => {
                tracing::info!(rego = engine.registry().len(), "policies taken up");
                engines.send_replace(engine);
            }
            Err(error) => tracing::warn!(
                error = format!("{error:#}"),
                "not taken up, the last good policies stay"
            ),
        }
    }
    bail!("the files are not watched any more")
}

/// The state of a folder, read again when a file changes.
fn folder(args: &Args, tasks: &mut Tasks) -> anyhow::Result<Arc<ArcSwap<State>>> {
    // Watched before it is read, so that no change falls in between.
    let changes = changes::watch(&args.watched()).context("cannot watch the files")?;
    let state = args.state()?;
    describe(&state);
    let known = Arc::new(ArcSwap::from_pointee(state));
    tasks.spawn(
        "manifests",
        follow(args.clone(), changes, Arc::clone(&known)),
    );
    Ok(known)
}

/// Reads everything again when a file changes. What cannot be read leaves the last good state in force.
async fn follow(
    args: Args,
    mut changes: Changes,
    known: Arc<ArcSwap<State>>,
) -> anyhow::Result<()> {
    let args = Arc::new(args);
    while changes.next().await {
        let args = Arc::clone(&args);
        match tokio::task::spawn_blocking(move || args.state()).await? {
            Ok(state) => {
                let state = Arc::new(state);
                known.store(Arc::clone(&state));
                describe(&state);
            }
            Err(error) => tracing::warn!(
                error = format!("{error:#}"),
                "not taken up, the last good state stays"
            ),
        }
    }
    bail!("the files are not watched any more")
}

/// A time as Go and Kubernetes write it.
fn time(text: &str) -> Result<Duration, String> {
    go_duration(text).ok_or_else(|| "must be a time such as 90s or 5m".to_owned())
}

fn describe(state: &State) {
    tracing::info!(
        namespaces = state.snapshot.namespaces().count(),
        pods = state.snapshot.pods().count(),
        policies = state.snapshot.policies().count(),
        guardrails = state.guardrails.iter().count(),
        exemptions = state.exemptions.iter().count(),
        rego = state.engine.registry().len(),
        "state taken up"
    );
}

// === impl Args ===

impl Args {
    /// The cluster that it is for.
    async fn place(&self) -> anyhow::Result<Place> {
        let client = self.cluster.connect().await?;
        let namespace = self
            .cluster
            .installation(&client, self.namespace.as_deref());
        Ok(Place { client, namespace })
    }

    /// What the state is made of.
    fn watched(&self) -> Vec<PathBuf> {
        let paths = self.manifests.iter().chain(&self.guardrail);
        paths.chain(&self.policies).cloned().collect()
    }

    /// Reads everything on threads that end with it: the allocator gives back what a thread had when it ends, not what
    /// an idle one keeps.
    fn state(&self) -> anyhow::Result<State> {
        let readers = rayon::ThreadPoolBuilder::new().build()?;
        readers.install(|| self.read_state())
    }

    fn read_state(&self) -> anyhow::Result<State> {
        let inputs = Inputs::of(
            self.manifests.clone(),
            self.guardrail.clone(),
            self.policies.clone(),
        );
        let folder = inputs.read()?;
        if let Some(error) = folder.first_error() {
            bail!("{error}");
        }
        inputs.state(&folder)
    }
}
