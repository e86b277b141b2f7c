//! What is none of our business: reviews that are let through without a judgement.

use serde::Serialize;
use serde_json::Value;

use crate::guard::review::{Operation, Review, Subject};
use crate::netpol::Snapshot;

/// Why a review was not judged at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Skip {
    /// A subresource that changes nothing that is judged, such as `scale` or `status`.
    Subresource,
    /// A connection, such as exec.
    Connect,
    /// The object, or its namespace, is on its way out.
    Terminating,
    /// The node itself asks.
    Node,
    /// The namespace controller or a garbage collector deletes.
    Collector,
    /// Nothing that is judged differs from the old object.
    Insignificant,
    /// Neither an object nor an old one came with it.
    NoObject,
}

/// Users whose deletions are the cluster's own housekeeping. Whole names: a look-alike is somebody else.
pub(super) const COLLECTORS: [&str; 4] = [
    "system:kube-controller-manager",
    "system:serviceaccount:kube-system:generic-garbage-collector",
    "system:serviceaccount:kube-system:namespace-controller",
    "system:serviceaccount:kube-system:pod-garbage-collector",
];

/// Whether a review is none of our business.
pub fn skip(review: &Review, snapshot: &Snapshot) -> Option<Skip> {
    if review.operation == Operation::Connect {
        return Some(Skip::Connect);
    }
    match review.subresource.as_deref() {
        None | Some("" | "ephemeralcontainers" | "resize") => {}
        Some(_) => return Some(Skip::Subresource),
    }
    if review
        .user
        .groups
        .iter()
        .any(|group| group == "system:nodes")
    {
        return Some(Skip::Node);
    }
    if review.operation == Operation::Delete {
        if COLLECTORS.contains(&review.user.username.as_str()) {
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
        // What the new object says of its own end is only a claim.
        if review.old_object.as_ref().is_some_and(Subject::terminating) {
            return Some(Skip::Terminating);
        }
        if let (Some(new), Some(old)) = (&review.object, &review.old_object)
            && insignificant(&new.value, &old.value)
        {
            return Some(Skip::Insignificant);
        }
    }
    None
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
