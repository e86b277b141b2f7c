//! For CI systems that show test results: a suite for each file and a case for each object.
//!
//! What is refused is a failure and what cannot be read an error; the rest is the output of a case that passes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use quick_junit::{NonSuccessKind, SerializeError, TestCase, TestCaseStatus, TestSuite};

use super::text::printable;
use super::{Checked, Located, Outcome, Problem, Report};

/// The whole report as JUnit's XML.
pub fn render(report: &Report) -> Result<String, SerializeError> {
    let mut suites: BTreeMap<&Arc<str>, Vec<TestCase>> = BTreeMap::new();
    // Problems first: a file that cannot be read is what explains that its objects are missing.
    let mut problems: BTreeMap<&Arc<str>, Vec<&Problem>> = BTreeMap::new();
    for problem in &report.problems {
        problems
            .entry(&problem.location.file)
            .or_default()
            .push(problem);
    }
    for (file, problems) in problems {
        suites
            .entry(file)
            .or_default()
            .push(file_case(file, &problems));
    }
    for checked in &report.objects {
        suites
            .entry(&checked.location.file)
            .or_default()
            .push(object_case(checked));
    }
    let mut document = quick_junit::Report::new("ringfence");
    if let Some(elapsed) = report.elapsed {
        document.set_time(elapsed);
    }
    for (file, cases) in suites {
        let mut suite = TestSuite::new(&**file);
        suite.add_test_cases(cases);
        document.add_test_suite(suite);
    }
    document.to_string()
}

fn file_case(file: &str, problems: &[&Problem]) -> TestCase {
    let lines: Vec<String> = problems
        .iter()
        .map(|problem| {
            let location = &problem.location;
            let mut line = format!(
                "{} {file}:{}:{} {}",
                problem.id, location.line, location.column, problem.message
            );
            if let Some(help) = &problem.help {
                let _ = write!(line, "\n  help: {help}");
            }
            line
        })
        .collect();
    let fatal: Vec<&&Problem> = problems.iter().filter(|problem| problem.fatal).collect();
    let status = match fatal.first() {
        Some(first) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
            status.set_type(first.id.as_str());
            status.set_message(first.message.as_str());
            status.set_description(lines.join("\n"));
            status
        }
        None => TestCaseStatus::success(),
    };
    let mut case = TestCase::new("the file", status);
    case.set_classname(file);
    if fatal.is_empty() {
        case.set_system_out(lines.join("\n"));
    }
    case
}

fn object_case(checked: &Checked) -> TestCase {
    let (refused, passed): (Vec<&Located>, Vec<&Located>) = checked
        .findings
        .iter()
        .partition(|located| located.outcome() == Outcome::Refused);
    let status = match refused.as_slice() {
        [] => TestCaseStatus::success(),
        [first, ..] => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_type(first.judged.finding.id.as_str());
            let messages: Vec<String> = refused
                .iter()
                .map(|located| {
                    format!(
                        "{}: {}",
                        located.judged.finding.id, located.judged.finding.message
                    )
                })
                .collect();
            status.set_message(messages.join("; "));
            status.set_description(lines(&refused));
            status
        }
    };
    let mut case = TestCase::new(checked.object.to_string(), status);
    case.set_classname(&*checked.location.file);
    if !passed.is_empty() {
        case.set_system_out(lines(&passed));
    }
    case
}

fn lines(findings: &[&Located]) -> String {
    let mut lines = String::new();
    for located in findings {
        let finding = &located.judged.finding;
        let location = &located.location;
        let _ = writeln!(
            lines,
            "{} {} ({}) {} {}",
            finding.id,
            finding.severity,
            located.outcome().as_str(),
            location,
            finding.field
        );
        let _ = writeln!(
            lines,
            "  {}\n  why: {}",
            printable(&finding.message),
            printable(&finding.why)
        );
        if let Some(fix) = &finding.fix {
            let _ = writeln!(lines, "  fix: {}", fix.summary);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing;

    #[test]
    fn a_suite_for_each_file_and_a_case_for_each_object() {
        insta::assert_snapshot!(render(&testing::report()).expect("it serialises"));
    }
}
