//! `ringfence replay FLOWS… --policies DIR`: recorded flows judged by policies that are to come.

use std::io::Write;
use std::path::PathBuf;

use anyhow::bail;

use super::Exit;
use super::form::Form;
use super::recorded::{self, Records};
use crate::flows::{Recorded, Skip};
use crate::netpol::replay::{Change, Replay};
use crate::report::counted;
use crate::report::replay::Told;

/// Arguments of `ringfence replay`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    ringfence replay flows.jsonl --policies candidate/\n  \
    hubble observe --last 100000 -o jsonpb | ringfence replay - --policies candidate/ --manifests deploy/\n  \
    ringfence replay /var/log/calico/flowlogs/flows.log --policies candidate/ --fail-on any --output json\n\n\
    Formats: Cilium Hubble (`hubble observe -o jsonpb`, exporter), Calico flow logs, and our own:\n  \
    {\"from\": {\"namespace\": \"shop\", \"workload\": \"Deployment/web\", \"labels\": {\"app\": \"web\"}},\n   \
    \"to\": {\"ip\": \"192.0.2.1\"}, \"protocol\": \"TCP\", \"port\": 443, \"verdict\": \"allowed\", \"count\": 3}\n\
    one a line, or CSV with columns such as from_namespace, from_labels, to_ip, protocol, port, verdict, count.\n\n\
    An end is looked for among the manifests by workload, by the pod's name and by address. A pod that is not there \
    is judged by the namespace and the labels of its record; without labels it is told as not judged. Replies are \
    passed over, and what source and destination both tell of is counted once. Hubble counts packets that it saw, not \
    connections.\n\n\
    Exit codes: 0 nothing of --fail-on, 1 some, 2 a record or manifest could not be read (see --allow-broken).")]
pub struct Args {
    #[command(flatten)]
    records: Records,
    /// Files or folders with the policies to try, and what else belongs to them (namespaces, workloads).
    #[arg(long, required = true, value_name = "PATH")]
    policies: Vec<PathBuf>,
    /// Files or folders with workloads and namespaces; network policies among them are left out.
    #[arg(long, value_name = "PATH")]
    manifests: Vec<PathBuf>,
    /// What is a failure.
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = FailOn::NewlyDenied)]
    fail_on: FailOn,
    /// How to print it.
    #[arg(long, short, value_enum, value_name = "FORMAT", default_value_t = Form::Text)]
    output: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum FailOn {
    /// Flows that passed and would be denied.
    NewlyDenied,
    /// These, and flows that were denied and would pass.
    Any,
    /// Nothing.
    Never,
}

/// Prints what would become of the flows.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let candidate = super::reach::read(&args.policies)?;
    if candidate.policies().next().is_none() && candidate.cluster_policies().next().is_none() {
        bail!("--policies: there is no network policy in it");
    }
    let (around, left_out) = if args.manifests.is_empty() {
        Default::default()
    } else {
        recorded::without_policies(&args.manifests)?
    };
    let snapshot = recorded::joined(&around, &candidate);
    let recorded = args.records.read()?;
    let replay = Replay::of(
        &recorded.observations,
        &snapshot,
        &args.records.cluster_cidr,
    );
    let mut notes = Vec::new();
    if left_out > 0 {
        notes.push(format!(
            "{left_out} network policies in --manifests are left out; --policies are tried"
        ));
    }
    let denied = replay.flows(Change::NewlyDenied);
    let allowed = replay.flows(Change::NewlyAllowed);
    let is_failure = match args.fail_on {
        FailOn::NewlyDenied => denied > 0,
        FailOn::Any => denied > 0 || allowed > 0,
        FailOn::Never => false,
    };
    let is_spoilt = args.records.is_spoilt(&recorded);
    let told = told(recorded, replay, notes);
    let text = match args.output {
        Form::Text => told.text(),
        Form::Json => told.json()?,
    };
    anstream::stdout().lock().write_all(text.as_bytes())?;
    Ok(match (is_spoilt, is_failure) {
        (true, _) => Exit::Failed,
        (false, true) => Exit::Findings,
        (false, false) => Exit::Clean,
    })
}

/// A replay with what is to be said of its records.
pub(super) fn told(recorded: Recorded, replay: Replay, mut notes: Vec<String>) -> Told {
    if !replay.bare_namespaces.is_empty() {
        let names: Vec<&str> = replay
            .bare_namespaces
            .iter()
            .map(crate::netpol::NamespaceName::as_str)
            .collect();
        notes.push(format!(
            "of these namespaces only the name is known, give their manifests if policies select them by other labels: {}",
            names.join(", ")
        ));
    }
    if !replay.named_ports.is_empty() {
        let names: Vec<String> = replay.named_ports.iter().map(ToString::to_string).collect();
        notes.push(format!(
            "these policies name ports, and records do not tell the names of a pod's ports, give the manifests: {}",
            names.join(", ")
        ));
    }
    if let Some(lost) = recorded.passed_over.get(&Skip::Lost) {
        notes.push(format!(
            "the recorder lost events, in {}: there were more flows than these",
            counted(*lost, "place")
        ));
    }
    let passed_over = recorded.passed_over.into_iter();
    let passed_over =
        passed_over.map(|(skip, count)| (skip.as_str(), serde_json::json!(skip), count));
    let shown = recorded.shown.into_iter();
    Told {
        replay,
        records: recorded.records,
        passed_over: passed_over.collect(),
        broken: recorded.broken,
        shown: shown
            .map(|broken| (broken.file.to_string(), broken.line, broken.reason))
            .collect(),
        notes,
    }
}
