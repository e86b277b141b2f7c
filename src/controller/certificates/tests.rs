//! The life of certificates with time as an argument: a world of API servers that trust what they were told last, and a
//! webhook that shows what is kept.

use super::*;
use crate::controller::certificates::secret;
use k8s_openapi::api::core::v1::Secret;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;

fn terms() -> Terms {
    Terms {
        names: Names::parse(["webhook.svc"]).unwrap(),
        leaf: SignedDuration::from_hours(24),
        authority: SignedDuration::from_hours(24 * 9),
        hold: SignedDuration::from_mins(5),
    }
}

fn start() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

/// Entries that trust a bundle.
fn entries(bundle: &str) -> Trusted {
    let certificates: Vec<String> = CertificateDer::pem_slice_iter(bundle.as_bytes())
        .map(|der| secret::to_pem(&der.unwrap()))
        .collect();
    Trusted::Entries {
        by_all: certificates.clone(),
        by_some: certificates,
    }
}

/// Whether an API server whose clock is right, and that trusts this bundle, would shake hands.
fn shakes(leaf: &KeptLeaf, bundle: &str, now: Timestamp) -> bool {
    let mut roots = RootCertStore::empty();
    for der in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(der.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let Ok(verifier) = verifier else {
        return false;
    };
    let der = CertificateDer::from_pem_slice(leaf.certificate.as_bytes()).unwrap();
    let seconds = u64::try_from(now.as_second()).unwrap();
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    let name = ServerName::try_from("webhook.svc").unwrap();
    verifier
        .verify_server_cert(&der, &[], &name, &[], at)
        .is_ok()
}

/// The cluster around the controller.
struct World {
    now: Timestamp,
    kept: Kept,
    /// What API servers trust, and since when; one may be this much behind.
    registered: Option<String>,
    before: Vec<(Timestamp, String)>,
}

const LAG: SignedDuration = SignedDuration::from_mins(4);

impl World {
    fn new() -> Self {
        let mut world = Self {
            now: start(),
            kept: Kept::default(),
            registered: None,
            before: Vec::new(),
        };
        world.step();
        world.register();
        world
    }

    fn trusted(&self) -> Trusted {
        self.registered
            .as_deref()
            .map_or(Trusted::NoEntries, entries)
    }

    fn step(&mut self) -> Step {
        let trusted = self.trusted();
        self.kept.step(&trusted, &terms(), self.now).unwrap()
    }

    fn register(&mut self) {
        let bundle = self.kept.bundle();
        if self.registered.as_ref() != Some(&bundle) {
            self.before.push((self.now, bundle.clone()));
            self.registered = Some(bundle);
        }
    }

    /// Whether every API server, the one that lags too, shakes hands at this moment.
    fn all_shake(&self) -> bool {
        let leaf = self.kept.leaf.as_ref().unwrap();
        let lagging = self.now - LAG;
        let number = self.before.iter().rposition(|(at, _)| *at <= lagging);
        let first = number.unwrap_or(0);
        self.before[first..]
            .iter()
            .all(|(_, bundle)| shakes(leaf, bundle, self.now))
    }
}

fn signed(step: &Step) -> bool {
    step.done
        .iter()
        .any(|done| matches!(done, Done::Signed { .. }))
}

#[test]
fn the_first_authority_signs_at_once_because_nobody_asks_the_webhook_yet() {
    let mut kept = Kept::default();
    let step = kept.step(&Trusted::NoEntries, &terms(), start()).unwrap();
    assert!(signed(&step), "{:?}", step.done);
    let leaf = kept.leaf.as_ref().unwrap();
    assert!(shakes(leaf, &kept.bundle(), start()));
    assert_eq!(leaf.facts.not_after(), start() + terms().leaf);
    let step = kept.step(&Trusted::NoEntries, &terms(), start()).unwrap();
    assert_eq!(step.done, [], "nothing more is to be done at that moment");
    assert!(step.again > start() && step.again <= start() + terms().leaf);
}

#[test]
fn through_many_rotations_every_api_server_shakes_hands_at_every_moment() {
    let mut world = World::new();
    let (mut leaves, mut made, mut dropped) = (0, 0, 0);
    let mut most = 0;
    let end = start() + SignedDuration::from_hours(24 * 40);
    let mut quiet = start();
    while world.now < end {
        // Closely while something changes, by the hour while nothing does.
        let busy = world.now < quiet;
        world.now += SignedDuration::from_mins(if busy { 2 } else { 60 });
        let step = world.step();
        assert!(world.all_shake(), "{}: {:?}", world.now, step.done);
        world.register();
        assert!(world.all_shake(), "{}: {:?}", world.now, step.done);
        if !step.done.is_empty() {
            quiet = world.now + SignedDuration::from_mins(20);
        }
        for done in step.done {
            match done {
                Done::Signed { .. } => leaves += 1,
                Done::Made { .. } => made += 1,
                Done::Dropped => dropped += 1,
                Done::Published | Done::Adopted => {}
            }
        }
        most = most.max(world.kept.authorities.len());
    }
    assert!(leaves >= 55, "{leaves} leaves, each after 16 hours");
    assert!(
        (5..=7).contains(&made),
        "{made} authorities, each after 6 days"
    );
    assert!(dropped >= made - 1, "{dropped} dropped");
    assert_eq!(most, 2, "never more than the old and the new one");
}

#[test]
fn a_new_authority_signs_only_after_it_was_held_from_when_it_was_seen_everywhere() {
    let mut world = World::new();
    world.now += SignedDuration::from_hours(24 * 6);
    let step = world.step();
    assert!(
        step.done
            .iter()
            .any(|done| matches!(done, Done::Made { .. }))
    );
    let newest = |world: &World| {
        world
            .kept
            .authorities
            .last()
            .unwrap()
            .facts
            .subject()
            .to_owned()
    };
    let issuer = |world: &World| world.kept.leaf.as_ref().unwrap().facts.issuer().to_owned();
    // Nobody registers it: it never signs, however long that lasts.
    for _ in 0..20 {
        world.now += SignedDuration::from_hours(1);
        world.step();
        assert_ne!(issuer(&world), newest(&world));
    }
    world.register();
    let step = world.step();
    assert_eq!(step.done, [Done::Published]);
    assert_eq!(step.again, world.now + terms().hold);
    world.now += terms().hold - SignedDuration::from_secs(1);
    world.step();
    assert_ne!(issuer(&world), newest(&world));
    world.now += SignedDuration::from_secs(1);
    assert!(signed(&world.step()));
    assert_eq!(issuer(&world), newest(&world));
    assert_eq!(
        world.kept.authorities.len(),
        2,
        "a leaf of the old one may still be shown"
    );
}

#[test]
fn an_authority_that_one_entry_does_not_trust_is_not_published() {
    let mut world = World::new();
    world.now += SignedDuration::from_hours(24 * 6);
    world.step();
    let all = entries(&world.kept.bundle());
    let old = entries(&world.kept.authorities[0].certificate);
    let (Trusted::Entries { by_some, .. }, Trusted::Entries { by_all, .. }) = (all, old) else {
        unreachable!()
    };
    let half = Trusted::Entries { by_all, by_some };
    world.now += SignedDuration::from_hours(1);
    let step = world.kept.step(&half, &terms(), world.now).unwrap();
    assert!(!step.done.contains(&Done::Published), "{:?}", step.done);
    assert!(world.kept.authorities[1].published.is_none());
}

#[test]
fn a_clock_that_jumps_is_survived_and_what_it_made_is_mended_when_it_is_right_again() {
    for (name, jump) in [
        ("two years ahead", SignedDuration::from_hours(24 * 730)),
        ("a week ahead", SignedDuration::from_hours(24 * 7)),
        ("an hour ahead", SignedDuration::from_hours(1)),
        ("an hour back", SignedDuration::from_hours(-1)),
        ("two days back", SignedDuration::from_hours(-48)),
        ("two years back", SignedDuration::from_hours(-24 * 730)),
    ] {
        let mut world = World::new();
        world.now += SignedDuration::from_hours(30);
        world.step();
        world.register();
        let right = world.now;
        // The controller's clock is wrong for half an hour; the API servers' are right.
        for minute in 0..30 {
            world.now = right + jump + SignedDuration::from_mins(minute);
            world.step();
            world.register();
            let truly = right + SignedDuration::from_mins(minute);
            let leaf = world.kept.leaf.as_ref().unwrap();
            let bundle = world.registered.as_ref().unwrap();
            if jump.abs() <= SignedDuration::from_hours(24) {
                assert!(shakes(leaf, bundle, truly), "{name}, minute {minute}");
            }
            assert!(world.kept.authorities.len() <= MOST, "{name}");
        }
        for minute in 30..=40 {
            world.now = right + SignedDuration::from_mins(minute);
            world.step();
            world.register();
        }
        let leaf = world.kept.leaf.as_ref().unwrap();
        assert!(
            shakes(leaf, world.registered.as_ref().unwrap(), world.now),
            "{name}: good again within the hold"
        );
    }
}

#[test]
fn a_lost_secret_is_no_reason_to_show_what_nobody_trusts_yet() {
    let mut world = World::new();
    world.now += SignedDuration::from_hours(1);
    world.step();
    // The replicas still show this one.
    let shown = world.kept.leaf.take().unwrap();
    world.kept = Kept::default();
    let step = world.step();
    assert!(
        step.done.contains(&Done::Adopted) && !signed(&step),
        "{:?}",
        step.done
    );
    world.register();
    assert!(shakes(
        &shown,
        world.registered.as_ref().unwrap(),
        world.now
    ));
    world.step();
    world.now += terms().hold;
    assert!(signed(&world.step()));
    world.register();
    assert!(world.all_shake());
    assert!(
        shakes(&shown, world.registered.as_ref().unwrap(), world.now),
        "a replica that has not seen the new one yet is trusted too"
    );
    world.now += terms().leaf + SignedDuration::from_mins(1);
    world.step();
    assert_eq!(world.kept.authorities.len(), 1, "the adopted one is gone");
}

#[test]
fn other_names_make_another_authority_and_then_another_leaf() {
    let mut world = World::new();
    let other = Terms {
        names: Names::parse(["other.svc"]).unwrap(),
        ..terms()
    };
    let step = |world: &mut World| {
        let trusted = world.trusted();
        world.kept.step(&trusted, &other, world.now).unwrap()
    };
    assert!(!signed(&step(&mut world)));
    world.register();
    step(&mut world);
    world.now += terms().hold;
    assert!(signed(&step(&mut world)));
    let leaf = world.kept.leaf.as_ref().unwrap();
    assert_eq!(
        leaf.facts.names(),
        other.names.iter().cloned().collect::<Vec<_>>()
    );
}

#[test]
fn what_is_kept_comes_back_from_the_secret_and_what_is_spoilt_is_named() {
    let mut world = World::new();
    world.now += SignedDuration::from_hours(24 * 6);
    world.step();
    let data = secret::data(&world.kept).unwrap();
    let secret = |data: &secret::Data| Secret {
        data: Some(data.clone()),
        ..Secret::default()
    };
    let (back, problems) = secret::read(&secret(&data));
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(secret::data(&back).unwrap(), data);
    assert_eq!(back.bundle(), world.kept.bundle());

    let spoil = |field: &str, bytes: &[u8]| {
        let mut data = data.clone();
        data.insert(field.to_owned(), k8s_openapi::ByteString(bytes.to_vec()));
        secret::read(&secret(&data))
    };
    let (read, problems) = spoil("authorities", b"[{\"certificate\": \"x\"}]");
    assert!(
        read.authorities.is_empty() && problems.len() == 1,
        "{problems:?}"
    );
    let (read, problems) = spoil("authorities", b"{");
    assert!(
        read.authorities.is_empty() && problems.len() == 1,
        "{problems:?}"
    );
    let stranger = World::new().kept.leaf.unwrap();
    let (read, problems) = spoil("tls.key", stranger.key.expose().as_bytes());
    assert!(read.leaf.is_none(), "a key of another certificate");
    assert_eq!(
        problems,
        ["tls.crt: the private key does not belong to the certificate"]
    );
    assert_eq!(
        secret::read(&Secret::default()).1,
        ["authorities is missing"]
    );
}

#[test]
fn terms_that_leave_a_gap_are_refused() {
    assert_eq!(terms().check(), Ok(()));
    let hours = SignedDuration::from_hours;
    for (leaf, authority, hold, error) in [
        (
            SignedDuration::from_secs(2),
            hours(24),
            hours(0),
            TermsError::LeafTooShort,
        ),
        (
            hours(24),
            hours(72),
            hours(0),
            TermsError::AuthorityTooShort,
        ),
        (
            hours(24),
            hours(75),
            hours(1),
            TermsError::AuthorityTooShort,
        ),
        (hours(24), hours(100), hours(-1), TermsError::NegativeHold),
    ] {
        let terms = Terms {
            leaf,
            authority,
            hold,
            ..terms()
        };
        assert_eq!(terms.check(), Err(error));
    }
}
