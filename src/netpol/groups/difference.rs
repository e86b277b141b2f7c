//! What a change of the policies at one end can make of a flow: who at the other end may notice it at all.

use super::{Group, Holding};
use crate::netpol::name::NamespaceName;
use crate::netpol::net::Family;
use crate::netpol::policy::{Peers, Rule};

/// The other ends for which more may pass than before.
#[derive(Clone, Debug)]
pub enum Opened<'h> {
    /// Nobody: all that passes now has passed before.
    Nobody,
    /// Only those that one of these rules means.
    By(Vec<(&'h NamespaceName, &'h Rule)>),
    /// Whoever it is.
    Everyone,
}

impl Holding {
    /// For whom more may pass here than with other policies of the same pods.
    pub fn opened_since<'h>(&'h self, before: &Holding) -> Opened<'h> {
        if before.policies.is_empty() {
            return Opened::Nobody;
        }
        if self.policies.is_empty() {
            return Opened::Everyone;
        }
        let is_old = |rule: &Rule| {
            let mut policies = before.policies.iter();
            policies.any(|policy| policy.rules(self.direction).contains(rule))
        };
        let mut rules = Vec::new();
        for policy in &self.policies {
            // What is not changed is shared, most of the time.
            if before
                .policies
                .iter()
                .any(|old| std::sync::Arc::ptr_eq(old, policy))
            {
                continue;
            }
            let new = policy.rules(self.direction).iter();
            rules.extend(
                new.filter(|rule| !is_old(rule))
                    .map(|rule| (&policy.namespace, rule)),
            );
        }
        if rules.is_empty() {
            Opened::Nobody
        } else {
            Opened::By(rules)
        }
    }
}

impl Opened<'_> {
    /// Whether there is nobody.
    pub fn is_nobody(&self) -> bool {
        matches!(self, Self::Nobody)
    }

    /// Whether pods of a group may be among them; the addresses of the pods are not looked at.
    pub fn may_be(&self, group: &Group) -> bool {
        match self {
            Self::Nobody => false,
            Self::Everyone => true,
            Self::By(rules) => rules.iter().any(|(namespace, rule)| match &rule.peers {
                Peers::Any => true,
                Peers::Only(peers) => {
                    let Some(pod) = group.pods().first() else {
                        return false;
                    };
                    let other = super::Other::pod(pod, group.namespace_labels(), Family::V4, None);
                    peers
                        .iter()
                        .any(|peer| super::passing::is_block(peer) || other.is(peer, namespace))
                }
            }),
        }
    }
}
