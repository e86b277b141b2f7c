//! The admin port: what a kubelet, a Prometheus and a person ask a process, over plain HTTP and apart from its work.
//!
//! `/livez` answers as long as the process runs, `/readyz` says what it waits for, `/metrics` gives the numbers. One
//! request a connection, few connections at once, each within seconds: who asks here must not be able to hold it up.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Router};
use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Phase, Readiness, Shutdown};
use crate::telemetry::metrics;

/// Connections at once; further ones wait in the listener's queue.
const CONNECTIONS: usize = 32;
/// How long one connection may take from its beginning to its end.
const CONNECTION: Duration = Duration::from_secs(10);

/// The paths of the admin port. More may be added to it.
pub fn router(readiness: Readiness, numbers: Arc<Registry>) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(async move || ready(&readiness)))
        .route("/metrics", get(async move || written(&numbers)))
        .fallback(async || {
            let text = "no such path: there are /livez, /readyz and /metrics\n";
            (StatusCode::NOT_FOUND, text)
        })
}

/// 200 when ready, else 503 and everything that stands in the way.
pub fn ready(readiness: &Readiness) -> Response {
    let reasons = readiness.reasons();
    if reasons.is_empty() {
        return "ok\n".into_response();
    }
    let text = format!("not ready\n{}\n", reasons.join("\n"));
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

fn written(numbers: &Registry) -> Response {
    match metrics::text(numbers) {
        Ok(text) => ([(CONTENT_TYPE, metrics::MEDIA_TYPE)], text).into_response(),
        Err(fmt::Error) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Listens on an address.
///
/// # Errors
///
/// What the system said.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until the process has drained: while it does, `/readyz` says so.
///
/// # Errors
///
/// None; it is a task of the process.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    mut shutdown: Shutdown,
) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            Some(_) = open.join_next() => continue,
            () = shutdown.reached(Phase::Aborting) => return Ok(()),
        };
        let Some((stream, peer, place)) = accepted else {
            continue;
        };
        let router = router.clone().layer(Extension(Peer(peer)));
        open.spawn(async move {
            let service = TowerToHyperService::new(router);
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(CONNECTION)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // Whether the other side went or was too slow is its own affair.
            let _ = timeout(CONNECTION, connection).await;
            drop(place);
        });
    }
}

type Place = tokio::sync::OwnedSemaphorePermit;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, Place)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, place)),
        Err(error) => {
            // Out of file descriptors, most likely: trying again at once would burn a core.
            tracing::warn!(%error, "admin port cannot accept");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::runtime::Trigger;

    fn numbers() -> Arc<Registry> {
        Arc::new(metrics::registry())
    }

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: here\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn it_tells_of_life_readiness_and_numbers_until_aborted() {
        let (trigger, shutdown) = Trigger::new();
        let readiness = Readiness::new(shutdown.clone());
        let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(serve(
            listener,
            router(readiness.clone(), numbers()),
            shutdown,
        ));

        assert!(ask(address, "/livez").await.starts_with("HTTP/1.1 200"));
        assert!(ask(address, "/readyz").await.ends_with("\r\n\r\nok\n"));
        let numbers = ask(address, "/metrics").await;
        assert!(numbers.contains(metrics::MEDIA_TYPE), "{numbers}");
        assert!(numbers.contains("ringfence_build_info{"), "{numbers}");
        assert!(ask(address, "/").await.contains("404"));

        readiness.wait_for("pods", "first list is not complete");
        trigger.advance();
        let answer = ask(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        let reasons = "pods: first list is not complete\nshutdown: draining\n";
        assert!(answer.ends_with(reasons), "{answer}");

        trigger.advance();
        task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn connections_that_say_nothing_keep_nobody_else_out() {
        let (_trigger, shutdown) = Trigger::new();
        let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let readiness = Readiness::new(shutdown.clone());
        let task = tokio::spawn(serve(listener, router(readiness, numbers()), shutdown));
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS - 1 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        assert!(ask(address, "/livez").await.ends_with("ok\n"));
        task.abort();
    }
}
