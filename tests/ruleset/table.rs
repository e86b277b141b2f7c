//! A table as the kernel would hold it: changes are as strict as there, and packets go through it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ringfence::netpol::{Family, Port, Protocol};
use ringfence::ruleset::{
    Carried, Chain, ChainName, Change, Element, End, Interface, Layer, Match, Rule, Ruleset, Set,
    SetName, Statement, Transaction, Verdict,
};

/// The first packet of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

/// What comes in by an interface, before anything is made of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'i> {
    pub(crate) interface: &'i Interface,
    /// What is seen of what it carries: nothing behind a tag, or where it is something else.
    pub(crate) carried: Option<Carried>,
    pub(crate) sender: IpAddr,
    /// The port to which it is, if it carries UDP.
    pub(crate) port: Option<Port>,
    /// Whether it says who routes.
    pub(crate) routes: bool,
}

/// What becomes of it by the rules of one table.
pub(crate) fn frame_fate(table: &Ruleset, frame: &Frame<'_>) -> Fate {
    let has = |set: &SetName, wanted: &Element| table.sets[set].elements.contains(wanted);
    let shows = |carried: Carried| frame.carried == Some(carried);
    let holds = |found: &Match| match found {
        Match::Interface(set) => has(set, &Element::Interface(frame.interface.clone())),
        Match::Own(carried, set) => {
            let source = Element::Source(frame.interface.clone(), frame.sender);
            shows(*carried) && has(set, &source)
        }
        Match::ArpSender(set) => shows(Carried::Arp) && has(set, &Element::Address(frame.sender)),
        Match::Address(family, End::Source, set) => {
            let is_in = |element: &Element| match element {
                Element::Block(first, last) => (first..=last).contains(&&frame.sender),
                element => *element == Element::Address(frame.sender),
            };
            shows(Carried::Ip(*family)) && table.sets[set].elements.iter().any(is_in)
        }
        Match::Carries(carried) => shows(*carried),
        Match::Protocol(Protocol::Udp) => frame.port.is_some(),
        Match::Routing => frame.routes,
        Match::Ports(set) => frame
            .port
            .is_some_and(|port| has(set, &Element::Ports(port, port))),
        other => panic!("{other:?} is nothing that is asked of frames"),
    };
    let mut chain: &str = "prerouting";
    loop {
        let mut rules = table.chains[chain].rules.iter();
        let Some(rule) = rules.find(|rule| rule.matches.iter().all(holds)) else {
            return Fate::Passed;
        };
        match rule.does.last() {
            Some(Statement::Verdict(Verdict::Accept)) => return Fate::Passed,
            Some(Statement::Verdict(Verdict::Goto(next))) => chain = next.as_str(),
            // What is counted there is dropped.
            Some(Statement::Log(_)) => return Fate::Dropped,
            other => panic!("{other:?}"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Passed,
    Dropped,
}

/// Does a transaction, and refuses what the kernel would refuse.
pub(crate) fn apply(table: &mut Ruleset, transaction: &Transaction) {
    // The table for bridges is as strict, and another one.
    let mut bridge = table.bridge.take().map(|bridge| *bridge);
    for (layer, change) in transaction.all() {
        let table = match layer {
            Layer::Inet => &mut *table,
            Layer::Bridge => bridge.get_or_insert_default(),
        };
        match change {
            Change::AddTable => {}
            Change::DeleteTable => *table = Ruleset::default(),
            Change::AddCounter(name) => assert!(table.counters.insert(name.clone())),
            Change::DeleteCounter(name) => assert!(table.counters.remove(name)),
            Change::AddSet(name, kind) => {
                let (kind, elements) = (*kind, BTreeSet::new());
                let before = table.sets.insert(name.clone(), Set { kind, elements });
                assert_eq!(before, None, "{name} twice");
            }
            Change::DeleteSet(name) => {
                assert!(!asked(table).contains(name), "{name} is in use");
                table.sets.remove(name).expect("a set that is there");
            }
            Change::AddChain(name, hook) => {
                let (hook, rules) = (*hook, Vec::new());
                let before = table.chains.insert(name.clone(), Chain { hook, rules });
                assert_eq!(before, None, "{name} twice");
            }
            Change::FlushChain(name) => chain(table, name).rules.clear(),
            Change::DeleteChain(name) => {
                assert!(!led_to(table).contains(name), "{name} is in use");
                let chain = table.chains.remove(name).expect("a chain that is there");
                assert!(chain.rules.is_empty(), "{name} has rules");
            }
            Change::AddRules(name, rules) => {
                chain(table, name).rules.extend(rules.iter().cloned());
                for set in asked(table) {
                    assert!(table.sets.contains_key(&set), "{set} is not there");
                }
                for chain in led_to(table) {
                    assert!(table.chains.contains_key(&chain), "{chain} is not there");
                }
            }
            Change::AddElements(name, kind, elements) => {
                let chains: BTreeSet<ChainName> = table.chains.keys().cloned().collect();
                let set = set(table, name);
                assert_eq!(set.kind, *kind);
                for element in elements {
                    assert!(!elements.is_empty() && set.elements.insert(element.clone()));
                    if let Element::Dispatch(address, chain) = element {
                        assert!(chains.contains(chain), "{chain} is not there");
                        let same = |other: &&Element| matches!(other, Element::Dispatch(other, _) if other == address);
                        assert_eq!(set.elements.iter().filter(same).count(), 1, "{address}");
                    }
                }
            }
            Change::DeleteElements(name, _, elements) => {
                let set = set(table, name);
                for element in elements {
                    assert!(set.elements.remove(element), "{element:?} is not there");
                }
            }
        }
    }
    table.bridge = bridge.map(Box::new);
}

fn chain<'t>(table: &'t mut Ruleset, name: &ChainName) -> &'t mut Chain {
    table.chains.get_mut(name).expect("a chain that is there")
}

fn set<'t>(table: &'t mut Ruleset, name: &SetName) -> &'t mut Set {
    table.sets.get_mut(name).expect("a set that is there")
}

