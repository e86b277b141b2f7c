//! The text of one file, and places in it that a person can go to.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use crate::report::{Excerpt, Location};

use super::fault::{Fault, FaultKind};

/// The text of one file, with the name to show for it.
#[derive(Debug)]
pub struct Text {
    name: Arc<str>,
    content: String,
    /// The offset of each line, found when the first place is asked for: most files have no finding.
    lines: OnceLock<Box<[usize]>>,
}

/// A place in a text; never longer than its line.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The line, from 1.
    pub line: usize,
    /// The column of the first character, from 1, in characters.
    pub column: usize,
    /// The column after the last character.
    pub end_column: usize,
    /// The same in bytes of the text.
    pub range: Range<usize>,
}

/// Bytes that are not text.
#[derive(Debug)]
pub struct NotText {
    /// What is wrong with the first bad byte.
    pub fault: Fault,
    /// The text before it, so that its place can be shown.
    pub before: Text,
}

impl Text {
    /// A text with the name to show for it.
    pub fn new(name: impl Into<Arc<str>>, content: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            content: content.into(),
            lines: OnceLock::new(),
        }
    }

    /// The text in some bytes, which must be UTF-8.
    pub fn from_bytes(name: impl Into<Arc<str>>, bytes: Vec<u8>) -> Result<Self, Box<NotText>> {
        let name = name.into();
        match String::from_utf8(bytes) {
            Ok(content) => Ok(Self::new(name, content)),
            Err(error) => {
                let offset = error.utf8_error().valid_up_to();
                let kind = match error.as_bytes() {
                    [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => FaultKind::Utf16,
                    _ => FaultKind::NotUtf8 { offset },
                };
                let mut before = error.into_bytes();
                before.truncate(offset);
                let before = Self::new(name, String::from_utf8(before).unwrap_or_default());
                let fault = Fault::new(kind, offset..offset);
                Err(Box::new(NotText { fault, before }))
            }
        }
    }

    /// The name to show: a path as it was given or found, or `<stdin>`.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.content
    }

    /// The place of a range, cut at the end of its first line.
    pub fn place(&self, range: &Range<usize>) -> Place {
        let start = self.content.floor_char_boundary(range.start);
        let lines = self.lines();
        let index = lines
            .partition_point(|line| *line <= start)
            .saturating_sub(1);
        let line_start = lines.get(index).copied().unwrap_or_default();
        let line_end = line_start + self.line(index + 1).map_or(0, str::len);
        let end = self
            .content
            .floor_char_boundary(range.end.min(line_end).max(start));

        let width = |range: Range<usize>| {
            self.content
                .get(range)
                .map_or(0, |text| text.chars().count())
        };
        let column = width(line_start..start) + 1;
        Place {
            line: index + 1,
            column,
            end_column: column + width(start..end),
            range: start..end,
        }
    }

    /// A place of this text for a report, with the line that stands there.
    pub fn location(&self, place: &Place) -> Location {
        let line = self.line(place.line);
        Location {
            file: Arc::clone(&self.name),
            line: place.line,
            column: place.column,
            end_column: place.end_column,
            excerpt: line.map(|line| Excerpt::new(line, place.column, place.end_column)),
        }
    }

    /// A line of the text, from 1, without its end.
    pub fn line(&self, line: usize) -> Option<&str> {
        let lines = self.lines();
        let start = *lines.get(line.checked_sub(1)?)?;
        let end = lines.get(line).copied().unwrap_or(self.content.len());
        Some(self.content.get(start..end)?.trim_end_matches(['\r', '\n']))
    }

    fn lines(&self) -> &[usize] {
        self.lines.get_or_init(|| {
            let ends = self.content.match_indices('\n').map(|(at, _)| at + 1);
            // A byte order mark is not a column that an editor would count.
            let first = if self.content.starts_with('\u{feff}') {
                '\u{feff}'.len_utf8()
            } else {
                0
            };
            std::iter::once(first).chain(ends).collect()
        })
    }
}
