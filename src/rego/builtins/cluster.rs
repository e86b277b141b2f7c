//! The builtins `ringfence.*`: what the model of the cluster knows, for users' own policies. And the clock.
//!
//! A question that makes no sense (an address that is none, a pod that is not there) has no answer: it is undefined.

use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};
use regorus::Value;

use super::{Supplied, text};
use crate::netpol::near_miss::near_miss;
use crate::netpol::{
    Coverage, Direction, EndVerdict, Endpoint, FieldPath, Flow, Labels, NamespaceName, Pod,
    PolicyRef, Port, Protocol, Segment, Snapshot, Verdict, WorkloadKind, WorkloadRef,
};
use crate::rego::context;
use crate::rego::value::{array, object, string};

/// These builtins.
pub(super) const ALL: &[Supplied] = &[
    Supplied {
        name: "ringfence.allowed",
        arguments: 4,
        call: allowed,
    },
    Supplied {
        name: "ringfence.covered",
        arguments: 2,
        call: covered,
    },
    Supplied {
        name: "ringfence.namespace_labels",
        arguments: 1,
        call: namespace_labels,
    },
    Supplied {
        name: "ringfence.near_miss",
        arguments: 2,
        call: nearly,
    },
    Supplied {
        name: "ringfence.verdict",
        arguments: 4,
        call: verdict,
    },
    Supplied {
        name: "time.now_ns",
        arguments: 0,
        call: now,
    },
];

/// Those by which a policy may ask about other namespaces than that of its object.
pub(in crate::rego) const FAR: [&str; 4] = [
    "ringfence.allowed",
    "ringfence.covered",
    "ringfence.namespace_labels",
    "ringfence.verdict",
];

/// An end of a flow that a policy asks about.
enum End {
    Pod(Box<Pod>),
    Address(IpAddr),
}

/// `ringfence.near_miss(word, candidates)`: the candidate that the word is a typo of, or `null`.
fn nearly(args: &[Value]) -> Result<Value> {
    let [word, candidates] = args else {
        bail!("expects 2 arguments")
    };
    let word = text(word)?;
    let found = match candidates {
        Value::Array(items) => near_miss(word, items.iter().filter_map(|item| text(item).ok())),
        Value::Set(items) => near_miss(word, items.iter().filter_map(|item| text(item).ok())),
        _ => bail!("expects an array or a set of strings"),
    };
    Ok(found.map_or(Value::Null, string))
}

/// `ringfence.covered(namespace, labels)`: whether policies isolate a pod with these labels there, and which.
fn covered(args: &[Value]) -> Result<Value> {
    let [namespace, labels] = args else {
        bail!("expects 2 arguments")
    };
    let pod = pod_with(text(namespace)?, "(pod)", labels)?;
    in_cluster(|snapshot| Ok(coverage(&snapshot.pod_coverage(&pod))))
}

/// `ringfence.allowed(from, to, protocol, port)`: whether a connection may be made.
fn allowed(args: &[Value]) -> Result<Value> {
    judge(args, |verdict| Value::Bool(verdict.allowed()))
}

/// `ringfence.verdict(from, to, protocol, port)`: whether a connection may be made, and why.
fn verdict(args: &[Value]) -> Result<Value> {
    judge(args, |verdict| {
        object([
            ("allowed", Value::Bool(verdict.allowed())),
            ("reason", string(&verdict.to_string())),
            ("egress", end(&verdict.egress)),
            ("ingress", end(&verdict.ingress)),
        ])
    })
}

/// `ringfence.namespace_labels(name)`: the labels of a namespace; of an unknown one only its name.
fn namespace_labels(args: &[Value]) -> Result<Value> {
    let [namespace] = args else {
        bail!("expects 1 argument")
    };
    let namespace = NamespaceName::from(text(namespace)?);
    in_cluster(|snapshot| Ok(labels_of(&snapshot.namespace_labels(&namespace))))
}

