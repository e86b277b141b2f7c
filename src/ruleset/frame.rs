//! What the table has whatever the policies say: where packets come in, and the maps that send them on.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::addresses::Addresses;
use super::body::Way;
use super::compile::{Would, denied_counter, digit, would_counter};
use super::options::Options;
use super::table::{
    Carried, Chain, ChainName, CounterName, End, Hook, Layer, Match, Rule, Ruleset, Set, SetKind,
    SetName, Statement, Tracked, Verdict,
};
use super::{link, sources, vxlan};
use crate::netpol::Family;

/// What is there whatever the policies say.
pub(super) fn frame(options: &Options) -> Ruleset {
    let mut ruleset = Ruleset {
        counters: counters(),
        ..Ruleset::default()
    };
    for family in Family::BOTH {
        let mut add = |name: SetName, kind| {
            let elements = BTreeSet::new();
            ruleset.sets.insert(name, Set { kind, elements });
        };
        add(own_set(family), SetKind::Pairs(family));
        for set in [cut_set(family), back_set(family)] {
            add(set, SetKind::Tuples(family, options.cut_seconds));
        }
        for way in Way::ALL {
            add(dispatch(way, family), SetKind::Dispatch(family));
        }
    }
    if options.asks_who_is_local() {
        for family in Family::BOTH {
            let known = Set {
                kind: SetKind::Addresses(family),
                elements: BTreeSet::new(),
            };
            ruleset.sets.insert(known_set(family), known);
        }
    }
    if !options.known_only.is_empty() {
        let_known_only(&options.known_only, &mut ruleset);
    }
    if options.own_sources {
        sources::add(options, Layer::Inet, &mut ruleset);
        link::add(options, &mut ruleset);
    }
    let (mut forwarded, mut to_node) = (forward(options), input());
    if !options.vxlan_ports.is_empty() {
        vxlan::add(options, &mut ruleset);
        vxlan::add_asking(&mut ruleset);
        forwarded.insert(0, vxlan::asks(vxlan::FORWARDED));
        to_node.insert(0, vxlan::asks(vxlan::TO_NODE));
    }
    let mut chains = vec![
        (FORWARD.into(), Some(Hook::Forward), forwarded),
        (INPUT.into(), Some(Hook::Input), to_node),
    ];
    for family in Family::BOTH {
        chains.push((forward_chain(family), None, forward_of(family, options)));
        chains.push((asked_chain(family), None, asked(family, options)));
    }
    for (name, hook, rules) in chains {
        ruleset.chains.insert(name, Chain { hook, rules });
    }
    ruleset
}

fn forward(options: &Options) -> Vec<Rule> {
    let mut rules = vec![Rule::new(
        vec![Match::Tracked(Tracked::Established)],
        Verdict::Accept,
        "connections that were let in, and their replies",
    )];
    rules.extend(Family::BOTH.map(|family| {
        Rule::new(
            vec![Match::Carries(Carried::Ip(family))],
            Verdict::Jump(forward_chain(family)),
            "what begins is asked about by its family",
        )
    }));
    if options.sample_rate > 0 {
        rules.push(Rule {
            matches: Vec::new(),
            does: Statement::tell(options.log_group, options.sample_rate, "ringfence allowed"),
            why: "some of the connections that are let in are told".into(),
        });
    }
    rules
}

/// What is asked of the first packets of one family.
fn forward_of(family: Family, options: &Options) -> Vec<Rule> {
    let pass = |matches, why: &str| Rule::new(matches, Verdict::Accept, why);
    let ask = |matches, why: &str| Rule::new(matches, Verdict::Goto(asked_chain(family)), why);
    let mut rules = vec![pass(
        vec![Match::Tracked(Tracked::Related), Match::Icmp(family)],
        "what goes wrong with such a connection is told to its ends",
    )];
    if family == Family::V6 {
        rules.push(pass(vec![Match::NeighbourDiscovery], ND));
        if options.own_sources {
            rules.extend(link::forwarded());
        }
    }
    let drop = |end, set, why: &str| Rule {
        matches: vec![Match::Tuple(family, end, set)],
        does: vec![
            Statement::Count(CUT_COUNTER.into()),
            Statement::Verdict(Verdict::Drop),
        ],
        why: why.into(),
    };
    rules.extend([
        drop(
            End::Destination,
            back_set(family),
            "the way back of connections that were cut, which must not look like the first way of another one",
        ),
        ask(
            vec![Match::Opening],
            "what asks for a connection is no part of one that was cut",
        ),
        drop(
            End::Source,
            cut_set(family),
            "connections that were cut when policies changed",
        ),
    ]);
    rules.push(ask(Vec::new(), "what was not cut is held to policies"));
    rules
}

/// What policies, and what comes before them, are asked of the first packets of one family.
fn asked(family: Family, options: &Options) -> Vec<Rule> {
    let mut rules = vec![Rule::new(
        vec![Match::Pair(family, own_set(family))],
        Verdict::Accept,
        "a pod to itself, by way of a Service",
    )];
    if !options.known_only.is_empty() {
        for end in [End::Source, End::Destination] {
            rules.push(Rule::new(
                vec![Match::Address(family, end, blocks_set(family))],
                Verdict::Jump(unknown_chain(end)),
                "an address of this node's pods must be a known one's",
            ));
        }
    }
    for (way, end) in [(Way::Egress, End::Source), (Way::Ingress, End::Destination)] {
        rules.push(to_chains(way, end, family));
    }
    rules
}

