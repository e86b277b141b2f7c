//! For programs: one JSON object. What it holds is promised by its `schemaVersion`; fields may be added to it.

use json_patch::Patch;
use serde::Serialize;
use serde_json::Value;

use super::{Checked, Located, Outcome, Problem, Report, Summary, cuts};

/// The version of the format. A field that is taken away or changes its meaning makes a new one.
pub const SCHEMA_VERSION: u32 = 1;

/// The whole report.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    schema_version: u32,
    findings: Vec<Finding<'a>>,
    problems: Vec<FileProblem<'a>>,
    /// What baselines would cut of recorded flows, where there are records.
    #[serde(skip_serializing_if = "Option::is_none")]
    would_cut: Option<cuts::Document<'a>>,
    summary: Summary,
}

/// One finding.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Finding<'a> {
    id: &'a str,
    severity: &'a str,
    /// What is done about it: refused, warned, recorded or exempted.
    outcome: Outcome,
    mode: &'a str,
    message: &'a str,
    why: &'a str,
    file: &'a str,
    line: usize,
    column: usize,
    end_column: usize,
    api_version: &'a str,
    kind: &'a str,
    namespace: Option<&'a str>,
    name: &'a str,
    /// The field as a person reads it.
    field: String,
    /// The same as a JSON Pointer (RFC 6901).
    pointer: String,
    fix: Option<Fix<'a>>,
    /// The guardrails that ask for it.
    guardrails: &'a [String],
    exemption: Option<&'a str>,
}

/// The smallest change that would pass.
#[derive(Debug, Serialize)]
struct Fix<'a> {
    summary: &'a str,
    /// A JSON Patch (RFC 6902) of the object.
    patch: Option<&'a Patch>,
    /// Another manifest to apply.
    manifest: Option<&'a Value>,
}

/// Something about a file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FileProblem<'a> {
    id: &'a str,
    severity: &'a str,
    message: &'a str,
    help: Option<&'a str>,
    file: &'a str,
    line: usize,
    column: usize,
    end_column: usize,
    /// Whether something was not checked because of it.
    fatal: bool,
}

/// The whole report, indented, with a line end.
pub fn render(report: &Report) -> Result<String, serde_json::Error> {
    let document = Document {
        schema_version: SCHEMA_VERSION,
        findings: report
            .findings()
            .map(|(checked, located)| Finding::of(checked, located))
            .collect(),
        problems: report.problems.iter().map(FileProblem::of).collect(),
        would_cut: report.cuts.as_ref().map(cuts::Document::of),
        summary: report.summary(),
    };
    let mut text = serde_json::to_string_pretty(&document)?;
    text.push('\n');
    Ok(text)
}

impl<'a> Finding<'a> {
    fn of(checked: &'a Checked, located: &'a Located) -> Self {
        let judged = &located.judged;
        let finding = &judged.finding;
        Self {
            id: finding.id.as_str(),
            severity: finding.severity.as_str(),
            outcome: located.outcome(),
            mode: judged.mode.as_str(),
            message: &finding.message,
            why: &finding.why,
            file: &located.location.file,
            line: located.location.line,
            column: located.location.column,
            end_column: located.location.end_column,
            api_version: &checked.object.api_version,
            kind: &checked.object.kind,
            namespace: checked.object.namespace.as_deref(),
            name: &checked.object.name,
            field: finding.field.to_string(),
            pointer: finding.field.to_pointer(),
            fix: finding.fix.as_ref().map(|fix| Fix {
                summary: &fix.summary,
                patch: fix.patch.as_ref(),
                manifest: fix.manifest.as_ref(),
            }),
            guardrails: &judged.guardrails,
            exemption: judged.exemption.as_deref(),
        }
    }
}

impl<'a> FileProblem<'a> {
    fn of(problem: &'a Problem) -> Self {
        Self {
            id: problem.id.as_str(),
            severity: problem.severity.as_str(),
            message: &problem.message,
            help: problem.help.as_deref(),
            file: &problem.location.file,
            line: problem.location.line,
            column: problem.location.column,
            end_column: problem.location.end_column,
            fatal: problem.fatal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing;

    #[test]
    fn the_whole_object() {
        insta::assert_snapshot!(render(&testing::report()).expect("it serialises"));
    }

    /// Scripts rely on these names.
    #[test]
    fn every_finding_has_the_promised_fields() {
        let text = render(&testing::report()).expect("it serialises");
        let document: Value = serde_json::from_str(&text).expect("it is JSON");
        for finding in document["findings"].as_array().expect("findings") {
            for name in [
                "id",
                "severity",
                "message",
                "file",
                "line",
                "column",
                "kind",
                "namespace",
                "name",
                "field",
                "fix",
            ] {
                assert!(finding.get(name).is_some(), "{name} of {finding}");
            }
        }
        assert_eq!(document["schemaVersion"], SCHEMA_VERSION);
    }
}
