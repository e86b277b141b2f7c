//! `ringfence ruleset PATH… --node NAME`: the table that the agent of a node would put into its kernel.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};

use super::inputs::Inputs;
use super::{Exit, whole};
use crate::netpol::{NodeName, Snapshot};
use crate::ruleset::render::{self, Reader};
use crate::ruleset::{Options, Plan};

/// Arguments of `ringfence ruleset`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
        kubectl get namespaces,pods,nodes,networkpolicies -A -o yaml | ringfence ruleset - --node worker-1\n  \
        ringfence ruleset DIR --node worker-1 --output nft > table.nft && nft --check -f table.nft\n\n\
        The text says above each rule what it is for. With `nft` it is what `nft -f` reads, in one transaction: it takes\n\
        the place of the whole tables `inet ringfence` and `bridge ringfence` and touches no other. Pods count by the addresses\n\
        of their status, on the node of their `spec.nodeName`; what has no address yet is not in the table, and behind which\n\
        interface a pod is only its node knows.")]
pub struct Args {
    /// Files or folders of manifests (YAML or JSON); `-` for standard input.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The node, as pods name it in `spec.nodeName`.
    #[arg(long, value_name = "NAME")]
    node: String,
    /// How to print it.
    #[arg(long, short, value_enum, default_value_t = Form::Text)]
    output: Form,
}

/// The forms of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// For people: a sentence above each rule.
    Text,
    /// For `nft -f`.
    Nft,
    /// Its SHA-256 digest alone, as the agent's receipt has it: of what is known of the cluster, not of interfaces.
    Digest,
}

/// Prints the table.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let folder = Inputs::of(args.paths.clone(), Vec::new(), Vec::new()).read()?;
    let snapshot = whole::snapshot(folder)?;
    let node = NodeName::from(args.node.as_str());
    check(&snapshot, &node)?;
    let table = Plan::of(Options::new(node), &snapshot).whole();
    let text = match args.output {
        Form::Text => render::table(&table, Reader::People),
        Form::Nft => render::ruleset(&table, Reader::Nft),
        Form::Digest => format!("{}\n", table.digest()),
    };
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).context("cannot print")?;
    Ok(Exit::Clean)
}

/// Says what makes a table emptier than its reader may expect.
fn check(snapshot: &Snapshot, node: &NodeName) -> anyhow::Result<()> {
    let here = || snapshot.pods().filter(|pod| pod.is_on(node));
    if here().next().is_none() {
        let mut nodes: Vec<&str> = snapshot
            .pods()
            .filter_map(|pod| pod.node.as_ref())
            .chain(snapshot.nodes().map(|node| &node.name))
            .map(NodeName::as_str)
            .collect();
        nodes.sort_unstable();
        nodes.dedup();
        if nodes.is_empty() {
            bail!(
                "no pod among the manifests says on which node it is; read them from a cluster:\n  \
                 kubectl get namespaces,pods,nodes,networkpolicies -A -o yaml | ringfence ruleset - --node {node}"
            );
        }
        if !nodes.contains(&node.as_str()) {
            bail!(
                "no pod is on {node:?}; there are pods on {}",
                nodes.join(", ")
            );
        }
    }
    let without = here()
        .filter(|pod| pod.is_held() && pod.ips.is_empty())
        .count();
    if without > 0 {
        whole::warn(&format!(
            "{without} of the node's pods have no address yet and are not in the table"
        ));
    }
    Ok(())
}
