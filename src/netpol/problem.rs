//! What is wrong with an object: every problem with its exact field, collected while reading.

use std::fmt;

use serde::Serialize;

use super::field::{FieldPath, Place};

/// More problems than this in one object are not listed: the reader is helped by the first ones.
const MOST_PROBLEMS: usize = 100;

/// One thing that is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The field that is wrong, or that is missing.
    pub field: FieldPath,
    /// What is wrong with it, as one line.
    pub reason: String,
}

/// Why an object could not be read: all its problems, never none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ParseError {
    /// The problems, in the order in which they were met.
    pub problems: Vec<Problem>,
}

/// The problems of one object while it is read.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<Problem>);

impl Problems {
    /// Notes one problem; what exceeds a sensible number is left out.
    pub(crate) fn add(&mut self, at: &Place<'_>, reason: impl Into<String>) {
        if self.0.len() < MOST_PROBLEMS {
            self.0.push(Problem {
                field: at.to_path(),
                reason: reason.into(),
            });
        }
    }

    /// Notes that a text has not the form that its field wants, if there is such a reason.
    pub(crate) fn add_if(&mut self, at: &Place<'_>, text: &str, reason: Option<&str>) {
        if let Some(reason) = reason {
            self.add(at, format!("{}: {reason}", Quoted(text)));
        }
    }

    /// Puts problems of types before these, and drops those that only follow from them.
    pub(crate) fn preceded_by(&mut self, wrong_types: Vec<Problem>) {
        let follows = |problem: &Problem| {
            wrong_types.iter().any(|wrong| {
                problem.field.starts_with(&wrong.field) || wrong.field.starts_with(&problem.field)
            })
        };
        self.0.retain(|problem| !follows(problem));
        self.0.splice(0..0, wrong_types);
    }

    /// The error that these problems make, if there are any.
    pub(crate) fn into_result(self) -> Result<(), ParseError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(ParseError { problems: self.0 })
        }
    }
}

impl ParseError {
    /// An error of one problem.
    pub(crate) fn one(field: FieldPath, reason: impl Into<String>) -> Self {
        Self {
            problems: vec![Problem {
                field,
                reason: reason.into(),
            }],
        }
    }

    /// The same error of an object that stands at a field of a larger one.
    #[must_use]
    pub fn below(mut self, above: &FieldPath) -> Self {
        for problem in &mut self.problems {
            problem.field = above.join(&problem.field);
        }
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_root() {
            f.write_str(&self.reason)
        } else {
            write!(f, "{}: {}", self.field, self.reason)
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.problems.iter().enumerate() {
            let separator = if position == 0 { "" } else { "; " };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

/// A text from outside, quoted and cut to a length that fits a message.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST_CHARACTERS: usize = 64;
        match self.0.char_indices().nth(MOST_CHARACTERS) {
            None => write!(f, "{:?}", self.0),
            Some((end, _)) => write!(f, "{:?}…", self.0.get(..end).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_lists_all_its_problems() {
        let mut problems = Problems::default();
        problems.add(&Place::Root, "is no object");
        problems.add_if(&Place::Root.key("kind"), "x", Some("is unknown"));
        problems.add_if(&Place::Root.key("kind"), "x", None);
        let error = problems.into_result().expect_err("two problems");
        assert_eq!(error.to_string(), "is no object; kind: \"x\": is unknown");
    }

    #[test]
    fn problems_that_follow_from_a_wrong_type_are_not_told() {
        let mut problems = Problems::default();
        let (spec, metadata) = (Place::Root.key("spec"), Place::Root.key("metadata"));
        problems.add(&spec, "follows from the type of what is below");
        problems.add(&metadata, "stands for itself");
        let typed = Problem {
            field: FieldPath::of(["spec", "cidr"]),
            reason: "wrong type".into(),
        };
        problems.preceded_by(vec![typed.clone()]);
        let error = problems.into_result().expect_err("two problems");
        assert_eq!(error.problems.len(), 2);
        assert_eq!(error.problems[0], typed);
        assert_eq!(error.problems[1].reason, "stands for itself");
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let long = "ä".repeat(100);
        assert_eq!(Quoted(&long).to_string().chars().count(), 64 + 3);
    }
}
