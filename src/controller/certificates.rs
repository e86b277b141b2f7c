//! The webhook's certificates as a state machine: what is kept, what the API servers trust, and the time, give what is
//! to be kept next. Nothing here waits, watches or writes; `certificates/secret.rs` is how it is kept in a Secret and
//! `certificates/keep.rs` carries it out, by the API server's time (`certificates/clock.rs`). Where somebody else makes the
//! certificates, `certificates/bundle.rs` follows their authorities.
//!
//! An API server acknowledges no bundle, so the order keeps a handshake good at every moment: a new authority stands in
//! the bundle of every webhook entry for a *hold* before it signs anything, and an old one stays until the last leaf that
//! it signed has ended. Clocks may jump: authorities are backdated by a day, leaves begin with their authority, and no
//! authority is dropped while the leaf in use is its own.

use jiff::{SignedDuration, Timestamp};

use crate::certs::{Authority, CertError, CertificateFacts, Name, Names, PrivateKey, Validity};

pub mod bundle;
mod clock;
pub mod ending;
pub mod keep;
pub mod secret;

/// How long what holds, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The names of the webhook.
    pub names: Names,
    /// How long a leaf holds; a new one is signed when a third of it is left.
    pub leaf: SignedDuration,
    /// How long an authority holds; the next one is made when a third of it is left.
    pub authority: SignedDuration,
    /// How long an authority is published before it signs.
    pub hold: SignedDuration,
}

/// Terms that cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TermsError {
    /// A leaf of less than this is over before everybody has it.
    #[error("a leaf must hold for at least 3 seconds")]
    LeafTooShort,
    /// The next authority must be in force before leaves outlive the old one.
    #[error(
        "a third of the time that an authority holds must be longer than a leaf and the hold together"
    )]
    AuthorityTooShort,
    /// Time runs one way.
    #[error("the hold cannot be negative")]
    NegativeHold,
}

/// What is kept.
#[derive(Debug, Default)]
pub struct Kept {
    /// The authorities that are to be trusted, the oldest first.
    pub authorities: Vec<KeptAuthority>,
    /// What the webhook shows.
    pub leaf: Option<KeptLeaf>,
}

/// An authority, and how far it has come.
#[derive(Debug)]
pub struct KeptAuthority {
    /// What it says.
    pub facts: CertificateFacts,
    /// The certificate as PEM.
    pub certificate: String,
    /// What signs; none where only the certificate is known.
    pub signer: Option<Authority>,
    /// Since when every entry has been seen to trust it.
    pub published: Option<Timestamp>,
    /// When the last leaf ends that it signed, as far as is known.
    pub needed_until: Option<Timestamp>,
}

/// The leaf in use.
#[derive(Debug)]
pub struct KeptLeaf {
    /// What it says.
    pub facts: CertificateFacts,
    /// The certificate as PEM.
    pub certificate: String,
    /// Its key.
    pub key: PrivateKey,
}

/// What the webhook configurations trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trusted {
    /// There is none, so no API server asks the webhook anything.
    NoEntries,
    /// There are some.
    Entries {
        /// The certificates (PEM) that every entry trusts.
        by_all: Vec<String>,
        /// Those that some entry trusts.
        by_some: Vec<String>,
    },
}

/// What was done to what is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// An authority that the entries trust, but that nobody kept, was taken in.
    Adopted,
    /// A new authority was made.
    Made {
        /// When it ends.
        until: Timestamp,
    },
    /// Every entry has been seen to trust an authority; it signs after the hold.
    Published,
    /// A leaf was signed.
    Signed {
        /// When it ends.
        until: Timestamp,
    },
    /// An authority was dropped that no leaf needs.
    Dropped,
}

/// What follows.
#[derive(Debug)]
pub struct Step {
    /// What was done; nothing is to be written where this is empty.
    pub done: Vec<Done>,
    /// When to look again at the latest, should nothing else happen.
    pub again: Timestamp,
}

/// Machines whose clocks are behind by less than this accept a new authority at once.
const BACKDATED: SignedDuration = SignedDuration::from_hours(24);
/// The most authorities that are trusted at once.
const MOST: usize = 4;

// === impl Terms ===

impl Terms {
    /// Whether a rotation on these terms never leaves a moment without a good leaf.
    pub fn check(&self) -> Result<(), TermsError> {
        if self.leaf < SignedDuration::from_secs(3) {
            return Err(TermsError::LeafTooShort);
        }
        if self.hold.is_negative() {
            return Err(TermsError::NegativeHold);
        }
        if self.authority / 3 <= self.hold.saturating_add(self.leaf) {
            return Err(TermsError::AuthorityTooShort);
        }
        Ok(())
    }
}

