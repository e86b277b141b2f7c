//! The `Exemption` resource (`ringfence.dev/v1alpha1`): which objects are let off which checks, why, by whom and until when.
//!
//! It is bound to its namespace and ends by itself. A finding that is exempted is not lost: it is kept with the
//! name of the exemption, counted and reported.

use std::sync::Arc;

use jiff::Timestamp;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::guard::finding::{Finding, FindingId, ObjectRef};
use crate::guard::status::Status;
use crate::netpol::{FieldPath, NamespaceName, ParseError, Problem};

/// Which objects are let off which checks.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ringfence.dev",
    version = "v1alpha1",
    kind = "Exemption",
    root = "ExemptionManifest",
    plural = "exemptions",
    shortname = "rfe",
    category = "ringfence",
    namespaced,
    printcolumn = r#"{"name":"Expires","type":"string","jsonPath":".spec.expires"}"#,
    printcolumn = r#"{"name":"Owner","type":"string","jsonPath":".spec.owner"}"#,
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    status = "Status",
    doc = "Lets objects of its namespace off some checks until a day: which, why, and who answers for it.",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExemptionSpec {
    /// The guardrail that lets off. Absent: every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guardrail: Option<String>,
    /// The ids of the checks, such as `RF401`.
    #[schemars(length(min = 1, max = 100))]
    pub checks: Vec<FindingId>,
    /// The objects, of the same namespace.
    #[schemars(length(min = 1, max = 100))]
    pub objects: Vec<ExemptObject>,
    /// Why.
    #[schemars(length(min = 1))]
    pub reason: String,
    /// Who answers for it.
    #[schemars(length(min = 1))]
    pub owner: String,
    /// When it ends (RFC 3339).
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub expires: Timestamp,
}

/// An object that is let off. A workload's pods and replica sets have names that begin with its own: give the prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExemptObject {
    /// Its kind.
    #[schemars(length(min = 1))]
    pub kind: String,
    /// Its name; a trailing `*` stands for any ending.
    #[schemars(length(min = 1))]
    pub name: String,
}

/// An exemption that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exemption {
    /// Its namespace, and that of the objects.
    pub namespace: NamespaceName,
    /// Its name.
    pub name: String,
    /// What it says.
    pub spec: ExemptionSpec,
}

/// The exemptions that are known; cheap to clone. Whether the one who wrote an exemption was allowed to is settled before it gets here.
#[derive(Clone, Debug, Default)]
pub struct Exemptions(Arc<[Exemption]>);

// === impl Exemption ===

impl Exemption {
    /// Reads a manifest. Unknown fields are errors, and every problem is named by its field.
    pub fn parse(value: &Value) -> Result<Self, ParseError> {
        let manifest: ExemptionManifest = super::manifest::read(value)?;
        let spec = manifest.spec;
        let at = FieldPath::of(["spec"]);
        let mut problems = Vec::new();
        let mut demand = |holds: bool, field: FieldPath, reason: &str| {
            if !holds {
                problems.push(Problem {
                    field,
                    reason: reason.to_owned(),
                });
            }
        };
        demand(
            !spec.reason.trim().is_empty(),
            at.key("reason"),
            "must say why",
        );
        demand(
            !spec.owner.trim().is_empty(),
            at.key("owner"),
            "must say who answers for it",
        );
        demand(
            !spec.checks.is_empty(),
            at.key("checks"),
            "must name at least one check",
        );
        demand(
            !spec.objects.is_empty(),
            at.key("objects"),
            "must name at least one object",
        );
        for (index, object) in spec.objects.iter().enumerate() {
            let at = at.key("objects").index(index);
            demand(!object.kind.is_empty(), at.key("kind"), "must not be empty");
            demand(!object.name.is_empty(), at.key("name"), "must not be empty");
        }
        if problems.is_empty() {
            Ok(Self {
                namespace: NamespaceName::from(
                    manifest.metadata.namespace.as_deref().unwrap_or("default"),
                ),
                name: manifest.metadata.name.unwrap_or_default(),
                spec,
            })
        } else {
            Err(ParseError { problems })
        }
    }

    /// Whether it has ended.
    pub fn expired(&self, now: Timestamp) -> bool {
        self.spec.expires <= now
    }

