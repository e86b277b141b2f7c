//! Between `serde_json::Value` and the evaluator's own values.
//!
//! On the way in a document is copied once and then shared: cloning a value of the evaluator is counting a reference.
//! On the way out everything is bounded: a value may share its parts so often that written out it would fill the
//! memory (`a := [b, b]`, `b := [c, c]`, …), so the copy stops at a number of nodes and bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use regorus::Value;

/// Most nodes that an answer or an argument of a builtin may have when written out in full.
pub(super) const MAX_NODES: usize = 100_000;
/// Most bytes of text that an answer or an argument of a builtin may have when written out in full.
pub(super) const MAX_TEXT: usize = 1 << 20;
/// Deepest nesting of an answer.
const MAX_DEPTH: usize = 64;

/// Why a value of the evaluator has no JSON form that is fit for use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotJson {
    /// Written out it would be longer than any answer needs to be.
    #[error("the value is too large")]
    TooLarge,
    /// Nested deeper than any answer needs to be.
    #[error("the value is nested too deeply")]
    TooDeep,
    /// An object with a key that is not a string.
    #[error("an object key is not a string")]
    KeyNotString,
    /// A number that JSON cannot hold.
    #[error("a number is out of range")]
    Number,
    /// Undefined inside a value.
    #[error("the value is undefined")]
    Undefined,
}

/// Copies a JSON document into the evaluator.
pub(super) fn from_json(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(flag) => Value::Bool(*flag),
        serde_json::Value::Number(number) => from_number(number),
        serde_json::Value::String(text) => string(text),
        serde_json::Value::Array(items) => array(items.iter().map(from_json)),
        serde_json::Value::Object(fields) => object(
            fields
                .iter()
                .map(|(key, value)| (key.as_str(), from_json(value))),
        ),
    }
}

/// Copies the fields that `keep` accepts of an object; any other value is copied whole.
pub(super) fn from_json_fields(
    value: &serde_json::Value,
    keep: impl Fn(&str) -> bool,
    convert: impl Fn(&str, &serde_json::Value) -> Value,
) -> Value {
    match value {
        serde_json::Value::Object(fields) => object(
            fields
                .iter()
                .filter(|(key, _)| keep(key))
                .map(|(key, value)| (key.as_str(), convert(key, value))),
        ),
        other => from_json(other),
    }
}

/// A string of the evaluator.
pub(super) fn string(text: &str) -> Value {
    Value::String(Arc::from(text))
}

/// An array of the evaluator.
pub(super) fn array(items: impl IntoIterator<Item = Value>) -> Value {
    Value::from(items.into_iter().collect::<Vec<_>>())
}

/// An object of the evaluator.
pub(super) fn object<'k>(fields: impl IntoIterator<Item = (&'k str, Value)>) -> Value {
    Value::from(
        fields
            .into_iter()
            .map(|(key, value)| (string(key), value))
            .collect::<BTreeMap<_, _>>(),
    )
}

/// Copies a value out of the evaluator, within the bounds of an answer. Sets become arrays in their sorted order.
pub(super) fn to_json(value: &Value) -> Result<serde_json::Value, NotJson> {
    let mut room = Room {
        nodes: MAX_NODES,
        text: MAX_TEXT,
    };
    copy_out(value, &mut room, 0)
}

