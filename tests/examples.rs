//! The examples do what they say: the shop is clean, and each violation meets the findings that its first lines name.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed test says so by a panic"
)]

use std::path::PathBuf;
use std::process::{Command, Output};

use ringfence::guard::guardrail::{Guardrail, GuardrailSpec};
use ringfence::k8s::folder;
use ringfence::k8s::manifests::Input;
use ringfence::k8s::yaml::Limits;
use serde_json::Value;

const EXAMPLES: &str = "deploy/examples";

/// Each violation and the ids that `check` finds. The others are about requests to a webhook; the demo shows them.
const VIOLATIONS: [(&str, &[&str]); 20] = [
    ("adds-nothing", &["RF606", "RF607"]),
    ("dead-rules", &["RF603", "RF604", "RF604"]),
    ("egress-without-dns", &["RF608"]),
    ("forgot-dns", &[]),
    ("forgot-dns-gitops", &[]),
    ("forgot-monitoring", &[]),
    ("host-network", &["RF401", "RF403"]),
    ("invalid-cidr", &["RF002"]),
    ("label-typo", &["RF101", "RF104"]),
    ("last-default-deny", &[]),
    ("net-admin-init", &["RF406"]),
    ("no-default-deny", &["RF201"]),
    ("one-sided-allow", &["RF605"]),
    ("policy-for-nobody", &["RF602"]),
    ("quarantine", &[]),
    ("rule-without-peers", &["RF301"]),
    ("shadowed-rule", &["RF611"]),
    ("sprawl", &["RF609", "RF610"]),
    ("undocumented-policy", &["RF501", "RF502"]),
    ("world-by-halves", &["RF302"]),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn ringfence(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .args(args)
        .current_dir(root())
        .output()
        .expect("the program starts")
}

/// The exit code of a check and the ids that it found.
fn check(args: &[&str]) -> (Option<i32>, Vec<String>) {
    let output = ringfence(&[&["check", "--output", "json"], args].concat());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&output.stderr));
    });
    let findings = report["findings"].as_array().expect("findings");
    let exempted = |finding: &&Value| finding["exemption"].is_null();
    let ids = findings
        .iter()
        .filter(exempted)
        .map(|finding| finding["id"].as_str().unwrap_or_default().to_owned());
    (output.status.code(), ids.collect())
}

fn file(name: &str) -> String {
    format!("{EXAMPLES}/{name}")
}

#[test]
fn the_shop_keeps_every_rule() {
    assert_eq!(check(&[&file("shop")]), (Some(0), Vec::new()));
}

#[test]
fn every_policy_of_the_shop_leaves_dns_and_monitoring_open() {
    let output = ringfence(&["baseline", &file("shop")]);
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
}

#[test]
fn each_violation_meets_its_findings_and_no_others() {
    let mut names: Vec<String> = std::fs::read_dir(root().join(file("violations")))
        .expect("the folder of violations")
        .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    assert_eq!(
        names,
        VIOLATIONS.map(|(name, _)| name.to_owned()),
        "each file stands in the table"
    );
    for (name, ids) in VIOLATIONS {
        let (code, mut found) = check(&[
            &file("shop"),
            &file(&format!("violations/{name}.yaml")),
            "--fail-on",
            "warn",
        ]);
        found.sort();
        assert_eq!(found, ids, "{name}");
        assert_eq!(code, Some(i32::from(!ids.is_empty())), "{name}");
        let text = std::fs::read_to_string(root().join(file(&format!("violations/{name}.yaml"))))
            .expect("a file");
        for id in ids {
            assert!(
                text.starts_with('#') && text.contains(id),
                "{name} names {id} in its first lines"
            );
        }
    }
}

#[test]
fn the_exemption_lets_off_what_it_names_and_nothing_is_found_without_need() {
    assert_eq!(
        check(&[&file("shop"), &file("exemption.yaml")]),
        (Some(0), Vec::new())
    );
    let text = std::fs::read_to_string(root().join(file("exemption.yaml"))).expect("a file");
    let (_, workload) = text.split_once("\n---\n").expect("two documents");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("node-exporter.yaml");
    std::fs::write(&path, workload).expect("a file");
    let (code, found) = check(&[&file("shop"), path.to_str().expect("UTF-8")]);
    assert_eq!((code, found), (Some(1), vec!["RF401".to_owned()]));
}

#[test]
fn the_guardrail_that_is_written_out_is_the_built_in_one() {
    let folder = folder::read(
        vec![Input::Path(root().join(file("guardrail.yaml")))],
        &Limits::default(),
    );
    assert!(folder.first_error().is_none(), "{:?}", folder.first_error());
    let specs: Vec<&GuardrailSpec> = folder
        .guardrails
        .iter()
        .map(|guardrail: &Guardrail| &guardrail.spec)
        .collect();
    assert_eq!(specs, [&GuardrailSpec::built_in()]);
}

#[test]
fn a_policy_in_rego_refuses_what_a_change_would_let_through() {
    let policies = ["--policies", &file("policies")];
    assert_eq!(
        check(&[&[file("shop").as_str()], &policies[..]].concat()),
        (Some(0), Vec::new())
    );
    let with_report = [file("shop"), file("policies/frontend-to-database.yaml")];
    let paths: Vec<&str> = with_report.iter().map(String::as_str).collect();
    // Its other half is missing, which is warned of.
    let one_sided = "RF605".to_owned();
    assert_eq!(check(&paths), (Some(0), vec![one_sided.clone()]));
    assert_eq!(
        check(&[&paths[..], &policies[..]].concat()),
        (Some(1), vec!["SHOP-1".to_owned(), one_sided])
    );
}

#[test]
fn the_rules_of_the_shop_hold_and_refuse_what_opens_the_database() {
    let rules = file("rules/shop.yaml");
    let shop = file("shop");
    assert_eq!(check(&[&shop, &rules]), (Some(0), Vec::new()));
    let opens = file("rules/opens-the-database.yaml");
    assert_eq!(check(&[&shop, &opens]), (Some(0), Vec::new()));
    assert_eq!(
        check(&[&shop, &rules, &opens]),
        (Some(1), vec!["RF701".to_owned()])
    );
}

#[test]
fn the_scenarios_pass_and_the_one_that_is_broken_is_shown() {
    let code = |args: &[&str]| ringfence(&[&["test"], args].concat()).status.code();
    let (shop, rules) = (file("shop"), file("rules/shop.yaml"));
    let (stages, opens) = (
        file("rules/stages.yaml"),
        file("rules/opens-the-database.yaml"),
    );
    assert_eq!(code(&[&shop, "--scenarios", &rules]), Some(0));
    assert_eq!(code(&[&shop, &opens, "--scenarios", &rules]), Some(1));
    assert_eq!(code(&[&stages]), Some(1), "no pod is there");
    assert_eq!(code(&[&stages, "--assume-pods"]), Some(0));
    assert_eq!(code(&[&shop]), Some(2), "no scenario is there");
}
