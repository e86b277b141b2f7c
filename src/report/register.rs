//! The register of policies as JSON and Markdown; `register/html.rs` makes the page that is printed.

use std::fmt::Write as _;

use crate::guard::register::{ClusterEntry, ClusterOverlap, Entry, Opens, Register, Review};
use crate::netpol::ClusterPolicyRef;

pub mod html;

/// For programs.
pub fn json(register: &Register) -> serde_json::Result<String> {
    let mut text = serde_json::to_string_pretty(register)?;
    text.push('\n');
    Ok(text)
}

/// Tables for a wiki or a pull request.
pub fn markdown(register: &Register) -> String {
    let mut text = format!(
        "# Network policies\n\nAs of {}. {}\n",
        register.at,
        summary(register)
    );
    let mut namespace = None;
    for entry in &register.policies {
        if namespace != Some(&entry.namespace) {
            let _ = write!(
                text,
                "\n## Namespace {}\n\n| policy | owner | purpose | selects | opens | overlaps | review by | controls | exemptions |\n\
                 | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
                cell(&entry.namespace)
            );
            namespace = Some(&entry.namespace);
        }
        let said =
            |text: &Option<String>| text.as_deref().map_or_else(|| "**none**".to_owned(), cell);
        let opens: Vec<String> = entry.opens.iter().map(rule).collect();
        let opens = if opens.is_empty() {
            nothing(entry)
        } else {
            opens.join("\n")
        };
        let cells = [
            cell(&entry.name),
            said(&entry.owner),
            said(&entry.purpose),
            cell(&selects(entry)),
            cell(&opens),
            cell(&overlaps(entry).join("\n")),
            review(&entry.review),
            cell(&entry.controls.join("\n")),
            cell(&entry.exemptions.join("\n")),
        ];
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    if !register.cluster.is_empty() {
        text.push_str("\n## The whole cluster\n\n| policy | tier and priority | owner | purpose | rules for | rules | overlaps | review by | controls |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
    }
    for entry in &register.cluster {
        let said =
            |text: &Option<String>| text.as_deref().map_or_else(|| "**none**".to_owned(), cell);
        let cells = [
            cell(&cluster_name(entry)),
            cell(&entry.place),
            said(&entry.owner),
            said(&entry.purpose),
            cell(&rules_for(entry)),
            cell(&entry.rules.join("\n")),
            cell(&cluster_overlaps(entry).join("\n")),
            review(&entry.review),
            cell(&entry.controls.join("\n")),
        ];
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text.push_str("\n## Coverage\n\n| namespace | workloads | open to ingress | open to egress | default-deny |\n| --- | --- | --- | --- | --- |\n");
    for covered in &register.namespaces {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            cell(&covered.namespace),
            covered.workloads,
            covered.open_to_ingress,
            covered.open_to_egress,
            default_deny(&covered.ingress, &covered.egress)
        );
    }
    if !register.exemptions.is_empty() {
        text.push_str("\n## Exemptions\n\n| exemption | checks | objects | reason | owner | expires |\n| --- | --- | --- | --- | --- | --- |\n");
        for exemption in &register.exemptions {
            let ended = if exemption.has_ended {
                " **ended**"
            } else {
                ""
            };
            let cells = [
                cell(&format!("{}/{}", exemption.namespace, exemption.name)),
                cell(&exemption.checks.join(", ")),
                cell(&exemption.objects.join("\n")),
                cell(&exemption.reason),
                cell(&exemption.owner),
                format!("{}{ended}", exemption.expires),
            ];
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
    }
    text
}

/// All in one sentence.
fn summary(register: &Register) -> String {
    let open = register
        .namespaces
        .iter()
        .map(|one| one.open_to_ingress.max(one.open_to_egress));
    format!(
        "Policies: {}; without owner or purpose: {}; review overdue: {}; workloads that are open in a direction: {}; exemptions: {}.",
        register
            .policies
            .len()
            .saturating_add(register.cluster.len()),
        register.undocumented(),
        register.overdue(),
        open.fold(0, usize::saturating_add),
        register.exemptions.len()
    )
}

/// A text in a cell of a table: no letter of it is markup, and line breaks are as the format has them.
fn cell(text: &str) -> String {
    let mut cell = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' => {
                cell.push('\\');
                cell.push(letter);
            }
            '<' => cell.push_str("&lt;"),
            '&' => cell.push_str("&amp;"),
            '\n' => cell.push_str("<br>"),
            '\r' => {}
            other => cell.push(other),
        }
    }
    cell
}

