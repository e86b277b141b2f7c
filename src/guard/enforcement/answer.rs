//! Is it enforced? The receipts of nodes held against the pods that run there, policy by policy.
//!
//! What a node is to hold follows from its pods, by the same function that its agent asks; what it holds, its receipt says.
//! A policy is confirmed on a node whose receipt counts and names it in its current generation.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use super::{HeldPolicy, Receipt, Worth};
use crate::netpol::{NamespaceName, NodeName, Pod, Snapshot};

/// Who confirms what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The nodes of the cluster, by name.
    pub nodes: Vec<NodeAnswer>,
    /// The policies that select running pods: those of the whole cluster first, then by namespace and name, and at last those
    /// on trial.
    pub policies: Vec<PolicyAnswer>,
}

/// What a node's receipt is worth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeAnswer {
    /// The node.
    pub node: NodeName,
    /// What stands against its receipt; `None` where it counts.
    #[serde(flatten)]
    pub lag: Option<Lag>,
}

/// Where a policy is confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyAnswer {
    /// The policy in its current generation.
    #[serde(flatten)]
    pub policy: HeldPolicy,
    /// On how many nodes it is confirmed.
    pub confirmed: usize,
    /// How many nodes have pods that it selects.
    pub nodes: usize,
    /// The nodes among them that do not confirm it, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub laggards: Vec<Laggard>,
}

/// A node that does not confirm a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Laggard {
    /// The node.
    pub node: NodeName,
    /// Why not.
    #[serde(flatten)]
    pub lag: Lag,
}

/// Why a node does not confirm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all_fields = "camelCase", tag = "reason")]
pub enum Lag {
    /// It has no receipt.
    NoReceipt,
    /// Its kernel was read back too long ago, or never.
    OldReceipt {
        /// When it was.
        #[serde(skip_serializing_if = "Option::is_none")]
        read_back: Option<Timestamp>,
    },
    /// Its agent says that the kernel does not hold what the policies say.
    NotEnforced {
        /// Why, in the agent's words.
        message: String,
    },
    /// It holds another generation of the policy.
    Generation {
        /// The one that it holds.
        held: Option<i64>,
        /// The one that there is.
        wanted: Option<i64>,
    },
    /// Its receipt does not name the policy.
    NotNamed,
    /// Its receipt names only some of very many policies, and this one is not among them.
    LeftOut {
        /// How many it does not name.
        policies: usize,
    },
}

/// Answers for the policies that select running pods; with a namespace, pods of that one.
///
/// `receipts` are by node. A receipt of a node that is neither there nor has pods says nothing.
pub fn answer(
    snapshot: &Snapshot,
    receipts: &BTreeMap<NodeName, Receipt>,
    namespace: Option<&NamespaceName>,
    now: Timestamp,
) -> Answer {
    let mut pods: BTreeMap<&NodeName, Vec<&Pod>> = BTreeMap::new();
    // What has no address yet is not to be held yet.
    let running = |pod: &&Pod| !pod.is_template() && pod.is_held() && !pod.ips.is_empty();
    for pod in snapshot.pods().filter(running) {
        if let Some(node) = &pod.node {
            pods.entry(node).or_default().push(pod);
        }
    }
    let known = snapshot.nodes().map(|node| &node.name);
    let known: BTreeSet<&NodeName> = known.chain(pods.keys().copied()).collect();
    let nodes: Vec<NodeAnswer> = known
        .into_iter()
        .map(|node| NodeAnswer {
            node: node.clone(),
            lag: lag(receipts.get(node), now),
        })
        .collect();

    let mut policies: BTreeMap<HeldPolicy, PolicyAnswer> = BTreeMap::new();
    for NodeAnswer { node, lag } in &nodes {
        let own = pods.get(node).into_iter().flatten().copied();
        let own = own.filter(|pod| namespace.is_none_or(|only| pod.namespace() == only));
        let receipt = receipts.get(node);
        for wanted in HeldPolicy::of(snapshot, own) {
            let lag = match lag {
                None => receipt.and_then(|receipt| missed(&wanted, receipt)),
                Some(lag) => Some(lag.clone()),
            };
            let entry = policies.entry(wanted.clone());
            let answer = entry.or_insert_with(|| PolicyAnswer {
                policy: wanted,
                confirmed: 0,
                nodes: 0,
                laggards: Vec::new(),
            });
            answer.nodes = answer.nodes.saturating_add(1);
            match lag {
                None => answer.confirmed = answer.confirmed.saturating_add(1),
                Some(lag) => answer.laggards.push(Laggard {
                    node: node.clone(),
                    lag,
                }),
            }
        }
    }
    Answer {
        nodes,
        policies: policies.into_values().collect(),
    }
}

