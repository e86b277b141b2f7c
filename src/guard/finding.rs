//! A finding: one thing that is wrong with one object, as data. Text is made of it elsewhere.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::guard::registry::Check;
use crate::netpol::FieldPath;

/// The stable id of a check: `RF…` for those that come with Ringfence, anything else for a user's own policies.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(transparent)]
pub struct FindingId(String);

/// How much a finding matters, from least to most.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// A convention is missed; nothing is open because of it.
    Low,
    /// Something will be missed or will break.
    Medium,
    /// Traffic can pass that should not, or a control does not hold.
    High,
    /// The workload or the network is outside of any policy.
    Critical,
}

/// The object that a finding speaks of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// `apiVersion` of the object.
    pub api_version: String,
    /// Kind of the object.
    pub kind: String,
    /// Namespace, for the kinds that have one.
    pub namespace: Option<String>,
    /// Name; the `generateName` with a trailing `*` where the name is not known yet.
    pub name: String,
}

/// The smallest change that would pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fix {
    /// The change in words, as an order: "add the label `app`".
    pub summary: String,
    /// The change of the object itself, as JSON Patch (RFC 6902), where it can be given without guessing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub patch: Option<json_patch::Patch>,
    /// Another manifest to apply, where the object itself is right and something beside it is missing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub manifest: Option<Value>,
}

/// One thing that is wrong with one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which check found it.
    pub id: FindingId,
    /// How much it matters.
    pub severity: Severity,
    /// The object it speaks of.
    pub object: ObjectRef,
    /// The exact field. A field that should be there and is not is named as if it were.
    pub field: FieldPath,
    /// What is wrong, in one line.
    pub message: String,
    /// Why it matters, in one line.
    pub why: String,
    /// The smallest change that would pass.
    pub fix: Option<Fix>,
}

// === impl FindingId ===

impl FindingId {
    /// An id from its text.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The text of the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for FindingId {
    fn from(id: &str) -> Self {
        Self(id.to_owned())
    }
}

impl fmt::Display for FindingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Severity ===

impl Severity {
    /// The name in lower case, as it stands in reports and in the metadata of policies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is not the name of a severity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown severity `{0}`: use info, low, medium, high or critical")]
pub struct UnknownSeverity(pub String);

impl std::str::FromStr for Severity {
    type Err = UnknownSeverity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "info" => Ok(Self::Info),
            "low" => Ok(Self::Low),
            "medium" => Ok(Self::Medium),
            "high" => Ok(Self::High),
            "critical" => Ok(Self::Critical),
            other => Err(UnknownSeverity(other.to_owned())),
        }
    }
}

// === impl ObjectRef ===

impl ObjectRef {
    /// Reads what names an object from the object itself; absent parts are empty.
    pub fn of(object: &Value) -> Self {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let name = match text("/metadata/name") {
            Some(name) if !name.is_empty() => name.to_owned(),
            _ => text("/metadata/generateName")
                .map_or_else(String::new, |prefix| format!("{prefix}*")),
        };
        Self {
            api_version: text("/apiVersion").unwrap_or_default().to_owned(),
            kind: text("/kind").unwrap_or_default().to_owned(),
            namespace: text("/metadata/namespace").map(str::to_owned),
            name,
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

// === impl Finding ===

impl Finding {
    /// What a check that is written in Rust found; severity and reason are the check's own.
    pub fn of(
        check: &Check,
        object: ObjectRef,
        field: FieldPath,
        message: String,
        fix: Option<Fix>,
    ) -> Self {
        Self {
            id: FindingId::from(check.id),
            severity: check.severity,
            object,
            field,
            message,
            why: check.why.to_owned(),
            fix,
        }
    }
}

// === impl Fix ===

impl Fix {
    /// The removal of one field.
    pub fn removing(field: &FieldPath, summary: &str) -> Self {
        let path = jsonptr(field);
        let remove = path
            .map(|path| json_patch::PatchOperation::Remove(json_patch::RemoveOperation { path }));
        Self {
            summary: summary.to_owned(),
            patch: remove.map(|remove| json_patch::Patch(vec![remove])),
            manifest: None,
        }
    }

    /// A fix that can only be said in words.
    pub fn words(summary: impl Into<String>) -> Self {
        Self {
            summary: summary.into(),
            patch: None,
            manifest: None,
        }
    }
}

fn jsonptr(field: &FieldPath) -> Option<json_patch::jsonptr::PointerBuf> {
    json_patch::jsonptr::PointerBuf::parse(field.to_pointer()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_object_without_a_name_yet_is_named_by_its_prefix() {
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "web-", "namespace": "shop"}});
        assert_eq!(ObjectRef::of(&object).to_string(), "Pod shop/web-*");
    }

    #[test]
    fn severities_read_what_they_print() {
        for severity in [
            Severity::Info,
            Severity::Low,
            Severity::Medium,
            Severity::High,
            Severity::Critical,
        ] {
            assert_eq!(severity.as_str().parse(), Ok(severity));
        }
        assert_eq!(
            "urgent".parse::<Severity>(),
            Err(UnknownSeverity("urgent".into()))
        );
    }
}
