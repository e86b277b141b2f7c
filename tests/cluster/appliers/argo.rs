//! As Argo CD does it (argoproj/gitops-engine: `diff.ThreeWayDiff`, `sync`): all that bears the mark of the application is its
//! own; what differs after a three-way merge of the last applied, of git and of what is there is applied by kubectl, what is
//! its own and not in git is deleted.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use kube::Client;
use kube::api::ListParams;
use kube::core::Request;
use serde_json::{Map, Value, json};

use super::{MASTERS, Tracking, delete, get, member, path, send, words};
use crate::kubernetes::program;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

pub(super) struct Argo {
    pub(super) client: Client,
    pub(super) kubeconfig: PathBuf,
    pub(super) user: String,
    pub(super) application: String,
    pub(super) tracking: Tracking,
}

impl Argo {
    pub(super) async fn round(&self, mut git: Vec<Value>) -> Result<(), String> {
        for object in &mut git {
            let (key, value) = self.mark(object);
            let field = match self.tracking {
                Tracking::Annotation => "annotations",
                Tracking::Label => "labels",
            };
            member(&mut object["metadata"], field).insert(key.to_owned(), value.into());
        }
        git.sort_by_key(|object| order(object["kind"].as_str().unwrap()));
        for wanted in &git {
            let there = get(&self.client, wanted).await?;
            if there.is_none_or(|there| !is_synced(wanted, &there)) {
                self.apply(wanted).await?;
            }
        }
        let paths: Vec<String> = git.iter().map(path).collect();
        for object in self.own().await? {
            if !paths.contains(&path(&object)) {
                delete(&self.client, &object).await?;
            }
        }
        Ok(())
    }

    fn mark(&self, object: &Value) -> (&'static str, String) {
        let application = &self.application;
        match self.tracking {
            Tracking::Label => ("app.kubernetes.io/instance", application.clone()),
            Tracking::Annotation => {
                let group = match object["apiVersion"].as_str().unwrap().split_once('/') {
                    Some((group, _)) => group,
                    None => "",
                };
                let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
                let namespace = text("/metadata/namespace").unwrap_or_default();
                let (kind, name) = (text("/kind").unwrap(), text("/metadata/name").unwrap());
                let id = format!("{application}:{group}/{kind}:{namespace}/{name}");
                ("argocd.argoproj.io/tracking-id", id)
            }
        }
    }

    /// What bears the mark of the application and was not made by another object.
    async fn own(&self) -> Result<Vec<Value>, String> {
        let mut own = Vec::new();
        for (collection, api_version, kind) in KINDS {
            let list = Request::new(collection).list(&ListParams::default());
            let list = send(&self.client, list).await.map_err(words)?;
            for mut object in list["items"].as_array().unwrap().iter().cloned() {
                object["apiVersion"] = json!(api_version);
                object["kind"] = json!(kind);
                let (key, value) = self.mark(&object);
                let metadata = &object["metadata"];
                let marked = [&metadata["annotations"][key], &metadata["labels"][key]];
                if marked.contains(&&json!(value)) && metadata["ownerReferences"].is_null() {
                    own.push(object);
                }
            }
        }
        Ok(own)
    }

    async fn apply(&self, object: &Value) -> Result<(), String> {
        let mut command = Command::new(program("kubectl"));
        command
            .arg(format!("--kubeconfig={}", self.kubeconfig.display()))
            .args(["--as", &self.user, "--as-group", MASTERS])
            .args([
                "apply",
                "-f",
                "-",
                "--field-manager=argocd-controller",
                "--validate=false",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let text = object.to_string();
        let run = move || {
            use std::io::Write as _;
            let mut child = command.spawn().unwrap();
            let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
            child.wait_with_output().unwrap()
        };
        let output = tokio::task::spawn_blocking(run).await.unwrap();
        if output.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Where all objects of a kind are, for the kinds that git has.
const KINDS: [(&str, &str, &str); 3] = [
    ("/api/v1/namespaces", "v1", "Namespace"),
    (
        "/apis/networking.k8s.io/v1/networkpolicies",
        "networking.k8s.io/v1",
        "NetworkPolicy",
    ),
    ("/apis/apps/v1/deployments", "apps/v1", "Deployment"),
];

fn order(kind: &str) -> Option<usize> {
    KINDS.iter().position(|(_, _, known)| *known == kind)
}

/// Whether an object is as git has it: whether a three-way merge changes nothing.
fn is_synced(wanted: &Value, there: &Value) -> bool {
    let last = there["metadata"]["annotations"][LAST_APPLIED].as_str();
    let mut last = last.map_or_else(
        || wanted.clone(),
        |text| serde_json::from_str(text).unwrap(),
    );
    // kubectl writes them whether there are any or not.
    let metadata = last["metadata"].as_object_mut().unwrap();
    if let Some(Value::Object(annotations)) = metadata.get_mut("annotations")
        && annotations.is_empty()
    {
        metadata.remove("annotations");
    }
    merged(&last, wanted, there) == *there
}

/// What is there once git's state is applied: fields of git as git has them, those that were applied and are in git no
/// more taken away, all others as they are. Lists of what has names are merged by these.
fn merged(last: &Value, wanted: &Value, there: &Value) -> Value {
    match (wanted, there) {
        (Value::Object(wanted), Value::Object(there)) => {
            let mut result = there.clone();
            for key in last.as_object().into_iter().flat_map(Map::keys) {
                if !wanted.contains_key(key) {
                    result.remove(key);
                }
            }
            for (key, value) in wanted {
                let there = there.get(key).unwrap_or(&Value::Null);
                result.insert(key.clone(), merged(&last[key.as_str()], value, there));
            }
            Value::Object(result)
        }
        (Value::Array(wanted), Value::Array(there)) if is_named(wanted) && is_named(there) => {
            let find = |list: &Value, name: &Value| {
                let mut items = list.as_array().into_iter().flatten();
                items.find(|item| item["name"] == *name).cloned()
            };
            let there = Value::from(there.clone());
            let merge = |item: &Value| {
                let name = &item["name"];
                let last = find(last, name).unwrap_or_default();
                merged(&last, item, &find(&there, name).unwrap_or_default())
            };
            wanted.iter().map(merge).collect()
        }
        (wanted, _) => wanted.clone(),
    }
}

fn is_named(list: &[Value]) -> bool {
    !list.is_empty() && list.iter().all(|item| item["name"].is_string())
}