fn rules(table: &Ruleset) -> impl Iterator<Item = &Rule> {
    table.chains.values().flat_map(|chain| &chain.rules)
}

/// The sets that rules ask.
fn asked(table: &Ruleset) -> BTreeSet<SetName> {
    let in_matches = rules(table).flat_map(|rule| &rule.matches);
    let in_matches = in_matches.filter_map(|found| match found {
        Match::Address(_, _, set)
        | Match::Pair(_, set)
        | Match::DestinationPort(_, set)
        | Match::Tuple(_, _, set)
        | Match::Ports(set)
        | Match::Interface(set)
        | Match::Own(_, set)
        | Match::ArpSender(set) => Some(set.clone()),
        _ => None,
    });
    let in_statements = rules(table).flat_map(|rule| &rule.does);
    let in_statements = in_statements.filter_map(|does| match does {
        Statement::Dispatch(_, _, set) => Some(set.clone()),
        _ => None,
    });
    in_matches.chain(in_statements).collect()
}

/// The chains that rules and elements lead to.
fn led_to(table: &Ruleset) -> BTreeSet<ChainName> {
    let by_rules = rules(table).flat_map(|rule| &rule.does);
    let by_rules = by_rules.filter_map(|does| match does {
        Statement::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain)) => Some(chain.clone()),
        _ => None,
    });
    let elements = table.sets.values().flat_map(|set| &set.elements);
    let by_elements = elements.filter_map(|element| match element {
        Element::Dispatch(_, chain) => Some(chain.clone()),
        _ => None,
    });
    by_rules.chain(by_elements).collect()
}

/// What becomes of a packet that comes into a chain with a hook.
pub(crate) fn fate(table: &Ruleset, chain: &str, packet: &Packet) -> Fate {
    marks(table, chain, packet).0
}

