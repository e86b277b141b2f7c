//! Holds exposure equal to what happens: over random clusters, pods with random labels are made in a namespace that is not
//! there yet, or in one that is, and the ports at which they have flows with each workload are those that were told.

use proptest::prelude::*;
use ringfence::netpol::reach::{Exposure, Newcomer, Place, PortSet};
use ringfence::netpol::{
    Direction, Labels, NamespaceName, Port, Protocol, Reachability, Snapshot, WorkloadRef,
};
use serde_json::{Value, json};

use crate::{clusters, random, snapshot};

/// A pod that is not there yet.
#[derive(Clone, Debug)]
struct New {
    namespace: &'static str,
    namespace_labels: Value,
    labels: Value,
    /// Whether a policy of its own isolates it, and allows everything.
    has_policy: bool,
}

fn any_new() -> impl Strategy<Value = New> {
    let namespace = prop_oneof![3 => Just("new"), 1 => Just("a")];
    let labels = (
        clusters::any_labels(),
        clusters::any_labels(),
        any::<bool>(),
    );
    (namespace, labels).prop_map(|(namespace, (namespace_labels, labels, has_policy))| New {
        namespace,
        namespace_labels,
        labels,
        has_policy: has_policy && namespace == "new",
    })
}

/// The port that a newcomer has a name for, which no rule speaks of by number.
const OWN: u16 = 30_000;

impl New {
    fn objects(&self, direction: Direction) -> Vec<Value> {
        let mut objects = vec![json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "newcomer", "namespace": self.namespace, "labels": self.labels},
            "spec": {"containers": [{"name": "main", "ports": [{"name": "web", "containerPort": OWN}]}]},
        })];
        if self.namespace == "new" {
            objects.push(json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": "new", "labels": self.namespace_labels}
            }));
        }
        if self.has_policy {
            let (isolated, rules) = match direction {
                Direction::Ingress => ("Egress", "egress"),
                Direction::Egress => ("Ingress", "ingress"),
            };
            objects.push(json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"name": "own", "namespace": "new"},
                "spec": {"podSelector": {}, "policyTypes": [isolated], rules: [{}]}
            }));
        }
        objects
    }

    fn is(&self, who: &Newcomer, namespace: &Labels, labels: &Labels) -> bool {
        match who {
            Newcomer::Anyone => true,
            Newcomer::In { namespace, pods } => {
                namespace.as_str() == self.namespace && pods.matches(labels)
            }
            Newcomer::Selected { namespaces, pods } => {
                namespaces.matches(namespace) && pods.matches(labels)
            }
        }
    }
}

/// What was met: newcomers with ports, without, let in by a policy of their own, called by name.
type Met = [u32; 4];

fn check(objects: &[Value], new: &New, met: &mut Met) -> Result<(), TestCaseError> {
    let before = snapshot(objects);
    let reach = Reachability::of(&before);
    for direction in Direction::BOTH {
        let mut all = objects.to_vec();
        all.extend(new.objects(direction));
        let after = snapshot(&all);
        let there = Reachability::of(&after);
        let namespace = NamespaceName::from(new.namespace);
        let own = after
            .pods_in(&namespace)
            .find(|pod| pod.workload.name == "newcomer")
            .expect("the newcomer");
        let opposite = match direction {
            Direction::Ingress => Direction::Egress,
            Direction::Egress => Direction::Ingress,
        };
        let is_isolated = after.pod_coverage(own).covered(opposite);
        let labels = after.namespace_labels(&namespace);
        for workload in reach.workloads() {
            let told = reach.exposure(workload, direction).expect("few scopes");
            let real = flows(&before, &there, workload, &own.workload, direction);
            let meant = told
                .iter()
                .filter(|one| new.is(&one.who, &labels, &own.labels));
            let meant: Vec<&Exposure> = meant.collect();
            let mut ports = PortSet::none();
            let mut web = false;
            for one in meant {
                ports = ports.or(&one.at.ports);
                let is_web = |(protocol, name): &(Protocol, ringfence::netpol::PortName)| {
                    *protocol == Protocol::Tcp && name.as_str() == "web"
                };
                web |= one.at.named.iter().any(is_web);
                if is_isolated {
                    ports = ports.or(&one.if_allowed.ports);
                    web |= one.if_allowed.named.iter().any(is_web);
                    met[2] += u32::from(!one.if_allowed.is_empty());
                }
            }
            let what = format!("{workload} {direction} {new:?}: {told:?}");
            if new.namespace == "a" && is_isolated {
                // What its namespace allows is not asked.
                let more = real.without(&ports);
                let more = more.without(&PortSet::one(Protocol::Tcp, own_port()));
                prop_assert!(more.is_empty(), "{} {}", more, what);
                continue;
            }
            met[usize::from(ports.is_empty())] += 1;
            let named = PortSet::one(Protocol::Tcp, own_port());
            prop_assert_eq!(real.without(&named), ports.without(&named), "{}", what);
            if direction == Direction::Egress {
                let has = real.contains(Protocol::Tcp, own_port());
                met[3] += u32::from(web);
                prop_assert!(!web || has, "{}", what);
                prop_assert!(
                    !has || web || ports.contains(Protocol::Tcp, own_port()),
                    "{}",
                    what
                );
            } else {
                prop_assert_eq!(real, ports, "{}", what);
            }
        }
    }
    Ok(())
}

