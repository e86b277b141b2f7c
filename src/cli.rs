//! The command line: one file per subcommand; arguments, one call, print.
//!
//! Nothing is decided here. What a subcommand prints for programs goes to standard output, what it says to people
//! about its own work to standard error.

use std::process::ExitCode;

use anyhow::bail;
use clap::{Parser, Subcommand};

use crate::agent::cni::plugin;
use crate::runtime::{Phase, Shutdown, Tasks};

pub mod agent;
pub mod audit;
pub mod baseline;
pub mod certs;
pub mod check;
mod clients;
mod cluster;
pub mod cni;
pub mod completions;
pub mod controller;
pub mod crds;
pub mod demo;
pub mod diff;
mod digest;
pub mod doctor;
pub mod explain;
pub mod flows;
mod form;
mod inputs;
mod logs;
mod outputs;
pub mod policy;
pub mod probe;
mod progress;
pub mod promote;
pub mod reach;
mod recorded;
pub mod registry;
pub mod replay;
pub mod ruleset;
mod shown;
pub mod staged;
pub mod status;
pub mod suggest;
pub mod template;
pub mod test;
mod traces;
pub mod webhook;
mod whole;
pub mod why;

/// Keeps the network of a Kubernetes cluster default-deny.
#[derive(Debug, Parser)]
#[command(
    name = "ringfence",
    version = concat!(env!("CARGO_PKG_VERSION"), " (", env!("RINGFENCE_COMMIT"), ")"),
    propagate_version = true,
    max_term_width = 100,
    after_help = "First steps:\n  \
        ringfence demo                        see the webhook decide, without a cluster\n  \
        ringfence check DIR                   judge a folder of manifests\n  \
        helm template . | ringfence check -   judge what a chart renders\n  \
        ringfence explain RF201               what a finding means and what to do\n\n\
        Exit codes: 0 clean, 1 findings, 2 could not do it."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Judge manifests: files, folders or standard input.
    Check(check::Args),
    /// Judge what a cluster holds already.
    Audit(audit::Args),
    /// Move a guardrail to a stricter mode, or give a namespace its baseline, where nothing would break.
    Promote(promote::Args),
    /// Print the baseline policies that belong beside policies which forgot DNS or monitoring.
    Baseline(baseline::Args),
    /// Say what a finding means, why it matters and what to do.
    Explain(explain::Args),
    /// List every connection that the policies allow.
    Reach(reach::Args),
    /// Say what opens and what closes between two folders or git revisions.
    Diff(diff::Args),
    /// Say why one connection is allowed or denied, and what would allow it.
    Why(why::Args),
    /// Try scenarios: who must not, and who must, reach whom.
    Test(test::Args),
    /// Judge recorded flows by policies that are to come: what would newly be denied or allowed.
    Replay(replay::Args),
    /// Say what promotion of policies on trial would break, and promote them.
    Staged(staged::Args),
    /// Write least-privilege policies from recorded flows, and prove them by replay.
    Suggest(suggest::Args),
    /// Make policies from templates: default-deny, DNS, frontend to backend and others.
    Template(template::Args),
    /// List every policy with its owner, its purpose and what it opens; evidence for audits.
    Registry(registry::Args),
    /// Test, check and list policies in Rego.
    Policy(policy::Args),
    /// Serve the admission webhook.
    Webhook(webhook::Args),
    /// Keep the webhook registered and its certificates good, from within a cluster or beside it.
    Controller(controller::Args),
    /// Make network policies hold on a node, by nftables.
    Agent(agent::Args),
    /// Say what the agent of a node denies, and what policies on trial would: who, to whom, and by which policy.
    Flows(flows::Args),
    /// Say which policy is confirmed to be in force on which nodes of a cluster.
    Status(status::Args),
    /// Say whether anything enforces network policies in a cluster, and what stands in the way.
    Doctor(doctor::Args),
    /// Print the nftables table that the agent of a node would make.
    Ruleset(ruleset::Args),
    /// Answer a container runtime, as the CNI plugin that holds a pod back until its rules are in force.
    Cni(cni::Args),
    /// Do what one of the pods of `ringfence doctor --probe` does.
    #[command(hide = true)]
    Probe(probe::Args),
    /// Show the main job on an example shop: real reviews over real TLS, no cluster.
    Demo(demo::Args),
    /// Make certificates for development.
    Certs(certs::CertsArgs),
    /// Print the definitions of Ringfence's own kinds, to apply to a cluster.
    Crds(crds::Args),
    /// Print the completions of a shell.
    Completions(completions::Args),
}

