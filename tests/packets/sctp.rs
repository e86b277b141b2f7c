//! Just enough of SCTP to open an association, in packets made by hand: the kernel may not know the protocol.
//!
//! RFC 9260: a common header of 12 bytes with a CRC-32c, then chunks.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto};
use tokio::net::UdpSocket;
use tokio::sync::oneshot;

use crate::namespace::let_wait;

const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const ABORT: u8 = 6;

/// A packet's ports, tag and first chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Packet {
    from: u16,
    to: u16,
    kind: u8,
    /// The tag that the sender of an INIT wants to be called by.
    tag: u32,
}

/// What an INIT was answered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Come in.
    Accepted,
    /// An abort.
    Refused,
}

/// Those who wait for an answer, by whom they asked, at which port, from which port.
type Waiting = Mutex<HashMap<(IpAddr, u16, u16), oneshot::Sender<Answer>>>;

/// Sends INITs from one namespace and hears the answers.
pub(crate) struct Asker {
    socket: UdpSocket,
    waiting: Waiting,
}

/// Opens a raw socket for SCTP in the namespace of the calling thread, bound to an address, which may be the unspecified.
pub(crate) fn open(address: IpAddr) -> OwnedFd {
    let family = if address.is_ipv6() {
        AddressFamily::INET6
    } else {
        AddressFamily::INET
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket =
        rustix::net::socket_with(family, SocketType::RAW, flags, Some(ipproto::SCTP)).unwrap();
    let_wait(&socket, 8 << 20);
    rustix::net::bind(&socket, &SocketAddr::new(address, 0)).unwrap();
    socket
}

/// Answers every INIT to one of the ports, and aborts the others.
pub(crate) async fn answer(socket: OwnedFd, v6: bool, ports: Vec<u16>) {
    let socket = waiting(socket);
    loop {
        let (from, packet) = receive(&socket, v6).await;
        let Some(Packet {
            from: port,
            to,
            kind: INIT,
            tag,
        }) = packet
        else {
            continue;
        };
        let kind = if ports.contains(&to) { INIT_ACK } else { ABORT };
        let _ = send(&socket, from, &made(to, port, tag, kind));
    }
}

// === impl Asker ===

impl Asker {
    /// Listens with a socket that was opened in a namespace.
    pub(crate) fn start(socket: OwnedFd, v6: bool) -> Arc<Self> {
        let asker = Arc::new(Self {
            socket: waiting(socket),
            waiting: Mutex::default(),
        });
        let listening = Arc::downgrade(&asker);
        tokio::spawn(async move {
            while let Some(asker) = listening.upgrade() {
                let received = receive(&asker.socket, v6);
                // Now and then it looks whether anybody still asks.
                let pause = std::time::Duration::from_millis(200);
                let Ok((from, packet)) = tokio::time::timeout(pause, received).await else {
                    continue;
                };
                let Some(packet) = packet else { continue };
                let answer = match packet.kind {
                    INIT_ACK => Answer::Accepted,
                    ABORT => Answer::Refused,
                    _ => continue,
                };
                let key = (from, packet.from, packet.to);
                if let Some(waiting) = asker.waiting.lock().unwrap().remove(&key) {
                    let _ = waiting.send(answer);
                }
            }
        });
        asker
    }

    /// Asks once, from a port of its own; the receiver fails when it cannot be sent.
    pub(crate) fn ask(&self, to: SocketAddr) -> oneshot::Receiver<Answer> {
        static PORT: AtomicU16 = AtomicU16::new(0);
        let port = 20_000 + PORT.fetch_add(1, Ordering::Relaxed) % 40_000;
        let (sender, receiver) = oneshot::channel();
        let key = (to.ip(), to.port(), port);
        self.waiting.lock().unwrap().insert(key, sender);
        let packet = made(port, to.port(), 0, INIT);
        if send(&self.socket, to.ip(), &packet).is_err() {
            self.waiting.lock().unwrap().remove(&key);
        }
        receiver
    }
}

/// A socket of the kind of UDP's: only what it sends and reads differs.
fn waiting(socket: OwnedFd) -> UdpSocket {
    UdpSocket::from_std(socket.into()).unwrap()
}

fn send(socket: &UdpSocket, to: IpAddr, packet: &[u8]) -> io::Result<usize> {
    let to = SocketAddr::new(to, 0);
    Ok(rustix::net::sendto(
        socket,
        packet,
        SendFlags::empty(),
        &to,
    )?)
}

async fn receive(socket: &UdpSocket, v6: bool) -> (IpAddr, Option<Packet>) {
    let mut buffer = [0; 2048];
    loop {
        if let Ok((size, from)) = socket.recv_from(&mut buffer).await {
            // Only the older family shows its own header.
            let header = if v6 {
                0
            } else {
                usize::from(buffer[0] & 15) * 4
            };
            return (from.ip(), parsed(&buffer[header..size]));
        }
    }
}

fn parsed(packet: &[u8]) -> Option<Packet> {
    let short = |at: usize| Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?));
    let kind = *packet.get(12)?;
    let tag = packet
        .get(16..20)
        .map_or(0, |tag| u32::from_be_bytes(tag.try_into().unwrap()));
    Some(Packet {
        from: short(0)?,
        to: short(2)?,
        kind,
        tag,
    })
}

fn made(from: u16, to: u16, tag: u32, kind: u8) -> Vec<u8> {
    let mut packet = Vec::with_capacity(48);
    packet.extend(from.to_be_bytes());
    packet.extend(to.to_be_bytes());
    packet.extend(tag.to_be_bytes());
    packet.extend([0; 4]);
    // The chunk: its kind, flags, length; own tag, window, streams out and in, first number.
    let cookie: &[u8] = if kind == INIT_ACK {
        &[0, 7, 0, 8, 1, 2, 3, 4]
    } else {
        &[]
    };
    let length: u16 = if kind == ABORT {
        4
    } else {
        20 + cookie.len() as u16
    };
    packet.extend([kind, 0]);
    packet.extend(length.to_be_bytes());
    if kind != ABORT {
        packet.extend(0x5246_0001_u32.to_be_bytes());
        packet.extend(65_536_u32.to_be_bytes());
        packet.extend([0, 1, 0, 1]);
        packet.extend(1_u32.to_be_bytes());
        packet.extend(cookie);
    }
    let sum = crc32c(&packet);
    packet[8..12].copy_from_slice(&sum.to_le_bytes());
    packet
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg())
        })
    })
}

#[test]
fn the_checksum_is_the_one_of_the_standard() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}
