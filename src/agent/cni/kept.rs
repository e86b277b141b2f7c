//! What the plugin told of sandboxes that are there, kept beside the socket for the agent that comes after this one.
//!
//! The API server tells of a pod's address late, and perhaps never of all it has; the kernel's table says behind which
//! interface an address is, but not for which sandbox, nor of interfaces where nobody is held to anything.
//!
//! What is kept counts while the interface is there that it was told with, under its name and its number: it goes with the
//! sandbox, also where nobody heard that. Numbers begin anew with each start of the machine, so that is kept, too.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A sandbox that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::agent) struct Sandbox {
    /// The runtime's name for it.
    pub(in crate::agent) id: String,
    /// The node's end of its interface, and the number of that.
    pub(in crate::agent) interface: String,
    pub(in crate::agent) number: u32,
    /// The pod that it is the newest sandbox of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::agent) pod: Option<Given>,
}

/// What a pod was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::agent) struct Given {
    pub(in crate::agent) namespace: String,
    pub(in crate::agent) name: String,
    /// Which pod of its name it is, where that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::agent) uid: Option<String>,
    pub(in crate::agent) addresses: Vec<IpAddr>,
}

/// The file.
#[derive(Debug)]
pub(in crate::agent) struct Kept {
    path: PathBuf,
    /// What the file has, where this agent wrote or read it.
    last: Option<Vec<Sandbox>>,
    is_failing: bool,
}

#[derive(Serialize, Deserialize)]
struct Content {
    version: u32,
    boot: String,
    sandboxes: Vec<Sandbox>,
}

/// The version of the form; one of another version is as good as none.
const VERSION: u32 = 1;

/// The longest file that is read, in bytes: thousands of sandboxes.
const LONGEST: u64 = 4 << 20;

/// What the kernel calls this start of the machine.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

// === impl Kept ===

impl Kept {
    /// Beside a socket.
    pub(in crate::agent) fn beside(socket: &Path) -> Self {
        Self {
            path: path(socket),
            last: None,
            is_failing: false,
        }
    }

    /// What the agent before this one kept; nothing where there was none since the machine was started.
    pub(in crate::agent) fn read(&mut self) -> Vec<Sandbox> {
        match self.content() {
            Ok(content) if content.version == VERSION && content.boot == boot() => {
                self.last = Some(content.sandboxes.clone());
                content.sandboxes
            }
            Ok(_) => Vec::new(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                tracing::warn!(
                    file = %self.path.display(), %error,
                    "what the agent before this one was told by the CNI cannot be read"
                );
                Vec::new()
            }
        }
    }

    fn content(&self) -> io::Result<Content> {
        let mut text = String::new();
        let file = fs::File::open(&self.path)?;
        file.take(LONGEST).read_to_string(&mut text)?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Keeps these and no others. In one step: whoever reads finds the old ones or the new ones.
    pub(in crate::agent) fn write(&mut self, sandboxes: Vec<Sandbox>) {
        if self.last.as_ref() == Some(&sandboxes) {
            return;
        }
        match self.replace(&sandboxes) {
            Ok(()) => {
                self.last = Some(sandboxes);
                self.is_failing = false;
            }
            Err(error) => {
                // It is tried again with the next sandbox.
                self.last = None;
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::warn!(
                        file = %self.path.display(), %error,
                        "what the CNI tells cannot be kept, and the agent after this one will not know it"
                    );
                }
            }
        }
    }

    fn replace(&self, sandboxes: &[Sandbox]) -> io::Result<()> {
        let content = Content {
            version: VERSION,
            boot: boot(),
            sandboxes: sandboxes.to_vec(),
        };
        let mut fresh = self.path.as_os_str().to_owned();
        fresh.push(format!(".{}", std::process::id()));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options
            .open(&fresh)?
            .write_all(&serde_json::to_vec(&content)?)?;
        fs::rename(&fresh, &self.path)
    }
}

/// Takes away a socket at which nobody answers any more, and what is kept beside it.
pub fn forget(socket: &Path) -> io::Result<()> {
    for path in [path(socket).as_path(), socket] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn path(socket: &Path) -> PathBuf {
    socket.with_extension("json")
}

fn boot() -> String {
    let text = fs::read_to_string(BOOT).unwrap_or_default();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn sandbox(id: &str) -> Sandbox {
        Sandbox {
            id: id.to_owned(),
            interface: "veth1".to_owned(),
            number: 7,
            pod: Some(Given {
                namespace: "shop".to_owned(),
                name: "web".to_owned(),
                uid: Some("0b1c4c2e-6a0e-4b0f-9a53-000000000001".to_owned()),
                addresses: vec!["10.0.0.7".parse().unwrap()],
            }),
        }
    }

    #[test]
    fn the_next_agent_reads_what_was_kept_last() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("cni.sock");
        let read = || Kept::beside(&socket).read();
        assert_eq!(read(), []);
        let mut kept = Kept::beside(&socket);
        kept.write(vec![sandbox("a")]);
        kept.write(vec![sandbox("a"), sandbox("b")]);
        assert_eq!(read(), [sandbox("a"), sandbox("b")]);
        let names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["cni.json"]);
        let mode = fs::metadata(path(&socket)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // It writes anew what somebody else took away, once there is something new.
        forget(&socket).unwrap();
        forget(&socket).unwrap();
        assert_eq!(read(), []);
        kept.write(vec![sandbox("b")]);
        assert_eq!(read(), [sandbox("b")]);
    }

    #[test]
    fn what_another_start_of_the_machine_or_another_hand_left_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("cni.sock");
        let mut kept = Kept::beside(&socket);
        kept.write(vec![sandbox("a")]);
        let good = fs::read_to_string(path(&socket)).unwrap();
        for bad in [
            good.replace(&boot(), "another"),
            good.replace("\"version\":1", "\"version\":2"),
            good[..good.len() / 2].to_owned(),
            String::new(),
        ] {
            fs::write(path(&socket), bad).unwrap();
            assert_eq!(Kept::beside(&socket).read(), []);
        }
        fs::write(path(&socket), good).unwrap();
        assert_eq!(Kept::beside(&socket).read().len(), 1);
    }
}
