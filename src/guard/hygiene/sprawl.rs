//! Sprawl in words: policies that could be one, and more policies for a pod than anyone reads together.

use serde_json::{Value, json};

use crate::guard::baseline::MANAGED_BY;
use crate::guard::finding::{Finding, Fix};
use crate::guard::guardrail::{DocumentationSection, Guardrail, HygieneSection};
use crate::guard::registry;
use crate::guard::review::{Review, Subject};
use crate::netpol::findings::Neighbourhood;
use crate::netpol::{FieldPath, NetworkPolicy, Object};

/// How many policies a message names before it only counts.
const NAMED: usize = 5;

/// What sprawls about an object; asked where all policies are known.
pub(super) fn sprawl(
    review: &Review,
    subject: &Subject,
    guardrail: &Guardrail,
    section: &HygieneSection,
    near: &Neighbourhood<'_>,
) -> Option<Finding> {
    match subject.model()? {
        Object::NetworkPolicy(policy) => could_be_one(review, policy, guardrail, near),
        Object::Pod(pod) | Object::Workload(pod) if pod.is_held() => {
            let policies = near.selecting(pod);
            let most = usize::from(section.most_policies_per_pod);
            if policies.len() <= most {
                return None;
            }
            let message = format!(
                "{} policies select these pods, and the guardrail allows {most}: {}",
                policies.len(),
                names(&policies)
            );
            let labels = FieldPath::of(pod.workload.kind.pod_at().iter().copied())
                .key("metadata")
                .key("labels");
            let fix = Fix::words("put into one policy what is for the same pods");
            Some(Finding::of(
                &registry::MANY_POLICIES,
                review.object_ref(),
                labels,
                message,
                Some(fix),
            ))
        }
        _ => None,
    }
}

/// Policies that could be one, told of the first of them by name. Those of different owners or with different labels (of
/// different releases, say) are apart for a reason; those that Ringfence wrote go with the policy they are beside.
fn could_be_one(
    review: &Review,
    policy: &NetworkPolicy,
    guardrail: &Guardrail,
    near: &Neighbourhood<'_>,
) -> Option<Finding> {
    if near.snapshot().policy(&policy.reference()) != Some(policy)
        || policy.labels.get(MANAGED_BY) == Some("ringfence")
    {
        return None;
    }
    let built_in = DocumentationSection::default();
    let documentation = guardrail.spec.documentation.as_ref().unwrap_or(&built_in);
    let (owner, purpose) = (
        documentation.owner.annotation.as_str(),
        documentation.purpose.annotation.as_str(),
    );
    let mut others = near.joinable(policy);
    others.retain(|other| {
        other.labels == policy.labels
            && other.annotations.get(owner) == policy.annotations.get(owner)
    });
    if others.first()?.name < policy.name {
        return None;
    }
    let mut manifest = policy.joined(others.iter().copied()).manifest();
    let purposes: Vec<&str> = [policy]
        .into_iter()
        .chain(others.iter().copied())
        .filter_map(|policy| policy.annotations.get(purpose))
        .collect();
    if let Some(Value::Object(annotations)) = manifest.pointer_mut("/metadata/annotations") {
        annotations.retain(|key, _| !key.starts_with("kubectl.kubernetes.io/"));
        if !purposes.is_empty() {
            annotations.insert(purpose.to_owned(), json!(purposes.join("; ")));
        }
    }
    let all: Vec<String> = others
        .iter()
        .map(|other| format!("`{}`", other.name))
        .collect();
    let others = names(&others);
    let fix = Fix {
        summary: format!("apply this in its place, then delete {}", all.join(", ")),
        patch: None,
        manifest: Some(manifest),
    };
    Some(Finding::of(
        &registry::COULD_BE_ONE,
        review.object_ref(),
        FieldPath::of(["spec", "podSelector"]),
        format!("could be one policy with {others}: the same pods, the same `policyTypes`"),
        Some(fix),
    ))
}

