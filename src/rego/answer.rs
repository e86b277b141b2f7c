//! What policies answer, read strictly: a violation that is written wrongly is a failure of the policy, never silence.
//!
//! `deny` and `warn` are sets of texts or of objects `{msg, field, id, severity, why, fix: {summary, patch}}`;
//! `mutate` is a list of operations. Operations are those of JSON Patch (RFC 6902), with two additions: a path may be
//! a list of steps instead of a pointer, and objects that are missing on the way to what is added are added as well.

use json_patch::Patch;
use regorus::Value;
use serde_json::{Map, Value as Json, json};

use super::load::{Package, Policy};
use super::value;
use crate::guard::engine::{Level, Violation};
use crate::guard::finding::{Fix, Severity};
use crate::netpol::{FieldPath, Segment};

/// The rule whose answers may refuse.
pub(super) const DENY: &str = "deny";
/// The rule whose answers never refuse.
pub(super) const WARN: &str = "warn";
/// The rule whose answers change the object.
pub(super) const MUTATE: &str = "mutate";

/// Most violations that one rule may answer with.
const MAX_VIOLATIONS: usize = 500;
/// Longest message; what is longer is cut.
const MAX_MESSAGE: usize = 2_000;

/// What is wrong with an answer, in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Misshapen(String);

/// The violations of one rule, and what is wrong with the others.
pub(super) fn violations(
    package: &Package,
    rule: &str,
    answer: &Value,
    object: &Json,
) -> (Vec<Violation>, Vec<Misshapen>) {
    let level = if rule == DENY {
        Level::Deny
    } else {
        Level::Warn
    };
    let items: Vec<&Value> = match answer {
        Value::Set(items) => items.iter().collect(),
        Value::Array(items) => items.iter().collect(),
        Value::Undefined => return (Vec::new(), Vec::new()),
        other => {
            return (
                Vec::new(),
                vec![wrong(
                    rule,
                    &format!("is {}; write `{rule} contains …`", name(other)),
                )],
            );
        }
    };
    let (mut violations, mut misshapen) = (Vec::new(), Vec::new());
    if items.len() > MAX_VIOLATIONS {
        misshapen.push(wrong(
            rule,
            &format!("has {} answers, more than {MAX_VIOLATIONS}", items.len()),
        ));
    }
    for item in items.into_iter().take(MAX_VIOLATIONS) {
        match violation(package, rule, level, item, object) {
            Ok((violation, wrong)) => {
                violations.push(violation);
                misshapen.extend(wrong);
            }
            Err(wrong) => misshapen.push(wrong),
        }
    }
    (violations, misshapen)
}

/// The operations of `mutate`; none when it asks for nothing.
pub(super) fn mutation(answer: &Value, object: &Json) -> Result<Option<Patch>, Misshapen> {
    let answer = match answer {
        Value::Undefined => return Ok(None),
        Value::Set(_) | Value::Array(_) => {
            value::to_json(answer).map_err(|error| wrong(MUTATE, &error.to_string()))?
        }
        other => {
            return Err(wrong(
                MUTATE,
                &format!("is {}; write a list of JSON Patch operations", name(other)),
            ));
        }
    };
    let operations = patch(MUTATE, &answer, object)?;
    if operations.0.is_empty() {
        return Ok(None);
    }
    json_patch::patch(&mut object.clone(), &operations)
        .map_err(|error| wrong(MUTATE, &format!("has a patch that does not apply: {error}")))?;
    Ok(Some(operations))
}

