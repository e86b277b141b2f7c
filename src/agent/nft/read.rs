//! Our table as the kernel holds it.
//!
//! Everything is asked for by the name of our table, but for chains, of which the kernel only lists all of a family: those of
//! others are passed over by their table's name, or only their names are looked at. No rule or set of others is ever read.

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::io::Errno;

use super::batch::{family, hook_number};
use super::element::{self, Elements, Held};
use super::error::ReadError;
use super::expression::{COUNTER, Expression};
use super::rule;
use super::socket::Socket;
use crate::agent::netlink::Consistency;
use crate::agent::netlink::wire::{Attributes, Message, Writer, flag, kind};
use crate::guard::enforcement::chains::{self, Policy};
use crate::ruleset::table::{Chain, Hook, Layer, Ruleset, Set, SetKind, TABLE};
use crate::ruleset::{ChainName, CounterName, Rule, SetName};

/// The family by which the kernel lists what there is of all.
const ANY_FAMILY: u8 = 0;

/// How often something is read again because a transaction of somebody came between.
const TRIES: usize = 4;

/// How long to wait at most for a set to be walked through in an order that stays.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Our table as it was found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// What of it is of our making. Compare with [`Ruleset::as_kept`] of what is wanted.
    pub ruleset: Ruleset,
    /// What its counters have counted.
    pub counters: BTreeMap<CounterName, Counted>,
    /// What is in it that we never make, in words. Where there is any, the table is not the wanted one.
    pub strangers: Vec<String>,
    /// Somebody, perhaps of another table, changed nftables each time that this was read: a difference from what is wanted
    /// may be none.
    pub is_torn: bool,
}

/// What a counter has counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Packets.
    pub packets: u64,
    /// Their bytes, with the headers of IP.
    pub bytes: u64,
}

/// Which state nftables of a namespace is in, whosever tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// One more with each transaction of anybody.
    pub id: u32,
    /// The thread that asks for this, by its number outside of all containers.
    pub process: u32,
    /// Its name.
    pub name: String,
}

/// A part of a table of ours, as one message has it.
#[derive(Clone, Debug)]
pub enum Part {
    /// A chain, and where packets come into it; an error where not as we make chains.
    Chain(ChainName, Result<Option<Hook>, ()>),
    /// A rule of a chain, or the sentence of one that is nothing of ours.
    Rule(ChainName, Result<Rule, String>),
    /// A set; no kind where it is nothing of ours.
    Set(SetName, Option<SetKind>),
    /// Elements, as a set of each kind has them.
    Elements(Vec<(SetKind, Held)>),
    /// What is counted by a name.
    Counter(CounterName, Counted),
}

/// Reads our table, and the one for bridges that goes with it; none where there is none.
pub fn read(socket: &mut Socket) -> Result<Option<Found>, ReadError> {
    let Some(mut found) = one(socket, Layer::Inet)? else {
        return Ok(None);
    };
    if let Some(bridge) = one(socket, Layer::Bridge)? {
        found.ruleset.bridge = Some(Box::new(bridge.ruleset));
        found.is_torn |= bridge.is_torn;
        let strangers = bridge.strangers.into_iter();
        let strangers = strangers.map(|what| format!("{what}, for the ports of bridges"));
        found.strangers.extend(strangers);
        add(&mut found.counters, bridge.counters);
    }
    Ok(Some(found))
}

/// Reads the table of a layer.
fn one(socket: &mut Socket, layer: Layer) -> Result<Option<Found>, ReadError> {
    let mut reading = Reading {
        socket,
        layer,
        found: Found::default(),
    };
    if !reading.table()? {
        return Ok(None);
    }
    reading.chains()?;
    reading.rules()?;
    reading.sets()?;
    let mut found = reading.found;
    found.counters = counters_of(socket, layer)?;
    found.ruleset.counters = found.counters.keys().cloned().collect();
    Ok(Some(found))
}

/// What is counted at both layers by the same name is one.
fn add(all: &mut BTreeMap<CounterName, Counted>, more: BTreeMap<CounterName, Counted>) {
    for (name, more) in more {
        let counted = all.entry(name).or_default();
        counted.packets = counted.packets.saturating_add(more.packets);
        counted.bytes = counted.bytes.saturating_add(more.bytes);
    }
}

