//! Keeps the house: what the sources must never hold is written down here and looked for.
//!
//! The rules are in `rules`, with samples below that show each of them to fail; the last tests hold the repository to them.

// A test that cannot read what it judges has failed.
#![allow(clippy::expect_used)]

mod rules;
mod scan;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Everything that is committed or would be: what git tracks, and what it neither tracks nor ignores.
fn files() -> Vec<String> {
    let listing = Command::new("git")
        .args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "--deduplicate",
        ])
        .current_dir(root())
        .output()
        .expect("git is needed to know which files belong to the repository");
    assert!(
        listing.status.success(),
        "git ls-files: {}",
        String::from_utf8_lossy(&listing.stderr)
    );
    let text = String::from_utf8(listing.stdout).expect("file names are UTF-8");
    text.lines()
        .filter(|file| root().join(file).is_file())
        .map(str::to_owned)
        .collect()
}

fn text(file: &str) -> Option<String> {
    String::from_utf8(std::fs::read(root().join(file)).expect("a listed file can be read")).ok()
}

fn hold(complaints: &[String]) {
    assert!(
        complaints.is_empty(),
        "{} broken:\n{}",
        complaints.len(),
        complaints.join("\n")
    );
}

fn broken(file: &str, text: &str) -> Vec<String> {
    let text = format!("//! Head.\n{text}");
    rules::rust(file, &text, false)
        .into_iter()
        .map(|(_, what)| what)
        .collect()
}

// === samples: each rule fails when it is broken ===

#[test]
fn a_pure_folder_may_not_touch_the_world() {
    for (code, what) in [
        ("use std::fs;", "std::fs"),
        ("use std::{collections::BTreeMap, env};", "std::env"),
        ("use std::net::{IpAddr, TcpStream};", "std::net::TcpStream"),
        ("fn f() { std::thread::spawn(g); }", "std::thread::spawn"),
        ("fn f() { std::process::abort(); }", "std::process::abort"),
        ("fn f() { std::time::Instant::now(); }", "now"),
        ("fn f() -> Timestamp { jiff::Timestamp::now() }", "now"),
        ("use tokio::sync::Mutex;", "tokio::sync::Mutex"),
        ("fn f() { tracing::info!(\"x\"); }", "tracing::info"),
        ("use regorus::Engine;", "regorus::Engine"),
        ("use rand;", "rand"),
        ("use kube::Client;", "kube::Client"),
        ("fn f() { println!(\"x\"); }", "println"),
        ("async fn f() {}", "async"),
        ("fn f() { a.expect(\"x\"); }", "expect"),
    ] {
        for folder in ["netpol", "guard", "ruleset", "report"] {
            let found = broken(&format!("src/{folder}/x.rs"), code);
            assert!(
                found.iter().any(|complaint| complaint.contains(what)),
                "{folder}: {code}: {found:?}"
            );
        }
        assert!(
            !broken("src/webhook/x.rs", code)
                .iter()
                .any(|complaint| complaint.contains("pure")),
            "{code}"
        );
    }
    assert_eq!(
        broken(
            "src/netpol/net.rs",
            "use std::net::IpAddr;\nuse std::time::Duration;\n"
        ),
        Vec::<String>::new()
    );
}

#[test]
fn arrows_go_down_only() {
    for (file, code) in [
        ("src/netpol/x.rs", "use crate::guard::finding::Finding;"),
        ("src/netpol.rs", "fn f() { crate::report::text(); }"),
        (
            "src/netpol/a/b.rs",
            "use super::super::super::guard::mode::Mode;",
        ),
        ("src/guard/x.rs", "use crate::{netpol::flow, report::text};"),
        ("src/guard/x.rs", "use crate::rego::pack;"),
        ("src/report/x.rs", "use crate::webhook::router;"),
        ("src/ruleset/x.rs", "use crate::guard::mode::Mode;"),
        ("src/webhook/x.rs", "use crate::cli::check;"),
    ] {
        assert_eq!(
            broken(file, code).len(),
            1,
            "{file}: {code}: {:?}",
            broken(file, code)
        );
    }
    for (file, code) in [
        (
            "src/guard/x.rs",
            "use crate::netpol::flow::Flow;\nuse super::mode::Mode;\n",
        ),
        ("src/report/x.rs", "use crate::guard::finding::Finding;"),
        ("src/netpol/a/b.rs", "use super::super::flow;"),
        ("src/webhook/x.rs", "use crate::guard::mode::Mode;"),
        ("src/cli/x.rs", "use crate::cli::exit::Exit;"),
    ] {
        assert_eq!(broken(file, code), Vec::<String>::new(), "{file}: {code}");
    }
}

