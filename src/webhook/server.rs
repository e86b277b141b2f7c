//! Accepts connections and guards them: the loop, its limits and its way out.
//!
//! A connection passes through the gate (how many there may be), the TLS handshake (how long it may take) and
//! HTTP/1.1 or HTTP/2 by what ALPN agreed on, watched for clients that are slow on purpose or gone. Requests go to an
//! axum router that knows nothing of all this.
//!
//! The way out, on the first signal: keep accepting for a while, because the endpoints of a Service follow a pod's end
//! only after some seconds, but tell each client to go elsewhere (`Connection: close`, GOAWAY); then accept no more and
//! finish what has begun. Abort drops everything.

mod activity;
mod connection;
mod gate;
mod noted;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::runtime::{Phase, Shutdown};

use super::tls::clients::{ClientMetrics, Refused};
use connection::Connection;
use gate::{Gate, Pass};

/// The limits of a server. Every wait has an end and every number has a bound.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How long the head of a request may take from its first byte on.
    pub header_timeout: Duration,
    /// How long a connection may stay without a request. Longer than the 90 seconds after which an API server closes it
    /// from its side, because a request sent into a closing connection is lost.
    pub idle_timeout: Duration,
    /// How long a client may refuse to take an answer.
    pub write_timeout: Duration,
    /// The largest head of a request, in bytes.
    pub max_header_bytes: u32,
    /// The most header fields of an HTTP/1.1 request.
    pub max_headers: usize,
    /// The most requests at once on one HTTP/2 connection.
    pub max_streams: u32,
    /// The most connections; beyond it the one that is least use makes room, such as one that owes the body of a request.
    pub max_connections: usize,
    /// How long new connections are still accepted after the order to drain.
    pub drain_delay: Duration,
    /// How long what has begun may take to finish after that.
    pub drain_timeout: Duration,
    /// Where it is counted who was sent away in the handshake.
    pub clients: ClientMetrics,
}

/// Why a server cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Everything that had begun was finished.
    Finished,
    /// This many connections were cut.
    Cut(usize),
}

/// What connections have to know of the way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Serving,
    /// Tell clients to go elsewhere; new ones may still come.
    Leaving,
    /// No more requests.
    Closing,
}

// === impl ServerOptions ===

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(5),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_mins(2),
            write_timeout: Duration::from_secs(10),
            max_header_bytes: 32 * 1024,
            max_headers: 64,
            max_streams: 128,
            max_connections: 1024,
            drain_delay: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(20),
            clients: ClientMetrics::default(),
        }
    }
}

impl ServerOptions {
    /// How often a connection is looked at: often enough for the shortest of its limits.
    fn look_every(&self) -> Duration {
        let shortest = self
            .header_timeout
            .min(self.idle_timeout)
            .min(self.write_timeout);
        (shortest / 4).clamp(Duration::from_millis(5), Duration::from_secs(1))
    }
}

/// Listens on an address, with a queue long enough for a burst of handshakes.
pub fn listen(address: SocketAddr) -> Result<TcpListener, ServerError> {
    let listen = || {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        // A restart must not wait for the old process's connections to be forgotten.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(1024)
    };
    listen().map_err(|source| ServerError::Listen { address, source })
}

/// Serves until told to stop, and says how it ended.
pub async fn run(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    router: Router,
    options: ServerOptions,
    shutdown: Shutdown,
) -> Ending {
    let (stage, watcher) = watch::channel(Stage::Serving);
    let gate = Gate::new(options.max_connections);
    let mut server = Server {
        acceptor: TlsAcceptor::from(tls),
        connection: Connection {
            router,
            options: Arc::new(options.clone()),
            stage: watcher,
        },
        gate,
        open: JoinSet::new(),
    };
    let mut aborting = shutdown.clone();
    tokio::select! {
        ending = server.serve_and_drain(listener, &options, shutdown, stage) => ending,
        () = aborting.reached(Phase::Aborting) => {
            let cut = server.open.len();
            server.open.shutdown().await;
            if cut == 0 { Ending::Finished } else { Ending::Cut(cut) }
        }
    }
}

