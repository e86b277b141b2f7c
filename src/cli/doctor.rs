//! `ringfence doctor`: does anything enforce network policies here, and what stands in the way?

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context as _;
use jiff::Timestamp;
use kube::Client;
use serde_json::json;

use super::cluster::ClusterArgs;
use super::form::Form;
use super::{Exit, one_thread, style};
use crate::agent::doctor;
use crate::controller::registration;
use crate::guard::enforcement::doctor::{Check, Cluster, Level, cluster, node};
use crate::guard::enforcement::probe::{self, Probe};
use crate::k8s::{self, enforcement};
use crate::report::text::printable;

/// Arguments of `ringfence doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    ringfence doctor --context prod\n  \
    ringfence doctor --node-checks --kubeconfig FILE     on a node: its kernel and its CNI configuration, too\n  \
    ringfence doctor --node-checks --no-cluster\n  \
    ringfence doctor --probe --probe-node worker-1       prove it by two pods and a policy that denies\n\n\
    Reads only, but for --probe: it makes no pod, no table and sets no switch. Network plugins are known by their DaemonSets,\n\
    and on a node by the first CNI configuration. Whether they enforce is what is known of them, not a proof: --probe gives one.\n\n\
    JSON: an object with `worst` and `checks`, each with `id`, `level` (\"ok\", \"warning\", \"problem\" or \"unknown\"), `says` and,\n\
    where there is something to do, `advice`.\n\n\
    Exit codes: 0 no problem (there may be warnings), 1 a problem, 2 something could not be found out.")]
pub struct Args {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Ask no API server: look at this node only.
    #[arg(long, conflicts_with_all = ["kubeconfig", "context"])]
    no_cluster: bool,
    /// Look at the kernel of this node: `br_netfilter`, forwarding, nftables, rules of others. To be run in its network namespace.
    #[arg(long)]
    node_checks: bool,
    /// Where the network plugins of this node are configured. Looked at where it is named, or with --node-checks.
    #[arg(long, value_name = "DIR")]
    cni_conf_dir: Option<PathBuf>,
    /// Prove or disprove it: in a namespace of its own, which is deleted afterwards, one pod asks another before and after a
    /// policy denies that. Takes about a quarter of a minute, and rights to make namespaces, pods and network policies.
    #[arg(long, conflicts_with = "no_cluster")]
    probe: bool,
    /// The image of the two pods: one whose entry point is ringfence. Without it, the image of the agents.
    #[arg(long, value_name = "IMAGE", requires = "probe")]
    probe_image: Option<String>,
    /// The node that both pods run on. Without it, where the scheduler puts them.
    #[arg(long, value_name = "NAME", requires = "probe")]
    probe_node: Option<String>,
    /// How to print it.
    #[arg(long, short, value_enum, default_value_t = Form::Text)]
    output: Form,
}

/// Where network plugins are configured, unless told otherwise.
const CONFIGURATIONS: &str = "/etc/cni/net.d";

/// Looks and prints what was seen.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let mut checks = Vec::new();
    if !args.no_cluster {
        checks.extend(of_cluster(args).unwrap_or_else(|error| {
            let unknown = Check::new(
                Level::Unknown,
                "cluster",
                format!("the cluster could not be asked: {error:#}"),
            );
            vec![unknown.advise(
                "name it with --kubeconfig or --context, or leave it out with --no-cluster",
            )]
        }));
    }
    if args.node_checks || args.cni_conf_dir.is_some() || args.no_cluster {
        let named = args.cni_conf_dir.clone();
        let folder = named.unwrap_or_else(|| PathBuf::from(CONFIGURATIONS));
        checks.extend(node(&doctor::look(&folder, args.node_checks)));
    }
    let worst = checks.iter().map(|check| check.level).max();
    let worst = worst.unwrap_or(Level::Ok);
    let mut out = anstream::stdout().lock();
    match args.output {
        Form::Text => write(&mut out, &checks)?,
        Form::Json => {
            let document = json!({"worst": worst, "checks": checks});
            writeln!(out, "{}", serde_json::to_string_pretty(&document)?)?;
        }
    }
    Ok(match worst {
        Level::Ok | Level::Warning => Exit::Clean,
        Level::Problem => Exit::Findings,
        Level::Unknown => Exit::Failed,
    })
}

fn of_cluster(args: &Args) -> anyhow::Result<Vec<Check>> {
    let runtime = one_thread()?;
    let mut not_understood = Vec::new();
    let client = runtime.block_on(args.cluster.connect_from_outside())?;
    let read = enforcement::facts(&client, registration::NAME, &mut not_understood);
    let seen = runtime.block_on(read).context("cannot read the cluster")?;
    let mut checks = cluster(&seen, Timestamp::now());
    if args.probe {
        checks.push(runtime.block_on(probed(args, &client, &seen))?);
    }
    checks.extend(not_understood.into_iter().map(|thing| {
        Check::new(
            Level::Unknown,
            "receipts",
            format!("not understood: {thing}"),
        )
    }));
    Ok(checks)
}

/// Tries it.
async fn probed(args: &Args, client: &Client, seen: &Cluster) -> anyhow::Result<Check> {
    let image = args.probe_image.clone().or_else(|| seen.image.clone());
    let image = image
        .context("--probe: no agents run here whose image could be taken; say --probe-image")?;
    let probe = Probe {
        image,
        node: args.probe_node.clone(),
    };
    let say = |words: &str| anstream::eprintln!("{}probe: {words}{:#}", style::DIM, style::DIM);
    Ok(match k8s::probe::carry_out(client, &probe, say).await {
        Ok(outcome) => probe::check(&outcome),
        Err(error) => Check::new(
            Level::Unknown,
            "probe",
            format!("nothing is proved: {error}"),
        )
        .advise(format!(
            "a Guardrail that stands in the way can leave out namespaces with the label {}",
            probe::LABEL
        )),
    })
}

fn write(out: &mut impl Write, checks: &[Check]) -> anyhow::Result<()> {
    for Check {
        level,
        says,
        advice,
        ..
    } in checks
    {
        let colour = match level {
            Level::Ok => style::GOOD,
            Level::Warning => style::WARN,
            Level::Problem | Level::Unknown => style::ERROR,
        };
        let word = level.as_str();
        writeln!(out, "{colour}{word:<8}{colour:#} {}", printable(says))?;
        if let Some(advice) = advice {
            writeln!(out, "{:9}{}{advice}{:#}", "", style::DIM, style::DIM)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_is_a_line_with_what_to_do_below_it() {
        let checks = [
            Check::new(Level::Ok, "plugin", "this cluster has Flannel"),
            Check::new(Level::Problem, "enforcement", "nothing enforces\u{1b}[2J").advise("do it"),
        ];
        let mut out = anstream::StripStream::new(Vec::new());
        write(&mut out, &checks).unwrap();
        insta::assert_snapshot!(String::from_utf8(out.into_inner()).unwrap(), @r"
        ok       this cluster has Flannel
        problem  nothing enforces\u{1b}[2J
                 do it
        ");
    }
}
