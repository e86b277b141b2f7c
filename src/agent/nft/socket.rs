//! A netlink socket of `nf_tables`.

use std::time::Duration;

use netlink_sys::SocketAddr;
use netlink_sys::protocols::NETLINK_NETFILTER;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, sockopt};

use super::batch::Batch;
use super::error::{ApplyError, Refusal, describe};
use super::wire::{Message, Messages, Writer, flag};
use crate::ruleset::Transaction;

/// How much is received at once. The kernel makes parts of a dump no longer than 32 KiB.
const BUFFER: usize = 64 * 1024;

/// How much may wait to be received: a transaction in which everything fails is answered message by message.
const RECEIVE: usize = 4 * 1024 * 1024;

/// How long the kernel may take for a part of a dump.
const PATIENCE: Duration = Duration::from_secs(30);

/// Talks to `nf_tables` of the network namespace that the thread was in when it was opened.
#[derive(Debug)]
pub struct Socket {
    inner: netlink_sys::Socket,
    port: u32,
    seq: u32,
    buffer: Vec<u8>,
    /// The longest message that fits by now.
    sendable: usize,
}

impl Socket {
    /// Opens it. Rights are asked for only by what is done with it.
    pub fn open() -> Result<Self, ApplyError> {
        Self::new(RECEIVE).map_err(ApplyError::Socket)
    }

    pub(super) fn new(receive: usize) -> Result<Self, Errno> {
        let mut inner = netlink_sys::Socket::new(NETLINK_NETFILTER).map_err(|e| errno(&e))?;
        let port = inner.bind_auto().map_err(|e| errno(&e))?.port_number();
        inner
            .connect(&SocketAddr::new(0, 0))
            .map_err(|e| errno(&e))?;
        // Answers without what they answer to, with the place of an error: wanted, not needed.
        let _ = inner.set_cap_ack(true);
        let _ = inner.set_ext_ack(true);
        if sockopt::set_socket_recv_buffer_size_force(&inner, receive).is_err() {
            let _ = sockopt::set_socket_recv_buffer_size(&inner, receive);
        }
        sockopt::set_socket_timeout(&inner, sockopt::Timeout::Recv, Some(PATIENCE))?;
        let sendable = sockopt::socket_send_buffer_size(&inner)?;
        Ok(Self {
            inner,
            port,
            seq: 0,
            buffer: vec![0; BUFFER],
            sendable,
        })
    }

    /// The number by which the kernel tells this socket from all others of the namespace, in what it says to a
    /// [`Monitor`](super::Monitor).
    pub fn port(&self) -> u32 {
        self.port
    }

    pub(super) fn inner(&self) -> &netlink_sys::Socket {
        &self.inner
    }

    /// Does all of a transaction or nothing of it. When it returns, packets meet the new rules.
    ///
    /// # Errors
    ///
    /// Says which change the kernel refused and why. The old rules stand then.
    pub fn apply(&mut self, transaction: &Transaction) -> Result<(), ApplyError> {
        if transaction
            .changes
            .iter()
            .all(crate::ruleset::Change::is_void)
        {
            return Ok(());
        }
        let batch = Batch::new(transaction, self.seq).ok_or(ApplyError::TooLong)?;
        self.seq = batch.end().wrapping_add(1);
        self.make_room(batch.bytes.len());
        // The kernel does it within this call, and answers before it returns.
        loop {
            match rustix::net::send(&self.inner, &batch.bytes, SendFlags::empty()) {
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(Errno::PERM) => return Err(ApplyError::NotPermitted),
                Err(errno @ Errno::MSGSIZE) => {
                    return Err(ApplyError::Refused(Refusal {
                        change: None,
                        what: format!("a transaction of {} bytes", batch.bytes.len()),
                        errno,
                        others: 0,
                    }));
                }
                Err(errno) => return Err(ApplyError::Socket(errno)),
            }
        }
        self.outcome(&batch, transaction)
    }

    /// Lets a message of this length be sent at once.
    fn make_room(&mut self, length: usize) {
        // The kernel keeps a part of it for itself, and doubles what is asked for.
        let wanted = length.saturating_add(4096);
        if wanted <= self.sendable {
            return;
        }
        if sockopt::set_socket_send_buffer_size_force(&self.inner, wanted).is_err() {
            // Only up to the system's limit, and only sending shows whether that is enough.
            let _ = sockopt::set_socket_send_buffer_size(&self.inner, wanted);
        }
        self.sendable = sockopt::socket_send_buffer_size(&self.inner).unwrap_or(self.sendable);
    }

