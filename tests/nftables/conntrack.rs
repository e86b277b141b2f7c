//! Real connections in the kernel's table: listed, and deleted one by one.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto};

use ringfence::agent::conntrack::{Conntrack, Deleted, Ends, Entry};
use ringfence::netpol::{Family, Protocol};
use ringfence::ruleset::Tuple;

use crate::space::{alone, nft, program};

/// Makes a namespace with a loopback where connections are tracked.
fn tracked<T: Send>(rules: &str, what: impl FnOnce(&mut Conntrack) -> T + Send) -> T {
    alone(|| {
        program(&["ip", "link", "set", "lo", "up"], "").expect("a loopback");
        nft(&format!(
            "table inet t {{ chain c {{ type filter hook input priority 0; ct state established accept; }}; {rules} }}"
        ))
        .expect("accepted");
        what(&mut Conntrack::open().expect("a socket"))
    })
}

fn all(conntrack: &mut Conntrack, family: Option<Family>) -> Vec<Entry> {
    let mut entries = Vec::new();
    let listed = conntrack
        .list(family, |entry| entries.push(entry))
        .expect("listed");
    assert_eq!((listed.entries, listed.unknown), (entries.len(), 0));
    entries
}

/// Both ends of a connection to an address.
fn connect(to: &str) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((to, 0)).expect("a listener");
    let address = listener.local_addr().expect("bound");
    let client = TcpStream::connect(address).expect("connected");
    let (server, _) = listener.accept().expect("accepted");
    (client, server)
}

fn tuple(from: SocketAddr, to: SocketAddr, protocol: Protocol) -> Tuple {
    Tuple {
        source: (from.ip(), from.port()),
        destination: (to.ip(), to.port()),
        protocol,
    }
}

/// The entry that has this original way.
fn find(entries: &[Entry], wanted: Tuple) -> Option<&Entry> {
    let mut found = entries
        .iter()
        .filter(|entry| entry.tuple(&entry.original) == Some(wanted));
    let entry = found.next();
    assert_eq!(found.next(), None);
    entry
}

#[test]
fn one_of_several_connections_is_deleted() {
    tracked("", |conntrack| {
        let (mut client, mut server) = connect("127.0.0.1");
        let (other, _other) = connect("127.0.0.1");
        let (six, _six) = connect("::1");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let peer = UdpSocket::bind("127.0.0.1:0").expect("bound");
        udp.send_to(b"?", peer.local_addr().expect("bound"))
            .expect("sent");

        let way = |stream: &TcpStream| {
            let (from, to) = (stream.local_addr(), stream.peer_addr());
            tuple(from.expect("bound"), to.expect("connected"), Protocol::Tcp)
        };
        let asked = tuple(
            udp.local_addr().expect("bound"),
            peer.local_addr().expect("bound"),
            Protocol::Udp,
        );
        let before = all(conntrack, None);
        for wanted in [way(&client), way(&other), way(&six), asked] {
            let entry = find(&before, wanted).expect("tracked");
            assert_eq!(entry.tuple(&entry.reply), Some(wanted.reversed()));
            assert!(entry.id.is_some());
        }
        // The families add up.
        let mut both = all(conntrack, Some(Family::V4));
        assert!(find(&both, way(&six)).is_none());
        both.extend(all(conntrack, Some(Family::V6)));
        assert_eq!(both.len(), before.len());

        let one = find(&before, way(&client)).expect("tracked").clone();
        let done = |deleted, gone| Deleted { deleted, gone };
        let two = [one.clone(), find(&before, asked).expect("tracked").clone()];
        assert_eq!(conntrack.delete(&two).expect("deleted"), done(2, 0));
        assert_eq!(conntrack.delete(&two).expect("nothing"), done(0, 2));
        let after = all(conntrack, None);
        assert!(find(&after, way(&client)).is_none());
        assert!(find(&after, asked).is_none());
        assert!(find(&after, way(&other)).is_some());
        assert!(find(&after, way(&six)).is_some());

        // A packet makes a new entry, which is not the one that was given.
        client.write_all(b"?").expect("sent");
        server.read_exact(&mut [0]).expect("received");
        assert!(find(&all(conntrack, None), way(&client)).is_some());
        assert_eq!(conntrack.delete(&[one]).expect("nothing"), done(0, 1));
        assert!(find(&all(conntrack, None), way(&client)).is_some());
    });
}

