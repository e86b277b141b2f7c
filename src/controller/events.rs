//! What the controller does that is worth an Event.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ObjectReference;

use crate::guard::finding::ObjectRef;
use crate::k8s::events::{Events, Notice, Weight};
use crate::netpol::{NamespaceName, PolicyName};

/// Tells what becomes of the certificates, or nobody.
#[derive(Clone, Debug)]
pub struct Teller {
    events: Option<Events>,
    about: ObjectReference,
}

/// What becomes of certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Certificates {
    /// An authority was made, or a leaf signed.
    Renewed,
    /// They could not be kept.
    Failed,
    /// One ends soon and has no successor.
    Ending,
}

/// What becomes of the baseline of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Baseline {
    /// What somebody edited or deleted was put back.
    Repaired,
    /// It is not made, or not taken away.
    Held,
}

// === impl Teller ===

impl Teller {
    /// Tells of the certificates of an installation.
    pub(super) fn new(events: Option<Events>, about: &ObjectRef) -> Self {
        let ObjectRef {
            api_version,
            kind,
            namespace,
            name,
        } = about;
        Self {
            events,
            about: reference(api_version, kind, namespace.as_deref(), name),
        }
    }

    /// Tells it of what they are told by. What is `about` the same makes one Event.
    pub(super) fn certificates(&self, what: Certificates, about: &str, note: String) {
        let Some(events) = &self.events else { return };
        let (reason, weight) = match what {
            Certificates::Renewed => ("CertificateRenewed", Weight::Normal),
            Certificates::Failed => ("CertificateFailed", Weight::Warning),
            Certificates::Ending => ("CertificateEnding", Weight::Warning),
        };
        events.tell(Notice {
            regarding: self.about.clone(),
            weight,
            reason,
            action: "Renew",
            note,
            annotations: BTreeMap::new(),
            key: format!("{reason} {about}"),
        });
    }
}

/// Tells of the baseline of a namespace, by a policy in it.
pub(super) fn baseline(
    events: Option<&Events>,
    what: Baseline,
    namespace: &NamespaceName,
    policy: &PolicyName,
    note: String,
) {
    let Some(events) = events else { return };
    let (reason, weight) = match what {
        Baseline::Repaired => ("BaselineRepaired", Weight::Normal),
        Baseline::Held => ("BaselineHeld", Weight::Warning),
    };
    let (namespace, policy) = (namespace.as_str(), policy.as_str());
    events.tell(Notice {
        regarding: reference(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            Some(namespace),
            policy,
        ),
        weight,
        reason,
        action: "Keep",
        key: format!("{reason} {namespace} {policy} {note}"),
        note,
        annotations: BTreeMap::new(),
    });
}

fn reference(
    api_version: &str,
    kind: &str,
    namespace: Option<&str>,
    name: &str,
) -> ObjectReference {
    ObjectReference {
        api_version: Some(api_version.to_owned()),
        kind: Some(kind.to_owned()),
        namespace: namespace.map(str::to_owned),
        name: Some(name.to_owned()),
        ..ObjectReference::default()
    }
}
