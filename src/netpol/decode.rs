//! From JSON to the typed objects of the API, with the leniency and the strictness of the API server.
//!
//! The API server decodes with Go: `null` anywhere is the zero value of its field, and a key that no field has is
//! dropped. Both differ from what serde does by itself. This deserializer reads a [`Value`] as Go would, knows the place
//! of each error, and lists the unknown fields. Nothing is copied on the way.

use serde::de::{
    self, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value, map};

use super::field::{FieldPath, Place};
use super::problem::{Problem, Quoted};

/// More unknown fields than this in one object are not listed.
const MOST_UNKNOWN_FIELDS: usize = 100;

/// More wrong types than this in one object are not looked for.
const MOST_WRONG_TYPES: usize = 10;

/// An object as far as it could be decoded.
#[derive(Debug)]
pub(crate) struct Decoded<T> {
    /// The object; fields of a wrong type are as if they were absent.
    pub(crate) object: T,
    /// The fields of a wrong type.
    pub(crate) wrong_types: Vec<Problem>,
    /// The fields that the API does not have.
    pub(crate) unknown_fields: Vec<FieldPath>,
}

/// A value that has not the type of its field.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub(super) struct DecodeError {
    /// Where; set by the innermost list or object that knows.
    field: Option<FieldPath>,
    reason: String,
}

/// One value on its way, its place, and where to note unknown fields.
struct Node<'de, 'n> {
    value: &'de Value,
    place: &'n Place<'n>,
    unknown: &'n mut Vec<FieldPath>,
}

/// The fields of an object on their way.
struct Fields<'de, 'n> {
    rest: Option<map::Iter<'de>>,
    value: Option<(&'de str, &'de Value)>,
    place: &'n Place<'n>,
    unknown: &'n mut Vec<FieldPath>,
    skipped: Option<&'static str>,
}

/// The elements of a list on their way.
struct Elements<'de, 'n> {
    rest: std::iter::Enumerate<std::slice::Iter<'de, Value>>,
    place: &'n Place<'n>,
    unknown: &'n mut Vec<FieldPath>,
}

/// Decodes an object and finds all fields of a wrong type, not only the first.
pub(crate) fn decode<T: de::DeserializeOwned>(value: &Value) -> Result<Decoded<T>, Vec<Problem>> {
    let mut wrong_types: Vec<Problem> = Vec::new();
    let mut repaired: Option<Value> = None;
    while wrong_types.len() < MOST_WRONG_TYPES {
        let mut unknown = Vec::new();
        let value_now = repaired.as_ref().unwrap_or(value);
        let node = Node {
            value: value_now,
            place: &Place::Root,
            unknown: &mut unknown,
        };
        let error = match T::deserialize(node) {
            Ok(object) => {
                return Ok(Decoded {
                    object,
                    wrong_types,
                    unknown_fields: unknown,
                });
            }
            Err(error) => error,
        };
        let problem = Problem {
            field: error.field.unwrap_or_default(),
            reason: error.reason,
        };
        // Each wrong value becomes null, which fits every field; a second error at the same place ends the search.
        let repeated = wrong_types
            .iter()
            .any(|earlier| earlier.field == problem.field);
        let copy = repaired.get_or_insert_with(|| value.clone());
        let wrong = problem.field.lookup_mut(copy);
        let Some(wrong) = wrong.filter(|_| !repeated) else {
            wrong_types.push(problem);
            break;
        };
        *wrong = Value::Null;
        wrong_types.push(problem);
    }
    Err(wrong_types)
}

// === impl DecodeError ===

impl DecodeError {
    fn at(mut self, place: &Place<'_>) -> Self {
        self.field.get_or_insert_with(|| place.to_path());
        self
    }
}

impl de::Error for DecodeError {
    fn unknown_field(_: &str, expected: &'static [&'static str]) -> Self {
        let expected = expected.join(", ");
        Self {
            field: None,
            reason: format!("unknown field; there are {expected}"),
        }
    }

    fn custom<M: std::fmt::Display>(message: M) -> Self {
        Self {
            field: None,
            reason: format!("is not valid: {}", one_line(&message.to_string())),
        }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let expected = expected.to_string();
        let expected = match expected.as_str() {
            "i32" | "i64" | "u32" | "u64" => "an integer",
            "f64" => "a number",
            "a sequence" => "a list",
            "IntOrString" => "an integer or a string",
            "Quantity" => "a quantity, such as 1, \"500m\" or \"2Gi\"",
            "a map" => "an object",
            // The names of the API's types are all that begins with a capital.
            name if name.starts_with(|first: char| first.is_ascii_uppercase()) => "an object",
            other => other,
        };
        let found = match found {
            Unexpected::Bool(value) => format!("the boolean {value}"),
            Unexpected::Unsigned(value) => format!("the integer {value}"),
            Unexpected::Signed(value) => format!("the integer {value}"),
            Unexpected::Float(value) => format!("the number {value}"),
            Unexpected::Str(text) => format!("the string {}", Quoted(text)),
            Unexpected::Unit => "null".to_owned(),
            Unexpected::Seq => "a list".to_owned(),
            Unexpected::Map => "an object".to_owned(),
            // The other ones do not come from JSON.
            other => other.to_string(),
        };
        Self {
            field: None,
            reason: format!("must be {expected}, not {found}"),
        }
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        match found {
            Unexpected::Unsigned(_) | Unexpected::Signed(_) => Self {
                field: None,
                reason: format!("the number {found} does not fit", found = number(found)),
            },
            // An `apiVersion` or `kind` of an embedded object, or a text that is no time or base64.
            other => Self {
                field: None,
                reason: format!("must be {expected}, not {other}"),
            },
        }
    }
}

