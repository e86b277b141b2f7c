//! Where traces go.

use tokio::runtime::Handle;

use crate::telemetry::traces::{Endpoint, Traces, TracesError};

/// Where traces go, and how many.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct TraceArgs {
    /// Send traces by OTLP (protobuf over HTTP) to this collector: http or https, host and port, mostly 4318. The
    /// traces of API servers are continued.
    #[arg(
        long,
        value_name = "URL",
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        hide_env_values = true
    )]
    otlp: Option<Endpoint>,
    /// The share of traces that begin here which are sent. What another has begun is sent where that one sends it.
    #[arg(long, value_name = "RATIO", default_value_t = 0.01, value_parser = ratio)]
    otlp_ratio: f64,
}

/// A share.
fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text
        .parse()
        .ok()
        .filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "must be a number from 0 to 1".to_owned())
}

// === impl TraceArgs ===

impl TraceArgs {
    /// Starts to send, where that is asked for.
    pub(super) fn start(
        &self,
        service: &'static str,
        runtime: &Handle,
    ) -> Result<Option<Traces>, TracesError> {
        let Some(url) = self.otlp.as_ref().and_then(Endpoint::url) else {
            return Ok(None);
        };
        Traces::start(url, self.otlp_ratio, service, runtime).map(Some)
    }
}