// === impl Kept ===

impl Kept {
    /// The bundle: every authority that is to be trusted, as PEM.
    pub fn bundle(&self) -> String {
        let mut bundle = String::new();
        for authority in &self.authorities {
            bundle.push_str(authority.certificate.trim_end());
            bundle.push('\n');
        }
        bundle
    }

    /// Takes the next step, now.
    pub fn step(
        &mut self,
        trusted: &Trusted,
        terms: &Terms,
        now: Timestamp,
    ) -> Result<Step, CertError> {
        let mut done = Vec::new();
        if self.authorities.is_empty() {
            self.adopt(trusted, terms, now, &mut done);
        }
        self.make_next(terms, now, &mut done)?;
        self.note_published(trusted, now, &mut done);
        let fresh = self.leaf.is_none() && *trusted == Trusted::NoEntries;
        if let Some(signer) = self.signer(terms, now, fresh) {
            if self.is_due(signer, terms, now) {
                self.sign(signer, terms, now, &mut done)?;
            }
            self.drop_old(signer, now, &mut done);
        }
        Ok(Step {
            done,
            again: self.again(terms, now),
        })
    }

    /// What the entries trust goes on being trusted, so that leaves which nobody here knows of stay good.
    fn adopt(&mut self, trusted: &Trusted, terms: &Terms, now: Timestamp, done: &mut Vec<Done>) {
        let Trusted::Entries { by_some, .. } = trusted else {
            return;
        };
        for certificate in by_some.iter().take(MOST - 1) {
            let Ok(facts) = CertificateFacts::from_pem(certificate.as_bytes()) else {
                continue;
            };
            if facts.not_after() <= now {
                continue;
            }
            let last = now.saturating_add(terms.leaf).unwrap_or(Timestamp::MAX);
            self.authorities.push(KeptAuthority {
                needed_until: Some(last.min(facts.not_after())),
                facts,
                certificate: certificate.clone(),
                signer: None,
                published: Some(now),
            });
            done.push(Done::Adopted);
        }
    }

    /// Makes the next authority, when the newest is no good or has a third of its time left.
    fn make_next(
        &mut self,
        terms: &Terms,
        now: Timestamp,
        done: &mut Vec<Done>,
    ) -> Result<(), CertError> {
        let good = self
            .authorities
            .last()
            .is_some_and(|newest| newest.may_sign(terms, now) && now < newest.renewal(terms));
        if good {
            return Ok(());
        }
        let out_of_range = || CertError::TimeOutOfRange {
            from: now.to_string(),
            until: format!("{now} + {:#}", terms.authority),
        };
        let from = now.checked_sub(BACKDATED).map_err(|_| out_of_range())?;
        let until = now
            .checked_add(terms.authority)
            .map_err(|_| out_of_range())?;
        let made = Authority::generate(
            &format!("ringfence webhook {}", now.as_microsecond()),
            terms.names.clone(),
            Validity::between(from, until)?,
        )?;
        done.push(Done::Made {
            until: made.facts().not_after(),
        });
        self.authorities.push(KeptAuthority {
            facts: made.facts().clone(),
            certificate: made.certificate_pem().to_owned(),
            signer: Some(made),
            published: None,
            needed_until: None,
        });
        // A clock that jumps about must not fill the bundle: the oldest that never signed, or signed longest ago, goes.
        while self.authorities.len() > MOST {
            let issuer = self
                .leaf
                .as_ref()
                .map(|leaf| leaf.facts.issuer().to_owned());
            let spare = self
                .authorities
                .iter()
                .position(|authority| issuer.as_deref() != Some(authority.facts.subject()));
            self.authorities.remove(spare.unwrap_or(0));
            done.push(Done::Dropped);
        }
        Ok(())
    }

    /// Notes since when each authority is trusted by every entry; one that is so no longer begins anew.
    fn note_published(&mut self, trusted: &Trusted, now: Timestamp, done: &mut Vec<Done>) {
        for authority in &mut self.authorities {
            let is_trusted = match trusted {
                Trusted::NoEntries => true,
                Trusted::Entries { by_all, .. } => by_all
                    .iter()
                    .any(|certificate| same_pem(certificate, &authority.certificate)),
            };
            // A moment to come was noted by a clock that was ahead.
            let noted = authority.published.filter(|at| *at <= now);
            match (is_trusted, noted) {
                (true, None) => {
                    authority.published = Some(now);
                    done.push(Done::Published);
                }
                // One that has signed keeps signing: to stop would help nobody, and the entries are being mended.
                (false, Some(_)) if authority.needed_until.is_none() => {
                    authority.published = None;
                    done.push(Done::Published);
                }
                (true, Some(_)) | (false, _) => {}
            }
        }
    }

