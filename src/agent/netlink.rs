//! Netlink sockets of netfilter and of interfaces and routes: asking, and hearing the answer.

pub(crate) mod wire;

use std::sync::Arc;
use std::time::Duration;

use netlink_sys::SocketAddr;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, sockopt};

use wire::{Message, Messages, Writer, flag};

/// How much is received at once. The kernel makes parts of a dump no longer than 32 KiB.
const BUFFER: usize = 64 * 1024;

/// How long the kernel may take for a part of a dump.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often something is read where it changes meanwhile.
const TRIES: usize = 5;

/// How many bytes of answers on interfaces and routes may wait.
const ROUTES: usize = 256 * 1024;

/// A socket of the network namespace that the thread was in when it was opened.
#[derive(Debug)]
pub(crate) struct Link {
    inner: Arc<netlink_sys::Socket>,
    port: u32,
    seq: u32,
    buffer: Vec<u8>,
    /// The longest message that fits by now.
    sendable: usize,
}

/// That a socket hears what a group of listeners is told.
#[derive(Clone, Debug)]
pub(crate) struct Membership {
    socket: Arc<netlink_sys::Socket>,
    group: u32,
}

impl Membership {
    /// Hears it again.
    pub(crate) fn join(&self) -> Result<(), Errno> {
        self.socket
            .add_membership(self.group)
            .map_err(|e| errno(&e))
    }

    /// Hears it no more.
    pub(crate) fn leave(&self) -> Result<(), Errno> {
        self.socket
            .drop_membership(self.group)
            .map_err(|e| errno(&e))
    }
}

/// Whether something changed while it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consistency {
    /// It is as it was at one moment.
    Whole,
    /// A change of somebody came between.
    Torn,
}

impl Consistency {
    /// That of two things that were read one after the other.
    pub(crate) fn and(self, other: Self) -> Self {
        match self {
            Self::Whole => other,
            Self::Torn => Self::Torn,
        }
    }
}

/// Reads something, again where it changed meanwhile.
///
/// # Errors
/// The kernel does not tell, or it changes too often.
pub(crate) fn settled<T>(
    mut read: impl FnMut() -> Result<(T, Consistency), Errno>,
) -> Result<T, Errno> {
    for _ in 0..TRIES {
        let (whole, consistency) = read()?;
        if consistency == Consistency::Whole {
            return Ok(whole);
        }
    }
    Err(Errno::AGAIN)
}

impl Link {
    /// Opens it, so that so many bytes may wait to be received.
    pub(crate) fn open(receive: usize) -> Result<Self, Errno> {
        Self::open_of(NETLINK_NETFILTER, receive)
    }

    /// The same, for interfaces, their addresses and routes.
    pub(crate) fn open_routes() -> Result<Self, Errno> {
        Self::open_of(NETLINK_ROUTE, ROUTES)
    }

    fn open_of(protocol: isize, receive: usize) -> Result<Self, Errno> {
        let mut inner = netlink_sys::Socket::new(protocol).map_err(|e| errno(&e))?;
        let port = inner.bind_auto().map_err(|e| errno(&e))?.port_number();
        let kernel = SocketAddr::new(0, 0);
        inner.connect(&kernel).map_err(|e| errno(&e))?;
        // Answers without what they answer to, with the place of an error: wanted, not needed.
        let _ = inner.set_cap_ack(true);
        let _ = inner.set_ext_ack(true);
        if sockopt::set_socket_recv_buffer_size_force(&inner, receive).is_err() {
            let _ = sockopt::set_socket_recv_buffer_size(&inner, receive);
        }
        let sendable = sockopt::socket_send_buffer_size(&inner)?;
        let link = Self {
            inner: Arc::new(inner),
            port,
            seq: 0,
            buffer: vec![0; BUFFER],
            sendable,
        };
        link.set_patience(PATIENCE)?;
        Ok(link)
    }

    /// The number of this socket among those of its namespace.
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    /// Begins to hear what the kernel tells a group of listeners.
    pub(crate) fn join(&self, group: u32) -> Result<Membership, Errno> {
        let membership = Membership {
            socket: Arc::clone(&self.inner),
            group,
        };
        membership.join()?;
        Ok(membership)
    }

    /// How long to wait for something to be received; at least a millisecond, since no time means for ever.
    pub(crate) fn set_patience(&self, patience: Duration) -> Result<(), Errno> {
        let patience = patience.max(Duration::from_millis(1));
        sockopt::set_socket_timeout(&*self.inner, sockopt::Timeout::Recv, Some(patience))
    }

    /// Has the kernel go on telling after it had no room for something, instead of holding everything back until all is read.
    pub(crate) fn pass_over_overruns(&mut self) -> Result<(), Errno> {
        let inner = Arc::get_mut(&mut self.inner).ok_or(Errno::BUSY)?;
        inner.set_no_enobufs(true).map_err(|e| errno(&e))
    }

    /// Has the kernel tell only what is asked for, where it can.
    pub(crate) fn ask_strictly(&self) {
        let _ = self.inner.set_netlink_get_strict_chk(true);
    }

    /// Takes so many sequence numbers in a row; the first of them.
    pub(crate) fn take_seqs(&mut self, number: u32) -> u32 {
        let first = self.seq.wrapping_add(1);
        self.seq = self.seq.wrapping_add(number);
        first
    }

    /// Sends messages at once, however many bytes they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        self.make_room(bytes.len());
        loop {
            match rustix::net::send(&*self.inner, bytes, SendFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Lets a message of this length be sent at once.
    fn make_room(&mut self, length: usize) {
        // The kernel keeps a part of it for itself.
        let wanted = length.saturating_add(4096);
        if wanted <= self.sendable {
            return;
        }
        if sockopt::set_socket_send_buffer_size_force(&*self.inner, wanted).is_err() {
            // Only up to the system's limit, and only sending shows whether that is enough.
            let _ = sockopt::set_socket_send_buffer_size(&*self.inner, wanted);
        }
        self.sendable = sockopt::socket_send_buffer_size(&*self.inner).unwrap_or(self.sendable);
    }

    /// Waits for messages.
    pub(crate) fn receive(&mut self) -> Result<Messages<'_>, Errno> {
        self.receive_with(RecvFlags::empty())
    }

    /// The messages that are there already; `EAGAIN` where there are none.
    pub(crate) fn receive_now(&mut self) -> Result<Messages<'_>, Errno> {
        self.receive_with(RecvFlags::DONTWAIT)
    }

    fn receive_with(&mut self, flags: RecvFlags) -> Result<Messages<'_>, Errno> {
        let length = loop {
            match rustix::net::recv(&*self.inner, self.buffer.as_mut_slice(), flags) {
                Ok((length, _)) => break length,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        };
        Ok(Messages(self.buffer.get(..length).unwrap_or_default()))
    }

    /// Asks for something and hands over each message of the answer. Whether it changed while it was read is told.
    pub(crate) fn ask(
        &mut self,
        (kind, flags): (u16, u16),
        family: u8,
        body: impl FnOnce(&mut Writer),
        mut take: impl FnMut(&Message<'_>),
    ) -> Result<Consistency, Errno> {
        let seq = self.take_seqs(1);
        let mut writer = Writer::default();
        writer.message((kind, flags), seq, (family, 0), body);
        let request = writer.finish().ok_or(Errno::MSGSIZE)?;
        self.send(&request)?;
        let mut consistency = Consistency::Whole;
        loop {
            let messages = self.receive()?;
            for message in messages.filter(|message| message.seq == seq) {
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

/// The number of an error, where it has one.
fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
