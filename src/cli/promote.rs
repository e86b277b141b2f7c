//! `ringfence promote`: say what a stricter mode would refuse, namespace by namespace, and move to it where nothing would.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::audit::{self, AsMode, Held};
use super::cluster::ClusterArgs;
use super::inputs::engine;
use super::recorded::Beside;
use super::{Exit, one_thread};
use crate::flows::Recorded;
use crate::guard::audit::Baselines;
use crate::guard::decide::State;
use crate::guard::engine::Level;
use crate::guard::exemption::Exemptions;
use crate::guard::guardrail::{Guardrail, GuardrailManifest, Guardrails};
use crate::guard::mode::Mode;
use crate::guard::reachability::ReachabilityRules;
use crate::guard::review::Review;
use crate::k8s::events::WOULD_REFUSE;
use crate::k8s::events::window::{self, Passed};
use crate::k8s::list::Cluster;
use crate::k8s::one::chain;
use crate::report::text::printable;

mod baselines;

/// Arguments of `ringfence promote`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    ringfence promote --context prod                              how far each guardrail is\n  \
    ringfence promote shop-guardrail --context prod               to the next mode, if nothing would be refused\n  \
    ringfence promote shop-guardrail --to enforce --dry-run       only say what would be refused\n  \
    ringfence promote shop-guardrail --namespace shop             give a namespace in which pods run its baseline\n  \
    ringfence promote shop-guardrail --namespace shop --flows flows.jsonl --dry-run\n  \
                                                                  and which flows that were seen it would cut\n\n\
    What is judged is what the cluster holds now, and by their Events the changes that passed lately and would not have. \
    A guardrail that is kept in Git is changed there instead: --dry-run \
    prints the change.\n\
    Exit codes: 0 clean or promoted, 1 something would be refused or cut, 2 it could not be done.")]
pub struct Args {
    /// The guardrail. Without it: all of them are looked at, and none is changed.
    #[arg(value_name = "GUARDRAIL")]
    guardrail: Option<String>,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// A namespace in which pods run already, to be given its baseline policy; the mode stays as it is.
    #[arg(
        long,
        short,
        value_name = "NAME",
        requires = "guardrail",
        conflicts_with = "to"
    )]
    namespace: Vec<String>,
    /// The mode to move to. Without it: the next one.
    #[arg(long, value_name = "MODE", requires = "guardrail", ignore_case = true)]
    to: Option<AsMode>,
    #[command(flatten)]
    seen: Beside,
    /// Do it although something would be refused or cut; an annotation of the guardrail says so.
    #[arg(long, requires = "guardrail")]
    force: bool,
    /// Only say what would follow.
    #[arg(long)]
    dry_run: bool,
}

/// The annotation that records a promotion that was forced.
const FORCED: &str = "ringfence.dev/promotion-forced";
/// Who writes, by name of the field manager.
const MANAGER: &str = "ringfence-promote";
/// How many lines are told of one namespace.
const LINES: usize = 5;

/// What would be refused, by namespace (empty for what belongs to none).
type Refused = BTreeMap<String, Vec<String>>;

/// What would have been refused of late, by namespace; the reason where that cannot be known.
type Lately = Result<BTreeMap<String, Vec<Passed>>, String>;

/// Looks, tells, and changes the guardrail where that is asked for.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let recorded = args.seen.read()?;
    if Beside::warn_of_broken(recorded.as_ref()) {
        bail!("what broken records say is not known: nothing is promoted by the others");
    }
    let cluster = audit::read(&args.cluster)?;
    if cluster.guardrails.is_empty() {
        bail!("the cluster has no Guardrail to promote");
    }
    let state = State {
        snapshot: cluster.snapshot.clone(),
        guardrails: Guardrails::new(cluster.guardrails.clone())
            .with_confirmations(Some(cluster.confirmations.clone())),
        exemptions: Exemptions::new(cluster.exemptions.clone()),
        reachability: ReachabilityRules::new(cluster.rules.clone(), &cluster.snapshot),
        engine: engine(&[])?,
    };
    let Some(name) = &args.guardrail else {
        return all(&cluster, &state, &lately(&args.cluster)?);
    };
    let Some(guardrail) = state.guardrails.iter().find(|known| known.name == *name) else {
        bail!("the cluster has no good Guardrail `{name}`");
    };
    if args.namespace.is_empty() {
        let lately = of_guardrail(&lately(&args.cluster)?, guardrail);
        mode(
            args,
            guardrail,
            &cluster,
            &state,
            &lately,
            recorded.as_ref(),
        )
    } else {
        baselines::namespaces(args, guardrail, &state, recorded.as_ref())
    }
}

