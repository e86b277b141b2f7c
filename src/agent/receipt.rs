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
use serde_json::{Value, json};
use tokio::sync::watch;

use super::enforce::Holding;
use crate::guard::enforcement::{ENFORCED, NodeEnforcement, Receipt};
use crate::k8s::one::chain;
use crate::netpol::NodeName;

/// As whom the agent writes.
const FIELD_MANAGER: &str = "ringfence-agent";
/// The least time between two receipts of a node, and how much longer it is by chance.
const APART: Duration = Duration::from_secs(2);
/// How long a receipt is left as it is while nothing changes, at most: up to a half of it is left out by chance, or nodes that
/// have written together once would do so for ever.
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
        let changed =
            tokio::time::timeout(FRESH.mul_f64(1.0 - chance() / 2.0), held.changed()).await;
        if matches!(changed, Ok(Err(_))) {
            std::future::pending::<()>().await;
        }
    }
}

/// Says of a node that its rules were taken away; whether it has a receipt to say so in.
///
/// # Errors
///
/// The API server does not take it.
pub async fn retract(client: Client, node: &NodeName) -> Result<bool, kube::Error> {
    let holding = Holding {
        failure: Some("the rules were taken off this node (ringfence agent --cleanup)".to_owned()),
        // Of one that is too old nobody would read the reason.
        read_back: Some(Timestamp::now()),
        ..Holding::default()
    };
    let status = receipt(&holding, &mut None, Timestamp::now());
    match put_status(&Api::all(client), node, &status).await {
        Ok(()) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

async fn put(
    api: &Api<NodeEnforcement>,
    node: &NodeName,
    status: &Receipt,
    is_made: bool,
) -> Result<(), kube::Error> {
    if !is_made {
        let mut object = head(node);
        object["spec"] = json!({"node": node.as_str()});
        api.patch(node.as_str(), &as_us(), &Patch::Apply(&object))
            .await?;
    }
    put_status(api, node, status).await
}

async fn put_status(
    api: &Api<NodeEnforcement>,
    node: &NodeName,
    status: &Receipt,
) -> Result<(), kube::Error> {
    let mut object = head(node);
    object["status"] = json!(status);
    api.patch_status(node.as_str(), &as_us(), &Patch::Apply(&object))
        .await?;
    Ok(())
}

fn as_us() -> PatchParams {
    PatchParams::apply(FIELD_MANAGER).force()
}

fn head(node: &NodeName) -> Value {
    json!({
        "apiVersion": NodeEnforcement::api_version(&()), "kind": NodeEnforcement::kind(&()),
        "metadata": {"name": node.as_str()},
    })
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
    let (policies, policy_count) = Receipt::naming(&holding.policies);
    Receipt {
        policies,
        policy_count,
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
    use crate::guard::enforcement::HeldPolicy;
    use crate::netpol::Stage;

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

    #[test]
    fn a_receipt_fits_into_an_object_however_many_policies_a_node_holds() {
        let longest = |number: usize| HeldPolicy {
            kind: Some("BaselineAdminNetworkPolicy".to_owned()),
            namespace: Some("n".repeat(63)),
            name: format!("{number:0>253}"),
            generation: Some(i64::MAX),
            stage: Some(Stage::Canary),
        };
        let holding = Holding {
            policies: (0..10_000).map(longest).collect(),
            ..Holding::default()
        };
        let receipt = receipt(&holding, &mut None, Timestamp::UNIX_EPOCH);
        assert_eq!(receipt.policy_count, 10_000);
        assert_eq!(receipt.left_out(), 10_000 - receipt.policies.len());
        let bytes = json!(receipt).to_string().len();
        assert!((500_000..1_200_000).contains(&bytes), "{bytes} bytes");
    }
}
