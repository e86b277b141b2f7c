//! What goes back: the `AdmissionReview` with a response, made of a decision or a change of `guard`.
//!
//! `/validate` answers never carry a patch and `/mutate` answers never refuse, by construction: each has a function of its
//! own. The patch is base64 in one string, which is what the API's JSON wants of bytes.
//!
//! Source: k8s.io/api/admission/v1, types.go; k8s.io/apimachinery/pkg/apis/meta/v1, Status.

mod message;
mod warnings;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::guard::decide::{Decision, Judged};
use crate::guard::finding::{FindingId, ObjectRef};
use crate::guard::mode::Mode;
use crate::guard::mutate::gate::GATE;
use crate::guard::mutate::{Mutated, Way};

use super::review::Version;

pub use warnings::Warnings;

/// An answer to a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    version: Version,
    uid: String,
    allowed: bool,
    status: Option<Status>,
    patch: Option<String>,
    warnings: Vec<String>,
    audit: BTreeMap<&'static str, String>,
}

/// What an answer came to, for logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It passes.
    Allowed,
    /// It passes, and would not in mode `Enforce`.
    WouldDeny,
    /// It is refused.
    Denied,
    /// It is changed.
    Patched,
}

/// Why a request could not be judged, and what follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Whether it passes all the same.
    pub allowed: bool,
    /// Why it was not judged, in one sentence.
    pub reason: String,
}

/// The part of `metav1.Status` that a refusal uses.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Status {
    #[serde(rename = "status")]
    outcome: &'static str,
    message: String,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
    code: u16,
}

/// `metav1.StatusDetails`: the findings for programs.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Details {
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    group: String,
    kind: String,
    causes: Vec<Cause>,
}

/// `metav1.StatusCause`.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Cause {
    reason: String,
    message: String,
    field: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: Response<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    warnings: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    audit_annotations: &'a BTreeMap<&'static str, String>,
}

/// More causes than anybody reads would only make the answer long.
const MOST_CAUSES: usize = 32;
/// The longest value of an audit annotation.
const LONGEST_ANNOTATION: usize = 256;

// === impl Verdict ===

impl Verdict {
    /// One word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::WouldDeny => "would-deny",
            Self::Denied => "denied",
            Self::Patched => "patched",
        }
    }
}

// === impl Answer ===

impl Answer {
    /// The answer of `/validate`: it judges and never patches.
    pub fn judged(uid: &str, object: &ObjectRef, decision: &Decision) -> Self {
        let mut answer = Self::allowed(uid);
        if let Some(skip) = decision.skipped {
            answer.note("decision", format!("skipped: {}", word(&skip)));
            return answer;
        }
        answer.note(
            "decision",
            if decision.allowed() {
                "allowed"
            } else {
                "denied"
            },
        );
        if let Some(mode) = decision.strictest {
            answer.note("mode", mode.as_str());
        }
        answer.note_list(
            "policies",
            decision
                .judged
                .iter()
                .filter(|j| j.exemption.is_none())
                .map(id),
        );
        answer.note_list("would-deny", decision.would_deny().map(id));
        answer.note_list(
            "exemptions",
            decision
                .exempted()
                .filter_map(|judged| judged.exemption.as_deref()),
        );

        let mut warnings = Warnings::default();
        for judged in decision.in_force(Mode::Warn) {
            warnings.finding(&judged.finding);
        }
        answer.warnings = warnings.into_lines();

        let denied: Vec<&Judged> = decision.in_force(Mode::Enforce).collect();
        if !denied.is_empty() {
            answer.allowed = false;
            answer.status = Some(Status {
                outcome: "Failure",
                message: message::refusal(object, &denied),
                reason: "Forbidden",
                details: Some(details(object, &denied)),
                code: 403,
            });
        }
        answer
    }

    /// The answer of `/mutate`: it patches and never judges.
    pub fn mutated(uid: &str, mutated: &Mutated) -> Self {
        let mut answer = Self::allowed(uid);
        // A list of operations always has a JSON form; without one nothing would be patched, which is safe.
        if !mutated.patch.0.is_empty() {
            answer.patch = serde_json::to_vec(&mutated.patch)
                .ok()
                .map(|json| STANDARD.encode(json));
        }
        answer.note(
            "decision",
            if answer.patch.is_some() {
                "patched"
            } else {
                "unchanged"
            },
        );
        let injected = |wanted: fn(&Way) -> bool| {
            mutated
                .injections
                .iter()
                .filter(move |injection| wanted(&injection.way))
                .flat_map(|injection| injection.allows.iter().map(|allow| allow.as_str()))
        };
        answer.note_list("injected", injected(|way| matches!(way, Way::Appended)));
        answer.note_list(
            "would-inject",
            injected(|way| matches!(way, Way::WouldAppend(_))),
        );
        answer.note_list("left-beside", injected(|way| matches!(way, Way::Beside(_))));
        answer.note_list("opted-out", injected(|way| matches!(way, Way::OptedOut)));
        if mutated.gated {
            answer.note("gated", GATE);
        }
        answer.note_list("policies", mutated.policies.iter().map(FindingId::as_str));
        answer.note_list(
            "would-change",
            mutated.would_change.iter().map(|(id, _)| id.as_str()),
        );
        answer.note_list(
            "failed",
            mutated
                .failures
                .iter()
                .map(|failure| failure.policy.as_str()),
        );

        let mut warnings = Warnings::default();
        for injection in &mutated.injections {
            if let Some(line) = message::injection(injection) {
                warnings.line(&line);
            }
        }
        for (id, mode) in &mutated.would_change {
            if *mode == Mode::Warn {
                warnings.line(&format!("{id} would change this object in mode Enforce"));
            }
        }
        answer.warnings = warnings.into_lines();
        answer
    }

