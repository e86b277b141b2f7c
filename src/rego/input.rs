//! What a policy is given: the request, the object's pods whatever kind it is, its namespace, what covers it, and the
//! guardrail in force.
//!
//! Parts that stand in several places are one value, counted. The built-in policies read few fields, so for them only
//! those are copied; a test holds both forms to the same answers.

use std::collections::{BTreeMap, BTreeSet};

use regorus::Value;
use serde_json::Value as Json;

use super::builtins::{coverage, labels_of};
use super::value::{array, from_json, from_json_fields, object, string};
use crate::guard::engine::Question;
use crate::guard::review::{Operation, Review};
use crate::netpol::near_miss::near_miss;
use crate::netpol::{
    NamespaceScope, NetworkPolicy, Object, Operator, Peer, Peers, Selector, WorkloadKind,
};

/// How much of the objects is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// What the built-in policies read.
    Pack,
    /// Everything but managed fields.
    Whole,
}

/// The lists of containers of a pod.
const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];
/// The fields of a pod that the built-in policies read, beside its containers.
const POD_FIELDS: [&str; 3] = ["hostNetwork", "hostPID", "hostIPC"];
/// The fields of a container that the built-in policies read.
const CONTAINER_FIELDS: [&str; 3] = ["name", "ports", "securityContext"];
/// The fields of metadata that the built-in policies read.
const METADATA_FIELDS: [&str; 2] = ["labels", "annotations"];
/// Most policies of a namespace whose selectors are shown to policies.
const MAX_SELECTING: usize = 256;

/// The labels that the policies of a namespace select by: keys, and for each the values that are asked for.
type Selected<'s> = BTreeMap<&'s str, BTreeSet<&'s str>>;

/// The input document of a question. `parameters` are those of the guardrail in force.
pub(super) fn document(question: &Question<'_>, parameters: Value, extent: Extent) -> Value {
    let review = question.review;
    let deleted = review.operation == Operation::Delete;
    let subject = object_value(&question.subject.value, extent);
    let old = review
        .old_object
        .as_ref()
        .filter(|_| extent == Extent::Whole && !deleted)
        .map(|old| object_value(&old.value, extent));
    let (new, old) = if deleted {
        (Value::Null, subject.clone())
    } else {
        (subject.clone(), old.unwrap_or(Value::Null))
    };
    let mut fields = vec![
        ("request", request(review, new.clone(), old.clone(), extent)),
        ("object", new),
        ("guardrail", parameters),
        (
            "now",
            string(&question.now.strftime(time_form(extent)).to_string()),
        ),
    ];
    let pod = match question.subject.model() {
        Some(Object::Pod(pod) | Object::Workload(pod)) => Some(pod),
        _ => None,
    };
    let template = template(&question.subject.value);
    if let Some((kind, template)) = template {
        fields.push(("workload", workload(kind, template, &subject, extent)));
    }
    let labels = template.and_then(|(_, template)| template.get("metadata")?.get("labels"));
    if let Some(namespace) = namespace(question, labels, extent) {
        fields.push(("namespace", namespace));
    }
    if extent == Extent::Whole {
        fields.push(("oldObject", old));
        if let Some(pod) = pod {
            fields.push(("coverage", coverage(&question.snapshot.pod_coverage(pod))));
        }
    }
    object(fields)
}

/// RFC 3339. Of the time the built-in policies read the day, which is the same for many questions.
fn time_form(extent: Extent) -> &'static str {
    match extent {
        Extent::Pack => "%Y-%m-%dT00:00:00Z",
        Extent::Whole => "%Y-%m-%dT%H:%M:%SZ",
    }
}

/// The admission request, as OPA and the API have it (`admission.k8s.io/v1`, `AdmissionRequest`).
fn request(review: &Review, new: Value, old: Value, extent: Extent) -> Value {
    let three = |group: &str, version: &str, name: &str, value: &str| {
        object([
            ("group", string(group)),
            ("version", string(version)),
            (name, string(value)),
        ])
    };
    let kind = three(
        &review.kind_version.group,
        &review.kind_version.version,
        "kind",
        &review.kind,
    );
    let operation = match review.operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    };
    let mut fields = vec![("operation", string(operation)), ("kind", kind)];
    if extent == Extent::Whole {
        let (group, version) = (
            &review.resource_version.group,
            &review.resource_version.version,
        );
        fields.push(("uid", string(&review.uid)));
        fields.push((
            "resource",
            three(group, version, "resource", &review.resource),
        ));
        fields.push((
            "subResource",
            string(review.subresource.as_deref().unwrap_or_default()),
        ));
        fields.push(("name", string(&review.name)));
        fields.push(("dryRun", Value::Bool(review.dry_run)));
        fields.push((
            "userInfo",
            object([
                ("username", string(&review.user.username)),
                (
                    "groups",
                    array(review.user.groups.iter().map(|group| string(group))),
                ),
            ]),
        ));
        fields.push(("object", new));
        fields.push(("oldObject", old));
        if let Some(namespace) = &review.namespace {
            fields.push(("namespace", string(namespace.as_str())));
        }
    }
    object(fields)
}

fn object_value(value: &Json, extent: Extent) -> Value {
    match extent {
        Extent::Whole => from_json_fields(
            value,
            |_| true,
            |key, value| match key {
                "metadata" => from_json_fields(
                    value,
                    |key| key != "managedFields",
                    |_, value| from_json(value),
                ),
                _ => from_json(value),
            },
        ),
        Extent::Pack => {
            from_json_fields(value, |key| key == "metadata", |_, value| metadata(value))
        }
    }
}

