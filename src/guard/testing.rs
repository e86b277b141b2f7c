//! Small builders for the tests of this folder.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::guard::decide::{Context, Decision, judge};
use crate::guard::engine::{Budget, NoPolicies};
use crate::guard::exemption::Exemptions;
use crate::guard::guardrail::{Guardrail, GuardrailSpec, Guardrails};
use crate::guard::mode::Mode;
use crate::guard::mutate::{Mutated, mutate};
use crate::guard::reachability::ReachabilityRules;
use crate::guard::review::{Operation, Review, Subject};
use crate::netpol::Snapshot;
use crate::netpol::findings::Neighbourhood;

/// A cluster as it is known, and what is demanded of it.
pub(super) struct Cluster {
    pub(super) snapshot: Snapshot,
    pub(super) guardrails: Guardrails,
    pub(super) exemptions: Exemptions,
    pub(super) reachability: ReachabilityRules,
}

impl Cluster {
    /// A cluster of these objects under the built-in guardrail.
    pub(super) fn of(objects: &[Value]) -> Self {
        Self::under(&GuardrailSpec::built_in(), objects)
    }

    /// A cluster of these objects under a guardrail.
    pub(super) fn under(spec: &GuardrailSpec, objects: &[Value]) -> Self {
        let snapshot = objects
            .iter()
            .fold(Snapshot::default(), |snapshot, object| {
                snapshot.with(
                    Subject::new(object.clone())
                        .model()
                        .expect("a kind of the model")
                        .clone(),
                )
            });
        Self {
            snapshot,
            guardrails: Guardrails::new(vec![guardrail("test", spec)]),
            exemptions: Exemptions::default(),
            reachability: ReachabilityRules::default(),
        }
    }

    pub(super) fn context(&self) -> Context<'_> {
        Context {
            snapshot: &self.snapshot,
            guardrails: &self.guardrails,
            exemptions: &self.exemptions,
            reachability: &self.reachability,
            engine: &NoPolicies,
            neighbourhood: None,
        }
    }

    pub(super) fn judge(&self, review: &Review) -> Decision {
        judge(review, &self.context(), now(), BUDGET)
    }

    pub(super) fn create(&self, object: &Value) -> Decision {
        self.judge(&create(object))
    }

    /// What is found of an object that is there, with all that is there known.
    pub(super) fn check(&self, object: &Value) -> Decision {
        let all = Neighbourhood::of(&self.snapshot);
        let context = Context {
            neighbourhood: Some(&all),
            ..self.context()
        };
        judge(&create(object), &context, now(), BUDGET)
    }

    pub(super) fn update(&self, old: &Value, new: &Value) -> Decision {
        self.judge(&update(old, new))
    }

    pub(super) fn delete(&self, old: &Value) -> Decision {
        self.judge(&delete(old))
    }

    pub(super) fn mutate(&self, object: &Value) -> Mutated {
        mutate(&create(object), &self.context(), now(), BUDGET)
    }
}

pub(super) const BUDGET: Budget = Budget {
    deadline: None,
    pods: 1000,
};

pub(super) fn now() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().expect("a time")
}

pub(super) fn guardrail(name: &str, spec: &GuardrailSpec) -> Guardrail {
    Guardrail::parse(&json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": "Guardrail", "metadata": {"name": name}, "spec": spec
    }))
    .expect("a good guardrail")
}

/// The built-in guardrail in a mode.
pub(super) fn in_mode(mode: Mode) -> GuardrailSpec {
    GuardrailSpec {
        mode,
        ..GuardrailSpec::built_in()
    }
}

pub(super) fn create(object: &Value) -> Review {
    Review::made_of(Operation::Create, Some(Subject::new(object.clone())), None)
}

pub(super) fn update(old: &Value, new: &Value) -> Review {
    Review::made_of(
        Operation::Update,
        Some(Subject::new(new.clone())),
        Some(Subject::new(old.clone())),
    )
}

pub(super) fn delete(old: &Value) -> Review {
    Review::made_of(Operation::Delete, None, Some(Subject::new(old.clone())))
}

pub(super) fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

pub(super) fn deployment(name: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "x"}]}}
        }
    })
}

pub(super) fn policy(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "shop"}, "spec": spec
    })
}

pub(super) fn default_deny() -> Value {
    policy(
        "default-deny",
        &json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
    )
}

/// The ids that were found, in order.
pub(super) fn ids(decision: &Decision) -> Vec<&str> {
    decision
        .judged
        .iter()
        .map(|judged| judged.finding.id.as_str())
        .collect()
}
