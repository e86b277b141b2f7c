//! The manifest reader: what it reads, where it says things stand, and what it does with bad input.

// A test whose own helpers fail has failed.
#![allow(clippy::expect_used, clippy::panic)]

#[path = "reader/folders.rs"]
mod folders;
#[path = "reader/hostile.rs"]
mod hostile;
#[path = "reader/kubectl.rs"]
mod kubectl;
#[path = "reader/places.rs"]
mod places;

use std::sync::Arc;

use ringfence::k8s::yaml::{self, Limits, Reading, Text};

/// The text and what is read from it within the usual limits.
fn read(text: &str) -> (Arc<Text>, Reading) {
    let text = Arc::new(Text::new("test.yaml", text));
    let reading = yaml::read(&text, &Limits::default());
    (text, reading)
}

/// Each fault as `line:column message`.
fn faults(text: &Text, reading: &Reading) -> Vec<String> {
    let told = reading.faults.iter().map(|fault| {
        let place = text.place(&fault.range);
        format!("{}:{} {}", place.line, place.column, fault.kind)
    });
    told.collect()
}
