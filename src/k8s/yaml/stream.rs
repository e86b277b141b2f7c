//! One piece of YAML to documents.

use std::ops::Range;
use std::sync::Arc;

use granit_parser::{ErrorKind, Event, Options, Parser, ScalarStyle, ScanError, Span};

use super::builder::{At, Builder};
use super::fault::{Fault, FaultKind};
use super::scalar::{self, Style};
use super::source::Source;
use super::text::Text;
use super::{Budget, Limits, Reading};

/// Next line, line separator, paragraph separator.
const OLD_BREAKS: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];

/// What is read again at most for the sake of lines that lack spaces, in bytes: so many times the piece, and so much more.
const AGAIN: usize = 32;
const AGAIN_MORE: usize = 1 << 20;

/// The documents of one piece of a text: usually one. A syntax error ends the piece.
pub(super) fn read(
    text: &Arc<Text>,
    piece: Range<usize>,
    limits: &Limits,
    budget: &Budget,
) -> Reading {
    let source = text.as_str().get(piece.clone()).unwrap_or_default();
    let source = without_start(source);
    let source = Source::new(source, piece.end - source.len());
    let (as_written, broken) = attempt(text, &source, limits, budget);
    let Some(broken) = broken.filter(lacks_spaces) else {
        return as_written;
    };
    let indented = indented(source, &broken, limits);
    if indented.is_as_written() {
        return as_written;
    }
    attempt(text, &indented, limits, budget).0
}

/// A piece whose lines have the spaces that they lack, from the first one that does.
fn indented<'s>(source: Source<'s>, broken: &ScanError, limits: &Limits) -> Source<'s> {
    let mut again = AGAIN_MORE.saturating_add(source.as_str().len().saturating_mul(AGAIN));
    let (mut source, mut broken) = (source, broken.clone());
    loop {
        let (before, at) = (source.clone(), byte_of(&broken));
        // A quote that is left open is told by its place, where nothing behind it is wrong.
        let above = source
            .above(at)
            .trim_end_matches(['\\', ' ', '\t', '\r', '\n']);
        let opens = syntax_error(above, limits)
            .filter(|error| *error.kind() == ErrorKind::UnclosedQuotedScalar);
        let cost = source.as_str().len().saturating_mul(2);
        let (Some(opens), Some(left)) = (opens, again.checked_sub(cost)) else {
            return before;
        };
        again = left;
        if !source.indent(byte_of(&opens)) {
            return before;
        }
        let next = syntax_error(source.as_str(), limits);
        // The quote that seemed to close opens another text, and the one above is never closed.
        if next
            .as_ref()
            .is_some_and(|next| source.has_just_closed(byte_of(next)))
        {
            return before;
        }
        match next.filter(lacks_spaces) {
            Some(next) => broken = next,
            None => return source,
        }
    }
}

fn syntax_error(text: &str, limits: &Limits) -> Option<ScanError> {
    let mut parser = Parser::new_from_str_with_options(text, options(limits));
    std::iter::from_fn(|| parser.next_event()).find_map(Result::err)
}

fn byte_of(error: &ScanError) -> usize {
    error.marker().byte_offset().unwrap_or_default()
}

/// Whether a line does not go on deep enough with what is quoted above it; a tab is no depth.
fn lacks_spaces(error: &ScanError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::InvalidQuotedScalarIndent | ErrorKind::TabInIndentation
    )
}

/// The documents of a piece, and the error of syntax that ended it before its end. Where it is read again, nothing of the budget
/// is used.
fn attempt(
    text: &Arc<Text>,
    source: &Source<'_>,
    limits: &Limits,
    budget: &Budget,
) -> (Reading, Option<ScanError>) {
    let mut reading = Reading::default();
    // YAML 1.1, and so the library, ends a line at these; YAML 1.2 does not.
    let has_old_breaks = OLD_BREAKS.iter().any(|old| source.as_str().contains(*old));
    let mut builder = Builder::new(text, limits, budget);
    let mut parser = Parser::new_from_str_with_options(source.as_str(), options(limits));
    while let Some(next) = parser.next_event() {
        let result = match next {
            Ok((Event::DocumentEnd, _)) => {
                reading.documents.extend(builder.finish());
                Ok(())
            }
            Ok((Event::Scalar(text, ..), span)) if has_old_breaks && text.contains(OLD_BREAKS) => {
                let range = span.byte_range().unwrap_or_default();
                Err(Fault::new(
                    FaultKind::Ambiguous,
                    source.place(range.start)..source.place(range.end),
                ))
            }
            Ok((event, span)) => handle(&mut builder, text.as_str(), event, &span, source),
            Err(error) => {
                let at = source.place(byte_of(&error));
                reading
                    .faults
                    .push(Fault::of_scan(&error, at, limits.depth));
                if lacks_spaces(&error) {
                    builder.give_back();
                }
                return (reading, Some(error));
            }
        };
        if let Err(fault) = result {
            reading.faults.push(fault);
            builder.reset();
            if !matches!(parser.proceed_next_document(), Ok(true)) {
                break;
            }
        }
    }
    (reading, None)
}

