//! Label selectors: which objects a policy, a peer or a guardrail means.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use serde::{Serialize, Serializer};

use super::field::{FieldPath, Place};
use super::labels::{self, Labels};
use super::problem::{ParseError, Problems, Quoted};

mod compose;

/// A set of objects by their labels: those that meet every requirement.
///
/// <https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.36/#labelselector-v1-meta>
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    /// Sorted and without repetition, so that equal meaning is more often equal value.
    requirements: Box<[Requirement]>,
}

/// What is demanded of one label key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    key: Box<str>,
    operator: Operator,
}

/// The ways to demand something of a label; values are sorted, and never none where there are values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// The label is there with one of these values.
    In(Box<[Box<str>]>),
    /// The label is missing or has none of these values.
    NotIn(Box<[Box<str>]>),
    /// The label is there.
    Exists,
    /// The label is missing.
    DoesNotExist,
}

/// What one key may be in an object that a selector matches: the requirements for it as one set.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outcomes<'s> {
    /// The label may be missing.
    may_be_missing: bool,
    values: Values<'s>,
}

/// A set of label values that is finite, or misses finitely many.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Values<'s> {
    Only(BTreeSet<&'s str>),
    AllBut(BTreeSet<&'s str>),
}

// === impl Selector ===

impl Selector {
    /// The selector that matches every object.
    pub fn everything() -> Self {
        Self::default()
    }

    /// The selector of these requirements.
    pub fn new(requirements: impl IntoIterator<Item = Requirement>) -> Self {
        let sorted: BTreeSet<Requirement> = requirements.into_iter().collect();
        Self {
            requirements: sorted.into_iter().collect(),
        }
    }

    /// The selector of objects that carry all these labels, as `matchLabels` and a service's selector mean it.
    pub fn of_labels(labels: &Labels) -> Self {
        Self::new(
            labels
                .iter()
                .map(|(key, value)| Requirement::is(key, value)),
        )
    }

    /// Reads a selector of the API; `at` is where it stands in its object.
    pub fn parse(selector: &LabelSelector, at: &FieldPath) -> Result<Self, ParseError> {
        let mut problems = Problems::default();
        let read = Self::read(selector, &Place::Root, &mut problems);
        problems.into_result().map_err(|error| error.below(at))?;
        Ok(read)
    }

    /// What must hold, all of it.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether an object with these labels is meant.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements
            .iter()
            .all(|requirement| requirement.matches(labels))
    }

    /// Whether every object is meant, by having no requirement at all.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether each object that this selector matches is matched by the other one too.
    ///
    /// `true` is always right; it looks at the selectors only, not at what objects there are.
    pub fn implies(&self, other: &Selector) -> bool {
        let own = self.outcomes();
        let anything = Outcomes::anything();
        own.values().any(Outcomes::is_empty)
            || other
                .outcomes()
                .iter()
                .all(|(key, wanted)| own.get(key).unwrap_or(&anything).is_within(wanted))
    }

    /// Whether no object can be matched by both; `true` is always right.
    pub fn disjoint(&self, other: &Selector) -> bool {
        let (own, others) = (self.outcomes(), other.outcomes());
        own.values().chain(others.values()).any(Outcomes::is_empty)
            || own.iter().any(|(key, outcomes)| {
                others
                    .get(key)
                    .is_some_and(|other| outcomes.clone().and(other.clone()).is_empty())
            })
    }

    /// Reads a selector of the API and notes what the API server would refuse.
    pub(super) fn read(selector: &LabelSelector, at: &Place<'_>, problems: &mut Problems) -> Self {
        let labels_at = at.key("matchLabels");
        labels::check(selector.match_labels.iter().flatten(), &labels_at, problems);
        let labels = selector.match_labels.iter().flatten();
        let equalities = labels.map(|(key, value)| Requirement::is(key, value));

        let expressions_at = at.key("matchExpressions");
        let expressions = selector.match_expressions.iter().flatten().enumerate();
        let expressions = expressions.filter_map(|(index, expression)| {
            Requirement::read(expression, &expressions_at.index(index), problems)
        });
        Self::new(equalities.chain(expressions))
    }

    fn outcomes(&self) -> BTreeMap<&str, Outcomes<'_>> {
        let mut by_key: BTreeMap<&str, Outcomes<'_>> = BTreeMap::new();
        for requirement in &self.requirements {
            let outcomes = Outcomes::of(&requirement.operator);
            let merged = match by_key.remove(&*requirement.key) {
                Some(earlier) => earlier.and(outcomes),
                None => outcomes,
            };
            by_key.insert(&requirement.key, merged);
        }
        by_key
    }
}

impl fmt::Display for Selector {
    /// As `kubectl --selector` takes it; nothing for the selector of everything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, requirement) in self.requirements.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(f, "{comma}{requirement}")?;
        }
        Ok(())
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

// === impl Requirement ===

impl Requirement {
    /// The label has this value.
    pub fn is(key: &str, value: &str) -> Self {
        Self::new(key, Operator::In(Box::new([Box::from(value)])))
    }

