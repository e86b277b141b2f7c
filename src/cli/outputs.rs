//! What several subcommands write: sets of files in a folder, all of them or none.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Writes files into a folder, which is made where it is not there.
///
/// Nothing is written where one of the files is there already and `force` is not given.
pub(super) fn write(folder: &Path, files: &[(String, String)], force: bool) -> anyhow::Result<()> {
    let paths: Vec<PathBuf> = files.iter().map(|(name, _)| folder.join(name)).collect();
    if let Some(there) = paths.iter().find(|path| !force && path.exists()) {
        bail!(
            "{} is there already; --force writes over it",
            there.display()
        );
    }
    for (path, (_, text)) in paths.iter().zip(files) {
        let below = path.parent().unwrap_or(folder);
        fs::create_dir_all(below).with_context(|| format!("cannot make {}", below.display()))?;
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The name of the file of a manifest, such as `shop-default-deny.yaml`; unlike for each object of one kind.
pub(super) fn file_name(manifest: &serde_json::Value) -> String {
    let part = |field: &str| manifest["metadata"][field].as_str().unwrap_or_default();
    // A namespace has no dot in its name, so that no two of these can be the same.
    match part("namespace") {
        "" => format!("{}.yaml", part("name")),
        namespace => format!("{namespace}.{}.yaml", part("name")),
    }
}