/// How long a value would be when written out: its bytes of text, or nothing when it has too many nodes or bytes.
///
/// Not recursive: how deep a value is nested is the policy's choice.
pub(super) fn text_length<'v>(values: impl IntoIterator<Item = &'v Value>) -> Option<usize> {
    let mut open: Vec<&Value> = values.into_iter().collect();
    let (mut nodes, mut text) = (0_usize, 0_usize);
    while let Some(value) = open.pop() {
        nodes += 1;
        // Punctuation, or a number's digits.
        text += 8;
        match value {
            Value::String(part) => text += part.len(),
            Value::Array(items) => open.extend(items.iter()),
            Value::Set(items) => open.extend(items.iter()),
            Value::Object(fields) => {
                open.extend(fields.iter().flat_map(|(key, value)| [key, value]));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Undefined => {}
        }
        if nodes + open.len() > MAX_NODES || text > MAX_TEXT {
            return None;
        }
    }
    Some(text)
}

/// What is left of the bounds of an answer.
struct Room {
    nodes: usize,
    text: usize,
}

impl Room {
    fn take(&mut self, text: usize) -> Result<(), NotJson> {
        self.nodes = self.nodes.checked_sub(1).ok_or(NotJson::TooLarge)?;
        self.text = self.text.checked_sub(text).ok_or(NotJson::TooLarge)?;
        Ok(())
    }
}

fn copy_out(value: &Value, room: &mut Room, depth: usize) -> Result<serde_json::Value, NotJson> {
    if depth > MAX_DEPTH {
        return Err(NotJson::TooDeep);
    }
    room.take(if let Value::String(text) = value {
        text.len()
    } else {
        0
    })?;
    Ok(match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(flag) => serde_json::Value::Bool(*flag),
        Value::Number(_) => to_number(value)?,
        Value::String(text) => serde_json::Value::String(text.to_string()),
        Value::Array(items) => serde_json::Value::Array(
            items
                .iter()
                .map(|item| copy_out(item, room, depth + 1))
                .collect::<Result<_, _>>()?,
        ),
        Value::Set(items) => serde_json::Value::Array(
            items
                .iter()
                .map(|item| copy_out(item, room, depth + 1))
                .collect::<Result<_, _>>()?,
        ),
        Value::Object(fields) => {
            let mut copy = serde_json::Map::new();
            for (key, value) in fields.iter() {
                let Value::String(key) = key else {
                    return Err(NotJson::KeyNotString);
                };
                room.take(key.len())?;
                copy.insert(key.to_string(), copy_out(value, room, depth + 1)?);
            }
            serde_json::Value::Object(copy)
        }
        Value::Undefined => return Err(NotJson::Undefined),
    })
}

fn from_number(number: &serde_json::Number) -> Value {
    if let Some(integer) = number.as_i64() {
        Value::from(integer)
    } else if let Some(integer) = number.as_u64() {
        Value::from(integer)
    } else {
        number.as_f64().map_or(Value::Null, Value::from)
    }
}

fn to_number(value: &Value) -> Result<serde_json::Value, NotJson> {
    if let Ok(integer) = value.as_i64() {
        return Ok(serde_json::Value::from(integer));
    }
    if let Ok(integer) = value.as_u64() {
        return Ok(serde_json::Value::from(integer));
    }
    let float = value.as_f64().map_err(|_| NotJson::Number)?;
    serde_json::Number::from_f64(float)
        .map(serde_json::Value::Number)
        .ok_or(NotJson::Number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A value of `levels` levels, each naming the one below it twice: 2^levels nodes when written out.
    fn doubled(levels: usize) -> Value {
        let mut value = string("x");
        for _ in 0..levels {
            value = array([value.clone(), value]);
        }
        value
    }

    #[test]
    fn a_document_survives_the_way_in_and_out() {
        let document = json!({
            "null": null, "bool": true, "int": -3, "big": u64::MAX, "float": 1.5,
            "text": "ü", "array": [1, [2]], "object": {"b": {}, "a": []},
        });
        assert_eq!(to_json(&from_json(&document)), Ok(document));
    }

    #[test]
    fn a_value_that_shares_its_parts_is_not_written_out() {
        assert_eq!(to_json(&doubled(40)), Err(NotJson::TooLarge));
        assert_eq!(text_length([&doubled(40)]), None);
        assert!(text_length([&doubled(5)]).is_some());
    }

    #[test]
    fn a_deep_value_is_refused_without_recursion() {
        let mut value = Value::Null;
        for _ in 0..1_000 {
            value = array([value]);
        }
        assert_eq!(to_json(&value), Err(NotJson::TooDeep));
        assert!(text_length([&value]).is_some());
    }

    #[test]
    fn a_key_that_is_not_a_string_is_refused() {
        let value = Value::from(BTreeMap::from([(Value::from(1), Value::Null)]));
        assert_eq!(to_json(&value), Err(NotJson::KeyNotString));
    }
}
