//! One object as the API server sends it, of whatever kind: JSON, decoded by itself, so that one that nobody understands
//! does not take a whole list with it.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::{ApiResource, DynamicResourceScope};
use serde::de::{DeserializeSeed as _, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::kind::Kind;
use crate::guard::review::{Kind as Known, Subject};
use crate::guard::status::Status;
use crate::k8s::trim;
use crate::netpol::{NamespaceName, Object};

/// An object from the wire. Only what a watch needs of its metadata is read.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    meta: ObjectMeta,
    value: Value,
}

/// Which object of a kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its namespace; `None` for what belongs to the whole cluster.
    pub namespace: Option<NamespaceName>,
    /// Its name.
    pub name: String,
}

/// An object with what could be made of it.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) key: Key,
    pub(super) known: Known,
    /// What is said of it, where the controller says it.
    pub(super) told: Option<Told>,
    /// Whether it says of itself that it holds nobody: a policy on trial of which no pod is to be held to it.
    pub(super) holds_nobody: bool,
}

/// What the status of an object says, and the version that is there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// Its `metadata.generation`.
    pub generation: Option<i64>,
    /// Its status; the default where it has none, or one that is not understood.
    pub status: Status,
}

impl Key {
    /// Of these names; an empty namespace is none.
    pub fn new(namespace: Option<&str>, name: &str) -> Self {
        Self {
            namespace: namespace
                .filter(|namespace| !namespace.is_empty())
                .map(NamespaceName::from),
            name: name.to_owned(),
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

// === impl Wire ===

impl Wire {
    /// Which object it is.
    pub(super) fn key(&self) -> Key {
        Key::new(
            self.meta.namespace.as_deref(),
            self.meta.name.as_deref().unwrap_or_default(),
        )
    }

    /// Reads it as an object of this kind. What the checks do not look at ends here.
    pub(super) fn item(self, kind: Kind) -> Item {
        let key = self.key();
        let mut value = self.value;
        let told = kind.has_standing().then(|| Told::of(&value));
        let holds_nobody = kind == Kind::StagedNetworkPolicy
            && value.pointer("/spec/stage").and_then(Value::as_str) != Some("Canary");
        if let Some(object) = value.as_object_mut() {
            // Members of a list do not say what they are.
            object.insert("apiVersion".to_owned(), kind.api_version().into());
            object.insert("kind".to_owned(), kind.as_str().into());
            if kind.is_own() {
                // Read strictly, and none of the server's own fields is the user's to have right.
                object.retain(|field, _| {
                    matches!(field.as_str(), "apiVersion" | "kind" | "metadata" | "spec")
                        || kind == Kind::NodeEnforcement && field == "status"
                });
                if let Some(Value::Object(status)) = object.get_mut("status") {
                    status.retain(|field, _| matches!(field.as_str(), "readBack" | "conditions"));
                }
                if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
                    // By its generation a receipt says which version of a policy on trial a kernel holds.
                    let is_counted = kind == Kind::StagedNetworkPolicy;
                    metadata.retain(|field, _| {
                        matches!(field.as_str(), "name" | "namespace")
                            || is_counted && field == "generation"
                    });
                }
            }
        }
        Item {
            key,
            known: Subject::new(value).parsed,
            told,
            holds_nobody,
        }
    }
}

impl Item {
    /// Has what is the same in the one before it in a list from there: a list is held whole before it counts.
    pub(super) fn share(&mut self, before: &Item) {
        if self.key.namespace == before.key.namespace {
            self.key.namespace.clone_from(&before.key.namespace);
        }
        if let (Known::Model(own), Known::Model(before)) = (&mut self.known, &before.known)
            && let (Object::Pod(own), Object::Pod(before)) = (&mut own.object, &before.object)
        {
            own.share(before);
        }
    }
}

impl Told {
    fn of(object: &Value) -> Self {
        let status = object.get("status");
        Self {
            generation: object
                .pointer("/metadata/generation")
                .and_then(Value::as_i64),
            status: status
                .and_then(|status| Status::deserialize(status).ok())
                .unwrap_or_default(),
        }
    }
}

impl<'de> Deserialize<'de> for Wire {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = trim::WATCHED.deserialize(deserializer)?;
        if !value.is_object() {
            return Err(D::Error::custom("not an object"));
        }
        let mut meta = ObjectMeta::default();
        if let Some(Value::Object(metadata)) = value.get("metadata") {
            let text = |field: &str| Some(metadata.get(field)?.as_str()?.to_owned());
            meta.name = text("name");
            meta.namespace = text("namespace");
            meta.resource_version = text("resourceVersion");
        }
        Ok(Self { meta, value })
    }
}

impl Resource for Wire {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(of: &ApiResource) -> Cow<'_, str> {
        of.kind.as_str().into()
    }

    fn group(of: &ApiResource) -> Cow<'_, str> {
        of.group.as_str().into()
    }

    fn version(of: &ApiResource) -> Cow<'_, str> {
        of.version.as_str().into()
    }

    fn api_version(of: &ApiResource) -> Cow<'_, str> {
        of.api_version.as_str().into()
    }

    fn plural(of: &ApiResource) -> Cow<'_, str> {
        of.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}
