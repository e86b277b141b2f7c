//! `ringfence status`: which policy is confirmed to be in force on which nodes.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use serde_json::json;

use super::cluster::ClusterArgs;
use super::form::Form;
use super::{Exit, one_thread, style};
use crate::guard::enforcement::answer::{Answer, Lag, NodeAnswer, PolicyAnswer, answer};
use crate::k8s::enforcement;
use crate::netpol::{NamespaceName, NodeName};
use crate::report::text::printable;

/// Arguments of `ringfence status`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    ringfence status --context prod\n  \
    ringfence status --context prod --namespace shop\n  \
    until ringfence status --namespace shop; do sleep 1; done     wait until an applied policy is in force\n\n\
    A node confirms a policy when its agent read the kernel back within the last ten minutes, found what the policies say,\n\
    and names the policy in its current generation (its NodeEnforcement). Policies that select no running pod hold nobody,\n\
    and are left out. Network plugins that enforce policies themselves give no receipts: see `ringfence doctor`.\n\n\
    JSON: an object with `confirmed` (whether all are), `receipts` (whether the API server knows the kind), `nodes` (`node`,\n\
    and `reason` where its receipt does not count) and `policies` (`namespace`, absent for one of the whole cluster, `kind` for one of v1alpha1 and for one on\n\
    trial, which has a `stage` too, `name`, `generation`, `confirmed` of `nodes`, and `laggards`, each a `node` with its `reason`).\n\n\
    Exit codes: 0 all confirmed, 1 not all, 2 could not say.")]
pub struct Args {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Ask for the policies that hold pods of this namespace. Without it: of all.
    #[arg(long, short, value_name = "NAME")]
    namespace: Option<String>,
    /// How to print it.
    #[arg(long, short, value_enum, default_value_t = Form::Text)]
    output: Form,
}

/// Reads the cluster and prints who confirms what.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let runtime = one_thread()?;
    let standing = runtime.block_on(async {
        let client = args.cluster.connect_from_outside().await?;
        let read = enforcement::read(&client).await;
        read.context("cannot read the cluster")
    })?;
    let namespace = args.namespace.as_deref().map(NamespaceName::from);
    if let Some(unknown) = &namespace
        && standing.snapshot.namespace(unknown).is_none()
    {
        bail!("--namespace: the cluster has no namespace {unknown}");
    }
    let now = Timestamp::now();
    let (is_served, receipts) = match standing.receipts {
        Some(receipts) => (true, receipts),
        None => (false, BTreeMap::<NodeName, _>::new()),
    };
    let answer = answer(&standing.snapshot, &receipts, namespace.as_ref(), now);
    let mut out = anstream::stdout().lock();
    match args.output {
        Form::Text => write(&mut out, &answer, is_served, now)?,
        Form::Json => {
            let document = json!({
                "confirmed": answer.is_confirmed(),
                "receipts": is_served,
                "nodes": answer.nodes,
                "policies": answer.policies,
            });
            writeln!(out, "{}", serde_json::to_string_pretty(&document)?)?;
        }
    }
    for thing in &standing.not_understood {
        anstream::eprintln!("{}not understood:{:#} {thing}", style::WARN, style::WARN);
    }
    Ok(if !standing.not_understood.is_empty() {
        Exit::Failed
    } else if answer.is_confirmed() {
        Exit::Clean
    } else {
        Exit::Findings
    })
}

fn write(
    out: &mut impl Write,
    answer: &Answer,
    is_served: bool,
    now: Timestamp,
) -> anyhow::Result<()> {
    if !is_served {
        writeln!(
            out,
            "{}The API server does not know NodeEnforcement:{:#} no agent can confirm anything (`ringfence crds` prints the definition).",
            style::WARN,
            style::WARN
        )?;
    }
    writeln!(out, "{}", head(&answer.nodes))?;
    for NodeAnswer { node, lag } in &answer.nodes {
        // Of nodes without a receipt there may be many, and there is no more to say of them.
        if let Some(lag) = lag.as_ref().filter(|lag| **lag != Lag::NoReceipt) {
            let words = printable(&lag.in_words(now));
            writeln!(out, "  {node}: {}{words}{:#}", style::WARN, style::WARN)?;
        }
    }
    if answer.policies.is_empty() {
        writeln!(out, "No policy selects a running pod.")?;
        return Ok(());
    }
    writeln!(out)?;
    for policy in &answer.policies {
        write_policy(out, policy, now)?;
    }
    let confirmed = answer.policies.iter();
    let confirmed = confirmed.filter(|policy| policy.is_confirmed()).count();
    let all = answer.policies.len();
    let colour = if confirmed == all {
        style::GOOD
    } else {
        style::ERROR
    };
    writeln!(
        out,
        "\n{colour}{confirmed} of {all} policies confirmed{colour:#} on every node that has pods of theirs"
    )?;
    Ok(())
}