/// How far each guardrail is.
fn all(
    cluster: &Cluster,
    state: &State,
    lately: &Result<Vec<Passed>, String>,
) -> anyhow::Result<Exit> {
    let mut exit = Exit::Clean;
    for guardrail in &state.guardrails {
        let mode = guardrail.spec.mode;
        let refused = refused(guardrail, Mode::Enforce, cluster, state)?;
        let lately = of_guardrail(lately, guardrail);
        anstream::println!(
            "Guardrail {} ({mode}): {}",
            printable(&guardrail.name),
            words(&refused, &lately)
        );
        tell(&refused);
        tell_lately(&lately);
        if !is_clean(&refused, &lately) {
            exit = Exit::Findings;
        }
    }
    Ok(exit)
}

/// Moves a guardrail to another mode.
fn mode(
    args: &Args,
    guardrail: &Guardrail,
    cluster: &Cluster,
    state: &State,
    lately: &Lately,
    recorded: Option<&Recorded>,
) -> anyhow::Result<Exit> {
    let now = guardrail.spec.mode;
    let next = match (args.to, now) {
        (Some(to), _) => to.into(),
        (None, Mode::Audit) => Mode::Warn,
        (None, Mode::Warn) => Mode::Enforce,
        (None, Mode::Enforce) => bail!("Guardrail `{}` is in mode Enforce already", guardrail.name),
    };
    // Whatever the next mode is, what counts is what the last one would refuse.
    let refused = refused(guardrail, Mode::Enforce, cluster, state)?;
    anstream::println!(
        "Guardrail {}, {now} to {next}: {}",
        printable(&guardrail.name),
        words(&refused, lately)
    );
    tell(&refused);
    tell_lately(lately);
    let is_cutting = next == Mode::Enforce && baselines::at_once(args, guardrail, state, recorded)?;
    // To a milder mode there is nothing to be careful about.
    let is_clean = (is_clean(&refused, lately) && !is_cutting) || next <= now;
    let found: usize = refused.values().map(Vec::len).sum();
    let mut change = json!({"spec": {"mode": next}});
    if !is_clean && args.force {
        let lately = match lately {
            Ok(lately) => format!("{} changes of late", count(lately)),
            Err(_) => "changes of late that are not known".to_owned(),
        };
        let now = Timestamp::now();
        let cuts = if is_cutting {
            ", flows that baselines cut"
        } else {
            ""
        };
        let note = format!("to {next} over {found} findings{cuts} and {lately} at {now}");
        change["metadata"] = json!({"annotations": {FORCED: note}});
    }
    finish(args, guardrail, &change, is_clean)
}

/// Writes the change, or says why not.
fn finish(
    args: &Args,
    guardrail: &Guardrail,
    change: &Value,
    is_clean: bool,
) -> anyhow::Result<Exit> {
    if args.dry_run {
        anstream::println!(
            "the change of Guardrail {}: {change}",
            printable(&guardrail.name)
        );
        return Ok(if is_clean {
            Exit::Clean
        } else {
            Exit::Findings
        });
    }
    if !is_clean && !args.force {
        anstream::eprintln!("not promoted; mend it first, or give --force");
        return Ok(Exit::Findings);
    }
    let runtime = one_thread()?;
    runtime.block_on(async {
        let client = args.cluster.connect_from_outside().await?;
        let guardrails: Api<GuardrailManifest> = Api::all(client);
        let as_us = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        guardrails
            .patch(&guardrail.name, &as_us, &Patch::Merge(change))
            .await
            .with_context(|| format!("cannot change Guardrail `{}`", guardrail.name))
    })?;
    anstream::println!("Guardrail {} promoted", printable(&guardrail.name));
    Ok(Exit::Clean)
}

/// What a guardrail by itself would refuse in a mode, of what the cluster holds.
fn refused(
    guardrail: &Guardrail,
    mode: Mode,
    cluster: &Cluster,
    state: &State,
) -> anyhow::Result<Refused> {
    let alone = State {
        guardrails: Guardrails::new(vec![guardrail.in_mode(mode)?])
            .with_confirmations(state.guardrails.confirmations().cloned()),
        ..state.clone()
    };
    let reviews: Vec<&Review> = cluster.reviews.iter().collect();
    let mut refused = Refused::new();
    for Held {
        review, decision, ..
    } in audit::judge(
        &reviews,
        &alone,
        &Baselines::of(&alone.context()),
        Timestamp::now(),
    ) {
        let counted = decision.judged.iter().filter(|judged| {
            judged.mode == Mode::Enforce
                && judged.level == Level::Deny
                && judged.exemption.is_none()
                && judged.guardrails.contains(&guardrail.name)
        });
        for judged in counted {
            let namespace = review.namespace.as_ref().map_or("", |name| name.as_str());
            let lines = refused.entry(namespace.to_owned()).or_default();
            let finding = &judged.finding;
            lines.push(format!(
                "{} {}: {}",
                finding.id, finding.object, finding.message
            ));
        }
    }
    Ok(refused)
}

