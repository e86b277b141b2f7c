//! From what policies say to chains: each clause becomes rules, each tier a stretch of a chain.
//!
//! A pod's chain returns to `forward` for what its policies let pass and goes to its `denied` chain for what they do not. Where
//! a tier can be left early (Pass) or several policies have the same priority, what follows is a chain of its own, entered by
//! `goto`, so that `return` always means that the flow passes at this end.
//!
//! Where policies are on trial, the first chain is one that asks twice: what is in force, and after it what would be if all of
//! them were promoted. The second answer is counted and told where it is another one, and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use super::body::{Body, Then, Tied, Way};
use super::digest::short;
use super::table::{
    ChainName, CounterName, Element, End, Log, Match, Rule, SetKind, SetName, Statement, Verdict,
};
use super::terms::{ALL_PORTS, Clause, Member, PeerKey, Where, Who};
use crate::netpol::spans::Span;
use crate::netpol::{Action, Family, Port, Protocol};

/// The chains of pods with equal policies, for one way and one family of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Compiled {
    /// The chain that packets are sent to, and those that it leads to.
    pub(super) chains: Vec<(ChainName, Vec<Rule>)>,
    /// The sets that are asked and follow the cluster.
    pub(super) peers: BTreeMap<SetName, PeerKey>,
    /// The sets that are asked and stay as they are.
    pub(super) fixed: BTreeMap<SetName, (SetKind, BTreeSet<Element>)>,
}

/// How denied packets are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Telling {
    /// The NFLOG group.
    pub(super) group: u16,
    /// At most so many in a second of each chain.
    pub(super) rate: u32,
}

/// What is asked, and what it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Asking {
    /// What is in force: what it denies is dropped.
    InForce,
    /// What would be in force, of a packet that passes: what it denies is told, and passes.
    OfPassing,
    /// What would be in force, of a packet that does not pass: what it denies too is dropped untold.
    OfDenied,
}

/// A place in the policies at which a chain begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Start {
    /// Before all policies: what is in force is asked, and then what is on trial.
    Twice,
    /// The Admin tier from one priority on.
    Admin(usize),
    /// What comes after it, from one priority on where it is the Baseline tier.
    Then(usize),
    /// One of several policies of the same priority, with the strictest that the ones before it have said.
    Tied(TierOf, usize, usize, Option<Action>),
    /// The packet is denied.
    Denied,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum TierOf {
    Admin,
    Baseline,
}

/// Chains being written.
struct Writer<'b> {
    in_force: &'b Body,
    /// What would be in force; none where nothing is on trial.
    tried: Option<&'b Body>,
    /// For whom a chain is written.
    asking: Asking,
    family: Family,
    way: Way,
    telling: Telling,
    /// What chains there are, by the order in which they were asked for.
    starts: Vec<(Asking, Start)>,
    peers: BTreeMap<SetName, PeerKey>,
    fixed: BTreeMap<SetName, (SetKind, BTreeSet<Element>)>,
}

/// Writes the chains for what policies say, and for what they would say where some are on trial.
pub(super) fn compile(
    in_force: &Body,
    tried: Option<&Body>,
    way: Way,
    family: Family,
    telling: Telling,
) -> Compiled {
    let mut writer = Writer {
        in_force,
        tried,
        asking: Asking::InForce,
        family,
        way,
        telling,
        starts: Vec::new(),
        peers: BTreeMap::new(),
        fixed: BTreeMap::new(),
    };
    let first = match tried {
        Some(_) => Start::Twice,
        None => writer.first(Asking::InForce),
    };
    writer.starts.push((Asking::InForce, first));
    let mut chains = Vec::new();
    // Writing a chain may ask for more of them; there are as many as places, which are finite.
    while let Some((asking, start)) = writer.starts.get(chains.len()).copied() {
        writer.asking = asking;
        chains.push(writer.chain(start));
    }
    let stem = format!(
        "{}{}-{}",
        way.word(),
        digit(family),
        short(&format!("{chains:?}"))
    );
    let name = |index: usize| match (index, writer.starts.get(index)) {
        (0, _) => ChainName::from(stem.as_str()),
        (_, Some((asking, Start::Denied))) => {
            let word = match asking {
                Asking::InForce => "denied",
                Asking::OfPassing => "would-deny",
                Asking::OfDenied => "dropped",
            };
            ChainName::from(format!("{stem}-{word}"))
        }
        _ => ChainName::from(format!("{stem}-{index}")),
    };
    let chains = chains.into_iter().enumerate().map(|(index, rules)| {
        let rules = rules.into_iter().map(|rule| rule.named(&name));
        (name(index), rules.collect())
    });
    Compiled {
        chains: chains.collect(),
        peers: writer.peers,
        fixed: writer.fixed,
    }
}

