//! The line that a finding points at, or the part of it that a person can look at.

/// The part of a line around a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// The part, with `…` where something is left out.
    pub text: String,
    /// The bytes of the place in the part: from here
    pub start: usize,
    /// to here.
    pub end: usize,
}

/// Lines may be as long as files, for JSON is often written in one; a person reads about this much.
const MOST_CHARACTERS: usize = 160;

/// How much stands before the place if a line is cut.
const BEFORE: usize = 60;

impl Excerpt {
    /// The part of a line around the columns, which count characters from 1.
    pub fn new(line: &str, column: usize, end_column: usize) -> Self {
        let start = column.saturating_sub(1);
        let end = end_column.saturating_sub(1).max(start);
        let mut characters = line.chars();
        let is_short = characters.by_ref().nth(MOST_CHARACTERS).is_none();
        let from = if is_short {
            0
        } else {
            start.saturating_sub(BEFORE)
        };
        let end = end.min(from.saturating_add(MOST_CHARACTERS));

        let mut excerpt = Self {
            text: String::new(),
            start: 0,
            end: 0,
        };
        if from > 0 {
            excerpt.text.push('…');
        }
        for (position, character) in (from..).zip(line.chars().skip(from).take(MOST_CHARACTERS)) {
            if position < start {
                excerpt.start = excerpt.text.len().saturating_add(character.len_utf8());
            }
            excerpt.text.push(character);
            if position < end {
                excerpt.end = excerpt.text.len();
            }
        }
        if from > 0 && start == from {
            excerpt.start = '…'.len_utf8();
        }
        excerpt.end = excerpt.end.max(excerpt.start);
        if line
            .chars()
            .nth(from.saturating_add(MOST_CHARACTERS))
            .is_some()
        {
            excerpt.text.push('…');
        }
        excerpt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(excerpt: &Excerpt) -> &str {
        &excerpt.text[excerpt.start..excerpt.end]
    }

    #[test]
    fn a_short_line_is_kept_whole() {
        let excerpt = Excerpt::new("  ä: öü # x", 6, 8);
        assert_eq!(excerpt.text, "  ä: öü # x");
        assert_eq!(marked(&excerpt), "öü");
    }

    #[test]
    fn a_place_at_the_end_of_a_line_is_empty() {
        let excerpt = Excerpt::new("a: [", 5, 5);
        assert_eq!((excerpt.start, excerpt.end), (4, 4));
        let beyond = Excerpt::new("", 9, 12);
        assert_eq!((beyond.start, beyond.end), (0, 0));
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let line = format!("{}ß-here-{}", "x".repeat(100_000), "y".repeat(100_000));
        let excerpt = Excerpt::new(&line, 100_003, 100_007);
        assert_eq!(marked(&excerpt), "here");
        assert!(excerpt.text.starts_with('…') && excerpt.text.ends_with('…'));
        assert_eq!(excerpt.text.chars().count(), MOST_CHARACTERS + 2);
        let whole = Excerpt::new(&line, 1, 200_000);
        assert_eq!(marked(&whole).chars().count(), MOST_CHARACTERS);
    }
}
