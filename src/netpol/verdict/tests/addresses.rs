//! Address blocks and the two families.

use serde_json::{Value, json};

use crate::netpol::testing::{
    Cluster, deployment, network_policy, pod, policy, problem_fields, problems,
};
use crate::netpol::{EndVerdict, Peer, Peers};

/// A cluster with `a/web`, which lets in what these peers say, and a client of two addresses.
fn behind(peers: Value) -> Cluster {
    Cluster::of([
        pod("a/web", "app=web", ["10.0.0.1", "fd00::1"]),
        pod("b/client", "", ["10.1.2.3", "fd00:1::3"]),
        pod("b/four", "", ["10.1.2.4"]),
        pod("b/six", "", ["fd00:1::6"]),
        policy(
            "a/p",
            json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": peers}]}),
        ),
    ])
}

fn block(cidr: &str, except: &[&str]) -> Value {
    json!({"ipBlock": {"cidr": cidr, "except": except}})
}

/// Line 25: an ipBlock means the addresses of pods too; `0.0.0.0/0` opens to all pods.
#[test]
fn s1_25_an_ip_block_matches_addresses_of_pods() {
    let from = ["b/four", "b/client", "192.0.2.1"];
    assert_eq!(
        behind(json!([block("10.1.2.4/32", &[])])).allows_from(from, "a/web"),
        [true, false, false]
    );
    assert_eq!(
        behind(json!([block("0.0.0.0/0", &[])])).allows_from(from, "a/web"),
        [true, true, true]
    );
}

/// Line 26: an `except` is a strict subset of its block and of the same family, and takes away from its own peer only:
/// another peer, rule or policy may allow what it leaves out.
#[test]
fn s1_26_an_exception_is_only_from_its_own_block() {
    let from = ["b/four", "192.0.2.1"];
    let carved = block("0.0.0.0/0", &["10.0.0.0/8"]);
    assert_eq!(
        behind(json!([carved])).allows_from(from, "a/web"),
        [false, true]
    );
    let again = json!([carved, block("10.1.2.0/24", &[])]);
    assert_eq!(behind(again).allows_from(from, "a/web"), [true, true]);
    let other_policy = policy(
        "a/q",
        json!({"ingress": [{"from": [block("10.1.2.4/32", &[])]}]}),
    );
    assert_eq!(
        behind(json!([carved]))
            .with(&other_policy)
            .allows_from(from, "a/web"),
        [true, true]
    );

    let excepts = [
        "10.0.0.0/8",
        "10.0.0.0/7",
        "11.0.0.0/9",
        "fd00::/9",
        "10.0.0.0/9",
        "10",
    ];
    let refused = policy(
        "a/p",
        json!({"egress": [{"to": [block("10.0.0.0/8", &excepts)]}]}),
    );
    let expected =
        [0, 1, 2, 3, 5].map(|index| format!("spec.egress[0].to[0].ipBlock.except[{index}]"));
    assert_eq!(problem_fields(&refused), expected);
    assert_eq!(
        problems(&refused)[0],
        "spec.egress[0].to[0].ipBlock.except[0]: \"10.0.0.0/8\": must be a smaller block within the cidr 10.0.0.0/8"
    );
}

/// Line 27: IPv4 and IPv6 are independent: a block of one never matches the other, and a pod with two addresses can be
/// allowed over one of them only.
#[test]
fn s1_27_the_two_address_families_are_independent() {
    let four = behind(json!([block("0.0.0.0/0", &[])]));
    let six = behind(json!([block("::/0", &[])]));
    let both = |cluster: &Cluster| {
        ["TCP 80 IPv4", "TCP 80 IPv6"].map(|at| cluster.allows("b/client", "a/web", at))
    };
    assert_eq!(both(&four), [true, false]);
    assert_eq!(both(&six), [false, true]);
    assert_eq!(
        four.allows_from(["192.0.2.1", "2001:db8::1"], "a/web"),
        [true, false]
    );
    assert_eq!(
        six.allows_from(["192.0.2.1", "2001:db8::1"], "a/web"),
        [false, true]
    );

    // Without a family the question is whether there is any way, and the answer says which.
    let verdict = six.verdict("b/client", "a/web", "TCP 80");
    assert!(verdict.allowed());
    assert_eq!(
        verdict.addresses.0,
        Some("fd00:1::3".parse().expect("an address"))
    );
    assert_eq!(six.allows_from(["b/four", "b/six"], "a/web"), [false, true]);
}

