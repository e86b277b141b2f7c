//! What a connection is doing, noted by its stream and its service, and judged by its watcher.
//!
//! Notes are single atomic stores on the request path; no timer is set or reset per request. The watcher looks now and
//! then and decides.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::ServerOptions;

/// What a connection is doing.
#[derive(Debug)]
pub(super) struct Activity {
    born: Instant,
    in_flight: AtomicU32,
    served: AtomicU32,
    /// How many of these have a body that has not come to its end.
    owed: AtomicU32,
    /// Since when there are such.
    owed_since: AtomicU64,
    /// When the last request ended.
    idle_since: AtomicU64,
    /// When the first byte of a request's head came; zero when none has.
    head_since: AtomicU64,
    /// When the client stopped taking what is written; zero when it takes it.
    stalled_since: AtomicU64,
    go: Notify,
}

/// What is to be done with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Nothing.
    Keep,
    /// Nothing has been asked for a long time: end it politely.
    Retire,
    /// It takes too long over something: end it.
    Cut(&'static str),
}

/// How a connection's bytes tell of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// With no request in flight, a byte that comes is the beginning of one.
    Http1,
    /// Bytes come for many reasons.
    Http2,
}

/// Counts a request as in flight until dropped.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Activity>);

/// Counts a request's body as owed until dropped.
#[derive(Debug)]
pub(super) struct Owed(Arc<Activity>);

/// A stream that notes what happens on it.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    protocol: Protocol,
    activity: Arc<Activity>,
}

// === impl Activity ===

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            born: Instant::now(),
            in_flight: AtomicU32::new(0),
            owed: AtomicU32::new(0),
            owed_since: AtomicU64::new(0),
            served: AtomicU32::new(0),
            idle_since: AtomicU64::new(0),
            head_since: AtomicU64::new(0),
            stalled_since: AtomicU64::new(0),
            go: Notify::new(),
        })
    }

    /// Milliseconds since the connection came, never zero.
    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis())
            .unwrap_or(u64::MAX)
            .saturating_add(1)
    }

    pub(super) fn begin_request(self: &Arc<Self>) -> InFlight {
        self.head_since.store(0, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    pub(super) fn owe_body(self: &Arc<Self>) -> Owed {
        if self.owed.fetch_add(1, Ordering::Relaxed) == 0 {
            self.owed_since.store(self.now(), Ordering::Relaxed);
        }
        Owed(Arc::clone(self))
    }

    /// Since when a connection with requests in flight has done nothing but owe their bodies.
    pub(super) fn owes_since(&self) -> Option<Instant> {
        let owed = self.owed.load(Ordering::Relaxed);
        let since = std::time::Duration::from_millis(self.owed_since.load(Ordering::Relaxed));
        (owed > 0 && owed >= self.in_flight.load(Ordering::Relaxed)).then(|| self.born + since)
    }

    pub(super) fn has_served(&self) -> bool {
        self.served.load(Ordering::Relaxed) > 0
    }

    pub(super) fn is_busy(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > 0
    }

    /// The moment since which nothing has been asked, for comparison among connections.
    pub(super) fn idle_from(&self) -> Instant {
        self.born + std::time::Duration::from_millis(self.idle_since.load(Ordering::Relaxed))
    }

    pub(super) fn tell_to_go(&self) {
        self.go.notify_one();
    }

    pub(super) async fn told_to_go(&self) {
        self.go.notified().await;
    }

    pub(super) fn judge(&self, options: &ServerOptions) -> Judgement {
        let now = self.now();
        let longer = |since: &AtomicU64, limit: std::time::Duration| {
            let since = since.load(Ordering::Relaxed);
            since != 0 && u128::from(now.saturating_sub(since)) > limit.as_millis()
        };
        if longer(&self.stalled_since, options.write_timeout) {
            return Judgement::Cut("the client does not take the answer");
        }
        if self.is_busy() {
            return Judgement::Keep;
        }
        if longer(&self.head_since, options.header_timeout) {
            return Judgement::Cut("the head of a request took too long");
        }
        if self.head_since.load(Ordering::Relaxed) != 0 {
            return Judgement::Keep;
        }
        let idle = now.saturating_sub(self.idle_since.load(Ordering::Relaxed));
        if u128::from(idle) > options.idle_timeout.as_millis() {
            return Judgement::Retire;
        }
        Judgement::Keep
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let activity = &self.0;
        activity.idle_since.store(activity.now(), Ordering::Relaxed);
        activity.served.fetch_add(1, Ordering::Relaxed);
        activity.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        self.0.owed.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Watched ===

impl<S> Watched<S> {
    pub(super) fn new(stream: S, protocol: Protocol, activity: Arc<Activity>) -> Self {
        Self {
            stream,
            protocol,
            activity,
        }
    }

    fn note_write<T>(&self, outcome: &Poll<T>) {
        let stalled = &self.activity.stalled_since;
        match outcome {
            Poll::Ready(_) => {
                if stalled.load(Ordering::Relaxed) != 0 {
                    stalled.store(0, Ordering::Relaxed);
                }
            }
            Poll::Pending => {
                if stalled.load(Ordering::Relaxed) == 0 {
                    stalled.store(self.activity.now(), Ordering::Relaxed);
                }
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.protocol == Protocol::Http1
            && buf.filled().len() > before
            && !self.activity.is_busy()
            && self.activity.head_since.load(Ordering::Relaxed) == 0
        {
            self.activity
                .head_since
                .store(self.activity.now(), Ordering::Relaxed);
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note_write(&outcome);
        outcome
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.note_write(&outcome);
        outcome
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.note_write(&outcome);
        outcome
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note_write(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn options() -> ServerOptions {
        ServerOptions {
            header_timeout: Duration::from_millis(20),
            idle_timeout: Duration::from_millis(60),
            write_timeout: Duration::from_millis(20),
            ..ServerOptions::default()
        }
    }

    #[tokio::test]
    async fn a_head_that_does_not_end_is_cut_and_one_that_becomes_a_request_is_not() {
        let activity = Activity::new();
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = Watched::new(server, Protocol::Http1, Arc::clone(&activity));
        client.write_all(b"POST /val").await.unwrap();
        server.read_exact(&mut [0; 9]).await.unwrap();
        assert_eq!(activity.judge(&options()), Judgement::Keep);
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert!(
            matches!(activity.judge(&options()), Judgement::Cut(reason) if reason.contains("head"))
        );

        let request = activity.begin_request();
        assert_eq!(
            activity.judge(&options()),
            Judgement::Keep,
            "a request in flight is bounded by its handler"
        );
        drop(request);
        assert_eq!(activity.judge(&options()), Judgement::Keep);
        assert!(activity.has_served());
        tokio::time::sleep(Duration::from_millis(80)).await;
        assert_eq!(activity.judge(&options()), Judgement::Retire);
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_cut_even_with_a_request_in_flight() {
        let activity = Activity::new();
        let (_client, server) = tokio::io::duplex(4);
        let mut server = Watched::new(server, Protocol::Http2, Arc::clone(&activity));
        let _request = activity.begin_request();
        let write = server.write_all(b"more than the pipe holds");
        assert!(
            tokio::time::timeout(Duration::from_millis(30), write)
                .await
                .is_err()
        );
        assert!(
            matches!(activity.judge(&options()), Judgement::Cut(reason) if reason.contains("answer"))
        );
    }
}
