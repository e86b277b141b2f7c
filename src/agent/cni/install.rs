//! Puts the plugin into a node's network configuration, keeps it there, and takes it out again.
//!
//! Every step leaves a configuration that works: the binary is there before the configuration names it and goes after it;
//! a file is replaced whole. The file in effect is the first by name of `*.conf`, `*.conflist` and `*.json`, as container
//! runtimes choose. One without a list becomes a `.conflist` of the same name, as other installers of chained plugins do,
//! since only a list can have a chain; the old file is kept under a name that no runtime reads and put back at the end.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::NAME;
use super::list::{self, Entry, ListError};

/// Where a node has what, and what the entry says.
#[derive(Clone, Debug)]
pub struct Installer {
    /// The folder of network configurations; `/etc/cni/net.d` on most nodes.
    pub configurations: PathBuf,
    /// The folder of plugins; `/opt/cni/bin` on most nodes.
    pub plugins: PathBuf,
    /// The binary that is placed there.
    pub binary: PathBuf,
    /// The entry that is put into the list.
    pub entry: Entry,
}

/// Whether anything had to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// Files were written.
    Written,
}

/// Why it could not be done.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// There is no network configuration yet.
    #[error("{0}: no network configuration yet; is a CNI plugin installed?")]
    Nothing(PathBuf),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A configuration cannot be changed.
    #[error("{path}: {source}")]
    List {
        /// Which.
        path: PathBuf,
        /// Why.
        source: ListError,
    },
    /// Changes of the folders cannot be heard.
    #[error("changes of the folders cannot be watched")]
    Watch(#[from] notify::Error),
}

/// What tells a file from another one, and from itself once it is changed: device and number, size, mode, time of change.
type Stamp = (u64, u64, u64, u32, i64, i64);

/// What is appended to the name of a configuration that became a list.
const KEPT: &str = "before-ringfence";

/// How long others are given to finish what they are writing.
const SETTLE: Duration = Duration::from_millis(50);

/// How often a list is changed again that others change at the same time.
const TRIES: usize = 5;

/// How often a look is taken without being told of a change.
const LOOK: Duration = Duration::from_secs(5);

/// How often it is taken where nothing can be told: a second is what others may be without the plugin.
const DEAF: Duration = Duration::from_millis(500);

/// The largest configuration that is read, in bytes.
const LARGEST: u64 = 4 << 20;

// === impl Installer ===

impl Installer {
    /// Places the binary and puts the plugin at the end of the chain in effect. Doing it again changes nothing.
    pub fn install(&self) -> Result<Change, InstallError> {
        let mut known = None;
        let first = self.install_again(&mut known)?;
        // Another installer may have written between our reading and our writing, and keeps what it wrote.
        for _ in 0..TRIES {
            if self.install_again(&mut known)? == Change::None {
                break;
            }
        }
        Ok(first)
    }

    /// The same, and remembers the binaries that were found equal, so that they need not be read each time.
    fn install_again(&self, known: &mut Option<[Stamp; 2]>) -> Result<Change, InstallError> {
        let placed = self.place(known)?;
        let listed = self.enlist()?;
        Ok(if (placed, listed) == (Change::None, Change::None) {
            Change::None
        } else {
            Change::Written
        })
    }

    /// Takes the plugin out of every configuration, waits for calls that began before, and removes the binary.
    pub fn remove(&self, pause: Duration) -> Result<Change, InstallError> {
        let mut change = self.unlist()?;
        let binary = self.plugins.join(NAME);
        if binary.exists() {
            if change == Change::Written {
                std::thread::sleep(pause);
                // Another installer may have written an old list in the meantime.
                self.unlist()?;
            }
            fs::remove_file(&binary).map_err(at(&binary))?;
            change = Change::Written;
        }
        Ok(change)
    }

