//! No leak at pod start: a chained CNI plugin holds a new pod back until the agent says that its rules are in force.
//!
//! The container runtime calls the plugin ([`plugin`]) last in the chain of the node's network; it asks the agent over a
//! Unix socket ([`server`], in the words of [`ask`]) and waits, to a bound. [`install`] puts the plugin into the chain and
//! keeps it there; what that does to the configuration's text is in [`list`]. What was told is kept for the next agent ([`kept`]).

pub mod ask;
mod config;
pub mod install;
pub mod kept;
pub mod list;
pub mod plugin;
pub mod server;

/// The name of the plugin: of its file, and of its type in a network configuration.
pub const NAME: &str = "ringfence-cni";

/// Where the agent listens unless it is told otherwise.
pub const SOCKET: &str = "/run/ringfence/cni.sock";
