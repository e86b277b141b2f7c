//! The life of a process: start, ready, drain, stop.
//!
//! A [`Shutdown`] tells every part how far the process is on its way out; a [`Tasks`] owns everything that runs beside
//! the main path; [`publish`] tells others what is new. Nothing here knows what the parts do.

pub mod admin;
mod publish;
mod readiness;
mod shutdown;
mod tasks;

pub use publish::publish;
pub use readiness::Readiness;
pub use shutdown::{Phase, Shutdown, Trigger, follow_signals};
pub use tasks::{TaskEnd, TaskError, Tasks};
