//! Bad input: every kind gets an answer that says what is wrong and where, and nothing panics.

use std::fmt::Write as _;
use std::sync::Arc;

use proptest::prelude::*;
use ringfence::k8s::manifests::{Input, Loaded, load};
use ringfence::k8s::yaml::{self, FaultKind, Limits, Text};
use ringfence::netpol::FieldPath;
use serde_json::Value;

use crate::{faults, read};

fn told(text: &str) -> Vec<String> {
    let (text, reading) = read(text);
    faults(&text, &reading)
}

fn load_bytes(bytes: impl Into<Vec<u8>>, limits: &Limits) -> Loaded {
    let input = Input::Bytes {
        name: "<stdin>".to_owned(),
        bytes: bytes.into(),
    };
    load(vec![input], limits)
}

#[test]
fn each_mistake_has_its_line_and_column_and_words() {
    let mistakes = [
        "a: [1, 2\n",
        "a: \"x\n",
        "a:\n\t- b\n",
        "a: b: c\n",
        "a:\n  - b\n c: d\n",
        "a: 1\nb\nc: 2\n",
        "name: {{ .Values.name }}\n",
        "a: @b\n",
        "a: *b\n",
        "a: &b [*b]\n",
        "<<: 1\n",
        "? [a]\n: b\n",
        "~: a\n",
        "a: .inf\n",
        "a: !!int x\n",
        "a: {b:}\n",
        "{\"a\": tru, \"b\" 1}",
        "{\"a\": \"x",
    ];
    let mut answers = String::new();
    for mistake in mistakes {
        writeln!(answers, "{mistake:?} -> {}", told(mistake).join(" | ")).expect("a string");
    }
    insta::assert_snapshot!(answers);
}

#[test]
fn a_broken_document_leaves_the_others_readable() {
    let (text, reading) =
        read("a: 1\n---\nb: [\n---\nc: 'x\n---\nd: 4\n---\n? {}\n: 5\n---\ne: 6\n");
    let values: Vec<Value> = reading
        .documents
        .iter()
        .map(|document| document.value.clone())
        .collect();
    assert_eq!(
        values,
        [
            serde_json::json!({"a": 1}),
            serde_json::json!({"d": 4}),
            serde_json::json!({"e": 6})
        ]
    );
    let lines: Vec<usize> = reading
        .faults
        .iter()
        .map(|fault| text.place(&fault.range).line)
        .collect();
    assert_eq!(lines, [3, 6, 9]);
}

#[test]
fn a_billion_laughs_stop_early() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..20 {
        let alias = format!("*a{}", level - 1);
        writeln!(
            bomb,
            "a{level}: &a{level} [{}]",
            [alias.as_str(); 10].join(", ")
        )
        .expect("a string");
    }
    assert_eq!(
        told(&bomb),
        ["6:15 the aliases of this document repeat more than 400000 values"]
    );
}

#[test]
fn few_aliases_of_a_long_text_count_by_its_length() {
    let text = format!(
        "a: &a {}\nb: [{}]\n",
        "x".repeat(1 << 20),
        vec!["*a"; 1000].join(", ")
    );
    assert!(told(&text)[0].contains("the aliases of this document repeat more than 400000 values"));
}

#[test]
fn merge_keys_are_no_way_round_the_limit() {
    let entries: Vec<String> = (0..1000).map(|entry| format!("k{entry}: 1")).collect();
    let mut text = format!("a: &a {{{}}}\n", entries.join(", "));
    for copy in 0..500 {
        writeln!(text, "b{copy}:\n  <<: *a").expect("a string");
    }
    assert!(told(&text)[0].contains("repeat more than"));
}

#[test]
fn deep_nesting_is_refused_in_every_style() {
    for text in [
        "[".repeat(100_000),
        "{\"a\":".repeat(100_000),
        "{\"a\":[".repeat(100_000),
        "- ".repeat(20_000),
    ] {
        assert!(
            told(&text)[0].ends_with("nested more than 128 levels deep"),
            "{:?}",
            told(&text)
        );
    }
    let mut block = String::new();
    for level in 0..1000 {
        writeln!(block, "{}a:", " ".repeat(level)).expect("a string");
    }
    assert_eq!(told(&block), ["129:129 nested more than 128 levels deep"]);
    // Each line is flat; what its alias repeats is one level deeper every time.
    let mut chain = String::from("a0: &a0 [1]\n");
    for level in 1..1000 {
        writeln!(chain, "a{level}: &a{level} [*a{}]", level - 1).expect("a string");
    }
    assert!(told(&chain)[0].ends_with("nested more than 128 levels deep"));
}

#[test]
fn a_file_with_too_many_values_is_refused_as_a_whole() {
    let limits = Limits {
        values: 1000,
        ..Limits::default()
    };
    let text = format!("a: 1\n---\nb: [{}]\n", vec!["1"; 2000].join(","));
    let reading = yaml::read(&Arc::new(Text::new("x", text)), &limits);
    assert!(reading.documents.is_empty());
    assert_eq!(
        reading.faults[0].kind,
        FaultKind::TooManyValues { limit: 1000 }
    );
}

