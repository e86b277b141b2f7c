//! An `AdmissionReview` from the wire to a [`Review`] of `guard`.
//!
//! The envelope borrows from the body and leaves the objects as they are; [`Envelope::review`] then parses them once.
//! Whatever is wrong with a review is the caller's to hear: with a `uid` it gets an answer that refuses and says why,
//! without one a sentence with status 400. Never a 5xx, which would send an API server to its failure policy.
//!
//! Source: k8s.io/api/admission/v1, types.go.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::authorization::v1::SubjectAccessReviewSpec;
use serde::Deserialize;
use serde::de::DeserializeSeed as _;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::guard::review::{GroupVersion, Operation, Origin, Review, Subject, User};
use crate::k8s::trim;
use crate::netpol::NamespaceName;

mod words;

use words::{quoted, short};

/// The version of the envelope, and of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// `admission.k8s.io/v1`.
    #[default]
    V1,
    /// `admission.k8s.io/v1beta1`, which is answered with a refusal that the caller can read.
    V1Beta1,
}

/// Why a review is not judged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no request to answer.
    #[error("{0}")]
    Nobody(String),
    /// The request can be answered, with this reason.
    #[error("{reason}")]
    Answerable {
        /// Whom the answer is for.
        uid: String,
        /// What the caller speaks.
        version: Version,
        /// What is wrong, in one sentence.
        reason: String,
    },
}

/// An admission review, its objects not yet parsed.
#[derive(Debug)]
pub struct Envelope<'a> {
    request: Request<'a>,
    operation: Operation,
}

/// What is read of the outermost object. Other fields, a `response` for instance, are nobody's concern.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outer<'a> {
    #[serde(borrow, default)]
    api_version: Cow<'a, str>,
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    request: Option<Request<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    kind: GroupVersionKind,
    #[serde(default)]
    resource: GroupVersionResource,
    #[serde(default)]
    sub_resource: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(borrow, default)]
    operation: Cow<'a, str>,
    #[serde(default)]
    user_info: UserInfo,
    #[serde(borrow, default)]
    object: Option<&'a RawValue>,
    #[serde(borrow, default)]
    old_object: Option<&'a RawValue>,
    #[serde(default)]
    dry_run: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
struct GroupVersionKind {
    #[serde(default)]
    group: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    kind: String,
}

#[derive(Debug, Default, Deserialize)]
struct GroupVersionResource {
    #[serde(default)]
    group: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    resource: String,
}

#[derive(Debug, Default, Deserialize)]
struct UserInfo {
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    uid: Option<String>,
    #[serde(default)]
    groups: Option<Vec<String>>,
    #[serde(default)]
    extra: Option<BTreeMap<String, Vec<String>>>,
}

/// What is read of a review that does not parse: only whom to answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Lenient {
    #[serde(default)]
    api_version: Value,
    #[serde(default)]
    request: Option<LenientRequest>,
}

#[derive(Deserialize)]
struct LenientRequest {
    #[serde(default)]
    uid: Value,
}

/// A `uid` comes back in the answer, and a UUID has 36 characters.
const LONGEST_UID: usize = 256;

// === impl Version ===

impl Version {
    /// The `apiVersion` of the envelope.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "admission.k8s.io/v1",
            Self::V1Beta1 => "admission.k8s.io/v1beta1",
        }
    }

    fn of(api_version: &str) -> Option<Self> {
        [Self::V1, Self::V1Beta1]
            .into_iter()
            .find(|version| version.as_str() == api_version)
    }
}

// === impl Envelope ===