fn own_port() -> Port {
    Port::new(OWN).expect("a port")
}

/// The ports at which pods of a workload really have flows with a newcomer.
fn flows(
    before: &Snapshot,
    there: &Reachability,
    workload: &WorkloadRef,
    newcomer: &WorkloadRef,
    direction: Direction,
) -> PortSet {
    let mut ports = PortSet::none();
    for pod in before.pods_in(&workload.namespace) {
        if pod.is_finished() || before.root(pod) != *workload {
            continue;
        }
        let (own, other) = (Place::Pod(&pod.workload), Place::Pod(newcomer));
        ports = ports.or(&match direction {
            Direction::Ingress => there.between(other, own),
            Direction::Egress => there.between(own, other),
        });
    }
    ports
}

#[test]
fn newcomers_have_the_flows_that_were_told() {
    let met = std::cell::Cell::new(Met::default());
    let cluster = (clusters::any_cluster(), any_new());
    random::hold(384, &cluster, |(objects, new)| {
        let mut own = met.get();
        let outcome = check(&objects, &new, &mut own);
        met.set(own);
        outcome
    });
    let met = met.get();
    assert!(
        met.iter()
            .zip([100, 100, 5, 5])
            .all(|(met, least)| *met >= least),
        "{met:?}"
    );
}

#[test]
fn tiers_are_told_in_few_words() {
    let namespace = |name: &str, tier: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"tier": tier}}});
    let db = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "db", "namespace": "data", "labels": {"app": "db"}},
        "spec": {"containers": [{"name": "main"}]}, "status": {"phase": "Running", "podIP": "10.0.0.1"},
    });
    let admin = json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {"name": "admin"},
        "spec": {
            "tier": "Admin", "priority": 10, "subject": {"namespaces": {"matchLabels": {"tier": "data"}}},
            "ingress": [
                {"action": "Accept", "from": [{"namespaces": {"matchLabels": {"tier": "ops"}}}],
                 "protocols": [{"tcp": {"destinationPort": {"number": 9090}}}]},
                {"action": "Deny", "from": [{"namespaces": {"matchLabels": {"tier": "dev"}}}]},
            ]
        }
    });
    let clients = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "clients", "namespace": "data"},
        "spec": {"podSelector": {}, "ingress": [{
            "from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"db": "client"}}}], "ports": [{"port": 5432}]
        }]}
    });
    let baseline = json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {"name": "base"},
        "spec": {
            "tier": "Baseline", "priority": 10, "subject": {"namespaces": {"matchLabels": {"tier": "web"}}},
            "egress": [{"action": "Deny", "to": [{"networks": ["0.0.0.0/0", "::/0"]}]}]
        }
    });
    let told = |objects: &[Value]| -> Vec<String> {
        let reach = Reachability::of(&snapshot(objects));
        let workloads = reach.workloads();
        let all = workloads.iter().flat_map(|workload| {
            let told = reach.exposure(workload, Direction::Ingress);
            told.expect("few scopes")
        });
        all.map(|one| format!("{}: {}", one.who, one.ports()))
            .collect()
    };
    let mut objects = vec![namespace("data", "data"), db, clients];
    assert_eq!(
        told(&objects),
        ["any pod with db=client in any namespace: TCP 5432"]
    );
    objects.push(admin);
    assert_eq!(
        told(&objects),
        [
            "any pod in any namespace with tier=ops: TCP 9090",
            "any pod with db=client in any namespace with tier!=dev: TCP 5432",
        ]
    );
    objects.push(baseline);
    assert_eq!(
        told(&objects),
        [
            "any pod in any namespace with tier=ops: TCP 9090",
            "any pod with db=client in any namespace with tier=web: TCP 5432 where a policy of its own namespace allows it",
            "any pod with db=client in any namespace with tier notin (dev,web): TCP 5432",
        ]
    );
}
