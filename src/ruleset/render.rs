//! The table as text: what `nft -f` reads (nftables 1.0.6 and newer), and the same for people.
//!
//! `man 8 nft`. The text means what the agent sends to the kernel, statement for statement: `nft -f` of it is the oracle
//! of the encoder. So a family is said (`meta nfproto ipv4`) where nft would add it by itself.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::table::{
    Carried, Chain, Element, End, Hook, LOG_QUEUE, LOG_SNAPLEN, Layer, Log, Match, Rule, Ruleset,
    Set, SetKind, Statement, TABLE, Tracked, Verdict,
};
use super::transaction::{Change, Transaction};
use crate::netpol::{Family, Port, Protocol};

/// The most bytes of a comment that nft reads.
const COMMENT: usize = 128;

/// The most bytes of a log's prefix that the kernel keeps.
const PREFIX: usize = 127;

/// For whom a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// For `nft -f`, and so that `nft list` shows what each rule is for: a comment of at most 128 bytes at its end.
    Nft,
    /// For people: the whole sentence above each rule. `nft -f` reads this too, but keeps no comments.
    People,
}

/// A whole table, which takes the place of what there is of its name.
pub fn ruleset(ruleset: &Ruleset, reader: Reader) -> String {
    let mut out = String::new();
    let bridge = ruleset.bridge.is_some().then_some(Layer::Bridge);
    for layer in [Some(Layer::Inet), bridge].into_iter().flatten() {
        let layer = layer.as_str();
        let _ = write!(
            out,
            "add table {layer} {TABLE}\ndelete table {layer} {TABLE}\n\n"
        );
    }
    out.push_str(&table(ruleset, reader));
    out
}

/// The table alone, as `nft list table` lays it out, and behind it the one for bridges that goes with it.
pub fn table(ruleset: &Ruleset, reader: Reader) -> String {
    let bridge = ruleset.bridge.as_deref();
    let bridge = bridge.map(|bridge| format!("\n{}", one(bridge, Layer::Bridge, reader)));
    one(ruleset, Layer::Inet, reader) + &bridge.unwrap_or_default()
}

fn one(ruleset: &Ruleset, layer: Layer, reader: Reader) -> String {
    let mut parts = Vec::new();
    let counters: Vec<String> = ruleset
        .counters
        .iter()
        .map(|name| format!("\tcounter {name} {{ }}\n"))
        .collect();
    if !counters.is_empty() {
        parts.push(counters.concat());
    }
    for (name, set) in &ruleset.sets {
        let mut text = format!("\t{} {name} {{\n", keyword(set.kind));
        for line in kind(set.kind) {
            let _ = writeln!(text, "\t\t{line}");
        }
        text.push_str(&listed(set));
        text.push_str("\t}\n");
        parts.push(text);
    }
    for (name, chain) in &ruleset.chains {
        parts.push(format!(
            "\tchain {name} {{\n{}\t}}\n",
            inside(chain, layer, reader)
        ));
    }
    let layer = layer.as_str();
    format!("table {layer} {TABLE} {{\n{}}}\n", parts.join("\n"))
}

/// Changes, one a line. Making something that is there already is an error, as it is in the kernel.
pub fn transaction(transaction: &Transaction) -> String {
    let mut out = String::new();
    for (layer, change) in transaction.all() {
        for line in lines(layer, change) {
            out.push_str(&line);
            out.push('\n');
        }
    }
    out
}

