//! `ringfence suggest FLOWS…`: least-privilege policies from recorded flows, proved by replaying them.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

use anyhow::bail;

use super::recorded::{self, Records};
use super::{Exit, outputs, style};
use crate::flows::{Recorded, Skip};
use crate::guard::template::check_text;
use crate::netpol::name::dns_label_problem;
use crate::netpol::suggest::{Join, Options, Suggestion};
use crate::netpol::{NamespaceName, Snapshot};
use crate::report::{counted, yaml};

/// How many lines of one kind are told.
const LINES: usize = 20;

/// Arguments of `ringfence suggest`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    ringfence suggest flows.jsonl --manifests deploy/ --owner team-shop > policies.yaml\n  \
    hubble observe --last 100000 -o jsonpb | ringfence suggest - --namespace shop -o policies/\n  \
    ringfence suggest flows.log --join-prefix 24\n\n\
    The policies go to standard output, or to files; what is to be said of them to standard error. Each namespace that \
    takes part, but those of the system, gets a default-deny, and each workload in it a policy that allows what it was \
    seen to need. Workloads are told apart by the fewest labels that do. Formats of flows: see `ringfence replay --help`.\
    \n\nThen the flows are replayed, and the model is asked for every connection that is open between the workloads that \
    are known and with the outside.\n\n\
    Exit codes: 0 every flow passes and nothing is open that was not seen; 1 not so, or flows could not be judged; 2 a \
    record or manifest could not be read (see --allow-broken).")]
pub struct Args {
    #[command(flatten)]
    records: Records,
    /// Files or folders with workloads and namespaces; network policies among them are left out.
    #[arg(long, value_name = "PATH")]
    manifests: Vec<PathBuf>,
    /// Only policies in this namespace. May be given several times.
    #[arg(long, value_name = "NAME", value_parser = namespace)]
    namespace: Vec<NamespaceName>,
    /// Who answers for the policies: their annotation `ringfence.dev/owner`.
    #[arg(long, value_name = "TEAM", default_value = "unassigned", value_parser = check_text)]
    owner: String,
    /// What they are for: their annotation `ringfence.dev/purpose`. Without it: whose needs were seen.
    #[arg(long, value_name = "TEXT", value_parser = check_text)]
    purpose: Option<String>,
    /// Join addresses outside to blocks with prefixes of this length, for IPv4 or for IPv4 and IPv6, which opens
    /// addresses that were not seen. Without it: only what is complete is joined.
    #[arg(long, value_name = "V4[,V6]", value_parser = join)]
    join_prefix: Option<Join>,
    /// Write a file for each policy into this folder, instead of all to standard output.
    #[arg(long = "output-dir", short = 'o', value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Write over files that are there already.
    #[arg(long, requires = "folder")]
    force: bool,
}

/// Prints the policies, and what is proved of them.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let (snapshot, _) = if args.manifests.is_empty() {
        (Snapshot::default(), 0)
    } else {
        recorded::without_policies(&args.manifests)?
    };
    let recorded = args.records.read()?;
    if recorded.observations.is_empty() {
        bail!("there is no flow in these records");
    }
    let options = Options {
        namespaces: args.namespace.iter().cloned().collect(),
        cluster: args.records.cluster_cidr.clone(),
        join: args.join_prefix,
        owner: args.owner.clone(),
        purpose: args.purpose.clone(),
    };
    let suggestion = Suggestion::of(&recorded.observations, &snapshot, &options);
    let is_spoilt = args.records.is_spoilt(&recorded);
    if let Some(folder) = &args.folder {
        let files: Vec<(String, String)> = suggestion
            .policies
            .iter()
            .map(|policy| (outputs::file_name(policy), yaml::manifest(policy, 0)))
            .collect();
        outputs::write(folder, &files, args.force)?;
    } else {
        let mut out = std::io::stdout().lock();
        for policy in &suggestion.policies {
            write!(out, "---\n{}", yaml::manifest(policy, 0))?;
        }
    }
    tell(&mut anstream::stderr().lock(), &suggestion, &recorded)?;
    Ok(match (is_spoilt, suggestion.is_proved()) {
        (true, _) => Exit::Failed,
        (false, true) => Exit::Clean,
        (false, false) => Exit::Findings,
    })
}

