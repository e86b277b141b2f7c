//! What a person reads when a request is refused: what is wrong, where, why it matters and the smallest change that
//! would pass. `kubectl` prints it as it is; an event of a controller keeps the first 1024 characters.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::guard::decide::Judged;
use crate::guard::finding::ObjectRef;
use crate::guard::mode::Mode;
use crate::guard::mutate::{Injection, Reason, Way};
use crate::report::yaml;

use super::warnings::one_line;

/// More findings than these are counted, not printed.
const MOST_FINDINGS: usize = 10;
/// A line of somebody else's words is cut here.
const LONGEST_LINE: usize = 400;

/// A manifest that is longer is left to `ringfence check`.
const LONGEST_MANIFEST: usize = 1_500;

/// The message of a refusal.
pub(super) fn refusal(object: &ObjectRef, denied: &[&Judged]) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = write(&mut text, object, denied);
    text
}

fn write(text: &mut String, object: &ObjectRef, denied: &[&Judged]) -> std::fmt::Result {
    match denied {
        [_] => writeln!(text, "{object} breaks a rule:")?,
        _ => writeln!(text, "{object} breaks {} rules:", denied.len())?,
    }
    for judged in denied.iter().take(MOST_FINDINGS) {
        let finding = &judged.finding;
        writeln!(
            text,
            "\n- {}  [{}]",
            one_line(&finding.message, LONGEST_LINE),
            finding.id
        )?;
        let field = finding.field.to_string();
        if !field.is_empty() {
            writeln!(text, "  field: {}", one_line(&field, LONGEST_LINE))?;
        }
        if !finding.why.is_empty() {
            writeln!(text, "  why:   {}", one_line(&finding.why, LONGEST_LINE))?;
        }
        if let Some(fix) = &finding.fix {
            writeln!(text, "  fix:   {}", one_line(&fix.summary, LONGEST_LINE))?;
        }
    }
    // One manifest is help, several are noise.
    if let Some(manifest) = denied
        .iter()
        .find_map(|judged| judged.finding.fix.as_ref()?.manifest.as_ref())
    {
        let block = yaml::manifest(manifest, 2);
        if block.len() <= LONGEST_MANIFEST {
            write!(text, "\n{block}")?;
        }
    }
    let rest = denied.len().saturating_sub(MOST_FINDINGS);
    if rest > 0 {
        writeln!(
            text,
            "\n- and {rest} more; `ringfence check` on the manifest shows all"
        )?;
    }
    let guardrails: BTreeSet<&str> = denied
        .iter()
        .flat_map(|judged| judged.guardrails.iter().map(String::as_str))
        .collect();
    if !guardrails.is_empty() {
        let names = guardrails.into_iter().collect::<Vec<_>>().join(", ");
        writeln!(
            text,
            "\nasked for by guardrail: {}",
            one_line(&names, LONGEST_LINE)
        )?;
    }
    if let Some(first) = denied.first() {
        write!(text, "more: ringfence explain {}", first.finding.id)?;
    }
    Ok(())
}

/// What a person hears of the baseline's allows; nothing where the mode is silent.
pub(super) fn injection(injection: &Injection) -> Option<String> {
    let allows = injection
        .allows
        .iter()
        .map(|allow| allow.as_str())
        .collect::<Vec<_>>()
        .join(" and ");
    let guardrail = &injection.guardrail;
    if injection.mode == Mode::Audit {
        return None;
    }
    match injection.way {
        Way::Appended => Some(format!(
            "added the allows for {allows} that this policy takes away (guardrail {guardrail})"
        )),
        Way::WouldAppend(_) => Some(format!(
            "this policy takes away {allows}; in mode Enforce the allows would be added (guardrail {guardrail})"
        )),
        Way::Beside(reason) => {
            let because = match reason {
                Reason::Asked => "guardrail asks for a policy beside it".to_owned(),
                Reason::Tracked(tool) => format!("{tool} tracks it"),
                Reason::Quarantine => "it may select quarantined pods".to_owned(),
            };
            Some(format!(
                "this policy takes away {allows} and is left as it is: {because} (guardrail {guardrail})"
            ))
        }
        Way::OptedOut => None,
    }
}
