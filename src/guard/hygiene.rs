//! Hygiene: findings of the whole. What `netpol::findings` sees in a policy among all others, in words.
//!
//! `check` brings everything that was read, once for all objects. A webhook has only the change: there a policy is held
//! against its own namespace and those that it names, and nobody is refused for it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::guard::baseline::WithoutDns;
use crate::guard::engine::Level;
use crate::guard::finding::{Finding, Fix};
use crate::guard::guardrail::{Guardrail, Guardrails, HygieneSection};
use crate::guard::registry::{self, Check};
use crate::guard::review::{Origin, Review, Subject};
use crate::netpol::findings::{Flaw, Near, Neighbourhood, Never, Nothing, What, Wild, looks_at};
use crate::netpol::{Labels, NetworkPolicy, Object, PolicyName, Selector, Snapshot};

mod dns;
mod everything;
mod one_sided;
mod shadowed;
mod sprawl;
mod vocabulary;
mod without_policy;

/// How many pods may be next to a policy that is judged at admission; beyond, nothing is said.
const NEXT_TO_IT: usize = 2_000;

/// What is wrong with a policy, or with pods, among all others.
pub(super) fn object(
    review: &Review,
    subject: &Subject,
    guardrail: &Guardrail,
    all: Option<&Neighbourhood<'_>>,
    snapshot: &Snapshot,
) -> Vec<(Level, Finding)> {
    let policy = match subject.model() {
        Some(Object::NetworkPolicy(policy)) => policy,
        Some(Object::ClusterNetworkPolicy(policy)) => {
            return shadowed::cluster_policy(review, policy, guardrail, all, snapshot);
        }
        Some(Object::Pod(pod) | Object::Workload(pod)) => {
            let snapshot = all.map_or(snapshot, Neighbourhood::snapshot);
            return without_policy::pods(review, pod, guardrail, snapshot);
        }
        _ => return Vec::new(),
    };
    let flaws = match all {
        // Of two manifests of one name the later counts.
        Some(all) if all.snapshot().policy(&policy.reference()) == Some(policy) => {
            all.flaws(policy)
        }
        Some(_) => Vec::new(),
        None => Neighbourhood::around(snapshot, policy, NEXT_TO_IT)
            .map(|near| near.flaws(policy))
            .unwrap_or_default(),
    };
    let level = level(review);
    flaws
        .into_iter()
        .filter(|flaw| !is_meant(flaw, &policy.selector, guardrail))
        .map(|flaw| {
            let (check, message, fix) = words(&flaw.what, policy);
            let fix = match &flaw.what {
                What::OneSided(found) => one_sided::fix(found, snapshot).unwrap_or(Fix::words(fix)),
                _ => Fix::words(fix),
            };
            let finding = Finding::of(check, review.object_ref(), flaw.field, message, Some(fix));
            (level, finding)
        })
        .collect()
}

/// What is found here is refused by `check` at most: a webhook warns.
fn level(review: &Review) -> Level {
    match review.origin {
        Origin::Manifest | Origin::Existing => Level::Deny,
        Origin::Admission => Level::Warn,
    }
}

/// What is wrong with an object among all others that only `check` looks for, since all of them must be known.
pub(super) fn whole(
    review: &Review,
    subject: &Subject,
    guardrail: &Guardrail,
    guardrails: &Guardrails,
    all: &Neighbourhood<'_>,
) -> Vec<Finding> {
    let Some(section) = &guardrail.spec.hygiene else {
        return Vec::new();
    };
    let without = dns::egress_without_dns(review, subject, guardrail, guardrails, all.snapshot());
    let sprawl = sprawl::sprawl(review, subject, guardrail, section, all);
    let wild = vocabulary::wild(review, subject, guardrail, section, all);
    without.into_iter().chain(sprawl).chain(wild).collect()
}

/// Namespaces that have changed.
pub(super) struct Elsewhere {
    /// Their labels, those that they had and those that they have.
    pub(super) labels: Vec<Labels>,
    /// Whether any policy may look at them: there are others than before, or they say something of the whole cluster.
    pub(super) concerns_all: bool,
}

