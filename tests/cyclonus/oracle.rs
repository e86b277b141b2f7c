//! Runs the tool and joins its two outputs: the steps on the one, the cluster of each step on the other.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use crate::output::{self, Case};

/// Where `tests/run` says that the tool is.
const VARIABLE: &str = "RINGFENCE_CYCLONUS";

/// All its cases, none left out, against its mock of a cluster.
const ARGUMENTS: [&str; 9] = [
    "generate",
    "--mock",
    "--exclude",
    "",
    "--perturbation-wait-seconds",
    "0",
    "--noisy",
    // At this level it logs the cluster of each step, with the addresses of pods that it has created.
    "--verbosity",
    "debug",
];

/// The log line that holds the cluster of a step.
const RESOURCES: &str = "msg=\"with resources:";

/// Everything that the tool generates.
pub(crate) fn cases() -> Vec<Case> {
    let Some(program) = std::env::var_os(VARIABLE).map(PathBuf::from) else {
        panic!("{VARIABLE} does not say where cyclonus is: run tests/run --only cyclonus");
    };
    let mut child = Command::new(&program)
        .args(ARGUMENTS)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!(
                "{} cannot be run ({error}): run tests/run --only cyclonus",
                program.display()
            )
        });
    let log = BufReader::new(child.stderr.take().expect("it is piped"));
    let reader = thread::spawn(move || {
        // Of some 50 MB only these lines are kept.
        log.lines()
            .map(|line| line.expect("its log is text"))
            .filter(|line| line.contains(RESOURCES))
            .collect::<Vec<_>>()
    });
    let mut text = String::new();
    let mut printed = child.stdout.take().expect("it is piped");
    printed
        .read_to_string(&mut text)
        .expect("its output is text");
    let clusters = reader.join().expect("its log was read");
    let status = child.wait().expect("it was started");
    assert!(status.success(), "cyclonus failed: {status}");

    let clusters = clusters.iter().map(|line| {
        let (_, table) = line.split_once(RESOURCES).expect("it was filtered by");
        table.trim_end_matches('"').replace("\\n", "\n")
    });
    output::read(&text, clusters)
}