fn selects(entry: &Entry) -> String {
    let pods = if entry.selector.is_empty() {
        "all pods"
    } else {
        &entry.selector
    };
    let workloads = match entry.workloads.as_slice() {
        [] => "none there now".to_owned(),
        some => some.join(", "),
    };
    format!("{pods} ({workloads})")
}

/// What a policy without rules says.
fn nothing(entry: &Entry) -> String {
    format!("nothing: {} denied", entry.isolates.join(" and "))
}

fn rule(opens: &Opens) -> String {
    let side = if opens.direction == "ingress" {
        "from"
    } else {
        "to"
    };
    format!(
        "{} {side} {}, {}",
        opens.direction,
        opens.peers.join(" or "),
        opens.ports
    )
}

fn overlaps(entry: &Entry) -> Vec<String> {
    let overlaps = entry.overlaps.iter().map(|overlap| {
        let same = match overlap.same_rules {
            0 => String::new(),
            count => format!(", {count} same rules"),
        };
        {
            let plural = if overlap.workloads == 1 { "" } else { "s" };
            format!(
                "{} ({} workload{plural}{same})",
                overlap.policy, overlap.workloads
            )
        }
    });
    overlaps
        .chain(entry.ruled_by.iter().map(cluster_overlap))
        .collect()
}

/// Another policy of the whole cluster, as in `ClusterNetworkPolicy guard, Admin 10 (2 workloads)`.
fn cluster_overlap(overlap: &ClusterOverlap) -> String {
    let plural = if overlap.workloads == 1 { "" } else { "s" };
    let ClusterOverlap {
        kind,
        policy,
        place,
        workloads,
    } = overlap;
    format!("{kind} {policy}, {place} ({workloads} workload{plural})")
}

/// The name of a policy of the whole cluster, with its kind where that is one of those that ClusterNetworkPolicy has replaced.
fn cluster_name(entry: &ClusterEntry) -> String {
    ClusterPolicyRef::new(entry.kind, entry.name.as_str()).short()
}

fn cluster_overlaps(entry: &ClusterEntry) -> Vec<String> {
    let mut overlaps: Vec<String> = entry.overlaps.iter().map(cluster_overlap).collect();
    match entry.network_policies {
        0 => {}
        1 => overlaps.push("1 NetworkPolicy".to_owned()),
        count => overlaps.push(format!("{count} NetworkPolicies")),
    }
    overlaps
}

/// Whose flows a policy of the whole cluster rules.
fn rules_for(entry: &ClusterEntry) -> String {
    let workloads = match entry.workloads {
        0 => "none there now".to_owned(),
        1 => "1 workload".to_owned(),
        count => format!("{count} workloads"),
    };
    format!("{} ({workloads})", entry.subject)
}

fn review(review: &Review) -> String {
    match review {
        Review::Unsaid => String::new(),
        Review::Due(day) => cell(day),
        Review::Overdue(day) => format!("**{} overdue**", cell(day)),
        Review::Unreadable(text) => format!("**{}: no day**", cell(text)),
    }
}

fn default_deny(ingress: &[String], egress: &[String]) -> &'static str {
    match (ingress.is_empty(), egress.is_empty()) {
        (false, false) => "both directions",
        (false, true) => "ingress only",
        (true, false) => "egress only",
        (true, true) => "**none**",
    }
}