/// Reads one set of ours; none where there is no such set.
pub fn elements(
    socket: &mut Socket,
    set: &SetName,
    kind: SetKind,
) -> Result<Option<Held>, ReadError> {
    match dump_elements((socket, Layer::Inet), set, kind) {
        Ok(held) => Ok(Some(held)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(failed(&format!("the set {set}"), errno)),
    }
}

/// Reads what our counters have counted; nothing where there is no table.
pub fn counters(socket: &mut Socket) -> Result<BTreeMap<CounterName, Counted>, ReadError> {
    let mut all = counters_of(socket, Layer::Inet)?;
    add(&mut all, counters_of(socket, Layer::Bridge)?);
    Ok(all)
}

fn counters_of(
    socket: &mut Socket,
    layer: Layer,
) -> Result<BTreeMap<CounterName, Counted>, ReadError> {
    let read = |found: &mut BTreeMap<_, _>, message: &Message<'_>| {
        found.extend(read_counter(message.attributes()));
    };
    let body = |w: &mut Writer| {
        w.text(1, TABLE);
        w.u32(3, COUNTER);
    };
    match dump(
        (socket, family(layer)),
        kind::GETOBJ,
        body,
        BTreeMap::new,
        read,
    ) {
        Ok((found, _)) => Ok(found),
        Err(Errno::NOENT) => Ok(BTreeMap::new()),
        Err(errno) => Err(failed("the counters", errno)),
    }
}

/// Reads the state that nftables is in.
pub fn generation(socket: &mut Socket) -> Result<Generation, ReadError> {
    let mut found = None;
    socket
        .link
        .ask(
            (kind::GETGEN, 0),
            0,
            |_| (),
            |message| {
                found = Generation::read(message.attributes());
            },
        )
        .map_err(|errno| failed("the generation", errno))?;
    found.ok_or_else(|| failed("the generation", Errno::BADMSG))
}

/// The chains of all tables, by their names; what is in them is not read.
pub fn all_chains(socket: &mut Socket) -> Result<Vec<chains::Chain>, ReadError> {
    let read = |found: &mut Vec<_>, message: &Message<'_>| found.extend(read_any_chain(message));
    let (found, _) = dump((socket, ANY_FAMILY), kind::GETCHAIN, |_| (), Vec::new, read)
        .map_err(|errno| failed("the names of chains", errno))?;
    Ok(found)
}

/// Whether a chain is in a table of ours.
pub fn is_ours(chain: &chains::Chain) -> bool {
    chain.table == TABLE
}

impl Generation {
    pub(in crate::agent) fn read(attributes: Attributes<'_>) -> Option<Self> {
        Some(Self {
            id: attributes.u32(1)?,
            process: attributes.u32(2).unwrap_or_default(),
            name: attributes.text(3).unwrap_or_default().to_owned(),
        })
    }
}

struct Reading<'a> {
    socket: &'a mut Socket,
    layer: Layer,
    found: Found,
}

