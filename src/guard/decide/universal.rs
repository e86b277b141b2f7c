//! What every object is held to, whatever the guardrails say, and what of it is nobody's to refuse.

use jiff::Timestamp;

use crate::guard::finding::{Finding, Fix};
use crate::guard::registry;
use crate::guard::review::{Kind, Operation, Origin, Review, Subject};
use crate::netpol::{FieldPath, Object, ParseError};

/// What every object is held to, whatever the guardrails say.
pub(super) fn universal(review: &Review, subject: &Subject, now: Timestamp) -> Vec<Finding> {
    if review.operation == Operation::Delete {
        return Vec::new();
    }
    let object = review.object_ref();
    match &subject.parsed {
        Kind::Invalid(ParseError { problems }) => problems
            .iter()
            .map(|problem| {
                let message = format!("{}: {}", problem.field, problem.reason);
                Finding::of(
                    &registry::INVALID,
                    object.clone(),
                    problem.field.clone(),
                    message,
                    None,
                )
            })
            .collect(),
        // The API server has dropped, or knows better than we do, what it let through to a webhook.
        Kind::Model(parsed) if review.origin == Origin::Manifest => parsed
            .unknown_fields
            .iter()
            .map(|field| {
                let message = format!("{} has no field `{field}`", object.kind);
                let fix = Fix::removing(field, "correct the name of the field, or remove it");
                Finding::of(
                    &registry::UNKNOWN_FIELD,
                    object.clone(),
                    field.clone(),
                    message,
                    Some(fix),
                )
            })
            .collect(),
        Kind::Exemption(exemption) if exemption.expired(now) => {
            let message = format!("it ended on {}", exemption.spec.expires);
            let field = FieldPath::of(["spec", "expires"]);
            vec![Finding::of(
                &registry::EXPIRED_EXEMPTION,
                object,
                field,
                message,
                None,
            )]
        }
        Kind::Model(_)
        | Kind::Guardrail(_)
        | Kind::Exemption(_)
        | Kind::ReachabilityRule(_)
        | Kind::NodeEnforcement(_)
        | Kind::Other => Vec::new(),
    }
}

pub(super) fn own_kind(review: &Review) -> bool {
    review.kind_version.group == crate::guard::guardrail::GROUP
}

pub(super) fn mirror(subject: &Subject) -> bool {
    matches!(subject.model(), Some(Object::Pod(_)))
        && subject.annotation("kubernetes.io/config.mirror").is_some()
}
