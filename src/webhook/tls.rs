//! The server's side of TLS: which versions, which certificate, and how the certificate is replaced.
//!
//! A [`CertificateSlot`] holds the certificate that the next handshake shows. Replacing it touches no open connection.
//! TLS 1.3 is the default; every supported API server speaks it.

pub mod clients;
mod files;
pub mod proof;
pub mod secret;

use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig};

use crate::certs::{CertificateFacts, Issued};

pub use clients::Clients;
pub use files::PairFiles;

/// Which versions of TLS are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum TlsVersions {
    /// TLS 1.3 alone.
    #[default]
    #[value(name = "1.3")]
    Only13,
    /// TLS 1.2 as well, for clients that cannot do better.
    #[value(name = "1.2")]
    From12,
}

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// There is no certificate in what should hold one.
    #[error("no certificate found: expected PEM with a CERTIFICATE section")]
    NoCertificate,
    /// There is no private key in what should hold one.
    #[error("no private key found: expected PEM with a PRIVATE KEY section")]
    NoKey,
    /// The key is not the certificate's.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// The certificate has ended.
    #[error("the certificate expired at {not_after}")]
    Expired {
        /// When it ended.
        not_after: Timestamp,
    },
    /// The certificate does not say what a certificate says.
    #[error("the certificate cannot be read")]
    Certificate(#[from] crate::certs::CertError),
    /// A certificate that signs nothing is no authority for clients.
    #[error("the certificate of {subject} is no authority: it may not sign others")]
    NoAuthority {
        /// Whom the certificate is for.
        subject: String,
    },
    /// The TLS library refused.
    #[error("TLS cannot be set up: {0}")]
    Library(rustls::Error),
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A certificate chain with its key, checked to belong together.
#[derive(Debug, Clone)]
pub struct Identity {
    key: Arc<CertifiedKey>,
    facts: CertificateFacts,
}

/// What the next handshake shows.
#[derive(Debug)]
pub struct CertificateSlot(ArcSwap<Identity>);

// === impl Identity ===

impl Identity {
    /// Reads a chain (leaf first) and a key from PEM, and refuses them when they do not belong together or have expired.
    pub fn from_pem(chain: &[u8], key: &[u8], now: Timestamp) -> Result<Self, TlsError> {
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .ok()
            .filter(|chain| !chain.is_empty())
            .ok_or(TlsError::NoCertificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::NoKey)?;
        let facts = CertificateFacts::from_der(chain.first().ok_or(TlsError::NoCertificate)?)?;
        if facts.not_after() <= now {
            return Err(TlsError::Expired {
                not_after: facts.not_after(),
            });
        }
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let key = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::KeyMismatch,
            other => TlsError::Library(other),
        })?;
        Ok(Self {
            key: Arc::new(key),
            facts,
        })
    }

    /// Takes a freshly signed leaf.
    pub fn from_issued(leaf: &Issued, now: Timestamp) -> Result<Self, TlsError> {
        Self::from_pem(
            leaf.certificate_pem().as_bytes(),
            leaf.key().expose().as_bytes(),
            now,
        )
    }

    /// What the leaf says.
    pub fn facts(&self) -> &CertificateFacts {
        &self.facts
    }

    fn is_same_as(&self, other: &Self) -> bool {
        self.key.cert == other.key.cert
    }
}

// === impl CertificateSlot ===

impl CertificateSlot {
    /// A slot that shows this certificate.
    pub fn new(identity: Identity) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(identity)))
    }

    /// Shows another certificate from the next handshake on; whether it is another one. One that has ended is refused,
    /// unless the one that is shown ends sooner still: then it is this machine's clock that may be wrong, and if it is
    /// right there is nothing to lose.
    pub fn offer(&self, fresh: Identity, now: Timestamp) -> Result<bool, TlsError> {
        let current = self.current();
        if fresh.is_same_as(&current) {
            return Ok(false);
        }
        let not_after = fresh.facts.not_after();
        if not_after <= now && not_after <= current.facts.not_after() {
            return Err(TlsError::Expired { not_after });
        }
        self.0.store(Arc::new(fresh));
        Ok(true)
    }

    /// The certificate shown now.
    pub fn current(&self) -> Arc<Identity> {
        self.0.load_full()
    }
}

