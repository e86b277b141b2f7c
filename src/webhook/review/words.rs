//! Somebody else's words, made fit to be shown.

use std::fmt::Write as _;

/// Somebody else's words in quotes, short and with nothing in them that moves a cursor.
pub(super) fn quoted(text: &str) -> String {
    if text.is_empty() {
        "none".to_owned()
    } else {
        format!("{:?}", short(text))
    }
}

pub(super) fn short(text: &str) -> String {
    const MOST: usize = 200;
    let mut short = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == MOST {
            let _ = write!(short, "…");
            break;
        }
        short.push(if c.is_control() { ' ' } else { c });
    }
    short
}
