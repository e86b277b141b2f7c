//! What is demanded of a cluster: guardrails, findings, decisions.
//!
//! Pure: no files, sockets, clocks or threads. The current time and the budget are arguments.
//!
//! How data passes through: a [`review::Review`] (one admission request, or one manifest that `check` treats as a
//! request to create it) is judged by [`decide::judge`] against a [`Context`]: the cluster as it is known, the
//! guardrails in force, the exemptions and the policy engine. The native checks (coverage, breadth) and the
//! policies in Rego (labels, bypasses, documentation, a user's own) return [`finding::Finding`]s; the mode of the
//! guardrail that each comes from is applied once, at the end. [`mutate::mutate`] is the other half: what a
//! guardrail's baseline adds to a policy. The webhook, the command line and the audit call these two functions
//! and no others.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

pub mod access;
pub mod audit;
pub mod baseline;
mod breadth;
pub mod coverage;
pub mod decide;
pub mod enforcement;
pub mod engine;
pub mod exemption;
pub mod finding;
pub mod gitops;
pub mod guardrail;
mod hygiene;
mod manifest;
pub mod mode;
pub mod mutate;
pub mod quarantine;
pub mod reachability;
pub mod register;
pub mod registry;
pub mod review;
pub mod scope;
pub mod status;
pub mod template;
#[cfg(test)]
mod testing;
