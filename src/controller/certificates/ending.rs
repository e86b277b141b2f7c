//! An end that should not have come near: when it is near, and how often it is said.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use crate::runtime::publish;

/// Who is told that what is in use ends soon or has ended.
#[derive(Debug)]
pub struct Ending {
    /// When; nothing where all is well.
    told: watch::Sender<Option<Timestamp>>,
    /// Since when nobody was reminded.
    reminded: Option<Instant>,
}

/// How often it is said.
const REMIND: Duration = Duration::from_hours(1);

/// Whether what holds for so long as a whole ends too soon: another should be there at a third of its time.
pub(super) fn is_near(until: Timestamp, whole: SignedDuration, now: Timestamp) -> bool {
    now.duration_until(until) < whole / 7
}

// === impl Ending ===

impl Ending {
    /// Tells this channel.
    pub fn new(told: watch::Sender<Option<Timestamp>>) -> Self {
        Self {
            told,
            reminded: None,
        }
    }

    /// Tells of an end that is near, or that there is none; gives it where it is to be said aloud now.
    pub(super) fn tell(&mut self, near: Option<Timestamp>, now: Instant) -> Option<Timestamp> {
        publish(&self.told, near);
        let at = near?;
        let said = |at: Instant| now.saturating_duration_since(at) <= REMIND;
        if self.reminded.is_some_and(said) {
            return None;
        }
        self.reminded = Some(now);
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_said_once_an_hour_and_always_known() {
        let (sender, receiver) = watch::channel(None);
        let mut ending = Ending::new(sender);
        let (end, now) = (Timestamp::UNIX_EPOCH, Instant::now());
        assert_eq!(ending.tell(None, now), None);
        assert!(!receiver.has_changed().unwrap());
        assert_eq!(ending.tell(Some(end), now), Some(end));
        assert_eq!(*receiver.borrow(), Some(end));
        let later = end + SignedDuration::from_secs(1);
        assert_eq!(ending.tell(Some(later), now + REMIND), None);
        assert_eq!(*receiver.borrow(), Some(later));
        let now = now + REMIND + Duration::from_secs(1);
        assert_eq!(ending.tell(Some(later), now), Some(later));
        assert_eq!(ending.tell(None, now), None);
        assert_eq!(*receiver.borrow(), None);
    }
}
