//! What is opened as a whole, piece by piece, in words.

use crate::guard::registry::{self, Check};
use crate::netpol::findings::{Everything, Whole};

/// The check, what is opened by which rules, and what to do.
pub(super) fn words(found: &[Everything]) -> (&'static Check, String, String) {
    let parts: Vec<String> = found.iter().map(part).collect();
    let are_ports = |one: &Everything| matches!(one.what, Whole::Ports(_));
    let fix = if found.iter().all(are_ports) {
        "list the ports that are meant, or leave `ports` out if all are"
    } else {
        "name the peers that are meant, or say in one word that all are"
    };
    (
        &registry::OPENS_EVERYTHING,
        parts.join("; "),
        fix.to_owned(),
    )
}

fn part(one: &Everything) -> String {
    let rules: Vec<String> = one.rules.iter().map(ToString::to_string).collect();
    let (rule, together) = match rules.len() {
        0 | 1 => ("rule", ""),
        _ => ("rules", " together"),
    };
    let by = format!("{} {rule} {}", one.direction, rules.join(" and "));
    let open = match (rules.len(), &one.what) {
        (0 | 1, Whole::Ports(_)) => "lists",
        (_, Whole::Ports(_)) => "list",
        (0 | 1, _) => "opens",
        (_, _) => "open",
    };
    let what = match &one.what {
        Whole::AnyPod => "every pod there can be, piece by piece".to_owned(),
        Whole::Namespaces(count) => format!("each of the {count} namespaces there are"),
        Whole::Addresses { blocks, pods } => {
            let blocks: Vec<String> = blocks.iter().map(ToString::to_string).collect();
            format!(
                "the addresses of all {pods} pods there are, by {}",
                blocks.join(" and ")
            )
        }
        Whole::Ports(protocol) => format!("every {protocol} port, number by number"),
    };
    format!("{by}{together} {open} {what}")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::guard::guardrail::{GuardrailSpec, HygieneSection};
    use crate::guard::testing::{Cluster, namespace, policy};

    /// What `check` says is opened as a whole.
    fn found(objects: &[Value], rules: &Value) -> Vec<String> {
        let spec = GuardrailSpec {
            hygiene: Some(HygieneSection::default()),
            ..GuardrailSpec::default()
        };
        let policy = policy("p", &json!({"podSelector": {}, "ingress": rules}));
        let there = [&[namespace("shop"), policy.clone()][..], objects].concat();
        let decision = Cluster::under(&spec, &there).check(&policy);
        let found = decision.judged.iter().map(|judged| &judged.finding);
        let found = found.filter(|finding| finding.id.as_str() == "RF612");
        found.map(|finding| finding.message.clone()).collect()
    }

    fn by_env(operator: &str) -> Value {
        json!({"namespaceSelector": {"matchExpressions": [{"key": "env", "operator": operator, "values": ["prod"]}]}})
    }

    #[test]
    fn selectors_that_are_together_everyone_are_found() {
        let halves = json!([{"from": [by_env("In")]}, {"from": [by_env("NotIn")]}]);
        assert_eq!(
            found(&[], &halves),
            ["ingress rules 0 and 1 together open every pod there can be, piece by piece"]
        );
        let other_ports =
            json!([{"from": [by_env("In")], "ports": [{"port": 80}]}, {"from": [by_env("NotIn")]}]);
        assert_eq!(found(&[], &other_ports), Vec::<String>::new());
        // In one word it is found elsewhere.
        assert_eq!(
            found(
                &[],
                &json!([{"from": [by_env("In"), {"namespaceSelector": {}}]}])
            ),
            Vec::<String>::new()
        );
    }

    #[test]
    fn what_is_left_out_must_be_there() {
        let but_prod = json!([{"from": [by_env("NotIn")]}]);
        let three = [namespace("a"), namespace("b")];
        assert_eq!(
            found(&three, &but_prod),
            ["ingress rule 0 opens each of the 3 namespaces there are"]
        );
        let mut prod = namespace("c");
        prod["metadata"]["labels"] = json!({"env": "prod"});
        let with_prod = [namespace("a"), namespace("b"), prod];
        assert_eq!(found(&with_prod, &but_prod), Vec::<String>::new());
        // Two namespaces may well be all that are meant.
        assert_eq!(found(&three[..1], &but_prod), Vec::<String>::new());
    }

    #[test]
    fn numbers_that_are_together_all_ports_are_found() {
        let from = json!([{"podSelector": {}}]);
        let ports = |ports: &Value| json!([{"from": from, "ports": ports}]);
        let halves = json!([{"port": 1, "endPort": 1023}, {"port": 1024, "endPort": 65535}]);
        assert_eq!(
            found(&[], &ports(&halves)),
            ["ingress rule 0 lists every TCP port, number by number"]
        );
        let but_one = json!([{"port": 1, "endPort": 1022}, {"port": 1024, "endPort": 65535}]);
        assert_eq!(found(&[], &ports(&but_one)), Vec::<String>::new());
        assert_eq!(
            found(&[], &ports(&json!([{"protocol": "TCP"}]))),
            Vec::<String>::new()
        );
    }
}
