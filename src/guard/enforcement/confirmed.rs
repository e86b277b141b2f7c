//! The section `enforcement`: does anything say that network policies are enforced, where a pod is to run?

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::{NodeEnforcement, Receipt, Worth};
use crate::guard::finding::{Finding, Fix};
use crate::guard::guardrail::EnforcementSection;
use crate::guard::manifest;
use crate::guard::registry;
use crate::guard::review::{Review, Subject};
use crate::netpol::{FieldPath, NodeName, Object, ParseError};
use serde_json::Value;

/// What is kept of the receipts of a cluster, by node. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Confirmations(Arc<BTreeMap<NodeName, Receipt>>);

/// The receipt of one node, without the policies that it names.
#[derive(Clone, Debug, PartialEq)]
pub struct Confirmation {
    /// The node.
    pub node: NodeName,
    /// What is kept of it.
    pub receipt: Receipt,
}

/// A workload that comes where nothing says that policies are enforced.
///
/// What is on the host network is held by no policy anyway, and what enforces them is itself there.
pub(in crate::guard) fn workload(
    review: &Review,
    subject: &Subject,
    section: &EnforcementSection,
    confirmations: &Confirmations,
    now: Timestamp,
) -> Option<Finding> {
    let Some(Object::Pod(pod) | Object::Workload(pod)) = subject.model() else {
        return None;
    };
    if pod.host_network || section.enforced_by.is_some() {
        return None;
    }
    let root = FieldPath::of(pod.workload.kind.pod_at().iter().copied());
    let (field, message) = match &pod.node {
        Some(node) => {
            let why = confirmations.against(node, now)?;
            let message =
                format!("nothing confirms that node `{node}` enforces network policies: {why}");
            (root.key("spec").key("nodeName"), message)
        }
        None if confirmations.any(now) => return None,
        None => {
            let message = "no node confirms that network policies are enforced".to_owned();
            (FieldPath::of(["metadata", "namespace"]), message)
        }
    };
    let fix = Fix::words(
        "run the agent on the nodes (deploy/agent; `ringfence status` shows their receipts); where the network plugin \
         enforces policies itself, name it in the Guardrail (`enforcement.enforcedBy`)",
    );
    Some(Finding::of(
        &registry::UNENFORCED,
        review.object_ref(),
        field,
        message,
        Some(fix),
    ))
}

// === impl Confirmation ===

impl Confirmation {
    /// Reads a `NodeEnforcement`; of its status only what says whether it counts.
    ///
    /// # Errors
    ///
    /// A field of it is not of the kind.
    pub fn parse(value: &Value) -> Result<Self, ParseError> {
        let object: NodeEnforcement = manifest::read(value)?;
        Ok(Self {
            node: NodeName::from(object.metadata.name.unwrap_or_default()),
            receipt: object.status.unwrap_or_default().trimmed(),
        })
    }
}

// === impl Confirmations ===

impl Confirmations {
    /// Takes a receipt in, in the place of the node's last one; tells whether it says something else.
    pub fn insert(&mut self, confirmation: Confirmation) -> bool {
        let Confirmation { node, receipt } = confirmation;
        if self.0.get(&node) == Some(&receipt) {
            return false;
        }
        Arc::make_mut(&mut self.0).insert(node, receipt);
        true
    }

    /// Forgets the receipt of a node; tells whether there was one.
    pub fn remove(&mut self, node: &NodeName) -> bool {
        self.contains(node) && Arc::make_mut(&mut self.0).remove(node).is_some()
    }

    /// Whether a node has a receipt, whatever it is worth.
    pub fn contains(&self, node: &NodeName) -> bool {
        self.0.contains_key(node)
    }

    /// The nodes that have one, by name.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &NodeName> {
        self.0.keys()
    }

    /// Whether it is said of each node now what others said of it then.
    pub(in crate::guard) fn says_the_same(
        &self,
        now: Timestamp,
        others: &Self,
        then: Timestamp,
    ) -> bool {
        let mut nodes = self.nodes().chain(others.nodes());
        nodes.all(|node| self.against(node, now) == others.against(node, then))
    }

    fn any(&self, now: Timestamp) -> bool {
        let mut receipts = self.0.values();
        receipts.any(|receipt| receipt.worth(now) == Worth::Confirmed)
    }

    /// What stands against the receipt of a node; `None` where it counts.
    fn against(&self, node: &NodeName, now: Timestamp) -> Option<&'static str> {
        match self.0.get(node).map(|receipt| receipt.worth(now)) {
            Some(Worth::Confirmed) => None,
            None => Some("it has no receipt of an agent"),
            Some(Worth::Old(_)) => Some("its agent has not read the kernel back lately"),
            Some(Worth::Failing { .. }) => {
                Some("its agent says that the kernel does not hold what the policies say")
            }
        }
    }
}

impl FromIterator<(NodeName, Receipt)> for Confirmations {
    fn from_iter<T: IntoIterator<Item = (NodeName, Receipt)>>(receipts: T) -> Self {
        let trimmed = |(node, receipt): (NodeName, Receipt)| (node, receipt.trimmed());
        Self(Arc::new(receipts.into_iter().map(trimmed).collect()))
    }
}

impl FromIterator<Confirmation> for Confirmations {
    fn from_iter<T: IntoIterator<Item = Confirmation>>(confirmations: T) -> Self {
        let pairs = confirmations.into_iter();
        pairs.map(|it| (it.node, it.receipt)).collect()
    }
}

