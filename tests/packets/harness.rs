//! The harness itself: without a policy everything reaches everything, and a rule written by hand stops what it says and
//! nothing else.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::capture::Capture;
use crate::cluster::Cluster;
use crate::connection::{Connection, Exchange, Side};
use crate::namespace::Namespace;
use crate::probe::{self, Outcome, Table, Transport};

const PORTS: [u16; 4] = [80, 81, 443, 5432];
const SHORT: Duration = Duration::from_millis(300);

fn flows() -> Vec<(Transport, u16)> {
    let transports = [Transport::Tcp, Transport::Udp, Transport::Sctp];
    let all = transports.map(|transport| PORTS.map(|port| (transport, port)));
    all.into_iter()
        .flatten()
        .chain([(Transport::Icmp, 0)])
        .collect()
}

/// Three namespaces of three pods, on two nodes.
fn nine() -> Cluster {
    let mut cluster = Cluster::new(2);
    let names = [
        "x-a", "x-b", "x-c", "y-a", "y-b", "y-c", "z-a", "z-b", "z-c",
    ];
    let pods: Vec<(&str, usize)> = names
        .iter()
        .enumerate()
        .map(|(at, name)| (*name, at % 2))
        .collect();
    cluster.add(&pods);
    cluster.serve_all(&PORTS);
    cluster
}

#[test]
fn without_a_policy_everything_reaches_everything() {
    let begun = Instant::now();
    let cluster = nine();
    let made = begun.elapsed();
    let begun = Instant::now();
    let table = Table::ask(&cluster.places(), &flows(), &[false, true]);
    let asked = begun.elapsed();
    assert_eq!(table.len(), 9 * 9 * 13 * 2);
    assert_eq!(table.wrong(|_| true), [""; 0]);
    println!(
        "9 pods on 2 nodes in {made:?}, {} flows in {asked:?}",
        table.len()
    );
}

#[test]
fn a_rule_by_hand_stops_what_it_says_and_nothing_else() {
    let cluster = nine();
    let [to4, to6] = [false, true].map(|v6| cluster.pod("x-a").place.address(v6));
    let [from4, from6] = [false, true].map(|v6| cluster.pod("z-c").place.address(v6));
    // x-a, z-c and y-b are on the first node; x-b is on the other.
    for node in 0..2 {
        cluster.node(node).namespace.nft(&format!(
            "table inet byhand {{ chain forward {{ type filter hook forward priority 0;
                ct state established,related accept
                ip daddr {to4} meta l4proto tcp th dport 81 drop
                ip6 daddr {to6} meta l4proto {{ udp, sctp }} th dport 443 drop
                ip saddr {from4} meta l4proto {{ sctp, icmp }} drop
                ip6 saddr {from6} ip6 nexthdr ipv6-icmp icmpv6 type echo-request drop
            }}
            }}"
        ));
    }
    let table = Table::ask(&cluster.places(), &flows(), &[false, true]);
    let wrong = table.wrong(|cell| {
        let denied = match (cell.v6, cell.transport) {
            (false, Transport::Tcp) => cell.to == "x-a" && cell.port == 81,
            (false, Transport::Icmp | Transport::Sctp) | (true, Transport::Icmp) => {
                cell.from == "z-c"
            }
            (true, Transport::Udp | Transport::Sctp) => cell.to == "x-a" && cell.port == 443,
            _ => false,
        };
        !denied || cell.from == cell.to
    });
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn who_listens_nowhere_refuses_and_nodes_and_the_world_outside_are_places_too() {
    let mut cluster = Cluster::new(2);
    cluster.add(&[("a", 0), ("b", 1)]);
    cluster.serve_all(&[80]);
    cluster.serve(cluster.outside(), &[80]);
    cluster.serve(cluster.node(0), &[8080]);
    let [a, b] = ["a", "b"].map(|name| cluster.pod(name).place.clone());
    for v6 in [false, true] {
        for transport in [Transport::Tcp, Transport::Udp, Transport::Sctp] {
            let outcome = probe::ask_one(&a, b.at(v6, 81), transport);
            assert_eq!(outcome, Outcome::Refused, "{transport:?} {v6}");
            for (from, to) in [
                (cluster.node(0), b.at(v6, 80)),
                (cluster.node(0), a.at(v6, 80)),
                (&b, cluster.node(0).at(v6, 8080)),
                (&a, cluster.node(0).at(v6, 8080)),
                (&a, cluster.outside().at(v6, 80)),
                (cluster.outside(), b.at(v6, 80)),
            ] {
                let outcome = probe::ask_one(from, to, transport);
                assert_eq!(
                    outcome,
                    Outcome::Answered,
                    "{} -> {to} {transport:?}",
                    from.name
                );
            }
        }
    }
    cluster.node(1).namespace.nft(
        "table inet byhand { chain forward { type filter hook forward priority 0;
            tcp dport 80 reject with tcp reset
            udp dport 80 reject
        }
        }",
    );
    for transport in [Transport::Tcp, Transport::Udp] {
        assert_eq!(
            probe::ask_one(&a, b.at(false, 80), transport),
            Outcome::Refused
        );
        assert_eq!(
            probe::ask_one(&a, b.at(true, 80), transport),
            Outcome::Refused
        );
    }
}

