//! A certificate and its key in two files, read again by content.
//!
//! A mounted Secret is swapped by a symlink, so no write ever happens to the file that is open: only reading it again
//! tells. Between the two files a reader may see a new certificate with an old key; such a pair is refused and the next
//! look finds them whole.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{CertificateSlot, Identity, TlsError};
use crate::k8s::one::chain;
use crate::telemetry::certificates::{Certificate, CertificateMetrics};

/// Where a certificate chain and its key are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairFiles {
    /// The chain as PEM, leaf first.
    pub certificate: PathBuf,
    /// The key as PEM.
    pub key: PathBuf,
}

const HOUR: Duration = Duration::from_hours(1);

/// The bytes of both files. Never printed.
#[derive(PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl PairFiles {
    /// Reads the pair once.
    pub fn load(&self, now: Timestamp) -> Result<Identity, TlsError> {
        self.read()?.identity(now)
    }

    /// Looks at the files again and again and puts each new good pair into the slot. A bad pair is logged once and the
    /// slot keeps what it has; it is tried again each time, since it may be this machine's clock that is wrong. Never ends by
    /// itself.
    pub async fn follow(
        self,
        slot: Arc<CertificateSlot>,
        every: Duration,
        metrics: CertificateMetrics,
    ) -> Result<(), TlsError> {
        // The last pair that was looked at, and whether it was refused.
        let mut seen: Option<(Result<Contents, String>, bool)> = None;
        let mut warned = None;
        loop {
            let files = self.clone();
            // Reading is blocking work, on a mount that may hang.
            let read = tokio::task::spawn_blocking(move || files.read()).await;
            let read = match read {
                Ok(read) => read.map_err(|error| chain(&error)),
                Err(_) => Err("the reader panicked".to_owned()),
            };
            let known = seen.as_ref().is_some_and(|(seen, _)| *seen == read);
            let refused = seen.as_ref().is_some_and(|(_, refused)| *refused);
            if !known || refused {
                let taken = self.take(&read, &slot);
                metrics.ends(Certificate::Leaf, slot.current().facts().not_after());
                let refused = taken.is_err();
                if let (Err(error), false) = (taken, known) {
                    let path = self.certificate.display();
                    metrics.failed();
                    tracing::warn!(%path, %error, "new certificate refused, the old one stays");
                }
                seen = Some((read, refused));
            }
            self.warn_of_the_end(&slot, &mut warned);
            tokio::time::sleep(every).await;
        }
    }

    /// Says every hour that nobody has renewed the certificate, once less than a tenth of its time is left.
    fn warn_of_the_end(&self, slot: &CertificateSlot, warned: &mut Option<Instant>) {
        let current = slot.current();
        let (begin, end) = (current.facts().not_before(), current.facts().not_after());
        let left = Timestamp::now().duration_until(end);
        let is_near = left < begin.duration_until(end) / 10;
        if is_near && warned.is_none_or(|at| at.elapsed() > HOUR) {
            *warned = Some(Instant::now());
            let path = self.certificate.display();
            tracing::warn!(%path, not_after = %end, "certificate ends soon or has ended, and no new one has come");
        }
    }

    fn take(&self, read: &Result<Contents, String>, slot: &CertificateSlot) -> Result<(), String> {
        let contents = read.as_ref().map_err(Clone::clone)?;
        let fresh = contents.identity(Timestamp::MIN);
        let offered = fresh.and_then(|fresh| slot.offer(fresh, Timestamp::now()));
        if offered.map_err(|error| chain(&error))? {
            let (path, end) = (
                self.certificate.display(),
                slot.current().facts().not_after(),
            );
            tracing::info!(%path, not_after = %end, "certificate replaced");
        }
        Ok(())
    }

    fn read(&self) -> Result<Contents, TlsError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| TlsError::Read {
                path: path.to_owned(),
                source,
            })
        };
        Ok(Contents {
            certificate: read(&self.certificate)?,
            key: read(&self.key)?,
        })
    }
}

impl Contents {
    fn identity(&self, now: Timestamp) -> Result<Identity, TlsError> {
        Identity::from_pem(&self.certificate, &self.key, now)
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::super::tests::{leaf, leaf_until};
    use super::*;
    use crate::certs::{Issued, Name};
    use crate::telemetry::metrics;

    const EVERY: Duration = Duration::from_millis(5);

    fn names(slot: &CertificateSlot) -> Vec<Name> {
        slot.current().facts().names().to_vec()
    }

    fn write(folder: &Path, leaf: &Issued) {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("tls.crt"), leaf.certificate_pem()).unwrap();
        std::fs::write(folder.join("tls.key"), leaf.key().expose()).unwrap();
    }

