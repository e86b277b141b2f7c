//! A cluster without Kubernetes: nodes with a bridge each, pods behind veths on it, and one more bridge that joins the
//! nodes, each of which knows the way to the others' pods. IPv4 and IPv6. A policy has to come from the test.
//!
//! Node `n` is `172.31.0.(n+1)` and `fd00:31::(n+1)`; its pods are `10.244.n.i` and `fd00:10:244:n::i`, `i` from 2, behind
//! the gateways `10.244.n.1` and `fd00:10:244:n::1` on the bridge `cni0`. The namespace that joins the nodes is the world
//! outside: `172.31.0.254`, `fd00:31::fe`, and whatever addresses a test gives it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::namespace::Namespace;
use crate::probe::{self, Outcome, Probe, Transport};
use crate::serve::Serving;

/// A namespace with addresses: a pod, a node, or the world outside.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// What the test calls it.
    pub(crate) name: String,
    /// Where it is.
    pub(crate) namespace: Arc<Namespace>,
    /// Its IPv4 address.
    pub(crate) v4: Ipv4Addr,
    /// Its IPv6 address.
    pub(crate) v6: Ipv6Addr,
}

/// A pod.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    /// Its namespace and addresses.
    pub(crate) place: Place,
    /// The number of its node.
    pub(crate) node: usize,
    /// The last number of its addresses.
    pub(crate) index: u16,
    /// Its end of the veth on the node's bridge.
    pub(crate) port: String,
    /// The address of its own interface, `eth0`.
    pub(crate) mac: String,
}

/// Nodes and pods; gone when dropped.
pub(crate) struct Cluster {
    outside: Place,
    nodes: Vec<Place>,
    pods: BTreeMap<String, Pod>,
    /// How many addresses each node has given out.
    given: Vec<u16>,
    serving: Mutex<BTreeMap<String, Serving>>,
}

/// For all: addresses work at once, without a search for duplicates; echoes need no privileges.
const ALL: &[(&str, &str)] = &[
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/ping_group_range", "0 0"),
];

/// A node forwards, and what its bridge carries meets its rules.
const NODE: &[(&str, &str)] = &[
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    ("bridge/bridge-nf-call-iptables", "1"),
    ("bridge/bridge-nf-call-ip6tables", "1"),
];

/// The world outside only carries packets.
const OUTSIDE: &[(&str, &str)] = &[
    ("bridge/bridge-nf-call-iptables", "0"),
    ("bridge/bridge-nf-call-ip6tables", "0"),
];

/// The number of the first interface that is a port of a bridge. The two ends of a veth must not have the same number in
/// their namespaces: the kernel takes such a one for a device of no urgency, and looks at its carrier up to a second late.
const FIRST_PORT: usize = 1000;

/// How long new places may take until they answer.
const READY: Duration = Duration::from_secs(10);

// === impl Cluster ===

impl Cluster {
    /// So many nodes, without pods.
    pub(crate) fn new(nodes: usize) -> Self {
        let names: Vec<String> = std::iter::once("outside".to_owned())
            .chain((0..nodes).map(|number| format!("node{number}")))
            .collect();
        let mut namespaces = Namespace::make(&names).into_iter().map(Arc::new);
        let outside = Place {
            name: "outside".to_owned(),
            namespace: namespaces.next().unwrap(),
            v4: Ipv4Addr::new(172, 31, 0, 254),
            v6: Ipv6Addr::new(0xfd00, 0x31, 0, 0, 0, 0, 0, 0xfe),
        };
        let nodes: Vec<Place> = namespaces
            .zip(0u8..)
            .map(|(namespace, number)| Place {
                name: format!("node{number}"),
                namespace,
                v4: Ipv4Addr::new(172, 31, 0, number + 1),
                v6: Ipv6Addr::new(0xfd00, 0x31, 0, 0, 0, 0, 0, u16::from(number) + 1),
            })
            .collect();
        let cluster = Self {
            outside,
            given: vec![0; nodes.len()],
            nodes,
            pods: BTreeMap::new(),
            serving: Mutex::default(),
        };
        cluster.join();
        // Also over the way that the first packets of the tests take.
        for from in cluster.nodes.iter().chain([&cluster.outside]) {
            ready(from, cluster.nodes.iter());
        }
        cluster
    }

