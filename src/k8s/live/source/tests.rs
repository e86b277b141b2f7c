use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

/// What an API server does when it is asked for a beginning.
#[derive(Clone, Copy)]
pub(in crate::k8s::live) enum Beginning {
    /// It tells one object and that this was all.
    Whole,
    /// The same, and then that it has forgotten what was before.
    Forgotten,
    /// The same, and then breaks off. Who asks for what is new is answered, or not.
    Lost { resumes: bool },
    /// It tells one object, and then nothing.
    Silent,
    /// It tells one object, and ends.
    Ended,
    /// It tells one object, and breaks off.
    Broken(std::io::ErrorKind),
    /// It refuses, with this number of HTTP.
    Refused(u16),
    /// It does not answer.
    Nothing,
}

/// What an API server was asked for.
pub(in crate::k8s::live) type Asked = Arc<Mutex<Vec<&'static str>>>;

type Answer = Response<BoxBody<Bytes, std::io::Error>>;

/// A client whose API server gives such beginnings, and what that was asked for.
pub(in crate::k8s::live) fn client(beginning: Beginning) -> (Client, Asked) {
    let asked = Asked::default();
    let notes = Arc::clone(&asked);
    let service = tower::service_fn(move |request: Request<Body>| {
        let query = request.uri().query().unwrap_or_default();
        let begins = query.contains("sendInitialEvents=true");
        let goes_on = !begins && query.contains("watch=true");
        let what = match (begins, goes_on) {
            (true, _) => "beginning",
            (false, true) => "watch",
            (false, false) => "page",
        };
        notes.lock().unwrap().push(what);
        let answer = match beginning {
            _ if begins => begin(beginning),
            Beginning::Lost { resumes } if goes_on => resumes.then(|| open(Vec::new())),
            _ => Some(page()),
        };
        match answer {
            Some(answer) => std::future::ready(Ok::<_, Infallible>(answer)).left_future(),
            None => std::future::pending().right_future(),
        }
    });
    (Client::new(service, "default"), asked)
}

fn source(beginning: Beginning) -> (Source, Asked) {
    let (client, asked) = client(beginning);
    let brief = Duration::from_millis(50);
    let source = Source {
        patience: Patience {
            answer: brief,
            beginning: brief,
        },
        ..Source::new(client, Kind::Namespace)
    };
    (source, asked)
}

fn namespace(name: &str, version: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "resourceVersion": version}
    })
}

fn status(code: u16) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "no",
        "reason": "none"
    })
}

fn page() -> Answer {
    let list = json!({
        "apiVersion": "v1", "kind": "NamespaceList", "metadata": {"resourceVersion": "7"},
        "items": [namespace("shop", "6")]
    });
    Response::new(whole(&list))
}

fn whole(value: &Value) -> BoxBody<Bytes, std::io::Error> {
    let body = Full::new(Bytes::from(value.to_string()));
    body.map_err(|never| match never {}).boxed()
}

fn begin(beginning: Beginning) -> Option<Answer> {
    let added = json!({"type": "ADDED", "object": namespace("shop", "6")});
    let end = json!({"type": "BOOKMARK", "object": {
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"resourceVersion": "9", "annotations": {END_OF_BEGINNING: "true"}}
    }});
    let gone = json!({"type": "ERROR", "object": status(410)});
    let frame = |value: &Value| Ok(Frame::data(Bytes::from(format!("{value}\n"))));
    let told: Vec<std::io::Result<Frame<Bytes>>> = match beginning {
        Beginning::Whole => vec![frame(&added), frame(&end)],
        Beginning::Forgotten => vec![frame(&added), frame(&end), frame(&gone)],
        Beginning::Lost { .. } => vec![
            frame(&added),
            frame(&end),
            Err(std::io::ErrorKind::ConnectionReset.into()),
        ],
        Beginning::Silent | Beginning::Ended => vec![frame(&added)],
        Beginning::Broken(kind) => vec![frame(&added), Err(kind.into())],
        Beginning::Refused(code) => {
            let mut answer = Response::new(whole(&status(code)));
            *answer.status_mut() = hyper::StatusCode::from_u16(code).unwrap();
            return Some(answer);
        }
        Beginning::Nothing => return None,
    };
    Some(match beginning {
        Beginning::Ended => streamed(futures_util::stream::iter(told)),
        _ => open(told),
    })
}

/// An answer over a connection that stays open.
fn open(told: Vec<std::io::Result<Frame<Bytes>>>) -> Answer {
    streamed(futures_util::stream::iter(told).chain(futures_util::stream::pending()))
}

fn streamed(
    told: impl Stream<Item = std::io::Result<Frame<Bytes>>> + Send + Sync + 'static,
) -> Answer {
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
async fn who_fails_at_each_beginning_is_asked_for_pages_after_some() {
    for beginning in [
        Beginning::Refused(500),
        Beginning::Ended,
        Beginning::Broken(std::io::ErrorKind::ConnectionReset),
        Beginning::Broken(std::io::ErrorKind::UnexpectedEof),
        Beginning::Nothing,
    ] {
        let (mut source, asked) = source(beginning);
        for _ in 0..2 {
            assert_eq!(listed(&mut source, FAILED_BEGINNINGS).await, "7");
            let asked = std::mem::take(&mut *asked.lock().unwrap());
            assert_eq!(asked, ["beginning", "beginning", "beginning", "page"]);
        }
    }
}

#[tokio::test]
async fn what_a_page_would_be_refused_for_as_well_is_no_matter_of_pages() {
    for code in [401, 403, 404, 429] {
        let (mut source, asked) = source(Beginning::Refused(code));
        for _ in 0..FAILED_BEGINNINGS * 2 {
            let listed = source.list().await;
            assert!(listed.is_err_and(|failure| failure.code() == Some(code)));
        }
        let asked = asked.lock().unwrap();
        assert!(asked.iter().all(|what| *what == "beginning"));
    }
}