    fn pair(folder: &Path) -> PairFiles {
        PairFiles {
            certificate: folder.join("tls.crt"),
            key: folder.join("tls.key"),
        }
    }

    async fn eventually(what: &str, condition: impl Fn() -> bool) {
        for _ in 0..2_000 {
            if condition() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("never happened: {what}");
    }

    #[tokio::test]
    async fn a_mounted_secret_is_followed_when_its_symlink_is_swapped() {
        // The layout of a mounted Secret: files point to ..data/<file>, ..data points to a dated folder.
        let mount = tempfile::tempdir().unwrap();
        let mount = mount.path();
        write(&mount.join("..2026_1"), &leaf("one.svc"));
        std::os::unix::fs::symlink("..2026_1", mount.join("..data")).unwrap();
        for file in ["tls.crt", "tls.key"] {
            std::os::unix::fs::symlink(Path::new("..data").join(file), mount.join(file)).unwrap();
        }
        let slot = CertificateSlot::new(pair(mount).load(Timestamp::now()).unwrap());
        let mut numbers = metrics::registry();
        let certificates = CertificateMetrics::new(&mut numbers);
        let following = pair(mount).follow(Arc::clone(&slot), EVERY, certificates);
        let follower = tokio::spawn(following);

        write(&mount.join("..2026_2"), &leaf("two.svc"));
        std::os::unix::fs::symlink("..2026_2", mount.join("..data_tmp")).unwrap();
        std::fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
        eventually("the new certificate is shown", || {
            names(&slot) == [Name::Dns("two.svc".into())]
        })
        .await;
        let end = slot.current().facts().not_after().as_second();
        let told = format!("certificate_expiry_timestamp_seconds{{certificate=\"Leaf\"}} {end}\n");
        eventually("its end is told", || {
            metrics::text(&numbers).unwrap().contains(&told)
        })
        .await;
        follower.abort();
    }

    #[tokio::test]
    async fn a_bad_pair_keeps_the_old_one_until_a_good_one_comes() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let (one, two) = (leaf("one.svc"), leaf("two.svc"));
        write(folder, &one);
        let slot = CertificateSlot::new(pair(folder).load(Timestamp::now()).unwrap());
        let certificates = CertificateMetrics::default();
        let following = pair(folder).follow(Arc::clone(&slot), EVERY, certificates);
        let follower = tokio::spawn(following);

        std::fs::write(folder.join("tls.crt"), two.certificate_pem()).unwrap();
        tokio::time::sleep(EVERY * 10).await;
        assert_eq!(
            names(&slot),
            [Name::Dns("one.svc".into())],
            "certificate and key do not belong together"
        );
        std::fs::remove_file(folder.join("tls.key")).unwrap();
        tokio::time::sleep(EVERY * 10).await;
        assert_eq!(
            names(&slot),
            [Name::Dns("one.svc".into())],
            "the key is gone"
        );
        std::fs::write(folder.join("tls.key"), two.key().expose()).unwrap();
        eventually("the whole pair is shown", || {
            names(&slot) == [Name::Dns("two.svc".into())]
        })
        .await;
        follower.abort();
    }

    #[tokio::test]
    async fn what_is_refused_is_tried_again_since_clocks_come_right() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let now = Timestamp::now();
        let hours = SignedDuration::from_hours;
        write(folder, &leaf_until("one.svc", now - hours(1)));
        let identity = |leaf: &Issued| Identity::from_issued(leaf, Timestamp::MIN).unwrap();
        let slot = CertificateSlot::new(identity(&leaf("two.svc")));
        let mut numbers = metrics::registry();
        let certificates = CertificateMetrics::new(&mut numbers);
        let following = pair(folder).follow(Arc::clone(&slot), EVERY, certificates);
        let follower = tokio::spawn(following);
        tokio::time::sleep(EVERY * 10).await;
        assert_eq!(names(&slot), [Name::Dns("two.svc".into())]);
        let told = "ringfence_certificate_failures_total 1\n";
        assert!(metrics::text(&numbers).unwrap().contains(told));
        // No clock can be moved here, but what it is compared with.
        let sooner = leaf_until("two.svc", now - hours(2));
        slot.0.store(Arc::new(identity(&sooner)));
        eventually("it is shown", || {
            names(&slot) == [Name::Dns("one.svc".into())]
        })
        .await;
        follower.abort();
    }

    #[test]
    fn a_missing_file_is_named_with_what_the_system_said() {
        let error = pair(Path::new("/nowhere"))
            .load(Timestamp::now())
            .unwrap_err();
        assert_eq!(
            chain(&error),
            "cannot read /nowhere/tls.crt: No such file or directory (os error 2)"
        );
    }
}
