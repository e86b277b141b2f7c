//! `ringfence why FROM TO PORT PATH…`: one flow, step by step, and what would let it pass.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};

use super::reach::{Who, parse_port, parse_protocol, read};
use super::{Exit, style};
use crate::netpol::reach::{Change, Explanation, Step};
use crate::netpol::{Direction, EndVerdict, Endpoint, Flow, Pod, Port, Protocol, Reachability};

/// Arguments of `ringfence why`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
        ringfence why frontend/web admin-db/postgres 5432 DIR\n  \
        ringfence why backend/orders-api 192.0.2.10 tcp/443 DIR\n  \
        ringfence why 203.0.113.7 frontend/web 8080 DIR\n\n\
        Exit codes: 0 allowed, 1 denied, 2 could not say.")]
pub struct Args {
    /// Who opens the connection: `namespace/name`, `kind/namespace/name` or an address.
    #[arg(value_name = "FROM")]
    from: Who,
    /// To whom; to a pod behind a Service, not to the Service.
    #[arg(value_name = "TO")]
    to: Who,
    /// The destination's own port: `5432`, `tcp/5432` or `udp/53`.
    #[arg(value_name = "PORT", value_parser = parse_port)]
    port: (Protocol, Port),
    /// Files or folders of manifests (YAML or JSON); `-` for standard input.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The protocol, where PORT does not say it.
    #[arg(long, value_name = "PROTOCOL", value_parser = parse_protocol)]
    protocol: Option<Protocol>,
}

/// Prints what the policies say of one flow.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let snapshot = read(&args.paths)?;
    let reach = Reachability::of(&snapshot);
    let from = endpoint(&args.from, &reach).context("FROM")?;
    let to = endpoint(&args.to, &reach).context("TO")?;
    let (protocol, port) = args.port;
    let flow = Flow::new(from, to, args.protocol.unwrap_or(protocol), port);
    let explanation = snapshot.explain(&flow);
    print(&flow, &explanation)?;
    Ok(if explanation.verdict.allowed() {
        Exit::Clean
    } else {
        Exit::Findings
    })
}

/// The one pod, or address, that is meant.
fn endpoint<'r>(who: &Who, reach: &'r Reachability) -> anyhow::Result<Endpoint<'r>> {
    match who {
        Who::Address(address) => Ok(match reach.snapshot().pod_at(*address) {
            Some(pod) => Endpoint::Pod(pod),
            None => Endpoint::External(*address),
        }),
        Who::Block(block) => bail!("{block}: one address, please"),
        Who::Workload { name: None, .. } => bail!("{who}: one workload, please"),
        Who::Workload { .. } => {
            let pods = who.pods(reach);
            match pods[..] {
                [pod] => Ok(Endpoint::Pod(pod)),
                [] => of_workload(who, reach),
                [..] => {
                    let names: Vec<String> =
                        pods.iter().map(|pod| in_words(&pod.workload)).collect();
                    bail!("{who} may be {}: say which", names.join(" or "))
                }
            }
        }
    }
}

/// One of the pods of a workload whose own template is not among the manifests.
fn of_workload<'r>(who: &Who, reach: &'r Reachability) -> anyhow::Result<Endpoint<'r>> {
    let found = who.find(reach)?;
    let is_of = |pod: &&Pod| {
        let root = reach.root(&pod.workload);
        root.is_some_and(|root| found.is_workload(root))
    };
    match reach.snapshot().pods().find(is_of) {
        Some(pod) => Ok(Endpoint::Pod(pod)),
        None => bail!("{who} has no pod among the manifests"),
    }
}

fn in_words(workload: &crate::netpol::WorkloadRef) -> String {
    format!("{}/{}/{}", workload.kind, workload.namespace, workload.name)
}

fn print(flow: &Flow<'_>, explanation: &Explanation) -> anyhow::Result<()> {
    let mut out = anstream::stdout().lock();
    let (word, colour) = if explanation.verdict.allowed() {
        ("allowed", style::GOOD)
    } else {
        ("denied", style::ERROR)
    };
    writeln!(out, "{colour}{word}{colour:#}: {flow}")?;
    for (direction, end, steps) in [
        (Direction::Egress, flow.from, &explanation.egress),
        (Direction::Ingress, flow.to, &explanation.ingress),
    ] {
        writeln!(
            out,
            "\n{}{direction} of {end}{:#}",
            style::HEAD,
            style::HEAD
        )?;
        let verdict = explanation.verdict.at(direction);
        if matches!(
            verdict,
            EndVerdict::Allowed { .. } | EndVerdict::Denied { .. }
        ) {
            for step in steps {
                print_step(&mut out, direction, step)?;
            }
        }
        let colour = if verdict.passes() {
            style::GOOD
        } else {
            style::ERROR
        };
        writeln!(out, "  {colour}=>{colour:#} {verdict}")?;
    }
    if !explanation.verdict.allowed() {
        print_changes(&mut out, &explanation.changes)?;
    }
    Ok(())
}

fn print_step(out: &mut impl Write, direction: Direction, step: &Step) -> anyhow::Result<()> {
    let Some(index) = step.index else {
        writeln!(
            out,
            "  {}: isolates, and has no {direction} rule",
            step.policy
        )?;
        return Ok(());
    };
    let says = match (step.peer, step.port) {
        (true, true) => "allows it",
        (true, false) => "has this peer, but not this port",
        (false, true) => "has this port, but not this peer",
        (false, false) => "has neither this peer nor this port",
    };
    let colour = if step.allows() {
        style::GOOD
    } else {
        style::DIM
    };
    let rule = format!("{} spec.{direction}[{index}]", step.policy);
    writeln!(out, "  {rule}: {colour}{says}{colour:#}")?;
    Ok(())
}

fn print_changes(out: &mut impl Write, changes: &[Change]) -> anyhow::Result<()> {
    if changes.is_empty() {
        writeln!(
            out,
            "\nNo rule of a NetworkPolicy can allow just this flow."
        )?;
        return Ok(());
    }
    writeln!(
        out,
        "\n{}The smallest change that allows it{:#}",
        style::HEAD,
        style::HEAD
    )?;
    for change in changes {
        let (text, manifest) = if change.is_new {
            let text = format!(
                "a new NetworkPolicy in namespace {}",
                change.policy.namespace
            );
            (text, change.manifest.clone())
        } else {
            let text = format!(
                "add to NetworkPolicy {}, spec.{}",
                change.policy, change.direction
            );
            (
                text,
                serde_json::Value::Array(vec![change.manifest.clone()]),
            )
        };
        writeln!(out, "# {text}")?;
        let yaml = serde_saphyr::to_string(&manifest).context("cannot write YAML")?;
        writeln!(out, "{}", yaml.trim_end())?;
        if change.is_new && changes.len() > 1 {
            writeln!(out, "---")?;
        }
    }
    Ok(())
}