#[test]
fn a_file_that_is_too_large_is_refused_unread() {
    let limits = Limits {
        bytes: 10,
        ..Limits::default()
    };
    let loaded = load_bytes("a: 0123456789", &limits);
    assert_eq!(
        loaded.problems[0].message,
        "the file is larger than 10 bytes"
    );
    assert!(loaded.problems[0].fatal);
}

#[test]
fn bytes_that_are_no_text_have_a_place() {
    let loaded = load_bytes(*b"kind: Pod\nname: \xe4pfel\n", &Limits::default());
    let problem = &loaded.problems[0];
    assert_eq!((problem.line, problem.column), (2, 7));
    assert_eq!(problem.message, "not UTF-8: byte 16 starts no character");
    let loaded = load_bytes(*b"\xff\xfea\0:\0", &Limits::default());
    assert_eq!(
        loaded.problems[0].message,
        "the file is UTF-16; save it as UTF-8"
    );
}

/// Each of these is a file that ends where it should not.
#[test]
fn every_beginning_of_a_manifest_gets_an_answer() {
    let whole = include_str!("../../deploy/examples/shop/admin-db.yaml");
    let json =
        r#"{"apiVersion": "v1", "items": [{"kind": "Pod", "n": [1.5e3, true, null, "\u00e4"]}]}"#;
    for text in [whole, json] {
        for end in (0..text.len())
            .step_by(5)
            .filter(|end| text.is_char_boundary(*end))
        {
            check_places(&text[..end]);
        }
    }
}

#[test]
fn a_file_of_nothing_but_duplicates_is_read_in_time() {
    let text = "a: 1\n".repeat(50_000);
    let (_, reading) = read(&text);
    assert_eq!(reading.documents[0].duplicates.len(), 100);
}

/// Reads a text and asks for the place of everything in it.
fn check_places(text: &str) {
    let (text, reading) = read(text);
    for fault in &reading.faults {
        let place = text.place(&fault.range);
        assert!(text.line(place.line).is_some());
    }
    for document in &reading.documents {
        let mut fields = Vec::new();
        collect(&document.value, &FieldPath::root(), &mut fields);
        for field in fields.iter().take(50) {
            assert!(document.places.has(field), "{field} of {:?}", text.as_str());
            let place = document.places.place(field);
            assert!(
                text.as_str()
                    .get(place.range.clone())
                    .is_some_and(|text| !text.contains('\n'))
            );
        }
    }
}

fn collect(value: &Value, at: &FieldPath, fields: &mut Vec<FieldPath>) {
    fields.push(at.clone());
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                collect(value, &at.key(key), fields);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                collect(item, &at.index(index), fields);
            }
        }
        _ => {}
    }
}

/// Pieces that YAML gives a meaning to.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "a",
            "b: ",
            "- ",
            "  ",
            "\n",
            "\n  ",
            "\n- ",
            ": ",
            "? ",
            "{",
            "}",
            "[",
            "]",
            ",",
            "'x'",
            "\"y\"",
            "|\n",
            ">-\n",
            "&a ",
            "*a",
            "<<: ",
            "# c",
            "!!int ",
            "!t ",
            "---\n",
            "...\n",
            "%YAML 1.1\n",
            "\t",
            "yes",
            "012",
            "~",
            "\"\\u00e9\"",
            "\r\n",
            "é",
            "\u{feff}",
            "\u{85}",
            "\0",
            "{{ .x }}",
            "x: 1\n",
            "y:\n",
            "- - ",
            "null",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,3}",
    ]
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(".{0,6}", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_bytes_get_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        load_bytes(bytes, &Limits::default());
    }

    #[test]
    fn any_pieces_of_yaml_get_an_answer(pieces in prop::collection::vec(piece(), 0..30)) {
        check_places(&pieces.concat());
    }

    #[test]
    fn a_manifest_with_something_put_in_or_left_out_gets_an_answer(
        at in any::<prop::sample::Index>(),
        length in 0_usize..8,
        with in piece(),
    ) {
        let whole = include_str!("../../deploy/examples/shop/frontend.yaml");
        let mut text: Vec<char> = whole.chars().collect();
        let at = at.index(text.len());
        let end = (at + length).min(text.len());
        text.splice(at..end, with.chars());
        check_places(&text.into_iter().collect::<String>());
    }

    #[test]
    fn json_is_read_back_as_it_was_written(value in json()) {
        let value = serde_json::json!({"value": value});
        for written in [value.to_string(), format!("{value:#}")] {
            let (text, reading) = read(&written);
            prop_assert!(reading.faults.is_empty(), "{:?}", faults(&text, &reading));
            prop_assert_eq!(&reading.documents[0].value, &value);
            check_places(&written);
        }
    }
}
