//! JSON to documents: one value after another, as `kubectl` reads a file that starts with `{`.
//!
//! The grammar is RFC 8259 as Go's `encoding/json` takes it: half a surrogate pair becomes a replacement character.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Number, Value};

use super::builder::{At, Builder};
use super::fault::{Fault, FaultKind};
use super::text::Text;
use super::{Budget, Limits, Reading};

/// Reads JSON values from `start` as long as there are any.
///
/// Gives where the text stops being JSON, if it does, and what stands against it being JSON there: it may still be YAML.
pub(super) fn read(
    text: &Arc<Text>,
    start: usize,
    limits: &Limits,
    budget: &Budget,
    reading: &mut Reading,
) -> (Option<usize>, Option<Fault>) {
    let mut lexer = Lexer {
        source: text.as_str(),
        at: start,
    };
    let mut builder = Builder::new(text, limits, budget);
    loop {
        let value_start = lexer.at;
        lexer.skip_space();
        match lexer.peek() {
            Some(b'{') => {}
            None if value_start > start => return (None, None),
            _ => return (Some(value_start), None),
        }
        match value(&mut lexer, &mut builder) {
            Ok(()) => reading.documents.extend(builder.finish()),
            // A limit is no matter of grammar, and reading on would meet it again.
            Err(fault) if !matches!(fault.kind, FaultKind::Syntax(_)) => {
                reading.faults.push(fault);
                return (None, None);
            }
            Err(fault) => return (Some(value_start), Some(fault)),
        }
    }
}

/// What may come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// A value, or the end of a list that is still empty.
    ValueOrEnd,
    Value,
    /// A key, or the end of an object that is still empty.
    KeyOrEnd,
    Key,
    /// After a value: a comma or an end.
    More,
}

/// Reads one value into the builder.
fn value(lexer: &mut Lexer<'_>, builder: &mut Builder<'_>) -> Result<(), Fault> {
    let mut next = Next::Value;
    loop {
        lexer.skip_space();
        let start = lexer.at;
        let Some(byte) = lexer.peek() else {
            return Err(lexer.fault("the text ends inside a JSON value"));
        };
        match (next, byte) {
            (Next::Value | Next::ValueOrEnd, b'{') => {
                builder.open_mapping(lexer.take(1))?;
                next = Next::KeyOrEnd;
            }
            (Next::Value | Next::ValueOrEnd, b'[') => {
                builder.open_sequence(lexer.take(1))?;
                next = Next::ValueOrEnd;
            }
            (Next::KeyOrEnd | Next::More, b'}') if builder.in_mapping() == Some(true) => {
                builder.close(lexer.take(1))?;
                next = Next::More;
            }
            (Next::ValueOrEnd | Next::More, b']') if builder.in_mapping() == Some(false) => {
                builder.close(lexer.take(1))?;
                next = Next::More;
            }
            (Next::Key | Next::KeyOrEnd, b'"') => {
                let key = lexer.string()?;
                builder.key(
                    key.into_owned(),
                    false,
                    At {
                        start,
                        end: lexer.at,
                        anchor: 0,
                    },
                );
                lexer.skip_space();
                if lexer.peek() != Some(b':') {
                    return Err(lexer.fault("expected `:` after the key"));
                }
                lexer.at += 1;
                next = Next::Value;
            }
            (Next::Key | Next::KeyOrEnd, _) => {
                return Err(lexer.fault("expected a key in double quotes"));
            }
            (Next::Value | Next::ValueOrEnd, _) => {
                let scalar = lexer.scalar(byte)?;
                builder.value(
                    scalar,
                    At {
                        start,
                        end: lexer.at,
                        anchor: 0,
                    },
                )?;
                next = Next::More;
            }
            (Next::More, b',') => {
                lexer.at += 1;
                next = if builder.in_mapping() == Some(true) {
                    Next::Key
                } else {
                    Next::Value
                };
            }
            (Next::More, _) => {
                let end = if builder.in_mapping() == Some(true) {
                    '}'
                } else {
                    ']'
                };
                return Err(lexer.fault(&format!("expected `,` or `{end}`")));
            }
        }
        if builder.in_mapping().is_none() {
            return Ok(());
        }
    }
}

/// A position in the text.
struct Lexer<'t> {
    source: &'t str,
    at: usize,
}