fn metadata(value: &Json) -> Value {
    from_json_fields(
        value,
        |key| METADATA_FIELDS.contains(&key),
        |_, value| from_json(value),
    )
}

/// The pods of an object that makes some: its kind, and the part that has their `metadata` and `spec`.
fn template(value: &Json) -> Option<(WorkloadKind, &Json)> {
    let text = |field: &str| value.get(field).and_then(Json::as_str).unwrap_or_default();
    let kind = WorkloadKind::from_api(text("apiVersion"), text("kind"))?;
    let template = kind
        .pod_at()
        .iter()
        .try_fold(value, |value, step| value.get(step))?;
    Some((kind, template))
}

/// The pods of a workload, whatever kind it is: `{kind, path, metadata, spec, containers}`.
fn workload(kind: WorkloadKind, template: &Json, whole: &Value, extent: Extent) -> Value {
    let path: Vec<Value> = kind.pod_at().iter().map(|step| string(step)).collect();
    let (template_metadata, spec) = match extent {
        Extent::Pack => (
            template.get("metadata").map_or(Value::Undefined, metadata),
            template.get("spec").map_or(Value::Undefined, |spec| {
                from_json_fields(
                    spec,
                    |key| POD_FIELDS.contains(&key),
                    |_, value| from_json(value),
                )
            }),
        ),
        Extent::Whole => {
            let template = kind
                .pod_at()
                .iter()
                .fold(whole, |value, step| &value[*step]);
            (template["metadata"].clone(), template["spec"].clone())
        }
    };
    let mut containers = Vec::new();
    for list in CONTAINERS {
        let Some(items) = template
            .get("spec")
            .and_then(|spec| spec.get(list))
            .and_then(Json::as_array)
        else {
            continue;
        };
        for (index, item) in items.iter().enumerate() {
            let container = match extent {
                Extent::Pack => from_json_fields(
                    item,
                    |key| CONTAINER_FIELDS.contains(&key),
                    |_, value| from_json(value),
                ),
                Extent::Whole => spec[list][index].clone(),
            };
            let path =
                path.iter()
                    .cloned()
                    .chain([string("spec"), string(list), Value::from(index)]);
            containers.push(object([
                ("path", array(path)),
                ("list", string(list)),
                ("container", container),
            ]));
        }
    }
    let fields = [
        ("kind", string(kind.as_str())),
        ("path", array(path)),
        ("metadata", template_metadata),
        ("spec", spec),
        ("containers", array(containers)),
    ];
    object(
        fields
            .into_iter()
            .filter(|(_, value)| *value != Value::Undefined),
    )
}

/// The namespace: its name, its labels, and the labels that its policies select by.
fn namespace(question: &Question<'_>, labels: Option<&Json>, extent: Extent) -> Option<Value> {
    let name = question.review.namespace.as_ref()?;
    let selected = selected(question);
    // The built-in policies look at what is selected by for typos only: where there is none, they are spared the look.
    let shown =
        extent == Extent::Whole || labels.is_some_and(|labels| has_near_miss(labels, &selected));
    let selected = object(
        selected
            .iter()
            .filter(|_| shown)
            .map(|(key, values)| (*key, array(values.iter().map(|value| string(value))))),
    );
    let mut fields = vec![
        ("name", string(name.as_str())),
        ("selectedLabels", selected),
    ];
    if extent == Extent::Whole {
        fields.push((
            "labels",
            labels_of(&question.snapshot.namespace_labels(name)),
        ));
    }
    Some(object(fields))
}

/// Whether labels that are selected by are shown in a document.
pub(super) fn has_selected_labels(document: &Value) -> bool {
    matches!(&document["namespace"]["selectedLabels"], Value::Object(labels) if !labels.is_empty())
}

fn selected<'q>(question: &Question<'q>) -> Selected<'q> {
    let mut selected = Selected::new();
    let policies = question
        .review
        .namespace
        .iter()
        .flat_map(|name| question.snapshot.policies_in(name));
    for policy in policies.take(MAX_SELECTING) {
        for selector in selectors(policy) {
            for requirement in selector.requirements() {
                match requirement.operator() {
                    Operator::In(values) => {
                        selected
                            .entry(requirement.key())
                            .or_default()
                            .extend(values.iter().map(|value| &**value));
                    }
                    Operator::Exists => drop(selected.entry(requirement.key()).or_default()),
                    Operator::NotIn(_) | Operator::DoesNotExist => {}
                }
            }
        }
    }
    selected
}

/// The selectors by which a policy selects pods of its own namespace.
fn selectors(policy: &NetworkPolicy) -> impl Iterator<Item = &Selector> {
    let peers = policy
        .ingress
        .iter()
        .chain(&policy.egress)
        .filter_map(|rule| match &rule.peers {
            Peers::Only(peers) => Some(peers),
            Peers::Any => None,
        });
    let own = peers.flatten().filter_map(|peer| match peer {
        Peer::Pods {
            namespaces: NamespaceScope::Own,
            pods,
        } => Some(pods),
        Peer::Pods { .. } | Peer::Block { .. } => None,
    });
    std::iter::once(&policy.selector).chain(own)
}

fn has_near_miss(labels: &Json, selected: &Selected<'_>) -> bool {
    let near = |(key, value): (&String, &Json)| match (selected.get(key.as_str()), value.as_str()) {
        (Some(values), Some(value)) => near_miss(value, values.iter().copied()).is_some(),
        (Some(_), None) => false,
        (None, _) => near_miss(key, selected.keys().copied()).is_some(),
    };
    !selected.is_empty()
        && labels
            .as_object()
            .is_some_and(|labels| labels.iter().any(near))
}
