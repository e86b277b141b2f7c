//! Rules to expressions and back.
//!
//! The expressions are those that `nft` 1.0.6 makes of the text that `ruleset/render.rs` writes, in the same order, so
//! that `nft list` shows them as they were meant. Back again is exact: what would not be made in the same way is nothing
//! of ours.

use std::sync::Arc;

use super::expression::{
    ACCEPT, Code, Comparison, DROP, Expression, FIRST, GOTO, JUMP, META_IIFKIND, META_L4PROTO,
    META_NFPROTO, NETWORK, RETURN, TRANSPORT,
};
use crate::netpol::{Family, Port, Protocol};
use crate::ruleset::render;
use crate::ruleset::table::{
    ChainName, End, LOG_QUEUE, LOG_SNAPLEN, Log, Match, Rule, Statement, Tracked, Verdict,
};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// The kind of a device that unpacks the overlay.
const VXLAN: &str = "vxlan";

/// How many bytes the name of an interface or of a kind of them has at most (`IFNAMSIZ`).
const NAME: usize = 16;

/// The type of a comment in a rule's data for its user, as nft has it.
const COMMENT: u8 = 0;

/// What a rule is made of.
pub(super) fn expressions(matches: &[Match], does: &[Statement]) -> Vec<Expression> {
    let mut out = Vec::new();
    let mut said = None;
    for asked in matches {
        if let Some(family) = asked.family() {
            say(family, &mut said, &mut out);
        }
        matching(asked, &mut out);
    }
    for done in does {
        if let Statement::Dispatch(family, ..) = done {
            say(*family, &mut said, &mut out);
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

/// The rule that is made of these expressions; none if it is nothing of ours.
pub(super) fn rule(expressions: &[Expression], why: &str) -> Option<Rule> {
    let (matches, does) = guess(expressions)?;
    let is_exact = self::expressions(&matches, &does) == expressions;
    is_exact.then(|| Rule {
        matches,
        does,
        why: Arc::from(why),
    })
}

/// Says the family once in a rule.
fn say(family: Family, said: &mut Option<Family>, out: &mut Vec<Expression>) {
    if *said != Some(family) {
        out.push(meta(META_NFPROTO));
        out.push(equal(&[number(family)]));
        *said = Some(family);
    }
}

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
        };
        out.push(expression);
        slot += slots;
    }
}

fn matching(asked: &Match, out: &mut Vec<Expression>) {
    match asked {
        Match::Tracked(tracked) => {
            // The bits of states are in the machine's order.
            let bit: u32 = match tracked {
                Tracked::Established => 2,
                Tracked::Related => 4,
            };
            out.push(Expression::State { to: FIRST });
            out.push(Expression::Mask {
                register: FIRST,
                mask: bit.to_ne_bytes().to_vec(),
            });
            out.push(compare(Comparison::NotEqual, &[0; 4]));
        }
        Match::Icmp(family) => {
            let icmp = match family {
                Family::V4 => ICMP,
                Family::V6 => ICMPV6,
            };
            out.extend([meta(META_L4PROTO), equal(&[icmp])]);
        }
        Match::NeighbourDiscovery => {
            let kind = Expression::Payload {
                base: TRANSPORT,
                offset: 0,
                length: 1,
                to: FIRST,
            };
            out.extend([
                meta(META_L4PROTO),
                equal(&[ICMPV6]),
                kind.clone(),
                compare(Comparison::AtLeast, &[130]),
                compare(Comparison::AtMost, &[143]),
                kind,
                Expression::Outside {
                    register: FIRST,
                    first: vec![138],
                    last: vec![142],
                },
            ]);
        }
        Match::Address(family, end, set) => {
            load(&[Part::Address(*family, *end)], out);
            out.push(lookup(set.as_str(), false));
        }
        Match::Pair(family, set) => {
            let ends = [End::Source, End::Destination];
            load(&ends.map(|end| Part::Address(*family, end)), out);
            out.push(lookup(set.as_str(), false));
        }
        Match::DestinationPort(family, set) => {
            let parts = [
                Part::Address(*family, End::Destination),
                Part::Port(End::Destination),
            ];
            load(&parts, out);
            out.push(lookup(set.as_str(), false));
        }
        Match::Tuple(family, first, set) => {
            let parts = [
                Part::Address(*family, *first),
                Part::Address(*family, first.other()),
                Part::Protocol,
                Part::Port(*first),
                Part::Port(first.other()),
            ];
            load(&parts, out);
            out.push(lookup(set.as_str(), false));
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
            load(&[Part::Port(End::Destination)], out);
            out.push(lookup(set.as_str(), false));
        }
        Match::FromOverlay => out.extend([meta(META_IIFKIND), equal(&name(VXLAN))]),
    }
}

