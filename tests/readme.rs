//! The README is true: its commands run, and its tables have every finding and every field of the Guardrail.

#![allow(clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Output};

use kube::CustomResourceExt as _;
use ringfence::guard::guardrail::GuardrailManifest;
use ringfence::guard::reachability::ReachabilityRuleManifest;
use serde_json::{Value, json};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    std::fs::read_to_string(root().join("README.md")).expect("README.md")
}

fn ringfence(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .args(args)
        .current_dir(root())
        .output()
        .expect("the program starts")
}

/// The commands of the code blocks that run `ringfence` on the repository and come to an end.
fn commands(readme: &str) -> Vec<String> {
    readme
        .replace("\\\n", " ")
        .lines()
        .filter_map(|line| line.strip_prefix("    ringfence "))
        .map(|line| {
            line.split(" > ")
                .next()
                .unwrap_or(line)
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        })
        // These serve for ever, or need a cluster.
        .filter(|command| {
            let first = command.split(' ').next().unwrap_or_default();
            ![
                "audit",
                "controller",
                "doctor",
                "promote",
                "staged",
                "status",
                "webhook",
            ]
            .contains(&first)
        })
        .collect()
}

/// The cells of the rows of tables, without the emphasis.
fn rows(text: &str) -> Vec<Vec<String>> {
    text.lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| ---"))
        .map(|line| {
            line.trim_matches('|')
                .split(" | ")
                .map(|cell| cell.replace("**", "").trim().to_owned())
                .collect()
        })
        .collect()
}

fn section<'t>(text: &'t str, title: &str) -> &'t str {
    let (_, rest) = text
        .split_once(&format!("\n### {title}\n"))
        .expect("the section is there");
    rest.split("\n## ")
        .next()
        .unwrap_or(rest)
        .split("\n### ")
        .next()
        .unwrap_or(rest)
}

/// The fields of a schema, down to the selectors, which are Kubernetes' own.
fn fields(schema: &Value, at: &str, found: &mut BTreeSet<String>) {
    let Some(properties) = schema["properties"].as_object() else {
        return;
    };
    if properties.contains_key("matchExpressions") {
        return;
    }
    for (name, below) in properties {
        let field = if at.is_empty() {
            name.clone()
        } else {
            format!("{at}.{name}")
        };
        fields(below, &field, found);
        fields(&below["items"], &format!("{field}[]"), found);
        found.insert(field);
    }
}

#[test]
fn every_command_that_is_shown_runs() {
    let commands = commands(&readme());
    assert!(commands.len() >= 5, "{commands:?}");
    for command in commands {
        let args: Vec<&str> = command.split(' ').collect();
        let output = ringfence(&args);
        assert!(
            matches!(output.status.code(), Some(0 | 1)),
            "ringfence {command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn the_finding_that_is_shown_is_what_is_printed() {
    let readme = readme();
    let shown = section(&readme, "Read a finding")
        .split("\n\n")
        .find(|block| block.trim_start_matches('\n').starts_with("    error"));
    let shown: Vec<&str> = shown
        .expect("a finding is shown")
        .trim_start_matches('\n')
        .lines()
        .map(|line| line.trim_start_matches("    "))
        .collect();
    let output = ringfence(&[
        "check",
        "deploy/examples/shop",
        "deploy/examples/violations/world-by-halves.yaml",
    ]);
    let printed = String::from_utf8(output.stdout).expect("UTF-8");
    let printed: Vec<&str> = printed.lines().take(shown.len()).collect();
    let plain = |lines: &[&str]| {
        lines
            .iter()
            .map(|line| line.trim().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(plain(&shown), plain(&printed));
}

#[test]
fn the_table_of_findings_is_that_of_explain() {
    let output = ringfence(&["explain"]);
    let printed = String::from_utf8(output.stdout).expect("UTF-8");
    let known: Vec<Vec<String>> = printed
        .lines()
        .map(|line| {
            line.splitn(3, ' ')
                .map(|cell| cell.trim().to_owned())
                .collect::<Vec<_>>()
        })
        .map(|line| {
            line.join(" ")
                .split_whitespace()
                .map(str::to_owned)
                .collect()
        })
        .collect();
    let shown: Vec<Vec<String>> = rows(section(&readme(), "Findings"))
        .into_iter()
        .skip(1)
        .map(|row| {
            format!("{} {} {}", row[0], row[1], row[3])
                .split_whitespace()
                .map(str::to_owned)
                .collect()
        })
        .collect();
    assert_eq!(shown, known);
}

#[test]
fn the_table_of_the_guardrail_has_every_field_and_no_other() {
    check_table("Guardrail", &json!(GuardrailManifest::crd()));
}

#[test]
fn the_table_of_the_reachability_rule_has_every_field_and_no_other() {
    check_table("ReachabilityRule", &json!(ReachabilityRuleManifest::crd()));
}

/// A row stands for each field of the schema.
fn check_table(title: &str, definition: &Value) {
    let mut known = BTreeSet::new();
    let spec =
        &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    fields(spec, "", &mut known);
    let shown: BTreeSet<String> = rows(section(&readme(), title))
        .iter()
        .skip(1)
        .flat_map(|row| {
            row[0]
                .split('`')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect();
    let missing: Vec<&String> = known.difference(&shown).collect();
    let unknown: Vec<&String> = shown.difference(&known).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "missing: {missing:?}; not there: {unknown:?}"
    );
}
