//! `ringfence staged`: what the promotion of policies on trial would change, and the promotion itself.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Subcommand, ValueEnum};
use kube::Client;
use serde_json::{Value, json};

use super::cluster::ClusterArgs;
use super::recorded::Beside;
use super::{Exit, audit, one_thread, reach, whole};
use crate::k8s::list::{self, ListError};
use crate::netpol::reach::Diff;
use crate::netpol::replay::Replay;
use crate::netpol::{
    NamespaceName, Object, PolicyRef, Reachability, Snapshot, StagedNetworkPolicy,
};
use crate::report::staged::{Flows, Found, Promotion};

mod promote;

/// Arguments of `ringfence staged`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say what promotion would break: what opens, what closes, and which flows that were seen.
    Report(ReportArgs),
    /// Make a NetworkPolicy of a policy on trial, and end the trial.
    Promote(promote::Args),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    ringfence staged report deploy/                            what is on trial among manifests\n  \
    ringfence staged report --context prod --namespace shop    in a cluster\n  \
    ringfence staged report --context prod --flows flows.jsonl and what was really seen\n  \
    ringfence staged report deploy/ --fail-on closed --output markdown > comment.md\n\n\
    Each policy is promoted by itself, and then all of them together: the cluster as it is (canaries in force for the \
    pods that they choose) against the cluster with the policy in force for all pods that it selects, in the place of a \
    NetworkPolicy of its name. Recorded flows are told that fare otherwise after that than they would now; the formats \
    are those of `ringfence replay`.\n\n\
    JSON: an object with `policies`, each with `namespace`, `name`, `stage`, `replaces` (a NetworkPolicy of its name is \
    there), `opened`, `closed`, `isolation` and `summary` as `ringfence diff` has them, and with --flows `flows` \
    (`newlyDenied` and `newlyAllowed`, each `flows` and `connections`, and `unknown`); and `together`, the same of all, \
    where there are several.\n\n\
    Exit codes: 0 done, 1 there is what --fail-on asks for, 2 something could not be read.")]
struct ReportArgs {
    /// Files or folders of manifests. Without one: a cluster.
    #[arg(value_name = "PATH", conflicts_with_all = ["kubeconfig", "context"])]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Only policies on trial in this namespace.
    #[arg(long, short, value_name = "NAME")]
    namespace: Option<String>,
    #[command(flatten)]
    seen: Beside,
    /// Make the exit code 1 where the promotion of a policy does this.
    #[arg(long, value_name = "WHAT", value_enum)]
    fail_on: Option<FailOn>,
    /// How to print it.
    #[arg(long, short, value_enum, default_value_t = Form::Text)]
    output: Form,
}

/// What makes the exit code 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// A connection opens.
    Opened,
    /// A connection closes.
    Closed,
    /// Recorded flows break.
    Flows,
}

/// The forms of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people.
    Text,
    /// For programs; stable, every connection by itself.
    Json,
    /// For a comment on a pull request.
    Markdown,
}

/// What was printed so far.
#[derive(Debug, Default)]
struct Printed {
    text: Vec<u8>,
    documents: Vec<Value>,
    is_failure: bool,
}

/// Runs what is asked for.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    match &args.command {
        Command::Report(args) => report(args),
        Command::Promote(args) => promote::run(args),
    }
}

