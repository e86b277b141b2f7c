//! Packets that rules of nftables log to a group of NFLOG, read in batches.
//!
//! A [`Reader`] is for a thread of its own: [`Reader::run`] reads until it is told to stop and hands what it read to a
//! bounded channel. It never waits for who reads the channel; what does not fit is dropped and counted, and so is what
//! the kernel could not hand over.

pub mod packet;
pub(super) mod record;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use tokio::sync::mpsc::Sender;

use super::netlink::Link;
use super::netlink::wire::{Messages, kind};

pub use record::Record;

/// How a group is read.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The number of the group, as the rules say it.
    pub group: u16,
    /// How much of each packet is copied, in bytes.
    pub copy: u16,
    /// How many packets the kernel gathers before it hands them over.
    pub gather: u32,
    /// How long it gathers at most; counted in hundredths of a second.
    pub linger: Duration,
    /// How many bytes may wait to be read.
    pub buffer: usize,
}

/// What was read and what was lost.
#[derive(Debug, Default)]
pub struct Counts {
    /// Packets that were read.
    pub read: AtomicU64,
    /// Packets that the kernel could not hand over, by gaps in its numbers.
    pub lost: AtomicU64,
    /// How often the kernel said that there was no room for more.
    pub overruns: AtomicU64,
    /// Packets that were dropped because nobody took them from the channel.
    pub dropped: AtomicU64,
    /// Messages that could not be understood.
    pub broken: AtomicU64,
}

/// Why a group cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum NflogError {
    /// Another process reads it.
    #[error("another process reads group {0} of NFLOG")]
    Taken(u16),
    /// The kernel refuses, for want of a right or of its module.
    #[error("the kernel does not let group {group} of NFLOG be read")]
    Refused {
        /// The number of the group.
        group: u16,
        /// What the kernel said.
        source: io::Error,
    },
    /// Reading failed.
    #[error("reading NFLOG failed")]
    Reading(#[source] io::Error),
}

/// Reads one group in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Reader {
    link: Link,
    /// The number that the next packet should have.
    next: Option<u32>,
    counts: Arc<Counts>,
}

/// How often a thread that reads looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(200);

/// How many packets are handed on at once, about.
const BATCH: usize = 1024;

/// The longest message that the kernel makes of gathered packets, in bytes.
const MESSAGE: u32 = 64 * 1024;

// === impl Options ===

impl Options {
    /// The usual ones for a group: headers only, handed over within a tenth of a second.
    pub fn new(group: u16) -> Self {
        Self {
            group,
            copy: 128,
            gather: 64,
            linger: Duration::from_millis(100),
            buffer: 8 << 20,
        }
    }
}

// === impl Reader ===

impl Reader {
    /// Binds the group, for IPv4 and IPv6 alike.
    pub fn open(options: &Options) -> Result<Self, NflogError> {
        let group = options.group;
        let refused = |errno: Errno| NflogError::Refused {
            group,
            source: errno.into(),
        };
        let mut link = Link::open(options.buffer).map_err(refused)?;
        // Without this one overrun makes the kernel drop everything until all is read. What is lost shows in the numbers.
        link.pass_over_overruns().map_err(refused)?;
        link.set_patience(LOOK).map_err(refused)?;
        let mut reader = Self {
            link,
            next: None,
            counts: Arc::default(),
        };
        match reader.bind(options).map_err(refused)? {
            0 => Ok(reader),
            _ if taken(group) => Err(NflogError::Taken(group)),
            code => Err(refused(Errno::from_raw_os_error(code))),
        }
    }

    /// The kernel's answer to the request that binds; 0 where it is done.
    fn bind(&mut self, options: &Options) -> Result<i32, Errno> {
        let seq = self.link.take_seqs(1);
        let request = record::bind(options, MESSAGE, seq).ok_or(Errno::MSGSIZE)?;
        self.link.send(&request)?;
        loop {
            if let Some(code) = answer(self.link.receive()?) {
                return Ok(code);
            }
        }
    }

    /// What is counted, for whoever shows it.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Waits a moment for packets and appends what came, to a bound.
    pub fn read(&mut self, records: &mut Vec<Record>) -> Result<(), NflogError> {
        let before = records.len();
        let mut is_first = true;
        while records.len().saturating_sub(before) < BATCH {
            let received = if std::mem::take(&mut is_first) {
                self.link.receive()
            } else {
                self.link.receive_now()
            };
            match received {
                Ok(messages) => self.counts.take(messages, records),
                Err(Errno::AGAIN) => break,
                Err(Errno::NOBUFS) => {
                    self.counts.overruns.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                Err(errno) => return Err(NflogError::Reading(errno.into())),
            }
        }
        for record in records.iter().skip(before) {
            if let (Some(next), Some(number)) = (self.next, record.number) {
                let gap = number.wrapping_sub(next);
                // A number a little behind is no gap of four thousand millions.
                if gap < u32::MAX / 2 {
                    self.counts.lost.fetch_add(gap.into(), Ordering::Relaxed);
                }
            }
            self.next = record.number.map(|number| number.wrapping_add(1));
        }
        let read = records.len().saturating_sub(before);
        let read = u64::try_from(read).unwrap_or(u64::MAX);
        self.counts.read.fetch_add(read, Ordering::Relaxed);
        Ok(())
    }

    /// Reads until told to stop, or until nobody takes from the channel any more.
    pub fn run(
        mut self,
        batches: &Sender<Vec<Record>>,
        stop: &AtomicBool,
    ) -> Result<(), NflogError> {
        while !stop.load(Ordering::Relaxed) && !batches.is_closed() {
            let mut records = Vec::new();
            self.read(&mut records)?;
            let count = u64::try_from(records.len()).unwrap_or(u64::MAX);
            if count > 0 && batches.try_send(records).is_err() {
                self.counts.dropped.fetch_add(count, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

impl Counts {
    /// Takes the packets of what was received.
    fn take(&self, messages: Messages<'_>, records: &mut Vec<Record>) {
        for message in messages.filter(|message| message.kind == kind::LOG_PACKET) {
            match record::record(&message) {
                Some(record) => records.push(record),
                None => {
                    self.broken.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

/// The errno of the answer to a request. Packets may come before it, and what ends several of them is no answer: where an answer
/// has its errno, that has the number of the group.
fn answer(messages: Messages<'_>) -> Option<i32> {
    let mut answers = messages.filter(|message| message.kind == kind::ERROR);
    answers.find_map(|message| message.error())
}

/// Whether somebody reads a group. The kernel refuses a second one as it refuses one without rights.
fn taken(group: u16) -> bool {
    let list = std::fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_log");
    let group = group.to_string();
    list.is_ok_and(|list| {
        let mut groups = list
            .lines()
            .filter_map(|line| line.split_whitespace().next());
        groups.any(|known| known == group)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_that_come_before_an_answer_are_not_taken_for_it() {
        let kept = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fuzz/corpus/netlink/packets"
        );
        let packets = std::fs::read(kept).expect("kept packets");
        let ends = Messages(&packets).filter(|message| message.kind == kind::DONE);
        assert!(ends.filter_map(|end| end.error()).any(|code| code != 0));
        assert_eq!(answer(Messages(&packets)), None);
        // The answer of a kernel that is content, behind them.
        let mut ack = [0; 36];
        ack[0] = 36;
        ack[4] = 2;
        let both = [&packets[..], &ack].concat();
        assert_eq!(answer(Messages(&both)), Some(0));
    }
}
