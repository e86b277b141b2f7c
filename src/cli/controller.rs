//! `ringfence controller`: keep the webhook registered, its certificates good, and what Guardrails demand in place.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};

use super::certs::SignedDurationArg;
use super::cluster::{ClusterArgs, host};
use super::inputs::engine;
use super::logs::LogArgs;
use super::traces::TraceArgs;
use super::{Exit, ended};
use crate::certs::Names;
use crate::controller::certificates::Terms;
use crate::controller::lease::{Election, Ending, Times};
use crate::controller::registration::{MANAGED_BY, Options, Target};
use crate::controller::{AGENTS, Certificates, Controller, FIELD_MANAGER, LEASE, Metrics};
use crate::k8s::events::{self, Reporter};
use crate::k8s::live;
use crate::report::policy_report::Form;
use crate::runtime::{Readiness, Tasks, Trigger, admin, follow_signals};
use crate::telemetry::events::EventMetrics;
use crate::telemetry::metrics;

/// Arguments of `ringfence controller`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    ringfence controller                                    in a pod of the cluster, as the chart runs it\n  \
    ringfence controller --kubeconfig ~/.kube/config --webhook-url https://192.0.2.20:8443\n  \
    ringfence controller --ca-bundle /certs/ca.crt          certificates are made by somebody else\n\n\
    Several may run: one leads, by a Lease, and the others wait. Without any Guardrail or ReachabilityRule in the \
    cluster nothing is registered, and the API server never asks the webhook.")]
pub struct Args {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The namespace of the installation. Without it: the pod's own, or ringfence-system by a kubeconfig, where it is
    /// made when it is not there.
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// Where the API server finds a webhook that runs outside of the cluster, without a path.
    #[arg(long, value_name = "URL", value_parser = parse_url)]
    webhook_url: Option<String>,
    /// The Service of the webhook, in the namespace of the installation.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "ringfence-webhook",
        conflicts_with = "webhook_url"
    )]
    webhook_service: String,
    /// The Service's port.
    #[arg(
        long,
        value_name = "PORT",
        default_value_t = 443,
        conflicts_with = "webhook_url"
    )]
    webhook_port: u16,
    /// How long the API server waits for an answer of the webhook, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=30))]
    webhook_timeout: u8,
    /// A namespace that no request is asked about from; may be repeated. The installation's own, that of the node agents
    /// (ringfence-agent), kube-system, kube-public and kube-node-lease always are such.
    #[arg(long = "leave-out", value_name = "NAMESPACE")]
    leave_out: Vec<String>,
    /// Offer workloads and namespaces to the mutating side too: for policies in Rego of your own that change them.
    #[arg(long)]
    mutate_workloads: bool,
    /// A file with the authorities (PEM) that sign the webhook's certificate, when somebody else makes it, such as
    /// cert-manager. Read again when it changes.
    #[arg(long, value_name = "FILE")]
    ca_bundle: Option<PathBuf>,
    /// How long a certificate of the webhook holds; a new one is made when a third of it is left.
    #[arg(long, value_name = "TIME", default_value = "30d")]
    leaf_validity: SignedDurationArg,
    /// How long the authority holds that signs them; the next one is made when a third of it is left.
    #[arg(long, value_name = "TIME", default_value = "365d")]
    ca_validity: SignedDurationArg,
    /// How long a new authority is published before it signs: an API server never says that it has taken it up.
    #[arg(long, value_name = "TIME", default_value = "5m")]
    hold: SignedDurationArg,
    /// The API that reports of what exists are written in, where its definitions are installed.
    #[arg(long, value_name = "API", default_value = "policy-report")]
    reports: Reports,
    /// The name of this process among the candidates; without it, the host's name and something by chance.
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// Write no Kubernetes Events of what becomes of certificates and baselines.
    #[arg(long)]
    no_events: bool,
    /// A folder of your own policies in Rego.
    #[arg(long, value_name = "DIR")]
    policies: Vec<PathBuf>,
    /// Where to serve /livez, /readyz and /metrics over plain HTTP. Without it: nowhere.
    #[arg(long, value_name = "ADDR:PORT")]
    admin: Option<SocketAddr>,
    #[command(flatten)]
    traces: TraceArgs,
    #[command(flatten)]
    log: LogArgs,
}

/// An API for reports, as an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Reports {
    /// `PolicyReport` and `ClusterPolicyReport`, wgpolicyk8s.io/v1alpha2.
    PolicyReport,
    /// `Report` and `ClusterReport`, openreports.io/v1alpha1.
    OpenReport,
}

/// Runs until told to stop.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let traces = args
        .traces
        .start("ringfence-controller", runtime.handle())?;
    args.log.start(traces.as_ref())?;
    let ending = runtime.block_on(work(args));
    if let Some(traces) = traces {
        traces.finish();
    }
    ending
}