/// A piece without its bare `---` line, and without a byte order mark after it.
///
/// Such a mark comes from pasting files together; `kubectl` passes over it as well.
fn without_start(piece: &str) -> &str {
    let body = piece
        .strip_prefix("---")
        .and_then(|rest| rest.split_once('\n'))
        .filter(|(line, _)| {
            let line = line.trim_end();
            line.is_empty() || line.trim_start_matches([' ', '\t']).starts_with('#')
        });
    let body = body.map_or(piece, |(_, body)| body);
    body.strip_prefix('\u{feff}').unwrap_or(body)
}

fn options(limits: &Limits) -> Options {
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.emit_anchor_events = true;
    options.flow_nesting_limit = limits.depth;
    options.block_nesting_limit = limits.depth;
    options
}

fn handle(
    builder: &mut Builder<'_>,
    file: &str,
    event: Event<'_>,
    span: &Span,
    source: &Source<'_>,
) -> Result<(), Fault> {
    let at = |anchor| {
        let range = span.byte_range().unwrap_or_default();
        At {
            start: source.place(range.start),
            end: source.place(range.end),
            anchor,
        }
    };
    let tag_end = span
        .tag_span()
        .and_then(|tag| tag.byte_range())
        .map(|tag| source.place(tag.end));
    if tag_end.is_some_and(|end| {
        matches!(
            file.as_bytes().get(end),
            Some(b',' | b'[' | b']' | b'{' | b'}')
        )
    }) {
        return Err(at(0).fault(FaultKind::Ambiguous));
    }
    match event {
        Event::Scalar(text, style, anchor, tag) => {
            let at = at(anchor);
            let style = if style == ScalarStyle::Plain {
                Style::Plain
            } else {
                Style::Quoted
            };
            if style == Style::Plain && is_read_otherwise(builder, file, at) {
                return Err(at.fault(FaultKind::Ambiguous));
            }
            let tag = tag.map(|tag| format!("{}{}", tag.handle(), tag.suffix()));
            let tag = tag.as_deref();
            let is_merge = text == "<<"
                && match tag {
                    None => style == Style::Plain,
                    Some(tag) => matches!(tag, "!" | "tag:yaml.org,2002:merge"),
                };
            let scalar = scalar::read(text, style, tag).map_err(|kind| at.fault(kind))?;
            if !builder.wants_key() {
                let value = scalar.into_value().map_err(|kind| at.fault(kind))?;
                return builder.value(value, at);
            }
            if anchor != 0 {
                let value = scalar.clone().into_value().map_err(|kind| at.fault(kind))?;
                builder.key_anchor(&value, at)?;
            }
            let name = scalar.into_key().map_err(|kind| at.fault(kind))?;
            builder.key(name, is_merge, at);
            Ok(())
        }
        Event::MappingStart(_, anchor, _) => builder.open_mapping(at(anchor)),
        Event::SequenceStart(_, anchor, _) => builder.open_sequence(at(anchor)),
        Event::MappingEnd | Event::SequenceEnd => builder.close(at(0)),
        Event::Alias(anchor) => builder.alias(anchor, at(0)),
        // YAML 1.2 takes `&web:` as a name where the library sees `&web` and a colon.
        Event::Anchor(_, name)
            if !name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)) =>
        {
            Err(at(0).fault(FaultKind::Ambiguous))
        }
        Event::UnresolvedAlias(name) => Err(at(0).fault(FaultKind::Syntax(format!(
            "the alias `*{name}` names no anchor above it"
        )))),
        // The enum may grow; what is not a node adds nothing to a value.
        _ => Ok(()),
    }
}

/// Whether the Go library takes a plain scalar in braces or brackets for something else: the colon of `{a:}`
/// for a part of the text, the question mark of `{?a}` and the first colon of `[:a]` for marks.
fn is_read_otherwise(builder: &Builder<'_>, source: &str, at: At) -> bool {
    if at.start == at.end || !builder.is_in_flow() {
        return false; // a value that is left out is read alike
    }
    let after = source.get(at.end..).unwrap_or_default();
    let after = after.trim_start_matches([' ', '\t', '\r', '\n']).as_bytes();
    let is_glued =
        builder.wants_key() && matches!(after, [b':', b',' | b'[' | b']' | b'{' | b'}', ..]);
    is_glued || matches!(source.as_bytes().get(at.start), Some(b'?' | b':'))
}