/// A rule whose verdict leads to a chain that has no name yet.
#[derive(Debug)]
struct Draft {
    matches: Vec<Match>,
    does: Vec<Statement>,
    then: Next,
    why: String,
}

/// What a rule ends with.
#[derive(Clone, Copy, Debug)]
enum Next {
    Nothing,
    Return,
    Drop,
    /// The chain with this number.
    Chain(usize),
    /// The chain with this number, and back.
    Jump(usize),
}

impl Draft {
    fn named(self, name: &impl Fn(usize) -> ChainName) -> Rule {
        let mut does = self.does;
        match self.then {
            Next::Nothing => {}
            Next::Return => does.push(Statement::Verdict(Verdict::Return)),
            Next::Drop => does.push(Statement::Verdict(Verdict::Drop)),
            Next::Chain(chain) => does.push(Statement::Verdict(Verdict::Goto(name(chain)))),
            Next::Jump(chain) => does.push(Statement::Verdict(Verdict::Jump(name(chain)))),
        }
        Rule {
            matches: self.matches,
            does,
            why: Arc::from(self.why),
        }
    }
}

impl<'b> Writer<'b> {
    /// What the policies say that are asked.
    fn body(&self) -> &'b Body {
        self.body_of(self.asking)
    }

    fn body_of(&self, asking: Asking) -> &'b Body {
        match asking {
            Asking::InForce => self.in_force,
            Asking::OfPassing | Asking::OfDenied => self.tried.unwrap_or(self.in_force),
        }
    }

    /// Where the policies begin that are asked.
    fn first(&self, asking: Asking) -> Start {
        if self.body_of(asking).admin.is_empty() {
            Start::Then(0)
        } else {
            Start::Admin(0)
        }
    }

    /// The rules of the chain that begins at a place.
    fn chain(&mut self, start: Start) -> Vec<Draft> {
        let mut rules = Vec::new();
        match start {
            Start::Twice => self.twice(&mut rules),
            Start::Denied => self.denied(&mut rules),
            Start::Admin(from) => self.tier(TierOf::Admin, from, &mut rules),
            Start::Then(from) => self.then(from, &mut rules),
            Start::Tied(tier, at, index, strictest) => {
                self.tied(tier, at, index, strictest, &mut rules);
            }
        }
        rules
    }

    /// A tier from one priority on, and what follows it.
    fn tier(&mut self, tier: TierOf, from: usize, rules: &mut Vec<Draft>) {
        let body = self.body();
        for (at, tied) in tied_of(body, tier).iter().enumerate().skip(from) {
            let [clauses] = tied.as_slice() else {
                let then = self.go(Start::Tied(tier, at, 0, None));
                rules.push(always(
                    then,
                    "policies of one priority: the strictest counts",
                ));
                return;
            };
            for clause in clauses {
                let then = match clause.action {
                    Action::Accept => Next::Return,
                    Action::Deny => self.go(Start::Denied),
                    Action::Pass => self.left(tier),
                };
                self.clause(clause, then, rules);
            }
        }
        match tier {
            // Where something leads to what follows, it is a chain already.
            TierOf::Admin if self.starts.contains(&(self.asking, Start::Then(0))) => {
                let then = self.go(Start::Then(0));
                rules.push(always(then, "the Admin tier has not decided"));
            }
            TierOf::Admin => self.then(0, rules),
            TierOf::Baseline => {}
        }
    }

    /// What comes after the Admin tier.
    fn then(&mut self, from: usize, rules: &mut Vec<Draft>) {
        let body = self.body();
        match &body.then {
            Then::Isolated(clauses) => {
                for clause in clauses {
                    self.clause(clause, Next::Return, rules);
                }
                let then = self.go(Start::Denied);
                rules.push(always(
                    then,
                    "isolated by policies, none of which lets this pass",
                ));
            }
            Then::Baseline(_) => self.tier(TierOf::Baseline, from, rules),
        }
    }

    /// One of several policies of a priority: each says what its first rule says that matches, and the strictest counts.
    fn tied(
        &mut self,
        tier: TierOf,
        at: usize,
        index: usize,
        strictest: Option<Action>,
        rules: &mut Vec<Draft>,
    ) {
        let body = self.body();
        let policies = tied_of(body, tier).get(at);
        let clauses = policies.and_then(|policies| policies.get(index));
        for clause in clauses.into_iter().flatten() {
            let strictest = strictest.map_or(clause.action, |before| before.min(clause.action));
            let then = self.after(tier, at, index, Some(strictest));
            self.clause(clause, then, rules);
        }
        let then = self.after(tier, at, index, strictest);
        rules.push(always(then, "the policies of this priority go on"));
    }

    /// What follows one of several policies of a priority.
    fn after(&mut self, tier: TierOf, at: usize, index: usize, strictest: Option<Action>) -> Next {
        if strictest == Some(Action::Deny) {
            return self.go(Start::Denied);
        }
        let next = index.saturating_add(1);
        let policies = tied_of(self.body(), tier).get(at);
        if policies.is_some_and(|policies| next < policies.len()) {
            return self.go(Start::Tied(tier, at, next, strictest));
        }
        match (strictest, tier) {
            (Some(Action::Accept), _) => Next::Return,
            (Some(Action::Pass | Action::Deny), tier) => self.left(tier),
            (None, TierOf::Admin) => self.go(Start::Admin(at.saturating_add(1))),
            (None, TierOf::Baseline) => self.go(Start::Then(at.saturating_add(1))),
        }
    }

    /// What follows a tier that is left early.
    fn left(&mut self, tier: TierOf) -> Next {
        match tier {
            TierOf::Admin => self.go(Start::Then(0)),
            TierOf::Baseline => Next::Return,
        }
    }

    fn go(&mut self, start: Start) -> Next {
        Next::Chain(self.place(self.asking, start))
    }

    /// The number of a chain.
    fn place(&mut self, asking: Asking, start: Start) -> usize {
        let wanted = (asking, start);
        let known = self.starts.iter().position(|known| *known == wanted);
        known.unwrap_or_else(|| {
            self.starts.push(wanted);
            self.starts.len().saturating_sub(1)
        })
    }

    /// The number of the chain at which the policies begin.
    fn enter(&mut self, asking: Asking) -> usize {
        self.place(asking, self.first(asking))
    }

    /// Asks what is in force, and of what passes there what is on trial.
    fn twice(&mut self, rules: &mut Vec<Draft>) {
        let in_force = self.enter(Asking::InForce);
        rules.push(always(
            Next::Jump(in_force),
            "what is in force decides; what it denies does not come back",
        ));
        let tried = self.enter(Asking::OfPassing);
        rules.push(always(
            Next::Chain(tried),
            "it passes; what is on trial is asked too, and changes nothing",
        ));
    }

    /// What becomes of what the policies deny that are asked.
    fn denied(&mut self, rules: &mut Vec<Draft>) {
        match self.asking {
            Asking::InForce => {
                self.tell(
                    "denied",
                    "denied packets are told to the agent, up to a rate",
                    rules,
                );
                if self.tried.is_some() {
                    let tried = self.enter(Asking::OfDenied);
                    rules.push(always(
                        Next::Jump(tried),
                        "it is denied; what is on trial is asked too, and changes nothing",
                    ));
                    self.would(Would::Allow, rules);
                }
                self.drop(rules);
            }
            Asking::OfPassing => self.would(Would::Deny, rules),
            Asking::OfDenied => self.drop(rules),
        }
    }

    /// Tells of a packet that would fare otherwise with what is on trial.
    fn would(&self, would: Would, rules: &mut Vec<Draft>) {
        let (word, told, counted) = match would {
            Would::Deny => (
                "would deny",
                "what would be denied is told to the agent, up to a rate",
                "what would be denied is counted, and passes",
            ),
            Would::Allow => (
                "would allow",
                "what would pass is told to the agent, up to a rate",
                "what would pass is counted",
            ),
        };
        self.tell(word, told, rules);
        rules.push(Draft {
            matches: Vec::new(),
            does: vec![Statement::Count(would_counter(would, self.way))],
            then: Next::Nothing,
            why: counted.to_owned(),
        });
    }

    fn tell(&self, what: &str, why: &str, rules: &mut Vec<Draft>) {
        let direction = self.way.direction();
        let log = Log {
            group: self.telling.group,
            prefix: Arc::from(format!("ringfence {what} {direction}")),
        };
        rules.push(Draft {
            matches: Vec::new(),
            does: vec![Statement::Limit(self.telling.rate), Statement::Log(log)],
            then: Next::Nothing,
            why: why.to_owned(),
        });
    }

    fn drop(&self, rules: &mut Vec<Draft>) {
        rules.push(Draft {
            matches: Vec::new(),
            does: vec![Statement::Count(denied_counter(self.way))],
            then: Next::Drop,
            why: "denied packets are counted and dropped".to_owned(),
        });
    }

    /// The rules for one clause: one for each kind of peer and each protocol.
    fn clause(&mut self, clause: &Clause, then: Next, rules: &mut Vec<Draft>) {
        for who in self.peers(&clause.who) {
            for (matches, ports) in self.matches(&who, &clause.at) {
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
            let mut matches: Vec<Match> = self.address(who, None).into_iter().collect();
            matches.push(Match::Protocol(*protocol));
            matches.extend(self.port(ranges));
            all.push((matches, in_words(*protocol, ranges)));
        }
        for (name, protocol) in named {
            let mut matches = vec![Match::Protocol(*protocol)];
            matches.extend(self.address(who, Some((name.clone(), *protocol))));
            all.push((matches, format!("{protocol} {name}")));
        }
        all
    }

    fn address(
        &mut self,
        who: &OnePeer,
        named: Option<(crate::netpol::PortName, Protocol)>,
    ) -> Option<Match> {
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
        let word = match (member.is_of_nodes(), &named) {
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

/// One kind of peers, which one lookup answers for.
enum OnePeer {
    Anyone,
    Member(Member),
    Blocks(super::addresses::Addresses),
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

fn tied_of(body: &Body, tier: TierOf) -> &[Tied] {
    match (tier, &body.then) {
        (TierOf::Admin, _) => &body.admin,
        (TierOf::Baseline, Then::Baseline(baseline)) => baseline,
        (TierOf::Baseline, Then::Isolated(_)) => &[],
    }
}

fn always(then: Next, why: &str) -> Draft {
    Draft {
        matches: Vec::new(),
        does: Vec::new(),
        then,
        why: why.to_owned(),
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

/// The counter of the packets that are denied on a way.
pub(super) fn denied_counter(way: Way) -> CounterName {
    match way {
        Way::Egress | Way::ToNode => "denied-egress",
        Way::Ingress => "denied-ingress",
    }
    .into()
}

/// What would be another answer, if what is on trial were promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Would {
    /// It passes, and would be denied.
    Deny,
    /// It is denied, and would pass.
    Allow,
}

impl Would {
    pub(super) const BOTH: [Would; 2] = [Would::Deny, Would::Allow];
}

/// The counter of the packets on a way that would fare otherwise.
pub(super) fn would_counter(would: Would, way: Way) -> CounterName {
    let word = match would {
        Would::Deny => "would-deny",
        Would::Allow => "would-allow",
    };
    format!("{word}-{}", way.direction()).into()
}

/// The number in the name of a family.
pub(super) fn digit(family: Family) -> char {
    match family {
        Family::V4 => '4',
        Family::V6 => '6',
    }
}