async fn work(args: &Args) -> anyhow::Result<Exit> {
    let (trigger, shutdown) = Trigger::new();
    let mut tasks = Tasks::new();
    tasks.spawn("signals", follow_signals(trigger));
    let client = args.cluster.connect().await?;
    let namespace = args
        .cluster
        .installation(&client, args.namespace.as_deref());
    if !args.cluster.is_in_cluster() {
        make_namespace(&client, &namespace).await?;
    }
    let registration = args.registration(&namespace);
    let certificates = args.certificates(&registration.target)?;

    let mut numbers = metrics::registry();
    let counted = Metrics::new(&mut numbers);
    let events = (!args.no_events).then(|| {
        let reporter = Reporter::new(events::CONTROLLER, &host());
        let counted = EventMetrics::new(&mut numbers);
        let (events, task) = events::writer(client.clone(), reporter, counted);
        tasks.spawn("events", task);
        events
    });
    let readiness = Readiness::new(shutdown.clone());
    if let Some(address) = args.admin {
        let listener = admin::listen(address).await.context("--admin")?;
        let router = admin::router(readiness.clone(), Arc::new(numbers));
        tasks.spawn("admin", admin::serve(listener, router, shutdown.clone()));
    }
    let live = live::follow(
        &client,
        live::Options::new(engine(&args.policies)?),
        readiness,
        &mut tasks,
    );
    let controller = Controller {
        client: client.clone(),
        namespace: namespace.clone(),
        live,
        registration,
        certificates,
        reports: args.reports.into(),
        metrics: counted,
        events,
    };
    let election = Election::new(
        client,
        &namespace,
        LEASE,
        args.identity()?,
        Times::default(),
    );
    tokio::select! {
        ending = election.run(shutdown.clone(), async || controller.lead()) => match ending {
            Ending::Shutdown => Ok(Exit::Clean),
            Ending::Task(end) => match end.result {
                Err(error) => Err(anyhow::Error::new(error)),
                Ok(()) => bail!("task {} ended", end.name),
            },
        },
        end = ended(&mut tasks, shutdown) => end,
    }
}

/// By a kubeconfig there may be no installation yet.
async fn make_namespace(client: &Client, name: &str) -> anyhow::Result<()> {
    let api: Api<Namespace> = Api::all(client.clone());
    let there = api.get_metadata_opt(name).await;
    if there.context("cannot ask the API server")?.is_some() {
        return Ok(());
    }
    let made = serde_json::json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {MANAGED_BY.0: MANAGED_BY.1}},
    });
    let as_us = PatchParams::apply(FIELD_MANAGER);
    api.patch(name, &as_us, &Patch::Apply(&made))
        .await
        .with_context(|| format!("cannot make the namespace {name}"))?;
    tracing::info!(name, "namespace made");
    Ok(())
}

/// An API server takes https alone, and no query, fragment or user.
fn parse_url(text: &str) -> Result<String, String> {
    let Some(rest) = text.strip_prefix("https://") else {
        return Err("it must begin with https://, as an API server demands".to_owned());
    };
    if rest.contains(['?', '#', '@', ' ']) {
        return Err("it may hold a host, a port and a path and nothing else".to_owned());
    }
    let host = Target::Url(text.to_owned()).host();
    Names::parse([host]).map_err(|error| error.to_string())?;
    Ok(text.trim_end_matches('/').to_owned())
}

// === impl Reports ===

impl From<Reports> for Form {
    fn from(reports: Reports) -> Self {
        match reports {
            Reports::PolicyReport => Self::PolicyReport,
            Reports::OpenReport => Self::OpenReport,
        }
    }
}

// === impl Args ===

impl Args {
    fn registration(&self, namespace: &str) -> Options {
        let target = match &self.webhook_url {
            Some(url) => Target::Url(url.clone()),
            None => Target::Service {
                namespace: namespace.to_owned(),
                name: self.webhook_service.clone(),
                port: self.webhook_port,
            },
        };
        let own = [namespace.to_owned(), AGENTS.to_owned()].into_iter();
        Options {
            target,
            left_out: own
                .chain(self.leave_out.iter().cloned())
                .collect::<BTreeSet<_>>(),
            mutate_workloads: self.mutate_workloads,
            timeout_seconds: self.webhook_timeout,
        }
    }

    fn certificates(&self, target: &Target) -> anyhow::Result<Certificates> {
        if let Some(path) = &self.ca_bundle {
            return Ok(Certificates::Elsewhere(path.clone()));
        }
        let terms = Terms {
            names: Names::parse([target.host()]).context("the webhook's name")?,
            leaf: self.leaf_validity.0,
            authority: self.ca_validity.0,
            hold: self.hold.0,
        };
        let words = |length: SignedDuration| format!("{length:#}");
        terms.check().with_context(|| {
            format!(
                "--leaf-validity {}, --ca-validity {}, --hold {}",
                words(terms.leaf),
                words(terms.authority),
                words(terms.hold)
            )
        })?;
        Ok(Certificates::Kept(terms))
    }

    fn identity(&self) -> anyhow::Result<String> {
        if let Some(identity) = &self.identity {
            return Ok(identity.clone());
        }
        // In a pod this is the pod's name.
        let host = host();
        let mut chance = [0_u8; 8];
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        if provider.secure_random.fill(&mut chance).is_err() {
            bail!("the system has no random numbers to give");
        }
        Ok(format!("{host}_{:016x}", u64::from_be_bytes(chance)))
    }
}
