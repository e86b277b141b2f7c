use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::netpol::testing::{Cluster, deployment, namespace, object, patched, pod, policy};
use crate::netpol::{Direction, PortName};

fn service(place: &str) -> Value {
    let (namespace, name) = place.split_once('/').expect("namespace/name");
    let metadata = json!({"namespace": namespace, "name": name});
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 80}]}})
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn a_snapshot_may_be_shared_between_threads() {
    fn is_shareable<T: Send + Sync + Clone>() {}
    is_shareable::<Snapshot>();
}

#[test]
fn what_was_put_in_is_found() {
    let cluster = Cluster::of([
        namespace("b", json!({"team": "x"})),
        pod("a/web", "app=web", ["10.0.0.1"]),
        deployment("a/web", "app=web"),
        service("a/web"),
        policy("a/deny", json!({})),
    ]);
    let snapshot = &cluster.0;
    let names: Vec<&str> = snapshot
        .namespaces()
        .map(|state| state.name().as_str())
        .collect();
    assert_eq!(names, ["a", "b"]);
    let a = NamespaceName::from("a");
    let pods: Vec<String> = snapshot
        .pods_in(&a)
        .map(|pod| pod.workload.to_string())
        .collect();
    assert_eq!(pods, ["Pod a/web", "Deployment a/web"]);
    assert_eq!(snapshot.policies_in(&a).count(), 1);
    assert_eq!(snapshot.services_in(&a).count(), 1);
    assert_eq!(snapshot.pods().count(), 2);
    assert_eq!(snapshot.policies().count(), 1);
    assert!(
        snapshot
            .policy(&PolicyRef::new(a.clone(), "deny"))
            .is_some()
    );
    assert!(
        snapshot
            .namespace(&a)
            .is_some_and(|state| state.object().is_none())
    );
    assert_eq!(
        snapshot.namespace_labels(&"b".into()).to_string(),
        "kubernetes.io/metadata.name=b,team=x"
    );
    assert_eq!(
        snapshot.namespace_labels(&"zzz".into()).to_string(),
        "kubernetes.io/metadata.name=zzz"
    );
}

#[test]
fn a_namespace_that_holds_nothing_any_more_is_forgotten() {
    let cluster = Cluster::of([
        namespace("a", json!({"team": "x"})),
        policy("a/deny", json!({})),
    ]);
    let without = cluster.0.without(&ObjectKey::Namespace("a".into()));
    assert_eq!(
        without.namespace_labels(&"a".into()),
        automatic_labels(&"a".into())
    );
    assert_eq!(
        Cluster(without).without_policy("a", "deny").0,
        Snapshot::default()
    );
    assert_eq!(
        Snapshot::default().without(&ObjectKey::Namespace("a".into())),
        Snapshot::default()
    );
}

#[test]
fn an_address_leads_to_the_pod_that_has_it_now() {
    let at = |cluster: &Cluster, text: &str| {
        cluster
            .0
            .pod_at(address(text))
            .map(|pod| pod.name().to_string())
    };
    let cluster = Cluster::of([pod("a/web", "", ["10.0.0.1", "fd00::1"])]);
    assert_eq!(at(&cluster, "fd00::1"), Some("web".to_owned()));
    assert_eq!(at(&cluster, "::ffff:10.0.0.1"), Some("web".to_owned()));

    let moved = cluster.with(&pod("a/web", "", ["10.0.0.2"]));
    assert_eq!(
        ["10.0.0.1", "fd00::1", "10.0.0.2"].map(|text| at(&moved, text)),
        [None, None, Some("web".to_owned())]
    );

    assert!(matches!(
        moved.0.endpoint_at(address("10.0.0.2")),
        Endpoint::Pod(_)
    ));
    assert!(matches!(
        moved.0.endpoint_at(address("10.0.0.1")),
        Endpoint::External(_)
    ));

    let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let claimed = moved.with(&patched(pod("a/old", "", ["10.0.0.2"]), going));
    assert_eq!(at(&claimed, "10.0.0.2"), Some("web".to_owned()));
    let key = ObjectKey::Workload(claimed.pod("a/web").workload.clone());
    assert_eq!(
        at(&Cluster(claimed.0.without(&key)), "10.0.0.2"),
        Some("old".to_owned())
    );
}