impl Reading<'_> {
    fn stranger(&mut self, what: String) {
        self.found.strangers.push(what);
    }

    fn note(&mut self, consistency: Consistency) {
        self.found.is_torn |= consistency == Consistency::Torn;
    }

    /// Whether there is a table of ours.
    fn table(&mut self) -> Result<bool, ReadError> {
        let mut flags = 0;
        let asked = self.socket.link.ask(
            (kind::GETTABLE, 0),
            family(self.layer),
            |w| w.text(1, TABLE),
            |message| flags = message.attributes().u32(2).unwrap_or_default(),
        );
        match asked {
            Ok(_) => {}
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(failed("the table", errno)),
        }
        // One of them makes a table sleep.
        if flags != 0 {
            self.stranger(format!("flags of the table ({flags:#x})"));
        }
        Ok(true)
    }

    fn chains(&mut self) -> Result<(), ReadError> {
        let (chains, consistency) = dump(
            (self.socket, family(self.layer)),
            kind::GETCHAIN,
            |w| w.text(1, TABLE),
            Vec::new,
            |found, message| found.extend(read_chain(message.attributes())),
        )
        .map_err(|errno| failed("the chains", errno))?;
        self.note(consistency);
        for (name, hook) in chains {
            let hook = hook.unwrap_or_else(|()| {
                self.stranger(format!("the way into the chain {name}"));
                None
            });
            let rules = Vec::new();
            self.found
                .ruleset
                .chains
                .insert(name, Chain { hook, rules });
        }
        Ok(())
    }

    fn rules(&mut self) -> Result<(), ReadError> {
        let layer = self.layer;
        let (rules, consistency) = dump(
            (self.socket, family(layer)),
            kind::GETRULE,
            |w| w.text(1, TABLE),
            Vec::new,
            |found, message| found.extend(read_rule(layer, message.attributes())),
        )
        .map_err(|errno| failed("the rules", errno))?;
        self.note(consistency);
        for (chain, rule) in rules {
            match rule {
                Ok(rule) => self.found.ruleset.chain_mut(chain).rules.push(rule),
                Err(why) => self.stranger(format!("a rule of the chain {chain} ({why:?})")),
            }
        }
        Ok(())
    }

    fn sets(&mut self) -> Result<(), ReadError> {
        let (sets, consistency) = dump(
            (self.socket, family(self.layer)),
            kind::GETSET,
            |w| w.text(1, TABLE),
            Vec::new,
            |found, message| found.extend(read_set(message.attributes())),
        )
        .map_err(|errno| failed("the sets", errno))?;
        self.note(consistency);
        for (name, kind) in sets {
            let Some(kind) = kind else {
                self.stranger(format!("the set {name}"));
                continue;
            };
            let held = match dump_elements((self.socket, self.layer), &name, kind) {
                Ok(held) => held,
                // Somebody deleted it meanwhile.
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(failed(&format!("the set {name}"), errno)),
            };
            self.found.is_torn |= held.is_torn;
            if held.strangers > 0 {
                self.stranger(format!("{} elements of the set {name}", held.strangers));
            }
            // What goes by itself is no rule.
            let stays = |(element, left): (_, Option<Duration>)| left.is_none().then_some(element);
            let elements = held.elements.into_iter().filter_map(stays).collect();
            let set = Set { kind, elements };
            self.found.ruleset.sets.insert(name, set);
        }
        Ok(())
    }
}

/// Dumps what a request asks for, again where somebody came between.
fn dump<T>(
    (socket, family): (&mut Socket, u8),
    kind: u16,
    body: impl Fn(&mut Writer),
    new: impl Fn() -> T,
    take: impl Fn(&mut T, &Message<'_>),
) -> Result<(T, Consistency), Errno> {
    let mut tries = TRIES;
    loop {
        tries = tries.saturating_sub(1);
        let mut found = new();
        let consistency = socket
            .link
            .ask((kind, flag::DUMP), family, &body, |message| {
                take(&mut found, message);
            })?;
        if consistency == Consistency::Whole || tries == 0 {
            return Ok((found, consistency));
        }
    }
}

fn dump_elements(
    (socket, layer): (&mut Socket, Layer),
    set: &SetName,
    kind: SetKind,
) -> Result<Held, Errno> {
    let body = |w: &mut Writer| {
        w.text(1, TABLE);
        w.text(2, set.as_str());
    };
    let take = |found: &mut Elements, message: &Message<'_>| {
        if let Some(list) = message.attributes().nested(3) {
            found.take(list);
        }
    };
    let mut pause = Duration::from_millis(1);
    loop {
        let new = || Elements::new(kind);
        let (elements, consistency) =
            dump((socket, family(layer)), kind::GETSETELEM, body, new, take)?;
        let mut held = elements.finish();
        if !held.is_torn || pause > LONGEST_PAUSE {
            held.is_torn |= consistency == Consistency::Torn;
            return Ok(held);
        }
        // The kernel is making room in the set, and soon has.
        std::thread::sleep(pause);
        pause = pause.saturating_mul(2);
    }
}