/// `time.now_ns()`: the time of the request, the same for all that is asked about it.
fn now(_: &[Value]) -> Result<Value> {
    let now =
        context::look(|context| context.now.as_nanosecond()).context("there is no request")?;
    Ok(i64::try_from(now).map(Value::from)?)
}

/// The coverage of a pod or a namespace as policies see it.
pub(in crate::rego) fn coverage(coverage: &Coverage) -> Value {
    let names = |direction| policies(coverage.by(direction));
    object([
        ("ingress", Value::Bool(coverage.covered(Direction::Ingress))),
        ("egress", Value::Bool(coverage.covered(Direction::Egress))),
        (
            "by",
            object([
                ("ingress", names(Direction::Ingress)),
                ("egress", names(Direction::Egress)),
            ]),
        ),
    ])
}

/// Labels as policies see them.
pub(in crate::rego) fn labels_of(labels: &Labels) -> Value {
    object(labels.iter().map(|(key, value)| (key, string(value))))
}

fn policies(policies: &[PolicyRef]) -> Value {
    array(policies.iter().map(|policy| string(policy.name.as_str())))
}

fn in_cluster<R>(ask: impl FnOnce(&Snapshot) -> Result<R>) -> Result<R> {
    context::look(|context| ask(&context.snapshot)).context("there is no request")?
}

fn judge(args: &[Value], answer: impl FnOnce(&Verdict) -> Value) -> Result<Value> {
    let [from, to, protocol, port] = args else {
        bail!("expects 4 arguments")
    };
    let protocol = text(protocol)?;
    let protocol = Protocol::ALL
        .into_iter()
        .find(|known| known.as_str().eq_ignore_ascii_case(protocol))
        .with_context(|| format!("`{protocol}` is not TCP, UDP or SCTP"))?;
    let port = port
        .as_u16()
        .ok()
        .and_then(|port| Port::try_from(port).ok())
        .context("expects a port from 1 to 65535")?;
    in_cluster(|snapshot| {
        let (from, to) = (
            End::of(from, "(from)", snapshot)?,
            End::of(to, "(to)", snapshot)?,
        );
        Ok(answer(&snapshot.verdict(&Flow::new(
            from.endpoint(),
            to.endpoint(),
            protocol,
            port,
        ))))
    })
}

fn end(verdict: &EndVerdict) -> Value {
    object([
        ("passes", Value::Bool(verdict.passes())),
        ("reason", string(&verdict.to_string())),
        ("isolatedBy", policies(verdict.isolated_by())),
        ("allowedBy", allowed_by(verdict)),
    ])
}

/// The rule that lets a flow pass, `{policy, field}`, with `clusterPolicy` and its `kind` for one of the whole cluster; `null` where none does or none is needed.
fn allowed_by(verdict: &EndVerdict) -> Value {
    let steps = |field: FieldPath| {
        let steps = field.segments().iter().map(|step| match step {
            Segment::Key(key) => string(key),
            Segment::Index(index) => Value::from(*index),
        });
        array(steps)
    };
    match verdict {
        EndVerdict::Allowed { by, .. } => object([
            ("policy", string(by.policy.name.as_str())),
            ("field", steps(by.field())),
        ]),
        EndVerdict::Ruled(ruled) if ruled.accepts => object([
            ("clusterPolicy", string(ruled.by.policy.name.as_str())),
            ("kind", string(ruled.by.policy.kind.as_str())),
            ("field", steps(ruled.by.field())),
        ]),
        EndVerdict::NotIsolated
        | EndVerdict::NotHeld(_)
        | EndVerdict::Denied { .. }
        | EndVerdict::Ruled(_)
        | EndVerdict::NoAddress => Value::Null,
    }
}