fn report(args: &ReportArgs) -> anyhow::Result<Exit> {
    let snapshot = if args.paths.is_empty() {
        live(&args.cluster)?
    } else {
        reach::read(&args.paths)?
    };
    let namespace = args.namespace.as_deref().map(NamespaceName::from);
    let staged: Vec<&StagedNetworkPolicy> = snapshot
        .staged_policies()
        .filter(|staged| {
            let own = &staged.policy.namespace;
            namespace.as_ref().is_none_or(|namespace| namespace == own)
        })
        .collect();
    let recorded = args.seen.read()?;
    let before = Reachability::of(&snapshot);
    let seen = recorded
        .as_ref()
        .map(|recorded| Replay::of(&recorded.observations, &snapshot, &args.seen.cluster_cidr));
    let mut printed = Printed::default();
    let all = (staged.len() > 1).then_some((None, staged.as_slice()));
    let each = staged.chunks(1).map(|one| (one.first().copied(), one));
    for (of, promoted) in each.chain(all) {
        let after = snapshot.promoting(promoted.iter().copied());
        let flows = recorded
            .as_ref()
            .zip(seen.as_ref())
            .map(|(recorded, seen)| {
                let then = Replay::of(&recorded.observations, &after, &args.seen.cluster_cidr);
                Flows::of(seen, &then)
            });
        let after = Reachability::of(&after);
        let promotion = Promotion {
            of,
            replaces: of.is_some_and(|staged| replaced(staged, &snapshot)),
            diff: &Diff::of(&before, &after),
            flows,
        };
        args.print(&promotion, &mut printed)?;
    }
    let mut out = anstream::stdout().lock();
    match args.output {
        Form::Json => {
            let together = if staged.len() > 1 {
                printed.documents.pop()
            } else {
                None
            };
            let mut document = json!({"policies": printed.documents});
            if let Some(together) = together {
                document["together"] = together;
            }
            writeln!(out, "{}", serde_json::to_string_pretty(&document)?)?;
        }
        Form::Text | Form::Markdown if staged.is_empty() => {
            writeln!(out, "no policy is on trial")?;
        }
        Form::Text | Form::Markdown => out.write_all(&printed.text)?,
    }
    out.flush()?;
    if Beside::warn_of_broken(recorded.as_ref()) {
        return Ok(Exit::Failed);
    }
    Ok(if printed.is_failure {
        Exit::Findings
    } else {
        Exit::Clean
    })
}

/// Whether a NetworkPolicy is there in whose place a policy would come.
fn replaced(staged: &StagedNetworkPolicy, snapshot: &Snapshot) -> bool {
    let (namespace, name) = (&staged.policy.namespace, &staged.policy.name);
    let real = PolicyRef::new(namespace.clone(), name.clone());
    snapshot.policy(&real).is_some()
}

/// What a cluster holds, with the policies on trial.
fn live(cluster: &ClusterArgs) -> anyhow::Result<Snapshot> {
    one_thread()?.block_on(async {
        let client = cluster.connect_from_outside().await?;
        let mut snapshot = audit::read_by(&client).await?.snapshot;
        snapshot.extend(read_staged(&client).await?);
        Ok(snapshot)
    })
}

async fn read_staged(client: &Client) -> anyhow::Result<Vec<Object>> {
    let read = match list::staged(client).await {
        Err(ListError::Absent { kind }) => {
            bail!("the API server does not know {kind} (`ringfence crds` prints the definition)")
        }
        read => read.context("cannot read the policies on trial")?,
    };
    let mut objects = Vec::new();
    for (name, object) in read {
        match object {
            Ok(object) => objects.push(object),
            Err(error) => {
                whole::warn(&format!(
                    "StagedNetworkPolicy {name} is not understood: {error}"
                ));
            }
        }
    }
    Ok(objects)
}

// === impl ReportArgs ===

impl ReportArgs {
    fn print(&self, promotion: &Promotion<'_>, printed: &mut Printed) -> anyhow::Result<()> {
        if !printed.text.is_empty() {
            printed.text.push(b'\n');
        }
        let found = match self.output {
            Form::Text => promotion.text(&mut printed.text)?,
            Form::Markdown => {
                let (text, found) = promotion.markdown();
                printed.text.extend(text.into_bytes());
                found
            }
            Form::Json => {
                let (document, found) = promotion.json()?;
                printed.documents.push(document);
                found
            }
        };
        printed.is_failure |= self.fail_on.is_some_and(|what| what.is_found(found));
        Ok(())
    }
}

// === impl FailOn ===

impl FailOn {
    fn is_found(self, found: Found) -> bool {
        match self {
            Self::Opened => found.counts.opens(),
            Self::Closed => found.counts.closes(),
            Self::Flows => found.breaks > 0,
        }
    }
}
