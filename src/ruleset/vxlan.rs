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
use super::frame::{known_set, told_drop};
use super::options::Options;
use super::sources::{nobody_set, ports_set};
use super::table::{
    Chain, ChainName, CounterName, Element, End, Hook, Match, Rule, Ruleset, Set, SetKind, SetName,
    Tracked, Verdict,
};
use super::terms::{Member, PeerKey};
use crate::netpol::{Family, Protocol, Selector};

/// Counts what is dropped.
const COUNTER: &str = "crafted";
/// What becomes of it.
const CHAIN: &str = "crafted";
/// What asks before that whether it is an answer.
const FIRST_WAY: &str = "crafted-forward";
/// The ports of VXLAN.
const PORTS: &str = "vxlan-ports";

/// Adds what rules for forwarded packets lead to, besides what all do.
pub(super) fn add_forward(ruleset: &mut Ruleset) {
    let rules = vec![
        Rule::new(
            vec![Match::Tracked(Tracked::Reply)],
            Verdict::Return,
            "an answer to a node goes to the port that the node asked from",
        ),
        Rule::new(
            Vec::new(),
            Verdict::Goto(CHAIN.into()),
            "what is no answer, or of no connection, is dropped",
        ),
    ];
    let chain = Chain { hook: None, rules };
    ruleset.chains.insert(ChainName::from(FIRST_WAY), chain);
}

/// The rule for what comes from a pod with an address that is nobody's.
pub(super) fn from_nobody(family: Family) -> Rule {
    Rule::new(
        vec![
            Match::Interface(ports_set()),
            Match::Address(family, End::Source, nobody_set(family)),
            Match::Protocol(Protocol::Udp),
            Match::Ports(PORTS.into()),
        ],
        Verdict::Goto(CHAIN.into()),
        "a pod sends no VXLAN with an address that is nobody's",
    )
}

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

/// The rules for packets to this node, or on their way to others. They come before all others: a connection that was let in
/// before is dropped, too.
pub(super) fn rules(hook: Hook) -> Vec<Rule> {
    let to_port = || vec![Match::Protocol(Protocol::Udp), Match::Ports(PORTS.into())];
    let drop = |more: Vec<Match>, why: &str| {
        let matches = to_port().into_iter().chain(more).collect();
        let verdict = match hook {
            Hook::Forward => Verdict::Jump(FIRST_WAY.into()),
            Hook::Input | Hook::Prerouting => Verdict::Goto(CHAIN.into()),
        };
        Rule::new(matches, verdict, why)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::render;

    #[test]
    fn only_an_answer_is_forwarded_to_such_a_port_of_a_node() {
        let last = |rule: &Rule| render::rule(rule).split("@nodes").last().map(str::to_owned);
        let forward: Vec<_> = rules(Hook::Forward).iter().filter_map(last).collect();
        assert_eq!(
            forward,
            ["4 jump crafted-forward", "6 jump crafted-forward"]
        );
        for rule in rules(Hook::Input) {
            assert!(render::rule(&rule).ends_with(" goto crafted"));
        }
        let mut ruleset = Ruleset::default();
        add_forward(&mut ruleset);
        let chain = &ruleset.chains[&ChainName::from(FIRST_WAY)];
        let rules: Vec<_> = chain.rules.iter().map(render::rule).collect();
        // What is of no connection goes no way of one: it is no answer.
        assert_eq!(rules, ["ct direction reply return", "goto crafted"]);
    }
}
