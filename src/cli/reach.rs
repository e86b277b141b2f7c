//! `ringfence reach PATH…`: every connection that the policies among manifests allow.

use std::io::{BufWriter, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};

use super::inputs::Inputs;
use super::progress::Progress;
use super::{Exit, whole};
use crate::netpol::reach::{Party, PortSet};
use crate::netpol::{Direction, Port, Protocol, Reachability, Snapshot};
use crate::report::reach::{Exposures, Grouping, Listing, Map, Picture};
use who::Found;
pub(super) use who::Who;

mod denied;
mod who;

/// Arguments of `ringfence reach`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
        ringfence reach DIR\n  \
        ringfence reach DIR --to admin-db/postgres --port 5432\n  \
        ringfence reach DIR --from 'frontend/*' --output json\n  \
        ringfence reach DIR --to Deployment/backend/orders-api --exposure\n\n\
        A workload is `namespace/name`, `namespace/*` or `kind/namespace/name`; anything outside is an address.\n\
        JSON: an object with `connections`; each has `from` and `to` (`kind`, `namespace`, `name`; or `cidr`) and\n\
        `allowed`, a list of `protocol` and `ports` (\"9000\", \"80-90\" or \"all\"). With --exposure also `exposure`, the same with\n\
        `namespace` or `namespaceSelector` and `podSelector` for the newcomer, and port names that it may give to any number;\n\
        `ifOwnPolicyAllows` are the ports that open besides where a NetworkPolicy of the newcomer's namespace allows them.")]
pub struct Args {
    /// Files or folders of manifests (YAML or JSON); `-` for standard input.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Only connections that come from here.
    #[arg(long, value_name = "WHO")]
    from: Option<Who>,
    /// Only connections that go there.
    #[arg(long, value_name = "WHO")]
    to: Option<Who>,
    /// Only this destination port; of TCP where no protocol is said.
    #[arg(long, value_name = "[PROTOCOL/]PORT", value_parser = parse_port)]
    port: Option<(Protocol, Port)>,
    /// How to print it.
    #[arg(long, short, value_enum, default_value_t = Form::Text)]
    output: Form,
    /// Whether text and markdown put together what many workloads have in common. Whether a workload's own pods reach each
    /// other is not told within a group.
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Group::Auto)]
    group: Group,
    /// Say also what could reach each workload (of `--to`), and what each (of `--from`) could reach, of pods and namespaces
    /// that are not there yet.
    #[arg(long)]
    exposure: bool,
}

/// When connections are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Group {
    /// Where there are more than 1000.
    Auto,
    /// Always.
    Always,
    /// Never: each connection by itself, however many.
    Never,
}

/// The forms of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// For people.
    Text,
    /// For programs; stable.
    Json,
    /// A row for each connection and range of ports.
    Csv,
    /// A table.
    Markdown,
    /// For Graphviz.
    Dot,
    /// For Mermaid.
    Mermaid,
    /// A map to look at: namespaces as boxes; of more than 50 workloads, namespaces only. What `ReachabilityRules` among the
    /// manifests want closed is red.
    Svg,
}

impl From<Group> for Grouping {
    fn from(group: Group) -> Self {
        match group {
            Group::Auto => Self::Auto,
            Group::Always => Self::Always,
            Group::Never => Self::Never,
        }
    }
}

/// Who could still come to the workloads that were asked for, and whom they could reach.
fn exposures(
    reach: &Reachability,
    from: Option<&Found>,
    to: Option<&Found>,
) -> anyhow::Result<Exposures> {
    let mut exposures = Exposures::new();
    for (direction, own, other) in [
        (Direction::Ingress, to, from),
        (Direction::Egress, from, to),
    ] {
        // Whoever asks about one end only wants to know of that one.
        if own.is_none() && other.is_some() {
            continue;
        }
        for workload in reach.workloads() {
            if own.is_none_or(|who| who.is_workload(workload)) {
                let open = reach.exposure(workload, direction);
                let open = open.with_context(|| format!("--exposure of {workload}"))?;
                exposures.push((workload.clone(), direction, open));
            }
        }
    }
    Ok(exposures)
}