    /// Keeps it installed until told to stop: puts it back when somebody else writes the configuration or removes the
    /// binary. Tells each outcome that differs from nothing to do.
    pub async fn keep(
        &self,
        mut stop: watch::Receiver<bool>,
        mut tell: impl FnMut(Result<Change, InstallError>),
    ) {
        let mut heard: Option<(RecommendedWatcher, mpsc::Receiver<()>)> = None;
        let (mut failed, mut is_deaf) = (String::new(), false);
        let mut known = None;
        loop {
            // The kernel may have no room for one more that listens: then a look now and then must do.
            if heard.is_none() {
                match self.watch() {
                    Ok(watched) => {
                        heard = Some(watched);
                        is_deaf = false;
                    }
                    Err(error) if !is_deaf => {
                        tell(Err(error));
                        is_deaf = true;
                    }
                    Err(_) => {}
                }
            }
            let this = self.clone();
            let work = move || {
                let done = this.install_again(&mut known);
                (done, known)
            };
            let done = tokio::task::spawn_blocking(work).await.map(|(done, now)| {
                known = now;
                done
            });
            match done {
                Ok(Ok(Change::None)) => failed.clear(),
                Ok(Err(error)) => {
                    // The same error again and again is told once.
                    let text = error.to_string();
                    if text != failed {
                        tell(Err(error));
                        failed = text;
                    }
                }
                Ok(Ok(change)) => {
                    failed.clear();
                    tell(Ok(change));
                }
                Err(_) => {}
            }
            let told = async {
                if let Some((_, changes)) = &mut heard {
                    let _ = timeout(LOOK, changes.recv()).await;
                } else {
                    sleep(DEAF).await;
                }
            };
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = told => {}
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = sleep(SETTLE) => {}
            }
            if let Some((_, changes)) = &mut heard {
                while changes.try_recv().is_ok() {}
            }
        }
    }

    /// Hears of changes of the two folders for as long as the watcher is kept.
    fn watch(&self) -> Result<(RecommendedWatcher, mpsc::Receiver<()>), InstallError> {
        let (sender, changes) = mpsc::channel(1);
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                // Our own reading is told, too. Where something may have been missed, a look is taken.
                if event.map_or(true, |event| !event.kind.is_access()) {
                    // A change that is waiting already will do.
                    let _ = sender.try_send(());
                }
            })?;
        watcher.watch(&self.configurations, RecursiveMode::NonRecursive)?;
        watcher.watch(&self.plugins, RecursiveMode::NonRecursive)?;
        Ok((watcher, changes))
    }

    /// Copies the binary unless the same one is there.
    fn place(&self, known: &mut Option<[Stamp; 2]>) -> Result<Change, InstallError> {
        let target = self.plugins.join(NAME);
        let stamps = || {
            stamp(&self.binary)
                .zip(stamp(&target))
                .map(|(one, other)| [one, other])
        };
        let now = stamps();
        if now.is_some() && now == *known {
            return Ok(Change::None);
        }
        if same(&self.binary, &target).map_err(at(&self.binary))? {
            *known = now;
            return Ok(Change::None);
        }
        let fresh = self.plugins.join(format!(".{NAME}.new"));
        let copy = || {
            let mut from = File::open(&self.binary)?;
            let mut to = File::create(&fresh)?;
            io::copy(&mut from, &mut to)?;
            to.set_permissions(Permissions::from_mode(0o755))?;
            to.sync_all()?;
            drop(to);
            fs::rename(&fresh, &target)
        };
        copy().map_err(at(&target))?;
        *known = stamps();
        Ok(Change::Written)
    }

    fn enlist(&self) -> Result<Change, InstallError> {
        let Some(path) = self.effective()? else {
            return Err(InstallError::Nothing(self.configurations.clone()));
        };
        let text = read(&path)?;
        let wrong = |source| InstallError::List {
            path: path.clone(),
            source,
        };
        if path.extension() == Some(OsStr::new("conflist")) {
            return match list::with(&text, &self.entry).map_err(wrong)? {
                Some(wanted) => write(&path, &text, &wanted),
                None => Ok(Change::None),
            };
        }
        let listed = list::listed(&text).map_err(wrong)?;
        let wanted = list::with(&listed, &self.entry)
            .map_err(wrong)?
            .unwrap_or(listed);
        let target = path.with_extension("conflist");
        replace(&target, &wanted, mode(&path)).map_err(at(&target))?;
        // Who is reading the folder at this moment sees one of the two. From here on the list is in effect.
        std::thread::sleep(SETTLE);
        fs::rename(&path, kept(&path)).map_err(at(&path))?;
        Ok(Change::Written)
    }

    fn unlist(&self) -> Result<Change, InstallError> {
        let mut change = Change::None;
        for path in self.files()? {
            let old = read(&path)?;
            if path.extension() != Some(OsStr::new("conflist")) {
                continue;
            }
            let before = ["conf", "json"].map(|extension| path.with_extension(extension));
            let before = before.iter().find(|before| kept(before).exists());
            // A list that is none is somebody else's, and not ours to repair.
            let Ok(Some(wanted)) = list::without(&old) else {
                continue;
            };
            change = Change::Written;
            match before {
                Some(before) => {
                    // The single plugin sorts first, so that it is in effect before the list goes.
                    let kept = kept(before);
                    if before.exists() {
                        // Somebody wrote a newer one.
                        fs::remove_file(&kept).map_err(at(&kept))?;
                    } else {
                        fs::rename(&kept, before).map_err(at(before))?;
                    }
                    std::thread::sleep(SETTLE);
                    fs::remove_file(&path).map_err(at(&path))?;
                }
                None => {
                    write(&path, &old, &wanted)?;
                }
            }
        }
        Ok(change)
    }

    /// The configuration that container runtimes take.
    fn effective(&self) -> Result<Option<PathBuf>, InstallError> {
        Ok(self.files()?.into_iter().next())
    }

    /// All configurations, in the order of their names.
    fn files(&self) -> Result<Vec<PathBuf>, InstallError> {
        let folder = &self.configurations;
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).map_err(at(folder))? {
            let path = entry.map_err(at(folder))?.path();
            let known = path.extension().is_some_and(|extension| {
                ["conf", "conflist", "json"]
                    .iter()
                    .any(|known| extension == *known)
            });
            if known && path.is_file() {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    let path = path.to_owned();
    move |source| InstallError::File { path, source }
}

fn kept(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(KEPT);
    PathBuf::from(name)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).map_or(0o644, |known| known.permissions().mode() & 0o777)
}

