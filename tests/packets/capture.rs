//! What really passes at a pod's interface: every packet that a packet socket in its namespace sees, with the time.
//! It knows nothing of the agent, its rules or its counters, and reads packets by itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::net::RecvFlags;

use crate::namespace::{Namespace, let_wait};

/// A packet that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    /// When it was read, within a few milliseconds of when it passed.
    pub(crate) at: Instant,
    /// From where to where, over what.
    pub(crate) tuple: Tuple,
    /// The flags of TCP, or the kind of ICMP message or of the first chunk of SCTP.
    pub(crate) kind: u8,
}

/// What a packet belongs to; without ports both are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Tuple {
    /// Its sender.
    pub(crate) from: IpAddr,
    /// Its receiver.
    pub(crate) to: IpAddr,
    /// The number of its protocol.
    pub(crate) protocol: u8,
    /// The sender's port.
    pub(crate) from_port: u16,
    /// The receiver's port.
    pub(crate) to_port: u16,
}

/// A packet socket that is being read.
pub(crate) struct Capture {
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<Vec<Packet>>>,
}

// === impl Capture ===

impl Capture {
    /// Begins; what passes after this returns is seen.
    pub(crate) fn start(namespace: &Namespace) -> Self {
        let socket = namespace.frames(Duration::from_millis(20));
        let_wait(&socket, 64 << 20);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let reader = thread::spawn(move || read(&socket, &stopped));
        Self {
            stop,
            reader: Some(reader),
        }
    }

    /// Ends, and gives all packets of IP that were seen, in their order.
    pub(crate) fn stop(mut self) -> Vec<Packet> {
        self.stop.store(true, Ordering::Relaxed);
        self.reader.take().unwrap().join().unwrap()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn read(socket: &OwnedFd, stop: &AtomicBool) -> Vec<Packet> {
    // What is read late looks as if it had passed late.
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), -20);
    let mut packets = Vec::new();
    let mut buffer = [0; 256];
    loop {
        // What is in the buffer when the end comes still counts.
        let last = stop.load(Ordering::Relaxed);
        while let Ok((size, _)) = rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty()) {
            if let Some((tuple, kind)) = parsed(&buffer[..size]) {
                packets.push(Packet {
                    at: Instant::now(),
                    tuple,
                    kind,
                });
            }
        }
        if last {
            return packets;
        }
    }
}

fn parsed(frame: &[u8]) -> Option<(Tuple, u8)> {
    let short = |at: usize| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
    let (from, to, protocol, ports): (IpAddr, IpAddr, u8, usize) = match short(12)? {
        0x0800 => {
            let address = |at: usize| {
                Some(Ipv4Addr::from(
                    <[u8; 4]>::try_from(frame.get(at..at + 4)?).ok()?,
                ))
            };
            let header = usize::from(frame.get(14)? & 15) * 4;
            (
                address(26)?.into(),
                address(30)?.into(),
                *frame.get(23)?,
                14 + header,
            )
        }
        0x86dd => {
            let address = |at: usize| {
                Some(Ipv6Addr::from(
                    <[u8; 16]>::try_from(frame.get(at..at + 16)?).ok()?,
                ))
            };
            (
                address(22)?.into(),
                address(38)?.into(),
                *frame.get(20)?,
                54,
            )
        }
        _ => return None,
    };
    let (from_port, to_port, kind) = match protocol {
        6 => (short(ports)?, short(ports + 2)?, *frame.get(ports + 13)?),
        17 => (short(ports)?, short(ports + 2)?, 0),
        132 => (short(ports)?, short(ports + 2)?, *frame.get(ports + 12)?),
        1 | 58 => (0, 0, *frame.get(ports)?),
        _ => (0, 0, 0),
    };
    let tuple = Tuple {
        from,
        to,
        protocol,
        from_port,
        to_port,
    };
    Some((tuple, kind))
}
