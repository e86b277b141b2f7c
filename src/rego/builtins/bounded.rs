//! Builtins of the evaluator behind a look at how large their answer or their work would be. Those that panic at odd
//! arguments are here as well: their panics are caught where they are called.

use anyhow::{Result, bail};
use regorus::Value;

use super::{Supplied, TooMuch, original, text};
use crate::rego::value::{MAX_NODES, MAX_TEXT, from_json, text_length};

/// Most numbers that a range holds: all ports.
const MAX_RANGE: u64 = 1 << 16;
/// Widest field of a format.
const MAX_WIDTH: usize = 256;
/// Longest text of a number, and largest exponent in it.
const MAX_DIGITS: usize = 320;
/// Farthest shift to the left.
const MAX_SHIFT: i64 = 1024;
/// Most comparisons of characters in one search.
const MAX_WORK: usize = 1 << 26;
/// Longest glob.
const MAX_GLOB: usize = 1024;

macro_rules! bounded {
    ($($name:literal / $arguments:literal: $check:path),+ $(,)?) => {
        &[$(Supplied {
            name: $name,
            arguments: $arguments,
            call: |args| {
                $check(args)?;
                original::call($name, args)
            },
        }),+]
    };
}

macro_rules! ensure {
    ($holds:expr, $($reason:tt)+) => {
        if !$holds {
            return Err(TooMuch(format!($($reason)+)).into());
        }
    };
}

/// The bounded builtins.
pub(super) const ALL: &[Supplied] = bounded![
    "array.concat" / 2: together,
    "base64.decode" / 1: small,
    "base64.encode" / 1: small,
    "base64.is_valid" / 1: small,
    "bits.lsh" / 2: shift,
    "concat" / 2: joined,
    "glob.match" / 3: glob,
    "indexof" / 2: search,
    "indexof_n" / 2: search,
    "json.filter" / 2: small,
    "json.is_valid" / 1: small,
    "json.marshal" / 1: small,
    "json.marshal_with_options" / 2: small,
    "json.remove" / 2: small,
    "numbers.range" / 2: range,
    "numbers.range_step" / 3: range,
    "object.filter" / 2: small,
    "object.remove" / 2: small,
    "object.union" / 2: small,
    "object.union_n" / 1: small,
    "regex.find_all_string_submatch_n" / 3: pieces_of_second,
    "regex.find_n" / 3: pieces_of_second,
    "regex.replace" / 3: regex_replaced,
    "regex.split" / 2: pieces_of_second,
    "replace" / 3: replaced,
    "split" / 2: split,
    "sprintf" / 2: formatted,
    "strings.replace_n" / 2: replaced_n,
    "time.add_date" / 4: small,
    "time.clock" / 1: small,
    "time.date" / 1: small,
    "time.diff" / 2: small,
    "time.format" / 1: small,
    "time.parse_duration_ns" / 1: small,
    "time.parse_ns" / 2: small,
    "time.parse_rfc3339_ns" / 1: small,
    "time.weekday" / 1: small,
    "to_number" / 1: number,
    "units.parse" / 1: number,
    "units.parse_bytes" / 1: number,
    "walk" / 1: walked,
];

/// Builtins that are answered here.
pub(super) const REPLACED: &[Supplied] = &[
    Supplied {
        name: "json.unmarshal",
        arguments: 1,
        call: unmarshal,
    },
    Supplied {
        name: "strings.count",
        arguments: 2,
        call: counted,
    },
    Supplied {
        name: "object.subset",
        arguments: 2,
        call: subset,
    },
];

fn small(args: &[Value]) -> Result<()> {
    ensure!(text_length(args).is_some(), "an argument is too large");
    Ok(())
}

fn together(args: &[Value]) -> Result<()> {
    let items: usize = args
        .iter()
        .map(|arg| {
            if let Value::Array(items) = arg {
                items.len()
            } else {
                0
            }
        })
        .fold(0, usize::saturating_add);
    ensure!(
        items <= MAX_NODES,
        "the array would have {items} items, more than {MAX_NODES}"
    );
    Ok(())
}

fn shift(args: &[Value]) -> Result<()> {
    if let [_, by] = args {
        ensure!(
            by.as_i64().is_ok_and(|by| by <= MAX_SHIFT),
            "shifts by more than {MAX_SHIFT} bits"
        );
    }
    Ok(())
}

fn joined(args: &[Value]) -> Result<()> {
    let [delimiter, parts] = args else {
        return Ok(());
    };
    let delimiter = length(delimiter);
    let longest = |parts: &mut dyn Iterator<Item = &Value>| {
        parts.fold(0_usize, |sum, part| {
            sum.saturating_add(length(part)).saturating_add(delimiter)
        })
    };
    fits(match parts {
        Value::Array(parts) => longest(&mut parts.iter()),
        Value::Set(parts) => longest(&mut parts.iter()),
        _ => 0,
    })
}

