//! What a certificate says about itself: its names and its times, read with no trust in who made it.

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::extensions::GeneralName;

use super::{CertError, Name};

/// What a certificate says: for whom, from when, until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    not_before: Timestamp,
    not_after: Timestamp,
    names: Vec<Name>,
    is_authority: bool,
}

impl CertificateFacts {
    /// Reads the first certificate of PEM text.
    pub fn from_pem(pem: &[u8]) -> Result<Self, CertError> {
        Self::from_der(&CertificateDer::from_pem_slice(pem).map_err(|_| CertError::NoCertificate)?)
    }

    /// Reads a certificate as DER.
    pub fn from_der(der: &[u8]) -> Result<Self, CertError> {
        let unreadable = |error: &dyn std::fmt::Display| CertError::Unreadable(error.to_string());
        let (rest, certificate) =
            x509_parser::parse_x509_certificate(der).map_err(|error| unreadable(&error))?;
        if !rest.is_empty() {
            return Err(CertError::Unreadable(
                "bytes follow the certificate".to_owned(),
            ));
        }
        let moment =
            |seconds: i64| Timestamp::from_second(seconds).map_err(|error| unreadable(&error));
        let names = certificate
            .subject_alternative_name()
            .map_err(|error| unreadable(&error))?
            .map(|extension| {
                extension
                    .value
                    .general_names
                    .iter()
                    .filter_map(name)
                    .collect()
            })
            .unwrap_or_default();
        Ok(Self {
            not_before: moment(certificate.validity().not_before.timestamp())?,
            not_after: moment(certificate.validity().not_after.timestamp())?,
            names,
            is_authority: certificate.is_ca(),
        })
    }

    /// The first moment at which it holds.
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// The last moment at which it holds.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// The names it is for; names of other kinds than DNS and IP address are left out.
    pub fn names(&self) -> &[Name] {
        &self.names
    }

    /// Whether it may sign others.
    pub fn is_authority(&self) -> bool {
        self.is_authority
    }
}

fn name(name: &GeneralName<'_>) -> Option<Name> {
    match name {
        GeneralName::DNSName(name) => Some(Name::Dns((*name).to_owned())),
        GeneralName::IPAddress(bytes) => <[u8; 4]>::try_from(*bytes)
            .map(std::net::IpAddr::from)
            .or_else(|_| <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from))
            .ok()
            .map(Name::Ip),
        // Mail addresses, URIs and the like name no server.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_refused_with_a_sentence() {
        assert_eq!(
            CertificateFacts::from_pem(b"hello")
                .unwrap_err()
                .to_string(),
            "no certificate found: expected PEM with a CERTIFICATE section"
        );
        let garbage = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
        let error = CertificateFacts::from_pem(garbage.as_bytes())
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("the certificate is not valid X.509"),
            "{error}"
        );
    }
}
