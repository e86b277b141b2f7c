//! Records in CSV: a header that names the columns, then a record a line (RFC 4180, without line breaks in fields).
//!
//! Columns, in any order: `from_namespace`, `from_pod`, `from_workload`, `from_labels` (`key=value;key=value`),
//! `from_ip`, `from_node`, the same with `to_`, `protocol`, `port`, `verdict`, `count`, `time`. An empty field says nothing.

use super::json;
use super::line::{self, End, Fields, Line, Pairs, Read, Skip};
use crate::netpol::replay::Seen;

/// The columns of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header(Vec<Column>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    From(Part),
    To(Part),
    Protocol,
    Port,
    Verdict,
    Count,
    Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Namespace,
    Pod,
    Workload,
    Labels,
    Address,
    Node,
}

// === impl Header ===

impl Header {
    /// Reads the first line of a file.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let columns: Result<Vec<Column>, String> =
            fields(text)?.into_iter().map(Column::read).collect();
        let columns = columns?;
        for (needed, name) in [(Column::Port, "port"), (Column::Verdict, "verdict")] {
            if !columns.contains(&needed) {
                return Err(format!("the header has no column `{name}`"));
            }
        }
        for (position, column) in columns.iter().enumerate() {
            if columns
                .iter()
                .skip(position + 1)
                .any(|other| other == column)
            {
                return Err(format!(
                    "column {} of the header stands twice",
                    position + 1
                ));
            }
        }
        Ok(Self(columns))
    }

    /// Reads one record.
    pub(super) fn record<'a>(&self, text: &'a str) -> Result<Read<'a>, String> {
        let fields = fields(text)?;
        if fields.len() != self.0.len() {
            return Err(format!(
                "{} fields, but the header has {}",
                fields.len(),
                self.0.len()
            ));
        }
        let (mut from, mut to) = (Fields::default(), Fields::default());
        let (mut protocol, mut port, mut verdict, mut count) = ("", "", "", "");
        for (column, field) in self.0.iter().zip(fields) {
            match column {
                Column::From(what) => what.put(field, &mut from),
                Column::To(what) => what.put(field, &mut to),
                Column::Protocol => protocol = field,
                Column::Port => port = field,
                Column::Verdict => verdict = field,
                Column::Count => count = field,
                Column::Time => {}
            }
        }
        let action = json::action(verdict)?;
        let protocol = if protocol.is_empty() { "TCP" } else { protocol };
        let Some(protocol) = line::protocol(protocol)? else {
            return Ok(Read::Skip(Skip::OtherProtocol));
        };
        let number = |text: &str| {
            text.parse::<u64>()
                .map_err(|_| format!("{text:?} is no number"))
        };
        Ok(Read::Flow(Line {
            from: End::Fields(from),
            to: End::Fields(to),
            protocol,
            port: line::port(number(port)?)?,
            action,
            seen: Seen::Somewhere,
            flows: if count.is_empty() { 1 } else { number(count)? },
        }))
    }
}

impl Column {
    fn read(name: &str) -> Result<Self, String> {
        let end = |part: &str| match part {
            "namespace" => Some(Part::Namespace),
            "pod" => Some(Part::Pod),
            "workload" => Some(Part::Workload),
            "labels" => Some(Part::Labels),
            "ip" => Some(Part::Address),
            "node" => Some(Part::Node),
            _ => None,
        };
        let known = match name.split_once('_') {
            Some(("from", part)) => end(part).map(Self::From),
            Some(("to", part)) => end(part).map(Self::To),
            _ => match name {
                "protocol" => Some(Self::Protocol),
                "port" => Some(Self::Port),
                "verdict" => Some(Self::Verdict),
                "count" => Some(Self::Count),
                "time" => Some(Self::Time),
                _ => None,
            },
        };
        known.ok_or_else(|| format!("the header has an unknown column {name:?}"))
    }
}

impl Part {
    fn put<'a>(self, field: &'a str, end: &mut Fields<'a>) {
        match self {
            Self::Namespace => end.namespace = field,
            Self::Pod => end.pod = field,
            Self::Workload => (end.kind, end.workload) = json::workload(field),
            Self::Labels if field.is_empty() => {}
            Self::Labels => end.labels = Pairs::Text(field),
            Self::Address => end.address = field,
            Self::Node => end.node = field,
        }
    }
}

/// The fields of a line. None of the values that may stand here has a quotation mark in it.
fn fields(line: &str) -> Result<Vec<&str>, String> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted
                .split_once('"')
                .ok_or("a quotation mark is not closed: is the line cut off?")?,
            None => rest.split_at(rest.find(',').unwrap_or(rest.len())),
        };
        if field.contains('"') || after.starts_with('"') {
            return Err("a quotation mark within a field".to_owned());
        }
        fields.push(field.trim());
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(fields),
            None => return Err("text after a closing quotation mark".to_owned()),
        }
    }
}
