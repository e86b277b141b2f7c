//! The place of a field: exact where it is written, next to it where it is missing.

use std::fmt::Write as _;

use ringfence::k8s::yaml::{Document, Place, Text};
use ringfence::netpol::FieldPath;

use crate::read;

fn place(document: &Document, field: &str) -> Place {
    document
        .places
        .place(&field.parse::<FieldPath>().expect("a field path"))
}

/// `line:column text` of each field of the first document.
fn told(text: &str, fields: &[&str]) -> String {
    let (text, reading) = read(text);
    let document = &reading.documents[0];
    let mut told = String::new();
    for field in fields {
        let place = place(document, field);
        let excerpt = &text.as_str()[place.range.clone()];
        writeln!(told, "{field} = {}:{} {excerpt}", place.line, place.column).expect("a string");
    }
    told
}

const POLICY: &str = r#"# A policy.
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: "db"
  labels: {app: db, 'app.kubernetes.io/name': x}
spec:
  podSelector: {}
  policyTypes:
  - Ingress
  ingress:
    - from:
        - podSelector:
            matchLabels:
              app: api
        -   ipBlock:
              cidr:   0.0.0.0/0   # everything
      ports: [ {port: 5432} ]
  egress:
  note: |
    two
    lines
"#;

#[test]
fn a_value_on_one_line_is_its_own_place() {
    insta::assert_snapshot!(
        told(POLICY, &[
            "spec.ingress[0].from[1].ipBlock.cidr",
            "metadata.name",
            "metadata.labels.app",
            r#"metadata.labels["app.kubernetes.io/name"]"#,
            "spec.podSelector",
            "spec.policyTypes[0]",
            "spec.ingress[0].ports[0].port",
            "metadata.labels",
        ]),
        @r#"
    spec.ingress[0].from[1].ipBlock.cidr = 17:23 0.0.0.0/0
    metadata.name = 5:9 "db"
    metadata.labels.app = 6:17 db
    metadata.labels["app.kubernetes.io/name"] = 6:47 x
    spec.podSelector = 8:16 {}
    spec.policyTypes[0] = 10:5 Ingress
    spec.ingress[0].ports[0].port = 18:23 5432
    metadata.labels = 6:11 {app: db, 'app.kubernetes.io/name': x}
    "#
    );
}

#[test]
fn a_longer_value_has_the_place_of_its_key_or_of_its_first_line() {
    insta::assert_snapshot!(
        told(POLICY, &["", "spec", "spec.ingress", "spec.ingress[0]", "spec.ingress[0].from[1]", "spec.egress", "spec.note"]),
        @"
     = 2:1 apiVersion: networking.k8s.io/v1
    spec = 7:1 spec
    spec.ingress = 11:3 ingress
    spec.ingress[0] = 12:7 from:
    spec.ingress[0].from[1] = 16:13 ipBlock:
    spec.egress = 19:3 egress
    spec.note = 20:3 note
    "
    );
}

#[test]
fn a_missing_field_has_the_place_of_the_deepest_key_above_it() {
    insta::assert_snapshot!(
        told(POLICY, &[
            "metadata.labels.team",
            "metadata.annotations.owner",
            "spec.ingress[0].from[0].namespaceSelector",
            "spec.ingress[7]",
            "spec.podSelector.matchLabels.app",
            "spec.policyTypes[1]",
            "status",
        ]),
        @"
    metadata.labels.team = 6:3 labels
    metadata.annotations.owner = 4:1 metadata
    spec.ingress[0].from[0].namespaceSelector = 13:11 podSelector:
    spec.ingress[7] = 11:3 ingress
    spec.podSelector.matchLabels.app = 8:3 podSelector
    spec.policyTypes[1] = 9:3 policyTypes
    status = 2:1 apiVersion: networking.k8s.io/v1
    "
    );
}