struct Server {
    acceptor: TlsAcceptor,
    connection: Connection,
    gate: Arc<Gate>,
    open: JoinSet<()>,
}

impl Server {
    async fn serve_and_drain(
        &mut self,
        listener: TcpListener,
        options: &ServerOptions,
        mut shutdown: Shutdown,
        stage: watch::Sender<Stage>,
    ) -> Ending {
        tokio::select! {
            never = self.accept(&listener) => match never {},
            () = shutdown.reached(Phase::Draining) => {}
        }
        stage.send_replace(Stage::Leaving);
        tracing::info!(
            connections = self.open.len(),
            "no longer ready, still accepting"
        );
        tokio::select! {
            never = self.accept(&listener) => match never {},
            () = sleep(options.drain_delay) => {}
        }
        drop(listener);
        stage.send_replace(Stage::Closing);
        let begun = Instant::now();
        let finished = timeout(options.drain_timeout, async {
            while self.open.join_next().await.is_some() {}
        })
        .await;
        if finished.is_ok() {
            tracing::info!(seconds = begun.elapsed().as_secs_f64(), "drained");
            return Ending::Finished;
        }
        let cut = self.open.len();
        tracing::warn!(
            connections = cut,
            "connections cut: they did not finish in time"
        );
        self.open.shutdown().await;
        Ending::Cut(cut)
    }

    async fn accept(&mut self, listener: &TcpListener) -> std::convert::Infallible {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                // Ended connections are taken off the list; a panic in one is its own end only.
                Some(ended) = self.open.join_next() => {
                    if let Err(error) = ended && error.is_panic() {
                        tracing::error!(%error, "connection task panicked");
                    }
                    continue;
                }
            };
            match accepted {
                Ok((stream, peer)) => {
                    let pass = self.gate.admit().await;
                    self.open.spawn(serve(
                        stream,
                        peer,
                        pass,
                        self.acceptor.clone(),
                        self.connection.clone(),
                    ));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    // Without file descriptors left, trying again at once would only burn the processor.
                    if !is_about_one_connection(&error) {
                        sleep(Duration::from_millis(50)).await;
                    }
                }
            }
        }
    }
}

/// Some errors of accept tell of a connection that ended before it was accepted.
fn is_about_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
    )
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    pass: Pass,
    acceptor: TlsAcceptor,
    connection: Connection,
) {
    // Without it small answers wait for the client's delayed acknowledgement: 40 milliseconds.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "cannot set TCP_NODELAY");
        return;
    }
    let handshake = timeout(
        connection.options.handshake_timeout,
        acceptor.accept(stream).into_fallible(),
    );
    let stream = tokio::select! {
        shaken = handshake => match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err((error, stream))) => {
                tracing::debug!(%peer, %error, "TLS handshake failed");
                if let Some(reason) = Refused::of(&error) {
                    connection.options.clients.refused(reason, peer);
                    see_off(stream).await;
                }
                return;
            }
            Err(_) => return tracing::debug!(%peer, "TLS handshake took too long"),
        },
        () = pass.activity().told_to_go() => return tracing::debug!(%peer, "made room during the handshake"),
    };
    connection.run(stream, peer, pass).await;
}

/// Gives a client the time to read why it was sent away. It has mostly sent its request already, and closing upon what was
/// not read would take the reason back from its hands.
async fn see_off(mut stream: TcpStream) {
    let read_out = async {
        if stream.shutdown().await.is_err() {
            return;
        }
        let mut left = [0; 1024];
        for _ in 0..64 {
            match stream.read(&mut left).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    };
    // A client that does not go by then is cut.
    let _ = timeout(Duration::from_secs(1), read_out).await;
}
