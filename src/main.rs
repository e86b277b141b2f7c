//! The `ringfence` program: sets the allocator and hands over to the command line.

use std::process::ExitCode;

/// Policy evaluation allocates much and from many threads at once; see the benches.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ringfence::cli::main()
}
