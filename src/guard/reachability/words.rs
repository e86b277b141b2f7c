//! Violations in words: the flow, what lets it through or keeps it out, and the smallest remedy.

use serde_json::{Value, json};

use super::whole::{Party, Violation};
use super::{Expect, ReachabilityRule};
use crate::guard::audit;
use crate::guard::coverage::default_deny;
use crate::guard::finding::{Finding, Fix, ObjectRef};
use crate::guard::registry;
use crate::guard::review::{Operation, Review, Subject};
use crate::netpol::reach::{Change, root};
use crate::netpol::{
    self, ClusterPolicyRef, Direction, EndVerdict, FieldPath, Node, NotHeld, Object, PolicyKind,
    PolicyRef, RuleRef, Snapshot, Verdict,
};

/// How many policies a message names before it only counts.
const NAMED: usize = 3;

/// A violation in words.
#[derive(Clone, Debug)]
pub(super) struct Told {
    /// The finding.
    pub(super) finding: Finding,
    /// The policies that have to do with it: those that let the flow through, or keep it out.
    pub(super) policies: Vec<PolicyRef>,
}

/// What a change breaks, told of the object that is changed. What is proposed is applied to what there is meanwhile.
pub(super) fn of_change(
    review: &Review,
    subject: &Subject,
    rule: &ReachabilityRule,
    violation: &Violation,
    after: &Snapshot,
    meanwhile: &Snapshot,
) -> Finding {
    let own = match subject.model() {
        Some(Object::NetworkPolicy(policy)) if review.operation != Operation::Delete => {
            Some(policy.reference())
        }
        Some(Object::StagedNetworkPolicy(staged)) => Some(PolicyRef {
            kind: PolicyKind::Canary,
            ..staged.reference()
        }),
        _ => None,
    };
    let seen = Seen::of(violation, after, own.as_ref());
    let (does, says) = match rule.spec.expect {
        Expect::Deny => ("opens", "forbids"),
        Expect::Allow => ("closes", "demands"),
    };
    let message = format!(
        "{does} {}, which ReachabilityRule {} {says}; {}",
        seen.flow, rule.name, seen.reason
    );
    let by_own = seen.own_rule();
    let field = match (by_own, subject.model()) {
        (Some(by), _) => by.field(),
        (None, Some(Object::ClusterNetworkPolicy(policy)))
            if review.operation != Operation::Delete =>
        {
            seen.field_of(&policy.reference)
        }
        (None, Some(Object::Pod(pod) | Object::Workload(pod))) => {
            FieldPath::of(pod.workload.kind.pod_at().iter().copied())
                .key("metadata")
                .key("labels")
        }
        (None, Some(Object::Node(node))) => field_of_node(review, node),
        (None, Some(Object::Namespace(_))) => FieldPath::of(["metadata", "labels"]),
        (None, Some(Object::NetworkPolicy(_) | Object::StagedNetworkPolicy(_)))
            if own.is_some() =>
        {
            FieldPath::of(["spec"])
        }
        (None, _) => FieldPath::root(),
    };
    let fix = match (rule.spec.expect, by_own) {
        (Expect::Deny, Some(by)) => {
            without(by, subject, violation, after).or_else(|| Some(seen.remedy(meanwhile)))
        }
        (Expect::Deny, None) => Some(seen.remedy(meanwhile)),
        (Expect::Allow, _) => allow(violation, after, meanwhile),
    };
    finding(rule, review.object_ref(), field, message, fix)
}

/// What is changed of a node.
fn field_of_node(review: &Review, new: &Node) -> FieldPath {
    match review.old_object.as_ref().and_then(Subject::model) {
        Some(Object::Node(old)) if old.labels != new.labels => {
            FieldPath::of(["metadata", "labels"])
        }
        Some(Object::Node(_)) => FieldPath::of(["status", "addresses"]),
        _ => FieldPath::root(),
    }
}

