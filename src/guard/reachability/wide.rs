//! A changed ClusterNetworkPolicy held against the rules in force: it may have pods of every namespace as its subject, so
//! each rule is asked for its own pairs of groups, of which one is ruled by the policy and the other one may be its peer,
//! before the change or after it. Nothing else can be altered: it isolates nothing by itself.

use super::index::Member;
use super::search::{Broken, Pairing, Search};
use super::{ReachabilityRules, Side};
use crate::guard::decide::Cut;
use crate::netpol::groups::Group;
use crate::netpol::reach::bits::BitSet;
use crate::netpol::{ClusterNetworkPolicy, ClusterPolicyRef, Direction, Snapshot};

/// How many pairs of groups may be asked for each pod that one check may look at: such a change is rare, and concerns
/// the whole cluster.
const PAIRS_PER_POD: usize = 25;

/// What the policy has to do with each group that some rule means.
struct Altered<'r> {
    members: Vec<&'r Member>,
    /// Those that it rules, or ruled, as they were and as they are.
    groups: Vec<Option<(Group, Group)>>,
    egress: Concerned,
    ingress: Concerned,
}

/// Whose flows in one direction the policy can alter.
struct Concerned {
    ruled: BitSet,
    peers: BitSet,
}

/// The rules that a change of this ClusterNetworkPolicy breaks.
pub(super) fn breaks<'r>(
    policy: &ClusterPolicyRef,
    [known, before, after]: [&Snapshot; 3],
    rules: &'r ReachabilityRules,
    pods: usize,
) -> Broken<'r> {
    let (old, new) = (before.cluster_policy(policy), after.cluster_policy(policy));
    if says(old) == says(new) {
        return Broken::default();
    }
    let altered = Altered::by(policy, [known, before, after], rules);
    let mut search = Search::new(rules, pods.saturating_mul(PAIRS_PER_POD));
    let mut cut = None;
    for number in 0..rules.iter().len() {
        if let Err(met) = altered.one(number, rules, &mut search) {
            cut = Some(met);
        }
    }
    search.broken(cut)
}

/// What counts of a policy: all but its metadata.
fn says(policy: Option<&ClusterNetworkPolicy>) -> Option<impl PartialEq> {
    policy.map(|policy| {
        let place = (policy.tier, policy.priority);
        (place, &policy.subject, &policy.ingress, &policy.egress)
    })
}

// === impl Altered ===

impl<'r> Altered<'r> {
    /// What it has to do with the groups in what is known, before the change and after it.
    fn by(
        policy: &ClusterPolicyRef,
        [known, before, after]: [&Snapshot; 3],
        rules: &'r ReachabilityRules,
    ) -> Self {
        let members: Vec<&Member> = rules.index().members().collect();
        let is_meant = |number: &usize| {
            let member = members.get(*number);
            member.is_some_and(|member| {
                Side::BOTH
                    .into_iter()
                    .any(|side| !member.meant(side).is_empty())
            })
        };
        let meant: Vec<usize> = (0..members.len()).filter(is_meant).collect();
        let policies = [known, before, after].map(|snapshot| snapshot.cluster_policy(policy));
        let is = |holds: &dyn Fn(&Group, &ClusterNetworkPolicy) -> bool| {
            let holds = |number: &usize| {
                let member = members.get(*number);
                let mut policies = policies.iter().flatten();
                member.is_some_and(|member| policies.any(|policy| holds(&member.group, policy)))
            };
            BitSet::of(members.len(), meant.iter().copied().filter(holds))
        };
        let concerned = |direction: Direction| Concerned {
            ruled: is(&|group, policy| group.is_ruled(policy, direction)),
            peers: is(&|group, policy| group.may_be_peer(policy, direction)),
        };
        let (egress, ingress) = (concerned(Direction::Egress), concerned(Direction::Ingress));
        let groups = members.iter().enumerate().map(|(number, member)| {
            let is_ruled = egress.ruled.contains(number) || ingress.ruled.contains(number);
            let both = || Some((member.group.under(before)?, member.group.under(after)?));
            is_ruled.then(both).flatten()
        });
        let groups = groups.collect();
        Self {
            members,
            groups,
            egress,
            ingress,
        }
    }

    /// Asks one rule.
    fn one(
        &self,
        number: usize,
        rules: &ReachabilityRules,
        search: &mut Search<'_>,
    ) -> Result<(), Cut> {
        let asked = &BitSet::of(rules.iter().len(), [number]);
        let [from, to] = &Side::BOTH.map(|side| {
            let meant = self.members.iter().enumerate();
            let meant = meant.filter(|(_, member)| member.meant(side).contains(number));
            BitSet::of(self.members.len(), meant.map(|(group, _)| group))
        });
        let state = |group: usize| -> Option<(Option<&Group>, &Group)> {
            match self.groups.get(group)? {
                Some((before, after)) => Some((Some(before), after)),
                None => self
                    .members
                    .get(group)
                    .map(|member| (Some(&member.group), &member.group)),
            }
        };
        // Addresses outside are few, so they come first.
        for (side, meant) in [(Side::From, from), (Side::To, to)] {
            let concerned = self.concerned(side);
            for group in meant
                .iter()
                .filter(|group| concerned.ruled.contains(*group))
            {
                if let Some(own) = state(group) {
                    search.outside(asked, side, own);
                }
            }
        }
        for source in from.iter() {
            let mut noticed = BitSet::below(self.members.len());
            if self.egress.ruled.contains(source) {
                noticed.add(&self.egress.peers);
            }
            if self.ingress.peers.contains(source) {
                noticed.add(&self.ingress.ruled);
            }
            for destination in noticed.and(to).iter() {
                if !search.open().contains(number) {
                    return Ok(());
                }
                search.spend()?;
                if let (Some(own), Some(other)) = (state(source), state(destination)) {
                    let pairing = Pairing {
                        side: Side::From,
                        own,
                        other,
                    };
                    search.pair(asked, &pairing);
                }
            }
        }
        Ok(())
    }

    fn concerned(&self, side: Side) -> &Concerned {
        match side {
            Side::From => &self.egress,
            Side::To => &self.ingress,
        }
    }
}