#[test]
fn unfinished_and_panicking_code_stays_out() {
    for code in [
        "fn f() { todo!() }",
        "fn f() { unimplemented!(\"later\") }",
        "fn f() { dbg!(x); }",
        "fn f() { x.unwrap(); }",
    ] {
        assert_eq!(broken("src/webhook/x.rs", code).len(), 1, "{code}");
        let in_test = format!("#[cfg(test)]\nmod tests {{ {code} }}");
        assert_eq!(
            broken("src/webhook/x.rs", &in_test),
            Vec::<String>::new(),
            "{code}"
        );
        assert_eq!(
            broken("src/webhook/x/tests.rs", code),
            Vec::<String>::new(),
            "{code}"
        );
    }
    assert_eq!(
        rules::test_files("src/guard.rs", "#[cfg(test)]\nmod testing;\nmod real;"),
        ["src/guard/testing.rs"]
    );
    assert_eq!(
        rules::test_files("src/lib.rs", "#[cfg(test)]\nmod testing;"),
        ["src/testing.rs"]
    );
    assert_eq!(
        broken("src/webhook/x.rs", "fn f() { x.unwrap_or_default(); }"),
        Vec::<String>::new()
    );
}

#[test]
fn a_file_has_a_head_a_good_name_and_an_end() {
    assert_eq!(rules::rust("src/k8s/x.rs", "fn f() {}\n", false).len(), 1);
    assert_eq!(broken("src/k8s/mod.rs", "fn f() {}\n").len(), 1);
    let long = "fn f() {}\n".repeat(rules::LONGEST);
    assert_eq!(broken("src/k8s/x.rs", &long).len(), 1);
    let tested = format!("#[cfg(test)]\nmod tests {{\n{long}}}\n");
    assert_eq!(broken("src/k8s/x.rs", &tested), Vec::<String>::new());
}

#[test]
fn comments_tell_neither_dates_nor_history() {
    for comment in [
        "// Since 2026-01-31 this is faster.",
        "/// It was renamed.",
        "// TODO: more",
        "/* previously a list */",
    ] {
        assert_eq!(broken("src/k8s/x.rs", comment).len(), 1, "{comment}");
    }
    for comment in [
        "/// A day such as `2027-05-31`.",
        "/// The key is used to sign.",
        "// A todolist.",
        "// RFC 3339, section 5.6",
    ] {
        assert_eq!(
            broken("src/k8s/x.rs", comment),
            Vec::<String>::new(),
            "{comment}"
        );
    }
}

#[test]
fn keys_and_paths_of_a_machine_are_seen() {
    let begin = "-----BEGIN EC PRIVATE KEY-----";
    assert_eq!(
        rules::private_key(&format!("x\n{begin}\n{}\n", "MHcCAQEEIB".repeat(6))),
        Some(2)
    );
    assert_eq!(
        rules::private_key(&format!("a test may say {begin} without one\n")),
        None
    );
    assert!(
        rules::is_key_file("certs/ca.PEM")
            && rules::is_key_file("x.key")
            && !rules::is_key_file("certs/README.md")
    );
    let home = format!("cd /{}/somebody/x", "home");
    assert_eq!(rules::machine_path(&home).map(|(line, _)| line), Some(1));
    assert_eq!(
        rules::machine_path("see docs/work/x and https://example.com/home/x"),
        None
    );
}

// === the repository ===

#[test]
fn the_sources_keep_the_house() {
    let read = |file: String| {
        let text = text(&file).expect("sources are UTF-8");
        (file, text)
    };
    let sources: Vec<(String, String)> = files()
        .into_iter()
        .filter(|file| Path::new(file).extension().is_some_and(|kind| kind == "rs"))
        .map(read)
        .collect();
    assert!(
        sources.iter().any(|(file, _)| file == "src/lib.rs"),
        "the sources were not found"
    );
    let tests: BTreeSet<String> = sources
        .iter()
        .flat_map(|(file, text)| rules::test_files(file, text))
        .collect();
    let mut complaints = Vec::new();
    for (file, text) in sources {
        for (line, what) in rules::rust(&file, &text, tests.contains(&file)) {
            complaints.push(format!("{file}:{line}: {what}"));
        }
    }
    hold(&complaints);
}

#[test]
fn no_key_and_no_path_of_a_machine_is_committed() {
    let mut complaints = Vec::new();
    for file in files() {
        if rules::is_key_file(&file) {
            complaints.push(format!(
                "{file}: keys and certificates are made, never committed"
            ));
        }
        let Some(text) = text(&file) else { continue };
        if let Some(line) = rules::private_key(&text) {
            complaints.push(format!("{file}:{line}: a private key"));
        }
        if let Some((line, what)) = rules::machine_path(&text) {
            complaints.push(format!("{file}:{line}: {what}"));
        }
    }
    hold(&complaints);
}

#[test]
fn the_lock_file_is_committed_and_what_must_be_there_is_there() {
    let files: BTreeSet<String> = files().into_iter().collect();
    for file in [
        "Cargo.lock",
        "LICENSE",
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "deny.toml",
        ".ci/run",
        "tests/run",
    ] {
        assert!(files.contains(file), "{file} is not in the repository");
    }
    for script in [".ci/run", "tests/run"] {
        assert!(
            executable(&root().join(script)),
            "{script} cannot be executed"
        );
    }
}

#[test]
fn the_architecture_fits_two_pages() {
    let words = text("ARCHITECTURE.md")
        .expect("UTF-8")
        .split_whitespace()
        .count();
    assert!(
        words < 1200,
        "{words} words; two pages have fewer than 1200"
    );
}

fn executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(file).is_ok_and(|facts| facts.permissions().mode() & 0o111 != 0)
}
