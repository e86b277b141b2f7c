use std::convert::Infallible;
use std::sync::Arc;
use std::sync::Mutex;

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::{Request, Response};
use kube::client::Body;
use serde_json::json;

use super::*;

/// What an API server does when it is asked for a beginning.
#[derive(Clone, Copy)]
enum Beginning {
    /// It tells one object and that this was all.
    Whole,
    /// It tells one object, and then nothing.
    Silent,
    /// It tells one object, and breaks off.
    Broken,
    /// It refuses, with this number of HTTP.
    Refused(u16),
}

type Asked = Arc<Mutex<Vec<&'static str>>>;

/// A source whose API server gives such beginnings, and what it was asked for.
fn source(beginning: Beginning) -> (Source, Asked) {
    let asked = Asked::default();
    let notes = Arc::clone(&asked);
    let service = tower::service_fn(move |request: Request<Body>| {
        let query = request.uri().query().unwrap_or_default();
        let begins = query.contains("sendInitialEvents=true");
        notes
            .lock()
            .unwrap()
            .push(if begins { "beginning" } else { "page" });
        let answer = if begins { begin(beginning) } else { page() };
        async move { Ok::<_, Infallible>(answer) }
    });
    let source = Source {
        silence: Duration::from_millis(50),
        ..Source::new(Client::new(service, "default"), Kind::Namespace)
    };
    (source, asked)
}

fn namespace(name: &str, version: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "resourceVersion": version}
    })
}

fn page() -> Response<BoxBody<Bytes, std::io::Error>> {
    let list = json!({
        "apiVersion": "v1", "kind": "NamespaceList", "metadata": {"resourceVersion": "7"},
        "items": [namespace("shop", "6")]
    });
    Response::new(whole(list.to_string()))
}

fn whole(text: String) -> BoxBody<Bytes, std::io::Error> {
    let body = Full::new(Bytes::from(text));
    body.map_err(|never| match never {}).boxed()
}

fn begin(beginning: Beginning) -> Response<BoxBody<Bytes, std::io::Error>> {
    let added = json!({"type": "ADDED", "object": namespace("shop", "6")});
    let end = json!({"type": "BOOKMARK", "object": {
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"resourceVersion": "9", "annotations": {END_OF_BEGINNING: "true"}}
    }});
    let frame = |value: &serde_json::Value| Ok(Frame::data(Bytes::from(format!("{value}\n"))));
    let told: Vec<std::io::Result<Frame<Bytes>>> = match beginning {
        Beginning::Whole => vec![frame(&added), frame(&end)],
        Beginning::Silent => vec![frame(&added)],
        Beginning::Broken => vec![frame(&added), Err(std::io::Error::other("reset"))],
        Beginning::Refused(code) => {
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
                "message": "not now", "reason": "none"
            });
            let mut answer = Response::new(whole(status.to_string()));
            *answer.status_mut() = hyper::StatusCode::from_u16(code).unwrap();
            return answer;
        }
    };
    // A connection that stays open.
    let told = futures_util::stream::iter(told).chain(futures_util::stream::pending());
    Response::new(http_body_util::BodyExt::boxed(StreamBody::new(told)))
}

/// The version that a list is of, at the so-manieth try.
async fn listed(source: &mut Source, tries: u32) -> String {
    for number in 1..tries {
        let failed = source.list().await;
        assert!(failed.is_err(), "try {number} of {tries}");
    }
    let listed = source.list().await.unwrap();
    let names: Vec<_> = listed
        .items
        .iter()
        .map(|item| item.key.name.clone())
        .collect();
    assert_eq!(names, ["shop"]);
    listed.changes.version
}

#[tokio::test]
async fn a_beginning_is_all_that_is_asked_for() {
    let (mut source, asked) = source(Beginning::Whole);
    assert_eq!(listed(&mut source, 1).await, "9");
    assert_eq!(*asked.lock().unwrap(), ["beginning"]);
}

#[tokio::test]
async fn who_gives_no_beginning_is_asked_for_pages_at_once() {
    for beginning in [
        Beginning::Refused(400),
        Beginning::Refused(405),
        Beginning::Refused(422),
        Beginning::Silent,
    ] {
        let (mut source, asked) = source(beginning);
        assert_eq!(listed(&mut source, 1).await, "7");
        assert_eq!(*asked.lock().unwrap(), ["beginning", "page"]);
    }
}

#[tokio::test]
async fn who_may_not_ask_and_what_is_not_served_is_no_matter_of_pages() {
    for code in [401, 403, 404] {
        let (mut source, asked) = source(Beginning::Refused(code));
        for _ in 0..FAILED_BEGINNINGS * 2 {
            assert!(
                source
                    .list()
                    .await
                    .is_err_and(|error| error.code() == Some(code))
            );
        }
        assert!(
            asked
                .lock()
                .unwrap()
                .iter()
                .all(|what| *what == "beginning")
        );
    }
}

#[tokio::test]
async fn who_fails_at_each_beginning_is_asked_for_pages_after_some() {
    for beginning in [
        Beginning::Refused(429),
        Beginning::Refused(500),
        Beginning::Broken,
    ] {
        let (mut source, asked) = source(beginning);
        for _ in 0..2 {
            assert_eq!(listed(&mut source, FAILED_BEGINNINGS).await, "7");
            let asked = std::mem::take(&mut *asked.lock().unwrap());
            assert_eq!(asked, ["beginning", "beginning", "beginning", "page"]);
        }
    }
}
