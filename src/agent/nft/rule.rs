//! Rules to expressions and back.
//!
//! The expressions are those that `nft` 1.0.6 makes of the text that `ruleset/render.rs` writes, in the same order, so
//! that `nft list` shows them as they were meant. Back again is exact: what would not be made in the same way is nothing
//! of ours.

use std::sync::Arc;

use super::expression::{
    ACCEPT, Code, Comparison, DROP, Expression, FIRST, GOTO, JUMP, LINK, META_IIFKIND,
    META_IIFNAME, META_L4PROTO, META_NFPROTO, NETWORK, RETURN, TRANSPORT,
};
use crate::netpol::{Family, Port, Protocol};
use crate::ruleset::render;
use crate::ruleset::table::{
    Carried, ChainName, End, INTERFACE, LOG_QUEUE, LOG_SNAPLEN, Layer, Log, Match, Rule, SetName,
    Statement, Tracked, Verdict,
};

mod guess;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const ROUTER_ADVERTISEMENT: u8 = 134;

/// The kind of a device that unpacks the overlay.
const VXLAN: &str = "vxlan";

/// The type of a comment in a rule's data for its user, as nft has it.
const COMMENT: u8 = 0;

/// What a rule is made of at a layer.
pub(super) fn expressions(layer: Layer, matches: &[Match], does: &[Statement]) -> Vec<Expression> {
    let mut out = Vec::new();
    let mut said = None;
    for asked in matches {
        if let Some(carried) = asked.carried() {
            say(layer, carried, &mut said, &mut out);
        }
        matching(asked, &mut out);
    }
    for done in does {
        if let Statement::Dispatch(family, ..) = done {
            say(layer, Carried::Ip(*family), &mut said, &mut out);
        }
        statement(done, &mut out);
    }
    out
}

/// A rule's sentence as nft keeps comments; empty where there is none.
pub(super) fn user_data(why: &str) -> Vec<u8> {
    let comment = render::comment(why);
    let mut out = Vec::new();
    if let (false, Ok(length)) = (comment.is_empty(), u8::try_from(comment.len() + 1)) {
        out.extend_from_slice(&[COMMENT, length]);
        out.extend_from_slice(comment.as_bytes());
        out.push(0);
    }
    out
}

/// The sentence in what `user_data` made.
pub(super) fn sentence(mut data: &[u8]) -> &str {
    while let [kind, length, rest @ ..] = data {
        let Some((value, rest)) = rest.split_at_checked(usize::from(*length)) else {
            break;
        };
        if *kind == COMMENT {
            return crate::agent::netlink::wire::text(value).unwrap_or_default();
        }
        data = rest;
    }
    ""
}

/// The rule that is made of these expressions at a layer; none if it is nothing of ours.
pub(super) fn rule(layer: Layer, expressions: &[Expression], why: &str) -> Option<Rule> {
    let (matches, does) = guess::guess(expressions)?;
    let is_exact = self::expressions(layer, &matches, &does) == expressions;
    is_exact.then(|| Rule {
        matches,
        does,
        why: Arc::from(why),
    })
}

/// Says once in a rule what is carried.
fn say(layer: Layer, carried: Carried, said: &mut Option<Carried>, out: &mut Vec<Expression>) {
    if *said == Some(carried) {
        return;
    }
    match (layer, carried) {
        (Layer::Inet, Carried::Ip(family)) => {
            out.extend([meta(META_NFPROTO), equal(&[number(family)])]);
        }
        (Layer::Bridge, _) | (_, Carried::Arp) => {
            out.extend([frame_type(), equal(&ether_type(carried))]);
        }
    }
    *said = Some(carried);
}

/// The type of what a frame carries (`ETH_P_IP`, `ETH_P_IPV6`, `ETH_P_ARP`).
fn ether_type(carried: Carried) -> [u8; 2] {
    let number: u16 = match carried {
        Carried::Ip(Family::V4) => 0x0800,
        Carried::Ip(Family::V6) => 0x86dd,
        Carried::Arp => 0x0806,
    };
    number.to_be_bytes()
}

/// What says in the head of a frame what comes behind it.
fn frame_type() -> Expression {
    Expression::Payload {
        base: LINK,
        offset: 12,
        length: 2,
        to: FIRST,
    }
}

/// Flags of TCP.
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// The number of replies among the ways of a connection (`IP_CT_DIR_REPLY`).
const REPLY: u8 = 1;

