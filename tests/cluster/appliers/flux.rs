//! As kustomize-controller does it (`ssa.ResourceManager` of fluxcd/pkg: `ApplyAllStaged`, `Diff`, `DeleteAll`): namespaces
//! first, then kinds that it is told to bring early, then the rest, workloads before policies; of each stage every object is
//! tried by a forced server-side apply without effect, and those that come out otherwise than they are there are applied;
//! what was applied once and is in git no more is deleted where it bears the tool's labels. Managers of kubectl are not taken
//! over.

use std::collections::BTreeMap;

use kube::Client;
use kube::api::{Patch, PatchParams};
use kube::core::Request;
use serde_json::{Map, Value, json};

use super::{Stages, delete, get, member, path, place, send, words};

pub(super) struct Flux {
    pub(super) client: Client,
    pub(super) stages: Stages,
    pub(super) inventory: BTreeMap<String, Value>,
}

impl Flux {
    pub(super) async fn round(&mut self, git: Vec<Value>) -> Result<(), String> {
        let owner = owner_labels();
        let mut git: Vec<Value> = git
            .into_iter()
            .map(|mut object| {
                let labels = member(&mut object["metadata"], "labels");
                labels.extend(owner.clone());
                object
            })
            .collect();
        git.sort_by_key(|object| self.stage(object));
        for stage in git.chunk_by(|one, other| self.stage(one).0 == self.stage(other).0) {
            let mut drifted = Vec::new();
            for object in stage {
                let there = get(&self.client, object).await?;
                let tried = self.apply(object, true).await?;
                if there.is_none_or(|there| has_drifted(&there, &tried)) {
                    drifted.push(object);
                }
            }
            for object in drifted {
                self.apply(object, false).await?;
            }
        }
        let now: BTreeMap<String, Value> = git
            .into_iter()
            .map(|object| (path(&object), object))
            .collect();
        let before = std::mem::take(&mut self.inventory);
        let stale: Vec<(String, Value)> = before
            .into_iter()
            .filter(|(path, _)| !now.contains_key(path))
            .collect();
        self.inventory = now;
        let mut failed = Ok(());
        for (path, object) in stale {
            if let Err(failure) = self.prune(&object, &owner).await {
                // It is tried again.
                self.inventory.insert(path, object);
                failed = Err(failure);
            }
        }
        failed
    }

    /// The stage of an object, and its place in that.
    fn stage(&self, object: &Value) -> (u8, u8) {
        match object["kind"].as_str().unwrap() {
            "Namespace" => (0, 0),
            "NetworkPolicy" if self.stages == Stages::PoliciesFirst => (1, 0),
            "NetworkPolicy" => (2, 1),
            _ => (2, 0),
        }
    }

    async fn apply(&self, object: &Value, dry_run: bool) -> Result<Value, String> {
        let params = PatchParams {
            dry_run,
            force: true,
            field_manager: Some("kustomize-controller".to_owned()),
            ..PatchParams::default()
        };
        let (collection, name) = place(object);
        let request = Request::new(collection).patch(&name, &params, &Patch::Apply(object));
        send(&self.client, request).await.map_err(words)
    }

    async fn prune(&self, object: &Value, owner: &Map<String, Value>) -> Result<(), String> {
        let Some(there) = get(&self.client, object).await? else {
            return Ok(());
        };
        let labels = &there["metadata"]["labels"];
        if owner.iter().any(|(key, value)| labels[key] != *value) {
            return Ok(());
        }
        delete(&self.client, object).await
    }
}

fn owner_labels() -> Map<String, Value> {
    let labels = ["name", "namespace"].map(|key| {
        let key = format!("kustomize.toolkit.fluxcd.io/{key}");
        (key, json!("apps"))
    });
    labels.into_iter().collect()
}

/// Whether labels, annotations, or anything but metadata and status come out otherwise.
fn has_drifted(there: &Value, tried: &Value) -> bool {
    let rest = |object: &Value| {
        let mut object = object.clone();
        let fields = object.as_object_mut().unwrap();
        fields.remove("metadata");
        fields.remove("status");
        object
    };
    let differs = |field: &str| there["metadata"][field] != tried["metadata"][field];
    differs("labels") || differs("annotations") || rest(there) != rest(tried)
}
