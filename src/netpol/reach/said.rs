//! What tiers of cluster network policies have said of ports so far, whatever ports are told by.

use super::ports::PortSet;
use crate::netpol::cluster_policy::Action;

/// A set of ports.
pub(in crate::netpol) trait SetOfPorts: Clone + Default {
    /// What is in one of both.
    fn or(&self, other: &Self) -> Self;
    /// What is in both.
    fn and(&self, other: &Self) -> Self;
    /// What is in this one and not in the other.
    fn without(&self, other: &Self) -> Self;
}

/// What was said of which ports so far; of the others, that they are denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::netpol) struct Said<P = PortSet> {
    /// Nothing yet, in this tier.
    pub(super) open: P,
    /// That the next tier decides.
    passed: P,
    /// That they pass for good.
    pub(super) accepted: P,
}

impl<P: SetOfPorts> Said<P> {
    /// Nothing yet, of all of these ports.
    pub(in crate::netpol) fn nothing(ports: P) -> Self {
        Self {
            open: ports,
            passed: P::default(),
            accepted: P::default(),
        }
    }

    /// Hears what a rule says of some ports, which counts for those that are open.
    pub(in crate::netpol) fn decide(&mut self, action: Action, ports: &P) {
        let taken = self.open.and(ports);
        self.open = self.open.without(&taken);
        match action {
            Action::Deny => {}
            Action::Pass => self.passed = self.passed.or(&taken),
            Action::Accept => self.accepted = self.accepted.or(&taken),
        }
    }

    /// Opens to the next tier what was passed on to it.
    pub(in crate::netpol) fn next_tier(&mut self) {
        self.open = self.left();
        self.passed = P::default();
    }

    /// What the next tier, or network policies, have a say on.
    pub(in crate::netpol) fn left(&self) -> P {
        self.open.or(&self.passed)
    }

    /// The ports that pass where network policies have the last word on what is left, and let these pass.
    pub(in crate::netpol) fn with_network(&self, network: &P) -> P {
        self.accepted.or(&self.left().and(network))
    }

    /// The ports that pass where nobody else is asked: what nobody decides, passes.
    pub(in crate::netpol) fn in_the_end(&self) -> P {
        self.accepted.or(&self.left())
    }
}

impl SetOfPorts for PortSet {
    fn or(&self, other: &Self) -> Self {
        self.or(other)
    }

    fn and(&self, other: &Self) -> Self {
        self.and(other)
    }

    fn without(&self, other: &Self) -> Self {
        self.without(other)
    }
}