    /// The label has one of these values.
    pub fn is_in<'v>(key: &str, values: impl IntoIterator<Item = &'v str>) -> Self {
        Self::new(key, Operator::In(sorted(values)))
    }

    /// The label is missing or has none of these values.
    pub fn is_not_in<'v>(key: &str, values: impl IntoIterator<Item = &'v str>) -> Self {
        Self::new(key, Operator::NotIn(sorted(values)))
    }

    /// The label is there.
    pub fn exists(key: &str) -> Self {
        Self::new(key, Operator::Exists)
    }

    /// The label is missing.
    pub fn does_not_exist(key: &str) -> Self {
        Self::new(key, Operator::DoesNotExist)
    }

    /// The label key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What is demanded of it.
    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    /// Whether an object with these labels meets it.
    pub fn matches(&self, labels: &Labels) -> bool {
        let has = |values: &[Box<str>], value: &str| {
            let found = values.binary_search_by(|one| (**one).cmp(value));
            found.is_ok()
        };
        match (&self.operator, labels.get(&self.key)) {
            (Operator::In(values), Some(value)) => has(values, value),
            (Operator::NotIn(values), Some(value)) => !has(values, value),
            (Operator::Exists, value) => value.is_some(),
            (Operator::DoesNotExist, value) => value.is_none(),
            (Operator::In(_), None) => false,
            (Operator::NotIn(_), None) => true,
        }
    }

    fn new(key: &str, operator: Operator) -> Self {
        Self {
            key: key.into(),
            operator,
        }
    }

    fn read(
        expression: &LabelSelectorRequirement,
        at: &Place<'_>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let key = &expression.key;
        problems.add_if(&at.key("key"), key, labels::key_problem(key));
        let values_at = at.key("values");
        let values = expression.values.as_deref().unwrap_or_default();
        for (index, value) in values.iter().enumerate() {
            problems.add_if(&values_at.index(index), value, labels::value_problem(value));
        }
        let texts = values.iter().map(String::as_str);
        match (expression.operator.as_str(), values) {
            ("In" | "NotIn", []) => {
                problems.add(
                    &values_at,
                    format!("operator {} needs at least one value", expression.operator),
                );
                None
            }
            ("In", _) => Some(Self::is_in(key, texts)),
            ("NotIn", _) => Some(Self::is_not_in(key, texts)),
            ("Exists", []) => Some(Self::exists(key)),
            ("DoesNotExist", []) => Some(Self::does_not_exist(key)),
            ("Exists" | "DoesNotExist", _) => {
                problems.add(
                    &values_at,
                    format!("operator {} takes no values", expression.operator),
                );
                None
            }
            (unknown, _) => {
                let reason = format!(
                    "{} is not an operator: use In, NotIn, Exists or DoesNotExist",
                    Quoted(unknown)
                );
                problems.add(&at.key("operator"), reason);
                None
            }
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.operator {
            Operator::In(values) => match &**values {
                [only] => write!(f, "{key}={only}"),
                several => write!(f, "{key} in ({})", several.join(",")),
            },
            Operator::NotIn(values) => match &**values {
                [only] => write!(f, "{key}!={only}"),
                several => write!(f, "{key} notin ({})", several.join(",")),
            },
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
        }
    }
}

// === impl Outcomes ===

impl<'s> Outcomes<'s> {
    fn anything() -> Self {
        Self {
            may_be_missing: true,
            values: Values::AllBut(BTreeSet::new()),
        }
    }

    fn of(operator: &'s Operator) -> Self {
        let set = |values: &'s [Box<str>]| values.iter().map(|value| &**value).collect();
        let (may_be_missing, values) = match operator {
            Operator::In(values) => (false, Values::Only(set(values))),
            Operator::NotIn(values) => (true, Values::AllBut(set(values))),
            Operator::Exists => (false, Values::AllBut(BTreeSet::new())),
            Operator::DoesNotExist => (true, Values::Only(BTreeSet::new())),
        };
        Self {
            may_be_missing,
            values,
        }
    }

    fn and(self, other: Self) -> Self {
        let values = match (self.values, other.values) {
            (Values::Only(left), Values::Only(right)) => Values::Only(&left & &right),
            (Values::Only(some), Values::AllBut(others))
            | (Values::AllBut(others), Values::Only(some)) => {
                Values::Only(some.difference(&others).copied().collect())
            }
            (Values::AllBut(left), Values::AllBut(right)) => Values::AllBut(&left | &right),
        };
        Self {
            may_be_missing: self.may_be_missing && other.may_be_missing,
            values,
        }
    }

    fn is_within(&self, other: &Self) -> bool {
        let values_are = match (&self.values, &other.values) {
            (Values::Only(own), Values::Only(theirs)) => own.is_subset(theirs),
            (Values::Only(own), Values::AllBut(others)) => own.is_disjoint(others),
            (Values::AllBut(missed), Values::AllBut(others)) => others.is_subset(missed),
            // Valid label values are many more than any list of them.
            (Values::AllBut(_), Values::Only(_)) => false,
        };
        values_are && (other.may_be_missing || !self.may_be_missing)
    }

    fn is_empty(&self) -> bool {
        !self.may_be_missing && matches!(&self.values, Values::Only(values) if values.is_empty())
    }
}

fn sorted<'v>(values: impl IntoIterator<Item = &'v str>) -> Box<[Box<str>]> {
    let sorted: BTreeSet<&str> = values.into_iter().collect();
    sorted.into_iter().map(Box::from).collect()
}

#[cfg(test)]
mod tests;
