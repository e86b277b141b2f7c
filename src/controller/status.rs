//! Says of each Guardrail, `ReachabilityRule` and Exemption, in its status, whether it is in force as it stands.
//!
//! One watch for each kind. What is to be said is held against what the status has, so that nothing is written where
//! nothing differs: the write itself, which the watch shows again, is the last.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use super::FIELD_MANAGER;
use crate::guard::review::{Kind as Parsed, Subject};
use crate::guard::status::{ACCEPTED, Status};
use crate::k8s::live::{Key, Kind, Live};
use crate::k8s::one::chain;

/// The kinds that have a status.
pub(super) const KINDS: [Kind; 3] = [Kind::Guardrail, Kind::ReachabilityRule, Kind::Exemption];

/// The index takes a change up within this time: only then is it known whether an earlier version is in force.
const SETTLED: Duration = Duration::from_millis(200);

/// What is to be said of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    accepted: bool,
    message: String,
}

/// Keeps the statuses of one kind, for as long as it is polled.
pub(super) async fn keep(client: Client, live: Live, kind: Kind) -> Result<(), Infallible> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind.resource());
    let stream = watcher(api, watcher::Config::default()).default_backoff();
    let mut objects = pin!(stream.applied_objects());
    let mut broken = false;
    while let Some(next) = objects.next().await {
        match next {
            Ok(object) => {
                broken = false;
                if let Err(error) = tell(&client, &live, kind, &object).await {
                    // The next change, or the next list of the watch, says it again.
                    let (kind, name) = (kind.as_str(), object.name_any());
                    tracing::warn!(kind, name, error = %chain(&error), "status not written");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut broken, true) {
                    let kind = kind.as_str();
                    tracing::warn!(kind, error = %chain(&error), "watch broken, tried again");
                }
            }
        }
    }
    Ok(())
}

async fn tell(
    client: &Client,
    live: &Live,
    kind: Kind,
    object: &DynamicObject,
) -> Result<(), kube::Error> {
    let name = object.name_any();
    let said = match problem(kind, object) {
        None => Said {
            accepted: true,
            message: "in force".to_owned(),
        },
        Some(problem) => {
            tokio::time::sleep(SETTLED).await;
            let key = Key::new(object.metadata.namespace.as_deref(), &name);
            let undecodable = live.undecodable();
            let mut known = undecodable.iter();
            let earlier = known.any(|it| it.kind == kind && it.key == key && it.earlier_in_force);
            let then = if earlier {
                "the last good version stays in force"
            } else {
                "nothing of it is in force"
            };
            Said {
                accepted: false,
                message: format!("{problem}; {then}"),
            }
        }
    };
    let had: Status = object
        .data
        .get("status")
        .and_then(|status| serde_json::from_value(status.clone()).ok())
        .unwrap_or_default();
    let Some(status) = said.following(&had, object.metadata.generation, Timestamp::now()) else {
        return Ok(());
    };
    let resource = kind.resource();
    let api: Api<DynamicObject> = match &object.metadata.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let patch = json!({
        "apiVersion": resource.api_version, "kind": resource.kind,
        "metadata": {"name": name}, "status": status,
    });
    let as_us = PatchParams::apply(FIELD_MANAGER).force();
    match api.patch_status(&name, &as_us, &Patch::Apply(&patch)).await {
        Ok(_) => Ok(()),
        // It is gone meanwhile.
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

/// What is wrong with an object, with its fields.
fn problem(kind: Kind, object: &DynamicObject) -> Option<String> {
    let value = json!({
        "apiVersion": kind.api_version(), "kind": kind.as_str(),
        "metadata": {"name": object.metadata.name, "namespace": object.metadata.namespace},
        "spec": object.data.get("spec").cloned().unwrap_or(Value::Null),
    });
    match Subject::new(value).parsed {
        Parsed::Invalid(error) => Some(error.to_string()),
        _ => None,
    }
}

// === impl Said ===

impl Said {
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