fn lines(layer: Layer, change: &Change) -> Vec<String> {
    let of = layer.as_str();
    match change {
        Change::AddTable => vec![format!("add table {of} {TABLE}")],
        Change::DeleteTable => vec![format!("delete table {of} {TABLE}")],
        Change::AddCounter(name) => vec![format!("create counter {of} {TABLE} {name}")],
        Change::DeleteCounter(name) => vec![format!("delete counter {of} {TABLE} {name}")],
        Change::AddSet(name, set) => vec![format!(
            "create {} {of} {TABLE} {name} {{ {}; }}",
            keyword(*set),
            kind(*set).join("; ")
        )],
        Change::DeleteSet(name) => vec![format!("delete set {of} {TABLE} {name}")],
        Change::AddChain(name, None) => vec![format!("create chain {of} {TABLE} {name}")],
        Change::AddChain(name, Some(at)) => {
            vec![format!(
                "create chain {of} {TABLE} {name} {{ {} }}",
                hook(*at)
            )]
        }
        Change::FlushChain(name) => vec![format!("flush chain {of} {TABLE} {name}")],
        Change::DeleteChain(name) => vec![format!("delete chain {of} {TABLE} {name}")],
        Change::AddRules(chain, rules) => rules
            .iter()
            .map(|rule| {
                format!(
                    "add rule {of} {TABLE} {chain} {}",
                    line(rule, layer, Reader::Nft)
                )
            })
            .collect(),
        Change::AddElements(name, _, some) if !some.is_empty() => vec![format!(
            "add element {of} {TABLE} {name} {{ {} }}",
            some.iter().map(element).collect::<Vec<_>>().join(", ")
        )],
        Change::DeleteElements(name, _, some) if !some.is_empty() => vec![format!(
            "delete element {of} {TABLE} {name} {{ {} }}",
            some.iter().map(element).collect::<Vec<_>>().join(", ")
        )],
        Change::AddElements(..) | Change::DeleteElements(..) => Vec::new(),
    }
}

/// A rule's sentence as it is kept in the kernel: one line of at most 128 bytes without what ends a string of nft.
pub fn comment(why: &str) -> Cow<'_, str> {
    harmless(why, COMMENT, &['"', '\\'])
}

/// A log's prefix as it is kept in the kernel. nft takes `$` for a variable there.
pub fn prefix(prefix: &str) -> Cow<'_, str> {
    harmless(prefix, PREFIX, &['"', '\\', '$'])
}

/// A text without some characters and without control characters, cut between characters to so many bytes.
fn harmless<'a>(text: &'a str, most: usize, without: &[char]) -> Cow<'a, str> {
    let bad = |c: char| c.is_control() || without.contains(&c);
    let cut = text.get(..text.floor_char_boundary(most)).unwrap_or(text);
    if !cut.contains(bad) {
        return Cow::Borrowed(cut);
    }
    // Each bad character gives way to one of no more bytes.
    let replace = |c: char| match c {
        '"' => '\'',
        '\\' => '/',
        c if bad(c) => ' ',
        c => c,
    };
    Cow::Owned(cut.chars().map(replace).collect())
}

impl Ruleset {
    /// The same as the kernel gives it back: sentences and prefixes as short and harmless as they are kept there, and
    /// without the elements that go by themselves.
    #[must_use]
    pub fn as_kept(&self) -> Self {
        let mut kept = self.clone();
        kept.bridge = kept.bridge.map(|bridge| Box::new(bridge.as_kept()));
        for set in kept.sets.values_mut() {
            if let SetKind::Tuples(..) = set.kind {
                set.elements.clear();
            }
        }
        let rules = kept.chains.values_mut().flat_map(|chain| &mut chain.rules);
        for rule in rules {
            rule.why = comment(&rule.why).into();
            for done in &mut rule.does {
                if let Statement::Log(log) = done {
                    log.prefix = prefix(&log.prefix).into();
                }
            }
        }
        kept
    }
}

fn inside(chain: &Chain, layer: Layer, reader: Reader) -> String {
    let mut out = String::new();
    if let Some(at) = chain.hook {
        let _ = writeln!(out, "\t\t{}", hook(at));
    }
    for rule in &chain.rules {
        if reader == Reader::People && !rule.why.is_empty() {
            for part in rule.why.lines() {
                let _ = writeln!(out, "\t\t# {part}");
            }
        }
        let _ = writeln!(out, "\t\t{}", line(rule, layer, reader));
    }
    out
}

