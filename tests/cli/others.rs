//! The other subcommands, and what the program says of itself.

use insta::assert_snapshot;

use super::{repository, ringfence};

#[test]
fn help_is_enough_to_begin_with() {
    assert_snapshot!("help", ringfence(repository(), &["--help"], ""));
    assert_snapshot!(
        "help-check",
        ringfence(repository(), &["check", "--help"], "")
    );
    assert_snapshot!(
        "help-webhook",
        ringfence(repository(), &["webhook", "--help"], "")
    );
}

#[test]
fn the_version_names_the_commit() {
    let seen = ringfence(repository(), &["--version"], "");
    let form =
        regex::Regex::new(r"^exit: 0\n--- stdout\nringfence \d+\.\d+\.\d+ \([0-9a-f]{12}\+?\)\n$")
            .unwrap();
    assert!(form.is_match(&seen), "{seen}");
}

#[test]
fn explain_says_what_a_finding_means() {
    assert_snapshot!(
        "explain",
        ringfence(repository(), &["explain", "RF201"], "")
    );
    assert_snapshot!(
        "explain-rego",
        ringfence(repository(), &["explain", "rf401"], "")
    );
    assert_snapshot!(
        "explain-unknown",
        ringfence(repository(), &["explain", "RF999"], "")
    );
    assert_snapshot!("explain-list", ringfence(repository(), &["explain"], ""));
}

#[test]
fn completions_know_the_subcommands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let seen = ringfence(repository(), &["completions", shell], "");
        assert!(
            seen.starts_with("exit: 0") && seen.contains("baseline"),
            "{shell}"
        );
    }
}

#[test]
fn the_demo_decides_as_expected() {
    let seen = ringfence(repository(), &["demo"], "");
    assert!(seen.starts_with("exit: 0"), "{seen}");
}

#[test]
fn the_definitions_that_are_kept_are_those_of_the_types() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().display().to_string();
    let seen = ringfence(repository(), &["crds", "--output-dir", &output], "");
    assert!(seen.starts_with("exit: 0"), "{seen}");
    let kept = repository().join("deploy/crds");
    for made in std::fs::read_dir(folder.path()).unwrap() {
        let name = made.unwrap().file_name();
        let read = |folder: &std::path::Path| std::fs::read_to_string(folder.join(&name)).unwrap();
        assert!(
            read(folder.path()) == read(&kept),
            "{} is old: ringfence crds --output-dir deploy/crds",
            name.display()
        );
    }
}

#[test]
fn the_definitions_have_a_field_for_each_of_the_types() {
    let seen = ringfence(repository(), &["crds"], "");
    for field in [
        "namespaceSelector:",
        "widestPrefixV4:",
        "reviewBy:",
        "quarantine:",
        "expires:",
    ] {
        assert!(seen.contains(field), "{field}");
    }
    // A structural schema, as CustomResourceDefinitions must have, knows neither of these.
    for word in ["$ref", "additionalProperties: false", "definitions:"] {
        assert!(!seen.contains(word), "{word}");
    }
}

#[test]
fn the_doctor_looks_at_a_node_without_a_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let doctor = || {
        let arguments = ["doctor", "--no-cluster", "--cni-conf-dir", "."];
        ringfence(folder.path(), &arguments, "")
    };
    assert_snapshot!("doctor-nothing", doctor());
    let list =
        r#"{"plugins": [{"type": "flannel"}, {"type": "portmap"}, {"type": "ringfence-cni"}]}"#;
    std::fs::write(folder.path().join("10-flannel.conflist"), list).unwrap();
    assert_snapshot!("doctor-flannel", doctor());
}
