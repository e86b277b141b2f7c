//! `ringfence suggest`: the policies, what is proved of them, and that `check` and `replay` agree.

use insta::assert_snapshot;

use super::{folder_with, repository, ringfence};

const FLOWS: &str = "tests/data/flows/shop.jsonl";

#[test]
fn policies_are_suggested_and_proved() {
    let seen = ringfence(
        repository(),
        &["suggest", FLOWS, "--owner", "team-shop"],
        "",
    );
    assert_snapshot!("suggest", seen);
    let yaml = seen.strip_prefix("exit: 0\n--- stdout\n").unwrap();
    let (yaml, _) = yaml.split_once("--- stderr").unwrap();
    let checked = ringfence(repository(), &["check", "-"], yaml);
    assert!(checked.starts_with("exit: 0"), "{checked}");
    assert!(!checked.contains("RF5"), "{checked}");
    let folder = folder_with("policies.yaml", yaml);
    let policies = folder.path().to_str().unwrap();
    let replayed = ringfence(
        repository(),
        &["replay", FLOWS, "--policies", policies, "--fail-on", "any"],
        "",
    );
    assert!(replayed.starts_with("exit: 0"), "{replayed}");
    assert_snapshot!(
        "suggest-help",
        ringfence(repository(), &["suggest", "--help"], "")
    );
}

#[test]
fn a_file_is_written_for_each_policy() {
    let folder = tempfile::tempdir().unwrap();
    let flows = repository().join(FLOWS);
    let arguments = [
        "suggest",
        flows.to_str().unwrap(),
        "--namespace",
        "shop",
        "-o",
        "out",
        "--join-prefix",
        "24",
    ];
    assert_snapshot!("suggest-files", ringfence(folder.path(), &arguments, ""));
    let mut names: Vec<String> = std::fs::read_dir(folder.path().join("out"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["shop.api.yaml", "shop.default-deny.yaml", "shop.web.yaml"]
    );
    let again = ringfence(folder.path(), &arguments, "");
    assert!(again.starts_with("exit: 2"), "{again}");
}

#[test]
fn what_is_not_proved_is_told() {
    let flows = [
        r#"{"from":{"namespace":"shop","workload":"Deployment/a","labels":{"app":"x"}},"to":{"namespace":"shop","workload":"Deployment/b","labels":{"app":"x"}},"port":80,"verdict":"allowed"}"#,
        r#"{"from":{"node":"n1"},"to":{"namespace":"shop","workload":"Deployment/b","labels":{"app":"x"}},"port":80,"verdict":"allowed"}"#,
        r#"{"from":{"namespace":"shop","pod":"gone"},"to":{"namespace":"shop","workload":"Deployment/b","labels":{"app":"x"}},"port":80,"verdict":"allowed"}"#,
        r#"{"from":"#,
    ];
    let seen = ringfence(
        repository(),
        &["suggest", "-", "--allow-broken"],
        &flows.join("\n"),
    );
    let (_, said) = seen.split_once("--- stderr").unwrap();
    assert_snapshot!("suggest-not-proved", said);
    assert!(seen.starts_with("exit: 1"), "{seen}");
    let spoilt = ringfence(repository(), &["suggest", "-"], &flows.join("\n"));
    assert!(spoilt.starts_with("exit: 2"), "{spoilt}");
    assert_snapshot!(
        "suggest-nothing",
        ringfence(repository(), &["suggest", "-"], "")
    );
}
