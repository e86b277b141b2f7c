//! Bodies that nobody sends by accident: whatever comes, the answer is a clean 200 or 400, and nothing panics.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use http_body_util::BodyExt as _;
use hyper::Request;
use proptest::prelude::*;
use ringfence::runtime::{Readiness, Trigger};
use ringfence::webhook::router::{Webhook, WebhookOptions};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::cluster::{UID, create, default_deny, delete, deployment, pod, state, update};

/// The router alone, called in process.
fn router() -> Router {
    let known = Arc::new(ArcSwap::from_pointee(state()));
    let (_trigger, shutdown) = Trigger::new();
    Webhook::new(known, Readiness::new(shutdown), WebhookOptions::default()).router()
}

/// Asks and holds the answer to what every answer must be.
async fn ask(router: &Router, path: &str, body: Vec<u8>) -> (u16, Vec<u8>) {
    let request = Request::post(path)
        .header("content-type", "application/json")
        .body(Body::from(body))
        .unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let answer = response.into_body().collect().await.unwrap().to_bytes();
    match status {
        200 => {
            let review: Value = serde_json::from_slice(&answer).expect("JSON");
            assert!(
                review["response"]["allowed"].is_boolean() && review["response"]["uid"].is_string(),
                "{review:#}"
            );
            let reason = &review["response"]["auditAnnotations"]["reason"];
            assert_ne!(reason, "an internal error", "it panicked");
            if path == "/mutate" && review["response"]["status"]["code"] != json!(400) {
                assert_eq!(review["response"]["allowed"], true, "mutating never judges");
            }
            if path == "/validate" {
                assert!(
                    review["response"].get("patch").is_none(),
                    "validating never patches"
                );
            }
        }
        400 => assert_eq!(
            std::str::from_utf8(&answer).unwrap().lines().count(),
            1,
            "one sentence"
        ),
        other => panic!("{other}: {}", String::from_utf8_lossy(&answer)),
    }
    (status, answer.to_vec())
}

fn good_reviews() -> Vec<Value> {
    let mut opened = default_deny("shop");
    opened["spec"]["egress"] = json!([{"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}], "ports": [{"port": 53, "protocol": "UDP", "endPort": 60}]}]);
    vec![
        create(&deployment("open")),
        create(&opened),
        update(&default_deny("shop"), &opened),
        update(&pod("shop", "web-1"), &pod("shop", "web-1")),
        delete(&default_deny("shop")),
    ]
}

/// Values that fit nowhere, or nearly.
fn odd() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!(true)),
        Just(json!(-1)),
        Just(json!(u64::MAX)),
        Just(json!(1e300)),
        Just(json!("")),
        Just(json!("0.0.0.0/0")),
        Just(json!("::/0")),
        Just(json!("10.0.0.0/33")),
        Just(json!("\u{0}\u{1b}[31m\u{202e}")),
        Just(json!("x".repeat(5_000))),
        Just(json!([])),
        Just(json!({})),
        Just(json!([[[[{}]]]])),
        Just(
            json!({"matchLabels": {"": ""}, "matchExpressions": [{"key": "a", "operator": "In", "values": []}]})
        ),
    ]
}

/// The place of every value of a review.
fn places(value: &Value, here: &str, all: &mut Vec<String>) {
    all.push(here.to_owned());
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                places(
                    value,
                    &format!("{here}/{}", key.replace('~', "~0").replace('/', "~1")),
                    all,
                );
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                places(value, &format!("{here}/{index}"), all);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_review_with_any_value_anywhere_has_a_clean_answer(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), odd()), 1..4),
    ) {
        let reviews = good_reviews();
        let mut review = which.get(&reviews).clone();
        for (place, value) in changes {
            let mut all = Vec::new();
            places(&review, "", &mut all);
            *review.pointer_mut(place.get::<String>(&all)).unwrap() = value;
        }
        block_on(async {
            let router = router();
            for path in ["/validate", "/mutate"] {
                ask(&router, path, serde_json::to_vec(&review).unwrap()).await;
            }
        });
    }

    #[test]
    fn a_review_with_any_bytes_anywhere_has_a_clean_answer(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        end in any::<prop::sample::Index>(),
    ) {
        let reviews = good_reviews();
        let mut body = serde_json::to_vec(which.get(&reviews)).unwrap();
        for (place, byte) in changes {
            let place = place.index(body.len());
            body[place] = byte;
        }
        if end.index(4) == 0 {
            body.truncate(end.index(body.len()));
        }
        block_on(async {
            ask(&router(), "/validate", body).await;
        });
    }
}

#[tokio::test]
async fn numbers_at_the_edges_are_read_or_refused_in_words() {
    let router = router();
    for (number, status) in [
        ("9223372036854775808", 200),
        ("-0", 200),
        ("1e308", 200),
        ("123456789012345678901234567890", 200),
        ("1e400", 400),
    ] {
        let review = create(&deployment("shop")).to_string();
        let body = review.replace(r#""app":"web""#, &format!(r#""app":"web","n":{number}"#));
        let (http, answer) = ask(&router, "/validate", body.into_bytes()).await;
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!((http, &answer["response"]["uid"]), (200, &json!(UID)));
        let code = answer["response"]["status"]["code"].as_u64().unwrap_or(200);
        // A label that is a number is not valid either way; what counts is who says so.
        assert_eq!(code == 400, status == 400, "{number}: {answer:#}");
    }
}
