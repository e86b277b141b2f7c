//! Traces by OTLP, received by a collector of the test's own.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use hyper::HeaderMap;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use crate::client::{self, Client, Http};
use crate::command::{Program, folder, review};

const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
const PARENT: u64 = 0x00f0_67aa_0ba9_02b7;

/// A collector and what it was sent.
struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
}

/// What a caller says: whose trace it is, and whether that is sent.
fn traceparent(trace: u128, flags: u8) -> String {
    format!("00-{trace:032x}-{PARENT:016x}-{flags:02x}")
}

impl Collector {
    async fn start() -> Self {
        let spans: Arc<Mutex<Vec<Span>>> = Arc::default();
        let received = Arc::clone(&spans);
        let take = async move |headers: HeaderMap, body: Bytes| {
            assert_eq!(headers["content-type"], "application/x-protobuf");
            let request = ExportTraceServiceRequest::decode(body).unwrap();
            let mut received = received.lock().unwrap();
            for resource in request.resource_spans {
                let attributes = resource.resource.unwrap().attributes;
                let service = attributes.iter().any(|attribute| {
                    attribute.key == "service.name"
                        && format!("{:?}", attribute.value).contains("ringfence-webhook")
                });
                assert!(service, "{attributes:?}");
                let scopes = resource.scope_spans.into_iter();
                received.extend(scopes.flat_map(|scope| scope.spans));
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/v1/traces", post(take));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, spans }
    }
}

async fn judged(program: &Program, traceparent: Option<&str>) -> Duration {
    let mut client = Client::new(program.address, &[&program.ca], Http::One);
    let mut request = client::post("/validate?timeout=10s", review().to_string());
    if let Some(traceparent) = traceparent {
        let headers = request.headers_mut();
        headers.insert("traceparent", traceparent.parse().unwrap());
    }
    let begun = Instant::now();
    assert_eq!(client.send(request).await.unwrap().status, 200);
    begun.elapsed()
}

fn attribute<'s>(span: &'s Span, key: &str) -> Option<&'s str> {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    let found = span
        .attributes
        .iter()
        .find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_of_a_review_belong_to_the_trace_of_the_api_server_which_says_whether_they_are_sent()
{
    let collector = Collector::start().await;
    let (_top, manifests) = folder();
    let url = format!("http://{}", collector.address);
    let program = Program::start(&manifests, &["--otlp", &url, "--otlp-ratio", "0"]);
    // Sampled by who asks, not sampled by who asks, and begun here.
    judged(&program, Some(&traceparent(TRACE, 1))).await;
    judged(&program, Some(&traceparent(7, 0))).await;
    judged(&program, None).await;
    judged(&program, Some("nonsense")).await;
    // What is left is sent at the end.
    assert_eq!(program.stop().code(), Some(0));

    let spans = collector.spans.lock().unwrap();
    let named = |name: &str| {
        let mut found = spans.iter().filter(|span| span.name == name);
        let one = found.next().unwrap_or_else(|| panic!("{name}: {spans:?}"));
        (one, found.count())
    };
    let (review, more) = named("review");
    assert_eq!(
        (review.trace_id.as_slice(), more),
        (&TRACE.to_be_bytes()[..], 0)
    );
    assert_eq!(review.parent_span_id, PARENT.to_be_bytes());
    assert_eq!(attribute(review, "path"), Some("/validate"));
    let (decide, _) = named("decide");
    assert_eq!(decide.parent_span_id, review.span_id);
    assert_eq!(attribute(decide, "outcome"), Some("denied"));
    assert_eq!(attribute(decide, "namespace"), Some("shop"));
    let (rego, _) = named("rego");
    assert_eq!(rego.parent_span_id, decide.span_id);
    assert!(
        spans
            .iter()
            .all(|span| span.trace_id == TRACE.to_be_bytes())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_does_not_answer_holds_nothing_up() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_top, manifests) = folder();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let program = Program::start(&manifests, &["--otlp", &url, "--otlp-ratio", "1"]);
    let mut slowest = Duration::ZERO;
    // More spans than wait to be sent.
    let mut client = Client::new(program.address, &[&program.ca], Http::One);
    for _ in 0..2_000 {
        let begun = Instant::now();
        let answer = client.post("/validate?timeout=10s", review().to_string());
        assert_eq!(answer.await.unwrap().status, 200);
        slowest = slowest.max(begun.elapsed());
    }
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    let begun = Instant::now();
    assert_eq!(program.stop().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10));
}
