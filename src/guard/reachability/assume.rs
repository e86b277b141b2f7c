//! Pods that are not there yet: where an end of a rule selects nothing, a pod that it would select stands in for it.

use std::collections::BTreeSet;

use super::{ReachabilityRule, Who};
use crate::netpol::groups::Group;
use crate::netpol::labels::NAMESPACE_NAME_LABEL;
use crate::netpol::{
    Labels, Namespace, NamespaceName, Object, Operator, Pod, Selector, Snapshot, WorkloadKind,
    WorkloadRef,
};

/// The same cluster with a template for each end of these rules that selects nothing there. It has the labels that the
/// end asks for and no named ports, and is in each namespace that the end means, or in a new one where there is none.
pub fn assume(rules: &[ReachabilityRule], snapshot: &Snapshot) -> Snapshot {
    let groups: Vec<Group> = snapshot
        .namespaces()
        .flat_map(|state| Group::of_namespace(state, snapshot))
        .collect();
    let ends = rules
        .iter()
        .flat_map(|rule| rule.from.iter().chain(&rule.to));
    let mut wanted: BTreeSet<(NamespaceName, Labels)> = BTreeSet::new();
    let mut assumed = snapshot.clone();
    for end in ends {
        let Who::Pods { namespaces, pods } = end else {
            continue;
        };
        if groups.iter().any(|group| end.means(group)) {
            continue;
        }
        let Some(labels) = witness(pods) else {
            continue;
        };
        for name in named(namespaces, &mut assumed) {
            wanted.insert((name, labels.clone()));
        }
    }
    for (number, (namespace, labels)) in wanted.into_iter().enumerate() {
        let workload = WorkloadRef {
            kind: WorkloadKind::Deployment,
            namespace,
            name: format!("assumed-{}", number.saturating_add(1)).into(),
        };
        let pod = Pod {
            labels,
            ..Pod::new(workload)
        };
        assumed.insert(Object::Workload(pod));
    }
    assumed
}

/// The namespaces that a selector means; those that it names need not be there, and where there is none one is made.
fn named(selector: &Selector, snapshot: &mut Snapshot) -> Vec<NamespaceName> {
    let known = snapshot.namespaces();
    let known = known.filter(|state| selector.matches(state.labels()));
    let mut names: BTreeSet<NamespaceName> = known.map(|state| state.name().clone()).collect();
    for requirement in selector.requirements() {
        if let (NAMESPACE_NAME_LABEL, Operator::In(values)) =
            (requirement.key(), requirement.operator())
        {
            let values = values.iter().map(|value| NamespaceName::from(&**value));
            names.extend(values.filter(|name| selector.matches(&snapshot.namespace_labels(name))));
        }
    }
    if names.is_empty()
        && let Some(labels) = witness(selector)
    {
        let name = match labels.get(NAMESPACE_NAME_LABEL) {
            Some(name) => NamespaceName::from(name),
            None => NamespaceName::from(format!("assumed-{}", snapshot.namespaces().count())),
        };
        let namespace = Namespace::new(name.clone(), &labels);
        if selector.matches(&namespace.labels) {
            snapshot.insert(Object::Namespace(namespace));
            names.insert(name);
        }
    }
    names.into_iter().collect()
}

/// The fewest labels that a selector matches, where there are such.
fn witness(selector: &Selector) -> Option<Labels> {
    let labels: Labels = selector
        .requirements()
        .iter()
        .filter_map(|requirement| match requirement.operator() {
            Operator::In(values) => Some((requirement.key(), values.first().map(AsRef::as_ref)?)),
            Operator::Exists => Some((requirement.key(), "assumed")),
            Operator::NotIn(_) | Operator::DoesNotExist => None,
        })
        .collect();
    selector.matches(&labels).then_some(labels)
}
