//! What policies say of flows through a Service, translated on the node as kube-proxy does, and of what is no connection:
//! errors, and the search for neighbours.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::Place;
use crate::connection::{Connection, Exchange, Side};
use crate::probe::{self, Outcome, Probe, Transport};
use crate::site::{Named, Site};

const NAMESPACE: &str = "shop";
/// `web` and `db` on one node, `far` on the other.
const PODS: [(&str, usize); 4] = [("web", 0), ("db", 0), ("other", 0), ("far", 1)];
/// How long a change may take until packets show it.
const PATIENCE: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_millis(300);
/// Where Services are, and their port; their endpoints have another one.
const CLUSTER_IPS: [&str; 2] = ["10.96.0.10", "fd00:10:96::10"];
const PORT: u16 = 80;
const TARGET: u16 = 8080;
/// The first port of connections that stay open.
const KEPT: u16 = 9010;

pub(crate) fn service(v6: bool, port: u16) -> SocketAddr {
    SocketAddr::new(CLUSTER_IPS[usize::from(v6)].parse().unwrap(), port)
}

async fn site() -> Site {
    let site = Site::new(2, &PODS, &[NAMESPACE]).await;
    for (name, node) in PODS {
        let pod = named(name);
        site.schedule(pod, node).await;
        site.running(pod, &site.cluster.pod(name).place).await;
    }
    site
}

fn named(name: &str) -> Named<'_> {
    Named {
        namespace: NAMESPACE,
        name,
        app: name,
    }
}

/// Translates the Service's addresses to a pod's on every node, also for who connects to itself.
pub(crate) fn proxy(site: &Site, to: &Place, ports: &[(u16, u16)]) {
    let [v4, v6] = CLUSTER_IPS;
    let rules: String = ports
        .iter()
        .map(|(port, target)| {
            format!(
                "meta l4proto {{ tcp, udp }} ip daddr {v4} th dport {port} dnat ip to {}:{target}\n\
                 meta l4proto {{ tcp, udp }} ip6 daddr {v6} th dport {port} dnat ip6 to [{}]:{target}\n",
                to.v4, to.v6
            )
        })
        .collect();
    // As the kubelet or the bridge plugin sets it: a bridge gives nothing back to where it came from without being told.
    let pod = site.cluster.pods().find(|pod| pod.place.v4 == to.v4);
    let pod = pod.expect("a pod of the cluster");
    let node = &site.cluster.node(pod.node).namespace;
    let port = &pod.port;
    node.ip(&format!("link set {port} type bridge_slave hairpin on\n"));
    for node in 0..2 {
        site.cluster.node(node).namespace.nft(&format!(
            "table inet proxy {{
                chain prerouting {{ type nat hook prerouting priority dstnat; {rules} }}
                chain output {{ type nat hook output priority -100; {rules} }}
                chain postrouting {{ type nat hook postrouting priority srcnat;
                    ip saddr {} ip daddr {} masquerade
                    ip6 saddr {} ip6 daddr {} masquerade
                }}
            }}",
            to.v4, to.v4, to.v6, to.v6
        ));
    }
}

fn asked(from: &Place, to: SocketAddr, transport: Transport) -> Outcome {
    let probe = Probe {
        from: from.clone(),
        to,
        transport,
    };
    probe::ask(&[probe])[0]
}

/// Waits until a connection has this outcome.
pub(crate) fn becomes(from: &Place, to: SocketAddr, wanted: Outcome) {
    let begun = Instant::now();
    loop {
        let outcome = asked(from, to, Transport::Tcp);
        if outcome == wanted {
            return;
        }
        let from = &from.name;
        assert!(
            begun.elapsed() < PATIENCE,
            "{from} -> {to}: {outcome:?}, not {wanted:?}"
        );
    }
}