/// A name as the kernel compares it: with zeroes behind it.
fn name(text: &str) -> [u8; NAME] {
    let mut padded = [0; NAME];
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

/// What these expressions may have been made of; `rule` sees whether that is so.
fn guess(mut rest: &[Expression]) -> Option<(Vec<Match>, Vec<Statement>)> {
    let (mut matches, mut does) = (Vec::new(), Vec::new());
    let mut said = None;
    while let [first, tail @ ..] = rest {
        let taken = match (first, tail) {
            (Expression::Meta { key, .. }, [Expression::Compare { .. }, ..])
                if *key == META_IIFKIND =>
            {
                matches.push(Match::FromOverlay);
                2
            }
            (Expression::Meta { key, .. }, [Expression::Compare { with, .. }, tail @ ..]) => {
                let [value] = with.as_slice() else {
                    return None;
                };
                if *key == META_NFPROTO {
                    said = Family::BOTH.into_iter().find(|f| number(*f) == *value);
                    2
                } else if matches!(tail, [Expression::Payload { length: 1, .. }, ..]) {
                    matches.push(Match::NeighbourDiscovery);
                    7
                } else {
                    matches.push(match *value {
                        ICMP => Match::Icmp(Family::V4),
                        ICMPV6 => Match::Icmp(Family::V6),
                        other => Match::Protocol(protocol(other)?),
                    });
                    2
                }
            }
            (Expression::State { .. }, [Expression::Mask { mask, .. }, _, ..]) => {
                let is_established = mask.as_slice() == 2_u32.to_ne_bytes();
                matches.push(Match::Tracked(if is_established {
                    Tracked::Established
                } else {
                    Tracked::Related
                }));
                3
            }
            (Expression::Payload { .. }, [Expression::Compare { with, .. }, tail @ ..]) => {
                let first = port(with)?;
                if let [Expression::Compare { how, with, .. }, ..] = tail
                    && *how == Comparison::AtMost
                {
                    matches.push(Match::Port(first, port(with)?));
                    3
                } else {
                    matches.push(Match::Port(first, first));
                    2
                }
            }
            (Expression::Payload { .. }, _) => {
                let (found, taken) = asked(rest, said)?;
                match found {
                    Asked::Match(found) => matches.push(found),
                    Asked::Statement(found) => does.push(found),
                }
                taken
            }
            (Expression::Count { name }, _) => {
                does.push(Statement::Count(name.as_str().into()));
                1
            }
            (Expression::Limit { burst, .. }, _) => {
                does.push(Statement::Limit(*burst));
                1
            }
            (Expression::Log { group, prefix, .. }, _) => {
                does.push(Statement::Log(Log {
                    group: *group,
                    prefix: Arc::from(prefix.as_deref().unwrap_or_default()),
                }));
                1
            }
            (Expression::Verdict(code), _) => {
                does.push(Statement::Verdict(verdict(code)?));
                1
            }
            _ => return None,
        };
        rest = rest.get(taken..)?;
    }
    Some((matches, does))
}

enum Asked {
    Match(Match),
    Statement(Statement),
}

/// The question to a set with which these expressions begin, and how many they are.
fn asked(rest: &[Expression], family: Option<Family>) -> Option<(Asked, usize)> {
    let at = rest
        .iter()
        .position(|expression| matches!(expression, Expression::Lookup { .. }))?;
    let loads = rest.get(..at)?;
    let Expression::Lookup { set, is_map, .. } = rest.get(at)? else {
        return None;
    };
    let set = || set.as_str().into();
    let mut all = vec![Match::Ports(set())];
    if let Some(family) = family {
        all.extend([
            Match::Address(family, End::Source, set()),
            Match::Address(family, End::Destination, set()),
            Match::Pair(family, set()),
            Match::DestinationPort(family, set()),
            Match::Tuple(family, End::Source, set()),
            Match::Tuple(family, End::Destination, set()),
        ]);
    }
    let found = all.into_iter().find(|one| {
        let mut made = Vec::new();
        matching(one, &mut made);
        made.get(..at) == Some(loads)
    })?;
    let found = match found {
        Match::Address(family, end, set) if *is_map => {
            Asked::Statement(Statement::Dispatch(family, end, set))
        }
        found => Asked::Match(found),
    };
    Some((found, at + 1))
}

fn port(bytes: &[u8]) -> Option<Port> {
    let [high, low] = bytes else {
        return None;
    };
    Port::new(u16::from_be_bytes([*high, *low]))
}

fn verdict(code: &Code) -> Option<Verdict> {
    let chain = || code.chain.as_deref().map(ChainName::from);
    match code.code {
        ACCEPT => Some(Verdict::Accept),
        DROP => Some(Verdict::Drop),
        RETURN => Some(Verdict::Return),
        JUMP => chain().map(Verdict::Jump),
        GOTO => chain().map(Verdict::Goto),
        _ => None,
    }
}
