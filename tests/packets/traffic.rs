//! Traffic that never ends: connections opened all the time, datagrams, and long exchanges in which either side sends. What
//! became of each attempt is kept.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::capture::Tuple;
use crate::cluster::Pod;
use crate::connection::{Connection, Exchange, Side};

/// What is sent from one pod to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A connection for each attempt, which is answered.
    Connections,
    /// A socket for each attempt, whose datagram is answered.
    Datagrams,
    /// One connection for as long as it lasts; the sides take turns at random.
    Connection,
    /// One pair of sockets for good; the sides take turns.
    Exchange,
}

/// One line of traffic.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) kind: Kind,
    pub(crate) from: Pod,
    pub(crate) to: Pod,
    pub(crate) v6: bool,
    pub(crate) port: u16,
}

/// Something was sent, again and again for about a second, and an answer came or not.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) line: usize,
    pub(crate) span: (Instant, Instant),
    pub(crate) passed: bool,
}

/// Traffic that is on its way.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    attempts: Arc<Mutex<Vec<Attempt>>>,
    threads: Vec<JoinHandle<()>>,
}

/// How long an answer is waited for until it is tried again, and how often it is tried.
const TRY: Duration = Duration::from_millis(250);
const TRIES: u32 = 4;
/// The pause after what passed, and after what did not.
const PASSED: Duration = Duration::from_millis(120);
const FAILED: Duration = Duration::from_millis(20);

// === impl Traffic ===

impl Traffic {
    pub(crate) fn start(lines: &[Line]) -> Self {
        let (stop, attempts) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let threads = lines.iter().cloned().enumerate().map(|(number, line)| {
            let (stop, attempts) = (Arc::clone(&stop), Arc::clone(&attempts));
            std::thread::spawn(move || {
                let done = |span, passed| keep(&attempts, number, span, passed);
                line.send(&stop, done);
            })
        });
        Self {
            threads: threads.collect(),
            stop,
            attempts,
        }
    }

    /// Ends it, and gives what became of it.
    pub(crate) fn stop(self) -> Vec<Attempt> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        std::mem::take(&mut self.attempts.lock().unwrap())
    }
}

fn keep(attempts: &Mutex<Vec<Attempt>>, line: usize, span: (Instant, Instant), passed: bool) {
    let attempt = Attempt { line, span, passed };
    attempts.lock().unwrap().push(attempt);
    std::thread::sleep(if passed { PASSED } else { FAILED });
}

// === impl Line ===

impl Line {
    /// The flow as policies see it; the client's port does not matter.
    pub(crate) fn flow(&self) -> Tuple {
        Tuple {
            from: self.from.place.address(self.v6),
            to: self.to.place.address(self.v6),
            protocol: match self.kind {
                Kind::Connections | Kind::Connection => 6,
                Kind::Datagrams | Kind::Exchange => 17,
            },
            from_port: 0,
            to_port: self.port,
        }
    }

    fn send(&self, stop: &AtomicBool, done: impl Fn((Instant, Instant), bool)) {
        let goes_on = || !stop.load(Ordering::Relaxed);
        let timed = |attempt: &mut dyn FnMut() -> bool| {
            let begun = Instant::now();
            let passed = attempt();
            done((begun, Instant::now()), passed);
            passed
        };
        let to = self.to.place.at(self.v6, self.port);
        let (from, server) = (&self.from.place, &self.to.place);
        match self.kind {
            Kind::Connections => {
                from.namespace.enter();
                while goes_on() {
                    timed(&mut || (0..TRIES).any(|_| connects(to)));
                }
            }
            Kind::Datagrams => {
                from.namespace.enter();
                while goes_on() {
                    timed(&mut || is_echoed(to));
                }
            }
            Kind::Connection => {
                while goes_on() {
                    let mut opened = None;
                    timed(&mut || {
                        opened = Connection::open(from, server, self.v6, self.port).ok();
                        opened.is_some()
                    });
                    let Some(mut connection) = opened else {
                        continue;
                    };
                    let mut turn = 0_u32;
                    let mut passes = || {
                        // Now one side alone, now the other, now in turns.
                        turn += 1;
                        let side = if (turn / 8).is_multiple_of(2) == turn.is_multiple_of(3) {
                            Side::Client
                        } else {
                            Side::Server
                        };
                        connection.passes(side, TRY * TRIES)
                    };
                    while goes_on() && timed(&mut passes) {}
                }
            }
            Kind::Exchange => {
                let mut exchange = Exchange::open(from, server, self.v6, self.port).unwrap();
                let mut is_heard = false;
                while goes_on() {
                    let mut both = || {
                        (0..TRIES).any(|_| {
                            // The server may speak first once it knows to whom.
                            let first = is_heard && exchange.passes(Side::Server, TRY / 2);
                            is_heard |= exchange.passes(Side::Client, TRY / 2);
                            is_heard && (first || exchange.passes(Side::Server, TRY / 2))
                        })
                    };
                    timed(&mut both);
                }
            }
        }
    }
}

fn connects(to: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&to, TRY) else {
        return false;
    };
    let _ = stream.set_read_timeout(Some(TRY));
    stream.write_all(b"x").is_ok() && stream.read_exact(&mut [0]).is_ok()
}

fn is_echoed(to: SocketAddr) -> bool {
    let any: SocketAddr = if to.is_ipv6() {
        "[::]:0".parse().unwrap()
    } else {
        "0.0.0.0:0".parse().unwrap()
    };
    let socket = UdpSocket::bind(any).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(TRY)).unwrap();
    (0..TRIES).any(|_| socket.send(b"x").is_ok() && socket.recv(&mut [0; 8]).is_ok())
}