/// What stands against the receipt of a node as a whole.
fn lag(receipt: Option<&Receipt>, now: Timestamp) -> Option<Lag> {
    match receipt.map(|receipt| receipt.worth(now)) {
        None => Some(Lag::NoReceipt),
        Some(Worth::Confirmed) => None,
        Some(Worth::Old(read_back)) => Some(Lag::OldReceipt { read_back }),
        Some(Worth::Failing { message }) => Some(Lag::NotEnforced { message }),
    }
}

/// What a receipt that counts lacks of a policy.
fn missed(wanted: &HeldPolicy, receipt: &Receipt) -> Option<Lag> {
    let is_it = |held: &&HeldPolicy| {
        held.kind == wanted.kind && held.namespace == wanted.namespace && held.name == wanted.name
    };
    match receipt.policies.iter().find(is_it) {
        None if receipt.left_out() > 0 => Some(Lag::LeftOut {
            policies: receipt.left_out(),
        }),
        None => Some(Lag::NotNamed),
        Some(held) if held.generation != wanted.generation => Some(Lag::Generation {
            held: held.generation,
            wanted: wanted.generation,
        }),
        Some(_) => None,
    }
}

// === impl Answer ===

impl Answer {
    /// Whether every policy is confirmed wherever it selects a running pod.
    pub fn is_confirmed(&self) -> bool {
        self.policies.iter().all(PolicyAnswer::is_confirmed)
    }
}

// === impl PolicyAnswer ===

impl PolicyAnswer {
    /// Whether it is confirmed on every node that has pods that it selects.
    pub fn is_confirmed(&self) -> bool {
        self.laggards.is_empty()
    }
}

// === impl Lag ===