/// What is said of a policy and may rest on namespaces that have changed, its own not being one of them: to be compared with
/// what is said of it in another cluster.
pub(super) fn seen_afar(
    policy: &NetworkPolicy,
    guardrails: &Guardrails,
    elsewhere: &Elsewhere,
    all: &Neighbourhood<'_>,
) -> (Vec<Flaw>, Vec<WithoutDns>) {
    let Elsewhere {
        labels: changed,
        concerns_all,
    } = elsewhere;
    let snapshot = all.snapshot();
    let labels = snapshot.namespace_labels(&policy.namespace);
    let asking = guardrails.selecting(&labels);
    let mut asking = asking
        .filter(|guardrail| guardrail.spec.hygiene.is_some())
        .peekable();
    if asking.peek().is_none() {
        return (Vec::new(), Vec::new());
    }
    let flaws = (*concerns_all || looks_at(policy, changed)).then(|| all.flaws(policy));
    let without_dns = asking
        .filter(|guardrail| *concerns_all || dns::looks_at(guardrail, changed))
        .filter_map(|guardrail| dns::without(policy, guardrail, guardrails, snapshot));
    (flaws.unwrap_or_default(), without_dns.collect())
}

/// The labels whose values have run wild, as a guardrail asks for them.
pub(super) fn wild_labels(
    guardrail: &Guardrail,
    section: &HygieneSection,
    all: &Neighbourhood<'_>,
) -> Arc<[Wild]> {
    all.wild(&vocabulary::ask(guardrail, section))
}

/// Whether a policy is there for pods that are to be none most of the time.
fn is_meant(flaw: &Flaw, pods: &Selector, guardrail: &Guardrail) -> bool {
    matches!(flaw.what, What::SelectsNothing(_))
        && guardrail
            .quarantine
            .as_ref()
            .is_some_and(|quarantine| pods.implies(quarantine))
}

/// The check, what is wrong, and what to do.
fn words(what: &What, policy: &NetworkPolicy) -> (&'static Check, String, String) {
    match what {
        What::SelectsNothing(why) => {
            let message = format!("selects nothing: {}", nothing(why, &policy.namespace));
            (
                &registry::POLICY_SELECTS_NOTHING,
                message,
                mend(why, "podSelector"),
            )
        }
        What::PeerIsNobody(why) => {
            let message = format!("nobody is meant: {}", nothing(why, "the namespaces meant"));
            (&registry::PEER_IS_NOBODY, message, mend(why, "peer"))
        }
        What::OneSided(found) => (
            &registry::ONE_SIDED,
            one_sided::message(found),
            "allow it at the other end as well, or remove it here".to_owned(),
        ),
        What::RuleAddsNothing(by) => (
            &registry::REDUNDANT_RULE,
            format!(
                "adds nothing: {} all that it does",
                others(by, policy, "allows", "allow")
            ),
            "remove the rule".to_owned(),
        ),
        What::PolicyAddsNothing(by) => (
            &registry::REDUNDANT_POLICY,
            format!(
                "adds nothing: {} all that it does",
                others(by, policy, "isolates and allows", "isolate and allow")
            ),
            "remove the policy".to_owned(),
        ),
        What::RuleShadowed(by) => (
            &registry::SHADOWED,
            shadowed::message(by),
            "remove the rule".to_owned(),
        ),
        What::PolicyShadowed(by) => (
            &registry::SHADOWED,
            shadowed::message(by),
            "remove the policy".to_owned(),
        ),
        What::OpensEverything(found) => everything::words(found),
        What::NeverMatches(why) => {
            let (message, fix) = never(why);
            (&registry::NEVER_MATCHES, message, fix)
        }
    }
}

/// The policies that make up for something, as the start of a sentence.
fn others(by: &BTreeSet<PolicyName>, policy: &NetworkPolicy, one: &str, many: &str) -> String {
    let names: Vec<String> = by
        .iter()
        .map(|name| {
            if *name == policy.name {
                "its other rules".to_owned()
            } else {
                format!("`{name}`")
            }
        })
        .collect();
    let is_one = names.len() == 1 && !by.contains(&policy.name);
    format!(
        "{} {}",
        names.join(" and "),
        if is_one { one } else { many }
    )
}

/// Why a selection is empty.
fn nothing(why: &Nothing, place: impl std::fmt::Display) -> String {
    let nearly = |near: &Option<Near>| {
        near.as_ref().map_or_else(String::new, |near| {
            let (key, value) = &near.there;
            format!(
                "; `{key}={value}` is there, and `{}` is asked for",
                near.asked
            )
        })
    };
    match why {
        Nothing::Contradiction => "no object can meet the whole selector".to_owned(),
        Nothing::Excepted => "`except` takes the whole block away".to_owned(),
        Nothing::OnHost => {
            "all pods with these labels are on the host network, where policies do not see them"
                .to_owned()
        }
        Nothing::NoPod { near } => {
            format!("no pod in {place} has such labels{}", nearly(near))
        }
        Nothing::NoNamespace { near } => format!("no namespace has such labels{}", nearly(near)),
    }
}

