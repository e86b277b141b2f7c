//! What may go wrong between us and `nf_tables`, in words.

use std::fmt;
use std::io;

use rustix::io::Errno;

use crate::ruleset::{Change, Layer, Transaction, render};

/// Why a transaction was not done. Nothing of it is in force then, except where the answer was lost.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The kernel refused a change.
    #[error("the kernel refused {0}")]
    Refused(Refusal),
    /// This process may not change nftables.
    #[error(
        "no right to change nftables: the capability NET_ADMIN is missing in the node's network namespace, or another process \
         owns the table (flag `owner`)"
    )]
    NotPermitted,
    /// A name or a rule is too long for netlink.
    #[error("a name or a rule is too long for a message to the kernel")]
    TooLong,
    /// The kernel said nothing of it: the table must be read to know.
    #[error("the kernel's answer was lost, so it is not known whether the change is in force")]
    Unanswered,
    /// There is no talking to the kernel.
    #[error("cannot talk to nftables: {}", words(*.0))]
    Socket(Errno),
}

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// This process may not read nftables.
    #[error(
        "no right to read nftables: the capability NET_ADMIN is needed in the node's network namespace"
    )]
    NotPermitted,
    /// The kernel refused.
    #[error("cannot read {what} from nftables: {}", words(*.errno))]
    Refused {
        /// What was asked for.
        what: String,
        /// The kernel's reason.
        errno: Errno,
    },
    /// There is no talking to the kernel.
    #[error("cannot talk to nftables: {}", words(*.0))]
    Socket(Errno),
}

/// A change that the kernel refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The number of the change in its transaction; none where the kernel refused the whole.
    pub change: Option<usize>,
    /// The change in words, with the element or the rule where the kernel says which.
    pub what: String,
    /// The kernel's reason.
    pub errno: Errno,
    /// How many more messages it refused of the same transaction.
    pub others: usize,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, words(self.errno))?;
        if self.others > 0 {
            write!(f, " (and {} more)", self.others)?;
        }
        Ok(())
    }
}

/// An errno in the words of `nf_tables`, with its number for those who look it up.
fn words(errno: Errno) -> String {
    let meaning = match errno {
        Errno::EXIST => "is there already, or overlaps with what is there",
        Errno::NOENT => "is not there, or what it leads to is not there",
        Errno::BUSY => "something still leads to it",
        Errno::INVAL => "is not understood",
        Errno::OPNOTSUPP => "needs a part of nftables that this kernel lacks",
        Errno::MLINK | Errno::LOOP => "chains lead to each other too deeply or in a circle",
        Errno::NOMEM | Errno::NOBUFS => "there is not enough memory",
        Errno::MSGSIZE => {
            "is larger than this process may send at once, without NET_ADMIN outside of user namespaces"
        }
        Errno::NFILE => "the set is full",
        Errno::PERM | Errno::ACCESS => "is not permitted",
        _ => return io::Error::from(errno).to_string(),
    };
    format!("{meaning} ({})", io::Error::from(errno))
}

/// A change of a transaction in words, by its number and that of the rule or element that is at fault.
pub(super) fn describe(transaction: &Transaction, place: Option<(usize, Option<usize>)>) -> String {
    let change = place.and_then(|(change, _)| transaction.all().nth(change));
    let part = place.and_then(|(_, part)| part);
    let Some((layer, change)) = change else {
        return "the whole transaction".to_owned();
    };
    let what = in_words(change, part);
    match layer {
        Layer::Inet => what,
        Layer::Bridge => format!("{what} for the ports of bridges"),
    }
}

fn in_words(change: &Change, part: Option<usize>) -> String {
    match change {
        Change::AddTable => "to make the table".into(),
        Change::DeleteTable => "to delete the table".into(),
        Change::AddCounter(name) => format!("to make the counter {name}"),
        Change::DeleteCounter(name) => format!("to delete the counter {name}"),
        Change::AddSet(name, _) => format!("to make the set {name}"),
        Change::DeleteSet(name) => format!("to delete the set {name}"),
        Change::AddChain(name, _) => format!("to make the chain {name}"),
        Change::FlushChain(name) => format!("to empty the chain {name}"),
        Change::DeleteChain(name) => format!("to delete the chain {name}"),
        Change::AddRules(chain, rules) => match part.and_then(|part| rules.get(part)) {
            Some(rule) => format!(
                "to add to the chain {chain} the rule `{}`",
                render::rule(rule)
            ),
            None => format!("to add {} rules to the chain {chain}", rules.len()),
        },
        Change::AddElements(set, _, elements) => match part.and_then(|part| elements.get(part)) {
            Some(one) => format!("to add {} to the set {set}", render::element(one)),
            None => format!("to add {} elements to the set {set}", elements.len()),
        },
        Change::DeleteElements(set, _, elements) => {
            match part.and_then(|part| elements.get(part)) {
                Some(one) => format!("to take {} out of the set {set}", render::element(one)),
                None => format!("to take {} elements out of the set {set}", elements.len()),
            }
        }
    }
}
