//! Which clients are let in, where that is demanded: those with a certificate that an authority of a file has signed, and
//! this process itself.
//!
//! TLS knows no paths, so all paths of the port are closed to everybody else. The file is read again by content, as a
//! mounted Secret is swapped by a symlink; what cannot be used leaves the authorities as they are. Connections that are
//! open stay so.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
};

use super::TlsError;
use crate::certs::{CertificateFacts, Issued, Name, Validity};
use crate::k8s::one::chain;
use crate::telemetry::LogBudget;

/// Which clients are let in.
#[derive(Debug)]
pub struct Clients {
    trusted: ArcSwap<Trusted>,
    /// Empty: whoever an authority has signed for.
    names: Vec<String>,
    own: Arc<OwnClient>,
}

/// A certificate by which this process is let in to itself: nobody signed it, it is known by its bytes. Its key never
/// leaves the process.
#[derive(Debug)]
pub struct OwnClient {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

/// Why a client was sent away in its handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Refused {
    /// It showed no certificate.
    NoCertificate,
    /// No authority that is trusted has signed it, or it does not hold now, or it is not for clients.
    NotTrusted,
    /// It is for none of the names that are let in.
    NotNamed,
}

/// How many clients were sent away. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ClientMetrics {
    refused: Family<Why, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    reason: Refused,
}

/// The authorities of a file.
#[derive(Debug)]
struct Trusted {
    pem: Vec<u8>,
    verifier: Arc<dyn ClientCertVerifier>,
}

/// It lives for a process, and no process lives so long.
const OWN_VALIDITY: SignedDuration = SignedDuration::from_hours(24 * 365 * 10);
/// Anybody who can connect can cause these.
static REFUSED: LogBudget = LogBudget::new(1);

// === impl Clients ===

impl Clients {
    /// Lets in whom one of these authorities (PEM) has signed for, and of these only such with one of the names, if there
    /// are any: a DNS name among the alternative ones, or the common name.
    pub fn new(authorities: Vec<u8>, names: Vec<String>) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self {
            trusted: ArcSwap::from_pointee(Trusted::new(authorities)?),
            names,
            own: Arc::new(OwnClient::generate()?),
        }))
    }

    /// The authorities of a file.
    pub fn load(path: &std::path::Path, names: Vec<String>) -> Result<Arc<Self>, TlsError> {
        Self::new(read(path)?, names)
    }

    /// What this process shows to itself.
    pub fn own(&self) -> Arc<OwnClient> {
        Arc::clone(&self.own)
    }

    /// Trusts other authorities from the next handshake on.
    pub fn replace(&self, authorities: Vec<u8>) -> Result<(), TlsError> {
        self.trusted.store(Arc::new(Trusted::new(authorities)?));
        Ok(())
    }

    /// Looks at the file again and again and takes up what is new. What cannot be used is told once. Never ends by itself.
    pub async fn follow(
        self: Arc<Self>,
        path: PathBuf,
        every: Duration,
    ) -> Result<(), tokio::task::JoinError> {
        let mut told = None;
        loop {
            tokio::time::sleep(every).await;
            let from = path.clone();
            // Reading is blocking work, on a mount that may hang.
            let taken = match tokio::task::spawn_blocking(move || read(&from)).await? {
                Ok(pem) if pem == self.trusted.load().pem => Ok(false),
                Ok(pem) => self.replace(pem).map(|()| true),
                Err(error) => Err(error),
            };
            let path = path.display();
            match taken {
                Ok(is_new) => {
                    told = None;
                    if is_new {
                        tracing::info!(%path, "authorities of clients replaced");
                    }
                }
                Err(error) => {
                    let error = chain(&error);
                    if told.as_ref() != Some(&error) {
                        tracing::warn!(%path, error, "new authorities of clients refused, the old ones stay");
                        told = Some(error);
                    }
                }
            }
        }
    }

    fn is_named(&self, facts: &CertificateFacts) -> bool {
        self.names.is_empty()
            || self.names.iter().any(|name| {
                let is_dns =
                    |of: &Name| matches!(of, Name::Dns(of) if of.eq_ignore_ascii_case(name));
                facts.common_name() == Some(name) || facts.names().iter().any(is_dns)
            })
    }
}

impl ClientCertVerifier for Clients {
    /// None: they could not follow the file, and a client with one certificate shows it anyway.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        if *end_entity == self.own.certificate {
            return Ok(ClientCertVerified::assertion());
        }
        let trusted = self.trusted.load();
        let verified = trusted
            .verifier
            .verify_client_cert(end_entity, intermediates, now)?;
        let facts = CertificateFacts::from_der(end_entity)
            .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        if self.is_named(&facts) {
            return Ok(verified);
        }
        tracing::debug!(subject = facts.subject(), "a client of another name");
        Err(rustls::Error::InvalidCertificate(
            CertificateError::ApplicationVerificationFailure,
        ))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let trusted = self.trusted.load();
        trusted.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let trusted = self.trusted.load();
        trusted.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trusted.load().verifier.supported_verify_schemes()
    }
}

fn read(path: &std::path::Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}

// === impl OwnClient ===

