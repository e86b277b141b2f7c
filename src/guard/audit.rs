//! The audit: what a cluster holds already goes through the same decision as a change that is asked for.
//!
//! How data passes through: [`review`] makes a review of an object as an API server gives it; [`passes_over`] leaves out
//! what is on its way out; [`decide`] judges, and tells of a namespace what its baseline waits for; [`Templates::leave_out`] takes from pods what was
//! said of their template already, so that one violation gives one finding however many replicas there are.
//! Owners are to come before what they own: [`KINDS`] is in that order. After a change, [`touched()`] says what of all of it
//! is to be judged again.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;
use serde_json::Value;

use crate::guard::decide::{Context, Decision, judge};
use crate::guard::engine::Budget;
use crate::guard::finding::FindingId;
use crate::guard::review::{Operation, Origin, Review, Subject};
use crate::netpol::{Object, Pod, WorkloadKind, WorkloadRef};

mod baselines;
mod kind;
mod touched;

pub use baselines::{Baselines, cuts};
pub use kind::{KINDS, Kind, STAGED};
pub use touched::{Moment, Touched, touched};

/// What was found of templates, so that their pods need not repeat it.
#[derive(Clone, Debug, Default)]
pub struct Templates {
    found: HashMap<WorkloadRef, BTreeSet<FindingId>>,
}

/// The review of an object that is there: as if it were created now.
///
/// The API server leaves `apiVersion` and `kind` out of the items of a list; they are put back.
pub fn review(mut object: Value, kind: &Kind) -> Review {
    kind.name(&mut object);
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        // Who wrote which field is half of an object, and nobody judges it.
        metadata.remove("managedFields");
    }
    let mut review = Review::made_of(Operation::Create, Some(Subject::new(object)), None);
    review.origin = Origin::Existing;
    kind.plural.clone_into(&mut review.resource);
    review
}

/// What is decided about one object that is there; `None` for what is passed over.
pub fn decide(
    review: &Review,
    baselines: &Baselines,
    context: &Context<'_>,
    now: Timestamp,
    budget: Budget,
) -> Option<Decision> {
    if passes_over(review) {
        return None;
    }
    let mut decision = judge(review, context, now, budget);
    if decision.skipped.is_some() {
        return None;
    }
    if let Some(Object::Namespace(namespace)) = review.object.as_ref().and_then(Subject::model) {
        let told = baselines.told(&namespace.name, context, now, budget);
        decision.judged.extend(told);
    }
    Some(decision)
}

/// Whether an object is not to be judged any more: it is being deleted, it has ended, or nothing will run of it. A policy is in
/// force until it is gone.
pub fn passes_over(review: &Review) -> bool {
    let Some(subject) = &review.object else {
        return true;
    };
    let finished = matches!(subject.model(), Some(Object::Pod(pod)) if pod.is_finished());
    let is_policy = matches!(
        subject.model(),
        Some(Object::NetworkPolicy(_) | Object::ClusterNetworkPolicy(_))
    );
    finished || subject.terminating() && !is_policy || rolled_out(subject)
}

/// A ReplicaSet of an older version of its Deployment, or a Job that has done its work.
fn rolled_out(subject: &Subject) -> bool {
    let at = |pointer: &str| subject.value.pointer(pointer);
    match workload(subject) {
        Some(pod) if pod.workload.kind == WorkloadKind::ReplicaSet => {
            pod.owner.is_some() && at("/spec/replicas").and_then(Value::as_u64) == Some(0)
        }
        Some(pod) if pod.workload.kind == WorkloadKind::Job => {
            at("/status/completionTime").is_some_and(Value::is_string)
        }
        _ => false,
    }
}

fn workload(subject: &Subject) -> Option<&Pod> {
    match subject.model() {
        Some(Object::Pod(pod) | Object::Workload(pod)) => Some(pod),
        _ => None,
    }
}

// === impl Templates ===

