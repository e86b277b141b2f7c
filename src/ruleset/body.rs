//! What the policies of one pod say in one direction, in the order in which a packet is asked.

use std::collections::BTreeSet;

use super::terms::Clause;
use crate::netpol::{
    Action, ClusterNetworkPolicy, Direction, Labels, NetworkPolicy, Node, Pod, PolicyRef, Snapshot,
    Tier,
};

/// The three places where a packet of a pod is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Way {
    /// It leaves the pod for another one or the outside.
    Egress,
    /// It leaves the pod for the node that the pod is on.
    ToNode,
    /// It comes to the pod, and not from its node.
    Ingress,
}

/// Which network policies are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Asked {
    /// Those that are in force.
    InForce,
    /// Those that would be if all that are on trial were promoted.
    IfPromoted,
}

/// The policies that hold a pod in a direction.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Holding<'s> {
    admin: Vec<&'s ClusterNetworkPolicy>,
    policies: Vec<&'s NetworkPolicy>,
    baseline: Vec<&'s ClusterNetworkPolicy>,
}

/// Whose packets they are asked of, and where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standpoint<'s> {
    pub(super) way: Way,
    pub(super) pod: &'s Pod,
    /// The pod's own node, where it is known.
    pub(super) node: Option<&'s Node>,
}

/// What they say; none of the lists of clauses is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Body {
    /// The Admin tier: by priority, and there by policy.
    pub(super) admin: Vec<Tied>,
    /// What comes after it.
    pub(super) then: Then,
}

/// The clauses of each policy of one tier and priority. Which of them counts is not defined: the strictest is taken.
///
/// They are in as few lists as can be, since each list but the first is one chain deeper, and the kernel follows 16. Where a policy
/// has its stricter rules first, the first that matches is the strictest that does: of any number of such policies that is so for
/// all their rules together, the strictest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Tied {
    /// All their clauses.
    pub(super) lists: Vec<Vec<Clause>>,
    /// The same for who has asked each list first what it denies; nothing where that is not asked. What matches none of a policy's
    /// denials before all else matches the same first clause without them.
    pub(super) undenied: Vec<Vec<Clause>>,
}

/// What comes after the Admin tier.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Then {
    /// Network policies isolate the pod: what none of these clauses matches is denied.
    Isolated(Vec<Clause>),
    /// Nothing isolates it: the Baseline tier, by priority and policy, and then it passes.
    Baseline(Vec<Tied>),
}

impl Way {
    pub(super) const ALL: [Way; 3] = [Way::Egress, Way::ToNode, Way::Ingress];

    pub(super) fn direction(self) -> Direction {
        match self {
            Self::Egress | Self::ToNode => Direction::Egress,
            Self::Ingress => Direction::Ingress,
        }
    }

    /// What names begin with that belong to it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Egress => "egress",
            Self::ToNode => "node",
            Self::Ingress => "ingress",
        }
    }
}

impl Tied {
    fn of(policies: Vec<Vec<Clause>>) -> Self {
        let lists = joined(policies);
        let undenied = if lists.len() > 1 {
            let left = lists.iter().map(|clauses| {
                let left = clauses.iter().filter(|it| it.action != Action::Deny);
                left.cloned().collect()
            });
            joined(left.collect())
        } else {
            Vec::new()
        };
        Self { lists, undenied }
    }

    /// As one list, in which a stricter clause counts before another one of the same policy that comes first.
    fn flattened(self) -> Self {
        Self {
            lists: vec![by_strictness(self.lists)],
            undenied: Vec::new(),
        }
    }
}

impl Body {
    /// What no policy says anything to.
    pub(super) fn silent() -> Self {
        Self {
            admin: Vec::new(),
            then: Then::Baseline(Vec::new()),
        }
    }

    /// The same without policies of one priority that take a chain each: it passes nothing that this does not, and perhaps less.
    #[must_use]
    pub(super) fn flattened(self) -> Self {
        let flattened = |tied: Vec<Tied>| tied.into_iter().map(Tied::flattened).collect();
        Self {
            admin: flattened(self.admin),
            then: match self.then {
                Then::Baseline(tied) => Then::Baseline(flattened(tied)),
                isolated @ Then::Isolated(_) => isolated,
            },
        }
    }
}

impl<'s> Holding<'s> {
    /// Those of a snapshot that are in force.
    pub(super) fn of(snapshot: &'s Snapshot, pod: &Pod, direction: Direction) -> Self {
        let mut labels: Option<Labels> = None;
        let mut tier = |tier| {
            let mut ruling = Vec::new();
            for policy in snapshot.cluster_policies_of(tier) {
                let labels =
                    labels.get_or_insert_with(|| snapshot.namespace_labels(pod.namespace()));
                if policy.rules_pod(pod, labels) {
                    ruling.push(policy);
                }
            }
            ruling
        };
        let (admin, baseline) = (tier(Tier::Admin), tier(Tier::Baseline));
        Self {
            admin,
            policies: isolating(snapshot, pod, direction, Asked::InForce),
            baseline,
        }
    }

