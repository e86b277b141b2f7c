//! What a certificate says about itself: its names and its times, read with no trust in who made it.

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::extensions::GeneralName;
use x509_parser::x509::X509Name;

use super::{CertError, Name};

/// What a certificate says: for whom, from when, until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    not_before: Timestamp,
    not_after: Timestamp,
    names: Vec<Name>,
    permitted: Vec<Name>,
    is_authority: bool,
    subject: String,
    common_name: Option<String>,
    issuer: String,
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
        let permitted = certificate
            .name_constraints()
            .map_err(|error| unreadable(&error))?
            .and_then(|extension| extension.value.permitted_subtrees.as_ref())
            .map(|subtrees| {
                let bases = subtrees.iter().map(|subtree| &subtree.base);
                bases.filter_map(single).collect()
            })
            .unwrap_or_default();
        Ok(Self {
            permitted,
            subject: certificate.subject().to_string(),
            common_name: common_name(certificate.subject()),
            issuer: certificate.issuer().to_string(),
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

    /// The names that an authority may sign for, as it says itself; empty where it does not say.
    pub fn permitted(&self) -> &[Name] {
        &self.permitted
    }

    /// Whom it is for, as a distinguished name.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Whom it is for, as its one common name; none where there are several, since readers differ in which one they take.
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    /// The subject of the authority that signed it.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Whether it may sign others.
    pub fn is_authority(&self) -> bool {
        self.is_authority
    }
}

fn common_name(subject: &X509Name<'_>) -> Option<String> {
    let mut names = subject.iter_common_name();
    let name = names.next()?.as_str().ok()?.to_owned();
    names.next().is_none().then_some(name)
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

/// A constraint to one name alone: an address stands there with the mask that makes it one.
fn single(name: &GeneralName<'_>) -> Option<Name> {
    match name {
        GeneralName::IPAddress(bytes) => {
            let (address, mask) = bytes.split_at_checked(bytes.len() / 2)?;
            let whole = mask.iter().all(|&byte| byte == 0xff);
            whole.then(|| self::name(&GeneralName::IPAddress(address)))?
        }
        name => self::name(name),
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
