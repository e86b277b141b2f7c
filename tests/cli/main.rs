//! The command line as its users meet it: the real program, its output, its messages and its exit code together.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed test says so by a panic"
)]

mod check;
mod diff;
mod others;
mod registry;
mod replay;
mod ruleset;
mod staged;
mod suggest;
mod template;
mod test;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs the program in a folder with some standard input, and puts all that can be seen of it into one text.
fn ringfence(folder: &Path, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("RUST_BACKTRACE")
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Who does not read it may have ended already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let mut seen = format!("exit: {}\n", output.status.code().unwrap());
    for (name, bytes) in [("stdout", output.stdout), ("stderr", output.stderr)] {
        let text = String::from_utf8(bytes).unwrap();
        if !text.is_empty() {
            write!(seen, "--- {name}\n{}", without_times(&text)).unwrap();
        }
    }
    seen
}

/// How long it took differs from run to run.
fn without_times(text: &str) -> String {
    let times = regex::Regex::new(r#"(in |"milliseconds": )\d+(\.\d+)?( s\b|\n)"#).unwrap();
    times.replace_all(text, "${1}TIME$3").into_owned()
}

/// The repository, whose examples the tests use.
fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder with one file.
fn folder_with(name: &str, text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(name), text).unwrap();
    folder
}