impl ResolvesServerCert for CertificateSlot {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.load().key))
    }
}

/// The server's TLS configuration: aws-lc-rs, HTTP/2 and HTTP/1.1 by ALPN, the slot's certificate. With `clients` only
/// these are let in.
pub fn server_config(
    slot: Arc<CertificateSlot>,
    versions: TlsVersions,
    clients: Option<Arc<Clients>>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions: &[&rustls::SupportedProtocolVersion] = match versions {
        TlsVersions::Only13 => &[&rustls::version::TLS13],
        TlsVersions::From12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
    };
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(TlsError::Library)?;
    let is_for_some = clients.is_some();
    let mut config = match clients {
        Some(clients) => builder.with_client_cert_verifier(clients),
        None => builder.with_no_client_auth(),
    }
    .with_cert_resolver(slot);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // The API server resumes no sessions; one ticket serves those clients that do.
    config.send_tls13_tickets = 1;
    if is_for_some {
        // A session that is resumed is let in by what was trusted when it began.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
    }
    Ok(Arc::new(config))
}

#[cfg(test)]
pub(crate) mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::certs::{Authority, Names, Validity};

    pub(crate) fn leaf(name: &str) -> Issued {
        leaf_until(name, Timestamp::now() + SignedDuration::from_hours(1))
    }

    pub(crate) fn leaf_until(name: &str, until: Timestamp) -> Issued {
        let names = Names::parse([name]).unwrap();
        let validity = Validity::between(until - SignedDuration::from_hours(24), until).unwrap();
        Authority::generate("test", names.clone(), validity)
            .unwrap()
            .issue(&names, validity)
            .unwrap()
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (one, other) = (leaf("one.svc"), leaf("other.svc"));
        let error = Identity::from_pem(
            one.certificate_pem().as_bytes(),
            other.key().expose().as_bytes(),
            Timestamp::now(),
        )
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "the private key does not belong to the certificate"
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let leaf = leaf("one.svc");
        let (certificate, key) = (
            leaf.certificate_pem().as_bytes(),
            leaf.key().expose().as_bytes(),
        );
        let now = Timestamp::now();
        assert!(matches!(
            Identity::from_pem(key, key, now).unwrap_err(),
            TlsError::NoCertificate
        ));
        assert!(matches!(
            Identity::from_pem(b"", key, now).unwrap_err(),
            TlsError::NoCertificate
        ));
        assert!(matches!(
            Identity::from_pem(certificate, certificate, now).unwrap_err(),
            TlsError::NoKey
        ));
        assert!(matches!(
            Identity::from_pem(certificate, &key[..key.len() / 2], now).unwrap_err(),
            TlsError::NoKey
        ));
    }

    #[test]
    fn one_that_has_ended_takes_the_place_only_of_one_that_ends_sooner() {
        let now = Timestamp::now();
        let hours = SignedDuration::from_hours;
        let ending = |after: SignedDuration| {
            let leaf = leaf_until("one.svc", now + after);
            Identity::from_issued(&leaf, Timestamp::MIN).unwrap()
        };
        let slot = CertificateSlot::new(ending(hours(2)));
        let shown = || slot.current().facts().not_after();
        let same = Identity::clone(&slot.current());
        assert!(!slot.offer(same, now).unwrap());
        // Terms that are shorter now.
        assert!(slot.offer(ending(hours(1)), now).unwrap());
        let before = shown();
        let far = now + hours(48);
        let refused = slot.offer(ending(-hours(1)), now).unwrap_err();
        assert!(matches!(refused, TlsError::Expired { .. }), "{refused}");
        assert!(slot.offer(ending(hours(1) / 2), far).is_err());
        assert_eq!(shown(), before);
        assert!(slot.offer(ending(hours(3)), far).unwrap());
        assert!(shown() > before);
    }

    #[test]
    fn an_expired_certificate_is_refused_with_its_end() {
        let later = Timestamp::now() + SignedDuration::from_hours(2);
        let error = Identity::from_issued(&leaf("one.svc"), later)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("the certificate expired at 20"),
            "{error}"
        );
    }
}
