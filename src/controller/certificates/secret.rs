//! The certificates as a Secret holds them, and what the webhook configurations trust, as the state machine wants it.
//!
//! `tls.crt` and `tls.key` are the leaf, `ca.crt` is the bundle, `authorities` has every authority with its key and how
//! far it has come, as JSON. What cannot be read is left out and named, never guessed.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::api::core::v1::Secret;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};

use super::{Kept, KeptAuthority, KeptLeaf, Trusted};
use crate::certs::{Authority, CertificateFacts, PrivateKey};
use crate::webhook::tls::Identity;

/// The bundle.
pub const BUNDLE: &str = "ca.crt";
/// The leaf.
pub const LEAF: &str = "tls.crt";
/// The leaf's key.
pub const KEY: &str = "tls.key";
/// The authorities with their keys.
pub const AUTHORITIES: &str = "authorities";

/// The fields of a Secret.
pub type Data = BTreeMap<String, ByteString>;

/// One authority as JSON.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Record {
    certificate: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    published: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    needed_until: Option<Timestamp>,
}

/// Reads what a Secret keeps, and says what of it is no good.
pub fn read(secret: &Secret) -> (Kept, Vec<String>) {
    let mut kept = Kept::default();
    let mut problems = Vec::new();
    let data = secret.data.clone().unwrap_or_default();
    let field = |name: &str| data.get(name).map(|bytes| bytes.0.as_slice());
    let records = field(AUTHORITIES).ok_or_else(|| "is missing".to_owned());
    // What the parser says may quote a key.
    let records = records.and_then(|bytes| {
        serde_json::from_slice::<Vec<Record>>(bytes)
            .map_err(|error| format!("is no list of authorities (line {})", error.line()))
    });
    match records {
        Ok(records) => {
            for record in records {
                match record.read() {
                    Ok(authority) => kept.authorities.push(authority),
                    Err(problem) => problems.push(format!("{AUTHORITIES}: {problem}")),
                }
            }
        }
        Err(problem) => problems.push(format!("{AUTHORITIES} {problem}")),
    }
    match leaf(field(LEAF), field(KEY)) {
        Ok(leaf) => kept.leaf = leaf,
        Err(problem) => problems.push(format!("{LEAF}: {problem}")),
    }
    (kept, problems)
}

/// What a Secret is to hold.
pub fn data(kept: &Kept) -> Result<Data, serde_json::Error> {
    let records: Vec<Record> = kept.authorities.iter().map(Record::of).collect();
    let text = |text: &str| ByteString(text.as_bytes().to_vec());
    let mut data = Data::from([
        (BUNDLE.to_owned(), text(&kept.bundle())),
        (
            AUTHORITIES.to_owned(),
            ByteString(serde_json::to_vec(&records)?),
        ),
    ]);
    if let Some(leaf) = &kept.leaf {
        data.insert(LEAF.to_owned(), text(&leaf.certificate));
        data.insert(KEY.to_owned(), text(leaf.key.expose()));
    }
    Ok(data)
}

/// What the entries of the configurations trust.
pub fn trusted(
    validating: Option<&ValidatingWebhookConfiguration>,
    mutating: Option<&MutatingWebhookConfiguration>,
) -> Trusted {
    let validating = validating.and_then(|configuration| configuration.webhooks.as_ref());
    let mutating = mutating.and_then(|configuration| configuration.webhooks.as_ref());
    let validating = validating.into_iter().flatten();
    let mutating = mutating.into_iter().flatten();
    let configs = validating.map(|entry| &entry.client_config);
    let configs = configs.chain(mutating.map(|entry| &entry.client_config));
    let bundles: Vec<BTreeSet<String>> = configs.map(bundle_of).collect();
    let Some((first, rest)) = bundles.split_first() else {
        return Trusted::NoEntries;
    };
    let by_all = first
        .iter()
        .filter(|certificate| rest.iter().all(|bundle| bundle.contains(*certificate)));
    Trusted::Entries {
        by_all: by_all.cloned().collect(),
        by_some: bundles
            .iter()
            .flatten()
            .cloned()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
    }
}

/// Each certificate of an entry's bundle as PEM of one form.
fn bundle_of(config: &WebhookClientConfig) -> BTreeSet<String> {
    let bundle = config.ca_bundle.as_ref().map(|bundle| bundle.0.as_slice());
    certificates(bundle.unwrap_or_default())
}

/// Each certificate of a bundle as PEM of one form, whatever its line ends are.
fn certificates(pem: &[u8]) -> BTreeSet<String> {
    let certificates = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
    certificates
        .map(|certificate| to_pem(&certificate))
        .collect()
}

pub(super) fn to_pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

fn leaf(certificate: Option<&[u8]>, key: Option<&[u8]>) -> Result<Option<KeptLeaf>, String> {
    let (Some(certificate), Some(key)) = (certificate, key) else {
        return Ok(None);
    };
    let text =
        |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| "is no text".to_owned());
    let (certificate, key) = (text(certificate)?, text(key)?);
    // Only whether they belong together is asked: an expired one is replaced all the same.
    Identity::from_pem(certificate.as_bytes(), key.as_bytes(), Timestamp::MIN)
        .map_err(|error| error.to_string())?;
    let facts = CertificateFacts::from_pem(certificate.as_bytes()).map_err(|e| e.to_string())?;
    Ok(Some(KeptLeaf {
        facts,
        certificate,
        key: PrivateKey::kept(key),
    }))
}

// === impl Record ===

impl Record {
    fn of(authority: &KeptAuthority) -> Self {
        let key = authority.signer.as_ref().map(Authority::key);
        Self {
            certificate: authority.certificate.clone(),
            key: key.map(|key| key.expose().to_owned()),
            published: authority.published,
            needed_until: authority.needed_until,
        }
    }

    fn read(self) -> Result<KeptAuthority, String> {
        let facts = CertificateFacts::from_pem(self.certificate.as_bytes())
            .map_err(|error| error.to_string())?;
        let signer = self
            .key
            .map(|key| Authority::load(&self.certificate, &key))
            .transpose()
            .map_err(|error| error.to_string())?;
        Ok(KeptAuthority {
            facts,
            certificate: self.certificate,
            signer,
            published: self.published,
            needed_until: self.needed_until,
        })
    }
}
