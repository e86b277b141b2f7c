//! A piece of a file as it is given to the YAML library, and where each byte of it stands in the file.
//!
//! A quoted text may go on in lines that are not indented: `kubectl` reads that, and much JSON in manifests is written so, where
//! YAML 1.2 (section 7.4) wants each line deeper than the collection around it. The lines of such a text get spaces, which are no
//! part of it; places are those of the file.

use std::borrow::Cow;
use std::ops::Range;

/// How many spaces one text gets at most.
const MOST_ADDED: usize = 1 << 20;

/// A piece of a file.
#[derive(Clone)]
pub(super) struct Source<'s> {
    text: Cow<'s, str>,
    /// Where it begins in the file.
    start: usize,
    /// Where spaces were added, in the order of the text.
    added: Vec<Added>,
    /// The end of the last text whose lines got spaces.
    closed: usize,
}

#[derive(Clone)]
struct Added {
    at: Range<usize>,
    /// How many were added until here.
    until_here: usize,
}

// === impl Source ===

impl<'s> Source<'s> {
    /// A piece that begins at a byte of the file.
    pub(super) fn new(text: &'s str, start: usize) -> Self {
        Self {
            text: Cow::Borrowed(text),
            start,
            added: Vec::new(),
            closed: 0,
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is as it was written.
    pub(super) fn is_as_written(&self) -> bool {
        self.added.is_empty()
    }

    /// Where a byte of it stands in the file.
    pub(super) fn place(&self, at: usize) -> usize {
        let before = self.added.partition_point(|added| added.at.start < at);
        let last = before.checked_sub(1).and_then(|last| self.added.get(last));
        let added = last.map_or(0, |last| {
            last.until_here - last.at.end.saturating_sub(at).min(last.at.len())
        });
        self.start + at - added
    }

    /// What stands before the line of a byte.
    pub(super) fn above(&self, at: usize) -> &str {
        let above = self.text.get(..at).unwrap_or_default();
        let line = above.rfind('\n').map_or(0, |end| end + 1);
        above.get(..line).unwrap_or_default()
    }

    /// Gives the lines of a quoted text spaces, by where its quote opens; whether that can be, and was not done before.
    pub(super) fn indent(&mut self, opens: usize) -> bool {
        let quoted = self.text.get(opens..).unwrap_or_default();
        let Some(length) = length_of(quoted).filter(|_| opens >= self.closed) else {
            return false;
        };
        let (quoted, rest) = quoted.split_at(length);
        let mut lines = quoted.split_inclusive('\n');
        let first = lines.next().unwrap_or_default();
        // A collection begins where the first word of one of its lines does.
        let before = self.text.get(..opens).unwrap_or_default().lines();
        let depths = before.map(|line| line.len() - line.trim_start_matches([' ', '-', '?']).len());
        let depth = depths.max().unwrap_or(0) + 1;
        let is_much = lines.clone().count().saturating_mul(depth) > MOST_ADDED;
        if is_much || lines.clone().any(ends_document) {
            return false;
        }
        let mut text = self.text.get(..opens).unwrap_or_default().to_owned();
        text.push_str(first);
        let mut until_here = self.added.last().map_or(0, |last| last.until_here);
        for line in lines {
            until_here += depth;
            self.added.push(Added {
                at: text.len()..text.len() + depth,
                until_here,
            });
            text.push_str(&" ".repeat(depth));
            text.push_str(line);
        }
        self.closed = text.len();
        text.push_str(rest);
        self.text = Cow::Owned(text);
        true
    }

    /// Whether a byte is on the line where the last text ends whose lines got spaces, behind it.
    pub(super) fn has_just_closed(&self, at: usize) -> bool {
        let between = self.text.get(self.closed..at);
        between.is_some_and(|between| !between.contains('\n'))
    }
}

/// How long a text is that begins with its quote, with both quotes; none if it does not end.
fn length_of(quoted: &str) -> Option<usize> {
    let mut bytes = quoted.bytes().enumerate().peekable();
    let (_, quote) = bytes.next()?;
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' if quote == b'"' => {
                bytes.next();
            }
            b'\'' if quote == byte && bytes.next_if(|(_, next)| *next == quote).is_some() => {}
            _ if byte == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Whether a line ends a document wherever it stands (YAML 1.2, section 9.1.2), or would for `kubectl`.
fn ends_document(line: &str) -> bool {
    let is_end = |after: &str| after.is_empty() || after.starts_with([' ', '\t', '\r', '\n']);
    line.starts_with("---") || line.strip_prefix("...").is_some_and(is_end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_the_file() {
        let text = "  - a: 'x\ny\n\nit''s'\n    b: \"\\\"\n\u{e9}\"\n";
        let mut source = Source::new(text, 100);
        assert!(source.is_as_written());
        let opens = |source: &Source, quote: &str| source.as_str().find(quote).unwrap();
        let first = opens(&source, "'x");
        assert!(source.indent(first));
        assert!(!source.indent(first), "it has its spaces");
        let second = opens(&source, "\"");
        assert!(source.has_just_closed(second - 8) && !source.has_just_closed(second));
        assert!(source.indent(second));
        assert_eq!(
            source.as_str(),
            "  - a: 'x\n     y\n     \n     it''s'\n    b: \"\\\"\n      \u{e9}\"\n"
        );
        for word in ["a:", "'x", "y", "it''s", "b:", "\"\\", "\u{e9}"] {
            let [written, read] = [text, source.as_str()].map(|text| text.find(word).unwrap());
            assert_eq!(source.place(read), 100 + written, "{word}");
        }
        assert_eq!(
            source.place(12),
            110,
            "what was added stands before its line"
        );
        assert_eq!(source.above(12), "  - a: 'x\n");
    }

    #[test]
    fn what_has_no_end_or_ends_the_document_is_left() {
        for text in [
            "'x\n",
            "\"x\\\"\n",
            "'x\n---\ny'",
            "'x\n-----BEGIN\ny'",
            "'x\n...\ny'",
        ] {
            assert!(!Source::new(text, 0).indent(0), "{text}");
        }
        assert!(Source::new("'x\n...y'", 0).indent(0));
        let deep = format!("{}a: 'x{}'", " ".repeat(2_000), "\n".repeat(1_000));
        assert!(!Source::new(&deep, 0).indent(2_003));
    }
}