#[test]
fn ipv4_at_one_end_and_ipv6_at_the_other_do_not_add_up() {
    let egress = json!({"policyTypes": ["Egress"], "egress": [{"to": [block("::/0", &[])]}]});
    let cluster = behind(json!([block("0.0.0.0/0", &[])])).with(&policy("b/out", egress));
    assert!(!cluster.allows("b/client", "a/web", "TCP 80"));
    let denied = cluster.verdict("b/client", "a/web", "TCP 80");
    assert_eq!(
        denied.addresses.1,
        Some("10.0.0.1".parse().expect("an address")),
        "the first address is reported"
    );
}

#[test]
fn ends_without_a_common_family_cannot_reach_each_other() {
    let cluster = behind(json!([block("0.0.0.0/0", &[])]));
    assert_eq!(
        cluster.verdict("b/four", "b/six", "TCP 80").ingress,
        EndVerdict::NoAddress
    );
    assert_eq!(
        cluster.verdict("b/six", "b/four", "TCP 80").egress,
        EndVerdict::NoAddress
    );
    assert!(!cluster.allows("b/four", "a/web", "TCP 80 IPv6"));
    assert!(!cluster.allows("192.0.2.1", "b/six", "TCP 80"));
}

/// Line 28: stored policies may have blocks that are not canonical; they mean the masked block.
#[test]
fn s1_28_a_block_that_is_not_canonical_means_the_masked_one() {
    let spec = json!({"ingress": [{"from": [block("10.1.2.3/8", &["010.001.000.000/016"])]}]});
    let policy = network_policy(&policy("a/p", spec));
    let Peers::Only(peers) = &policy.ingress[0].peers else {
        panic!("one peer")
    };
    let expected = Peer::Block {
        cidr: "10.0.0.0/8".parse().expect("a block"),
        except: vec!["10.1.0.0/16".parse().expect("a block")],
    };
    assert_eq!(*peers, [expected]);
}

/// Line 35: a pod without an address is in no block, but it is judged by its labels and isolated from the start.
#[test]
fn s1_35_a_pod_without_an_address_is_isolated_but_in_no_block() {
    let pending = pod("b/new", "app=new", []);
    let cluster = behind(json!([block("10.0.0.0/8", &[]), {"podSelector": {}}])).with(&pending);
    assert!(!cluster.allows("b/new", "a/web", "TCP 80"));
    let isolated = cluster.with(&policy("b/deny", json!({})));
    assert!(!isolated.allows("b/four", "b/new", "TCP 80"));
    let selected = json!([{"namespaceSelector": {}}]);
    assert!(
        behind(selected)
            .with(&pending)
            .allows("b/new", "a/web", "TCP 80")
    );
}

#[test]
fn an_unknown_address_is_only_in_a_block_of_all_addresses() {
    let template = deployment("b/app", "app=app");
    let allows = |peers: Value, at: &str| {
        let cluster = behind(peers).with(&template);
        cluster.allows("Deployment:b/app", "a/web", at)
    };
    assert!(allows(json!([block("0.0.0.0/0", &[])]), "TCP 80"));
    assert!(!allows(json!([block("0.0.0.0/0", &[])]), "TCP 80 IPv6"));
    assert!(allows(json!([block("::/0", &[])]), "TCP 80"));
    assert!(!allows(
        json!([block("0.0.0.0/0", &["10.0.0.0/8"])]),
        "TCP 80"
    ));
    assert!(!allows(json!([block("0.0.0.0/1", &[])]), "TCP 80"));
}

#[test]
fn an_ipv4_address_in_ipv6_writing_is_an_ipv4_address() {
    let cluster = behind(json!([block("::ffff:192.0.2.0/120", &[])]));
    assert_eq!(
        cluster.allows_from(["192.0.2.1", "::ffff:192.0.2.1", "192.0.3.1"], "a/web"),
        [true, true, false]
    );
}
