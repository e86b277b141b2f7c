//! Told when files or folders change: the file system's own events, gathered until they rest.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// How long the files must rest before a change is told: an editor or a checkout writes many at once.
const REST: Duration = Duration::from_millis(200);
/// How long a change is held back at most while the files do not rest.
const LONGEST: Duration = Duration::from_secs(2);

/// Changes of some paths, as long as this lives.
#[derive(Debug)]
pub struct Changes {
    events: mpsc::Receiver<()>,
    _watcher: RecommendedWatcher,
}

/// Watches files and folders, the folders with all that is below them.
pub fn watch(paths: &[PathBuf]) -> notify::Result<Changes> {
    // One waiting note is enough: it says that something changed, not what.
    let (sender, events) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let matters = event.map_or(true, |event| !event.kind.is_access());
        if matters {
            let _ = sender.try_send(());
        }
    })?;
    for path in paths {
        // A file is often replaced by renaming another one over it, and a mounted one by a symlink: its folder tells.
        let (folder, mode) = if path.is_dir() {
            (path.as_path(), RecursiveMode::Recursive)
        } else {
            (
                path.parent()
                    .filter(|parent| !parent.as_os_str().is_empty())
                    .unwrap_or(Path::new(".")),
                RecursiveMode::NonRecursive,
            )
        };
        watcher.watch(folder, mode)?;
    }
    Ok(Changes {
        events,
        _watcher: watcher,
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

    async fn told(changes: &mut Changes) -> Result<bool, tokio::time::error::Elapsed> {
        tokio::time::timeout(Duration::from_secs(10), changes.next()).await
    }

    #[tokio::test]
    async fn a_written_a_renamed_and_a_new_file_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut changes = watch(&[folder.path().to_path_buf()]).unwrap();
        std::fs::write(folder.path().join("a.yaml"), "a: 1").unwrap();
        assert_eq!(told(&mut changes).await, Ok(true));

        std::fs::rename(folder.path().join("a.yaml"), folder.path().join("b.yaml")).unwrap();
        assert_eq!(told(&mut changes).await, Ok(true));

        std::fs::create_dir(folder.path().join("below")).unwrap();
        assert_eq!(told(&mut changes).await, Ok(true));
        std::fs::write(folder.path().join("below/c.yaml"), "c: 1").unwrap();
        assert_eq!(told(&mut changes).await, Ok(true));
    }
}