fn hook(at: Hook) -> String {
    let (hook, priority) = (at.as_str(), at.priority());
    let priority = match at {
        // nft 1.0.6 reads spaces around the sign only.
        Hook::Input | Hook::Forward => format!("filter - {}", priority.unsigned_abs()),
        // Names stand for other numbers at bridges.
        Hook::Prerouting => priority.to_string(),
    };
    format!("type filter hook {hook} priority {priority}; policy accept;")
}

/// A rule in one line.
fn line(rule: &Rule, layer: Layer, reader: Reader) -> String {
    let mut words = Vec::new();
    // What it carries is said once in a rule.
    let mut said = None;
    let mut say = |carried: Option<Carried>, words: &mut Vec<String>| {
        if carried.is_some() && carried != said {
            words.extend(carried.map(|carried| self::carried(layer, carried)));
            said = carried;
        }
    };
    for asked in &rule.matches {
        say(asked.carried(), &mut words);
        words.extend(matching(asked));
    }
    for done in &rule.does {
        if let Statement::Dispatch(of, _, _) = done {
            say(Some(Carried::Ip(*of)), &mut words);
        }
        words.push(statement(done));
    }
    let why = comment(&rule.why);
    if reader == Reader::Nft && !why.is_empty() {
        words.push(format!("comment \"{why}\""));
    }
    words.join(" ")
}

/// A rule without its sentence.
pub fn rule(rule: &Rule) -> String {
    line(rule, Layer::Inet, Reader::People)
}

/// What a frame must carry, as it is asked at a layer: of one with a tag nothing is known but that.
fn carried(layer: Layer, carried: Carried) -> String {
    match (layer, carried) {
        (Layer::Inet, Carried::Ip(Family::V4)) => "meta nfproto ipv4",
        (Layer::Inet, Carried::Ip(Family::V6)) => "meta nfproto ipv6",
        (Layer::Bridge, Carried::Ip(Family::V4)) => "ether type ip",
        (Layer::Bridge, Carried::Ip(Family::V6)) => "ether type ip6",
        (_, Carried::Arp) => "ether type arp",
    }
    .to_owned()
}

const ARP_SENDER: &str = "arp saddr ip";

fn matching(asked: &Match) -> Option<String> {
    let text = match asked {
        // It is said already.
        Match::Carries(_) => return None,
        Match::Tracked(Tracked::Established) => "ct state established".into(),
        Match::Tracked(Tracked::Related) => "ct state related".into(),
        Match::Tracked(Tracked::Reply) => "ct direction reply".into(),
        Match::Icmp(Family::V4) => "meta l4proto icmp".into(),
        Match::Icmp(Family::V6) => "meta l4proto ipv6-icmp".into(),
        // 130 to 137 and 143, as two ranges, which need no set.
        Match::NeighbourDiscovery => {
            "meta l4proto ipv6-icmp icmpv6 type 130-143 icmpv6 type != 138-142".into()
        }
        Match::Routing => {
            "meta l4proto ipv6-icmp icmpv6 type 134-137 icmpv6 type != 135-136".into()
        }
        Match::Opening => "tcp flags syn / fin,syn,rst,ack".into(),
        Match::Address(of, at, set) => format!("{} @{set}", address(*of, *at)),
        Match::Pair(of, set) => format!(
            "{} . {} @{set}",
            address(*of, End::Source),
            address(*of, End::Destination)
        ),
        Match::DestinationPort(of, set) => {
            format!("{} . th dport @{set}", address(*of, End::Destination))
        }
        Match::Tuple(of, first, set) => {
            let ends = [*first, first.other()];
            let [a, b] = ends.map(|end| address(*of, end));
            let [c, d] = ends.map(|end| match end {
                End::Source => "th sport",
                End::Destination => "th dport",
            });
            format!("{a} . {b} . meta l4proto . {c} . {d} @{set}")
        }
        Match::Protocol(of) => format!("meta l4proto {}", protocol(*of)),
        Match::Port(first, last) => format!("th dport {}", ports(*first, *last)),
        Match::Ports(set) => format!("th dport @{set}"),
        Match::FromOverlay => "meta iifkind \"vxlan\"".into(),
        Match::Interface(set) => format!("iifname @{set}"),
        Match::Own(carried, set) => {
            let sender = match carried {
                Carried::Ip(family) => address(*family, End::Source),
                Carried::Arp => ARP_SENDER,
            };
            format!("iifname . {sender} @{set}")
        }
        Match::ArpSender(set) => format!("{ARP_SENDER} @{set}"),
    };
    Some(text)
}

