//! Which namespaces were given their baseline, in a `ConfigMap` of the installation: out of reach of who may edit those
//! namespaces. Losing it costs little: a namespace that still has its policy is known by that.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};

use crate::controller::FIELD_MANAGER;
use crate::guard::baseline::MANAGED_BY;
use crate::netpol::NamespaceName;

/// The name of the `ConfigMap`.
const NAME: &str = "ringfence-baselines";
/// Its key: names of namespaces, one in a line.
const KEY: &str = "namespaces";
/// How many bytes of names are kept; an object may have a mebibyte.
const LARGEST: usize = 900_000;

/// The namespaces, and the object that they are kept in.
pub(super) struct Record {
    api: Api<ConfigMap>,
    namespaces: BTreeSet<NamespaceName>,
    loaded: bool,
    changed: bool,
}

// === impl Record ===

impl Record {
    /// A record that is not read yet.
    pub(super) fn new(client: Client, installation: &str) -> Self {
        Self {
            api: Api::namespaced(client, installation),
            namespaces: BTreeSet::new(),
            loaded: false,
            changed: false,
        }
    }

    /// Reads it, the first time.
    pub(super) async fn load(&mut self) -> Result<(), kube::Error> {
        if !self.loaded {
            let map = self.api.get_opt(NAME).await?;
            let text = map
                .and_then(|map| map.data?.remove(KEY))
                .unwrap_or_default();
            self.namespaces = text.lines().map(NamespaceName::from).collect();
            self.loaded = true;
        }
        Ok(())
    }

    /// Writes it, where it has changed.
    pub(super) async fn save(&mut self) -> Result<(), kube::Error> {
        if !self.changed {
            return Ok(());
        }
        let map = serde_json::json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": NAME, "labels": {MANAGED_BY: "ringfence"}},
            "data": {KEY: text(&self.namespaces)},
        });
        let as_us = PatchParams::apply(FIELD_MANAGER).force();
        self.api.patch(NAME, &as_us, &Patch::Apply(&map)).await?;
        self.changed = false;
        Ok(())
    }

    /// The namespaces.
    pub(super) fn namespaces(&self) -> &BTreeSet<NamespaceName> {
        &self.namespaces
    }

    /// Notes one.
    pub(super) fn add(&mut self, namespace: &NamespaceName) {
        self.changed |= self.namespaces.insert(namespace.clone());
    }

    /// Forgets one.
    pub(super) fn remove(&mut self, namespace: &NamespaceName) {
        self.changed |= self.namespaces.remove(namespace);
    }

    /// Forgets those that are not to be kept.
    pub(super) fn retain(&mut self, keep: impl Fn(&NamespaceName) -> bool) {
        let before = self.namespaces.len();
        self.namespaces.retain(keep);
        self.changed |= self.namespaces.len() != before;
    }
}

/// The names, one in a line, as many as one object holds.
fn text(namespaces: &BTreeSet<NamespaceName>) -> String {
    let mut text = String::new();
    for name in namespaces {
        if text.len() + name.as_str().len() >= LARGEST {
            break;
        }
        text.push_str(name.as_str());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_no_larger_than_an_object_holds() {
        let names = (0..50_000)
            .map(|number| NamespaceName::from(format!("namespace-{number:040}").as_str()));
        let text = text(&names.collect());
        assert!(text.len() <= LARGEST && text.len() > LARGEST / 2);
        assert!(text.ends_with('\n'));
    }
}