fn number(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Unsigned(value) => value.to_string(),
        Unexpected::Signed(value) => value.to_string(),
        // Not asked for.
        _ => String::new(),
    }
}

/// A message that may repeat what was read, cut to what fits one line.
fn one_line(message: &str) -> String {
    let printable = message.chars().filter(|character| !character.is_control());
    printable.take(200).collect()
}

// === impl Node ===

/// Types that `null` stands for the zero value of.
macro_rules! null_is {
    ($($method:ident: $visit:ident($zero:expr);)*) => {
        $(
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
                if self.value.is_null() { visitor.$visit($zero) } else { self.deserialize_any(visitor) }
            }
        )*
    };
}

impl<'de> Node<'de, '_> {
    fn visit_object<V: Visitor<'de>>(
        self,
        object: Option<&'de Map<String, Value>>,
        skipped: Option<&'static str>,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let rest = object.map(Map::iter);
        visitor.visit_map(Fields {
            rest,
            value: None,
            place: self.place,
            unknown: self.unknown,
            skipped,
        })
    }

    fn visit_list<V: Visitor<'de>>(
        self,
        list: &'de [Value],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let rest = list.iter().enumerate();
        visitor.visit_seq(Elements {
            rest,
            place: self.place,
            unknown: self.unknown,
        })
    }
}

impl<'de> de::Deserializer<'de> for Node<'de, '_> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(value), _, _) => visitor.visit_i64(value),
                (None, Some(value), _) => visitor.visit_u64(value),
                (None, None, Some(value)) => visitor.visit_f64(value),
                (None, None, None) => Err(de::Error::custom("the number does not fit")),
            },
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(list) => self.visit_list(list, visitor),
            Value::Object(object) => self.visit_object(Some(object), None, visitor),
        }
    }

    null_is! {
        deserialize_bool: visit_bool(false);
        deserialize_i8: visit_i64(0);
        deserialize_i16: visit_i64(0);
        deserialize_i32: visit_i64(0);
        deserialize_i64: visit_i64(0);
        deserialize_u8: visit_u64(0);
        deserialize_u16: visit_u64(0);
        deserialize_u32: visit_u64(0);
        deserialize_u64: visit_u64(0);
        deserialize_f32: visit_f64(0.0);
        deserialize_f64: visit_f64(0.0);
        deserialize_str: visit_borrowed_str("");
        deserialize_string: visit_borrowed_str("");
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.value.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.value.is_null() {
            self.visit_list(&[], visitor)
        } else {
            self.deserialize_any(visitor)
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.value.is_null() {
            self.visit_object(None, None, visitor)
        } else {
            self.deserialize_any(visitor)
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        // Large, written by the API server, and nothing that anyone judges by.
        let skipped = (name == "ObjectMeta").then_some("managedFields");
        match self.value {
            Value::Null => self.visit_object(None, skipped, visitor),
            Value::Object(object) => self.visit_object(Some(object), skipped, visitor),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                self.deserialize_any(visitor)
            }
        }
    }

    /// What a visitor ignores is the value of a key that no field has.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.unknown.len() < MOST_UNKNOWN_FIELDS {
            self.unknown.push(self.place.to_path());
        }
        visitor.visit_unit()
    }

    /// The API writes one word of several as a string.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::String(word) => visitor.visit_enum(word.as_str().into_deserializer()),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => self.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

impl<'de> MapAccess<'de> for Fields<'de, '_> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, DecodeError> {
        let skipped = self.skipped;
        let next = self
            .rest
            .as_mut()
            .and_then(|rest| rest.find(|(key, _)| Some(key.as_str()) != skipped));
        let Some((key, value)) = next else {
            return Ok(None);
        };
        self.value = Some((key, value));
        // A kind that refuses unknown fields does so here.
        seed.deserialize(de::value::BorrowedStrDeserializer::new(key))
            .map(Some)
            .map_err(|error: DecodeError| error.at(&self.place.key(key)))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<S::Value, DecodeError> {
        let Some((key, value)) = self.value.take() else {
            return seed.deserialize(().into_deserializer());
        };
        let place = self.place.key(key);
        seed.deserialize(Node {
            value,
            place: &place,
            unknown: self.unknown,
        })
        .map_err(|error| error.at(&place))
    }
}

impl<'de> SeqAccess<'de> for Elements<'de, '_> {
    type Error = DecodeError;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, DecodeError> {
        let Some((index, value)) = self.rest.next() else {
            return Ok(None);
        };
        let place = self.place.index(index);
        let element = seed.deserialize(Node {
            value,
            place: &place,
            unknown: self.unknown,
        });
        element.map(Some).map_err(|error| error.at(&place))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

#[cfg(test)]
mod tests;