/// What a rule meets in the cluster as it is.
pub(super) fn of_rule(
    object: ObjectRef,
    rule: &ReachabilityRule,
    violation: &Violation,
    snapshot: &Snapshot,
) -> Told {
    let seen = Seen::of(violation, snapshot, None);
    let is = match rule.spec.expect {
        Expect::Deny => "is open and must not be",
        Expect::Allow => "is closed and must not be",
    };
    let message = format!("{} {is}; {}", seen.flow, seen.reason);
    let fix = match rule.spec.expect {
        Expect::Deny => Some(seen.remedy(snapshot)),
        Expect::Allow => allow(violation, snapshot, snapshot),
    };
    let field = FieldPath::of(["spec", "expect"]);
    Told {
        finding: finding(rule, object, field, message, fix),
        policies: seen.policies,
    }
}

/// An end of a rule that means no pod.
pub(super) fn selects_nothing(
    object: ObjectRef,
    rule: &ReachabilityRule,
    field: FieldPath,
) -> Finding {
    let message = format!("{field} selects no pod, so the rule says nothing of it");
    let fix =
        Fix::words("correct the names or labels, or give the manifests of these workloads as well");
    let mut finding = Finding::of(
        &registry::SELECTS_NOTHING,
        object,
        field,
        message,
        Some(fix),
    );
    if let Some(description) = &rule.spec.description {
        finding.why = format!("{}: {}", finding.why, one_line(description));
    }
    finding
}

/// A policy as the object of a finding.
pub(super) fn policy_object(policy: &PolicyRef) -> ObjectRef {
    let (api_version, kind) = match policy.kind {
        PolicyKind::NetworkPolicy => ("networking.k8s.io/v1".to_owned(), "NetworkPolicy"),
        PolicyKind::Canary | PolicyKind::StagedNetworkPolicy => {
            (audit::STAGED.api_version(), audit::STAGED.kind)
        }
    };
    ObjectRef {
        api_version,
        kind: kind.to_owned(),
        namespace: Some(policy.namespace.as_str().to_owned()),
        name: policy.name.as_str().to_owned(),
    }
}

fn finding(
    rule: &ReachabilityRule,
    object: ObjectRef,
    field: FieldPath,
    message: String,
    fix: Option<Fix>,
) -> Finding {
    let check = match rule.spec.expect {
        Expect::Deny => &registry::FORBIDDEN_REACHABLE,
        Expect::Allow => &registry::DEMANDED_UNREACHABLE,
    };
    let mut finding = Finding::of(check, object, field, message, fix);
    finding.severity = rule.spec.severity;
    if let Some(description) = &rule.spec.description {
        finding.why = one_line(description);
    }
    finding
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// One flow of a violation, as the policies see it.
struct Seen<'v> {
    /// The flow in words.
    flow: String,
    /// What lets it through, or keeps it out.
    reason: String,
    policies: Vec<PolicyRef>,
    verdict: Option<Verdict>,
    violation: &'v Violation,
    /// The policy that is changed.
    own: Option<PolicyRef>,
}

impl<'v> Seen<'v> {
    fn of(violation: &'v Violation, snapshot: &Snapshot, own: Option<&PolicyRef>) -> Self {
        let (from, to) = (
            named(&violation.from, snapshot),
            named(&violation.to, snapshot),
        );
        let verdict = violation.flow().map(|flow| snapshot.verdict(&flow));
        let mut policies = Vec::new();
        let reason = verdict.as_ref().map_or_else(String::new, |verdict| {
            reason(verdict, &from, &to, own, &mut policies)
        });
        Self {
            flow: format!("{from} → {to} {}", violation.ports),
            reason,
            policies,
            verdict,
            violation,
            own: own.cloned(),
        }
    }

