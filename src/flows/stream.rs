//! A stream of records in blocks of whole lines, several at a time.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read as _};
use std::sync::Arc;

use rayon::prelude::*;

use super::detect::{Format, Reader};
use super::line::{End, Line, Read, Skip, wrong_json};
use super::{Broken, FlowsError, Limits, Recorded, SHOWN};
use crate::netpol::replay::{Observations, Observed};

/// Whole lines of a file, and which of its lines is the first.
struct Block {
    bytes: Vec<u8>,
    first_line: u64,
}

/// What one block holds.
#[derive(Default)]
struct Content {
    observations: Observations,
    records: u64,
    passed_over: BTreeMap<Skip, u64>,
    broken: u64,
    shown: Vec<(u64, String)>,
}

/// Cuts a stream into blocks.
struct Blocks<R> {
    stream: R,
    limits: Limits,
    /// The beginning of a line whose end is not read yet.
    rest: Vec<u8>,
    next_line: u64,
    is_done: bool,
}

/// Reads one file into what was recorded already.
pub(super) fn read(
    file: &Arc<str>,
    stream: impl io::Read,
    format: Option<Format>,
    limits: &Limits,
    recorded: &mut Recorded,
    progress: &mut dyn FnMut(u64),
) -> Result<(), FlowsError> {
    let unreadable = |source| FlowsError::Unreadable {
        file: Arc::clone(file),
        source,
    };
    let mut blocks = Blocks {
        stream,
        limits: *limits,
        rest: Vec::new(),
        next_line: 1,
        is_done: false,
    };
    let mut reader: Option<Reader> = None;
    loop {
        let mut batch = Vec::new();
        while batch.len() < rayon::current_num_threads() {
            match blocks.next().map_err(unreadable)? {
                Some(block) => batch.push(block),
                None => break,
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        progress(batch.iter().map(|block| block.bytes.len() as u64).sum());
        let mut header = None;
        if reader.is_none()
            && let Some((line, text)) = batch.iter().find_map(first_line)
        {
            let told = Reader::of(format, &text).map_err(|reason| FlowsError::Format {
                file: Arc::clone(file),
                line,
                reason,
            })?;
            header = told.has_header().then_some(line);
            reader = Some(told);
        }
        // Blocks of nothing but empty lines say nothing of the format.
        let Some(reader) = &reader else { continue };
        let contents: Vec<Content> = batch
            .par_iter()
            .map(|block| Content::of(block, reader, header, limits))
            .collect();
        for content in contents {
            recorded.take(content, file);
            if recorded.observations.len() > limits.flows {
                return Err(FlowsError::TooMany {
                    file: Arc::clone(file),
                    most: limits.flows,
                });
            }
        }
    }
}

/// The first line of a block that is not empty, and its number.
fn first_line(block: &Block) -> Option<(u64, String)> {
    let lines = block
        .bytes
        .split(|byte| *byte == b'\n')
        .zip(block.first_line..);
    let mut lines =
        lines.map(|(line, number)| (number, String::from_utf8_lossy(trimmed(line)).into_owned()));
    lines.find(|(_, text)| !text.is_empty())
}

/// A line without what is around it: spaces, the carriage return, and the mark that some programs begin a file with.
fn trimmed(line: &[u8]) -> &[u8] {
    line.strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(line)
        .trim_ascii()
}

// === impl Blocks ===

impl<R: io::Read> Blocks<R> {
    fn next(&mut self) -> io::Result<Option<Block>> {
        if self.is_done {
            return Ok(None);
        }
        let mut bytes = std::mem::take(&mut self.rest);
        loop {
            let before = bytes.len();
            let wanted = self.limits.block as u64;
            self.stream.by_ref().take(wanted).read_to_end(&mut bytes)?;
            if bytes.len() == before {
                self.is_done = true;
                break;
            }
            if let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') {
                self.rest = bytes.split_off(end + 1);
                break;
            }
            // A line without an end is not collected for ever: what is too long is broken in any case.
            if bytes.len() > self.limits.line + self.limits.block {
                bytes.truncate(self.limits.line + 1);
            }
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        let first_line = self.next_line;
        let lines = bytes.split(|byte| *byte == b'\n').skip(1).count();
        self.next_line += lines as u64;
        Ok(Some(Block { bytes, first_line }))
    }
}

// === impl Content ===

impl Content {
    fn of(block: &Block, reader: &Reader, header: Option<u64>, limits: &Limits) -> Self {
        let mut content = Self::default();
        let mut actors: HashMap<End<'_>, Result<usize, String>> = HashMap::new();
        let lines = block
            .bytes
            .split(|byte| *byte == b'\n')
            .zip(block.first_line..);
        for (line, number) in lines.filter(|(_, number)| header != Some(*number)) {
            let line = trimmed(line);
            if line.is_empty() {
                continue;
            }
            content.records += 1;
            let read = if line.len() > limits.line {
                Err(format!("longer than {} bytes", limits.line))
            } else {
                match std::str::from_utf8(line) {
                    Ok(text) => content.read(text, reader, &mut actors),
                    Err(_) => Err("is no UTF-8".to_owned()),
                }
            };
            if let Err(reason) = read {
                content.broken += 1;
                if content.shown.len() < SHOWN {
                    content.shown.push((number, reason));
                }
            }
        }
        content
    }

    fn read<'b>(
        &mut self,
        text: &'b str,
        reader: &Reader,
        actors: &mut HashMap<End<'b>, Result<usize, String>>,
    ) -> Result<(), String> {
        let line = match reader.read(text) {
            Ok(Read::Flow(line)) => line,
            Ok(Read::Skip(skip)) => {
                *self.passed_over.entry(skip).or_default() += 1;
                return Ok(());
            }
            Err(reason) => return self.read_unescaped(text, reader, reason),
        };
        let mut number = |end: End<'b>| {
            let known = actors
                .entry(end)
                .or_insert_with(|| end.actor().map(|actor| self.observations.actor(actor)));
            known.clone()
        };
        let (from, to) = (number(line.from)?, number(line.to)?);
        self.add(&line, from, to);
        Ok(())
    }

    /// Reads a line again in which a text is written with escapes that it does not need.
    fn read_unescaped(
        &mut self,
        text: &str,
        reader: &Reader,
        reason: String,
    ) -> Result<(), String> {
        if !text.contains('\\') {
            return Err(reason);
        }
        let plain = serde_json::from_str::<serde_json::Value>(text).map(|value| value.to_string());
        let plain = plain.map_err(|error| wrong_json(&error))?;
        match reader.read(&plain) {
            Ok(Read::Flow(line)) => {
                let from = self.observations.actor(line.from.actor()?);
                let to = self.observations.actor(line.to.actor()?);
                self.add(&line, from, to);
                Ok(())
            }
            Ok(Read::Skip(skip)) => {
                *self.passed_over.entry(skip).or_default() += 1;
                Ok(())
            }
            Err(reason) => Err(reason),
        }
    }

    fn add(&mut self, line: &Line<'_>, from: usize, to: usize) {
        let observed = Observed {
            from,
            to,
            protocol: line.protocol,
            port: line.port,
        };
        self.observations
            .add(observed, line.seen, line.action, line.flows);
    }
}

// === impl Recorded ===

impl Recorded {
    fn take(&mut self, content: Content, file: &Arc<str>) {
        self.observations.absorb(content.observations);
        self.records += content.records;
        self.broken += content.broken;
        for (skip, count) in content.passed_over {
            *self.passed_over.entry(skip).or_default() += count;
        }
        let room = SHOWN.saturating_sub(self.shown.len());
        let shown = content.shown.into_iter().take(room);
        self.shown.extend(shown.map(|(line, reason)| Broken {
            file: Arc::clone(file),
            line,
            reason,
        }));
    }
}
