//! A review: one change that is asked for, as the checks see it.
//!
//! The webhook makes one of an `AdmissionRequest` (`admission.k8s.io/v1`), `check` makes one of each manifest.
//! The objects are parsed once, here; a kind that the model does not hold stays JSON for the policies in Rego.

use serde_json::Value;

use crate::guard::enforcement::confirmed::Confirmation;
use crate::guard::exemption::Exemption;
use crate::guard::finding::ObjectRef;
use crate::guard::guardrail::{GROUP, Guardrail};
use crate::guard::reachability::ReachabilityRule;
use crate::netpol::{self, NamespaceName, Object, ParseError, Parsed};

/// What is asked for. PATCH arrives as `Update`, create-on-update as `Create`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Operation {
    /// A new object.
    Create,
    /// Another version of an object.
    Update,
    /// The end of an object.
    Delete,
    /// A connection to a subresource, such as exec.
    Connect,
}

/// Group, version and a third part: the kind or the resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct GroupVersion {
    /// API group; empty for the core.
    #[serde(default)]
    pub group: String,
    /// API version.
    #[serde(default)]
    pub version: String,
}

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct User {
    /// The authenticated name.
    #[serde(default)]
    pub username: String,
    /// The groups.
    #[serde(default)]
    pub groups: Vec<String>,
}

/// An object of a review, parsed once.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The object as it came. Policies and patches see this, never a re-serialised struct.
    pub value: Value,
    /// What it is to the checks.
    pub parsed: Kind,
}

/// What an object is to the checks.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A kind that the model holds.
    Model(Parsed),
    /// A guardrail.
    Guardrail(Box<Guardrail>),
    /// An exemption.
    Exemption(Box<Exemption>),
    /// A reachability rule.
    ReachabilityRule(Box<ReachabilityRule>),
    /// The receipt of a node.
    NodeEnforcement(Box<Confirmation>),
    /// Any other kind: only policies in Rego look at it.
    Other,
    /// An object of a known kind that does not parse.
    Invalid(ParseError),
}

/// Where a review comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An API server asks: the object has been through its own decoding.
    Admission,
    /// A file: the object is as somebody wrote it.
    Manifest,
    /// A cluster that holds it already: it has been through an API server, and nobody waits for the answer.
    Existing,
}

/// One change that is asked for.
#[derive(Clone, Debug)]
pub struct Review {
    /// Where it comes from.
    pub origin: Origin,
    /// The `uid` of the request; empty for a manifest.
    pub uid: String,
    /// What is asked for.
    pub operation: Operation,
    /// Group and version of the kind.
    pub kind_version: GroupVersion,
    /// The kind of the object that is carried; with a subresource this may be another than the resource's own.
    pub kind: String,
    /// Group and version of the resource.
    pub resource_version: GroupVersion,
    /// The resource, in the plural.
    pub resource: String,
    /// The subresource; `None` for the object itself.
    pub subresource: Option<String>,
    /// The namespace; `None` for cluster-scoped kinds. For a Namespace object it is that namespace.
    pub namespace: Option<NamespaceName>,
    /// The name as the request has it; empty while the API server has still to make one.
    pub name: String,
    /// Who asks.
    pub user: User,
    /// Whether nothing will be stored.
    pub dry_run: bool,
    /// The object as it would be; `None` for `Delete` and `Connect`.
    pub object: Option<Subject>,
    /// The object as it is; `None` for `Create` and `Connect`.
    pub old_object: Option<Subject>,
}

// === impl Subject ===

impl Subject {
    /// Parses an object once.
    pub fn new(value: Value) -> Self {
        let parsed = Kind::of(&value);
        Self { value, parsed }
    }

    /// What the model holds of it.
    pub fn model(&self) -> Option<&Object> {
        match &self.parsed {
            Kind::Model(parsed) => Some(&parsed.object),
            Kind::Guardrail(_)
            | Kind::Exemption(_)
            | Kind::ReachabilityRule(_)
            | Kind::NodeEnforcement(_)
            | Kind::Other
            | Kind::Invalid(_) => None,
        }
    }

    /// Whether its deletion was asked for already.
    pub fn terminating(&self) -> bool {
        self.value
            .pointer("/metadata/deletionTimestamp")
            .is_some_and(|at| !at.is_null())
    }

    /// An annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.value
            .get("metadata")?
            .get("annotations")?
            .get(key)?
            .as_str()
    }
}

