//! For GitHub Actions: workflow commands, which GitHub shows at the lines of a pull request.
//!
//! A command ends with its line, so line ends in messages are escaped as GitHub's runner unescapes them.
//! See "Workflow commands for GitHub Actions" in its documentation.

use std::fmt::Write as _;

use super::text::printable;
use super::{Location, Outcome, Report, text};

/// A command for each finding and problem, and the summary as plain lines.
pub fn render(report: &Report) -> String {
    let mut output = String::new();
    for problem in &report.problems {
        let mut message = problem.message.clone();
        if let Some(help) = &problem.help {
            let _ = write!(message, "\n{help}");
        }
        command(
            &mut output,
            problem.outcome(),
            &problem.location,
            problem.id.as_str(),
            &message,
        );
    }
    for (checked, located) in report.findings() {
        let finding = &located.judged.finding;
        let title = format!("{} {}", finding.id, checked.object);
        let mut message = finding.message.clone();
        if !finding.field.is_root() {
            let _ = write!(message, " ({})", finding.field);
        }
        let _ = write!(message, "\nwhy: {}", finding.why);
        if let Some(fix) = &finding.fix {
            let _ = write!(message, "\nfix: {}", fix.summary);
        }
        command(
            &mut output,
            located.outcome(),
            &located.location,
            &title,
            &message,
        );
    }
    output.push_str(&text::summary(report));
    output
}

fn command(output: &mut String, outcome: Outcome, location: &Location, title: &str, message: &str) {
    let name = match outcome {
        Outcome::Refused => "error",
        Outcome::Warned => "warning",
        Outcome::Recorded => "notice",
        // What somebody has let off on purpose is no news in a pull request.
        Outcome::Exempted => return,
    };
    let _ = write!(output, "::{name} ");
    if location.is_path() {
        let _ = write!(
            output,
            "file={},line={},col={},endColumn={},",
            property(&location.file),
            location.line,
            location.column,
            location.end_column
        );
    }
    let message: Vec<String> = message.split('\n').map(printable).collect();
    let _ = writeln!(
        output,
        "title={}::{}",
        property(title),
        data(&message.join("\n"))
    );
}

/// A message: what would end the command is escaped.
fn data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// A property: what would end it is escaped as well.
fn property(text: &str) -> String {
    data(&printable(text))
        .replace(':', "%3A")
        .replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing;

    #[test]
    fn a_command_for_each_finding() {
        insta::assert_snapshot!(render(&testing::report()));
    }

    #[test]
    fn nothing_from_a_manifest_ends_a_command_or_begins_one() {
        let mut output = String::new();
        let location = Location::of_file("a,line=9::b\n::error::x.yaml");
        command(
            &mut output,
            Outcome::Refused,
            &location,
            "t:1,2\n::stop",
            "50%\r\n::error::no",
        );
        assert_eq!(output.lines().count(), 1, "{output}");
        assert_eq!(
            output,
            "::error file=a%2Cline=9%3A%3Ab\\u{a}%3A%3Aerror%3A%3Ax.yaml,line=1,col=1,endColumn=1,\
             title=t%3A1%2C2\\u{a}%3A%3Astop::50%25\\u{d}%0A::error::no\n"
        );
    }
}
