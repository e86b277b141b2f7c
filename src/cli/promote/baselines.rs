//! What a promotion means for baselines: the policies that are made, and the flows that they cut.

use std::collections::BTreeSet;

use anyhow::bail;
use jiff::Timestamp;
use serde_json::json;

use super::{Args, FORCED, LINES, finish};
use crate::cli::Exit;
use crate::flows::Recorded;
use crate::guard::audit::cuts;
use crate::guard::baseline::plan::{Hold, Plan, Standing, plan};
use crate::guard::baseline::{Observed, Wanted, observed};
use crate::guard::decide::State;
use crate::guard::engine::Budget;
use crate::guard::guardrail::{Guardrail, Guardrails, Section};
use crate::guard::mode::Mode;
use crate::netpol::NamespaceName;
use crate::report;
use crate::report::text::printable;

/// Gives namespaces in which pods run their baseline.
pub(super) fn namespaces(
    args: &Args,
    guardrail: &Guardrail,
    state: &State,
    recorded: Option<&Recorded>,
) -> anyhow::Result<Exit> {
    let Some(section) = &guardrail.spec.baseline else {
        bail!("Guardrail `{}` has no baseline section", guardrail.name);
    };
    let plans = plan(&state.snapshot, &state.guardrails, &BTreeSet::new());
    let mut promoted = section.promoted.clone();
    let mut made: Vec<(&NamespaceName, &[Wanted])> = Vec::new();
    for name in &args.namespace {
        let namespace = name.as_str().into();
        let known = state.snapshot.namespace(&namespace);
        let Some(known) = known.filter(|known| guardrail.selects(known.labels())) else {
            bail!(
                "Guardrail `{}` does not select a namespace `{name}` of the cluster",
                guardrail.name
            );
        };
        promoted.insert(name.clone());
        let standing = plans.iter().find(|plan| plan.namespace == *known.name());
        match standing.map(|plan| &plan.standing) {
            Some(Standing::Held(Hold::NameTaken(policy), _)) => {
                bail!("namespace `{name}`: policy `{policy}` is there and is not Ringfence's");
            }
            Some(Standing::Held(_, wanted)) => made.push((known.name(), wanted)),
            Some(Standing::Kept | Standing::Adopted | Standing::Leaving) | None => {
                anstream::println!("namespace {name}: nothing is to be made");
            }
        }
    }
    let is_clean = !tell(args, &made, state, recorded, usize::MAX);
    if guardrail.mode_of(Section::Baseline) != Some(Mode::Enforce) {
        anstream::eprintln!(
            "the baseline section is not in mode Enforce: nothing is made before it is"
        );
    }
    let mut change = json!({"spec": {"baseline": {"promoted": promoted}}});
    if !is_clean && args.force {
        let note = format!("{} at {}", args.namespace.join(", "), Timestamp::now());
        change["metadata"] = json!({"annotations": {FORCED: note}});
    }
    finish(args, guardrail, &change, is_clean)
}

/// Tells which namespaces a guardrail gives their baseline as soon as it is in mode Enforce, and what that cuts; whether it
/// cuts anything.
pub(super) fn at_once(
    args: &Args,
    guardrail: &Guardrail,
    state: &State,
    recorded: Option<&Recorded>,
) -> anyhow::Result<bool> {
    let changed = state.guardrails.iter().map(|known| {
        if known.name == guardrail.name {
            known.in_mode(Mode::Enforce)
        } else {
            Ok(known.clone())
        }
    });
    let changed = Guardrails::new(changed.collect::<Result<_, _>>()?);
    let of_it = |plan: &Plan| {
        guardrail.selects(&state.snapshot.namespace_labels(&plan.namespace))
            && guardrail.spec.baseline.is_some()
    };
    let mut plans = plan(&state.snapshot, &changed, &BTreeSet::new());
    plans.retain(of_it);
    let waiting = plans
        .iter()
        .filter(|plan| matches!(plan.standing, Standing::Held(Hold::RunningPods, _)));
    match waiting.count() {
        0 => {}
        1 => anstream::println!("1 namespace in which pods run waits for its own promotion"),
        count => {
            anstream::println!("{count} namespaces in which pods run wait for their own promotion");
        }
    }
    let to_make: Vec<(&NamespaceName, Vec<Wanted>)> = plans
        .iter()
        .map(|plan| (&plan.namespace, plan.to_make().cloned().collect()))
        .collect();
    let made: Vec<(&NamespaceName, &[Wanted])> = to_make
        .iter()
        .filter(|(_, wanted)| !wanted.is_empty())
        .map(|(namespace, wanted)| (*namespace, wanted.as_slice()))
        .collect();
    Ok(tell(args, &made, state, recorded, LINES))
}

/// Tells what is made in namespaces and what it cuts, of so many where nothing is cut; whether anything is.
fn tell(
    args: &Args,
    made: &[(&NamespaceName, &[Wanted])],
    state: &State,
    recorded: Option<&Recorded>,
    most: usize,
) -> bool {
    let seen = recorded.map(|recorded| {
        let wanted = made.iter().flat_map(|(_, wanted)| *wanted);
        let (flows, cluster) = (&recorded.observations, &args.seen.cluster_cidr);
        observed(wanted, flows, &state.snapshot, cluster)
    });
    let (mut cuts_any, mut shown) = (false, 0_usize);
    for (namespace, wanted) in made {
        let declared = cuts(
            wanted,
            &state.context(),
            Timestamp::now(),
            Budget::UNHURRIED,
        );
        let cut = seen.as_ref().map(|seen| seen.namespaces.get(*namespace));
        let cuts = !declared.is_empty() || cut.flatten().is_some();
        cuts_any |= cuts;
        if !cuts {
            shown = shown.saturating_add(1);
            if shown > most {
                continue;
            }
        }
        let mut text = format!(
            "namespace {}: {} policies are made, {} declared flows are cut",
            printable(namespace.as_str()),
            wanted.len(),
            declared.len()
        );
        match cut {
            None => {}
            Some(None) => text.push_str(", and no recorded ones"),
            Some(Some(cut)) => {
                text.push_str(", of recorded ones ");
                text.push_str(&report::cuts::of_one(cut));
            }
        }
        text.push('\n');
        for line in &declared {
            text.push_str("  ");
            text.push_str(&printable(line));
            text.push('\n');
        }
        if let Some(cut) = cut.flatten() {
            report::cuts::connections(&mut text, cut);
        }
        anstream::print!("{text}");
    }
    if let Some(more) = shown.checked_sub(most).filter(|more| *more > 0) {
        anstream::println!("and {more} more namespaces are given theirs, which cuts nothing");
    }
    if let Some(Observed { unknown, .. }) = seen.filter(|seen| seen.unknown > 0) {
        anstream::println!("{unknown} recorded flows are not judged: an end of them is not known");
    }
    cuts_any
}
