//! `ringfence replay`: what would become of recorded flows, and what is said of broken records.

use insta::assert_snapshot;

use super::{repository, ringfence};

fn replay(flows: &str, rest: &[&str], input: &str) -> String {
    let base = ["replay", flows, "--policies", "candidate"];
    let folder = repository().join("tests/data/flows");
    ringfence(&folder, &[&base[..], rest].concat(), input)
}

#[test]
fn what_would_change_is_told_by_workload_and_policy() {
    assert_snapshot!("replay-text", replay("own.jsonl", &[], ""));
    assert_snapshot!(
        "replay-json",
        replay("own.jsonl", &["--output", "json", "--fail-on", "never"], "")
    );
    let help = ringfence(repository(), &["replay", "--help"], "");
    assert_snapshot!("replay-help", help);
}

#[test]
fn the_exit_code_is_by_what_is_a_failure() {
    let flow = |port: u16, verdict: &str| {
        format!(
            r#"{{"from":{{"ip":"198.51.100.7"}},"to":{{"namespace":"shop","labels":{{"app":"web"}}}},"port":{port},"verdict":"{verdict}"}}"#
        )
    };
    for (flow, newly_denied, any) in [
        (flow(8080, "allowed"), 0, 0),
        (flow(8080, "denied"), 0, 1),
        (flow(80, "allowed"), 1, 1),
        (flow(80, "denied"), 0, 0),
    ] {
        for (fail_on, code) in [("newly-denied", newly_denied), ("any", any), ("never", 0)] {
            let seen = replay("-", &["--fail-on", fail_on], &flow);
            assert!(
                seen.starts_with(&format!("exit: {code}\n")),
                "{fail_on}: {flow}: {seen}"
            );
        }
    }
}

#[test]
fn half_a_record_is_told_and_makes_the_answer_unreliable() {
    assert_snapshot!(
        "replay-cut-off",
        replay("cut-off.jsonl", &["--fail-on", "never"], "")
    );
    let allowed = replay(
        "cut-off.jsonl",
        &["--fail-on", "never", "--allow-broken"],
        "",
    );
    assert!(allowed.starts_with("exit: 0\n"), "{allowed}");
    assert_snapshot!("replay-no-format", replay("candidate/shop.yaml", &[], ""));
    assert_snapshot!("replay-no-file", replay("nothing.jsonl", &[], ""));
}
