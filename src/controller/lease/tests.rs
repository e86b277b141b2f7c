//! When a Lease may be taken, without an API server; taking and losing one is tried on a real one.

use super::*;

fn election(identity: &str) -> Election {
    let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    let client = Client::try_from(config).unwrap();
    Election::new(client, "ns", "lease", identity.to_owned(), Times::default())
}

fn held_by(holder: &str, seconds: i32, renewed: &str) -> Lease {
    Lease {
        spec: Some(LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(seconds),
            renew_time: Some(MicroTime(renewed.parse().unwrap())),
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        }),
        ..Lease::default()
    }
}

#[tokio::test]
async fn a_lease_is_free_by_what_was_seen_and_never_by_the_clock_of_its_holder() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let me = election("me");
    let secs = Duration::from_secs;
    // Of long ago and of a time to come alike: only how long it did not change counts.
    for renewed in ["1999-01-01T00:00:00Z", "2099-01-01T00:00:00Z"] {
        let lease = held_by("other", 15, renewed);
        assert!(!me.is_free(&lease, secs(14)));
        assert!(me.is_free(&lease, secs(15)));
    }
    let given_back = held_by("", 1, "2026-01-01T00:00:00Z");
    assert!(me.is_free(&given_back, secs(0)));
    assert!(me.is_free(&Lease::default(), secs(0)));
    assert!(me.is_free(&held_by("me", 15, "2026-01-01T00:00:00Z"), secs(0)));
    // What another one says of its duration counts, however long.
    assert!(!me.is_free(&held_by("other", 60, "2026-01-01T00:00:00Z"), secs(59)));
}

#[tokio::test]
async fn each_change_of_hands_is_counted() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let me = election("me");
    let now = Timestamp::UNIX_EPOCH;
    assert_eq!(me.spec(None, now).lease_transitions, Some(0));
    let other = held_by("other", 15, "2026-01-01T00:00:00Z").spec;
    assert_eq!(me.spec(other.as_ref(), now).lease_transitions, Some(4));
    let mine = held_by("me", 15, "2026-01-01T00:00:00Z").spec;
    assert_eq!(me.spec(mine.as_ref(), now).lease_transitions, Some(3));
    assert_eq!(me.spec(None, now).lease_duration_seconds, Some(15));
}
