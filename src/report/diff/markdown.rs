//! A comparison as a comment on a pull request: what matters first, long parts folded, the whole bounded.

use std::fmt::Write;

use super::{Comparison, Counts, Findings, When, in_words, isolations_in_words, number};
use crate::netpol::reach::{Party, Standing};
use crate::report::reach::groups::Told;

/// More connections than this are put together.
const MOST_SINGLE: usize = 60;
/// A table of more lines than this is folded.
const MOST_UNFOLDED: usize = 12;
/// A table has no more lines than this.
const MOST_LINES: usize = 150;
/// All tables together have no more bytes than this; code hosts take comments of 65 536 characters.
const MOST_BYTES: usize = 56_000;

/// A part with a table.
struct Part<'t> {
    title: String,
    head: &'t str,
    lines: Vec<String>,
}

impl Comparison<'_> {
    /// For a comment on a pull request.
    pub fn markdown(&self) -> (String, Counts) {
        self.markdown_titled("### Network reachability")
    }

    /// The same under another title.
    pub fn markdown_titled(&self, title: &str) -> (String, Counts) {
        let findings = Findings::of(self.diff, MOST_SINGLE);
        let counts = findings.counts();
        let mut text = format!("{title}\n\n");
        let (old, new) = (code(self.old), code(self.new));
        let _ = writeln!(text, "{old} → {new}: **{counts}**");
        let mut left = MOST_BYTES;
        for part in parts(&findings) {
            part.write(&mut text, &mut left);
        }
        (text, counts)
    }
}

fn parts(findings: &Findings) -> Vec<Part<'static>> {
    let mut parts = Vec::new();
    for (word, told) in [("Opened", &findings.opened), ("Closed", &findings.closed)] {
        parts.push(connections(word, told));
    }
    parts.push(workloads("New", When::New, &findings.added));
    parts.push(workloads("Gone", When::Gone, &findings.removed));
    let isolation = findings.isolation();
    parts.push(Part {
        title: format!(
            "Isolation changed: {}",
            number(findings.isolation.len(), "workload")
        ),
        head: "| Workload | Change |\n| --- | --- |\n",
        lines: isolation
            .iter()
            .map(|(who, ways)| format!("| {who} | {} |\n", isolations_in_words(ways)))
            .collect(),
    });
    parts.retain(|part| !part.lines.is_empty());
    parts
}

fn connections(word: &str, told: &Told) -> Part<'static> {
    let count = number(told.connections, "connection");
    let groups = told.groups.iter();
    Part {
        title: if told.is_grouped {
            format!(
                "{word}: {count}, put together in {}",
                number(told.groups.len(), "line")
            )
        } else {
            format!("{word}: {count}")
        },
        head: "| From | To | Ports |\n| --- | --- | --- |\n",
        lines: groups
            .map(|group| format!("| {} | {} | {} |\n", group.from, group.to, group.ports))
            .collect(),
    }
}

fn workloads(word: &str, when: When, standings: &[Standing]) -> Part<'static> {
    let line = |standing: &Standing| {
        let party = Party::Workload(standing.workload.clone());
        format!("| {party} | {} |\n", in_words(standing, when))
    };
    // Those with connections first: they are what may be left out last.
    let connected = standings.iter().filter(|standing| standing.is_connected());
    let others = standings.iter().filter(|standing| !standing.is_connected());
    Part {
        title: format!("{word}: {}", number(standings.len(), "workload")),
        head: "| Workload | Connections |\n| --- | --- |\n",
        lines: connected.chain(others).map(line).collect(),
    }
}

impl Part<'_> {
    /// Writes as many lines as there is place for, and how many were left out.
    fn write(&self, text: &mut String, left: &mut usize) {
        let is_folded = self.lines.len() > MOST_UNFOLDED;
        if is_folded {
            let _ = writeln!(text, "\n<details><summary>{}</summary>\n", self.title);
        } else {
            let _ = writeln!(text, "\n#### {}\n", self.title);
        }
        let mut written = 0_usize;
        let mut lines = String::new();
        for line in self.lines.iter().take(MOST_LINES) {
            let Some(rest) = left.checked_sub(line.len()) else {
                break;
            };
            *left = rest;
            written = written.saturating_add(1);
            lines.push_str(line);
        }
        if written > 0 {
            text.push_str(self.head);
            text.push_str(&lines);
        }
        match self.lines.len().saturating_sub(written) {
            0 => {}
            out => {
                let _ = writeln!(
                    text,
                    "\n{} left out here; `ringfence diff` prints all.",
                    number(out, "line")
                );
            }
        }
        if is_folded {
            text.push_str("\n</details>\n");
        }
    }
}

/// A name that somebody chose, as code, whatever is in it.
fn code(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|letter| match letter {
            '`' => '\'',
            letter if letter.is_control() => ' ',
            letter => letter,
        })
        .collect();
    format!("`{plain}`")
}
