//! What the rules cost the packets that they let through.
//!
//! `cargo bench --bench forward`, as root: two nodes as network namespaces with two pods each. One node has the table of a
//! large cluster (2 000 policies, 20 of the cluster), the other one a chain without rules; both track connections. First
//! packets, connections that are made and reset at once, those with a question and its answer between, and streams go through
//! one and the other in turns and on one processor, so that what else the machine does falls on both alike: what counts is the
//! median of the differences, or the ratio. Then the nodes change places, and the mean of both is told: where in memory a node
//! happens to be makes as much of a difference as a few rules. Each with policies alone, and with what pods send held to their
//! addresses and kept off the overlay; and first with the same on both nodes, which says how far the figures can be believed.
//! As a test it has a few packets only.

// What a bench cannot prepare has failed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::format_collect,
    clippy::format_push_string,
    reason = "nodes, pods and figures are small"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use ringfence::agent::nft::Socket;
use ringfence::netpol::{Snapshot, parse};
use ringfence::ruleset::{Interface, Options, Plan, Transaction};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, sockopt};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::{Value, json};

#[path = "../packets/cluster.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod cluster;
#[path = "../support/large.rs"]
mod large;
#[path = "../packets/namespace.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod namespace;
#[path = "../packets/probe.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod probe;
#[path = "../packets/sctp.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod sctp;
#[path = "../packets/serve.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod serve;

use cluster::{Cluster, Place, Pod};
use namespace::Namespace;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NODE: &str = "node0";
/// How many pods of the large cluster are on the node.
const LOCAL: usize = 110;
/// A client and a server on each of the two nodes.
const PODS: [[(&str, usize); 2]; 2] = [
    [("client0", 0), ("server0", 0)],
    [("client1", 1), ("server1", 1)],
];
const ECHO: u16 = 7;
const STREAM: u16 = 9;
/// Where a question is answered, one in each connection.
const ANSWER: u16 = 80;
const LONGEST: Duration = Duration::from_secs(2);

/// Connections are tracked, and nothing is decided.
const BARE: &str = "table inet bare { chain forward { type filter hook forward priority filter; policy accept; ct state established,related accept; }; }";

/// How often each thing is done.
struct Times {
    packets: usize,
    rounds: usize,
    /// How long one stream lasts.
    lasts: Duration,
}

/// A socket, and to whom it is to be connected.
type Dialer = (OwnedFd, SocketAddr);

/// A way from a client to a server of a node.
struct Way<'c> {
    node: &'c Namespace,
    client: &'c Pod,
    server: &'c Pod,
}

/// A cluster of so many pods, 110 of them on this node, and two more there that a policy lets talk, whose ends are among the pods
/// of all namespaces.
fn snapshot(way: &Way, pods: usize) -> Snapshot {
    let large = large::spread(pods, NODE, LOCAL);
    let here = here(way).into_iter();
    let here = here.map(|value| parse(&value).expect("valid").expect("of the model").object);
    large.chain(here).collect()
}

fn here(way: &Way) -> Vec<Value> {
    let mut objects = vec![json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench", "labels": {"team": "t1"}}
    })];
    let labels = |app: &str| json!({"app": app});
    for (name, pod) in [("client", way.client), ("server", way.server)] {
        let place = &pod.place;
        objects.push(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "bench", "labels": labels(name)},
            "spec": {"nodeName": NODE, "containers": [{"name": "main", "image": "main"}]},
            "status": {"phase": "Running", "podIP": place.v4, "podIPs": [{"ip": place.v4}, {"ip": place.v6}]},
        }));
    }
    let policy = |name: &str, spec: Value| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": "bench"}, "spec": spec,
        })
    };
    let ports = json!([{"port": ECHO, "protocol": "UDP"}, {"port": STREAM}, {"port": ANSWER}]);
    objects.push(policy(
        "default-deny",
        json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
    ));
    objects.push(policy(
        "client",
        json!({
            "podSelector": {"matchLabels": labels("client")}, "policyTypes": ["Egress"],
            "egress": [{"to": [{"namespaceSelector": {}}], "ports": ports}],
        }),
    ));
    objects.push(policy(
        "server",
        json!({
            "podSelector": {"matchLabels": labels("server")}, "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"namespaceSelector": {}}], "ports": ports}],
        }),
    ));
    objects
}

