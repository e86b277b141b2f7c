//! A stream of records: several blocks of lines are read while those before them are parsed.
//!
//! A block knows the ends that were met before it; those that it finds new, and its flows, are taken in afterwards, block
//! by block, so that the outcome is the same however many work at it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use rayon::prelude::*;

use super::blocks::{Block, Blocks};
use super::detect::{Format, Reader};
use super::ends::Ends;
use super::line::{End, Line, Read, Skip, wrong_json};
use super::{Broken, FlowsError, Limits, Recorded, SHOWN};
use crate::netpol::replay::{Action, Actor, Observed, Seen};

/// What the blocks of one turn have in common.
struct Reading<'r> {
    reader: &'r Reader,
    /// The line that is no record.
    header: Option<u64>,
    limits: &'r Limits,
    ends: &'r Ends,
    /// How many actors there are: a new one has this number or a greater one until it is taken in.
    actors: usize,
}

/// What one block holds.
#[derive(Default)]
struct Content {
    /// The actors that are new, by their keys where these are known.
    actors: Vec<(Option<Box<str>>, Actor)>,
    flows: Vec<(Observed, Seen, Action, u64)>,
    records: u64,
    passed_over: BTreeMap<Skip, u64>,
    broken: u64,
    shown: Vec<(u64, String)>,
}

/// The numbers of the ends that are new in a block, and the room for a key.
#[derive(Default)]
struct New<'b> {
    numbers: HashMap<End<'b>, Result<usize, String>>,
    key: String,
}

/// Reads one file into what was recorded already.
pub(super) fn read(
    file: &Arc<str>,
    stream: impl io::Read + Send,
    format: Option<Format>,
    limits: &Limits,
    recorded: &mut Recorded,
    progress: &mut dyn FnMut(u64),
) -> Result<(), FlowsError> {
    let unreadable = |source| FlowsError::Unreadable {
        file: Arc::clone(file),
        source,
    };
    let mut blocks = Blocks::of(stream, limits);
    let mut next = || blocks.several(rayon::current_num_threads());
    let mut reader: Option<Reader> = None;
    let mut ends = Ends::default();
    let mut batch = next().map_err(unreadable)?;
    while !batch.is_empty() {
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
        let Some(reader) = &reader else {
            // Blocks of nothing but empty lines say nothing of the format.
            batch = next().map_err(unreadable)?;
            continue;
        };
        let reading = Reading {
            reader,
            header,
            limits,
            ends: &ends,
            actors: recorded.observations.actors().len(),
        };
        let parse = || -> Vec<Content> {
            let blocks = batch.par_iter();
            blocks.map(|block| Content::of(block, &reading)).collect()
        };
        let (contents, following) = rayon::join(parse, &mut next);
        let actors = reading.actors;
        for content in contents {
            recorded.take(content, file, actors, &mut ends);
            if recorded.observations.len() > limits.flows {
                return Err(FlowsError::TooMany {
                    file: Arc::clone(file),
                    most: limits.flows,
                });
            }
        }
        batch = following.map_err(unreadable)?;
    }
    Ok(())
}

/// The first line of a block that is not empty, and its number.
fn first_line(block: &Block) -> Option<(u64, String)> {
    let (line, number) = block.lines().find(|(line, _)| !line.is_empty())?;
    Some((number, String::from_utf8_lossy(line).into_owned()))
}

// === impl Content ===

impl Content {
    fn of(block: &Block, reading: &Reading<'_>) -> Self {
        let mut content = Self::default();
        let mut new = New::default();
        let lines = block.lines();
        for (line, number) in lines.filter(|(_, number)| reading.header != Some(*number)) {
            if line.is_empty() {
                continue;
            }
            content.records += 1;
            let read = if line.len() > reading.limits.line {
                Err(format!("longer than {} bytes", reading.limits.line))
            } else {
                match std::str::from_utf8(line) {
                    Ok(text) => content.read(text, reading, &mut new),
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
        reading: &Reading<'_>,
        new: &mut New<'b>,
    ) -> Result<(), String> {
        let line = match reading.reader.read(text) {
            Ok(Read::Flow(line)) => line,
            Ok(Read::Skip(skip)) => {
                *self.passed_over.entry(skip).or_default() += 1;
                return Ok(());
            }
            Err(reason) => return self.read_unescaped(text, reading, reason),
        };
        let from = self.number(line.from, reading, new)?;
        let to = self.number(line.to, reading, new)?;
        self.add(&line, from, to);
        Ok(())
    }

    /// The number of an end: as it is known, or where it will be taken in.
    fn number<'b>(
        &mut self,
        end: End<'b>,
        reading: &Reading<'_>,
        new: &mut New<'b>,
    ) -> Result<usize, String> {
        end.key(&mut new.key);
        if let Some(number) = reading.ends.number(&new.key) {
            return Ok(number);
        }
        let number = new.numbers.entry(end).or_insert_with(|| {
            let actor = end.actor()?;
            Ok(self.actor(Some(new.key.as_str().into()), actor, reading))
        });
        number.clone()
    }

    fn actor(&mut self, key: Option<Box<str>>, actor: Actor, reading: &Reading<'_>) -> usize {
        let number = reading.actors + self.actors.len();
        self.actors.push((key, actor));
        number
    }

    /// Reads a line again in which a text is written with escapes that it does not need.
    fn read_unescaped(
        &mut self,
        text: &str,
        reading: &Reading<'_>,
        reason: String,
    ) -> Result<(), String> {
        if !text.contains('\\') {
            return Err(reason);
        }
        let plain = serde_json::from_str::<serde_json::Value>(text).map(|value| value.to_string());
        let plain = plain.map_err(|error| wrong_json(&error))?;
        match reading.reader.read(&plain) {
            Ok(Read::Flow(line)) => {
                let (from, to) = (line.from.actor()?, line.to.actor()?);
                let from = self.actor(None, from, reading);
                let to = self.actor(None, to, reading);
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
        self.flows
            .push((observed, line.seen, line.action, line.flows));
    }
}

// === impl Recorded ===

impl Recorded {
    /// Takes in what a block holds, for which there were so many actors.
    fn take(&mut self, content: Content, file: &Arc<str>, known: usize, ends: &mut Ends) {
        let new = content.actors.into_iter().map(|(key, actor)| {
            let number = self.observations.actor(actor);
            if let Some(key) = key {
                ends.learn(key, number);
            }
            number
        });
        let new: Vec<usize> = new.collect();
        let own = |number: usize| match number.checked_sub(known) {
            Some(at) => new.get(at).copied().unwrap_or(number),
            None => number,
        };
        for (observed, seen, action, flows) in content.flows {
            let observed = Observed {
                from: own(observed.from),
                to: own(observed.to),
                ..observed
            };
            self.observations.add(observed, seen, action, flows);
        }
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
