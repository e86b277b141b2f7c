//! One flow, step by step: which rules were asked at each end, what each said, and what would let it pass.
//!
//! Every step is asked of [`Snapshot::verdict`] itself, in a cluster where the rule in question is the only one, so that an
//! explanation cannot tell another story than the verdict. What is proposed is tried out before it is told.

use serde_json::{Value, json};

use crate::netpol::coverage::Direction;
use crate::netpol::flow::{Endpoint, Flow};
use crate::netpol::labels::{Labels, NAMESPACE_NAME_LABEL, NAMING, VOLATILE};
use crate::netpol::name::PolicyRef;
use crate::netpol::net::Family;
use crate::netpol::object::{Object, ObjectKey};
use crate::netpol::pod::Pod;
use crate::netpol::policy::{Isolates, Isolation, NetworkPolicy, Peers, Ports, Rule};
use crate::netpol::snapshot::{NamespaceState, Snapshot};
use crate::netpol::verdict::{EndVerdict, Verdict};
use crate::netpol::{parse, selector::Selector};

/// Why a flow passes or does not.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// What the policies say.
    pub verdict: Verdict,
    /// What each rule at the source said.
    pub egress: Vec<Step>,
    /// What each rule at the destination said.
    pub ingress: Vec<Step>,
    /// What would let the flow pass, where policies deny it and one could: all of it, or nothing of it.
    pub changes: Vec<Change>,
}

/// One rule, and what it says of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The policy.
    pub policy: PolicyRef,
    /// Where the rule stands in it; none for a policy that isolates and has no rule at all.
    pub index: Option<usize>,
    /// Whether the other end is one of its peers.
    pub peer: bool,
    /// Whether it is for the port.
    pub port: bool,
}

/// A rule to add so that an end lets a flow pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// At which end.
    pub direction: Direction,
    /// The policy that it belongs to.
    pub policy: PolicyRef,
    /// Whether that policy is yet to be made.
    pub is_new: bool,
    /// The rule alone, or the whole of a new policy.
    pub manifest: Value,
}

impl Snapshot {
    /// Why a flow passes or does not, and what would let it.
    pub fn explain(&self, flow: &Flow<'_>) -> Explanation {
        let verdict = self.verdict(flow);
        // The steps are those over the family of addresses that the verdict is about.
        let mut families = Family::BOTH.into_iter().map(|family| flow.over(family));
        let flow = if flow.family.is_some() {
            *flow
        } else {
            let alike = families.find(|flow| self.verdict(flow) == verdict);
            alike.unwrap_or(*flow)
        };
        Explanation {
            egress: self.steps(&flow, Direction::Egress),
            ingress: self.steps(&flow, Direction::Ingress),
            changes: self.changes(&flow, &verdict),
            verdict,
        }
    }

    fn steps(&self, flow: &Flow<'_>, direction: Direction) -> Vec<Step> {
        let Some(pod) = own(flow, direction).selectable() else {
            return Vec::new();
        };
        let alone = self.without_policies(flow);
        let mut steps = Vec::new();
        for policy in self.isolating(pod, direction) {
            let rules = policy.rules(direction);
            if rules.is_empty() {
                steps.push(Step {
                    policy: policy.reference(),
                    index: None,
                    peer: false,
                    port: false,
                });
            }
            for (index, rule) in rules.iter().enumerate() {
                let says = |rule: Rule| {
                    let only = alone.with(Object::NetworkPolicy(of_one(policy, direction, rule)));
                    only.verdict(flow).at(direction).passes()
                };
                steps.push(Step {
                    policy: policy.reference(),
                    index: Some(index),
                    peer: says(Rule {
                        peers: rule.peers.clone(),
                        ports: Ports::Any,
                    }),
                    port: says(Rule {
                        peers: Peers::Any,
                        ports: rule.ports.clone(),
                    }),
                });
            }
        }
        steps
    }

    /// The same cluster without the policies at both ends of a flow.
    fn without_policies(&self, flow: &Flow<'_>) -> Snapshot {
        let mut without = self.clone();
        for pod in [flow.from, flow.to]
            .into_iter()
            .filter_map(Endpoint::selectable)
        {
            for policy in self.policies_in(pod.namespace()) {
                without.remove(&ObjectKey::NetworkPolicy(policy.reference()));
            }
        }
        without
    }

    fn isolating<'s>(&'s self, pod: &'s Pod, direction: Direction) -> Vec<&'s NetworkPolicy> {
        self.namespace(pod.namespace())
            .into_iter()
            .flat_map(NamespaceState::effective_policies)
            .filter(|policy| policy.isolates_pod(pod, direction))
            .collect()
    }

    fn changes(&self, flow: &Flow<'_>, verdict: &Verdict) -> Vec<Change> {
        let mut tried = self.clone();
        let mut changes = Vec::new();
        for direction in [Direction::Egress, Direction::Ingress] {
            if !matches!(verdict.at(direction), EndVerdict::Denied { .. }) {
                continue;
            }
            // Both ends may be in need of the same policy.
            let Some((change, policy)) = tried.change(flow, direction) else {
                return Vec::new();
            };
            tried.insert(Object::NetworkPolicy(policy));
            changes.push(change);
        }
        // A proposal that does not do what it is for is worse than none.
        if tried.verdict(flow).allowed() {
            changes
        } else {
            Vec::new()
        }
    }