    /// The answer to a review that makes no sense: refused, because whoever sent it must hear of it.
    pub fn refused(uid: &str, version: Version, reason: &str) -> Self {
        let mut answer = Self::allowed(uid);
        answer.version = version;
        answer.allowed = false;
        answer.note("decision", "invalid");
        answer.status = Some(Status {
            outcome: "Failure",
            message: format!("the AdmissionReview cannot be judged: {reason}"),
            reason: "BadRequest",
            details: None,
            code: 400,
        });
        answer
    }

    /// The answer when no judgement could be made in time or at all.
    pub fn failed(uid: &str, failed: &Failed) -> Self {
        let mut answer = Self::allowed(uid);
        answer.allowed = failed.allowed;
        answer.note(
            "decision",
            if failed.allowed {
                "failed: allowed"
            } else {
                "failed: denied"
            },
        );
        answer.note("reason", failed.reason.clone());
        if failed.allowed {
            let mut warnings = Warnings::default();
            warnings.line(&format!(
                "ringfence did not judge this request: {}",
                failed.reason
            ));
            answer.warnings = warnings.into_lines();
        } else {
            answer.status = Some(Status {
                outcome: "Failure",
                message: format!(
                    "ringfence could not judge this request, so it is refused: {}. Try again.",
                    failed.reason
                ),
                reason: "ServiceUnavailable",
                details: None,
                code: 503,
            });
        }
        answer
    }

    /// The answer to what the one who asks may not do.
    pub fn forbidden(uid: &str, reason: &str) -> Self {
        let mut answer = Self::allowed(uid);
        answer.allowed = false;
        answer.note("decision", "denied");
        answer.note("reason", reason);
        answer.status = Some(Status {
            outcome: "Failure",
            message: reason.to_owned(),
            reason: "Forbidden",
            details: None,
            code: 403,
        });
        answer
    }

    /// Whether anything was demanded of the object.
    pub(super) fn is_governed(&self) -> bool {
        self.audit.contains_key("mode")
    }

    /// Says something of the state that it was judged by, beside all else.
    pub(super) fn remark(&mut self, remark: &str) {
        let mut warnings = Warnings::default();
        warnings.line(&format!("ringfence: {remark}"));
        self.warnings.extend(warnings.into_lines());
        self.note("state", remark);
    }

    /// What it came to.
    pub fn verdict(&self) -> Verdict {
        match (self.allowed, &self.patch) {
            (false, _) => Verdict::Denied,
            (true, Some(_)) => Verdict::Patched,
            (true, None) if self.audit.contains_key("would-deny") => Verdict::WouldDeny,
            (true, None) => Verdict::Allowed,
        }
    }

    /// The ids of the checks that found something, and the strictest mode, for the log.
    pub fn rules_and_mode(&self) -> (&str, &str) {
        let noted = |key| self.audit.get(key).map(String::as_str).unwrap_or_default();
        (noted("policies"), noted("mode"))
    }

    /// The whole `AdmissionReview` as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        let review = Review {
            api_version: self.version.as_str(),
            kind: "AdmissionReview",
            response: Response {
                uid: &self.uid,
                allowed: self.allowed,
                status: self.status.as_ref(),
                patch: self.patch.as_deref(),
                patch_type: self.patch.as_ref().map(|_| "JSONPatch"),
                warnings: &self.warnings,
                audit_annotations: &self.audit,
            },
        };
        // Strings, numbers and maps with string keys: nothing in it can fail to be written.
        serde_json::to_vec(&review).unwrap_or_default()
    }

    fn allowed(uid: &str) -> Self {
        Self {
            version: Version::V1,
            uid: uid.to_owned(),
            allowed: true,
            status: None,
            patch: None,
            warnings: Vec::new(),
            audit: BTreeMap::new(),
        }
    }

    fn note(&mut self, key: &'static str, value: impl Into<String>) {
        let value: String = value.into();
        self.audit
            .insert(key, warnings::one_line(&value, LONGEST_ANNOTATION));
    }

    /// Notes a list without repetition, or nothing when it is empty.
    fn note_list<'a>(&mut self, key: &'static str, values: impl Iterator<Item = &'a str>) {
        let mut known: Vec<&str> = Vec::new();
        for value in values {
            if !known.contains(&value) {
                known.push(value);
            }
        }
        if !known.is_empty() {
            self.note(key, known.join(","));
        }
    }
}

fn id(judged: &Judged) -> &str {
    judged.finding.id.as_str()
}

/// The name that a unit variant has in JSON.
fn word(value: &impl Serialize) -> String {
    serde_json::to_value(value)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

fn details(object: &ObjectRef, denied: &[&Judged]) -> Details {
    Details {
        name: object.name.clone(),
        group: object
            .api_version
            .split_once('/')
            .map(|(group, _)| group.to_owned())
            .unwrap_or_default(),
        kind: object.kind.clone(),
        causes: denied
            .iter()
            .take(MOST_CAUSES)
            .map(|judged| Cause {
                reason: judged.finding.id.to_string(),
                message: judged.finding.message.clone(),
                field: judged.finding.field.to_string(),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests;