#[test]
fn coverage_is_the_union_of_policies_and_not_their_names() {
    let ingress = json!({"podSelector": {"matchLabels": {"app": "web"}}});
    let cluster = Cluster::of([
        pod("a/web", "app=web", []),
        pod("a/db", "app=db", []),
        policy("a/any-name", ingress),
        policy("a/out", json!({"policyTypes": ["Egress"], "egress": [{}]})),
        policy(
            "b/default-deny",
            json!({"policyTypes": ["Ingress", "Egress"]}),
        ),
    ]);
    let coverage = cluster.0.pod_coverage(cluster.pod("a/web"));
    assert_eq!(coverage.missing(), []);
    assert_eq!(coverage.by(Direction::Ingress)[0].to_string(), "a/any-name");
    assert_eq!(
        cluster.0.pod_coverage(cluster.pod("a/db")).missing(),
        [Direction::Ingress]
    );
    // Only what selects every pod counts for a namespace, since any pod may come to it.
    assert_eq!(
        cluster.0.namespace_coverage(&"a".into()).missing(),
        [Direction::Ingress]
    );
    assert_eq!(cluster.0.namespace_coverage(&"b".into()).missing(), []);
    assert_eq!(
        cluster.0.namespace_coverage(&"c".into()).missing(),
        Direction::BOTH
    );
}

/// A few objects of every kind that often meet: same names, same addresses.
fn any_object() -> impl Strategy<Value = Value> {
    let place = proptest::sample::select(vec!["a/x", "a/y", "b/x"]);
    let four = proptest::sample::select(vec!["10.0.0.1", "10.0.0.2"]);
    let six = proptest::sample::select(vec!["fd00::1", "fd00::2"]);
    let phase = proptest::sample::select(vec!["Running", "Succeeded"]);
    (0..6, place, four, six, phase, any::<bool>()).prop_map(
        |(kind, place, four, six, phase, host)| match kind {
            0 => namespace(&place[..1], json!({"team": phase.to_lowercase()})),
            1 => deployment(place, "app=web"),
            2 => service(place),
            3 => policy(
                place,
                json!({"policyTypes": [if host { "Ingress" } else { "Egress" }]}),
            ),
            _ => {
                let more = json!({"spec": {"hostNetwork": host}, "status": {"phase": phase}});
                patched(pod(place, "app=web", [four, six]), more)
            }
        },
    )
}

proptest! {
    /// Adding, replacing and removing in any order leaves the very snapshot that the remaining objects make from nothing.
    #[test]
    fn changes_equal_building_anew(
        changes in proptest::collection::vec((any_object(), proptest::bool::weighted(0.7)), 0..40)
    ) {
        let mut snapshot = Snapshot::default();
        let mut remaining: BTreeMap<ObjectKey, Object> = BTreeMap::new();
        for (value, is_added) in changes {
            let object = object(&value);
            let key = object.key();
            if is_added {
                remaining.insert(key, object.clone());
                snapshot = snapshot.with(object);
            } else {
                remaining.remove(&key);
                snapshot = snapshot.without(&key);
            }
        }
        let forwards: Snapshot = remaining.values().cloned().collect();
        let backwards: Snapshot = remaining.values().rev().cloned().collect();
        prop_assert_eq!(&snapshot, &forwards);
        prop_assert_eq!(snapshot, backwards);
    }
}

#[test]
fn what_is_the_same_in_pods_of_one_workload_is_held_once() {
    let replica = |name: &str, app: &str| {
        let patch = json!({"spec": {"nodeName": "n", "containers": [
            {"name": "main", "image": "main", "ports": [{"name": "http", "containerPort": 80}]}
        ]}});
        object(&patched(pod(name, app, []), patch))
    };
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}});
    let names = ["a/web-3", "a/web-1", "a/web-2"];
    let objects = names.map(|name| replica(name, "app=web"));
    let snapshot: Snapshot = [object(&node)].into_iter().chain(objects).collect();
    let held = |snapshot: &Snapshot| -> Vec<[*const u8; 4]> {
        let held = snapshot.pods().map(|pod| {
            let port = pod.ports.first().and_then(|port| port.name.as_ref());
            [
                Some(pod.namespace().as_str()),
                pod.node.as_ref().map(NodeName::as_str),
                pod.labels.get("app"),
                port.map(PortName::as_str),
            ]
            .map(|text| text.expect("it is there").as_ptr())
        });
        held.collect()
    };
    let all = held(&snapshot);
    assert!(all.iter().all(|pod| *pod == all[0]), "{all:?}");
    let node = snapshot.node(&"n".into()).expect("the node");
    assert_eq!(all[0][1], node.name.as_str().as_ptr());
    // One that becomes another keeps what it still has in common.
    let other = held(&snapshot.with(replica("a/web-2", "app=db")));
    assert_eq!(other[0], all[0]);
    assert_ne!(other[1][2], all[0][2]);
    assert_eq!(
        [other[1][0], other[1][1], other[1][3]],
        [all[0][0], all[0][1], all[0][3]]
    );
}
