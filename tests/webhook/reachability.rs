//! Reachability rules at the API server's door, and that `ringfence check` says the same of the same manifests.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use ringfence::guard::decide::State;
use ringfence::guard::engine::NoPolicies;
use ringfence::guard::exemption::Exemptions;
use ringfence::guard::guardrail::{Guardrail, Guardrails};
use ringfence::guard::reachability::ReachabilityRules;
use ringfence::k8s::folder::{self, Folder};
use ringfence::k8s::manifests::Input;
use ringfence::k8s::yaml::Limits;
use serde_json::Value;

use crate::cluster::{Cluster, create};

const EXAMPLES: [&str; 2] = ["deploy/examples/shop", "deploy/examples/rules/shop.yaml"];
const OPENS: &str = "deploy/examples/rules/opens-the-database.yaml";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(paths: &[&str]) -> Folder {
    let inputs = paths.iter().map(|path| Input::Path(root().join(path)));
    let folder = folder::read(inputs.collect(), &Limits::default());
    assert!(folder.first_error().is_none(), "{:?}", folder.first_error());
    folder
}

/// The two policies of the example, each with its manifest.
fn policies() -> Vec<Value> {
    let objects = read(&[OPENS]).objects.into_iter();
    let objects = objects.filter_map(|placed| Some(placed.review.object?.value));
    objects.collect()
}

/// What the webhook answers to these, one after the other, each taken up where it is allowed.
async fn answers(policies: &[&Value]) -> Vec<Value> {
    let shop = read(&EXAMPLES);
    let mut snapshot = shop.snapshot.clone();
    let cluster = Cluster::start().await;
    let mut answers = Vec::new();
    for policy in policies {
        cluster.known.store(Arc::new(State {
            snapshot: snapshot.clone(),
            guardrails: Guardrails::new(vec![Guardrail::built_in().unwrap()]),
            exemptions: Exemptions::default(),
            reachability: ReachabilityRules::new(shop.rules.clone(), &snapshot),
            engine: Arc::new(NoPolicies),
        }));
        let answer = cluster.validate(&create(policy)).await;
        if answer["allowed"] == true {
            let subject = ringfence::guard::review::Subject::new((*policy).clone());
            snapshot.insert(subject.model().unwrap().clone());
        }
        answers.push(answer);
    }
    answers
}

/// Whether `ringfence check` refuses the shop with these in it, and the ids that it finds.
fn check(policies: &[&Value]) -> (bool, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    for (number, policy) in policies.iter().enumerate() {
        let file = folder.path().join(format!("{number}.json"));
        std::fs::write(file, policy.to_string()).unwrap();
    }
    let output = Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .args(["check", "--output", "json"])
        .args(EXAMPLES)
        .arg(folder.path())
        .current_dir(root())
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap().iter();
    let ids = findings.map(|finding| finding["id"].as_str().unwrap().to_owned());
    (output.status.code() == Some(1), ids.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_that_opens_a_forbidden_way_is_refused_and_neither_alone_is() {
    let policies = policies();
    let [egress, ingress] = &policies[..] else {
        panic!("two policies");
    };
    for (order, field, peer) in [
        (
            [egress, ingress],
            "spec.ingress[0]",
            "ingress rule 0, peer 0",
        ),
        ([ingress, egress], "spec.egress[0]", "egress rule 0, peer 0"),
    ] {
        let answers = answers(&order).await;
        assert_eq!(answers[0]["allowed"], true, "{:#}", answers[0]);
        assert_eq!(answers[1]["allowed"], false, "{:#}", answers[1]);
        let message = answers[1]["status"]["message"].as_str().unwrap();
        for part in [
            "opens Deployment frontend/web → ",
            " TCP 5432, which ReachabilityRule frontend-not-admin-db forbids; let through by ",
            peer,
            field,
            "[RF701]",
            "the web shop asks the backend, never the database itself",
        ] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_refuses_what_the_webhook_refuses() {
    let policies = policies();
    let mut closed = policies[1].clone();
    closed["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/name"] = "nobody".into();
    for case in [
        vec![&policies[0]],
        vec![&policies[1]],
        vec![&policies[0], &policies[1]],
        vec![&policies[0], &closed],
    ] {
        let answers = answers(&case).await;
        let refused = answers.iter().any(|answer| answer["allowed"] == false);
        let (fails, mut ids) = check(&case);
        // What is only warned of is another matter.
        ids.retain(|id| id.starts_with("RF7"));
        assert_eq!(fails, refused, "{ids:?}");
        let expected: &[&str] = if refused { &["RF701"] } else { &[] };
        assert_eq!(ids, expected);
    }
}
