//! `ringfence why FROM TO PORT PATH…`: one flow, step by step, and what would let it pass.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};

use super::form::Form;
use super::reach::{Who, parse_port, parse_protocol, read};
use super::{Exit, style, whole};
use crate::netpol::reach::{Explanation, Says, Step};
use crate::netpol::{
    Action, Direction, Endpoint, Flow, Pod, Port, Protocol, Snapshot, WorkloadKind,
};
use crate::report::why;

/// Arguments of `ringfence why`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
        ringfence why frontend/web admin-db/postgres 5432 DIR\n  \
        ringfence why backend/orders-api 192.0.2.10 tcp/443 DIR\n  \
        ringfence why 203.0.113.7 frontend/web 8080 DIR\n  \
        ringfence why frontend/web admin-db/postgres 5432 DIR --output json\n\n\
        The steps go through the tiers: ClusterNetworkPolicies of the Admin tier and AdminNetworkPolicies, NetworkPolicies, and\n\
        for pods that none of these isolates, the Baseline tier and the BaselineAdminNetworkPolicy. Domain names are not\n\
        resolved: an Accept to them is not counted, and said.\n\n\
        JSON: an object with `verdict` (\"allowed\" or \"denied\"), `reason`, `flow` (`from`, `to`, `protocol`, `port`), `ends` (`egress`\n\
        and `ingress`, each `passes` and `reason`), `steps` in their order (`policy` with `kind` and `name`, and `namespace` or\n\
        `tier` and, where it has one, `priority`; `direction`; `rule`, its field or null; `peer` and `port`, whether it is for\n\
        these; `says`),\n\
        `blockedBy` (rules of the Admin tier) and `proposal` (`policy`, `direction`, `new`, `isolates`, `manifest`).\n\n\
        Exit codes: 0 allowed, 1 denied, 2 could not say.")]
pub struct Args {
    /// Who opens the connection: `namespace/name`, `kind/namespace/name` or an address.
    #[arg(value_name = "FROM")]
    from: Who,
    /// To whom; to a pod behind a Service, not to the Service.
    #[arg(value_name = "TO")]
    to: Who,
    /// The destination's own port: `5432`, `tcp/5432` or `udp/53`.
    #[arg(value_name = "PORT", value_parser = parse_asked)]
    port: (Option<Protocol>, Port),
    /// Files or folders of manifests (YAML or JSON); `-` for standard input.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The protocol, where PORT does not say it.
    #[arg(long, value_name = "PROTOCOL", value_parser = parse_protocol)]
    protocol: Option<Protocol>,
    /// How to print it.
    #[arg(long, short, value_enum, default_value_t = Form::Text)]
    output: Form,
}

/// Prints what the policies say of one flow.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let (said, port) = args.port;
    let protocol = match (said, args.protocol) {
        (Some(said), Some(other)) if said != other => {
            bail!("PORT says {said}, and --protocol {other}: give one of them")
        }
        (said, other) => said.or(other).unwrap_or(Protocol::Tcp),
    };
    let snapshot = read(&args.paths)?;
    let from = endpoints(&args.from, &snapshot).context("FROM")?;
    let to = endpoints(&args.to, &snapshot).context("TO")?;
    let flow = one_of(&snapshot, &from, &to, |from, to| {
        Flow::new(from, to, protocol, port)
    });
    let flow = flow.context("nobody is meant")?;
    let explanation = snapshot.explain(&flow);
    match args.output {
        Form::Text => write(&mut anstream::stdout().lock(), &flow, &explanation)?,
        Form::Json => {
            let text = why::json(&flow, &explanation)?;
            anstream::stdout().lock().write_all(text.as_bytes())?;
        }
    }
    Ok(if explanation.verdict.allowed() {
        Exit::Clean
    } else {
        Exit::Findings
    })
}

/// Reads a port; the protocol where it is said.
fn parse_asked(text: &str) -> Result<(Option<Protocol>, Port), String> {
    let (protocol, port) = parse_port(text)?;
    Ok((text.contains('/').then_some(protocol), port))
}

/// More pods of a workload than these are not compared.
const MOST_PODS: usize = 64;

/// The flow of which most is to be said: where the pods of two workloads fare differently, one that is allowed, as `reach` lists
/// it; that others are not is said on standard error.
fn one_of<'s>(
    snapshot: &Snapshot,
    from: &[Endpoint<'s>],
    to: &[Endpoint<'s>],
    flow: impl Fn(Endpoint<'s>, Endpoint<'s>) -> Flow<'s>,
) -> Option<Flow<'s>> {
    let is_itself = |from: &Endpoint<'_>, to: &Endpoint<'_>| match (from, to) {
        (Endpoint::Pod(from), Endpoint::Pod(to)) => from.workload == to.workload,
        _ => false,
    };
    let is_alone = from.len() == 1 && to.len() == 1;
    let pairs = from
        .iter()
        .flat_map(|from| to.iter().map(move |to| (*from, *to)));
    let pairs = pairs.filter(|(from, to)| is_alone || !is_itself(from, to));
    let (allowed, denied): (Vec<Flow<'s>>, Vec<Flow<'s>>) = pairs
        .map(|(from, to)| flow(from, to))
        .partition(|flow| snapshot.verdict(flow).allowed());
    if let (Some(_), Some(other)) = (allowed.first(), denied.first()) {
        whole::warn(&format!(
            "not all pods fare alike: {} of {} pairs are denied, such as {other}",
            denied.len(),
            allowed.len().saturating_add(denied.len())
        ));
    }
    allowed.into_iter().chain(denied).next()
}

