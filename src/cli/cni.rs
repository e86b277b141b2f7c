//! `ringfence cni`: one call of the CNI plugin, by the environment and standard input.

use super::Exit;
use crate::agent::cni::plugin;

/// Arguments: none, all is in the environment.
///
/// The agent installs this program as `ringfence-cni` among the node's CNI plugins, and called by that name it needs no
/// subcommand.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Answers one call.
pub fn run(_args: &Args) -> Exit {
    if plugin::answer_call() {
        Exit::Clean
    } else {
        Exit::Failed
    }
}
