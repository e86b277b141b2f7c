//! Golden answers, and the types of `kube` as a second reader of them.

use json_patch::Patch;
use kube::core::DynamicObject;
use kube::core::admission::AdmissionReview;
use serde_json::{Value, json};

use super::*;
use crate::guard::baseline::Allow;
use crate::guard::decide::Skip;
use crate::guard::engine::Failure;
use crate::guard::engine::Level;
use crate::guard::finding::{Finding, FindingId, Fix, Severity};
use crate::guard::guardrail::Section;
use crate::guard::mutate::{Injection, Reason};
use crate::netpol::FieldPath;

const UID: &str = "705ab4f5-6393-11e8-b7cc-42010a800002";

fn object() -> ObjectRef {
    ObjectRef {
        api_version: "apps/v1".into(),
        kind: "Deployment".into(),
        namespace: Some("shop".into()),
        name: "web".into(),
    }
}

fn host_network(mode: Mode) -> Judged {
    Judged {
        finding: Finding {
            id: FindingId::from("RF401"),
            severity: Severity::Critical,
            object: object(),
            field: FieldPath::of(["spec", "template", "spec", "hostNetwork"]),
            message: "the pod uses the node's network".into(),
            why: "no policy can hold traffic of the node".into(),
            fix: Some(Fix::words("remove spec.template.spec.hostNetwork")),
        },
        section: Some(Section::Bypasses),
        level: Level::Deny,
        mode,
        guardrails: vec!["shop".into()],
        exemption: None,
    }
}

fn label(mode: Mode, key: &str) -> Judged {
    Judged {
        finding: Finding {
            id: FindingId::from("RF101"),
            severity: Severity::Low,
            object: object(),
            field: FieldPath::of(["spec", "template", "metadata", "labels", key]),
            message: format!("the label `{key}` is missing"),
            why: "policies select by it".into(),
            fix: Some(Fix::words(format!("add the label `{key}`"))),
        },
        section: Some(Section::Labels),
        level: Level::Deny,
        mode,
        guardrails: vec!["shop".into(), "all".into()],
        exemption: None,
    }
}

fn decision(judged: Vec<Judged>) -> Decision {
    Decision {
        judged,
        strictest: Some(Mode::Enforce),
        ..Decision::default()
    }
}

/// The answer as JSON for people, after `kube` has read it as well.
fn golden(answer: &Answer) -> String {
    let json = answer.to_json();
    let value: Value = serde_json::from_slice(&json).unwrap();
    // `kube` asks for a status, which the API makes optional.
    let mut complete = value.clone();
    let response = complete["response"].as_object_mut().unwrap();
    response.entry("status").or_insert_with(|| json!({}));
    let review: AdmissionReview<DynamicObject> = serde_json::from_value(complete).unwrap();
    let response = review.response.unwrap();
    assert_eq!(response.uid, UID);
    assert_eq!(Value::from(response.allowed), value["response"]["allowed"]);
    let mut text = serde_json::to_string_pretty(&value).unwrap();
    if let Some(message) = value
        .pointer("/response/status/message")
        .and_then(Value::as_str)
    {
        text.push_str("\n--- as kubectl prints it\n");
        text.push_str(message);
    }
    text
}

#[test]
fn a_refusal_says_what_where_why_and_the_smallest_fix() {
    let decision = decision(vec![
        host_network(Mode::Enforce),
        label(Mode::Enforce, "app.kubernetes.io/name"),
        label(Mode::Warn, "team"),
        label(Mode::Audit, "tier"),
    ]);
    insta::assert_snapshot!(golden(&Answer::judged(UID, &object(), &decision)));
}

#[test]
fn a_refusal_whose_fix_is_another_manifest_has_that_manifest() {
    let mut uncovered = host_network(Mode::Enforce);
    uncovered.finding.fix = Some(Fix {
        summary: "apply a default-deny NetworkPolicy first".into(),
        patch: None,
        manifest: Some(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "default-deny", "namespace": "shop"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
        })),
    });
    insta::assert_snapshot!(golden(&Answer::judged(
        UID,
        &object(),
        &decision(vec![uncovered])
    )));
}

#[test]
fn what_passes_in_audit_is_silent_to_people_and_told_to_the_audit_log() {
    let decision = Decision {
        strictest: Some(Mode::Audit),
        ..decision(vec![host_network(Mode::Audit)])
    };
    let answer = Answer::judged(UID, &object(), &decision);
    assert_eq!(answer.verdict(), Verdict::WouldDeny);
    insta::assert_snapshot!(golden(&answer));
}

#[test]
fn what_is_only_recommended_would_never_be_denied() {
    let mut recommended = label(Mode::Warn, "team");
    recommended.level = Level::Warn;
    let answer = Answer::judged(UID, &object(), &decision(vec![recommended]));
    assert_eq!(answer.verdict(), Verdict::Allowed);
    assert!(!answer.audit.contains_key("would-deny") && !answer.warnings.is_empty());
}

#[test]
fn what_passes_with_a_warning_and_an_exemption() {
    let mut exempt = host_network(Mode::Enforce);
    exempt.exemption = Some("shop/node-exporter".into());
    let answer = Answer::judged(
        UID,
        &object(),
        &decision(vec![label(Mode::Warn, "team"), exempt]),
    );
    insta::assert_snapshot!(golden(&answer));
}

