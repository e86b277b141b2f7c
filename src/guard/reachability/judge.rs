//! What the rules in force say of a review: a rule is judged by itself, anything else by what it changes.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::change::Change;
use super::search::Broken;
use super::whole::{self, Violation};
use super::words::{self, Told};
use super::{ReachabilityRule, ReachabilityRules, node, wide};
use crate::guard::decide::{Context, Cut, Judged};
use crate::guard::engine::{Budget, Level};
use crate::guard::exemption::Exemptions;
use crate::guard::finding::{Finding, ObjectRef};
use crate::guard::mode::Mode;
use crate::guard::review::{Kind, Operation, Origin, Review, Subject};
use crate::netpol::reach::root;
use crate::netpol::{Object, ObjectKey, Snapshot};

/// What follows from the rules.
#[derive(Debug, Default)]
pub(in crate::guard) struct Judgement {
    /// What was found.
    pub(in crate::guard) judged: Vec<Judged>,
    /// Why it is not whole, and the strictest mode of what may be missing.
    pub(in crate::guard) cut: Option<(Cut, Mode)>,
}

/// Judges a review by the reachability rules.
pub(in crate::guard) fn judge(
    review: &Review,
    subject: &Subject,
    context: &Context<'_>,
    after: &Snapshot,
    now: Timestamp,
    budget: Budget,
) -> Judgement {
    if let Kind::ReachabilityRule(rule) = &subject.parsed {
        if review.operation == Operation::Delete {
            return Judgement::default();
        }
        return by_itself(review, rule, context, now, budget);
    }
    let rules = context.reachability;
    if rules.is_empty() {
        return Judgement::default();
    }
    let (known, pods) = (context.snapshot, budget.pods);
    let was = before(review, known);
    // What is proposed is applied before the change is tried again.
    let meanwhile = match review.operation {
        Operation::Delete => &was,
        Operation::Create | Operation::Update | Operation::Connect => after,
    };
    let mut judgement = Judgement::default();
    let mut told = BTreeSet::new();
    let mut tell = |broken: Broken<'_>, after: &Snapshot| {
        for (rule, violation) in broken.violations {
            if !told.insert(rule.name.clone()) {
                continue;
            }
            let finding = words::of_change(review, subject, rule, &violation, after, meanwhile);
            let exemption = context
                .exemptions
                .covering(&finding, &rule.name, now)
                .map(|exemption| format!("{}/{}", exemption.namespace, exemption.name));
            let found = judged(finding, Level::Deny, rule.spec.mode, exemption);
            judgement.judged.push(found);
        }
        let cut = broken.cut.map(|cut| (cut, strictest(rules)));
        judgement.cut = judgement.cut.or(cut);
    };
    let mut broken = breaks(review, subject, [known, &was, after], rules, pods);
    if let Some(Object::StagedNetworkPolicy(staged)) = subject.model() {
        // Nobody has counted on what it was: that it closes less than before breaks nothing.
        let without = known.without(&ObjectKey::StagedNetworkPolicy(staged.reference()));
        let itself = breaks(review, subject, [&without, &without, after], rules, pods);
        let is_by_itself = |rule: &ReachabilityRule| {
            let mut rules = itself.violations.iter();
            rules.any(|(other, _)| other.name == rule.name)
        };
        broken.violations.retain(|(rule, _)| is_by_itself(rule));
        tell(broken, after);
    } else {
        tell(broken, after);
        if let Some(rules) = rules.lasting() {
            let [known, after] = [known, after].map(Snapshot::lasting);
            let change = [&known, &before(review, &known), &after];
            tell(breaks(review, subject, change, rules, pods), &after);
        }
    }
    judgement
}

