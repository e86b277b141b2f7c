//! Counts what the random clusters reach, so that a generator that misses a case is noticed.

use std::collections::BTreeMap;

use ringfence::netpol::{EndVerdict, NotHeld, PolicyKind, RuleRef, Tier, Verdict};
use serde_json::Value;

use crate::{evaluator, policy_of, word};

/// How often something was seen, to know that the generators reach what they should.
#[derive(Default)]
pub(crate) struct Seen(BTreeMap<&'static str, u32>);

impl Seen {
    fn count(&mut self, what: &'static str) {
        let count = self.0.entry(what).or_default();
        *count = count.saturating_add(1);
    }

    pub(crate) fn verdict(&mut self, verdict: &Verdict) {
        self.count("flows");
        self.count(if verdict.allowed() {
            "allowed"
        } else {
            "denied"
        });
        for end in [&verdict.egress, &verdict.ingress] {
            let mut isolated_by = end.isolated_by().iter();
            if isolated_by.any(|policy| policy.kind == PolicyKind::Canary) {
                self.count("canary");
            }
            self.count(match end {
                EndVerdict::NotIsolated => "not isolated",
                EndVerdict::Ruled(ruled) => match (ruled.by.tier, ruled.accepts) {
                    (Tier::Admin, true) => "accepted by the Admin tier",
                    (Tier::Admin, false) => "denied by the Admin tier",
                    (Tier::Baseline, true) => "accepted by the Baseline tier",
                    (Tier::Baseline, false) => "denied by the Baseline tier",
                },
                EndVerdict::Allowed { .. } => "allowed by a rule",
                EndVerdict::Denied { .. } => "denied at an end",
                EndVerdict::NoAddress => "no address",
                EndVerdict::NotHeld(NotHeld::External) => "external",
                EndVerdict::NotHeld(NotHeld::Node) => "node",
                EndVerdict::NotHeld(NotHeld::HostNetwork) => "host network",
                EndVerdict::NotHeld(NotHeld::Finished) => "finished",
                EndVerdict::NotHeld(NotHeld::Itself) => "itself",
                EndVerdict::NotHeld(NotHeld::OwnNode) => "own node",
            });
        }
        if let (EndVerdict::Allowed { .. }, EndVerdict::Allowed { .. }) =
            (&verdict.egress, &verdict.ingress)
        {
            self.count("allowed by rules at both ends");
        }
    }

    /// Counts what kind of peer and port allowed a flow.
    pub(crate) fn rule(&mut self, by: &RuleRef, objects: &[Value]) {
        let rule = &evaluator::rules(policy_of(by, objects), word(by.direction))[by.index];
        let port = by.port.map_or(&Value::Null, |port| &rule["ports"][port]);
        if port["port"].is_string() {
            self.count("named port");
        }
        if port["endPort"] != port["port"] && port["endPort"].is_number() {
            self.count("range of ports");
        }
        let Some(peer) = by.peer else {
            return self.count("rule for everyone");
        };
        let peer = &evaluator::peers(rule, word(by.direction))[peer];
        let has = |key: &str| peer[key].is_object();
        self.count(
            match (has("ipBlock"), has("namespaceSelector"), has("podSelector")) {
                (true, _, _) => "ipBlock",
                (false, true, true) => "both selectors",
                (false, true, false) => "namespaceSelector",
                (false, false, _) => "podSelector",
            },
        );
        if peer["ipBlock"]["cidr"]
            .as_str()
            .is_some_and(|cidr| cidr.contains(':'))
        {
            self.count("ipBlock of IPv6");
        }
        if peer["ipBlock"]["except"]
            .as_array()
            .is_some_and(|except| !except.is_empty())
        {
            self.count("ipBlock with except");
        }
    }

    /// Fails unless each of these was seen in at least that share of the flows, in ten-thousandths.
    pub(crate) fn at_least(&self, shares: &[(&str, u32)]) {
        let flows = self.0.get("flows").copied().unwrap_or_default();
        for (what, share) in shares {
            let count = self.0.get(what).copied().unwrap_or_default();
            assert!(
                u64::from(count) * 10_000 >= u64::from(flows) * u64::from(*share),
                "{what}: only {count} of {flows} flows; all: {:?}",
                self.0
            );
        }
    }
}
