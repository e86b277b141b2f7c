//! What cluster network policies say at one end about some newcomers, all ports at once: the order of `verdict/tiers.rs`.

use super::open::{Names, OpenPorts};
use crate::netpol::cluster_policy::{
    Action, ClusterNetworkPolicy, ClusterRule, PodScope, Reading, Tier,
};
use crate::netpol::coverage::Direction;
use crate::netpol::reach::said::{Said, SetOfPorts as _};
use crate::netpol::verdict::Meant;

/// The newcomers in question lie across the border of this scope, and have to be cut by it first.
#[derive(Clone, Debug)]
pub(super) struct Across(pub(super) PodScope);

impl Said<OpenPorts> {
    /// Asks the policies of a tier which rule the end; `means` says whether a rule means the other end.
    pub(super) fn ask(
        &mut self,
        tier: Tier,
        policies: &[&ClusterNetworkPolicy],
        direction: Direction,
        names: &Names<'_>,
        means: &dyn Fn(&ClusterRule) -> Result<Meant, Across>,
    ) -> Result<(), Across> {
        let of_tier = policies.iter().filter(|policy| policy.tier == tier);
        let of_tier: Vec<_> = of_tier.collect();
        for tied in of_tier.chunk_by(|one, next| one.priority == next.priority) {
            let mut pieces: Vec<(Action, OpenPorts)> = Vec::new();
            for policy in tied {
                let mut left = self.open.clone();
                for rule in policy.rules(direction) {
                    let ports = match rule.reading() {
                        Reading::Nothing(_) => continue,
                        Reading::DenyAll(_) => left.clone(),
                        Reading::AsWritten => names.of_cluster(&rule.ports).and(&left),
                    };
                    if ports.is_empty() {
                        continue;
                    }
                    let action = match (rule.reading(), rule.action) {
                        (Reading::DenyAll(_), _) => Action::Deny,
                        (_, action) => match (means(rule)?, action) {
                            (Meant::Yes, action) => action,
                            (Meant::Perhaps, Action::Deny | Action::Pass) => Action::Deny,
                            (Meant::Perhaps, Action::Accept) | (Meant::No, _) => continue,
                        },
                    };
                    left = left.without(&ports);
                    pieces.push((action, ports));
                }
            }
            // Of equal priorities, the strictest counts.
            for action in Action::ALL {
                for (_, ports) in pieces.iter().filter(|(own, _)| *own == action) {
                    self.decide(action, ports);
                }
            }
        }
        Ok(())
    }
}
