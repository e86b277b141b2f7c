//! Where in an object something is: `spec.ingress[0].from[1].ipBlock.cidr`.
//!
//! Findings, parse errors and patches all point with a [`FieldPath`]. While reading, a [`Place`] on the stack
//! is used instead, which costs nothing until there is something to report.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// One step down into an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// A key of an object.
    Key(String),
    /// A position in a list.
    Index(usize),
}

/// The way from the root of an object to one of its fields; the empty path is the object itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldPath(Vec<Segment>);

/// A text that is not a field path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a field path: {0:?}")]
pub struct FieldPathError(String);

/// A field path kept as a chain on the stack while an object is read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    Root,
    Key(&'a Place<'a>, &'a str),
    Index(&'a Place<'a>, usize),
}

// === impl FieldPath ===

impl FieldPath {
    /// The object itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// The path of these steps: `FieldPath::of(["spec", "podSelector"])`.
    pub fn of<S: Into<Segment>>(steps: impl IntoIterator<Item = S>) -> Self {
        Self(steps.into_iter().map(Into::into).collect())
    }

    /// This path and one key more.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.with(Segment::Key(key.to_owned()))
    }

    /// This path and one list position more.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(Segment::Index(index))
    }

    /// This path, then the other one.
    #[must_use]
    pub fn join(&self, below: &FieldPath) -> Self {
        Self(self.0.iter().chain(&below.0).cloned().collect())
    }

    /// The steps from the root.
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// Whether this is the object itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `above` is this path or an ancestor of it.
    pub fn starts_with(&self, above: &FieldPath) -> bool {
        self.0.starts_with(&above.0)
    }

    /// The path one step up; none for the root.
    pub fn parent(&self) -> Option<FieldPath> {
        self.0.split_last().map(|(_, above)| Self(above.to_vec()))
    }

    /// The same path as a JSON Pointer (RFC 6901), as JSON Patch wants it.
    pub fn to_pointer(&self) -> String {
        let mut pointer = String::new();
        for segment in &self.0 {
            pointer.push('/');
            match segment {
                Segment::Key(key) => pointer.push_str(&key.replace('~', "~0").replace('/', "~1")),
                Segment::Index(index) => pointer.push_str(&index.to_string()),
            }
        }
        pointer
    }

    /// What is at this path in a value.
    pub fn lookup<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        self.0.iter().try_fold(value, |at, segment| match segment {
            Segment::Key(key) => at.as_object()?.get(key),
            Segment::Index(index) => at.as_array()?.get(*index),
        })
    }

    /// As [`FieldPath::lookup`], to change what is there.
    pub(crate) fn lookup_mut<'v>(&self, value: &'v mut Value) -> Option<&'v mut Value> {
        self.0.iter().try_fold(value, |at, segment| match segment {
            Segment::Key(key) => at.as_object_mut()?.get_mut(key),
            Segment::Index(index) => at.as_array_mut()?.get_mut(*index),
        })
    }

    fn with(&self, segment: Segment) -> Self {
        let mut segments = Vec::with_capacity(self.0.len().saturating_add(1));
        segments.extend_from_slice(&self.0);
        segments.push(segment);
        Self(segments)
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Key(key) if is_plain(key) => {
                    let dot = if position == 0 { "" } else { "." };
                    write!(f, "{dot}{key}")?;
                }
                Segment::Key(key) => {
                    write!(
                        f,
                        "[\"{}\"]",
                        key.replace('\\', "\\\\").replace('"', "\\\"")
                    )?;
                }
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

impl FromStr for FieldPath {
    type Err = FieldPathError;

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Self, FieldPathError> {
        let mut segments = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (segment, after) = next_segment(rest, segments.is_empty())
                .ok_or_else(|| FieldPathError(text.to_owned()))?;
            segments.push(segment);
            rest = after;
        }
        Ok(Self(segments))
    }
}

impl Serialize for FieldPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FieldPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl FromIterator<Segment> for FieldPath {
    fn from_iter<I: IntoIterator<Item = Segment>>(segments: I) -> Self {
        Self(segments.into_iter().collect())
    }
}

// === impl Segment ===

impl From<&str> for Segment {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<String> for Segment {
    fn from(key: String) -> Self {
        Self::Key(key)
    }
}

impl From<usize> for Segment {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

// === impl Place ===

impl Place<'_> {
    /// The place one key down.
    pub(crate) fn key<'b>(&'b self, key: &'b str) -> Place<'b> {
        Place::Key(self, key)
    }

