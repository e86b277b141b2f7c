//! Protocols and ports of a rule.

use serde_json::{Value, json};

use crate::netpol::testing::{Cluster, patched, pod, policy, problems};
use crate::netpol::{Object, Port, Protocol, parse};

/// A cluster with `a/web`, whose ingress is open at these ports, and `a/client`.
fn open_at(ports: Value) -> Cluster {
    Cluster::of([
        pod("a/web", "app=web", ["10.0.0.1"]),
        pod("a/client", "", ["10.0.0.2"]),
        policy(
            "a/p",
            json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"ports": ports}]}),
        ),
    ])
}

fn passing<const N: usize>(ports: Value, at: [&str; N]) -> [bool; N] {
    let cluster = open_at(ports);
    at.map(|at| cluster.allows("a/client", "a/web", at))
}

/// A pod with one container and these ports.
fn serving(place: &str, address: &str, ports: Value) -> Value {
    let spec = json!({"spec": {"containers": [{"name": "main", "ports": ports}]}});
    patched(pod(place, "app=web", [address]), spec)
}

/// Line 8: absent or empty `ports` mean all ports of all protocols; with one item or more, only those.
#[test]
fn s1_08_no_ports_mean_all_ports_of_all_protocols() {
    let at = ["TCP 80", "UDP 53", "SCTP 9"];
    assert_eq!(passing(json!(null), at), [true; 3]);
    assert_eq!(passing(json!([]), at), [true; 3]);
    assert_eq!(passing(json!([{"port": 80}]), at), [true, false, false]);
}

/// Line 19: a port without a protocol means TCP, even when it is called `dns`.
#[test]
fn s1_19_a_port_without_protocol_is_tcp() {
    assert_eq!(
        passing(json!([{"port": 53}]), ["TCP 53", "UDP 53", "SCTP 53"]),
        [true, false, false]
    );
    let named = serving(
        "a/web",
        "10.0.0.1",
        json!([{"name": "dns", "containerPort": 53, "protocol": "UDP"}]),
    );
    let cluster = open_at(json!([{"port": "dns"}])).with(&named);
    assert!(!cluster.allows("a/client", "a/web", "UDP 53"));
    assert!(!cluster.allows("a/client", "a/web", "TCP 53"));
    let cluster = open_at(json!([{"port": "dns", "protocol": "UDP"}])).with(&named);
    assert!(cluster.allows("a/client", "a/web", "UDP 53"));
}

/// Line 20: a protocol without a port means all its ports; an entry without either is all of TCP.
#[test]
fn s1_20_a_protocol_without_port_is_all_ports_of_it() {
    let at = ["UDP 1", "UDP 65535", "TCP 1", "SCTP 1"];
    assert_eq!(
        passing(json!([{"protocol": "UDP"}]), at),
        [true, true, false, false]
    );
    assert_eq!(passing(json!([{}]), at), [false, false, true, false]);
}

/// Line 21: `endPort` is inclusive and not less than `port`; with a named or missing port it is refused.
#[test]
fn s1_21_a_range_includes_both_ends() {
    let at = ["TCP 79", "TCP 80", "TCP 85", "TCP 90", "TCP 91", "UDP 80"];
    let range = json!([{"port": 80, "endPort": 90}]);
    assert_eq!(passing(range, at), [false, true, true, true, false, false]);
    assert_eq!(
        passing(json!([{"port": 80, "endPort": 80}]), ["TCP 80", "TCP 81"]),
        [true, false]
    );

    let refused = |port: Value| {
        let found = problems(&policy("a/p", json!({"ingress": [{"ports": [port]}]})));
        found.join("; ")
    };
    assert_eq!(
        refused(json!({"port": 80, "endPort": 79})),
        "spec.ingress[0].ports[0].endPort: must not be less than the port 80"
    );
    assert_eq!(
        refused(json!({"port": "http", "endPort": 80})),
        "spec.ingress[0].ports[0].endPort: may not be given with a named port"
    );
    assert_eq!(
        refused(json!({"endPort": 80})),
        "spec.ingress[0].ports[0].endPort: may not be given without a port"
    );
    assert_eq!(
        refused(json!({"port": 0, "endPort": 65536})),
        "spec.ingress[0].ports[0].port: 0: must be a port number between 1 and 65535; \
         spec.ingress[0].ports[0].endPort: 65536: must be a port number between 1 and 65535"
    );
}