/// Only one pod may reach another one, at its own port.
fn only(from: &str, to: &str) -> Value {
    json!({
        "podSelector": {"matchLabels": {"app": to}}, "policyTypes": ["Ingress"],
        "ingress": [{
            "from": [{"podSelector": {"matchLabels": {"app": from}}}],
            "ports": [
                {"port": TARGET}, {"port": TARGET, "protocol": "UDP"},
                {"port": KEPT, "endPort": KEPT + 1}, {"port": KEPT + 2, "protocol": "UDP"},
            ],
        }],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_through_a_service_are_judged_by_their_endpoint() {
    let site = site().await;
    let place = |name: &str| &site.cluster.pod(name).place;
    let (web, db, other, far) = (place("web"), place("db"), place("other"), place("far"));
    site.cluster.serve_all(&[TARGET]);
    let open = [9000, 9001, KEPT, KEPT + 1, KEPT + 2].map(|port| (port, port));
    proxy(&site, db, &[&[(PORT, TARGET)], &open[..]].concat());
    let _agents = [site.agent(0).await, site.agent(1).await];
    let node = site.cluster.node(0);
    for v6 in [false, true] {
        for from in [web, other, far, db, node] {
            becomes(from, service(v6, PORT), Outcome::Answered);
        }
    }
    // Open before the policies change, through the Service, on one node and across.
    let mut cut: Vec<Connection> = [(other, false, 9000), (far, true, 9001)]
        .map(|(from, v6, port)| Connection::open_by(from, db, port, service(v6, port)).unwrap())
        .into();
    let mut datagrams = Exchange::open_by(other, db, 9001, service(true, 9001)).unwrap();
    for side in [Side::Client, Side::Server] {
        assert!(cut.iter_mut().all(|it| it.passes(side, PATIENCE)));
        assert!(datagrams.passes(side, PATIENCE));
    }
    let mut kept: Vec<Connection> = [(false, KEPT), (true, KEPT + 1)]
        .map(|(v6, port)| Connection::open_by(web, db, port, service(v6, port)).unwrap())
        .into();
    let mut kept_datagrams =
        Exchange::open_by(web, db, KEPT + 2, service(false, KEPT + 2)).unwrap();
    assert!(kept_datagrams.passes(Side::Client, PATIENCE));

    // By the port of the endpoint, not by that of the Service, and by the client's own address.
    site.policy(NAMESPACE, "db", &only("web", "db")).await;
    let begun = Instant::now();
    for (connection, side) in cut.iter_mut().zip([Side::Server, Side::Client]) {
        assert!(connection.cut(side, QUIET, PATIENCE).is_some());
    }
    println!(
        "cut within {:?}, the silence of {QUIET:?} included",
        begun.elapsed()
    );
    for side in [Side::Client, Side::Server] {
        assert!(!cut.iter_mut().any(|it| it.passes(side, QUIET)), "{side:?}");
        assert!(!datagrams.passes(side, QUIET), "{side:?}");
    }
    for side in [Side::Server, Side::Client] {
        assert!(kept.iter_mut().all(|it| it.passes(side, QUIET)), "{side:?}");
        assert!(kept_datagrams.passes(side, QUIET), "{side:?}");
    }
    for v6 in [false, true] {
        for (from, wanted) in [
            (web, Outcome::Answered),
            // The node reaches its own pods, and a pod itself, also by way of a Service.
            (node, Outcome::Answered),
            (db, Outcome::Answered),
            (other, Outcome::Silent),
            (far, Outcome::Silent),
        ] {
            for transport in [Transport::Tcp, Transport::Udp] {
                let outcome = asked(from, service(v6, PORT), transport);
                assert_eq!(outcome, wanted, "{} {transport:?} {v6}", from.name);
            }
        }
    }

    // Egress, too: the endpoint counts, not the Service's address.
    let to_service = json!({
        "podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"],
        "egress": [{"to": CLUSTER_IPS.map(|ip| {
            let bits = if ip.contains(':') { 128 } else { 32 };
            json!({"ipBlock": {"cidr": format!("{ip}/{bits}")}})
        })}],
    });
    site.policy(NAMESPACE, "web", &to_service).await;
    becomes(web, service(false, PORT), Outcome::Silent);
    assert_eq!(
        asked(web, service(true, PORT), Transport::Tcp),
        Outcome::Silent
    );
    let to_db = json!({
        "podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"],
        "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "db"}}}], "ports": [{"port": TARGET}]}],
    });
    site.policy(NAMESPACE, "web", &to_db).await;
    for v6 in [false, true] {
        becomes(web, service(v6, PORT), Outcome::Answered);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_come_back_and_neighbours_are_found_whatever_is_denied() {
    let site = site().await;
    let place = |name: &str| &site.cluster.pod(name).place;
    let (web, db, far) = (place("web"), place("db"), place("far"));
    site.cluster.serve_all(&[TARGET]);
    let _agents = [site.agent(0).await, site.agent(1).await];
    let deny = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
    site.policy(NAMESPACE, "deny", &deny).await;
    becomes(web, db.at(false, TARGET), Outcome::Silent);
    becomes(web, far.at(true, TARGET), Outcome::Silent);

    // All that is known of neighbours is forgotten; who asks the node is answered, and the kubelet reaches its pods.
    for name in ["web", "db"] {
        let namespace = &place(name).namespace;
        namespace.run("ip", &["neigh", "flush", "all"], "");
    }
    let node = site.cluster.node(0);
    node.namespace
        .run("ip", &["neigh", "flush", "dev", "cni0"], "");
    for v6 in [false, true] {
        for pod in [web, db] {
            let outcome = asked(node, pod.at(v6, TARGET), Transport::Tcp);
            assert_eq!(outcome, Outcome::Answered, "node -> {} {v6}", pod.name);
        }
        assert_eq!(
            asked(web, db.at(v6, TARGET), Transport::Udp),
            Outcome::Silent
        );
    }

    // Two ports are allowed from web; nobody listens at the other one. Who asks is told so, by ICMP, over both families,
    // on the same node and across.
    for (to, name) in [(db, "db"), (far, "far")] {
        let ports = json!([{"port": TARGET}, {"port": 9999}, {"port": 9999, "protocol": "UDP"}]);
        let spec = json!({
            "podSelector": {"matchLabels": {"app": name}}, "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": ports}],
        });
        site.policy(NAMESPACE, &format!("to-{name}"), &spec).await;
        let spec = json!({
            "podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"],
            "egress": [{"to": [{"podSelector": {"matchLabels": {"app": name}}}], "ports": ports}],
        });
        site.policy(NAMESPACE, &format!("from-web-{name}"), &spec)
            .await;
        for v6 in [false, true] {
            // Also with neighbours that are unknown.
            let namespace = &web.namespace;
            namespace.run("ip", &["neigh", "flush", "all"], "");
            becomes(web, to.at(v6, TARGET), Outcome::Answered);
            for transport in [Transport::Tcp, Transport::Udp] {
                let outcome = asked(web, to.at(v6, 9999), transport);
                assert_eq!(outcome, Outcome::Refused, "{name} {transport:?} {v6}");
            }
            assert_eq!(asked(web, to.at(v6, 9998), Transport::Udp), Outcome::Silent);
        }
    }
}
