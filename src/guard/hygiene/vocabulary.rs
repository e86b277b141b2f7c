//! Label keys whose values have run wild, in words: told of the first workload that has the rarest value.

use std::collections::BTreeSet;

use crate::guard::finding::{Finding, Fix};
use crate::guard::guardrail::{Guardrail, HygieneSection, LabelsSection};
use crate::guard::registry;
use crate::guard::review::{Review, Subject};
use crate::netpol::findings::{Ask, Neighbourhood, Wild};
use crate::netpol::labels::TEMPLATE_HASH;
use crate::netpol::{FieldPath, Object};

/// How many words are shown of which there are several spellings.
const SHOWN: usize = 3;

/// Keys that name a workload or what it was made of: they have as many values as there are such things.
const NAMES: [&str; 7] = [
    "app",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/name",
    "app.kubernetes.io/version",
    "k8s-app",
    "name",
    TEMPLATE_HASH,
];

/// What has run wild and is told of this object; asked where all workloads are known.
pub(super) fn wild(
    review: &Review,
    subject: &Subject,
    guardrail: &Guardrail,
    section: &HygieneSection,
    all: &Neighbourhood<'_>,
) -> Vec<Finding> {
    let Some(Object::Pod(pod) | Object::Workload(pod)) = subject.model() else {
        return Vec::new();
    };
    let ask = ask(guardrail, section);
    let wild = all.wild(&ask);
    let labels = FieldPath::of(pod.workload.kind.pod_at().iter().copied())
        .key("metadata")
        .key("labels");
    let told = wild.iter().filter(|wild| wild.at == pod.workload);
    let found = told.map(|wild| {
        let fix = match wild.alike.first().and_then(|group| group.first()) {
            Some((value, _)) => format!("write `{value}` wherever it is meant"),
            None => "agree on the values, and list them in `labels.rules` of the guardrail".into(),
        };
        Finding::of(
            &registry::WILD_LABELS,
            review.object_ref(),
            labels.key(&wild.key),
            message(wild, section),
            Some(Fix::words(fix)),
        )
    });
    found.collect()
}

/// The keys of the conventions and those of selectors; what a convention has values for is judged by it.
pub(super) fn ask(guardrail: &Guardrail, section: &HygieneSection) -> Ask {
    let conventions = guardrail.spec.labels.as_ref();
    let rules = conventions.map_or(&[][..], |labels: &LabelsSection| &labels.rules);
    let (mut more, mut but) = (BTreeSet::new(), BTreeSet::new());
    for rule in rules {
        let is_closed = !rule.values.is_empty() || rule.pattern.is_some();
        let keys = if is_closed { &mut but } else { &mut more };
        keys.extend(rule.aliases.iter().chain([&rule.key]).cloned());
    }
    Ask {
        namespaces: guardrail.namespaces.clone(),
        most: usize::from(section.most_label_values),
        more,
        but,
        names: NAMES.map(str::to_owned).into(),
    }
}

fn message(wild: &Wild, section: &HygieneSection) -> String {
    let mut parts = Vec::new();
    if wild.is_too_many {
        parts.push(format!(
            "label `{}` has {} values over {} workloads, and the guardrail allows {}",
            wild.key, wild.values, wild.workloads, section.most_label_values
        ));
    }
    let groups = wild.alike.iter().take(SHOWN).map(|group| {
        let values: Vec<String> = group
            .iter()
            .map(|(value, count)| format!("`{value}` ({count})"))
            .collect();
        values.join(", ")
    });
    let groups: Vec<String> = groups.collect();
    if !groups.is_empty() {
        let more = match wild.alike.len().checked_sub(SHOWN) {
            None | Some(0) => String::new(),
            Some(more) => format!("; and {more} more"),
        };
        let of = if wild.is_too_many {
            "values".to_owned()
        } else {
            format!("values of label `{}`", wild.key)
        };
        parts.push(format!(
            "{of} that are probably one: {}{more}",
            groups.join("; ")
        ));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::guard::guardrail::{GuardrailSpec, HygieneSection, LabelRule, LabelsSection};
    use crate::guard::testing::{Cluster, deployment, namespace};

    fn spec(most: u16, values: &[&str]) -> GuardrailSpec {
        let mut rule: LabelRule = serde_json::from_value(json!({"key": "env"})).unwrap();
        rule.values = values.iter().map(|value| (*value).to_owned()).collect();
        GuardrailSpec {
            labels: Some(LabelsSection {
                rules: vec![rule],
                ..LabelsSection::default()
            }),
            hygiene: Some(HygieneSection {
                most_label_values: most,
                ..HygieneSection::default()
            }),
            ..GuardrailSpec::default()
        }
    }

    /// What is said of workloads with these values of `env`, with the name of the workload that it is said of.
    fn found(spec: &GuardrailSpec, values: &[&str]) -> Vec<(String, String)> {
        let workloads = values.iter().enumerate();
        let workloads: Vec<Value> = workloads
            .map(|(number, value)| deployment(&format!("w{number}"), &json!({"env": value})))
            .collect();
        let there = [&[namespace("shop")][..], &workloads].concat();
        let cluster = Cluster::under(spec, &there);
        let mut found = Vec::new();
        for workload in &workloads {
            let decision = cluster.check(workload);
            let findings = decision.judged.into_iter().map(|judged| judged.finding);
            let wild = findings.filter(|finding| finding.id.as_str() == "RF613");
            found.extend(wild.map(|finding| (finding.object.name, finding.message)));
        }
        found
    }

    #[test]
    fn spellings_of_one_value_are_told_once() {
        let values = ["prod", "dev", "prod", "Prod", "production-1", "prod"];
        assert_eq!(
            found(&spec(30, &[]), &values),
            [(
                "w3".to_owned(),
                "values of label `env` that are probably one: `prod` (3), `Prod` (1), `production-1` (1)"
                    .to_owned()
            )]
        );
        assert_eq!(found(&spec(30, &[]), &["zone-1", "zone-2", "zone-3"]), []);
        // A convention that lists the values has found it already.
        assert_eq!(found(&spec(30, &["prod", "dev"]), &values), []);
    }

    #[test]
    fn more_values_than_the_bound_are_told() {
        let values = ["a", "b", "c", "b", "a"];
        assert_eq!(
            found(&spec(2, &[]), &values),
            [(
                "w2".to_owned(),
                "label `env` has 3 values over 5 workloads, and the guardrail allows 2".to_owned()
            )]
        );
        assert_eq!(found(&spec(3, &[]), &values), []);
    }
}
