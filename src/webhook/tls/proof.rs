//! Proof that API servers can shake hands with this process: it dials its own port and trusts what they trust.
//!
//! A replica is not ready before the first proof, so one with a certificate that nobody trusts never takes the place of
//! one that works. After that a failure is told, by log and number, and changes readiness no more: what is wrong with the
//! bundle is wrong for every replica at once, and taking all of them out of a Service would help nobody.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingWebhookConfiguration, WebhookClientConfig,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::clients::OwnClient;
use crate::certs::host_of;
use crate::k8s::one::Known;
use crate::runtime::Readiness;
use crate::telemetry::certificates::CertificateMetrics;

/// How often a proof is given while nothing changes.
const EVERY: Duration = Duration::from_secs(10);
/// How long one handshake may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// What a process waits for.
pub const READY: &str = "certificate";

/// Whom an API server trusts, and under which name it asks.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Trust {
    bundle: Vec<u8>,
    host: String,
}

/// Gives proof after proof, with a certificate of its own where clients have to show one. Nothing is proved, and nothing
/// stands in the way, while the webhook is not registered.
pub async fn keep(
    own: SocketAddr,
    mut configuration: watch::Receiver<Known<ValidatingWebhookConfiguration>>,
    client: Option<Arc<OwnClient>>,
    readiness: Readiness,
    metrics: CertificateMetrics,
) -> Result<(), Infallible> {
    let own = dialled(own);
    let mut proved = false;
    let mut told: Option<String> = None;
    loop {
        let known = configuration.borrow_and_update().clone();
        let outcome = match &known {
            Known::Unknown => Err("the registration is not known yet".to_owned()),
            Known::Absent => Ok(()),
            Known::Here(configuration) => prove_all(own, client.as_deref(), configuration).await,
        };
        metrics.trusted(outcome.is_ok() || !known.is_known());
        match outcome {
            Ok(()) => {
                if told.take().is_some() && known.is_known() {
                    tracing::info!("the registration trusts the certificate");
                }
                proved = true;
                readiness.ready(READY);
            }
            Err(error) => {
                if !proved {
                    readiness.wait_for(READY, &*error);
                }
                if known.is_known() && told.as_ref() != Some(&error) {
                    metrics.failed();
                    tracing::warn!(%error, "the registration does not trust the certificate that is shown");
                }
                told = Some(error);
            }
        }
        // A change of what is trusted, or of what is shown, is tried within seconds.
        tokio::select! {
            changed = configuration.changed() => if changed.is_err() {
                return Ok(());
            },
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// A handshake for each way in which the entries would make one.
async fn prove_all(
    own: SocketAddr,
    client: Option<&OwnClient>,
    configuration: &ValidatingWebhookConfiguration,
) -> Result<(), String> {
    let mut trusts: Vec<Trust> = Vec::new();
    for entry in configuration.webhooks.iter().flatten() {
        let trust = Trust::of(&entry.client_config);
        if !trusts.contains(&trust) {
            trusts.push(trust);
        }
    }
    for trust in trusts {
        match timeout(PATIENCE, trust.prove(own, client)).await {
            Ok(proved) => proved?,
            Err(_) => return Err("no handshake in time".to_owned()),
        }
    }
    Ok(())
}

/// Where a process reaches itself that listens on every address.
fn dialled(own: SocketAddr) -> SocketAddr {
    let ip = match own.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, own.port())
}

// === impl Trust ===

impl Trust {
    fn of(config: &WebhookClientConfig) -> Self {
        let bundle = config.ca_bundle.as_ref().map(|bundle| bundle.0.clone());
        let host = match (&config.url, &config.service) {
            (Some(url), _) => host_of(url).to_owned(),
            (None, Some(service)) => format!("{}.{}.svc", service.name, service.namespace),
            (None, None) => String::new(),
        };
        Self {
            bundle: bundle.unwrap_or_default(),
            host,
        }
    }

    async fn prove(&self, own: SocketAddr, client: Option<&OwnClient>) -> Result<(), String> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&self.bundle) {
            let certificate = certificate.map_err(|_| "the bundle is no PEM".to_owned())?;
            roots.add(certificate).map_err(|error| error.to_string())?;
        }
        if roots.is_empty() {
            return Err("the bundle is empty".to_owned());
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots);
        let config = match client {
            Some(client) => builder
                .with_client_auth_cert(client.chain(), client.key())
                .map_err(|error| error.to_string())?,
            None => builder.with_no_client_auth(),
        };
        let name = ServerName::try_from(self.host.clone())
            .map_err(|_| format!("{:?} is no name of a server", self.host))?;
        let stream = TcpStream::connect(own)
            .await
            .map_err(|error| error.to_string())?;
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};
    use k8s_openapi::ByteString;
    use k8s_openapi::api::admissionregistration::v1::ValidatingWebhook;

    use super::super::{CertificateSlot, Identity, TlsVersions, server_config};
    use super::*;
    use crate::certs::{Authority, Names, Validity};
    use crate::runtime::Trigger;

    fn authority() -> Authority {
        let validity = Validity::starting(Timestamp::now(), SignedDuration::from_hours(1)).unwrap();
        let names = Names::parse(["webhook.ns.svc", "127.0.0.1"]).unwrap();
        Authority::generate("test", names, validity).unwrap()
    }

    fn registered(bundle: &str, url: &str) -> Known<ValidatingWebhookConfiguration> {
        Known::Here(Arc::new(ValidatingWebhookConfiguration {
            webhooks: Some(vec![ValidatingWebhook {
                client_config: WebhookClientConfig {
                    ca_bundle: Some(ByteString(bundle.as_bytes().to_vec())),
                    url: Some(url.to_owned()),
                    service: None,
                },
                ..ValidatingWebhook::default()
            }]),
            ..ValidatingWebhookConfiguration::default()
        }))
    }

    fn other() -> Authority {
        authority()
    }

    async fn until(readiness: &Readiness, what: impl Fn(&[String]) -> bool) -> Vec<String> {
        for _ in 0..2_000 {
            let reasons = readiness.reasons();
            if what(&reasons) {
                return reasons;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("never: {:?}", readiness.reasons());
    }

    #[tokio::test]
    async fn it_is_not_ready_before_a_handshake_as_api_servers_make_one_and_stays_ready_after_it() {
        let authority = authority();
        let validity = Validity::starting(Timestamp::now(), SignedDuration::from_hours(1)).unwrap();
        let names = Names::parse(["webhook.ns.svc", "127.0.0.1"]).unwrap();
        let leaf = authority.issue(&names, validity).unwrap();
        let slot = CertificateSlot::new(Identity::from_issued(&leaf, Timestamp::now()).unwrap());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap();
        let tls = server_config(slot, TlsVersions::Only13, None).unwrap();
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                drop(
                    tokio_rustls::TlsAcceptor::from(Arc::clone(&tls))
                        .accept(stream)
                        .await,
                );
            }
        });

        let (_trigger, shutdown) = Trigger::new();
        let readiness = Readiness::new(shutdown);
        let url = "https://127.0.0.1:8443/validate";
        let wrong = other();
        let (sender, receiver) = watch::channel(registered(wrong.certificate_pem(), url));
        let task = tokio::spawn(keep(
            own,
            receiver,
            None,
            readiness.clone(),
            CertificateMetrics::default(),
        ));
        let reasons = until(&readiness, |reasons| !reasons.is_empty()).await;
        assert!(
            reasons[0].starts_with("certificate: invalid peer certificate"),
            "{reasons:?}"
        );
        sender.send_replace(registered(
            authority.certificate_pem(),
            "https://10.0.0.1/validate",
        ));
        until(&readiness, |reasons| {
            reasons
                .iter()
                .any(|reason| reason.contains("not valid for name"))
        })
        .await;
        sender.send_replace(registered("", url));
        until(&readiness, |reasons| {
            reasons.iter().any(|reason| reason.contains("empty"))
        })
        .await;
        sender.send_replace(registered(authority.certificate_pem(), url));
        until(&readiness, <[String]>::is_empty).await;
        sender.send_replace(registered(wrong.certificate_pem(), url));
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_millis(2)).await;
            assert!(
                readiness.reasons().is_empty(),
                "one fault must not take all out"
            );
        }
        drop(sender);
        task.await.unwrap().unwrap();
        server.abort();
    }
}
