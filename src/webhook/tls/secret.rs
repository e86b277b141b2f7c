//! A certificate and its key in a Secret of the cluster, followed by the API: what the controller keeps.
//!
//! A new good pair is shown from the next handshake on, and no open connection is touched. A Secret that is gone or
//! spoilt changes nothing: the replica goes on with what it has. What is refused is tried again, since it may be this machine's
//! clock that is wrong.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use tokio::sync::watch;
use tokio::time::sleep;

use super::{CertificateSlot, Identity, TlsError};
use crate::k8s::one::Known;
use crate::telemetry::certificates::{Certificate, CertificateMetrics};

/// How long until what was refused is tried again.
pub const AGAIN: Duration = Duration::from_secs(5);

/// Waits for the first good pair.
pub async fn first(secret: &mut watch::Receiver<Known<Secret>>) -> Option<Identity> {
    let mut told = None;
    loop {
        let known = secret.borrow_and_update().clone();
        let problem = match &known {
            Known::Unknown => None,
            Known::Absent => Some("there is none yet".to_owned()),
            Known::Here(there) => match identity(there, Timestamp::now()) {
                Ok(identity) => return Some(identity),
                Err(error) => Some(error.to_string()),
            },
        };
        if problem.is_some() && problem != told {
            tracing::info!(
                reason = problem,
                "waiting for a certificate of the controller"
            );
            told = problem;
        }
        tokio::select! {
            changed = secret.changed() => changed.ok()?,
            () = sleep(AGAIN) => {}
        }
    }
}

/// Puts each new good pair into the slot, and tries again `every` so often what was refused. Never ends while the Secret is
/// followed.
pub async fn follow(
    mut secret: watch::Receiver<Known<Secret>>,
    slot: Arc<CertificateSlot>,
    every: Duration,
    metrics: CertificateMetrics,
) -> Result<(), watch::error::RecvError> {
    metrics.ends(Certificate::Leaf, slot.current().facts().not_after());
    // What was refused, and why.
    let mut refused: Option<String> = None;
    loop {
        let again = refused.is_some();
        tokio::select! {
            changed = secret.changed() => changed?,
            () = sleep(every), if again => {}
        }
        let known = secret.borrow_and_update().clone();
        let taken = match &known {
            Known::Here(there) => identity(there, Timestamp::MIN)
                .and_then(|fresh| slot.offer(fresh, Timestamp::now())),
            Known::Unknown => continue,
            Known::Absent => {
                refused = None;
                tracing::warn!("the certificates' Secret is gone, the one in use stays");
                continue;
            }
        };
        match taken {
            Ok(is_another) => {
                refused = None;
                if is_another {
                    let not_after = slot.current().facts().not_after();
                    tracing::info!(%not_after, "certificate replaced");
                    metrics.ends(Certificate::Leaf, not_after);
                }
            }
            Err(error) => {
                let error = error.to_string();
                if refused.as_ref() != Some(&error) {
                    metrics.failed();
                    tracing::warn!(%error, "new certificate refused, the old one stays");
                }
                refused = Some(error);
            }
        }
    }
}

/// What the Secret holds, unless that has ended at this moment.
fn identity(secret: &Secret, now: Timestamp) -> Result<Identity, TlsError> {
    let field = |name: &str| {
        let data = secret.data.as_ref();
        data.and_then(|data| data.get(name))
            .map_or(&[][..], |bytes| bytes.0.as_slice())
    };
    Identity::from_pem(field("tls.crt"), field("tls.key"), now)
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use k8s_openapi::ByteString;

    use super::super::tests::{leaf, leaf_until};
    use super::*;
    use crate::certs::{Issued, Name};

    fn secret(certificate: &Issued, key: &Issued) -> Known<Secret> {
        let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
        let data = [
            ("tls.crt".to_owned(), bytes(certificate.certificate_pem())),
            ("tls.key".to_owned(), bytes(key.key().expose())),
        ];
        Known::Here(Arc::new(Secret {
            data: Some(data.into()),
            ..Secret::default()
        }))
    }

    #[tokio::test]
    async fn the_first_good_pair_is_waited_for_and_a_bad_one_changes_nothing() {
        let (one, two, three) = (leaf("one.svc"), leaf("two.svc"), leaf("three.svc"));
        let (sender, mut receiver) = watch::channel(Known::Absent);
        let waiting =
            tokio::spawn(async move { first(&mut receiver).await.map(|i| (i, receiver)) });
        sender.send_replace(secret(&one, &two));
        sender.send_replace(secret(&one, &one));
        let (identity, receiver) = waiting.await.unwrap().unwrap();
        let slot = CertificateSlot::new(identity);
        let task = tokio::spawn(follow(
            receiver,
            Arc::clone(&slot),
            AGAIN,
            CertificateMetrics::default(),
        ));
        let shown = |slot: &CertificateSlot| slot.current().facts().names().to_vec();
        for bad in [secret(&two, &one), Known::Absent] {
            sender.send_replace(bad);
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            assert_eq!(shown(&slot), [Name::Dns("one.svc".into())]);
        }
        sender.send_replace(secret(&three, &three));
        while shown(&slot) != [Name::Dns("three.svc".into())] {
            tokio::task::yield_now().await;
        }
        drop(sender);
        assert!(
            task.await.unwrap().is_err(),
            "who follows it is told that it is followed no longer"
        );
    }

    #[tokio::test]
    async fn what_is_refused_is_tried_again_since_clocks_come_right() {
        let now = Timestamp::now();
        let hours = SignedDuration::from_hours;
        let ended = leaf_until("one.svc", now - hours(1));
        let identity = |leaf: &Issued| Identity::from_issued(leaf, Timestamp::MIN).unwrap();
        let slot = CertificateSlot::new(identity(&leaf("two.svc")));
        let (sender, receiver) = watch::channel(Known::Absent);
        let every = Duration::from_millis(2);
        let metrics = CertificateMetrics::default();
        let task = tokio::spawn(follow(receiver, Arc::clone(&slot), every, metrics));
        sender.send_replace(secret(&ended, &ended));
        let shown = |slot: &CertificateSlot| slot.current().facts().names().to_vec();
        for _ in 0..10 {
            sleep(every).await;
            assert_eq!(shown(&slot), [Name::Dns("two.svc".into())]);
        }
        // No clock can be moved here, but what it is compared with.
        slot.0
            .store(Arc::new(identity(&leaf_until("two.svc", now - hours(2)))));
        while shown(&slot) != [Name::Dns("one.svc".into())] {
            sleep(every).await;
        }
        task.abort();
    }
}