    /// Whether it lets a finding of this guardrail off, its expiry aside.
    pub fn speaks_of(&self, finding: &Finding, guardrail: &str) -> bool {
        finding.object.namespace.as_deref() == Some(self.namespace.as_str())
            && self
                .spec
                .guardrail
                .as_deref()
                .is_none_or(|named| named == guardrail)
            && self.spec.checks.contains(&finding.id)
            && self
                .spec
                .objects
                .iter()
                .any(|object| object.names(&finding.object))
    }
}

// === impl ExemptObject ===

impl ExemptObject {
    fn names(&self, object: &ObjectRef) -> bool {
        self.means(&object.kind, &object.name)
    }

    /// Whether an object of this kind and name is meant.
    pub(super) fn means(&self, kind: &str, name: &str) -> bool {
        self.kind == kind
            && match self.name.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => self.name == name,
            }
    }
}

// === impl Exemptions ===

impl Exemptions {
    /// The exemptions that are known.
    pub fn new(exemptions: Vec<Exemption>) -> Self {
        Self(exemptions.into())
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Exemption> {
        self.0.iter()
    }

    /// The exemption that lets a finding of this guardrail off now.
    pub fn covering(
        &self,
        finding: &Finding,
        guardrail: &str,
        now: Timestamp,
    ) -> Option<&Exemption> {
        self.0
            .iter()
            .find(|exemption| !exemption.expired(now) && exemption.speaks_of(finding, guardrail))
    }
}

impl<'a> IntoIterator for &'a Exemptions {
    type Item = &'a Exemption;
    type IntoIter = std::slice::Iter<'a, Exemption>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::finding::Severity;
    use serde_json::json;

    fn manifest() -> Value {
        json!({
            "apiVersion": "ringfence.dev/v1alpha1", "kind": "Exemption",
            "metadata": {"name": "node-exporter", "namespace": "monitoring"},
            "spec": {
                "checks": ["RF401"], "objects": [{"kind": "DaemonSet", "name": "node-exporter*"}],
                "reason": "reads the host's counters", "owner": "platform", "expires": "2027-01-01T00:00:00Z"
            }
        })
    }

    fn finding(id: &str, name: &str) -> Finding {
        Finding {
            id: id.into(),
            severity: Severity::High,
            object: ObjectRef {
                api_version: "apps/v1".into(),
                kind: "DaemonSet".into(),
                namespace: Some("monitoring".into()),
                name: name.into(),
            },
            field: FieldPath::root(),
            message: String::new(),
            why: String::new(),
            fix: None,
        }
    }

    #[test]
    fn it_lets_off_what_it_names_until_it_ends() {
        let exemptions = Exemptions::new(vec![Exemption::parse(&manifest()).unwrap()]);
        let before: Timestamp = "2026-12-31T23:59:59Z".parse().unwrap();
        let after: Timestamp = "2027-01-01T00:00:00Z".parse().unwrap();
        assert!(
            exemptions
                .covering(&finding("RF401", "node-exporter-v2"), "any", before)
                .is_some()
        );
        assert!(
            exemptions
                .covering(&finding("RF401", "node-exporter-v2"), "any", after)
                .is_none()
        );
        assert!(
            exemptions
                .covering(&finding("RF402", "node-exporter"), "any", before)
                .is_none()
        );
        assert!(
            exemptions
                .covering(&finding("RF401", "other"), "any", before)
                .is_none()
        );
    }

    #[test]
    fn an_unknown_or_empty_field_is_named() {
        let mut unknown = manifest();
        unknown["spec"]["reasons"] = json!("x");
        let error = Exemption::parse(&unknown).unwrap_err();
        assert!(error.to_string().contains("reasons"), "{error}");

        let mut empty = manifest();
        empty["spec"]["owner"] = json!(" ");
        assert_eq!(
            Exemption::parse(&empty).unwrap_err().problems[0]
                .field
                .to_string(),
            "spec.owner"
        );

        let mut never = manifest();
        never["spec"].as_object_mut().unwrap().remove("expires");
        assert!(
            Exemption::parse(&never)
                .unwrap_err()
                .to_string()
                .contains("expires")
        );
    }
}