impl Templates {
    /// Takes what was said of the owner out of a decision and returns how much that was.
    pub fn leave_out(&mut self, review: &Review, decision: &mut Decision) -> usize {
        let Some(pod) = review.object.as_ref().and_then(workload) else {
            return 0;
        };
        let inherited = pod.owner.as_ref().and_then(|owner| self.found.get(owner));
        let own = decision.judged.iter().map(|judged| &judged.finding.id);
        let all: BTreeSet<FindingId> = own
            .chain(inherited.into_iter().flatten())
            .cloned()
            .collect();
        let before = decision.judged.len();
        if let Some(inherited) = inherited {
            decision
                .judged
                .retain(|judged| !inherited.contains(&judged.finding.id));
        }
        if pod.is_template() && !all.is_empty() {
            self.found.insert(pod.workload.clone(), all);
        }
        before.saturating_sub(decision.judged.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::testing::{Cluster, default_deny, deployment, ids, namespace};
    use serde_json::json;

    fn of(plural: &str) -> &'static Kind {
        KINDS
            .iter()
            .find(|kind| kind.plural == plural)
            .expect("a kind that is audited")
    }

    fn replica_set(replicas: u64) -> Value {
        let mut set = deployment("web-5d9c", &json!({"app": "web"}));
        set["kind"] = json!("ReplicaSet");
        set["spec"]["replicas"] = json!(replicas);
        set["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "1", "controller": true}]);
        set
    }

    fn pod(labels: &Value) -> Value {
        json!({
            "metadata": {
                "name": "web-5d9c-x", "namespace": "shop", "labels": labels,
                "managedFields": [{"manager": "kubelet"}],
                "ownerReferences": [
                    {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d9c", "uid": "2", "controller": true}
                ]
            },
            "spec": {"containers": [{"name": "main", "image": "x"}]},
            "status": {"phase": "Running"}
        })
    }

    #[test]
    fn an_item_of_a_list_gets_its_kind_back_and_loses_what_nobody_judges() {
        let review = review(pod(&json!({"app": "web"})), of("pods"));
        assert_eq!(review.object_ref().to_string(), "Pod shop/web-5d9c-x");
        assert_eq!(review.resource, "pods");
        let value = &review.object.as_ref().unwrap().value;
        assert!(value.pointer("/metadata/managedFields").is_none());
    }

    #[test]
    fn a_pod_does_not_repeat_its_template_and_says_what_is_its_own() {
        let cluster = Cluster::of(&[namespace("shop")]);
        let mut templates = Templates::default();
        let mut left = |value: Value, plural: &str| {
            let review = review(value, of(plural));
            let mut decision = cluster.judge(&review);
            let found = ids(&decision).len();
            let out = templates.leave_out(&review, &mut decision);
            (found, out)
        };
        let web = deployment("web", &json!({"app": "web"}));
        assert_eq!(left(web, "deployments"), (1, 0));
        assert_eq!(left(replica_set(1), "replicasets"), (1, 1));
        assert_eq!(left(pod(&json!({"app": "web"})), "pods"), (1, 1));

        let mut alone = pod(&json!({"app": "web"}));
        alone["metadata"]["ownerReferences"] = json!([]);
        assert_eq!(left(alone, "pods"), (1, 0));
    }

    #[test]
    fn what_is_over_or_on_its_way_out_is_passed_over() {
        let passed = |value: &Value, plural: &str| passes_over(&review(value.clone(), of(plural)));
        let mut ended = pod(&json!({}));
        assert!(!passed(&ended, "pods"));
        ended["status"]["phase"] = json!("Succeeded");
        assert!(passed(&ended, "pods"));
        let mut leaving = pod(&json!({}));
        leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(passed(&leaving, "pods"));
        let mut policy = default_deny();
        policy["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(!passed(&policy, "networkpolicies"));
        assert!(passed(&replica_set(0), "replicasets"));
        assert!(!passed(&replica_set(1), "replicasets"));
    }
}