fn mend(why: &Nothing, part: &str) -> String {
    match why {
        Nothing::NoPod { near: Some(near) } | Nothing::NoNamespace { near: Some(near) } => {
            let (key, value) = &near.there;
            format!("select by `{key}={value}`, if that is what is meant")
        }
        Nothing::Contradiction => format!("keep one of the requirements of the {part}"),
        Nothing::Excepted => "except less, or remove the peer".to_owned(),
        Nothing::OnHost => {
            "allow the addresses of the nodes, or take the pods off the host network".to_owned()
        }
        Nothing::NoPod { near: None } | Nothing::NoNamespace { near: None } => {
            format!("correct the labels of the {part}, or remove it if no such pods come later")
        }
    }
}

fn never(why: &Never) -> (String, String) {
    match why {
        Never::NotIsolated(direction) => (
            format!(
                "the {direction} rules count for nothing: `policyTypes` does not list {}",
                direction.policy_type()
            ),
            format!(
                "add {} to `policyTypes`, or remove the rules",
                direction.policy_type()
            ),
        ),
        Never::NoSuchPort {
            name,
            protocol,
            other_protocol,
            near,
        } => {
            let message = format!("no destination has a {protocol} port named `{name}`");
            match (other_protocol, near) {
                (Some(other), _) => (
                    format!("{message}; there it is {other}"),
                    format!("write `protocol: {other}`"),
                ),
                (None, Some(near)) => (
                    format!("{message}; there is one named `{near}`"),
                    format!("write `port: {near}`"),
                ),
                (None, None) => (
                    message,
                    "name the port in the containers, or write its number".to_owned(),
                ),
            }
        }
        Never::NameOutside(name) => (
            format!("addresses have no ports with names: `{name}` is none there"),
            "write the number of the port".to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::guard::guardrail::{GuardrailSpec, HygieneSection};
    use crate::guard::mode::Mode;
    use crate::guard::review::Origin;
    use crate::guard::testing::{Cluster, create, deployment, ids, namespace, policy};

    fn enforced() -> GuardrailSpec {
        GuardrailSpec {
            mode: Mode::Enforce,
            hygiene: Some(HygieneSection {
                mode: Some(Mode::Enforce),
                ..HygieneSection::default()
            }),
            ..GuardrailSpec::default()
        }
    }

    #[test]
    fn a_webhook_never_refuses_what_check_may() {
        let web = deployment("web", &json!({"app": "web"}));
        let cluster = Cluster::under(&enforced(), &[namespace("shop"), web]);
        let nobody = policy("p", &json!({"podSelector": {"matchLabels": {"app": "db"}}}));
        let mut review = create(&nobody);
        let checked = cluster.judge(&review);
        assert_eq!(ids(&checked), ["RF602"]);
        assert!(!checked.allowed());
        review.origin = Origin::Admission;
        let admitted = cluster.judge(&review);
        assert_eq!(ids(&admitted), ["RF602"]);
        assert!(admitted.allowed());
    }

    #[test]
    fn nothing_is_said_to_be_absent_from_a_namespace_that_was_not_read() {
        let web = deployment("web", &json!({"app": "frontend"}));
        let cluster = Cluster::under(&enforced(), &[web]);
        let by = |app: &str| policy("p", &json!({"podSelector": {"matchLabels": {"app": app}}}));
        assert_eq!(ids(&cluster.create(&by("database"))), Vec::<&str>::new());
        assert_eq!(ids(&cluster.create(&by("frontned"))), ["RF602"]);
    }

    #[test]
    fn pods_under_quarantine_need_not_be_there() {
        let mut spec = GuardrailSpec::built_in();
        if let Some(baseline) = &mut spec.baseline {
            baseline.quarantine =
                Some(serde_json::from_value(json!({"matchLabels": {"held": "yes"}})).unwrap());
        }
        let quarantine = policy(
            "q",
            &json!({"podSelector": {"matchLabels": {"held": "yes"}}, "policyTypes": ["Ingress", "Egress"]}),
        );
        let there = [namespace("shop"), deployment("web", &json!({"app": "web"}))];
        assert_eq!(
            ids(&Cluster::under(&spec, &there).create(&quarantine)),
            Vec::<&str>::new()
        );
        assert_eq!(ids(&Cluster::of(&there).create(&quarantine)), ["RF602"]);
    }
}
