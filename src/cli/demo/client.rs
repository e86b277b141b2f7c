//! A client as the API server is one: HTTP/1.1 over TLS, one connection kept alive, only the given authority trusted.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// One connection to the webhook.
pub(super) struct Client {
    sender: SendRequest<Full<Bytes>>,
    address: SocketAddr,
}

impl Client {
    /// Connects, trusting only this authority (PEM).
    pub(super) async fn connect(address: SocketAddr, authority: &str) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(address)
            .await
            .context("cannot connect to the webhook")?;
        stream.set_nodelay(true)?;
        let name = ServerName::IpAddress(address.ip().into());
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .context("TLS with the webhook")?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the sender; what went wrong shows in the request that it went wrong for.
        tokio::spawn(connection);
        Ok(Self { sender, address })
    }

    /// Posts a review and reads the answer.
    pub(super) async fn post(&mut self, path: &str, review: &Value) -> anyhow::Result<Value> {
        let request = Request::post(format!("{path}?timeout=10s"))
            .header("host", self.address.to_string())
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(serde_json::to_vec(review)?)))?;
        self.sender.ready().await?;
        let (head, body) = self.sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        if !head.status.is_success() {
            bail!(
                "the webhook answered {}: {}",
                head.status,
                String::from_utf8_lossy(&body)
            );
        }
        serde_json::from_slice(&body).context("the answer is not JSON")
    }
}

/// The operations of the patch in a response, where there is one.
pub(super) fn patch_of(response: &Value) -> anyhow::Result<Option<Vec<Value>>> {
    let Some(patch) = response.get("patch").and_then(Value::as_str) else {
        return Ok(None);
    };
    Ok(Some(serde_json::from_slice(&STANDARD.decode(patch)?)?))
}
