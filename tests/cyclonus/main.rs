//! An independent oracle: every truth table that cyclonus generates is reproduced by the model.
//!
//! Cyclonus (<https://github.com/mattfenwick/cyclonus>) tests network plugins: case by case it changes policies, pods
//! and labels, and works out by itself which pod may then connect to which. Against a mock of a cluster it does so
//! offline. It is run as an installed tool: `oracle` starts it, `output` and `table` read what it prints, and `replay`
//! builds the cluster of each step through our own parsers and asks the model for each cell.
//!
//! It needs a tool that Go builds, so the one test that runs it is marked as ignored: plain `cargo test` names it
//! with the reason and runs the rest. `tests/run` installs the tool and runs them all; asked for without the tool, the
//! test fails and says so.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed test says so by a panic"
)]

mod oracle;
mod output;
mod replay;
mod table;

use replay::{Cell, Exception, Tally};
use ringfence::netpol::{EndVerdict, NotHeld};

/// Where the API's text has it otherwise than the tool, and for how many cells of its tables.
const EXCEPTIONS: [Exception; 1] = [Exception {
    rule: "a pod cannot block itself",
    source: "\"Other pods that are allowed (exception: a pod cannot block access to itself)\", \
        https://kubernetes.io/docs/concepts/services-networking/network-policies/",
    applies: cannot_block_itself,
    cells: 4317,
}];

/// What the pinned version of the tool prints: fewer means that something was not read.
const CASES: usize = 230;
const STEPS: usize = 256;

fn cannot_block_itself(cell: &Cell<'_>) -> bool {
    let itself = EndVerdict::NotHeld(NotHeld::Itself);
    cell.from == cell.to && cell.verdict.egress == itself && cell.verdict.ingress == itself
}

#[test]
#[ignore = "it runs cyclonus, which Go builds: tests/run --only cyclonus"]
fn every_table_of_every_step_is_reproduced() {
    let cases = oracle::cases();
    let steps: usize = cases.iter().map(|case| case.steps.len()).sum();
    let mut tally = Tally::new(&EXCEPTIONS);
    for case in &cases {
        for (index, step) in case.steps.iter().enumerate() {
            let title = format!("{}, step {}", case.description, index + 1);
            tally.step(&title, step);
        }
    }
    println!("{} cases, {steps} steps; {tally}", cases.len());
    tally.hold();
    assert_eq!((cases.len(), steps), (CASES, STEPS), "cases and steps");
}