impl<'t> Lexer<'t> {
    fn peek(&self) -> Option<u8> {
        self.source.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn take(&mut self, count: usize) -> At {
        let start = self.at;
        self.at += count;
        At {
            start,
            end: self.at,
            anchor: 0,
        }
    }

    fn fault(&self, words: &str) -> Fault {
        Fault::new(FaultKind::Syntax(words.to_owned()), self.at..self.at)
    }

    /// Takes bytes of a kind, and says how many.
    fn eat(&mut self, kind: impl Fn(u8) -> bool, most: usize) -> usize {
        let rest = self.source.as_bytes().get(self.at..).unwrap_or_default();
        let count = rest
            .iter()
            .take(most)
            .take_while(|byte| kind(**byte))
            .count();
        self.at += count;
        count
    }

    fn scalar(&mut self, byte: u8) -> Result<Value, Fault> {
        match byte {
            b'"' => self.string().map(|text| Value::String(text.into_owned())),
            b'-' | b'0'..=b'9' => self.number(),
            _ => {
                let rest = self.source.get(self.at..).unwrap_or_default();
                let words = [
                    ("true", Value::Bool(true)),
                    ("false", Value::Bool(false)),
                    ("null", Value::Null),
                ];
                let found = words.into_iter().find(|(word, _)| rest.starts_with(word));
                let (word, value) = found.ok_or_else(|| self.fault("expected a JSON value"))?;
                self.at += word.len();
                Ok(value)
            }
        }
    }

    fn number(&mut self) -> Result<Value, Fault> {
        let start = self.at;
        let invalid = Fault::new(
            FaultKind::Syntax("not a JSON number".to_owned()),
            start..start,
        );
        self.eat(|byte| byte == b'-', 1);
        let first = self.peek();
        let whole = self.eat(|byte| byte.is_ascii_digit(), usize::MAX);
        let mut is_valid = whole == 1 || (whole > 1 && first != Some(b'0'));
        let mut is_integer = true;
        if self.eat(|byte| byte == b'.', 1) > 0 {
            is_integer = false;
            is_valid &= self.eat(|byte| byte.is_ascii_digit(), usize::MAX) > 0;
        }
        if self.eat(|byte| matches!(byte, b'e' | b'E'), 1) > 0 {
            is_integer = false;
            self.eat(|byte| matches!(byte, b'+' | b'-'), 1);
            is_valid &= self.eat(|byte| byte.is_ascii_digit(), usize::MAX) > 0;
        }
        let text = self.source.get(start..self.at).unwrap_or_default();
        let integer = || {
            text.parse()
                .map(i64::into)
                .or_else(|_| text.parse().map(u64::into))
                .ok()
        };
        let float = || text.parse().ok().and_then(Number::from_f64);
        let number: Option<Number> = if is_integer {
            integer().or_else(float)
        } else {
            float()
        };
        number
            .filter(|_| is_valid)
            .map(Value::Number)
            .ok_or(invalid)
    }

    /// A string, from its opening quote.
    fn string(&mut self) -> Result<Cow<'t, str>, Fault> {
        self.at += 1;
        let mut text: Cow<'t, str> = Cow::Borrowed("");
        loop {
            let start = self.at;
            self.eat(
                |byte| byte >= b' ' && byte != b'"' && byte != b'\\',
                usize::MAX,
            );
            // Quotes, escapes and controls are ASCII: the range ends between characters.
            let run = self.source.get(start..self.at).unwrap_or_default();
            if text.is_empty() {
                text = Cow::Borrowed(run);
            } else if !run.is_empty() {
                text.to_mut().push_str(run);
            }
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => {
                    let character = self.escape()?;
                    text.to_mut().push(character);
                }
                Some(_) => return Err(self.fault("a control character in a JSON string")),
                None => return Err(self.fault("the quote is never closed")),
            }
        }
    }

    /// An escaped character, from its backslash.
    fn escape(&mut self) -> Result<char, Fault> {
        let invalid = self.fault("not a JSON escape");
        self.at += 1;
        let Some(byte) = self.peek() else {
            return Err(invalid);
        };
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = self.hex().ok_or(invalid)?;
                let after = self.at;
                if (0xd800..0xdc00).contains(&high) {
                    let low = (self.eat(|byte| byte == b'\\', 1) > 0
                        && self.eat(|byte| byte == b'u', 1) > 0)
                        .then(|| self.hex())
                        .flatten();
                    if let Some(low) = low.filter(|low| (0xdc00..0xe000).contains(low)) {
                        let code = 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                        return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                    }
                    self.at = after;
                }
                char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            _ => return Err(invalid),
        })
    }

    /// Four hexadecimal digits.
    fn hex(&mut self) -> Option<u32> {
        let digits = self.source.get(self.at..self.at.checked_add(4)?)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        self.at += 4;
        u32::from_str_radix(digits, 16).ok()
    }
}
