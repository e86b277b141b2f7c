//! The documents of one file to Kubernetes objects: lists are opened, what is none is told or passed over.

use std::sync::Arc;

use serde_json::Value;

use crate::guard::registry;
use crate::k8s::yaml::{Duplicate, Fault, FaultKind, Places, Reading, Text};
use crate::netpol::FieldPath;

use super::{FileContent, Manifest, Problem, Source};

/// The group of Kustomize's own files, which never reach a cluster.
const KUSTOMIZE_GROUP: &str = "kustomize.config.k8s.io/";

/// More faults than this in one file are not told: the first ones help.
const MOST_FAULTS: usize = 50;

/// What a document is.
enum Identity {
    /// An object of this kind.
    Object(String),
    /// What Kustomize reads, and no cluster.
    Kustomization,
    /// Something else altogether.
    Foreign,
    /// Meant as an object, but this field is wrong, for this reason.
    Broken(&'static str, &'static str),
}

/// The objects of a file. `is_named` says that the user named it, so that it has to hold objects.
pub(super) fn of(text: &Arc<Text>, reading: Reading, is_named: bool) -> FileContent {
    let mut content = FileContent::default();
    for fault in reading.faults.iter().take(MOST_FAULTS) {
        content.problems.push(unreadable(text, fault, is_named));
    }
    for (index, document) in reading.documents.into_iter().enumerate() {
        let source = Source {
            file: Arc::clone(text.name()),
            document: index + 1,
            item: None,
        };
        let passed_over = content.passed_over;
        add(
            &mut content,
            document.value,
            document.places,
            source,
            is_named,
        );
        if content.passed_over == passed_over {
            content.problems.extend(
                document
                    .duplicates
                    .iter()
                    .map(|duplicate| twice(text, duplicate)),
            );
        }
    }
    content
        .problems
        .sort_by_key(|problem| (problem.line, problem.column));
    content
}

/// A text, or a document of it, that cannot be read.
pub(super) fn unreadable(text: &Arc<Text>, fault: &Fault, is_named: bool) -> Problem {
    let source = text.as_str();
    let mut problem = Problem::at(
        registry::UNREADABLE.id,
        text,
        text.place(&fault.range),
        fault.kind.to_string(),
    );
    // In a folder, broken YAML that never names an API is somebody else's business.
    problem.fatal = is_named || source.is_empty() || source.contains("apiVersion");
    let is_grammar = matches!(
        fault.kind,
        FaultKind::Syntax(_) | FaultKind::KeyIsCollection | FaultKind::Ambiguous
    );
    if is_grammar && source.contains("{{") {
        problem.help = Some(
            "it looks like a template; check what is made of it: `helm template CHART | ringfence check -`".to_owned(),
        );
    }
    problem
}

fn add(content: &mut FileContent, value: Value, places: Places, source: Source, is_named: bool) {
    let (field, reason) = match identity(&value) {
        Identity::Object(kind) if is_list(&kind, &value) => {
            let item_kind = kind.strip_suffix("List").unwrap_or_default();
            return add_items(content, value, &places, &source, item_kind);
        }
        Identity::Object(_) => {
            content.manifests.push(Manifest {
                source,
                value,
                places,
            });
            return;
        }
        Identity::Kustomization | Identity::Foreign if !is_named => {
            content.passed_over += 1;
            return;
        }
        Identity::Kustomization => (
            FieldPath::root(),
            "it is what `kustomize build` makes objects with",
        ),
        Identity::Foreign => (FieldPath::root(), "it has no `apiVersion` and `kind`"),
        Identity::Broken(field, reason) => (FieldPath::of([field]), reason),
    };
    content.problems.push(Problem::at(
        registry::INVALID.id,
        places.text(),
        places.place(&field),
        format!("not a Kubernetes object: {reason}"),
    ));
}

/// Adds the items of a list; those of a typed one (`DeploymentList`) may leave out what the list says for them.
fn add_items(
    content: &mut FileContent,
    mut value: Value,
    places: &Places,
    source: &Source,
    item_kind: &str,
) {
    let api_version = value.get("apiVersion").cloned().unwrap_or_default();
    let Some(Value::Array(items)) = value.get_mut("items").map(Value::take) else {
        return;
    };
    for (index, mut item) in items.into_iter().enumerate() {
        let Some(places) = places.item("items", index) else {
            continue;
        };
        if let Value::Object(fields) = &mut item
            && !item_kind.is_empty()
        {
            fields
                .entry("apiVersion")
                .or_insert_with(|| api_version.clone());
            fields
                .entry("kind")
                .or_insert_with(|| Value::from(item_kind));
        }
        // Whoever puts something into a list of objects means an object.
        add(
            content,
            item,
            places,
            Source {
                item: Some(index),
                ..source.clone()
            },
            true,
        );
    }
}

fn identity(value: &Value) -> Identity {
    let has = |field: &str| value.get(field).is_some();
    let text = |field: &str| {
        let text = value.get(field).and_then(Value::as_str);
        text.filter(|text| !text.is_empty())
    };
    match (text("apiVersion"), text("kind")) {
        (Some(version), Some(_)) if version.starts_with(KUSTOMIZE_GROUP) => Identity::Kustomization,
        (Some(_), Some(kind)) => Identity::Object(kind.to_owned()),
        // Other YAML may have one of the two; with metadata beside it, it is meant as an object.
        _ if !(has("metadata") || has("apiVersion") && has("kind")) => Identity::Foreign,
        (_, Some(_)) if !has("apiVersion") => {
            Identity::Broken("apiVersion", "`apiVersion` is missing")
        }
        (Some(_), _) if !has("kind") => Identity::Broken("kind", "`kind` is missing"),
        (None, _) if has("apiVersion") => {
            Identity::Broken("apiVersion", "`apiVersion` must be a text")
        }
        (_, None) if has("kind") => Identity::Broken("kind", "`kind` must be a text"),
        _ => Identity::Foreign,
    }
}

/// Whether an object holds others. A kind of somebody's own may end in `List` without being one.
fn is_list(kind: &str, value: &Value) -> bool {
    let has_items = value.get("items").is_some_and(Value::is_array);
    kind == "List"
        || (kind.ends_with("List") && has_items && value.pointer("/metadata/name").is_none())
}

fn twice(text: &Arc<Text>, duplicate: &Duplicate) -> Problem {
    let first = text.place(&duplicate.first);
    let message = format!(
        "`{}` stands twice; the value at line {} is lost, for the last one counts",
        duplicate.field, first.line
    );
    Problem::at(
        registry::DUPLICATE_KEY.id,
        text,
        text.place(&duplicate.second),
        message,
    )
}
