//! The pods of one namespace in groups that no rule tells apart but by address, and which group reaches which.
//!
//! [`Reachability`](super::Reachability) judges a whole snapshot at once. This is for questions about a change: the
//! groups of the namespace that changes are made anew, those of the others are kept, and single pairs are judged by
//! [`Group::reaches`]. It says of all ports at once what [`Snapshot::verdict`](super::Snapshot::verdict) says of each.
//!
//! Only pods that policies hold are in groups: none on the host network, and none that has finished.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::coverage::Direction;
use super::labels::Labels;
use super::name::NamespaceName;
use super::net::Family;
use super::pod::Pod;
use super::port::ContainerPort;
use super::reach::PortSet;
use super::snapshot::{NamespaceState, Snapshot};
use super::staged::{Choice, StagedNetworkPolicy};
use tiers::Wide;

mod difference;
mod doors;
mod passing;
mod tiers;

pub use difference::Opened;
pub use doors::Door;
use passing::EVERY_PORT;
pub(super) use passing::ports_of;
pub use passing::{Holding, Other};

/// Pods of one namespace with the same labels, ports and families of addresses, for which the same policies on trial are in
/// force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    namespace: NamespaceName,
    namespace_labels: Labels,
    /// Never none, in the order of their kinds and names.
    pods: Vec<Arc<Pod>>,
    ingress: Holding,
    egress: Holding,
}

/// What pods of a group have in common: at last, which policies on trial are in force for them.
type Likeness<'p> = (&'p Labels, &'p [ContainerPort], [bool; 2], Vec<bool>);

/// Which pods the policies on trial in a namespace are in force for.
fn choices(state: &NamespaceState) -> impl Iterator<Item = &Choice> {
    let staged = state.staged_policies();
    staged.filter_map(StagedNetworkPolicy::in_force_for)
}

/// The pods of a namespace that policies hold, those together that have everything in common.
fn alike<'s>(
    state: &'s NamespaceState,
    choices: impl Iterator<Item = &'s Choice>,
) -> impl Iterator<Item = Vec<Arc<Pod>>> {
    let choices: Vec<&Choice> = choices.collect();
    let mut alike: BTreeMap<Likeness<'_>, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in state.shared_pods().filter(|pod| pod.is_held()) {
        let families = Family::BOTH.map(|family| is_of(pod, family));
        let chosen = choices.iter().map(|choice| choice.chooses(pod)).collect();
        alike
            .entry((&pod.labels, &pod.ports, families, chosen))
            .or_default()
            .push(Arc::clone(pod));
    }
    alike.into_values()
}

impl Group {
    /// The groups of a namespace of a snapshot, in the order of what they have in common: the same pods give the same
    /// groups.
    pub fn of_namespace(state: &NamespaceState, snapshot: &Snapshot) -> Vec<Self> {
        let groups = alike(state, choices(state)).filter_map(|pods| {
            Self::of_pods(pods, state.name(), state.labels(), Some(state), snapshot)
        });
        groups.collect()
    }

    /// The groups of a namespace whose pods are alike before and after another policy is tried, as they are before and after.
    pub fn of_trial(
        (old, before): (&NamespaceState, &Snapshot),
        (new, after): (&NamespaceState, &Snapshot),
    ) -> Vec<(Self, Self)> {
        let groups = alike(new, choices(old).chain(choices(new))).filter_map(|pods| {
            let of = |state: &NamespaceState, snapshot| {
                Self::of_pods(
                    pods.clone(),
                    state.name(),
                    state.labels(),
                    Some(state),
                    snapshot,
                )
            };
            Some((of(old, before)?, of(new, after)?))
        });
        groups.collect()
    }

    /// The group of one pod, which need not be in the namespace; none where policies do not hold it.
    pub fn of_pod(
        pod: &Pod,
        labels: &Labels,
        state: Option<&NamespaceState>,
        snapshot: &Snapshot,
    ) -> Option<Self> {
        let pods = vec![Arc::new(pod.clone())];
        Self::of_pods(pods, pod.namespace(), labels, state, snapshot).filter(|_| pod.is_held())
    }

    fn of_pods(
        pods: Vec<Arc<Pod>>,
        namespace: &NamespaceName,
        labels: &Labels,
        state: Option<&NamespaceState>,
        snapshot: &Snapshot,
    ) -> Option<Self> {
        let first = pods.first()?;
        let policies = |direction| {
            let policies = state.into_iter().flat_map(NamespaceState::shared_policies);
            let own = policies.filter(|policy| policy.isolates_pod(first, direction));
            let wide = Wide::of(snapshot, first, labels, direction);
            Holding::new(own.cloned().collect(), wide, direction)
        };
        Some(Self {
            namespace: namespace.clone(),
            namespace_labels: labels.clone(),
            ingress: policies(Direction::Ingress),
            egress: policies(Direction::Egress),
            pods,
        })
    }

