//! For code scanning: SARIF 2.1.0, an OASIS standard. Section numbers below are those of its text.

mod format;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::guard::engine::PolicyInfo;
use crate::guard::finding::{FindingId, Severity};

use super::{Checked, Located, Location, Outcome, Problem, Report};

use format::{
    ArtifactLocation, Configuration, Driver, Invocation, Level, Log, LogicalLocation, Message,
    Notification, PhysicalLocation, Place, Properties, Region, Result as SarifResult, Rule,
    RuleProperties, Run, Suppression, Tool,
};

/// The whole report; `version` is that of the program.
pub fn render(report: &Report, version: &str) -> Result<String, serde_json::Error> {
    let rules = Rules::of(report);
    let problems = report
        .problems
        .iter()
        .map(|problem| of_problem(problem, &rules));
    let findings = report
        .findings()
        .map(|(checked, located)| of_finding(checked, located, &rules));
    let results: Vec<SarifResult> = problems.chain(findings).collect();
    let unread: Vec<Notification> = report
        .problems
        .iter()
        .filter(|problem| problem.fatal)
        .map(|problem| Notification {
            level: Level::Error,
            message: Message {
                text: problem.message.clone(),
            },
            locations: vec![place(&problem.location, None)],
        })
        .collect();
    let log = Log {
        schema: "https://json.schemastore.org/sarif-2.1.0.json",
        version: "2.1.0",
        runs: vec![Run {
            tool: Tool {
                driver: Driver {
                    name: "ringfence",
                    version: version.to_owned(),
                    rules: rules.list,
                },
            },
            invocations: vec![Invocation {
                execution_successful: unread.is_empty(),
                tool_execution_notifications: unread,
            }],
            column_kind: "unicodeCodePoints",
            results,
        }],
    };
    let mut text = serde_json::to_string_pretty(&log)?;
    text.push('\n');
    Ok(text)
}

/// The checks that are known or that found something, and the position of each in the list.
struct Rules {
    list: Vec<Rule>,
    positions: BTreeMap<String, usize>,
}

impl Rules {
    fn of(report: &Report) -> Self {
        let mut rules: BTreeMap<String, Rule> = report
            .checks
            .iter()
            .map(|check| (check.id.as_str().to_owned(), rule(check)))
            .collect();
        let found = report.findings().map(|(_, located)| {
            let finding = &located.judged.finding;
            (&finding.id, finding.severity, &finding.why)
        });
        let problems = report
            .problems
            .iter()
            .map(|problem| (&problem.id, problem.severity, &problem.message));
        for (id, severity, words) in found.chain(problems) {
            rules
                .entry(id.as_str().to_owned())
                .or_insert_with(|| unknown_rule(id, severity, words));
        }
        let positions = rules.keys().cloned().zip(0..).collect();
        Self {
            list: rules.into_values().collect(),
            positions,
        }
    }

    fn position(&self, id: &FindingId) -> Option<usize> {
        self.positions.get(id.as_str()).copied()
    }
}

fn rule(check: &PolicyInfo) -> Rule {
    let mut properties = properties(check.severity);
    properties.owner.clone_from(&check.owner);
    Rule {
        id: check.id.as_str().to_owned(),
        short_description: Message {
            text: sentence(&check.title),
        },
        full_description: Message {
            text: sentence(&check.description),
        },
        help: Message {
            text: sentence(&check.description),
        },
        default_configuration: Configuration {
            level: level_of(check.severity),
        },
        properties,
    }
}

/// A check of a user's own that has no metadata here.
fn unknown_rule(id: &FindingId, severity: Severity, words: &str) -> Rule {
    let text = if words.is_empty() { id.as_str() } else { words };
    Rule {
        id: id.as_str().to_owned(),
        short_description: Message {
            text: sentence(text),
        },
        full_description: Message {
            text: sentence(text),
        },
        help: Message {
            text: sentence(text),
        },
        default_configuration: Configuration {
            level: level_of(severity),
        },
        properties: properties(severity),
    }
}

fn properties(severity: Severity) -> RuleProperties {
    RuleProperties {
        severity: severity.as_str(),
        // GitHub orders alerts by this number: above 9 critical, above 7 high, above 4 medium, above 0 low.
        security_severity: match severity {
            Severity::Critical => "9.5",
            Severity::High => "8.0",
            Severity::Medium => "5.5",
            Severity::Low => "3.0",
            Severity::Info => "1.0",
        },
        tags: ["security", "kubernetes", "network-policy"],
        owner: None,
    }
}

