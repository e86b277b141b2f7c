//! Egress without DNS in words, and the baseline policy that is missing as a manifest.

use serde_json::{Value, json};

use crate::guard::baseline::{self, Allow, WithoutDns};
use crate::guard::coverage;
use crate::guard::finding::{Finding, Fix};
use crate::guard::guardrail::{Guardrail, Guardrails};
use crate::guard::quarantine::Quarantine;
use crate::guard::registry;
use crate::guard::review::{Review, Subject};
use crate::netpol::{FieldPath, Labels, NetworkPolicy, Object, Selector, Snapshot};

/// A policy that opens the egress of pods which cannot reach the cluster's DNS; asked where all policies are known.
pub(super) fn egress_without_dns(
    review: &Review,
    subject: &Subject,
    guardrail: &Guardrail,
    guardrails: &Guardrails,
    all: &Snapshot,
) -> Option<Finding> {
    let Some(Object::NetworkPolicy(policy)) = subject.model() else {
        return None;
    };
    // Of two manifests of one name the later counts.
    if all.policy(&policy.reference()) != Some(policy) {
        return None;
    }
    let found = without(policy, guardrail, guardrails, all)?;
    let labels = all.namespace_labels(&policy.namespace);
    let quarantine = Quarantine::of(guardrails.selecting(&labels));
    let workloads: Vec<String> = found
        .workloads
        .iter()
        .map(|workload| format!("{} {}", workload.kind, workload.name))
        .collect();
    let ports: Vec<String> = found
        .denied
        .iter()
        .map(|(protocol, port)| format!("{protocol} {port}"))
        .collect();
    let message = format!(
        "egress is isolated without DNS: nothing lets {} reach the cluster's DNS by {}",
        coverage::list(&workloads),
        ports.join(" and ")
    );
    let manifests = baseline::beside(policy, guardrail, &quarantine, &[Allow::Dns]);
    let fix = Fix {
        summary: "allow DNS beside it, as `ringfence baseline` prints it".to_owned(),
        patch: None,
        manifest: together(manifests),
    };
    Some(Finding::of(
        &registry::EGRESS_WITHOUT_DNS,
        review.object_ref(),
        FieldPath::of(["spec", "egress"]),
        message,
        Some(fix),
    ))
}

/// Whether the DNS may be in one of these namespaces, given by their labels.
pub(super) fn looks_at(guardrail: &Guardrail, namespaces: &[Labels]) -> bool {
    let section = guardrail.spec.baseline.as_ref();
    section
        .and_then(|section| section.dns.as_ref())
        .is_some_and(|dns| {
            let selector = Selector::parse(&dns.namespace_selector, &FieldPath::root());
            selector.map_or(true, |selector| {
                namespaces.iter().any(|labels| selector.matches(labels))
            })
        })
}

/// The pods that a policy leaves without DNS.
pub(super) fn without(
    policy: &NetworkPolicy,
    guardrail: &Guardrail,
    guardrails: &Guardrails,
    all: &Snapshot,
) -> Option<WithoutDns> {
    let section = guardrail.spec.baseline.as_ref()?;
    let labels = all.namespace_labels(&policy.namespace);
    let quarantine = Quarantine::of(guardrails.selecting(&labels));
    baseline::without_dns(policy, section, &quarantine, all)
}

