//! Says of each Guardrail, `ReachabilityRule` and Exemption, in its status, whether it is in force as it stands.
//!
//! What the live watches know of them (`k8s::live`) is held against what their status has, so that nothing is written where
//! nothing differs: the write itself, which the watch shows again, is the last.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::FIELD_MANAGER;
use crate::guard::status::{ACCEPTED, Status};
use crate::k8s::live::{Key, Kind, Standing};
use crate::k8s::one::chain;

/// How long to wait after a write that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(30);

/// What is to be said of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    accepted: bool,
    message: String,
}

/// Keeps the statuses, for as long as it is polled.
pub(super) async fn keep(
    client: Client,
    mut standings: watch::Receiver<Arc<[Standing]>>,
) -> Result<(), Infallible> {
    // What was answered already, while the watch does not show the answer yet.
    let mut answered: BTreeMap<(Kind, Key), Standing> = BTreeMap::new();
    loop {
        let all = Arc::clone(&standings.borrow_and_update());
        let mut wait = Duration::MAX;
        let mut still = BTreeMap::new();
        for standing in &*all {
            let place = (standing.kind, standing.key.clone());
            if answered.get(&place) != Some(standing)
                && let Err(error) = tell(&client, standing).await
            {
                let kind = standing.kind.as_str();
                tracing::warn!(kind, name = %standing.key, error = %chain(&error), "status not written, tried again");
                wait = AFTER_FAILURE;
                continue;
            }
            still.insert(place, standing.clone());
        }
        answered = still;
        tokio::select! {
            changed = standings.changed() => if changed.is_err() { return Ok(()) },
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn tell(client: &Client, standing: &Standing) -> Result<(), kube::Error> {
    let said = Said::of(standing);
    let told = &standing.told;
    let Some(status) = said.following(&told.status, told.generation, Timestamp::now()) else {
        return Ok(());
    };
    let (resource, name) = (standing.kind.resource(), standing.key.name.as_str());
    let api: Api<DynamicObject> = match &standing.key.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace.as_str(), &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let patch = json!({
        "apiVersion": resource.api_version, "kind": resource.kind,
        "metadata": {"name": name}, "status": status,
    });
    let as_us = PatchParams::apply(FIELD_MANAGER).force();
    match api.patch_status(name, &as_us, &Patch::Apply(&patch)).await {
        Ok(_) => Ok(()),
        // It is gone meanwhile.
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

// === impl Said ===

impl Said {
    fn of(standing: &Standing) -> Self {
        let message = match &standing.problem {
            None => "in force".to_owned(),
            Some(problem) if problem.earlier_in_force => {
                format!("{}; the last good version stays in force", problem.reason)
            }
            Some(problem) => format!("{}; nothing of it is in force", problem.reason),
        };
        Self {
            accepted: standing.problem.is_none(),
            message,
        }
    }

    /// The status that says so; `None` where the one that is there does.
    fn following(&self, had: &Status, generation: Option<i64>, now: Timestamp) -> Option<Value> {
        let mut conditions = had.conditions.iter();
        let before: Option<&Condition> = conditions.find(|condition| condition.type_ == ACCEPTED);
        let word = if self.accepted { "True" } else { "False" };
        let same = before.filter(|before| before.status == word);
        if same.is_some_and(|same| same.message == self.message)
            && had.observed_generation == generation
        {
            return None;
        }
        let since = same.map_or_else(
            || json!(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
            |same| json!(same.last_transition_time),
        );
        Some(json!({
            "observedGeneration": generation,
            "conditions": [{
                "type": ACCEPTED,
                "status": word,
                "reason": if self.accepted { "InForce" } else { "Invalid" },
                "message": self.message,
                "observedGeneration": generation,
                "lastTransitionTime": since,
            }],
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(value: Option<Value>) -> Status {
        value.map_or_else(Status::default, |value| {
            serde_json::from_value(value).unwrap()
        })
    }

    fn said(accepted: bool, message: &str) -> Said {
        Said {
            accepted,
            message: message.to_owned(),
        }
    }

    #[test]
    fn what_is_said_already_is_not_said_again_and_a_change_of_words_keeps_the_time() {
        let (first, later) = (
            Timestamp::UNIX_EPOCH,
            "2026-01-01T00:00:00Z".parse().unwrap(),
        );
        let good = said(true, "in force");
        let told = good.following(&Status::default(), Some(1), first);
        let had = status(told.clone());
        assert_eq!(good.following(&had, Some(1), later), None);

        let next = good.following(&had, Some(2), later).unwrap();
        assert_eq!(next["observedGeneration"], 2);
        assert_eq!(
            next["conditions"][0]["lastTransitionTime"],
            "1970-01-01T00:00:00Z"
        );

        let bad = said(false, "spec.mode: no such mode; nothing of it is in force");
        let worse = bad.following(&had, Some(2), later).unwrap();
        assert_eq!(worse["conditions"][0]["status"], "False");
        assert_eq!(
            worse["conditions"][0]["lastTransitionTime"],
            "2026-01-01T00:00:00Z"
        );
    }
}
