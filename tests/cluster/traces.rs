//! The trace of a request as a real API server begins it and the webhook goes on with it, both received by one collector.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, Response};
use axum::routing::post;
use http_body_util::{BodyExt as _, Full};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::json;

use crate::installation::{controller, fails_for, install_kinds, registered, webhook_with};
use crate::kubernetes::{Kubernetes, free_port};
use crate::registration::{GUARDRAIL, namespace, pod, refused};

/// What a client of the API server says: a trace and the span that the request is made in.
const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
const CLIENT: u64 = 0x00f0_67aa_0ba9_02b7;

/// Spans with the name of who sent them.
type Spans = Arc<Mutex<Vec<(String, Span)>>>;

fn take(spans: &Spans, message: &[u8]) {
    let request = ExportTraceServiceRequest::decode(message).unwrap();
    let mut spans = spans.lock().unwrap();
    for resource in request.resource_spans {
        let attributes = resource.resource.unwrap().attributes;
        let service = attributes.iter().find(|one| one.key == "service.name");
        let service = format!("{:?}", service.unwrap().value);
        let of_scopes = resource.scope_spans.into_iter();
        let new = of_scopes.flat_map(|scope| scope.spans);
        spans.extend(new.map(|span| (service.clone(), span)));
    }
}

/// A collector of OTLP over HTTP, which the webhook speaks, and over gRPC, which API servers do; its address.
async fn collect(spans: &Spans) -> String {
    let (by_http, by_grpc) = (Arc::clone(spans), Arc::clone(spans));
    let http = async move |body: Bytes| take(&by_http, &body);
    let grpc = async move |body: Bytes| {
        // A byte that says that nothing is compressed, the length in four, the message.
        assert_eq!(body[0], 0);
        take(&by_grpc, &body[5..]);
        let mut status = HeaderMap::new();
        status.insert("grpc-status", HeaderValue::from_static("0"));
        let empty = Full::new(Bytes::from_static(&[0; 5]));
        let body = empty.with_trailers(async { Some(Ok(status)) });
        let mut response = Response::new(Body::new(body));
        let kind = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert("content-type", kind);
        response
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let export = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    let router = Router::new()
        .route("/v1/traces", post(http))
        .route(export, post(grpc));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn reviews_are_spans_within_the_calls_of_the_api_server_that_asked_for_them() {
    let spans = Spans::default();
    let address = collect(&spans).await;
    let cluster = Kubernetes::start().await;
    let file = cluster.folder().join("tracing.yaml");
    let tracing = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "TracingConfiguration",
        "endpoint": address, "samplingRatePerMillion": 1_000_000,
    });
    std::fs::write(&file, tracing.to_string()).unwrap();
    cluster.stop_server(0);
    let flag = format!("--tracing-config-file={}", file.display());
    cluster.start_server_with(0, &[&flag]).await;
    install_kinds(&cluster).await;
    let port = free_port();
    let _controller = controller(&cluster, "controller", port, &[]);
    // Of what begins here nothing is sent.
    let otlp = format!("http://{address}");
    let arguments = ["--otlp", &otlp, "--otlp-ratio", "0"];
    let webhook = webhook_with(&cluster, "webhook", port, &arguments);
    webhook.line(&["listening"]).await;
    cluster.apply(&namespace("shop", "prod"));
    cluster.apply(GUARDRAIL);
    registered(&cluster, "shop in fail", |c| fails_for(c, "shop")).await;
    refused(&cluster, &pod("web", "shop"), "default-deny").await;

    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "default-deny"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    });
    let path = "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies?dryRun=All";
    let request = hyper::Request::post(path)
        .header("content-type", "application/json")
        .header("traceparent", format!("00-{TRACE:032x}-{CLIENT:016x}-01"))
        .body(policy.to_string().into_bytes())
        .unwrap();
    let client = cluster.client().await;
    client.request_text(request).await.unwrap();

    // Both send in batches, the API server each five seconds.
    let whole = async || {
        let all = spans.lock().unwrap().clone();
        let mut all: Vec<(String, Span)> = all;
        all.retain(|(_, span)| span.trace_id == TRACE.to_be_bytes());
        let begun = |(_, span): &(String, Span)| span.parent_span_id == CLIENT.to_be_bytes();
        let reviews = all.iter().filter(|(_, span)| span.name == "review");
        (all.iter().any(begun) && reviews.count() == 2).then_some(all)
    };
    let spans = Kubernetes::eventually("the trace", whole).await;
    let find = |id: &[u8]| spans.iter().find(|(_, span)| span.span_id == id);
    let mut calls = Vec::new();
    for (service, review) in spans.iter().filter(|(_, span)| span.name == "review") {
        assert!(service.contains("ringfence-webhook"), "{service}");
        // The HTTP request of the API server, and why it made it.
        let (service, http) = find(&review.parent_span_id).expect("the span that asked");
        assert!(service.contains("apiserver"), "{service}");
        let (_, call) = find(&http.parent_span_id).expect("the call");
        calls.push(call.name.clone());
        // And up to who asked the API server.
        let mut at = call;
        for _ in 0..spans.len() {
            match find(&at.parent_span_id) {
                Some((_, parent)) => at = parent,
                None => break,
            }
        }
        assert_eq!(at.parent_span_id, CLIENT.to_be_bytes(), "{spans:#?}");
        let took = |span: &Span| span.end_time_unix_nano - span.start_time_unix_nano;
        assert!(took(review) <= took(http), "one machine, one clock");
    }
    calls.sort();
    assert_eq!(calls, ["Call mutating webhook", "Call validating webhook"]);
}
