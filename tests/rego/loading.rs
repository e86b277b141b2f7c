//! Sets of policies that are broken: each says where and why, and never takes the place of a good one.

use std::path::PathBuf;

use ringfence::guard::engine::PolicyEngine as _;
use ringfence::guard::finding::Severity;
use ringfence::guard::guardrail::Section;
use ringfence::rego::testing::{self, Source, TestResult};
use ringfence::rego::{PolicySet, RegoEngine, Trial, read_folder};

use crate::support::{Setting, create, files, found, pod, policy, refused, trial};

#[test]
fn a_mistake_in_the_grammar_has_its_place() {
    assert_eq!(
        refused(
            &["package p\n\ndeny contains \"x\" if {\n\tinput.x == \n}\n"],
            &Trial::None
        ),
        "0.rego:5:1: expecting expression"
    );
    assert_eq!(
        refused(&["deny contains 1"], &Trial::None),
        "0.rego:1:1: expecting `package` Missing package declaration."
    );
    let old = refused(&["package p\ndeny[msg] {\n\tmsg := \"x\"\n}"], &Trial::None);
    assert!(old.starts_with("0.rego:2:"), "{old}");
}

#[test]
fn every_file_that_is_broken_is_told() {
    let reasons = refused(
        &["package a\na := ", "package b\nb := }", "package c\nc := 1"],
        &Trial::None,
    );
    assert!(
        reasons.contains("0.rego:") && reasons.contains("1.rego:") && !reasons.contains("2.rego:"),
        "{reasons}"
    );
}

#[test]
fn a_variable_that_nothing_binds_is_told() {
    let reasons = refused(
        &[&policy("p", "deny contains \"x\" if y == 1")],
        &Trial::None,
    );
    assert!(
        reasons.starts_with("0.rego:") && reasons.contains('y'),
        "{reasons}"
    );
}

#[test]
fn metadata_must_have_an_id_and_a_title() {
    assert_eq!(
        refused(&["package p\n\ndeny contains \"x\""], &Trial::None),
        "0.rego:1:1: the package has policies but no id: write above `package` a comment `# METADATA` with `# title: …` \
         and `# custom:` / `#   id: …`"
    );
    assert_eq!(
        refused(
            &["# METADATA\n# custom:\n#   id: P-1\npackage p\n\ndeny contains \"x\""],
            &Trial::None
        ),
        "0.rego:3:9: the policy `P-1` has no `title`"
    );
}

#[test]
fn ids_are_unique_and_not_those_of_ringfence() {
    let with = |package: &str, id: &str| {
        format!(
            "# METADATA\n# title: t\n# custom:\n#   id: {id}\npackage {package}\ndeny contains \"x\""
        )
    };
    assert_eq!(
        refused(&[&with("a", "P-1"), &with("b", "P-1")], &Trial::None),
        "1.rego:4:9: the id `P-1` is taken by 0.rego:4"
    );
    for id in ["RF101", "rf7", "RF901"] {
        let reasons = refused(&[&with("a", id)], &Trial::None);
        assert!(
            reasons.contains(&format!(
                "ids such as `{id}` (`RF` and digits) are Ringfence's own"
            )),
            "{reasons}"
        );
    }
    assert!(PolicySet::only(&files(&[&with("a", "RFC-1")]), &Trial::None).is_ok());
}

#[test]
fn packages_of_ringfence_cannot_be_added_to() {
    for package in ["ringfence", "ringfence.labels", "ringfence_entry"] {
        let reasons = refused(&[&policy(package, "deny contains \"x\"")], &Trial::None);
        assert!(reasons.contains("are Ringfence's own"), "{reasons}");
    }
}

#[test]
fn an_entry_that_is_a_function_is_told() {
    let reasons = refused(&[&policy("p", "deny(x) := x")], &Trial::None);
    assert!(
        reasons.contains("`deny` must be a rule, not a function"),
        "{reasons}"
    );
}

#[test]
fn a_file_that_is_given_twice_is_told() {
    let mut twice = files(&[&policy("p", "deny contains \"x\"")]);
    twice.push(twice[0].clone());
    let Err(error) = PolicySet::only(&twice, &Trial::None) else {
        panic!("it was loaded")
    };
    assert_eq!(error.to_string(), "0.rego is given twice");
}

#[test]
fn the_trial_says_the_same_as_the_checks() {
    for text in [
        "package p\na := ",
        "package p\ndeny contains \"x\"",
        "package p\nf(x) := f(x)",
    ] {
        assert_eq!(refused(&[text], &trial()), refused(&[text], &Trial::None));
    }
}

#[test]
fn the_trial_finds_answers_of_the_wrong_shape() {
    for (rules, reason) in [
        (
            "deny contains 7",
            "`deny` holds 7; expects a text or an object with `msg`",
        ),
        ("deny := \"x\"", "`deny` is a text; write `deny contains …`"),
        (
            "deny contains {\"text\": \"x\"}",
            "`deny` has an answer with the unknown key `text`",
        ),
        (
            "mutate := {\"op\": \"add\"}",
            "`mutate` is an object; write a list of JSON Patch operations",
        ),
        (
            "mutate := [{\"op\": \"put\", \"path\": \"/a\", \"value\": 1}]",
            "`mutate` has a patch with an operation that is none of JSON Patch",
        ),
        (
            "a := 1 if input.x == 1\na := 1\na := 2\ndeny contains \"x\" if a == 1",
            "",
        ),
    ] {
        let reasons = refused(&[&policy("p", rules)], &trial());
        assert!(reasons.contains(reason), "{rules}: {reasons}");
        assert!(
            reasons.contains("policy `p`, tried with the creation of a Deployment: "),
            "{reasons}"
        );
    }
}

