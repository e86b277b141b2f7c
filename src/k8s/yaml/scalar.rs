//! One scalar, read as `kubectl` reads it.
//!
//! The rules are those of the Go library behind `sigs.k8s.io/yaml`: YAML 1.1 with its `yes` and `no`, its
//! octal `012` and its `1_000`, but without base 60 and with timestamps left as text.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Number, Value};

use super::fault::FaultKind;

/// The prefix of the tags that YAML itself defines.
const YAML_TAG: &str = "tag:yaml.org,2002:";

/// What a scalar says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar<'t> {
    Null,
    Bool(bool),
    Int(i64),
    /// An integer too large for `Int`.
    UInt(u64),
    Float(f64),
    Text(Cow<'t, str>),
}

/// How a scalar is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Without quotes: its text says what it is.
    Plain,
    /// In quotes or as a block: text.
    Quoted,
}

/// Reads a scalar; `tag` is the tag in full.
pub(super) fn read<'t>(
    text: Cow<'t, str>,
    style: Style,
    tag: Option<&str>,
) -> Result<Scalar<'t>, FaultKind> {
    let Some(tag) = tag else {
        return Ok(if style == Style::Plain {
            implied(text)
        } else {
            Scalar::Text(text)
        });
    };
    let wrong = |text: Cow<'_, str>| FaultKind::WrongTag {
        text: text.into_owned(),
        tag: tag
            .strip_prefix(YAML_TAG)
            .map_or_else(|| tag.to_owned(), |name| format!("!!{name}")),
    };
    let Some(name) = tag.strip_prefix(YAML_TAG) else {
        return Ok(Scalar::Text(text));
    };
    match name {
        "null" | "bool" | "int" | "float" => match implied(text.clone()) {
            scalar if scalar.type_name() == name => Ok(scalar),
            #[expect(clippy::cast_precision_loss, reason = "that is what the tag asks for")]
            Scalar::Int(int) if name == "float" => Ok(Scalar::Float(int as f64)),
            _ => Err(wrong(text)),
        },
        "timestamp" if !is_timestamp(&text) => Err(wrong(text)),
        "binary" => match STANDARD.decode(text.replace(['\r', '\n'], "")) {
            Ok(bytes) => Ok(Scalar::Text(Cow::Owned(text_of(&bytes)))),
            Err(_) => Err(wrong(text)),
        },
        _ => Ok(Scalar::Text(text)),
    }
}

impl Scalar<'_> {
    /// The name of its type in YAML.
    fn type_name(&self) -> &'static str {
        match self {
            Scalar::Null => "null",
            Scalar::Bool(_) => "bool",
            Scalar::Int(_) | Scalar::UInt(_) => "int",
            Scalar::Float(_) => "float",
            Scalar::Text(_) => "str",
        }
    }

    /// The scalar as a value of an object.
    pub(super) fn into_value(self) -> Result<Value, FaultKind> {
        Ok(match self {
            Scalar::Null => Value::Null,
            Scalar::Bool(bool) => Value::Bool(bool),
            Scalar::Int(int) => Value::from(int),
            Scalar::UInt(int) => Value::from(int),
            Scalar::Float(float) => match float_number(float) {
                Some(number) => Value::Number(number),
                None => {
                    return Err(FaultKind::NotFinite {
                        text: float_key(float),
                    });
                }
            },
            Scalar::Text(text) => Value::String(text.into_owned()),
        })
    }

    /// The scalar as a key of an object, which JSON wants to be text.
    pub(super) fn into_key(self) -> Result<String, FaultKind> {
        Ok(match self {
            Scalar::Null => return Err(FaultKind::KeyIsNull),
            Scalar::Bool(bool) => bool.to_string(),
            Scalar::Int(int) => int.to_string(),
            Scalar::UInt(int) => int.to_string(),
            Scalar::Float(float) => float_key(float),
            Scalar::Text(text) => text.into_owned(),
        })
    }
}

/// What a text without quotes or tag says.
fn implied(text: Cow<'_, str>) -> Scalar<'_> {
    let known = match text.as_bytes().first() {
        None => Some(Scalar::Null),
        Some(b'y' | b'Y' | b'n' | b'N' | b't' | b'T' | b'f' | b'F' | b'o' | b'O' | b'~') => {
            word(&text)
        }
        Some(b'.') => word(&text).or_else(|| point_float(&text).map(Scalar::Float)),
        Some(b'+' | b'-') => word(&text).or_else(|| number(&text)),
        Some(b'0'..=b'9') => number(&text),
        Some(_) => None,
    };
    known.unwrap_or(Scalar::Text(text))
}

fn word(text: &str) -> Option<Scalar<'static>> {
    Some(match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Scalar::Bool(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Scalar::Bool(false)
        }
        "~" | "null" | "Null" | "NULL" => Scalar::Null,
        ".nan" | ".NaN" | ".NAN" => Scalar::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Scalar::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => Scalar::Float(f64::NEG_INFINITY),
        _ => return None,
    })
}

