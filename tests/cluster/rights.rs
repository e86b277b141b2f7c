//! `ringfence audit --access` against the API server's own word: whatever it says of a subject, a verb and a place, a
//! `SubjectAccessReview` says too.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::Command;

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRng, TestRunner};
use serde_json::{Value, json};

use crate::kubernetes::Kubernetes;

/// How many roles there are, each with two bindings.
const ROLES: usize = 30;
const NAMESPACES: [&str; 2] = ["rights-a", "rights-b"];
const USERS: [&str; 3] = ["anna", "bert", "cleo"];

/// Group, resource and whether it is in a namespace, which an API server asks for in its requests.
const RESOURCES: [(&str, &str, bool); 11] = [
    ("networking.k8s.io", "networkpolicies", true),
    ("policy.networking.k8s.io", "clusternetworkpolicies", false),
    ("", "namespaces", true),
    ("ringfence.dev", "exemptions", true),
    ("ringfence.dev", "guardrails", false),
    (
        "admissionregistration.k8s.io",
        "mutatingwebhookconfigurations",
        false,
    ),
    ("", "groups", false),
    ("", "users", false),
    ("", "serviceaccounts", true),
    ("rbac.authorization.k8s.io", "roles", true),
    ("rbac.authorization.k8s.io", "clusterroles", true),
];
const VERBS: [&str; 8] = [
    "create",
    "update",
    "patch",
    "deletecollection",
    "exempt",
    "impersonate",
    "bind",
    "escalate",
];
const NAMES: [&str; 3] = ["one", "rights-a", "ringfence.dev:break-glass"];

fn role() -> impl Strategy<Value = Value> {
    let groups = prop_oneof![
        1 => Just("*".to_owned()),
        5 => prop::sample::select(RESOURCES.to_vec()).prop_map(|(group, ..)| group.to_owned()),
    ];
    let resources = prop_oneof![
        1 => Just("*".to_owned()),
        1 => Just("networkpolicies/status".to_owned()),
        8 => prop::sample::select(RESOURCES.to_vec()).prop_map(|(_, name, _)| name.to_owned()),
    ];
    let verbs = prop_oneof![
        1 => Just("*".to_owned()),
        1 => Just("get".to_owned()),
        6 => prop::sample::select(VERBS.to_vec()).prop_map(str::to_owned),
    ];
    let names = prop::collection::vec(prop::sample::select(NAMES.to_vec()), 0..2);
    let rule = (
        prop::collection::vec(groups, 1..4),
        prop::collection::vec(resources, 1..4),
        prop::collection::vec(verbs, 1..4),
        names,
    );
    let rule = rule.prop_map(|(groups, resources, verbs, names)| {
        let mut rule = json!({"apiGroups": groups, "resources": resources, "verbs": verbs});
        if !names.is_empty() {
            rule["resourceNames"] = json!(names);
        }
        rule
    });
    prop::collection::vec(rule, 1..4).prop_map(Value::from)
}

/// Random roles, some of them of namespaces, bound to random users.
fn manifests() -> String {
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        TestRng::deterministic_rng(prop::test_runner::RngAlgorithm::ChaCha),
    );
    let mut text = String::new();
    for name in NAMESPACES {
        let _ = write!(
            text,
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}\n---\n"
        );
    }
    let api = "rbac.authorization.k8s.io/v1";
    for number in 0..ROLES {
        let rules = role().new_tree(&mut runner).unwrap().current();
        let namespace = NAMESPACES[number / 3 % 2];
        let (kind, binding) = [
            ("ClusterRole", "ClusterRoleBinding"),
            ("ClusterRole", "RoleBinding"),
            ("Role", "RoleBinding"),
        ][number % 3];
        let name = format!("rights-{number}");
        let mut made =
            json!({"apiVersion": api, "kind": kind, "metadata": {"name": name}, "rules": rules});
        let mut bound = json!({
            "apiVersion": api, "kind": binding, "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USERS[number / 2 % 3]}],
        });
        if kind == "Role" {
            made["metadata"]["namespace"] = namespace.into();
        }
        if binding == "RoleBinding" {
            bound["metadata"]["namespace"] = namespace.into();
        }
        let _ = write!(text, "{made}\n---\n{bound}\n---\n");
    }
    text
}

