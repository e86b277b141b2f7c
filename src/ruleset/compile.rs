//! From what policies say to chains: each clause becomes rules, each tier a stretch of a chain.
//!
//! A pod's chain returns to `forward` for what its policies let pass and goes to its `denied` chain for what they do not. Where
//! a tier can be left early (Pass) or several policies have the same priority, what follows is a chain of its own, entered by
//! `goto`, so that `return` always means that the flow passes at this end.
//!
//! Where policies are on trial, the first chain is one that asks twice: what is in force, and after it what would be if all of
//! them were promoted. The second answer is counted and told where it is another one, and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::body::{Body, Then, Tied, Way, is_plain};
use super::digest::short;
use super::table::{ChainName, Element, Match, Rule, SetKind, SetName, Statement, Verdict};
use super::terms::{Clause, PeerKey};
use crate::netpol::{Action, Family};
pub(super) use ends::{Would, denied_counter, would_counter};

mod clause;
mod ends;

/// The chains of pods with equal policies, for one way and one family of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Compiled {
    /// The chain that packets are sent to, and those that it leads to.
    pub(super) chains: Vec<(ChainName, Vec<Rule>)>,
    /// The sets that are asked and follow the cluster.
    pub(super) peers: BTreeMap<SetName, PeerKey>,
    /// Those of them whose members are denied, or left to policies that may deny them.
    pub(super) denying: BTreeSet<SetName>,
    /// The sets that are asked and stay as they are.
    pub(super) fixed: BTreeMap<SetName, (SetKind, BTreeSet<Element>)>,
    /// How closely they follow the policies.
    pub(super) follows: Follows,
}

/// How closely chains follow policies: the kernel follows only so many, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Follows {
    /// To the letter.
    Exactly,
    /// To the letter, and what is on trial is not asked.
    WithoutTrial,
    /// They deny what the policies let pass: stricter rules of one priority go first.
    MoreStrictly,
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
    /// What one of several policies of the same priority denies; all else comes back.
    Refused(TierOf, usize, usize),
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
    denying: BTreeSet<SetName>,
    fixed: BTreeMap<SetName, (SetKind, BTreeSet<Element>)>,
}

/// How many chains may follow one after the other: the kernel follows 16, of which three lead to the first of these.
const DEEPEST: usize = 13;

/// Writes the chains for what policies say, and for what they would say where some are on trial.
pub(super) fn compile(
    in_force: Body,
    tried: Option<Body>,
    way: Way,
    family: Family,
    telling: Telling,
) -> Compiled {
    let write = |in_force: &Body, tried: Option<&Body>, follows| {
        write((in_force, tried), follows, way, family, telling)
    };
    // What is on trial changes nothing for what is in force.
    let written = write(&in_force, tried.as_ref(), Follows::Exactly)
        .or_else(|_| write(&in_force, None, Follows::WithoutTrial));
    written.unwrap_or_else(|_| {
        let (in_force, tried) = (in_force.flattened(), tried.map(Body::flattened));
        let (Ok(written) | Err(written)) = write(&in_force, tried.as_ref(), Follows::MoreStrictly);
        written
    })
}

