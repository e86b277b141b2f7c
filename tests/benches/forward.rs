//! What the rules cost the packets that they let through.
//!
//! `cargo bench --bench forward`, as root: two nodes as network namespaces with two pods each. One node has the table of a
//! large cluster (2 000 policies, 20 of the cluster), the other one a chain without rules; both track connections. First packets,
//! connections and streams go through one and the other in turns and on one processor, so that what else the machine does falls on both alike:
//! what counts is the median of the differences, or the ratio. Each with policies alone, and with what pods send held to their
//! addresses and kept off the overlay; and first with the same on both nodes, which says how far the figures can be believed. As a
//! test it has a few packets only.

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
use rustix::net::{AddressFamily, SocketType, sockopt};
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

use cluster::{Cluster, Place};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NODE: &str = "node0";
/// How many pods of the large cluster are on the node.
const LOCAL: usize = 110;
/// A client and a server on the node with rules, and on the one without.
const PODS: [(&str, usize); 4] = [
    ("client", 0),
    ("server", 0),
    ("bare-client", 1),
    ("bare-server", 1),
];
const ECHO: u16 = 7;
const STREAM: u16 = 9;
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

/// A way from a client to a server.
struct Way<'c> {
    client: &'c Place,
    server: &'c Place,
}

/// A cluster of so many pods, 110 of them on this node, and two more there that a policy lets talk, whose ends are among the pods
/// of all namespaces.
fn snapshot(cluster: &Cluster, pods: usize) -> Snapshot {
    let large = large::spread(pods, NODE, LOCAL);
    let here = here(cluster).into_iter();
    let here = here.map(|value| parse(&value).expect("valid").expect("of the model").object);
    large.chain(here).collect()
}

fn here(cluster: &Cluster) -> Vec<Value> {
    let mut objects = vec![json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench", "labels": {"team": "t1"}}
    })];
    let labels = |app: &str| json!({"app": app});
    for name in ["client", "server"] {
        let place = &cluster.pod(name).place;
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
    let ports = json!([{"port": ECHO, "protocol": "UDP"}, {"port": STREAM}]);
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
fn interfaces(cluster: &Cluster) -> BTreeMap<IpAddr, Interface> {
    let pods = ["client", "server"].map(|name| cluster.pod(name));
    let known = pods.into_iter().flat_map(|pod| {
        let port = Interface::parse(&pod.port).expect("a name of an interface");
        [false, true].map(|v6| (pod.place.address(v6), port.clone()))
    });
    known.collect()
}

/// The node's table for so many pods in the cluster; it says how large it is.
fn enforce(cluster: &Cluster, pods: usize, options: Options) {
    let snapshot = snapshot(cluster, pods);
    let mut plan = Plan::of(options, &snapshot);
    plan.behind(interfaces(cluster));
    plan.advance(snapshot, &[]);
    let whole = plan.whole();
    let elements: usize = whole.sets.values().map(|set| set.elements.len()).sum();
    println!(
        "{pods} pods, {} of the node: {elements} elements in {} sets",
        plan.local_pods().len(),
        whole.sets.len()
    );
    cluster.node(0).namespace.inside(|| {
        let mut socket = Socket::open().expect("a socket");
        socket.apply(&Transaction::removal()).expect("removed");
        socket.apply(&Transaction::whole(&whole)).expect("applied");
    });
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

impl Way<'_> {
    fn at(&self, port: u16) -> SocketAddr {
        self.server.at(false, port)
    }

    /// Sockets whose first packet has not been sent.
    fn sockets(&self, count: usize) -> Vec<UdpSocket> {
        self.client.namespace.inside(|| {
            let open = |_| {
                let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
                socket.connect(self.at(ECHO)).unwrap();
                socket.set_read_timeout(Some(LONGEST)).unwrap();
                socket
            };
            (0..count).map(open).collect()
        })
    }

    /// Sockets that are not connected.
    fn dialers(&self, count: usize) -> Vec<Dialer> {
        self.client.namespace.inside(|| {
            let open = |_| {
                let (family, kind) = (AddressFamily::INET, SocketType::STREAM);
                let socket = rustix::net::socket(family, kind, None).unwrap();
                // Reset, so that no port waits.
                sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
                sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(LONGEST))
                    .unwrap();
                (socket, self.at(STREAM))
            };
            (0..count).map(open).collect()
        })
    }

    /// How many bytes one stream carries in a time.
    fn stream(&self, lasts: Duration) -> usize {
        self.client.namespace.inside(|| {
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

/// Answers datagrams and swallows streams, for as long as the bench runs.
fn serve(place: &Place) {
    let at = |port| place.at(false, port);
    let (echo, listener) = place.namespace.inside(|| {
        (
            UdpSocket::bind(at(ECHO)).unwrap(),
            TcpListener::bind(at(STREAM)).unwrap(),
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
}

/// What the rules take of a first packet and its answer, in microseconds.
fn first_packets(name: &str, held: &Way, bare: &Way, count: usize) -> f64 {
    let took = Paired::of(held.sockets(count), bare.sockets(count), |socket| {
        answered(&socket)
    });
    println!(
        "  {name}: first packet and its answer {:.2} us with rules, {:.2} us without; median difference {:.2} us",
        took.with, took.without, took.difference
    );
    took.difference
}

/// How many connections are made and reset with rules in the time of one without.
fn connections(held: &Way, bare: &Way, count: usize) {
    let took = Paired::of(held.dialers(count), bare.dialers(count), connected);
    println!(
        "  connections: {:.2} us each with rules, {:.2} us without, median difference {:.2} us: x{:.3}",
        took.with,
        took.without,
        took.difference,
        took.without / (took.without + took.difference)
    );
}

/// What goes through with rules for each that goes through without.
fn ratio(name: &str, rounds: usize, held: impl Fn() -> usize, bare: impl Fn() -> usize) {
    let ratios = (0..rounds).map(|round| {
        if round % 2 == 0 {
            let one = held() as f64;
            one / bare() as f64
        } else {
            let other = bare() as f64;
            held() as f64 / other
        }
    });
    println!("  {name}: x{:.3}", median(ratios.collect()));
}

fn main() {
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let (sizes, times): (&[usize], Times) = if is_bench {
        let times = Times {
            packets: 8_000,
            rounds: 21,
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
    cluster.add(&PODS);
    stay();
    cluster.node(1).namespace.nft(BARE);
    let place = |name| &cluster.pod(name).place;
    let held = Way {
        client: place("client"),
        server: place("server"),
    };
    let bare = Way {
        client: place("bare-client"),
        server: place("bare-server"),
    };
    serve(held.server);
    serve(bare.server);
    cluster.node(0).namespace.nft(BARE);
    first_packets("the same on both nodes", &held, &bare, times.packets);
    connections(&held, &bare, times.packets);
    cluster.node(0).namespace.nft("delete table inet bare");
    let mut differences = Vec::new();
    for pods in sizes {
        differences.push(variants().map(|(name, options)| {
            enforce(&cluster, *pods, options);
            let difference = first_packets(name, &held, &bare, times.packets);
            if *pods == 10_000 || !is_bench {
                connections(&held, &bare, times.packets);
                let lasts = times.lasts;
                ratio(
                    "a stream's bytes",
                    times.rounds,
                    || held.stream(lasts),
                    || bare.stream(lasts),
                );
            }
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
