//! Our table in the kernel, by netlink.
//!
//! [`Socket::apply`] puts a [`Transaction`](crate::ruleset::Transaction) into the kernel in one system call, [`read`] gives
//! what the kernel holds as the same types, and [`Monitor`] tells when somebody else touched it. No rule, set or element of
//! another table than ours is ever asked for; [`all_chains`] has the names of everybody's chains, for who wants to know who else
//! is at work here. Synchronous: the calls are short and belong on a thread of their own.
//!
//! `expression` what rules are made of, `rule` and `element` translate to and from the
//! types of `ruleset`, `batch` puts a transaction together.

mod batch;
mod element;
mod error;
mod expression;
mod monitor;
pub(super) mod read;
mod rule;
mod socket;

pub use element::Held;
pub use error::{ApplyError, ReadError, Refusal};
pub use monitor::{Author, Ear, Event, Monitor};
pub use read::{
    Counted, Found, Generation, Part, all_chains, counters, elements, generation, is_ours, read,
};
pub(crate) use rule::protocol;
pub use socket::Socket;
