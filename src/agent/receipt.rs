//! The agent's receipt: what the kernel was read back to hold, written to the node's `NodeEnforcement`.
//!
//! Written when it says something new, some seconds apart at most and not by all nodes at once, and from time to time so that
//! everyone sees that the agent still looks.

use std::convert::Infallible;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource as _};
use serde_json::json;
use tokio::sync::watch;

use super::enforce::Holding;
use crate::guard::enforcement::{ENFORCED, NodeEnforcement, Receipt};
use crate::k8s::one::chain;
use crate::netpol::NodeName;

/// As whom the agent writes.
const FIELD_MANAGER: &str = "ringfence-agent";
/// The least time between two receipts of a node, and how much longer it is by chance.
const APART: Duration = Duration::from_secs(2);
/// How long a receipt is left as it is while nothing changes.
const FRESH: Duration = Duration::from_mins(5);

/// Writes receipts for as long as it is polled.
pub async fn write(
    client: Client,
    node: NodeName,
    mut held: watch::Receiver<Holding>,
) -> Result<(), Infallible> {
    let api: Api<NodeEnforcement> = Api::all(client);
    let (mut is_made, mut since, mut is_broken) = (false, None, false);
    loop {
        let holding = held.borrow_and_update().clone();
        // Nothing was read back yet.
        if holding != Holding::default() {
            let status = receipt(&holding, &mut since, Timestamp::now());
            match put(&api, &node, &status, is_made).await {
                Ok(()) => (is_made, is_broken) = (true, false),
                Err(error) => {
                    if !std::mem::replace(&mut is_broken, true) {
                        tracing::warn!(error = %chain(&error), "the receipt is not written, trying again");
                    }
                    is_made = false;
                    held.mark_changed();
                }
            }
        }
        tokio::time::sleep(APART + APART.mul_f64(chance())).await;
        // The last sender is the agent's loop: when it ends, the process does.
        let changed = tokio::time::timeout(FRESH, held.changed()).await;
        if matches!(changed, Ok(Err(_))) {
            std::future::pending::<()>().await;
        }
    }
}

async fn put(
    api: &Api<NodeEnforcement>,
    node: &NodeName,
    status: &Receipt,
    is_made: bool,
) -> Result<(), kube::Error> {
    let as_us = PatchParams::apply(FIELD_MANAGER).force();
    let head = json!({
        "apiVersion": NodeEnforcement::api_version(&()), "kind": NodeEnforcement::kind(&()),
        "metadata": {"name": node.as_str()},
    });
    if !is_made {
        let mut object = head.clone();
        object["spec"] = json!({"node": node.as_str()});
        api.patch(node.as_str(), &as_us, &Patch::Apply(&object))
            .await?;
    }
    let mut object = head;
    object["status"] = json!(status);
    api.patch_status(node.as_str(), &as_us, &Patch::Apply(&object))
        .await?;
    Ok(())
}

/// What is written; `since` is what was said last and since when.
fn receipt(holding: &Holding, since: &mut Option<(bool, Timestamp)>, now: Timestamp) -> Receipt {
    let is_held = holding.failure.is_none();
    let before = since.filter(|(said, _)| *said == is_held);
    let (_, at) = *since.insert(before.unwrap_or((is_held, now)));
    let condition = json!({
        "type": ENFORCED,
        "status": if is_held { "True" } else { "False" },
        "reason": if is_held { "ReadBack" } else { "Failed" },
        "message": holding.failure.as_deref().unwrap_or("the kernel was read back and holds what the policies say"),
        "lastTransitionTime": at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    });
    let conditions: Option<Condition> = serde_json::from_value(condition).ok();
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Receipt {
        policies: holding.policies.clone(),
        policy_count: count(holding.policies.len()),
        pods: count(holding.pods),
        unchecked_pods: Some(count(holding.unchecked)),
        digest: holding.digest.clone(),
        read_back: holding.read_back,
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        conditions: conditions.into_iter().collect(),
    }
}

/// A number from 0 to 1, by chance.
fn chance() -> f64 {
    f64::from(u32::try_from(RandomState::new().hash_one(0_u8) % 1024).unwrap_or(0)) / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_transition_is_that_of_the_change() {
        let (first, later): (Timestamp, Timestamp) = (
            "2026-01-01T00:00:00Z".parse().unwrap(),
            "2026-01-01T01:00:00Z".parse().unwrap(),
        );
        let mut since = None;
        let mut holding = Holding::default();
        let at = |receipt: &Receipt| json!(receipt.conditions[0].last_transition_time);
        let one = receipt(&holding, &mut since, first);
        let two = receipt(&holding, &mut since, later);
        assert_eq!(at(&one), at(&two));
        assert_eq!(
            two.read_back, None,
            "nothing was read back, however late it is"
        );
        holding.failure = Some("no right".to_owned());
        let three = receipt(&holding, &mut since, later);
        assert_ne!(at(&two), at(&three));
        assert_eq!(three.conditions[0].status, "False");
        assert_eq!(three.conditions[0].message, "no right");
    }
}
