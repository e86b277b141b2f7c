//! Questions asked of the network, all at once: does an answer come?
//!
//! A probe that nothing answers is silent only once nothing was answered anywhere for a while, so that a busy machine
//! does not look like a policy.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, thread};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::cluster::Place;
use crate::namespace::runtime;
use crate::sctp;

/// How long nothing may be heard before the rest counts as silent.
pub(crate) const QUIET: Duration = Duration::from_millis(300);

/// What a probe is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Transport {
    /// A connection is opened.
    Tcp,
    /// A datagram is sent and comes back.
    Udp,
    /// An INIT is answered.
    Sctp,
    /// An echo; the port means nothing.
    Icmp,
}

/// One question.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    /// Who asks.
    pub(crate) from: Place,
    /// Whom.
    pub(crate) to: SocketAddr,
    /// How.
    pub(crate) transport: Transport,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The other side answered.
    Answered,
    /// The other side is there and does not listen, or somebody rejected it.
    Refused,
    /// Nothing came.
    Silent,
}

enum Sent {
    Opening(TcpStream),
    Asking(UdpSocket),
    Asked(Arc<sctp::Asker>, oneshot::Receiver<sctp::Answer>),
    Failed,
}

/// Asks all of them at once; the answers are in the order of the questions.
pub(crate) fn ask(probes: &[Probe]) -> Vec<Outcome> {
    ask_within(probes, QUIET)
}

/// Asks one.
pub(crate) fn ask_one(from: &Place, to: SocketAddr, transport: Transport) -> Outcome {
    let probe = Probe {
        from: from.clone(),
        to,
        transport,
    };
    ask(&[probe])[0]
}

/// The same, with the time that nothing may be heard.
pub(crate) fn ask_within(probes: &[Probe], quiet: Duration) -> Vec<Outcome> {
    let mut places: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (number, probe) in probes.iter().enumerate() {
        let name = probe.from.namespace.name().to_owned();
        places.entry(name).or_default().push(number);
    }
    let (results, outcomes) = std::sync::mpsc::channel();
    let sent: Vec<(usize, Sent)> = thread::scope(|scope| {
        let threads: Vec<_> = places
            .values()
            .map(|numbers| scope.spawn(|| send_all(probes, numbers)))
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join().unwrap());
        joined.flatten().collect()
    });
    let count = probes.len();
    runtime().spawn(async move {
        let mut waiting = JoinSet::new();
        for (number, sent) in sent {
            waiting.spawn(async move { (number, sent.outcome().await) });
        }
        let mut outcomes = vec![Outcome::Silent; count];
        while let Ok(Some(done)) = tokio::time::timeout(quiet, waiting.join_next()).await {
            let (number, outcome) = done.unwrap();
            outcomes[number] = outcome;
        }
        results.send(outcomes).unwrap();
    });
    outcomes.recv().unwrap()
}

/// Sends the probes of one place.
fn send_all(probes: &[Probe], numbers: &[usize]) -> Vec<(usize, Sent)> {
    let first = &probes[numbers[0]].from.namespace;
    first.inside(|| {
        let _runtime = runtime().enter();
        let mut askers: [Option<Arc<sctp::Asker>>; 2] = [None, None];
        let mut sent = Vec::with_capacity(numbers.len());
        for number in numbers {
            let Probe { to, transport, .. } = probes[*number];
            let one = match transport {
                Transport::Sctp => {
                    let v6 = to.is_ipv6();
                    let any = if v6 {
                        Ipv6Addr::UNSPECIFIED.into()
                    } else {
                        Ipv4Addr::UNSPECIFIED.into()
                    };
                    let asker = askers[usize::from(v6)]
                        .get_or_insert_with(|| sctp::Asker::start(sctp::open(any), v6));
                    Sent::Asked(Arc::clone(asker), asker.ask(to))
                }
                _ => open(to, transport),
            };
            sent.push((*number, one));
        }
        sent
    })
}

