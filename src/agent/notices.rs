//! Denied packets as Kubernetes Events on the pod that its policies held: what `kubectl describe pod` shows to who wonders.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ObjectReference;

use super::flows::{Record, Verdict};
use crate::k8s::events::{DENIED, Notice, Weight};
use crate::netpol::{Direction, Snapshot, WorkloadKind, WorkloadRef};

/// What is to be told of denied packets; nothing where the pod is gone meanwhile, or where they were let pass.
pub(super) fn denied(record: &Record, snapshot: &Snapshot) -> Option<Notice> {
    let Record { kind, details, .. } = record;
    if kind.verdict != Verdict::Denied {
        return None;
    }
    let is_incoming = details.direction == Direction::Ingress.field();
    // The one that sent is the first, and the one that would have received is the last.
    let (held, action) = if is_incoming {
        (details.pods.last()?, "Receive")
    } else {
        (details.pods.first()?, "Send")
    };
    let (namespace, name) = held.split_once('/')?;
    let pod = snapshot.pod(&WorkloadRef {
        kind: WorkloadKind::Pod,
        namespace: namespace.into(),
        name: name.into(),
    })?;
    let port = match kind.port {
        0 => String::new(),
        port => format!(" {port}"),
    };
    let (from, to, protocol) = (&kind.from, &kind.to, &kind.protocol);
    let way = if is_incoming {
        format!("from {from} at {protocol}{port}")
    } else {
        format!("to {to} at {protocol}{port}")
    };
    Some(Notice {
        regarding: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            uid: pod.uid.map(|uid| uid.to_string()),
            ..ObjectReference::default()
        },
        weight: Weight::Warning,
        reason: DENIED,
        action,
        note: format!("{} {way}: {}", details.direction, details.reason),
        annotations: BTreeMap::new(),
        key: format!("{held} {way}"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::flows::{Details, End, Kind};
    use super::*;
    use crate::netpol::parse;
    use jiff::Timestamp;
    use serde_json::json;

    const UID: &str = "6c2f1a9e-0b1d-4f5e-8a77-0123456789ab";

    fn record(direction: Direction, pods: &[&str]) -> Record {
        let end = |name: &str| End {
            namespace: Some("shop".to_owned()),
            workload: Some(name.to_owned()),
            ..End::default()
        };
        Record {
            time: Timestamp::UNIX_EPOCH,
            kind: Kind {
                from: end("Deployment/web"),
                to: end("StatefulSet/db"),
                protocol: "TCP".to_owned(),
                port: 5432,
                verdict: Verdict::Denied,
            },
            count: 3,
            details: Details {
                direction: direction.to_string(),
                node: "n1".to_owned(),
                policies: Vec::new(),
                reason: "does not pass".to_owned(),
                pods: pods.iter().map(|pod| (*pod).to_owned()).collect(),
            },
        }
    }

    fn cluster() -> Snapshot {
        let pod = |name: &str| {
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"namespace": "shop", "name": name, "uid": UID},
                "spec": {"containers": [{"name": "main", "image": "main"}]},
            })
        };
        let object = |name| parse(&pod(name)).unwrap().unwrap().object;
        ["web-1", "db-0"].into_iter().map(object).collect()
    }

    #[test]
    fn the_pod_that_was_held_is_told_of_what_it_lost() {
        let both = ["shop/web-1", "shop/db-0"];
        let incoming = denied(&record(Direction::Ingress, &both), &cluster()).unwrap();
        assert_eq!(incoming.regarding.name.as_deref(), Some("db-0"));
        assert_eq!(incoming.regarding.uid.as_deref(), Some(UID));
        assert_eq!(
            incoming.note,
            "ingress from shop/Deployment/web at TCP 5432: does not pass"
        );
        let outgoing = denied(&record(Direction::Egress, &both), &cluster()).unwrap();
        assert_eq!(outgoing.regarding.name.as_deref(), Some("web-1"));
        assert_eq!(
            outgoing.note,
            "egress to shop/StatefulSet/db at TCP 5432: does not pass"
        );
        assert_ne!(incoming.key, outgoing.key);
    }

    #[test]
    fn nothing_is_told_of_what_passed_or_of_a_pod_that_is_gone() {
        let mut record = record(Direction::Ingress, &["shop/web-9", "shop/db-9"]);
        assert_eq!(denied(&record, &cluster()), None);
        record.details.pods = vec!["shop/db-0".to_owned()];
        assert!(denied(&record, &cluster()).is_some());
        record.kind.verdict = Verdict::Allowed;
        assert_eq!(denied(&record, &cluster()), None);
    }
}
