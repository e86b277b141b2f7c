//! The ends that earlier blocks of a file have named, by the text that does: a file has far fewer ends than records.

use std::collections::HashMap;

use super::line::{End, Pairs};

/// How many bytes of text are kept; what is named after that is read again in every block.
const MOST: usize = 64 << 20;

/// The numbers of the actors that ends are.
#[derive(Debug, Default)]
pub(super) struct Ends {
    numbers: HashMap<Box<str>, usize>,
    size: usize,
}

impl Ends {
    /// The number of the actor that an end of this key is, where it is known.
    pub(super) fn number(&self, key: &str) -> Option<usize> {
        self.numbers.get(key).copied()
    }

    /// Keeps the number of an actor.
    pub(super) fn learn(&mut self, key: Box<str>, number: usize) {
        let size = self.size.saturating_add(key.len());
        if size <= MOST && self.numbers.insert(key, number).is_none() {
            self.size = size;
        }
    }
}

impl End<'_> {
    /// Writes all that tells an end from the others of its file; no line has the mark between the parts.
    pub(super) fn key(&self, key: &mut String) {
        key.clear();
        let mut add = |part: &str| {
            key.push_str(part);
            key.push('\n');
        };
        match self {
            Self::Hubble(raw) => raw.parts().into_iter().for_each(add),
            Self::Fields(fields) => {
                let (kind, labels) = match fields.labels {
                    Pairs::Unsaid => ("", ""),
                    Pairs::Map(text) => ("map", text),
                    Pairs::List(text) => ("list", text),
                    Pairs::Text(text) => ("text", text),
                };
                for part in [
                    fields.namespace,
                    fields.pod,
                    fields.kind,
                    fields.workload,
                    kind,
                    labels,
                    fields.address,
                    fields.node,
                    fields.unknown,
                ] {
                    add(part);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::line::Fields;

    #[test]
    fn what_is_said_of_an_end_tells_it_from_others() {
        let fields = Fields {
            namespace: "a",
            pod: "b",
            ..Fields::default()
        };
        let others = [
            Fields {
                namespace: "a",
                workload: "b",
                ..Fields::default()
            },
            Fields {
                labels: Pairs::Text("c"),
                ..fields
            },
            Fields {
                labels: Pairs::List("c"),
                ..fields
            },
            Fields {
                unknown: "c",
                ..fields
            },
        ];
        let (mut one, mut two) = (String::new(), String::from("before"));
        End::Fields(fields).key(&mut one);
        End::Fields(fields).key(&mut two);
        assert_eq!(one, two);
        for other in others {
            End::Fields(other).key(&mut two);
            assert_ne!(one, two);
        }
    }

    #[test]
    fn only_so_much_is_kept() {
        let mut ends = Ends::default();
        ends.learn("known".into(), 1);
        ends.learn("x".repeat(MOST).into(), 2);
        ends.learn("later".into(), 3);
        assert_eq!(ends.number("known"), Some(1));
        assert_eq!(ends.number(&"x".repeat(MOST)), None);
        assert_eq!(ends.number("later"), Some(3));
    }
}