#[test]
fn what_is_not_judged_says_why_not() {
    let decision = Decision {
        skipped: Some(Skip::NoObject),
        ..Decision::default()
    };
    insta::assert_snapshot!(golden(&Answer::judged(UID, &object(), &decision)));
}

#[test]
fn a_review_that_makes_no_sense_is_refused_in_the_version_it_came_in() {
    let answer = Answer::refused(UID, Version::V1Beta1, "it is too old");
    insta::assert_snapshot!(golden(&answer));
}

#[test]
fn a_failure_is_told_in_either_direction() {
    for allowed in [true, false] {
        let answer = Answer::failed(
            UID,
            &Failed {
                allowed,
                reason: "it took too long".into(),
            },
        );
        assert_eq!(answer.verdict() == Verdict::Denied, !allowed);
        insta::assert_snapshot!(format!("failed_allowed_{allowed}"), golden(&answer));
    }
}

#[test]
fn many_findings_are_counted_and_the_answer_stays_short() {
    let judged = (0..200)
        .map(|number| label(Mode::Enforce, &format!("key-{number}")))
        .collect();
    let answer = Answer::judged(UID, &object(), &decision(judged));
    let json = answer.to_json();
    assert!(json.len() < 16 * 1024, "{}", json.len());
    let message = answer.status.unwrap().message;
    assert!(
        message.starts_with("Deployment shop/web breaks 200 rules:"),
        "{message}"
    );
    assert!(message.contains("and 190 more"), "{message}");
}

#[test]
fn hostile_words_in_findings_cannot_forge_lines() {
    let mut judged = host_network(Mode::Enforce);
    judged.finding.message = format!("x\n\u{1b}[2Jallowed: true{}", "y".repeat(10_000));
    let answer = Answer::judged(UID, &object(), &decision(vec![judged]));
    let message = &answer.status.as_ref().unwrap().message;
    assert!(!message.contains('\u{1b}') && !message.contains("\nallowed") && message.len() < 2_000);
}

fn injection(mode: Mode, way: Way) -> Injection {
    Injection {
        guardrail: "shop".into(),
        allows: vec![Allow::Dns, Allow::Monitoring],
        mode,
        way,
        beside: Vec::new(),
    }
}

#[test]
fn a_change_is_one_base64_string_that_decodes_to_the_patch() {
    let patch: Patch = serde_json::from_value(json!([
        {"op": "add", "path": "/metadata/annotations", "value": {"ringfence.dev/injected": "dns"}},
        {"op": "add", "path": "/metadata/labels/app.kubernetes.io~1name", "value": "web"}
    ]))
    .unwrap();
    let mutated = Mutated {
        patch: patch.clone(),
        injections: vec![injection(Mode::Enforce, Way::Appended)],
        ..Mutated::default()
    };
    let answer = Answer::mutated(UID, &mutated);
    assert_eq!(answer.verdict(), Verdict::Patched);
    let value: Value = serde_json::from_slice(&answer.to_json()).unwrap();
    let decoded = STANDARD
        .decode(value["response"]["patch"].as_str().unwrap())
        .unwrap();
    assert_eq!(serde_json::from_slice::<Patch>(&decoded).unwrap(), patch);
    insta::assert_snapshot!(golden_without_kube(&answer));
}

/// `kube` reads a patch as a list of numbers, which the API does not; the rest it reads alike.
fn golden_without_kube(answer: &Answer) -> String {
    let value: Value = serde_json::from_slice(&answer.to_json()).unwrap();
    serde_json::to_string_pretty(&value).unwrap()
}

#[test]
fn without_a_change_there_is_neither_patch_nor_patch_type() {
    insta::assert_snapshot!(golden(&Answer::mutated(UID, &Mutated::default())));
}

#[test]
fn what_a_policy_lacks_and_why_it_is_left_alone_is_told() {
    let mutated = Mutated {
        injections: vec![
            injection(Mode::Audit, Way::WouldAppend(Mode::Audit)),
            injection(Mode::Warn, Way::WouldAppend(Mode::Warn)),
            injection(Mode::Audit, Way::Beside(Reason::Asked)),
            injection(Mode::Enforce, Way::Beside(Reason::Tracked("Argo CD"))),
            injection(Mode::Enforce, Way::OptedOut),
        ],
        policies: vec![FindingId::from("ACME7")],
        would_change: vec![
            (FindingId::from("ACME8"), Mode::Warn),
            (FindingId::from("ACME9"), Mode::Audit),
        ],
        failures: vec![Failure {
            policy: "ACME10".into(),
            section: Section::Policies,
            reason: "too slow".into(),
        }],
        ..Mutated::default()
    };
    insta::assert_snapshot!(golden(&Answer::mutated(UID, &mutated)));
}

#[test]
fn audit_annotations_have_short_one_line_values() {
    let judged = (0..200).map(|number| {
        let mut judged = label(Mode::Audit, "x");
        judged.finding.id = FindingId::new(format!("ACME{number}\n"));
        judged
    });
    let answer = Answer::judged(UID, &object(), &decision(judged.collect()));
    for (key, value) in &answer.audit {
        assert!(
            key.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'),
            "{key}"
        );
        assert!(
            value.chars().count() <= 256 && !value.contains('\n'),
            "{value}"
        );
    }
}
