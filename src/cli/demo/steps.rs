//! What the demo sends and what it expects, all of it made of files in `deploy/examples/`.

use anyhow::anyhow;
use serde_json::{Value, json};

use crate::guard::finding::ObjectRef;
use crate::guard::mode::Mode::{self, Audit, Enforce};
use crate::k8s::manifests::{self, Input};
use crate::k8s::yaml::Limits;

macro_rules! example {
    ($name:literal) => {
        (
            $name,
            include_str!(concat!("../../../deploy/examples/", $name)),
        )
    };
}

use Expected::{Added, Allowed, LeftAlone, Recorded, Refused};
use Operation::{Create, Delete, Mutate};

/// The shop: what the cluster holds.
pub(super) const SHOP: [(&str, &str); 6] = [
    example!("shop/namespaces.yaml"),
    example!("shop/ingress-controller.yaml"),
    example!("shop/frontend.yaml"),
    example!("shop/backend.yaml"),
    example!("shop/admin-db.yaml"),
    example!("shop/monitoring.yaml"),
];

/// One review, and what is expected of its answer.
pub(super) struct Step {
    /// What it shows, in one line.
    pub(super) title: &'static str,
    /// The mode that the guardrail is in.
    pub(super) mode: Mode,
    /// What is asked for.
    pub(super) operation: Operation,
    /// The file under `deploy/examples/`.
    pub(super) file: &'static str,
    /// The object of that file.
    pub(super) object: Value,
    /// What must come back.
    pub(super) expected: Expected,
}

/// What is asked for, and of which of the two paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// A creation, judged.
    Create,
    /// A deletion, judged.
    Delete,
    /// A creation, on its way to be changed.
    Mutate,
}