impl<'a> Envelope<'a> {
    /// Reads the envelope of a review.
    pub fn read(body: &'a [u8]) -> Result<Self, Refusal> {
        let text = std::str::from_utf8(body).map_err(|error| {
            Refusal::Nobody(format!(
                "the body is not UTF-8 at byte {}",
                error.valid_up_to()
            ))
        })?;
        let outer: Outer<'a> = serde_json::from_str(text).map_err(|_| explain(text))?;
        let Some(request) = outer.request else {
            return Err(Refusal::Nobody(
                "the AdmissionReview has no request".to_owned(),
            ));
        };
        if request.uid.is_empty() {
            return Err(Refusal::Nobody(
                "the request of the AdmissionReview has no uid, so it cannot be answered"
                    .to_owned(),
            ));
        }
        if request.uid.len() > LONGEST_UID {
            return Err(Refusal::Nobody(format!(
                "the uid of the request is longer than {LONGEST_UID} bytes"
            )));
        }
        let version = Version::of(&outer.api_version);
        let refuse = |reason: String| {
            Err(Refusal::Answerable {
                uid: request.uid.clone(),
                version: version.unwrap_or_default(),
                reason,
            })
        };
        if outer.kind != "AdmissionReview" {
            return refuse(format!(
                "expected kind AdmissionReview, got {}",
                quoted(&outer.kind)
            ));
        }
        match version {
            Some(Version::V1) => {}
            Some(Version::V1Beta1) => {
                return refuse(
                    "admission.k8s.io/v1beta1 is not spoken here: register the webhook with admissionReviewVersions [v1]".to_owned(),
                );
            }
            None => {
                return refuse(format!(
                    "expected apiVersion admission.k8s.io/v1, got {}",
                    quoted(&outer.api_version)
                ));
            }
        }
        let operation = match request.operation.as_ref() {
            "CREATE" => Operation::Create,
            "UPDATE" => Operation::Update,
            "DELETE" => Operation::Delete,
            "CONNECT" => Operation::Connect,
            other => {
                return refuse(format!(
                    "unknown operation {}: expected CREATE, UPDATE, DELETE or CONNECT",
                    quoted(other)
                ));
            }
        };
        if request.kind.kind.is_empty() {
            return refuse("the request names no kind".to_owned());
        }
        let (needed, missing) = match operation {
            Operation::Create => ("object", request.object.is_none()),
            Operation::Update => (
                if request.object.is_none() {
                    "object"
                } else {
                    "oldObject"
                },
                request.object.is_none() || request.old_object.is_none(),
            ),
            Operation::Delete => ("oldObject", request.old_object.is_none()),
            Operation::Connect => ("", false),
        };
        if missing {
            return refuse(format!(
                "a request to {} carries {needed}, and this one does not",
                request.operation
            ));
        }
        Ok(Self { request, operation })
    }

    /// Whom the answer is for.
    pub fn uid(&self) -> &str {
        &self.request.uid
    }

    /// What is asked for.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// The API group of the object that is carried.
    pub fn group(&self) -> &str {
        &self.request.kind.group
    }

    /// The kind of the object that is carried.
    pub fn kind(&self) -> &str {
        &self.request.kind.kind
    }

    /// Whether the object that is carried is a Namespace.
    pub fn is_namespace(&self) -> bool {
        is_namespace(&self.request.kind)
    }

    /// The namespace; for a Namespace object that namespace itself.
    pub fn namespace(&self) -> Option<&str> {
        let request = &self.request;
        let named = if self.is_namespace() {
            &request.name
        } else {
            &request.namespace
        };
        named.as_deref().filter(|name| !name.is_empty())
    }

    /// Who asks, as an authorizer is told of it.
    pub fn requester(&self) -> SubjectAccessReviewSpec {
        let user = &self.request.user_info;
        SubjectAccessReviewSpec {
            user: user.username.clone(),
            uid: user.uid.clone(),
            groups: user.groups.clone(),
            extra: user.extra.clone(),
            ..SubjectAccessReviewSpec::default()
        }
    }

    /// A number that is equal for requests that are likely to cost the same.
    pub fn lane(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        let mut hasher = DefaultHasher::new();
        (self.group(), self.kind(), self.namespace()).hash(&mut hasher);
        hasher.finish()
    }

    /// The review without its objects: enough to tell whether it is to be judged at all.
    pub fn outline(&self) -> Review {
        let request = &self.request;
        Review {
            origin: Origin::Admission,
            uid: request.uid.clone(),
            operation: self.operation,
            kind_version: GroupVersion {
                group: request.kind.group.clone(),
                version: request.kind.version.clone(),
            },
            kind: request.kind.kind.clone(),
            resource_version: GroupVersion {
                group: request.resource.group.clone(),
                version: request.resource.version.clone(),
            },
            resource: request.resource.resource.clone(),
            subresource: request.sub_resource.clone().filter(|name| !name.is_empty()),
            namespace: self.namespace().map(NamespaceName::from),
            name: request.name.clone().unwrap_or_default(),
            user: User {
                username: request.user_info.username.clone().unwrap_or_default(),
                groups: request.user_info.groups.clone().unwrap_or_default(),
            },
            dry_run: request.dry_run.unwrap_or(false),
            object: None,
            old_object: None,
        }
    }

    /// The review with its objects parsed. An object that the operation does not carry is left out.
    pub fn review(&self) -> Result<Review, Refusal> {
        self.fill(self.outline())
    }