#[test]
fn translated_addresses_show_both_ways() {
    let nat = "chain n { type nat hook output priority -100; ip daddr 127.0.0.9 tcp dport 7 dnat ip to 127.0.0.1:4321; }; \
               chain m { type nat hook postrouting priority 100; tcp dport 4321 snat ip to 127.0.0.5; };";
    tracked(nat, |conntrack| {
        let listener = TcpListener::bind("127.0.0.1:4321").expect("a listener");
        let client = TcpStream::connect("127.0.0.9:7").expect("connected");
        let _server = listener.accept().expect("accepted");
        let from = client.local_addr().expect("bound");
        let asked = tuple(from, "127.0.0.9:7".parse().expect("ok"), Protocol::Tcp);
        let entries = all(conntrack, Some(Family::V4));
        let entry = find(&entries, asked).expect("tracked");
        let server = "127.0.0.1:4321".parse().expect("ok");
        let seen = SocketAddr::from(([127, 0, 0, 5], from.port()));
        let answer = tuple(server, seen, Protocol::Tcp);
        assert_eq!(entry.tuple(&entry.reply), Some(answer));
        let forwarded = tuple(from, server, Protocol::Tcp);
        assert_eq!(entry.forwarded(), Some(forwarded));
        let deleted = conntrack
            .delete(std::slice::from_ref(entry))
            .expect("deleted");
        assert_eq!(deleted.deleted, 1);
        assert_eq!(find(&all(conntrack, None), asked), None);
    });
}

#[test]
fn zones_are_known() {
    let zone = "chain z { type filter hook output priority -300; ct zone set 7; }; \
                chain y { type filter hook prerouting priority -300; ct zone set 7; };";
    tracked(zone, |conntrack| {
        let (client, _server) = connect("127.0.0.1");
        let entries = all(conntrack, None);
        let (from, to) = (client.local_addr(), client.peer_addr());
        let wanted = tuple(from.expect("bound"), to.expect("connected"), Protocol::Tcp);
        let entry = find(&entries, wanted).expect("tracked");
        assert_eq!(entry.zone, 7);
        let without = Entry {
            zone: 0,
            ..entry.clone()
        };
        assert_eq!(conntrack.delete(&[without]).expect("nothing").gone, 1);
        let entry = std::slice::from_ref(entry);
        assert_eq!(conntrack.delete(entry).expect("deleted").deleted, 1);
    });
}

#[test]
fn other_protocols_are_listed_and_deleted() {
    tracked("", |conntrack| {
        let insert = |arguments: &str| {
            let all = format!("conntrack -I -t 600 {arguments}");
            program(&all.split(' ').collect::<Vec<_>>(), "").expect("made");
        };
        insert("-p 50 -s 10.0.0.1 -d 10.0.0.2");
        insert(
            "-p sctp --state ESTABLISHED -s 10.0.0.1 -d 10.0.0.2 --orig-port-src 9 --orig-port-dst 10 --orig-vtag 1 --reply-vtag 2",
        );
        echo("127.0.0.1", (8, 77));
        echo("::1", (128, 78));
        let entries = all(conntrack, None);
        let seen = |protocol| {
            let found = entries.iter().find(|entry| entry.protocol == protocol);
            found.expect("made").original.ends
        };
        assert_eq!(seen(1), Ends::Icmp(77, 8, 0));
        assert_eq!(seen(58), Ends::Icmp(78, 128, 0));
        assert_eq!(seen(50), Ends::None);
        assert_eq!(seen(132), Ends::Ports(9, 10));
        assert_eq!(entries.len(), 4);
        assert_eq!(conntrack.delete(&entries).expect("deleted").deleted, 4);
        assert_eq!(all(conntrack, None), []);
    });
}

/// Sends a request for an echo, of a type and number.
fn echo(to: &str, (kind, id): (u8, u8)) {
    let to: IpAddr = to.parse().expect("an address");
    let (family, protocol) = match to {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let socket = rustix::net::socket(family, SocketType::RAW, Some(protocol)).expect("a socket");
    // The kernel fills in the checksum of ICMPv6 alone.
    let sum = !(u16::from_be_bytes([kind, 0]) + u16::from(id));
    let [high, low] = sum.to_be_bytes();
    let packet = [kind, 0, high, low, 0, id, 0, 0];
    let to = SocketAddr::new(to, 0);
    rustix::net::sendto(&socket, &packet, SendFlags::empty(), &to).expect("sent");
}

#[test]
fn thousands_are_deleted_at_once() {
    tracked("", |conntrack| {
        let from = UdpSocket::bind("127.0.0.1:0").expect("bound");
        for last in 1..=250_u8 {
            for port in 1..=8 {
                // Nobody listens, which is told later and does not matter.
                let _ = from.send_to(b"?", (IpAddr::from([127, 0, 1, last]), port));
            }
        }
        let entries = all(conntrack, Some(Family::V4));
        assert!(entries.len() >= 2000, "{}", entries.len());
        let deleted = conntrack.delete(&entries).expect("deleted");
        assert_eq!(deleted.deleted + deleted.gone, entries.len());
        assert!(deleted.deleted >= 2000, "{deleted:?}");
        assert_eq!(all(conntrack, None), []);
    });
}
