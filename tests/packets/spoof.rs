//! What a pod must not send: frames for the overlay, and packets with an address that is not its own. And what it must still be
//! able to: all else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::RecvFlags;
use serde_json::{Value, json};

use crate::capture::Capture;
use crate::cluster::{Cluster, Place, Pod};
use crate::frame;
use crate::namespace::Namespace;
use crate::probe::{Outcome, Table, Transport, ask_one};
use crate::process::Process;
use crate::service::{proxy, service};
use crate::site::{Named, Site};

pub(crate) const NAMESPACE: &str = "shop";
/// The port of VXLAN at which the nodes have an overlay, and one at which nobody has.
const VXLAN: u16 = 8472;
const OTHER: u16 = 4789;
/// Where something listens on nodes.
const PORT: u16 = 7777;
const QUIET: Duration = Duration::from_millis(300);

pub(crate) fn named(name: &str) -> Named<'_> {
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
    // VXLAN: the number is valid, and it is 1.
    let head = [8, 0, 0, 0, 0, 0, 1, 0];
    let packet = frame::packet(from, to, PORT);
    let inner = frame::ethernet(frame::ALL, "02:00:00:00:00:09", frame::IPV4, &packet);
    [&head[..], &inner].concat()
}

/// Whether a datagram is heard that is sent up to so many times.
fn is_heard(heard: &UdpSocket, tries: usize, send: impl Fn()) -> bool {
    (0..tries).any(|_| {
        send();
        heard.recv(&mut [0; 16]).is_ok()
    })
}

/// Whether a packet arrives that one sends to another one with these tags before it, of some tries.
fn arrives_tagged(from: &Pod, to: &Pod, tags: &[u16], tries: usize) -> bool {
    let packet = frame::packet(from.place.v4, to.place.v4, PORT);
    let frame = frame::tagged(&to.mac, &from.mac, tags, frame::IPV4, &packet);
    let heard = hear(&to.place, (to.place.v4, PORT).into());
    is_heard(&heard, tries, || frame::send(&from.place, &frame))
}

/// Whether a frame arrives that says that it carries this, of some tries.
fn arrives_as(from: &Pod, to: &Pod, kind: u16, tries: usize) -> bool {
    let frame = frame::ethernet(&to.mac, &from.mac, kind, &[b'?'; 46]);
    arrives_whole(from, to, &frame, tries)
}

/// Whether this frame arrives as it is, of some tries.
fn arrives_whole(from: &Pod, to: &Pod, frame: &[u8], tries: usize) -> bool {
    let heard = to.place.namespace.frames(QUIET);
    (0..tries).any(|_| {
        frame::send(&from.place, frame);
        let begun = Instant::now();
        let mut buffer = [0; 128];
        while begun.elapsed() < QUIET {
            let read = rustix::net::recv(&heard, &mut buffer[..], RecvFlags::empty());
            if read.is_ok_and(|(length, _)| buffer[..length] == *frame) {
                return true;
            }
        }
        false
    })
}