/// One violation, and what is wrong with its patch if anything: the violation stands without it.
fn violation(
    package: &Package,
    rule: &str,
    level: Level,
    item: &Value,
    object: &Json,
) -> Result<(Violation, Option<Misshapen>), Misshapen> {
    let item = value::to_json(item).map_err(|error| wrong(rule, &error.to_string()))?;
    let fields = match item {
        Json::String(message) => Map::from_iter([("msg".to_owned(), Json::String(message))]),
        Json::Object(fields) => fields,
        other => {
            return Err(wrong(
                rule,
                &format!(
                    "holds {}; expects a text or an object with `msg`",
                    shown(&other)
                ),
            ));
        }
    };
    for key in fields.keys() {
        if !matches!(
            key.as_str(),
            "msg" | "message" | "field" | "id" | "severity" | "why" | "fix" | "details"
        ) {
            return Err(wrong(
                rule,
                &format!(
                    "has an answer with the unknown key `{key}`: use msg, field, id, severity, why or fix"
                ),
            ));
        }
    }
    let policy = policy_of(package, rule, fields.get("id"))?;
    let message = match text(rule, &fields, "msg")?.or(text(rule, &fields, "message")?) {
        Some(message) if !message.trim().is_empty() => line(&message),
        _ => return Err(wrong(rule, "has an answer without `msg`")),
    };
    let severity = match text(rule, &fields, "severity")? {
        Some(severity) => severity
            .parse::<Severity>()
            .map_err(|error| wrong(rule, &error.to_string()))?,
        None => policy.info.severity,
    };
    let why = text(rule, &fields, "why")?.map(|why| line(&why));
    let why = why
        .or_else(|| policy.why.clone())
        .unwrap_or_else(|| policy.info.title.clone());
    let field = match fields.get("field") {
        None | Some(Json::Null) => FieldPath::root(),
        Some(field) => field_path(rule, field)?,
    };
    let (fix, misshapen) = match fields.get("fix") {
        None | Some(Json::Null) => (None, None),
        Some(fix) => self::fix(rule, fix, object)?,
    };
    let violation = Violation {
        id: policy.info.id.clone(),
        section: policy.info.section,
        level,
        severity,
        field,
        message,
        why,
        fix,
    };
    Ok((violation, misshapen))
}

/// The policy that an answer belongs to.
fn policy_of<'p>(
    package: &'p Package,
    rule: &str,
    id: Option<&Json>,
) -> Result<&'p Policy, Misshapen> {
    match id {
        None => package
            .policies
            .first()
            .ok_or_else(|| wrong(rule, "has an answer without `id`")),
        Some(Json::String(id)) => package
            .policies
            .iter()
            .find(|policy| policy.info.id.as_str() == id)
            .ok_or_else(|| {
                wrong(
                    rule,
                    &format!(
                        "has an answer with the id `{id}`, which no metadata of the package has"
                    ),
                )
            }),
        Some(other) => Err(wrong(rule, &format!("has {} as `id`", shown(other)))),
    }
}

fn fix(
    rule: &str,
    fix: &Json,
    object: &Json,
) -> Result<(Option<Fix>, Option<Misshapen>), Misshapen> {
    let Json::Object(fields) = fix else {
        return Err(wrong(
            rule,
            "has a `fix` that is no object with `summary` and `patch`",
        ));
    };
    if let Some(key) = fields
        .keys()
        .find(|key| !matches!(key.as_str(), "summary" | "patch"))
    {
        return Err(wrong(
            rule,
            &format!("has a `fix` with the unknown key `{key}`: use summary and patch"),
        ));
    }
    let Some(summary) = text(rule, fields, "summary")? else {
        return Err(wrong(rule, "has a `fix` without `summary`"));
    };
    let (patch, misshapen) = match fields.get("patch") {
        None | Some(Json::Null) => (None, None),
        Some(operations) => {
            match patch(rule, operations, object).and_then(|patch| applies(rule, patch, object)) {
                Ok(patch) => (Some(patch), None),
                Err(misshapen) => (None, Some(misshapen)),
            }
        }
    };
    Ok((
        Some(Fix {
            summary: line(&summary),
            patch,
            manifest: None,
        }),
        misshapen,
    ))
}

fn applies(rule: &str, patch: Patch, object: &Json) -> Result<Patch, Misshapen> {
    match json_patch::patch(&mut object.clone(), &patch) {
        Ok(()) => Ok(patch),
        Err(error) => Err(wrong(
            rule,
            &format!("has a `fix.patch` that does not apply: {error}"),
        )),
    }
}

