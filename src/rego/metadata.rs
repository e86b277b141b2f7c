//! What a policy says about itself: OPA's annotations, a YAML block of comments under `# METADATA`.
//!
//! <https://www.openpolicyagent.org/docs/policy-language#metadata>
//! A block above `package` speaks for the package, one above a rule for the rule. Ringfence reads `title`,
//! `description`, `organizations`, `authors`, and of `custom` the keys `id`, `severity`, `section`, `owner` and `why`;
//! the rest is left to other readers.

use std::sync::Arc;

use serde_json::Value;

use super::load::{Place, Problem};
use crate::guard::finding::Severity;
use crate::guard::guardrail::Section;
use crate::k8s::yaml::{self, Limits, Text};
use crate::netpol::FieldPath;

/// One block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// What it speaks for.
    pub(super) scope: Scope,
    /// The line of `# METADATA`.
    pub(super) place: Place,
    /// Where the id stands; where the block starts when there is none.
    pub(super) id_place: Place,
    /// `custom.id`.
    pub(super) id: Option<String>,
    /// `title`.
    pub(super) title: Option<String>,
    /// `description`, in one paragraph.
    pub(super) description: Option<String>,
    /// `custom.severity`.
    pub(super) severity: Option<Severity>,
    /// `custom.section`: the section of the guardrail that gives the mode.
    pub(super) section: Option<Section>,
    /// `custom.owner`, else the first of `organizations` and `authors`.
    pub(super) owner: Option<String>,
    /// `custom.why`: why it matters, in one line.
    pub(super) why: Option<String>,
}

/// What a block speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// The package.
    Package,
    /// The rule below it.
    Rule,
}

const LIMITS: Limits = Limits {
    bytes: 4 << 20,
    values: 10_000,
    aliased: 100,
    depth: 16,
};

/// The blocks of a policy, and what is wrong with them.
pub(super) fn read(file: &str, text: &str) -> (Vec<Block>, Vec<Problem>) {
    let (mut blocks, mut problems) = (Vec::new(), Vec::new());
    let lines: Vec<&str> = text.lines().collect();
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        at += 1;
        if line.trim() != "# METADATA" {
            continue;
        }
        let start = at;
        while lines
            .get(at)
            .is_some_and(|line| line.trim_start().starts_with('#'))
        {
            at += 1;
        }
        let below = lines
            .iter()
            .skip(at)
            .map(|line| line.trim())
            .find(|line| !line.is_empty() && !line.starts_with('#'));
        // The comments become spaces and the rest empty lines, so that places in the YAML are places in the policy.
        let comments = lines.get(start..at).unwrap_or_default();
        let yaml = "\n".repeat(start)
            + &comments
                .iter()
                .map(|line| line.replacen('#', " ", 1) + "\n")
                .collect::<String>();
        let scope = if below.is_some_and(|line| line.starts_with("package")) {
            Scope::Package
        } else {
            Scope::Rule
        };
        match Reader::read(file, yaml, start) {
            Ok(reader) => blocks.push(reader.block(scope, &mut problems)),
            Err(problem) => problems.push(problem),
        }
    }
    (blocks, problems)
}

/// Reads the fields of one block.
struct Reader {
    file: String,
    start: Place,
    value: Value,
    places: Option<yaml::Places>,
}

impl Reader {
    fn read(file: &str, yaml: String, line: usize) -> Result<Self, Problem> {
        let start = Place {
            file: file.to_owned(),
            line: number(line),
            column: 1,
        };
        let text = Arc::new(Text::new(file, yaml));
        let reading = yaml::read(&text, &LIMITS);
        if let Some(fault) = reading.faults.first() {
            let place = text.place(&fault.range);
            let place = Place {
                file: file.to_owned(),
                line: number(place.line),
                column: number(place.column),
            };
            return Err(Problem::at(place, format!("metadata: {}", fault.kind)));
        }
        let document = reading.documents.into_iter().next();
        let (value, places) = document.map_or((Value::Null, None), |document| {
            (document.value, Some(document.places))
        });
        if !value.is_object() && !value.is_null() {
            return Err(Problem::at(start, "metadata: expects `key: value` lines"));
        }
        Ok(Self {
            file: file.to_owned(),
            start,
            value,
            places,
        })
    }