    /// The newest authority that may sign now. With nothing in use anywhere (`fresh`) it need not be held.
    fn signer(&self, terms: &Terms, now: Timestamp, fresh: bool) -> Option<usize> {
        let ready = |authority: &KeptAuthority| {
            let held = authority
                .published
                .is_some_and(|at| now.duration_since(at) >= terms.hold);
            authority.may_sign(terms, now) && (held || fresh)
        };
        self.authorities.iter().rposition(ready)
    }

    /// Whether a new leaf is to be signed by this authority.
    fn is_due(&self, signer: usize, terms: &Terms, now: Timestamp) -> bool {
        let Some(leaf) = &self.leaf else {
            return true;
        };
        let subject = self
            .authorities
            .get(signer)
            .map(|signer| signer.facts.subject());
        let mut names: Vec<&Name> = leaf.facts.names().iter().collect();
        names.sort();
        !names.into_iter().eq(terms.names.iter())
            || subject != Some(leaf.facts.issuer())
            || leaf.facts.not_before() > now
            || now >= leaf.renewal(terms)
            // The terms are shorter now, or a clock was ahead.
            || now.duration_until(leaf.facts.not_after()) > terms.leaf
    }

    fn sign(
        &mut self,
        signer: usize,
        terms: &Terms,
        now: Timestamp,
        done: &mut Vec<Done>,
    ) -> Result<(), CertError> {
        let Some(kept) = self.authorities.get_mut(signer) else {
            return Ok(());
        };
        let Some(authority) = &kept.signer else {
            return Ok(());
        };
        let until = now.saturating_add(terms.leaf).unwrap_or(Timestamp::MAX);
        let validity = Validity::between(kept.facts.not_before(), until)?;
        let leaf = authority.issue(&terms.names, validity)?;
        let ends = leaf.facts().not_after();
        kept.needed_until = kept.needed_until.max(Some(ends));
        done.push(Done::Signed { until: ends });
        let facts = leaf.facts().clone();
        let certificate = leaf.certificate_pem().to_owned();
        self.leaf = Some(KeptLeaf {
            facts,
            certificate,
            key: leaf.into_key(),
        });
        Ok(())
    }

    /// Drops authorities older than the one that signs, once the last leaf of each has ended.
    fn drop_old(&mut self, signer: usize, now: Timestamp, done: &mut Vec<Done>) {
        let issuer = self
            .leaf
            .as_ref()
            .map(|leaf| leaf.facts.issuer().to_owned());
        let mut number = 0_usize;
        self.authorities.retain(|authority| {
            let old = number < signer;
            number += 1;
            let in_use = issuer.as_deref() == Some(authority.facts.subject());
            let needed = authority.needed_until.is_some_and(|until| now < until);
            let keep = !old || in_use || needed;
            if !keep {
                done.push(Done::Dropped);
            }
            keep
        });
    }

    fn again(&self, terms: &Terms, now: Timestamp) -> Timestamp {
        let mut moments = Vec::new();
        moments.extend(self.leaf.as_ref().map(|leaf| leaf.renewal(terms)));
        for authority in &self.authorities {
            moments.push(authority.renewal(terms));
            moments.extend(authority.needed_until);
            let held = authority.published.map(|at| at.saturating_add(terms.hold));
            moments.extend(held.and_then(Result::ok));
        }
        let next = moments.into_iter().filter(|at| *at > now).min();
        next.unwrap_or(Timestamp::MAX)
    }
}

// === impl KeptAuthority ===

impl KeptAuthority {
    /// Whether it holds now, for all names, and has its key.
    fn may_sign(&self, terms: &Terms, now: Timestamp) -> bool {
        let holds = self.facts.not_before() <= now && now < self.facts.not_after();
        let mut names = terms.names.iter();
        self.signer.is_some() && holds && names.all(|name| self.facts.permitted().contains(name))
    }

    /// When the next one is to be made.
    fn renewal(&self, terms: &Terms) -> Timestamp {
        earlier(self.facts.not_after(), terms.authority / 3)
    }
}

// === impl KeptLeaf ===

impl KeptLeaf {
    /// When the next one is to be signed.
    fn renewal(&self, terms: &Terms) -> Timestamp {
        earlier(self.facts.not_after(), terms.leaf / 3)
    }
}

fn earlier(moment: Timestamp, by: SignedDuration) -> Timestamp {
    moment.saturating_sub(by).unwrap_or(Timestamp::MIN)
}

/// Whether two PEM texts are one certificate; line ends and blank space are nobody's.
fn same_pem(one: &str, other: &str) -> bool {
    one.split_whitespace().eq(other.split_whitespace())
}

#[cfg(test)]
mod tests;
