//! What expressions may have been made of.

use std::sync::Arc;

use super::{ICMP, ICMPV6, ROUTER_ADVERTISEMENT, ether_type, matching, number, protocol};
use crate::agent::nft::expression::{
    ACCEPT, Code, Comparison, DROP, Expression, GOTO, JUMP, LINK, META_IIFKIND, META_IIFNAME,
    META_NFPROTO, RETURN,
};
use crate::netpol::{Family, Port};
use crate::ruleset::table::{Carried, ChainName, End, Log, Match, Statement, Tracked, Verdict};

/// What these expressions may have been made of; `rule` sees whether that is so.
pub(super) fn guess(mut rest: &[Expression]) -> Option<(Vec<Match>, Vec<Statement>)> {
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
            (Expression::Meta { key, .. }, [Expression::Compare { with, .. }, tail @ ..])
                if *key == META_NFPROTO =>
            {
                let is_it = |family: &Family| *with == [number(*family)];
                let carried = Carried::Ip(Family::BOTH.into_iter().find(is_it)?);
                matches.extend(says(carried, tail));
                said = Some(carried);
                2
            }
            (Expression::Meta { key, .. }, _) if *key == META_IIFNAME => {
                keep(asked(rest, said)?, &mut matches, &mut does)
            }
            (Expression::Meta { .. }, [Expression::Compare { with, .. }, tail @ ..]) => {
                let (found, taken) = of_protocol(with, tail)?;
                matches.push(found);
                taken
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
            (Expression::Way { .. }, [Expression::Compare { .. }, ..]) => {
                matches.push(Match::Tracked(Tracked::Reply));
                2
            }
            (
                Expression::Payload { base: LINK, .. },
                [Expression::Compare { with, .. }, tail @ ..],
            ) => {
                let is_it = |carried: &Carried| ether_type(*carried).as_slice() == with;
                let carried = Carried::ALL.into_iter().find(is_it)?;
                matches.extend(says(carried, tail));
                said = Some(carried);
                2
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
            (Expression::Payload { .. }, _) => keep(asked(rest, said)?, &mut matches, &mut does),
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

/// What is asked of a protocol, and how many expressions that takes.
fn of_protocol(with: &[u8], rest: &[Expression]) -> Option<(Match, usize)> {
    let [value] = with else {
        return None;
    };
    Some(match (*value, rest) {
        (
            _,
            [
                Expression::Payload { length: 1, .. },
                Expression::Mask { .. },
                ..,
            ],
        ) => (Match::Opening, 5),
        (
            _,
            [
                Expression::Payload { length: 1, .. },
                Expression::Compare { with, .. },
                ..,
            ],
        ) => {
            let is_routing = with.as_slice() == [ROUTER_ADVERTISEMENT];
            let found = if is_routing {
                Match::Routing
            } else {
                Match::NeighbourDiscovery
            };
            (found, 7)
        }
        (ICMP, _) => (Match::Icmp(Family::V4), 2),
        (ICMPV6, _) => (Match::Icmp(Family::V6), 2),
        (other, _) => (Match::Protocol(protocol(other)?), 2),
    })
}

/// What says that something is carried: the next question, where it is one of that, or a match of its own.
fn says(carried: Carried, rest: &[Expression]) -> Option<Match> {
    let by_itself = match asked(rest, Some(carried)) {
        Some((Asked::Match(found), _)) => found.carried().is_some(),
        Some((Asked::Statement(_), _)) => true,
        None => false,
    };
    (!by_itself).then_some(Match::Carries(carried))
}

enum Asked {
    Match(Match),
    Statement(Statement),
}

/// Keeps what is asked of a set; how many expressions it is.
fn keep(
    (found, taken): (Asked, usize),
    matches: &mut Vec<Match>,
    does: &mut Vec<Statement>,
) -> usize {
    match found {
        Asked::Match(found) => matches.push(found),
        Asked::Statement(found) => does.push(found),
    }
    taken
}

/// The question to a set with which these expressions begin, and how many they are.
fn asked(rest: &[Expression], said: Option<Carried>) -> Option<(Asked, usize)> {
    let at = rest
        .iter()
        .position(|expression| matches!(expression, Expression::Lookup { .. }))?;
    let loads = rest.get(..at)?;
    let Expression::Lookup { set, is_map, .. } = rest.get(at)? else {
        return None;
    };
    let set = || set.as_str().into();
    let mut all = vec![Match::Ports(set()), Match::Interface(set())];
    all.extend(said.map(|carried| Match::Own(carried, set())));
    if said == Some(Carried::Arp) {
        all.push(Match::ArpSender(set()));
    }
    if let Some(Carried::Ip(family)) = said {
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
