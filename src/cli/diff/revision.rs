//! The manifests of a git revision, read by the `git` program without touching the work tree.
//!
//! `git ls-tree` says what there is and `git cat-file` what is in it; the files are laid out in a folder of their own
//! that goes away again, so that everything that holds for a folder holds for a revision. `git archive` would be
//! shorter, but leaves out what the repository tells it to.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, anyhow, bail};
use tempfile::TempDir;

use crate::k8s::folder::{self, Folder};
use crate::k8s::manifests::Input;
use crate::k8s::yaml::Limits;

/// The files of a revision together have no more bytes than this.
const MOST_BYTES: u64 = 1 << 30;

/// One line of `git ls-tree`.
struct Entry {
    mode: String,
    id: String,
    size: u64,
    path: String,
}

/// A running `git cat-file --batch`.
struct Contents {
    child: Child,
    asked: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// Reads what `REVISION:PATH` means.
pub(super) fn read(side: &str, limits: &Limits) -> anyhow::Result<Folder> {
    let (revision, path) = side.split_once(':').unwrap_or((side, ""));
    if revision.is_empty() || revision.starts_with('-') {
        bail!("{side}: must be a file, a folder or REVISION:PATH, such as main:deploy");
    }
    if git(&["rev-parse", "--git-dir"])?.is_none() {
        bail!("{side}: there is no such file or folder, and this is not a git repository");
    }
    let tree = format!("{revision}^{{tree}}");
    if git(&["rev-parse", "--verify", "--quiet", &tree])?.is_none() {
        bail!(
            "{side}: git knows no revision `{revision}`; one of another repository must be fetched before: git fetch"
        );
    }
    let found = git(&["rev-parse", "--verify", "--quiet", side])?;
    let found = found.ok_or_else(|| anyhow!("{side}: there is no `{path}` in `{revision}`"))?;
    let id = found.trim();
    let kind = git(&["cat-file", "-t", id])?.unwrap_or_default();
    match kind.trim() {
        "blob" => {
            let bytes = Contents::open()?.of(id, (limits.bytes as u64).saturating_add(1))?;
            let name = side.to_owned();
            Ok(folder::read(vec![Input::Bytes { name, bytes }], limits))
        }
        "tree" => read_tree(side, id, limits),
        other => bail!("{side}: is a {other}, neither a file nor a folder"),
    }
}

fn read_tree(side: &str, id: &str, limits: &Limits) -> anyhow::Result<Folder> {
    let listing = git(&["ls-tree", "-r", "-l", "-z", "--full-tree", id])?;
    let listing = listing.with_context(|| format!("{side}: cannot be listed"))?;
    let entries: Vec<Entry> = listing
        .split_terminator('\0')
        .map(|line| Entry::of(line).with_context(|| format!("{side}: git lists `{line}`")))
        .collect::<Result<_, _>>()?;
    let place = tempfile::Builder::new().prefix("ringfence-").tempdir();
    let place = place.context("cannot make a folder for the files of a revision")?;
    lay_out(side, &entries, &place, limits)?;
    let mut folder = folder::read(vec![Input::Path(place.path().to_owned())], limits);
    name_by_revision(&mut folder, side, place.path());
    Ok(folder)
}

/// Writes the files that may be manifests, and the links to them.
fn lay_out(side: &str, entries: &[Entry], place: &TempDir, limits: &Limits) -> anyhow::Result<()> {
    let wanted = entries.iter().filter(|entry| entry.is_file());
    let wanted: Vec<&Entry> = wanted.filter(|entry| is_read(&entry.path)).collect();
    let bytes: u64 = wanted.iter().map(|entry| entry.size).sum();
    if bytes > MOST_BYTES {
        bail!("{side}: {bytes} bytes of manifests, more than {MOST_BYTES}; name a folder of it");
    }
    let mut contents = Contents::open()?;
    let mut there = BTreeSet::new();
    for entry in wanted {
        let path = place.path().join(entry.inside(side)?);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
            there.extend(parent.ancestors().map(Path::to_owned));
        }
        // A file that is too large is read so far that the reader sees it, as it does in a folder.
        let bytes = contents.of(&entry.id, (limits.bytes as u64).saturating_add(1))?;
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        there.insert(path);
    }
    for entry in entries.iter().filter(|entry| !entry.is_file()) {
        let path = entry.inside(side)?;
        if !entry.is_link() {
            bail!(
                "{side}: {} is a submodule, whose files are not in this revision; compare folders",
                entry.path
            );
        }
        let target = contents.of(&entry.id, 4096)?;
        let target = PathBuf::from(String::from_utf8_lossy(&target).into_owned());
        let inside = target_inside(&path, &target)
            .with_context(|| format!("{side}: {} is a link that leads out of it", entry.path))?;
        if there.contains(&place.path().join(inside)) {
            let link = place.path().join(path);
            if let Some(parent) = link.parent() {
                fs::create_dir_all(parent)?;
            }
            std::os::unix::fs::symlink(&target, &link)?;
        }
    }
    Ok(())
}

