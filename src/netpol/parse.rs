//! The one way from JSON to the objects of the model: webhook, command line and index all come through here.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1 as networking;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::cluster_policy::manifest::v1alpha1::{AdminSpec, BaselineSpec};
use super::cluster_policy::{ClusterNetworkPolicy, Spec, manifest};
use super::decode::{Decoded, decode};
use super::field::{FieldPath, Place};
use super::labels::Labels;
use super::name::ClusterPolicyKind;
use super::namespace::Namespace;
use super::node::Node;
use super::object::Object;
use super::pod::Pod;
use super::policy::NetworkPolicy;
use super::problem::{ParseError, Problem, Problems, Quoted};
use super::service::Service;
use super::staged::{StagedManifest, StagedNetworkPolicy};
use super::workload::{self, WorkloadKind};

/// An object that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The object.
    pub object: Object,
    /// The fields that its kind does not have; the API server drops or refuses them, by the client's choice.
    pub unknown_fields: Vec<FieldPath>,
}

/// The kinds that the model holds.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Namespace,
    Service,
    NetworkPolicy,
    StagedNetworkPolicy,
    Cluster(ClusterPolicyKind),
    Node,
    Workload(WorkloadKind),
}

/// Reads an object; `None` for a kind that the model does not hold, so that one may offer it everything.
///
/// A missing `metadata.namespace` means the namespace `default`. Everything that is wrong is reported, each with its
/// exact field. What network policies do not depend on is checked for its type only.
pub fn parse(value: &Value) -> Result<Option<Parsed>, ParseError> {
    let text = |key: &str| match value.get(key) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.as_str()),
        Some(Value::String(_) | Value::Null) | None => Err("is missing"),
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            Err("must be a string")
        }
    };
    if !value.is_object() {
        return Err(ParseError::one(
            FieldPath::root(),
            "must be an object with apiVersion and kind",
        ));
    }
    let problem = |key: &str, reason: &str| Problem {
        field: FieldPath::of([key]),
        reason: reason.to_owned(),
    };
    let (api_version, kind) = match (text("apiVersion"), text("kind")) {
        (Ok(api_version), Ok(kind)) => (api_version, kind),
        (api_version, kind) => {
            let problems = [("apiVersion", api_version), ("kind", kind)];
            let problems = problems
                .into_iter()
                .filter_map(|(key, text)| Some(problem(key, text.err()?)));
            return Err(ParseError {
                problems: problems.collect(),
            });
        }
    };
    match Kind::of(api_version, kind)? {
        Some(kind) => kind.read(value).map(Some),
        None => Ok(None),
    }
}

impl Kind {
    /// The kind of an `apiVersion` and `kind`; an error for a version that is served no longer.
    fn of(api_version: &str, kind: &str) -> Result<Option<Self>, ParseError> {
        let known = match kind {
            "Namespace" => Some((Self::Namespace, "v1")),
            "Service" => Some((Self::Service, "v1")),
            "Node" => Some((Self::Node, "v1")),
            "NetworkPolicy" => Some((Self::NetworkPolicy, "networking.k8s.io/v1")),
            "StagedNetworkPolicy" => Some((Self::StagedNetworkPolicy, "ringfence.dev/v1alpha1")),
            other => {
                let mut wide = ClusterPolicyKind::ALL.into_iter();
                if let Some(kind) = wide.find(|kind| kind.as_str() == other) {
                    Some((Self::Cluster(kind), kind.api_version()))
                } else {
                    let mut workloads = WorkloadKind::ALL.into_iter();
                    let workload = workloads.find(|workload| workload.as_str() == other);
                    workload.map(|workload| (Self::Workload(workload), workload.api_version()))
                }
            }
        };
        let Some((known, served)) = known else {
            return Ok(None);
        };
        if api_version == served {
            return Ok(Some(known));
        }
        let group = |version: &str| {
            version
                .split_once('/')
                .map_or("", |(group, _)| group)
                .to_owned()
        };
        let (found, own) = (group(api_version), group(served));
        // The kinds of apps and networking were first in `extensions`. In other groups the same words mean other kinds.
        let moved = found == "extensions" && matches!(own.as_str(), "apps" | "networking.k8s.io");
        if found == own || moved {
            let article = if kind.starts_with('A') { "an" } else { "a" };
            let reason = format!(
                "{} is not read: {article} {kind} must be of {served}",
                Quoted(api_version)
            );
            return Err(ParseError::one(FieldPath::of(["apiVersion"]), reason));
        }
        Ok(None)
    }