/// Behind which interface of the node the addresses of its two pods are, as its network plugins tell.
fn interfaces(way: &Way) -> BTreeMap<IpAddr, Interface> {
    let known = [way.client, way.server].into_iter().flat_map(|pod| {
        let port = Interface::parse(&pod.port).expect("a name of an interface");
        [false, true].map(|v6| (pod.place.address(v6), port.clone()))
    });
    known.collect()
}

/// Gives a node its table for so many pods in the cluster; how large it is, in words.
fn enforce(way: &Way, pods: usize, options: Options) -> String {
    let snapshot = snapshot(way, pods);
    let mut plan = Plan::of(options, &snapshot);
    plan.behind(interfaces(way));
    plan.advance(snapshot, &[]);
    let whole = plan.whole();
    way.apply(&Transaction::whole(&whole));
    let elements: usize = whole.sets.values().map(|set| set.elements.len()).sum();
    format!(
        "{pods} pods, {} of the node: {elements} elements in {} sets",
        plan.local_pods().len(),
        whole.sets.len()
    )
}

/// What is measured, each with its name.
fn variants() -> [(&'static str, Options); 2] {
    let alone = Options {
        own_sources: false,
        vxlan_ports: BTreeSet::new(),
        ..Options::new(NODE)
    };
    [
        ("policies alone", alone),
        ("with senders checked", Options::new(NODE)),
    ]
}

// === impl Way ===

impl<'c> Way<'c> {
    /// The one of a node.
    fn of(cluster: &'c Cluster, node: usize) -> Self {
        let [client, server] = PODS[node].map(|(name, _)| cluster.pod(name));
        Self {
            node: &cluster.node(node).namespace,
            client,
            server,
        }
    }

    fn apply(&self, transaction: &Transaction) {
        self.node.inside(|| {
            let mut socket = Socket::open().expect("a socket");
            socket.apply(transaction).expect("applied");
        });
    }

    fn at(&self, port: u16) -> SocketAddr {
        self.server.place.at(false, port)
    }

    fn inside<T: Send>(&self, call: impl FnOnce() -> T + Send) -> T {
        self.client.place.namespace.inside(call)
    }

    /// Sockets whose first packet has not been sent.
    fn sockets(&self, count: usize) -> Vec<UdpSocket> {
        self.inside(|| {
            let open = |_| {
                let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
                socket.connect(self.at(ECHO)).unwrap();
                socket.set_read_timeout(Some(LONGEST)).unwrap();
                socket
            };
            (0..count).map(open).collect()
        })
    }

    /// Sockets that are not connected yet to a port.
    fn dialers(&self, port: u16, count: usize) -> Vec<Dialer> {
        self.inside(|| {
            let open = |_| {
                let (family, kind) = (AddressFamily::INET, SocketType::STREAM);
                let socket = rustix::net::socket(family, kind, None).unwrap();
                // Reset, so that no port waits.
                sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
                for side in [sockopt::Timeout::Send, sockopt::Timeout::Recv] {
                    sockopt::set_socket_timeout(&socket, side, Some(LONGEST)).unwrap();
                }
                (socket, self.at(port))
            };
            (0..count).map(open).collect()
        })
    }

    /// How many bytes one stream carries in a time.
    fn stream(&self, lasts: Duration) -> usize {
        self.inside(|| {
            let mut stream =
                TcpStream::connect_timeout(&self.at(STREAM), LONGEST).expect("connected");
            let buffer = vec![0_u8; 128 * 1024];
            let begun = Instant::now();
            let mut sent = 0;
            while begun.elapsed() < lasts {
                sent += stream.write(&buffer).expect("sent");
            }
            sent
        })
    }
}

/// Answers datagrams and questions, and swallows streams, for as long as the bench runs.
fn serve(place: &Place) {
    let at = |port| place.at(false, port);
    let (echo, listener, questions) = place.namespace.inside(|| {
        (
            UdpSocket::bind(at(ECHO)).unwrap(),
            TcpListener::bind(at(STREAM)).unwrap(),
            TcpListener::bind(at(ANSWER)).unwrap(),
        )
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((length, from)) = echo.recv_from(&mut buffer) {
            let _ = echo.send_to(&buffer[..length], from);
        }
    });
    std::thread::spawn(move || {
        let mut buffer = vec![0; 128 * 1024];
        for mut stream in listener.incoming().flatten() {
            while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 16];
        for mut stream in questions.incoming().flatten() {
            if let Ok(length @ 1..) = stream.read(&mut buffer) {
                let _ = stream.write(&buffer[..length]);
            }
        }
    });
}

/// Keeps this thread and those that it starts on one processor: where a packet wakes another one, that is most of what is
/// measured.
fn stay() {
    let mut one = CpuSet::new();
    one.set(0);
    sched_setaffinity(None, &one).expect("the first processor");
}

/// From the first packet of a flow to its answer.
fn answered(socket: &UdpSocket) -> Duration {
    let mut buffer = [0; 16];
    let begun = Instant::now();
    socket.send(b"?").unwrap();
    socket.recv(&mut buffer).expect("an answer");
    begun.elapsed()
}

fn median<T: PartialOrd + Copy>(mut all: Vec<T>) -> T {
    all.sort_by(|a, b| a.partial_cmp(b).unwrap());
    all[all.len() / 2]
}

/// From the first packet of a connection to its reset.
fn connected((socket, to): Dialer) -> Duration {
    let begun = Instant::now();
    rustix::net::connect(&socket, &to).expect("connected");
    drop(socket);
    begun.elapsed()
}

/// From the first packet of a connection to its reset, with a question and its answer between.
fn asked((socket, to): Dialer) -> Duration {
    let mut buffer = [0; 16];
    let begun = Instant::now();
    rustix::net::connect(&socket, &to).expect("connected");
    rustix::net::send(&socket, b"?", SendFlags::NOSIGNAL).expect("sent");
    let answer = rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty());
    assert!(answer.is_ok_and(|(length, _)| length == 1), "no answer");
    drop(socket);
    begun.elapsed()
}

