//! The formats, how one is told from its first line, and the reading of a line of it.

use serde_json::Value;

use super::csv::Header;
use super::line::Read;
use super::{calico, hubble, json};

/// The formats of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Ringfence's own JSON lines.
    Json,
    /// JSON lines of Cilium Hubble.
    Hubble,
    /// Calico flow logs, JSON lines.
    Calico,
    /// CSV with a header.
    Csv,
}

/// What reads the lines of one file.
#[derive(Clone, Debug)]
pub(super) enum Reader {
    Json,
    Hubble,
    Calico,
    Csv(Header),
}

impl Reader {
    /// The reader of a file that begins with this line.
    pub(super) fn of(format: Option<Format>, first: &str) -> Result<Self, String> {
        match format.map_or_else(|| told_by(first), Ok)? {
            Format::Json => Ok(Self::Json),
            Format::Hubble => Ok(Self::Hubble),
            Format::Calico => Ok(Self::Calico),
            Format::Csv => Header::read(first).map(Self::Csv),
        }
    }

    /// Whether the first line is no record.
    pub(super) fn has_header(&self) -> bool {
        matches!(self, Self::Csv(_))
    }

    /// Reads a line.
    pub(super) fn read<'a>(&self, line: &'a str) -> Result<Read<'a>, String> {
        match self {
            Self::Json => json::read(line),
            Self::Hubble => hubble::read(line),
            Self::Calico => calico::read(line),
            Self::Csv(header) => header.record(line),
        }
    }
}

/// The format that a first line is of.
fn told_by(line: &str) -> Result<Format, String> {
    if line.starts_with('[') {
        return Err(
            "a JSON list is not read: one record a line, please (`jq -c '.[]'`)".to_owned(),
        );
    }
    if !line.starts_with('{') {
        return if line
            .split(',')
            .any(|column| matches!(column.trim().trim_matches('"'), "port" | "verdict"))
        {
            Ok(Format::Csv)
        } else {
            Err("no known format of flows; --format says which one it is".to_owned())
        };
    }
    let value: Value = serde_json::from_str(line).map_err(|error| {
        format!("the first line tells no format ({error}); --format says which one it is")
    })?;
    let has = |keys: &[&str]| keys.iter().any(|key| value.get(key).is_some());
    if has(&["from", "to"]) {
        Ok(Format::Json)
    } else if has(&[
        "source_name_aggr",
        "dest_name_aggr",
        "source_type",
        "dest_type",
    ]) {
        Ok(Format::Calico)
    } else if has(&[
        "flow",
        "verdict",
        "IP",
        "lost_events",
        "node_status",
        "agent_event",
        "debug_event",
    ]) {
        Ok(Format::Hubble)
    } else {
        Err("no known format of flows; --format says which one it is".to_owned())
    }
}
