//! The webhook as a service: paths, sizes, deadlines, shedding, panics, health, and the way out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use ringfence::runtime::Phase;
use ringfence::webhook::body::BodyOptions;
use ringfence::webhook::router::{OnFailure, ReviewLimit, WebhookOptions};
use ringfence::webhook::server::Ending;
use ringfence::webhook::tls::Identity;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

use crate::client::{Http, client_config, connect};
use crate::cluster::{
    Cluster, bytes, create, delete, deployment, hostile, namespace, panicking, pod, response, slow,
    timed,
};
use crate::support::{leaf, options};

/// Sends raw bytes over TLS and reads until the server ends the connection.
async fn raw(cluster: &Cluster, parts: &[&[u8]]) -> String {
    let running = &cluster.running;
    let config = client_config(
        &[running.authority.certificate_pem()],
        Http::One,
        &[&rustls::version::TLS13],
    );
    let mut stream = connect(running.address, config).await.unwrap();
    for part in parts {
        stream.write_all(part).await.unwrap();
    }
    let mut answer = Vec::new();
    drop(
        timeout(Duration::from_secs(10), stream.read_to_end(&mut answer))
            .await
            .expect("the server ends it"),
    );
    String::from_utf8_lossy(&answer).into_owned()
}

/// A Deployment with an annotation that makes its review about this long.
fn large(megabytes: usize) -> Value {
    let mut object = deployment("shop");
    object["metadata"]["annotations"] = json!({"filler": "x".repeat(megabytes << 20)});
    create(&object)
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_methods_and_content_types_have_clean_answers() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client();
    let with = |method: &str, path: &str, kind: Option<&str>| {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://webhook{path}"))
            .header("host", "webhook");
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        request
            .body(Full::new(bytes(&create(&deployment("shop")))))
            .unwrap()
    };
    let json = Some("application/json");
    for (request, status) in [
        (with("POST", "/validate", json), 200),
        (
            with("POST", "/validate", Some("Application/JSON; charset=utf-8")),
            200,
        ),
        (with("POST", "/validate", Some("text/plain")), 415),
        (
            with("POST", "/validate", Some("application/json-patch+json")),
            415,
        ),
        (with("POST", "/validate", None), 415),
        (with("GET", "/validate", json), 405),
        (with("PUT", "/mutate", json), 405),
        (with("DELETE", "/mutate", json), 405),
        (with("POST", "/", json), 404),
        (with("POST", "/validate/", json), 404),
        (with("POST", "/Validate", json), 404),
        (with("POST", "//validate", json), 404),
        (with("POST", "/livez", json), 405),
    ] {
        let what = format!(
            "{} {} {:?}",
            request.method(),
            request.uri(),
            request.headers().get("content-type")
        );
        let answer = client.send(request).await.unwrap();
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        assert_eq!(answer.header("location"), None, "never a redirect");
        if status == 405 {
            assert!(answer.header("allow").is_some(), "{what}");
        }
    }
    assert_eq!(client.connections, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_reviews_are_judged_and_larger_ones_get_413() {
    let cluster = Cluster::start().await;
    for http in [Http::One, Http::Two] {
        let mut client = cluster.running.client(http);
        let answer = client.post("/validate", bytes(&large(7))).await.unwrap();
        assert_eq!(response(&answer)["allowed"], true);
        let answer = client.post("/validate", bytes(&large(9))).await.unwrap();
        assert_eq!(
            (answer.status, answer.text()),
            (413, "the body is larger than 8388608 bytes\n")
        );
        let answer = client.post("/validate", bytes(&large(0))).await.unwrap();
        assert_eq!(answer.status, 200, "{http:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_in_chunks_is_held_to_the_same_limit() {
    let cluster = Cluster::start_with(
        options(),
        WebhookOptions {
            body: BodyOptions {
                max_bytes: 100_000,
                ..BodyOptions::default()
            },
            ..WebhookOptions::default()
        },
    )
    .await;
    let head = b"POST /validate HTTP/1.1\r\nhost: webhook\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    let chunk = [
        b"8000\r\n".as_slice(),
        "x".repeat(0x8000).as_bytes(),
        b"\r\n",
    ]
    .concat();
    let end = b"0\r\n\r\n".as_slice();
    let answer = raw(
        &cluster,
        &[head, &chunk, &chunk, &chunk, &chunk, &chunk, end],
    )
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 413 ") && answer.contains("larger than 100000 bytes"),
        "{answer}"
    );
    let answer = raw(&cluster, &[head, &chunk, end]).await;
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("not JSON"),
        "{answer}"
    );
    // A body that is announced too large and never sent is refused before it comes.
    let announced = b"POST /validate HTTP/1.1\r\nhost: webhook\r\ncontent-type: application/json\r\ncontent-length: 100001\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n";
    let (answer, took) = timed(raw(&cluster, &[announced])).await;
    assert!(
        answer.starts_with("HTTP/1.1 413 ") && took < Duration::from_secs(1),
        "{took:?} {answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_given_up() {
    let body = BodyOptions {
        timeout: Duration::from_millis(200),
        ..BodyOptions::default()
    };
    let cluster = Cluster::start_with(
        options(),
        WebhookOptions {
            body,
            ..WebhookOptions::default()
        },
    )
    .await;
    let head = b"POST /validate HTTP/1.1\r\nhost: webhook\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{";
    let (answer, took) = timed(raw(&cluster, &[head])).await;
    assert!(
        answer.starts_with("HTTP/1.1 408 ") && took < Duration::from_secs(3),
        "{took:?} {answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_comes_before_the_callers_deadline_in_the_configured_direction() {
    for (on_failure, namespace, allowed) in [
        (OnFailure::ByMode, "shop", false),
        (OnFailure::ByMode, "trial", true),
        (OnFailure::Allow, "shop", true),
        (OnFailure::Deny, "trial", false),
    ] {
        let cluster = Cluster::start_with(
            options(),
            WebhookOptions {
                on_failure,
                ..WebhookOptions::default()
            },
        )
        .await;
        // The first slow one may be computed on the spot; from then on no deadline is missed.
        cluster
            .validate(&create(&hostile(pod("shop", "first"), 200)))
            .await;
        let mut client = cluster.client();
        let object = slow(pod(namespace, "web"), 3_000);
        let asked = client.post("/validate?timeout=1s", bytes(&create(&object)));
        let (answer, took) = timed(asked).await;
        let response = response(&answer.unwrap());
        assert!(took < Duration::from_secs(1), "{took:?}");
        assert_eq!(
            response["allowed"], allowed,
            "{on_failure:?} {namespace}: {response:#}"
        );
        let told = if allowed {
            &response["warnings"][0]
        } else {
            &response["status"]["message"]
        };
        assert!(
            told.as_str().unwrap().contains("it took too long"),
            "{response:#}"
        );
        assert_eq!(response["auditAnnotations"]["reason"], "it took too long");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_never_holds_up_a_mutation_the_end_of_a_namespace_or_our_own_kinds() {
    let cluster = Cluster::start().await;
    let own = json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": "Exemption",
        "metadata": {"name": "x", "namespace": "shop"}, "spec": {}
    });
    for object in [
        delete(&panicking(namespace("shop"))),
        create(&panicking(own)),
    ] {
        assert!(cluster.allows(&object).await, "{object:#}");
    }
    let refused = cluster
        .validate(&create(&panicking(pod("shop", "web"))))
        .await;
    assert_eq!(
        (
            refused["allowed"].as_bool(),
            refused["status"]["code"].as_u64()
        ),
        (Some(false), Some(503))
    );
    assert!(
        refused["status"]["message"]
            .as_str()
            .unwrap()
            .contains("an internal error")
    );
    assert!(
        cluster
            .allows(&create(&panicking(pod("trial", "web"))))
            .await
    );
    let mutated = cluster
        .mutate(&create(&panicking(pod("shop", "web"))))
        .await;
    assert_eq!(mutated["allowed"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_policy_starves_neither_other_requests_nor_the_health_checks() {
    let cluster = Cluster::start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let hostile: Vec<_> = (0..16)
        .map(|_| {
            let (mut client, stop) = (cluster.client(), Arc::clone(&stop));
            let body = bytes(&create(&hostile(pod("trial", "slow"), 100)));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    client.post("/validate", body.clone()).await.unwrap();
                }
            })
        })
        .collect();
    sleep(Duration::from_millis(500)).await;
    let mut client = cluster.client();
    let mut times = Vec::new();
    for _ in 0..50 {
        let (answer, took) =
            timed(client.post("/validate", bytes(&create(&pod("shop", "quick"))))).await;
        assert_eq!(response(&answer.unwrap())["allowed"], true);
        let (answer, health) = timed(client.get("/livez")).await;
        assert_eq!(answer.unwrap().status, 200);
        times.push(took.max(health));
    }
    stop.store(true, Ordering::Relaxed);
    times.sort();
    // Sixteen hostile requests of 100 ms in a row would be 800 ms on two processors.
    assert!(
        times[25] < Duration::from_millis(50),
        "median {:?}, slowest {:?}",
        times[25],
        times[49]
    );
    for client in hostile {
        client.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_its_places_the_webhook_sheds_and_says_when_to_come_back() {
    let reviews = ReviewLimit {
        in_flight: 2,
        ..ReviewLimit::default()
    };
    let cluster = Cluster::start_with(
        options(),
        WebhookOptions {
            reviews,
            ..WebhookOptions::default()
        },
    )
    .await;
    cluster
        .validate(&create(&hostile(pod("trial", "first"), 200)))
        .await;
    let held: Vec<_> = (0..2)
        .map(|_| {
            let mut client = cluster.client();
            let body = bytes(&create(&slow(pod("trial", "slow"), 500)));
            tokio::spawn(async move { client.post("/validate", body).await })
        })
        .collect();
    sleep(Duration::from_millis(150)).await;
    let mut client = cluster.client();
    let (answer, took) = timed(client.post("/validate", bytes(&create(&pod("shop", "web"))))).await;
    let answer = answer.unwrap();
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (429, Some("1")),
        "{}",
        answer.text()
    );
    assert!(took < Duration::from_millis(200), "{took:?}");
    assert_eq!(
        client.get("/livez").await.unwrap().status,
        200,
        "health is not shed"
    );
    for held in held {
        assert_eq!(held.await.unwrap().unwrap().status, 200);
    }
    assert_eq!(
        client
            .post("/validate", bytes(&create(&pod("shop", "web"))))
            .await
            .unwrap()
            .status,
        200
    );
    assert_eq!(client.connections, 1, "being shed costs no handshake");
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_tells_its_reasons_and_ends_with_the_first_signal() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client();
    assert_eq!(client.get("/readyz").await.unwrap().status, 200);
    cluster
        .readiness
        .wait_for("manifests", "the folder is still being read");
    let answer = client.get("/readyz").await.unwrap();
    assert_eq!(
        (answer.status, answer.text()),
        (
            503,
            "not ready\nmanifests: the folder is still being read\n"
        )
    );
    assert_eq!(client.get("/livez").await.unwrap().status, 200);
    cluster.readiness.ready("manifests");
    assert_eq!(client.get("/readyz").await.unwrap().status, 200);
    cluster.running.trigger.advance();
    sleep(Duration::from_millis(20)).await;
    let answer = client.get("/readyz").await.unwrap();
    assert_eq!(
        (answer.status, answer.text()),
        (503, "not ready\nshutdown: draining\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_and_new_certificates_under_load_lose_no_review() {
    for http in [Http::One, Http::Two] {
        let cluster = Cluster::start().await;
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicUsize::new(0));
        let clients: Vec<_> = (0..8)
            .map(|_| {
                let (mut client, stop, count) = (
                    cluster.running.client(http),
                    Arc::clone(&stop),
                    Arc::clone(&count),
                );
                let body = bytes(&create(&deployment("shop")));
                tokio::spawn(async move {
                    let mut failures = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        match client.post("/validate?timeout=10s", body.clone()).await {
                            Ok(answer)
                                if answer.status == 200 && response(&answer)["allowed"] == true =>
                            {
                                count.fetch_add(1, Ordering::Relaxed);
                            }
                            other => failures.push(format!("{other:?}")),
                        }
                    }
                    failures
                })
            })
            .collect();
        for _ in 0..10 {
            let fresh = leaf(&cluster.running.authority);
            cluster
                .running
                .slot
                .offer(
                    Identity::from_issued(&fresh, jiff::Timestamp::now()).unwrap(),
                    jiff::Timestamp::now(),
                )
                .unwrap();
            sleep(Duration::from_millis(20)).await;
        }
        cluster.running.trigger.advance_to(Phase::Draining);
        sleep(Duration::from_millis(150)).await;
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            assert_eq!(client.await.unwrap(), Vec::<String>::new(), "{http:?}");
        }
        assert!(count.load(Ordering::Relaxed) > 50);
        assert_eq!(cluster.running.ending.await.unwrap(), Ending::Finished);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_huge_bodies_at_once_share_a_bounded_memory() {
    let body = BodyOptions {
        max_bytes: 2 << 20,
        memory: 3 << 20,
        ..BodyOptions::default()
    };
    let cluster = Cluster::start_with(
        options(),
        WebhookOptions {
            body,
            ..WebhookOptions::default()
        },
    )
    .await;
    let asked: Vec<_> = (0..12)
        .map(|_| {
            let mut client = cluster.client();
            let body: Bytes = bytes(&large(1));
            tokio::spawn(async move { client.post("/validate", body).await.unwrap().status })
        })
        .collect();
    let mut statuses = Vec::new();
    for asked in asked {
        statuses.push(asked.await.unwrap());
    }
    assert!(
        statuses.iter().all(|status| matches!(status, 200 | 429)) && statuses.contains(&200),
        "{statuses:?}"
    );
    assert_eq!(
        cluster
            .client()
            .post("/validate", bytes(&large(1)))
            .await
            .unwrap()
            .status,
        200,
        "all of it is given back"
    );
}