fn statement(done: &Statement) -> String {
    match done {
        Statement::Count(name) => format!("counter name \"{name}\""),
        Statement::Limit(n) => format!("limit rate {n}/second burst {n} packets"),
        Statement::Log(Log {
            group,
            prefix: text,
        }) => {
            let text = match prefix(text) {
                text if text.is_empty() => String::new(),
                text => format!("prefix \"{text}\" "),
            };
            format!("log {text}group {group} snaplen {LOG_SNAPLEN} queue-threshold {LOG_QUEUE}")
        }
        Statement::Dispatch(of, at, set) => format!("{} vmap @{set}", address(*of, *at)),
        Statement::Verdict(Verdict::Accept) => "accept".into(),
        Statement::Verdict(Verdict::Drop) => "drop".into(),
        Statement::Verdict(Verdict::Return) => "return".into(),
        Statement::Verdict(Verdict::Jump(chain)) => format!("jump {chain}"),
        Statement::Verdict(Verdict::Goto(chain)) => format!("goto {chain}"),
    }
}

fn keyword(kind: SetKind) -> &'static str {
    match kind {
        SetKind::Dispatch(_) => "map",
        _ => "set",
    }
}

/// What stands in the declaration of a set.
fn kind(kind: SetKind) -> Vec<String> {
    let of = kind.family().map_or("", addr_type);
    match kind {
        SetKind::Addresses(_) => vec![format!("type {of}")],
        SetKind::Pairs(_) => vec![format!("type {of} . {of}")],
        SetKind::AddressPorts(_) => vec![format!("type {of} . inet_service")],
        SetKind::Blocks(_) => vec![format!("type {of}"), "flags interval".into()],
        SetKind::Ports => vec!["type inet_service".into(), "flags interval".into()],
        SetKind::Tuples(_, seconds) => vec![
            format!("type {of} . {of} . inet_proto . inet_service . inet_service"),
            "flags timeout".into(),
            format!("timeout {seconds}s"),
        ],
        SetKind::Dispatch(_) => vec![format!("type {of} : verdict")],
        SetKind::Interfaces => vec!["type ifname".into()],
        SetKind::Sources(_) => vec![format!("type ifname . {of}")],
    }
}

/// The elements of a set, one a line.
fn listed(set: &Set) -> String {
    if set.elements.is_empty() {
        return String::new();
    }
    let elements: Vec<String> = set.elements.iter().map(element).collect();
    format!(
        "\t\telements = {{\n\t\t\t{}\n\t\t}}\n",
        elements.join(",\n\t\t\t")
    )
}

/// One element.
pub fn element(element: &Element) -> String {
    match element {
        Element::Address(address) => address.to_string(),
        Element::Pair(source, destination) => format!("{source} . {destination}"),
        Element::AddressPort(address, port) => format!("{address} . {}", port.get()),
        Element::Block(first, last) if first == last => first.to_string(),
        Element::Block(first, last) => format!("{first}-{last}"),
        Element::Ports(first, last) => ports(*first, *last),
        Element::Tuple(tuple) => format!(
            "{} . {} . {} . {} . {}",
            tuple.source.0,
            tuple.destination.0,
            protocol(tuple.protocol),
            tuple.source.1,
            tuple.destination.1
        ),
        Element::Dispatch(address, chain) => format!("{address} : jump {chain}"),
        Element::Interface(name) => format!("\"{}\"", name.as_str()),
        Element::Source(name, address) => format!("\"{}\" . {address}", name.as_str()),
    }
}

