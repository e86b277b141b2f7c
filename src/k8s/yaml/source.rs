//! A piece of a file as it is given to the YAML library, and where each byte of it stands in the file.
//!
//! A quoted text may go on in lines that are not indented: `kubectl` reads that, and much JSON in manifests is written so, where
//! YAML 1.2 (section 7.4) wants each line deeper than the collection around it. Such a line gets the spaces that it lacks, which
//! are no part of the text; places are those of the file.

use std::borrow::Cow;
use std::ops::Range;

/// How many bytes are read again at most, for the sake of lines that lack spaces.
const MOST_AGAIN: usize = 16 << 20;

/// A piece of a file.
pub(super) struct Source<'s> {
    text: Cow<'s, str>,
    /// Where it begins in the file.
    start: usize,
    /// Where spaces were added, and how many were until there, in the order of the text.
    added: Vec<Added>,
    /// How much may still be read again.
    again: usize,
}

struct Added {
    at: Range<usize>,
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
            again: MOST_AGAIN,
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
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

    /// Gives the line of a byte the spaces that it lacks to go on with what is quoted above; whether it is worth a try.
    pub(super) fn indent(&mut self, at: usize) -> bool {
        let Some((above, _)) = self.text.split_at_checked(at) else {
            return false;
        };
        let line = above.rfind('\n').map_or(0, |end| end + 1);
        let lines = above.get(..line).unwrap_or_default().lines();
        let Some(before) = lines.rev().find(|line| !line.trim().is_empty()) else {
            return false;
        };
        if self.text.get(line..).is_some_and(ends_document) {
            return false;
        }
        // No deeper than where the first word above begins is what it belongs to.
        let spaces = before.len() - before.trim_start_matches([' ', '-']).len() + 1;
        let is_tried = self.added.last().is_some_and(|last| last.at.start >= line);
        let Some(again) = self.again.checked_sub(self.text.len()) else {
            return false;
        };
        if is_tried {
            return false;
        }
        self.again = again;
        let until_here = self.added.last().map_or(0, |last| last.until_here) + spaces;
        self.added.push(Added {
            at: line..line + spaces,
            until_here,
        });
        self.text.to_mut().insert_str(line, &" ".repeat(spaces));
        true
    }
}

/// Whether a line begins that ends a document wherever it stands (YAML 1.2, section 9.1.2).
fn ends_document(line: &str) -> bool {
    let after = line
        .strip_prefix("...")
        .or_else(|| line.strip_prefix("---"));
    after.is_some_and(|after| after.is_empty() || after.starts_with([' ', '\t', '\r', '\n']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_the_file() {
        let mut source = Source::new("  a: 'x\ny\n\nz'\nb: 1\n", 100);
        assert!(source.indent(8));
        assert_eq!(source.as_str(), "  a: 'x\n   y\n\nz'\nb: 1\n");
        assert!(!source.indent(11), "that was not what it lacks");
        assert!(source.indent(14));
        assert_eq!(source.as_str(), "  a: 'x\n   y\n\n    z'\nb: 1\n");
        let place = |word: &str| source.place(source.as_str().find(word).unwrap());
        assert_eq!(["x", "y", "z", "b"].map(place), [106, 108, 111, 114]);
        assert_eq!(
            source.place(9),
            108,
            "what was added stands before its line"
        );
    }

    #[test]
    fn very_much_is_not_read_again() {
        let long = format!("a: 'x\n{}", "y\n".repeat(MOST_AGAIN / 2));
        assert!(!Source::new(&long, 0).indent(6));
    }
}