    fn block(self, scope: Scope, problems: &mut Vec<Problem>) -> Block {
        let mut text = |keys: &[&str]| {
            let field = FieldPath::of(keys.iter().copied());
            match field.lookup(&self.value) {
                None | Some(Value::Null) => None,
                Some(Value::String(text)) => {
                    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
                }
                Some(_) => {
                    problems.push(Problem::at(
                        self.place(&field),
                        format!("metadata: `{field}` must be a text"),
                    ));
                    None
                }
            }
        };
        let title = text(&["title"]).filter(|title| !title.is_empty());
        let description = text(&["description"]);
        let id = text(&["custom", "id"]).filter(|id| !id.is_empty());
        let why = text(&["custom", "why"]);
        let owner = text(&["custom", "owner"])
            .or_else(|| self.first("organizations"))
            .or_else(|| self.first("authors"));
        let (severity, section) = (text(&["custom", "severity"]), text(&["custom", "section"]));
        let severity_at = FieldPath::of(["custom", "severity"]);
        let severity = severity.and_then(|severity| match severity.parse() {
            Ok(severity) => Some(severity),
            Err(error) => {
                problems.push(Problem::at(
                    self.place(&severity_at),
                    format!("metadata: {error}"),
                ));
                None
            }
        });
        let section_at = FieldPath::of(["custom", "section"]);
        let section = section.and_then(|section| {
            let known = serde_json::from_value(Value::String(section.clone())).ok();
            if known.is_none() {
                let reason = format!(
                    "metadata: unknown section `{section}`: use labels, coverage, baseline, bypasses, breadth, \
                     documentation or policies"
                );
                problems.push(Problem::at(self.place(&section_at), reason));
            }
            known
        });
        let id_at = FieldPath::of(["custom", "id"]);
        if let Some(id) = &id
            && !id.chars().all(|letter| {
                letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.' | '/')
            })
        {
            let reason = format!(
                "metadata: the id `{id}` may have letters, digits, `-`, `_`, `.` and `/` only"
            );
            problems.push(Problem::at(self.place(&id_at), reason));
        }
        let id_place = if id.is_some() {
            self.place(&id_at)
        } else {
            self.start.clone()
        };
        Block {
            scope,
            place: self.start,
            id_place,
            id,
            title,
            description,
            severity,
            section,
            owner,
            why,
        }
    }

    /// The first of a list of names; OPA allows a text or an object with a `name`.
    fn first(&self, list: &str) -> Option<String> {
        let first = self.value.get(list)?.get(0)?;
        first
            .as_str()
            .or_else(|| first.get("name")?.as_str())
            .map(str::to_owned)
    }

    fn place(&self, field: &FieldPath) -> Place {
        self.places.as_ref().map_or_else(
            || self.start.clone(),
            |places| {
                let place = places.place(field);
                Place {
                    file: self.file.clone(),
                    line: number(place.line),
                    column: number(place.column),
                }
            },
        )
    }
}

fn number(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        read("p.rego", text)
            .1
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_block_above_the_package_speaks_for_the_package() {
        let text = "\n# METADATA\n# title: No latest tag\n# description: |\n#   Images need\n#   a tag.\n# organizations:\n\
                    # - Shop\n# custom:\n#   id: SHOP-1\n#   severity: high\n#   why: tags move\n\npackage shop\n";
        let (blocks, problems) = read("p.rego", text);
        assert_eq!(problems, []);
        let [block] = &blocks[..] else {
            panic!("{blocks:?}")
        };
        assert_eq!(block.scope, Scope::Package);
        assert_eq!(
            block.place,
            Place {
                file: "p.rego".into(),
                line: 2,
                column: 1
            }
        );
        assert_eq!((block.id_place.line, block.id_place.column), (10, 9));
        assert_eq!(block.id.as_deref(), Some("SHOP-1"));
        assert_eq!(block.title.as_deref(), Some("No latest tag"));
        assert_eq!(block.description.as_deref(), Some("Images need a tag."));
        assert_eq!(block.severity, Some(Severity::High));
        assert_eq!(block.section, None);
        assert_eq!(block.owner.as_deref(), Some("Shop"));
        assert_eq!(block.why.as_deref(), Some("tags move"));
    }

    #[test]
    fn a_block_above_a_rule_speaks_for_the_rule() {
        let text = "package p\n\n# METADATA\n# scope: rule\n# title: t\n# authors:\n# - name: Ann\n# custom: {id: x}\n\ndeny contains 1\n";
        let (blocks, _) = read("p.rego", text);
        assert_eq!(blocks[0].scope, Scope::Rule);
        assert_eq!(blocks[0].owner.as_deref(), Some("Ann"));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        assert_eq!(
            problems(
                "# METADATA\n# title: [x]\n# custom:\n#   severity: urgent\n#   section: network\npackage p\n"
            ),
            [
                "p.rego:2:10: metadata: `title` must be a text",
                "p.rego:4:15: metadata: unknown severity `urgent`: use info, low, medium, high or critical",
                "p.rego:5:14: metadata: unknown section `network`: use labels, coverage, baseline, bypasses, breadth, \
                 documentation or policies",
            ]
        );
        assert_eq!(
            problems("# METADATA\n# custom:\n#   id: a b\npackage p\n"),
            [
                "p.rego:3:9: metadata: the id `a b` may have letters, digits, `-`, `_`, `.` and `/` only"
            ]
        );
        let broken = problems("package p\n# METADATA\n# title: x\n#  bad: : y\ndeny contains 1");
        assert!(broken[0].starts_with("p.rego:4:"), "{broken:?}");
        assert_eq!(
            problems("# METADATA\n# just words\npackage p"),
            ["p.rego:1:1: metadata: expects `key: value` lines"]
        );
    }

    #[test]
    fn policies_without_blocks_are_fine() {
        assert_eq!(
            read("p.rego", "package p\n# a comment\n"),
            (Vec::new(), Vec::new())
        );
    }
}
