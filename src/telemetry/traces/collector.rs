//! The way to a collector: one connection for each batch, by the HTTP and TLS that the rest of the program uses.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::{Uri, rt};
use hyper_util::rt::TokioIo;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::TracesError;

/// How long one batch may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most of an answer that is read.
const ANSWER: usize = 64 * 1024;

/// A collector, reached by tasks of a runtime: who sends is a thread without one.
#[derive(Debug)]
pub(super) struct Collector {
    runtime: Handle,
    /// For https.
    tls: Option<Arc<ClientConfig>>,
}

// === impl Collector ===

impl Collector {
    /// For `https` the collector's certificate is held to what the system trusts.
    pub(super) fn new(url: &str, runtime: Handle) -> Result<Self, TracesError> {
        let tls = if url.starts_with("https:") {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .and_then(BuilderVerifierExt::with_platform_verifier)
                .map_err(TracesError::Trust)?
                .with_no_client_auth();
            Some(Arc::new(config))
        } else {
            None
        };
        Ok(Self { runtime, tls })
    }
}

impl HttpClient for Collector {
    fn send_bytes<'s, 'f>(
        &'s self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'f>>
    where
        's: 'f,
        Self: 'f,
    {
        let sending = send(request, self.tls.clone());
        // The timer, too, is of the runtime.
        let sent = self
            .runtime
            .spawn(async { timeout(PATIENCE, sending).await });
        Box::pin(async move { sent.await?? })
    }
}

async fn send(
    request: Request<Bytes>,
    tls: Option<Arc<ClientConfig>>,
) -> Result<Response<Bytes>, HttpError> {
    let uri = request.uri().clone();
    let host = uri.host().ok_or("no host")?;
    // An address of IPv6 stands in brackets.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let usual = if tls.is_some() { 443 } else { 80 };
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(usual))).await?;
    match tls {
        Some(tls) => {
            let name = ServerName::try_from(host.to_owned())?;
            let stream = TlsConnector::from(tls).connect(name, stream).await?;
            exchange(TokioIo::new(stream), &uri, request).await
        }
        None => exchange(TokioIo::new(stream), &uri, request).await,
    }
}

async fn exchange(
    io: impl rt::Read + rt::Write + Send + Unpin + 'static,
    uri: &Uri,
    request: Request<Bytes>,
) -> Result<Response<Bytes>, HttpError> {
    let (mut sender, connection) = http1::handshake(io).await?;
    // It ends with the sender.
    tokio::spawn(connection);
    let (mut head, body) = request.into_parts();
    if let Some(authority) = uri.authority() {
        let host = HeaderValue::from_str(authority.as_str())?;
        head.headers.insert(HOST, host);
    }
    if let Some(path) = uri.path_and_query() {
        head.uri = Uri::from(path.clone());
    }
    let request = Request::from_parts(head, Full::new(body));
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, ANSWER).collect().await?.to_bytes();
    Ok(Response::from_parts(head, body))
}