impl OwnClient {
    fn generate() -> Result<Self, TlsError> {
        let validity = Validity::starting(Timestamp::now(), OWN_VALIDITY)?;
        let issued = Issued::client("ringfence webhook", validity)?;
        let certificate = CertificateDer::from_pem_slice(issued.certificate_pem().as_bytes());
        let key = PrivateKeyDer::from_pem_slice(issued.key().expose().as_bytes());
        Ok(Self {
            certificate: certificate.map_err(|_| TlsError::NoCertificate)?,
            key: key.map_err(|_| TlsError::NoKey)?,
        })
    }

    /// The certificate.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.clone()]
    }

    /// Its key.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }
}

// === impl Trusted ===

impl Trusted {
    fn new(pem: Vec<u8>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|_| TlsError::NoCertificate)?;
            let facts = CertificateFacts::from_der(&certificate)?;
            if !facts.is_authority() {
                return Err(TlsError::NoAuthority {
                    subject: facts.subject().to_owned(),
                });
            }
            roots.add(certificate).map_err(TlsError::Library)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            // Without revocation lists only an empty set of authorities is refused.
            .map_err(|_| TlsError::NoCertificate)?;
        Ok(Self { pem, verifier })
    }
}

// === impl Refused ===

impl Refused {
    /// The reason, where a handshake failed because of the client's certificate.
    pub fn of(error: &std::io::Error) -> Option<Self> {
        let error: &rustls::Error = error.get_ref()?.downcast_ref()?;
        match error {
            rustls::Error::NoCertificatesPresented => Some(Self::NoCertificate),
            rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure) => {
                Some(Self::NotNamed)
            }
            // A server verifies no certificates but those of clients.
            rustls::Error::InvalidCertificate(_) => Some(Self::NotTrusted),
            _ => None,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::NoCertificate => "no certificate was shown",
            Self::NotTrusted => "the certificate is not trusted",
            Self::NotNamed => "the certificate is for another name",
        }
    }
}

// === impl ClientMetrics ===

impl ClientMetrics {
    /// Adds them to what is told.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("webhook");
        registry.register(
            "clients_refused",
            "Clients that were sent away in the handshake for their certificate, by reason",
            self.refused.clone(),
        );
    }

    /// Counts and logs one.
    pub(in crate::webhook) fn refused(&self, reason: Refused, peer: SocketAddr) {
        self.refused.get_or_create(&Why { reason }).inc();
        if let Some(left_out) = REFUSED.spend() {
            tracing::warn!(%peer, reason = reason.words(), left_out, "client refused");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::tests::leaf;
    use super::*;

    const EVERY: Duration = Duration::from_millis(5);

    /// An authority for clients.
    fn authority(name: &str) -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params.self_signed(&key).unwrap().pem()
    }

    #[test]
    fn what_is_no_authority_is_refused_with_its_subject() {
        let error = Clients::new(leaf("one.svc").certificate_pem().into(), Vec::new());
        assert_eq!(
            error.unwrap_err().to_string(),
            "the certificate of CN=one.svc is no authority: it may not sign others"
        );
        for nothing in [&b""[..], b"text"] {
            assert!(matches!(
                Clients::new(nothing.to_vec(), Vec::new()).unwrap_err(),
                TlsError::NoCertificate
            ));
        }
    }

    #[tokio::test]
    async fn a_mounted_file_is_followed_when_its_symlink_is_swapped_and_nonsense_changes_nothing() {
        let mount = tempfile::tempdir().unwrap();
        let mount = mount.path();
        let put = |dated: &str, pem: &str| {
            std::fs::create_dir(mount.join(dated)).unwrap();
            std::fs::write(mount.join(dated).join("ca.crt"), pem).unwrap();
            std::os::unix::fs::symlink(dated, mount.join("..data_tmp")).unwrap();
            std::fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
        };
        let (one, two) = (authority("one"), authority("two"));
        put("..2026_1", &one);
        let path = mount.join("ca.crt");
        std::os::unix::fs::symlink(Path::new("..data/ca.crt"), &path).unwrap();
        let clients = Clients::load(&path, Vec::new()).unwrap();
        let follower = tokio::spawn(Arc::clone(&clients).follow(path, EVERY));
        let trusts = |pem: &str| clients.trusted.load().pem == pem.as_bytes();

        put("..2026_2", "nonsense");
        tokio::time::sleep(EVERY * 10).await;
        assert!(trusts(&one));
        put("..2026_3", &(one.clone() + &two));
        let begun = std::time::Instant::now();
        while !trusts(&(one.clone() + &two)) {
            assert!(begun.elapsed() < Duration::from_secs(10), "not taken up");
            tokio::time::sleep(EVERY).await;
        }
        follower.abort();
    }

    #[test]
    fn names_are_common_names_as_they_are_and_dns_names_in_any_case() {
        let facts = |pem: &str| CertificateFacts::from_pem(pem.as_bytes()).unwrap();
        let one = facts(leaf("One.svc").certificate_pem());
        let validity = Validity::starting(Timestamp::now(), SignedDuration::from_hours(1)).unwrap();
        let server = Issued::client("system:apiserver", validity).unwrap();
        let server = facts(server.certificate_pem());
        let named =
            |name: &str| Clients::new(authority("x").into(), vec![name.to_owned()]).unwrap();
        assert!(named("ONE.svc").is_named(&one) && !named("ne.svc").is_named(&one));
        assert!(named("system:apiserver").is_named(&server));
        assert!(!named("System:apiserver").is_named(&server));
        assert!(!named("").is_named(&server));
    }
}
