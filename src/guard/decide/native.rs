//! The checks of one guardrail that are written in Rust, each section that is there.

use jiff::Timestamp;

use super::ratchet::opened;
use super::{Context, Raw};
use crate::guard::enforcement::confirmed;
use crate::guard::finding::{Finding, Fix};
use crate::guard::guardrail::{Guardrail, OptOut, Section};
use crate::guard::mutate::{INJECT_ANNOTATION, INJECT_DISABLED};
use crate::guard::review::{Review, Subject};
use crate::guard::{breadth, coverage, hygiene, registry};
use crate::netpol::{FieldPath, Object, Snapshot};

/// The checks that are written in Rust.
pub(super) fn native(
    review: &Review,
    subject: &Subject,
    guardrail: &Guardrail,
    context: &Context<'_>,
    snapshot: &Snapshot,
    now: Timestamp,
    raw: &mut Vec<Raw>,
) {
    if let Some(section) = &guardrail.spec.coverage {
        let finding = coverage::workload(review, subject, section, context, snapshot);
        raw.extend(finding.map(|finding| Raw::deny(Section::Coverage, finding)));
    }
    if let Some(section) = &guardrail.spec.breadth {
        let findings = breadth::policy(review, subject, section, snapshot);
        raw.extend(findings.into_iter().map(|broad| Raw {
            section: Some(Section::Breadth),
            level: broad.level,
            about: opened(&broad, subject),
            finding: broad.finding,
        }));
    }
    if guardrail.spec.hygiene.is_some() {
        let found = hygiene::object(review, subject, guardrail, context.neighbourhood, snapshot);
        raw.extend(
            found
                .into_iter()
                .map(|(level, finding)| Raw::new(Section::Hygiene, level, finding)),
        );
        if let Some(all) = context.neighbourhood {
            let found = hygiene::whole(review, subject, guardrail, context.guardrails, all);
            raw.extend(
                found
                    .into_iter()
                    .map(|finding| Raw::deny(Section::Hygiene, finding)),
            );
        }
    }
    if let Some(section) = &guardrail.spec.enforcement
        && let Some(known) = context.guardrails.confirmations()
    {
        let finding = confirmed::workload(review, subject, section, known, now);
        raw.extend(finding.map(|finding| Raw::deny(Section::Enforcement, finding)));
    }
    if guardrail
        .spec
        .baseline
        .as_ref()
        .is_some_and(|section| section.opt_out == OptOut::Forbid)
    {
        raw.extend(opt_out(review, subject).map(|finding| Raw::deny(Section::Baseline, finding)));
    }
}

fn opt_out(review: &Review, subject: &Subject) -> Option<Finding> {
    let Some(Object::NetworkPolicy(_)) = subject.model() else {
        return None;
    };
    if subject.annotation(INJECT_ANNOTATION)? != INJECT_DISABLED {
        return None;
    }
    let field = FieldPath::of(["metadata", "annotations", INJECT_ANNOTATION]);
    let message = format!(
        "the annotation `{INJECT_ANNOTATION}: {INJECT_DISABLED}` opts out of the baseline's allows"
    );
    let fix = Fix::removing(&field, "remove the annotation");
    Some(Finding::of(
        &registry::OPT_OUT,
        review.object_ref(),
        field,
        message,
        Some(fix),
    ))
}