/// A text that starts with a digit or a sign, if it is a number.
fn number(text: &str) -> Option<Scalar<'static>> {
    let plain: Cow<'_, str> = if text.contains('_') {
        text.replace('_', "").into()
    } else {
        text.into()
    };
    integer(&plain)
        .or_else(|| styled_float(&plain).map(Scalar::Float))
        .or_else(|| {
            // The library reads `0b` a second time, and then takes a sign behind it.
            let digits = plain.strip_prefix("0b")?;
            let magnitude = u64::from_str_radix(digits.strip_prefix(['+', '-'])?, 2).ok()?;
            signed(magnitude, digits.starts_with('-'))
        })
}

/// As Go's `strconv.ParseInt` and `ParseUint` with base 0, after underscores are gone.
fn integer(text: &str) -> Option<Scalar<'static>> {
    let (unsigned, is_negative) = match text.as_bytes().first()? {
        b'-' => (text.get(1..)?, true),
        b'+' => (text.get(1..)?, false),
        _ => (text, false),
    };
    let prefix = unsigned
        .get(..2)
        .filter(|_| unsigned.len() > 2)
        .unwrap_or_default();
    let (digits, radix) = match prefix {
        "0x" | "0X" => (unsigned.get(2..)?, 16),
        "0b" | "0B" => (unsigned.get(2..)?, 2),
        "0o" | "0O" => (unsigned.get(2..)?, 8),
        _ if unsigned.len() > 1 && unsigned.starts_with('0') => (unsigned.get(1..)?, 8),
        _ => (unsigned, 10),
    };
    if !digits.starts_with(|digit: char| digit.is_ascii_alphanumeric()) {
        return None; // from_str_radix would take a sign
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    if magnitude > i64::MAX.unsigned_abs() && text.starts_with('+') {
        return None;
    }
    signed(magnitude, is_negative)
}

fn signed(magnitude: u64, is_negative: bool) -> Option<Scalar<'static>> {
    if is_negative {
        0_i64.checked_sub_unsigned(magnitude).map(Scalar::Int)
    } else {
        Some(i64::try_from(magnitude).map_or(Scalar::UInt(magnitude), Scalar::Int))
    }
}

/// A float as YAML writes it: no `inf`, no `0x1p3`, which the parsers of Go and Rust would take.
fn styled_float(text: &str) -> Option<f64> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let whole = digits(unsigned);
    let mut rest = unsigned.get(whole..)?;
    if let Some(fraction) = rest.strip_prefix('.') {
        let count = digits(fraction);
        if whole == 0 && count == 0 {
            return None;
        }
        rest = fraction.get(count..)?;
    } else if whole == 0 {
        return None;
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if exponent.is_empty() || digits(exponent) < exponent.len() {
            return None;
        }
    } else if !rest.is_empty() {
        return None;
    }
    text.parse().ok().filter(|float: &f64| float.is_finite())
}

/// A text that starts with a point goes straight to Go's parser, which wants digits round an underscore.
fn point_float(text: &str) -> Option<f64> {
    let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
    let bytes = text.as_bytes();
    let well_placed = bytes.iter().enumerate().all(|(at, byte)| {
        *byte != b'_'
            || (is_digit(at.checked_sub(1).and_then(|before| bytes.get(before)))
                && is_digit(bytes.get(at + 1)))
    });
    well_placed
        .then(|| styled_float(&text.replace('_', "")))
        .flatten()
}

/// A float as JSON has it after Go has written it: `1e3` becomes the integer 1000.
fn float_number(float: f64) -> Option<Number> {
    if float == 0.0 {
        return Some(Number::from(0));
    }
    if float.fract() == 0.0 && float.abs() < 1e21 {
        // The shortest digits, not the exact value: what is written is what is read again.
        let digits = float.to_string();
        let whole = digits
            .parse::<i64>()
            .map(Number::from)
            .or_else(|_| digits.parse::<u64>().map(Number::from));
        if let Ok(whole) = whole {
            return Some(whole);
        }
    }
    Number::from_f64(float)
}

/// A float as a key: as Go's `strconv.FormatFloat(f, 'g', -1, 32)`.
#[expect(
    clippy::cast_possible_truncation,
    reason = "keys are written as 32 bit floats"
)]
fn float_key(float: f64) -> String {
    let float = float as f32;
    if float.is_nan() {
        return ".nan".to_owned();
    }
    if float.is_infinite() {
        return if float > 0.0 { ".inf" } else { "-.inf" }.to_owned();
    }
    let scientific = format!("{float:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..6).contains(&exponent) {
        return float.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// A date, with or without a time, roughly as the library wants it.
fn is_timestamp(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let number = |part: Option<&str>, lengths: std::ops::RangeInclusive<usize>| {
        part.is_some_and(|part| {
            lengths.contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    let is_year_and_month = number(parts.next(), 4..=4) && number(parts.next(), 1..=2);
    let day = parts
        .next()
        .map(|rest| rest.split(['T', 't', ' ']).next().unwrap_or_default());
    is_year_and_month && number(day, 1..=2)
}

/// Bytes as Go's JSON writer puts them into text: each bad byte becomes a replacement character.
fn text_of(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}