    /// The rule for just this flow, and the policy with it: one that selects this workload's pods only, or a new one.
    fn change(&self, flow: &Flow<'_>, direction: Direction) -> Option<(Change, NetworkPolicy)> {
        let (pod, other) = (
            own(flow, direction).selectable()?,
            own(flow, opposite(direction)),
        );
        let peers = match direction {
            Direction::Ingress => "from",
            Direction::Egress => "to",
        };
        let peer = self.peer(pod, other, flow.family)?;
        let rule = json!({
            peers: [peer],
            "ports": [{"protocol": flow.protocol, "port": flow.port}],
        });
        let own_labels = self.telling(pod);
        let telling = Selector::of_labels(&own_labels);
        let isolating = self.isolating(pod, direction);
        let is_own = |policy: &&&NetworkPolicy| policy.selector.implies(&telling);
        if let Some(policy) = isolating.iter().find(is_own) {
            let parsed = read(&manifest(
                &policy.reference(),
                &own_labels,
                direction,
                &rule,
            ))?;
            let mut policy = (*policy).clone();
            let rules = match direction {
                Direction::Ingress => &mut policy.ingress,
                Direction::Egress => &mut policy.egress,
            };
            rules.extend(parsed.rules(direction).iter().cloned());
            let change = Change {
                direction,
                policy: policy.reference(),
                is_new: false,
                manifest: rule,
            };
            return Some((change, policy));
        }
        let name = PolicyRef {
            namespace: pod.namespace().clone(),
            name: self.free_name(pod, direction).as_str().into(),
        };
        let manifest = manifest(&name, &own_labels, direction, &rule);
        let policy = read(&manifest)?;
        let change = Change {
            direction,
            policy: name,
            is_new: true,
            manifest,
        };
        Some((change, policy))
    }

    /// The other end as a peer; none where no peer can mean it.
    fn peer(&self, pod: &Pod, other: Endpoint<'_>, family: Option<Family>) -> Option<Value> {
        if let Some(other) = other.selectable() {
            let pods = selector(&self.telling(other));
            if other.namespace() == pod.namespace() {
                return Some(json!({"podSelector": pods}));
            }
            let namespace = json!({"matchLabels": {NAMESPACE_NAME_LABEL: other.namespace()}});
            return Some(json!({"namespaceSelector": namespace, "podSelector": pods}));
        }
        let addresses = other.addresses();
        let mut addresses = addresses.into_iter();
        let address =
            addresses.find(|address| family.is_none_or(|family| family == Family::of(*address)))?;
        let block = ipnet::IpNet::from(address).to_string();
        Some(json!({"ipBlock": {"cidr": block}}))
    }

    /// The fewest labels that tell a workload's pods from the others of its namespace, or all that last.
    fn telling(&self, pod: &Pod) -> Labels {
        let is_alike = |one: &Pod| {
            one.workload == pod.workload
                || one.owner.is_some() && one.owner == pod.owner
                || one.owner.as_ref() == Some(&pod.workload)
                || pod.owner.as_ref() == Some(&one.workload)
        };
        for key in NAMING {
            if let Some(value) = pod.labels.get(key) {
                let mut others = self.pods_in(pod.namespace()).filter(|one| !is_alike(one));
                if !others.any(|other| other.labels.get(key) == Some(value)) {
                    return Labels::from([(key, value)]);
                }
            }
        }
        let lasting = pod.labels.iter().filter(|(key, _)| !VOLATILE.contains(key));
        lasting.collect()
    }

    /// A name for a policy that is not taken yet.
    fn free_name(&self, pod: &Pod, direction: Direction) -> String {
        let base = format!("{}-{direction}", pod.name());
        let is_taken = |name: &str| {
            let mut policies = self.policies_in(pod.namespace());
            policies.any(|policy| policy.name == *name)
        };
        if !is_taken(&base) {
            return base;
        }
        let mut numbered = (2..).map(|number: u64| format!("{base}-{number}"));
        numbered.find(|name| !is_taken(name)).unwrap_or(base)
    }
}

impl Step {
    /// Whether it lets the flow pass.
    pub fn allows(&self) -> bool {
        self.peer && self.port
    }
}

/// The end that a direction belongs to.
fn own<'a>(flow: &Flow<'a>, direction: Direction) -> Endpoint<'a> {
    match direction {
        Direction::Ingress => flow.to,
        Direction::Egress => flow.from,
    }
}

fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::Ingress => Direction::Egress,
        Direction::Egress => Direction::Ingress,
    }
}

/// A policy that isolates in one direction and has one rule there.
fn of_one(policy: &NetworkPolicy, direction: Direction, rule: Rule) -> NetworkPolicy {
    let (mut ingress, mut egress) = (Vec::new(), Vec::new());
    let isolates = match direction {
        Direction::Ingress => {
            ingress.push(rule);
            Isolation {
                ingress: Isolates::Yes,
                egress: Isolates::No,
            }
        }
        Direction::Egress => {
            egress.push(rule);
            Isolation {
                ingress: Isolates::No,
                egress: Isolates::Yes,
            }
        }
    };
    NetworkPolicy {
        isolates,
        ingress,
        egress,
        ..policy.clone()
    }
}

fn selector(labels: &Labels) -> Value {
    if labels.is_empty() {
        return json!({});
    }
    json!({"matchLabels": labels})
}

fn manifest(name: &PolicyRef, labels: &Labels, direction: Direction, rule: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name.name, "namespace": name.namespace},
        "spec": {
            "podSelector": selector(labels),
            "policyTypes": [direction.policy_type()],
            direction.field(): [rule],
        },
    })
}

fn read(manifest: &Value) -> Option<NetworkPolicy> {
    match parse(manifest).ok()??.object {
        Object::NetworkPolicy(policy) => Some(policy),
        _ => None,
    }
}
