//! TLS, HTTP and the limits of connections, with a router that knows nothing of admission.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::{get, post};
use http_body_util::Full;
use hyper::Request;
use jiff::Timestamp;
use ringfence::runtime::Phase;
use ringfence::webhook::server::{Ending, ServerOptions};
use ringfence::webhook::tls::{Identity, TlsVersions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Http, client_config, connect};
use crate::support::{Running, authority, leaf, options, start, start_with};

fn router() -> Router {
    Router::new()
        .route("/echo", post(|body: Bytes| async move { body }))
        .route(
            "/slow",
            get(|| async { sleep(Duration::from_millis(100)).await }),
        )
        .route("/hang", get(std::future::pending::<()>))
        .route("/panic", get(out_of_order))
        .route("/big", get(|| async { vec![b'x'; 64 << 20] }))
}

async fn out_of_order() -> &'static str {
    panic!("out of order")
}

/// Reads until the server ends the connection, and says how long that took.
async fn ended_after(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Duration {
    let begun = Instant::now();
    let mut rest = Vec::new();
    // However it ends: with an alert, a reset or the plain end.
    drop(
        timeout(Duration::from_secs(5), stream.read_to_end(&mut rest))
            .await
            .expect("the server ends it"),
    );
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn http1_with_keep_alive_and_http2_are_both_served() {
    let server = start(router(), options()).await;
    for http in [Http::One, Http::Two] {
        let mut client = server.client(http);
        for _ in 0..3 {
            let answer = client.post("/echo", "hello").await.unwrap();
            assert_eq!((answer.status, answer.text()), (200, "hello"));
        }
        assert_eq!(client.connections, 1, "{http:?}");
    }
    assert_eq!(server.drain().await, Ending::Finished);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_1_2_is_refused_unless_chosen() {
    for (versions, accepted) in [(TlsVersions::Only13, false), (TlsVersions::From12, true)] {
        let server = start_with(options(), versions, |_| router()).await;
        let config = client_config(
            &[server.authority.certificate_pem()],
            Http::One,
            &[&rustls::version::TLS12],
        );
        let outcome = connect(server.address, config).await;
        assert_eq!(
            outcome.is_ok(),
            accepted,
            "{versions:?}: {:?}",
            outcome.err()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_trusts_another_authority_does_not_trust_this_server() {
    let server = start(router(), options()).await;
    let other = authority();
    let config = client_config(
        &[other.certificate_pem()],
        Http::One,
        &[&rustls::version::TLS13],
    );
    assert!(connect(server.address, config).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_is_for_its_names_by_service_and_by_address_and_for_no_other() {
    let server = start(router(), options()).await;
    let config = client_config(
        &[server.authority.certificate_pem()],
        Http::One,
        &[&rustls::version::TLS13],
    );
    for (name, good) in [
        ("ringfence.ringfence-system.svc", true),
        ("127.0.0.1", true),
        ("ringfence.other-system.svc", false),
        ("127.0.0.2", false),
    ] {
        let stream = TcpStream::connect(server.address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from(name).unwrap();
        let outcome = tokio_rustls::TlsConnector::from(config.clone())
            .connect(name.clone(), stream)
            .await;
        assert_eq!(outcome.is_ok(), good, "{name:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_large_a_head_is_answered_with_431_and_the_server_goes_on() {
    let server = start(router(), options()).await;
    let mut client = server.client(Http::One);
    let long = Request::post("/echo")
        .header("host", "webhook")
        .header("x-long", "x".repeat(40 << 10));
    let answer = client
        .send(long.body(Full::default()).unwrap())
        .await
        .unwrap();
    assert_eq!(answer.status, 431);
    let mut many = Request::post("/echo").header("host", "webhook");
    for number in 0..80 {
        many = many.header(format!("x-{number}"), "x");
    }
    let answer = server
        .client(Http::One)
        .send(many.body(Full::default()).unwrap())
        .await
        .unwrap();
    assert_eq!(answer.status, 431);
    assert_eq!(
        server
            .client(Http::One)
            .post("/echo", "x")
            .await
            .unwrap()
            .status,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_are_slow_on_purpose_are_cut() {
    let limits = ServerOptions {
        handshake_timeout: Duration::from_millis(200),
        header_timeout: Duration::from_millis(200),
        idle_timeout: Duration::from_millis(600),
        write_timeout: Duration::from_millis(200),
        ..options()
    };
    let server = start(router(), limits).await;
    let config = client_config(
        &[server.authority.certificate_pem()],
        Http::One,
        &[&rustls::version::TLS13],
    );

    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let mut half_a_head = connect(server.address, config.clone()).await.unwrap();
    half_a_head
        .write_all(b"POST /echo HTTP/1.1\r\nhost: web")
        .await
        .unwrap();
    let mut idle = connect(server.address, config.clone()).await.unwrap();
    let mut takes_nothing = connect(server.address, config).await.unwrap();
    takes_nothing
        .write_all(b"GET /big HTTP/1.1\r\nhost: webhook\r\n\r\n")
        .await
        .unwrap();

    let (silent, half_a_head, idle) = tokio::join!(
        ended_after(&mut silent),
        ended_after(&mut half_a_head),
        ended_after(&mut idle)
    );
    assert!(
        silent < Duration::from_millis(500),
        "no handshake: {silent:?}"
    );
    assert!(
        half_a_head < Duration::from_millis(500),
        "half a head: {half_a_head:?}"
    );
    assert!(
        idle > Duration::from_millis(500),
        "an idle connection may stay for longer: {idle:?}"
    );
    let mut taken = Vec::new();
    drop(
        timeout(
            Duration::from_secs(5),
            takes_nothing.read_to_end(&mut taken),
        )
        .await
        .expect("cut"),
    );
    assert!(
        taken.len() < 64 << 20,
        "the answer was not held for a client that takes nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_left_lying_do_not_keep_others_out() {
    let server = start(
        router(),
        ServerOptions {
            max_connections: 4,
            ..options()
        },
    )
    .await;
    let config = client_config(
        &[server.authority.certificate_pem()],
        Http::One,
        &[&rustls::version::TLS13],
    );
    let mut useful = server.client(Http::One);
    useful.post("/echo", "x").await.unwrap();
    let mut lying = Vec::new();
    for _ in 0..8 {
        lying.push(connect(server.address, config.clone()).await.unwrap());
    }
    assert_eq!(
        server
            .client(Http::One)
            .post("/echo", "x")
            .await
            .unwrap()
            .status,
        200
    );
    useful.post("/echo", "x").await.unwrap();
    assert_eq!(useful.connections, 1, "the useful one was left alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_a_handler_ends_its_request_only() {
    let server = start(router(), options()).await;
    for http in [Http::One, Http::Two] {
        let mut client = server.client(http);
        let answer = client.get("/panic").await.unwrap();
        assert_eq!(
            (answer.status, answer.text()),
            (500, "internal error: the request was not judged\n")
        );
        assert_eq!(client.post("/echo", "x").await.unwrap().status, 200);
        assert_eq!(client.connections, 1);
    }
}

/// Asks without pause from several clients until told to stop; returns how often, and every failure.
async fn load(server: &Running, http: Http, stop: Arc<AtomicBool>) -> (usize, Vec<String>, usize) {
    let count = Arc::new(AtomicUsize::new(0));
    let clients = (0..8).map(|_| {
        let (mut client, stop, count) =
            (server.client(http), Arc::clone(&stop), Arc::clone(&count));
        tokio::spawn(async move {
            let mut failures = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                match client.post("/echo", "hello").await {
                    Ok(answer) if answer.text() == "hello" => {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    other => failures.push(format!("{other:?}")),
                }
            }
            (failures, client.connections)
        })
    });
    let mut failures = Vec::new();
    let mut connections = 0;
    for client in clients.collect::<Vec<_>>() {
        let (failed, opened) = client.await.unwrap();
        failures.extend(failed);
        connections += opened;
    }
    (count.load(Ordering::Relaxed), failures, connections)
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_under_load_loses_no_request() {
    for http in [Http::One, Http::Two] {
        let handled = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&handled);
        let echo = move |body: Bytes| async move {
            counter.fetch_add(1, Ordering::Relaxed);
            body
        };
        let server = start(Router::new().route("/echo", post(echo)), options()).await;
        let stop = Arc::new(AtomicBool::new(false));
        let timing = async {
            sleep(Duration::from_millis(200)).await;
            server.trigger.advance_to(Phase::Draining);
            // As when a Service takes the pod off its list while the pod still accepts.
            sleep(Duration::from_millis(150)).await;
            stop.store(true, Ordering::Relaxed);
        };
        let ((count, failures, connections), ()) =
            tokio::join!(load(&server, http, Arc::clone(&stop)), timing);
        assert_eq!(failures, Vec::<String>::new(), "{http:?}");
        assert!(
            count > 100 && connections > 8,
            "{http:?}: {count} requests on {connections} connections"
        );
        assert_eq!(
            handled.load(Ordering::Relaxed),
            count,
            "{http:?}: each request was judged once"
        );
        assert_eq!(server.ending.await.unwrap(), Ending::Finished, "{http:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_tells_clients_to_go_elsewhere_and_finishes_what_has_begun() {
    let server = start(router(), options()).await;
    let mut client = server.client(Http::One);
    assert_eq!(
        client
            .post("/echo", "x")
            .await
            .unwrap()
            .header("connection"),
        None
    );
    server.trigger.advance_to(Phase::Draining);
    sleep(Duration::from_millis(20)).await;
    assert_eq!(
        client
            .post("/echo", "x")
            .await
            .unwrap()
            .header("connection"),
        Some("close")
    );
    let mut late = server.client(Http::One);
    assert_eq!(
        late.post("/echo", "x").await.unwrap().status,
        200,
        "still accepting"
    );

    sleep(Duration::from_millis(240)).await;
    let begun = tokio::spawn(async move { late.get("/slow").await });
    sleep(Duration::from_millis(90)).await;
    assert!(
        TcpStream::connect(server.address).await.is_err(),
        "no longer accepting"
    );
    assert_eq!(
        begun.await.unwrap().unwrap().status,
        200,
        "what had begun was finished"
    );
    assert_eq!(server.ending.await.unwrap(), Ending::Finished);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_finish_is_cut_in_the_end_and_a_second_signal_cuts_at_once() {
    let limits = ServerOptions {
        drain_delay: Duration::from_millis(10),
        drain_timeout: Duration::from_millis(100),
        ..options()
    };
    let server = start(router(), limits).await;
    let mut client = server.client(Http::One);
    let hanging = tokio::spawn(async move { client.get("/hang").await });
    sleep(Duration::from_millis(100)).await;
    assert_eq!(server.drain().await, Ending::Cut(1));
    assert!(hanging.await.unwrap().is_err());

    let server = start(
        router(),
        ServerOptions {
            drain_delay: Duration::from_mins(1),
            ..options()
        },
    )
    .await;
    let mut client = server.client(Http::Two);
    let hanging = tokio::spawn(async move { client.get("/hang").await });
    sleep(Duration::from_millis(100)).await;
    server.trigger.advance();
    server.trigger.advance();
    let ending = timeout(Duration::from_secs(1), server.ending)
        .await
        .expect("at once")
        .unwrap();
    assert_eq!(ending, Ending::Cut(1));
    assert!(hanging.await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn replacing_the_certificate_under_load_loses_no_request() {
    for http in [Http::One, Http::Two] {
        let server = start(router(), options()).await;
        let stop = Arc::new(AtomicBool::new(false));
        let timing = async {
            for _ in 0..40 {
                let fresh = leaf(&server.authority);
                server
                    .slot
                    .offer(
                        Identity::from_issued(&fresh, Timestamp::now()).unwrap(),
                        Timestamp::now(),
                    )
                    .unwrap();
                // Handshakes while certificates change.
                assert_eq!(
                    server.client(http).post("/echo", "x").await.unwrap().status,
                    200
                );
                sleep(Duration::from_millis(5)).await;
            }
            stop.store(true, Ordering::Relaxed);
        };
        let ((count, failures, connections), ()) =
            tokio::join!(load(&server, http, Arc::clone(&stop)), timing);
        assert_eq!(failures, Vec::<String>::new(), "{http:?}");
        assert!(count > 100, "{count}");
        assert_eq!(connections, 8, "no open connection was dropped");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_handshake_shows_the_new_certificate() {
    let server = start(router(), options()).await;
    let config = client_config(
        &[server.authority.certificate_pem()],
        Http::One,
        &[&rustls::version::TLS13],
    );
    let shown = async || {
        let stream = connect(server.address, config.clone()).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let before = shown().await;
    server
        .slot
        .offer(
            Identity::from_issued(&leaf(&server.authority), Timestamp::now()).unwrap(),
            Timestamp::now(),
        )
        .unwrap();
    assert_ne!(shown().await, before);
}
