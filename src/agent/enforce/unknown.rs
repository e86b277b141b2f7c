//! What the agent does not know of the cluster: objects that it cannot understand, and kinds of which it is not told.

use std::time::Duration;

use tokio::time::Instant;

use super::Enforcer;
use crate::k8s::live::{Kind, Undecodable};

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