/// The rules that a change breaks, in a cluster as it is known, as it was before the change and as it is after it.
fn breaks<'r>(
    review: &Review,
    subject: &Subject,
    [known, before, after]: [&Snapshot; 3],
    rules: &'r ReachabilityRules,
    most: usize,
) -> Broken<'r> {
    match subject.model() {
        Some(Object::ClusterNetworkPolicy(policy)) => {
            wide::breaks(&policy.reference, [known, before, after], rules, most)
        }
        Some(Object::Node(node)) => node::breaks(&node.name, before, after, rules, most),
        _ => Change::of(review, before, after)
            .map(|change| change.breaks(rules, most))
            .unwrap_or_default(),
    }
}

/// The cluster before the change. What the server says that there was counts, whether it is known here already or not.
fn before(review: &Review, known: &Snapshot) -> Snapshot {
    match review.old_object.as_ref().and_then(Subject::model) {
        Some(object) if review.operation != Operation::Create => known.with(object.clone()),
        Some(_) | None => known.clone(),
    }
}

/// A rule held against the cluster as it is. Where it is applied nothing is changed by it, so it is at most warned of.
fn by_itself(
    review: &Review,
    rule: &ReachabilityRule,
    context: &Context<'_>,
    now: Timestamp,
    budget: Budget,
) -> Judgement {
    let (most, mode) = match review.origin {
        Origin::Manifest | Origin::Existing => (usize::MAX, rule.spec.mode),
        Origin::Admission => (budget.pods, rule.spec.mode.min(Mode::Warn)),
    };
    let groups: &Vec<_> = &context.reachability.groups().collect();
    let mut judgement = Judgement::default();
    for field in whole::hold(rule, groups).empty {
        let finding = words::selects_nothing(review.object_ref(), rule, field);
        let warned = judged(finding, Level::Warn, mode.min(Mode::Warn), None);
        judgement.judged.push(warned);
    }
    let (mut exempted, mut found) = (None, None);
    let outcome = whole::violations(rule, groups, most, &mut |violation| {
        let told = words::of_rule(review.object_ref(), rule, &violation, context.snapshot);
        let Some(exemption) = exemption(&told, rule, &violation, context, now) else {
            found = Some(told.finding);
            return true;
        };
        exempted.get_or_insert((told.finding, exemption));
        false
    });
    let refused = found.map(|finding| judged(finding, Level::Deny, mode, None));
    let let_off =
        exempted.map(|(finding, exemption)| judged(finding, Level::Deny, mode, Some(exemption)));
    judgement.judged.extend(refused.or(let_off));
    judgement.cut = outcome.err().map(|cut| (cut, mode));
    judgement
}

/// The exemption that lets a flow off: by a workload at one of its ends, or by a policy that has to do with it.
fn exemption(
    told: &Told,
    rule: &ReachabilityRule,
    violation: &Violation,
    context: &Context<'_>,
    now: Timestamp,
) -> Option<String> {
    let exemptions: &Exemptions = context.exemptions;
    exemptions.iter().next()?;
    let pods = [&violation.from, &violation.to]
        .into_iter()
        .filter_map(|party| party.pod());
    let roots = pods.flat_map(|pod| [root(pod, context.snapshot), pod.workload.clone()]);
    let workloads = roots.map(|workload| ObjectRef {
        api_version: workload.kind.api_version().to_owned(),
        kind: workload.kind.as_str().to_owned(),
        namespace: Some(workload.namespace.as_str().to_owned()),
        name: workload.name.as_str().to_owned(),
    });
    let objects = workloads.chain(told.policies.iter().map(words::policy_object));
    let mut covering = objects.filter_map(|object| {
        let finding = Finding {
            object,
            ..told.finding.clone()
        };
        let exemption = exemptions.covering(&finding, &rule.name, now)?;
        Some(format!("{}/{}", exemption.namespace, exemption.name))
    });
    covering.next()
}

fn judged(finding: Finding, level: Level, mode: Mode, exemption: Option<String>) -> Judged {
    Judged {
        finding,
        section: None,
        level,
        mode,
        guardrails: Vec::new(),
        exemption,
    }
}

fn strictest(rules: &ReachabilityRules) -> Mode {
    let modes = rules.iter().map(|rule| rule.spec.mode);
    modes.max().unwrap_or_default()
}