    /// Reads the answers to a batch.
    fn outcome(&mut self, batch: &Batch, transaction: &Transaction) -> Result<(), ApplyError> {
        let mut is_done = false;
        let mut first: Option<(u32, Errno, Option<usize>)> = None;
        let mut refused: usize = 0;
        loop {
            let length = match self.receive(RecvFlags::DONTWAIT) {
                Ok(length) => length,
                Err(Errno::AGAIN) => break,
                // Some answers were lost; those that are there tell enough.
                Err(Errno::NOBUFS) => continue,
                Err(errno) => return Err(ApplyError::Socket(errno)),
            };
            for message in Messages(self.buffer.get(..length).unwrap_or_default()) {
                let since = message.seq.wrapping_sub(batch.seq);
                if since > batch.end().wrapping_sub(batch.seq) {
                    continue;
                }
                match message.error() {
                    Some(0) => is_done = true,
                    Some(code) => {
                        refused = refused.saturating_add(1);
                        let is_first =
                            first.is_none_or(|(seq, ..)| since < seq.wrapping_sub(batch.seq));
                        if is_first {
                            let errno = Errno::from_raw_os_error(code);
                            first = Some((message.seq, errno, message.offset()));
                        }
                    }
                    None => {}
                }
            }
        }
        match first {
            None if is_done => Ok(()),
            None => Err(ApplyError::Unanswered),
            Some((_, Errno::PERM, _)) => Err(ApplyError::NotPermitted),
            Some((seq, errno, offset)) => {
                let place = batch.change(seq, offset);
                let what = match place {
                    Some((change, part)) => describe(transaction, change, part),
                    None => describe(transaction, usize::MAX, None),
                };
                Err(ApplyError::Refused(Refusal {
                    change: place.map(|(change, _)| change),
                    what,
                    errno,
                    others: refused.saturating_sub(1),
                }))
            }
        }
    }

    /// Receives into the buffer; how many bytes there are.
    fn receive(&mut self, flags: RecvFlags) -> Result<usize, Errno> {
        loop {
            match rustix::net::recv(&self.inner, self.buffer.as_mut_slice(), flags) {
                Ok((length, _)) => return Ok(length),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Receives messages of any request, for a listener.
    pub(super) fn listen(&mut self) -> Result<Messages<'_>, Errno> {
        let length = self.receive(RecvFlags::empty())?;
        Ok(Messages(self.buffer.get(..length).unwrap_or_default()))
    }

    /// Asks for something and hands over each message of the answer. Whether it changed while it was read is told.
    pub(super) fn ask(
        &mut self,
        (kind, flags): (u16, u16),
        family: u8,
        body: impl FnOnce(&mut Writer),
        mut take: impl FnMut(&Message<'_>),
    ) -> Result<Consistency, Errno> {
        self.seq = self.seq.wrapping_add(1);
        let seq = self.seq;
        let mut writer = Writer::default();
        writer.message((kind, flags), seq, (family, 0), body);
        let request = writer.finish().ok_or(Errno::MSGSIZE)?;
        rustix::net::send(&self.inner, &request, SendFlags::empty())?;
        let mut consistency = Consistency::Whole;
        loop {
            let length = self.receive(RecvFlags::empty())?;
            let received = self.buffer.get(..length).unwrap_or_default();
            for message in Messages(received).filter(|message| message.seq == seq) {
                if message.flags & flag::DUMP_INTR != 0 {
                    consistency = Consistency::Torn;
                }
                match message.error() {
                    Some(0) => return Ok(consistency),
                    Some(code) => return Err(Errno::from_raw_os_error(code)),
                    None => take(&message),
                }
                if flags & flag::DUMP != flag::DUMP {
                    return Ok(consistency);
                }
            }
        }
    }
}

/// Whether something changed while it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Consistency {
    /// It is as it was at one moment.
    Whole,
    /// A transaction of somebody came between.
    Torn,
}

/// The number of an error, where it has one.
fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