/// What a row of the answer says of a question.
fn says(grant: &Value, user: &str, asked: &ResourceAttributes) -> bool {
    let word = |word: &Option<String>| Value::from(word.clone().unwrap_or_default());
    let has = |field: &str, value: &Value| grant[field].as_array().unwrap().contains(value);
    let names = grant["names"].as_array().unwrap();
    grant["subject"] == json!({"kind": "User", "name": user})
        && grant["apiGroup"] == word(&asked.group)
        && grant["resource"] == word(&asked.resource)
        && has("verbs", &word(&asked.verb))
        && (grant["namespace"].is_null() || grant["namespace"] == word(&asked.namespace))
        && (names.is_empty() || names.contains(&word(&asked.name)))
}

/// All that is asked: each resource where it can be, by each verb that it has, of one object or of all.
fn questions() -> Vec<ResourceAttributes> {
    let mut questions = Vec::new();
    for (group, resource, in_namespace) in RESOURCES {
        let verbs = match (group, resource) {
            ("", "namespaces") => vec!["update", "patch"],
            ("", _) => vec!["impersonate"],
            ("rbac.authorization.k8s.io", "clusterroles") => vec!["bind"],
            ("rbac.authorization.k8s.io", _) => vec!["bind", "escalate"],
            ("ringfence.dev", "guardrails") => vec!["create", "patch", "exempt"],
            _ => vec!["create", "update", "patch", "deletecollection"],
        };
        let places = if in_namespace { &NAMESPACES[..] } else { &[""] };
        for place in places {
            for verb in &verbs {
                let names: &[&str] = match *verb {
                    "create" | "deletecollection" => &[""],
                    // The namespace of such a request is the one that it is about.
                    _ if resource == "namespaces" => &[*place],
                    _ => &NAMES,
                };
                for name in names {
                    let some = |text: &str| Some(text.to_owned());
                    questions.push(ResourceAttributes {
                        group: some(group),
                        resource: some(resource),
                        verb: some(verb),
                        namespace: some(place),
                        name: some(name),
                        ..ResourceAttributes::default()
                    });
                }
            }
        }
    }
    questions
}

#[tokio::test]
async fn who_may_what_is_what_the_api_server_itself_says() {
    let cluster = Kubernetes::start().await;
    cluster.apply(&manifests());
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_ringfence"))
            .args(["audit", "--access", "--kubeconfig"])
            .arg(cluster.kubeconfig())
            .args(arguments)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{errors}");
        String::from_utf8(output.stdout).unwrap()
    };
    let document: Value = serde_json::from_str(&run(&["--output", "json"])).unwrap();
    let grants = document["grants"].as_array().unwrap();

    let reviews: Api<SubjectAccessReview> = Api::all(cluster.client().await);
    let mut answers = BTreeSet::new();
    for user in USERS {
        for asked in questions() {
            let review = SubjectAccessReview {
                spec: SubjectAccessReviewSpec {
                    user: Some(user.to_owned()),
                    resource_attributes: Some(asked.clone()),
                    ..SubjectAccessReviewSpec::default()
                },
                ..SubjectAccessReview::default()
            };
            let answer = reviews.create(&PostParams::default(), &review).await;
            let theirs = answer.unwrap().status.unwrap().allowed;
            let ours = grants.iter().any(|grant| says(grant, user, &asked));
            assert_eq!(ours, theirs, "{user}: {asked:?}");
            answers.insert((asked.resource, theirs));
        }
    }
    assert_eq!(
        answers.len(),
        RESOURCES.len() * 2,
        "each both ways: {answers:?}"
    );

    // What is Kubernetes' own is counted, and shown when asked for.
    let text = run(&[]);
    assert!(
        text.contains("Who may write NetworkPolicies\n  in the whole cluster\n"),
        "{text}"
    );
    assert!(
        !text.contains("group system:masters") && text.contains("are left out"),
        "{text}"
    );
    assert!(run(&["--all"]).contains("group system:masters"));
}