impl Kind {
    fn of(value: &Value) -> Self {
        let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
        let group = text("apiVersion")
            .split_once('/')
            .map_or("", |(group, _)| group);
        match (group, text("kind")) {
            (GROUP, "Guardrail") => Guardrail::parse(value)
                .map_or_else(Self::Invalid, |parsed| Self::Guardrail(Box::new(parsed))),
            (GROUP, "Exemption") => Exemption::parse(value)
                .map_or_else(Self::Invalid, |parsed| Self::Exemption(Box::new(parsed))),
            (GROUP, "ReachabilityRule") => ReachabilityRule::parse(value)
                .map_or_else(Self::Invalid, |parsed| {
                    Self::ReachabilityRule(Box::new(parsed))
                }),
            (GROUP, "NodeEnforcement") => Confirmation::parse(value)
                .map_or_else(Self::Invalid, |parsed| {
                    Self::NodeEnforcement(Box::new(parsed))
                }),
            _ => match netpol::parse(value) {
                Ok(Some(parsed)) => Self::Model(parsed),
                Ok(None) => Self::Other,
                Err(error) => Self::Invalid(error),
            },
        }
    }
}

// === impl Review ===

impl Review {
    /// The review of a manifest: as if it were created now.
    pub fn of_manifest(value: Value) -> Self {
        Self::made_of(Operation::Create, Some(Subject::new(value)), None)
    }

    /// A review made of objects alone, as tests and the command line have them.
    pub fn made_of(
        operation: Operation,
        object: Option<Subject>,
        old_object: Option<Subject>,
    ) -> Self {
        let subject = object.as_ref().or(old_object.as_ref());
        let named = subject.map(|subject| ObjectRef::of(&subject.value));
        let text =
            |read: fn(&ObjectRef) -> &str| named.as_ref().map(read).unwrap_or_default().to_owned();
        let api_version = text(|named| &named.api_version);
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let kind_version = GroupVersion {
            group: group.to_owned(),
            version: version.to_owned(),
        };
        let kind = text(|named| &named.kind);
        let name = subject
            .and_then(|subject| subject.value.pointer("/metadata/name"))
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let namespace = namespace_of(
            &kind_version,
            &kind,
            &name,
            named.as_ref().and_then(|n| n.namespace.as_deref()),
        );
        Self {
            origin: Origin::Manifest,
            uid: String::new(),
            operation,
            resource_version: kind_version.clone(),
            resource: plural(&kind),
            kind_version,
            kind,
            subresource: None,
            namespace,
            name,
            user: User::default(),
            dry_run: false,
            object,
            old_object,
        }
    }

    /// The object that the change speaks of: the new one, else the old one.
    pub fn subject(&self) -> Option<&Subject> {
        self.object.as_ref().or(self.old_object.as_ref())
    }

    /// What names the object in findings: its own words, completed by those of the request.
    pub fn object_ref(&self) -> ObjectRef {
        let mut named = self
            .subject()
            .map(|subject| ObjectRef::of(&subject.value))
            .unwrap_or(ObjectRef {
                api_version: String::new(),
                kind: self.kind.clone(),
                namespace: None,
                name: String::new(),
            });
        if named.name.is_empty() {
            named.name.clone_from(&self.name);
        }
        if self.kind == "Namespace" {
            named.namespace = None;
        } else if named.namespace.is_none() {
            named.namespace = self
                .namespace
                .as_ref()
                .map(|namespace| namespace.as_str().to_owned());
        }
        named
    }
}

/// Kinds without a namespace that are met in manifests. Anything else that names no namespace is in `default`.
const CLUSTER_SCOPED: [&str; 17] = [
    "APIService",
    "AdminNetworkPolicy",
    "BaselineAdminNetworkPolicy",
    "ClusterNetworkPolicy",
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "Guardrail",
    "IngressClass",
    "MutatingWebhookConfiguration",
    "Node",
    "NodeEnforcement",
    "PersistentVolume",
    "PriorityClass",
    "ReachabilityRule",
    "StorageClass",
    "ValidatingWebhookConfiguration",
];

fn namespace_of(
    version: &GroupVersion,
    kind: &str,
    name: &str,
    namespace: Option<&str>,
) -> Option<NamespaceName> {
    match (kind, namespace) {
        ("Namespace", _) if version.group.is_empty() => Some(NamespaceName::from(name)),
        (_, Some(namespace)) if !namespace.is_empty() => Some(NamespaceName::from(namespace)),
        (kind, _) if belongs_to_cluster(kind) => None,
        _ => Some(NamespaceName::from("default")),
    }
}

/// Whether the objects of a kind that is judged belong to the whole cluster; a Namespace is taken to be in itself.
pub(in crate::guard) fn belongs_to_cluster(kind: &str) -> bool {
    CLUSTER_SCOPED.contains(&kind)
}

fn plural(kind: &str) -> String {
    let kind = kind.to_lowercase();
    match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None if kind.ends_with('s') => format!("{kind}es"),
        None => format!("{kind}s"),
    }
}