/// What Events tell of all guardrails.
fn lately(cluster: &ClusterArgs) -> anyhow::Result<Result<Vec<Passed>, String>> {
    let runtime = one_thread()?;
    runtime.block_on(async {
        let client = cluster.connect_from_outside().await?;
        let passed = window::passed(&client).await;
        Ok(passed.map_err(|error| chain(&error)))
    })
}

/// What of it one guardrail asks for, by namespace.
fn of_guardrail(lately: &Result<Vec<Passed>, String>, guardrail: &Guardrail) -> Lately {
    let mut by_namespace: BTreeMap<String, Vec<Passed>> = BTreeMap::new();
    let of_it = |passed: &&Passed| passed.guardrails.contains(&guardrail.name);
    for passed in lately.as_ref().map_err(Clone::clone)?.iter().filter(of_it) {
        let passed = passed.clone();
        let namespace = by_namespace.entry(passed.namespace.clone());
        namespace.or_default().push(passed);
    }
    for passed in by_namespace.values_mut() {
        passed.sort_by_key(|passed| std::cmp::Reverse(passed.last));
    }
    Ok(by_namespace)
}

/// What cannot be known may be anything, and is not clean.
fn is_clean(refused: &Refused, lately: &Lately) -> bool {
    refused.is_empty() && lately.as_ref().is_ok_and(BTreeMap::is_empty)
}

/// How many changes they were.
fn count(lately: &BTreeMap<String, Vec<Passed>>) -> u64 {
    let counts = lately.values().flatten();
    counts.map(|passed| u64::from(passed.count)).sum()
}

fn words(refused: &Refused, lately: &Lately) -> String {
    let found: usize = refused.values().map(Vec::len).sum();
    let now = match found {
        0 => "Enforce would refuse nothing of what is there".to_owned(),
        1 => "Enforce would refuse 1 thing that is there".to_owned(),
        _ => format!("Enforce would refuse {found} things that are there"),
    };
    match lately {
        Err(error) => format!(
            "{now}; what it would have refused lately is not known, so this does not count as clean: \
            Events cannot be listed: {}",
            printable(error)
        ),
        Ok(lately) => match lately.values().flatten().map(|passed| passed.first).min() {
            None => format!(
                "{now}, and there is no Event of a change that it would have refused \
                (an API server keeps them for an hour unless told otherwise)"
            ),
            Some(since) => format!(
                "{now}, and would have refused {} since {since:.0}",
                match count(lately) {
                    1 => "1 change".to_owned(),
                    count => format!("{count} changes"),
                }
            ),
        },
    }
}

fn tell_lately(lately: &Lately) {
    for (namespace, passed) in lately.iter().flatten() {
        let times: u64 = passed.iter().map(|passed| u64::from(passed.count)).sum();
        anstream::println!("  {}, lately: {times}", printable(place(namespace)));
        for passed in passed.iter().take(LINES) {
            anstream::println!(
                "    {} of {} (last at {:.0}, {} in all)",
                printable(&passed.note),
                printable(&passed.object),
                passed.last,
                passed.count
            );
        }
        if let Some(more) = passed.len().checked_sub(LINES).filter(|more| *more > 0) {
            anstream::println!(
                "    and {more} more (kubectl get events -n {namespace} --field-selector reason={WOULD_REFUSE})"
            );
        }
    }
}

fn place(namespace: &str) -> &str {
    if namespace.is_empty() {
        "(cluster)"
    } else {
        namespace
    }
}

fn tell(refused: &Refused) {
    for (namespace, lines) in refused {
        anstream::println!("  {}: {}", printable(place(namespace)), lines.len());
        for line in lines.iter().take(LINES) {
            anstream::println!("    {}", printable(line));
        }
        if let Some(more) = lines.len().checked_sub(LINES).filter(|more| *more > 0) {
            anstream::println!(
                "    and {more} more (ringfence audit --namespace {namespace} --as enforce)"
            );
        }
    }
}