/// Prints the connections that were asked for.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    if args.exposure && !matches!(args.output, Form::Text | Form::Json | Form::Markdown) {
        bail!("--exposure: only --output text, json and markdown can tell it");
    }
    let folder = Inputs::of(args.paths.clone(), Vec::new(), Vec::new()).read()?;
    let rules = folder.rules.clone();
    let snapshot = whole::inhabited(folder)?;
    let reach = Reachability::of(&snapshot);
    let from = args.from.as_ref().map(|who| who.find(&reach)).transpose();
    let from = from.context("--from")?;
    let to = args.to.as_ref().map(|who| who.find(&reach)).transpose();
    let to = to.context("--to")?;

    let asked = args
        .port
        .map(|(protocol, port)| PortSet::one(protocol, port));
    let workloads = reach.workloads();
    let progress = Progress::new(workloads.len(), "workloads listed");
    // A bar between the lines of a listing helps nobody.
    let has_bar = !std::io::stdout().is_terminal();
    let rows = reach.rows(|party| {
        if has_bar && matches!(party, Party::Workload(_)) {
            progress.advance();
        }
        from.as_ref().is_none_or(|who| who.is(party))
    });
    let rows = rows.filter_map(|mut row| {
        row.to
            .retain(|(party, _)| to.as_ref().is_none_or(|who| who.is(party)));
        if let Some(asked) = &asked {
            for (_, ports) in &mut row.to {
                *ports = ports.and(asked);
            }
            row.to.retain(|(_, ports)| !ports.is_empty());
        }
        (!row.to.is_empty()).then_some(row)
    });
    let exposure = args
        .exposure
        .then(|| exposures(&reach, from.as_ref(), to.as_ref()))
        .transpose()?;
    let listing = Listing {
        rows,
        workloads: workloads.clone(),
        grouping: args.group.into(),
        exposure,
    };
    let mut out = BufWriter::new(anstream::stdout().lock());
    match args.output {
        Form::Text => listing.text(&mut out)?,
        Form::Json => listing.json(&mut out)?,
        Form::Csv => listing.csv(&mut out)?,
        Form::Markdown => listing.markdown(&mut out)?,
        Form::Dot => write!(out, "{}", Picture::of(listing.rows)?.dot())?,
        Form::Mermaid => write!(out, "{}", Picture::of(listing.rows)?.mermaid())?,
        Form::Svg => {
            let mut denied = denied::denied(&rules, &reach).unwrap_or_else(|| {
                whole::warn("the ReachabilityRules demand too much for a map; it has none of them");
                Vec::new()
            });
            denied.retain_mut(|one| {
                if let Some(asked) = &asked {
                    one.ports = one.ports.and(asked);
                }
                let is_meant = |who: &Option<Found>, party: &Party| {
                    who.as_ref().is_none_or(|who| who.is(party))
                };
                is_meant(&from, &one.from.party)
                    && is_meant(&to, &one.to.party)
                    && !one.ports.is_empty()
            });
            let map = Map {
                rows: listing.rows,
                workloads: listing.workloads,
                denied,
            };
            write!(out, "{}", map.svg()?)?;
        }
    }
    progress.finish();
    out.flush()?;
    Ok(Exit::Clean)
}

/// Reads manifests of which all must be good: an answer from a part of them would be a wrong one.
pub(super) fn read(paths: &[PathBuf]) -> anyhow::Result<Snapshot> {
    let folder = Inputs::of(paths.to_vec(), Vec::new(), Vec::new()).read()?;
    whole::snapshot(folder)
}

/// Reads `80`, `tcp/80` or `udp/53`.
pub(super) fn parse_port(text: &str) -> Result<(Protocol, Port), String> {
    let (protocol, port) = text.split_once('/').unwrap_or(("TCP", text));
    let protocol = parse_protocol(protocol)?;
    let port = port.parse().ok().and_then(Port::new);
    let port = port.ok_or("must be a port such as 443 or udp/53, between 1 and 65535")?;
    Ok((protocol, port))
}

/// Reads the name of a protocol, in capitals or not.
pub(super) fn parse_protocol(text: &str) -> Result<Protocol, String> {
    Protocol::from_api(&text.to_ascii_uppercase())
        .ok_or_else(|| format!("`{text}` is not tcp, udp or sctp"))
}