    /// The same with all policies promoted that are on trial; none where that changes nothing for the pod.
    pub(super) fn if_promoted(
        &self,
        snapshot: &'s Snapshot,
        pod: &Pod,
        direction: Direction,
    ) -> Option<Self> {
        let mut trials = snapshot.staged_policies_in(pod.namespace());
        trials.next()?;
        let policies = isolating(snapshot, pod, direction, Asked::IfPromoted);
        let promoted = Self {
            policies,
            ..self.clone()
        };
        let is_same = |one: &&NetworkPolicy, other: &&NetworkPolicy| {
            one.name == other.name && one.rules(direction) == other.rules(direction)
        };
        let count = (self.policies.len(), promoted.policies.len());
        let differs = count.0 != count.1
            || promoted.policies.iter().any(|one| {
                let mut others = self.policies.iter();
                !others.any(|other| is_same(one, other))
            });
        differs.then_some(promoted)
    }

    /// Which policies they are: network policies, and cluster network policies.
    pub(super) fn names(&self) -> (Vec<PolicyRef>, Vec<String>) {
        let wide = self.admin.iter().chain(&self.baseline);
        (
            self.policies
                .iter()
                .map(|policy| policy.reference())
                .collect(),
            wide.map(|policy| policy.reference.to_string()).collect(),
        )
    }

    /// What they say of such packets; none where they say nothing.
    pub(super) fn body(&self, from: Standpoint<'_>) -> Option<Body> {
        let admin = ruled(&self.admin, from);
        let then = match (from.way, self.policies.is_empty()) {
            (_, true) => Then::Baseline(ruled(&self.baseline, from)),
            // A pod and its node are never kept apart by network policies.
            (Way::ToNode, false) => Then::Baseline(Vec::new()),
            (Way::Egress | Way::Ingress, false) => Then::Isolated(self.allowed(from)),
        };
        let says_nothing =
            admin.is_empty() && matches!(&then, Then::Baseline(tied) if tied.is_empty());
        (!says_nothing).then_some(Body { admin, then })
    }

    fn allowed(&self, from: Standpoint<'_>) -> Vec<Clause> {
        let direction = from.way.direction();
        let clauses = self.policies.iter().flat_map(|policy| {
            let rules = policy.rules(direction).iter().enumerate();
            rules.flat_map(move |(index, rule)| {
                let by = format!("{} {}[{index}]", policy.reference(), direction.field());
                at(from, Clause::of_rule(policy, rule, by))
            })
        });
        // Equal rules of two policies allow the same.
        let mut known = BTreeSet::new();
        clauses
            .filter(|clause| known.insert((clause.who.clone(), clause.at.clone())))
            .collect()
    }
}

/// The network policies that isolate a pod.
fn isolating<'s>(
    snapshot: &'s Snapshot,
    pod: &Pod,
    direction: Direction,
    asked: Asked,
) -> Vec<&'s NetworkPolicy> {
    let Some(state) = snapshot.namespace(pod.namespace()) else {
        return Vec::new();
    };
    let isolates = |policy: &&NetworkPolicy| policy.isolates_pod(pod, direction);
    match asked {
        Asked::InForce => state.policies_in_force().filter(isolates).collect(),
        Asked::IfPromoted => state.policies_if_promoted().filter(isolates).collect(),
    }
}

fn ruled(policies: &[&ClusterNetworkPolicy], from: Standpoint<'_>) -> Vec<Tied> {
    let direction = from.way.direction();
    let clauses = |policy: &&ClusterNetworkPolicy| -> Option<Vec<Clause>> {
        let rules = policy.rules(direction).iter().enumerate();
        let clauses = rules.flat_map(|(index, rule)| {
            let by = format!("{} {}[{index}]", policy.reference, direction.field());
            let clause = Clause::of_cluster_rule(rule, by);
            clause.into_iter().flat_map(|it| at(from, it))
        });
        let clauses: Vec<Clause> = clauses.collect();
        (!clauses.is_empty()).then_some(clauses)
    };
    policies
        .chunk_by(|one, next| one.priority == next.priority)
        .map(|tied| Tied::of(tied.iter().filter_map(clauses).collect()))
        .filter(|tied| !tied.lists.is_empty())
        .collect()
}

/// Lists of which each is one policy's, in as few as can be.
fn joined(policies: Vec<Vec<Clause>>) -> Vec<Vec<Clause>> {
    let (plain, others): (Vec<_>, Vec<_>) = policies.into_iter().partition(|it| is_plain(it));
    let lists = [by_strictness(plain)].into_iter().chain(others);
    lists.filter(|clauses| !clauses.is_empty()).collect()
}

/// All clauses in one list, the strictest first.
fn by_strictness(lists: Vec<Vec<Clause>>) -> Vec<Clause> {
    let mut together: Vec<Clause> = lists.into_iter().flatten().collect();
    together.sort_by_key(|clause| clause.action);
    together
}

/// Whether the first rule that matches is the strictest that does.
pub(super) fn is_plain(clauses: &[Clause]) -> bool {
    clauses.is_sorted_by_key(|clause| clause.action)
}

/// What a clause says of such packets. Port names of an ingress rule are the pod's own.
fn at(from: Standpoint<'_>, clause: Clause) -> Vec<Clause> {
    match from.way {
        Way::Ingress => vec![clause.at_pod(from.pod)],
        Way::ToNode => clause.at_own_node(from.node),
        Way::Egress => vec![clause],
    }
}