/// Gives the files the names that they have for whoever asked.
fn name_by_revision(folder: &mut Folder, side: &str, place: &Path) {
    let place = format!("{}/", place.display());
    let slash = if side.ends_with([':', '/']) { "" } else { "/" };
    let name = |file: &str| {
        let inside = file.strip_prefix(&place);
        inside.map_or_else(|| file.to_owned(), |path| format!("{side}{slash}{path}"))
    };
    for placed in &mut folder.objects {
        placed.source.file = name(&placed.source.file).into();
    }
    for problem in &mut folder.problems {
        problem.file = name(&problem.file).into();
        // It names a command on files that are not there any more.
        problem.help = None;
    }
}

/// Where a link leads from the top, if it stays within.
fn target_inside(link: &Path, target: &Path) -> Option<PathBuf> {
    let mut inside = link.parent()?.to_owned();
    for part in target.components() {
        match part {
            Component::Normal(name) => inside.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                if !inside.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(inside)
}

/// Whether the reader looks at a file of this name.
fn is_read(path: &str) -> bool {
    let path = Path::new(path);
    let kind = path.extension().and_then(|kind| kind.to_str());
    kind.is_some_and(|kind| ["yaml", "yml", "json"].contains(&kind.to_ascii_lowercase().as_str()))
        || path.file_name().is_some_and(|name| name == "Kustomization")
}

/// What git prints; none where it says no.
fn git(arguments: &[&str]) -> anyhow::Result<Option<String>> {
    let output = Command::new("git")
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let output = output.context("cannot run git")?;
    if !output.status.success() {
        return Ok(None);
    }
    let text = String::from_utf8(output.stdout);
    Ok(Some(text.context("git names files that are not UTF-8")?))
}

// === impl Entry ===

impl Entry {
    fn of(line: &str) -> Option<Self> {
        let (facts, path) = line.split_once('\t')?;
        let mut facts = facts.split_ascii_whitespace();
        let (mode, _kind) = (facts.next()?, facts.next()?);
        Some(Self {
            mode: mode.to_owned(),
            id: facts.next()?.to_owned(),
            // A submodule has none.
            size: facts.next()?.parse().unwrap_or_default(),
            path: path.to_owned(),
        })
    }

    fn is_file(&self) -> bool {
        self.mode.starts_with("100")
    }

    fn is_link(&self) -> bool {
        self.mode == "120000"
    }

    /// Its path, which must stay below the folder that it is put into.
    fn inside(&self, side: &str) -> anyhow::Result<PathBuf> {
        let path = PathBuf::from(&self.path);
        let is_below = |part: Component<'_>| matches!(part, Component::Normal(_));
        if path.components().all(is_below) {
            Ok(path)
        } else {
            bail!("{side}: a file of it has the path {:?}", self.path)
        }
    }
}

// === impl Contents ===

impl Contents {
    fn open() -> anyhow::Result<Self> {
        let mut child = Command::new("git")
            .args(["cat-file", "--batch"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run git")?;
        let (asked, answers) = (child.stdin.take(), child.stdout.take());
        Ok(Self {
            child,
            asked: asked.context("git takes no questions")?,
            answers: BufReader::new(answers.context("git gives no answers")?),
        })
    }

    /// The bytes of an object, at most so many.
    fn of(&mut self, id: &str, most: u64) -> anyhow::Result<Vec<u8>> {
        writeln!(self.asked, "{id}").and_then(|()| self.asked.flush())?;
        let mut head = String::new();
        self.answers.read_line(&mut head)?;
        // As in `ID blob SIZE`; `ID missing` where a shallow or partial clone lacks it.
        let size = head.split_ascii_whitespace().nth(2);
        let size: u64 = size
            .and_then(|size| size.parse().ok())
            .with_context(|| format!("git does not have the object {id}"))?;
        let mut bytes = Vec::new();
        let mut taken = self.answers.by_ref().take(size.min(most));
        let read = taken.read_to_end(&mut bytes)? as u64;
        if read < size.min(most) {
            bail!("git ended before the object {id} did");
        }
        // What is not wanted, and the line end after each object.
        let rest = size.saturating_sub(read).saturating_add(1);
        std::io::copy(&mut self.answers.by_ref().take(rest), &mut std::io::sink())?;
        Ok(bytes)
    }
}

impl Drop for Contents {
    fn drop(&mut self) {
        // It would end by itself when its input does; nobody waits for it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
