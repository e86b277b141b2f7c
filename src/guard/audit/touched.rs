//! What is to be judged again after a change, so that an audit costs what has changed.
//!
//! How data passes through: [`touched`] gets the state that everything was judged by last and the one of now. What every
//! object is held to asks for everything. Else what is in a namespace is touched when the namespace differs as the state has
//! it, and when what differs elsewhere may be seen from it: by a [`ReachabilityRule`](crate::guard::reachability) that speaks
//! of both, or by what hygiene says of its policies, which is asked in both states and compared. A user's policies in Rego
//! that ask about other namespaces may see anything.
//!
//! What the state does not hold is not seen to change: a template without pods, an annotation of a workload. That is why
//! everything is judged now and then all the same. It is judged when it is asked for, and has no pod that could be reached or
//! left uncovered, so that its report may be late; to watch all workloads would cost an event of each, and of its ReplicaSet,
//! for every pod that comes, goes or gets ready, as each counts them in its status.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{KINDS, Kind};
use crate::guard::decide::State;
use crate::guard::exemption::Exemption;
use crate::guard::guardrail::Guardrails;
use crate::guard::hygiene::{self, Elsewhere};
use crate::netpol::findings::{Neighbourhood, SYSTEM};
use crate::netpol::snapshot::NamespaceState;
use crate::netpol::{NamespaceName, Snapshot};

/// Up to so many namespaces are judged by themselves however few there are.
const FEW: usize = 3;
/// Beyond one in so many everything is: many small lists cost an API server more than a few large ones.
const SHARE: usize = 10;

/// What is to be judged again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// Everything.
    All,
    /// Only some of it.
    Some {
        /// What is in these namespaces, and they themselves. Some may be gone.
        namespaces: BTreeSet<NamespaceName>,
        /// The objects of these kinds, which are in no namespace.
        kinds: Vec<&'static Kind>,
    },
}

/// A state, and when it was judged by.
#[derive(Clone, Copy)]
pub struct Moment<'s> {
    /// The state.
    pub state: &'s State,
    /// When.
    pub at: Timestamp,
}

impl Touched {
    /// Whether a namespace is among it.
    pub fn includes(&self, namespace: &NamespaceName) -> bool {
        match self {
            Self::All => true,
            Self::Some { namespaces, .. } => namespaces.contains(namespace),
        }
    }
}

/// What is to be judged again where everything was judged by the state before.
pub fn touched(before: Moment<'_>, after: Moment<'_>) -> Touched {
    if is_other_for_all(before, after) {
        return Touched::All;
    }
    let state = after.state;
    let mut namespaces = changed(&before.state.snapshot, &state.snapshot);
    let is_asked = |guardrails: &Guardrails| {
        let mut all = guardrails.iter();
        all.any(|guardrail| guardrail.spec.policies.is_some())
    };
    if !namespaces.is_empty() && state.engine.looks_far() && is_asked(&state.guardrails) {
        return Touched::All;
    }
    by_rules(before.state, state, &mut namespaces);
    by_hygiene(before.state, state, &mut namespaces);
    namespaces.extend(let_off_otherwise(before, after));
    let known = state.snapshot.namespaces().count();
    if namespaces.len() > FEW && namespaces.len().saturating_mul(SHARE) > known {
        return Touched::All;
    }
    let kinds = if namespaces.is_empty() {
        Vec::new()
    } else {
        of_cluster(state)
    };
    Touched::Some { namespaces, kinds }
}

/// Whether something is different that any object may be held to.
fn is_other_for_all(before: Moment<'_>, after: Moment<'_>) -> bool {
    let (old, new) = (before.state, after.state);
    let specs = |state: &'_ State| -> Vec<_> {
        let guardrails = state.guardrails.iter();
        let specs = guardrails.map(|guardrail| (guardrail.name.clone(), guardrail.spec.clone()));
        specs.collect()
    };
    let is_confirmed_alike = || {
        let of = |state: &State| {
            state
                .guardrails
                .confirmations()
                .cloned()
                .unwrap_or_default()
        };
        of(new).says_the_same(after.at, &of(old), before.at)
    };
    let mut guardrails = new.guardrails.iter();
    let asks = guardrails.any(|guardrail| guardrail.spec.enforcement.is_some());
    specs(old) != specs(new)
        || !std::ptr::addr_eq(
            std::sync::Arc::as_ptr(&old.engine),
            std::sync::Arc::as_ptr(&new.engine),
        )
        || !old.reachability.iter().eq(new.reachability.iter())
        || !old
            .snapshot
            .cluster_policies()
            .eq(new.snapshot.cluster_policies())
        || !old.snapshot.nodes().eq(new.snapshot.nodes())
        || asks && !is_confirmed_alike()
}