/// The median of what it takes with rules and without, and of the differences, in microseconds.
struct Paired {
    with: f64,
    without: f64,
    difference: f64,
}

impl Paired {
    /// One with rules and one without, again and again, in turns.
    fn of<S>(held: Vec<S>, bare: Vec<S>, takes: impl Fn(S) -> Duration) -> Self {
        let (mut with, mut without, mut differences) = (Vec::new(), Vec::new(), Vec::new());
        let micros = |socket| takes(socket).as_secs_f64() * 1e6;
        for (number, (held, bare)) in held.into_iter().zip(bare).enumerate() {
            let (one, other) = if number % 2 == 0 {
                let one = micros(held);
                (one, micros(bare))
            } else {
                let other = micros(bare);
                (micros(held), other)
            };
            with.push(one);
            without.push(other);
            differences.push(one - other);
        }
        Self {
            with: median(with),
            without: median(without),
            difference: median(differences),
        }
    }

    fn mean([one, other]: [&Self; 2]) -> Self {
        Self {
            with: f64::midpoint(one.with, other.with),
            without: f64::midpoint(one.without, other.without),
            difference: f64::midpoint(one.difference, other.difference),
        }
    }

    /// How many are done with rules in the time of one without.
    fn ratio(&self) -> f64 {
        self.without / (self.without + self.difference)
    }
}

/// What goes through with rules for each that goes through without.
fn ratio(rounds: usize, held: impl Fn() -> usize, bare: impl Fn() -> usize) -> f64 {
    let ratios = (0..rounds).map(|round| {
        if round % 2 == 0 {
            let one = held() as f64;
            one / bare() as f64
        } else {
            let other = bare() as f64;
            held() as f64 / other
        }
    });
    median(ratios.collect())
}

/// What is measured of one node with rules and one without.
struct Measured {
    /// A first packet and its answer.
    first: Paired,
    /// What takes longer, where it is asked for.
    more: Option<More>,
}