/// Several manifests as one.
fn together(mut manifests: Vec<Value>) -> Option<Value> {
    match manifests.len() {
        0 | 1 => manifests.pop(),
        _ => Some(json!({"apiVersion": "v1", "kind": "List", "items": manifests})),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::guard::decide::Decision;
    use crate::guard::guardrail::{BaselineSection, GuardrailSpec, HygieneSection};
    use crate::guard::testing::{Cluster, deployment, ids, namespace, policy};

    fn spec(baseline: &Value) -> GuardrailSpec {
        GuardrailSpec {
            hygiene: Some(HygieneSection::default()),
            baseline: Some(serde_json::from_value::<BaselineSection>(baseline.clone()).unwrap()),
            ..GuardrailSpec::default()
        }
    }

    /// What `check` finds of the last of these objects, all of which are there.
    fn check(spec: &GuardrailSpec, objects: &[Value]) -> Decision {
        Cluster::under(spec, objects).check(objects.last().unwrap())
    }

    fn shop(more: &[Value]) -> Vec<Value> {
        let web = deployment("web", &json!({"app": "web"}));
        let db = deployment("db", &json!({"app": "db"}));
        // Ingress is open, so that nothing is found but what concerns egress.
        let deny = json!({"podSelector": {}, "policyTypes": ["Egress"]});
        let deny = policy("default-deny", &deny);
        [&[namespace("shop"), web, db, deny][..], more].concat()
    }

    /// A policy that lets some pods of the shop reach what a rule says.
    fn egress(name: &str, app: &str, to: &Value, ports: &Value) -> Value {
        let pods = json!({"matchLabels": {"app": app}});
        let rules = json!([{"to": to, "ports": ports}]);
        policy(
            name,
            &json!({"podSelector": pods, "policyTypes": ["Egress"], "egress": rules}),
        )
    }

    fn to_db(name: &str) -> Value {
        let db = json!([{"podSelector": {"matchLabels": {"app": "db"}}}]);
        egress(name, "web", &db, &json!([{"port": 5432}]))
    }

    fn dns(name: &str, protocols: &[&str]) -> Value {
        let to = json!([{"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}]);
        let ports: Vec<Value> = protocols
            .iter()
            .map(|protocol| json!({"protocol": protocol, "port": 53}))
            .collect();
        egress(name, "web", &to, &json!(ports))
    }

    fn found(objects: &[Value]) -> Vec<String> {
        let decision = check(&spec(&json!({})), &shop(objects));
        let messages = decision.judged.iter();
        let of_dns = messages.filter(|judged| judged.finding.id.as_str() == "RF608");
        of_dns
            .map(|judged| judged.finding.message.clone())
            .collect()
    }

    #[test]
    fn dns_is_asked_for_by_both_protocols() {
        let without = |ports: &str| {
            vec![format!(
                "egress is isolated without DNS: nothing lets Deployment web reach the cluster's DNS by {ports}"
            )]
        };
        let none = Vec::<String>::new();
        assert_eq!(found(&[to_db("a")]), without("TCP 53 and UDP 53"));
        assert_eq!(found(&[dns("z", &["UDP"]), to_db("a")]), without("TCP 53"));
        assert_eq!(found(&[dns("z", &["UDP", "TCP"]), to_db("a")]), none);
    }

    #[test]
    fn pods_count_with_the_first_policy_that_opens_something() {
        assert_eq!(found(&[to_db("a"), to_db("b")]), Vec::<String>::new());
        assert_eq!(found(&[to_db("b"), to_db("a")]).len(), 1);
    }

    #[test]
    fn a_full_stop_and_an_opt_out_and_a_quarantine_are_meant() {
        assert_eq!(found(&[]), Vec::<String>::new());
        let mut out = to_db("a");
        out["metadata"]["annotations"] = json!({"ringfence.dev/inject": "disabled"});
        assert_eq!(found(&[out]), Vec::<String>::new());
        let objects = shop(&[to_db("a")]);
        let quarantine = spec(&json!({"quarantine": {"matchLabels": {"app": "web"}}}));
        assert_eq!(ids(&check(&quarantine, &objects)), Vec::<&str>::new());
        let nowhere = spec(&json!({"dns": null}));
        assert_eq!(ids(&check(&nowhere, &objects)), Vec::<&str>::new());
        assert_eq!(ids(&check(&spec(&json!({})), &objects)), ["RF608"]);
    }

    #[test]
    fn nothing_is_said_of_what_is_not_known() {
        // An allow may be where the namespace is.
        let mut objects = shop(&[to_db("a")]);
        objects.remove(0);
        assert_eq!(ids(&check(&spec(&json!({})), &objects)), Vec::<&str>::new());
        // The DNS pods may have an address of the block.
        let block = json!([{"ipBlock": {"cidr": "10.96.0.0/16"}}]);
        let ports = json!([{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]);
        let blocks = egress("a", "web", &block, &ports);
        assert_eq!(found(&[blocks]), Vec::<String>::new());
        // At admission the mutating webhook speaks of it.
        let cluster = Cluster::under(&spec(&json!({})), &shop(&[]));
        assert_eq!(ids(&cluster.create(&to_db("a"))), Vec::<&str>::new());
    }

    #[test]
    fn what_it_says_to_apply_mends_it() {
        let before = check(&spec(&json!({})), &shop(&[to_db("a")]));
        let fix = before.judged[0].finding.fix.clone().unwrap();
        let beside = fix.manifest.unwrap();
        assert_eq!(found(&[beside, to_db("a")]), Vec::<String>::new());
    }
}