/// The pods of a workload, or the one pod, node or address, that is meant. What runs counts more than a template.
fn endpoints<'s>(who: &Who, snapshot: &'s Snapshot) -> anyhow::Result<Vec<Endpoint<'s>>> {
    match who {
        Who::Address(address) => return Ok(vec![snapshot.endpoint_at(*address)]),
        Who::Block(block) => bail!("{block}: one address, please"),
        Who::Workload { name: None, .. } => bail!("{who}: one workload, please"),
        Who::Workload { .. } => {}
    }
    let meant = who.pods_of(snapshot);
    let one = match meant[..] {
        [pod] => pod,
        // A workload whose own template is not among the manifests.
        [] => {
            let is_of = |pod: &&Pod| !pod.is_finished() && who.names(&snapshot.root(pod));
            let found = snapshot.pods().find(is_of);
            found.with_context(|| format!("there is no {who} among the manifests"))?
        }
        [..] => {
            let names: Vec<String> = meant.iter().map(|pod| in_words(&pod.workload)).collect();
            bail!("{who} may be {}: say which", names.join(" or "))
        }
    };
    let runs = |pod: &Pod| pod.workload.kind == WorkloadKind::Pod;
    if runs(one) && who.names(&one.workload) {
        return Ok(vec![Endpoint::Pod(one)]);
    }
    let root = snapshot.root(one);
    let running = snapshot
        .pods()
        .filter(|pod| runs(pod) && !pod.is_finished() && snapshot.root(pod) == root);
    let running: Vec<Endpoint<'s>> = running.take(MOST_PODS).map(Endpoint::Pod).collect();
    Ok(if running.is_empty() {
        vec![Endpoint::Pod(one)]
    } else {
        running
    })
}

fn in_words(workload: &crate::netpol::WorkloadRef) -> String {
    format!("{}/{}/{}", workload.kind, workload.namespace, workload.name)
}

/// Writes what the policies say of one flow, step by step.
pub(super) fn write(
    out: &mut impl Write,
    flow: &Flow<'_>,
    explanation: &Explanation,
) -> anyhow::Result<()> {
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
        for step in steps {
            print_step(out, step)?;
        }
        let colour = if verdict.passes() {
            style::GOOD
        } else {
            style::ERROR
        };
        writeln!(out, "  {colour}=>{colour:#} {verdict}")?;
    }
    if !explanation.verdict.allowed() {
        print_changes(out, explanation)?;
    }
    Ok(())
}

fn print_step(out: &mut impl Write, step: &Step) -> anyhow::Result<()> {
    let policy = &step.policy;
    let Some(field) = step.field() else {
        writeln!(
            out,
            "  {policy}: isolates, and has no {} rule",
            step.direction
        )?;
        return Ok(());
    };
    let (says, colour) = match step.says {
        Says::Allows => ("allows it".to_owned(), style::GOOD),
        Says::Nothing => (misses(step).to_owned(), style::DIM),
        Says::NotCounted => (
            "accepts what may be this; nobody can say offline, so it is not counted".to_owned(),
            style::WARN,
        ),
        Says::Does(action, why) => {
            let (words, colour) = match action {
                Action::Accept => ("accepts it", style::GOOD),
                Action::Deny => ("denies it", style::ERROR),
                Action::Pass => ("passes it to the next tier", style::DIM),
            };
            (
                why.map_or(words.to_owned(), |why| format!("{words}: {why}")),
                colour,
            )
        }
        Says::Outdone(action) => (
            format!("would {action} it, but a rule of the same priority is stricter"),
            style::WARN,
        ),
    };
    writeln!(out, "  {policy} {field}: {colour}{says}{colour:#}")?;
    Ok(())
}

/// What a rule lacks that is not for a flow.
fn misses(step: &Step) -> &'static str {
    match (step.peer, step.port) {
        (true, _) => "has this peer, but not this port",
        (false, true) => "has this port, but not this peer",
        (false, false) => "has neither this peer nor this port",
    }
}

fn print_changes(out: &mut impl Write, explanation: &Explanation) -> anyhow::Result<()> {
    let changes = &explanation.changes;
    let blocked_by = explanation.blocked_by();
    for rule in &blocked_by {
        writeln!(
            out,
            "\nNo NetworkPolicy can allow this: {rule} denies it in the {} tier. It takes a change of that rule, or one\n\
             before it that accepts this flow or passes it on.",
            rule.tier
        )?;
    }
    if changes.is_empty() {
        if blocked_by.is_empty() {
            writeln!(
                out,
                "\nNo rule of a NetworkPolicy can allow just this flow."
            )?;
        }
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
        if change.isolates {
            writeln!(
                out,
                "# it isolates these pods for {}: what else they need must be allowed as well",
                change.direction
            )?;
        }
        let yaml = serde_saphyr::to_string(&manifest).context("cannot write YAML")?;
        writeln!(out, "{}", yaml.trim_end())?;
        if change.is_new && changes.len() > 1 {
            writeln!(out, "---")?;
        }
    }
    Ok(())
}
