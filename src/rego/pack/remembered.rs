//! Answers that the built-in policies have given. Of the same document they say the same, whenever and whoever asks, and what they
//! are shown of the pods of one ReplicaSet is the same.

use std::collections::HashMap;
use std::io::Cursor;
use std::sync::{Arc, Mutex, PoisonError};

use regorus::Value;

use crate::guard::guardrail::Section;
use crate::rego::value::text_length;

/// Most answers that are kept; with one more all are forgotten.
const MOST: usize = 512;
/// The longest document of which they are, in bytes.
const LONGEST: usize = 8 * 1024;
/// The longest answer, in bytes as text: a short document can have one that is a hundred times longer.
const LONGEST_ANSWER: usize = 2 * 1024;

/// Answers by what was asked.
#[derive(Default)]
pub(super) struct Remembered(Mutex<HashMap<Key, Arc<[Value]>>>);

/// A section, and the document that it was asked about, as JSON.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Key(Section, Box<[u8]>);

// === impl Key ===

impl Key {
    /// None where it is not worth its memory.
    pub(super) fn of(section: Section, document: &Value) -> Option<Self> {
        let mut text = Cursor::new([0; LONGEST]);
        serde_json::to_writer(&mut text, document).ok()?;
        let length = usize::try_from(text.position()).ok()?;
        Some(Self(section, text.get_ref().get(..length)?.into()))
    }
}

// === impl Remembered ===

impl Remembered {
    /// What was answered, one value for each rule of the section.
    pub(super) fn answer(&self, key: &Key) -> Option<Arc<[Value]>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(key).cloned()
    }

    /// Keeps an answer that is worth its memory.
    pub(super) fn keep(&self, key: Key, answer: Arc<[Value]>) {
        if text_length(answer.iter()).is_none_or(|length| length > LONGEST_ANSWER) {
            return;
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST {
            all.clear();
        }
        all.insert(key, answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_a_bounded_number_of_short_questions() {
        let remembered = Remembered::default();
        let asked = |text: String| Key::of(Section::Labels, &Value::from(text));
        for number in 0..MOST * 3 {
            let asked = asked(number.to_string()).unwrap();
            assert!(remembered.answer(&asked).is_none());
            remembered.keep(asked.clone(), Arc::from([Value::Null]));
            assert!(remembered.answer(&asked).is_some());
            assert!(remembered.0.lock().unwrap().len() <= MOST);
        }
        assert!(asked("x".repeat(LONGEST)).is_none());
        let long = asked("long".to_owned()).unwrap();
        for answer in ["x".repeat(LONGEST_ANSWER - 8), "x".repeat(LONGEST_ANSWER)] {
            let is_short = answer.len() < LONGEST_ANSWER;
            remembered.keep(long.clone(), Arc::from([Value::from(answer)]));
            assert_eq!(remembered.answer(&long).is_some(), is_short);
            remembered.0.lock().unwrap().clear();
        }
        let other = Key::of(Section::Bypasses, &Value::from("1535".to_owned()));
        assert!(remembered.answer(&other.unwrap()).is_none());
    }
}
