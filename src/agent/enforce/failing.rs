//! Why a kernel that has the rules does not hold what the policies say: packets that do not meet them, objects that the agent cannot
//! understand, kinds of which it is not told, and what the kernel cannot follow.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Enforcer;
use crate::agent::host::{self, HostError};
use crate::agent::links::Links;
use crate::k8s::live::{Kind, Undecodable};
use crate::netpol::WorkloadRef;

/// What the agent is waiting for where watches fail.
const WATCHES: &str = "watches";

/// How long a watch may fail before what it tells of counts as not known.
pub(super) const DOUBTED: Duration = Duration::from_secs(10);

impl Enforcer {
    /// Of these kinds changes may have been missed for a while.
    pub(super) fn doubt(&mut self, kinds: &[Kind]) {
        let names: Vec<&str> = kinds.iter().map(|kind| kind.plural()).collect();
        let unheard = (!kinds.is_empty()).then(|| {
            let names = names.join(", ");
            format!("the watch of {names} fails: what has changed since then is not known")
        });
        if self.unheard == unheard {
            return;
        }
        match &unheard {
            Some(unheard) => self.readiness.wait_for(WATCHES, unheard.clone()),
            None => self.readiness.ready(WATCHES),
        }
        self.unheard = unheard;
        self.receipt
            .get_or_insert_with(|| Instant::now() + self.pace);
        self.answer_waiting();
    }
}

/// Why what pods send may pass the rules by: a bridge or a switch may have come since the agent was started.
pub(super) fn passed_by(links: &Links, has_bridges: bool) -> Option<HostError> {
    let judged = host::judged_among(links, has_bridges);
    judged.and_then(|()| host::services_among(links)).err()
}

/// What the kernel holds more strictly than it is said, of the pods whose chains are cut short, since it would take too many. That
/// what is on trial is not asked of some changes nothing of what holds, and is logged.
pub(super) fn too_deep(pods: &BTreeMap<&WorkloadRef, bool>) -> Option<String> {
    const WHY: &str = "more ClusterNetworkPolicies of one priority accept before they pass or deny than the kernel follows";
    let mut stricter = pods.iter().filter(|(_, is_stricter)| **is_stricter);
    let Some((pod, _)) = stricter.next() else {
        if let Some((pod, _)) = pods.first_key_value() {
            tracing::warn!(pods = pods.len(), %pod, "{WHY}: what is on trial is not asked");
        }
        return None;
    };
    let count = stricter.count().saturating_add(1);
    Some(format!(
        "{WHY}: their stricter rules go first for {count} pods, {pod} among them; give them priorities of their own"
    ))
}

/// What the kernel cannot hold since it is not understood.
pub(super) fn left_out(undecodable: &[Undecodable]) -> Option<String> {
    let mut all = undecodable.iter().filter(|it| !it.holds_nobody);
    let first = all.next()?;
    let more = match all.count() {
        0 => String::new(),
        more => format!(", and {more} more are not"),
    };
    let then = if first.earlier_in_force {
        "an earlier version of it is in force"
    } else {
        "it is not in force"
    };
    Some(format!(
        "{} {} is not understood, {then}: {}{more}",
        first.kind.as_str(),
        first.key,
        first.reason
    ))
}
