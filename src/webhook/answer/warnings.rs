//! Warnings within the API's limits, so that none is dropped on its way to the terminal.
//!
//! The API wants no newline and no "Warning:" in front, about 120 characters; it cuts at 256, drops text with control
//! characters, and drops everything past 4096 characters of all webhooks together.
//!
//! Source: k8s.io/api/admission/v1, AdmissionResponse.warnings; k8s.io/apiserver, endpoints/filters/warning.go.

use crate::guard::finding::Finding;

/// Collects warnings.
#[derive(Debug, Default)]
pub struct Warnings {
    lines: Vec<String>,
    characters: usize,
    more: usize,
}

/// What a line should have, in characters.
const GOOD: usize = 120;
/// What a line may have.
const LONGEST: usize = 256;
/// What all lines together may have, with some left for other webhooks and for the last line.
const TOTAL: usize = 3_000;

impl Warnings {
    /// Adds a finding: with its fix where the line stays short, and cut where it must be.
    pub fn finding(&mut self, finding: &Finding) {
        let field = finding.field.to_string();
        let head = if field.is_empty() {
            format!("{}:", finding.id)
        } else {
            format!("{} {field}:", finding.id)
        };
        let plain = format!("{head} {}", finding.message);
        let with_fix = finding
            .fix
            .as_ref()
            .map(|fix| format!("{plain}; {}", fix.summary));
        match with_fix {
            Some(line) if line.chars().count() <= GOOD => self.line(&line),
            Some(_) | None => self.line(&plain),
        }
    }

    /// Adds a line, unless it is there already or there is no more room.
    pub fn line(&mut self, text: &str) {
        let line = one_line(without_prefix(text), LONGEST);
        if line.is_empty() || self.lines.contains(&line) {
            return;
        }
        let total = self.characters.saturating_add(line.chars().count());
        // Once one did not fit, later ones do not slip in before it: the count of the rest must be true.
        if total > TOTAL || self.more > 0 {
            self.more = self.more.saturating_add(1);
            return;
        }
        self.characters = total;
        self.lines.push(line);
    }

    /// The lines, the last one saying how many did not fit.
    pub fn into_lines(self) -> Vec<String> {
        let mut lines = self.lines;
        if self.more > 0 {
            lines.push(format!(
                "+{} more; `ringfence check` on the manifest shows all",
                self.more
            ));
        }
        lines
    }
}

/// One line without control characters, cut with an ellipsis at this many characters.
pub(super) fn one_line(text: &str, longest: usize) -> String {
    let mut line = String::with_capacity(text.len().min(longest));
    let mut count = 0_usize;
    let mut chars = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .peekable();
    while let Some(c) = chars.next() {
        if count.saturating_add(1) == longest && chars.peek().is_some() {
            line.push('…');
            break;
        }
        line.push(c);
        count = count.saturating_add(1);
    }
    line
}

fn without_prefix(text: &str) -> &str {
    let text = text.trim();
    match text.split_at_checked("warning:".len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case("warning:") => rest,
        Some(_) | None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(texts: impl IntoIterator<Item = String>) -> Vec<String> {
        let mut warnings = Warnings::default();
        for text in texts {
            warnings.line(&text);
        }
        warnings.into_lines()
    }

    #[test]
    fn a_warning_has_one_line_no_prefix_and_no_control_characters() {
        assert_eq!(
            lines([
                "Warning: a\nb\u{7}c\u{9b}d".to_owned(),
                " WARNING:x ".to_owned(),
                "\n".to_owned()
            ]),
            ["a b c d", "x"]
        );
    }

    #[test]
    fn a_long_warning_is_cut_at_256_characters_not_bytes() {
        let [line] = &lines(["ü".repeat(300)])[..] else {
            panic!()
        };
        assert_eq!(line.chars().count(), 256);
        assert!(line.ends_with("ü…"));
        assert_eq!(lines(["ü".repeat(256)])[0].chars().count(), 256);
        assert!(!lines(["ü".repeat(256)])[0].contains('…'));
    }

    #[test]
    fn all_warnings_together_stay_below_4096_and_the_last_says_how_many_are_missing() {
        let lines = lines((0..100).map(|number| format!("{number} {}", "x".repeat(200))));
        let total: usize = lines.iter().map(|line| line.chars().count()).sum();
        assert!(total < 4096, "{total}");
        assert_eq!(lines.len(), 15);
        assert_eq!(
            lines[14],
            "+86 more; `ringfence check` on the manifest shows all"
        );
    }

    #[test]
    fn what_was_said_is_not_said_again() {
        assert_eq!(lines(["a".to_owned(), "a".to_owned()]), ["a"]);
    }
}
