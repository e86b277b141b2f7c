//! What a node's kernel is to hold, as data: an nftables table that lets pass what the policies allow.
//!
//! A [`Plan`] follows a [`Snapshot`](crate::netpol::Snapshot) for one node and keeps the wanted [`Ruleset`]; each change of
//! the cluster becomes a [`Transaction`] that costs what changed. `ruleset/table.rs` has the words of nftables that are
//! used, `ruleset/render.rs` writes them for people as `nft -f` reads them, and the agent encodes the same values for the
//! kernel. Pure: no sockets, files, clock or logging here, and nothing that can panic.
//!
//! # How a packet goes
//!
//! Every packet that the node forwards meets the chain `forward` after destination NAT, so that a Service is judged by
//! its endpoint. What belongs to a connection that was let in passes first. Then one lookup by source finds the chain of a local
//! pod's egress, and one by destination that of a local pod's ingress: the cost does not grow with the number of pods.
//! A chain returns for what is allowed and ends with a counter, a limited log and a drop. Pods with equal policies share a
//! chain, and rules with the same peers share a set. Flows from a pod to its own node meet `input`, where only
//! `ClusterNetworkPolicies` count: network policies never stand between a pod and its node.
//!
//! Verdicts go by addresses, so what comes from a local pod must have the pod's own: a chain before all others, here and in a
//! second table for the ports of bridges, holds each interface to the addresses of the pod behind it, where it is known.
//!
//! Where policies are on trial for a pod, its chain asks twice: what is in force decides, and what would be if they were promoted is
//! counted and told where it is another answer.

// A panic in the agent is a node whose rules nobody keeps; tests may still say `expect`.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unwrap_used
    )
)]

pub mod plan;
pub mod render;
pub mod table;
pub mod transaction;

mod addresses;
mod body;
mod compile;
mod digest;
mod draft;
mod frame;
mod link;
mod members;
mod options;
mod sources;
mod terms;
mod vxlan;

pub use frame::{back_set, cut_set};
pub use options::{Options, VXLAN_PORTS};
pub use plan::Plan;
pub use sources::{ports_set, sources_set};
pub use table::{
    Carried, Chain, ChainName, CounterName, Element, End, Hook, Interface, Layer, Log, Match, Rule,
    Ruleset, Set, SetKind, SetName, Statement, TABLE, Tracked, Tuple, Verdict,
};
pub use transaction::{Change, Transaction};
