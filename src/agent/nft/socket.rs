//! Puts transactions into the kernel.

use rustix::io::Errno;

use super::batch::Batch;
use super::error::{ApplyError, Refusal, describe};
use super::monitor::Ear;
use super::read::generation;
use crate::agent::netlink::Link;
use crate::ruleset::Transaction;

/// How much may wait to be received: a transaction in which everything fails is answered message by message.
const RECEIVE: usize = 4 * 1024 * 1024;

/// How many bytes a transaction has where telling listeners of it is worth avoiding: some 1 000 elements.
const LARGE: usize = 32 * 1024;

/// Talks to `nf_tables` of the network namespace that the thread was in when it was opened.
#[derive(Debug)]
pub struct Socket {
    pub(super) link: Link,
    ears: Vec<Ear>,
}

impl Socket {
    /// Opens it. Rights are asked for only by what is done with it.
    pub fn open() -> Result<Self, ApplyError> {
        let link = Link::open(RECEIVE).map_err(ApplyError::Socket)?;
        let ears = Vec::new();
        Ok(Self { link, ears })
    }

    /// Keeps large changes from a listener, which is told if somebody else came between.
    pub fn spare(&mut self, ear: Ear) {
        self.ears.push(ear);
    }

    /// The number by which the kernel tells this socket from all others of the namespace, in what it says to a
    /// [`Monitor`](super::Monitor).
    pub fn port(&self) -> u32 {
        self.link.port()
    }

    /// Does all of a transaction or nothing of it. When it returns, packets meet the new rules.
    ///
    /// # Errors
    ///
    /// Says which change the kernel refused and why. The old rules stand then.
    pub fn apply(&mut self, transaction: &Transaction) -> Result<(), ApplyError> {
        if transaction.all().all(|(_, change)| change.is_void()) {
            return Ok(());
        }
        let seq = self.link.take_seqs(1);
        let batch = Batch::new(transaction, seq).ok_or(ApplyError::TooLong)?;
        self.link.take_seqs(batch.length());
        if self.ears.is_empty() || batch.bytes.len() < LARGE {
            return self.put(&batch, transaction);
        }
        // Generations tell whether others came between while nothing was heard.
        let generation = |socket: &mut Self| generation(socket).map(|made| made.id).ok();
        let before = generation(self);
        self.ears.iter().for_each(Ear::close);
        let outcome = self.put(&batch, transaction);
        self.ears.iter().for_each(Ear::open);
        let ours = u32::from(outcome.is_ok());
        let wanted = before.map(|before| before.wrapping_add(ours));
        if wanted.is_none() || generation(self) != wanted {
            self.ears.iter().for_each(Ear::miss);
        }
        outcome
    }

    fn put(&mut self, batch: &Batch, transaction: &Transaction) -> Result<(), ApplyError> {
        // The kernel does it within this call, and answers before it returns.
        match self.link.send(&batch.bytes) {
            Ok(()) => self.outcome(batch, transaction),
            Err(Errno::PERM) => Err(ApplyError::NotPermitted),
            Err(errno @ Errno::MSGSIZE) => Err(ApplyError::Refused(Refusal {
                change: None,
                what: format!("a transaction of {} bytes", batch.bytes.len()),
                errno,
                others: 0,
            })),
            Err(errno) => Err(ApplyError::Socket(errno)),
        }
    }

    /// Reads the answers to a batch.
    fn outcome(&mut self, batch: &Batch, transaction: &Transaction) -> Result<(), ApplyError> {
        let mut is_done = false;
        let mut first: Option<(u32, Errno, Option<usize>)> = None;
        let mut refused: usize = 0;
        loop {
            let messages = match self.link.receive_now() {
                Ok(messages) => messages,
                Err(Errno::AGAIN) => break,
                // Some answers were lost; those that are there tell enough.
                Err(Errno::NOBUFS) => continue,
                Err(errno) => return Err(ApplyError::Socket(errno)),
            };
            for message in messages {
                let since = message.seq.wrapping_sub(batch.seq);
                match message.error() {
                    _ if since > batch.length() => {}
                    None => {}
                    Some(0) => is_done = true,
                    Some(code) => {
                        refused = refused.saturating_add(1);
                        if first.is_none_or(|(seq, ..)| since < seq) {
                            let errno = Errno::from_raw_os_error(code);
                            first = Some((since, errno, message.offset()));
                        }
                    }
                }
            }
        }
        let (since, errno, offset) = match first {
            None if is_done => return Ok(()),
            None => return Err(ApplyError::Unanswered),
            Some((_, Errno::PERM, _)) => return Err(ApplyError::NotPermitted),
            Some(first) => first,
        };
        let place = batch.change(since, offset);
        Err(ApplyError::Refused(Refusal {
            change: place.map(|(change, _)| change),
            what: describe(transaction, place),
            errno,
            others: refused.saturating_sub(1),
        }))
    }
}
