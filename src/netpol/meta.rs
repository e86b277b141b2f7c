//! What every object has: its name, its namespace, its labels.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::field::Place;
use super::labels::{self, Annotations, Labels};
use super::name::{NamespaceName, dns_label_problem, dns_subdomain_problem};
use super::problem::Problems;
use super::workload::{WorkloadKind, WorkloadRef};

/// The namespace of an object that names none, as `kubectl` without further settings has it.
const DEFAULT_NAMESPACE: &str = "default";

/// What `kubectl apply` keeps for itself: a second copy of the object, of no use to anyone who selects or documents.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The forms that the names of objects may have.
#[derive(Clone, Copy, Debug)]
pub(super) enum NameForm {
    /// A DNS label (RFC 1123).
    Label,
    /// A DNS subdomain (RFC 1123).
    Subdomain,
}

/// The name; for an object that is to be named by the API server, the prefix of `generateName`.
pub(super) fn read_name(
    meta: &ObjectMeta,
    form: NameForm,
    at: &Place<'_>,
    problems: &mut Problems,
) -> String {
    let problem = match form {
        NameForm::Label => dns_label_problem,
        NameForm::Subdomain => dns_subdomain_problem,
    };
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    match (given(&meta.name), given(&meta.generate_name)) {
        (Some(name), _) => {
            problems.add_if(&at.key("name"), &name, problem(&name));
            name
        }
        (None, Some(prefix)) => {
            // The server appends letters, so that the prefix may end with a hyphen.
            problems.add_if(
                &at.key("generateName"),
                &prefix,
                problem(&format!("{prefix}x")),
            );
            prefix
        }
        (None, None) => {
            problems.add(&at.key("name"), "is missing");
            String::new()
        }
    }
}

/// The namespace of a namespaced object.
pub(super) fn read_namespace(
    meta: &ObjectMeta,
    at: &Place<'_>,
    problems: &mut Problems,
) -> NamespaceName {
    let namespace = meta
        .namespace
        .as_deref()
        .filter(|namespace| !namespace.is_empty());
    if let Some(namespace) = namespace {
        problems.add_if(
            &at.key("namespace"),
            namespace,
            dns_label_problem(namespace),
        );
    }
    NamespaceName::from(namespace.unwrap_or(DEFAULT_NAMESPACE))
}

/// The labels, each checked.
pub(super) fn read_labels(meta: &ObjectMeta, at: &Place<'_>, problems: &mut Problems) -> Labels {
    let labels = meta.labels.iter().flatten();
    labels::check(labels.clone(), &at.key("labels"), problems);
    labels
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect()
}

/// The annotations, without the copy of the object that `kubectl` keeps in them.
pub(super) fn read_annotations(meta: &ObjectMeta) -> Annotations {
    let annotations = meta
        .annotations
        .iter()
        .flatten()
        .filter(|(key, _)| *key != LAST_APPLIED);
    annotations
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect()
}

/// The workload that controls an object, where it is of a kind that we know.
pub(super) fn read_owner(meta: &ObjectMeta, namespace: &NamespaceName) -> Option<WorkloadRef> {
    let owner = meta
        .owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true))?;
    Some(WorkloadRef {
        kind: WorkloadKind::from_api(&owner.api_version, &owner.kind)?,
        namespace: namespace.clone(),
        name: owner.name.as_str().into(),
    })
}