/// An alias stands where it is used; what it repeats stands where it is written, for there it is to be edited.
#[test]
fn what_an_alias_repeats_stands_at_the_anchor() {
    let text = "\
base: &base
  app: web
  deep: &deep {x: 1}
one: *base
two:
  <<: *base
  tier: front
three: {<<: [*deep, {z: 2}]}
";
    insta::assert_snapshot!(
        told(text, &["one", "one.app", "one.deep.x", "two.app", "two.tier", "two.deep", "three.x", "three.z", "two.missing"]),
        @"
    one = 4:6 *base
    one.app = 2:8 web
    one.deep.x = 3:19 1
    two.app = 2:8 web
    two.tier = 7:9 front
    two.deep = 3:15 {x: 1}
    three.x = 3:19 1
    three.z = 8:25 2
    two.missing = 5:1 two
    "
    );
}

#[test]
fn keys_are_found_by_what_they_become() {
    insta::assert_snapshot!(
        told("yes: 1\n012: 2\n\"a\\tb\": 3\n'it''s': 4\n\"q\": 5\n? long\n: 6\n&k key: *k\n", &[
            "true", "10", "[\"a\tb\"]", "[\"it's\"]", "q", "long", "key", "yes",
        ]),
        @r#"
    true = 1:6 1
    10 = 2:6 2
    ["a	b"] = 3:9 3
    ["it's"] = 4:10 4
    q = 5:6 5
    long = 7:3 6
    key = 8:9 *k
    yes = 1:1 yes: 1
    "#
    );
}

#[test]
fn json_has_places_too() {
    let text = "{\"kind\": \"List\",\n \"items\": [\n  {\"a\\u0062c\": \"x\\\"y\"},\n  {}\n ]}";
    insta::assert_snapshot!(
        told(text, &["kind", "items", "items[0]", "items[0].abc", "items[1]", "items[1].a"]),
        @r#"
    kind = 1:10 "List"
    items = 2:2 "items"
    items[0] = 3:3 {"a\u0062c": "x\"y"}
    items[0].abc = 3:16 "x\"y"
    items[1] = 4:3 {}
    items[1].a = 4:3 {}
    "#
    );
}

#[test]
fn columns_count_characters_and_lines_count_from_the_start_of_the_file() {
    let text = "\u{feff}a: 1\r\n---\r\nä: \"ö\" # ü\r\nb: {é: x}\r\n";
    let (text, reading) = read(text);
    let extent = |index: usize, field: &str| {
        let place = place(&reading.documents[index], field);
        (place.line, place.column, place.end_column)
    };
    assert_eq!(extent(0, "a"), (1, 4, 5));
    assert_eq!(extent(1, r#"["ä"]"#), (3, 4, 7));
    assert_eq!(extent(1, r#"b["é"]"#), (4, 8, 9));
    assert_eq!(text.line(3), Some("ä: \"ö\" # ü"));
    assert_eq!((text.line(0), text.line(9)), (None, None));
}

#[test]
fn any_range_has_a_place() {
    let text = Text::new("x", "a\u{e4}\n\nb");
    for start in 0..9 {
        for end in 0..9 {
            let place = text.place(&(start..end));
            assert!(place.line <= 3 && place.column <= place.end_column);
        }
    }
}

#[test]
fn the_source_of_a_document_is_its_text_as_it_stands_in_the_file() {
    let sources = |text: &str| -> Vec<String> {
        let (_, reading) = read(text);
        let documents = reading.documents.iter();
        documents
            .map(|document| document.places.source().to_owned())
            .collect()
    };
    let two = "# Head.\n---\nkind: A\nspec: {x: 1} # why\n\n---\n  kind: B\n  spec:\n    - y\n\n";
    assert_eq!(
        sources(two),
        ["kind: A\nspec: {x: 1}", "  kind: B\n  spec:\n    - y"]
    );
    let items = |text: &str| -> Vec<String> {
        let (_, reading) = read(text);
        let items = (0..).map_while(|index| reading.documents[0].places.item("items", index));
        items.map(|item| item.source().to_owned()).collect()
    };
    let list = "apiVersion: v1\nkind: List\nitems:\n  - kind: A\n    spec: x\n  - kind: B\n";
    assert_eq!(items(list), ["  - kind: A\n    spec: x", "  - kind: B"]);
    let json = r#"{"apiVersion": "v1", "kind": "List", "items": [{"kind": "A"}, {"kind": "B"}]}"#;
    assert_eq!(items(json), [r#"{"kind": "A"}"#, r#"{"kind": "B"}"#]);
}
