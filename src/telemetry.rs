//! Logs: set up once, to standard error, as text for people or one JSON object per line for programs; and traces, where
//! they are asked for.
//!
//! Field names are the same everywhere: `namespace`, `name`, `kind`, `operation`, `uid`, `mode`, `outcome`, `rule`,
//! `reason`, `error`. Standard output is left to what a command prints.

pub mod agent;
pub mod audit;
pub mod baselines;
pub mod certificates;
pub mod events;
pub mod metrics;
pub mod traces;

use std::io::IsTerminal as _;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// One line of text, coloured on a terminal.
    #[default]
    Text,
    /// One JSON object per line, its fields at the top so that log collectors find `message`.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not in the language of `tracing`.
    #[error("log filter {filter:?} is not valid: write a level such as info, or target=level,...")]
    BadFilter {
        /// What was asked for.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// It has been set up before.
    #[error("logging is set up already")]
    AlreadySetUp,
}

/// Sets up logging for the whole process, and has panics logged like anything else. With `traces`, spans go there; the log
/// is the same with and without.
pub fn init(
    format: LogFormat,
    filter: &str,
    traces: Option<&traces::Traces>,
) -> Result<(), TelemetryError> {
    let filter =
        EnvFilter::try_new(quieted(filter)).map_err(|source| TelemetryError::BadFilter {
            filter: filter.to_owned(),
            source,
        })?;
    let lines = tracing_subscriber::fmt::layer()
        // When nobody reads standard error any more, telling of that on standard error would panic, within a request
        // and then within the panic's own hook, which ends the process. Lines are lost instead.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => set_up(
            lines
                .with_ansi(std::io::stderr().is_terminal())
                .with_target(false),
            filter,
            traces,
        ),
        LogFormat::Json => set_up(
            lines
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false),
            filter,
            traces,
        ),
    }
    .map_err(|_| TelemetryError::AlreadySetUp)?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        tracing::error!(%place, reason = panic_text(panic.payload()), "panic");
    }));
    Ok(())
}

/// The filter without what the client of the API server says of each request that failed: whoever made it says so once, and what it
/// was for. More than a level is taken as it is.
fn quieted(filter: &str) -> String {
    match filter {
        "error" | "warn" | "info" => format!("{filter},kube_client::client::builder=off"),
        _ => filter.to_owned(),
    }
}

/// Without traces the filter is one for all, and a span costs a glance at a number.
fn set_up<L>(
    lines: L,
    filter: EnvFilter,
    traces: Option<&traces::Traces>,
) -> Result<(), TryInitError>
where
    L: Layer<Registry> + Send + Sync + 'static,
{
    match traces {
        None => tracing_subscriber::registry()
            .with(lines)
            .with(filter)
            .try_init(),
        Some(traces) => {
            let lines: Box<dyn Layer<Registry> + Send + Sync> = Box::new(lines.with_filter(filter));
            let layers = vec![lines, traces.layer()];
            tracing_subscriber::registry().with(layers).try_init()
        }
    }
}

/// How many lines of one sort may be logged in a second. What others can cause at will must not fill the disk.
#[derive(Debug)]
pub struct LogBudget {
    per_second: u32,
    second: AtomicU64,
    spent: AtomicU32,
    left_out: AtomicU32,
}

impl LogBudget {
    /// This many lines in each second.
    pub const fn new(per_second: u32) -> Self {
        Self {
            per_second,
            second: AtomicU64::new(0),
            spent: AtomicU32::new(0),
            left_out: AtomicU32::new(0),
        }
    }

    /// Whether a line may be logged now, and how many were left out since the last one. Close to exact: lines at the same
    /// moment as a second's end may be counted to either.
    pub fn spend(&self) -> Option<u32> {
        static BORN: LazyLock<Instant> = LazyLock::new(Instant::now);
        self.spend_at(BORN.elapsed().as_secs())
    }

    fn spend_at(&self, second: u64) -> Option<u32> {
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.spent.store(0, Ordering::Relaxed);
        }
        if self.spent.fetch_add(1, Ordering::Relaxed) < self.per_second {
            Some(self.left_out.swap(0, Ordering::Relaxed))
        } else {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

/// What a panic said, when it said it in words.
pub fn panic_text(payload: &(dyn std::any::Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_refused_with_how_to_write_one() {
        let error = init(LogFormat::Text, "webhook=loud", None)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("webhook=loud") && error.contains("info"),
            "{error}"
        );
    }

    #[test]
    fn lines_beyond_the_budget_are_counted_and_told_of_later() {
        let budget = LogBudget::new(2);
        assert_eq!(
            [
                budget.spend_at(7),
                budget.spend_at(7),
                budget.spend_at(7),
                budget.spend_at(7)
            ],
            [Some(0), Some(0), None, None]
        );
        assert_eq!(budget.spend_at(8), Some(2));
        assert_eq!(budget.spend_at(8), Some(0));
    }

    #[test]
    fn panics_speak_in_either_kind_of_string() {
        assert_eq!(panic_text(&"word"), "word");
        assert_eq!(panic_text(&String::from("words")), "words");
        assert_eq!(panic_text(&7), "no message");
    }
}
