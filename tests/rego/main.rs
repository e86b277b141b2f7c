//! Policies in Rego as their users meet them: what they may do, what they are kept from, and what goes on all the same.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed test says so by a panic"
)]

mod builtins;
mod hostile;
mod loading;
mod policies;
mod support;
