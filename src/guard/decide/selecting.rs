//! Which guardrails a review is held to: by the labels of its namespace, or by what a policy of the whole cluster rules.

use super::Context;
use crate::guard::guardrail::{Guardrail, Guardrails};
use crate::guard::review::{Operation, Review};
use crate::netpol::{Labels, NamespaceName, Object, Snapshot};

/// The guardrails that a review is held to.
pub(super) fn selecting<'g>(
    review: &Review,
    context: &Context<'g>,
    after: &Snapshot,
) -> Vec<&'g Guardrail> {
    let Some(namespace) = &review.namespace else {
        return over_clusters(review, context.guardrails);
    };
    let labels = namespace_labels(review, namespace, context.snapshot, after);
    let selects = |guardrail: &&Guardrail| {
        let mut labels = labels.iter();
        labels.any(|labels| guardrail.selects(labels))
    };
    context.guardrails.iter().filter(selects).collect()
}

/// The guardrails for a ClusterNetworkPolicy: those that may select a namespace that it rules, or ruled.
fn over_clusters<'g>(review: &Review, guardrails: &'g Guardrails) -> Vec<&'g Guardrail> {
    let subjects = [&review.object, &review.old_object].into_iter().flatten();
    let policies = subjects.filter_map(|subject| match subject.model() {
        Some(Object::ClusterNetworkPolicy(policy)) => Some(policy),
        _ => None,
    });
    let policies: Vec<_> = policies.collect();
    let may_select = |guardrail: &&Guardrail| {
        let mut subjects = policies.iter().map(|policy| &policy.subject.namespaces);
        subjects.any(|namespaces| guardrail.may_select(namespaces))
    };
    guardrails.iter().filter(may_select).collect()
}

/// The labels by which guardrails select. A Namespace object is judged by those that it would have and by those that it has,
/// so that nobody gets out of a guardrail by the very change that it forbids.
fn namespace_labels(
    review: &Review,
    namespace: &NamespaceName,
    before: &Snapshot,
    after: &Snapshot,
) -> Vec<Labels> {
    let mut labels = vec![before.namespace_labels(namespace)];
    if review.kind == "Namespace" {
        let new = after.namespace_labels(namespace);
        match (review.operation, &review.old_object) {
            // Of one that is not there yet nothing else counts.
            (Operation::Create, _) => labels = vec![new],
            (Operation::Update, Some(old)) => {
                // What the server says that there was counts, whether it is known here already or not.
                if let Some(Object::Namespace(old)) = old.model() {
                    labels = vec![old.labels.clone()];
                }
                labels.push(new);
            }
            (Operation::Update | Operation::Delete | Operation::Connect, _) => labels.push(new),
        }
    }
    labels
}