fn glob(args: &[Value]) -> Result<()> {
    if let [pattern, _, subject] = args {
        ensure!(
            length(pattern) <= MAX_GLOB,
            "the pattern is longer than {MAX_GLOB} bytes"
        );
        fits(length(subject))?;
    }
    Ok(())
}

fn search(args: &[Value]) -> Result<()> {
    if let [subject, part] = args {
        ensure!(
            length(subject).saturating_mul(length(part)) <= MAX_WORK,
            "the texts are too long to search"
        );
        ensure!(
            length(subject) <= MAX_NODES,
            "the text is longer than {MAX_NODES} bytes"
        );
    }
    Ok(())
}

fn range(args: &[Value]) -> Result<()> {
    let [from, to, ..] = args else { return Ok(()) };
    let (Ok(from), Ok(to)) = (from.as_i64(), to.as_i64()) else {
        bail!("expects integers")
    };
    let step = args.get(2).map_or(Ok(1), Value::as_u64)?;
    let Some(count) = to.abs_diff(from).checked_div(step) else {
        bail!("expects a step above zero")
    };
    ensure!(
        count < MAX_RANGE,
        "the range has more than {MAX_RANGE} numbers"
    );
    Ok(())
}

fn pieces_of_second(args: &[Value]) -> Result<()> {
    if let [_, subject, ..] = args {
        ensure!(
            length(subject) <= MAX_NODES,
            "the text is longer than {MAX_NODES} bytes"
        );
    }
    Ok(())
}

/// A replacement may name the whole match again and again, and there is at most one match per character and end.
fn regex_replaced(args: &[Value]) -> Result<()> {
    if let [subject, _, replacement] = args {
        fits(
            length(subject)
                .saturating_add(1)
                .saturating_mul(length(replacement).saturating_add(1)),
        )?;
    }
    Ok(())
}

fn replaced(args: &[Value]) -> Result<()> {
    if let [
        Value::String(subject),
        Value::String(old),
        Value::String(new),
    ] = args
    {
        fits(length_replaced(subject, old, new))?;
    }
    Ok(())
}

fn replaced_n(args: &[Value]) -> Result<()> {
    let [Value::Object(patterns), Value::String(subject)] = args else {
        return Ok(());
    };
    // Replacements are made one after the other, so each may multiply what the one before has made.
    let mut subject = subject.to_string();
    for (old, new) in patterns.iter() {
        let (Value::String(old), Value::String(new)) = (old, new) else {
            return Ok(());
        };
        fits(length_replaced(&subject, old, new))?;
        subject = subject.replace(&**old, new);
    }
    Ok(())
}

fn split(args: &[Value]) -> Result<()> {
    if let [Value::String(subject), Value::String(delimiter)] = args {
        let pieces = if delimiter.is_empty() {
            subject.len()
        } else {
            subject.matches(&**delimiter).count()
        };
        ensure!(
            pieces < MAX_NODES,
            "the text would fall into more than {MAX_NODES} pieces"
        );
    }
    Ok(())
}

fn formatted(args: &[Value]) -> Result<()> {
    let [Value::String(format), ..] = args else {
        return Ok(());
    };
    small(args)?;
    let mut rest = format.chars().peekable();
    while let Some(letter) = rest.next() {
        if letter != '%' {
            continue;
        }
        rest.next_if_eq(&'.');
        let mut width = 0_usize;
        while let Some(digit) = rest.next_if(|letter| letter.is_numeric()) {
            // The evaluator panics at digits of other scripts.
            let Some(digit) = digit.to_digit(10) else {
                bail!("`{digit}` is not a digit of a width")
            };
            width = width.saturating_mul(10).saturating_add(digit as usize);
        }
        ensure!(width <= MAX_WIDTH, "a width is larger than {MAX_WIDTH}");
        rest.next_if_eq(&'%');
    }
    Ok(())
}

/// A short text may name a number with a billion digits.
fn number(args: &[Value]) -> Result<()> {
    let [Value::String(text)] = args else {
        return Ok(());
    };
    ensure!(
        text.len() <= MAX_DIGITS,
        "a number is longer than {MAX_DIGITS} characters"
    );
    if let Some((_, exponent)) = text.split_once(['e', 'E']) {
        let digits: String = exponent.chars().filter(char::is_ascii_digit).collect();
        ensure!(
            digits.is_empty()
                || digits
                    .parse::<usize>()
                    .is_ok_and(|exponent| exponent <= MAX_DIGITS),
            "an exponent is larger than {MAX_DIGITS}"
        );
    }
    Ok(())
}