fn open(to: SocketAddr, transport: Transport) -> Sent {
    let (kind, protocol) = match transport {
        Transport::Tcp => (SocketType::STREAM, ipproto::TCP),
        Transport::Udp => (SocketType::DGRAM, ipproto::UDP),
        Transport::Icmp if to.is_ipv6() => (SocketType::DGRAM, ipproto::ICMPV6),
        Transport::Icmp | Transport::Sctp => (SocketType::DGRAM, ipproto::ICMP),
    };
    let family = if to.is_ipv6() {
        AddressFamily::INET6
    } else {
        AddressFamily::INET
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, kind, flags, Some(protocol)).unwrap();
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(_) => return Sent::Failed,
    }
    let question: &[u8] = match transport {
        Transport::Tcp => &[],
        Transport::Icmp if to.is_ipv6() => &[128, 0, 0, 0, 0, 0, 0, 1],
        Transport::Icmp => &[8, 0, 0, 0, 0, 0, 0, 1],
        _ => b"are you there?",
    };
    if transport != Transport::Tcp
        && rustix::net::send(&socket, question, SendFlags::empty()).is_err()
    {
        return Sent::Failed;
    }
    if transport == Transport::Tcp {
        Sent::Opening(TcpStream::from_std(socket.into()).unwrap())
    } else {
        // An echo's socket is read as one of datagrams is.
        Sent::Asking(UdpSocket::from_std(socket.into()).unwrap())
    }
}

// === impl Sent ===

impl Sent {
    async fn outcome(self) -> Outcome {
        match self {
            Self::Failed => Outcome::Refused,
            Self::Asked(_asker, answer) => match answer.await {
                Ok(sctp::Answer::Accepted) => Outcome::Answered,
                _ => Outcome::Refused,
            },
            Self::Opening(stream) => {
                stream.writable().await.unwrap();
                match stream.take_error() {
                    Ok(None) => Outcome::Answered,
                    _ => Outcome::Refused,
                }
            }
            Self::Asking(socket) => match socket.recv(&mut [0; 64]).await {
                Ok(_) => Outcome::Answered,
                Err(_) => Outcome::Refused,
            },
        }
    }
}

/// Who reaches whom: every place to every place, over each transport and port, over IPv4 and IPv6.
pub(crate) struct Table {
    cells: Vec<(Cell, Outcome)>,
}

/// One flow of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    /// The name of who asks.
    pub(crate) from: String,
    /// The name of whom.
    pub(crate) to: String,
    /// How.
    pub(crate) transport: Transport,
    /// At which port.
    pub(crate) port: u16,
    /// Whether over IPv6.
    pub(crate) v6: bool,
}

// === impl Table ===

impl Table {
    /// Asks for all of it at once.
    pub(crate) fn ask(places: &[Place], flows: &[(Transport, u16)], families: &[bool]) -> Self {
        Self::ask_between(places, places, flows, families)
    }

    /// The same from some places to others.
    pub(crate) fn ask_between(
        from: &[Place],
        to: &[Place],
        flows: &[(Transport, u16)],
        families: &[bool],
    ) -> Self {
        let mut cells = Vec::new();
        let mut probes = Vec::new();
        for from in from {
            for to in to {
                for (transport, port) in flows {
                    for v6 in families {
                        cells.push(Cell {
                            from: from.name.clone(),
                            to: to.name.clone(),
                            transport: *transport,
                            port: *port,
                            v6: *v6,
                        });
                        probes.push(Probe {
                            from: from.clone(),
                            to: to.at(*v6, *port),
                            transport: *transport,
                        });
                    }
                }
            }
        }
        let outcomes = ask(&probes);
        Self {
            cells: cells.into_iter().zip(outcomes).collect(),
        }
    }

    /// Has the cells of another one, too.
    pub(crate) fn append(&mut self, other: Self) {
        self.cells.extend(other.cells);
    }

    /// The cells whose outcome is not the one that is wanted: what must pass is answered, what must not is silent.
    pub(crate) fn wrong(&self, mut wanted: impl FnMut(&Cell) -> bool) -> Vec<String> {
        let mut wrong = Vec::new();
        for (cell, outcome) in &self.cells {
            let expected = if wanted(cell) {
                Outcome::Answered
            } else {
                Outcome::Silent
            };
            if *outcome != expected {
                wrong.push(format!("{cell}: {outcome:?}, not {expected:?}"));
            }
        }
        wrong
    }

    /// How many flows it has.
    pub(crate) fn len(&self) -> usize {
        self.cells.len()
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.v6 { "IPv6" } else { "IPv4" };
        let Self {
            from,
            to,
            transport,
            port,
            ..
        } = self;
        write!(f, "{from} -> {to} {transport:?} {port} over {family}")
    }
}
