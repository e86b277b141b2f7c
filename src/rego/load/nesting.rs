//! How deep a policy nests, looked at before it is parsed: the evaluator's parser takes twice as long for each level.

use crate::rego::load::{Place, PolicyFile, Problem};

/// Deepest nesting of braces and brackets.
const MAX_NESTING: usize = 12;

/// Where a policy nests too deep, if it does.
pub(super) fn too_deep(file: &PolicyFile) -> Option<Problem> {
    let mut depth = 0_usize;
    let (mut line, mut column) = (1_u32, 0_u32);
    let mut within = Within::Code;
    let mut letters = file.text.chars();
    while let Some(letter) = letters.next() {
        column = column.saturating_add(1);
        within = match (within, letter) {
            (Within::Code, '#') => Within::Comment,
            (Within::Code, '"') => Within::Text,
            (Within::Code, '`') => Within::RawText,
            (Within::Text, '\\') => {
                letters.next();
                column = column.saturating_add(1);
                Within::Text
            }
            // A text ends with its line at the latest.
            (Within::Text, '"')
            | (Within::RawText, '`')
            | (Within::Comment | Within::Text, '\n') => Within::Code,
            (within, _) => within,
        };
        match letter {
            '[' | '{' if within == Within::Code => depth += 1,
            ']' | '}' if within == Within::Code => depth = depth.saturating_sub(1),
            '\n' => (line, column) = (line.saturating_add(1), 0),
            _ => {}
        }
        if depth > MAX_NESTING {
            let place = Place {
                file: file.path.clone(),
                line,
                column,
            };
            return Some(Problem::at(
                place,
                format!("braces and brackets are nested more than {MAX_NESTING} deep"),
            ));
        }
    }
    None
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Code,
    Comment,
    Text,
    RawText,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> Option<String> {
        too_deep(&PolicyFile {
            path: "p.rego".to_owned(),
            text: text.to_owned(),
        })
        .map(|problem| problem.to_string())
    }

    #[test]
    fn nesting_is_told_with_its_place() {
        let text = format!("package p\na := {}", "[".repeat(20));
        assert_eq!(
            problem(&text).as_deref(),
            Some("p.rego:2:18: braces and brackets are nested more than 12 deep")
        );
        assert_eq!(
            problem(&format!("a := {}1{}", "{[".repeat(6), "]}".repeat(6))),
            None
        );
        assert_eq!(problem(&"[]{}".repeat(100)), None);
    }

    #[test]
    fn texts_and_comments_do_not_nest() {
        let many = "[".repeat(50);
        assert_eq!(
            problem(&format!(
                "a := \"{many}\\\"{many}\" # {many}\nb := `{many}`"
            )),
            None
        );
    }
}
