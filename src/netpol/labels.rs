//! Labels: a small sorted map of texts, shared and immutable.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::field::Place;
use super::name::dns_subdomain_problem;
use super::problem::Problems;

/// The label that the control plane puts on every namespace: its name.
///
/// <https://kubernetes.io/docs/reference/labels-annotations-taints/#kubernetes-io-metadata-name>
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The label by which a Deployment tells the pods of one template from those of another; the end of their `ReplicaSet`'s name.
pub(crate) const TEMPLATE_HASH: &str = "pod-template-hash";

/// Labels that say which of the pods one is, or of which generation, and not what it does.
pub(crate) const VOLATILE: [&str; 9] = [
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-completion-index",
    "batch.kubernetes.io/job-name",
    "controller-revision-hash",
    "controller-uid",
    "job-name",
    TEMPLATE_HASH,
    "statefulset.kubernetes.io/pod-name",
];

/// Whether a label says which of the pods one is, or of which generation: controllers set it when they make a pod.
pub(crate) fn is_volatile(key: &str) -> bool {
    VOLATILE.contains(&key)
}

/// Labels that by habit name an application, the recommended one first.
///
/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/>
pub(super) const NAMING: [&str; 3] = ["app.kubernetes.io/name", "app", "k8s-app"];

/// The labels of an object, sorted by key; cloning shares them.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Arc<[(Box<str>, Box<str>)]>);

/// Annotations have the same shape as labels; nothing selects by them.
pub type Annotations = Labels;

impl Labels {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self
            .0
            .binary_search_by(|(candidate, _)| (**candidate).cmp(key))
            .ok()?;
        self.0.get(at).map(|(_, value)| &**value)
    }

    /// Whether both are held as one; equal ones need not be.
    pub fn is_held_with(&self, other: &Labels) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether there is such a key, whatever its value.
    pub fn contains(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Keys and values in the order of the keys.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same labels with this one added or changed.
    #[must_use]
    pub fn with(&self, key: &str, value: &str) -> Labels {
        if self.get(key) == Some(value) {
            return self.clone();
        }
        self.iter().chain([(key, value)]).collect()
    }
}

impl<K: Into<Box<str>>, V: Into<Box<str>>> FromIterator<(K, V)> for Labels {
    /// Of two values for one key the later one stays.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(labels: I) -> Self {
        let mut sorted: Vec<(Box<str>, Box<str>)> = labels
            .into_iter()
            .map(|(key, value)| (key.into(), value.into()))
            .collect();
        if !sorted.is_sorted_by(|(left, _), (right, _)| left < right) {
            sorted.reverse();
            sorted.sort_by(|(left, _), (right, _)| left.cmp(right));
            sorted.dedup_by(|(next, _), (kept, _)| next == kept);
        }
        Self(sorted.into())
    }
}

impl<K: Into<Box<str>>, V: Into<Box<str>>, const N: usize> From<[(K, V); N]> for Labels {
    fn from(labels: [(K, V); N]) -> Self {
        labels.into_iter().collect()
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (key, value)) in self.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

/// Why a text is no label key.
///
/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set>
pub fn key_problem(key: &str) -> Option<&'static str> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if prefix.is_some_and(|prefix| dns_subdomain_problem(prefix).is_some()) {
        return Some("not a label key: the part before '/' must be a DNS subdomain");
    }
    (name.is_empty() || !is_word(name)).then_some(
        "not a label key: the name must be 1 to 63 letters, digits, '-', '_' and '.', with a letter or digit first and last",
    )
}

/// Why a text is no label value.
///
/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set>
pub fn value_problem(value: &str) -> Option<&'static str> {
    (!value.is_empty() && !is_word(value)).then_some(
        "not a label value: must be empty or at most 63 letters, digits, '-', '_' and '.', with a letter or digit first and last",
    )
}

/// Reports each key and value of a label map that the API server would refuse.
pub(super) fn check<'m>(
    labels: impl IntoIterator<Item = (&'m String, &'m String)>,
    at: &Place<'_>,
    problems: &mut Problems,
) {
    for (key, value) in labels {
        for reason in key_problem(key).into_iter().chain(value_problem(value)) {
            problems.add(&at.key(key), reason);
        }
    }
}

fn is_word(text: &str) -> bool {
    let ends = [text.bytes().next(), text.bytes().next_back()];
    text.len() <= 63
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && ends
            .into_iter()
            .all(|end| end.is_some_and(|byte| byte.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_sorted_and_the_later_value_wins() {
        let labels = Labels::from([("tier", "db"), ("app", "old"), ("app", "new")]);
        assert_eq!(
            labels.iter().collect::<Vec<_>>(),
            [("app", "new"), ("tier", "db")]
        );
        assert_eq!(labels.get("app"), Some("new"));
        assert_eq!(labels.get("missing"), None);
        assert_eq!(labels.to_string(), "app=new,tier=db");
        assert_eq!(labels.with("app", "x").get("app"), Some("x"));
        assert_eq!(labels.with("app", "x").len(), 2);
    }

    #[test]
    fn label_keys_are_checked_as_the_api_server_does() {
        for good in ["app", "app.kubernetes.io/name", "A_b-c.d", "9"] {
            assert_eq!(key_problem(good), None, "{good}");
        }
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a/b/c",
            "-a",
            "a b",
            "UPPER/a",
            &"a".repeat(64),
        ] {
            assert!(key_problem(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn label_values_are_checked_as_the_api_server_does() {
        for good in ["", "web", "v1.2_3", &"a".repeat(63)] {
            assert_eq!(value_problem(good), None, "{good}");
        }
        for bad in ["-", "a-", "a b", "a/b", "ä", &"a".repeat(64)] {
            assert!(value_problem(bad).is_some(), "{bad}");
        }
    }
}
