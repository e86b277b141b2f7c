//! What a pod must not send: frames for the overlay, and packets with an address that is not its own. And what it must still be
//! able to: all else.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::cluster::{Cluster, Place};
use crate::probe::{Outcome, Transport, ask_one};
use crate::site::{Named, Site};

const NAMESPACE: &str = "shop";
/// The port of VXLAN at which the nodes have an overlay, and one at which nobody has.
const VXLAN: u16 = 8472;
const OTHER: u16 = 4789;
/// Where something listens on nodes.
const PORT: u16 = 7777;
const QUIET: Duration = Duration::from_millis(300);

fn named(name: &str) -> Named<'_> {
    Named {
        namespace: NAMESPACE,
        name,
        app: name,
    }
}

async fn site(nodes: usize, pods: &[(&str, usize)]) -> Site {
    let site = Site::new(nodes, pods, &[NAMESPACE]).await;
    for (name, node) in pods {
        let pod = named(name);
        site.schedule(pod, *node).await;
        site.running(pod, &site.cluster.pod(name).place).await;
    }
    site
}

/// Where a node is in the overlay.
fn inner(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 255, 0, node as u8 + 1)
}

/// Makes an overlay of two nodes, by which they reach each other's pods.
fn overlay(cluster: &Cluster) {
    for (node, other) in [(0, 1), (1, 0)] {
        let [own, remote] = [node, other].map(|number| cluster.node(number).v4);
        cluster.node(node).namespace.ip(&format!(
            "link add vx0 type vxlan id 1 local {own} remote {remote} dev eth0 dstport {VXLAN}\n\
             addr add {}/24 dev vx0\nlink set vx0 up\nroute replace 10.244.{other}.0/24 via {} dev vx0\n",
            inner(node),
            inner(other)
        ));
    }
}

/// A frame in VXLAN, of a packet of UDP that seems to come from one node and goes to another one, whoever hears it.
fn crafted(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let mut datagram = Vec::new();
    let length: u16 = 8 + 3;
    for word in [4000, PORT, length, 0] {
        datagram.extend(word.to_be_bytes());
    }
    datagram.extend(b"boo");
    let mut header = vec![0x45, 0, 0, 20 + length as u8, 0, 1, 0, 0, 64, 17, 0, 0];
    header.extend(from.octets());
    header.extend(to.octets());
    let words = header
        .chunks(2)
        .map(|two| u32::from(two[0]) << 8 | u32::from(two[1]));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    // VXLAN: the number is valid, and it is 1. Ethernet: to everyone, from somebody, IPv4.
    let mut frame = vec![8, 0, 0, 0, 0, 0, 1, 0];
    frame.extend([0xff; 6]);
    frame.extend([2, 0, 0, 0, 0, 9, 8, 0]);
    [frame, header, datagram].concat()
}

/// Whether a crafted frame that a place sends to an address comes out of a node's overlay.
fn comes_out(from: &Place, to: IpAddr, node: usize, cluster: &Cluster) -> bool {
    let heard = cluster.node(node).namespace.inside(|| {
        let heard = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap();
        heard.set_read_timeout(Some(QUIET)).unwrap();
        heard
    });
    from.namespace.inside(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let frame = crafted(inner(1 - node), inner(node));
        // An answer that nobody takes it may be there already.
        let _ = socket.send_to(&frame, (to, VXLAN));
    });
    heard.recv(&mut [0; 16]).is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_makes_no_frames_for_the_overlay_and_the_overlay_goes_on() {
    let site = site(2, &[("web", 0), ("far", 1)]).await;
    let cluster = &site.cluster;
    let [web, far] = ["web", "far"].map(|name| &cluster.pod(name).place);
    overlay(cluster);
    // The node itself, another one, and another one at the address that it has among its pods.
    let nodes = [
        (cluster.node(0).address(false), 0),
        (cluster.node(1).address(false), 1),
        (IpAddr::from([10, 244, 1, 1]), 1),
    ];
    for (address, node) in nodes {
        assert!(comes_out(web, address, node, cluster), "{address}");
    }
    let agents = [site.agent(0).await, site.agent(1).await];
    for (address, node) in nodes {
        assert!(!comes_out(web, address, node, cluster), "{address}");
    }
    let line = agents[0].line(&["denied", "shop/web", "8472"]).await;
    assert!(line.contains("a VXLAN packet of a pod to a node"), "{line}");

    // Pods reach each other through the overlay, also at its own port, and nodes each other.
    cluster.serve(far, &[VXLAN]);
    let [near, other] = [0, 1].map(|node| cluster.node(node).clone());
    cluster.serve(&near, &[OTHER]);
    let ask = |from: &Place, to: SocketAddr, transport| ask_one(from, to, transport);
    for transport in [Transport::Udp, Transport::Tcp] {
        let outcome = ask(web, far.at(false, VXLAN), transport);
        assert_eq!(outcome, Outcome::Answered, "{transport:?}");
    }
    let across = SocketAddr::from((inner(1), 0));
    assert_eq!(ask(&near, across, Transport::Icmp), Outcome::Answered);
    for v6 in [false, true] {
        let to = near.at(v6, OTHER);
        assert_eq!(ask(web, to, Transport::Udp), Outcome::Silent, "{to}");
        assert_eq!(ask(far, to, Transport::Udp), Outcome::Silent, "{to}");
        assert_eq!(ask(web, to, Transport::Tcp), Outcome::Answered, "{to}");
        assert_eq!(ask(&other, to, Transport::Udp), Outcome::Answered, "{to}");
    }
}
