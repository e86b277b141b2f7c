//! Rulesets by chance, always the same for a number, with as much in common as one needs to make each of the other.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringfence::netpol::{Family, Port, Protocol};
use ringfence::ruleset::{
    Carried, Chain, ChainName, CounterName, Element, End, Hook, Interface, Log, Match, Rule,
    Ruleset, Set, SetKind, SetName, Statement, Tracked, Tuple, Verdict,
};

/// Numbers by chance.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x0123_4567_89ab_cdef)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).expect("small")).expect("small")
    }

    fn one_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }
}

/// The kinds of sets, each under its name.
fn kinds() -> Vec<(SetName, SetKind)> {
    let mut all = vec![
        ("ports".into(), SetKind::Ports),
        ("ports-2".into(), SetKind::Ports),
        ("interfaces-1".into(), SetKind::Interfaces),
    ];
    for (family, mark) in [(Family::V4, 4), (Family::V6, 6)] {
        for (name, kind) in [
            ("pods", SetKind::Addresses(family)),
            ("pods.x", SetKind::Addresses(family)),
            ("pairs", SetKind::Pairs(family)),
            ("named", SetKind::AddressPorts(family)),
            ("blocks", SetKind::Blocks(family)),
            ("blocks_x", SetKind::Blocks(family)),
            ("cut", SetKind::Tuples(family, 3600)),
            ("egress", SetKind::Dispatch(family)),
            ("ingress", SetKind::Dispatch(family)),
            ("sources", SetKind::Sources(family)),
        ] {
            all.push((format!("{name}-{mark}").into(), kind));
        }
    }
    all
}

pub(crate) fn port(number: u16) -> Port {
    Port::new(number).expect("not 0")
}

fn address(random: &mut Random, family: Family) -> IpAddr {
    let low = u32::try_from(random.below(12)).expect("small");
    match family {
        Family::V4 => Ipv4Addr::from_bits(0x0a00_0000 + low).into(),
        Family::V6 => Ipv6Addr::from_bits((0xfd00 << 112) + u128::from(low)).into(),
    }
}

fn interface(random: &mut Random) -> Interface {
    let names = ["eth0", "veth1.2", "a", "veth-12345678_x", "v@if2", "meta"];
    Interface::parse(random.of(&names)).expect("a name")
}

/// Cuts the numbers up to `most` at some places, among them those where one is easily off by one, and takes some pieces.
fn ranges(random: &mut Random, most: u128) -> Vec<(u128, u128)> {
    let mut cuts = BTreeSet::from([0]);
    for _ in 0..random.below(12) {
        let spread = most / 7 * u128::try_from(random.below(7)).expect("small");
        let small = u128::try_from(random.below(5)).expect("small");
        cuts.insert(match random.below(4) {
            0 => small,
            1 => most - small,
            2 => most / 2 + small,
            _ => spread,
        });
    }
    let ends: Vec<u128> = cuts
        .iter()
        .skip(1)
        .map(|cut| cut - 1)
        .chain([most])
        .collect();
    let all: Vec<_> = cuts.into_iter().zip(ends).collect();
    // Often the neighbour of a piece is taken, too.
    all.into_iter().filter(|_| !random.one_in(3)).collect()
}

fn elements(random: &mut Random, kind: SetKind, chains: &[ChainName]) -> BTreeSet<Element> {
    let number = if random.one_in(5) { 0 } else { random.below(9) };
    let mut targets = std::collections::BTreeMap::new();
    match kind {
        SetKind::Blocks(Family::V4) => ranges(random, u32::MAX.into())
            .into_iter()
            .map(|(first, last)| {
                let ip = |n| Ipv4Addr::from_bits(u32::try_from(n).expect("32 bits")).into();
                Element::Block(ip(first), ip(last))
            })
            .collect(),
        SetKind::Blocks(Family::V6) => ranges(random, u128::MAX)
            .into_iter()
            .map(|(first, last)| {
                let ip = |n| Ipv6Addr::from_bits(n).into();
                Element::Block(ip(first), ip(last))
            })
            .collect(),
        SetKind::Ports => ranges(random, 65_534)
            .into_iter()
            .map(|(first, last)| {
                let number = |n: u128| port(u16::try_from(n + 1).expect("16 bits"));
                Element::Ports(number(first), number(last))
            })
            .collect(),
        SetKind::Addresses(family) => (0..number)
            .map(|_| Element::Address(address(random, family)))
            .collect(),
        SetKind::Pairs(family) => (0..number)
            .map(|_| Element::Pair(address(random, family), address(random, family)))
            .collect(),
        SetKind::AddressPorts(family) => (0..number)
            .map(|_| {
                let port = port(random.of(&[1, 80, 443, 65_535]));
                Element::AddressPort(address(random, family), port)
            })
            .collect(),
        SetKind::Tuples(family, _) => (0..number)
            .map(|_| {
                Element::Tuple(Tuple {
                    source: (address(random, family), random.of(&[0, 1024, 65_535])),
                    destination: (address(random, family), random.of(&[1, 80])),
                    protocol: random.of(&Protocol::ALL),
                })
            })
            .collect(),
        SetKind::Interfaces => (0..number)
            .map(|_| Element::Interface(interface(random)))
            .collect(),
        SetKind::Sources(family) => (0..number)
            .map(|_| Element::Source(interface(random), address(random, family)))
            .collect(),
        SetKind::Dispatch(_) if chains.is_empty() => BTreeSet::new(),
        SetKind::Dispatch(family) => {
            for _ in 0..number {
                targets.insert(address(random, family), random.of(chains));
            }
            let pairs = targets.into_iter();
            pairs
                .map(|(from, to)| Element::Dispatch(from, to))
                .collect()
        }
    }
}