fn ports(first: Port, last: Port) -> String {
    if first == last {
        first.get().to_string()
    } else {
        format!("{}-{}", first.get(), last.get())
    }
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

fn addr_type(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4_addr",
        Family::V6 => "ipv6_addr",
    }
}

fn address(family: Family, end: End) -> &'static str {
    match (family, end) {
        (Family::V4, End::Source) => "ip saddr",
        (Family::V4, End::Destination) => "ip daddr",
        (Family::V6, End::Source) => "ip6 saddr",
        (Family::V6, End::Destination) => "ip6 daddr",
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::{SetName, Tuple};
    use super::*;

    fn port(number: u16) -> Port {
        Port::new(number).expect("not 0")
    }

    fn rule(matches: Vec<Match>, does: Vec<Statement>, why: &str) -> Rule {
        let why = why.into();
        Rule { matches, does, why }
    }

    /// Sets of each kind.
    fn sets() -> Ruleset {
        let mut made = Ruleset::default();
        let mut set = |name: &str, kind, elements: &[Element]| {
            let elements = elements.iter().cloned().collect();
            made.sets.insert(name.into(), Set { kind, elements });
        };
        let ip = |text: &str| text.parse().expect("an address");
        set(
            "peers4",
            SetKind::Addresses(Family::V4),
            &[Element::Address(ip("10.0.0.7"))],
        );
        set(
            "pairs6",
            SetKind::Pairs(Family::V6),
            &[Element::Pair(ip("fd00::1"), ip("fd00::2"))],
        );
        set(
            "named4",
            SetKind::AddressPorts(Family::V4),
            &[Element::AddressPort(ip("10.0.0.7"), port(80))],
        );
        set(
            "blocks4",
            SetKind::Blocks(Family::V4),
            &[
                Element::Block(ip("0.0.0.0"), ip("9.255.255.255")),
                Element::Block(ip("11.0.0.0"), ip("255.255.255.255")),
                Element::Block(ip("10.1.1.1"), ip("10.1.1.1")),
            ],
        );
        set(
            "ports",
            SetKind::Ports,
            &[
                Element::Ports(port(80), port(80)),
                Element::Ports(port(8000), port(65_535)),
            ],
        );
        let tuple = Tuple {
            source: (ip("10.0.0.7"), 1024),
            destination: (ip("10.0.0.8"), 53),
            protocol: Protocol::Udp,
        };
        set(
            "cut4",
            SetKind::Tuples(Family::V4, 5),
            &[Element::Tuple(tuple)],
        );
        set(
            "ingress4",
            SetKind::Dispatch(Family::V4),
            &[Element::Dispatch(ip("10.0.0.8"), "pod-1".into())],
        );
        set("none", SetKind::Addresses(Family::V6), &[]);
        made
    }

    /// A table that has one of everything.
    fn example() -> Ruleset {
        let mut made = sets();
        made.counters.insert("denied".into());
        let forward = made.chain_mut("forward".into());
        forward.hook = Some(Hook::Forward);
        let dispatch = Statement::Dispatch(Family::V4, End::Destination, "ingress4".into());
        forward.rules = vec![
            Rule::new(
                vec![Match::Tuple(Family::V4, End::Source, "cut4".into())],
                Verdict::Drop,
                "connections that are no longer allowed",
            ),
            Rule::new(
                vec![Match::Tuple(Family::V4, End::Destination, "cut4".into())],
                Verdict::Drop,
                "and their way back",
            ),
            Rule::new(
                vec![Match::Tracked(Tracked::Established)],
                Verdict::Accept,
                "",
            ),
            Rule::new(
                vec![Match::Tracked(Tracked::Related), Match::Icmp(Family::V6)],
                Verdict::Accept,
                "what went wrong with connections that are allowed",
            ),
            Rule::new(
                vec![Match::NeighbourDiscovery],
                Verdict::Accept,
                "neighbours",
            ),
            rule(vec![], vec![dispatch], "to the chain of a pod"),
        ];
        let pod = made.chain_mut("pod-1".into());
        let v4 = Family::V4;
        pod.rules = vec![
            Rule::new(
                vec![
                    Match::Protocol(Protocol::Tcp),
                    Match::Address(v4, End::Source, "peers4".into()),
                    Match::Address(v4, End::Source, "blocks4".into()),
                    Match::Port(port(80), port(90)),
                ],
                Verdict::Return,
                "shop/web: from \"frontend\", TCP 80 to 90",
            ),
            Rule::new(
                vec![
                    Match::Protocol(Protocol::Sctp),
                    Match::DestinationPort(v4, "named4".into()),
                ],
                Verdict::Return,
                "",
            ),
            Rule::new(
                vec![Match::Pair(Family::V6, "pairs6".into())],
                Verdict::Jump("other".into()),
                "",
            ),
            Rule::new(
                vec![Match::Protocol(Protocol::Udp), Match::Ports("ports".into())],
                Verdict::Goto("other".into()),
                "",
            ),
            rule(
                vec![],
                vec![
                    Statement::Count("denied".into()),
                    Statement::Limit(10),
                    Statement::Log(Log {
                        group: 100,
                        prefix: "i pod-1".into(),
                    }),
                ],
                "denied\nby shop/web",
            ),
            Rule::new(vec![], Verdict::Drop, ""),
        ];
        made.chain_mut("other".into());
        made
    }

    #[test]
    fn a_table_for_nft() {
        insta::assert_snapshot!(ruleset(&example(), Reader::Nft));
    }

    #[test]
    fn a_table_for_people() {
        insta::assert_snapshot!(table(&example(), Reader::People));
    }

    #[test]
    fn changes_one_a_line() {
        let mut after = example();
        after.sets.remove(&SetName::from("none"));
        after.chain_mut("pod-1".into()).rules.pop();
        let changes = Transaction::whole(&example()).changes.into_iter();
        let changes = changes.chain(Transaction::between(&example(), &after).changes);
        let all = Transaction::of(changes.collect());
        insta::assert_snapshot!(transaction(&all));
    }

    #[test]
    fn comments_cannot_end_what_they_stand_in() {
        let why = "say \"yes\" to C:\\x\n\tand é\u{7f}$1";
        assert_eq!(comment(why), "say 'yes' to C:/x  and é $1");
        assert_eq!(prefix(why), "say 'yes' to C:/x  and é  1");
        assert!(matches!(comment("plain"), Cow::Borrowed("plain")));
    }

    #[test]
    fn comments_are_cut_between_characters() {
        let long = "é".repeat(100);
        assert_eq!(comment(&long), "é".repeat(64));
        assert_eq!(prefix(&long), "é".repeat(63));
        assert_eq!(comment(&format!("a{long}")).len(), 127);
        assert_eq!(comment(&"a".repeat(128)).len(), 128);
    }

    #[test]
    fn what_is_kept_is_kept_again_as_it_is() {
        let kept = example().as_kept();
        assert_eq!(kept.as_kept(), kept);
        assert_ne!(kept, example());
    }

    #[test]
    fn what_is_wanted_has_the_digest_of_what_is_kept_of_it() {
        let mut wanted = example();
        wanted
            .sets
            .retain(|_, set| !matches!(set.kind, SetKind::Tuples(..)));
        assert_ne!(wanted.as_kept(), wanted);
        assert_eq!(wanted.as_kept().digest(), wanted.digest());
    }
}
