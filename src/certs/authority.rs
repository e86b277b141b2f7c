//! A certificate authority and the leaves it signs: P-256, random serials, names checked, times given by the caller.
//!
//! An authority that is made for certain names carries them as name constraints (RFC 5280, 4.2.1.10), so that its key,
//! should it leak while somebody trusts it, is of no use for any other name.

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints, PublicKeyData as _, SanType, SerialNumber,
};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::{CertError, CertificateFacts, Name, Names};

/// A private key as PKCS#8 PEM. It does not print itself; [`PrivateKey::expose`] is where it can leave.
pub struct PrivateKey(String);

/// From when until when a certificate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    from: Timestamp,
    until: Timestamp,
}

/// A certificate authority that can sign leaves.
pub struct Authority {
    common_name: String,
    certificate: String,
    facts: CertificateFacts,
    permitted: Names,
    issuer: Issuer<'static, KeyPair>,
    key: PrivateKey,
}

/// A signed leaf certificate with its key.
#[derive(Debug)]
pub struct Issued {
    certificate: String,
    facts: CertificateFacts,
    key: PrivateKey,
}

/// Clocks differ between machines, and a certificate that is not valid yet fails just like an expired one.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);

// === impl PrivateKey ===

impl PrivateKey {
    /// A key that was kept: PKCS#8 PEM.
    pub fn kept(pem: String) -> Self {
        Self(pem)
    }

    /// The PEM text. What takes it must neither log it nor write it where others can read.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKey(not shown)")
    }
}

// === impl Validity ===

impl Validity {
    /// From one moment until another.
    pub fn between(from: Timestamp, until: Timestamp) -> Result<Self, CertError> {
        if from >= until {
            return Err(CertError::EmptyValidity { from, until });
        }
        Ok(Self { from, until })
    }

    /// For this long from now, and backdated by some minutes for clocks that are behind.
    pub fn starting(now: Timestamp, length: SignedDuration) -> Result<Self, CertError> {
        let out_of_range = || CertError::TimeOutOfRange {
            from: now.to_string(),
            until: format!("{now} + {length:#}"),
        };
        let until = now.checked_add(length).map_err(|_| out_of_range())?;
        if until <= now {
            return Err(CertError::EmptyValidity { from: now, until });
        }
        Self::between(
            now.checked_sub(CLOCK_SKEW).map_err(|_| out_of_range())?,
            until,
        )
    }

    /// When it begins to hold.
    pub fn from(&self) -> Timestamp {
        self.from
    }

    /// When it ends.
    pub fn until(&self) -> Timestamp {
        self.until
    }

    fn within(self, outer: &CertificateFacts) -> Result<Self, CertError> {
        Self::between(
            self.from.max(outer.not_before()),
            self.until.min(outer.not_after()),
        )
    }
}

// === impl Authority ===

impl Authority {
    /// A new authority that may sign for these names only.
    pub fn generate(
        common_name: &str,
        permitted: Names,
        validity: Validity,
    ) -> Result<Self, CertError> {
        let key = KeyPair::generate()?;
        let mut params = params(common_name, validity)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: permitted.iter().map(subtree).collect(),
            excluded_subtrees: Vec::new(),
        });
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            common_name: common_name.to_owned(),
            certificate: certificate.pem(),
            facts: CertificateFacts::from_der(certificate.der())?,
            permitted,
            key: PrivateKey(key.serialize_pem()),
            issuer: Issuer::new(params, key),
        })
    }

    /// An authority that was made before, from its certificate and its key. It may sign for the names that its
    /// certificate says.
    pub fn load(certificate: &str, key: &str) -> Result<Self, CertError> {
        let facts = CertificateFacts::from_pem(certificate.as_bytes())?;
        let permitted = Names::of(facts.permitted().iter().cloned())?;
        let pair = KeyPair::from_pem(key)?;
        let der = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|_| CertError::NoCertificate)?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der)
            .map_err(|error| CertError::Unreadable(error.to_string()))?;
        if parsed.public_key().raw != pair.subject_public_key_info() {
            return Err(CertError::KeyMismatch);
        }
        let name = parsed.subject().iter_common_name().next();
        let name = name.and_then(|name| name.as_str().ok()).unwrap_or_default();
        Ok(Self {
            common_name: name.to_owned(),
            certificate: certificate.to_owned(),
            permitted,
            key: PrivateKey(pair.serialize_pem()),
            issuer: Issuer::from_ca_cert_der(&der, pair)?,
            facts,
        })
    }

    /// Signs a leaf for a server with a key of its own. It never outlives the authority.
    pub fn issue(&self, names: &Names, validity: Validity) -> Result<Issued, CertError> {
        if let Some(name) = names.iter().find(|name| !self.permitted.contains(name)) {
            return Err(CertError::NameNotPermitted {
                name: name.to_string(),
            });
        }
        let key = KeyPair::generate()?;
        let mut params = params(&self.leaf_name(names), validity.within(&self.facts)?)?;
        params.subject_alt_names = names
            .iter()
            .map(alternative_name)
            .collect::<Result<_, _>>()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued {
            certificate: certificate.pem(),
            facts: CertificateFacts::from_der(certificate.der())?,
            key: PrivateKey(key.serialize_pem()),
        })
    }

    /// The common name of a leaf: its first name. Never the authority's own, because a certificate whose subject is its
    /// issuer passes for self-signed, and OpenSSL then looks no further.
    fn leaf_name(&self, names: &Names) -> String {
        let first = names
            .iter()
            .next()
            .map(ToString::to_string)
            .unwrap_or_default();
        // 64 characters is the most that a common name may have (RFC 5280, appendix A).
        let name = if first.len() <= 64 {
            first
        } else {
            "server".to_owned()
        };
        if name == self.common_name {
            "ringfence server".to_owned()
        } else {
            name
        }
    }

    /// The authority's certificate as PEM: what clients must trust, the `caBundle` of a webhook registration.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    /// What the certificate says.
    pub fn facts(&self) -> &CertificateFacts {
        &self.facts
    }

    /// The key that signs.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("facts", &self.facts)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

