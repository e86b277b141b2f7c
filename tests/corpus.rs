//! Hostile input in every `cargo test`: the fuzz targets over their kept inputs, the examples, and mutations of both.
//!
//! The same on every run. `tests/run --only fuzz` goes on from here with libFuzzer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed test says so by a panic"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

#[path = "fuzz/bodies.rs"]
mod bodies;

/// Mutations of each input.
const MUTATIONS: usize = 150;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The files of a folder, in the order of their names.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).expect("a folder that is in the repository");
    let mut files: Vec<(String, Vec<u8>)> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.is_file())
        .map(|path| {
            (
                path.display().to_string(),
                std::fs::read(&path).expect("a readable file"),
            )
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
}

fn dictionary() -> Vec<Vec<u8>> {
    let text =
        std::fs::read_to_string(root().join("tests/fuzz/dictionary")).expect("the dictionary");
    let words = text
        .lines()
        .filter_map(|line| line.strip_prefix('"')?.strip_suffix('"'));
    words
        .map(|word| {
            word.replace("\\\"", "\"")
                .replace("\\x0a", "\n")
                .into_bytes()
        })
        .collect()
}

/// A small generator of numbers (xorshift), so that each run is the same and needs no crate.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit.max(1) as u64).unwrap_or(0)
    }
}

fn mutate(
    input: &[u8],
    others: &[(String, Vec<u8>)],
    words: &[Vec<u8>],
    dice: &mut Dice,
) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len());
        let end = (at + 1 + dice.below(24)).min(bytes.len());
        match dice.below(8) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << dice.below(8),
            1 => bytes.truncate(at),
            2 if !bytes.is_empty() => drop(bytes.drain(at..end)),
            3 if !bytes.is_empty() => {
                let piece = bytes[at..end].to_vec();
                let to = dice.below(bytes.len());
                bytes.splice(to..to, piece);
            }
            4 if !bytes.is_empty() => {
                let word = &words[dice.below(words.len())];
                bytes.splice(at..end, word.iter().copied());
            }
            5 => {
                let other = &others[dice.below(others.len())].1;
                let from = dice.below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            6 if !bytes.is_empty() => bytes[at] = u8::try_from(dice.below(256)).unwrap_or(0),
            _ => {
                let word = &words[dice.below(words.len())];
                bytes.splice(at..at, word.iter().copied());
            }
        }
    }
    bytes
}

fn run(name: &str, body: fn(&[u8]), what: &str, bytes: &[u8]) {
    assert!(
        catch_unwind(AssertUnwindSafe(|| body(bytes))).is_ok(),
        "target {name} failed on {what}:\n{}",
        bytes.escape_ascii()
    );
}

fn all(name: &str, extra: &[&str]) {
    let (_, body) = bodies::TARGETS
        .iter()
        .find(|(target, _)| *target == name)
        .expect("a target");
    let mut inputs = files(&root().join("tests/fuzz/corpus").join(name));
    for folder in extra {
        inputs.extend(files(&root().join(folder)));
    }
    let words = dictionary();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for (file, bytes) in &inputs {
        run(name, *body, file, bytes);
        for _ in 0..MUTATIONS {
            let mutated = mutate(bytes, &inputs, &words, &mut dice);
            run(name, *body, &format!("a mutation of {file}"), &mutated);
        }
    }
}

#[test]
fn reviews_are_answered_whatever_they_are() {
    all("review", &[]);
}

#[test]
fn manifests_are_read_or_refused_whatever_they_are() {
    all(
        "manifest",
        &["deploy/examples/shop", "deploy/examples/violations"],
    );
}

#[test]
fn objects_are_parsed_or_refused_whatever_they_are() {
    all("policy", &[]);
}

#[test]
fn guardrails_are_read_or_refused_whatever_they_are() {
    all("guardrail", &[]);
}

#[test]
fn what_the_kernel_says_is_read_or_passed_over_whatever_it_is() {
    all("netlink", &[]);
}
