//! A transaction as one batch of messages, and which message is of which change.

use super::element;
use super::expression::COUNTER;
use super::rule;
use crate::agent::netlink::wire::{Attributes, BRIDGE, INET, Messages, Writer, flag, kind};
use crate::ruleset::table::{Element, Hook, Layer, Rule, TABLE};
use crate::ruleset::{Change, SetName, Transaction};

/// How long the elements of one message become before the next is begun: one more always fits a 16-bit length.
const CHUNK: usize = 60_000;

/// `NFNL_SUBSYS_NFTABLES`, as what a batch is about.
const SUBSYSTEM: u16 = 10;

/// The list of expressions in a rule, and of elements in a change of a set.
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;
const ELEMENTS: u16 = 3;

/// A transaction for the kernel.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    /// The sequence number of its beginning; each message has the next one.
    pub(super) seq: u32,
    /// For each message, the number of its change and where it begins.
    messages: Vec<Origin>,
}

/// Where a message comes from.
#[derive(Clone, Copy, Debug)]
struct Origin {
    change: usize,
    start: usize,
    /// The first of the rules or elements of the change that are in it.
    first: usize,
    has: Has,
}

/// How much of a change is in one message.
#[derive(Clone, Copy, Debug)]
enum Has {
    /// All of it, or one rule.
    One,
    /// Some elements.
    Elements,
}

impl Batch {
    /// None where something is too long for netlink.
    pub(super) fn new(transaction: &Transaction, seq: u32) -> Option<Self> {
        let mut builder = Builder {
            layer: Layer::Inet,
            writer: Writer::default(),
            seq,
            messages: Vec::new(),
            sets: 0,
        };
        let ends = (0, SUBSYSTEM);
        builder
            .writer
            .message((kind::BATCH_BEGIN, 0), seq, ends, |_| ());
        let all: Vec<(Layer, &Change)> = transaction.all().collect();
        let last = all.iter().rposition(|(_, change)| !change.is_void())?;
        for (number, (layer, change)) in all.into_iter().enumerate() {
            builder.layer = layer;
            builder.change(number, change, number == last);
        }
        let end = builder.next_seq();
        builder
            .writer
            .message((kind::BATCH_END, 0), end, ends, |_| ());
        Some(Self {
            bytes: builder.writer.finish()?,
            seq,
            messages: builder.messages,
        })
    }

    /// The sequence number of its end, counted from that of its beginning.
    pub(super) fn length(&self) -> u32 {
        u32::try_from(self.messages.len())
            .unwrap_or(u32::MAX)
            .saturating_add(1)
    }

    /// The number of the change whose message is so many behind the beginning, and that of its rule or element, where it
    /// is known: a message has one rule, and for elements the kernel may say at which byte of the message it stopped.
    pub(super) fn change(
        &self,
        since: u32,
        offset: Option<usize>,
    ) -> Option<(usize, Option<usize>)> {
        let number = usize::try_from(since.checked_sub(1)?).ok()?;
        let origin = self.messages.get(number)?;
        let part = match origin.has {
            Has::One => Some(origin.first),
            Has::Elements => offset
                .map(|offset| self.starts_before(origin, offset))
                .map(|before| origin.first.saturating_add(before)),
        };
        Some((origin.change, part))
    }

    /// How many elements of a message begin before one of its bytes. The ends of ranges do not count.
    fn starts_before(&self, origin: &Origin, offset: usize) -> usize {
        let bytes = self.bytes.get(origin.start..).unwrap_or_default();
        let Some(message) = Messages(bytes).next() else {
            return 0;
        };
        let Some(list) = message.attributes().find(ELEMENTS) else {
            return 0;
        };
        // Both are parts of the same bytes: what is left tells where the list begins.
        let begin = list.as_ptr().addr().saturating_sub(bytes.as_ptr().addr());
        let up_to = offset.saturating_sub(begin).min(list.len());
        let (before, at) = list.split_at_checked(up_to).unwrap_or_default();
        let starts = Attributes(before)
            .filter(|(_, one)| !element::is_end(Attributes(one)))
            .count();
        match Attributes(at).next() {
            Some((_, one)) if element::is_end(Attributes(one)) => starts.saturating_sub(1),
            _ => starts,
        }
    }
}

struct Builder {
    /// The layer of the change that is written.
    layer: Layer,
    writer: Writer,
    seq: u32,
    messages: Vec<Origin>,
    sets: u32,
}

impl Builder {
    fn next_seq(&mut self) -> u32 {
        self.seq = self.seq.wrapping_add(1);
        self.seq
    }

    fn message(
        &mut self,
        (change, first): (usize, usize),
        message: (u16, u16),
        body: impl FnOnce(&mut Writer),
    ) {
        let seq = self.next_seq();
        self.messages.push(Origin {
            change,
            start: self.writer.len(),
            first,
            has: match message.0 {
                kind::NEWSETELEM | kind::DELSETELEM => Has::Elements,
                _ => Has::One,
            },
        });
        let family = family(self.layer);
        self.writer.message(message, seq, (family, 0), |w| {
            w.text(1, TABLE);
            body(w);
        });
    }

