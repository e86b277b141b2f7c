//! A guardrail is good or is refused: selectors, patterns, numbers. Every problem is named by its field.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::{Guardrail, GuardrailSpec, ScrapePort};
use crate::netpol::{FieldPath, ParseError, Problem, Selector};

impl Guardrail {
    /// Checks what a manifest says.
    pub(super) fn check(name: String, mut spec: GuardrailSpec) -> Result<Self, ParseError> {
        leave_out_disabled(&mut spec);
        let mut problems = Vec::new();
        let at = FieldPath::of(["spec"]);
        let mut selector =
            |field: FieldPath, selector: &LabelSelector| match Selector::parse(selector, &field) {
                Ok(parsed) => Some(parsed),
                Err(error) => {
                    problems.extend(error.problems);
                    None
                }
            };
        let namespaces = match &spec.namespace_selector {
            Some(namespaces) => selector(at.key("namespaceSelector"), namespaces),
            None => Some(Selector::everything()),
        };
        let mut quarantine = None;
        if let Some(baseline) = &spec.baseline {
            let at = at.key("baseline");
            if let Some(pods) = &baseline.quarantine {
                quarantine = selector(at.key("quarantine"), pods);
            }
            if let Some(dns) = &baseline.dns {
                selector(
                    at.key("dns").key("namespaceSelector"),
                    &dns.namespace_selector,
                );
                selector(at.key("dns").key("podSelector"), &dns.pod_selector);
            }
            if let Some(monitoring) = &baseline.monitoring {
                selector(
                    at.key("monitoring").key("namespaceSelector"),
                    &monitoring.namespace_selector,
                );
                if let Some(pods) = &monitoring.pod_selector {
                    selector(at.key("monitoring").key("podSelector"), pods);
                }
            }
            if let Some(ingress) = &baseline.ingress_controller {
                let at = at.key("ingressController");
                selector(at.key("namespaceSelector"), &ingress.namespace_selector);
                if let Some(pods) = &ingress.pod_selector {
                    selector(at.key("podSelector"), pods);
                }
            }
        }
        problems.extend(patterns(&spec));
        problems.extend(bounds(&spec));
        let parameters = serde_json::to_value(&spec).unwrap_or_default();
        match namespaces {
            Some(namespaces) if problems.is_empty() => Ok(Self {
                name,
                spec,
                namespaces,
                quarantine,
                parameters,
            }),
            _ => Err(ParseError { problems }),
        }
    }
}

/// What says `enabled: false` is from here on as if it had said `null`: it is not there.
fn leave_out_disabled(spec: &mut GuardrailSpec) {
    if let Some(baseline) = &mut spec.baseline {
        baseline.dns.take_if(|dns| !dns.enabled);
        baseline
            .monitoring
            .take_if(|monitoring| !monitoring.enabled);
    }
    if let Some(breadth) = &mut spec.breadth {
        breadth.ingress.take_if(|limits| !limits.enabled);
        breadth.egress.take_if(|limits| !limits.enabled);
    }
}

/// Regular expressions that do not compile.
fn patterns(spec: &GuardrailSpec) -> Vec<Problem> {
    let at = FieldPath::of(["spec"]);
    let rules = spec
        .labels
        .iter()
        .flat_map(|section| section.rules.iter().enumerate());
    let labels = rules.map(|(index, rule)| {
        (
            at.key("labels").key("rules").index(index),
            rule.pattern.as_ref(),
        )
    });
    let documents = spec.documentation.iter().flat_map(|section| {
        let at = at.key("documentation");
        [
            (at.key("owner"), section.owner.pattern.as_ref()),
            (at.key("purpose"), section.purpose.pattern.as_ref()),
            (at.key("reviewBy"), section.review_by.pattern.as_ref()),
        ]
    });
    labels
        .chain(documents)
        .filter_map(|(field, pattern)| {
            let error = regex::Regex::new(pattern?).err()?;
            // The library prints a picture of several lines; its last one has the reason.
            let text = error.to_string();
            let reason = text
                .lines()
                .last()
                .unwrap_or_default()
                .trim_start_matches("error: ")
                .to_owned();
            Some(Problem {
                field: field.key("pattern"),
                reason: format!("not a regular expression: {reason}"),
            })
        })
        .collect()
}

/// Numbers and texts that are out of bounds.
fn bounds(spec: &GuardrailSpec) -> Vec<Problem> {
    let at = FieldPath::of(["spec"]);
    let mut problems = Vec::new();
    let mut refuse = |field: FieldPath, reason: &str| {
        problems.push(Problem {
            field,
            reason: reason.to_owned(),
        });
    };
    if let Some(breadth) = &spec.breadth {
        for (name, limits) in [("ingress", &breadth.ingress), ("egress", &breadth.egress)] {
            let Some(limits) = limits else { continue };
            let at = at.key("breadth").key(name);
            if limits.widest_prefix_v4 > 32 {
                refuse(at.key("widestPrefixV4"), "must be at most 32");
            }
            if limits.widest_prefix_v6 > 128 {
                refuse(at.key("widestPrefixV6"), "must be at most 128");
            }
        }
    }
    if let Some(labels) = &spec.labels {
        for (index, rule) in labels.rules.iter().enumerate() {
            if rule.key.is_empty() {
                refuse(
                    at.key("labels").key("rules").index(index).key("key"),
                    "must not be empty",
                );
            }
        }
    }
    if let Some(baseline) = &spec.baseline {
        let at = at.key("baseline");
        if let Some(dns) = &baseline.dns {
            if dns.ports.is_empty() {
                refuse(
                    at.key("dns").key("ports"),
                    "must name at least one port; use `enabled: false` for no DNS allow",
                );
            }
            if dns.ports.contains(&0) {
                refuse(
                    at.key("dns").key("ports"),
                    "a port is a number from 1 to 65535",
                );
            }
        }
        if let Some(monitoring) = &baseline.monitoring {
            let at = at.key("monitoring").key("ports");
            if monitoring.ports.is_empty() {
                refuse(
                    at.clone(),
                    "must name at least one port; use `enabled: false` for no monitoring allow",
                );
            }
            for (index, port) in monitoring.ports.iter().enumerate() {
                match port {
                    ScrapePort::Number(0) => {
                        refuse(at.index(index), "a port is a number from 1 to 65535");
                    }
                    ScrapePort::Name(name) if name.is_empty() || name.len() > 15 => {
                        refuse(at.index(index), "the name of a port has 1 to 15 characters");
                    }
                    ScrapePort::Number(_) | ScrapePort::Name(_) => {}
                }
            }
        }
    }
    problems
}