fn tell(out: &mut impl Write, suggestion: &Suggestion, recorded: &Recorded) -> anyhow::Result<()> {
    let namespaces: BTreeSet<&str> = suggestion
        .policies
        .iter()
        .filter_map(|policy| policy["metadata"]["namespace"].as_str())
        .collect();
    writeln!(
        out,
        "policies: {}, in namespaces: {}, from records: {}",
        suggestion.policies.len(),
        namespaces.len(),
        recorded.records
    )?;
    let good = style::GOOD;
    if suggestion.denied.is_empty() {
        writeln!(
            out,
            "{good}sufficient{good:#}: {} judged, and all pass",
            counted(suggestion.flows, "flow")
        )?;
    } else {
        let denied = suggestion.denied.iter().map(|row| {
            format!(
                "{} -> {} {} {}: {}",
                row.from,
                row.to,
                row.protocol,
                row.port,
                counted(row.flows, "flow")
            )
        });
        list(out, "not sufficient, these would be denied", denied)?;
    }
    if suggestion.opened.is_empty() {
        writeln!(
            out,
            "{good}least{good:#}: nothing else is open between the known workloads and with the outside"
        )?;
    } else {
        let opened = suggestion.opened.iter().map(ToString::to_string);
        list(out, "not least, these are open as well", opened)?;
    }
    if !suggestion.unknown.is_empty() {
        let unknown = suggestion.unknown.iter();
        list(
            out,
            "not judged, and nothing was written for these",
            unknown.map(|(reason, flows)| format!("{flows} x {reason}")),
        )?;
    }
    for alike in &suggestion.alike {
        let names: Vec<String> = alike.iter().map(ToString::to_string).collect();
        writeln!(
            out,
            "note: the same labels are on {}: what was seen of one is allowed to each",
            names.join(" and ")
        )?;
    }
    for note in &suggestion.notes {
        writeln!(out, "note: {note}")?;
    }
    if let Some(lost) = recorded.passed_over.get(&Skip::Lost) {
        writeln!(
            out,
            "note: the recorder lost events, in {}: there were more flows than these",
            counted(*lost, "place")
        )?;
    }
    if recorded.broken > 0 {
        let broken = recorded.shown.iter();
        let broken =
            broken.map(|broken| format!("{}:{}: {}", broken.file, broken.line, broken.reason));
        list(out, &format!("broken records: {}", recorded.broken), broken)?;
    }
    Ok(())
}

fn list(
    out: &mut impl Write,
    head: &str,
    lines: impl Iterator<Item = String>,
) -> anyhow::Result<()> {
    let warn = style::WARN;
    writeln!(out, "{warn}{head}{warn:#}:")?;
    let lines: Vec<String> = lines.collect();
    for line in lines.iter().take(LINES) {
        writeln!(out, "  {line}")?;
    }
    if lines.len() > LINES {
        writeln!(out, "  and {} more", lines.len() - LINES)?;
    }
    Ok(())
}

fn namespace(text: &str) -> Result<NamespaceName, String> {
    match dns_label_problem(text) {
        Some(problem) => Err(problem.to_owned()),
        None => Ok(NamespaceName::from(text)),
    }
}

fn join(text: &str) -> Result<Join, String> {
    let (v4, v6) = text.split_once(',').unwrap_or((text, "128"));
    let length = |text: &str, most: u8| {
        let length: Option<u8> = text.trim().parse().ok();
        length
            .filter(|length| *length <= most)
            .ok_or_else(|| format!("{text:?} is no length between 0 and {most}"))
    };
    Ok(Join {
        v4: length(v4, 32)?,
        v6: length(v6, 128)?,
    })
}
