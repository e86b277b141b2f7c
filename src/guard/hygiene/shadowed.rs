//! What never decides a flow, in words, and policies of the whole cluster held to it and to who is there.

use std::collections::{BTreeMap, BTreeSet};

use super::{everything, is_meant, level, mend, nothing};
use crate::guard::engine::Level;
use crate::guard::finding::{Finding, Fix};
use crate::guard::guardrail::Guardrail;
use crate::guard::registry;
use crate::guard::review::Review;
use crate::netpol::findings::{self, Before, Neighbourhood, What};
use crate::netpol::{
    Action, ClusterNetworkPolicy, ClusterPolicyKind, ClusterPolicyRef, Priority, Snapshot, Tier,
};

/// What never decides in a ClusterNetworkPolicy, and whom it means that is not there.
pub(super) fn cluster_policy(
    review: &Review,
    policy: &ClusterNetworkPolicy,
    guardrail: &Guardrail,
    all: Option<&Neighbourhood<'_>>,
    snapshot: &Snapshot,
) -> Vec<(Level, Finding)> {
    let snapshot = all.map_or(snapshot, Neighbourhood::snapshot);
    // Of two manifests of one name the later counts.
    if snapshot.cluster_policy(&policy.reference) != Some(policy) {
        return Vec::new();
    }
    let flaws = findings::cluster_flaws(snapshot, all, policy);
    let flaws = flaws.into_iter();
    let flaws = flaws.filter(|flaw| !is_meant(flaw, &policy.subject.pods, guardrail));
    let found = flaws.filter_map(|flaw| {
        let remove =
            |what| format!("remove the {what}, or give it a place before what takes its flows");
        let (check, message, fix) = match &flaw.what {
            What::RuleShadowed(by) => (&registry::SHADOWED, message(by), remove("rule")),
            What::PolicyShadowed(by) => (&registry::SHADOWED, message(by), remove("policy")),
            What::OpensEverything(found) => everything::words(found),
            What::SelectsNothing(why) => (
                &registry::POLICY_SELECTS_NOTHING,
                format!("rules nobody: {}", nothing(why, "the namespaces meant")),
                mend(why, "subject"),
            ),
            What::PeerIsNobody(why) => (
                &registry::PEER_IS_NOBODY,
                format!("nobody is meant: {}", nothing(why, "the namespaces meant")),
                mend(why, "peer"),
            ),
            _ => return None,
        };
        let fix = Some(Fix::words(fix));
        let finding = Finding::of(check, review.object_ref(), flaw.field, message, fix);
        Some((level(review), finding))
    });
    found.collect()
}

/// Where a cluster network policy stands among the others.
type Place<'b> = (Tier, Priority, &'b ClusterPolicyRef);

