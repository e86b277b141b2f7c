//! The definitions of Ringfence's own kinds: what the API server itself refuses, and that what it keeps is what was said.

use ringfence::guard::guardrail::Guardrail;
use serde_json::{Value, json};

use crate::kubernetes::Kubernetes;

const DEFINITIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/crds");
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/examples");

/// The shared cluster, with the definitions in it.
async fn cluster() -> &'static Kubernetes {
    let cluster = Kubernetes::shared().await;
    let applied = cluster.kubectl(&["apply", "--server-side", "-k", DEFINITIONS], "");
    let errors = String::from_utf8_lossy(&applied.stderr).into_owned();
    assert!(applied.status.success(), "{errors}");
    assert!(!errors.contains("unrecognized format"), "{errors}");
    let arguments = ["wait", "--for=condition=Established", "crd", "--all"];
    assert!(cluster.kubectl(&arguments, "").status.success());
    cluster
}

/// What `kubectl apply` says of a manifest, changing nothing.
fn refused(cluster: &Kubernetes, kind: &str, spec: &Value) -> String {
    let manifest = json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": kind,
        "metadata": {"name": "tried", "namespace": "default"}, "spec": spec,
    });
    let output = cluster.kubectl(
        &["apply", "--dry-run=server", "-f", "-"],
        &manifest.to_string(),
    );
    assert!(!output.status.success(), "{manifest} was taken");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_bad_manifest_is_refused_with_its_field() {
    let cluster = cluster().await;
    let everyone = json!([{"podSelector": {}}]);
    let rule = |change: Value| {
        let mut spec = json!({"expect": "Deny", "from": everyone, "to": everyone});
        let fields = spec.as_object_mut().unwrap();
        fields.extend(change.as_object().unwrap().clone());
        spec
    };
    let (guardrail, reachability) = ("Guardrail", "ReachabilityRule");
    let staged = "StagedNetworkPolicy";
    let labels = |rule: Value| json!({"labels": {"rules": [rule]}});
    let tries = [
        (guardrail, json!({"mode": "Loud"}), "spec.mode"),
        (guardrail, json!({"colour": "red"}), "spec.colour"),
        (
            guardrail,
            labels(json!({"key": ""})),
            "spec.labels.rules[0].key",
        ),
        (
            guardrail,
            labels(json!({"key": "a", "pattern": "("})),
            "spec.labels.rules[0].pattern",
        ),
        (
            guardrail,
            json!({"baseline": {"dns": {"ports": [0]}}}),
            "spec.baseline.dns.ports[0]",
        ),
        (
            guardrail,
            json!({"baseline": {"dns": {"ports": []}}}),
            "spec.baseline.dns.ports",
        ),
        (
            guardrail,
            json!({"breadth": {"egress": {"allowedBlocks": ["10.0.0.0/33"]}}}),
            "spec.breadth.egress.allowedBlocks",
        ),
        (
            guardrail,
            json!({"breadth": {"egress": {"widestPrefixV4": 33}}}),
            "widestPrefixV4",
        ),
        (reachability, rule(json!({"from": []})), "spec.from"),
        (reachability, rule(json!({"from": [{}]})), "must say who"),
        (
            reachability,
            rule(json!({"from": [{"cidrs": ["10.0.0.0/8"], "podSelector": {}}]})),
            "spec.from[0]",
        ),
        (
            reachability,
            rule(json!({"from": [{"cidrs": ["10.0.0.0"]}]})),
            "spec.from[0].cidrs",
        ),
        (
            reachability,
            rule(json!({"ports": [{"endPort": 80}]})),
            "spec.ports[0]",
        ),
        (
            reachability,
            rule(json!({"ports": [{"port": 90, "endPort": 80}]})),
            "spec.ports[0]",
        ),
        (
            "Exemption",
            json!({"checks": ["RF401"], "objects": [{"kind": "Pod", "name": "a"}], "reason": "r",
                   "owner": "o", "expires": "tomorrow"}),
            "spec.expires",
        ),
        (staged, json!({"stage": "Loud"}), "spec.stage"),
        (staged, json!({"stage": "Canary"}), "stage Canary needs"),
        (
            staged,
            json!({"canary": {"percent": 5, "podSelector": {}}}),
            "spec.canary",
        ),
        (
            staged,
            json!({"canary": {"percent": 100}}),
            "spec.canary.percent",
        ),
        (
            staged,
            json!({"policyTypes": ["Up"]}),
            "spec.policyTypes[0]",
        ),
        (
            staged,
            json!({"ingress": [{"from": [{"ipBlock": {}}]}]}),
            "spec.ingress[0].from[0].ipBlock.cidr",
        ),
    ];
    for (kind, spec, field) in tries {
        let said = refused(cluster, kind, &spec);
        assert!(said.contains(field), "{field} is not named:\n{said}");
    }
}

/// Defaults that the API server writes into an object must not change what it says, and `enabled: false` must survive.
#[tokio::test]
async fn what_is_kept_means_what_was_applied() {
    let cluster = cluster().await;
    cluster.apply(&std::fs::read_to_string(format!("{EXAMPLES}/guardrail.yaml")).unwrap());
    let sparse = json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": "Guardrail", "metadata": {"name": "sparse"},
        "spec": {"coverage": {}, "labels": {}, "bypasses": {}, "documentation": {}, "hygiene": {}, "policies": {},
                 "baseline": {"dns": {"enabled": false}}, "breadth": {"egress": {"enabled": false}}},
    });
    // Twice: the second time is an update by a merge patch.
    for _ in 0..2 {
        cluster.apply(&sparse.to_string());
        let output = cluster.kubectl(&["get", "guardrail", "sparse", "-o", "json"], "");
        let kept: Value = serde_json::from_slice(&output.stdout).unwrap();
        let (kept, meant) = (
            Guardrail::parse(&kept).unwrap(),
            Guardrail::parse(&sparse).unwrap(),
        );
        assert_eq!(kept.spec, meant.spec);
        assert!(kept.spec.baseline.unwrap().dns.is_none());
        assert!(kept.spec.breadth.unwrap().egress.is_none());
    }
}

/// What is tried is what was written: nothing that a NetworkPolicy can say is lost on the way.
#[tokio::test]
async fn a_staged_policy_is_kept_as_it_was_written() {
    let cluster = cluster().await;
    let spec = json!({
        "stage": "Canary", "canary": {"percent": 10},
        "podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{}, {
            "from": [
                {"podSelector": {}, "namespaceSelector": {"matchLabels": {"team": "shop"}}},
                {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
            ],
            "ports": [{"port": "http"}, {"port": 80, "endPort": 90, "protocol": "UDP"}, {"protocol": "SCTP"}],
        }],
        "egress": [],
    });
    let manifest = json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": "StagedNetworkPolicy",
        "metadata": {"name": "kept", "namespace": "default"}, "spec": spec,
    });
    cluster.apply(&manifest.to_string());
    let output = cluster.kubectl(&["get", "snp", "kept", "-o", "json"], "");
    let kept: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(kept["spec"], spec);
    let sparse = json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": "StagedNetworkPolicy",
        "metadata": {"name": "sparse", "namespace": "default"}, "spec": {},
    });
    cluster.apply(&sparse.to_string());
    let output = cluster.kubectl(&["get", "stagednetworkpolicies"], "");
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("Canary") && table.contains("10"), "{table}");
    assert!(table.contains("Shadow"), "{table}");
}
