//! Told when files or folders change: the file system's own events, gathered until they rest.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// How long the files must rest before a change is told: an editor or a checkout writes many at once.
const REST: Duration = Duration::from_millis(200);
/// How long a change is held back at most while the files do not rest.
const LONGEST: Duration = Duration::from_secs(2);
/// The symlink by which the files of a mounted volume of Kubernetes are replaced, all at once.
const MOUNTED: &str = "..data";

/// Changes of some paths, as long as this lives.
#[derive(Debug)]
pub struct Changes {
    events: mpsc::Receiver<()>,
    _watchers: [RecommendedWatcher; 2],
}

/// Watches files and folders, the folders with all that is below them.
pub fn watch(paths: &[PathBuf]) -> notify::Result<Changes> {
    // One waiting note is enough: it says that something changed, not what.
    let (sender, events) = mpsc::channel(1);
    let (folders, files): (Vec<_>, Vec<_>) = paths.iter().partition(|path| path.is_dir());

    let mut of_folders = told(sender.clone(), |_| true)?;
    for folder in folders {
        of_folders.watch(folder, RecursiveMode::Recursive)?;
    }

    // A file is often replaced by renaming another one over it, and a mounted one by a symlink: its folder tells, and
    // what it tells of the file's neighbours is left out.
    let names: Vec<OsString> = files
        .iter()
        .filter_map(|file| file.file_name())
        .chain([OsStr::new(MOUNTED)])
        .map(OsStr::to_owned)
        .collect();
    let mut of_files = told(sender, move |event| {
        event.paths.is_empty()
            || event
                .paths
                .iter()
                .any(|path| names.iter().any(|name| path.file_name() == Some(name)))
    })?;
    for file in files {
        let parent = file
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        of_files.watch(
            parent.unwrap_or(Path::new(".")),
            RecursiveMode::NonRecursive,
        )?;
    }
    Ok(Changes {
        events,
        _watchers: [of_folders, of_files],
    })
}

/// A watcher that leaves a note of each change that matters, and of each error: something may have been missed.
fn told(
    sender: mpsc::Sender<()>,
    matters: impl Fn(&notify::Event) -> bool + Send + 'static,
) -> notify::Result<RecommendedWatcher> {
    notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.map_or(true, |event| !event.kind.is_access() && matters(&event)) {
            let _ = sender.try_send(());
        }
    })
}

// === impl Changes ===

impl Changes {
    /// Waits for the next change and until the files rest again. `false` when no more can come.
    pub async fn next(&mut self) -> bool {
        if self.events.recv().await.is_none() {
            return false;
        }
        let rested = async {
            while let Ok(Some(())) = tokio::time::timeout(REST, self.events.recv()).await {}
        };
        let _ = tokio::time::timeout(LONGEST, rested).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn next(changes: &mut Changes) -> Result<bool, tokio::time::error::Elapsed> {
        tokio::time::timeout(Duration::from_secs(10), changes.next()).await
    }

    #[tokio::test]
    async fn a_written_a_renamed_and_a_new_file_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut changes = watch(&[folder.path().to_path_buf()]).unwrap();
        std::fs::write(folder.path().join("a.yaml"), "a: 1").unwrap();
        assert_eq!(next(&mut changes).await, Ok(true));

        std::fs::rename(folder.path().join("a.yaml"), folder.path().join("b.yaml")).unwrap();
        assert_eq!(next(&mut changes).await, Ok(true));

        std::fs::create_dir(folder.path().join("below")).unwrap();
        assert_eq!(next(&mut changes).await, Ok(true));
        std::fs::write(folder.path().join("below/c.yaml"), "c: 1").unwrap();
        assert_eq!(next(&mut changes).await, Ok(true));
    }

    #[tokio::test]
    async fn a_single_file_is_told_and_its_neighbours_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("guardrail.yaml");
        std::fs::write(&file, "a: 1").unwrap();
        let mut changes = watch(std::slice::from_ref(&file)).unwrap();
        std::fs::write(folder.path().join("busy.log"), "line").unwrap();
        let soon = Duration::from_millis(500);
        assert!(tokio::time::timeout(soon, changes.next()).await.is_err());

        std::fs::write(folder.path().join("new"), "a: 2").unwrap();
        std::fs::rename(folder.path().join("new"), &file).unwrap();
        assert_eq!(next(&mut changes).await, Ok(true));
    }
}
