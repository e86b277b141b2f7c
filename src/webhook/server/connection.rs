//! One connection from the end of its handshake to its own end.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper::{Request, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_rustls::server::TlsStream;
use tower::Service as _;

use crate::telemetry::panic_text;

use super::activity::{Activity, Judgement, Protocol, Watched};
use super::gate::Pass;
use super::noted::Noted;
use super::{ServerOptions, Stage};

/// What every connection is served with.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) router: Router,
    pub(super) options: Arc<ServerOptions>,
    pub(super) stage: watch::Receiver<Stage>,
}

/// The router, with each request counted, its panics caught, and its answer marked on the way out.
struct Guarded {
    router: Router,
    activity: Arc<Activity>,
    stage: watch::Receiver<Stage>,
}

/// A connection that can be asked to end.
trait Ending: Future<Output = Result<(), hyper::Error>> {
    fn end_politely(self: Pin<&mut Self>);
}

// === impl Connection ===

impl Connection {
    pub(super) async fn run(self, stream: TlsStream<TcpStream>, peer: SocketAddr, pass: Pass) {
        let activity = Arc::clone(pass.activity());
        let service = Guarded {
            router: self.router.clone(),
            activity: Arc::clone(&activity),
            stage: self.stage.clone(),
        };
        // What ALPN agreed on; a client that offers nothing speaks HTTP/1.1.
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let outcome = if is_http2 {
            let io = TokioIo::new(Watched::new(stream, Protocol::Http2, Arc::clone(&activity)));
            let connection = self.http2().serve_connection(io, service);
            self.watch(connection, Protocol::Http2, &activity).await
        } else {
            let io = TokioIo::new(Watched::new(stream, Protocol::Http1, Arc::clone(&activity)));
            let connection = self.http1().serve_connection(io, service);
            self.watch(connection, Protocol::Http1, &activity).await
        };
        if let Err(reason) = outcome {
            tracing::debug!(%peer, %reason, "connection ended early");
        }
    }

    fn http1(&self) -> http1::Builder {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            // The watcher times heads; hyper's own timer would also end connections that only idle.
            .header_read_timeout(None)
            .max_headers(self.options.max_headers)
            .max_header_size(self.options.max_header_bytes as usize);
        builder
    }

    fn http2(&self) -> http2::Builder<TokioExecutor> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.options.max_streams)
            .max_header_list_size(self.options.max_header_bytes);
        builder
    }

    /// Drives a connection, looks at what it does now and then, and ends it when it should end.
    async fn watch(
        &self,
        connection: impl Ending,
        protocol: Protocol,
        activity: &Activity,
    ) -> Result<(), String> {
        let mut connection = pin!(connection);
        let mut stage = self.stage.clone();
        let mut look = interval(self.options.look_every());
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ending: Option<Instant> = None;
        loop {
            let polite = tokio::select! {
                outcome = connection.as_mut() => return outcome.map_err(|error| error.to_string()),
                _ = look.tick() => match activity.judge(&self.options) {
                    Judgement::Cut(reason) => return Err(reason.to_owned()),
                    Judgement::Retire => true,
                    Judgement::Keep => false,
                },
                () = activity.told_to_go() => {
                    if !activity.has_served() || activity.owes_since().is_some() {
                        return Err("made room: it asked for nothing, or not to the end".to_owned());
                    }
                    true
                }
                changed = stage.changed() => {
                    // The server is gone with its sender, and this task with it.
                    changed.map_err(|_| "the server is gone".to_owned())?;
                    false
                }
            };
            let leaving = match *stage.borrow() {
                Stage::Serving => false,
                // A client that came late may ask once. HTTP/1.1 is told by each answer and ends by itself.
                Stage::Leaving => protocol == Protocol::Http2 && activity.has_served(),
                Stage::Closing => true,
            };
            if (polite || leaving) && ending.is_none() {
                connection.as_mut().end_politely();
                ending = Some(Instant::now());
            }
            let patience = self.options.write_timeout;
            if !activity.is_busy() && ending.is_some_and(|since| since.elapsed() > patience) {
                return Err("the client did not end the connection".to_owned());
            }
        }
    }
}

// === impl Ending ===

impl<I> Ending for http1::Connection<TokioIo<I>, Guarded>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    fn end_politely(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I> Ending for http2::Connection<TokioIo<I>, Guarded, TokioExecutor>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    fn end_politely(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

// === impl Guarded ===

impl Service<Request<Incoming>> for Guarded {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let in_flight = self.activity.begin_request();
        let version = request.version();
        let request = request.map(|body| Noted::new(body, &self.activity));
        let answer = self.router.clone().call(request);
        let stage = self.stage.clone();
        Box::pin(async move {
            let mut response = match caught(answer).await {
                Ok(Ok(response)) => response,
                Err(panic) => {
                    tracing::error!(reason = panic_text(&*panic), "a request handler panicked");
                    (
                        StatusCode::INTERNAL_SERVER_ERROR,
                        "internal error: the request was not judged\n",
                    )
                        .into_response()
                }
            };
            // HTTP/2 has GOAWAY for this, and forbids the header (RFC 9113, 8.2.2).
            if version < Version::HTTP_2 && *stage.borrow() != Stage::Serving {
                response
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("close"));
            }
            drop(in_flight);
            Ok(response)
        })
    }
}

/// Runs a future and turns a panic in it into a value.
async fn caught<F: Future>(future: F) -> Result<F::Output, Box<dyn std::any::Any + Send>> {
    let mut future = pin!(future);
    std::future::poll_fn(move |cx| {
        // The future is dropped after a panic and never polled again.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(panic) => Poll::Ready(Err(panic)),
        }
    })
    .await
}
