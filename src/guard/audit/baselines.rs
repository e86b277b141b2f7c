//! What the audit says of baselines: which namespaces are without theirs, why, and what making them would cut.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use ipnet::IpNet;
use jiff::Timestamp;

use crate::guard::baseline::plan::{Hold, Plan, Standing, plan};
use crate::guard::baseline::{Cut, Observed, Wanted, observed};
use crate::guard::decide::{Context, Judged, judge};
use crate::guard::engine::{Budget, Level};
use crate::guard::finding::{Finding, Fix, ObjectRef};
use crate::guard::guardrail::Section;
use crate::guard::mode::Mode;
use crate::guard::registry;
use crate::guard::review::Review;
use crate::netpol::replay::Observations;
use crate::netpol::{FieldPath, NamespaceName, Object};

/// How many recorded connections a finding names.
const NAMED: usize = 3;

/// How all namespaces stand with their baselines.
#[derive(Clone, Debug, Default)]
pub struct Baselines {
    plans: BTreeMap<NamespaceName, Plan>,
    observed: Option<Observed>,
}

impl Baselines {
    /// Of a cluster under its guardrails.
    pub fn of(context: &Context<'_>) -> Self {
        let plans = plan(context.snapshot, context.guardrails, &BTreeSet::new());
        let named = plans.into_iter().map(|plan| (plan.namespace.clone(), plan));
        Self {
            plans: named.collect(),
            observed: None,
        }
    }

    /// The same with recorded flows that those which are held back, or are about to be made, would cut; `cluster` as for
    /// [`observed`].
    #[must_use]
    pub fn seen(
        mut self,
        recorded: &Observations,
        context: &Context<'_>,
        cluster: &[IpNet],
    ) -> Self {
        let held = self.plans.values().flat_map(|plan| match &plan.standing {
            // What is in the place of a policy that is not ours will not be made.
            Standing::Held(Hold::Mode(_) | Hold::RunningPods, wanted) => wanted.as_slice(),
            Standing::Held(Hold::NameTaken(_) | Hold::LastCover, _)
            | Standing::Kept
            | Standing::Adopted
            | Standing::Leaving => &[],
        });
        let to_come = self.plans.values().flat_map(Plan::to_make);
        let made = held.chain(to_come);
        self.observed = Some(observed(made, recorded, context.snapshot, cluster));
        self
    }

    /// What they would cut of recorded flows, where there are records.
    pub fn observed(&self) -> Option<&Observed> {
        self.observed.as_ref()
    }

    /// What is said of one namespace.
    pub(super) fn told(
        &self,
        namespace: &NamespaceName,
        context: &Context<'_>,
        now: Timestamp,
        budget: Budget,
    ) -> Option<Judged> {
        let observed = self.observed.as_ref();
        let cut = observed.and_then(|observed| observed.namespaces.get(namespace));
        held(self.plans.get(namespace)?, cut, context, now, budget)
    }
}

/// What is said of the baseline of a namespace: that it is not there, why, and which flows its policies would cut: declared
/// ones, and those that were recorded.
///
/// `None` where the namespace has it or nobody asks for it.
fn held(
    plan: &Plan,
    observed: Option<&Cut>,
    context: &Context<'_>,
    now: Timestamp,
    budget: Budget,
) -> Option<Judged> {
    let Standing::Held(hold, wanted) = &plan.standing else {
        return None;
    };
    let namespace = &plan.namespace;
    let labels = context.snapshot.namespace_labels(namespace);
    let sections = context
        .guardrails
        .selecting(&labels)
        .filter_map(|guardrail| Some((guardrail, guardrail.mode_of(Section::Baseline)?)));
    let (guardrails, modes): (Vec<_>, Vec<_>) = sections.unzip();
    let (reason, advice) = match hold {
        Hold::Mode(mode) => (
            format!(
                "the section is in mode {mode}, and would make {}",
                names(wanted)
            ),
            "set the mode of the section to `Enforce`, and promote the namespace if pods run there"
                .to_owned(),
        ),
        Hold::RunningPods => (
            format!(
                "pods run there, and it was not promoted; {} waits",
                names(wanted)
            ),
            format!("`ringfence promote --namespace {namespace}`"),
        ),
        Hold::NameTaken(name) => (
            format!("policy `{name}` is there and is not Ringfence's"),
            format!("give policy `{name}` another name"),
        ),
        // Nobody asks for it; it stays because pods need it.
        Hold::LastCover => return None,
    };
    let cut = cuts(wanted, context, now, budget);
    let declared = match cut.as_slice() {
        [] => String::new(),
        [one] => format!("; it would cut what is declared: {one}"),
        [first, more @ ..] => {
            format!(
                "; it would cut what is declared: {first}, and {} more",
                more.len()
            )
        }
    };
    let observed = observed.map(seen).unwrap_or_default();
    let object = ObjectRef {
        api_version: "v1".to_owned(),
        kind: "Namespace".to_owned(),
        namespace: None,
        name: namespace.as_str().to_owned(),
    };
    let fix = Fix {
        summary: advice,
        patch: None,
        manifest: wanted.first().map(|wanted| wanted.manifest.clone()),
    };
    let message = format!(
        "namespace `{namespace}` is without its baseline policy: {reason}{declared}{observed}"
    );
    let at = FieldPath::root();
    Some(Judged {
        finding: Finding::of(&registry::NO_BASELINE, object, at, message, Some(fix)),
        section: Some(Section::Baseline),
        // Nobody can be refused for what the controller has not done.
        level: Level::Warn,
        mode: modes.into_iter().max().unwrap_or_default().min(Mode::Warn),
        guardrails: guardrails
            .iter()
            .map(|guardrail| guardrail.name.clone())
            .collect(),
        exemption: None,
    })
}

