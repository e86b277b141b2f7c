//! Traces by OTLP: spans of reviews (`review` → `decide` → `rego`, `read`), continued from the caller's `traceparent` (W3C Trace
//! Context), handed to a thread of their own by a bounded queue and sent from there in batches, as protobuf over HTTP.
//!
//! A span never waits: with the queue full it is dropped, and the log says so. What another has begun is sampled as that
//! one says, what begins here by a ratio.

mod collector;

use std::str::FromStr;
use std::time::Duration;

use hyper::HeaderMap;
use hyper::Uri;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::HeaderExtractor;
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider,
};
use tokio::runtime::Handle;
use tracing::{Level, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::{Layer, Registry};

use collector::Collector;

/// The target of all spans. They are of the level TRACE, so that without traces none is ever made.
pub const TARGET: &str = "ringfence::trace";

/// Spans that wait to be sent; the next ones are dropped.
const QUEUE: usize = 4096;
/// Spans in one message.
const BATCH: usize = 512;
/// How long a span waits for others at most.
const EVERY: Duration = Duration::from_secs(2);
/// How long what is left may take at the end of the process.
const LAST: Duration = Duration::from_secs(3);

/// The address of a collector, as OpenTelemetry writes it: to the base the path of traces is added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(Option<String>);

/// Traces while they are sent.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
}

/// Why traces cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// What the system trusts cannot be found out.
    #[error("cannot find out which authorities the system trusts")]
    Trust(#[source] rustls::Error),
    /// The exporter refused.
    #[error("traces cannot be sent")]
    Exporter(#[from] ExporterBuildError),
}

/// Continues the trace that a caller's headers tell of, where they do.
pub fn follow(span: &Span, headers: &HeaderMap) {
    if span.is_disabled() {
        return;
    }
    let parent = TraceContextPropagator::new().extract(&HeaderExtractor(headers));
    // Without traces there is no layer that could take it.
    let _ = span.set_parent(parent);
}

/// A span within the one that is open here; none where none is.
pub fn within(span: impl FnOnce() -> Span) -> Span {
    let is_traced = tracing::span_enabled!(target: TARGET, Level::TRACE);
    if is_traced && !Span::current().is_none() {
        span()
    } else {
        Span::none()
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// Where traces are posted; none where it is empty, as a variable of the environment may be.
    pub fn url(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const PATH: &str = "/v1/traces";
        if text.is_empty() {
            return Ok(Self(None));
        }
        let base = text.trim_end_matches('/');
        let base = base.strip_suffix(PATH).unwrap_or(base);
        let url = format!("{base}{PATH}");
        let parsed: Uri = url.parse().map_err(|_| "it is no URL".to_owned())?;
        match (parsed.scheme_str(), parsed.host(), parsed.query()) {
            (Some("http" | "https"), Some(_), None) => Ok(Self(Some(url))),
            _ => Err("it must be http:// or https://, a host, and a port or a path".to_owned()),
        }
    }
}

// === impl Traces ===

impl Traces {
    /// Begins to send to a URL, by tasks of this runtime.
    pub fn start(
        url: &str,
        ratio: f64,
        service: &'static str,
        runtime: &Handle,
    ) -> Result<Self, TracesError> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector::new(url, runtime.clone())?)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(url)
            .build()?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(EVERY)
            .build();
        let processor = BatchSpanProcessor::builder(exporter)
            .with_batch_config(batches)
            .build();
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio)));
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_sampler(sampler)
            .with_resource(Resource::builder().with_service_name(service).build())
            .build();
        Ok(Self { provider })
    }

    /// What takes spans, and nothing else.
    pub(super) fn layer(&self) -> Box<dyn Layer<Registry> + Send + Sync> {
        let tracer = self.provider.tracer("ringfence");
        let layer = tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false);
        Box::new(layer.with_filter(Targets::new().with_target(TARGET, Level::TRACE)))
    }

    /// Sends what is left. Waits for that, for a short time; not to be called by a task.
    pub fn finish(self) {
        if let Err(error) = self.provider.shutdown_with_timeout(LAST) {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_added_once_and_what_is_no_address_is_refused() {
        let url = |text: &str| text.parse::<Endpoint>().map(|endpoint| endpoint.0);
        let full = Ok(Some("http://collector:4318/v1/traces".to_owned()));
        for text in [
            "http://collector:4318",
            "http://collector:4318/",
            "http://collector:4318/v1/traces",
        ] {
            assert_eq!(url(text), full, "{text}");
        }
        assert_eq!(url(""), Ok(None));
        for text in [
            "collector:4318",
            "grpc://collector",
            "http://",
            "http://c?x=1",
        ] {
            assert!(url(text).is_err(), "{text}");
        }
    }
}