/// The number of a family: `NFPROTO_IPV4`, `NFPROTO_IPV6`.
fn number(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

/// The number of a protocol in the header of IP.
pub(super) fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

/// The protocol of a number in the header of IP, where policies know it.
pub(crate) fn protocol(number: u8) -> Option<Protocol> {
    Protocol::ALL
        .into_iter()
        .find(|protocol| protocol_number(*protocol) == number)
}

fn meta(key: u32) -> Expression {
    Expression::Meta { key, to: FIRST }
}

fn compare(how: Comparison, with: &[u8]) -> Expression {
    Expression::Compare {
        register: FIRST,
        how,
        with: with.to_vec(),
    }
}

fn equal(with: &[u8]) -> Expression {
    compare(Comparison::Equal, with)
}

fn lookup(set: &str, is_map: bool) -> Expression {
    Expression::Lookup {
        set: set.to_owned(),
        register: FIRST,
        is_map,
    }
}

/// Parts of what is looked up in a set.
#[derive(Clone, Copy)]
enum Part {
    Address(Family, End),
    Protocol,
    Port(End),
    /// By which interface it came in.
    Interface,
    /// The sender in a message of ARP.
    ArpSender,
}

/// Loads the parts of a key, each into as many of the 16 registers of 4 bytes as it needs.
fn load(parts: &[Part], out: &mut Vec<Expression>) {
    let mut slot: u32 = 0;
    for part in parts {
        // Where a register of 16 bytes begins, the kernel calls it by that.
        let to = match slot % 4 {
            0 => FIRST + slot / 4,
            _ => 8 + slot,
        };
        let payload = |base, offset, length| Expression::Payload {
            base,
            offset,
            length,
            to,
        };
        let (expression, slots) = match part {
            Part::Address(Family::V4, End::Source) => (payload(NETWORK, 12, 4), 1),
            Part::Address(Family::V4, End::Destination) => (payload(NETWORK, 16, 4), 1),
            Part::Address(Family::V6, End::Source) => (payload(NETWORK, 8, 16), 4),
            Part::Address(Family::V6, End::Destination) => (payload(NETWORK, 24, 16), 4),
            Part::Protocol => (
                Expression::Meta {
                    key: META_L4PROTO,
                    to,
                },
                1,
            ),
            Part::Port(End::Source) => (payload(TRANSPORT, 0, 2), 1),
            Part::Port(End::Destination) => (payload(TRANSPORT, 2, 2), 1),
            Part::Interface => (
                Expression::Meta {
                    key: META_IIFNAME,
                    to,
                },
                4,
            ),
            Part::ArpSender => (payload(NETWORK, 14, 4), 1),
        };
        out.push(expression);
        slot += slots;
    }
}

/// Asks for what these parts are together.
fn in_set(parts: &[Part], set: &SetName, out: &mut Vec<Expression>) {
    load(parts, out);
    out.push(lookup(set.as_str(), false));
}

/// Asks for one of the bits of states.
fn state(bit: u32, out: &mut Vec<Expression>) {
    out.extend([
        Expression::State { to: FIRST },
        Expression::Mask {
            register: FIRST,
            // They are in the machine's order.
            mask: bit.to_ne_bytes().to_vec(),
        },
        compare(Comparison::NotEqual, &[0; 4]),
    ]);
}

/// A byte of the header of TCP, UDP or ICMP.
fn byte(offset: u32) -> Expression {
    Expression::Payload {
        base: TRANSPORT,
        offset,
        length: 1,
        to: FIRST,
    }
}

/// Messages of `ICMPv6` of types from one to another, but for those from one to another.
fn icmpv6((first, last): (u8, u8), but: (u8, u8)) -> [Expression; 7] {
    [
        meta(META_L4PROTO),
        equal(&[ICMPV6]),
        byte(0),
        compare(Comparison::AtLeast, &[first]),
        compare(Comparison::AtMost, &[last]),
        byte(0),
        Expression::Outside {
            register: FIRST,
            first: vec![but.0],
            last: vec![but.1],
        },
    ]
}

fn opening() -> [Expression; 5] {
    [
        meta(META_L4PROTO),
        equal(&[protocol_number(Protocol::Tcp)]),
        byte(13),
        Expression::Mask {
            register: FIRST,
            mask: vec![FIN | SYN | RST | ACK],
        },
        equal(&[SYN]),
    ]
}

fn matching(asked: &Match, out: &mut Vec<Expression>) {
    match asked {
        // It is said already.
        Match::Carries(_) => {}
        Match::Tracked(Tracked::Established) => state(2, out),
        Match::Tracked(Tracked::Related) => state(4, out),
        Match::Tracked(Tracked::Reply) => {
            out.extend([Expression::Way { to: FIRST }, equal(&[REPLY])]);
        }
        Match::Icmp(family) => {
            let icmp = match family {
                Family::V4 => ICMP,
                Family::V6 => ICMPV6,
            };
            out.extend([meta(META_L4PROTO), equal(&[icmp])]);
        }
        Match::NeighbourDiscovery => out.extend(icmpv6((130, 143), (138, 142))),
        Match::Routing => out.extend(icmpv6((ROUTER_ADVERTISEMENT, 137), (135, 136))),
        Match::Opening => out.extend(opening()),
        Match::Address(family, end, set) => {
            in_set(&[Part::Address(*family, *end)], set, out);
        }
        Match::Pair(family, set) => {
            let ends = [End::Source, End::Destination];
            in_set(&ends.map(|end| Part::Address(*family, end)), set, out);
        }
        Match::DestinationPort(family, set) => {
            let parts = [
                Part::Address(*family, End::Destination),
                Part::Port(End::Destination),
            ];
            in_set(&parts, set, out);
        }
        Match::Tuple(family, first, set) => {
            let parts = [
                Part::Address(*family, *first),
                Part::Address(*family, first.other()),
                Part::Protocol,
                Part::Port(*first),
                Part::Port(first.other()),
            ];
            in_set(&parts, set, out);
        }
        Match::Protocol(protocol) => {
            out.extend([meta(META_L4PROTO), equal(&[protocol_number(*protocol)])]);
        }
        Match::Port(first, last) => {
            load(&[Part::Port(End::Destination)], out);
            let bytes = |port: &Port| port.get().to_be_bytes();
            if first == last {
                out.push(equal(&bytes(first)));
            } else {
                out.push(compare(Comparison::AtLeast, &bytes(first)));
                out.push(compare(Comparison::AtMost, &bytes(last)));
            }
        }
        Match::Ports(set) => {
            in_set(&[Part::Port(End::Destination)], set, out);
        }
        Match::FromOverlay => out.extend([meta(META_IIFKIND), equal(&name(VXLAN))]),
        Match::Interface(set) => {
            in_set(&[Part::Interface], set, out);
        }
        Match::Own(carried, set) => {
            let sender = match carried {
                Carried::Ip(family) => Part::Address(*family, End::Source),
                Carried::Arp => Part::ArpSender,
            };
            in_set(&[Part::Interface, sender], set, out);
        }
        Match::ArpSender(set) => in_set(&[Part::ArpSender], set, out),
    }
}

/// The name of an interface, or of a kind of them, as the kernel compares it: with zeroes behind it.
pub(super) fn name(text: &str) -> [u8; INTERFACE] {
    let mut padded = [0; INTERFACE];
    for (to, from) in padded.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    padded
}

fn statement(done: &Statement, out: &mut Vec<Expression>) {
    let made = match done {
        Statement::Count(name) => Expression::Count {
            name: name.as_str().to_owned(),
        },
        Statement::Limit(rate) => Expression::Limit {
            rate: u64::from(*rate),
            burst: *rate,
        },
        Statement::Log(Log { group, prefix }) => Expression::Log {
            group: *group,
            prefix: Some(render::prefix(prefix).into_owned()).filter(|text| !text.is_empty()),
            snaplen: LOG_SNAPLEN,
            queue: LOG_QUEUE,
        },
        Statement::Dispatch(family, end, set) => {
            load(&[Part::Address(*family, *end)], out);
            lookup(set.as_str(), true)
        }
        Statement::Verdict(verdict) => Expression::Verdict(match verdict {
            Verdict::Accept => Code::plain(ACCEPT),
            Verdict::Drop => Code::plain(DROP),
            Verdict::Return => Code::plain(RETURN),
            Verdict::Jump(chain) => leading(JUMP, chain),
            Verdict::Goto(chain) => leading(GOTO, chain),
        }),
    };
    out.push(made);
}

fn leading(code: i32, chain: &ChainName) -> Code {
    Code {
        code,
        chain: Some(chain.as_str().to_owned()),
    }
}