/// Line 22: a named port is looked up in each destination pod by name and protocol, so that one rule can mean different
/// numbers; without such a port, and outside of the cluster, it matches nothing.
#[test]
fn s1_22_a_named_port_is_resolved_by_each_destination_pod() {
    let web = |number: u16| json!([{"name": "web", "containerPort": number}]);
    let cluster = Cluster::of([
        pod("a/client", "", ["10.0.0.9"]),
        serving("a/one", "10.0.0.1", web(8080)),
        serving("a/two", "10.0.0.2", web(9090)),
        serving("a/none", "10.0.0.3", json!([{"containerPort": 8080}])),
        serving(
            "a/udp",
            "10.0.0.4",
            json!([{"name": "web", "containerPort": 8080, "protocol": "UDP"}]),
        ),
        policy(
            "a/p",
            json!({"policyTypes": ["Egress"], "egress": [{"ports": [{"port": "web"}]}]}),
        ),
    ]);
    let to = |at: &str| {
        ["a/one", "a/two", "a/none", "a/udp", "192.0.2.1"]
            .map(|to| cluster.allows("a/client", to, at))
    };
    assert_eq!(to("TCP 8080"), [true, false, false, false, false]);
    assert_eq!(to("TCP 9090"), [false, true, false, false, false]);
    assert_eq!(to("UDP 8080"), [false; 5]);

    // Also when the rule names the address: the name means the same pods as without.
    let block = json!({"policyTypes": ["Egress"], "egress": [
        {"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": "web"}]},
    ]});
    let cluster = cluster.with(&policy("a/p", block));
    assert!(cluster.allows("a/client", "a/one", "TCP 8080"));
    assert!(!cluster.allows("a/client", "192.0.2.1", "TCP 8080"));
}

#[test]
fn ports_of_sidecars_have_names_and_those_of_other_init_containers_do_not() {
    let spec = |restart: Value| {
        let port = json!([{"name": "web", "containerPort": 8080}]);
        let init = json!({"name": "init", "ports": port, "restartPolicy": restart});
        json!({"spec": {"initContainers": [init]}})
    };
    let allows = |restart: Value| {
        let web = patched(pod("a/web", "app=web", ["10.0.0.1"]), spec(restart));
        open_at(json!([{"port": "web"}]))
            .with(&web)
            .allows("a/client", "a/web", "TCP 8080")
    };
    assert!(allows(json!("Always")));
    assert!(!allows(Value::Null));
}

#[test]
fn a_name_that_several_containers_use_means_all_their_numbers() {
    let port = |number: u16| json!([{"name": "web", "containerPort": number}]);
    let containers =
        json!([{"name": "one", "ports": port(80)}, {"name": "two", "ports": port(81)}]);
    let web = patched(
        pod("a/web", "app=web", ["10.0.0.1"]),
        json!({"spec": {"containers": containers}}),
    );
    let cluster = open_at(json!([{"port": "web"}])).with(&web);
    assert_eq!(
        ["TCP 80", "TCP 81", "TCP 82"].map(|at| cluster.allows("a/client", "a/web", at)),
        [true, true, false]
    );
}

