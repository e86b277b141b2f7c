//! Every builtin with arguments that nobody would give it.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use ringfence::rego::{PolicySet, RegoEngine, Trial};

use crate::support::{Setting, create, failed, files, pod, policy};

/// All that a policy may call, with the number of arguments.
const BUILTINS: &[(&str, usize)] = &[
    ("abs", 1),
    ("array.concat", 2),
    ("array.reverse", 1),
    ("array.slice", 3),
    ("base64.decode", 1),
    ("base64.encode", 1),
    ("base64.is_valid", 1),
    ("bits.and", 2),
    ("bits.lsh", 2),
    ("bits.negate", 1),
    ("bits.or", 2),
    ("bits.rsh", 2),
    ("bits.xor", 2),
    ("ceil", 1),
    ("concat", 2),
    ("contains", 2),
    ("count", 1),
    ("endswith", 2),
    ("floor", 1),
    ("format_int", 2),
    ("glob.match", 3),
    ("glob.quote_meta", 1),
    ("graph.reachable", 2),
    ("indexof", 2),
    ("indexof_n", 2),
    ("intersection", 1),
    ("is_array", 1),
    ("is_string", 1),
    ("json.filter", 2),
    ("json.is_valid", 1),
    ("json.marshal", 1),
    ("json.marshal_with_options", 2),
    ("json.remove", 2),
    ("json.unmarshal", 1),
    ("lower", 1),
    ("max", 1),
    ("min", 1),
    ("net.cidr_contains", 2),
    ("net.cidr_contains_matches", 2),
    ("net.cidr_expand", 1),
    ("net.cidr_intersects", 2),
    ("net.cidr_is_valid", 1),
    ("net.cidr_merge", 1),
    ("net.cidr_overlap", 2),
    ("numbers.range", 2),
    ("numbers.range_step", 3),
    ("object.filter", 2),
    ("object.get", 3),
    ("object.keys", 1),
    ("object.remove", 2),
    ("object.subset", 2),
    ("object.union", 2),
    ("object.union_n", 1),
    ("product", 1),
    ("regex.find_all_string_submatch_n", 3),
    ("regex.find_n", 3),
    ("regex.is_valid", 1),
    ("regex.match", 2),
    ("regex.replace", 3),
    ("regex.split", 2),
    ("replace", 3),
    ("ringfence.allowed", 4),
    ("ringfence.covered", 2),
    ("ringfence.namespace_labels", 1),
    ("ringfence.near_miss", 2),
    ("ringfence.verdict", 4),
    ("round", 1),
    ("semver.compare", 2),
    ("semver.is_valid", 1),
    ("sort", 1),
    ("split", 2),
    ("sprintf", 2),
    ("startswith", 2),
    ("strings.any_prefix_match", 2),
    ("strings.any_suffix_match", 2),
    ("strings.count", 2),
    ("strings.replace_n", 2),
    ("strings.reverse", 1),
    ("substring", 3),
    ("sum", 1),
    ("time.add_date", 4),
    ("time.clock", 1),
    ("time.date", 1),
    ("time.diff", 2),
    ("time.format", 1),
    ("time.parse_duration_ns", 1),
    ("time.parse_ns", 2),
    ("time.parse_rfc3339_ns", 1),
    ("time.weekday", 1),
    ("to_number", 1),
    ("trim", 2),
    ("trim_left", 2),
    ("trim_prefix", 2),
    ("trim_right", 2),
    ("trim_space", 1),
    ("trim_suffix", 2),
    ("type_name", 1),
    ("union", 1),
    ("units.parse", 1),
    ("units.parse_bytes", 1),
    ("upper", 1),
    ("walk", 1),
];

/// What nobody would give.
const ODD: &[&str] = &[
    "null",
    "true",
    "0",
    "-1",
    "1.5",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551616",
    "1e300",
    "\"\"",
    "\"a\"",
    "\"%\"",
    "\"%٣d %5 %. %c %x %q %v %!\"",
    "\"(\"",
    "\"[[[\"",
    "\"{a,{b,{c\"",
    "\"**/**\"",
    "\"\\u0000\"",
    "\"äöü𝄞\"",
    "\"10.0.0.0/8\"",
    "\"::/0\"",
    "\"10.0.0.0/99\"",
    "\"2026-02-30T99:00:00Z\"",
    "\"-1ns\"",
    "\"9e\"",
    "[]",
    "[[]]",
    "[null, \"a\", 1]",
    "[1, \"UTC\", \"2006\"]",
    "[9223372036854775807, \"Nowhere\"]",
    "{}",
    "{\"a\": {\"a\": {}}}",
    "{1: 2}",
    "{\"namespace\": \"shop\", \"labels\": {\"a\": 1}}",
    "{\"ip\": \"1.2.3.4\"}",
    "set()",
    "{1, \"a\", [2]}",
    "{{1}, {2}}",
];

#[test]
fn no_builtin_brings_the_process_down_or_takes_long() {
    let setting = Setting::new();
    let review = create(&pod("web"));
    for (name, arguments) in BUILTINS {
        // Every odd value in every place, with some of the others beside it.
        let mut calls = Vec::new();
        for one in 0..ODD.len() {
            for round in 0..if *arguments == 1 { 1 } else { 8 } {
                let value = |place: usize| ODD[(one + place * (5 * round + 1)) % ODD.len()];
                let values: Vec<&str> = (0..*arguments).map(value).collect();
                calls.push(format!("{name}({})", values.join(", ")));
            }
        }
        for calls in calls.chunks(400) {
            let mut rules = String::new();
            for (index, call) in calls.iter().enumerate() {
                let _ = writeln!(
                    rules,
                    "deny contains \"{index}\" if {{ x := {call}; x == \"never\" }}"
                );
            }
            let text = policy("odd", &rules);
            let engine = RegoEngine::new(
                PolicySet::only(&files(&[&text]), &Trial::None)
                    .unwrap_or_else(|error| panic!("{name}: {error}")),
            );
            let start = Instant::now();
            let mut answers = setting.ask(&engine, &review);
            // On a busy machine a thread may not get its turn in time; one that does not stop never will.
            for _ in 0..4 {
                if failed(&answers)
                    .iter()
                    .any(|reason| reason.contains("did not stop"))
                {
                    std::thread::sleep(Duration::from_millis(200));
                    answers = setting.ask(&engine, &review);
                }
            }
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "{name} took {:?}",
                start.elapsed()
            );
            for reason in failed(&answers) {
                // A failure is fine; giving up is not.
                assert!(!reason.contains("did not stop"), "{name}: {reason}");
                assert!(!reason.contains("panicked"), "{name}: {reason}");
            }
        }
    }
}