/// What becomes of it, and the counters that count it.
pub(crate) fn marks(table: &Ruleset, chain: &str, packet: &Packet) -> (Fate, BTreeSet<String>) {
    let mut counted = BTreeSet::new();
    let fate = match walk(table, &chain.into(), packet, &mut counted) {
        Some(Verdict::Drop) => Fate::Dropped,
        _ => Fate::Passed,
    };
    (fate, counted)
}

/// What a chain says: a final verdict, or nothing where the packet comes back.
fn walk(
    table: &Ruleset,
    chain: &ChainName,
    packet: &Packet,
    seen: &mut BTreeSet<String>,
) -> Option<Verdict> {
    for rule in &table.chains[chain].rules {
        if !rule
            .matches
            .iter()
            .all(|found| matches(table, found, packet))
        {
            continue;
        }
        for does in &rule.does {
            let verdict = match does {
                Statement::Count(counter) => {
                    assert!(
                        seen.insert(counter.to_string()),
                        "counted twice by {counter}"
                    );
                    continue;
                }
                Statement::Limit(_) | Statement::Log(_) => continue,
                Statement::Verdict(verdict) => verdict.clone(),
                Statement::Dispatch(family, end, map) => {
                    let address = at(packet, *end);
                    let found = table.sets[map]
                        .elements
                        .iter()
                        .find_map(|element| match element {
                            Element::Dispatch(of, chain) if *of == address => Some(chain.clone()),
                            _ => None,
                        });
                    match found {
                        Some(chain) if Family::of(address) == *family => Verdict::Jump(chain),
                        _ => continue,
                    }
                }
            };
            match verdict {
                Verdict::Accept | Verdict::Drop => return Some(verdict),
                Verdict::Return => return None,
                Verdict::Goto(chain) => return walk(table, &chain, packet, seen),
                Verdict::Jump(chain) => {
                    if let Some(verdict) = walk(table, &chain, packet, seen) {
                        return Some(verdict);
                    }
                }
            }
        }
    }
    None
}

fn at(packet: &Packet, end: End) -> IpAddr {
    match end {
        End::Source => packet.source,
        End::Destination => packet.destination,
    }
}

fn matches(table: &Ruleset, found: &Match, packet: &Packet) -> bool {
    let has = |set: &SetName, wanted: Element| {
        table.sets[set].elements.iter().any(|element| match element {
            Element::Block(first, last) => {
                matches!(wanted, Element::Address(address) if (*first..=*last).contains(&address))
            }
            Element::Ports(first, last) => {
                matches!(wanted, Element::Ports(port, _) if (*first..=*last).contains(&port))
            }
            element => *element == wanted,
        })
    };
    let port = Port::new(packet.port).expect("a port");
    let (source, destination) = (packet.source, packet.destination);
    let is_of = |family: &Family| Family::of(source) == *family;
    match found {
        // The first packet of a connection belongs to none, and to none that was cut.
        // Packets come from pods, not from another node.
        Match::Tracked(_)
        | Match::Icmp(_)
        | Match::NeighbourDiscovery
        | Match::Routing
        | Match::Tuple(..)
        | Match::FromOverlay
        | Match::Interface(_)
        | Match::Own(..)
        | Match::ArpSender(_) => false,
        Match::Opening => packet.protocol == Protocol::Tcp,
        Match::Carries(carried) => matches!(carried, Carried::Ip(family) if is_of(family)),
        Match::Address(family, end, set) => {
            is_of(family) && has(set, Element::Address(at(packet, *end)))
        }
        Match::Pair(family, set) => is_of(family) && has(set, Element::Pair(source, destination)),
        Match::DestinationPort(family, set) => {
            is_of(family) && has(set, Element::AddressPort(destination, port))
        }
        Match::Protocol(protocol) => packet.protocol == *protocol,
        Match::Port(first, last) => (*first..=*last).contains(&port),
        Match::Ports(set) => has(set, Element::Ports(port, port)),
    }
}