    fn join(&self) {
        self.outside.namespace.set(ALL);
        self.outside.namespace.set(OUTSIDE);
        let mut lines = String::from("link set lo up\nlink add br0 type bridge mcast_snooping 0\n");
        for (number, node) in self.nodes.iter().enumerate() {
            let name = node.namespace.name();
            lines += &format!(
                "link add n{number} index {} type veth peer name eth0 netns {name}\nlink set n{number} master br0 up\n",
                FIRST_PORT + number
            );
        }
        lines += "link set br0 up\n";
        lines += &format!(
            "addr add {}/24 dev br0\naddr add {}/64 dev br0 nodad\n",
            self.outside.v4, self.outside.v6
        );
        for (number, node) in self.nodes.iter().enumerate() {
            lines += &ways(number, node);
        }
        thread::scope(|scope| {
            for (number, node) in self.nodes.iter().enumerate() {
                scope.spawn(move || {
                    node.namespace.set(ALL);
                    node.namespace.set(NODE);
                    node.namespace.ip(&format!(
                        "link set lo up\nlink add cni0 type bridge mcast_snooping 0\nlink set cni0 up\n\
                         addr add 10.244.{number}.1/24 dev cni0\naddr add fd00:10:244:{number:x}::1/64 dev cni0 nodad\n"
                    ));
                });
            }
            scope.spawn(|| {
                self.outside.namespace.ip(&lines);
                hurry(&self.outside.namespace, "br0");
            });
        });
        thread::scope(|scope| {
            for (number, node) in self.nodes.iter().enumerate() {
                scope.spawn(move || {
                    hurry(&node.namespace, "cni0");
                    hurry(&node.namespace, "eth0");
                    let mut lines = format!(
                        "addr add {}/24 dev eth0\naddr add {}/64 dev eth0 nodad\nlink set eth0 up\n",
                        node.v4, node.v6
                    );
                    lines += &format!(
                        "route add default via {}\nroute add ::/0 via {}\n",
                        self.outside.v4, self.outside.v6
                    );
                    for (other, place) in self.nodes.iter().enumerate() {
                        if other != number {
                            lines += &ways(other, place);
                        }
                    }
                    node.namespace.ip(&lines);
                });
            }
        });
    }

    /// Adds pods, each with a name and the number of its node.
    pub(crate) fn add(&mut self, pods: &[(&str, usize)]) -> Vec<Pod> {
        let pods: Vec<(&str, usize, u16)> = pods
            .iter()
            .map(|(name, node)| {
                self.given[*node] += 1;
                (*name, *node, self.given[*node] + 1)
            })
            .collect();
        self.add_with(&pods)
    }

    /// Adds pods whose last number of the addresses is said, too, such as one that is used again.
    pub(crate) fn add_with(&mut self, pods: &[(&str, usize, u16)]) -> Vec<Pod> {
        let names: Vec<String> = pods.iter().map(|(name, ..)| (*name).to_owned()).collect();
        let namespaces = Namespace::make(&names);
        let made: Vec<Pod> = pods
            .iter()
            .zip(namespaces)
            .map(|((name, node, index), namespace)| Pod {
                place: Place {
                    name: (*name).to_owned(),
                    namespace: Arc::new(namespace),
                    v4: Ipv4Addr::from(
                        u32::from_be_bytes([10, 244, 0, 0])
                            + ((*node as u32) << 8)
                            + u32::from(*index),
                    ),
                    v6: Ipv6Addr::new(0xfd00, 0x10, 0x244, *node as u16, 0, 0, 0, *index),
                },
                node: *node,
                index: *index,
                port: format!("veth{index}"),
                mac: format!("0a:58:0a:f4:{node:02x}:{index:02x}"),
            })
            .collect();
        thread::scope(|scope| {
            for (number, node) in self.nodes.iter().enumerate() {
                let here: Vec<&Pod> = made.iter().filter(|pod| pod.node == number).collect();
                if !here.is_empty() {
                    scope.spawn(move || {
                        for pod in &here {
                            pod.place.namespace.set(ALL);
                        }
                        node.namespace
                            .ip(&here.iter().map(|pod| pod.plug()).collect::<String>());
                    });
                }
            }
        });
        // More at once than there are processors is slower.
        for some in made.chunks(4) {
            thread::scope(|scope| {
                for pod in some {
                    scope.spawn(|| {
                        hurry(&pod.place.namespace, "eth0");
                        pod.place.namespace.ip(&pod.start());
                    });
                }
            });
        }
        for (number, node) in self.nodes.iter().enumerate() {
            let here = made.iter().filter(|pod| pod.node == number);
            ready(node, here.map(|pod| &pod.place));
        }
        for pod in &made {
            let known = self.pods.insert(pod.place.name.clone(), pod.clone());
            assert!(known.is_none(), "two pods named {}", pod.place.name);
        }
        made
    }

    /// Removes pods, their interfaces first.
    pub(crate) fn remove(&mut self, names: &[&str]) {
        let pods: Vec<Pod> = names
            .iter()
            .map(|name| self.pods.remove(*name).expect("a pod of that name"))
            .collect();
        for name in names {
            self.serving.lock().unwrap().remove(*name);
        }
        for pod in &pods {
            let namespace = &self.nodes[pod.node].namespace;
            namespace.ip(&format!("link del {}\n", pod.port));
        }
        Namespace::remove(pods.iter().map(|pod| &*pod.place.namespace));
    }