/// A walk answers with the path to every node, so a deep value costs the square of its depth.
fn walked(args: &[Value]) -> Result<()> {
    let mut open: Vec<(&Value, usize)> = args.iter().map(|arg| (arg, 0)).collect();
    let (mut nodes, mut steps) = (0_usize, 0_usize);
    while let Some((value, depth)) = open.pop() {
        nodes += 1;
        steps += depth;
        match value {
            Value::Array(items) => open.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Set(items) => open.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(fields) => {
                open.extend(fields.iter().map(|(_, value)| (value, depth + 1)));
            }
            _ => {}
        }
        ensure!(
            nodes + open.len() <= MAX_NODES && steps <= 8 * MAX_NODES,
            "the value is too large to walk"
        );
    }
    Ok(())
}

fn unmarshal(args: &[Value]) -> Result<Value> {
    let [document] = args else {
        bail!("expects 1 argument")
    };
    let document = text(document)?;
    fits(document.len())?;
    let value: serde_json::Value =
        serde_json::from_str(document).map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(from_json(&value))
}

/// How often the second is in the first without overlapping, as Go counts. The evaluator's own panics at nothing.
fn counted(args: &[Value]) -> Result<Value> {
    search(args)?;
    let [whole, part] = args else {
        bail!("expects 2 arguments")
    };
    Ok(Value::from(text(whole)?.matches(text(part)?).count()))
}

/// Whether the second is part of the first. The evaluator's own panics at an empty list.
fn subset(args: &[Value]) -> Result<Value> {
    small(args)?;
    let [whole, part] = args else {
        bail!("expects 2 arguments")
    };
    let answer = match (whole, part) {
        (Value::Object(_), Value::Object(_)) => is_part(whole, part),
        (Value::Set(whole), Value::Set(part)) => part.iter().all(|item| whole.contains(item)),
        (Value::Array(whole), Value::Set(part)) => part.iter().all(|item| whole.contains(item)),
        (Value::Array(whole), Value::Array(part)) => {
            let (whole, part) = (whole.to_vec(), part.to_vec());
            part.is_empty() || whole.windows(part.len()).any(|window| window == part)
        }
        _ => bail!("expects two objects, two sets, two lists, or a list and a set"),
    };
    Ok(Value::Bool(answer))
}

/// Objects are compared field by field, all else as it is.
fn is_part(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part
            .iter()
            .all(|(key, part)| whole.get(key).is_some_and(|whole| is_part(whole, part))),
        _ => whole == part,
    }
}

fn length(value: &Value) -> usize {
    if let Value::String(text) = value {
        text.len()
    } else {
        0
    }
}

fn length_replaced(subject: &str, old: &str, new: &str) -> usize {
    let matches = if old.is_empty() {
        subject.len().saturating_add(1)
    } else {
        subject.matches(old).count()
    };
    subject
        .len()
        .saturating_add(matches.saturating_mul(new.len()))
}