/// Who takes all flows before.
pub(super) fn message(by: &BTreeSet<Before>) -> String {
    let mut policies: Vec<String> = Vec::new();
    let mut rules: BTreeMap<Place<'_>, Vec<(usize, Action)>> = BTreeMap::new();
    for one in by {
        match one {
            Before::Policy(policy) => {
                policies.push(format!("`{}/{}`", policy.namespace, policy.name));
            }
            Before::Rule {
                policy,
                tier,
                priority,
                index,
                action,
            } => {
                let of_policy = rules.entry((*tier, *priority, policy)).or_default();
                of_policy.push((*index, *action));
            }
        }
    }
    if rules.is_empty() {
        let (policy, isolates) = if policies.len() == 1 {
            ("NetworkPolicy", "isolates")
        } else {
            ("NetworkPolicies", "isolate")
        };
        let names = policies.join(" and ");
        return format!(
            "never decides a flow: {policy} {names} {isolates} all pods that it is for, and the Baseline tier is not asked"
        );
    }
    let count = rules
        .values()
        .map(Vec::len)
        .fold(0_usize, usize::saturating_add);
    let rules = rules.into_iter().map(|((tier, priority, policy), rules)| {
        let rules = rules
            .into_iter()
            .map(|(index, action)| format!("rule {index} ({action})"));
        let rules: Vec<String> = rules.collect();
        let (rules, name) = (rules.join(" and "), &policy.name);
        match policy.kind {
            ClusterPolicyKind::ClusterNetworkPolicy => {
                format!("{rules} of `{name}` ({tier} {priority})")
            }
            kind @ ClusterPolicyKind::AdminNetworkPolicy => {
                format!("{rules} of {kind} `{name}` ({tier} {priority})")
            }
            kind @ ClusterPolicyKind::BaselineAdminNetworkPolicy => {
                format!("{rules} of {kind} `{name}`")
            }
        }
    });
    let rules: Vec<String> = rules.collect();
    let take = if count == 1 { "takes" } else { "take" };
    format!(
        "never decides a flow: {} {take} all of them before",
        rules.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::guard::guardrail::{BaselineSection, GuardrailSpec, HygieneSection};
    use crate::guard::testing::{Cluster, deployment, namespace, policy};

    fn wide(name: &str, tier: &str, priority: u16, ingress: &Value) -> Value {
        json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": name},
            "spec": {"tier": tier, "priority": priority, "subject": {"namespaces": {}}, "ingress": ingress}
        })
    }

    fn spec() -> GuardrailSpec {
        GuardrailSpec {
            hygiene: Some(HygieneSection::default()),
            ..GuardrailSpec::default()
        }
    }

    /// What `check` says never decides, by field, of the last of these objects.
    fn found(objects: &[Value]) -> Vec<(String, String)> {
        found_by(&spec(), "RF611", objects)
    }

    fn found_by(spec: &GuardrailSpec, id: &str, objects: &[Value]) -> Vec<(String, String)> {
        let web = deployment("web", &json!({"app": "web"}));
        let there = [&[namespace("shop"), web][..], objects].concat();
        let decision = Cluster::under(spec, &there).check(objects.last().unwrap());
        let found = decision.judged.iter().map(|judged| &judged.finding);
        let found = found.filter(|finding| finding.id.as_str() == id);
        let found = found.map(|finding| (finding.field.to_string(), finding.message.clone()));
        found.collect()
    }

    fn from_all(action: &str) -> Value {
        json!({"action": action, "from": [{"namespaces": {}}]})
    }

    fn scrape(action: &str) -> Value {
        json!({
            "action": action, "from": [{"namespaces": {"matchLabels": {"team": "ops"}}}],
            "protocols": [{"tcp": {"destinationPort": {"number": 9090}}}]
        })
    }

    #[test]
    fn a_rule_behind_one_that_takes_all_of_its_flows_names_it() {
        let deny = wide("deny", "Admin", 10, &json!([from_all("Deny")]));
        let late = wide("late", "Admin", 20, &json!([scrape("Accept")]));
        assert_eq!(
            found(&[deny.clone(), late.clone()]),
            [(
                "spec.ingress[0]".to_owned(),
                "never decides a flow: rule 0 (Deny) of `deny` (Admin 10) takes all of them before"
                    .to_owned()
            )]
        );
        let mut before = deny.clone();
        before["apiVersion"] = json!("policy.networking.k8s.io/v1alpha1");
        before["kind"] = json!("AdminNetworkPolicy");
        before["spec"].as_object_mut().unwrap().remove("tier");
        let message = found(&[before, late.clone()]).remove(0).1;
        assert!(
            message.contains("rule 0 (Deny) of AdminNetworkPolicy `deny` (Admin 10)"),
            "{message}"
        );
        // Which of two of one priority is asked first is not defined.
        let tied = wide("tied", "Admin", 10, &json!([scrape("Accept")]));
        assert_eq!(found(&[deny.clone(), tied]), []);
        assert_eq!(found(&[late, deny]), []);
        let own = json!([from_all("Deny"), scrape("Accept")]);
        assert_eq!(found(&[wide("own", "Admin", 1, &own)]).len(), 1);
    }

    #[test]
    fn a_network_policy_behind_the_admin_tier_is_found_unless_a_pass_may_lead_to_it() {
        let from_ops = json!([{
            "from": [{"namespaceSelector": {"matchLabels": {"team": "ops"}}}],
            "ports": [{"port": 9090}]
        }]);
        let allow = policy("allow", &json!({"podSelector": {}, "ingress": from_ops}));
        let deny = wide("deny", "Admin", 10, &json!([from_all("Deny")]));
        let by_deny = found(&[deny.clone(), allow.clone()]);
        assert_eq!(by_deny.len(), 1);
        assert_eq!(by_deny[0].0, "spec.ingress[0]");
        let pass = wide("pass", "Admin", 5, &json!([scrape("Pass")]));
        assert_eq!(found(&[pass, deny.clone(), allow.clone()]), []);
        let after = wide("after", "Admin", 15, &json!([scrape("Pass")]));
        assert_eq!(found(&[after, deny, allow]).len(), 1);
    }

    #[test]
    fn a_baseline_for_a_namespace_with_a_default_deny_is_never_asked() {
        let deny = policy(
            "deny",
            &json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
        );
        let mut baseline = wide("base", "Baseline", 0, &json!([from_all("Deny")]));
        // It is for whatever namespace comes.
        assert_eq!(found(&[deny.clone(), baseline.clone()]), []);
        baseline["spec"]["subject"] =
            json!({"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}});
        let shadowed = found(&[deny, baseline.clone()]);
        assert_eq!(shadowed.len(), 1);
        assert_eq!(
            shadowed[0].1,
            "never decides a flow: NetworkPolicy `shop/deny` isolates all pods that it is for, and the Baseline tier is not asked"
        );
        assert_eq!(found(&[baseline]), []);
    }

    #[test]
    fn who_is_not_there_is_told_of_the_whole_cluster_only() {
        let mut guard = wide("guard", "Admin", 1, &json!([scrape("Accept")]));
        guard["spec"]["subject"] = json!({"pods": {
            "namespaceSelector": {}, "podSelector": {"matchLabels": {"held": "yes"}}
        }});
        let mut dns = deployment("dns", &json!({"k8s-app": "dns"}));
        dns["metadata"]["namespace"] = json!("kube-system");
        let system = [namespace("kube-system"), dns];
        let with = |policy: &Value| [&system[..], std::slice::from_ref(policy)].concat();
        assert_eq!(found_by(&spec(), "RF602", std::slice::from_ref(&guard)), []);
        assert_eq!(
            found_by(&spec(), "RF602", &with(&guard)),
            [(
                "spec.subject".to_owned(),
                "rules nobody: no pod in the namespaces meant has such labels".to_owned()
            )]
        );
        // Pods under quarantine need not be there.
        let mut quarantine = spec();
        quarantine.baseline = Some(BaselineSection {
            quarantine: Some(
                serde_json::from_value(json!({"matchLabels": {"held": "yes"}})).unwrap(),
            ),
            ..BaselineSection::default()
        });
        assert_eq!(found_by(&quarantine, "RF602", &with(&guard)), []);

        guard["spec"]["subject"] = json!({"namespaces": {}});
        assert_eq!(found_by(&spec(), "RF603", std::slice::from_ref(&guard)), []);
        let nobody = found_by(&spec(), "RF603", &with(&guard));
        assert_eq!(nobody.len(), 1);
        assert_eq!(nobody[0].0, "spec.ingress[0].from[0]");
        guard["spec"]["ingress"][0]["from"][0]["namespaces"] = json!({"matchExpressions": [
            {"key": "a", "operator": "Exists"}, {"key": "a", "operator": "DoesNotExist"}
        ]});
        assert_eq!(found_by(&spec(), "RF603", &[guard]).len(), 1);
    }
}
