//! Selectors made of selectors, and labels made of selectors: for policies that are written by a program.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::{Operator, Outcomes, Requirement, Selector, Values};
use crate::netpol::labels::Labels;

// === impl Selector ===

impl Selector {
    /// The selector of what this one matches and that meets one more requirement.
    #[must_use]
    pub fn and(&self, requirement: &Requirement) -> Selector {
        Self::new(
            self.requirements()
                .iter()
                .cloned()
                .chain([requirement.clone()]),
        )
    }

    /// The same selector with no more requirements than it takes.
    #[must_use]
    pub fn reduced(&self) -> Selector {
        let mut requirements = Vec::new();
        for (key, outcomes) in self.outcomes() {
            match outcomes.requirements(key) {
                Some(few) => requirements.extend(few),
                // Nothing can meet them.
                None => return self.clone(),
            }
        }
        Self::new(requirements)
    }

    /// The selector of what one of the two matches, where a selector can say that: they differ in one key at most, or one is
    /// within the other.
    pub fn or(&self, other: &Selector) -> Option<Selector> {
        if self.implies(other) {
            return Some(other.clone());
        }
        if other.implies(self) {
            return Some(self.clone());
        }
        let anything = Outcomes::anything();
        let (own, others) = (self.outcomes(), other.outcomes());
        let keys: BTreeSet<&str> = own.keys().chain(others.keys()).copied().collect();
        let mut differing = keys
            .into_iter()
            .filter(|key| own.get(key) != others.get(key));
        let (Some(key), None) = (differing.next(), differing.next()) else {
            return None;
        };
        let one = own.get(key).unwrap_or(&anything).clone();
        let two = others.get(key).unwrap_or(&anything).clone();
        let together = one.or(two).requirements(key)?;
        let rest = self.requirements().iter().filter(|one| one.key() != key);
        Some(Self::new(rest.cloned().chain(together)))
    }

    /// Labels that it asks for, and no others: an object with just these is matched, unless nothing can be.
    pub fn example(&self) -> Labels {
        let mut labels: BTreeMap<&str, &str> = BTreeMap::new();
        for requirement in self.requirements() {
            let value = match requirement.operator() {
                Operator::In(values) => {
                    // Of the values that are left, one that every other requirement for the key allows.
                    let fits = |value: &&str| {
                        let one: Labels = [(requirement.key(), *value)].into();
                        self.requirements()
                            .iter()
                            .filter(|other| other.key() == requirement.key())
                            .all(|other| other.matches(&one))
                    };
                    values.iter().map(AsRef::as_ref).find(fits)
                }
                Operator::Exists => labels.get(requirement.key()).copied().or(Some("any")),
                Operator::NotIn(_) | Operator::DoesNotExist => None,
            };
            if let Some(value) = value {
                labels.insert(requirement.key(), value);
            }
        }
        labels.into_iter().collect()
    }

    /// The selector as the API writes it: equalities as `matchLabels`, the rest as `matchExpressions`.
    pub fn to_label_selector(&self) -> LabelSelector {
        let mut match_labels = BTreeMap::new();
        let mut match_expressions = Vec::new();
        for requirement in self.requirements() {
            let (operator, values) = match requirement.operator() {
                Operator::In(values) => {
                    if let ([value], false) = (
                        values.as_ref(),
                        match_labels.contains_key(requirement.key()),
                    ) {
                        match_labels.insert(requirement.key().to_owned(), value.to_string());
                        continue;
                    }
                    ("In", Some(values))
                }
                Operator::NotIn(values) => ("NotIn", Some(values)),
                Operator::Exists => ("Exists", None),
                Operator::DoesNotExist => ("DoesNotExist", None),
            };
            match_expressions.push(LabelSelectorRequirement {
                key: requirement.key().to_owned(),
                operator: operator.to_owned(),
                values: values.map(|values| values.iter().map(ToString::to_string).collect()),
            });
        }
        LabelSelector {
            match_labels: Some(match_labels).filter(|labels| !labels.is_empty()),
            match_expressions: Some(match_expressions)
                .filter(|expressions| !expressions.is_empty()),
        }
    }
}

// === impl Outcomes ===

