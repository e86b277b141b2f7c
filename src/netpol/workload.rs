//! The kinds that run pods, and the pod that stands for all pods of one of them.

use std::fmt;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;

use super::field::Place;
use super::meta::{self, NameForm};
use super::name::{NamespaceName, ObjectName};
use super::pod::Pod;
use super::problem::Problems;

/// The kinds that are a pod or have a pod template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum WorkloadKind {
    /// A pod by itself: `v1`.
    Pod,
    /// `apps/v1`.
    Deployment,
    /// `apps/v1`.
    StatefulSet,
    /// `apps/v1`.
    DaemonSet,
    /// `apps/v1`.
    ReplicaSet,
    /// `v1`.
    ReplicationController,
    /// `batch/v1`.
    Job,
    /// `batch/v1`.
    CronJob,
}

/// Whose pods: the object that is a pod or owns a pod template.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct WorkloadRef {
    /// Its kind.
    pub kind: WorkloadKind,
    /// Its namespace, which is the namespace of its pods.
    pub namespace: NamespaceName,
    /// Its name; while the API server has not named it yet, the prefix it asks for.
    pub name: ObjectName,
}

impl WorkloadKind {
    /// All of them.
    pub const ALL: [WorkloadKind; 8] = [
        WorkloadKind::Pod,
        WorkloadKind::Deployment,
        WorkloadKind::StatefulSet,
        WorkloadKind::DaemonSet,
        WorkloadKind::ReplicaSet,
        WorkloadKind::ReplicationController,
        WorkloadKind::Job,
        WorkloadKind::CronJob,
    ];

    /// The kind of an `apiVersion` and `kind`.
    pub fn from_api(api_version: &str, kind: &str) -> Option<Self> {
        let matching =
            |candidate: &Self| candidate.as_str() == kind && candidate.api_version() == api_version;
        Self::ALL.into_iter().find(matching)
    }

    /// The `kind` of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::ReplicaSet => "ReplicaSet",
            Self::ReplicationController => "ReplicationController",
            Self::Job => "Job",
            Self::CronJob => "CronJob",
        }
    }

    /// The `apiVersion` of the API.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::Pod | Self::ReplicationController => "v1",
            Self::Deployment | Self::StatefulSet | Self::DaemonSet | Self::ReplicaSet => "apps/v1",
            Self::Job | Self::CronJob => "batch/v1",
        }
    }

    /// Where the pod's own fields (`metadata`, `spec`) stand in an object of this kind.
    pub fn pod_at(self) -> &'static [&'static str] {
        match self {
            Self::Pod => &[],
            Self::Deployment
            | Self::StatefulSet
            | Self::DaemonSet
            | Self::ReplicaSet
            | Self::ReplicationController
            | Self::Job => &["spec", "template"],
            Self::CronJob => &["spec", "jobTemplate", "spec", "template"],
        }
    }
}

impl fmt::Display for WorkloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for WorkloadRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// The pod that stands for all pods of a workload; `at` is the place of the whole object.
pub(super) fn read(
    kind: WorkloadKind,
    meta: &ObjectMeta,
    template: Option<&PodTemplateSpec>,
    at: &Place<'_>,
    problems: &mut Problems,
) -> Pod {
    let meta_at = at.key("metadata");
    let workload = WorkloadRef {
        kind,
        namespace: meta::read_namespace(meta, &meta_at, problems),
        name: meta::read_name(meta, NameForm::Subdomain, &meta_at, problems).into(),
    };
    // The labels of the workload itself are not those of its pods, but the API server checks them as well.
    let _ = meta::read_labels(meta, &meta_at, problems);
    let owner = meta::read_owner(meta, &workload.namespace);
    below(at, kind.pod_at(), &mut |template_at| {
        let Some(template) = template else {
            problems.add(template_at, "is missing");
            return Pod::new(workload.clone());
        };
        let labels = match &template.metadata {
            Some(meta) => meta::read_labels(meta, &template_at.key("metadata"), problems),
            None => super::Labels::default(),
        };
        let mut pod = Pod {
            owner: owner.clone(),
            labels,
            ..Pod::new(workload.clone())
        };
        pod.read_spec(template.spec.as_ref(), &template_at.key("spec"), problems);
        pod
    })
}

/// Calls a function with the place that some keys lead to.
fn below<T>(at: &Place<'_>, keys: &[&str], then: &mut dyn FnMut(&Place<'_>) -> T) -> T {
    match keys.split_first() {
        Some((key, rest)) => below(&at.key(key), rest, then),
        None => then(at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_known_by_its_served_version_only() {
        for kind in WorkloadKind::ALL {
            assert_eq!(
                WorkloadKind::from_api(kind.api_version(), kind.as_str()),
                Some(kind)
            );
        }
        assert_eq!(WorkloadKind::from_api("apps/v1beta1", "Deployment"), None);
        assert_eq!(WorkloadKind::from_api("example.com/v1", "Job"), None);
    }
}
