//! A certificate and its key in a Secret of the cluster, followed by the API: what the controller keeps.
//!
//! A new good pair is shown from the next handshake on, and no open connection is touched. A Secret that is gone or
//! spoilt changes nothing: the replica goes on with what it has.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use tokio::sync::watch;

use super::{CertificateSlot, Identity, TlsError};
use crate::k8s::one::Known;
use crate::telemetry::certificates::{Certificate, CertificateMetrics};

/// Waits for the first good pair.
pub async fn first(secret: &mut watch::Receiver<Known<Secret>>) -> Option<Identity> {
    let mut told = None;
    loop {
        let known = secret.borrow_and_update().clone();
        let problem = match &known {
            Known::Unknown => None,
            Known::Absent => Some("there is none yet".to_owned()),
            Known::Here(there) => match identity(there) {
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
        secret.changed().await.ok()?;
    }
}

/// Puts each new good pair into the slot. Never ends while the Secret is followed.
pub async fn follow(
    mut secret: watch::Receiver<Known<Secret>>,
    slot: Arc<CertificateSlot>,
    metrics: CertificateMetrics,
) -> Result<(), watch::error::RecvError> {
    metrics.ends(Certificate::Leaf, slot.current().facts().not_after());
    loop {
        secret.changed().await?;
        let known = secret.borrow_and_update().clone();
        let taken = match &known {
            Known::Here(there) => identity(there),
            Known::Unknown => continue,
            Known::Absent => {
                tracing::warn!("the certificates' Secret is gone, the one in use stays");
                continue;
            }
        };
        match taken {
            Ok(fresh) if fresh.is_same_as(&slot.current()) => {}
            Ok(fresh) => {
                let not_after = fresh.facts().not_after();
                tracing::info!(%not_after, "certificate replaced");
                metrics.ends(Certificate::Leaf, not_after);
                slot.replace(fresh);
            }
            Err(error) => {
                metrics.failed();
                tracing::warn!(%error, "new certificate refused, the old one stays");
            }
        }
    }
}

fn identity(secret: &Secret) -> Result<Identity, TlsError> {
    let field = |name: &str| {
        let data = secret.data.as_ref();
        data.and_then(|data| data.get(name))
            .map_or(&[][..], |bytes| bytes.0.as_slice())
    };
    Identity::from_pem(field("tls.crt"), field("tls.key"), Timestamp::now())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::super::tests::leaf;
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
}
