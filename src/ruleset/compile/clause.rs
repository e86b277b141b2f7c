//! The rules for one clause: whom it means and at which ports, in as few lookups as there are kinds of peers.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{Asking, Draft, Next, Writer, digit};
use crate::netpol::spans::Span;
use crate::netpol::{Action, Port, PortName, Protocol};
use crate::ruleset::addresses::Addresses;
use crate::ruleset::body::Way;
use crate::ruleset::digest::short;
use crate::ruleset::table::{Element, End, Match, SetKind, SetName};
use crate::ruleset::terms::{ALL_PORTS, Clause, Member, PeerKey, Where, Who};

/// One kind of peers, which one lookup answers for.
enum OnePeer {
    Anyone,
    Member(Member),
    Blocks(Addresses),
}

impl std::fmt::Display for OnePeer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Anyone => f.write_str("anyone"),
            Self::Member(member) => member.fmt(f),
            Self::Blocks(_) => f.write_str("addresses of its blocks"),
        }
    }
}

impl Writer<'_> {
    /// The rules for one clause: one for each kind of peer and each protocol.
    pub(super) fn clause(&mut self, clause: &Clause, then: Next, rules: &mut Vec<Draft>) {
        for who in self.peers(&clause.who) {
            for (matches, ports) in self.matches(&who, &clause.at) {
                if clause.action != Action::Accept && self.asking == Asking::InForce {
                    let asked = matches.iter().filter_map(followed).cloned();
                    self.denying.extend(asked);
                }
                let verb = match clause.action {
                    Action::Accept => "passes",
                    Action::Deny => "is denied",
                    Action::Pass => "leaves the tier",
                };
                let preposition = match self.way {
                    Way::Ingress => "from",
                    Way::Egress | Way::ToNode => "to",
                };
                rules.push(Draft {
                    matches,
                    does: Vec::new(),
                    then,
                    why: format!("{}: {ports} {preposition} {who} {verb}", clause.by),
                });
            }
        }
    }

    fn peers(&self, who: &Who) -> Vec<OnePeer> {
        match who {
            Who::Anyone => vec![OnePeer::Anyone],
            Who::Some(_, addresses) if addresses.is_everything(self.family) => {
                vec![OnePeer::Anyone]
            }
            Who::Some(members, addresses) => {
                let members = members.iter().cloned().map(OnePeer::Member);
                let blocks =
                    (!addresses.is_empty(self.family)).then(|| OnePeer::Blocks(addresses.clone()));
                members.chain(blocks).collect()
            }
        }
    }

    /// What must hold of a packet from or to a peer, for each protocol and kind of port, each with its words.
    fn matches(&mut self, who: &OnePeer, at: &Where) -> Vec<(Vec<Match>, String)> {
        let Where::Some { numbers, named } = at else {
            let matches = self.address(who, None).into_iter().collect();
            return vec![(matches, "everything".to_owned())];
        };
        let mut all = Vec::new();
        for (protocol, ranges) in numbers {
            // What costs least comes first: a set is not asked about packets that are of another protocol.
            let mut matches = vec![Match::Protocol(*protocol)];
            matches.extend(self.port(ranges));
            matches.extend(self.address(who, None));
            all.push((matches, in_words(*protocol, ranges)));
        }
        for (name, protocol) in named {
            let mut matches = vec![Match::Protocol(*protocol)];
            matches.extend(self.address(who, Some((name.clone(), *protocol))));
            all.push((matches, format!("{protocol} {name}")));
        }
        all
    }

    fn address(&mut self, who: &OnePeer, named: Option<(PortName, Protocol)>) -> Option<Match> {
        let end = match self.way {
            Way::Ingress => End::Source,
            Way::Egress | Way::ToNode => End::Destination,
        };
        let member = match (who, &named) {
            (OnePeer::Anyone, None) => return None,
            (OnePeer::Anyone, Some(_)) => Member::Pods,
            (OnePeer::Member(member), _) => member.clone(),
            (OnePeer::Blocks(addresses), Some(_)) => Member::PodsAt(addresses.clone()),
            (OnePeer::Blocks(addresses), None) => {
                let elements: BTreeSet<Element> = addresses.elements(self.family).collect();
                let name = self.set_name("blocks", &elements);
                let kind = SetKind::Blocks(self.family);
                self.fixed.insert(name.clone(), (kind, elements));
                return Some(Match::Address(self.family, end, name));
            }
        };
        let word = match (member.nodes().is_some(), &named) {
            (true, _) => "nodes",
            (false, None) => "pods",
            (false, Some(_)) => "named",
        };
        let key = PeerKey { member, named };
        let name = self.set_name(word, &key);
        let found = if key.named.is_some() {
            Match::DestinationPort(self.family, name.clone())
        } else {
            Match::Address(self.family, end, name.clone())
        };
        self.peers.insert(name, key);
        Some(found)
    }

    fn port(&mut self, ranges: &[Span<u32>]) -> Option<Match> {
        let ports = ranges.iter().filter_map(|(first, last)| {
            let port = |number: u32| u16::try_from(number).ok().and_then(Port::new);
            Some((port(*first)?, port(*last)?))
        });
        let ports: Vec<(Port, Port)> = ports.collect();
        match ports.as_slice() {
            [_] if ranges == [ALL_PORTS] => None,
            [(first, last)] => Some(Match::Port(*first, *last)),
            _ => {
                let elements: BTreeSet<Element> = ports
                    .into_iter()
                    .map(|(first, last)| Element::Ports(first, last))
                    .collect();
                let name = SetName::from(format!("ports-{}", short(&format!("{elements:?}"))));
                self.fixed.insert(name.clone(), (SetKind::Ports, elements));
                Some(Match::Ports(name))
            }
        }
    }

    /// Sets are named by what they hold or who they follow, so that equal ones are one.
    fn set_name(&self, word: &str, of: &impl std::fmt::Debug) -> SetName {
        let content = format!("{of:?}");
        SetName::from(format!("{word}{}-{}", digit(self.family), short(&content)))
    }
}

/// The set of peers that is asked, where it may follow the cluster.
fn followed(asked: &Match) -> Option<&SetName> {
    match asked {
        Match::Address(_, _, set) | Match::DestinationPort(_, set) => Some(set),
        _ => None,
    }
}

fn in_words(protocol: Protocol, ranges: &[Span<u32>]) -> String {
    let mut words = protocol.to_string();
    if ranges == [ALL_PORTS] {
        return words;
    }
    for (index, (first, last)) in ranges.iter().enumerate() {
        words.push_str(if index == 0 { " " } else { ", " });
        let _ = if first == last {
            write!(words, "{first}")
        } else {
            write!(words, "{first}-{last}")
        };
    }
    words
}
