//! What the agent does with nftables, on the kernel, in network namespaces that are gone afterwards.

// What a test cannot prepare has failed.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod apply;
mod conntrack;
mod edges;
mod monitor;
mod offline;
mod random;
mod space;
