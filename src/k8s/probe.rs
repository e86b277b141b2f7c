//! A probe carried out in a cluster: a namespace of its own, two pods in it, then a policy; and all of it taken away again.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::one::chain;
use crate::guard::enforcement::probe::{ASKER, Heard, LISTENER, Outcome, Probe};

/// Why nothing was proved.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The API server did not take something, or could not be asked.
    #[error("{what}: {}", chain(.source))]
    Refused {
        /// What was to be done.
        what: &'static str,
        /// Its answer.
        source: kube::Error,
    },
    /// A pod did not come as far as it should.
    #[error("the pod {pod} did not {what} in {} s: {seen}", .limit.as_secs())]
    Late {
        /// Which one.
        pod: &'static str,
        /// What it was to do.
        what: &'static str,
        /// How long it was given.
        limit: Duration,
        /// How it stood last.
        seen: String,
    },
    /// The pod that listens ended too early: its silence says nothing.
    #[error("the pod {LISTENER} ended before the probe did: {0}")]
    Gone(String),
    /// The pod that asks said nothing that can be read.
    #[error("the pod {ASKER} did not say what it heard: {0}")]
    Mute(String),
    /// Whoever asked for it does not want to know any more.
    #[error("interrupted")]
    Interrupted,
    /// What was to be made is no such object.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// How long a pod may take to start: its image may have to come first.
const START: Duration = Duration::from_mins(2);
/// How long the pod that asks may take to end.
const END: Duration = Duration::from_secs(90);
/// How long it asks before there is a policy.
const BEFORE: Duration = Duration::from_secs(3);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(500);
/// How long a new namespace is given until pods may be made in it: its service account comes after it.
const SETTLED: Duration = Duration::from_secs(20);

/// Makes the namespace, gives its name to who tries, and takes it away whatever comes of that.
///
/// # Errors
///
/// Nothing was proved.
pub async fn carry_out(
    client: &Client,
    probe: &Probe,
    say: impl Fn(&str),
) -> Result<Outcome, ProbeError> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let wanted = object(Probe::namespace())?;
    let made = namespaces.create(&PostParams::default(), &wanted).await;
    let name = made.map_err(refused("cannot make a namespace"))?.name_any();
    say(&format!(
        "in the namespace {name}, which is deleted afterwards"
    ));
    let outcome = tokio::select! {
        outcome = try_in(client, &name, probe, &say) => outcome,
        _ = tokio::signal::ctrl_c() => Err(ProbeError::Interrupted),
    };
    let deleted = namespaces.delete(&name, &DeleteParams::default()).await;
    if let Err(error) = deleted {
        say(&format!(
            "the namespace {name} could not be deleted: {}",
            chain(&error)
        ));
    }
    outcome
}

async fn try_in(
    client: &Client,
    namespace: &str,
    probe: &Probe,
    say: &impl Fn(&str),
) -> Result<Outcome, ProbeError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace);
    create(&pods, probe.listener()).await?;
    say("waiting for a pod that listens");
    let listener = reached(&pods, LISTENER, "start", START, |pod| {
        phase(pod) == "Running" && !addresses(pod).is_empty()
    })
    .await?;
    let addresses = addresses(&listener);
    create(&pods, probe.asker(&addresses)).await?;
    say("waiting for a pod that asks it");
    reached(&pods, ASKER, "start", START, |pod| phase(pod) != "Pending").await?;
    sleep(BEFORE).await;
    say("denying it by a policy");
    let policy = object(Probe::policy())?;
    let made = policies.create(&PostParams::default(), &policy).await;
    made.map_err(refused("cannot make a network policy"))?;
    let asker = reached(&pods, ASKER, "end", END, has_ended).await?;
    let listener = pods.get(LISTENER).await;
    let listener = listener.map_err(refused("cannot look at a pod"))?;
    if phase(&listener) != "Running" {
        return Err(ProbeError::Gone(standing(&listener)));
    }
    Ok(Outcome {
        node: node(&listener),
        addresses,
        heard: heard(&asker)?,
    })
}

/// Makes a pod as soon as its namespace can have one.
async fn create(pods: &Api<Pod>, wanted: Value) -> Result<(), ProbeError> {
    let wanted: Pod = object(wanted)?;
    let begun = Instant::now();
    loop {
        match pods.create(&PostParams::default(), &wanted).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status))
                if status.message.contains("serviceaccount") && begun.elapsed() < SETTLED =>
            {
                sleep(LOOK).await;
            }
            Err(error) => return Err(refused("cannot make a pod")(error)),
        }
    }
}

/// Waits until a pod is as it should be.
async fn reached(
    pods: &Api<Pod>,
    name: &'static str,
    what: &'static str,
    limit: Duration,
    is_it: impl Fn(&Pod) -> bool,
) -> Result<Pod, ProbeError> {
    let begun = Instant::now();
    loop {
        let pod = pods.get(name).await;
        let pod = pod.map_err(refused("cannot look at a pod"))?;
        if is_it(&pod) {
            return Ok(pod);
        }
        if begun.elapsed() >= limit || phase(&pod) == "Failed" {
            return Err(ProbeError::Late {
                pod: name,
                what,
                limit,
                seen: standing(&pod),
            });
        }
        sleep(LOOK).await;
    }
}

fn object<T: DeserializeOwned>(value: Value) -> Result<T, ProbeError> {
    Ok(serde_json::from_value(value)?)
}

fn refused(what: &'static str) -> impl FnOnce(kube::Error) -> ProbeError {
    move |source| ProbeError::Refused { what, source }
}

fn phase(pod: &Pod) -> &str {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    phase.unwrap_or("Pending")
}

fn has_ended(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

fn node(pod: &Pod) -> String {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    node.unwrap_or_default()
}

fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let addresses = pod.status.iter().flat_map(|status| &status.pod_ips);
    let addresses = addresses.flatten();
    addresses.filter_map(|one| one.ip.parse().ok()).collect()
}

/// How a pod stands, in words: its phase, and what its container waits for or ended with.
fn standing(pod: &Pod) -> String {
    let mut words = vec![phase(pod).to_owned()];
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let conditions = conditions.into_iter().flatten();
    words.extend(conditions.filter_map(|condition| {
        let is_bad = condition.status != "True";
        condition.message.clone().filter(|_| is_bad)
    }));
    let containers = status.and_then(|status| status.container_statuses.as_ref());
    for state in containers
        .into_iter()
        .flatten()
        .filter_map(|container| container.state.as_ref())
    {
        let waiting = state.waiting.as_ref();
        words.extend(waiting.and_then(|waiting| waiting.reason.clone()));
        words.extend(waiting.and_then(|waiting| waiting.message.clone()));
        let ended = state.terminated.as_ref();
        words.extend(ended.map(|ended| format!("exit code {}", ended.exit_code)));
    }
    words.dedup();
    words.join(", ")
}

fn heard(asker: &Pod) -> Result<Heard, ProbeError> {
    let status = asker.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_ref());
    let mut containers = containers.into_iter().flatten();
    let message = containers.find_map(|container| {
        let ended = container.state.as_ref()?.terminated.as_ref()?;
        ended.message.clone()
    });
    let unread = || ProbeError::Mute(standing(asker));
    serde_json::from_str(&message.ok_or_else(unread)?).map_err(|_| unread())
}