fn sets_of(ruleset: &Ruleset, is_one: impl Fn(SetKind) -> bool) -> Vec<SetName> {
    let sets = ruleset.sets.iter().filter(|(_, set)| is_one(set.kind));
    sets.map(|(name, _)| name.clone()).collect()
}

fn matches(random: &mut Random, ruleset: &Ruleset, family: Family) -> Vec<Match> {
    let mut all = vec![
        Match::Tracked(Tracked::Established),
        Match::Tracked(Tracked::Related),
        Match::Tracked(Tracked::Reply),
        Match::Icmp(family),
        Match::Protocol(random.of(&Protocol::ALL)),
        Match::Opening,
        Match::FromOverlay,
    ];
    if family == Family::V6 {
        all.extend([Match::NeighbourDiscovery, Match::Routing]);
    }
    let first = port(random.of(&[1, 80, 65_535]));
    let mut with_ports = vec![Match::Port(first, random.of(&[first, port(65_535)]))];
    for set in sets_of(ruleset, |kind| kind == SetKind::Ports) {
        with_ports.push(Match::Ports(set));
    }
    for (name, set) in &ruleset.sets {
        let end = random.of(&[End::Source, End::Destination]);
        match set.kind {
            SetKind::Addresses(of) | SetKind::Blocks(of) if of == family => {
                all.push(Match::Address(family, end, name.clone()));
            }
            SetKind::Pairs(of) if of == family => all.push(Match::Pair(family, name.clone())),
            SetKind::AddressPorts(of) if of == family => {
                with_ports.push(Match::DestinationPort(family, name.clone()));
            }
            SetKind::Tuples(of, _) if of == family => {
                all.push(Match::Tuple(family, end, name.clone()));
            }
            SetKind::Interfaces => all.push(Match::Interface(name.clone())),
            SetKind::Sources(of) if of == family => {
                all.push(Match::Own(Carried::Ip(family), name.clone()));
            }
            _ => {}
        }
    }
    let mut chosen: Vec<Match> = (0..random.below(3)).map(|_| random.of(&all)).collect();
    // One of a kind, and nothing that no packet can be: nft takes no rule that contradicts itself.
    let kinds_of_protocol = |one: &Match| {
        matches!(
            one,
            Match::Icmp(_)
                | Match::NeighbourDiscovery
                | Match::Routing
                | Match::Opening
                | Match::Protocol(_)
        )
    };
    let mut seen = false;
    chosen.retain(|one| !(kinds_of_protocol(one) && std::mem::replace(&mut seen, true)));
    chosen.dedup();
    if random.one_in(2) && !chosen.iter().any(kinds_of_protocol) {
        chosen.push(Match::Protocol(random.of(&Protocol::ALL)));
        chosen.push(random.of(&with_ports));
    }
    if random.one_in(4)
        && chosen
            .first()
            .is_some_and(|first| first.carried().is_none())
    {
        chosen.insert(0, Match::Carries(Carried::Ip(family)));
    }
    chosen
}

const SENTENCES: [&str; 5] = [
    "",
    "shop/web: from 10.0.0.0/8, TCP 80",
    "says \"yes\" and C:\\temp, costs $5;\n# and breaks { the line",
    "a sentence that goes on and on and on and on and on and on and on and on and on and on and on and on and on and on and \
     on and on: é",
    "ééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééé",
];

fn rule(random: &mut Random, ruleset: &Ruleset, below: &[ChainName]) -> Rule {
    let family = random.of(&Family::BOTH);
    let matches = matches(random, ruleset, family);
    let mut does = Vec::new();
    let counters: Vec<CounterName> = ruleset.counters.iter().cloned().collect();
    if !counters.is_empty() && random.one_in(3) {
        does.push(Statement::Count(random.of(&counters)));
    }
    if random.one_in(4) {
        does.push(Statement::Limit(random.of(&[1, 10, 5000])));
        does.push(Statement::Log(Log {
            group: random.of(&[0, 100, 65_535]),
            prefix: random.of(&["denied 1", "", "a \"b\" $c \\d"]).into(),
        }));
    }
    let maps = sets_of(ruleset, |kind| kind == SetKind::Dispatch(family));
    if !maps.is_empty() && random.one_in(3) {
        let end = random.of(&[End::Source, End::Destination]);
        does.push(Statement::Dispatch(family, end, random.of(&maps)));
    } else if does.is_empty() || random.one_in(2) {
        let mut verdicts = vec![Verdict::Accept, Verdict::Drop, Verdict::Return];
        if !below.is_empty() {
            verdicts.push(Verdict::Jump(random.of(below)));
            verdicts.push(Verdict::Goto(random.of(below)));
        }
        does.push(Statement::Verdict(random.of(&verdicts)));
    }
    Rule {
        matches,
        does,
        why: random.of(&SENTENCES).into(),
    }
}