    /// Adds the messages of a change. The last change's last message asks for an answer, so that silence is no success.
    fn change(&mut self, number: usize, change: &Change, is_last: bool) {
        let ack = if is_last { flag::ACK } else { 0 };
        // Making what is there already is an error: the table is not what was thought.
        let new = flag::CREATE | flag::EXCL | ack;
        let id = (number, 0);
        match change {
            Change::AddTable => {
                self.message(id, (kind::NEWTABLE, flag::CREATE | ack), |w| w.u32(2, 0));
            }
            Change::DeleteTable => self.message(id, (kind::DELTABLE, ack), |_| ()),
            Change::AddCounter(name) => self.message(id, (kind::NEWOBJ, new), |w| {
                w.text(2, name.as_str());
                w.u32(3, COUNTER);
                w.nest(4, |w| {
                    w.u64(1, 0);
                    w.u64(2, 0);
                });
            }),
            Change::DeleteCounter(name) => self.message(id, (kind::DELOBJ, ack), |w| {
                w.text(2, name.as_str());
                w.u32(3, COUNTER);
            }),
            Change::AddSet(name, of) => {
                self.sets = self.sets.wrapping_add(1);
                let set = self.sets;
                self.message(id, (kind::NEWSET, new), |w| {
                    w.text(2, name.as_str());
                    element::write_kind(*of, set, w);
                });
            }
            Change::DeleteSet(name) => {
                self.message(id, (kind::DELSET, ack), |w| w.text(2, name.as_str()));
            }
            Change::AddChain(name, hook) => self.message(id, (kind::NEWCHAIN, new), |w| {
                w.text(3, name.as_str());
                if let Some(hook) = hook {
                    write_hook(*hook, w);
                }
            }),
            // The rules of a chain, not one of them.
            Change::FlushChain(name) => {
                self.message(id, (kind::DELRULE, ack), |w| w.text(2, name.as_str()));
            }
            Change::DeleteChain(name) => {
                self.message(id, (kind::DELCHAIN, ack), |w| w.text(3, name.as_str()));
            }
            Change::AddRules(chain, rules) => {
                let (flags, layer) = (flag::CREATE | flag::APPEND, self.layer);
                for (at, rule) in rules.iter().enumerate() {
                    let ack = if at + 1 == rules.len() { ack } else { 0 };
                    self.message((number, at), (kind::NEWRULE, flags | ack), |w| {
                        w.text(2, chain.as_str());
                        write_rule(layer, rule, w);
                    });
                }
            }
            Change::AddElements(name, _, elements) => {
                self.elements(
                    number,
                    name,
                    elements,
                    (kind::NEWSETELEM, flag::CREATE, ack),
                );
            }
            Change::DeleteElements(name, _, elements) => {
                self.elements(number, name, elements, (kind::DELSETELEM, 0, ack));
            }
        }
    }

    fn elements(
        &mut self,
        change: usize,
        set: &SetName,
        elements: &[Element],
        (kind, flags, ack): (u16, u16, u16),
    ) {
        let mut rest = elements;
        while !rest.is_empty() {
            let first = elements.len() - rest.len();
            // All but the last message leave the acknowledgement out; which one is last shows when it is written.
            let start = self.writer.len();
            self.message((change, first), (kind, flags), |w| {
                w.text(2, set.as_str());
                w.nest(ELEMENTS, |w| {
                    let begin = w.len();
                    while let [one, behind @ ..] = rest
                        && w.len() - begin < CHUNK
                    {
                        element::write(one, w);
                        rest = behind;
                    }
                });
            });
            if rest.is_empty() {
                self.writer.add_flags(start, ack);
            }
        }
    }
}

/// The number of the family of a layer's table.
pub(super) fn family(layer: Layer) -> u8 {
    match layer {
        Layer::Inet => INET,
        Layer::Bridge => BRIDGE,
    }
}

/// `NF_INET_PRE_ROUTING`, `NF_INET_LOCAL_IN`, `NF_INET_FORWARD`; those of bridges have the same numbers.
pub(super) fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
    }
}

fn write_hook(hook: Hook, w: &mut Writer) {
    let number = hook_number(hook);
    w.text(7, "filter");
    w.u32(5, ACCEPT);
    w.nest(4, |w| {
        w.u32(1, number);
        w.i32(2, hook.priority());
    });
}

/// `NF_ACCEPT`, the policy of our chains.
const ACCEPT: u32 = 1;

fn write_rule(layer: Layer, rule: &Rule, w: &mut Writer) {
    w.nest(RULE_EXPRESSIONS, |w| {
        for expression in rule::expressions(layer, &rule.matches, &rule.does) {
            expression.write(w);
        }
    });
    let user_data = rule::user_data(&rule.why);
    if !user_data.is_empty() {
        w.bytes(RULE_USERDATA, &user_data);
    }
}

impl Change {
    /// Whether there is nothing in it to be done.
    pub(super) fn is_void(&self) -> bool {
        match self {
            Self::AddRules(_, rules) => rules.is_empty(),
            Self::AddElements(_, _, some) | Self::DeleteElements(_, _, some) => some.is_empty(),
            Self::AddTable
            | Self::DeleteTable
            | Self::AddCounter(_)
            | Self::DeleteCounter(_)
            | Self::AddSet(..)
            | Self::DeleteSet(_)
            | Self::AddChain(..)
            | Self::FlushChain(_)
            | Self::DeleteChain(_) => false,
        }
    }
}