impl Outcomes<'_> {
    /// What is in one of the two.
    fn or(self, other: Self) -> Self {
        let values = match (self.values, other.values) {
            (Values::Only(left), Values::Only(right)) => Values::Only(&left | &right),
            (Values::Only(some), Values::AllBut(others))
            | (Values::AllBut(others), Values::Only(some)) => {
                Values::AllBut(others.difference(&some).copied().collect())
            }
            (Values::AllBut(left), Values::AllBut(right)) => Values::AllBut(&left & &right),
        };
        Self {
            may_be_missing: self.may_be_missing || other.may_be_missing,
            values,
        }
    }

    /// The requirements for a key that say so; none where there are none that do.
    fn requirements(&self, key: &str) -> Option<Vec<Requirement>> {
        Some(match (&self.values, self.may_be_missing) {
            (Values::Only(some), true) if some.is_empty() => vec![Requirement::does_not_exist(key)],
            (Values::Only(some), false) if !some.is_empty() => {
                vec![Requirement::is_in(key, some.iter().copied())]
            }
            (Values::Only(_), _) => return None,
            (Values::AllBut(some), may_be_missing) => {
                let mut all = Vec::new();
                if !may_be_missing {
                    all.push(Requirement::exists(key));
                }
                if !some.is_empty() {
                    all.push(Requirement::is_not_in(key, some.iter().copied()));
                }
                all
            }
        })
    }
}

// === impl Requirement ===

impl Requirement {
    /// The requirement that exactly the other objects meet.
    #[must_use]
    pub fn negated(&self) -> Requirement {
        let values =
            |values: &[Box<str>]| values.iter().map(ToString::to_string).collect::<Vec<_>>();
        match self.operator() {
            Operator::In(is) => Self::is_not_in(self.key(), values(is).iter().map(String::as_str)),
            Operator::NotIn(not) => Self::is_in(self.key(), values(not).iter().map(String::as_str)),
            Operator::Exists => Self::does_not_exist(self.key()),
            Operator::DoesNotExist => Self::exists(self.key()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netpol::field::FieldPath;

    fn selector(requirements: impl IntoIterator<Item = Requirement>) -> Selector {
        Selector::new(requirements)
    }

    #[test]
    fn an_example_is_matched() {
        let selectors = [
            Selector::everything(),
            selector([Requirement::is("app", "web"), Requirement::exists("tier")]),
            selector([
                Requirement::is_in("env", ["dev", "prod"]),
                Requirement::is_not_in("env", ["dev"]),
            ]),
            selector([Requirement::does_not_exist("quarantine")]),
        ];
        for selector in selectors {
            assert!(selector.matches(&selector.example()), "{selector}");
        }
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let written = selector([
            Requirement::is("app", "web"),
            Requirement::is_in("env", ["dev", "prod"]),
            Requirement::exists("tier"),
            Requirement::is_not_in("zone", ["a"]),
        ]);
        assert_eq!(
            Selector::parse(&written.to_label_selector(), &FieldPath::root()).unwrap(),
            written
        );
    }

    #[test]
    fn one_selector_for_two_matches_what_either_does() {
        let a = selector([Requirement::is("env", "a"), Requirement::exists("app")]);
        let not_a = selector([
            Requirement::is_not_in("env", ["a"]),
            Requirement::exists("app"),
        ]);
        let b = selector([Requirement::is("env", "b"), Requirement::exists("app")]);
        let none = selector([
            Requirement::does_not_exist("env"),
            Requirement::exists("app"),
        ]);
        let app = selector([Requirement::exists("app")]);
        assert_eq!(a.or(&not_a), Some(app.clone()));
        assert_eq!(b.or(&app), Some(app));
        assert_eq!(a.or(&b).expect("one").to_string(), "app,env in (a,b)");
        // Missing or `a` is nothing that a selector can say.
        assert_eq!(a.or(&none), None);
        assert_eq!(a.or(&selector([Requirement::is("env", "b")])), None);
        let many = selector([
            Requirement::is_not_in("env", ["a"]),
            Requirement::is_in("env", ["a", "b", "c"]),
            Requirement::exists("env"),
        ]);
        assert_eq!(many.reduced().to_string(), "env in (b,c)");
    }

    #[test]
    fn a_negation_matches_what_the_requirement_does_not() {
        let objects: [Labels; 3] = [Labels::default(), [("a", "1")].into(), [("a", "2")].into()];
        let requirements = [
            Requirement::is("a", "1"),
            Requirement::is_not_in("a", ["1"]),
            Requirement::exists("a"),
            Requirement::does_not_exist("a"),
        ];
        for requirement in requirements {
            for object in &objects {
                assert_ne!(
                    requirement.matches(object),
                    requirement.negated().matches(object),
                    "{requirement} {object}"
                );
            }
        }
    }
}