fn of_finding(checked: &Checked, located: &Located, rules: &Rules) -> SarifResult {
    let judged = &located.judged;
    let finding = &judged.finding;
    let mut text = sentence(&finding.message);
    let fix = finding.fix.as_ref().map(|fix| fix.summary.as_str());
    for (name, words) in [
        ("Why", finding.why.as_str()),
        ("Fix", fix.unwrap_or_default()),
    ] {
        append(&mut text, name, words);
    }
    let name = if finding.field.is_root() {
        checked.object.to_string()
    } else {
        format!("{} {}", checked.object, finding.field)
    };
    let fingerprint = [
        finding.id.as_str(),
        &located.location.file,
        &name,
        &checked.object.api_version,
    ];
    SarifResult {
        rule_id: finding.id.as_str().to_owned(),
        rule_index: rules.position(&finding.id),
        level: level(located.outcome()),
        message: Message { text },
        locations: vec![place(&located.location, Some(name.clone()))],
        partial_fingerprints: BTreeMap::from([("ringfence/v1", digest(&fingerprint))]),
        // 3.35: something outside of the file says that the result is to be left alone.
        suppressions: judged.exemption.as_ref().map(|exemption| {
            vec![Suppression {
                kind: "external",
                justification: format!("Exemption {exemption}"),
            }]
        }),
        properties: Properties {
            severity: finding.severity.as_str(),
            outcome: located.outcome().as_str(),
            mode: Some(judged.mode.as_str()),
            guardrails: judged.guardrails.clone(),
        },
    }
}

fn of_problem(problem: &Problem, rules: &Rules) -> SarifResult {
    let mut text = sentence(&problem.message);
    append(
        &mut text,
        "Help",
        problem.help.as_deref().unwrap_or_default(),
    );
    let fingerprint = [
        problem.id.as_str(),
        &problem.location.file,
        &problem.message,
    ];
    SarifResult {
        rule_id: problem.id.as_str().to_owned(),
        rule_index: rules.position(&problem.id),
        level: level(problem.outcome()),
        message: Message { text },
        locations: vec![place(&problem.location, None)],
        partial_fingerprints: BTreeMap::from([("ringfence/v1", digest(&fingerprint))]),
        suppressions: None,
        properties: Properties {
            severity: problem.severity.as_str(),
            outcome: problem.outcome().as_str(),
            mode: None,
            guardrails: Vec::new(),
        },
    }
}

fn place(location: &Location, name: Option<String>) -> Place {
    Place {
        physical_location: PhysicalLocation {
            artifact_location: ArtifactLocation { uri: uri(location) },
            region: Region {
                // 3.30.5: lines and columns begin at 1, also of what has none.
                start_line: location.line.max(1),
                start_column: location.column.max(1),
                end_line: location.line.max(1),
                // 3.30.8: the column after the region; an empty region is an insertion point.
                end_column: location.end_column.max(1),
            },
        },
        logical_locations: name.map(|name| {
            vec![LogicalLocation {
                fully_qualified_name: name,
                kind: "object",
            }]
        }),
    }
}

/// 3.10: a relative reference, or an absolute one for a path from the root, with what URIs do not hold escaped.
fn uri(location: &Location) -> String {
    let mut uri = String::new();
    let path = if location.is_path() {
        &*location.file
    } else {
        location.file.trim_matches(['<', '>'])
    };
    if path.starts_with('/') {
        uri.push_str("file://");
    }
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri
}

fn level(outcome: Outcome) -> Level {
    match outcome {
        Outcome::Refused => Level::Error,
        Outcome::Warned => Level::Warning,
        Outcome::Recorded | Outcome::Exempted => Level::Note,
    }
}

fn level_of(severity: Severity) -> Level {
    match severity {
        Severity::Critical | Severity::High => Level::Error,
        Severity::Medium => Level::Warning,
        Severity::Low | Severity::Info => Level::Note,
    }
}

/// 3.11: messages are sentences. Their first word may be the name of a field and stays as it is.
fn sentence(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() || text.ends_with(['.', '!', '?']) {
        text.to_owned()
    } else {
        format!("{text}.")
    }
}

/// Adds a line to a message, if there is something to say.
fn append(text: &mut String, name: &str, words: &str) {
    if !words.is_empty() {
        let _ = write!(text, "\n{name}: {}", sentence(words));
    }
}