// === impl Issued ===

impl Issued {
    /// A certificate for a client, signed by its own key: for who knows it by its bytes and needs no authority.
    pub fn client(common_name: &str, validity: Validity) -> Result<Self, CertError> {
        let key = KeyPair::generate()?;
        let mut params = params(common_name, validity)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            certificate: certificate.pem(),
            facts: CertificateFacts::from_der(certificate.der())?,
            key: PrivateKey(key.serialize_pem()),
        })
    }

    /// The leaf certificate as PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    /// What the certificate says.
    pub fn facts(&self) -> &CertificateFacts {
        &self.facts
    }

    /// The leaf's key.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// The leaf's key, for who keeps it.
    pub fn into_key(self) -> PrivateKey {
        self.key
    }
}

fn params(common_name: &str, validity: Validity) -> Result<CertificateParams, CertError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.serial_number = Some(random_serial()?);
    // The library's own type of time is reached by counting from the epoch, which needs no further dependency.
    let moment = |at: Timestamp| {
        let seconds = u64::try_from(at.as_second()).ok()?;
        rcgen::date_time_ymd(1970, 1, 1)
            .checked_add(std::time::Duration::from_secs(seconds).try_into().ok()?)
    };
    let out_of_range = || CertError::TimeOutOfRange {
        from: validity.from.to_string(),
        until: validity.until.to_string(),
    };
    params.not_before = moment(validity.from).ok_or_else(out_of_range)?;
    params.not_after = moment(validity.until).ok_or_else(out_of_range)?;
    Ok(params)
}

/// 127 random bits: a serial must be positive and at most 20 bytes (RFC 5280, 4.1.2.2), and hard to guess.
fn random_serial() -> Result<SerialNumber, CertError> {
    let mut bytes = [0_u8; 16];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| CertError::NoRandomness)?;
    let [first, ..] = &mut bytes;
    *first = *first & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn alternative_name(name: &Name) -> Result<SanType, CertError> {
    Ok(match name {
        Name::Dns(name) => SanType::DnsName(name.as_str().try_into()?),
        Name::Ip(address) => SanType::IpAddress(*address),
    })
}

