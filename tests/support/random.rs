//! Random cases for the tests of properties: one set-up for all of them.

use proptest::prelude::Strategy;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

/// Holds a property to so many random cases; the smallest that breaks it ends the test.
pub(crate) fn hold<S: Strategy>(
    cases: u32,
    of: &S,
    property: impl Fn(S::Value) -> Result<(), TestCaseError>,
) {
    let mut runner = TestRunner::new(Config {
        cases,
        // What is found is made a test of its own; nothing is written beside the sources.
        failure_persistence: None,
        ..Config::default()
    });
    let outcome = runner.run(of, property);
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}