/// The address of the link that an interface has.
fn link_local(place: &Place, interface: &str) -> Ipv6Addr {
    let begun = Instant::now();
    loop {
        let arguments = [
            "-o", "-6", "addr", "show", "dev", interface, "scope", "link",
        ];
        let shown = place.namespace.run("ip", &arguments, "");
        let mut words = shown.split_whitespace().skip_while(|word| *word != "inet6");
        if let Some(address) = words.nth(1) {
            return address.split('/').next().unwrap().parse().unwrap();
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{interface}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a datagram arrives at a node or pod that a pod sends with its address of the link, of some tries.
fn arrives_by_link(from: &Place, node: &Place, at: Ipv6Addr, port: u16, tries: usize) -> bool {
    let own = link_local(from, "eth0");
    let scope = frame::interface(from);
    let heard = hear(node, (Ipv6Addr::UNSPECIFIED, port).into());
    let at_scope = |address, port| SocketAddr::from(SocketAddrV6::new(address, port, 0, scope));
    is_heard(&heard, tries, || {
        from.namespace.inside(|| {
            let socket = UdpSocket::bind(at_scope(own, 0)).unwrap();
            let _ = socket.send_to(b"boo", at_scope(at, port));
        });
    })
}

/// Whether a datagram arrives at a node that a pod sends to all as nobody, of some tries.
fn arrives_from_nobody(from: &Pod, node: &Place, port: u16, tries: usize) -> bool {
    let heard = hear(node, (Ipv4Addr::UNSPECIFIED, port).into());
    let packet = frame::packet(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, port);
    let frame = frame::ethernet(frame::ALL, &from.mac, frame::IPV4, &packet);
    is_heard(&heard, tries, || frame::send(&from.place, &frame))
}

/// Hears datagrams, for a moment.
fn hear(place: &Place, at: SocketAddr) -> UdpSocket {
    let begun = Instant::now();
    let bound = || loop {
        match UdpSocket::bind(at) {
            // A program that another test starts has what is open here until it runs.
            Err(_) if begun.elapsed() < Duration::from_secs(5) => std::thread::yield_now(),
            bound => return bound.unwrap(),
        }
    };
    let heard = place.namespace.inside(bound);
    heard.set_read_timeout(Some(QUIET)).unwrap();
    heard
}

/// Whether a crafted frame that a place sends to an address comes out of a node's overlay.
fn comes_out(from: &Place, to: IpAddr, node: usize, cluster: &Cluster) -> bool {
    let heard = hear(cluster.node(node), (Ipv4Addr::UNSPECIFIED, PORT).into());
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

    // Who asks from such a port is answered: nobody is spoken for by that.
    let heard = hear(web, (web.v4, PORT).into());
    let asking = hear(&other, (other.v4, OTHER).into());
    let is_answered = || {
        asking.send_to(b"who", (web.v4, PORT)).unwrap();
        let (_, back) = heard.recv_from(&mut [0; 16]).ok()?;
        assert_eq!(back, (other.v4, OTHER).into());
        heard.send_to(b"me", back).unwrap();
        asking.recv(&mut [0; 16]).ok()
    };
    assert!((0..20).any(|_| is_answered().is_some()));
}

/// An agent that is told by the CNI.
pub(crate) async fn told(site: &Site) -> Process {
    let folder = site.kubernetes.folder();
    let list = json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge"}]});
    std::fs::write(folder.join("10-pods.conflist"), list.to_string()).unwrap();
    let bin = folder.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let socket = folder.join("cni.sock");
    let [bin, socket] = [bin, socket].map(|path| path.to_str().unwrap().to_owned());
    site.agent_with(
        0,
        &["--cni", "--cni-bin-dir", &bin, "--cni-socket", &socket],
    )
    .await
}

/// Calls the plugin for a pod, as the runtime does after a bridge and what limits its rate.
pub(crate) fn plugin(site: &Site, command: &str, name: &str, pod: &Pod) {
    let folder = site.kubernetes.folder();
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .arg("cni")
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", format!("sandbox-{name}"))
        .env("CNI_NETNS", pod.place.namespace.path())
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", folder)
        .env(
            "CNI_ARGS",
            format!("K8S_POD_NAMESPACE={NAMESPACE};K8S_POD_NAME={name}"),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let config = json!({
        "cniVersion": "1.0.0", "name": "pods", "type": "ringfence-cni",
        "agentSocket": folder.join("cni.sock"), "timeoutSeconds": 10,
        "prevResult": {
            "cniVersion": "1.0.0",
            "interfaces": [
                {"name": "cni0"}, {"name": pod.port}, {"name": "eth0", "sandbox": "x"}, {"name": "eth0"},
            ],
            "ips": [
                {"address": format!("{}/24", pod.place.v4), "interface": 2},
                {"address": format!("{}/64", pod.place.v6), "interface": 2},
            ],
        },
    });
    serde_json::to_writer(child.stdin.take().unwrap(), &config).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
}

/// Gives a pod the addresses of another one, too, beside its own.
fn pretend(pod: &Place, to_be: &Place, mac: &str, whom: &Place) {
    pod.namespace.ip(&format!(
        "addr add {}/24 dev eth0\naddr add {}/64 dev eth0 nodad\n\
         neigh replace {} lladdr {mac} dev eth0 nud permanent\nneigh replace {} lladdr {mac} dev eth0 nud permanent\n",
        to_be.v4, to_be.v6, whom.v4, whom.v6
    ));
}

/// Whether a datagram arrives that one sends to another one with a sender of its choice.
pub(crate) fn arrives(from: &Place, sender: IpAddr, to: &Place) -> bool {
    let target = SocketAddr::new(to.address(sender.is_ipv6()), PORT);
    let heard = hear(to, target);
    from.namespace.inside(|| {
        let socket = UdpSocket::bind((sender, 0)).unwrap();
        let _ = socket.send_to(b"boo", target);
    });
    heard.recv(&mut [0; 16]).is_ok()
}

/// The same, where it is to arrive: a busy machine may take a while, or lose one.
pub(crate) fn reaches(from: &Place, sender: IpAddr, to: &Place) -> bool {
    (0..20).any(|_| arrives(from, sender, to))
}

/// Whom a pod takes for another one, by its table of neighbours.
fn neighbour(pod: &Place, other: &Place) -> String {
    let address = other.v4.to_string();
    let shown = pod
        .namespace
        .run("ip", &["neigh", "show", &address, "dev", "eth0"], "");
    let mut words = shown
        .split_whitespace()
        .skip_while(|word| *word != "lladdr");
    words.nth(1).unwrap_or_default().to_owned()
}

/// Sends a question after a neighbour in the name of another one, and says whom the one that is asked takes that for then.
fn asked_in_the_name(liar: &Place, of: &Place, whom: &Place) -> String {
    assert_eq!(
        ask_one(whom, of.at(false, 0), Transport::Icmp),
        Outcome::Answered
    );
    let address = whom.v4.to_string();
    liar.namespace
        .run("ip", &["neigh", "del", &address, "dev", "eth0"], "");
    liar.namespace.inside(|| {
        let socket = UdpSocket::bind((of.v4, 0)).unwrap();
        let _ = socket.send_to(b"boo", (whom.v4, PORT));
    });
    std::thread::sleep(QUIET);
    neighbour(whom, of)
}

pub(crate) fn tables(site: &Site) -> Vec<String> {
    let list = |family: &str| {
        let output = Command::new("nft")
            .args(["list", "table", family, "ringfence"])
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let node = &site.cluster.node(0).namespace;
    node.inside(|| ["inet", "bridge"].map(list).to_vec())
}

/// Waits until something holds.
pub(crate) fn eventually(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Only `web` may reach `db`, at any port.
pub(crate) fn only_web() -> Value {
    json!({
        "podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_sends_and_answers_with_no_address_but_its_own() {
    let mut site = site(1, &[("web", 0), ("db", 0), ("liar", 0)]).await;
    let place = |name: &str| site.cluster.pod(name).place.clone();
    let [web, db, liar] = ["web", "db", "liar"].map(place);
    let macs = ["web", "db", "liar"].map(|name| site.cluster.pod(name).mac.clone());
    let agent = told(&site).await;
    site.policy(NAMESPACE, "db", &only_web()).await;
    eventually("the policy", || !arrives(&liar, liar.v4.into(), &db));
    agent
        .line(&["pods that are not held to their own addresses", "pods=3"])
        .await;

    // Nobody has told behind which interface the pods are: what the liar sends is taken for what web sends.
    pretend(&liar, &web, &macs[1], &db);
    for v6 in [false, true] {
        assert!(reaches(&liar, web.address(v6), &db), "{v6}");
        assert!(!arrives(&liar, liar.address(v6), &db), "{v6}");
    }
    assert_eq!(asked_in_the_name(&liar, &web, &db), macs[2]);
    pretend_again(&liar, &macs[1], &db);

    for name in ["web", "liar", "db"] {
        plugin(&site, "ADD", name, site.cluster.pod(name));
    }
    db.namespace.run("ip", &["neigh", "flush", "all"], "");
    let held = || {
        for v6 in [false, true] {
            assert!(!arrives(&liar, web.address(v6), &db), "{v6}");
            assert!(reaches(&web, web.address(v6), &db), "{v6}");
        }
    };
    held();
    let words = format!("the source address {} is not the pod's", web.v4);
    let line = agent.line(&["denied", &words]).await;
    assert!(line.contains("from=shop/liar to=shop/db"), "{line}");
    assert_eq!(asked_in_the_name(&liar, &web, &db), macs[0]);
    pretend_again(&liar, &macs[1], &db);

    // Through the end of the agent, and the next one, which nobody tells anything.
    agent.signal("KILL");
    agent.ended().await;
    held();
    let agent = told(&site).await;
    held();
    // And where somebody empties the table, or takes it away.
    let node = site.cluster.node(0).namespace.clone();
    for tampering in [
        "flush chain bridge ringfence prerouting",
        "delete table bridge ringfence",
    ] {
        let begun = Instant::now();
        node.nft(&format!("{tampering}\n"));
        eventually(tampering, || {
            tables(&site)[1].contains("iifname @pod-ports")
        });
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "{:?}",
            begun.elapsed()
        );
        held();
    }

    // The liar's address comes again with another pod, which is let be what it is and nothing else.
    let index = site.cluster.pod("liar").index;
    plugin(&site, "DEL", "liar", site.cluster.pod("liar"));
    site.delete(named("liar")).await;
    site.cluster.remove(&["liar"]);
    let again = site.cluster.add_with(&[("again", 0, index)]).remove(0);
    site.schedule(named("again"), 0).await;
    plugin(&site, "ADD", "again", &again);
    site.cluster.serve(&web, &[80]);
    for v6 in [false, true] {
        let outcome = ask_one(&again.place, web.at(v6, 80), Transport::Tcp);
        assert_eq!(outcome, Outcome::Answered, "{v6}");
    }
    pretend(&again.place, &web, &macs[1], &db);
    assert!(
        !arrives(&again.place, web.v4.into(), &db) && !arrives(&again.place, web.v6.into(), &db)
    );

    // What is told to be off is off, and what is told to be gone is gone.
    agent.signal("TERM");
    agent.ended().await;
    let agent = site.agent_with(0, &["--anti-spoofing", "off"]).await;
    eventually("off", || {
        !tables(&site)
            .iter()
            .any(|table| table.contains("pod-ports"))
    });
    assert!(reaches(&again.place, web.v4.into(), &db));
    agent.signal("TERM");
    agent.ended().await;
    let agent = told(&site).await;
    eventually("on", || {
        tables(&site)
            .iter()
            .all(|table| table.contains("iifname @pod-ports"))
    });
    agent.signal("TERM");
    agent.ended().await;
    let cleanup = Command::new("nsenter")
        .arg(format!("--net={}", node.path().display()))
        .arg(env!("CARGO_BIN_EXE_ringfence"))
        .args(["agent", "--cleanup"])
        .status();
    assert!(cleanup.unwrap().success());
    assert_eq!(tables(&site), ["", ""]);
}

/// Knows again whom it lies to, without asking.
fn pretend_again(liar: &Place, mac: &str, whom: &Place) {
    liar.namespace.ip(&format!(
        "neigh replace {} lladdr {mac} dev eth0 nud permanent\n",
        whom.v4
    ));
}

/// What the kernel takes off by itself: a tag, and two.
const TAGS: [&[u16]; 2] = [&[0x8100], &[0x88a8, 0x8100]];

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_of_no_vlan_hides_nothing_from_policies() {
    let site = site(1, &[("web", 0), ("db", 0), ("liar", 0)]).await;
    let [web, db, liar] = ["web", "db", "liar"].map(|name| site.cluster.pod(name));
    let agent = site.agent_with(0, &["--anti-spoofing", "off"]).await;
    site.policy(NAMESPACE, "db", &only_web()).await;
    let is_held = || !arrives(&liar.place, liar.place.v4.into(), &db.place);
    eventually("the policy", is_held);
    for tags in TAGS {
        assert!(arrives_tagged(liar, db, tags, 20), "{tags:x?}");
    }
    agent.signal("TERM");
    agent.ended().await;
    let agent = told(&site).await;
    for tags in TAGS {
        assert!(arrives_tagged(liar, db, tags, 20), "{tags:x?}");
    }
    for name in ["web", "db", "liar"] {
        plugin(&site, "ADD", name, site.cluster.pod(name));
    }
    for tags in TAGS {
        assert!(!arrives_tagged(liar, db, tags, 3), "{tags:x?}");
    }
    let line = agent.line(&["denied", "the tag of a VLAN"]).await;
    assert!(line.contains("from=shop/liar to=shop/db"), "{line}");
    assert!(is_held());
    assert!(arrives_tagged(web, db, &[], 20));
}

/// Frames that are neither IP nor ARP: of a kind for experiments (IEEE 802), of PPP over Ethernet, and one that says its length
/// (IEEE 802.3), as those of spanning trees do.
const OTHERS: [u16; 3] = [0x88b5, 0x8864, 46];

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_of_which_no_policy_is_asked_goes_to_no_other_pod() {
    let site = site(1, &[("web", 0), ("db", 0)]).await;
    let [web, db] = ["web", "db"].map(|name| site.cluster.pod(name));
    let _agent = told(&site).await;
    for kind in OTHERS {
        assert!(arrives_as(web, db, kind, 20), "{kind:x}");
    }
    for name in ["web", "db"] {
        plugin(&site, "ADD", name, site.cluster.pod(name));
    }
    for kind in OTHERS {
        assert!(!arrives_as(web, db, kind, 3), "{kind:x}");
    }
    db.place.namespace.run("ip", &["neigh", "flush", "all"], "");
    for v6 in [false, true] {
        assert!(reaches(&web.place, web.place.address(v6), &db.place));
    }
}

/// What a pod says that pretends to be a router: to all that it is one, and to another pod that it is the next on the way to the
/// pod's own node.
fn pretended(liar: &Pod, to: &Pod) -> [Vec<u8>; 2] {
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let from = link_local(&liar.place, "eth0");
    // RFC 4861, sections 4.2 and 4.5: for half an hour, and by target and destination.
    let [high, low] = 1_800_u16.to_be_bytes();
    let advertised = [64, 0, high, low, 0, 0, 0, 0, 0, 0, 0, 0];
    let redirected = [
        [0; 4].to_vec(),
        from.octets().into(),
        Cluster::gateways(0).1.octets().into(),
    ];
    let advertisement = frame::icmpv6(from, ALL_NODES, 134, &advertised);
    let redirect = frame::icmpv6(from, to.place.v6, 137, &redirected.concat());
    [
        frame::ethernet("33:33:00:00:00:01", &liar.mac, frame::IPV6, &advertisement),
        frame::ethernet(&to.mac, &liar.mac, frame::IPV6, &redirect),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_no_router() {
    let site = site(1, &[("web", 0), ("liar", 0)]).await;
    let [web, liar] = ["web", "liar"].map(|name| site.cluster.pod(name));
    let frames = pretended(liar, web);
    let router = link_local(&liar.place, "eth0").to_string();
    let show = ["-6", "route", "show", "proto", "ra"];
    let is_believed = || web.place.namespace.run("ip", &show, "").contains(&router);
    web.place
        .namespace
        .set(&[("ipv6/conf/eth0/accept_ra", "2")]);
    let agent = told(&site).await;
    for frame in &frames {
        assert!(arrives_whole(liar, web, frame, 20), "{frame:x?}");
    }
    eventually("a route by the liar", is_believed);
    web.place
        .namespace
        .run("ip", &["-6", "route", "flush", "proto", "ra"], "");
    for name in ["web", "liar"] {
        plugin(&site, "ADD", name, site.cluster.pod(name));
    }
    for frame in &frames {
        assert!(!arrives_whole(liar, web, frame, 3), "{frame:x?}");
    }
    assert!(!is_believed());
    let words = ["denied", "from=shop/liar", "a router advertisement"];
    agent.line(&words).await;
    // Neighbours are found as before.
    web.place
        .namespace
        .run("ip", &["neigh", "flush", "all"], "");
    assert!(reaches(&liar.place, liar.place.v6.into(), &web.place));
}

/// A group whose frames a port of a bridge gives to the node itself, without asking the rules of bridges (IEEE 802.1AB).
const NEAREST_BRIDGE: &str = "01:80:c2:00:00:0e";

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_a_bridge_does_not_look_at_says_nothing_in_the_name_of_another_pod() {
    let site = site(1, &[("web", 0), ("liar", 0)]).await;
    let [web, liar] = ["web", "liar"].map(|name| site.cluster.pod(name));
    let (node, at) = (site.cluster.node(0), Cluster::gateways(0).0);
    let arrives = |sender: Ipv4Addr, tries: usize| {
        let heard = hear(node, (at, PORT).into());
        let packet = frame::packet(sender, at, PORT);
        let frame = frame::ethernet(NEAREST_BRIDGE, &liar.mac, frame::IPV4, &packet);
        is_heard(&heard, tries, || frame::send(&liar.place, &frame))
    };
    let agent = told(&site).await;
    assert!(arrives(web.place.v4, 20), "nobody is held to anything yet");
    plugin(&site, "ADD", "liar", liar);
    assert!(!arrives(web.place.v4, 3));
    assert!(arrives(liar.place.v4, 20));
    let words = format!("the source address {} is not the pod's", web.place.v4);
    agent.line(&["denied", "from=shop/liar", &words]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_makes_no_frames_for_the_overlay_with_an_address_that_is_nobody_s() {
    let site = site(1, &[("web", 0), ("own", 0)]).await;
    let node = site.cluster.node(0);
    let [web, own] = ["web", "own"].map(|name| site.cluster.pod(name));
    routed(node, own);
    let ends = [(web, "cni0"), (own, &*own.port)].map(|(pod, end)| (pod, link_local(node, end)));
    let agent = told(&site).await;
    for (pod, at) in ends {
        let name = &pod.place.name;
        assert!(arrives_by_link(&pod.place, node, at, VXLAN, 20), "{name}");
        assert!(arrives_from_nobody(pod, node, VXLAN, 20), "{name}");
        plugin(&site, "ADD", name, pod);
        assert!(!arrives_by_link(&pod.place, node, at, VXLAN, 3), "{name}");
        assert!(!arrives_from_nobody(pod, node, VXLAN, 3), "{name}");
        let from = format!("from=shop/{name}");
        agent.line(&["denied", "a VXLAN packet", &from]).await;
        assert!(arrives_by_link(&pod.place, node, at, PORT, 20), "{name}");
        assert!(arrives_from_nobody(pod, node, PORT, 20), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_do_not_reach_each_other_by_addresses_that_no_policy_knows() {
    let site = site(1, &[("web", 0), ("db", 0)]).await;
    let [web, db] = ["web", "db"].map(|name| site.cluster.pod(name));
    let (from, to) = (&web.place, &db.place);
    let at = link_local(to, "eth0");
    assert!(arrives_by_link(from, to, at, PORT, 20), "without rules");
    let agent = told(&site).await;
    assert!(!arrives_by_link(from, to, at, PORT, 5), "without a plugin");
    for name in ["web", "db"] {
        plugin(&site, "ADD", name, site.cluster.pod(name));
    }
    assert!(!arrives_by_link(from, to, at, PORT, 5));
    agent
        .line(&["denied", "from=shop/web", "by an address of the link"])
        .await;
    // The node is no other pod.
    let node = site.cluster.node(0);
    let bridge = link_local(node, "cni0");
    assert!(arrives_by_link(from, node, bridge, PORT, 20), "the node");
    // A bridge without pods is none of ours.
    let [left, right] = others(node);
    let at = link_local(&right, "eth0");
    assert!(arrives_by_link(&left, &right, at, PORT, 20), "no pods");
}

/// Two that are no pods, on a bridge of the node without any.
fn others(node: &Place) -> [Place; 2] {
    let bridge = "link add lan0 type bridge mcast_snooping 0\nlink set lan0 up\n";
    node.namespace.ip(bridge);
    ["left", "right"].map(|name| {
        let namespace = Namespace::make(&[name.to_owned()]).remove(0);
        let inside = namespace.name();
        // Its addresses work at once.
        namespace.set(&[
            ("ipv6/conf/all/accept_dad", "0"),
            ("ipv6/conf/default/accept_dad", "0"),
        ]);
        node.namespace.ip(&format!(
            "link add {name} type veth peer name eth0 netns {inside}\nlink set {name} master lan0 up\n"
        ));
        namespace.ip("link set lo up\nlink set eth0 up\n");
        Place {
            name: name.to_owned(),
            namespace: Arc::new(namespace),
            v4: Ipv4Addr::UNSPECIFIED,
            v6: Ipv6Addr::UNSPECIFIED,
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_are_held_to_their_addresses_reach_whom_they_reached() {
    let site = site(2, &[("web", 0), ("db", 0), ("other", 0), ("far", 1)]).await;
    let _agents = [told(&site).await, site.agent(1).await];
    for name in ["web", "db", "other"] {
        plugin(&site, "ADD", name, site.cluster.pod(name));
    }
    let table = &tables(&site)[1];
    assert!(table.contains(&site.cluster.pod("web").port), "{table}");
    let ports = [8080, 9000];
    site.cluster.serve_all(&ports);
    site.cluster.serve(site.cluster.outside(), &[8080]);
    let [web, db] = ["web", "db"].map(|name| site.cluster.pod(name).place.clone());
    proxy(&site, &db, &[(80, 8080)]);
    let forget = || {
        for pod in site.cluster.pods() {
            pod.place
                .namespace
                .run("ip", &["neigh", "flush", "all"], "");
        }
        let node = &site.cluster.node(0).namespace;
        node.run("ip", &["neigh", "flush", "dev", "cni0"], "");
    };
    // Neighbours are found, over both families, to pods here and there, the node, and the world outside.
    forget();
    let mut places = site.cluster.places();
    let transports = [Transport::Tcp, Transport::Udp, Transport::Sctp];
    let flows = transports.map(|transport| ports.map(|port| (transport, port)));
    let flows: Vec<_> = flows
        .into_iter()
        .flatten()
        .chain([(Transport::Icmp, 0)])
        .collect();
    let all = Table::ask(&places, &flows, &[false, true]);
    assert_eq!(all.wrong(|_| true), [""; 0]);
    places.retain(|place| place.name != "far");
    for v6 in [false, true] {
        forget();
        let outside = site.cluster.outside();
        let node = site.cluster.node(0);
        for place in &places {
            for (from, to) in [
                (place, outside.at(v6, 8080)),
                (outside, place.at(v6, 8080)),
                (node, place.at(v6, 8080)),
                (place, node.at(v6, 0)),
                // By way of a Service, also to itself.
                (place, service(v6, 80)),
            ] {
                let transport = if to.port() == 0 {
                    Transport::Icmp
                } else {
                    Transport::Tcp
                };
                let outcome = ask_one(from, to, transport);
                assert_eq!(outcome, Outcome::Answered, "{} -> {to}", from.name);
            }
        }
    }

    // Who looks for duplicates of its address has none yet, and is heard.
    let heard = Capture::start(&db.namespace);
    web.namespace.set(&[
        ("ipv6/conf/all/accept_dad", "1"),
        ("ipv6/conf/eth0/accept_dad", "1"),
    ]);
    web.namespace.ip("addr add fe80::77/64 dev eth0\n");
    std::thread::sleep(Duration::from_millis(1500));
    let heard = heard.stop();
    let nobody = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let is_search = |packet: &crate::capture::Packet| {
        (packet.tuple.from, packet.tuple.protocol, packet.kind) == (nobody, 58, 135)
    };
    assert!(heard.iter().any(is_search), "{heard:?}");
    for table in &tables(&site) {
        let mut lines = table.lines();
        let counter = lines.find(|line| line.trim() == "counter spoofed {");
        assert!(counter.is_some(), "{table}");
        let value = lines.next().map(str::trim);
        assert_eq!(value, Some("packets 0 bytes 0"), "{table}");
    }
}

/// Puts a pod behind an interface of its own, from which the node routes.
fn routed(node: &Place, pod: &Pod) {
    let (port, v4, v6) = (&pod.port, pod.place.v4, pod.place.v6);
    node.namespace.ip(&format!(
        "link set {port} nomaster\n\
         addr add 10.244.0.1/32 dev {port}\naddr add fd00:10:244::1/128 dev {port} nodad\n\
         route add {v4}/32 dev {port}\nroute add {v6}/128 dev {port}\n"
    ));
    pod.place.namespace.ip(&format!(
        "addr del {v4}/24 dev eth0\naddr del {v6}/64 dev eth0\n\
         addr add {v4}/32 dev eth0\naddr add {v6}/128 dev eth0 nodad\n\
         route replace 10.244.0.1/32 dev eth0\nroute replace fd00:10:244::1/128 dev eth0\n\
         route replace default via 10.244.0.1 dev eth0\nroute replace ::/0 via fd00:10:244::1 dev eth0\n"
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_behind_an_interface_of_its_own_sends_with_no_address_but_its_own() {
    let site = site(1, &[("web", 0), ("db", 0), ("liar", 0)]).await;
    let [web, db, liar] = ["web", "db", "liar"].map(|name| &site.cluster.pod(name).place);
    let node = site.cluster.node(0);
    routed(node, site.cluster.pod("liar"));
    let lies = format!(
        "addr add {}/32 dev eth0\naddr add {}/128 dev eth0 nodad\n",
        web.v4, web.v6
    );
    liar.namespace.ip(&lies);
    let _agent = told(&site).await;
    for v6 in [false, true] {
        assert!(
            reaches(liar, liar.address(v6), db) && reaches(liar, web.address(v6), db),
            "{v6}"
        );
    }
    plugin(&site, "ADD", "liar", site.cluster.pod("liar"));
    for v6 in [false, true] {
        assert!(reaches(liar, liar.address(v6), db), "{v6}");
        assert!(!arrives(liar, web.address(v6), db), "{v6}");
    }
    liar.namespace
        .ip(&lies.replace("addr add", "addr del").replace(" nodad", ""));
    for v6 in [false, true] {
        let outcome = ask_one(liar, node.at(v6, 0), Transport::Icmp);
        assert_eq!(outcome, Outcome::Answered, "{v6}");
    }
}