    /// Parses the objects into an [`Envelope::outline`].
    pub fn fill(&self, outline: Review) -> Result<Review, Refusal> {
        let mut review = outline;
        if matches!(self.operation, Operation::Create | Operation::Update) {
            review.object = self.subject("object", self.request.object)?;
        }
        if matches!(self.operation, Operation::Update | Operation::Delete) {
            review.old_object = self.subject("oldObject", self.request.old_object)?;
        }
        // On CREATE the name may be in the object alone.
        if review.name.is_empty() {
            let named = review
                .subject()
                .and_then(|subject| subject.value.pointer("/metadata/name")?.as_str());
            review.name = named.unwrap_or_default().to_owned();
        }
        if review.namespace.is_none() && is_namespace(&self.request.kind) && !review.name.is_empty()
        {
            review.namespace = Some(NamespaceName::from(review.name.as_str()));
        }
        Ok(review)
    }

    fn subject(&self, field: &str, raw: Option<&RawValue>) -> Result<Option<Subject>, Refusal> {
        let Some(raw) = raw else { return Ok(None) };
        let mut text = serde_json::Deserializer::from_str(raw.get());
        let mut value = trim::ASKED.deserialize(&mut text).map_err(|error| {
            // The envelope has been read, so the object is JSON in form; what is left are limits of depth and number.
            let reason = if error.to_string().starts_with("recursion limit") {
                format!("request.{field} is nested more than 127 levels deep, and nothing so deep is read")
            } else {
                format!("request.{field} cannot be read: {}", short(&error.to_string()))
            };
            self.refusal(reason)
        })?;
        self.complete(field, &mut value)?;
        Ok(Some(Subject::new(value)))
    }

    /// Holds an object to what the request says of it, and fills in what only the request says.
    fn complete(&self, field: &str, value: &mut Value) -> Result<(), Refusal> {
        let Some(object) = value.as_object_mut() else {
            return Err(self.refusal(format!("request.{field} is not a JSON object")));
        };
        let kind = &self.request.kind;
        let api_version = if kind.group.is_empty() {
            kind.version.clone()
        } else {
            format!("{}/{}", kind.group, kind.version)
        };
        for (key, said) in [("apiVersion", &api_version), ("kind", &kind.kind)] {
            match object.get(key) {
                None | Some(Value::Null) => {
                    object.insert(key.to_owned(), Value::String(said.clone()));
                }
                Some(Value::String(own)) if own == said => {}
                Some(other) => {
                    let own = quoted(other.as_str().unwrap_or("no string"));
                    return Err(self.refusal(format!(
                        "request.{field} has {key} {own}, and request.kind says {}",
                        quoted(said)
                    )));
                }
            }
        }
        let namespace = self.request.namespace.as_deref().unwrap_or_default();
        if !namespace.is_empty()
            && !is_namespace(kind)
            && let Some(Value::Object(metadata)) = object.get_mut("metadata")
            && metadata.get("namespace").is_none_or(Value::is_null)
        {
            metadata.insert("namespace".to_owned(), Value::String(namespace.to_owned()));
        }
        Ok(())
    }

    fn refusal(&self, reason: String) -> Refusal {
        Refusal::Answerable {
            uid: self.request.uid.clone(),
            version: Version::V1,
            reason,
        }
    }
}

fn is_namespace(kind: &GroupVersionKind) -> bool {
    kind.group.is_empty() && kind.kind == "Namespace"
}

/// Reads a review that does not parse once more: slowly, for what is wrong where, and for whom to answer.
fn explain(text: &str) -> Refusal {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let outcome = serde_path_to_error::deserialize::<_, Outer<'_>>(&mut deserializer);
    let reason = match outcome {
        Err(error) if error.inner().is_data() => {
            let path = error.path().to_string();
            let place = if path == "." {
                "the AdmissionReview".to_owned()
            } else {
                path
            };
            format!(
                "{} is not as an AdmissionReview has it: {}",
                short(&place),
                short(&error.inner().to_string())
            )
        }
        Err(error) => format!(
            "the body is not JSON: {}",
            short(&error.inner().to_string())
        ),
        // What parsed but is followed by more.
        Ok(_) => "the body goes on after the AdmissionReview".to_owned(),
    };
    let Ok(lenient) = serde_json::from_str::<Lenient>(text) else {
        return Refusal::Nobody(reason);
    };
    let uid = lenient.request.and_then(|request| match request.uid {
        Value::String(uid) if !uid.is_empty() && uid.len() <= LONGEST_UID => Some(uid),
        _ => None,
    });
    match uid {
        Some(uid) => {
            let version = lenient
                .api_version
                .as_str()
                .and_then(Version::of)
                .unwrap_or_default();
            Refusal::Answerable {
                uid,
                version,
                reason,
            }
        }
        None => Refusal::Nobody(reason),
    }
}

#[cfg(test)]
mod tests;