#[test]
fn a_trial_by_a_program_that_is_not_there_is_told() {
    let reasons = refused(
        &[&policy("p", "deny contains \"x\"")],
        &Trial::By(PathBuf::from("/nonexistent/ringfence")),
    );
    assert!(
        reasons.contains("cannot be tried by /nonexistent/ringfence"),
        "{reasons}"
    );
    let reasons = refused(
        &[&policy("p", "deny contains \"x\"")],
        &Trial::By(PathBuf::from("/bin/true")),
    );
    assert!(reasons.contains("ended the trial process"), "{reasons}");
}

#[test]
fn a_broken_set_never_takes_the_place_of_a_good_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.rego");
    let folders = [folder.path().to_path_buf()];
    std::fs::write(&file, policy("p", "deny contains \"first\"")).unwrap();
    let engine = RegoEngine::new(PolicySet::load(&folders, &trial()).unwrap());
    let setting = Setting::new();
    let own = |engine: &RegoEngine| {
        let answers = setting.ask(engine, &create(&pod("web")));
        found(&answers)
            .into_iter()
            .filter(|found| found.starts_with("p "))
            .collect::<Vec<_>>()
    };
    assert_eq!(own(&engine), ["p : first"]);

    std::fs::write(&file, "package p\ndeny contains ").unwrap();
    let error = engine.reload(&folders, &trial()).unwrap_err().to_string();
    assert!(error.contains("p.rego:2:"), "{error}");
    assert_eq!(own(&engine), ["p : first"]);

    std::fs::write(&file, policy("p", "deny contains \"second\"")).unwrap();
    engine.reload(&folders, &trial()).unwrap();
    assert_eq!(own(&engine), ["p : second"]);
}

#[test]
fn folders_are_read_without_tests_and_older_versions() {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("b.rego", "b");
    write("a/a.rego", "a");
    write("a/a_test.rego", "not this");
    write("..2026_01_01/old.rego", "not this");
    write("readme.md", "not this");
    std::os::unix::fs::symlink(
        folder.path().join("..2026_01_01/old.rego"),
        folder.path().join("linked.rego"),
    )
    .unwrap();
    let names: Vec<String> = read_folder(folder.path())
        .unwrap()
        .into_iter()
        .map(|file| {
            file.path
                .rsplit_once(&format!("{}/", folder.path().display()))
                .unwrap()
                .1
                .to_owned()
        })
        .collect();
    assert_eq!(names, ["a/a.rego", "b.rego", "linked.rego"]);
}

#[test]
fn folders_and_files_that_cannot_be_read_are_told() {
    let error = read_folder(&PathBuf::from("/nonexistent"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("cannot read folder /nonexistent"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("p.rego"), b"package p\xff").unwrap();
    let error = read_folder(folder.path()).unwrap_err().to_string();
    assert!(error.contains("p.rego: invalid utf-8 sequence"), "{error}");
    std::fs::write(folder.path().join("p.rego"), vec![b' '; (1 << 20) + 1]).unwrap();
    let error = read_folder(folder.path()).unwrap_err().to_string();
    assert!(error.contains("is larger than 1048576 bytes"), "{error}");
}

#[test]
fn the_registry_is_made_of_the_metadata() {
    let text = "# METADATA\n# title: Images have a tag\n# description: |\n#   Tags move.\n#   Digests do not.\n# organizations:\n\
                # - Shop\n# custom:\n#   id: SHOP-1\n#   severity: high\n#   section: labels\npackage shop\n\ndeny contains \"x\"\n\n\
                # METADATA\n# title: Images are small\n# custom:\n#   id: SHOP-2\n#   severity: low\nwarn contains {\"id\": \"SHOP-2\", \"msg\": \"y\"}\n";
    let engine = RegoEngine::new(PolicySet::with(&files(&[text]), &Trial::None).unwrap());
    let registry = engine.registry();
    assert!(registry.iter().any(|info| info.id.as_str() == "RF401"));
    let own: Vec<_> = registry
        .iter()
        .filter(|info| info.file == "0.rego")
        .collect();
    let [first, second] = own[..] else {
        panic!("{own:?}")
    };
    assert_eq!(first.title, "Images have a tag");
    assert_eq!(first.description, "Tags move. Digests do not.");
    assert_eq!(
        (first.severity, first.section),
        (Severity::High, Section::Labels)
    );
    assert_eq!(first.owner.as_deref(), Some("Shop"));
    assert_eq!(
        (second.id.as_str(), second.severity, second.section),
        ("SHOP-2", Severity::Low, Section::Labels)
    );
    assert_eq!(
        second.owner.as_deref(),
        Some("Shop"),
        "what a rule does not say, its package says"
    );
}

#[test]
fn the_built_in_policies_load_with_none_of_the_users() {
    assert_eq!(PolicySet::built_in().unwrap().registry().len(), 14);
}

#[test]
fn the_example_of_the_guide_passes_its_own_case() {
    let guide = include_str!("../../policies/README.md");
    let block = |language: &str| {
        let (_, rest) = guide.split_once(&format!("```{language}\n")).unwrap();
        rest.split_once("```").unwrap().0
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("images.rego"), block("rego")).unwrap();
    std::fs::write(folder.path().join("images.cases.yaml"), block("yaml")).unwrap();
    let source = Source::Folders(vec![folder.path().to_path_buf()]);
    let results = testing::run(&source, &trial(), &mut |_| {}).unwrap();
    assert!(results.iter().all(TestResult::passed), "{results:?}");
    assert_eq!(results.len(), 1);
}
