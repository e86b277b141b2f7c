//! Brings the two configurations to what is planned and keeps them there: by server-side apply, on every change of what
//! is demanded, of the authorities or of the configurations themselves. Writes are bounded in rate, and none is made
//! where nothing differs.

use std::convert::Infallible;
use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{Instrument as _, trace_span};

use super::{Demand, MANAGED_BY, NAME, Options, Plan, plan};
use crate::controller::{FIELD_MANAGER, OWNER};
use crate::k8s::one::{Known, chain};
use crate::telemetry::traces::TARGET;

/// What a registration follows from, each as it is now.
#[derive(Debug)]
pub struct Inputs {
    /// What is demanded; none until the cluster is known whole.
    pub demand: watch::Receiver<Option<Demand>>,
    /// The authorities as PEM; none until there are some.
    pub bundle: watch::Receiver<Option<Vec<u8>>>,
    /// The validating configuration.
    pub validating: watch::Receiver<Known<ValidatingWebhookConfiguration>>,
    /// The mutating configuration.
    pub mutating: watch::Receiver<Known<MutatingWebhookConfiguration>>,
}

/// The least time between two rounds of writes, and what it grows to while something else keeps undoing them.
const PACE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// After this long without a write the pace is the first again.
const QUIET: Duration = Duration::from_secs(30);
/// How long after a failure it is tried again, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// Keeps the registration, for as long as it runs.
pub async fn keep(
    client: Client,
    namespace: String,
    options: Options,
    mut inputs: Inputs,
) -> Result<(), Infallible> {
    let registrar = Registrar {
        client,
        namespace,
        options,
    };
    let (mut pace, mut retry) = (PACE.0, RETRY.0);
    let mut written: Option<Instant> = None;
    loop {
        let span = trace_span!(target: TARGET, "register");
        let wait = match registrar.round(&mut inputs).instrument(span).await {
            Ok(Round::Nothing) => {
                retry = RETRY.0;
                None
            }
            Ok(Round::Leaving) => Some(RETRY.0 * 4),
            Ok(Round::Wrote) => {
                retry = RETRY.0;
                let quiet = written.is_none_or(|at| at.elapsed() > QUIET);
                pace = if quiet {
                    PACE.0
                } else {
                    (pace * 2).min(PACE.1)
                };
                written = Some(Instant::now());
                Some(pace)
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "registration not written, tried again");
                retry = (retry * 2).min(RETRY.1);
                Some(retry)
            }
        };
        match wait {
            Some(wait) => sleep(wait).await,
            None => inputs.changed().await,
        }
    }
}

/// What a round did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// All is as planned, or nothing can be said yet.
    Nothing,
    /// The installation goes, so nothing is registered that would outlive it.
    Leaving,
    /// Something was written.
    Wrote,
}

struct Registrar {
    client: Client,
    namespace: String,
    options: Options,
}

// === impl Inputs ===

impl Inputs {
    async fn changed(&mut self) {
        // A sender that is gone tells of nothing any more; the frame ends with the task that had it.
        let ended = tokio::select! {
            changed = self.demand.changed() => changed.is_err(),
            changed = self.bundle.changed() => changed.is_err(),
            changed = self.validating.changed() => changed.is_err(),
            changed = self.mutating.changed() => changed.is_err(),
        };
        if ended {
            std::future::pending::<()>().await;
        }
    }
}

// === impl Registrar ===

impl Registrar {
    async fn round(&self, inputs: &mut Inputs) -> Result<Round, kube::Error> {
        let validating = inputs.validating.borrow_and_update().clone();
        let mutating = inputs.mutating.borrow_and_update().clone();
        let demand = inputs.demand.borrow_and_update().clone();
        let bundle = inputs.bundle.borrow_and_update().clone();
        let Some(demand) = demand else {
            return Ok(Round::Nothing);
        };
        if !validating.is_known() || !mutating.is_known() {
            return Ok(Round::Nothing);
        }
        let plan = match &bundle {
            Some(bundle) if demand.any => {
                let Some(owner) = self.owner().await? else {
                    return Ok(Round::Leaving);
                };
                plan(&demand, &self.options, bundle, Some(&owner))
            }
            // Without an authority nobody could trust the webhook.
            None if demand.any => return Ok(Round::Nothing),
            Some(_) | None => Plan::default(),
        };
        if plan.unlisted > 0 {
            tracing::warn!(
                namespaces = plan.unlisted,
                "too many namespaces in mode Enforce: these pass while no replica answers"
            );
        }
        // The one that lets pass comes first: what was not changed would be refused.
        let changed = self.one(mutating.here(), plan.mutating.as_ref()).await?;
        let judged = self
            .one(validating.here(), plan.validating.as_ref())
            .await?;
        Ok(if changed || judged {
            Round::Wrote
        } else {
            Round::Nothing
        })
    }

