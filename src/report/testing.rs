//! One report with something of everything, for the tests of the formats.

use std::time::Duration;

use serde_json::json;

use crate::guard::decide::Judged;
use crate::guard::engine::Level;
use crate::guard::finding::{Finding, FindingId, Fix, ObjectRef, Severity};
use crate::guard::mode::Mode;
use crate::guard::registry::{self, Check};
use crate::netpol::FieldPath;

use super::{Checked, Excerpt, Located, Location, Problem, Report};

pub(super) fn report() -> Report {
    let policy = ObjectRef {
        api_version: "networking.k8s.io/v1".to_owned(),
        kind: "NetworkPolicy".to_owned(),
        namespace: Some("shop".to_owned()),
        name: "db".to_owned(),
    };
    let pod = ObjectRef {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        namespace: None,
        name: "web-*".to_owned(),
    };
    let clean = ObjectRef {
        kind: "Service".to_owned(),
        ..pod.clone()
    };
    let world = located(
        finding(
            &policy,
            "RF302",
            Severity::High,
            "spec.egress[0].to[0].ipBlock.cidr",
            "0.0.0.0/0 is the world",
        ),
        Mode::Enforce,
        location(
            "deploy/db policy.yaml",
            17,
            23,
            "              cidr:   0.0.0.0/0   # everything",
            9,
        ),
    );
    let mut label = located(
        finding(
            &pod,
            "RF101",
            Severity::Low,
            r#"metadata.labels["app.kubernetes.io/name"]"#,
            "the label is missing",
        ),
        Mode::Warn,
        location("deploy/pod.yaml", 5, 3, "  labels: {}", 6),
    );
    label.judged.finding.fix = Some(Fix {
        summary: "add the label `app.kubernetes.io/name`".to_owned(),
        patch: serde_json::from_value(
            json!([{"op": "add", "path": "/metadata/labels/x", "value": "web"}]),
        )
        .ok(),
        manifest: None,
    });
    let mut own = located(
        finding(
            &pod,
            "ACME-1",
            Severity::Medium,
            "",
            "evil \u{1b}[2J\nname: 100% \u{202e}fdp",
        ),
        Mode::Audit,
        location("deploy/pod.yaml", 2, 1, "kind: Pod", 9),
    );
    own.judged.guardrails = vec!["a".to_owned(), "b".to_owned()];
    let mut exempted = located(
        finding(
            &pod,
            "RF401",
            Severity::Critical,
            "spec.hostNetwork",
            "hostNetwork is true",
        ),
        Mode::Enforce,
        location("deploy/pod.yaml", 9, 16, "  hostNetwork: true", 4),
    );
    exempted.judged.exemption = Some("shop/node-exporter".to_owned());

    Report {
        objects: vec![
            checked(policy, "deploy/db policy.yaml", vec![world]),
            checked(pod, "deploy/pod.yaml", vec![exempted, own, label]),
            checked(clean, "deploy/pod.yaml", vec![]),
        ],
        problems: problems(),
        place: super::Place::Files,
        files: 3,
        passed_over: 1,
        cuts: None,
        elapsed: Some(Duration::from_millis(1234)),
        checks: registry::CHECKS.iter().map(Check::info).collect(),
    }
}

fn problems() -> Vec<Problem> {
    vec![
        Problem {
            id: FindingId::from(registry::UNREADABLE.id),
            severity: registry::UNREADABLE.severity,
            location: location("<stdin>", 3, 5, "a: [{{ .x }}", 1),
            message: "`[` is never closed".to_owned(),
            help: Some("render it first".to_owned()),
            fatal: true,
        },
        Problem {
            id: FindingId::from(registry::DUPLICATE_KEY.id),
            severity: registry::DUPLICATE_KEY.severity,
            location: Location::of_file("deploy/pod.yaml"),
            message: "`spec.a` stands twice".to_owned(),
            help: None,
            fatal: false,
        },
    ]
}

fn checked(object: ObjectRef, file: &str, findings: Vec<Located>) -> Checked {
    Checked {
        object,
        location: Location::of_file(file),
        findings,
    }
}

fn located(finding: Finding, mode: Mode, location: Location) -> Located {
    let guardrails = vec!["default".to_owned()];
    Located {
        judged: Judged {
            finding,
            section: None,
            level: Level::Deny,
            mode,
            guardrails,
            exemption: None,
        },
        location,
    }
}

fn finding(
    object: &ObjectRef,
    id: &str,
    severity: Severity,
    field: &str,
    message: &str,
) -> Finding {
    Finding {
        id: FindingId::from(id),
        severity,
        object: object.clone(),
        field: field.parse::<FieldPath>().expect("a field path"),
        message: message.to_owned(),
        why: format!("the reason of {id}"),
        fix: None,
    }
}

fn location(file: &str, line: usize, column: usize, text: &str, length: usize) -> Location {
    let end_column = column + length;
    let excerpt = Some(Excerpt::new(text, column, end_column));
    Location {
        file: file.into(),
        line,
        column,
        end_column,
        excerpt,
    }
}