struct More {
    /// Connections that are made and reset.
    connections: Paired,
    /// Connections with a question and its answer.
    asked: Paired,
    /// The bytes of a stream for each byte without rules.
    bytes: f64,
}

// === impl Measured ===

impl Measured {
    fn of(held: &Way, bare: &Way, times: &Times, wants_more: bool) -> Self {
        let count = times.packets;
        let first = Paired::of(held.sockets(count), bare.sockets(count), |socket| {
            answered(&socket)
        });
        let dialed = |port, takes: fn(Dialer) -> Duration| {
            Paired::of(held.dialers(port, count), bare.dialers(port, count), takes)
        };
        let stream = |way: &Way| way.stream(times.lasts);
        let more = wants_more.then(|| More {
            connections: dialed(STREAM, connected),
            asked: dialed(ANSWER, asked),
            bytes: ratio(times.rounds, || stream(held), || stream(bare)),
        });
        Self { first, more }
    }

    /// Tells the mean of two.
    fn tell(name: &str, both: &[Self; 2]) {
        let first = Paired::mean(both.each_ref().map(|it| &it.first));
        println!(
            "  {name}: first packet and its answer {:.2} us with rules, {:.2} us without; median difference {:.2} us",
            first.with, first.without, first.difference
        );
        if let [Some(one), Some(other)] = both.each_ref().map(|it| it.more.as_ref()) {
            let connections = [&one.connections, &other.connections];
            for (name, both) in [
                ("connections", connections),
                ("with a question and its answer", [&one.asked, &other.asked]),
            ] {
                let (mean, [one, other]) = (Paired::mean(both), both.map(Paired::ratio));
                println!(
                    "  {name}: {:.2} us each with rules, {:.2} us without, median difference {:.2} us: x{:.3} (x{one:.3} and x{other:.3})",
                    mean.with,
                    mean.without,
                    mean.difference,
                    mean.ratio()
                );
            }
            println!(
                "  a stream's bytes: x{:.3}",
                f64::midpoint(one.bytes, other.bytes)
            );
        }
    }
}

/// Measures with rules on one node, and then on the other one; gives the difference that they make to a first packet, in microseconds.
fn measure(
    name: &str,
    ways: &[Way; 2],
    times: &Times,
    wants_more: bool,
    mut rules: impl FnMut(&Way),
) -> f64 {
    let [here, there] = ways;
    let both = [(here, there), (there, here)].map(|(held, bare)| {
        bare.node.nft(BARE);
        rules(held);
        let measured = Measured::of(held, bare, times, wants_more);
        for way in ways {
            way.node.nft("flush ruleset");
        }
        measured
    });
    Measured::tell(name, &both);
    Paired::mean(both.each_ref().map(|it| &it.first)).difference
}

fn main() {
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let (sizes, times): (&[usize], Times) = if is_bench {
        let times = Times {
            packets: 8_000,
            rounds: 11,
            lasts: Duration::from_millis(500),
        };
        (&[0, 1_000, 10_000, 100_000], times)
    } else {
        let times = Times {
            packets: 20,
            rounds: 1,
            lasts: Duration::from_millis(20),
        };
        (&[1_000], times)
    };
    let mut cluster = Cluster::new(2);
    cluster.add(&PODS.concat());
    stay();
    let ways = [0, 1].map(|node| Way::of(&cluster, node));
    for way in &ways {
        serve(&way.server.place);
    }
    measure("the same on both nodes", &ways, &times, true, |way| {
        way.node.nft(BARE);
    });
    let mut differences = Vec::new();
    for pods in sizes {
        let wants_more = *pods == 10_000 || !is_bench;
        differences.push(variants().map(|(name, options)| {
            let mut size = String::new();
            let rules = |way: &Way| size = enforce(way, *pods, options.clone());
            let difference = measure(name, &ways, &times, wants_more, rules);
            println!("    ({size})");
            difference
        }));
    }
    if let [_, first, .., last] = differences[..] {
        println!(
            "from a thousand pods to the most: {:+.2} us, {:+.2} us",
            last[0] - first[0],
            last[1] - first[1]
        );
    }
}
