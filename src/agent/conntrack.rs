//! The kernel's table of connections: read as a stream, and entries deleted from it.
//!
//! `linux/netfilter/nfnetlink_conntrack.h`. A connection that has no entry any more is judged by the rules like a new one
//! when its next packet comes.

mod entry;

use rustix::io::Errno;

use super::netlink::wire::{Writer, flag, kind};
use super::netlink::{Consistency, Link};
use crate::netpol::Family;

pub use entry::{Ends, Entry, Way};

/// How much may wait to be received.
const RECEIVE: usize = 1024 * 1024;

/// How many deletions are sent at once: their answers must all fit.
const AT_ONCE: usize = 256;

/// Talks to connection tracking of the network namespace that the thread was in when it was opened.
#[derive(Debug)]
pub struct Conntrack {
    link: Link,
}

/// What came of a deletion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Entries that are deleted.
    pub deleted: usize,
    /// Entries that were gone already: connections that ended, or began anew.
    pub gone: usize,
}

/// What came of reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Entries that were handed over.
    pub entries: usize,
    /// Entries that are not understood.
    pub unknown: usize,
    /// The table was rebuilt meanwhile: some entries may not have come.
    pub is_torn: bool,
}

/// Why the table of connections could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    /// This process may not.
    #[error(
        "no right to the table of connections: the capability NET_ADMIN is needed in the node's network namespace"
    )]
    NotPermitted,
    /// The kernel answered less than it was asked.
    #[error("the kernel's answer was lost")]
    Unanswered,
    /// The kernel refused, or there is no talking to it.
    #[error("cannot {what}: {}", std::io::Error::from(*.errno))]
    Failed {
        /// What was tried.
        what: &'static str,
        /// The kernel's reason.
        errno: Errno,
    },
}

impl Conntrack {
    /// Opens it. Rights are asked for only by what is done with it.
    pub fn open() -> Result<Self, ConntrackError> {
        let link = Link::open(RECEIVE).map_err(|errno| failed("open a socket", errno))?;
        Ok(Self { link })
    }

    /// Hands over each entry of a family, or of both. Memory does not grow with the table: what is kept is the caller's
    /// to bound. An entry that is made or goes meanwhile may come or not.
    pub fn list(
        &mut self,
        family: Option<Family>,
        mut take: impl FnMut(Entry),
    ) -> Result<Listed, ConntrackError> {
        let mut listed = Listed::default();
        let number = family.map_or(0, entry::number);
        let consistency = self
            .link
            .ask(
                (kind::CT_GET, flag::DUMP),
                number,
                |_| (),
                |message| match Entry::read(message.attributes()) {
                    Some(entry) => {
                        listed.entries = listed.entries.saturating_add(1);
                        take(entry);
                    }
                    None => listed.unknown = listed.unknown.saturating_add(1),
                },
            )
            .map_err(|errno| failed("list connections", errno))?;
        listed.is_torn = consistency == Consistency::Torn;
        Ok(listed)
    }

    /// Deletes these very entries: a new connection between the same ends stays.
    pub fn delete(&mut self, entries: &[Entry]) -> Result<Deleted, ConntrackError> {
        let mut deleted = Deleted::default();
        for some in entries.chunks(AT_ONCE) {
            self.delete_some(some, &mut deleted)?;
        }
        Ok(deleted)
    }

    fn delete_some(&mut self, some: &[Entry], deleted: &mut Deleted) -> Result<(), ConntrackError> {
        const WHAT: &str = "delete connections";
        let number = u32::try_from(some.len()).unwrap_or(u32::MAX);
        let first = self.link.take_seqs(number);
        let mut writer = Writer::default();
        for (seq, entry) in (first..).zip(some) {
            let family = entry::number(entry.family());
            let kind = (kind::CT_DELETE, flag::ACK);
            writer.message(kind, seq, (family, 0), |w| entry.write(w));
        }
        let bytes = writer.finish();
        let bytes = bytes.ok_or_else(|| failed(WHAT, Errno::MSGSIZE))?;
        // The kernel has done it all and answered when this returns.
        self.link
            .send(&bytes)
            .map_err(|errno| failed(WHAT, errno))?;
        let mut answers = 0;
        let mut refused = None;
        while answers < some.len() {
            let messages = match self.link.receive_now() {
                Ok(messages) => messages,
                Err(Errno::AGAIN | Errno::NOBUFS) => return Err(ConntrackError::Unanswered),
                Err(errno) => return Err(failed(WHAT, errno)),
            };
            for message in messages {
                let is_ours = message.seq.wrapping_sub(first) < number;
                let Some(code) = message.error().filter(|_| is_ours) else {
                    continue;
                };
                answers += 1;
                match code {
                    0 => deleted.deleted = deleted.deleted.saturating_add(1),
                    code => match Errno::from_raw_os_error(code) {
                        Errno::NOENT => deleted.gone = deleted.gone.saturating_add(1),
                        errno => refused = Some(errno),
                    },
                }
            }
        }
        refused.map_or(Ok(()), |errno| Err(failed(WHAT, errno)))
    }
}

fn failed(what: &'static str, errno: Errno) -> ConntrackError {
    match errno {
        Errno::PERM => ConntrackError::NotPermitted,
        errno => ConntrackError::Failed { what, errno },
    }
}