fn fits(length: usize) -> Result<()> {
    ensure!(
        length <= MAX_TEXT,
        "the text would be longer than {MAX_TEXT} bytes"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rego::value::{array, object, string};

    fn call(name: &str, args: &[Value]) -> Result<Value> {
        (ALL.iter()
            .chain(REPLACED)
            .find(|supplied| supplied.name == name)
            .unwrap()
            .call)(args)
    }

    fn refused(name: &str, args: &[Value]) -> String {
        call(name, args)
            .expect_err("the call was answered")
            .to_string()
    }

    #[test]
    fn small_calls_are_answered_as_before() {
        assert_eq!(
            call("numbers.range", &[Value::from(1), Value::from(3)]).unwrap(),
            array([1, 2, 3].map(Value::from))
        );
        assert_eq!(
            call("concat", &[string("-"), array([string("a"), string("b")])]).unwrap(),
            string("a-b")
        );
        assert_eq!(
            call(
                "sprintf",
                &[string("%05d %s%%"), array([Value::from(7), string("x")])]
            )
            .unwrap(),
            string("00007 x%")
        );
        assert_eq!(
            call("replace", &[string("aba"), string("a"), string("xx")]).unwrap(),
            string("xxbxx")
        );
        assert_eq!(
            call("to_number", &[string("1e3")]).unwrap(),
            Value::from(1000)
        );
        assert_eq!(
            call("json.unmarshal", &[string("[1]")]).unwrap(),
            array([Value::from(1)])
        );
        assert_eq!(
            call("bits.lsh", &[Value::from(1), Value::from(4)]).unwrap(),
            Value::from(16)
        );
    }

    #[test]
    fn parts_are_told_from_wholes() {
        for (whole, part, expected) in [
            (r#"{"a": {"b": 1, "c": 2}}"#, r#"{"a": {"b": 1}}"#, true),
            (r#"{"a": {"b": 1}}"#, r#"{"a": {"b": 2}}"#, false),
            ("[1, 2, 3]", "[2, 3]", true),
            ("[1, 2, 3]", "[1, 3]", false),
            ("[1]", "[]", true),
            ("[]", "[1]", false),
        ] {
            let args = [whole, part].map(|json| Value::from_json_str(json).unwrap());
            let answer = call("object.subset", &args).unwrap();
            assert_eq!(answer, Value::Bool(expected), "{whole} {part}");
        }
        assert!(refused("object.subset", &[Value::Null, Value::Null]).contains("expects"));
    }

    #[test]
    fn errors_of_the_evaluator_lose_the_place_that_they_do_not_have() {
        assert_eq!(
            refused("to_number", &[string("x")]),
            "could not parse string as number"
        );
    }

    #[test]
    fn ranges_are_bounded_in_both_directions() {
        assert!(
            refused("numbers.range", &[Value::from(0), Value::from(20_000_000)])
                .contains("more than 65536")
        );
        assert!(
            refused("numbers.range", &[Value::from(20_000_000), Value::from(0)])
                .contains("more than 65536")
        );
        assert!(
            refused(
                "numbers.range_step",
                &[Value::from(0), Value::from(i64::MAX), Value::from(1)]
            )
            .contains("more than")
        );
        assert!(
            call(
                "numbers.range_step",
                &[Value::from(0), Value::from(1_000_000), Value::from(1000)]
            )
            .is_ok()
        );
        assert!(
            refused(
                "numbers.range_step",
                &[Value::from(0), Value::from(5), Value::from(0)]
            )
            .contains("above zero")
        );
    }

    #[test]
    fn text_does_not_grow_without_bound() {
        let long = string(&"a".repeat(MAX_TEXT / 2 + 1));
        assert!(
            refused("concat", &[string(""), array([long.clone(), long.clone()])])
                .contains("longer than")
        );
        assert!(
            refused("replace", &[long.clone(), string("a"), string("bb")]).contains("longer than")
        );
        assert!(
            refused("replace", &[long.clone(), string(""), string("bb")]).contains("longer than")
        );
        assert!(
            refused("sprintf", &[string("%s%s"), array([long.clone(), long])])
                .contains("too large")
        );
        assert!(
            refused("sprintf", &[string("%999999999d"), array([Value::from(1)])]).contains("width")
        );
        assert!(refused("sprintf", &[string("%٣d"), array([Value::from(1)])]).contains("digit"));
        assert!(
            refused(
                "regex.replace",
                &[
                    string(&"a".repeat(5000)),
                    string("a*"),
                    string(&"$0".repeat(500))
                ]
            )
            .contains("longer")
        );
    }

    #[test]
    fn replacements_in_a_row_are_bounded_together() {
        let names: Vec<String> = (0..40).map(|index| format!("{index:02}")).collect();
        let patterns = object(
            names
                .iter()
                .zip(names.iter().skip(1))
                .map(|(old, new)| (old.as_str(), string(&format!("{new}{new}")))),
        );
        assert!(refused("strings.replace_n", &[patterns, string("00")]).contains("longer than"));
    }

    #[test]
    fn numbers_with_huge_exponents_are_refused() {
        for text in [
            "1e400000000",
            "1E+400000000",
            "9e99999999999999999999999",
            "-1e-400000000",
        ] {
            assert!(
                refused("to_number", &[string(text)]).contains("exponent"),
                "{text}"
            );
        }
        assert!(refused("units.parse", &[string("1e400000000")]).contains("exponent"));
        assert!(call("units.parse", &[string("10Mi")]).is_ok());
        assert!(
            refused(
                "bits.lsh",
                &[Value::from(1), Value::from(4_000_000_000_u64)]
            )
            .contains("shifts")
        );
    }

    #[test]
    fn values_that_share_their_parts_are_not_written_out() {
        let mut value = string("x");
        for _ in 0..40 {
            value = array([value.clone(), value]);
        }
        assert!(refused("json.marshal", &[value.clone()]).contains("too large"));
        assert!(refused("sprintf", &[string("%v"), array([value.clone()])]).contains("too large"));
        assert!(refused("walk", &[value.clone()]).contains("too large"));
        let map = object([("a", value)]);
        assert!(refused("object.union", &[map.clone(), map]).contains("too large"));
    }

    #[test]
    fn a_deep_value_is_too_large_to_walk() {
        let mut value = Value::Null;
        for _ in 0..5_000 {
            value = array([value]);
        }
        assert!(refused("walk", &[value]).contains("too large"));
    }
}
