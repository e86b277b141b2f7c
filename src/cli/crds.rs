//! `ringfence crds`: the definitions of Ringfence's own kinds, made of the very types that read them.

use std::io::Write;

use kube::CustomResourceExt;

use super::Exit;
use crate::guard::exemption::ExemptionManifest;
use crate::guard::guardrail::GuardrailManifest;
use crate::guard::reachability::ReachabilityRuleManifest;
use crate::report::yaml;

/// Arguments of `ringfence crds`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ringfence crds | kubectl apply -f -")]
pub struct Args {}

/// Prints the definitions, one document each.
pub(super) fn run(_: &Args) -> anyhow::Result<Exit> {
    let mut out = std::io::stdout().lock();
    for definition in [
        ExemptionManifest::crd(),
        GuardrailManifest::crd(),
        ReachabilityRuleManifest::crd(),
    ] {
        write!(out, "---\n{}", yaml::manifest(&definition, 0))?;
    }
    Ok(Exit::Clean)
}