/// What must come back.
#[derive(Clone, Debug)]
pub(super) enum Expected {
    /// Allowed, without a word.
    Allowed,
    /// Refused for just these findings.
    Refused(&'static [&'static str]),
    /// Allowed in silence, with these findings in the audit annotations.
    Recorded(&'static [&'static str]),
    /// Changed: the annotation says that these allows were added.
    Added(&'static str),
    /// Allowed unchanged, with a warning that has this word.
    LeftAlone(&'static str),
}

/// A file of the examples by its name under `deploy/examples/`, and its text.
type Example = (&'static str, &'static str);

const TYPO: Example = example!("violations/label-typo.yaml");
const UNCOVERED: Example = example!("violations/no-default-deny.yaml");
const BY_HALVES: Example = example!("violations/world-by-halves.yaml");

/// What each step shows, in which mode, what is asked for, of which file and kind, and what must come back.
#[rustfmt::skip]
const STEPS: [(&str, Mode, Operation, Example, &str, Expected); 14] = [
    ("A deployment that keeps every rule", Enforce, Create, example!("shop/backend.yaml"), "Deployment", Allowed),
    ("A deployment whose label is a typo, so that no policy selects it", Enforce, Create, TYPO, "Deployment", Refused(&["RF101"])),
    ("A workload in a namespace without default-deny", Enforce, Create, UNCOVERED, "Deployment", Refused(&["RF201"])),
    ("A pod that no policy can hold", Enforce, Create, example!("violations/host-network.yaml"), "Pod", Refused(&["RF401", "RF403"])),
    ("A capability in an init container", Enforce, Create, example!("violations/net-admin-init.yaml"), "Deployment", Refused(&["RF406"])),
    ("A policy that opens the world in two halves", Enforce, Create, BY_HALVES, "NetworkPolicy", Refused(&["RF302"])),
    ("A rule without peers", Enforce, Create, example!("violations/rule-without-peers.yaml"), "NetworkPolicy", Refused(&["RF301"])),
    ("The last default-deny of a namespace is deleted", Enforce, Delete, example!("violations/last-default-deny.yaml"), "NetworkPolicy", Refused(&["RF202"])),
    ("A policy that forgot DNS", Enforce, Mutate, example!("violations/forgot-dns.yaml"), "NetworkPolicy", Added("dns")),
    ("A policy that forgot the monitoring", Enforce, Mutate, example!("violations/forgot-monitoring.yaml"), "NetworkPolicy", Added("monitoring")),
    ("The same, tracked by a GitOps tool that would fight the change", Enforce, Mutate, example!("violations/forgot-dns-gitops.yaml"), "NetworkPolicy", LeftAlone("Argo CD")),
    ("The typo again", Audit, Create, TYPO, "Deployment", Recorded(&["RF101"])),
    ("The namespace without default-deny again", Audit, Create, UNCOVERED, "Deployment", Recorded(&["RF201"])),
    ("The world in two halves again", Audit, Create, BY_HALVES, "NetworkPolicy", Recorded(&["RF302"])),
];

/// All steps, in order.
pub(super) fn all() -> anyhow::Result<Vec<Step>> {
    let step = |(title, mode, operation, (file, text), kind, expected)| {
        let object = object(file, text, kind)?;
        Ok(Step {
            title,
            mode,
            operation,
            file,
            object,
            expected,
        })
    };
    STEPS.into_iter().map(step).collect()
}

/// The first object of a kind in a file.
fn object(file: &'static str, text: &str, kind: &str) -> anyhow::Result<Value> {
    let input = Input::Bytes {
        name: format!("deploy/examples/{file}"),
        bytes: text.as_bytes().to_vec(),
    };
    let loaded = manifests::load(vec![input], &Limits::default());
    let objects = loaded.manifests.into_iter().map(|manifest| manifest.value);
    objects
        .into_iter()
        .find(|object| object.get("kind").and_then(Value::as_str) == Some(kind))
        .ok_or_else(|| anyhow!("deploy/examples/{file} has no {kind}"))
}

// === impl Step ===

impl Step {
    /// The path of the webhook.
    pub(super) fn path(&self) -> &'static str {
        match self.operation {
            Create | Delete => "/validate",
            Mutate => "/mutate",
        }
    }

    /// What a person would have typed.
    pub(super) fn command(&self) -> String {
        let object = ObjectRef::of(&self.object);
        match self.operation {
            Create | Mutate => {
                format!("kubectl apply -f {}   # {object}", self.file)
            }
            Delete => format!(
                "kubectl delete networkpolicy {} -n {}",
                object.name,
                object.namespace.as_deref().unwrap_or("default")
            ),
        }
    }

    /// The review, as an API server sends it.
    pub(super) fn review(&self) -> Value {
        let object = ObjectRef::of(&self.object);
        let (group, version) = object
            .api_version
            .split_once('/')
            .unwrap_or(("", &object.api_version));
        let (operation, new, old) = match self.operation {
            Create | Mutate => ("CREATE", self.object.clone(), Value::Null),
            Delete => ("DELETE", Value::Null, self.object.clone()),
        };
        let kind = json!({"group": group, "version": version, "kind": object.kind});
        let resource = match object.kind.as_str() {
            "NetworkPolicy" => "networkpolicies".to_owned(),
            kind => format!("{}s", kind.to_lowercase()),
        };
        let resource = json!({"group": group, "version": version, "resource": resource});
        json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "7b3f1d0e-9c2a-4e57-8f61-2d4c5a6b7e80",
                "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
                "name": object.name, "namespace": object.namespace, "operation": operation,
                "userInfo": {"username": "alice", "groups": ["developers", "system:authenticated"]},
                "object": new, "oldObject": old, "dryRun": false, "options": null
            }
        })
    }
}

// === impl Expected ===

impl Expected {
    /// In what a response differs, if it does.
    pub(super) fn difference(&self, response: &Value, patch: Option<&[Value]>) -> Option<String> {
        let allowed = response.get("allowed").and_then(Value::as_bool) == Some(true);
        let warnings = response
            .get("warnings")
            .map(ToString::to_string)
            .unwrap_or_default();
        let causes = response
            .pointer("/status/details/causes")
            .and_then(Value::as_array);
        let found: Vec<&str> = causes
            .into_iter()
            .flatten()
            .filter_map(|cause| cause.get("reason")?.as_str())
            .collect();
        let notes = response
            .get("auditAnnotations")
            .map(ToString::to_string)
            .unwrap_or_default();
        let patched = patch
            .map(|patch| Value::from(patch.to_vec()).to_string())
            .unwrap_or_default();
        let holds = match self {
            Self::Allowed => allowed && patch.is_none() && found.is_empty(),
            Self::Refused(ids) => !allowed && found == *ids,
            Self::Recorded(ids) => {
                allowed && warnings.is_empty() && ids.iter().all(|id| notes.contains(id))
            }
            Self::Added(allows) => {
                allowed && patched.contains("~1injected") && patched.contains(allows)
            }
            Self::LeftAlone(word) => allowed && patch.is_none() && warnings.contains(word),
        };
        (!holds).then(|| format!("{self:?} was expected"))
    }
}