/// Writes the chains as the policies are; as an error, where they are too deep.
fn write(
    (in_force, tried): (&Body, Option<&Body>),
    follows: Follows,
    way: Way,
    family: Family,
    telling: Telling,
) -> Result<Compiled, Compiled> {
    let mut writer = Writer {
        in_force,
        tried,
        asking: Asking::InForce,
        family,
        way,
        telling,
        starts: Vec::new(),
        peers: BTreeMap::new(),
        denying: BTreeSet::new(),
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
    let is_too_deep = is_too_deep(&chains);
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
    let compiled = Compiled {
        chains: chains.collect(),
        peers: writer.peers,
        denying: writer.denying,
        fixed: writer.fixed,
        follows,
    };
    if is_too_deep {
        Err(compiled)
    } else {
        Ok(compiled)
    }
}

/// Whether more chains follow one after the other than the kernel follows.
fn is_too_deep(chains: &[Vec<Draft>]) -> bool {
    let mut here = BTreeSet::from([0]);
    for _ in 0..DEEPEST {
        let rules = here.iter().filter_map(|at| chains.get(*at)).flatten();
        here = rules.filter_map(|rule| rule.then.chain()).collect();
    }
    !here.is_empty()
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

impl Next {
    fn chain(self) -> Option<usize> {
        match self {
            Self::Chain(chain) | Self::Jump(chain) => Some(chain),
            Self::Nothing | Self::Return | Self::Drop => None,
        }
    }
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
            Start::Refused(tier, at, index) => self.refused(tier, at, index, &mut rules),
        }
        rules
    }

    /// A tier from one priority on, and what follows it.
    fn tier(&mut self, tier: TierOf, from: usize, rules: &mut Vec<Draft>) {
        for at in from..tied_of(self.body(), tier).len() {
            if self.is_split(tier, at) {
                self.refuse(tier, at, rules);
            }
            let lists = self.lists(tier, at);
            if lists.len() > 1 {
                let then = self.go(Start::Tied(tier, at, 0, None));
                rules.push(always(
                    then,
                    "policies of one priority: the strictest counts",
                ));
                return;
            }
            for clause in lists.iter().flatten() {
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

    /// Whether policies of a priority are first asked what they deny: then one that accepts before it denies makes no chain deeper.
    /// Not where what is denied comes back, to be asked again.
    fn is_split(&self, tier: TierOf, at: usize) -> bool {
        let policies = tied_of(self.body(), tier).get(at);
        self.asking != Asking::OfPassing && policies.is_some_and(|them| them.lists.len() > 1)
    }

    /// The policies of a priority, without what was asked before.
    fn lists(&self, tier: TierOf, at: usize) -> &'b [Vec<Clause>] {
        let policies = tied_of(self.body(), tier).get(at);
        policies.map_or(&[], |them| {
            if self.is_split(tier, at) {
                &them.undenied
            } else {
                &them.lists
            }
        })
    }

    /// Asks each of several policies of a priority what it denies.
    fn refuse(&mut self, tier: TierOf, at: usize, rules: &mut Vec<Draft>) {
        let policies = tied_of(self.body(), tier).get(at);
        let lists = policies.map(|them| &them.lists);
        for (index, clauses) in lists.into_iter().flatten().enumerate() {
            let is_denial = |clause: &&Clause| clause.action == Action::Deny;
            if is_plain(clauses) {
                for clause in clauses.iter().filter(is_denial) {
                    let then = self.go(Start::Denied);
                    self.clause(clause, then, rules);
                }
            } else if clauses.iter().any(|clause| is_denial(&clause)) {
                let then = self.place(self.asking, Start::Refused(tier, at, index));
                rules.push(always(
                    Next::Jump(then),
                    "policies of one priority: what one of them denies does not come back",
                ));
            }
        }
    }

    /// What one of several policies of a priority denies.
    fn refused(&mut self, tier: TierOf, at: usize, index: usize, rules: &mut Vec<Draft>) {
        let policies = tied_of(self.body(), tier).get(at);
        let clauses = policies.and_then(|them| them.lists.get(index));
        for clause in clauses.into_iter().flatten() {
            let then = match clause.action {
                Action::Deny => self.go(Start::Denied),
                Action::Accept | Action::Pass => Next::Return,
            };
            self.clause(clause, then, rules);
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
        let policies = self.lists(tier, at);
        for clause in policies.get(index).into_iter().flatten() {
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
        if next < self.lists(tier, at).len() {
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

/// The number in the name of a family.
pub(super) fn digit(family: Family) -> char {
    match family {
        Family::V4 => '4',
        Family::V6 => '6',
    }
}
