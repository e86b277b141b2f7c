//! Manifests of which all must be good: where an answer speaks of a whole cluster, one from a part would be wrong.

use anyhow::bail;

use super::style;
use crate::guard::registry;
use crate::k8s::folder::{Doubt, Folder};
use crate::netpol::Snapshot;

/// Why nothing can be said of connections.
pub(super) const NOBODY: &str =
    "there is no workload and no pod among the manifests, so nothing can be said of connections";

/// What the model holds of a folder; an error where a file is broken or two objects contradict each other. What does
/// not make the answer wrong, but is not in it, is said on standard error.
pub(super) fn snapshot(folder: Folder) -> anyhow::Result<Snapshot> {
    if let Some(error) = folder.first_error() {
        return Err(error.into());
    }
    if let Some(error) = folder.first_contradiction() {
        return Err(error.into());
    }
    tell_doubts(&folder)?;
    Ok(folder.snapshot)
}

/// Says on standard error what cannot be known from the manifests, or is in them and not judged; an error where that makes an
/// answer wrong.
pub(super) fn tell_doubts(folder: &Folder) -> anyhow::Result<()> {
    for problem in &folder.problems {
        let (file, line, column) = (&problem.file, problem.line, problem.column);
        if problem.id == registry::INVALID.id {
            bail!("{file}:{line}:{column}: {}", problem.message);
        }
        let help = problem.help.as_ref().map(|help| format!(" ({help})"));
        let help = help.unwrap_or_default();
        warn(&format!("{file}:{line}: {}{help}", problem.message));
    }
    tell(&folder.doubts());
    for doubt in folder.snapshot.doubtful_rules() {
        warn(&doubt);
    }
    Ok(())
}

/// Says on standard error what is among the manifests and of a kind that is not judged.
pub(super) fn tell_unjudged(folder: &Folder) {
    tell(&folder.unjudged());
}

fn tell(doubts: &[Doubt]) {
    for doubt in doubts {
        warn(&doubt.to_string());
    }
}

/// The same where connections are asked for: without anything that runs there are none, whatever the policies say.
pub(super) fn inhabited(folder: Folder) -> anyhow::Result<Snapshot> {
    let files = folder.files;
    let snapshot = snapshot(folder)?;
    if snapshot.pods().next().is_none() {
        let policies = snapshot.policies().count();
        bail!("{NOBODY} (files read: {files}, network policies: {policies})");
    }
    Ok(snapshot)
}

/// Says something on standard error that whoever reads the answer should know.
pub(super) fn warn(message: &str) {
    let (colour, end) = (style::WARN, style::WARN.render_reset());
    anstream::eprintln!("{colour}warning:{end} {message}");
}
