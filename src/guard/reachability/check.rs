//! A reachability rule is good or is refused: selectors, blocks, ports. Every problem is named by its field.

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::{ReachabilityRule, ReachabilityRuleSpec, RuleEnd, RulePort, Side, Who};
use crate::netpol::labels::NAMESPACE_NAME_LABEL;
use crate::netpol::name::dns_label_problem;
use crate::netpol::net::parse_block;
use crate::netpol::reach::PortRange;
use crate::netpol::selector::Requirement;
use crate::netpol::{FieldPath, ParseError, PortSet, Problem, Selector};

/// More entries than these are not one rule any more, and would make a judgement slow.
const MOST_ENTRIES: usize = 100;

/// What is wrong, as far as it was read.
#[derive(Default)]
struct Problems(Vec<Problem>);

impl ReachabilityRule {
    /// Checks what a manifest says.
    pub(super) fn check(name: String, spec: ReachabilityRuleSpec) -> Result<Self, ParseError> {
        let mut problems = Problems::default();
        let at = FieldPath::of(["spec"]);
        let mut ends = |side: Side, ends: &[RuleEnd]| {
            let at = at.key(side.field());
            if ends.is_empty() {
                problems.add(
                    &at,
                    "must name at least one end: pods, or addresses outside",
                );
            }
            problems.bound(&at, ends.len());
            let ends = ends.iter().enumerate();
            ends.filter_map(|(index, end)| problems.end(end, &at.index(index)))
                .collect::<Vec<Who>>()
        };
        let (from, to) = (ends(Side::From, &spec.from), ends(Side::To, &spec.to));
        let is_outside = |end: &Who| matches!(end, Who::Outside { .. });
        if !from.is_empty() && !to.is_empty() && from.iter().chain(&to).all(is_outside) {
            problems.add(
                &at.key("to"),
                "must name pods where `from` names addresses only: traffic that never meets a pod is not judged",
            );
        }
        let ports_at = at.key("ports");
        problems.bound(&ports_at, spec.ports.len());
        let ports: Vec<PortRange> = spec
            .ports
            .iter()
            .enumerate()
            .filter_map(|(index, port)| problems.port(port, &ports_at.index(index)))
            .collect();
        if !problems.0.is_empty() {
            return Err(ParseError {
                problems: problems.0,
            });
        }
        let ports = if ports.is_empty() {
            PortSet::all()
        } else {
            ports.into_iter().collect()
        };
        Ok(Self {
            name,
            spec,
            from,
            to,
            ports,
        })
    }
}

impl Problems {
    fn add(&mut self, field: &FieldPath, reason: impl Into<String>) {
        self.0.push(Problem {
            field: field.clone(),
            reason: reason.into(),
        });
    }

    fn bound(&mut self, field: &FieldPath, entries: usize) {
        if entries > MOST_ENTRIES {
            self.add(field, format!("may have at most {MOST_ENTRIES} entries"));
        }
    }

    fn end(&mut self, end: &RuleEnd, at: &FieldPath) -> Option<Who> {
        let names_pods = !end.namespaces.is_empty()
            || end.namespace_selector.is_some()
            || end.pod_selector.is_some();
        match (names_pods, !end.cidrs.is_empty()) {
            (false, false) if !end.except.is_empty() => {
                self.add(&at.key("except"), "may only stand beside `cidrs`");
                None
            }
            (false, false) => {
                self.add(
                    at,
                    "must say who: `namespaces`, `namespaceSelector` or `podSelector` (`podSelector: {}` is every \
                     pod), or `cidrs`",
                );
                None
            }
            (true, true) => {
                self.add(
                    &at.key("cidrs"),
                    "may not stand beside selectors of pods: write a second entry",
                );
                None
            }
            (false, true) => Some(self.outside(end, at)),
            (true, false) => {
                if !end.except.is_empty() {
                    self.add(&at.key("except"), "may only stand beside `cidrs`");
                }
                self.pods(end, at)
            }
        }
    }

    fn pods(&mut self, end: &RuleEnd, at: &FieldPath) -> Option<Who> {
        let names_at = at.key("namespaces");
        self.bound(&names_at, end.namespaces.len());
        for (index, name) in end.namespaces.iter().enumerate() {
            if let Some(problem) = dns_label_problem(name) {
                self.add(&names_at.index(index), format!("`{name}`: {problem}"));
            }
        }
        let selector_at = at.key("namespaceSelector");
        let namespaces = match &end.namespace_selector {
            Some(_) if !end.namespaces.is_empty() => {
                self.add(&selector_at, "may not stand beside `namespaces`");
                None
            }
            Some(selector) => self.selector(selector, &selector_at),
            None if end.namespaces.is_empty() => Some(Selector::everything()),
            None => {
                let names = end.namespaces.iter().map(String::as_str);
                Some(Selector::new([Requirement::is_in(
                    NAMESPACE_NAME_LABEL,
                    names,
                )]))
            }
        };
        let pods = match &end.pod_selector {
            Some(selector) => self.selector(selector, &at.key("podSelector")),
            None => Some(Selector::everything()),
        };
        Some(Who::Pods {
            namespaces: namespaces?,
            pods: pods?,
        })
    }

    fn selector(&mut self, selector: &LabelSelector, at: &FieldPath) -> Option<Selector> {
        let parsed = Selector::parse(selector, at);
        parsed.map_err(|error| self.0.extend(error.problems)).ok()
    }

    fn outside(&mut self, end: &RuleEnd, at: &FieldPath) -> Who {
        let mut blocks = |texts: &[String], at: FieldPath| {
            self.bound(&at, texts.len());
            let mut blocks = Vec::new();
            for (index, text) in texts.iter().enumerate() {
                match parse_block(text) {
                    Ok(block) => blocks.push(block),
                    Err(error) => self.add(&at.index(index), format!("`{text}`: {error}")),
                }
            }
            blocks
        };
        let (cidrs, except) = (
            blocks(&end.cidrs, at.key("cidrs")),
            blocks(&end.except, at.key("except")),
        );
        let is_within = |block: &IpNet| cidrs.iter().any(|cidr| cidr.contains(block));
        for (index, block) in except.iter().enumerate() {
            if !is_within(block) && cidrs.len() == end.cidrs.len() {
                self.add(
                    &at.key("except").index(index),
                    format!("`{block}` is in none of the `cidrs`"),
                );
            }
        }
        Who::Outside { cidrs, except }
    }

    fn port(&mut self, port: &RulePort, at: &FieldPath) -> Option<PortRange> {
        let protocol = port.protocol.into();
        let range = |first, last| PortRange {
            protocol,
            first,
            last,
        };
        match (port.port, port.end_port) {
            (Some(0), _) => self.add(&at.key("port"), "must be a port number from 1 to 65535"),
            (None, Some(_)) => self.add(&at.key("endPort"), "may only stand beside `port`"),
            (Some(first), Some(last)) if last < first => self.add(
                &at.key("endPort"),
                format!("{last}: must not be below `port`, {first}"),
            ),
            (Some(first), last) => return Some(range(first, last.unwrap_or(first))),
            (None, None) => return Some(range(1, u16::MAX)),
        }
        None
    }
}
