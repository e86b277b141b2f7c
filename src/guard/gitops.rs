//! Tools that keep objects as git has them, and the marks by which an object shows that one of them does: what others change in
//! it is undone, again and again.

use serde_json::Value;

use crate::guard::review::Subject;
use crate::netpol::NetworkPolicy;

/// A tool that applies what git has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// <https://argo-cd.readthedocs.io/en/stable/user-guide/resource_tracking/>
    ArgoCd,
    /// <https://fluxcd.io/flux/components/kustomize/kustomizations/> and `helmreleases`.
    Flux,
}

/// The annotations that tools set.
const ANNOTATIONS: [(&str, Tool); 1] = [("argocd.argoproj.io/tracking-id", Tool::ArgoCd)];
/// The labels that tools set.
const LABELS: [(&str, Tool); 3] = [
    ("argocd.argoproj.io/instance", Tool::ArgoCd),
    ("kustomize.toolkit.fluxcd.io/name", Tool::Flux),
    ("helm.toolkit.fluxcd.io/name", Tool::Flux),
];
/// The names under which they write.
const MANAGERS: [(&str, Tool); 3] = [
    ("argocd-controller", Tool::ArgoCd),
    ("kustomize-controller", Tool::Flux),
    ("helm-controller", Tool::Flux),
];
/// The label by which Argo CD tracks where it is told to, as it did by itself before 3.0. Charts set it as well, so it says
/// something only on what no chart has.
const INSTANCE: &str = "app.kubernetes.io/instance";

// === impl Tool ===

impl Tool {
    /// Its name in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ArgoCd => "Argo CD",
            Self::Flux => "Flux",
        }
    }
}

/// The tool that keeps an object which is about to be written: by what it has set, or by who has written it.
pub fn keeper(subject: &Subject) -> Option<Tool> {
    let at = |pointer: &str| subject.value.pointer(pointer);
    let (annotations, labels) = (at("/metadata/annotations"), at("/metadata/labels"));
    let has =
        |field: Option<&Value>, key: &str| field.is_some_and(|field| field.get(key).is_some());
    marked(|key| has(annotations, key), |key| has(labels, key)).or_else(|| {
        let entries = at("/metadata/managedFields").and_then(Value::as_array);
        let names = entries.into_iter().flatten();
        let mut names = names.filter_map(|entry| entry.get("manager")?.as_str());
        names.find_map(|name| tool(&MANAGERS, |known| known == name))
    })
}

/// The tool that keeps a policy which has the name of one that Ringfence makes.
pub fn keeper_of_ours(policy: &NetworkPolicy) -> Option<Tool> {
    let (annotations, labels) = (&policy.annotations, &policy.labels);
    marked(|key| annotations.contains(key), |key| labels.contains(key))
        .or_else(|| labels.contains(INSTANCE).then_some(Tool::ArgoCd))
}

fn marked(annotated: impl Fn(&str) -> bool, labelled: impl Fn(&str) -> bool) -> Option<Tool> {
    tool(&ANNOTATIONS, annotated).or_else(|| tool(&LABELS, labelled))
}

fn tool(marks: &[(&str, Tool)], has: impl Fn(&str) -> bool) -> Option<Tool> {
    let mut marks = marks.iter();
    marks.find(|(mark, _)| has(mark)).map(|(_, tool)| *tool)
}
