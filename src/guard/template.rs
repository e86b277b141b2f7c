//! Templates: baseline policies that are made from a few parameters.
//!
//! [`TEMPLATES`] says what each one is for and which parameters it takes. [`Template::render`] reads the texts that
//! were given (`parameter`) into typed values, names every one that is unknown, missing or wrong, and builds the
//! policies as JSON values (`build`, `library`); nothing is ever pasted into a text, so no value can become structure.

use std::collections::BTreeMap;

use serde_json::Value;

use parameter::{Given, Values};
pub use parameter::{Kind, Parameter};

mod build;
mod library;
mod parameter;
#[cfg(test)]
mod tests;

/// One template.
#[derive(Clone, Copy, Debug)]
pub struct Template {
    /// Its name on the command line.
    pub name: &'static str,
    /// What its policies do, in one sentence.
    pub about: &'static str,
    /// What it takes, beside [`COMMON`].
    pub parameters: &'static [Parameter],
    /// What its policies are for, where `purpose` is not given.
    purpose: &'static str,
    build: fn(&Values<'_>) -> Result<Vec<Value>, TemplateError>,
}

/// What every template takes: what the policies say about themselves.
pub const COMMON: &[Parameter] = &[
    Parameter::required("owner", Kind::Text, "who answers for the policies: a team"),
    Parameter::optional(
        "purpose",
        Kind::Text,
        "what the policies are for; each template has words for it",
    ),
    Parameter::optional(
        "review-by",
        Kind::Day,
        "the day by which someone looks at them again",
    ),
];

/// All templates, in the order in which one meets them.
pub const TEMPLATES: &[Template] = library::TEMPLATES;

/// Why a template cannot be rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// There is no template of this name.
    #[error("there is no template `{name}`; `ringfence template list` has them{}", suggestion(.near.as_deref()))]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// The one that is probably meant.
        near: Option<String>,
    },
    /// Parameters are missing, unknown or wrong; all of them are told.
    #[error("template {template}: {}", .problems.join("; "))]
    Parameters {
        /// The template.
        template: &'static str,
        /// What is wrong, each with the name of its parameter.
        problems: Vec<String>,
    },
}

fn suggestion(near: Option<&str>) -> String {
    near.map_or_else(String::new, |near| format!(" (did you mean `{near}`?)"))
}

/// The template of a name.
pub fn find(name: &str) -> Result<&'static Template, TemplateError> {
    let known = || TEMPLATES.iter().map(|template| template.name);
    let found = TEMPLATES.iter().find(|template| template.name == name);
    found.ok_or_else(|| TemplateError::Unknown {
        name: name.to_owned(),
        near: near(name, known()),
    })
}

/// Reads what people are told by a policy: one line.
pub fn check_text(text: &str) -> Result<String, String> {
    Given::read(Kind::Text, text).map(|_| text.to_owned())
}

/// The candidate that a word is nearest to, where it is near enough to be a typo.
fn near<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> Option<String> {
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate.to_owned())
}

// === impl Template ===

impl Template {
    /// Every parameter that it takes.
    pub fn all_parameters(&self) -> impl Iterator<Item = &'static Parameter> {
        self.parameters.iter().chain(COMMON)
    }

    /// The policies, as manifests, made from parameters by name.
    pub fn render(&self, given: &BTreeMap<String, String>) -> Result<Vec<Value>, TemplateError> {
        let mut problems = Vec::new();
        for name in given.keys() {
            if !self
                .all_parameters()
                .any(|parameter| parameter.name == name)
            {
                let known = self.all_parameters().map(|parameter| parameter.name);
                let near = near(name, known);
                problems.push(format!(
                    "unknown parameter `{name}`{}",
                    suggestion(near.as_deref())
                ));
            }
        }
        let mut values = Values::new(self);
        for parameter in self.all_parameters() {
            let text = given.get(parameter.name).map(String::as_str);
            match text.or(parameter.default) {
                None if parameter.is_required => {
                    problems.push(format!(
                        "parameter `{}` is missing: {}",
                        parameter.name, parameter.about
                    ));
                }
                None => {}
                Some(text) => match Given::read(parameter.kind, text) {
                    Ok(value) => values.set(parameter.name, value),
                    Err(reason) => {
                        problems.push(format!("parameter `{}`: {reason}", parameter.name));
                    }
                },
            }
        }
        if !problems.is_empty() {
            return Err(self.refuse(problems));
        }
        (self.build)(&values)
    }

    fn refuse(&self, problems: Vec<String>) -> TemplateError {
        TemplateError::Parameters {
            template: self.name,
            problems,
        }
    }
}
