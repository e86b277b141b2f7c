//! A rule as a scenario: tried in a cluster by itself, with the flow that makes it fail. Neither mode nor exemption counts.

use super::ReachabilityRule;
use super::whole::{self, Sizes, Violation};
use super::words;
use crate::guard::finding::{Finding, ObjectRef};
use crate::netpol::groups::Group;
use crate::netpol::{Flow, Snapshot};

/// How a rule fared.
#[derive(Clone, Debug)]
pub struct Tried {
    /// How many pods and templates are at each end.
    pub sizes: Sizes,
    /// Why it failed; empty where it was kept.
    pub failures: Vec<Failure>,
}

/// One reason why a rule failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What is wrong.
    pub finding: Finding,
    violation: Option<Violation>,
}

impl Tried {
    /// Tries a rule in a cluster whose pods are in these groups; a rule that selects nothing fails.
    pub fn of(
        rule: &ReachabilityRule,
        object: &ObjectRef,
        groups: &[Group],
        snapshot: &Snapshot,
    ) -> Self {
        let groups: &Vec<&Group> = &groups.iter().collect();
        let whole = whole::hold(rule, groups);
        let empty = whole.empty.into_iter().map(|field| Failure {
            finding: words::selects_nothing(object.clone(), rule, field),
            violation: None,
        });
        let mut failures: Vec<Failure> = empty.collect();
        let cut = whole::violations(rule, groups, usize::MAX, &mut |violation| {
            let told = words::of_rule(object.clone(), rule, &violation, snapshot);
            failures.push(Failure {
                finding: told.finding,
                violation: Some(violation),
            });
            true
        });
        // There is no bound that could be met.
        debug_assert!(cut.is_ok());
        Self {
            sizes: whole.sizes,
            failures,
        }
    }

    /// Whether it was kept.
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }
}

impl Failure {
    /// A flow that shows it, where there is one.
    pub fn flow(&self) -> Option<Flow<'_>> {
        self.violation.as_ref()?.flow()
    }
}