/// What reachability rules say of flows that some policies would cut, one line for each rule that they would break.
pub fn cuts(
    wanted: &[Wanted],
    context: &Context<'_>,
    now: Timestamp,
    budget: Budget,
) -> Vec<String> {
    let mut snapshot = context.snapshot.clone();
    let mut lines = Vec::new();
    for wanted in wanted {
        let review = Review::of_manifest(wanted.manifest.clone());
        let context = Context {
            snapshot: &snapshot,
            ..*context
        };
        let decision = judge(&review, &context, now, budget);
        let broken = decision.judged.into_iter().filter(|judged| {
            judged.finding.id.as_str() == registry::DEMANDED_UNREACHABLE.id
                && judged.exemption.is_none()
        });
        lines.extend(broken.map(|judged| judged.finding.message));
        snapshot.insert(Object::NetworkPolicy(wanted.policy.clone()));
    }
    lines
}

fn names(wanted: &[Wanted]) -> String {
    let names = wanted
        .iter()
        .map(|wanted| format!("`{}`", wanted.policy.name));
    names.collect::<Vec<_>>().join(", ")
}

/// What would be cut of recorded flows, the most frequent by name.
fn seen(cut: &Cut) -> String {
    let mut text = match cut.flows {
        1 => "; it would cut 1 recorded flow: ".to_owned(),
        flows => format!("; it would cut {flows} recorded flows: "),
    };
    let named = cut.rows.iter().take(NAMED).map(|row| {
        let (from, to, protocol, port) = (&row.from, &row.to, row.protocol, row.port);
        format!("{from} to {to} {protocol} {port} ({})", row.flows)
    });
    text.push_str(&named.collect::<Vec<_>>().join(", "));
    if let Some(more) = cut.connections.checked_sub(NAMED).filter(|more| *more > 0) {
        let _ = write!(text, ", and {more} more connections");
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::guard::guardrail::GuardrailSpec;
    use crate::guard::testing::{BUDGET, Cluster, namespace, now};
    use crate::netpol::replay::Action;
    use crate::netpol::testing::{actor, observe};

    fn recorded() -> Observations {
        let flows: Vec<_> = (1..=5)
            .map(|port| {
                let [web, api] =
                    ["web", "api"].map(|app| actor(&format!("shop/{app}"), Some(&[("app", app)])));
                (web, api, port, Action::Allowed, u64::from(port))
            })
            .collect();
        observe(&flows)
    }

    /// What is said of the namespace `shop` under a baseline section.
    fn told(objects: &[serde_json::Value], mode: &str) -> Option<String> {
        let spec: GuardrailSpec =
            serde_json::from_value(json!({"baseline": {"mode": mode}})).expect("a spec");
        let cluster = Cluster::under(&spec, objects);
        let context = cluster.context();
        let baselines = Baselines::of(&context).seen(&recorded(), &context, &[]);
        let told = baselines.told(&"shop".into(), &context, now(), BUDGET);
        told.map(|judged| judged.finding.message)
    }

    #[test]
    fn a_finding_names_the_most_frequent_recorded_flows_that_would_be_cut() {
        assert_eq!(
            told(&[namespace("shop")], "Audit").as_deref(),
            Some(
                "namespace `shop` is without its baseline policy: the section is in mode Audit, and would make \
                 `ringfence-baseline`; it would cut 15 recorded flows: shop/web to shop/api TCP 5 (5), \
                 shop/web to shop/api TCP 4 (4), shop/web to shop/api TCP 3 (3), and 2 more connections"
            )
        );
        // A new namespace gets it at once: there is nothing to preview.
        assert_eq!(told(&[namespace("shop")], "Enforce"), None);
    }

    #[test]
    fn nothing_is_said_to_be_cut_by_what_cannot_be_made() {
        let mut taken =
            crate::guard::testing::policy("ringfence-baseline", &json!({"podSelector": {}}));
        taken["spec"]["ingress"] = json!([{}]);
        let text = told(&[namespace("shop"), taken], "Enforce").expect("it is told");
        assert!(text.ends_with("is not Ringfence's"), "{text}");
    }
}