#[test]
fn open_connections_are_heard_from_both_sides_until_a_rule_cuts_them() {
    let mut cluster = Cluster::new(1);
    cluster.add(&[("a", 0), ("b", 0)]);
    let [a, b] = ["a", "b"].map(|name| cluster.pod(name).place.clone());
    for v6 in [false, true] {
        let mut connection = Connection::open(&a, &b, v6, 5000).unwrap();
        let mut exchange = Exchange::open(&a, &b, v6, 5000).unwrap();
        for side in [Side::Client, Side::Server, Side::Client] {
            assert!(connection.passes(side, SHORT));
            assert!(exchange.passes(side, SHORT));
        }
        assert_eq!(connection.cut(Side::Client, SHORT, SHORT), None);
        // Only what b sends is dropped.
        let (family, address) = if v6 {
            ("ip6", b.address(true))
        } else {
            ("ip", b.address(false))
        };
        cluster.node(0).namespace.nft(&format!(
            "table inet byhand {{ chain forward {{ type filter hook forward priority 0; {family} saddr {address} drop; }}\n}}"
        ));
        assert!(connection.passes(Side::Client, SHORT));
        assert!(exchange.passes(Side::Client, SHORT));
        assert!(!connection.passes(Side::Server, SHORT));
        assert!(!exchange.passes(Side::Server, SHORT));
        assert!(connection.cut(Side::Server, SHORT, SHORT * 3).is_some());
        cluster.node(0).namespace.nft("delete table inet byhand");
    }
}

#[test]
fn a_capture_sees_what_arrives_and_not_what_was_dropped() {
    let mut cluster = Cluster::new(2);
    cluster.add(&[("a", 0), ("b", 1)]);
    cluster.serve_all(&[80, 81]);
    let [a, b] = ["a", "b"].map(|name| cluster.pod(name).place.clone());
    cluster.node(1).namespace.nft(
        "table inet byhand { chain forward { type filter hook forward priority 0; th dport 81 drop; }\n}",
    );
    let [sent, received] = [&a, &b].map(|place| Capture::start(&place.namespace));
    let before = Instant::now();
    Table::ask(&[a.clone(), b.clone()], &flows(), &[false, true]);
    let [sent, received] = [sent, received].map(Capture::stop);
    for v6 in [false, true] {
        for protocol in [6, 17, 132] {
            let count = |packets: &[crate::capture::Packet], port| {
                let from_a = packets.iter().filter(|packet| {
                    let tuple = packet.tuple;
                    (tuple.from, tuple.to) == (a.address(v6), b.address(v6))
                        && (tuple.protocol, tuple.to_port) == (protocol, port)
                });
                from_a
                    .inspect(|packet| assert!(packet.at >= before))
                    .count()
            };
            assert!(count(&sent, 80) >= 1);
            assert_eq!(count(&sent, 80), count(&received, 80), "{protocol} {v6}");
            assert!(count(&sent, 81) >= 1);
            assert_eq!(count(&received, 81), 0, "{protocol} {v6}");
        }
    }
}

#[test]
fn pods_come_and_go_and_addresses_are_used_again() {
    let mut cluster = Cluster::new(1);
    cluster.add(&[("a", 0), ("b", 0)]);
    cluster.serve_all(&[80]);
    let a = cluster.pod("a").place.clone();
    for round in 0..3 {
        let again = cluster.add_with(&[("again", 0, 77)]).remove(0).place;
        assert_eq!(again.v4.to_string(), "10.244.0.77");
        cluster.serve(&again, &[80]);
        for v6 in [false, true] {
            let outcome = probe::ask_one(&a, again.at(v6, 80), Transport::Tcp);
            assert_eq!(outcome, Outcome::Answered, "round {round}");
        }
        cluster.remove(&["again"]);
        assert_ne!(
            probe::ask_one(&a, again.at(false, 80), Transport::Tcp),
            Outcome::Answered
        );
    }
}

#[test]
fn what_listens_outside_can_be_reached_from_a_node() {
    use std::io::Read as _;
    let cluster = Cluster::new(1);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let refused = |()| {
        cluster
            .node(0)
            .namespace
            .inside(|| std::net::TcpStream::connect(address))
    };
    assert!(refused(()).is_err());
    cluster.let_in(0, address);
    let mut client = refused(()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    std::io::Write::write_all(&mut server, b"hello").unwrap();
    drop(server);
    let mut heard = String::new();
    client.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "hello");
}

#[test]
fn nothing_is_left_behind_by_a_panic_or_by_a_process_that_was_killed() {
    let (sender, names) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let mut cluster = Cluster::new(1);
        cluster.add(&[("left", 0)]);
        sender
            .send(cluster.pod("left").place.namespace.path())
            .unwrap();
        panic!("on purpose");
    });
    let path = names.recv().unwrap();
    assert!(thread.join().is_err());
    assert!(!path.exists());

    // No process has so high a number.
    let name = "rf-4194999-0-left";
    assert!(
        Command::new("ip")
            .args(["netns", "add", name])
            .status()
            .unwrap()
            .success()
    );
    Namespace::sweep();
    assert!(!std::path::Path::new("/run/netns").join(name).exists());
}