/// How a run ended, for whoever called it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, and nothing was found.
    Clean,
    /// Done, and something was found.
    Findings,
    /// It could not be done, or not wholly.
    Failed,
}

/// Reads the arguments, runs the subcommand and says how it ended.
pub fn main() -> ExitCode {
    // A container runtime calls a plugin by the name of its file, without arguments.
    if plugin::called(std::env::args_os().next().as_deref()) {
        return plugin::main();
    }
    run(Cli::parse())
        .unwrap_or_else(|error| {
            if broken_pipe(&error) {
                // Whoever read our output has seen enough, as `head` does.
                return Exit::Clean;
            }
            anstream::eprintln!(
                "{}error:{} {error:#}",
                style::ERROR,
                style::ERROR.render_reset()
            );
            Exit::Failed
        })
        .into()
}

fn run(cli: Cli) -> anyhow::Result<Exit> {
    match cli.command {
        Command::Check(args) => check::run(&args),
        Command::Agent(args) => agent::run(&args),
        Command::Flows(args) => flows::run(&args),
        Command::Ruleset(args) => ruleset::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Audit(args) => audit::run(&args),
        Command::Promote(args) => promote::run(&args),
        Command::Baseline(args) => baseline::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Reach(args) => reach::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Why(args) => why::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Staged(args) => staged::run(&args),
        Command::Suggest(args) => suggest::run(&args),
        Command::Template(args) => template::run(&args),
        Command::Registry(args) => registry::run(&args),
        Command::Policy(args) => policy::run(&args),
        Command::Webhook(args) => webhook::run(args),
        Command::Controller(args) => controller::run(&args),
        Command::Cni(args) => Ok(cni::run(&args)),
        Command::Probe(args) => probe::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Certs(args) => certs::run(&args, &mut anstream::stdout()).map(|()| Exit::Clean),
        Command::Crds(args) => crds::run(&args),
        Command::Completions(args) => completions::run(&args),
    }
}

/// What runs a subcommand that asks somebody and ends.
fn one_thread() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// Waits for a task that ends when it should not.
async fn ended(tasks: &mut Tasks, shutdown: Shutdown) -> anyhow::Result<Exit> {
    while let Some(end) = tasks.next_end().await {
        if let Err(error) = end.result {
            return Err(anyhow::Error::new(error).context(format!("task {}", end.name)));
        }
        if shutdown.phase() == Phase::Running {
            bail!("task {} ended", end.name);
        }
    }
    std::future::pending().await
}

fn broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

/// The colours of what is said to people; dropped where the output is no terminal.
pub(crate) mod style {
    use anstyle::{AnsiColor, Style};

    /// What went wrong.
    pub(crate) const ERROR: Style = AnsiColor::Red.on_default().bold();
    /// What went well.
    pub(crate) const GOOD: Style = AnsiColor::Green.on_default().bold();
    /// What deserves a look.
    pub(crate) const WARN: Style = AnsiColor::Yellow.on_default().bold();
    /// What is said first.
    pub(crate) const HEAD: Style = Style::new().bold();
    /// What is said by the way.
    pub(crate) const DIM: Style = Style::new().dimmed();
}

// === impl Exit ===

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Clean => Self::from(0),
            Exit::Findings => Self::from(1),
            Exit::Failed => Self::from(2),
        }
    }
}
