//! Equality with the Go library that `kubectl` reads manifests with, on its recorded answers.

use serde::Deserialize;
use serde_json::Value;

use crate::{faults, read};

#[derive(Deserialize)]
struct Table<C> {
    cases: Vec<C>,
}

/// One text and the library's answer to it.
#[derive(Deserialize)]
struct Case {
    text: String,
    /// What the library makes of it.
    #[serde(default, deserialize_with = "present")]
    json: Option<Value>,
    /// Why the library refuses it.
    error: Option<String>,
    /// What is read where the library refuses: text that can be read in one way only.
    #[serde(default, deserialize_with = "present")]
    read: Option<Value>,
    /// Why we refuse what the library reads: another reader could read it otherwise.
    refused: Option<String>,
}

#[derive(Deserialize)]
struct Stream {
    text: String,
    /// The documents up to the first error.
    documents: Vec<Value>,
    error: Option<String>,
    /// What is read where that is more, for it goes on after an error.
    read: Option<Vec<Value>>,
    faults: Option<usize>,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Equality, but for the last bit of floats: the table is read by a parser that does not round them exactly.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) if left.is_f64() && right.is_f64() => {
            let (left, right) = (
                left.as_f64().unwrap_or(f64::NAN),
                right.as_f64().unwrap_or(f64::NAN),
            );
            (left - right).abs() <= left.abs() * 1e-15
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .zip(right)
                    .all(|(left, right)| same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            let equal = |(key, value): (&String, &Value)| {
                right.get(key).is_some_and(|other| same(value, other))
            };
            left.len() == right.len() && left.iter().all(equal)
        }
        _ => left == right,
    }
}

#[test]
fn every_text_reads_as_the_library_of_kubectl_reads_it() {
    let table: Table<Case> =
        serde_json::from_str(include_str!("../data/yaml/kubectl.json")).expect("a table");
    assert!(table.cases.len() > 400, "only {} cases", table.cases.len());
    for case in table.cases {
        let (text, mut reading) = read(&case.text);
        let faults = faults(&text, &reading);
        let documents = reading.documents.drain(..);
        let value = documents.map(|document| document.value).next();
        let value = value.unwrap_or(Value::Null);
        let told = format!("{:?} read as {value} with {faults:?}", case.text);
        match (case.json, case.error, case.read, case.refused) {
            (None, Some(_), None, None) => assert_eq!(faults.len(), 1, "{told}"),
            (Some(wanted), None, None, None) | (None, Some(_), Some(wanted), None) => {
                assert!(faults.is_empty(), "{told}");
                assert!(same(&value, &wanted), "{told}, and not {wanted}");
            }
            (Some(_), None, None, Some(reason)) => {
                assert!(faults.len() == 1 && faults[0].ends_with(&reason), "{told}");
            }
            _ => panic!("not a case: {:?}", case.text),
        }
    }
}

#[test]
fn a_file_is_cut_into_documents_as_kubectl_cuts_it() {
    let table: Table<Stream> =
        serde_json::from_str(include_str!("../data/yaml/streams.json")).expect("a table");
    for case in table.cases {
        let (_, reading) = read(&case.text);
        let values: Vec<Value> = reading
            .documents
            .into_iter()
            .map(|document| document.value)
            .collect();
        let faults = case.faults.unwrap_or(usize::from(case.error.is_some()));
        assert_eq!(
            reading.faults.len(),
            faults,
            "{:?}: {:?}",
            case.text,
            reading.faults
        );
        assert_eq!(
            values,
            case.read.unwrap_or(case.documents),
            "{:?}",
            case.text
        );
    }
}

/// `kubectl` sends what is merged over the keys before it, which YAML says the other way round.
#[test]
fn a_merge_key_after_a_key_wins_as_it_does_in_kubectl() {
    let (_, reading) = read("replicas: 1\n<<: {replicas: 2}\n");
    assert_eq!(reading.documents[0].value["replicas"], 2);
    assert!(reading.documents[0].duplicates.is_empty());
}

#[test]
fn a_key_that_stands_twice_is_told_with_both_places_and_the_last_counts() {
    let (text, reading) = read("spec:\n  rules:\n    - a: 1\n      b: 2\n      'a': 3\n");
    let document = &reading.documents[0];
    assert_eq!(document.value["spec"]["rules"][0]["a"], 3);
    let [duplicate] = document.duplicates.as_slice() else {
        panic!("{:?}", document.duplicates)
    };
    assert_eq!(duplicate.field.to_string(), "spec.rules[0].a");
    assert_eq!(text.place(&duplicate.first).line, 3);
    assert_eq!(text.place(&duplicate.second).line, 5);
    assert_eq!(
        text.place(&document.places.place(&duplicate.field).range)
            .line,
        5
    );
}

#[test]
fn keys_that_become_equal_stand_twice_as_well() {
    for text in [
        "yes: 1\n\"true\": 2\n",
        "012: 1\n10: 2\n",
        "{\"a\": 1, \"\\u0061\": 2}",
    ] {
        let (_, reading) = read(text);
        assert_eq!(reading.documents[0].duplicates.len(), 1, "{text:?}");
    }
}

#[test]
fn json_keeps_its_numbers_as_they_are() {
    let (_, reading) =
        read(r#"{"a": 1.0, "b": 1e3, "c": -0, "d": 18446744073709551615, "e": 1e-7}"#);
    let value = &reading.documents[0].value;
    assert!(value["a"].is_f64() && value["b"].is_f64());
    assert_eq!(value["c"], 0);
    assert_eq!(value["d"], u64::MAX);
    assert_eq!(value["e"], 1e-7);
}

#[test]
fn half_a_surrogate_pair_becomes_a_replacement_character_as_in_go() {
    let (_, reading) = read(r#"{"a": "x\ud800y", "b": "\ud83d\ude00", "c": "\ude00\u00e9"}"#);
    let value = &reading.documents[0].value;
    assert_eq!(value["a"], "x\u{fffd}y");
    assert_eq!(value["b"], "\u{1f600}");
    assert_eq!(value["c"], "\u{fffd}\u{e9}");
}

#[test]
fn broken_json_is_told_by_the_reading_that_got_further() {
    let (text, reading) = read("{\n  \"a\": 1,\n  \"b\" 2\n}\n");
    assert_eq!(faults(&text, &reading), ["3:7 expected `:` after the key"]);
    let (text, reading) = read("{a: 1, b: [2}\n");
    assert_eq!(
        faults(&text, &reading),
        ["1:11 mismatched bracket '[' closed by '}'"]
    );
}