impl Lag {
    /// In words, for someone who reads them at a moment.
    pub fn in_words(&self, now: Timestamp) -> String {
        let generation = |number: &Option<i64>| {
            number.map_or("an unknown one".to_owned(), |number| number.to_string())
        };
        match self {
            Self::NoReceipt => "no receipt".to_owned(),
            Self::OldReceipt { read_back: None } => "the kernel was not read back yet".to_owned(),
            Self::OldReceipt {
                read_back: Some(at),
            } => {
                let minutes = now.duration_since(*at).as_mins();
                format!("old receipt: the kernel was read back {minutes} minutes ago")
            }
            Self::NotEnforced { message } => format!("not enforced: {message}"),
            Self::Generation { held, wanted } => {
                format!("generation {} of {}", generation(held), generation(wanted))
            }
            Self::NotNamed => "the receipt does not name it".to_owned(),
            Self::LeftOut { policies } => {
                format!("the receipt does not name it, and leaves {policies} out for want of room")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netpol::parse;
    use serde_json::{Value, json};

    fn pod(name: &str, namespace: &str, node: &str, address: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
            "spec": {"nodeName": node, "containers": [{"name": "main", "image": "x"}]},
            "status": {"phase": "Running", "podIPs": [{"ip": address}]},
        })
    }

    fn policy(name: &str, namespace: &str, generation: i64, app: &str) -> Value {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": namespace, "generation": generation},
            "spec": {"podSelector": {"matchLabels": {"app": app}}, "policyTypes": ["Ingress"]},
        })
    }

    fn cluster() -> Snapshot {
        let wide = json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "wide", "generation": 1},
            "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}},
                "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}]},
        });
        let mut waiting = pod("web", "shop", "three", "10.0.0.9");
        waiting["metadata"]["name"] = json!("waiting");
        waiting["status"]["podIPs"] = json!([]);
        let mut ended = pod("web", "shop", "three", "10.0.0.8");
        ended["metadata"]["name"] = json!("ended");
        ended["status"]["phase"] = json!("Succeeded");
        let mut on_host = pod("web", "shop", "three", "10.0.0.7");
        on_host["metadata"]["name"] = json!("on-host");
        on_host["spec"]["hostNetwork"] = json!(true);
        let objects = [
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "four"}}),
            pod("web", "shop", "one", "10.0.0.1"),
            pod("db", "shop", "two", "10.0.0.2"),
            pod("web", "other", "two", "10.0.0.3"),
            waiting,
            ended,
            on_host,
            policy("web", "shop", 3, "web"),
            policy("nobody", "shop", 1, "nobody"),
            policy("web", "other", 1, "web"),
            wide,
        ];
        let objects = objects
            .iter()
            .map(|object| parse(object).unwrap().unwrap().object);
        objects.collect()
    }

    fn now() -> Timestamp {
        "2026-06-01T12:00:00Z".parse().unwrap()
    }

    fn receipt(read_back: &str, status: &str, policies: &[(Option<&str>, &str, i64)]) -> Receipt {
        let policies = policies.iter().map(|(namespace, name, generation)| {
            json!({"namespace": namespace, "name": name, "generation": generation})
        });
        Receipt::read(&json!({"status": {
            "readBack": read_back,
            "policies": policies.collect::<Vec<_>>(),
            "conditions": [
                {"type": "Other", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-06-01T00:00:00Z"},
                {"type": "Enforced", "status": status, "reason": "R", "message": "no right",
                    "lastTransitionTime": "2026-06-01T00:00:00Z"},
            ],
        }}))
        .unwrap()
    }

    /// Each policy as `namespace/name confirmed/nodes` with its laggards.
    fn lines(receipts: &[(&str, Receipt)], namespace: Option<&str>) -> Vec<String> {
        let receipts = receipts.iter();
        let receipts = receipts.map(|(node, receipt)| (NodeName::from(*node), receipt.clone()));
        let namespace = namespace.map(NamespaceName::from);
        let answer = answer(&cluster(), &receipts.collect(), namespace.as_ref(), now());
        let lines = answer.policies.iter().map(|it| {
            let laggards = it.laggards.iter();
            let laggards = laggards.map(|it| format!("; {}: {}", it.node, it.lag.in_words(now())));
            let place = it.policy.namespace.as_deref().unwrap_or("*");
            let (name, laggards) = (&it.policy.name, laggards.collect::<String>());
            format!("{place}/{name} {}/{}{laggards}", it.confirmed, it.nodes)
        });
        lines.collect()
    }

    #[test]
    fn only_policies_that_select_running_pods_are_asked_after() {
        assert_eq!(
            lines(&[], None),
            [
                "*/wide 0/2; one: no receipt; two: no receipt",
                "other/web 0/1; two: no receipt",
                "shop/web 0/1; one: no receipt",
            ]
        );
        let nodes = answer(&cluster(), &BTreeMap::new(), None, now()).nodes;
        let nodes: Vec<&str> = nodes.iter().map(|node| node.node.as_str()).collect();
        assert_eq!(nodes, ["four", "one", "two"]);
    }

    #[test]
    fn a_policy_is_confirmed_in_its_current_generation_by_a_receipt_that_counts() {
        let all = [
            (None, "wide", 1),
            (Some("shop"), "web", 3),
            (Some("other"), "web", 1),
        ];
        let good = receipt("2026-06-01T11:50:00Z", "True", &all);
        assert!(
            answer(
                &cluster(),
                &["one", "two"]
                    .map(|node| (node.into(), good.clone()))
                    .into(),
                None,
                now()
            )
            .is_confirmed()
        );
        let old = receipt("2026-06-01T11:49:59Z", "True", &all);
        let failing = receipt("2026-06-01T11:59:00Z", "False", &all);
        assert_eq!(
            lines(&[("one", old), ("two", failing)], None),
            [
                "*/wide 0/2; one: old receipt: the kernel was read back 10 minutes ago; two: not enforced: no right",
                "other/web 0/1; two: not enforced: no right",
                "shop/web 0/1; one: old receipt: the kernel was read back 10 minutes ago",
            ]
        );
        // The name of a policy counts in its namespace only.
        let behind = receipt(
            "2026-06-01T12:00:00Z",
            "True",
            &[
                (None, "wide", 1),
                (Some("shop"), "web", 2),
                (Some("shop"), "wide", 1),
            ],
        );
        assert_eq!(
            lines(&[("one", behind.clone()), ("two", behind)], None),
            [
                "*/wide 2/2",
                "other/web 0/1; two: the receipt does not name it",
                "shop/web 0/1; one: generation 2 of 3",
            ]
        );
    }

    #[test]
    fn a_policy_on_trial_is_confirmed_as_one_in_force_is() {
        let staged = |generation: i64| {
            let object = json!({
                "apiVersion": "ringfence.dev/v1alpha1", "kind": "StagedNetworkPolicy",
                "metadata": {"name": "web", "namespace": "shop", "generation": generation},
                "spec": {"stage": "Canary", "canary": {"percent": 50}, "podSelector": {"matchLabels": {"app": "web"}}},
            });
            cluster().with(parse(&object).unwrap().unwrap().object)
        };
        let (one, shop) = (NodeName::from("one"), NamespaceName::from("shop"));
        let mut receipt = receipt("2026-06-01T12:00:00Z", "True", &[]);
        let pod = staged(2);
        receipt.policies = HeldPolicy::of(&pod, pod.pods_in(&shop));
        let last = |generation: i64, receipt: &Receipt| {
            let known = [(one.clone(), receipt.clone())].into();
            let mut answer = answer(&staged(generation), &known, Some(&shop), now());
            let last = answer.policies.pop().unwrap();
            assert_eq!(last.policy.kind.as_deref(), Some("StagedNetworkPolicy"));
            assert_eq!(last.policy.stage, Some(crate::netpol::Stage::Canary));
            let mut laggards = last.laggards.iter();
            laggards.next().map(|laggard| laggard.lag.in_words(now()))
        };
        assert_eq!(last(2, &receipt), None);
        assert_eq!(last(3, &receipt).unwrap(), "generation 2 of 3");
        // Of a node with very many policies, the last ones find no place.
        receipt.policy_count = u32::try_from(receipt.policies.len()).unwrap();
        receipt.policies.pop();
        assert_eq!(
            last(2, &receipt).unwrap(),
            "the receipt does not name it, and leaves 1 out for want of room"
        );
    }

    #[test]
    fn a_policy_in_whose_place_another_is_tried_on_all_pods_holds_none() {
        let kinds = |on: &str| {
            let object = json!({
                "apiVersion": "ringfence.dev/v1alpha1", "kind": "StagedNetworkPolicy",
                "metadata": {"name": "web", "namespace": "shop", "generation": 1},
                "spec": {"stage": "Canary", "canary": {"podSelector": {"matchLabels": {"app": on}}}, "podSelector": {"matchLabels": {"app": "web"}}},
            });
            let tried = cluster().with(parse(&object).unwrap().unwrap().object);
            let held = HeldPolicy::of(&tried, tried.pods_in(&NamespaceName::from("shop")));
            let named = held.into_iter().filter(|it| it.name == "web");
            named.map(|it| it.kind).collect::<Vec<_>>()
        };
        let staged = Some("StagedNetworkPolicy".to_owned());
        assert_eq!(kinds("web"), std::slice::from_ref(&staged));
        assert_eq!(kinds("nobody"), [None, staged]);
    }

    #[test]
    fn a_namespace_is_answered_for_by_its_own_pods() {
        assert_eq!(
            lines(&[], Some("other")),
            [
                "*/wide 0/1; two: no receipt",
                "other/web 0/1; two: no receipt"
            ]
        );
    }

    #[test]
    fn what_was_never_read_back_is_not_confirmed() {
        let empty = Receipt::read(&json!({"spec": {"node": "one"}})).unwrap();
        assert_eq!(empty.worth(now()), Worth::Old(None));
        let mut silent = receipt("2026-06-01T12:00:00Z", "True", &[]);
        assert_eq!(silent.worth(now()), Worth::Confirmed);
        silent.conditions.pop();
        assert!(matches!(silent.worth(now()), Worth::Failing { .. }));
        assert!(Receipt::read(&json!({"status": {"policies": 1}})).is_err());
    }
}