    /// The rule of the changed policy that lets the flow through.
    fn own_rule(&self) -> Option<&RuleRef> {
        let verdict = self.verdict.as_ref()?;
        let mut rules = Direction::BOTH
            .into_iter()
            .filter_map(|direction| allowed_by(verdict.at(direction)));
        rules.find(|rule| Some(&rule.policy) == self.own.as_ref())
    }

    /// The rule of a ClusterNetworkPolicy that decides the flow; all of the policy where none of it does.
    fn field_of(&self, policy: &ClusterPolicyRef) -> FieldPath {
        let ends = Direction::BOTH.into_iter();
        let mut rules = ends.filter_map(|way| self.verdict.as_ref()?.at(way).ruled());
        let own = rules.find(|ruled| ruled.by.policy == *policy);
        own.map_or_else(FieldPath::root, |ruled| ruled.by.field())
    }

    /// What would close the flow, in words or as a policy that takes no other's place in the cluster where it is applied.
    fn remedy(&self, meanwhile: &Snapshot) -> Fix {
        let Some(verdict) = &self.verdict else {
            return Fix::words("close the flow at one of its ends");
        };
        // Who is reached is the one to be guarded.
        for (direction, party) in [
            (Direction::Ingress, &self.violation.to),
            (Direction::Egress, &self.violation.from),
        ] {
            match (verdict.at(direction), party.pod()) {
                (EndVerdict::Allowed { by, .. }, _) => {
                    return Fix::words(format!(
                        "narrow or remove {} of {}",
                        place(by),
                        with_kind(&by.policy)
                    ));
                }
                (EndVerdict::Ruled(ruled), _) => {
                    return Fix::words(format!("narrow or remove {}", ruled.by));
                }
                (EndVerdict::NotIsolated, Some(pod)) => {
                    let namespace = pod.namespace();
                    return Fix {
                        summary: format!(
                            "apply a default-deny NetworkPolicy in namespace `{namespace}`, and allow what is meant"
                        ),
                        patch: None,
                        manifest: Some(default_deny(meanwhile, namespace, &[direction])),
                    };
                }
                _ => {}
            }
        }
        Fix::words("close the flow at one of its ends")
    }
}

/// The changed policy without the peer, or the rule, that lets the flow through, where that closes it.
fn without(
    by: &RuleRef,
    subject: &Subject,
    violation: &Violation,
    after: &Snapshot,
) -> Option<Fix> {
    let field = by.field();
    let peers = field.parent()?;
    let is_only = peers
        .lookup(&subject.value)
        .and_then(Value::as_array)
        .is_none_or(|peers| peers.len() < 2);
    // An empty list of peers would be everyone.
    let field = match by.peer {
        Some(_) if is_only => peers.parent()?,
        Some(_) | None => field,
    };
    let fix = Fix::removing(&field, &format!("remove {field}"));
    let mut patched = subject.value.clone();
    json_patch::patch(&mut patched, fix.patch.as_ref()?).ok()?;
    let object = netpol::parse(&patched).ok()??.object;
    let flow = violation.flow()?;
    let closes = !after.with(object).verdict(&flow).allowed();
    closes.then_some(fix)
}

/// What would let the flow pass.
fn allow(violation: &Violation, after: &Snapshot, meanwhile: &Snapshot) -> Option<Fix> {
    let explained = after.explain(&violation.flow()?);
    let first = explained.changes.first()?;
    let said: Vec<String> = explained
        .changes
        .iter()
        .map(|change| {
            if change.is_new {
                format!(
                    "apply a NetworkPolicy in namespace `{}` that allows the flow",
                    change.policy.namespace
                )
            } else {
                format!(
                    "add this rule to spec.{} of NetworkPolicy {}: {}",
                    change.direction, change.policy, change.manifest
                )
            }
        })
        .collect();
    let new = explained.changes.iter().find(|change| change.is_new);
    Some(Fix {
        summary: said.join(", and "),
        patch: None,
        manifest: applied(new.unwrap_or(first), after, meanwhile),
    })
}