    /// Brings one configuration to what is planned; whether anything was written.
    async fn one<K>(
        &self,
        live: Option<&std::sync::Arc<K>>,
        planned: Option<&K>,
    ) -> Result<bool, kube::Error>
    where
        K: Resource<Scope = k8s_openapi::ClusterResourceScope>
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned,
        K::DynamicType: Default,
    {
        let api: Api<K> = Api::all(self.client.clone());
        let kind = K::kind(&K::DynamicType::default()).into_owned();
        match (live, planned) {
            (None, None) => Ok(false),
            (Some(live), None) => {
                let (key, value) = MANAGED_BY;
                if live.labels().get(key).map(String::as_str) != Some(value) {
                    return Ok(false);
                }
                let only = DeleteParams {
                    preconditions: Some(Preconditions {
                        uid: live.uid(),
                        resource_version: None,
                    }),
                    ..DeleteParams::default()
                };
                match api.delete(NAME, &only).await {
                    Ok(_) => {
                        tracing::info!(kind, name = NAME, "registration removed");
                        Ok(true)
                    }
                    Err(kube::Error::Api(status)) if status.is_not_found() => Ok(false),
                    Err(error) => Err(error),
                }
            }
            (live, Some(planned)) => {
                let wanted = json(planned)?;
                if let Some(live) = live {
                    let there = json(live.as_ref())?;
                    if covers(&there, &wanted) {
                        return Ok(false);
                    }
                    if foreign(&there, &wanted) {
                        // Entries of others in an object of ours would stay; only a whole new object is rid of them.
                        let mut whole = planned.clone();
                        whole.meta_mut().resource_version = live.resource_version();
                        let as_us = PostParams {
                            field_manager: Some(FIELD_MANAGER.to_owned()),
                            ..PostParams::default()
                        };
                        api.replace(NAME, &as_us, &whole).await?;
                    }
                }
                let as_us = PatchParams::apply(FIELD_MANAGER).force();
                api.patch(NAME, &as_us, &Patch::Apply(planned)).await?;
                tracing::info!(kind, name = NAME, "registration written");
                Ok(true)
            }
        }
    }

    /// The object of the installation with which the configurations go: what an uninstall removes for certain, so that the
    /// garbage collector follows with the controller dead. None where that goes already.
    async fn owner(&self) -> Result<Option<OwnerReference>, kube::Error> {
        let roles: Api<ClusterRole> = Api::all(self.client.clone());
        let role = roles.get_metadata_opt(OWNER).await?;
        if let Some(uid) = role.as_ref().and_then(staying) {
            return Ok(Some(reference::<ClusterRole>(OWNER, uid)));
        }
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let namespace = namespaces.get_metadata_opt(&self.namespace).await?;
        let uid = namespace.as_ref().and_then(staying);
        Ok(uid.map(|uid| reference::<Namespace>(&self.namespace, uid)))
    }
}

/// The identity of an object that is not on its way out.
fn staying(object: &impl kube::ResourceExt) -> Option<String> {
    let leaving = object.meta().deletion_timestamp.is_some();
    object.uid().filter(|_| !leaving)
}

fn reference<K>(name: &str, uid: String) -> OwnerReference
where
    K: Resource,
    K::DynamicType: Default,
{
    let kind = K::DynamicType::default();
    OwnerReference {
        api_version: K::api_version(&kind).into_owned(),
        kind: K::kind(&kind).into_owned(),
        name: name.to_owned(),
        uid,
        ..OwnerReference::default()
    }
}

fn json(object: &impl Serialize) -> Result<Value, kube::Error> {
    serde_json::to_value(object).map_err(kube::Error::SerdeError)
}

/// Whether all that is wanted is there. What the API server adds by itself, and labels of others, are no difference.
fn covers(there: &Value, wanted: &Value) -> bool {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, wanted)| there.get(key).is_some_and(|there| covers(there, wanted))),
        // Entries are told apart by name; where they stand says nothing.
        (Value::Array(there), Value::Array(wanted))
            if wanted.iter().all(|one| name(one).is_some()) =>
        {
            there.len() == wanted.len()
                && wanted.iter().all(|wanted| {
                    let mut same = there.iter().filter(|there| name(there) == name(wanted));
                    same.any(|there| covers(there, wanted))
                })
        }
        (Value::Array(there), Value::Array(wanted)) => {
            there.len() == wanted.len()
                && there
                    .iter()
                    .zip(wanted)
                    .all(|(there, wanted)| covers(there, wanted))
        }
        (there, wanted) => there == wanted,
    }
}

fn name(entry: &Value) -> Option<&str> {
    entry.get("name")?.as_str()
}

/// Whether there are entries that nobody wants.
fn foreign(there: &Value, wanted: &Value) -> bool {
    let names = |object: &Value| -> Vec<String> {
        let entries = object.get("webhooks").and_then(Value::as_array);
        let entries = entries.into_iter().flatten();
        entries.filter_map(name).map(str::to_owned).collect()
    };
    let (there, wanted) = (names(there), names(wanted));
    there.iter().any(|name| !wanted.contains(name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_of_the_server_are_no_difference_and_edits_are() {
        let wanted = json!({"metadata": {"labels": {"a": "1"}}, "webhooks": [{"name": "x", "rules": [{"ops": ["CREATE"]}]}]});
        let mut there = wanted.clone();
        there["metadata"]["resourceVersion"] = json!("7");
        there["metadata"]["labels"]["other"] = json!("2");
        there["webhooks"][0]["objectSelector"] = json!({});
        assert!(covers(&there, &wanted));
        for (pointer, edited) in [
            ("/webhooks", json!([])),
            ("/webhooks/0/rules/0/ops", json!(["CREATE", "DELETE"])),
            ("/webhooks/0/rules/0/ops", json!([])),
            ("/metadata/labels", json!({})),
        ] {
            let mut there = there.clone();
            *there.pointer_mut(pointer).unwrap() = edited;
            assert!(!covers(&there, &wanted), "{pointer}");
            assert!(!foreign(&there, &wanted), "{pointer}");
        }
        there["webhooks"]
            .as_array_mut()
            .unwrap()
            .push(json!({"name": "y"}));
        assert!(!covers(&there, &wanted) && foreign(&there, &wanted));
    }
}
