//! `ringfence explain RF…`: what a finding means, why it matters and what to do.

use std::io::Write;
use std::path::PathBuf;

use anyhow::bail;

use super::{Exit, style};
use crate::guard::engine::PolicyInfo;
use crate::guard::registry::{self, Check};

/// Arguments of `ringfence explain`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  ringfence explain RF201\n  ringfence explain          list every check"
)]
pub struct Args {
    /// The id of the finding, such as RF201. Without one: the list of all.
    id: Option<String>,
    /// A folder of your own policies in Rego, whose ids are then known too.
    #[arg(long, value_name = "DIR")]
    policies: Vec<PathBuf>,
}

/// Prints one check, or the list.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let engine = super::inputs::engine(&args.policies)?;
    let mut known: Vec<PolicyInfo> = registry::CHECKS.iter().map(Check::info).collect();
    known.extend(engine.registry());
    known.sort_by(|a, b| a.id.cmp(&b.id));
    let mut out = anstream::stdout().lock();
    let Some(id) = &args.id else {
        for info in &known {
            writeln!(
                out,
                "{}{}{:#}  {:8}  {}",
                style::HEAD,
                info.id,
                style::HEAD,
                info.severity,
                info.title
            )?;
        }
        return Ok(Exit::Clean);
    };
    let Some(info) = known
        .iter()
        .find(|info| info.id.as_str().eq_ignore_ascii_case(id))
    else {
        bail!("no check has the id `{id}`; `ringfence explain` lists them all");
    };
    let native = registry::CHECKS
        .iter()
        .find(|check| check.id == info.id.as_str());
    writeln!(
        out,
        "{}{}: {}{:#}",
        style::HEAD,
        info.id,
        info.title,
        style::HEAD
    )?;
    writeln!(out, "severity: {}", info.severity)?;
    match native {
        Some(Check { section: None, .. }) => writeln!(out, "demanded of: every manifest")?,
        Some(_) | None => writeln!(out, "section of the Guardrail: {}", info.section)?,
    }
    if let Some(owner) = &info.owner {
        writeln!(out, "owner: {owner}")?;
    }
    if let Some(check) = native {
        writeln!(out, "\nWhy: {}.", check.why)?;
    }
    writeln!(out, "\n{}", info.description.trim())?;
    Ok(Exit::Clean)
}