    /// The place one list position down.
    pub(crate) fn index(&self, index: usize) -> Place<'_> {
        Place::Index(self, index)
    }

    /// The place as a value that outlives the reading.
    pub(crate) fn to_path(self) -> FieldPath {
        let mut segments = Vec::new();
        let mut at = &self;
        loop {
            match at {
                Place::Root => break,
                Place::Key(above, key) => {
                    segments.push(Segment::from(*key));
                    at = above;
                }
                Place::Index(above, index) => {
                    segments.push(Segment::Index(*index));
                    at = above;
                }
            }
        }
        segments.reverse();
        FieldPath(segments)
    }
}

fn is_plain(key: &str) -> bool {
    !key.is_empty()
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// One segment off the front of a text, and the text after it.
fn next_segment(text: &str, is_first: bool) -> Option<(Segment, &str)> {
    if let Some(quoted) = text.strip_prefix("[\"") {
        let mut key = String::new();
        let mut characters = quoted.chars();
        loop {
            match characters.next()? {
                '\\' => key.push(characters.next()?),
                '"' => break,
                other => key.push(other),
            }
        }
        return Some((Segment::Key(key), characters.as_str().strip_prefix(']')?));
    }
    if let Some(bracketed) = text.strip_prefix('[') {
        let (index, after) = bracketed.split_once(']')?;
        let digits_only = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
        return Some((
            Segment::Index(index.parse().ok().filter(|_| digits_only)?),
            after,
        ));
    }
    let key = if is_first {
        text
    } else {
        text.strip_prefix('.')?
    };
    let end = key.find(['.', '[']).unwrap_or(key.len());
    let (key, after) = key.split_at_checked(end)?;
    is_plain(key).then(|| (Segment::from(key), after))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_prints_with_dots_brackets_and_quotes() {
        let path = FieldPath::of(["spec", "ingress"])
            .index(0)
            .key("from")
            .index(1)
            .key("ipBlock");
        assert_eq!(path.to_string(), "spec.ingress[0].from[1].ipBlock");
        let label = FieldPath::of(["metadata", "labels", "app.kubernetes.io/name"]);
        assert_eq!(
            label.to_string(),
            r#"metadata.labels["app.kubernetes.io/name"]"#
        );
        assert_eq!(FieldPath::root().to_string(), "");
        assert_eq!(
            serde_json::to_value(&label).expect("a string"),
            json!(label.to_string())
        );
    }

    #[test]
    fn a_path_becomes_a_json_pointer() {
        let path = FieldPath::of(["metadata", "labels", "a/b~c"]).index(3);
        assert_eq!(path.to_pointer(), "/metadata/labels/a~1b~0c/3");
    }

    #[test]
    fn a_path_finds_its_value() {
        let value = json!({"spec": {"ports": [{"port": 80}, {"port": 443}]}});
        let path: FieldPath = "spec.ports[1].port".parse().expect("a path");
        assert_eq!(path.lookup(&value), Some(&json!(443)));
        assert_eq!(path.index(0).lookup(&value), None);
        assert_eq!(FieldPath::of(["spec", "ports", "1"]).lookup(&value), None);
    }

    #[test]
    fn a_path_knows_its_ancestors() {
        let path: FieldPath = "spec.ingress[0]".parse().expect("a path");
        let parent = path.parent().expect("not the root");
        assert!(path.starts_with(&parent) && path.starts_with(&path) && !parent.starts_with(&path));
        assert_eq!(FieldPath::root().join(&path), path);
        assert_eq!(FieldPath::root().parent(), None);
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in [
            "a..b", ".a", "a[", "a[x]", "a[+1]", "a[\"b]", "a b", "[]", "a[0]b",
        ] {
            assert!(text.parse::<FieldPath>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn reading_what_was_printed_gives_the_same_path(
            segments in proptest::collection::vec(
                prop_oneof!["\\PC{0,8}".prop_map(Segment::Key), any::<usize>().prop_map(Segment::Index)],
                0..6,
            )
        ) {
            let path = FieldPath(segments);
            prop_assert_eq!(path.to_string().parse::<FieldPath>().expect("printed by us"), path);
        }
    }
}
