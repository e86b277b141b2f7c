//! What a ClusterNetworkPolicy, an AdminNetworkPolicy and a BaselineAdminNetworkPolicy differ in.

use super::{Spec, Written, missing};
use crate::netpol::cluster_policy::manifest::v1alpha1::{self, AdminSpec, BaselineSpec};
use crate::netpol::cluster_policy::manifest::{self as api};
use crate::netpol::cluster_policy::{Action, Priority, Tier};
use crate::netpol::field::Place;
use crate::netpol::name::ClusterPolicyKind;
use crate::netpol::problem::{Problems, Quoted};

/// What all specs have, whatever their types: a subject, and rules for each direction, of which the ports are called so.
macro_rules! parts {
    ($port:ty, $ports:ident) => {
        fn subject(&self) -> Option<&api::Peer> {
            self.subject.as_ref()
        }

        fn ingress(&self) -> Vec<Written<'_, api::Peer, $port>> {
            parts!(@written self.ingress, from, $ports)
        }

        fn egress(&self) -> Vec<Written<'_, api::EgressPeer, $port>> {
            parts!(@written self.egress, to, $ports)
        }
    };
    (@written $rules:expr, $peers:ident, $ports:ident) => {
        $rules
            .iter()
            .flatten()
            .map(|rule| Written {
                name: rule.name.as_deref(),
                action: rule.action.as_deref(),
                peers: rule.$peers.as_deref(),
                ports: rule.$ports.as_deref(),
            })
            .collect()
    };
}

impl Spec for api::Spec {
    const KIND: ClusterPolicyKind = ClusterPolicyKind::ClusterNetworkPolicy;
    const MOST: usize = 25;
    const ACTIONS: &'static [(&'static str, Action)] = &[
        ("Accept", Action::Accept),
        ("Deny", Action::Deny),
        ("Pass", Action::Pass),
    ];
    const WORDS: &'static str = "Accept, Deny or Pass";
    type Port = api::Protocol;

    fn place(&self, is_there: bool, at: &Place<'_>, problems: &mut Problems) -> (Tier, Priority) {
        let tier = match self.tier.as_deref() {
            Some("Admin") => Tier::Admin,
            Some("Baseline") => Tier::Baseline,
            Some(other) => {
                let reason = format!("{} is not Admin or Baseline", Quoted(other));
                problems.add(&at.key("tier"), reason);
                Tier::Admin
            }
            None => {
                missing(is_there, &at.key("tier"), problems);
                Tier::Admin
            }
        };
        (tier, priority(self.priority, is_there, at, problems))
    }

    parts!(api::Protocol, protocols);
}

impl Spec for AdminSpec {
    const KIND: ClusterPolicyKind = ClusterPolicyKind::AdminNetworkPolicy;
    const MOST: usize = 100;
    const ACTIONS: &'static [(&'static str, Action)] = &[
        ("Allow", Action::Accept),
        ("Deny", Action::Deny),
        ("Pass", Action::Pass),
    ];
    const WORDS: &'static str = "Allow, Deny or Pass";
    type Port = v1alpha1::Port;

    fn place(&self, is_there: bool, at: &Place<'_>, problems: &mut Problems) -> (Tier, Priority) {
        let priority = priority(self.priority, is_there, at, problems);
        (Tier::Admin, priority)
    }

    parts!(v1alpha1::Port, ports);
}

impl Spec for BaselineSpec {
    const KIND: ClusterPolicyKind = ClusterPolicyKind::BaselineAdminNetworkPolicy;
    const MOST: usize = 100;
    const ACTIONS: &'static [(&'static str, Action)] =
        &[("Allow", Action::Accept), ("Deny", Action::Deny)];
    const WORDS: &'static str = "Allow or Deny";
    type Port = v1alpha1::Port;

    /// Nothing says where it stands among the other policies of the Baseline tier: with the last of them, of which the
    /// strictest counts.
    fn place(&self, _: bool, _: &Place<'_>, _: &mut Problems) -> (Tier, Priority) {
        (Tier::Baseline, Priority::LAST)
    }

    parts!(v1alpha1::Port, ports);
}

fn priority(
    number: Option<i32>,
    is_there: bool,
    at: &Place<'_>,
    problems: &mut Problems,
) -> Priority {
    let at = at.key("priority");
    let Some(number) = number else {
        missing(is_there, &at, problems);
        return Priority(0);
    };
    Priority::new(number).unwrap_or_else(|| {
        problems.add(&at, format!("{number}: must be between 0 and 1000"));
        Priority(0)
    })
}
