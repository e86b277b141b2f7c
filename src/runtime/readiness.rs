//! Whether a process may be asked, and if not, why not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Phase, Shutdown};

/// What a process still waits for. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Readiness {
    waiting: Arc<Mutex<BTreeMap<&'static str, String>>>,
    shutdown: Shutdown,
}

impl Readiness {
    /// Ready, unless something is said to be waited for.
    pub fn new(shutdown: Shutdown) -> Self {
        Self {
            waiting: Arc::default(),
            shutdown,
        }
    }

    /// Says that this part is not ready, and why.
    pub fn wait_for(&self, part: &'static str, reason: impl Into<String>) {
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(part, reason.into());
    }

    /// Says that this part is ready.
    pub fn ready(&self, part: &'static str) {
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(part);
    }

    /// Everything that stands in the way, one line each; empty when ready.
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons: Vec<String> = self
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(|(part, reason)| format!("{part}: {reason}"))
            .collect();
        if self.shutdown.phase() != Phase::Running {
            reasons.push("shutdown: draining".to_owned());
        }
        reasons
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Trigger;

    #[test]
    fn every_reason_is_told_until_it_is_gone() {
        let (trigger, shutdown) = Trigger::new();
        let readiness = Readiness::new(shutdown);
        assert!(readiness.reasons().is_empty());
        readiness.wait_for("manifests", "first list is not complete");
        readiness.wait_for("certificate", "expired");
        assert_eq!(
            readiness.reasons(),
            [
                "certificate: expired",
                "manifests: first list is not complete"
            ]
        );
        readiness.ready("certificate");
        trigger.advance();
        assert_eq!(
            readiness.reasons(),
            [
                "manifests: first list is not complete",
                "shutdown: draining"
            ]
        );
    }
}