/// What a message has of a table of ours, for who has no socket; elements are read as those of every kind of set.
pub(in crate::agent) fn part(layer: Layer, message: &Message<'_>) -> Option<Part> {
    let attributes = message.attributes();
    match message.kind {
        kind::NEWCHAIN => read_chain(attributes).map(|(name, hook)| Part::Chain(name, hook)),
        kind::NEWRULE => read_rule(layer, attributes).map(|(chain, rule)| Part::Rule(chain, rule)),
        kind::NEWSET => read_set(attributes).map(|(name, kind)| Part::Set(name, kind)),
        kind::NEWOBJ => {
            read_counter(attributes).map(|(name, counted)| Part::Counter(name, counted))
        }
        kind::NEWSETELEM => {
            let list = attributes.nested(3)?;
            let held = element::kinds(1).map(|kind| {
                let mut elements = Elements::new(kind);
                elements.take(list);
                (kind, elements.finish())
            });
            Some(Part::Elements(held.collect()))
        }
        _ => None,
    }
}

fn read_chain(chain: Attributes<'_>) -> Option<(ChainName, Result<Option<Hook>, ()>)> {
    let name = chain.text(3).filter(|_| chain.text(1) == Some(TABLE))?;
    Some((ChainName::from(name), read_hook(chain)))
}

/// A chain of whatever table.
fn read_any_chain(message: &Message<'_>) -> Option<chains::Chain> {
    let chain = message.attributes();
    let family = match message.family() {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => "unknown",
    };
    // Prerouting, forward and postrouting of all families that have them; those of devices and of ARP are others.
    let hook = chain.nested(4).and_then(|hook| hook.u32(1));
    let meets = matches!(hook, Some(0 | 2 | 4)) && !matches!(family, "arp" | "netdev");
    let policy = match chain.u32(5) {
        Some(0) => Policy::Drop,
        _ => Policy::Accept,
    };
    Some(chains::Chain {
        family,
        table: chain.text(1)?.to_owned(),
        name: chain.text(3)?.to_owned(),
        on_the_way: meets.then_some(policy),
    })
}

fn read_set(set: Attributes<'_>) -> Option<(SetName, Option<SetKind>)> {
    let name = set.text(2).filter(|_| set.text(1) == Some(TABLE))?;
    Some((SetName::from(name), element::read_kind(set)))
}

fn read_counter(object: Attributes<'_>) -> Option<(CounterName, Counted)> {
    let of_ours = object.text(1) == Some(TABLE) && object.u32(3) == Some(COUNTER);
    let name = object.text(2).filter(|_| of_ours)?;
    let data = object.nested(4)?;
    let counted = Counted {
        bytes: data.u64(1).unwrap_or_default(),
        packets: data.u64(2).unwrap_or_default(),
    };
    Some((CounterName::from(name), counted))
}

/// Where packets come into a chain; an error where not as we make chains.
fn read_hook(chain: Attributes<'_>) -> Result<Option<Hook>, ()> {
    let Some(hook) = chain.nested(4) else {
        return Ok(None);
    };
    let is_ours = chain.text(7) == Some("filter")
        && chain.u32(5) == Some(1)
        && hook.into_iter().all(|(kind, _)| kind <= 2);
    let found = [Hook::Input, Hook::Forward, Hook::Prerouting]
        .into_iter()
        .find(|known| {
            hook.u32(1) == Some(hook_number(*known)) && hook.i32(2) == Some(known.priority())
        });
    found.filter(|_| is_ours).map(Some).ok_or(())
}

/// A rule of a chain of ours, or the sentence of one that is nothing of ours.
fn read_rule(layer: Layer, rule: Attributes<'_>) -> Option<(ChainName, Result<Rule, String>)> {
    let chain = rule.text(2).filter(|_| rule.text(1) == Some(TABLE))?;
    let why = rule.find(7).map(rule::sentence).unwrap_or_default();
    let mut list = rule.nested(4).unwrap_or(Attributes(&[]));
    let expressions: Option<Vec<_>> = list
        .by_ref()
        .map(|(_, one)| Expression::read(Attributes(one)))
        .collect();
    let read = expressions.and_then(|expressions| rule::rule(layer, &expressions, why));
    Some((ChainName::from(chain), read.ok_or_else(|| why.to_owned())))
}

fn failed(what: &str, errno: Errno) -> ReadError {
    match errno {
        Errno::PERM => ReadError::NotPermitted,
        errno => ReadError::Refused {
            what: what.to_owned(),
            errno,
        },
    }
}
