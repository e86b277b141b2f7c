//! `ringfence ruleset`: the table of a node, from manifests.

use insta::assert_snapshot;

use super::{folder_with, repository, ringfence};

const CLUSTER: &str = "tests/data/node.yaml";
const ON: [&str; 2] = ["--node", "worker-1"];

fn of_text(text: &str, arguments: &[&str]) -> String {
    let arguments = [&["ruleset", "-"], arguments].concat();
    ringfence(repository(), &arguments, text)
}

fn cluster() -> String {
    std::fs::read_to_string(repository().join(CLUSTER)).unwrap()
}

fn digest(text: &str) -> String {
    let seen = of_text(text, &[&ON[..], &["--output", "digest"]].concat());
    let digest = seen.strip_prefix("exit: 0\n--- stdout\n").unwrap().trim();
    assert_eq!(digest.len(), 64, "{seen}");
    assert!(
        digest.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{seen}"
    );
    digest.to_owned()
}

#[test]
fn a_node_s_table_is_shown_with_a_sentence_for_each_rule() {
    let seen = ringfence(repository(), &[&["ruleset", CLUSTER], &ON[..]].concat(), "");
    assert_snapshot!("ruleset-text", seen);
    let mut above = "";
    let mut is_chain = false;
    for line in seen.lines().map(str::trim) {
        is_chain = match line {
            "}" => false,
            _ if line.starts_with("chain ") => true,
            _ => is_chain,
        };
        let is_rule = is_chain
            && !line.starts_with("chain ")
            && !line.starts_with('#')
            && !line.starts_with("type filter hook");
        if is_rule {
            assert!(above.starts_with('#'), "no sentence for {line:?}");
        }
        above = line;
    }
}

#[test]
fn what_it_is_called_and_in_which_order_it_stands_changes_nothing() {
    let cluster = cluster();
    let wanted = digest(&cluster);
    let documents: Vec<&str> = cluster.split("\n---\n").collect();
    let reversed: Vec<&str> = documents.into_iter().rev().collect();
    assert_eq!(digest(&reversed.join("\n---\n")), wanted);
    // Chains are called by what they hold: who renames a policy changes what is told of it, not what passes.
    let renamed = cluster.replace("name: web-to,", "name: from-web,");
    assert_ne!(renamed, cluster);
    let other = cluster.replace("port: 443", "port: 444");
    assert_ne!(digest(&other), wanted);
    let seen = of_text(&renamed, &ON);
    assert!(
        seen.contains("shop/from-web") && !seen.contains("shop/web-to"),
        "{seen}"
    );
}

#[test]
fn what_makes_a_table_emptier_than_one_expects_is_said() {
    let cluster = cluster();
    assert_snapshot!(
        "ruleset-elsewhere",
        of_text(&cluster, &["--node", "worker-9"])
    );
    let policy = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a, namespace: b}, spec: {podSelector: {}}}";
    let folder = folder_with("policy.yaml", policy);
    let bare = ringfence(folder.path(), &["ruleset", ".", "--node", "n"], "");
    assert_snapshot!("ruleset-no-pods", bare);
    let unborn = cluster.replace(
        "podIP: 10.0.1.3, podIPs: [{ip: 10.0.1.3}, {ip: \"fd00::1:3\"}]",
        "hostIP: 192.0.2.11",
    );
    let seen = of_text(&unborn, &[&ON[..], &["--output", "digest"]].concat());
    assert!(seen.starts_with("exit: 0"), "{seen}");
    assert!(
        seen.contains("1 of the node's pods have no address yet"),
        "{seen}"
    );
}