/// Line 23: ports are those of the destination pod, after a service's port has been translated.
#[test]
fn s1_23_the_port_is_the_one_of_the_pod_and_not_of_the_service() {
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "a", "name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "web"}, {"port": 81}]},
    });
    let web = serving(
        "a/web",
        "10.0.0.1",
        json!([{"name": "web", "containerPort": 8080}]),
    );
    let cluster = open_at(json!([{"port": 80}])).with(&web).with(&service);
    let pod = cluster.pod("a/web");
    let service = cluster
        .0
        .service(&"a".into(), &"web".into())
        .expect("the service");
    assert!(service.selects(pod) && !service.selects(cluster.pod("a/client")));
    let targets: Vec<_> = service
        .ports
        .iter()
        .map(|port| port.at(pod).map(Port::get))
        .collect();
    assert_eq!(targets, [Some(8080), Some(81)]);
    assert!(!cluster.allows("a/client", "a/web", "TCP 8080"));
    assert!(cluster.allows("a/client", "a/web", "TCP 80"));
}

/// Line 36: a policy that allows SCTP only isolates TCP and UDP too, and its SCTP is not read as TCP.
#[test]
fn s1_36_a_policy_for_sctp_denies_tcp_and_udp() {
    let at = ["SCTP 80", "TCP 80", "UDP 80"];
    assert_eq!(
        passing(json!([{"protocol": "SCTP", "port": 80}]), at),
        [true, false, false]
    );
    assert_eq!(
        passing(json!([{"protocol": "SCTP"}]), at),
        [true, false, false]
    );
}

/// Line 37: an allow for UDP only does not open TCP.
#[test]
fn s1_37_an_allow_for_udp_does_not_open_tcp() {
    assert_eq!(
        passing(
            json!([{"protocol": "UDP", "port": 53}]),
            ["UDP 53", "TCP 53"]
        ),
        [true, false]
    );
}

/// Line 38: what a deny-all guarantees is that TCP, UDP and SCTP are denied, which is all that the model speaks of.
#[test]
fn s1_38_a_policy_without_rules_denies_tcp_udp_and_sctp() {
    let cluster = open_at(json!(null)).with(&policy("a/p", json!({})));
    assert_eq!(
        Protocol::ALL.map(|protocol| cluster.allows("a/client", "a/web", &format!("{protocol} 7"))),
        [false; 3]
    );
}

/// Line 39: DNS needs UDP and TCP, at the port of the DNS pods and not of their service.
#[test]
fn s1_39_dns_needs_udp_and_tcp_at_the_port_of_the_dns_pods() {
    let dns = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "kube-system", "name": "kube-dns"},
        "spec": {
            "clusterIP": "10.96.0.10",
            "selector": {"k8s-app": "kube-dns"},
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 8053},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 8053},
            ],
        },
    });
    let allow = |ports: Value| {
        let rule = json!({"to": [{"namespaceSelector": {}}], "ports": ports});
        Cluster::of([
            pod("a/web", "", ["10.0.0.1"]),
            pod("kube-system/coredns", "k8s-app=kube-dns", ["10.0.9.9"]),
            policy("a/p", json!({"policyTypes": ["Egress"], "egress": [rule]})),
        ])
    };
    let Some(Object::Service(service)) = parse(&dns).expect("valid").map(|parsed| parsed.object)
    else {
        panic!("a service")
    };
    let resolves = |cluster: &Cluster| -> Vec<bool> {
        let pod = cluster.pod("kube-system/coredns");
        let ports = service.ports.iter();
        let at = ports.map(|port| format!("{} {}", port.protocol, port.at(pod).expect("a number")));
        at.map(|at| cluster.allows("a/web", "kube-system/coredns", &at))
            .collect()
    };
    let entry = |protocol: &str, port: u16| json!({"protocol": protocol, "port": port});
    assert_eq!(
        resolves(&allow(json!([entry("UDP", 53), entry("TCP", 53)]))),
        [false, false]
    );
    assert_eq!(resolves(&allow(json!([entry("UDP", 8053)]))), [true, false]);
    assert_eq!(
        resolves(&allow(json!([entry("UDP", 8053), entry("TCP", 8053)]))),
        [true, true]
    );
}