/// What applies a change: the policy that is to be made, or the one that gets a rule more.
fn applied(change: &Change, after: &Snapshot, meanwhile: &Snapshot) -> Option<Value> {
    let namespace = &change.policy.namespace;
    if change.is_new {
        let mut manifest = change.manifest.clone();
        let name = meanwhile.free_policy_name(namespace, change.policy.name.as_str());
        *manifest.pointer_mut("/metadata/name")? = json!(name);
        return Some(manifest);
    }
    let mut manifest = after.policy(&change.policy)?.manifest();
    let spec = manifest.get_mut("spec")?.as_object_mut()?;
    let rules = spec.entry(change.direction.field()).or_insert(json!([]));
    rules.as_array_mut()?.push(change.manifest.clone());
    Some(manifest)
}

/// One end by the workload that it belongs to.
fn named(party: &Party, snapshot: &Snapshot) -> String {
    match party {
        Party::Pod(pod) => root(pod, snapshot).to_string(),
        Party::Address(address) => format!("outside address {address}"),
    }
}

/// A policy with its kind, which the others say by themselves.
fn with_kind(policy: &PolicyRef) -> String {
    match policy.kind {
        PolicyKind::NetworkPolicy => format!("NetworkPolicy {policy}"),
        PolicyKind::Canary | PolicyKind::StagedNetworkPolicy => policy.to_string(),
    }
}

fn allowed_by(end: &EndVerdict) -> Option<&RuleRef> {
    match end {
        EndVerdict::Allowed { by, .. } => Some(by),
        _ => None,
    }
}

/// `ingress rule 0, peer 1`.
fn place(by: &RuleRef) -> String {
    let peer = by
        .peer
        .map_or_else(String::new, |peer| format!(", peer {peer}"));
    format!("{} rule {}{peer}", by.direction, by.index)
}

fn reason(
    verdict: &Verdict,
    from: &str,
    to: &str,
    own: Option<&PolicyRef>,
    policies: &mut Vec<PolicyRef>,
) -> String {
    let mut rules = Vec::new();
    let mut open = Vec::new();
    for (direction, name) in [(Direction::Ingress, to), (Direction::Egress, from)] {
        match verdict.at(direction) {
            EndVerdict::Denied { isolated_by } => {
                policies.extend(isolated_by.iter().cloned());
                return format!(
                    "{direction} of {name} is isolated by {}, and no rule allows it",
                    list(isolated_by)
                );
            }
            EndVerdict::Ruled(decided) if !decided.accepts => {
                return format!("{direction} of {name} is denied by {}", decided.by);
            }
            EndVerdict::Ruled(decided) => rules.push(decided.by.to_string()),
            EndVerdict::NoAddress => {
                return "the two ends have no addresses of the same family".to_owned();
            }
            EndVerdict::Allowed { by, .. } => {
                policies.push(by.policy.clone());
                rules.push(if Some(&by.policy) == own {
                    place(by)
                } else {
                    format!("{} of {}", place(by), by.policy)
                });
            }
            EndVerdict::NotIsolated => {
                open.push(format!("no policy isolates {name} for {direction}"));
            }
            EndVerdict::NotHeld(NotHeld::External) => {}
            EndVerdict::NotHeld(reason) => open.push(format!("{name}: {reason}")),
        }
    }
    let mut said = Vec::new();
    if !rules.is_empty() {
        said.push(format!("let through by {}", rules.join(" and ")));
    }
    said.extend(open);
    said.join("; ")
}

fn list(policies: &[PolicyRef]) -> String {
    let shown = policies.iter().take(NAMED).map(ToString::to_string);
    let shown: Vec<String> = shown.collect();
    match policies.len().checked_sub(NAMED) {
        None | Some(0) => shown.join(", "),
        Some(more) => format!("{} and {more} more", shown.join(", ")),
    }
}
