//! No frames of a pod's own making among those of the overlay.
//!
//! Who sends to a node at a port of VXLAN speaks for any pod behind any node: what is in there is taken for frames of another
//! node's pods, and nothing in it proves who sent it (RFC 7348, section 7). So what a local pod sends to such a port of a node
//! is dropped, whatever policies say and however long it has been sent: on the way to this node by every address that it has,
//! on the way to others by those that their Nodes say. The node's own packets are not forwarded, and pods reach each other at
//! these ports as policies let them. What comes out of the overlay is no overlay itself, so that a node is not reached at the
//! addresses that it has among its pods either.

use super::compile::digit;
use super::frame::{known_set, told_drop};
use super::options::Options;
use super::table::{
    Chain, ChainName, CounterName, Element, End, Hook, Match, Rule, Ruleset, Set, SetKind, SetName,
    Verdict,
};
use super::terms::{Member, PeerKey};
use crate::netpol::{Family, Protocol, Selector};

/// Counts what is dropped.
const COUNTER: &str = "crafted";
/// What becomes of it.
const CHAIN: &str = "crafted";
/// The ports of VXLAN.
const PORTS: &str = "vxlan-ports";

/// Adds what its rules lead to and ask.
pub(super) fn add(options: &Options, ruleset: &mut Ruleset) {
    let ports = options.vxlan_ports.iter();
    let ports = Set {
        kind: SetKind::Ports,
        elements: ports.map(|port| Element::Ports(*port, *port)).collect(),
    };
    ruleset.sets.insert(PORTS.into(), ports);
    ruleset.counters.insert(CounterName::from(COUNTER));
    let chain = Chain {
        hook: None,
        rules: told_drop(
            options,
            COUNTER,
            "ringfence crafted egress",
            "what pods make to be taken for the overlay is counted and dropped",
        ),
    };
    ruleset.chains.insert(ChainName::from(CHAIN), chain);
}

/// The rules for packets to this node, or on their way to others. They come before all others: what is dropped belongs to no
/// connection that was let in.
pub(super) fn rules(hook: Hook) -> Vec<Rule> {
    let to_port = || vec![Match::Protocol(Protocol::Udp), Match::Ports(PORTS.into())];
    let drop = |more: Vec<Match>, why: &str| {
        let matches = to_port().into_iter().chain(more).collect();
        Rule::new(matches, Verdict::Goto(CHAIN.into()), why)
    };
    let mut rules = Vec::new();
    for family in Family::BOTH {
        let from_pod = Match::Address(family, End::Source, known_set(family));
        match hook {
            Hook::Forward => rules.push(drop(
                vec![
                    from_pod,
                    Match::Address(family, End::Destination, nodes_set(family)),
                ],
                "a pod sends no VXLAN to nodes: it would speak for any pod",
            )),
            Hook::Input => rules.push(drop(
                vec![from_pod],
                "a pod sends no VXLAN to its node: it would speak for any pod",
            )),
            Hook::Prerouting => {}
        }
    }
    if hook == Hook::Input {
        rules.push(drop(
            vec![Match::FromOverlay],
            "what comes out of the overlay is no overlay itself",
        ));
    }
    rules
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
