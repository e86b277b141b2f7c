//! A stream cut into blocks of whole lines.

use std::io::{self, Read as _};

use memchr::{memchr, memchr_iter, memrchr};

use super::Limits;

/// Whole lines of a file, and which of its lines is the first.
pub(super) struct Block {
    pub(super) bytes: Vec<u8>,
    pub(super) first_line: u64,
}

/// Cuts a stream into blocks.
pub(super) struct Blocks<R> {
    stream: R,
    limits: Limits,
    /// The beginning of a line whose end is not read yet.
    rest: Vec<u8>,
    next_line: u64,
    is_done: bool,
}

// === impl Block ===

impl Block {
    /// Its lines with their numbers, without what is around them: spaces, the carriage return, and the mark that some
    /// programs begin a file with.
    pub(super) fn lines(&self) -> impl Iterator<Item = (&[u8], u64)> {
        let mut rest = Some(&*self.bytes);
        let lines = std::iter::from_fn(move || {
            let all = rest?;
            let end = memchr(b'\n', all);
            rest = end.and_then(|end| all.get(end + 1..));
            all.get(..end.unwrap_or(all.len()))
        });
        lines.map(trimmed).zip(self.first_line..)
    }
}

fn trimmed(line: &[u8]) -> &[u8] {
    line.strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(line)
        .trim_ascii()
}

// === impl Blocks ===

impl<R: io::Read> Blocks<R> {
    pub(super) fn of(stream: R, limits: &Limits) -> Self {
        Self {
            stream,
            limits: *limits,
            rest: Vec::new(),
            next_line: 1,
            is_done: false,
        }
    }

    /// At most so many blocks; none at the end.
    pub(super) fn several(&mut self, most: usize) -> io::Result<Vec<Block>> {
        let mut several = Vec::new();
        while several.len() < most {
            match self.next()? {
                Some(block) => several.push(block),
                None => break,
            }
        }
        Ok(several)
    }

    fn next(&mut self) -> io::Result<Option<Block>> {
        if self.is_done {
            return Ok(None);
        }
        let mut bytes = std::mem::take(&mut self.rest);
        bytes.reserve(self.limits.block);
        loop {
            let before = bytes.len();
            let wanted = self.limits.block as u64;
            self.stream.by_ref().take(wanted).read_to_end(&mut bytes)?;
            if bytes.len() == before {
                self.is_done = true;
                break;
            }
            if let Some(end) = memrchr(b'\n', &bytes) {
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
        self.next_line += memchr_iter(b'\n', &bytes).count() as u64;
        Ok(Some(Block { bytes, first_line }))
    }
}
