//! Clients that begin requests and do not send them: they keep nobody out.

use std::time::Duration;

use ringfence::webhook::body::BodyOptions;
use ringfence::webhook::router::{ReviewLimit, WebhookOptions};
use ringfence::webhook::server::ServerOptions;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

use crate::client::{Http, client_config, connect};
use crate::cluster::{Cluster, bytes, create, pod, timed};
use crate::support::options;

/// Connections that have each begun a review and do not send its body.
async fn without_bodies(cluster: &Cluster, count: usize) -> Vec<impl AsyncRead + Unpin> {
    let running = &cluster.running;
    let config = client_config(
        &[running.authority.certificate_pem()],
        Http::One,
        &[&rustls::version::TLS13],
    );
    let mut open = Vec::new();
    for _ in 0..count {
        let mut stream = connect(running.address, config.clone()).await.unwrap();
        let head = b"POST /validate HTTP/1.1\r\nhost: webhook\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{";
        stream.write_all(head).await.unwrap();
        open.push(stream);
    }
    // They are all being read when this returns.
    sleep(Duration::from_millis(100)).await;
    open
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_never_come_take_no_place_of_those_that_do() {
    let options_of = |reviews, body| WebhookOptions {
        reviews,
        body,
        ..WebhookOptions::default()
    };
    let two = ReviewLimit {
        in_flight: 2,
        ..ReviewLimit::default()
    };
    let review = bytes(&create(&pod("shop", "web")));
    let cluster = Cluster::start_with(options(), options_of(two, BodyOptions::default())).await;
    let _open = without_bodies(&cluster, 8).await;
    let mut client = cluster.client();
    let (answer, took) = timed(client.post("/validate", review.clone())).await;
    assert_eq!(answer.unwrap().status, 200);
    assert!(took < Duration::from_secs(1), "{took:?}");

    // There are only so many on their way, too: the first of them made room.
    let body = BodyOptions {
        at_once: 4,
        ..BodyOptions::default()
    };
    let limits = ReviewLimit::default();
    let cluster = Cluster::start_with(options(), options_of(limits, body)).await;
    let mut open = without_bodies(&cluster, 4).await;
    let mut client = cluster.client();
    assert_eq!(client.post("/validate", review).await.unwrap().status, 200);
    let mut answer = String::new();
    let first = open[0].read_to_string(&mut answer);
    let (ended, took) = timed(timeout(Duration::from_secs(2), first)).await;
    ended.expect("answered").expect("read");
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_owe_a_body_or_drip_it_do_not_keep_others_out() {
    let few = ServerOptions {
        max_connections: 4,
        ..options()
    };
    let slow = BodyOptions {
        timeout: Duration::from_mins(1),
        ..BodyOptions::default()
    };
    let cluster = Cluster::start_with(
        few,
        WebhookOptions {
            body: slow,
            ..WebhookOptions::default()
        },
    )
    .await;
    let running = &cluster.running;
    let config = client_config(
        &[running.authority.certificate_pem()],
        Http::One,
        &[&rustls::version::TLS13],
    );
    let dripping: Vec<_> = (0..8)
        .map(|_| {
            let (address, config) = (running.address, config.clone());
            tokio::spawn(async move {
                let head = b"POST /validate HTTP/1.1\r\nhost: webhook\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n{";
                // One that is sent away comes again.
                loop {
                    let Ok(mut stream) = connect(address, config.clone()).await else {
                        continue;
                    };
                    let mut sent = stream.write_all(head).await;
                    while sent.is_ok() {
                        sleep(Duration::from_millis(20)).await;
                        sent = stream.write_all(b" ").await;
                    }
                }
            })
        })
        .collect();
    sleep(Duration::from_millis(500)).await;
    let mut times = Vec::new();
    for _ in 0..5 {
        let mut client = cluster.client();
        let review = bytes(&create(&pod("shop", "web")));
        let (answer, took) = timed(client.post("/validate", review)).await;
        assert_eq!(answer.unwrap().status, 200);
        times.push(took);
    }
    for dripping in dripping {
        dripping.abort();
    }
    assert!(
        times.iter().all(|took| *took < Duration::from_secs(5)),
        "{times:?}"
    );
}