/// The namespaces that are different, have come or have gone.
fn changed(before: &Snapshot, after: &Snapshot) -> BTreeSet<NamespaceName> {
    let differing = |one: &Snapshot, other: &Snapshot| -> Vec<NamespaceName> {
        let namespaces = one.namespaces();
        let differing = namespaces.filter(|state| other.namespace(state.name()) != Some(*state));
        differing.map(|state| state.name().clone()).collect()
    };
    let mut names: BTreeSet<NamespaceName> = differing(after, before).into_iter().collect();
    names.extend(differing(before, after));
    names
}

/// Adds the namespaces that a reachability rule speaks of which speaks of one of these as well: what is new at one end of a
/// flow may be told of the other.
fn by_rules(before: &State, after: &State, namespaces: &mut BTreeSet<NamespaceName>) {
    let changed = namespaces.clone();
    for rule in &after.reachability {
        let is_concerned = |name: &NamespaceName| {
            [before, after]
                .into_iter()
                .any(|state| rule.concerns(&state.snapshot.namespace_labels(name)))
        };
        if changed.iter().any(is_concerned) {
            let known = after.snapshot.namespaces();
            let concerned = known.filter(|state| rule.concerns(state.labels()));
            namespaces.extend(concerned.map(|state| state.name().clone()));
        }
    }
}

/// Adds the namespaces of whose policies and workloads hygiene says something else than before.
fn by_hygiene(before: &State, after: &State, namespaces: &mut BTreeSet<NamespaceName>) {
    let guardrails = &after.guardrails;
    let mut all = guardrails.iter();
    if namespaces.is_empty() || !all.any(|guardrail| guardrail.spec.hygiene.is_some()) {
        return;
    }
    let elsewhere = elsewhere(before, after, namespaces);
    let [old, new] = [before, after].map(|state| Neighbourhood::of(&state.snapshot));
    let says_else = |state: &&NamespaceState| {
        // Those on trial are judged as what they are promoted to.
        let tried = state.staged_policies().map(|staged| &staged.policy);
        state.policies().chain(tried).any(|policy| {
            hygiene::seen_afar(policy, guardrails, &elsewhere, &old)
                != hygiene::seen_afar(policy, guardrails, &elsewhere, &new)
        })
    };
    let others = after.snapshot.namespaces();
    let others = others.filter(|state| !namespaces.contains(state.name()));
    let touched: Vec<NamespaceName> = others
        .filter(says_else)
        .map(|state| state.name().clone())
        .collect();
    namespaces.extend(touched);
    for guardrail in guardrails {
        let Some(section) = &guardrail.spec.hygiene else {
            continue;
        };
        let [was, is] = [&old, &new].map(|near| hygiene::wild_labels(guardrail, section, near));
        let differing = was.iter().filter(|wild| !is.contains(wild));
        let differing = differing.chain(is.iter().filter(|wild| !was.contains(wild)));
        namespaces.extend(differing.map(|wild| wild.at.namespace.clone()));
    }
}

fn elsewhere(before: &State, after: &State, names: &BTreeSet<NamespaceName>) -> Elsewhere {
    let (old, new) = (&before.snapshot, &after.snapshot);
    // Whether it is there, and whose it is.
    let standing = |snapshot: &Snapshot, name: &NamespaceName| {
        let state = snapshot.namespace(name)?;
        Some((state.object()?.clone(), state.labels().clone()))
    };
    let differs = |name: &NamespaceName| standing(old, name) != standing(new, name);
    Elsewhere {
        labels: names
            .iter()
            .flat_map(|name| [old.namespace_labels(name), new.namespace_labels(name)])
            .collect(),
        concerns_all: names
            .iter()
            .any(|name| name.as_str() == SYSTEM || differs(name)),
    }
}

/// The namespaces in which an exemption has come, changed, gone or ended.
fn let_off_otherwise(before: Moment<'_>, after: Moment<'_>) -> Vec<NamespaceName> {
    let of = |moment: Moment<'_>| -> Vec<Exemption> {
        let all = moment.state.exemptions.iter();
        let in_force = all.filter(|exemption| !exemption.expired(moment.at));
        in_force.cloned().collect()
    };
    let (was, is) = (of(before), of(after));
    let gone = was.iter().filter(|exemption| !is.contains(exemption));
    let come = is.iter().filter(|exemption| !was.contains(exemption));
    gone.chain(come)
        .map(|exemption| exemption.namespace.clone())
        .collect()
}

/// The kinds in no namespace whose objects are held against all of them.
fn of_cluster(state: &State) -> Vec<&'static Kind> {
    let rules = !state.reachability.is_empty();
    let policies = state.snapshot.cluster_policies().next().is_some();
    let is_held = |kind: &&Kind| match kind.kind {
        "ReachabilityRule" => rules,
        "ClusterNetworkPolicy" | "AdminNetworkPolicy" | "BaselineAdminNetworkPolicy" => policies,
        _ => false,
    };
    KINDS.iter().filter(is_held).collect()
}

#[cfg(test)]
mod tests;