/// One line about all nodes.
fn head(nodes: &[NodeAnswer]) -> String {
    let count = |is: fn(&Option<Lag>) -> bool| nodes.iter().filter(|node| is(&node.lag)).count();
    let confirmed = count(Option::is_none);
    let stale = count(|lag| matches!(lag, Some(Lag::OldReceipt { .. })));
    let without = count(|lag| matches!(lag, Some(Lag::NoReceipt)));
    let failing = nodes.len() - confirmed - stale - without;
    let mut text = format!(
        "{}{} nodes:{:#} {confirmed} confirmed, {stale} stale, {without} without receipt",
        style::HEAD,
        nodes.len(),
        style::HEAD
    );
    if failing > 0 {
        text = format!("{text}, {failing} failing");
    }
    text
}

fn write_policy(out: &mut impl Write, policy: &PolicyAnswer, now: Timestamp) -> anyhow::Result<()> {
    let colour = if policy.is_confirmed() {
        style::GOOD
    } else {
        style::ERROR
    };
    let held = &policy.policy;
    let name = match (&held.namespace, &held.kind) {
        (Some(namespace), None) => format!("{namespace}/{}", held.name),
        (Some(namespace), Some(kind)) => format!("{kind} {namespace}/{}", held.name),
        (None, Some(kind)) => format!("{kind} {}", held.name),
        (None, None) => format!("ClusterNetworkPolicy {}", held.name),
    };
    let name = match held.stage {
        Some(stage) => format!("{name} ({})", format!("{stage:?}").to_lowercase()),
        None => name,
    };
    let (confirmed, nodes) = (policy.confirmed, policy.nodes);
    let noun = if nodes == 1 { "node" } else { "nodes" };
    writeln!(out, "{name}: {colour}{confirmed}/{nodes}{colour:#} {noun}")?;
    for laggard in &policy.laggards {
        let words = printable(&laggard.lag.in_words(now));
        writeln!(
            out,
            "  {}: {}{words}{:#}",
            laggard.node,
            style::WARN,
            style::WARN
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::enforcement::HeldPolicy;
    use crate::guard::enforcement::answer::Laggard;
    use crate::netpol::Stage;

    #[test]
    fn laggards_are_named_below_their_policy() {
        let now: Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();
        let old = Lag::OldReceipt {
            read_back: Some("2026-06-01T10:00:00Z".parse().unwrap()),
        };
        let node = |name: &str, lag: Option<Lag>| NodeAnswer {
            node: name.into(),
            lag,
        };
        let policy =
            |namespace: Option<&str>, name: &str, laggards: Vec<(&str, Lag)>| PolicyAnswer {
                policy: HeldPolicy {
                    kind: None,
                    namespace: namespace.map(str::to_owned),
                    name: name.to_owned(),
                    generation: Some(3),
                    stage: None,
                },
                confirmed: 4 - laggards.len(),
                nodes: 4,
                laggards: laggards
                    .into_iter()
                    .map(|(node, lag)| Laggard {
                        node: node.into(),
                        lag,
                    })
                    .collect(),
            };
        let failing = Lag::NotEnforced {
            message: "the kernel did not take the rules".to_owned(),
        };
        let behind = Lag::Generation {
            held: Some(2),
            wanted: Some(3),
        };
        let mut staged = policy(Some("shop"), "deny", vec![]);
        staged.policy.kind = Some("StagedNetworkPolicy".to_owned());
        staged.policy.stage = Some(Stage::Shadow);
        let answer = Answer {
            nodes: vec![
                node("one", None),
                node("two", Some(old.clone())),
                node("three", Some(Lag::NoReceipt)),
                node("four", Some(failing.clone())),
            ],
            policies: vec![
                policy(None, "wide", vec![]),
                policy(
                    Some("shop"),
                    "deny",
                    vec![
                        ("one", behind),
                        ("two", old),
                        ("three", Lag::NoReceipt),
                        ("four", failing),
                    ],
                ),
                staged,
            ],
        };
        let mut out = anstream::StripStream::new(Vec::new());
        write(&mut out, &answer, true, now).unwrap();
        insta::assert_snapshot!(String::from_utf8(out.into_inner()).unwrap(), @r"
        4 nodes: 1 confirmed, 1 stale, 1 without receipt, 1 failing
          two: old receipt: the kernel was read back 120 minutes ago
          four: not enforced: the kernel did not take the rules

        ClusterNetworkPolicy wide: 4/4 nodes
        shop/deny: 0/4 nodes
          one: generation 2 of 3
          two: old receipt: the kernel was read back 120 minutes ago
          three: no receipt
          four: not enforced: the kernel did not take the rules
        StagedNetworkPolicy shop/deny (shadow): 4/4 nodes

        2 of 3 policies confirmed on every node that has pods of theirs
        ");
        let mut out = anstream::StripStream::new(Vec::new());
        write(&mut out, &Answer::default(), false, now).unwrap();
        insta::assert_snapshot!(String::from_utf8(out.into_inner()).unwrap(), @r"
        The API server does not know NodeEnforcement: no agent can confirm anything (`ringfence crds` prints the definition).
        0 nodes: 0 confirmed, 0 stale, 0 without receipt
        No policy selects a running pod.
        ");
    }
}