    /// A node by its number.
    pub(crate) fn node(&self, number: usize) -> &Place {
        &self.nodes[number]
    }

    /// The addresses of a node's bridge.
    pub(crate) fn gateways(number: u8) -> (Ipv4Addr, Ipv6Addr) {
        let v6 = Ipv6Addr::new(0xfd00, 0x10, 0x244, number.into(), 0, 0, 0, 1);
        (Ipv4Addr::new(10, 244, number, 1), v6)
    }

    /// The world outside of the cluster.
    pub(crate) fn outside(&self) -> &Place {
        &self.outside
    }

    /// A pod by its name.
    pub(crate) fn pod(&self, name: &str) -> &Pod {
        &self.pods[name]
    }

    /// The pods, by name.
    pub(crate) fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values()
    }

    /// The pods as places, by name.
    pub(crate) fn places(&self) -> Vec<Place> {
        self.pods().map(|pod| pod.place.clone()).collect()
    }

    /// Makes a place answer at these ports, over TCP, UDP and SCTP, for as long as it is there.
    pub(crate) fn serve(&self, place: &Place, ports: &[u16]) {
        let serving = Serving::start(place, ports);
        let name = place.name.clone();
        self.serving.lock().unwrap().insert(name, serving);
    }

    /// Makes every pod answer at these ports.
    pub(crate) fn serve_all(&self, ports: &[u16]) {
        for place in self.places() {
            self.serve(&place, ports);
        }
    }

    /// Makes what listens outside of the namespaces, such as an API server on `127.0.0.1`, answer at the same port of
    /// `127.0.0.1` inside a node.
    pub(crate) fn let_in(&self, node: usize, target: SocketAddr) -> Arc<Notify> {
        self.nodes[node].namespace.let_in(target)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let places = self.nodes.iter().chain([&self.outside]);
        let all = places.chain(self.pods.values().map(|pod| &pod.place));
        Namespace::remove(all.map(|place| &*place.namespace));
    }
}

// === impl Place ===

impl Place {
    /// Its address of one family.
    pub(crate) fn address(&self, v6: bool) -> IpAddr {
        if v6 { self.v6.into() } else { self.v4.into() }
    }

    /// A port at its address of one family.
    pub(crate) fn at(&self, v6: bool, port: u16) -> SocketAddr {
        SocketAddr::new(self.address(v6), port)
    }
}

// === impl Pod ===

impl Pod {
    fn plug(&self) -> String {
        let Self {
            port,
            mac,
            place,
            index,
            ..
        } = self;
        let number = FIRST_PORT + usize::from(*index);
        let name = place.namespace.name();
        format!(
            "link add {port} index {number} type veth peer name eth0 address {mac} netns {name}\nlink set {port} master cni0 up\n"
        )
    }

    fn start(&self) -> String {
        let Place { v4, v6, .. } = self.place;
        let number = self.node;
        format!(
            "link set lo up\nlink set eth0 up\naddr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0 nodad\n\
             route add default via 10.244.{number}.1\nroute add ::/0 via fd00:10:244:{number:x}::1\n"
        )
    }
}

/// Waits until places answer another one that a rule does not keep from them.
fn ready<'a>(from: &Place, places: impl Iterator<Item = &'a Place>) {
    let mut asked: Vec<Probe> = places
        .flat_map(|place| [false, true].map(|v6| place.at(v6, 0)))
        .map(|to| Probe {
            from: from.clone(),
            to,
            transport: Transport::Icmp,
        })
        .collect();
    let begun = Instant::now();
    while !asked.is_empty() {
        assert!(begun.elapsed() < READY, "no answer from {asked:?}");
        let outcomes = probe::ask_within(&asked, Duration::from_millis(30));
        let mut outcomes = outcomes.into_iter();
        asked.retain(|_| outcomes.next() != Some(Outcome::Answered));
    }
}

/// The ways to a node's pods.
fn ways(number: usize, node: &Place) -> String {
    format!(
        "route add 10.244.{number}.0/24 via {}\nroute add fd00:10:244:{number:x}::/64 via {}\n",
        node.v4, node.v6
    )
}

/// A neighbour that was asked for before it was up is asked for again soon, not in a second.
fn hurry(namespace: &Namespace, interface: &str) {
    let keys = ["ipv4", "ipv6"].map(|family| {
        ["retrans_time_ms", "mcast_solicit"].map(|key| format!("{family}/neigh/{interface}/{key}"))
    });
    let values: Vec<(&str, &str)> = keys.iter().flatten().map(|key| (&**key, "20")).collect();
    namespace.set(&values);
}
