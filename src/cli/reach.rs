//! `ringfence reach PATH…`: every connection that the policies among manifests allow.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};

use super::Exit;
use super::inputs::Inputs;
use crate::netpol::reach::{Connection, PortSet};
use crate::netpol::{Port, Protocol, Reachability, Snapshot};
use crate::report::reach::Listing;
pub(super) use who::Who;

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
        `allowed`, a list of `protocol` and `ports` (\"9000\", \"80-90\" or \"all\").")]
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
    /// Say also what could reach each workload (of `--to`) from pods and namespaces that are not there yet.
    #[arg(long)]
    exposure: bool,
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
}

/// Prints the connections that were asked for.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    if args.exposure && !matches!(args.output, Form::Text | Form::Json | Form::Markdown) {
        bail!("--exposure: only --output text, json and markdown can tell it");
    }
    let snapshot = read(&args.paths)?;
    let reach = Reachability::of(&snapshot);
    let from = args.from.as_ref().map(|who| who.find(&reach)).transpose();
    let from = from.context("--from")?;
    let to = args.to.as_ref().map(|who| who.find(&reach)).transpose();
    let to = to.context("--to")?;

    let mut connections = reach.connections();
    connections.retain(|one| {
        from.as_ref().is_none_or(|who| who.is(&one.from))
            && to.as_ref().is_none_or(|who| who.is(&one.to))
    });
    if let Some((protocol, port)) = args.port {
        let asked = PortSet::one(protocol, port);
        let at_port = connections.into_iter().map(|one| Connection {
            ports: one.ports.and(&asked),
            ..one
        });
        connections = at_port.filter(|one| !one.ports.is_empty()).collect();
    }
    let exposure = args.exposure.then(|| {
        let workloads = reach.workloads().into_iter();
        workloads
            .filter(|workload| to.as_ref().is_none_or(|who| who.is_workload(workload)))
            .map(|workload| (workload.clone(), reach.exposure(workload)))
            .collect()
    });
    let listing = Listing {
        connections,
        exposure,
    };
    let text = match args.output {
        Form::Text => listing.text(),
        Form::Json => listing.json()?,
        Form::Csv => listing.csv(),
        Form::Markdown => listing.markdown(),
        Form::Dot => listing.dot(),
        Form::Mermaid => listing.mermaid(),
    };
    anstream::stdout().lock().write_all(text.as_bytes())?;
    Ok(Exit::Clean)
}

/// Reads manifests of which all must be good: an answer from a part of them would be a wrong one.
pub(super) fn read(paths: &[PathBuf]) -> anyhow::Result<Snapshot> {
    let folder = Inputs::of(paths.to_vec(), Vec::new(), Vec::new()).read()?;
    match folder.first_error() {
        Some(error) => Err(error.into()),
        None => Ok(folder.snapshot),
    }
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
