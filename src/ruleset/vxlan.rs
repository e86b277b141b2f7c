//! No frames of a pod's own making among those of the overlay.
//!
//! Who sends to a node at a port of VXLAN speaks for any pod behind any node: what is in there is taken for frames of another
//! node's pods, and nothing in it proves who sent it (RFC 7348, section 7). So what a local pod sends to such a port of a node
//! is dropped, whatever policies say and however long it has been sent: on the way to this node by every address that it has,
//! on the way to others by those that their Nodes say. The node's own packets are not forwarded, and pods reach each other at
//! these ports as policies let them. Who is held to its own addresses may still send with those that are nobody's, and sends none
//! of it with them to anybody. What comes out of the overlay is no overlay itself, so that a node is not reached at the
//! addresses that it has among its pods either.

use super::compile::digit;
use super::frame::{add_told_drop, known_set};
use super::options::Options;
use super::sources::nobody_set;
use super::table::{Element, End, Match, Rule, Ruleset, Set, SetKind, SetName, Tracked, Verdict};
use super::terms::{Member, PeerKey};
use crate::netpol::{Family, Protocol, Selector};

/// Counts what is dropped.
const COUNTER: &str = "crafted";
/// What becomes of it.
const CHAIN: &str = "crafted";
/// What asks of forwarded packets whether they are that.
pub(super) const FORWARDED: &str = "crafted-forward";
/// What asks it of packets to the node.
pub(super) const TO_NODE: &str = "crafted-input";
/// The ports of VXLAN.
const PORTS: &str = "vxlan-ports";

/// The rule for what comes from a pod with an address that is nobody's.
pub(super) fn from_nobody(family: Family) -> Rule {
    Rule::new(
        vec![
            Match::Address(family, End::Source, nobody_set(family)),
            Match::Protocol(Protocol::Udp),
            Match::Ports(PORTS.into()),
        ],
        Verdict::Goto(CHAIN.into()),
        "a pod sends no VXLAN with an address that is nobody's",
    )
}

/// Adds what becomes of what pods make, and the ports by which it is known.
pub(super) fn add(options: &Options, ruleset: &mut Ruleset) {
    let ports = options.vxlan_ports.iter();
    let ports = Set {
        kind: SetKind::Ports,
        elements: ports.map(|port| Element::Ports(*port, *port)).collect(),
    };
    ruleset.sets.insert(PORTS.into(), ports);
    add_told_drop(
        options,
        ruleset,
        (CHAIN, COUNTER),
        "ringfence crafted egress",
        "what pods make to be taken for the overlay is counted and dropped",
    );
}

/// Adds what is asked of packets to such a port, on their way to others and to this node.
pub(super) fn add_asking(ruleset: &mut Ruleset) {
    let drop =
        |matches: Vec<Match>, why: &str| Rule::new(matches, Verdict::Goto(CHAIN.into()), why);
    let from_pod = |family| Match::Address(family, End::Source, known_set(family));
    let answer = Rule::new(
        vec![Match::Tracked(Tracked::Reply)],
        Verdict::Return,
        "an answer to a node goes to the port that the node asked from",
    );
    let to_other = Family::BOTH.map(|family| {
        let to_node = Match::Address(family, End::Destination, nodes_set(family));
        drop(
            vec![from_pod(family), to_node],
            "a pod sends no VXLAN to nodes: it would speak for any pod",
        )
    });
    ruleset.chain_mut(FORWARDED.into()).rules = [answer].into_iter().chain(to_other).collect();
    let to_own = Family::BOTH.map(|family| {
        drop(
            vec![from_pod(family)],
            "a pod sends no VXLAN to its node: it would speak for any pod",
        )
    });
    let unpacked = drop(
        vec![Match::FromOverlay],
        "what comes out of the overlay is no overlay itself",
    );
    ruleset.chain_mut(TO_NODE.into()).rules = to_own.into_iter().chain([unpacked]).collect();
}

/// The rule that has packets to such a port asked about. It comes before all others: a connection that was let in before is
/// dropped, too.
pub(super) fn asks(chain: &'static str) -> Rule {
    Rule::new(
        vec![Match::Protocol(Protocol::Udp), Match::Ports(PORTS.into())],
        Verdict::Jump(chain.into()),
        "what may be VXLAN is asked about",
    )
}

/// The set of all nodes' addresses.
pub(super) fn nodes_set(family: Family) -> SetName {
    format!("nodes{}", digit(family)).into()
}

/// Who is in it.
pub(super) fn nodes() -> PeerKey {
    PeerKey {
        member: Member::Nodes(Selector::everything()),
        named: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::render;
    use crate::ruleset::table::ChainName;

    #[test]
    fn only_an_answer_is_forwarded_to_such_a_port_of_a_node() {
        let mut ruleset = Ruleset::default();
        add_asking(&mut ruleset);
        let rules = |chain: &str| -> Vec<String> {
            let chain = &ruleset.chains[&ChainName::from(chain)];
            chain.rules.iter().map(render::rule).collect()
        };
        let crafted = |from: &str, to: &str| format!("meta nfproto ipv{from} {to} goto crafted");
        // What is of no connection goes no way of one: it is no answer.
        assert_eq!(
            rules(FORWARDED),
            [
                "ct direction reply return".to_owned(),
                crafted("4", "ip saddr @known4 ip daddr @nodes4"),
                crafted("6", "ip6 saddr @known6 ip6 daddr @nodes6"),
            ]
        );
        assert_eq!(
            rules(TO_NODE),
            [
                crafted("4", "ip saddr @known4"),
                crafted("6", "ip6 saddr @known6"),
                "meta iifkind \"vxlan\" goto crafted".to_owned(),
            ]
        );
    }
}
