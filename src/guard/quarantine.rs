//! Pods under quarantine: those that any guardrail of their namespace says are to get no baseline allow.

use crate::guard::guardrail::Guardrail;
use crate::netpol::{Labels, Selector};

/// The quarantines of all guardrails that select a namespace. A pod is under quarantine when one of them matches.
#[derive(Clone, Debug, Default)]
pub struct Quarantine<'a>(Vec<&'a Selector>);

// === impl Quarantine ===

impl<'a> Quarantine<'a> {
    /// What these guardrails say together.
    pub fn of(guardrails: impl IntoIterator<Item = &'a Guardrail>) -> Self {
        let selectors = guardrails
            .into_iter()
            .filter_map(|guardrail| guardrail.quarantine.as_ref());
        Self(selectors.collect())
    }

    /// Whether a pod with these labels is under quarantine.
    pub fn holds(&self, labels: &Labels) -> bool {
        self.0.iter().any(|quarantine| quarantine.matches(labels))
    }

    /// Whether every pod that is selected is under quarantine.
    pub fn holds_all(&self, selector: &Selector) -> bool {
        self.0.iter().any(|quarantine| selector.implies(quarantine))
    }

    /// Whether a pod that is selected can be under quarantine.
    pub fn may_hold(&self, selector: &Selector) -> bool {
        self.0
            .iter()
            .any(|quarantine| !quarantine.disjoint(selector))
    }

    /// Selectors that together match what is selected and not under quarantine. A pod is outside of a quarantine when
    /// it misses any one of its requirements, so each requirement that is missed makes a selector of its own.
    pub fn outside(&self, selector: &Selector) -> Vec<Selector> {
        self.0
            .iter()
            .fold(vec![selector.clone()], |outside, quarantine| {
                outside
                    .iter()
                    .flat_map(|selector| {
                        if quarantine.disjoint(selector) {
                            return vec![selector.clone()];
                        }
                        let terms = quarantine.requirements().iter();
                        terms.map(|term| selector.and(&term.negated())).collect()
                    })
                    .collect()
            })
    }
}
