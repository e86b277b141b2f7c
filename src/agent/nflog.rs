//! Packets that rules of nftables log to a group of NFLOG, read in batches.
//!
//! A [`Reader`] is for a thread of its own: [`Reader::run`] reads until it is told to stop and hands what it read to a
//! bounded channel. It never waits for who reads the channel; what does not fit is dropped and counted, and so is what
//! the kernel could not hand over.

pub mod packet;
mod wire;

use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, sockopt};
use tokio::sync::mpsc::Sender;

pub use wire::Record;

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
    socket: Socket,
    group: u16,
    buffer: Vec<u8>,
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
        let refused = |source| NflogError::Refused { group, source };
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(refused)?;
        socket.bind_auto().map_err(refused)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(refused)?;
        // Without this one overrun makes the kernel drop everything until all is read. What is lost shows in the numbers.
        socket.set_no_enobufs(true).map_err(refused)?;
        if sockopt::set_socket_recv_buffer_size_force(&socket, options.buffer).is_err() {
            let _ = sockopt::set_socket_recv_buffer_size(&socket, options.buffer);
        }
        let patience = Some(LOOK);
        let set = sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, patience);
        set.map_err(|error| refused(error.into()))?;
        let mut reader = Self {
            socket,
            group,
            buffer: vec![0; usize::try_from(MESSAGE).unwrap_or(usize::MAX)],
            next: None,
            counts: Arc::default(),
        };
        reader.bind(options)?;
        Ok(reader)
    }

    fn bind(&mut self, options: &Options) -> Result<(), NflogError> {
        let group = self.group;
        let request = wire::bind(options, MESSAGE);
        let asked = rustix::net::send(self.socket.as_fd(), &request, SendFlags::empty());
        asked.map_err(|error| NflogError::Refused {
            group,
            source: error.into(),
        })?;
        // A packet may come before the answer; the log begins after it.
        loop {
            let size = match self.receive(RecvFlags::empty()) {
                Ok(Some(size)) => size,
                Ok(None) => {
                    let source = io::ErrorKind::TimedOut.into();
                    return Err(NflogError::Refused { group, source });
                }
                Err(source) => return Err(NflogError::Refused { group, source }),
            };
            let message = self.buffer.get(..size).unwrap_or_default();
            match wire::answer(message) {
                Some(0) => return Ok(()),
                Some(_) if taken(group) => return Err(NflogError::Taken(group)),
                Some(code) => {
                    let source = io::Error::from_raw_os_error(code);
                    return Err(NflogError::Refused { group, source });
                }
                None => {}
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
        let mut flags = RecvFlags::empty();
        while records.len().saturating_sub(before) < BATCH {
            let Some(size) = self.receive(flags).map_err(NflogError::Reading)? else {
                break;
            };
            let message = self.buffer.get(..size).unwrap_or_default();
            let broken = wire::records(message, records);
            self.counts.broken.fetch_add(broken, Ordering::Relaxed);
            flags = RecvFlags::DONTWAIT;
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

    /// One message; none when nothing came for a while.
    fn receive(&mut self, flags: RecvFlags) -> io::Result<Option<usize>> {
        match rustix::net::recv(self.socket.as_fd(), &mut *self.buffer, flags) {
            Ok((size, _)) => Ok(Some(size)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(Errno::NOBUFS) => {
                self.counts.overruns.fetch_add(1, Ordering::Relaxed);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
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
