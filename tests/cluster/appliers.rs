//! Appliers that read and write as the tools do that keep a cluster as git has it, again and again, each in a task of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::Client;
use kube::api::DeleteParams;
use kube::core::Request;
use serde_json::{Map, Value, json};
use tokio::task::JoinHandle;

use crate::kubernetes::Kubernetes;
use argo::Argo;
use flux::Flux;

mod argo;
mod flux;

/// The time between two rounds.
const EVERY: Duration = Duration::from_millis(400);
const MASTERS: &str = "system:masters";

/// What git has for one tool.
type Git = Arc<Mutex<Vec<Value>>>;

/// How Argo CD marks what is its own (`application.resourceTrackingMethod`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tracking {
    /// An annotation that names the object as well.
    Annotation,
    /// A label, which Helm charts set, too.
    Label,
}

/// In how many stages Flux applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stages {
    /// Namespaces and the rest.
    Usual,
    /// Policies between them (`--custom-apply-stage-kinds=networking.k8s.io/NetworkPolicy`).
    PoliciesFirst,
}

/// A tool at work. It ends when this is dropped.
pub(crate) struct Applier {
    /// Whom it acts as.
    pub(crate) user: String,
    /// The namespace that git has for it.
    pub(crate) namespace: String,
    git: Git,
    rounds: Arc<Mutex<Rounds>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Rounds {
    done: u64,
    /// What went wrong in each of them that went wrong.
    failures: Vec<(u64, String)>,
}

impl Applier {
    pub(crate) async fn flux(
        cluster: &Kubernetes,
        namespace: &str,
        stages: Stages,
        git: Vec<Value>,
    ) -> Self {
        let user = format!("system:serviceaccount:flux-system:{namespace}-controller");
        let flux = Flux {
            client: cluster.client_as(&user, &[MASTERS]).await,
            stages,
            inventory: BTreeMap::new(),
        };
        Self::start(user, namespace, git, Tool::Flux(flux))
    }

    pub(crate) async fn argo(
        cluster: &Kubernetes,
        namespace: &str,
        tracking: Tracking,
        git: Vec<Value>,
    ) -> Self {
        let user = format!("system:serviceaccount:argocd:{namespace}-controller");
        let argo = Argo {
            client: cluster.client_as(&user, &[MASTERS]).await,
            kubeconfig: cluster.kubeconfig(),
            user: user.clone(),
            application: namespace.to_owned(),
            tracking,
        };
        Self::start(user, namespace, git, Tool::Argo(argo))
    }

    fn start(user: String, namespace: &str, git: Vec<Value>, mut tool: Tool) -> Self {
        let (git, rounds): (Git, Arc<Mutex<Rounds>>) = (Arc::new(Mutex::new(git)), Arc::default());
        let (source, told) = (Arc::clone(&git), Arc::clone(&rounds));
        let task = tokio::spawn(async move {
            loop {
                let git = source.lock().unwrap().clone();
                let done = match &mut tool {
                    Tool::Flux(flux) => flux.round(git).await,
                    Tool::Argo(argo) => argo.round(git).await,
                };
                {
                    let mut told = told.lock().unwrap();
                    told.done += 1;
                    if let Err(failure) = done {
                        let at = told.done;
                        told.failures.push((at, failure));
                    }
                }
                tokio::time::sleep(EVERY).await;
            }
        });
        Self {
            user,
            namespace: namespace.to_owned(),
            git,
            rounds,
            task,
        }
    }

    /// Changes what git has.
    pub(crate) fn commit(&self, change: impl Fn(&mut Vec<Value>)) {
        change(&mut self.git.lock().unwrap());
    }

    /// How many rounds are done.
    pub(crate) fn rounds(&self) -> u64 {
        self.rounds.lock().unwrap().done
    }

    /// What went wrong after so many rounds.
    pub(crate) fn failures_after(&self, rounds: u64) -> Vec<String> {
        let told = self.rounds.lock().unwrap();
        let late = told.failures.iter().filter(|(at, _)| *at > rounds);
        late.map(|(_, failure)| failure.clone()).collect()
    }
}

impl Drop for Applier {
    fn drop(&mut self) {
        self.task.abort();
    }
}

enum Tool {
    Flux(Flux),
    Argo(Argo),
}

/// The path of the objects beside this one, and its name.
fn place(object: &Value) -> (String, String) {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
    let api = match text("/apiVersion").unwrap() {
        "v1" => "/api/v1".to_owned(),
        api => format!("/apis/{api}"),
    };
    let plural = match text("/kind").unwrap() {
        "NetworkPolicy" => "networkpolicies".to_owned(),
        kind => kind.to_lowercase() + "s",
    };
    let collection = match text("/metadata/namespace") {
        Some(namespace) => format!("{api}/namespaces/{namespace}/{plural}"),
        None => format!("{api}/{plural}"),
    };
    (collection, text("/metadata/name").unwrap().to_owned())
}

fn path(object: &Value) -> String {
    let (collection, name) = place(object);
    format!("{collection}/{name}")
}

fn member<'v>(object: &'v mut Value, field: &str) -> &'v mut Map<String, Value> {
    let member = &mut object[field];
    if member.is_null() {
        *member = json!({});
    }
    member.as_object_mut().unwrap()
}

async fn send(
    client: &Client,
    request: Result<hyper::Request<Vec<u8>>, kube::core::request::Error>,
) -> Result<Value, kube::Error> {
    client.request(request.unwrap()).await
}

async fn get(client: &Client, object: &Value) -> Result<Option<Value>, String> {
    let (collection, name) = place(object);
    let get = Request::new(collection).get(&name, &kube::api::GetParams::default());
    match send(client, get).await {
        Ok(object) => Ok(Some(object)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(words(error)),
    }
}

async fn delete(client: &Client, object: &Value) -> Result<(), String> {
    let (collection, name) = place(object);
    let delete = Request::new(collection).delete(&name, &DeleteParams::background());
    match send(client, delete).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(words(error)),
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it is given to `map_err`")]
fn words(error: kube::Error) -> String {
    error.to_string()
}
