//! Connections that stay open, with both ends in the test's hands: either side sends, and the other hears it or not.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, socket_with};

use crate::cluster::Place;

/// How long opening may take.
const OPENING: Duration = Duration::from_secs(5);

/// A TCP connection.
#[derive(Debug)]
pub(crate) struct Connection {
    client: TcpStream,
    server: TcpStream,
}

/// An exchange of datagrams between one socket and another.
#[derive(Debug)]
pub(crate) struct Exchange {
    client: UdpSocket,
    server: UdpSocket,
    /// Whom the server answers, known once it heard something.
    asker: Option<SocketAddr>,
}

/// The side that sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The one that opened.
    Client,
    /// The other one.
    Server,
}

// === impl Connection ===

impl Connection {
    /// Opens one, to a port where nothing else listens.
    pub(crate) fn open(from: &Place, to: &Place, v6: bool, port: u16) -> io::Result<Self> {
        Self::open_by(from, to, port, to.at(v6, port))
    }

    /// Opens one by another address, such as that of a Service, that leads to the port.
    pub(crate) fn open_by(from: &Place, to: &Place, port: u16, by: SocketAddr) -> io::Result<Self> {
        let any = (Ipv6Addr::UNSPECIFIED, port);
        let listener = to.namespace.inside(|| again(|| TcpListener::bind(any)))?;
        let client = from
            .namespace
            .inside(|| TcpStream::connect_timeout(&by, OPENING))?;
        let (server, _) = listener.accept()?;
        for end in [&client, &server] {
            end.set_nodelay(true)?;
            end.set_write_timeout(Some(OPENING))?;
        }
        Ok(Self { client, server })
    }

    /// Whether what one side sends arrives in time. What was sent and did not arrive is sent again by TCP, and may arrive
    /// later.
    pub(crate) fn passes(&mut self, sender: Side, within: Duration) -> bool {
        let (sends, hears) = match sender {
            Side::Client => (&mut self.client, &mut self.server),
            Side::Server => (&mut self.server, &mut self.client),
        };
        hears.set_read_timeout(Some(within)).unwrap();
        sends.write_all(b"x").is_ok() && hears.read_exact(&mut [0]).is_ok()
    }

    /// The server asks for a connection the other way round, between the same ports, in a packet made by hand
    /// (RFC 9293, section 3.1). Over IPv4.
    pub(crate) fn ask_back(&self, server: &Place) -> io::Result<()> {
        let (from, to) = (self.server.local_addr()?, self.server.peer_addr()?);
        let (IpAddr::V4(source), IpAddr::V4(destination)) =
            (from.ip().to_canonical(), to.ip().to_canonical())
        else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let mut segment = Vec::new();
        segment.extend(from.port().to_be_bytes());
        segment.extend(to.port().to_be_bytes());
        // Its number, nothing that it answers, five words, SYN, a window, and no checksum yet.
        segment.extend([1, 0, 0, 0, 0, 0, 0, 0, 5 << 4, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
        let length = u16::try_from(segment.len()).unwrap();
        let pseudo = [
            &source.octets()[..],
            &destination.octets(),
            &[0, 6],
            &length.to_be_bytes(),
            &segment,
        ];
        let words = pseudo.concat();
        let words = words.chunks(2);
        let sum: u32 = words
            .map(|it| u32::from(u16::from_be_bytes([it[0], it[1]])))
            .sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
        segment[16..18].copy_from_slice(&checksum.to_be_bytes());
        server.namespace.inside(|| {
            let (family, flags) = (AddressFamily::INET, SocketFlags::CLOEXEC);
            let socket = socket_with(family, SocketType::RAW, flags, Some(ipproto::TCP))?;
            let to = SocketAddr::from((destination, 0));
            rustix::net::sendto(&socket, &segment, SendFlags::empty(), &to)?;
            Ok(())
        })
    }

    /// How long it takes until nothing that one side sends arrives within the time, sending again and again; none when
    /// something still arrives in the end.
    pub(crate) fn cut(
        &mut self,
        sender: Side,
        quiet: Duration,
        most: Duration,
    ) -> Option<Duration> {
        let begun = Instant::now();
        while begun.elapsed() < most {
            let at = begun.elapsed();
            if !self.passes(sender, quiet) {
                return Some(at);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }
}

// === impl Exchange ===

impl Exchange {
    /// Opens both sockets; nothing is sent yet.
    pub(crate) fn open(from: &Place, to: &Place, v6: bool, port: u16) -> io::Result<Self> {
        Self::open_by(from, to, port, to.at(v6, port))
    }

    /// The same by another address, such as that of a Service.
    pub(crate) fn open_by(from: &Place, to: &Place, port: u16, by: SocketAddr) -> io::Result<Self> {
        let any = (Ipv6Addr::UNSPECIFIED, port);
        let server = to.namespace.inside(|| again(|| UdpSocket::bind(any)))?;
        let client = from.namespace.inside(|| {
            let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
            let mapped = match by {
                SocketAddr::V4(v4) => SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port())),
                SocketAddr::V6(_) => by,
            };
            socket.connect(mapped)?;
            io::Result::Ok(socket)
        })?;
        Ok(Self {
            client,
            server,
            asker: None,
        })
    }

    /// Whether a datagram of one side arrives in time. The client has to be heard before the server can send.
    pub(crate) fn passes(&mut self, sender: Side, within: Duration) -> bool {
        let mut buffer = [0; 8];
        match sender {
            Side::Client => {
                self.server.set_read_timeout(Some(within)).unwrap();
                if self.client.send(b"x").is_err() {
                    return false;
                }
                match self.server.recv_from(&mut buffer) {
                    Ok((_, asker)) => {
                        self.asker = Some(asker);
                        true
                    }
                    Err(_) => false,
                }
            }
            Side::Server => {
                let asker = self.asker.expect("the client was heard");
                self.client.set_read_timeout(Some(within)).unwrap();
                self.server.send_to(b"x", asker).is_ok() && self.client.recv(&mut buffer).is_ok()
            }
        }
    }
}

/// Binds, again where the port is still taken: a program that another test starts holds a copy of every socket until it
/// runs, also of one that was closed.
fn again<T>(bind: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let begun = Instant::now();
    loop {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && begun.elapsed() < OPENING => {
                std::thread::sleep(Duration::from_millis(5));
            }
            bound => return bound,
        }
    }
}
