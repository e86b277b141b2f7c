//! What the kernel says, read from its bytes alone: with the readers that the sockets of this folder have, and without a socket.
//! Pure; whatever the bytes are, it ends without a panic.
//!
//! For tests with messages that were kept, and with such as no kernel sends.

use super::conntrack::Entry;
use super::netlink::wire::{Message, Messages, kind};
use super::nflog::Record;
use super::nflog::record::record;
use super::nft::read::part;
use super::nft::{Generation, Part};
use crate::ruleset::table::Layer;

/// A message as it is understood.
#[derive(Clone, Debug)]
pub enum Heard {
    /// A packet that a rule logged.
    Packet(Box<Record>),
    /// A connection.
    Connection(Entry),
    /// A part of a table of ours.
    Part(Part),
    /// Which state nftables is in.
    Generation(Generation),
    /// An answer: an errno, 0 for none, and where in the request it arose.
    Answer(i32, Option<usize>),
    /// The end of several messages that belong together.
    End,
    /// Nothing that anybody here listens to, or can understand.
    Nothing,
}

/// Reads what was received at once.
pub fn read(bytes: &[u8]) -> Vec<Heard> {
    Messages(bytes).map(|message| one(&message)).collect()
}

fn one(message: &Message<'_>) -> Heard {
    let attributes = message.attributes();
    let heard = match message.kind {
        kind::ERROR => {
            let code = message.error();
            code.map(|code| Heard::Answer(code, message.offset()))
        }
        kind::DONE => Some(Heard::End),
        kind::LOG_PACKET => record(message).map(|record| Heard::Packet(Box::new(record))),
        // Answers are told as new ones.
        kind::CT_NEW => Entry::read(attributes).map(Heard::Connection),
        kind::NEWGEN => Generation::read(attributes).map(Heard::Generation),
        _ => part(Layer::Inet, message).map(Heard::Part),
    };
    heard.unwrap_or(Heard::Nothing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(name: &str) -> Vec<Heard> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/corpus/netlink");
        read(&std::fs::read(format!("{folder}/{name}")).expect("a kept message"))
    }

    /// How many of what was heard are of a kind; all others are the end of what was asked for.
    fn count(name: &str, is_it: fn(&Heard) -> bool) -> usize {
        let heard = kept(name);
        let others = heard.iter().filter(|one| !is_it(one));
        for other in others {
            assert!(matches!(other, Heard::End), "{name}: {other:?}");
        }
        heard.iter().filter(|one| is_it(one)).count()
    }

    #[test]
    fn what_a_kernel_said_of_our_table_is_understood() {
        let rules = count("rules", |one| {
            matches!(one, Heard::Part(Part::Rule(_, Ok(_))))
        });
        assert!(rules > 10, "{rules}");
        let sets = count("sets", |one| {
            matches!(one, Heard::Part(Part::Set(_, Some(_))))
        });
        assert!(sets > 20, "{sets}");
        let chains = count("chains", |one| {
            matches!(one, Heard::Part(Part::Chain(_, Ok(_))))
        });
        assert!(chains > 10, "{chains}");
        let counters = count("counters", |one| {
            matches!(one, Heard::Part(Part::Counter(..)))
        });
        assert!(counters > 3, "{counters}");
        // One of the kinds is the right one; of some sets there are no elements.
        let elements = kept("elements").into_iter().filter(|one| match one {
            Heard::Part(Part::Elements(of_kinds)) => of_kinds
                .iter()
                .any(|(_, held)| held.strangers == 0 && !held.elements.is_empty()),
            _ => false,
        });
        let elements = elements.count();
        assert!(elements > 10, "{elements}");
        assert_eq!(
            count("generation", |one| matches!(one, Heard::Generation(_))),
            1
        );
    }

    #[test]
    fn what_a_kernel_said_of_packets_and_connections_is_understood() {
        let packets = count(
            "packets",
            |one| matches!(one, Heard::Packet(record) if record.header.is_ok() && record.prefix == "denied/ingress"),
        );
        assert!(packets > 3, "{packets}");
        let connections = count("connections", |one| matches!(one, Heard::Connection(_)));
        assert!(connections > 3, "{connections}");
        let [Heard::Answer(refused, _)] = kept("refused")[..] else {
            panic!("no answer");
        };
        assert_eq!(refused, 2, "no such table");
    }
}