fn read(path: &Path) -> Result<String, InstallError> {
    let mut text = String::new();
    let reading = File::open(path).and_then(|file| file.take(LARGEST).read_to_string(&mut text));
    reading.map_err(at(path))?;
    Ok(text)
}

/// Writes a changed text, unless somebody else wrote another one since it was read.
fn write(path: &Path, old: &str, wanted: &str) -> Result<Change, InstallError> {
    let fresh = prepare(path, wanted, mode(path)).map_err(at(path))?;
    // Asked last: until what is new is on the disk, others may write.
    if read(path)? == old {
        fs::rename(&fresh, path).map_err(at(path))?;
    } else {
        fs::remove_file(&fresh).map_err(at(&fresh))?;
    }
    Ok(Change::Written)
}

/// Replaces a file in one step.
fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    fs::rename(prepare(path, text, mode)?, path)
}

/// Writes what is to replace a file beside it.
fn prepare(path: &Path, text: &str, mode: u32) -> io::Result<PathBuf> {
    // No runtime reads a file of this ending.
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".ringfence-new");
    let mut file = File::create(&fresh)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(fresh.into())
}

fn stamp(path: &Path) -> Option<Stamp> {
    let known = fs::metadata(path).ok()?;
    let changed = (known.ctime(), known.ctime_nsec());
    Some((
        known.dev(),
        known.ino(),
        known.size(),
        known.mode(),
        changed.0,
        changed.1,
    ))
}

/// Whether two files have the same content and the second may be run.
fn same(one: &Path, other: &Path) -> io::Result<bool> {
    let source = fs::metadata(one)?;
    match fs::metadata(other) {
        Ok(known) if known.len() == source.len() && known.permissions().mode() & 0o111 == 0o111 => {
        }
        _ => return Ok(false),
    }
    let mut files = [File::open(one)?, File::open(other)?];
    let mut blocks = [vec![0; 1 << 16], vec![0; 1 << 16]];
    loop {
        let mut sizes = [0, 0];
        for ((file, block), size) in files.iter_mut().zip(&mut blocks).zip(&mut sizes) {
            while *size < block.len() {
                match file.read(block.get_mut(*size..).unwrap_or_default())? {
                    0 => break,
                    more => *size += more,
                }
            }
        }
        let [one, other] = &blocks;
        let [size, _] = sizes;
        if sizes != [size, size] || one.get(..size) != other.get(..size) {
            return Ok(false);
        }
        if size == 0 {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests;
