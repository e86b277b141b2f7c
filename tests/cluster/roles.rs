//! What service accounts may do and what they did: roles, and the API server's audit log as the witness.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::kubernetes::Kubernetes;

/// A verb on a resource, as roles and the audit log name them.
pub(crate) type Right = (String, String, String);

/// A kubeconfig of a service account of the installation, with a token of its own.
pub(crate) fn kubeconfig(cluster: &Kubernetes, namespace: &str, account: &str) -> PathBuf {
    let output = cluster.kubectl(&["create", "token", account, "-n", namespace], "");
    assert!(output.status.success());
    let token = String::from_utf8(output.stdout).unwrap();
    let text = std::fs::read_to_string(cluster.kubeconfig()).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["users"][0]["user"] = json!({"token": token.trim()});
    let path = cluster.folder().join(format!("{account}.kubeconfig"));
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

/// What a service account is granted.
pub(crate) fn granted(cluster: &Kubernetes, namespace: &str, account: &str) -> BTreeSet<Right> {
    let output = cluster.kubectl(
        &["get", "clusterroles,roles", "-n", namespace, "-o", "json"],
        "",
    );
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    let roles = all["items"].as_array().unwrap().iter();
    let mut rights = BTreeSet::new();
    for role in roles.filter(|role| role["metadata"]["name"] == account) {
        for rule in role["rules"].as_array().unwrap() {
            let words = |field: &str| {
                let words = rule[field].as_array().unwrap().iter();
                words
                    .map(|word| word.as_str().unwrap().to_owned())
                    .collect::<Vec<_>>()
            };
            for group in words("apiGroups") {
                for resource in words("resources") {
                    for verb in words("verbs") {
                        rights.insert((group.clone(), resource.clone(), verb));
                    }
                }
            }
        }
    }
    rights
}

/// What a service account has done, and what it was refused.
pub(crate) fn used(
    cluster: &Kubernetes,
    namespace: &str,
    account: &str,
) -> (BTreeSet<Right>, BTreeSet<Right>) {
    let user = format!("system:serviceaccount:{namespace}:{account}");
    let log = std::fs::read_to_string(cluster.audit_log(0)).unwrap();
    let (mut done, mut refused) = (BTreeSet::new(), BTreeSet::new());
    for line in log.lines() {
        // The last line may be half written.
        let Ok(event) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let object = &event["objectRef"];
        if event["user"]["username"] != user || object.is_null() {
            continue;
        }
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut resource = word(&object["resource"]);
        if let Some(part) = object["subresource"].as_str() {
            resource = format!("{resource}/{part}");
        }
        let right = (word(&object["apiGroup"]), resource, word(&event["verb"]));
        // A patch that makes an object takes the right to create it as well.
        let made = event["responseStatus"]["code"] == 201 && right.2 == "patch";
        let create = made.then(|| (right.0.clone(), right.1.clone(), "create".to_owned()));
        if event["responseStatus"]["code"] == 403 {
            refused.insert(right);
        } else {
            done.extend(create.into_iter().chain([right]));
        }
    }
    (done, refused)
}
