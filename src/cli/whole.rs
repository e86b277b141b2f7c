//! Manifests of which all must be good: where an answer speaks of a whole cluster, one from a part would be wrong.

use anyhow::bail;

use super::style;
use crate::guard::registry;
use crate::k8s::folder::Folder;
use crate::netpol::Snapshot;

/// What the model holds of a folder; an error where a file is broken or two objects contradict each other. What does
/// not make the answer wrong, but is not in it, is said on standard error.
pub(super) fn snapshot(folder: Folder) -> anyhow::Result<Snapshot> {
    if let Some(error) = folder.first_error() {
        return Err(error.into());
    }
    if let Some(error) = folder.first_contradiction() {
        return Err(error.into());
    }
    for problem in folder.problems {
        let (file, line, column) = (&problem.file, problem.line, problem.column);
        if problem.id == registry::INVALID.id {
            bail!("{file}:{line}:{column}: {}", problem.message);
        }
        let help = problem.help.map(|help| format!(" ({help})"));
        let help = help.unwrap_or_default();
        warn(&format!("{file}:{line}: {}{help}", problem.message));
    }
    for doubt in folder.snapshot.doubtful_rules() {
        warn(&doubt);
    }
    Ok(folder.snapshot)
}

/// Says something on standard error that whoever reads the answer should know.
pub(super) fn warn(message: &str) {
    let (colour, end) = (style::WARN, style::WARN.render_reset());
    anstream::eprintln!("{colour}warning:{end} {message}");
}
