//! Namespaces: what peers select by their labels.

use k8s_openapi::api::core::v1 as api;

use super::field::Place;
use super::labels::{Annotations, Labels, NAMESPACE_NAME_LABEL};
use super::meta::{self, NameForm};
use super::name::NamespaceName;
use super::problem::Problems;

/// The namespaces of the cluster itself.
pub const SYSTEM_NAMESPACES: [&str; 3] = ["kube-node-lease", "kube-public", "kube-system"];

/// A namespace.
///
/// <https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.36/#namespace-v1-core>
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: NamespaceName,
    /// Its labels, among them always the one that the control plane sets to the name.
    pub labels: Labels,
    /// Its annotations.
    pub annotations: Annotations,
    /// It is being deleted.
    pub terminating: bool,
}

impl Namespace {
    /// A namespace with these labels.
    pub fn new(name: impl Into<NamespaceName>, labels: &Labels) -> Self {
        let name = name.into();
        let labels = labels.with(NAMESPACE_NAME_LABEL, name.as_str());
        Self {
            name,
            labels,
            annotations: Annotations::default(),
            terminating: false,
        }
    }

    pub(super) fn read(object: &api::Namespace, at: &Place<'_>, problems: &mut Problems) -> Self {
        let (meta, at) = (&object.metadata, at.key("metadata"));
        let name = meta::read_name(meta, NameForm::Label, &at, problems);
        let labels = meta::read_labels(meta, &at, problems);
        let phase = object
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        Self {
            annotations: meta::read_annotations(meta),
            terminating: meta.deletion_timestamp.is_some() || phase == Some("Terminating"),
            ..Self::new(name, &labels)
        }
    }
}

/// The labels that even a namespace has of which nothing else is known.
pub(super) fn automatic_labels(name: &NamespaceName) -> Labels {
    Labels::from([(NAMESPACE_NAME_LABEL, name.as_str())])
}
