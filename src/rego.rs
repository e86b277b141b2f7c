//! Policies in Rego: loaded, bounded and evaluated behind a trait of `guard`.
//!
//! A file goes through `load` (parse, metadata, calls, ids), a `trial` in another process and compilation, and becomes
//! part of a [`PolicySet`]. [`RegoEngine`] asks the set in force: the built-in `pack` in the thread that asks, users'
//! policies in a `pool` of threads that can be given up. A question becomes an `input` document; what comes back is read by
//! `answer`. Whatever a policy does, it costs no more than its own answer: not the process, and not the others' time.

mod answer;
mod breaker;
mod builtins;
mod callgraph;
mod context;
mod engine;
mod input;
mod load;
mod metadata;
mod pack;
mod pool;
mod samples;
mod tasks;
pub mod testing;
pub mod trial;
mod user;
mod value;

pub use engine::{PolicySet, RegoEngine};
pub use load::{LoadError, Place, PolicyFile, Problem, read_folder};
pub use pack::files as built_in_files;
pub use trial::Trial;

/// The package by which a user's policies are asked.
const MODULE: &str = "ringfence_entry";
