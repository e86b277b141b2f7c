//! `ringfence baseline PATH…`: the policies that belong beside those which forgot DNS or monitoring.
//!
//! For those who keep everything in Git: what the webhook would add to a policy, as manifests of its own.

use std::io::Write;

use anyhow::bail;

use super::inputs::Inputs;
use super::{Exit, whole};
use crate::guard::baseline;
use crate::guard::engine::Budget;
use crate::guard::quarantine::Quarantine;
use crate::guard::review::Subject;
use crate::netpol::Object;
use crate::report::yaml;

/// Arguments of `ringfence baseline`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    ringfence baseline deploy/ > baseline.yaml\n  \
    helm template . | ringfence baseline -")]
pub struct Args {
    #[command(flatten)]
    inputs: Inputs,
}

/// Prints the policies, one document each; nothing where none is needed.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let folder = args.inputs.read()?;
    if let Some(error) = folder.first_error() {
        bail!("{error}");
    }
    whole::tell_unjudged(&folder);
    let guardrails = args.inputs.guardrails(&folder)?;
    let mut out = std::io::stdout().lock();
    for placed in &folder.objects {
        let Some(Object::NetworkPolicy(policy)) = placed.review.subject().and_then(Subject::model)
        else {
            continue;
        };
        let labels = folder.snapshot.namespace_labels(&policy.namespace);
        let quarantine = Quarantine::of(guardrails.selecting(&labels));
        for guardrail in guardrails.selecting(&labels) {
            let allows = baseline::forgotten(
                policy,
                guardrail,
                &quarantine,
                &folder.snapshot,
                Budget::PODS,
            );
            for manifest in baseline::beside(policy, guardrail, &quarantine, &allows) {
                write!(out, "---\n{}", yaml::manifest(&manifest, 0))?;
            }
        }
    }
    Ok(Exit::Clean)
}