/// A pod of which nothing is known but its namespace and labels. Its name is one that no pod can have: pods of the
/// same name would be the same pod, which cannot block itself.
fn pod_with(namespace: &str, name: &str, labels: &Value) -> Result<Pod> {
    let Value::Object(fields) = labels else {
        bail!("expects labels as an object")
    };
    let labels = fields
        .iter()
        .map(|(key, value)| Ok((text(key)?, text(value)?)))
        .collect::<Result<Labels>>()?;
    let workload = WorkloadRef {
        kind: WorkloadKind::Pod,
        namespace: namespace.into(),
        name: name.into(),
    };
    Ok(Pod {
        labels,
        ..Pod::new(workload)
    })
}

// === impl End ===

impl End {
    /// `{namespace, labels}`, `{namespace, name}` (with `kind` where it is no pod's) or `{ip}`.
    fn of(value: &Value, unnamed: &str, snapshot: &Snapshot) -> Result<Self> {
        let field = |name: &str| match &value[name] {
            Value::Undefined => None,
            value => Some(value),
        };
        if let Some(address) = field("ip") {
            let address: IpAddr = text(address)?
                .parse()
                .context("expects an address as `ip`")?;
            return Ok(match snapshot.pod_at(address) {
                Some(pod) => Self::Pod(Box::new(pod.clone())),
                None => Self::Address(address),
            });
        }
        let namespace = text(
            field("namespace").context("expects `namespace` and `labels` or `name`, or `ip`")?,
        )?;
        if let Some(labels) = field("labels") {
            return Ok(Self::Pod(Box::new(pod_with(namespace, unnamed, labels)?)));
        }
        let name = text(field("name").context("expects `labels` or `name` beside `namespace`")?)?;
        let kind = field("kind").map(text).transpose()?;
        let is_it = |workload: &WorkloadRef| {
            workload.name.as_str() == name && kind.is_none_or(|kind| workload.kind.as_str() == kind)
        };
        let namespace = NamespaceName::from(namespace);
        snapshot
            .pods_in(&namespace)
            .find(|pod| is_it(&pod.workload) || pod.owner.as_ref().is_some_and(is_it))
            .map(|pod| Self::Pod(Box::new(pod.clone())))
            .with_context(|| format!("there is no pod or workload `{name}` in `{namespace}`"))
    }

