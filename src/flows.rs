//! Recorded flows, read from files and streams of any size: what really happened in a cluster.
//!
//! `blocks` cuts a file into blocks of whole lines, and `stream` parses several at a time, each on its own thread, while
//! the next ones are read; the format of the file (`detect`) makes a `line::Line` of each line, whose ends are mostly known
//! already (`ends`); what is different goes into the [`Observations`] of `netpol` and the rest is counted. Memory is bounded
//! by the blocks under way and by the number of flows that differ.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use crate::netpol::replay::Observations;

pub use detect::Format;
pub use line::Skip;

mod blocks;
mod calico;
mod csv;
mod detect;
mod ends;
mod hubble;
mod json;
mod line;
mod stream;

/// How many broken records are kept to be shown; all are counted.
const SHOWN: usize = 20;

/// Where records come from.
#[derive(Clone, Debug)]
pub enum Input {
    /// A file.
    Path(PathBuf),
    /// Standard input.
    Stdin,
}

/// What a reading of records is bound to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many different flows are held.
    pub flows: usize,
    /// How long a line may be, in bytes.
    pub line: usize,
    /// How much is read at a time by each thread, in bytes.
    pub block: usize,
}

/// All that was read.
#[derive(Debug, Default)]
pub struct Recorded {
    /// The flows.
    pub observations: Observations,
    /// How many records there were, those passed over and the broken ones among them.
    pub records: u64,
    /// Records that are about something else, by reason.
    pub passed_over: BTreeMap<Skip, u64>,
    /// How many records are broken.
    pub broken: u64,
    /// The first of them.
    pub shown: Vec<Broken>,
}

/// A record that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The path as given, or `<stdin>`.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// Why records cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum FlowsError {
    /// The file cannot be opened or read to its end.
    #[error("{file}: cannot be read")]
    Unreadable {
        /// The file.
        file: Arc<str>,
        /// Why.
        source: io::Error,
    },
    /// The file is of no known format.
    #[error("{file}:{line}: {reason}")]
    Format {
        /// The file.
        file: Arc<str>,
        /// The line that tells.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// There are more different flows than may be held.
    #[error("{file}: more than {most} different flows; read fewer files at a time")]
    TooMany {
        /// The file where it happened.
        file: Arc<str>,
        /// How many may be held.
        most: usize,
    },
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flows: 4_000_000,
            line: 1 << 20,
            block: 4 << 20,
        }
    }
}

/// Reads all records; `progress` is told how many bytes have been read.
pub fn read(
    inputs: &[Input],
    format: Option<Format>,
    limits: &Limits,
    progress: &mut dyn FnMut(u64),
) -> Result<Recorded, FlowsError> {
    let mut recorded = Recorded::default();
    for input in inputs {
        let (file, stream): (Arc<str>, Box<dyn Read + Send>) = match input {
            Input::Stdin => (Arc::from("<stdin>"), Box::new(io::stdin())),
            Input::Path(path) => {
                let file: Arc<str> = Arc::from(&*path.to_string_lossy());
                match File::open(path) {
                    Ok(stream) => (file, Box::new(stream)),
                    Err(source) => return Err(FlowsError::Unreadable { file, source }),
                }
            }
        };
        stream::read(&file, stream, format, limits, &mut recorded, progress)?;
    }
    Ok(recorded)
}

#[cfg(test)]
mod tests;