/// A name for a result that stays the same when lines move: FNV-1a over its parts.
fn digest(parts: &[&str]) -> String {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0xff]));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::report::testing;

    fn rendered() -> Value {
        let text = render(&testing::report(), "0.1.0").expect("it serialises");
        serde_json::from_str(&text).expect("it is JSON")
    }

    #[test]
    fn the_whole_file() {
        let mut log = rendered();
        // The rules are those of the registry; one of each kind is enough to see.
        let rules = log["runs"][0]["tool"]["driver"]["rules"]
            .as_array_mut()
            .expect("rules");
        rules.retain(|rule| rule["id"] == "RF302" || rule["id"] == "ACME-1");
        insta::assert_json_snapshot!(log);
    }

    /// What each object of the format must hold, and what it may hold beside that: the schema's text, by hand.
    fn shape(of: &str) -> (&'static [&'static str], &'static [&'static str]) {
        match of {
            "log" => (&["version", "runs", "$schema"], &[]),
            "run" => (&["tool", "results", "invocations", "columnKind"], &[]),
            "tool" => (&["driver"], &[]),
            "driver" => (&["name", "version", "rules"], &[]),
            "rule" => (
                &[
                    "id",
                    "shortDescription",
                    "fullDescription",
                    "help",
                    "defaultConfiguration",
                    "properties",
                ],
                &[],
            ),
            "configuration" => (&["level"], &[]),
            "invocation" => (&["executionSuccessful"], &["toolExecutionNotifications"]),
            "notification" => (&["level", "message", "locations"], &[]),
            "result" => (
                &[
                    "ruleId",
                    "ruleIndex",
                    "level",
                    "message",
                    "locations",
                    "partialFingerprints",
                    "properties",
                ],
                &["suppressions"],
            ),
            "message" => (&["text"], &[]),
            "location" => (&["physicalLocation"], &["logicalLocations"]),
            "physicalLocation" => (&["artifactLocation", "region"], &[]),
            "artifactLocation" => (&["uri"], &[]),
            "region" => (&["startLine", "startColumn", "endLine", "endColumn"], &[]),
            "logicalLocation" => (&["fullyQualifiedName", "kind"], &[]),
            "suppression" => (&["kind", "justification"], &[]),
            other => panic!("no shape for {other}"),
        }
    }

    fn hold(value: &Value, of: &str) {
        let fields = value
            .as_object()
            .unwrap_or_else(|| panic!("{of} is no object: {value}"));
        let (must, may) = shape(of);
        let held: BTreeSet<&str> = fields.keys().map(String::as_str).collect();
        assert!(
            must.iter().all(|name| held.contains(name)),
            "{of} holds only {held:?}"
        );
        assert!(
            held.iter()
                .all(|name| must.contains(name) || may.contains(name)),
            "{of} holds {held:?}"
        );
        for (name, inside) in fields {
            let of = match name.as_str() {
                "runs" => "run",
                "tool" => "tool",
                "driver" => "driver",
                "rules" => "rule",
                "shortDescription" | "fullDescription" | "help" | "message" => "message",
                "defaultConfiguration" => "configuration",
                "invocations" => "invocation",
                "toolExecutionNotifications" => "notification",
                "results" => "result",
                "locations" => "location",
                "physicalLocation" => "physicalLocation",
                "artifactLocation" => "artifactLocation",
                "region" => "region",
                "logicalLocations" => "logicalLocation",
                "suppressions" => "suppression",
                _ => continue,
            };
            match inside {
                Value::Array(items) => items.iter().for_each(|item| hold(item, of)),
                single => hold(single, of),
            }
        }
    }

    #[test]
    fn every_object_holds_what_the_standard_asks_for_and_nothing_else() {
        let log = rendered();
        hold(&log, "log");
        assert_eq!(log["version"], "2.1.0");
        let run = &log["runs"][0];
        let rules = run["tool"]["driver"]["rules"].as_array().expect("rules");
        for result in run["results"].as_array().expect("results") {
            let index = result["ruleIndex"].as_u64().expect("an index");
            assert_eq!(
                rules[usize::try_from(index).expect("small")]["id"],
                result["ruleId"]
            );
            assert!(
                ["error", "warning", "note"]
                    .iter()
                    .any(|level| result["level"] == *level)
            );
            let region = &result["locations"][0]["physicalLocation"]["region"];
            assert!(
                region["startLine"].as_u64() >= Some(1)
                    && region["startColumn"].as_u64() >= Some(1)
            );
            assert!(region["endColumn"].as_u64() >= region["startColumn"].as_u64());
        }
        let ids: BTreeSet<&str> = rules
            .iter()
            .filter_map(|rule| rule["id"].as_str())
            .collect();
        assert_eq!(ids.len(), rules.len(), "rules are unique");
        for rule in rules {
            assert!(
                rule["help"]["text"]
                    .as_str()
                    .is_some_and(|text| !text.is_empty()),
                "{rule}"
            );
        }
    }

    #[test]
    fn the_same_finding_on_another_line_has_the_same_fingerprint() {
        let mut report = testing::report();
        let fingerprints = |report: &Report| -> Vec<String> {
            let rules = Rules::of(report);
            let results = report
                .findings()
                .map(|(checked, located)| of_finding(checked, located, &rules));
            results
                .map(|result| result.partial_fingerprints["ringfence/v1"].clone())
                .collect()
        };
        let before = fingerprints(&report);
        for checked in &mut report.objects {
            for located in &mut checked.findings {
                located.location.line += 10;
            }
        }
        assert_eq!(fingerprints(&report), before);
        assert_eq!(before.iter().collect::<BTreeSet<_>>().len(), before.len());
    }

    #[test]
    fn paths_become_references() {
        let uri = |file: &str| uri(&Location::of_file(file));
        assert_eq!(uri("a b/ä#1.yaml"), "a%20b/%C3%A4%231.yaml");
        assert_eq!(uri("/srv/x.yaml"), "file:///srv/x.yaml");
        assert_eq!(uri("<stdin>"), "stdin");
    }
}