/// The chain that forwarded packets meet.
const FORWARD: &str = "forward";
/// The chain that packets to the node meet.
const INPUT: &str = "input";
/// Counts the packets of connections that were cut.
const CUT_COUNTER: &str = "cut";
/// Counts the packets of addresses that are no known pod's.
const UNKNOWN_COUNTER: &str = "unknown";
/// Why neighbour discovery passes.
const ND: &str = "IPv6 does not work without finding neighbours (RFC 4861)";

fn input() -> Vec<Rule> {
    let mut rules = vec![
        Rule::new(
            vec![Match::Tracked(Tracked::Established)],
            Verdict::Accept,
            "connections that were let in, and replies to the node",
        ),
        Rule::new(
            vec![
                Match::Carries(Carried::Ip(Family::V6)),
                Match::NeighbourDiscovery,
            ],
            Verdict::Accept,
            ND,
        ),
    ];
    for family in Family::BOTH {
        rules.push(to_chains(Way::ToNode, End::Source, family));
    }
    rules
}

/// What it takes to drop packets of addresses of some blocks that are no known pod's.
fn let_known_only(own: &[IpNet], ruleset: &mut Ruleset) {
    let blocks = own.iter().map(|block| Addresses::of(block, &[]));
    let addresses: Addresses = blocks.collect();
    ruleset.counters.insert(UNKNOWN_COUNTER.into());
    for family in Family::BOTH {
        let blocks = Set {
            kind: SetKind::Blocks(family),
            elements: addresses.elements(family).collect(),
        };
        ruleset.sets.insert(blocks_set(family), blocks);
    }
    for end in [End::Source, End::Destination] {
        let chain = Chain {
            hook: None,
            rules: unknown(end),
        };
        ruleset.chains.insert(unknown_chain(end), chain);
    }
}

/// Lets go on whose address is a known pod's.
fn unknown(end: End) -> Vec<Rule> {
    let known = |family| {
        Rule::new(
            vec![Match::Address(family, end, known_set(family))],
            Verdict::Return,
            "a known pod is held to its policies",
        )
    };
    let mut rules: Vec<Rule> = Family::BOTH.into_iter().map(known).collect();
    rules.push(Rule {
        matches: Vec::new(),
        does: vec![
            Statement::Count(UNKNOWN_COUNTER.into()),
            Statement::Verdict(Verdict::Drop),
        ],
        why: "of which pod it is, and which policies hold it, is not known yet, or not any more"
            .into(),
    });
    rules
}

/// Adds a chain that tells of packets, up to a rate, counts them and drops them.
pub(super) fn add_told_drop(
    options: &Options,
    ruleset: &mut Ruleset,
    (chain, counter): (&str, &str),
    told: &str,
    why: &str,
) {
    ruleset.counters.insert(CounterName::from(counter));
    ruleset.chain_mut(chain.into()).rules = vec![
        Rule {
            matches: Vec::new(),
            does: Statement::tell(options.log_group, options.log_rate, told),
            why: "they are told to the agent, up to a rate".into(),
        },
        Rule {
            matches: Vec::new(),
            does: vec![
                Statement::Count(counter.into()),
                Statement::Verdict(Verdict::Drop),
            ],
            why: why.into(),
        },
    ];
}

/// The rule that sends packets to the chains of local pods.
fn to_chains(way: Way, end: End, family: Family) -> Rule {
    let why = match way {
        Way::Egress => "what leaves a local pod is held to its egress",
        Way::ToNode => "what a local pod sends to its node is held to ClusterNetworkPolicies",
        Way::Ingress => "what comes to a local pod is held to its ingress",
    };
    Rule {
        matches: Vec::new(),
        does: vec![Statement::Dispatch(family, end, dispatch(way, family))],
        why: why.into(),
    }
}

/// The verdict map from the addresses of local pods to their chains.
pub(super) fn dispatch(way: Way, family: Family) -> SetName {
    format!("{}{}", way.word(), digit(family)).into()
}

/// The chain for the first packets of one family that are forwarded.
fn forward_chain(family: Family) -> ChainName {
    format!("{FORWARD}{}", digit(family)).into()
}

/// The chain for those of them that are no part of a connection that was cut.
fn asked_chain(family: Family) -> ChainName {
    format!("policies{}", digit(family)).into()
}

/// The set of local pods to themselves.
pub(super) fn own_set(family: Family) -> SetName {
    format!("itself{}", digit(family)).into()
}

/// The set of the addresses of local pods.
pub(super) fn known_set(family: Family) -> SetName {
    format!("known{}", digit(family)).into()
}

/// The set of the blocks that pods of the node have their addresses from.
fn blocks_set(family: Family) -> SetName {
    format!("pods{}", digit(family)).into()
}

/// The chain for packets of which one end is in these blocks.
fn unknown_chain(end: End) -> ChainName {
    match end {
        End::Source => "unknown-source",
        End::Destination => "unknown-destination",
    }
    .into()
}

/// The set of connections that were cut, each as its first packet was seen. Its elements are the agent's own: a plan never has any.
pub fn cut_set(family: Family) -> SetName {
    format!("cut{}", digit(family)).into()
}

/// The set of the same connections whose way back stays dropped, also where policies allow them again: until the first way is
/// seen, the way back would pass for the first one of another connection. Its elements are the agent's own.
pub fn back_set(family: Family) -> SetName {
    format!("back{}", digit(family)).into()
}

/// What is counted, and in which direction.
fn counters() -> BTreeSet<CounterName> {
    let ways = || Way::ALL.into_iter();
    let would = Would::BOTH
        .into_iter()
        .flat_map(|would| ways().map(move |way| would_counter(would, way)));
    let denied = ways().map(denied_counter);
    denied.chain(would).chain([CUT_COUNTER.into()]).collect()
}