fn subtree(name: &Name) -> GeneralSubtree {
    match name {
        Name::Dns(name) => GeneralSubtree::DnsName(name.clone()),
        Name::Ip(address) => GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(
            *address,
            if address.is_ipv4() { 32 } else { 128 },
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-21T12:00:00Z".parse().unwrap()
    }

    fn names() -> Names {
        Names::parse(["ringfence.ringfence-system.svc", "127.0.0.1", "::1"]).unwrap()
    }

    fn authority() -> Authority {
        Authority::generate(
            "test authority",
            names(),
            Validity::starting(now(), SignedDuration::from_hours(48)).unwrap(),
        )
        .unwrap()
    }

    #[test]
    fn a_leaf_says_what_it_was_asked_to_say() {
        let authority = authority();
        let leaf = authority
            .issue(
                &names(),
                Validity::starting(now(), SignedDuration::from_hours(24)).unwrap(),
            )
            .unwrap();
        let facts = leaf.facts();
        assert_eq!(
            facts.not_before(),
            "2026-11-21T11:55:00Z".parse().unwrap(),
            "backdated for clocks that are behind"
        );
        assert_eq!(facts.not_after(), "2026-11-22T12:00:00Z".parse().unwrap());
        assert_eq!(facts.names(), names().iter().cloned().collect::<Vec<_>>());
        assert!(!facts.is_authority());
        assert!(authority.facts().is_authority());
        assert_eq!(
            CertificateFacts::from_pem(leaf.certificate_pem().as_bytes()).unwrap(),
            *facts
        );
    }

    #[test]
    fn a_leaf_never_outlives_its_authority() {
        let leaf = authority()
            .issue(
                &names(),
                Validity::starting(now(), SignedDuration::from_hours(1000)).unwrap(),
            )
            .unwrap();
        assert_eq!(
            leaf.facts().not_after(),
            "2026-11-23T12:00:00Z".parse().unwrap()
        );
        let later: Timestamp = "2026-12-24T12:00:00Z".parse().unwrap();
        let error = authority()
            .issue(
                &names(),
                Validity::starting(later, SignedDuration::from_hours(1)).unwrap(),
            )
            .unwrap_err();
        assert!(matches!(error, CertError::EmptyValidity { .. }), "{error}");
    }

    #[test]
    fn an_authority_signs_only_for_its_names() {
        let other = Names::parse(["example.com"]).unwrap();
        let error = authority()
            .issue(
                &other,
                Validity::starting(now(), SignedDuration::from_hours(1)).unwrap(),
            )
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "this authority may not sign for example.com"
        );
    }

    #[test]
    fn the_subject_of_a_leaf_is_never_its_issuer() {
        let validity = Validity::starting(now(), SignedDuration::from_hours(1)).unwrap();
        for common_name in ["localhost", "ringfence server", "ringfence webhook"] {
            let names = Names::parse(["localhost"]).unwrap();
            let authority = Authority::generate(common_name, names.clone(), validity).unwrap();
            let leaf = authority.issue(&names, validity).unwrap();
            let der = CertificateDer::from_pem_slice(leaf.certificate_pem().as_bytes()).unwrap();
            let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
            assert_ne!(parsed.subject(), parsed.issuer(), "{common_name}");
        }
    }

    #[test]
    fn an_authority_that_was_kept_signs_as_before_and_only_with_its_own_key() {
        let made = authority();
        let kept = Authority::load(made.certificate_pem(), made.key().expose()).unwrap();
        let validity = Validity::starting(now(), SignedDuration::from_hours(1)).unwrap();
        let leaf = kept.issue(&names(), validity).unwrap();
        assert_eq!(leaf.facts().issuer(), made.facts().subject());
        assert_eq!(
            made.facts().permitted(),
            names().iter().cloned().collect::<Vec<_>>()
        );
        let other = Names::parse(["example.com"]).unwrap();
        assert!(matches!(
            kept.issue(&other, validity),
            Err(CertError::NameNotPermitted { .. })
        ));
        let stranger = authority();
        assert!(matches!(
            Authority::load(made.certificate_pem(), stranger.key().expose()),
            Err(CertError::KeyMismatch)
        ));
    }

    #[test]
    fn serials_differ_and_are_positive() {
        let serials: std::collections::BTreeSet<Vec<u8>> = (0..50)
            .map(|_| random_serial().unwrap().to_bytes())
            .collect();
        assert_eq!(serials.len(), 50);
        assert!(
            serials
                .iter()
                .all(|serial| serial.len() == 16 && serial[0] & 0x80 == 0)
        );
    }

    #[test]
    fn a_validity_without_any_moment_in_it_is_refused() {
        assert!(Validity::starting(now(), SignedDuration::ZERO).is_err());
        assert!(Validity::starting(now(), SignedDuration::from_hours(-1)).is_err());
        assert!(Validity::starting(now(), SignedDuration::MAX).is_err());
    }

    #[test]
    fn keys_are_never_printed() {
        let authority = authority();
        let leaf = authority
            .issue(
                &names(),
                Validity::starting(now(), SignedDuration::from_hours(24)).unwrap(),
            )
            .unwrap();
        let secret = leaf.key().expose().lines().nth(1).unwrap().to_owned();
        for text in [
            format!("{authority:?}"),
            format!("{leaf:?}"),
            format!("{:?}", leaf.key()),
        ] {
            assert!(
                !text.contains("PRIVATE") && !text.contains(&secret),
                "{text}"
            );
        }
    }
}
