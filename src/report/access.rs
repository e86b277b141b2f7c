//! Who may change what isolation rests on, as text, JSON or Markdown.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::text::printable;
use crate::guard::access::{Grant, Power, Scope};

/// What is told.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// The rows, in order of power, place and subject.
    pub grants: Vec<Grant>,
    /// How many subjects of Kubernetes' own are left out.
    pub left_out: usize,
}

/// As text: a heading for each power, a line for each subject.
pub fn text(access: &Access) -> String {
    let mut text = String::new();
    for (power, grants) in access.by_power() {
        // Writing to a String does not fail.
        let _ = writeln!(text, "Who may {}", power.words());
        let mut scope = None;
        for grant in grants {
            if scope.replace(&grant.scope) != Some(&grant.scope) {
                let _ = writeln!(text, "  {}", place(&grant.scope));
            }
            let _ = writeln!(
                text,
                "    {}: {} (by {})",
                printable(&grant.subject.to_string()),
                printable(&what(grant)),
                printable(&bindings(grant))
            );
        }
        text.push('\n');
    }
    text + &last(access) + "\n"
}

/// As a table of Markdown for each power.
pub fn markdown(access: &Access) -> String {
    let mut text = String::new();
    let cell = |text: &str| printable(text).replace('|', "\\|");
    for (power, grants) in access.by_power() {
        let _ = writeln!(text, "## Who may {}\n", power.words());
        text.push_str("| where | who | what | by |\n| --- | --- | --- | --- |\n");
        for grant in grants {
            let who = grant.subject.to_string();
            let row = [&place(&grant.scope), &who, &what(grant), &bindings(grant)];
            let _ = writeln!(text, "| {} |", row.map(|part| cell(part)).join(" | "));
        }
        text.push('\n');
    }
    text + &last(access) + "\n"
}

/// As one JSON object.
pub fn json(access: &Access) -> Value {
    let grants = access.grants.iter().map(|grant| {
        json!({
            "power": grant.power,
            "namespace": match &grant.scope {
                Scope::Cluster => None,
                Scope::Namespace(namespace) => Some(namespace),
            },
            "subject": grant.subject,
            "apiGroup": grant.group,
            "resource": grant.resource,
            "names": grant.names,
            "verbs": grant.verbs,
            "bindings": grant.bindings,
        })
    });
    json!({"grants": grants.collect::<Vec<_>>(), "leftOut": access.left_out})
}

fn place(scope: &Scope) -> String {
    match scope {
        Scope::Cluster => "in the whole cluster".to_owned(),
        Scope::Namespace(namespace) => format!("in namespace {namespace}"),
    }
}

fn what(grant: &Grant) -> String {
    let verbs: Vec<&str> = grant.verbs.iter().copied().collect();
    let mut what = format!("{} {}", verbs.join(", "), grant.resource);
    if !grant.names.is_empty() {
        let names: Vec<&str> = grant.names.iter().map(String::as_str).collect();
        let _ = write!(what, " named {}", names.join(", "));
    }
    what
}

fn bindings(grant: &Grant) -> String {
    let bindings: Vec<&str> = grant.bindings.iter().map(String::as_str).collect();
    bindings.join(", ")
}

fn last(access: &Access) -> String {
    match access.left_out {
        0 => "Nobody is left out.".to_owned(),
        1 => "1 subject of Kubernetes' own is left out (--all shows it).".to_owned(),
        count => format!("{count} subjects of Kubernetes' own are left out (--all shows them)."),
    }
}

// === impl Access ===

impl Access {
    fn by_power(&self) -> impl Iterator<Item = (Power, &[Grant])> {
        let groups = self.grants.chunk_by(|a, b| a.power == b.power);
        groups.filter_map(|grants| Some((grants.first()?.power, grants)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::access::Rbac;

    fn access() -> Access {
        let mut rbac = Rbac::default();
        rbac.role(&json!({"metadata": {"name": "write"}, "rules": [
            {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["update", "patch"], "resourceNames": ["a|b"]},
            {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["patch"]},
        ]}));
        for (namespace, name) in [(None, "jane"), (Some("shop"), "joe\u{1b}[2J")] {
            rbac.binding(&json!({
                "metadata": {"name": "writers", "namespace": namespace},
                "roleRef": {"kind": "ClusterRole", "name": "write"},
                "subjects": [{"kind": "User", "name": name}]
            }));
        }
        Access {
            grants: rbac.grants(),
            left_out: 2,
        }
    }

    #[test]
    fn people_read_it_by_question_and_place() {
        insta::assert_snapshot!(text(&access()));
        insta::assert_snapshot!(markdown(&access()));
    }

    #[test]
    fn programs_read_every_row() {
        let json = json(&access());
        assert_eq!(json["grants"].as_array().map(Vec::len), Some(4));
        assert_eq!(json["grants"][0]["subject"]["kind"], "User");
        assert_eq!(json["grants"][0]["power"], "networkPolicies");
        assert_eq!(json["grants"][1]["namespace"], "shop");
    }
}
