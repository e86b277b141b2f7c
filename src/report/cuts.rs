//! Recorded flows that baselines would cut, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::counted;
use super::replay::{DocumentRow, some_rows};
use super::text::printable;
use crate::guard::baseline::{Cut, Observed};
use crate::netpol::NamespaceName;

/// How many connections are told to people of one namespace, and of how many namespaces.
const ROWS: usize = 10;
const NAMESPACES: usize = 50;

#[derive(Debug, Serialize)]
pub(super) struct Document<'a> {
    namespaces: Vec<DocumentCut<'a>>,
    /// How many recorded flows have an end that cannot be known.
    unknown: u64,
}

#[derive(Debug, Serialize)]
struct DocumentCut<'a> {
    namespace: &'a NamespaceName,
    flows: u64,
    connections: Vec<DocumentRow<'a>>,
    /// How many connections are left out.
    more: usize,
}

impl<'a> Document<'a> {
    pub(super) fn of(observed: &'a Observed) -> Self {
        let namespaces = observed.namespaces.iter();
        Self {
            namespaces: namespaces
                .map(|(namespace, cut)| DocumentCut {
                    namespace,
                    flows: cut.flows,
                    connections: cut.rows.iter().map(DocumentRow::of).collect(),
                    more: cut.connections.saturating_sub(cut.rows.len()),
                })
                .collect(),
            unknown: observed.unknown,
        }
    }
}

/// For people: the most frequent of each namespace.
pub fn text(observed: &Observed) -> String {
    let mut text = String::new();
    if observed.namespaces.is_empty() {
        text.push_str("of the recorded flows baseline policies would cut none\n");
    }
    for (namespace, cut) in observed.namespaces.iter().take(NAMESPACES) {
        let namespace = printable(namespace.as_str());
        let _ = writeln!(
            text,
            "the baseline of namespace {namespace} would cut of the recorded flows: {}",
            of_one(cut)
        );
        connections(&mut text, cut);
    }
    if let Some(more) = observed.namespaces.len().checked_sub(NAMESPACES)
        && more > 0
    {
        let _ = writeln!(text, "and that of {more} more namespaces cuts some");
    }
    if observed.unknown > 0 {
        let unknown = counted(observed.unknown, "flow");
        let _ = writeln!(
            text,
            "of the recorded flows not judged, as an end is not known: {unknown}"
        );
    }
    text
}

/// How much one baseline would cut, in words.
pub fn of_one(cut: &Cut) -> String {
    let flows = counted(cut.flows, "flow");
    format!(
        "{flows} at {}",
        counted(cut.connections as u64, "connection")
    )
}

/// The most frequent of what one baseline would cut, and how many more there are.
pub fn connections(text: &mut String, cut: &Cut) {
    some_rows(text, cut.rows.iter().take(ROWS));
    if let Some(more) = cut.connections.checked_sub(ROWS)
        && more > 0
    {
        let _ = writeln!(text, "  and {more} more");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netpol::replay::{Because, Change, Row, Who};
    use crate::netpol::{Direction, Port, Protocol, WorkloadKind};

    fn row(port: u16) -> Row {
        Row {
            from: Who::Workload {
                namespace: "shop".into(),
                name: "web".into(),
                kind: Some(WorkloadKind::Deployment),
            },
            to: Who::Address("203.0.113.9".parse().expect("an address")),
            protocol: Protocol::Tcp,
            port: Port::new(port).expect("a port"),
            change: Change::NewlyDenied,
            flows: u64::from(port),
            because: vec![Because {
                direction: Direction::Egress,
                policies: vec!["shop/ringfence-baseline".to_owned()],
                by_rule: false,
            }],
        }
    }

    fn observed(ports: u16) -> Observed {
        let cut = Cut {
            flows: (1..=ports).map(u64::from).sum(),
            connections: usize::from(ports),
            rows: (1..=ports).rev().map(row).collect(),
        };
        let namespaces = [("shop".into(), cut)];
        Observed {
            namespaces: namespaces.into(),
            unknown: 3,
        }
    }

    #[test]
    fn people_read_the_most_frequent() {
        insta::assert_snapshot!(text(&observed(12)));
        assert_eq!(
            text(&Observed::default()),
            "of the recorded flows baseline policies would cut none\n"
        );
    }

    #[test]
    fn programs_get_ends_ports_and_counts() {
        insta::assert_json_snapshot!(Document::of(&observed(1)));
    }

    #[test]
    fn it_stays_short_however_many_there_are() {
        let one = observed(100);
        let cut = one.namespaces.values().next().expect("one");
        let many = (0..500).map(|n| (NamespaceName::from(format!("n{n}").as_str()), cut.clone()));
        let many = Observed {
            namespaces: many.collect(),
            unknown: 0,
        };
        let text = text(&many);
        assert!(
            text.contains("and that of 450 more namespaces cuts some"),
            "{text}"
        );
        assert!(text.lines().count() <= NAMESPACES * (2 * ROWS + 2) + 1);
    }
}