    fn read(self, value: &Value) -> Result<Parsed, ParseError> {
        match self {
            Self::Namespace => read(value, |object: &core::Namespace, at, problems| {
                Object::Namespace(Namespace::read(object, at, problems))
            }),
            Self::Service => read(value, |object: &core::Service, at, problems| {
                Object::Service(Service::read(object, at, problems))
            }),
            Self::NetworkPolicy => {
                read(value, |object: &networking::NetworkPolicy, at, problems| {
                    Object::NetworkPolicy(NetworkPolicy::read(object, at, problems))
                })
            }
            Self::StagedNetworkPolicy => read(value, |object: &StagedManifest, at, problems| {
                let staged = StagedNetworkPolicy::read(object, at, problems);
                Object::StagedNetworkPolicy(Box::new(staged))
            }),
            Self::Cluster(ClusterPolicyKind::ClusterNetworkPolicy) => {
                read_cluster::<manifest::Spec>(value)
            }
            Self::Cluster(ClusterPolicyKind::AdminNetworkPolicy) => {
                read_cluster::<AdminSpec>(value)
            }
            Self::Cluster(ClusterPolicyKind::BaselineAdminNetworkPolicy) => {
                read_cluster::<BaselineSpec>(value)
            }
            Self::Node => read(value, |object: &core::Node, at, problems| {
                Object::Node(Node::read(object, at, problems))
            }),
            Self::Workload(kind) => read_workload(kind, value),
        }
    }
}

/// Decodes a typed object and makes ours of it, unless anything is wrong with it.
fn read<T: DeserializeOwned>(
    value: &Value,
    make: impl FnOnce(&T, &Place<'_>, &mut Problems) -> Object,
) -> Result<Parsed, ParseError> {
    let decoded: Result<Decoded<T>, Vec<Problem>> = decode(value);
    let Decoded {
        object,
        wrong_types,
        unknown_fields,
    } = decoded.map_err(|problems| ParseError { problems })?;
    let mut problems = Problems::default();
    let object = make(&object, &Place::Root, &mut problems);
    problems.preceded_by(wrong_types);
    problems.into_result()?;
    Ok(Parsed {
        object,
        unknown_fields,
    })
}

fn read_cluster<S: Spec + DeserializeOwned>(value: &Value) -> Result<Parsed, ParseError> {
    read(value, |object: &manifest::Manifest<S>, at, problems| {
        Object::ClusterNetworkPolicy(ClusterNetworkPolicy::read(object, value, at, problems))
    })
}

fn read_workload(kind: WorkloadKind, value: &Value) -> Result<Parsed, ParseError> {
    // A macro, because the generated types share no trait that leads to the template.
    macro_rules! template_of {
        ($type:ty, |$object:ident| $template:expr) => {
            read(value, |$object: &$type, at, problems| {
                let template = $template.filter(|_| is_present(value, kind));
                Object::Workload(workload::read(
                    kind,
                    &$object.metadata,
                    template,
                    at,
                    problems,
                ))
            })
        };
    }
    match kind {
        WorkloadKind::Pod => read(value, |object: &core::Pod, at, problems| {
            Object::Pod(Pod::read(object, at, problems))
        }),
        WorkloadKind::Deployment => {
            template_of!(Deployment, |it| it.spec.as_ref().map(|spec| &spec.template))
        }
        WorkloadKind::StatefulSet => template_of!(StatefulSet, |it| it
            .spec
            .as_ref()
            .map(|spec| &spec.template)),
        WorkloadKind::DaemonSet => {
            template_of!(DaemonSet, |it| it.spec.as_ref().map(|spec| &spec.template))
        }
        WorkloadKind::ReplicaSet => template_of!(ReplicaSet, |it| it
            .spec
            .as_ref()
            .and_then(|spec| spec.template.as_ref())),
        WorkloadKind::ReplicationController => {
            template_of!(core::ReplicationController, |it| it
                .spec
                .as_ref()
                .and_then(|spec| spec.template.as_ref()))
        }
        WorkloadKind::CronJob => {
            template_of!(CronJob, |it| it
                .spec
                .job_template
                .spec
                .as_ref()
                .map(|job| &job.template))
        }
        WorkloadKind::Job => read(value, |object: &Job, at, problems| {
            let spec = object.spec.as_ref();
            let template = spec
                .map(|spec| &spec.template)
                .filter(|_| is_present(value, kind));
            let mut pod = workload::read(kind, &object.metadata, template, at, problems);
            let manual = spec.and_then(|spec| spec.manual_selector) == Some(true);
            if let Some(name) = object.metadata.name.as_deref().filter(|_| !manual) {
                pod.labels = with_job_labels(&pod.labels, name);
            }
            Object::Workload(pod)
        }),
    }
}

/// Whether there is a template at all: the generated types fill an absent one with nothing.
fn is_present(value: &Value, kind: WorkloadKind) -> bool {
    let template = FieldPath::of(kind.pod_at().iter().copied());
    template
        .lookup(value)
        .is_some_and(|template| !template.is_null())
}

/// The labels that the API server gives to a job's pods.
///
/// <https://kubernetes.io/docs/reference/labels-annotations-taints/#batch-kubernetes-io-job-name>
fn with_job_labels(labels: &Labels, name: &str) -> Labels {
    labels
        .with("batch.kubernetes.io/job-name", name)
        .with("job-name", name)
}

#[cfg(test)]
mod tests;