/// Operations as RFC 6902 has them.
fn patch(rule: &str, operations: &Json, object: &Json) -> Result<Patch, Misshapen> {
    let Json::Array(operations) = operations else {
        return Err(wrong(rule, "has a patch that is no list of operations"));
    };
    let mut plain = Vec::new();
    // Later operations see what earlier ones have added.
    let mut object = object.clone();
    for operation in operations {
        let Json::Object(fields) = operation else {
            return Err(wrong(
                rule,
                "has a patch with an operation that is no object",
            ));
        };
        let mut fields = fields.clone();
        for key in ["path", "from"] {
            if let Some(Json::Array(_)) = fields.get(key) {
                let path = field_path(
                    rule,
                    &Json::Array(
                        fields
                            .get(key)
                            .and_then(Json::as_array)
                            .cloned()
                            .unwrap_or_default(),
                    ),
                )?;
                fields.insert(key.to_owned(), Json::String(path.to_pointer()));
            }
        }
        if fields.get("op").and_then(Json::as_str) == Some("add") {
            with_parents(&mut fields, &object);
        }
        let operation: json_patch::PatchOperation = serde_json::from_value(Json::Object(fields))
            .map_err(|error| {
                wrong(
                    rule,
                    &format!("has a patch with an operation that is none of JSON Patch: {error}"),
                )
            })?;
        // Whether the whole applies is looked at later; here only what is there matters.
        let _ = json_patch::patch(&mut object, std::slice::from_ref(&operation));
        plain.push(operation);
    }
    Ok(Patch(plain))
}

/// Turns the addition of a field whose parents are missing into the addition of the first missing parent.
fn with_parents(fields: &mut Map<String, Json>, object: &Json) {
    let Some(pointer) = fields.get("path").and_then(Json::as_str) else {
        return;
    };
    let mut path = pointer.to_owned();
    let mut value = fields.get("value").cloned().unwrap_or_default();
    while let Some((parent, last)) = path.rsplit_once('/') {
        if object
            .pointer(parent)
            .is_some_and(|parent| !parent.is_null())
        {
            break;
        }
        value = match last {
            // What is added to a list that is missing is a list with one item.
            "-" | "0" => json!([value]),
            key => json!({key.replace("~1", "/").replace("~0", "~"): value}),
        };
        path.truncate(parent.len());
    }
    fields.insert("path".to_owned(), Json::String(path));
    fields.insert("value".to_owned(), value);
}

fn field_path(rule: &str, field: &Json) -> Result<FieldPath, Misshapen> {
    match field {
        Json::String(text) => text
            .parse()
            .map_err(|_| wrong(rule, &format!("has `{text}` as `field`, which is no path"))),
        Json::Array(steps) => steps
            .iter()
            .map(|step| match step {
                Json::String(key) => Ok(Segment::Key(key.clone())),
                Json::Number(index) => index
                    .as_u64()
                    .and_then(|index| usize::try_from(index).ok())
                    .map(Segment::Index)
                    .ok_or_else(|| wrong(rule, &format!("has {index} as a step of a path"))),
                other => Err(wrong(
                    rule,
                    &format!("has {} as a step of a path", shown(other)),
                )),
            })
            .collect::<Result<Vec<_>, _>>()
            .map(FieldPath::of),
        other => Err(wrong(
            rule,
            &format!("has {} as `field`; expects a list of steps", shown(other)),
        )),
    }
}

fn text(rule: &str, fields: &Map<String, Json>, key: &str) -> Result<Option<String>, Misshapen> {
    match fields.get(key) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(wrong(
            rule,
            &format!("has {} as `{key}`; expects a text", shown(other)),
        )),
    }
}

/// A text in one line that is not too long.
fn line(text: &str) -> String {
    let mut line = text
        .split(|letter: char| letter.is_control())
        .map(str::trim)
        .collect::<Vec<_>>()
        .join(" ");
    if let Some((end, _)) = line.char_indices().nth(MAX_MESSAGE) {
        line.truncate(end);
        line.push('…');
    }
    line.trim().to_owned()
}

fn wrong(rule: &str, what: &str) -> Misshapen {
    Misshapen(format!("`{rule}` {what}"))
}

fn name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Set(_) => "a set",
        Value::Object(_) => "an object",
        Value::Undefined => "undefined",
    }
}

fn shown(value: &Json) -> String {
    let mut text = value.to_string();
    if let Some((end, _)) = text.char_indices().nth(60) {
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests;