impl Receipt {
    /// Only what says whether it counts: what it names is much on a large node, and written often.
    fn trimmed(self) -> Self {
        Self {
            read_back: self.read_back,
            conditions: self.conditions,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::guardrail::GuardrailSpec;
    use crate::guard::mode::Mode;
    use crate::guard::testing::{Cluster, deployment, ids, namespace, now};
    use serde_json::json;

    fn receipt(node: &str, read_back: &str, status: &str) -> Confirmation {
        Confirmation::parse(&json!({
            "apiVersion": "ringfence.dev/v1alpha1", "kind": "NodeEnforcement",
            "metadata": {"name": node}, "spec": {"node": node},
            "status": {
                "readBack": read_back, "policies": [{"name": "wide"}], "policyCount": 1,
                "conditions": [{"type": "Enforced", "status": status, "reason": "R", "message": "m",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            },
        }))
        .unwrap()
    }

    fn pod(spec: &Value) -> Value {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"containers": [{"name": "main", "image": "x"}]},
        });
        for (field, value) in spec.as_object().unwrap() {
            pod["spec"][field] = value.clone();
        }
        pod
    }

    fn cluster(section: &Value, known: Option<Vec<Confirmation>>) -> Cluster {
        let spec = GuardrailSpec {
            mode: Mode::Enforce,
            enforcement: Some(serde_json::from_value(section.clone()).unwrap()),
            ..GuardrailSpec::default()
        };
        let mut cluster = Cluster::under(&spec, &[namespace("shop")]);
        let known = known.map(|it| it.into_iter().collect());
        cluster.guardrails = cluster.guardrails.with_confirmations(known);
        cluster
    }

    /// What is said of a pod with this spec, in short; the receipts are of one o'clock before midnight and later.
    fn said(spec: &Value, known: Vec<Confirmation>) -> Option<(String, String)> {
        let decision = cluster(&json!({}), Some(known)).create(&pod(spec));
        let mut judged = decision.judged.iter();
        judged.next().map(|judged| {
            assert_eq!(judged.finding.id.as_str(), "RF203");
            assert_eq!(judged.mode, Mode::Enforce);
            (
                judged.finding.field.to_string(),
                judged.finding.message.clone(),
            )
        })
    }

    const FRESH: &str = "2026-05-31T23:51:00Z";
    const OLD: &str = "2026-05-31T23:49:00Z";

    #[test]
    fn a_pod_is_refused_where_no_node_confirms() {
        let anywhere = json!({});
        let expected = Some((
            "metadata.namespace".to_owned(),
            "no node confirms that network policies are enforced".to_owned(),
        ));
        assert_eq!(said(&anywhere, vec![]), expected);
        assert_eq!(said(&anywhere, vec![receipt("a", OLD, "True")]), expected);
        assert_eq!(
            said(&anywhere, vec![receipt("a", FRESH, "False")]),
            expected
        );
        let one_of_two = vec![receipt("a", OLD, "True"), receipt("b", FRESH, "True")];
        assert_eq!(said(&anywhere, one_of_two), None);
    }

    #[test]
    fn a_pod_that_says_where_it_runs_is_held_to_that_node() {
        let known = || {
            vec![
                receipt("good", FRESH, "True"),
                receipt("old", OLD, "True"),
                receipt("failing", FRESH, "False"),
            ]
        };
        let at = |node: &str| said(&json!({"nodeName": node}), known());
        assert_eq!(at("good"), None);
        for (node, words) in [
            ("old", "lately"),
            ("failing", "does not hold"),
            ("other", "no receipt"),
        ] {
            let (field, message) = at(node).unwrap();
            assert_eq!(field, "spec.nodeName");
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn it_is_silent_where_nothing_is_known_or_something_else_enforces() {
        let web = deployment("web", &json!({"app": "web"}));
        let found = |section: &Value, known: Option<Vec<Confirmation>>| {
            let decision = cluster(section, known).create(&web);
            let found = ids(&decision).into_iter();
            found.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(found(&json!({}), Some(vec![])), ["RF203"]);
        // A folder without receipts.
        assert!(found(&json!({}), None).is_empty());
        let named = json!({"enforcedBy": "Cilium"});
        assert!(found(&named, Some(vec![])).is_empty());
        let on_host = json!({"hostNetwork": true});
        assert_eq!(said(&on_host, vec![]), None);
    }

    #[test]
    fn what_was_there_before_the_receipts_went_may_still_be_changed() {
        let before = pod(&json!({}));
        let mut after = before.clone();
        after["metadata"]["labels"] = json!({"app": "web"});
        let cluster = cluster(&json!({}), Some(vec![]));
        assert!(ids(&cluster.update(&before, &after)).is_empty());
    }

    #[test]
    fn what_a_receipt_names_is_not_kept_and_saying_the_same_is_no_change() {
        let mut known = Confirmations::default();
        let one = receipt("a", FRESH, "True");
        assert_eq!(one.receipt.policies, []);
        assert!(known.insert(one.clone()));
        assert!(!known.insert(one));
        assert!(known.insert(receipt("a", OLD, "True")));
        assert!(known.any(now() - jiff::SignedDuration::from_mins(5)));
        assert!(known.remove(&"a".into()));
        assert!(!known.remove(&"a".into()));
        assert_eq!(known.nodes().len(), 0);
    }
}