/// A table for the ports of bridges by chance, of what is asked there.
fn bridge(random: &mut Random) -> Ruleset {
    let mut made = Ruleset::default();
    if random.one_in(2) {
        made.counters.insert("spoofed-1".into());
    }
    let (ports, link): (SetName, SetName) = ("interfaces-1".into(), "link-6".into());
    let addresses: SetName = "nobody-4".into();
    let mut kinds = vec![
        (ports.clone(), SetKind::Interfaces),
        (addresses.clone(), SetKind::Addresses(Family::V4)),
        (link.clone(), SetKind::Blocks(Family::V6)),
    ];
    let mut asked = vec![
        vec![Match::Interface(ports.clone())],
        vec![Match::Address(Family::V6, End::Source, link.clone())],
        vec![
            Match::Address(Family::V6, End::Source, link),
            Match::Routing,
        ],
    ];
    for (family, name) in [(Family::V4, "sources-4"), (Family::V6, "sources-6")] {
        kinds.push((name.into(), SetKind::Sources(family)));
        let own = Match::Own(Carried::Ip(family), name.into());
        asked.push(vec![Match::Interface(ports.clone()), own.clone()]);
        asked.push(vec![own]);
    }
    let interface = Match::Interface(ports.clone());
    asked.push(vec![Match::Carries(Carried::Arp), interface]);
    asked.push(vec![
        Match::Interface(ports),
        Match::Own(Carried::Arp, "sources-4".into()),
    ]);
    asked.push(vec![Match::ArpSender(addresses)]);
    for (name, kind) in kinds {
        let elements = elements(random, kind, &[]);
        made.sets.insert(name, Set { kind, elements });
    }
    let leaf = ChainName::from("leaf-1");
    let nothing = Ruleset {
        counters: made.counters.clone(),
        ..Ruleset::default()
    };
    for (name, hook) in [
        (leaf.clone(), None),
        ("first".into(), Some(Hook::Prerouting)),
    ] {
        let below = if hook.is_some() {
            std::slice::from_ref(&leaf)
        } else {
            &[]
        };
        let rules = (0..random.below(6)).map(|_| {
            let mut rule = rule(random, &nothing, below);
            rule.matches = random.of(&asked);
            rule
        });
        let rules = rules.collect();
        made.chains.insert(name, Chain { hook, rules });
    }
    made
}

/// A ruleset by chance.
pub(crate) fn ruleset(seed: u64) -> Ruleset {
    let random = &mut Random::new(seed);
    let mut made = Ruleset::default();
    for number in 0..4 {
        if random.one_in(2) {
            made.counters.insert(format!("denied-{number}").into());
        }
    }
    // Chains lead to later ones only, in an order that differs from one ruleset to the next. Verdict maps lead to leaves.
    let mut names: Vec<ChainName> = (0..6)
        .map(|number| ChainName::from(format!("pod-{number}")))
        .filter(|_| !random.one_in(3))
        .collect();
    if random.one_in(2) {
        names.reverse();
    }
    let leaf = names.len().saturating_sub(2);
    for (name, kind) in kinds() {
        if !random.one_in(3) {
            let elements = elements(random, kind, &names[leaf..]);
            made.sets.insert(name, Set { kind, elements });
        }
    }
    let no_maps = || {
        let mut without = made.clone();
        without
            .sets
            .retain(|_, set| !matches!(set.kind, SetKind::Dispatch(_)));
        without
    };
    let without = no_maps();
    for (number, name) in names.iter().enumerate() {
        let with = if number < leaf { &made } else { &without };
        let below = &names[number + 1..];
        let rules = (0..random.below(5))
            .map(|_| rule(random, with, below))
            .collect();
        made.chains
            .insert(name.clone(), Chain { hook: None, rules });
    }
    if random.one_in(2) {
        made.bridge = Some(Box::new(bridge(random)));
    }
    for hook in [Hook::Forward, Hook::Input, Hook::Prerouting] {
        if !random.one_in(4) {
            let rules = (0..random.below(6))
                .map(|_| rule(random, &made, &names))
                .collect();
            let chain = Chain {
                hook: Some(hook),
                rules,
            };
            made.chains.insert(hook.as_str().into(), chain);
        }
    }
    made
}
