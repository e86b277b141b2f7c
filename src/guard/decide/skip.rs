//! What is none of our business: reviews that are let through without a judgement.

use serde::Serialize;
use serde_json::Value;

use crate::guard::review::{Operation, Review};
use crate::netpol::Snapshot;

/// Why a review was not judged at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Skip {
    /// A subresource that changes nothing that is judged, such as `scale`, or `status` of all but nodes.
    Subresource,
    /// A connection, such as exec.
    Connect,
    /// Its namespace is on its way out.
    Terminating,
    /// The node itself asks, and not about itself.
    Node,
    /// The namespace controller deletes, or a garbage collector something else than a NetworkPolicy.
    Collector,
    /// Nothing that is judged differs from the old object.
    Insignificant,
    /// Neither an object nor an old one came with it.
    NoObject,
}

/// Who deletes what has no owner any more. Whoever may write a policy may say of it that it has an owner, so that policies are judged:
/// it tries again, until the pods that one isolates are gone or others do it.
pub const GARBAGE_COLLECTOR: &str = "system:serviceaccount:kube-system:generic-garbage-collector";

/// Users whose deletions are the cluster's own housekeeping. Whole names: a look-alike is somebody else.
pub const COLLECTORS: [&str; 4] = [
    "system:kube-controller-manager",
    GARBAGE_COLLECTOR,
    "system:serviceaccount:kube-system:namespace-controller",
    "system:serviceaccount:kube-system:pod-garbage-collector",
];

/// Whether a review is none of our business.
pub fn skip(review: &Review, snapshot: &Snapshot) -> Option<Skip> {
    if review.operation == Operation::Connect {
        return Some(Skip::Connect);
    }
    // What a node is and where, rules for nodes depend on, whoever says it.
    let of_node = is_node(review);
    match review.subresource.as_deref() {
        None | Some("" | "ephemeralcontainers" | "resize") => {}
        Some("status") if of_node => {}
        Some(_) => return Some(Skip::Subresource),
    }
    if !of_node && by_node(review) {
        return Some(Skip::Node);
    }
    if review.operation == Operation::Delete {
        let user = review.user.username.as_str();
        let is_owned_policy = user == GARBAGE_COLLECTOR && review.kind == "NetworkPolicy";
        if COLLECTORS.contains(&user) && !is_owned_policy {
            return Some(Skip::Collector);
        }
        let leaving = review
            .namespace
            .as_ref()
            .and_then(|name| snapshot.namespace(name));
        if leaving.is_some_and(crate::netpol::snapshot::NamespaceState::is_terminating) {
            return Some(Skip::Terminating);
        }
    }
    if review.operation == Operation::Update {
        // What is on its way out may stay for as long as somebody's finalizer does, so that it is no exception.
        if let (Some(new), Some(old)) = (&review.object, &review.old_object)
            && if of_node {
                same_node(&new.value, &old.value)
            } else {
                insignificant(&new.value, &old.value)
            }
        {
            return Some(Skip::Insignificant);
        }
    }
    None
}

/// Whether the change is one of a Node.
fn is_node(review: &Review) -> bool {
    review.kind == "Node" && review.kind_version.group.is_empty()
}

/// Whether a node itself asks.
fn by_node(review: &Review) -> bool {
    let mut groups = review.user.groups.iter();
    groups.any(|group| group == "system:nodes")
}

/// Whether a node tells what it is: to refuse that would take it out of the cluster.
pub(super) fn of_itself(review: &Review) -> bool {
    is_node(review) && (by_node(review) || review.subresource.is_some())
}

/// Whether a node has the labels and addresses that it had: it tells how it fares every few seconds.
fn same_node(new: &Value, old: &Value) -> bool {
    let same = |at: &str| new.pointer(at) == old.pointer(at);
    same("/metadata/labels") && same("/status/addresses")
}

/// Whether an update touches only what nobody judges: finalizers, managed fields, versions and the status.
fn insignificant(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else {
        return false;
    };
    let judged = |field: &&String| !matches!(field.as_str(), "metadata" | "status");
    let same_body = new
        .keys()
        .chain(old.keys())
        .filter(judged)
        .all(|field| new.get(field) == old.get(field));
    let metadata = |object: &serde_json::Map<String, Value>, field: &str| -> Option<Value> {
        object
            .get("metadata")
            .and_then(|metadata| metadata.get(field))
            .filter(|value| !value.is_null())
            .cloned()
    };
    same_body
        && [
            "name",
            "namespace",
            "labels",
            "annotations",
            "ownerReferences",
        ]
        .iter()
        .all(|field| metadata(new, field) == metadata(old, field))
}
