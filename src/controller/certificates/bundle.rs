//! Authorities that somebody else makes, such as cert-manager: a file of them, read again and again, which the
//! registration trusts, and whose end is told in time.

use std::convert::Infallible;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::Client;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::clock::Clock;
use super::ending::is_near;
use super::keep::Outputs;
use crate::certs::CertificateFacts;
use crate::controller::events::Certificates as What;
use crate::runtime::publish;
use crate::telemetry::certificates::Certificate;

/// How often the file is read.
const LOOK: Duration = Duration::from_secs(5);
/// The largest file, in bytes: the API server takes no configuration that is larger.
const LARGEST: u64 = 1024 * 1024;

/// A file's authorities.
struct Bundle {
    pem: Vec<u8>,
    /// The one that ends last: until then there is something to trust.
    last: CertificateFacts,
}

/// Follows the file for as long as it is polled; one that cannot be read, or holds no authority, changes nothing.
pub async fn follow(client: Client, path: PathBuf, mut outputs: Outputs) -> Result<(), Infallible> {
    let mut clock = Clock::new();
    let mut last = None;
    let mut told = None;
    loop {
        let file = path.clone();
        let read = tokio::task::spawn_blocking(move || Bundle::read(&file)).await;
        match read.unwrap_or_else(|_| Err("the reader panicked".to_owned())) {
            Ok(bundle) => {
                told = None;
                let ends = bundle.last.not_after();
                outputs.metrics.ends(Certificate::Authority, ends);
                last = Some(bundle.last);
                publish(&outputs.bundle, Some(bundle.pem));
            }
            Err(error) => {
                if told.as_ref() != Some(&error) {
                    outputs.metrics.failed();
                    tracing::warn!(path = %path.display(), %error, "authorities not read, the last good ones stay");
                    told = Some(error);
                }
            }
        }
        let now = clock.ask(&client).await;
        let near = last.as_ref().and_then(|last| near(last, now));
        if let Some(at) = outputs.ending.tell(near, Instant::now()) {
            tracing::warn!(
                path = %path.display(),
                not_after = %at,
                "the authorities end soon or have ended, and no others have come"
            );
            let note = format!(
                "The last authority that the webhook's registration trusts ends at {at}, and the file of --ca-bundle has \
                 no other. Whoever makes the webhook's certificates is to renew it."
            );
            outputs.events.certificates(What::Ending, "", note);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// When an authority ends that another should have followed long ago.
fn near(authority: &CertificateFacts, now: Timestamp) -> Option<Timestamp> {
    let until = authority.not_after();
    let whole = authority.not_before().duration_until(until);
    is_near(until, whole, now).then_some(until)
}

// === impl Bundle ===

impl Bundle {
    fn read(path: &Path) -> Result<Self, String> {
        let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
        let mut pem = Vec::new();
        let read = file.take(LARGEST + 1).read_to_end(&mut pem);
        if read.map_err(|error| error.to_string())? as u64 > LARGEST {
            return Err(format!("it is larger than {LARGEST} bytes"));
        }
        Self::of(pem)
    }

    fn of(pem: Vec<u8>) -> Result<Self, String> {
        let mut last: Option<CertificateFacts> = None;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| format!("it is no PEM: {error}"))?;
            let facts = CertificateFacts::from_der(&certificate).map_err(|e| e.to_string())?;
            if last
                .as_ref()
                .is_none_or(|last| last.not_after() < facts.not_after())
            {
                last = Some(facts);
            }
        }
        let last = last.ok_or_else(|| crate::certs::CertError::NoCertificate.to_string())?;
        Ok(Self { pem, last })
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::certs::{Authority, Names, Validity};

    fn authority(from: Timestamp, days: i64) -> String {
        let until = from + SignedDuration::from_hours(24 * days);
        let names = Names::parse(["webhook.svc"]).unwrap();
        let validity = Validity::between(from, until).unwrap();
        let made = Authority::generate("theirs", names, validity).unwrap();
        made.certificate_pem().to_owned()
    }

    #[test]
    fn what_ends_last_counts_and_its_last_seventh_is_near() {
        let start: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let days = |days: i64| start + SignedDuration::from_hours(24 * days);
        let (old, new) = (authority(start, 70), authority(days(50), 70));
        for pem in [format!("{old}{new}"), format!("{new}{old}")] {
            let bundle = Bundle::of(pem.into_bytes()).unwrap();
            assert_eq!(bundle.last.not_after(), days(120));
            assert_eq!(near(&bundle.last, days(69)), None);
        }
        let alone = Bundle::of(old.into_bytes()).unwrap().last;
        assert_eq!(near(&alone, days(60)), None);
        let last = days(60) + SignedDuration::from_secs(1);
        for now in [last, days(69), days(700)] {
            assert_eq!(near(&alone, now), Some(days(70)), "{now}");
        }
    }

    #[test]
    fn a_file_that_is_no_bundle_is_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.crt");
        let refused = |bytes: &[u8]| {
            std::fs::write(&file, bytes).unwrap();
            Bundle::read(&file).err().unwrap()
        };
        assert!(refused(b"").starts_with("no certificate found"));
        let garbage = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
        let good = authority(Timestamp::now(), 1);
        let half = format!("{good}{garbage}");
        assert!(refused(half.as_bytes()).starts_with("the certificate is not valid X.509"));
        let large = vec![b'\n'; usize::try_from(LARGEST).unwrap() + 1];
        assert_eq!(refused(&large), "it is larger than 1048576 bytes");
        std::fs::write(&file, good).unwrap();
        assert!(Bundle::read(&file).is_ok());
    }
}
