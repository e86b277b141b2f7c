//! The log of a program that runs until it is told to stop, as arguments.

use crate::telemetry::traces::Traces;
use crate::telemetry::{self, LogFormat, TelemetryError};

/// What is logged, and how.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct LogArgs {
    /// The form of the log.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// What is logged: a level, or directives such as `info,ringfence=debug`.
    #[arg(
        long,
        value_name = "FILTER",
        default_value = "info",
        env = "RINGFENCE_LOG"
    )]
    log: String,
}

// === impl LogArgs ===

impl LogArgs {
    /// Begins to log.
    pub(super) fn start(&self, traces: Option<&Traces>) -> Result<(), TelemetryError> {
        telemetry::init(self.log_format, &self.log, traces)
    }
}
