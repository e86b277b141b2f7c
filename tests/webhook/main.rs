//! The webhook's server, asked over real TLS.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed test says so by a panic"
)]

mod admission;
mod client;
mod clients;
mod cluster;
mod command;
mod hostile;
mod reachability;
mod service;
mod slow;
mod support;
mod traces;
mod transport;
