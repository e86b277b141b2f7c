//! Control groups of a node's pods: one group in each hierarchy, removed with all that is in it. What an earlier process left
//! behind because it was killed is removed by the next one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::Duration;

/// Where the system has its hierarchies, or its only one.
const ROOT: &str = "/sys/fs/cgroup";

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The groups of one node, gone when this is dropped.
pub(crate) struct Groups {
    name: String,
}

// === impl Groups ===

impl Groups {
    /// A name that no other process of these tests has. The node makes the groups itself.
    pub(crate) fn new() -> Self {
        for name in hierarchies().flat_map(|hierarchy| names(&hierarchy)) {
            let rest = name.strip_prefix("rf-node-");
            let owner = rest.and_then(|rest| rest.split('-').next());
            if owner.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
                remove_everywhere(&name);
            }
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self {
            name: format!("rf-node-{}-{number}", std::process::id()),
        }
    }

    /// The name, the same in each hierarchy.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The processes below the groups whose program has these arguments.
    pub(crate) fn processes(&self, arguments: &[&str]) -> Vec<u32> {
        let numbers = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let name = entry.ok()?.file_name();
            name.to_str()?.parse::<u32>().ok()
        });
        let is_it = |id: &u32| {
            let said = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            let groups = fs::read_to_string(format!("/proc/{id}/cgroup")).unwrap_or_default();
            let mut said = said.split(|byte| *byte == 0);
            groups.contains(&format!("/{}/", self.name))
                && arguments
                    .iter()
                    .all(|wanted| said.next() == Some(wanted.as_bytes()))
        };
        numbers.filter(is_it).collect()
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        // Processes that were killed are in their groups until they are gone.
        for _ in 0..50 {
            if remove_everywhere(&self.name) {
                return;
            }
            sleep(Duration::from_millis(100));
        }
    }
}

fn hierarchies() -> impl Iterator<Item = PathBuf> {
    let below = fs::read_dir(ROOT).into_iter().flatten();
    let below = below.filter_map(|entry| Some(entry.ok()?.path()));
    // Where there is only one, what is below are groups already.
    let is_only = Path::new(ROOT).join("cgroup.controllers").exists();
    let only = is_only.then(|| PathBuf::from(ROOT));
    let all = only.into_iter().chain(below.filter(move |_| !is_only));
    all.filter(|path| path.join("cgroup.procs").exists())
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let folders = entries.filter_map(|entry| {
        let entry = entry.ok().filter(|entry| entry.path().is_dir())?;
        entry.file_name().into_string().ok()
    });
    folders.collect()
}

/// Whether none is left.
fn remove_everywhere(name: &str) -> bool {
    let groups: Vec<PathBuf> = hierarchies().map(|path| path.join(name)).collect();
    for group in &groups {
        remove(group);
    }
    groups.iter().all(|group| !group.exists())
}

fn remove(group: &Path) {
    for name in names(group) {
        remove(&group.join(name));
    }
    let _ = fs::remove_dir(group);
}
