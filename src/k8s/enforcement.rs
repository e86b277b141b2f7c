//! What it takes to say who enforces network policies: the model of a cluster, read once, and the receipts of its nodes.

use std::collections::BTreeMap;

use kube::Client;
use serde_json::Value;

use super::list::{ListError, Pages};
use crate::guard::audit::{self, KINDS, Kind};
use crate::guard::enforcement::doctor::Cluster as Facts;
use crate::guard::enforcement::{self, Receipt, plugins};
use crate::guard::review;
use crate::netpol::{NodeName, Object, Snapshot};

/// The kinds that say which policy holds which pod, by their plurals.
const NEEDED: [&str; 8] = [
    "namespaces",
    "networkpolicies",
    "stagednetworkpolicies",
    "clusternetworkpolicies",
    "adminnetworkpolicies",
    "baselineadminnetworkpolicies",
    "nodes",
    "pods",
];

/// Those of them that hold pods of every namespace.
const WIDE: [&str; 3] = [
    "clusternetworkpolicies",
    "adminnetworkpolicies",
    "baselineadminnetworkpolicies",
];

/// A cluster and the receipts of its nodes.
#[derive(Debug, Default)]
pub struct Standing {
    /// Namespaces, policies, nodes and pods.
    pub snapshot: Snapshot,
    /// The receipts by node; `None` where the API server does not know the kind.
    pub receipts: Option<BTreeMap<NodeName, Receipt>>,
    /// What could not be understood, each with the reason. It is in none of the above.
    pub not_understood: Vec<String>,
}

/// Reads a cluster in pages.
///
/// # Errors
///
/// A kind that a cluster cannot be without, or that is there, cannot be read.
pub async fn read(client: &Client) -> Result<Standing, ListError> {
    let mut standing = Standing::default();
    let needed = KINDS.iter().filter(|kind| NEEDED.contains(&kind.plural));
    for kind in needed {
        each(client, kind, |object| standing.take(object, kind)).await?;
    }
    standing.receipts = receipts(client, &mut standing.not_understood).await?;
    Ok(standing)
}

/// Reads the receipts by node; `None` where the API server does not know the kind.
///
/// # Errors
///
/// They are there and cannot be read.
pub async fn receipts(
    client: &Client,
    not_understood: &mut Vec<String>,
) -> Result<Option<BTreeMap<NodeName, Receipt>>, ListError> {
    let mut receipts = BTreeMap::new();
    let is_served = each(client, &enforcement::KIND, |object| {
        let name = object.pointer("/metadata/name").and_then(Value::as_str);
        let name = name.unwrap_or_default();
        match Receipt::read(&object) {
            Ok(receipt) => {
                receipts.insert(NodeName::from(name), receipt);
            }
            Err(error) => not_understood.push(format!("NodeEnforcement {name}: {error}")),
        }
    });
    Ok(is_served.await?.then_some(receipts))
}

/// What of a cluster says who enforces its policies; `registration` is the name of the webhook's.
///
/// # Errors
///
/// A kind cannot be read.
pub async fn facts(
    client: &Client,
    registration: &str,
    not_understood: &mut Vec<String>,
) -> Result<Facts, ListError> {
    let mut facts = Facts::default();
    each(client, &DAEMON_SETS, |object| {
        take_daemon_set(&mut facts, &object);
    })
    .await?;
    each(client, named("nodes")?, |object| {
        facts.nodes.extend(name(&object).map(NodeName::from));
    })
    .await?;
    facts.receipts = receipts(client, not_understood).await?;
    for plural in WIDE {
        let mut count = 0_usize;
        let wide = each(client, named(plural)?, |_| {
            count = count.saturating_add(1);
        });
        if wide.await? {
            let before = facts.wide_policies.unwrap_or_default();
            facts.wide_policies = Some(before.saturating_add(count));
        }
    }
    for plural in ["guardrails", "reachabilityrules"] {
        each(client, named(plural)?, |_| {
            facts.demands = facts.demands.saturating_add(1);
        })
        .await?;
    }
    each(client, &REGISTRATIONS, |object| {
        if name(&object) == Some(registration) {
            let entries = object.get("webhooks").and_then(Value::as_array);
            facts.webhook = Some(entries.map_or(0, Vec::len));
        }
    })
    .await?;
    Ok(facts)
}

fn take_daemon_set(facts: &mut Facts, object: &Value) {
    for plugin in plugins::of_daemon_set(object) {
        if !facts.plugins.contains(&plugin) {
            facts.plugins.push(plugin);
        }
    }
    if name(object) == Some(AGENTS) {
        let number = |field: &str| {
            let number = object.get("status").and_then(|status| status.get(field));
            number.and_then(Value::as_u64).unwrap_or_default()
        };
        facts.agents = Some((number("desiredNumberScheduled"), number("numberReady")));
        let image = object.pointer("/spec/template/spec/containers/0/image");
        facts.image = image.and_then(Value::as_str).map(str::to_owned);
    }
}

/// The DaemonSet of the agents, as deploy/agent calls it.
const AGENTS: &str = "ringfence-agent";

/// Who runs on every node.
const DAEMON_SETS: Kind = Kind {
    group: "apps",
    version: "v1",
    kind: "DaemonSet",
    plural: "daemonsets",
};

/// Who is asked about changes.
const REGISTRATIONS: Kind = Kind {
    group: "admissionregistration.k8s.io",
    version: "v1",
    kind: "ValidatingWebhookConfiguration",
    plural: "validatingwebhookconfigurations",
};

fn name(object: &Value) -> Option<&str> {
    object.pointer("/metadata/name").and_then(Value::as_str)
}

/// One of the kinds that are audited.
fn named(plural: &'static str) -> Result<&'static Kind, ListError> {
    let mut kinds = KINDS.iter();
    let kind = kinds.find(|kind| kind.plural == plural);
    kind.ok_or(ListError::Absent { kind: plural })
}

/// Gives each object of a kind away; tells whether the API server knows the kind, where a cluster can be without it.
pub async fn each(
    client: &Client,
    kind: &'static Kind,
    mut give: impl FnMut(Value),
) -> Result<bool, ListError> {
    let mut pages = Pages::of(client, kind);
    loop {
        match pages.next().await {
            Ok(Some(page)) => page.into_objects()?.into_iter().for_each(&mut give),
            Ok(None) => return Ok(true),
            Err(ListError::Absent { .. }) if kind.is_optional() => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

// === impl Standing ===

impl Standing {
    fn take(&mut self, object: Value, kind: &Kind) {
        let review = audit::review(object, kind);
        match review.object.as_ref().map(|subject| &subject.parsed) {
            Some(review::Kind::Model(parsed)) => match &parsed.object {
                Object::Workload(_) => {}
                other => self.snapshot.insert(other.clone()),
            },
            Some(review::Kind::Invalid(error)) => {
                let object = review.object_ref();
                self.not_understood.push(format!("{object}: {error}"));
            }
            _ => {}
        }
    }
}
