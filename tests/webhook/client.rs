//! Clients of the kinds that talk to a webhook: HTTP/1.1 with keep-alive, as the API server does, and HTTP/2.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The longest that an API server waits for a webhook (`timeoutSeconds`).
const PATIENCE: Duration = Duration::from_secs(30);

/// Which HTTP a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Http {
    One,
    Two,
}

/// A client that keeps its connection and opens another one only when the server has ended it or said that it will.
pub(crate) struct Client {
    http: Http,
    address: SocketAddr,
    config: Arc<ClientConfig>,
    open: Option<Sender>,
    /// How many connections it took.
    pub(crate) connections: usize,
}

enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

/// Why no answer came.
#[derive(Debug)]
enum Failure {
    /// The request never left.
    NotBegun,
    /// Nobody knows whether it was judged.
    Lost(#[expect(dead_code, reason = "shown by the test that fails")] String),
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// A client's TLS: trusts these certificates alone.
pub(crate) fn client_config(
    authorities: &[&str],
    http: Http,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    client_config_showing(None, authorities, http, versions)
}

/// The same, with a certificate and its key (PEM) to show to servers that ask for one.
pub(crate) fn client_config_showing(
    identity: Option<(&str, &str)>,
    authorities: &[&str],
    http: Http,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for pem in authorities {
        roots
            .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
            .unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        Some((certificate, key)) => {
            let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder
                .with_client_auth_cert(vec![certificate], key)
                .unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![match http {
        Http::One => b"http/1.1".to_vec(),
        Http::Two => b"h2".to_vec(),
    }];
    // As the API server's client: each connection is a full handshake.
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// A connection with its handshake done.
pub(crate) async fn connect(
    address: SocketAddr,
    config: Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(config)
        .connect(ServerName::IpAddress(address.ip().into()), stream)
        .await
}

impl Client {
    pub(crate) fn new(address: SocketAddr, authorities: &[&str], http: Http) -> Self {
        let config = client_config(authorities, http, &[&rustls::version::TLS13]);
        Self::with(address, config, http)
    }

    /// A client with a TLS of its own.
    pub(crate) fn with(address: SocketAddr, config: Arc<ClientConfig>, http: Http) -> Self {
        Self {
            http,
            address,
            config,
            open: None,
            connections: 0,
        }
    }

    /// Sends one request. A request into a connection that turns out to be closed is a failure, as for the API server.
    /// One that was never begun, because the connection ended just before, goes to another connection (for HTTP/2 see
    /// RFC 9113, 6.8), as Go's client does.
    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        match Box::pin(self.send_once(request.clone())).await {
            Err(Failure::NotBegun) => Box::pin(self.send_once(request)).await,
            outcome => outcome,
        }
        .map_err(|failure| format!("{failure:?}"))
    }

    async fn send_once(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        let mut sender = match in_time("no place for a request", self.ready()).await? {
            Some(sender) => sender,
            None => in_time("no connection", self.connect())
                .await?
                .map_err(Failure::Lost)?,
        };
        let response = async {
            match &mut sender {
                Sender::One(sender) => sender.send_request(request).await,
                Sender::Two(sender) => sender.send_request(request).await,
            }
        };
        let response = in_time("no response", response).await?;
        let response = response.map_err(|error| match format!("{error:?}") {
            _ if error.is_canceled() => Failure::NotBegun,
            text if text.contains("GoAway(b\"\", NO_ERROR, Remote)") => Failure::NotBegun,
            text => Failure::Lost(text),
        })?;
        let answer = in_time("no end of the response", answer(response)).await?;
        let answer = answer.map_err(Failure::Lost)?;
        if answer.header("connection") != Some("close") {
            self.open = Some(sender);
        }
        Ok(answer)
    }

    /// Posts JSON.
    pub(crate) async fn post(
        &mut self,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<Answer, String> {
        self.send(post(path, body)).await
    }

    /// Gets a page.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Answer, String> {
        self.send(
            Request::get(format!("https://webhook{path}"))
                .header("host", "webhook")
                .body(Full::default())
                .unwrap(),
        )
        .await
    }

    async fn ready(&mut self) -> Option<Sender> {
        let mut sender = self.open.take()?;
        sender.is_ready().await.then_some(sender)
    }

    async fn connect(&mut self) -> Result<Sender, String> {
        self.connections += 1;
        let failed = |error: &dyn std::fmt::Debug| format!("connect: {error:?}");
        let stream = connect(self.address, Arc::clone(&self.config))
            .await
            .map_err(|error| failed(&error))?;
        let io = TokioIo::new(stream);
        Ok(match self.http {
            Http::One => {
                let (sender, connection) =
                    http1::handshake(io).await.map_err(|error| failed(&error))?;
                tokio::spawn(connection);
                Sender::One(sender)
            }
            Http::Two => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io)
                    .await
                    .map_err(|error| failed(&error))?;
                tokio::spawn(connection);
                Sender::Two(sender)
            }
        })
    }
}

impl Sender {
    async fn is_ready(&mut self) -> bool {
        match self {
            Self::One(sender) => sender.ready().await.is_ok(),
            Self::Two(sender) => sender.ready().await.is_ok(),
        }
    }
}

/// A POST of JSON, usable with either HTTP.
pub(crate) fn post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(format!("https://webhook{path}"))
        .header("host", "webhook")
        .header("content-type", "application/json")
        .body(Full::new(body.into()))
        .unwrap()
}

/// A client of an API server does not wait for ever.
async fn in_time<T>(missing: &str, future: impl Future<Output = T>) -> Result<T, Failure> {
    let waited = tokio::time::timeout(PATIENCE, future).await;
    waited.map_err(|_| Failure::Lost(format!("{missing} in {PATIENCE:?}")))
}

async fn answer(response: Response<Incoming>) -> Result<Answer, String> {
    let (head, body) = response.into_parts();
    let body = body
        .collect()
        .await
        .map_err(|error| format!("body: {error:?}"))?
        .to_bytes();
    Ok(Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body,
    })
}