    /// The same pods under the policies of another snapshot.
    pub fn under(&self, snapshot: &Snapshot) -> Option<Self> {
        let state = snapshot.namespace(&self.namespace);
        let (pods, labels) = (self.pods.clone(), &self.namespace_labels);
        Self::of_pods(pods, &self.namespace, labels, state, snapshot)
    }

    /// The namespace of its pods.
    pub fn namespace(&self) -> &NamespaceName {
        &self.namespace
    }

    /// The labels of that namespace.
    pub fn namespace_labels(&self) -> &Labels {
        &self.namespace_labels
    }

    /// The labels of its pods.
    pub fn labels(&self) -> &Labels {
        static NONE: std::sync::LazyLock<Labels> = std::sync::LazyLock::new(Labels::default);
        self.pods.first().map_or(&NONE, |pod| &pod.labels)
    }

    /// Its pods.
    pub fn pods(&self) -> &[Arc<Pod>] {
        &self.pods
    }

    /// What holds its pods in a direction.
    pub fn holding(&self, direction: Direction) -> &Holding {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    /// The pairs of a pod of this group and one of another that have to be asked for to know of all, a pod with itself
    /// aside. Pods are told apart by address only where it matters: those of this group by what holds the others, in
    /// `ingress`, and the others by what holds this group, in `egress`.
    pub fn pairs<'g>(
        &'g self,
        to: &'g Group,
        egress: &[&Holding],
        ingress: &[&Holding],
    ) -> Vec<(&'g Arc<Pod>, &'g Arc<Pod>)> {
        let is_same = self.namespace == to.namespace && self.labels() == to.labels();
        // Where one pod is left out as the other end, a second of its kind meets that end.
        let sources = distinct(self.pods.iter(), ingress, if is_same { 2 } else { 1 });
        let mut pairs = Vec::new();
        for from in sources {
            let others = to.pods.iter().filter(|to| !is_itself(from, to));
            let others = distinct(others, egress, 1);
            pairs.extend(others.into_iter().map(|to| (from, to)));
        }
        pairs
    }

    /// The ports at which a pod of this group reaches another pod, of another group or of this one.
    pub fn reaches(&self, from: &Pod, other: &Group, to: &Pod) -> PortSet {
        let either = self.egress.asks_addresses() || other.ingress.asks_addresses();
        let mut ports = PortSet::none();
        for family in Family::BOTH {
            if !(is_of(from, family) && is_of(to, family)) {
                continue;
            }
            for destination in addresses(to, family) {
                for source in addresses(from, family) {
                    let end = other.as_other(to, family, destination);
                    let leaves = self.egress.passing(&end, &to.ports);
                    if leaves.is_empty() {
                        continue;
                    }
                    let end = self.as_other(from, family, source);
                    ports = ports.or(&leaves.and(&other.ingress.passing(&end, &to.ports)));
                }
            }
            if !either {
                // Nothing depends on the addresses, so one pair of them is all.
                break;
            }
        }
        ports
    }

    /// The ports at which a pod of this group reaches an address outside of the cluster, or is reached from it.
    pub fn passes_outside(&self, direction: Direction, pod: &Pod, address: IpAddr) -> PortSet {
        let family = Family::of(address);
        if !is_of(pod, family) {
            return PortSet::none();
        }
        let ports = match direction {
            Direction::Ingress => &*pod.ports,
            Direction::Egress => &[],
        };
        self.holding(direction)
            .passing(&Other::outside(address), ports)
    }

    fn as_other<'g>(&'g self, pod: &'g Pod, family: Family, address: Option<IpAddr>) -> Other<'g> {
        Other::pod(pod, &self.namespace_labels, family, address)
    }
}

/// Whether both are one and the same pod; two pods of one template are two.
fn is_itself(one: &Pod, other: &Pod) -> bool {
    one.workload == other.workload && !one.is_template()
}

/// At most so many pods of each kind that the rules of some holdings tell apart by address.
fn distinct<'g>(
    pods: impl Iterator<Item = &'g Arc<Pod>>,
    holdings: &[&Holding],
    most: usize,
) -> Vec<&'g Arc<Pod>> {
    let mut kept: Vec<&Arc<Pod>> = Vec::new();
    if holdings.iter().all(|holding| !holding.asks_addresses()) {
        kept.extend(pods.take(most));
        return kept;
    }
    for pod in pods {
        let is_alike = |one: &&&Arc<Pod>| {
            let mut holdings = holdings.iter();
            holdings.all(|holding| holding.is_alike(one, pod))
        };
        if kept.iter().filter(is_alike).count() < most {
            kept.push(pod);
        }
    }
    kept
}

/// Whether a pod has, or may have, an address of a family.
fn is_of(pod: &Pod, family: Family) -> bool {
    pod.ips.is_empty() || pod.ips_of(family).next().is_some()
}

/// The addresses of one family; an unknown one of a pod of which none is known.
fn addresses(pod: &Pod, family: Family) -> impl Iterator<Item = Option<IpAddr>> {
    let unknown = pod.ips.is_empty().then_some(None);
    unknown.into_iter().chain(pod.ips_of(family).map(Some))
}