    fn endpoint(&self) -> Endpoint<'_> {
        match self {
            Self::Pod(pod) => Endpoint::Pod(pod),
            Self::Address(address) => Endpoint::External(*address),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::netpol;
    use crate::rego::value::{from_json, to_json};

    fn shop() -> Snapshot {
        [
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"team": "shop"}}}),
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "db", "namespace": "shop", "labels": {"app": "db"}},
                "spec": {"containers": [{"name": "db", "image": "db"}]}, "status": {"podIP": "10.0.0.7"}}),
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"name": "db", "namespace": "shop"},
                "spec": {"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [
                    {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 5432}]}]}}),
        ]
        .iter()
        .fold(Snapshot::default(), |snapshot, object| snapshot.with(netpol::parse(object).unwrap().unwrap().object))
    }

    fn call(name: &str, args: &serde_json::Value) -> serde_json::Value {
        let _entered = context::enter(context::Context {
            snapshot: shop(),
            now: "2026-11-21T10:00:00Z".parse().unwrap(),
        });
        let args: Vec<_> = args.as_array().unwrap().iter().map(from_json).collect();
        let supplied = ALL.iter().find(|supplied| supplied.name == name).unwrap();
        match (supplied.call)(&args) {
            Ok(value) => to_json(&value).unwrap(),
            Err(error) => json!({"error": error.to_string()}),
        }
    }

    #[test]
    fn coverage_is_told_by_direction_with_the_policies() {
        assert_eq!(
            call("ringfence.covered", &json!(["shop", {"app": "db"}])),
            json!({"ingress": true, "egress": false, "by": {"ingress": ["db"], "egress": []}})
        );
        assert_eq!(
            call("ringfence.covered", &json!(["shop", {"app": "web"}]))["ingress"],
            json!(false)
        );
    }

    #[test]
    fn flows_are_judged_between_pods_labels_and_addresses() {
        let web = json!({"namespace": "shop", "labels": {"app": "web"}});
        let db = json!({"namespace": "shop", "name": "db"});
        assert_eq!(
            call("ringfence.allowed", &json!([web, db, "TCP", 5432])),
            json!(true)
        );
        assert_eq!(
            call("ringfence.allowed", &json!([web, db, "udp", 5432])),
            json!(false)
        );
        assert_eq!(
            call(
                "ringfence.allowed",
                &json!([web, {"ip": "10.0.0.7"}, "TCP", 5432])
            ),
            json!(true)
        );
        assert_eq!(
            call(
                "ringfence.allowed",
                &json!([{"ip": "1.2.3.4"}, db, "TCP", 5432])
            ),
            json!(false)
        );
        assert_eq!(
            call(
                "ringfence.allowed",
                &json!([db, {"ip": "1.2.3.4"}, "TCP", 443])
            ),
            json!(true)
        );
        // Two pods of the same labels are still two pods.
        assert_eq!(
            call(
                "ringfence.allowed",
                &json!([{"namespace": "shop", "labels": {"app": "db"}}, {"namespace": "shop", "labels": {"app": "db"}}, "TCP", 5432])
            ),
            json!(false)
        );
        let verdict = call(
            "ringfence.verdict",
            &json!([{"ip": "1.2.3.4"}, db, "TCP", 5432]),
        );
        assert_eq!(verdict["allowed"], json!(false));
        assert_eq!(verdict["ingress"]["isolatedBy"], json!(["db"]));
        assert_eq!(verdict["ingress"]["allowedBy"], json!(null));
        let verdict = call("ringfence.verdict", &json!([web, db, "TCP", 5432]));
        assert_eq!(
            verdict["ingress"]["allowedBy"],
            json!({"policy": "db", "field": ["spec", "ingress", 0, "from", 0]})
        );
        assert_eq!(verdict["egress"]["allowedBy"], json!(null));
    }

    #[test]
    fn questions_that_make_no_sense_say_why() {
        let db = json!({"namespace": "shop", "name": "db"});
        for (args, reason) in [
            (
                json!([db, {"namespace": "shop", "name": "nobody"}, "TCP", 1]),
                "there is no pod or workload `nobody`",
            ),
            (json!([db, db, "ICMP", 1]), "`ICMP` is not TCP, UDP or SCTP"),
            (json!([db, db, "TCP", 0]), "expects a port"),
            (json!([db, {"ip": "x"}, "TCP", 1]), "expects an address"),
            (json!([db, {}, "TCP", 1]), "expects `namespace`"),
        ] {
            let error = call("ringfence.allowed", &args);
            assert!(error["error"].as_str().unwrap().contains(reason), "{error}");
        }
    }

    #[test]
    fn the_labels_of_a_namespace_have_its_name() {
        assert_eq!(
            call("ringfence.namespace_labels", &json!(["shop"])),
            json!({"kubernetes.io/metadata.name": "shop", "team": "shop"})
        );
        assert_eq!(
            call("ringfence.namespace_labels", &json!(["other"])),
            json!({"kubernetes.io/metadata.name": "other"})
        );
    }

    #[test]
    fn the_clock_is_that_of_the_request() {
        assert_eq!(
            call("time.now_ns", &json!([])),
            json!(1_795_255_200_000_000_000_i64)
        );
        assert!(now(&[]).is_err());
    }

    #[test]
    fn a_typo_is_found_among_arrays_and_sets() {
        assert_eq!(
            call("ringfence.near_miss", &json!(["ap", ["app", "tier"]])),
            json!("app")
        );
        assert_eq!(
            call("ringfence.near_miss", &json!(["app", ["app"]])),
            json!(null)
        );
    }
}
