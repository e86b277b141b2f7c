use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;
use crate::guard::engine::NoPolicies;
use crate::guard::reachability::ReachabilityRules;

/// A client whose every request is answered by a function of its path, after a while.
fn client(asked: Arc<AtomicU64>, answer: fn(&str) -> Option<Value>) -> Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let asked = Arc::clone(&asked);
        async move {
            asked.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(10)).await;
            let (status, body) = match answer(request.uri().path()) {
                Some(body) => (200, body),
                None => (
                    404,
                    json!({"kind": "Status", "code": 404, "status": "Failure"}),
                ),
            };
            let body = Full::new(Bytes::from(body.to_string()));
            Ok::<_, std::convert::Infallible>(
                Response::builder().status(status).body(body).unwrap(),
            )
        }
    });
    Client::new(service, "default")
}

fn shop(path: &str) -> Option<Value> {
    match path {
        "/api/v1/namespaces/shop" => Some(json!({
            "metadata": {"name": "shop", "labels": {"team": "a"}}, "kind": "Namespace", "apiVersion": "v1"
        })),
        "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies" => Some(json!({
            "kind": "NetworkPolicyList", "apiVersion": "networking.k8s.io/v1", "metadata": {},
            "items": [{"metadata": {"name": "deny", "namespace": "shop"},
                "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}}]
        })),
        _ => None,
    }
}

fn soon() -> std::time::Instant {
    std::time::Instant::now() + Duration::from_secs(30)
}

fn empty() -> State {
    State {
        snapshot: crate::netpol::Snapshot::default(),
        guardrails: Guardrails::default(),
        exemptions: Exemptions::default(),
        reachability: ReachabilityRules::default(),
        engine: Arc::new(NoPolicies),
    }
}

#[tokio::test]
async fn what_is_read_takes_the_place_of_what_was_known() {
    let reader = Reader::new(client(Arc::default(), shop), ReadLimits::default());
    let shop: NamespaceName = "shop".into();
    let mut state = empty();
    let old = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "gone", "namespace": "shop"}, "spec": {"podSelector": {}}
    });
    let old = crate::netpol::parse(&old).unwrap().unwrap().object;
    state.snapshot.insert(old);
    let fresh = reader.read(&shop, soon()).await.unwrap();
    let over = fresh.over(&state);
    let names: Vec<&str> = over
        .snapshot
        .policies()
        .map(|policy| policy.name.as_str())
        .collect();
    assert_eq!(names, ["deny"]);
    assert_eq!(over.snapshot.namespace_labels(&shop).get("team"), Some("a"));
    assert_eq!(
        state.snapshot.policies().count(),
        1,
        "the state itself is left alone"
    );
}

#[tokio::test]
async fn a_thousand_questions_share_a_few_reads_and_each_read_began_after_the_question() {
    let asked = Arc::new(AtomicU64::new(0));
    let reader = Reader::new(client(Arc::clone(&asked), shop), ReadLimits::default());
    let begun = Instant::now();
    let questions = (0..1000_u64).map(|number| {
        let reader = reader.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(number)).await;
            let before = reader.counts().0;
            let answer = reader.read(&"shop".into(), soon()).await;
            (answer.is_ok(), before, reader.counts().0)
        })
    });
    for question in questions.collect::<Vec<_>>() {
        let (answered, before, after) = question.await.unwrap();
        assert!(answered && after > before, "{before} {after}");
    }
    let reads = reader.counts().0;
    let most = begun.elapsed().as_millis() / 250 + 1;
    assert!(
        reads >= 4 && u128::from(reads) <= most,
        "{reads} of {most}, 250 ms apart"
    );
    assert_eq!(asked.load(Ordering::Relaxed), reads * 4);
}

#[tokio::test]
async fn reads_of_many_namespaces_are_bounded_too() {
    let limits = ReadLimits {
        per_second: 100,
        burst: 5,
        patience: Duration::from_millis(500),
        ..ReadLimits::default()
    };
    let reader = Reader::new(client(Arc::default(), |_| None), limits);
    let questions = (0..300).map(|number| {
        let reader = reader.clone();
        tokio::spawn(async move {
            let name = format!("n{number}");
            reader.read(&name.as_str().into(), soon()).await.err()
        })
    });
    let (mut failed, mut refused) = (0, 0);
    for question in questions.collect::<Vec<_>>() {
        match question.await.unwrap() {
            Some(ReadError::TooMany) => refused += 1,
            // Nothing is served but errors.
            Some(ReadError::Failed(_)) => failed += 1,
            other => panic!("{other:?}"),
        }
    }
    let reads = reader.counts().0;
    assert_eq!((failed + refused, reads), (300, failed));
    // What may wait for half a second, a burst, and what a busy machine lets pass in the meantime.
    assert!((50..=100).contains(&reads), "{reads}");
}

#[tokio::test]
async fn nobody_waits_past_the_deadline() {
    let reader = Reader::new(client(Arc::default(), shop), ReadLimits::default());
    let deadline = std::time::Instant::now();
    let answer = reader.read(&"shop".into(), deadline).await;
    assert_eq!(answer.err(), Some(ReadError::TooLate));
    assert!(
        reader.read(&"shop".into(), soon()).await.is_ok(),
        "who comes after it finds a way"
    );
}
