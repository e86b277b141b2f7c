//! `ringfence completions SHELL`: what a shell needs to complete our arguments.

use std::io;

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Exit};

/// Arguments of `ringfence completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ringfence completions bash > /etc/bash_completion.d/ringfence")]
pub struct Args {
    /// The shell.
    shell: Shell,
}

/// Prints the completions.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let mut command = Cli::command();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "ringfence", &mut script);
    io::Write::write_all(&mut io::stdout().lock(), &script)?;
    Ok(Exit::Clean)
}
