//! The smallest change of network policies that lets a flow pass, tried out before it is told.
//!
//! A rule of the Admin tier is the administrator's: no network policy overrides it, and none is proposed. One of the Baseline
//! tier is overridden by any network policy for the pod.

use serde_json::{Value, json};

use super::{Change, opposite, own};
use crate::netpol::cluster_policy::Tier;
use crate::netpol::coverage::Direction;
use crate::netpol::flow::{Endpoint, Flow};
use crate::netpol::labels::{Labels, NAMESPACE_NAME_LABEL, NAMING, VOLATILE};
use crate::netpol::name::PolicyRef;
use crate::netpol::net::Family;
use crate::netpol::object::Object;
use crate::netpol::parse;
use crate::netpol::pod::Pod;
use crate::netpol::policy::NetworkPolicy;
use crate::netpol::selector::Selector;
use crate::netpol::snapshot::Snapshot;
use crate::netpol::verdict::{EndVerdict, Verdict};

impl Snapshot {
    pub(super) fn changes(&self, flow: &Flow<'_>, verdict: &Verdict) -> Vec<Change> {
        let mut tried = self.clone();
        let mut changes = Vec::new();
        for direction in [Direction::Egress, Direction::Ingress] {
            match verdict.at(direction) {
                EndVerdict::Ruled(ruled) if ruled.accepts => continue,
                EndVerdict::Ruled(ruled) if ruled.by.tier == Tier::Admin => return Vec::new(),
                EndVerdict::Denied { .. } | EndVerdict::Ruled(_) => {}
                EndVerdict::NotIsolated
                | EndVerdict::NotHeld(_)
                | EndVerdict::Allowed { .. }
                | EndVerdict::NoAddress => continue,
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
        let is_own = |policy: &&&NetworkPolicy| {
            policy.standing.is_for_all() && policy.selector.implies(&telling)
        };
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
                isolates: false,
                manifest: rule,
            };
            return Some((change, policy));
        }
        let namespace = pod.namespace();
        let wanted = format!("{}-{direction}", pod.name());
        let name = PolicyRef::new(namespace.clone(), self.free_policy_name(namespace, &wanted));
        let manifest = manifest(&name, &own_labels, direction, &rule);
        let policy = read(&manifest)?;
        let change = Change {
            direction,
            policy: name,
            is_new: true,
            isolates: isolating.is_empty(),
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