fn names(policies: &[&NetworkPolicy]) -> String {
    let shown: Vec<String> = policies
        .iter()
        .take(NAMED)
        .map(|policy| format!("`{}`", policy.name))
        .collect();
    let shown = shown.join(", ");
    match policies.len().checked_sub(NAMED) {
        None | Some(0) => shown,
        Some(more) => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::guard::decide::Decision;
    use crate::guard::guardrail::{GuardrailSpec, HygieneSection};
    use crate::guard::testing::{Cluster, deployment, ids, namespace, policy};

    /// A policy that lets the web in at one port.
    fn port(name: &str, number: u16) -> Value {
        let mut policy = policy(
            name,
            &json!({
                "podSelector": {"matchLabels": {"app": "web"}},
                "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": number}]}]
            }),
        );
        policy["metadata"]["annotations"] = json!({"ringfence.dev/purpose": name});
        policy
    }

    fn cluster(most: u16, policies: &[Value]) -> Cluster {
        let spec = GuardrailSpec {
            hygiene: Some(HygieneSection {
                most_policies_per_pod: most,
                ..HygieneSection::default()
            }),
            ..GuardrailSpec::default()
        };
        let web = deployment("web", &json!({"app": "web"}));
        let deny = policy(
            "default-deny",
            &json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
        );
        Cluster::under(
            &spec,
            &[&[namespace("shop"), web, deny][..], policies].concat(),
        )
    }

    #[test]
    fn one_policy_takes_the_place_of_several_and_keeps_their_purposes() {
        let policies = [port("a", 80), port("b", 81), port("c", 82)];
        let cluster = cluster(10, &policies);
        let first = cluster.check(&policies[0]);
        assert_eq!(ids(&first), ["RF609"]);
        assert_eq!(ids(&cluster.check(&policies[1])), Vec::<&str>::new());
        let finding = &first.judged[0].finding;
        assert_eq!(
            finding.message,
            "could be one policy with `b`, `c`: the same pods, the same `policyTypes`"
        );
        let manifest = finding.fix.as_ref().unwrap().manifest.as_ref().unwrap();
        assert_eq!(
            manifest.pointer("/metadata/annotations"),
            Some(&json!({"ringfence.dev/purpose": "a; b; c"}))
        );
        let ports: Vec<&Value> = (0..3)
            .filter_map(|rule| manifest.pointer(&format!("/spec/ingress/{rule}/ports/0/port")))
            .collect();
        assert_eq!(ports, [80, 81, 82]);
    }

    #[test]
    fn what_is_apart_for_a_reason_stays_apart() {
        let found = |change: &dyn Fn(&mut Value)| {
            let mut policies = [port("a", 80), port("b", 81)];
            change(&mut policies[1]);
            let decision = cluster(10, &policies).check(&policies[0]);
            ids(&decision).contains(&"RF609")
        };
        assert!(found(&|_| {}));
        let owner = |policy: &mut Value| {
            policy["metadata"]["annotations"]["ringfence.dev/owner"] = json!("others");
        };
        assert!(!found(&owner));
        let release = |policy: &mut Value| policy["metadata"]["labels"] = json!({"release": "b"});
        assert!(!found(&release));
        let types =
            |policy: &mut Value| policy["spec"]["policyTypes"] = json!(["Ingress", "Egress"]);
        assert!(!found(&types));
        let rules = |policy: &mut Value| policy["spec"]["ingress"] = json!([]);
        assert!(!found(&rules));
    }

    #[test]
    fn policies_for_one_pod_are_counted_in_check_only() {
        let web = deployment("web", &json!({"app": "web"}));
        let policies = [port("a", 80), port("b", 81)];
        let are_many = |decision: &Decision| ids(decision).contains(&"RF610");
        assert!(!are_many(&cluster(3, &policies).check(&web)));
        let many = cluster(2, &policies);
        assert!(are_many(&many.check(&web)));
        assert!(!are_many(&many.create(&web)));
        assert_eq!(ids(&many.create(&policies[0])), Vec::<&str>::new());
    }
}
